/* SPDX-License-Identifier: MIT */
/*
 * What a request may contain: its members by tables, so that none is taken for what it is not. A
 * member of another type, out of its range or of a name that is not known is refused: who misspells
 * dry_run must not see his VM move. docs/protocol.md has the same tables.
 */
#ifndef TRANSHIP_CONTROL_OPTIONS_H
#define TRANSHIP_CONTROL_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/base/failure.h"

/* Bytes per second, 64 kbit/s: whoever asks for less has forgotten the unit. */
#define OPTIONS_BANDWIDTH_MIN 8000

enum option_type { OPTION_BOOL, OPTION_NUMBER, OPTION_TEXT };

struct option_rule {
	const char *name;
	enum option_type type;
	/* Of numbers, which are whole, and of the bytes of a text. */
	json_int_t min, max;
	bool or_zero; /* numbers: 0 too */
};

/* Of a migration, also as its destination and a forecast see them; name NULL at the end. */
extern const struct option_rule migration_options[];

/* NULL if there is none of that name. */
const struct option_rule *option_find(const struct option_rule *rules, const char *name);

/* 0, or -EINVAL (usage). An absent value (NULL) is no error. */
int option_check(const struct option_rule *rule, const json_t *value, struct failure *f);

/*
 * Every member of options (NULL: none). -EINVAL (usage), also if it is no object; -EOPNOTSUPP
 * (unsupported-option) for a member that has no rule.
 */
int options_check(const struct option_rule *rules, const json_t *options, struct failure *f);

/* The members of a request itself, NULL at the end: -EINVAL (usage) if there is another. */
int request_check(const json_t *in, const char *const *names, struct failure *f);

#endif
