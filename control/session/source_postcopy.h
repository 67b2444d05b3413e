/* SPDX-License-Identifier: MIT */
/* Post-copy at the source: what its session does for it. source_postcopy.c has the theory. */
#ifndef TRANSHIP_CONTROL_SOURCE_POSTCOPY_H
#define TRANSHIP_CONTROL_SOURCE_POSTCOPY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/session/data_addresses.h"
#include "control/session/dataplane_process.h"

struct source;

struct source_postcopy {
	bool on;		  /* the switch-over is one to post-copy */
	bool complete;		  /* the destination has everything */
	bool leaving;		  /* transhipd ends; the next one goes on */
	struct dataplane dp;	  /* serves; of its own, beside the one that copied */
	struct data_addresses to; /* where the destination awaits dp's streams */
	int *ram; /* a descriptor a region: RAM outlives its VMM as long as these; owned */
	uint32_t nram;
	bool lost;		/* dp was, and no other has taken over yet */
	uint32_t encodings;	/* IPC_ENCODING_* that they may carry */
	struct ipc_stats ended; /* of all data planes that have ended */
	struct ipc_stats stats; /* of the present one */
	uint64_t stats_ns;	/* clock_ns() of stats; 0: none came yet */
	uint64_t rss_bytes;	/* the most of any */
	uint64_t heard_ns;	/* clock_ns() when the destination answered last */
	uint64_t end_ns;	/* clock_ns() when it was complete */
};

void source_postcopy_init(struct source *c);
void source_postcopy_release(struct source *c);

/* Whether the migration may end in post-copy; answer: the destination's to the offer. */
int source_postcopy_allow(struct source *c, const json_t *answer);

/* A stage: if post-copy was decided, everything that can be done before the guest is paused. */
int source_postcopy_prepare(struct source *c);
/* In the pause, the device state is saved: the last scan, whose pages are named and not sent. */
int source_postcopy_hand_over(struct source *c);
/* A stage: the guest runs there; until it has everything, whatever is lost meanwhile. */
int source_postcopy_serve(struct source *c);
/* The commit: as source_peer_commit_insist, with faults served whatever is lost meanwhile. */
int source_postcopy_commit(struct source *c, uint64_t *ran_ns, struct failure *why);
/*
 * COMMITTED, after a crash or as long as it is unresolved: one attempt to go on with it. c->g is
 * open. As serve; -EREMOTEIO: the guest never ran there and never will; other errors: not now.
 */
int source_postcopy_go_on(struct source *c);

/* What the pause must not do besides; true: post-copy was decided. */
bool source_postcopy_decided(const struct source *c);

/* What was sent, by all data planes, as far as it is a sum; zeros if there was no post-copy. */
void source_postcopy_add_stats(const struct source *c, struct ipc_stats *to);
/* Of the result; NULL if there was none. New reference. */
json_t *source_postcopy_json(const struct source *c);

#endif
