/* SPDX-License-Identifier: MIT */
/*
 * What the user of a migration asks for, and may change while it runs (`tranship tune`): goals, not
 * knobs. The policy works towards them.
 */
#ifndef TRANSHIP_CONTROL_GOALS_H
#define TRANSHIP_CONTROL_GOALS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/failure.h"

#define GOALS_DOWNTIME_MS 300
#define GOALS_IMPACT	  30

struct goals {
	uint64_t max_downtime_ms;
	uint64_t timeout_ms; /* of the whole, from the session's start; 0: none */
	uint64_t bandwidth;  /* bytes per second over all streams; 0: no limit */
	unsigned int
		impact;	  /* percent that the guest's processors may be slowed down by, 0 .. 100 */
	const char *mode; /* of policy_mode_names */
};

void goals_init(struct goals *g);

/*
 * Takes over those members of options (an object, or NULL) that are goals: "max_downtime_ms",
 * "timeout_ms", "bandwidth", "impact", "mode"; their ranges are options.c's. -EINVAL (usage); g is
 * then as it was.
 */
int goals_take(struct goals *g, const json_t *options, struct failure *f);

/* True if that is the name of one. */
bool goals_has(const char *member);

/* The same members, all of them; a new reference. */
json_t *goals_json(const struct goals *g);

#endif
