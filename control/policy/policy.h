/* SPDX-License-Identifier: MIT */
/*
 * What to do next in a migration: a pure function of what was measured and what was asked for.
 *
 * It is asked after every scan, when the bytes that a switch-over now would have to move in the
 * pause are known. It has no clock, no memory and no means of its own: what it knows of earlier
 * rounds is in struct policy_history, which its caller keeps with policy_note_*. So it runs the
 * same in a session (control/session/source_copy.c) and in the simulator (simulator.h).
 */
#ifndef TRANSHIP_CONTROL_POLICY_H
#define TRANSHIP_CONTROL_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "control/policy/curve.h"

#define POLICY_IMPACT_MAX 99u /* percent: a guest that stands still is not slowed but stopped */

enum policy_mode {
	POLICY_MODE_AUTO,     /* hybrid where post-copy can be had, else pre-copy */
	POLICY_MODE_PRECOPY,  /* the guest never runs before all of its RAM is there */
	POLICY_MODE_POSTCOPY, /* one pass, then post-copy */
	POLICY_MODE_HYBRID,   /* pre-copy while it pays, throttle within impact, else post-copy */
};

/* NULL-terminated, in the order of enum policy_mode: the words of --mode. */
extern const char *const policy_mode_names[];

struct policy_goals {
	enum policy_mode mode;
	uint64_t max_downtime_ns;
	uint64_t timeout_ns; /* of the whole migration; 0: none */
	uint64_t bandwidth;  /* bytes per second on the wire; 0: not limited */
	uint32_t impact;     /* 0 .. 100: percent by which the guest may be slowed */
};

/* What this host and this guest can do besides rounds. */
struct policy_abilities {
	bool throttle, postcopy;
};

/* A prediction from here on says that nothing is known yet. */
#define POLICY_UNKNOWN_NS (UINT64_MAX / 4)

/* What was calculated, as it is counted: nothing below 0, nothing beyond what is known. */
static inline uint64_t policy_whole(double x)
{
	return x >= (double)POLICY_UNKNOWN_NS ? POLICY_UNKNOWN_NS : x > 0 ? (uint64_t)x : 0;
}

#define POLICY_ROUNDS_KEPT 8

/* How a migration has developed; all zero before its first scan. */
struct policy_history {
	uint32_t nscans;	    /* ever */
	uint64_t best_pending;	    /* the smallest pending set so far, bytes */
	uint32_t rounds_since_best; /* scans since it last shrank markedly, or since a throttling */
	struct curve curve;	    /* by the guest's own time, that is: as if it were not slowed */
	struct {
		uint64_t predicted_ns, actual_ns;
	} rounds[POLICY_ROUNDS_KEPT]; /* the latest; rounds[n % POLICY_ROUNDS_KEPT] */
	uint32_t nrounds;	      /* ever */
	/* The last scan, and the latest before it that found a set of another size; ns 0: none. */
	struct policy_scan {
		uint64_t bytes, ns;
	} last_scan, other_scan;
};

struct policy_input {
	struct policy_goals goals;
	struct policy_abilities can;
	uint64_t elapsed_ns;	 /* since the migration's start */
	uint32_t round;		 /* rounds sent so far; the first is a full pass */
	uint64_t ram_bytes;	 /* of the guest, populated or not */
	uint64_t pending_bytes;	 /* known after this scan */
	uint64_t pending_chunks; /* of 2 MiB, in which they lie */
	uint64_t sent_bytes;	 /* guest bytes that the last round moved */
	double rate;		 /* guest bytes with content moved per second; 0: not known */
	double wire_ratio;	 /* wire bytes for one of those; 0: not known */
	double dirty_rate;	 /* different bytes per second, since the scan before */
	uint64_t since_ns;	 /* time between the two scans; 0: not known */
	uint64_t scan_ns;	 /* duration of the last scan */
	uint64_t look_ns;	 /* of one that found next to nothing; 0: not known */
	uint64_t gap_ns;	 /* between the last scan's start and a guest stopped after it */
	uint64_t overhead_ns;	 /* of a pause besides RAM and scans: stop, state, load, resume */
	uint32_t pause_scans;	 /* of all RAM, in a pause */
	uint64_t postcopy_ns;	 /* of a switch to post-copy: as overhead_ns, and one scan */
	uint32_t throttle;	 /* percent in force since the scan before */
	bool asked;		 /* a person wants the switch-over now */
	struct policy_history history; /* of the scans before this one */
};

enum policy_action {
	POLICY_ROUND,	    /* set the throttle as decided, send what is pending */
	POLICY_SWITCH_OVER, /* pause, send what is pending, run the guest at the destination */
	POLICY_POSTCOPY,    /* pause, run the guest at the destination, send what is pending */
	POLICY_GIVE_UP,	    /* the guest stays */
};

enum policy_reason {
	POLICY_FIRST_ROUND,
	POLICY_SHORTENS,
	POLICY_TOO_LONG,
	POLICY_UNCERTAIN,
	POLICY_THROTTLES,
	POLICY_NOTHING_LEFT,
	POLICY_MILLISECONDS,
	POLICY_ENOUGH_ROUNDS,
	POLICY_LOCAL_MINIMUM,
	POLICY_NO_TIME_LEFT,
	POLICY_ASKED,
	POLICY_ONE_PASS,
	POLICY_DOES_NOT_PAY,
	POLICY_STALLED,
	POLICY_BELOW_FLOOR,
	POLICY_TIMED_OUT,
	POLICY_REASONS,
};

/* "round", "switch-over", "postcopy", "give-up". */
const char *policy_action_name(enum policy_action action);
/* A stable word, as "local-minimum", and its sentence without a full stop. */
const char *policy_reason_name(enum policy_reason reason);
const char *policy_reason_text(enum policy_reason reason);

struct policy_decision {
	enum policy_action action;
	enum policy_reason reason;
	uint64_t predicted_ns; /* of the pause, if it began now: of this action, if it has one */
	uint64_t floor_ns;     /* of a pause with nothing to send, as far as it is known */
	uint64_t margin_ns;    /* by how much predictions have been wrong; both: what is promised */
	uint32_t throttle;     /* percent from now on */
};

struct policy_decision policy_decide(const struct policy_input *in);

/* The mode of that name, or -EINVAL. */
int policy_mode_parse(const char *name, enum policy_mode *mode);

/* Adds a scan and what was decided after it. */
void policy_note_scan(struct policy_history *h, const struct policy_input *in,
		      const struct policy_decision *d);
/* Adds a round that was predicted to take so long and took so long. */
void policy_note_round(struct policy_history *h, uint64_t predicted_ns, uint64_t actual_ns);

/* How long bytes of content take at in's rate and within its bandwidth. */
uint64_t policy_transfer_ns(const struct policy_input *in, uint64_t bytes);

/*
 * How long the pause of a switch to post-copy is for naming what is missing, in so many chunks of
 * 2 MiB, over a link of wire_rate bytes per second; 0: as if it took no time. No bandwidth limit
 * holds it back.
 */
double policy_hand_over_ns(double ram_bytes, double chunks, double wire_rate);

#endif
