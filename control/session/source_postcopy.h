/* SPDX-License-Identifier: MIT */
/* Post-copy at the source: what its session does for it. source_postcopy.c has the theory. */
#ifndef TRANSHIP_CONTROL_SOURCE_POSTCOPY_H
#define TRANSHIP_CONTROL_SOURCE_POSTCOPY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/session/data_addresses.h"
#include "control/session/dataplane_process.h"
#include "control/session/source_ram.h"

struct source;

struct source_postcopy {
	bool on;		  /* the switch-over is one to post-copy */
	bool complete;		  /* the destination has everything */
	bool leaving;		  /* transhipd ends; the next one goes on */
	bool heard;		  /* the destination answered when it was asked last */
	bool deserted;		  /* and said that nobody serves its guest's faults */
	bool revived;		  /* it was UNRESOLVED, and its destination has answered */
	struct source_ram kept;	  /* what the destination may need, whatever ends the VMM */
	unsigned int again_ms;	  /* what is waited before the next attempt to connect */
	unsigned int attempts;	  /* that have failed since it was lost */
	uint64_t served_ns;	  /* clock_ns() when dp was connected; 0: it was looked at */
	struct dataplane dp;	  /* serves; of its own, beside the one that copied */
	struct data_addresses to; /* where the destination awaits dp's streams */
	bool lost;		  /* dp was, and no other has taken over yet */
	uint32_t encodings;	  /* IPC_ENCODING_* that they may carry */
	struct ipc_stats ended;	  /* of all data planes that have ended */
	struct ipc_stats stats;	  /* of the present one */
	uint64_t stats_ns;	  /* clock_ns() of stats; 0: none came yet */
	uint64_t rss_bytes;	  /* the most of any */
	uint64_t heard_ns;	  /* clock_ns() when the destination answered last */
	uint64_t end_ns;	  /* clock_ns() when it was complete */
};

void source_postcopy_init(struct source *c);
void source_postcopy_release(struct source *c);

/* Whether the migration may end in post-copy; answer: the destination's to the offer. */
int source_postcopy_allow(struct source *c, const json_t *answer);

/*
 * A stage: if post-copy was decided, everything that can be done before the guest is paused; or, if
 * that fails and it need not be post-copy, further rounds without it.
 */
int source_postcopy_prepare(struct source *c);
/* In the pause, the device state is saved: the last scan, whose pages are named and not sent. */
int source_postcopy_hand_over(struct source *c);
/* Two new data planes, connected; of an attempt that fails nothing is left here. */
int source_postcopy_establish(struct source *c, struct failure *f);
/* A stage: the guest runs there; until it has everything, whatever is lost meanwhile. */
int source_postcopy_serve(struct source *c);
/* The commit: as source_peer_commit_insist, with faults served whatever is lost meanwhile. */
int source_postcopy_commit(struct source *c, uint64_t *ran_ns, struct failure *why);
/*
 * COMMITTED, after a crash or as long as it is unresolved: one attempt to go on with it. c->g is
 * not needed. As serve; -EREMOTEIO: the guest never ran there and never will; other errors: not
 * now.
 */
int source_postcopy_go_on(struct source *c);
/*
 * A person wants the guest to run here, or nowhere: the destination must not run it any more. 0: it
 * has stopped it, or cannot be asked, and then *owed: it has yet to hear that. -EBUSY with f: it
 * answers, and has not.
 */
int source_postcopy_take_back(struct source *c, bool *owed, struct failure *f);

/* How long a destination that has acknowledged all may take to say so, with so much RAM. */
uint64_t source_postcopy_settle_ms(uint64_t ram_bytes);

/* What the pause must not do besides; true: post-copy was decided. */
bool source_postcopy_decided(const struct source *c);

/* What was sent, by all data planes, as far as it is a sum; zeros if there was no post-copy. */
void source_postcopy_add_stats(const struct source *c, struct ipc_stats *to);
/* Of the result; NULL if there was none. New reference. */
json_t *source_postcopy_json(const struct source *c);

#endif
