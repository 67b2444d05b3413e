/* SPDX-License-Identifier: MIT */
/*
 * A migration without a VM: the policy, unchanged, against a model of a guest, a link and a host.
 *
 * Deterministic: the same model, goals and seed give the same result. All rates are bytes per
 * second of guest memory unless wire is in the name.
 */
#ifndef TRANSHIP_CONTROL_SIMULATOR_H
#define TRANSHIP_CONTROL_SIMULATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "control/policy/curve.h"
#include "control/policy/policy.h"

#define SIMULATOR_CLASSES_MAX 32
#define SIMULATOR_ROUNDS_KEPT 64
#define SIMULATOR_PLACES      16
/* Rounds of any migration: the policy ends long before, and a test says so. */
#define SIMULATOR_ROUNDS_MAX 4096

/*
 * Memory of bytes, of which rate bytes per second are written. At random: in time t
 * bytes * (1 - exp(-rate t / bytes)) of it differ. In order: min(bytes, rate t).
 * A skewed writer (Zipf) is several classes, the hot ones small.
 */
struct simulator_class {
	double bytes, rate;
	bool in_order;
};

struct simulator_model {
	/* The guest. Its writes are the classes, or if there are none the curve. */
	double ram_bytes;
	double populated_bytes; /* the rest are holes, which cost nothing */
	double zero_share;	/* of what is populated; not sent */
	double wire_ratio;	/* wire bytes for a byte of content; 1: nothing shrinks */
	struct simulator_class classes[SIMULATOR_CLASSES_MAX];
	uint32_t nclasses;
	struct curve curve;
	double dirty_scale; /* times as fast as they say */
	/*
	 * Of what is written, the share in each part of the populated memory, in the order of a
	 * pass; all 0: it is spread evenly.
	 */
	double places[SIMULATOR_PLACES];
	/* The path: the least of them counts. */
	double link_rate;   /* wire bytes */
	double first_rate;  /* at which the hosts move memory that is new there; 0: not a limit */
	double again_rate;  /* and memory that is there already */
	double round_ns;    /* a round's own time: waiting for the last acknowledgement */
	double stream_rate; /* wire bytes of one stream; 0: not a limit */
	uint32_t streams;   /* with stream_rate */
	/* The source. */
	double scan_ns_per_gib;	   /* of RAM, one thread: looking */
	double protect_ns_per_gib; /* of what was found: protecting it again */
	uint32_t scan_threads;
	double arm_ns_per_gib; /* of what is populated: the first scan protects all of it */
	double setup_ns;
	double pause_ns; /* of a switch-over besides RAM and scans: stop, state, load, resume */
	uint32_t pause_scans; /* of all RAM in a pause */
	struct policy_abilities can;
	bool defers; /* pages that were written again before their turn wait for the next round */
	double throttle_effect; /* 0 .. 1: how much of a throttle the guest's writing feels */
	double push_share;	/* of what the hosts move that the push of post-copy reaches */
	/* What is not known: rates differ by up to this share from round to round. */
	double jitter;
	uint64_t seed;
};

struct simulator_round {
	double pending_bytes; /* when it was decided on */
	double sent_bytes;    /* of content, by the round */
	double ns;
	struct policy_decision decision;
};

struct simulator_result {
	enum policy_action end; /* never POLICY_ROUND */
	enum policy_reason reason;
	uint32_t rounds;    /* before the pause */
	double total_ns;    /* until all is at the destination, or it was given up */
	double downtime_ns; /* 0: given up */
	double promised_ns; /* what the last decision promised of it */
	double postcopy_ns; /* of total, after the guest went */
	double sent_bytes;  /* of content */
	double wire_bytes;
	double dirty_rate;				     /* at the last scan */
	double pending_bytes;				     /* at the last decision */
	uint32_t throttle;				     /* the most that was taken, percent */
	struct simulator_round round[SIMULATOR_ROUNDS_KEPT]; /* the first ones */
};

/* A model with every figure that is not the guest's or the link's as measured in docs/. */
void simulator_defaults(struct simulator_model *m);

/* Different bytes written in ns by the guest at full speed. */
double simulator_written(const struct simulator_model *m, double ns);

void simulate(const struct simulator_model *m, const struct policy_goals *goals,
	      struct simulator_result *out);

#endif
