// SPDX-License-Identifier: MIT
/* The goals of a migration as members of a request's options; see goals.h. */
#include "control/session/goals.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "control/policy/policy.h"

void goals_init(struct goals *g)
{
	*g = (struct goals){ .max_downtime_ms = GOALS_DOWNTIME_MS,
			     .impact = GOALS_IMPACT,
			     .mode = policy_mode_names[POLICY_MODE_AUTO] };
}

/* Leaves *value alone if there is no such member. */
static int take_number(const json_t *options, const char *member, json_int_t min, json_int_t max,
		       uint64_t *value, struct failure *f)
{
	const json_t *j = json_object_get(options, member);

	if (!j || json_is_null(j))
		return 0;
	if (!json_is_integer(j) || json_integer_value(j) < min || json_integer_value(j) > max)
		return failure_set(f, -EINVAL, "usage", NULL,
				   "%s is a whole number of at least %" JSON_INTEGER_FORMAT
				   " and at most %" JSON_INTEGER_FORMAT ".",
				   member, min, max);
	*value = (uint64_t)json_integer_value(j);
	return 0;
}

static int take_mode(const json_t *options, const char **mode, struct failure *f)
{
	const json_t *j = json_object_get(options, "mode");
	const char *word = json_string_value(j);
	enum policy_mode wanted;

	if (!j || json_is_null(j))
		return 0;
	if (!word || policy_mode_parse(word, &wanted))
		return failure_set(f, -EINVAL, "usage", NULL,
				   "mode is auto, precopy, postcopy or hybrid, not %.40s.",
				   word ? word : "that");
	*mode = policy_mode_names[wanted];
	return 0;
}

int goals_take(struct goals *g, const json_t *options, struct failure *f)
{
	const json_int_t ms_max = INT64_MAX / 1000000; /* in nanoseconds too */
	struct goals wanted = *g;
	uint64_t impact = g->impact;
	int err = take_number(options, "max_downtime_ms", 1, ms_max, &wanted.max_downtime_ms, f);

	if (!err)
		err = take_number(options, "timeout_ms", 0, ms_max, &wanted.timeout_ms, f);
	if (!err)
		err = take_number(options, "bandwidth", 0, INT64_MAX, &wanted.bandwidth, f);
	if (!err)
		err = take_number(options, "impact", 0, 100, &impact, f);
	if (!err)
		err = take_mode(options, &wanted.mode, f);
	if (err)
		return err;
	wanted.impact = (unsigned int)impact;
	*g = wanted;
	return 0;
}

bool goals_has(const char *member)
{
	static const char *const names[] = { "max_downtime_ms", "timeout_ms", "bandwidth", "impact",
					     "mode" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(names[i], member))
			return true;
	return false;
}

json_t *goals_json(const struct goals *g)
{
	return json_pack("{s:I, s:I, s:I, s:i, s:s}", "max_downtime_ms",
			 (json_int_t)g->max_downtime_ms, "timeout_ms", (json_int_t)g->timeout_ms,
			 "bandwidth", (json_int_t)g->bandwidth, "impact", (int)g->impact, "mode",
			 g->mode);
}
