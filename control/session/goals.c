// SPDX-License-Identifier: MIT
/* The goals of a migration as members of a request's options; see goals.h. */
#include "control/session/goals.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "control/policy/policy.h"
#include "control/session/options.h"

void goals_init(struct goals *g)
{
	*g = (struct goals){ .max_downtime_ms = GOALS_DOWNTIME_MS,
			     .impact = GOALS_IMPACT,
			     .mode = policy_mode_names[POLICY_MODE_AUTO] };
}

/* Leaves *value alone if there is no such member. */
static int take_number(const json_t *options, const char *member, uint64_t *value,
		       struct failure *f)
{
	const json_t *j = json_object_get(options, member);
	int err = option_check(option_find(migration_options, member), j, f);

	if (j && !err)
		*value = (uint64_t)json_integer_value(j);
	return err;
}

static int take_mode(const json_t *options, const char **mode, struct failure *f)
{
	const json_t *j = json_object_get(options, "mode");
	const char *word = json_string_value(j);
	enum policy_mode wanted;

	if (!j)
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
	struct goals wanted = *g;
	uint64_t impact = g->impact;
	int err = take_number(options, "max_downtime_ms", &wanted.max_downtime_ms, f);

	if (!err)
		err = take_number(options, "timeout_ms", &wanted.timeout_ms, f);
	if (!err)
		err = take_number(options, "bandwidth", &wanted.bandwidth, f);
	if (!err)
		err = take_number(options, "impact", &impact, f);
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
