/* SPDX-License-Identifier: MIT */
/* What a VM writes, seen from outside by an observing data plane; for dirty-rate and forecasts. */
#ifndef TRANSHIP_CONTROL_DIRTY_RATE_H
#define TRANSHIP_CONTROL_DIRTY_RATE_H

#include "control/guest/guest.h"
#include "control/policy/simulator.h"
#include "control/session/session.h"

struct dirty_measure {
	struct curve curve;	   /* of different bytes written, by doublings of time */
	double rate;		   /* bytes per second, in times of about a second */
	uint64_t working_set;	   /* bytes written at least once */
	uint64_t populated;	   /* bytes that the RAM's files hold */
	double zero_share;	   /* of them, by a sample */
	double scan_ns_per_gib;	   /* of RAM: looking */
	double protect_ns_per_gib; /* of what was found: protecting it again */
	double arm_ns_per_gib;	   /* of what is populated: the first scan */
	/* Of what was written, the share in each part of the data, in the order of a pass. */
	double places[SIMULATOR_PLACES];
};

/*
 * Watches the guest for ms milliseconds and leaves nothing in it. The session, which claims it,
 * journals what a crash would leave. stop_fd: readable ends it (-ECANCELED). -errno with f.
 */
int dirty_measure(struct session *s, struct guest *g, int stop_fd, unsigned int ms,
		  struct dirty_measure *out, struct failure *f);

#endif
