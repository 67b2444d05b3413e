/* SPDX-License-Identifier: MIT */
/*
 * The destination's side of one migration, shared by its files: session_destination.c (serving and
 * the hand-over), destination_open.c (what an offer needs), destination_end.c (ends and cleaning
 * up), destination_recover.c (after a crash), destination_peer.c (the API's threads).
 */
#ifndef TRANSHIP_CONTROL_SESSION_DESTINATION_H
#define TRANSHIP_CONTROL_SESSION_DESTINATION_H

#include "control/admission/launch.h"
#include "control/guest/guest.h"
#include "control/session/dataplane_process.h"
#include "control/session/destination_postcopy.h"
#include "control/session/session.h"
#include "dataplane/region.h"

struct destination {
	struct session *s;
	struct failure f; /* the first failure */
	struct guest *g;  /* the VM that waits; NULL: not opened, or given back */
	pid_t pid;	  /* of the VM, also when it is not open; 0: none yet */
	uint64_t start_time;
	struct launch_plan plan;
	pid_t launched; /* of the VM that we launched; 0: it was waiting already */
	struct dataplane dp;
	struct ipc_stats stats;
	char rx_reason[96];
	uint64_t promised; /* bytes of RAM that will be needed */
	bool was_running;  /* at the source */
	bool state_held;   /* the data plane has all of the device state */
	bool load_begun;   /* the VM may hold a guest, whole or not */
	bool aborted;	   /* by the source, or a person */
	struct destination_postcopy post;
};

/*
 * Checks the offer (s->request), finds or launches the VM, starts the data plane, and puts the
 * answer into s->answer. On failure what was begun is noted in d for the cleaning up.
 */
int destination_open(struct destination *d);
/* The region of the waiting VM that is wanted at the source, or -1. */
int destination_region_of(const struct guest_description *desc, const struct guest_region *wanted);

/* session_destination.c */
void destination_init(struct destination *d, struct session *s);
void destination_release(struct destination *d);
/* From COPYING, PREPARED, COMMITTED or RUNNING on, to the end of the session or of transhipd. */
void destination_serve(struct destination *d);
/*
 * COMMITTED is durable: runs the guest. 0: it runs. -ETIMEDOUT: not known yet, to be tried again.
 * Any other error: it does not, see destination_end_committed().
 */
int destination_start(struct destination *d);
/* Loads, commits and goes on as asked for, see session_destination.c; as destination_serve. */
int destination_handle_commit(struct destination *d);
/* In the state in which the VMM is, a loaded guest has not run. */
bool destination_never_ran(const struct guest_description *d);
/* True, with d->aborted and the failure, if the session was given up. */
bool destination_given_up(struct destination *d);
json_t *destination_account(const struct destination *d);

/* destination_end.c: each finishes the session. */
void destination_end_well(struct destination *d);
void destination_end_badly(struct destination *d, int err);
/* After COMMITTED: FAILED only if the guest certainly never ran and never will; else UNRESOLVED. */
void destination_end_committed(struct destination *d, int err);
void destination_end_unresolved(struct destination *d, int err);
/* The guest ran here and is gone before all of it had come. */
void destination_end_lost(struct destination *d);
/* The guest may run here, without all of its RAM, and was given up: it must not. */
void destination_end_given_up(struct destination *d);

/* destination_recover.c: what the journal says of the VM, into d. */
void destination_read_journal(struct destination *d, const json_t *content);

#endif
