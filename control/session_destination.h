/* SPDX-License-Identifier: MIT */
/* The destination's side of one migration, shared by session_destination.c and destination_open.c. */
#ifndef TRANSHIP_CONTROL_SESSION_DESTINATION_H
#define TRANSHIP_CONTROL_SESSION_DESTINATION_H

#include "control/dataplane_process.h"
#include "control/guest.h"
#include "control/launch.h"
#include "control/session.h"
#include "dataplane/region.h"

struct destination {
	struct session *s;
	struct failure f;	/* the first failure */
	struct guest *g;	/* the VM that waits */
	struct launch_plan plan;
	pid_t launched;		/* of the VM that we launched; 0: it was waiting already */
	struct dataplane dp;
	struct ipc_stats stats;
	char rx_reason[96];
	uint64_t promised;	/* bytes of RAM that will be needed */
	bool was_running;	/* at the source */
	bool state_held;	/* the data plane has all of the device state */
	bool load_begun;	/* the VM cannot wait again */
	bool aborted;		/* by the source */
};

/*
 * Checks the offer (s->request), finds or launches the VM, starts the data plane, and puts the
 * answer into s->answer. On failure what was begun is noted in d for the cleaning up.
 */
int destination_open(struct destination *d);

#endif
