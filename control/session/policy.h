/* SPDX-License-Identifier: MIT */
/*
 * What to do next in pre-copy: a pure function of what was measured and what was asked for.
 *
 * It is asked after every scan, when the bytes that a switch-over now would have to move in the
 * pause are known.
 */
#ifndef TRANSHIP_CONTROL_POLICY_H
#define TRANSHIP_CONTROL_POLICY_H

#include <stdint.h>

enum policy_action { POLICY_ROUND, POLICY_SWITCH_OVER, POLICY_GIVE_UP };

/* How the pending set has developed; all zero before the first scan. */
struct policy_history {
	uint64_t best_pending;	    /* the smallest pending set so far, bytes; 0: none yet */
	uint32_t rounds_since_best; /* scans since it last shrank markedly */
};

/* Adds the scan that was just decided on. */
void policy_note(struct policy_history *h, uint64_t pending_bytes);

struct policy_input {
	uint64_t max_downtime_ns;
	uint32_t round;		/* rounds sent so far */
	uint64_t pending_bytes; /* known after this scan */
	double rate;		/* guest bytes moved per second, recent rounds; 0: not known */
	double dirty_rate;	/* bytes per second, since the scan before */
	uint64_t overhead_ns;	/* of a pause besides RAM: stop, device state, load, resume */
	struct policy_history history; /* of the scans before this one */
};

struct policy_decision {
	enum policy_action action;
	uint64_t predicted_ns; /* of the pause, if it began now */
	char reason[160];
};

struct policy_decision policy_decide(const struct policy_input *in);

#endif
