// SPDX-License-Identifier: MIT
/* Members of a request by tables; see options.h. */
#include "control/session/options.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "dataplane/ipc.h"

#define TEXT_MAX PATH_MAX
#define MS_MAX	 (INT64_MAX / 1000000) /* in nanoseconds too */

const struct option_rule migration_options[] = {
	{ .name = "dry_run", .type = OPTION_BOOL },
	{ .name = "skip_check", .type = OPTION_TEXT, .max = TEXT_MAX },
	{ .name = "mode", .type = OPTION_TEXT, .min = 1, .max = TEXT_MAX },
	{ .name = "cold", .type = OPTION_BOOL },
	{ .name = "max_downtime_ms", .type = OPTION_NUMBER, .min = 1, .max = MS_MAX },
	{ .name = "timeout_ms", .type = OPTION_NUMBER, .max = MS_MAX },
	{ .name = "bandwidth",
	  .type = OPTION_NUMBER,
	  .min = OPTIONS_BANDWIDTH_MIN,
	  .max = INT64_MAX,
	  .or_zero = true },
	{ .name = "impact", .type = OPTION_NUMBER, .max = 100 },
	{ .name = "streams", .type = OPTION_NUMBER, .max = IPC_STREAMS_MAX },
	{ .name = "transport", .type = OPTION_TEXT, .min = 1, .max = TEXT_MAX },
	{ .name = "tx", .type = OPTION_TEXT, .min = 1, .max = TEXT_MAX },
	{ .name = "encrypt", .type = OPTION_TEXT, .min = 1, .max = TEXT_MAX },
	{ .name = "compress", .type = OPTION_TEXT, .min = 1, .max = TEXT_MAX },
	{ .name = "delta_cache", .type = OPTION_NUMBER, .max = INT64_MAX },
	{ .name = "page_hashes", .type = OPTION_NUMBER, .max = INT64_MAX },
	{ .name = "disks", .type = OPTION_TEXT, .min = 1, .max = TEXT_MAX },
	{ .name = "location", .type = OPTION_TEXT, .min = 1, .max = TEXT_MAX },
	{ .name = "incoming", .type = OPTION_TEXT, .min = 1, .max = TEXT_MAX },
	{ .name = "no_start", .type = OPTION_BOOL },
	{ .name = "keep_src", .type = OPTION_BOOL },
	{ .name = "keep_dst", .type = OPTION_BOOL },
	{ .name = "verify", .type = OPTION_BOOL },
	{ .name = NULL },
};

const struct option_rule *option_find(const struct option_rule *rules, const char *name)
{
	for (; rules->name; rules++)
		if (!strcmp(rules->name, name))
			return rules;
	return NULL;
}

static int check_number(const struct option_rule *r, const json_t *value, struct failure *f)
{
	json_int_t n = json_integer_value(value);

	if (json_is_integer(value) && ((n >= r->min && n <= r->max) || (r->or_zero && !n)))
		return 0;
	if (r->max == INT64_MAX)
		return failure_set(f, -EINVAL, "usage", NULL,
				   "%s is a whole number of at least %" JSON_INTEGER_FORMAT "%s.",
				   r->name, r->min, r->or_zero ? ", or 0" : "");
	return failure_set(f, -EINVAL, "usage", NULL,
			   "%s is a whole number of at least %" JSON_INTEGER_FORMAT
			   " and at most %" JSON_INTEGER_FORMAT "%s.",
			   r->name, r->min, r->max, r->or_zero ? ", or 0" : "");
}

static int check_text(const struct option_rule *r, const json_t *value, struct failure *f)
{
	json_int_t length = (json_int_t)json_string_length(value);

	if (json_is_string(value) && length >= r->min && length <= r->max)
		return 0;
	return failure_set(f, -EINVAL, "usage", NULL, "%s is a text%s.", r->name,
			   !json_is_string(value) ? ""
			   : length < r->min	  ? " that is not empty"
						  : " that is shorter");
}

int option_check(const struct option_rule *rule, const json_t *value, struct failure *f)
{
	if (!value)
		return 0;
	switch (rule->type) {
	case OPTION_NUMBER:
		return check_number(rule, value, f);
	case OPTION_TEXT:
		return check_text(rule, value, f);
	default:
		return json_is_boolean(value) ? 0
					      : failure_set(f, -EINVAL, "usage", NULL,
							    "%s is true or false.", rule->name);
	}
}

int options_check(const struct option_rule *rules, const json_t *options, struct failure *f)
{
	const char *name;
	json_t *value;

	if (!options)
		return 0;
	if (!json_is_object(options))
		return failure_set(f, -EINVAL, "usage", NULL, "The options are an object.");
	json_object_foreach ((json_t *)options, name, value) {
		const struct option_rule *rule = option_find(rules, name);
		int err;

		if (!rule)
			return failure_set(f, -EOPNOTSUPP, "unsupported-option",
					   "See docs/protocol.md for those that there are.",
					   "The option %.60s is not known to this version.", name);
		err = option_check(rule, value, f);
		if (err)
			return err;
	}
	return 0;
}

int request_check(const json_t *in, const char *const *names, struct failure *f)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)in, name, value) {
		const char *const *known = names;

		while (*known && strcmp(*known, name))
			known++;
		if (!*known)
			return failure_set(f, -EINVAL, "usage",
					   "See docs/protocol.md for those that there are.",
					   "The request has a member %.60s, which is not known.",
					   name);
	}
	return 0;
}
