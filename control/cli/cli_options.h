/* SPDX-License-Identifier: MIT */
/*
 * Command lines by tables: an option is a row, and what was given becomes members of a JSON object,
 * in base units, as host.h wants a request's options.
 */
#ifndef TRANSHIP_CONTROL_CLI_OPTIONS_H
#define TRANSHIP_CONTROL_CLI_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/base/failure.h"

enum cli_kind {
	CLI_SWITCH,  /* true; takes no value */
	CLI_TEXT,    /* as it is; not empty */
	CLI_CHOICE,  /* one of the words of choices */
	CLI_NUMBER,  /* a whole number from min to max; the word of choices, if any, stands for 0 */
	CLI_SIZE,    /* units_parse_size: bytes; 0 too */
	CLI_RATE,    /* units_parse_rate: bytes per second; choices as CLI_NUMBER */
	CLI_TIME,    /* units_parse_time: milliseconds; choices as CLI_NUMBER */
	CLI_SECONDS, /* units_parse_time or a bare number: whole seconds from min to max */
};

struct cli_option {
	const char *name; /* without the dashes */
	const char *arg;  /* shown in help; NULL for a switch */
	enum cli_kind kind;
	const char *member;  /* where the value goes */
	const char *choices; /* "a|b|c" */
	long min, max;
	int (*check)(const char *value); /* CLI_TEXT: -EINVAL if the value is not of its form */
	const char *help;
};

/* A table ends with a row whose name is NULL. */

#define CLI_WORDS_MAX 64

struct cli_words {
	const char *word[CLI_WORDS_MAX]; /* what is no option, in order */
	int count;
};

/*
 * Parses argv[0..argc) by the tables (common may be NULL): members into values, the rest into
 * words. Options and words may mix; "--" ends the options; an option given twice keeps its last
 * value. -EINVAL with f (usage).
 */
int cli_options_parse(const struct cli_option *table, const struct cli_option *common, int argc,
		      char **argv, json_t *values, struct cli_words *words, struct failure *f);

/* The row of that name (len bytes), or NULL. */
const struct cli_option *cli_option_find(const struct cli_option *table, const char *name,
					 size_t len);

#endif
