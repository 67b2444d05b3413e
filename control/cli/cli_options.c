// SPDX-License-Identifier: MIT
/* Command lines by tables; see cli_options.h. */
#include "control/cli/cli_options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "control/session/options.h"
#include "lib/base/units.h"

#define USAGE_HINT "See `tranship COMMAND --help` or tranship(1)."

const struct cli_option *cli_option_find(const struct cli_option *table, const char *name,
					 size_t len)
{
	for (const struct cli_option *o = table; o && o->name; o++)
		if (strlen(o->name) == len && !memcmp(o->name, name, len))
			return o;
	return NULL;
}

static bool is_choice(const char *choices, const char *value)
{
	size_t n = strlen(value);

	while (choices && *choices) {
		size_t len = strcspn(choices, "|");

		if (len == n && !memcmp(choices, value, n))
			return true;
		choices += len + (choices[len] == '|');
	}
	return false;
}

static int parse_whole(const char *text, long min, long max, json_int_t *out)
{
	json_int_t value = 0;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	for (; *text; text++) {
		if (!isdigit((unsigned char)*text))
			return -EINVAL;
		value = value * 10 + (*text - '0');
		if (value > max)
			return -ERANGE;
	}
	*out = value;
	return value < min ? -ERANGE : 0;
}

/* "5s", "2m", or "5"; whole seconds only. */
static int parse_seconds(const char *text, long min, long max, json_int_t *out)
{
	uint64_t ms;

	if (!parse_whole(text, min, max, out))
		return 0;
	if (units_parse_time(text, &ms) || ms % 1000 || ms / 1000 < (uint64_t)min ||
	    ms / 1000 > (uint64_t)max)
		return -EINVAL;
	*out = (json_int_t)(ms / 1000);
	return 0;
}

/* A positive quantity with a unit. */
static int parse_quantity(int (*parse)(const char *, uint64_t *), const char *text, json_int_t *out)
{
	uint64_t value;
	int err = parse(text, &value);

	if (err)
		return err;
	if (!value || value > INT64_MAX)
		return -ERANGE;
	*out = (json_int_t)value;
	return 0;
}

/* Of a rate without a unit, in bits, the daemon would make a migration that never ends. */
static int parse_rate(const char *text, json_int_t *out)
{
	int err = parse_quantity(units_parse_rate, text, out);

	return !err && *out < OPTIONS_BANDWIDTH_MIN ? -ERANGE : err;
}

static void form_of(const struct cli_option *o, char *form, size_t size)
{
	const char * or = o->choices ? " or " : "", *word = o->choices ? o->choices : "";

	switch (o->kind) {
	case CLI_CHOICE:
		snprintf(form, size, "one of %s", o->choices);
		break;
	case CLI_NUMBER:
		snprintf(form, size, "a number from %ld to %ld%s%s", o->min, o->max, or, word);
		break;
	case CLI_SIZE:
		snprintf(form, size, "a size, as 64MiB or 1GiB, or 0%s%s", or, word);
		break;
	case CLI_RATE:
		snprintf(form, size,
			 "a rate with its unit, 64kbit or more, as 800Mbit or 10Gbit%s%s", or,
			 word);
		break;
	case CLI_TIME:
		snprintf(form, size, "a time with its unit, as 300ms, 10s or 5m%s%s", or, word);
		break;
	case CLI_SECONDS:
		snprintf(form, size, "whole seconds from %ld to %ld", o->min, o->max);
		break;
	default:
		snprintf(form, size, "%s (%s)", o->arg, o->help);
	}
}

static json_t *parse_value(const struct cli_option *o, const char *text)
{
	json_int_t number = 0;
	uint64_t bytes = 0;
	int err;

	switch (o->kind) {
	case CLI_SWITCH:
		return json_true();
	case CLI_TEXT:
		return *text && !(o->check && o->check(text)) ? json_string(text) : NULL;
	case CLI_CHOICE:
		return is_choice(o->choices, text) ? json_string(text) : NULL;
	case CLI_NUMBER:
		err = is_choice(o->choices, text) ? 0 : parse_whole(text, o->min, o->max, &number);
		break;
	case CLI_SIZE:
		err = is_choice(o->choices, text) ? 0 : units_parse_size(text, &bytes);
		number = (json_int_t)bytes;
		err = number < 0 ? -ERANGE : err;
		break;
	case CLI_RATE:
		err = is_choice(o->choices, text) ? 0 : parse_rate(text, &number);
		break;
	case CLI_TIME:
		err = is_choice(o->choices, text) ? 0
						  : parse_quantity(units_parse_time, text, &number);
		break;
	case CLI_SECONDS:
		err = parse_seconds(text, o->min, o->max, &number);
		break;
	default:
		err = -EINVAL;
	}
	return err ? NULL : json_integer(number);
}

static int take_option(const struct cli_option *o, const char *value, json_t *values,
		       struct failure *f)
{
	json_t *parsed = parse_value(o, value);
	char form[160];

	if (parsed)
		return json_object_set_new(values, o->member, parsed) ? -ENOMEM : 0;
	form_of(o, form, sizeof(form));
	return failure_set(f, -EINVAL, "usage", USAGE_HINT, "--%s takes %s, not '%.80s'.", o->name,
			   form, value);
}

/* argv[*i] is an option; takes the next word too if it wants one. */
static int parse_one(const struct cli_option *table, const struct cli_option *common, int argc,
		     char **argv, int *i, json_t *values, struct failure *f)
{
	const char *word = argv[*i], *name = word + 2, *value = NULL;
	size_t len = strcspn(name, "=");
	const struct cli_option *o = NULL;

	if (!strncmp(word, "--", 2)) {
		o = cli_option_find(table, name, len);
		if (!o)
			o = cli_option_find(common, name, len);
	}
	if (!o)
		return failure_set(f, -EINVAL, "usage", USAGE_HINT, "There is no option '%.80s'.",
				   word);
	if (name[len] == '=')
		value = name + len + 1;
	if (o->kind == CLI_SWITCH) {
		if (value)
			return failure_set(f, -EINVAL, "usage", USAGE_HINT, "--%s takes no value.",
					   o->name);
		return take_option(o, "", values, f);
	}
	if (!value) {
		if (*i + 1 >= argc)
			return failure_set(f, -EINVAL, "usage", USAGE_HINT,
					   "--%s needs a value: %s.", o->name, o->arg);
		value = argv[++*i];
	}
	return take_option(o, value, values, f);
}

int cli_options_parse(const struct cli_option *table, const struct cli_option *common, int argc,
		      char **argv, json_t *values, struct cli_words *words, struct failure *f)
{
	bool options = true;
	int err = 0;

	words->count = 0;
	for (int i = 0; i < argc && !err; i++) {
		if (options && !strcmp(argv[i], "--"))
			options = false;
		else if (options && argv[i][0] == '-' && argv[i][1])
			err = parse_one(table, common, argc, argv, &i, values, f);
		else if (words->count == CLI_WORDS_MAX)
			err = failure_set(f, -EINVAL, "usage", USAGE_HINT,
					  "There are too many words.");
		else
			words->word[words->count++] = argv[i];
	}
	return err;
}
