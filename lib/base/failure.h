/* SPDX-License-Identifier: MIT */
/*
 * What went wrong, as a person and a script must see it: a stable code, one sentence, what to do.
 *
 * Functions return 0 or -errno; those whose failure reaches the user also fill a struct failure.
 * Codes are listed in failure_codes[] (failure.c) and documented in tranship(1), ERRORS; a test
 * keeps the two equal. A code never changes its meaning once released.
 */
#ifndef TRANSHIP_BASE_FAILURE_H
#define TRANSHIP_BASE_FAILURE_H

#include <stdarg.h>
#include <stdbool.h>

struct failure {
	char code[40];	   /* stable, lower case with dashes; "" means: no failure */
	char message[400]; /* one sentence, no newline */
	char hint[400];	   /* what to do; may be empty */
};

/*
 * Fills f (which may be NULL) unless it already holds a failure: the first one, closest to the
 * cause, is kept. Returns err, so that callers can write `return failure_set(...)`.
 * hint may be NULL.
 */
int failure_set(struct failure *f, int err, const char *code, const char *hint, const char *fmt,
		...) __attribute__((format(printf, 5, 6)));

void failure_clear(struct failure *f);

static inline bool failure_is_set(const struct failure *f)
{
	return f->code[0] != '\0';
}

/* The documented codes with their one-line meanings, NULL-terminated. */
struct failure_code {
	const char *code;
	const char *meaning;
};
extern const struct failure_code failure_codes[];

/* True if code is in failure_codes[]. */
bool failure_code_known(const char *code);

#endif
