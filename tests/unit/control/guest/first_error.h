/* SPDX-License-Identifier: MIT */
/* What stands first against moving a guest. */
#ifndef TRANSHIP_TESTS_FIRST_ERROR_H
#define TRANSHIP_TESTS_FIRST_ERROR_H

#include "control/admission/preflight.h"
#include "control/guest/guest.h"
#include "tests/unit/control/guest/check_ok.h"

/* The first error's code in check()'s answer, "" if there is none. */
static inline const char *first_error_of(struct guest *g)
{
	static struct failure verdict;
	json_t *checks = json_array();

	failure_clear(&verdict);
	OK(g->ops->check(g, checks, &f));
	checks_verdict(checks, &verdict);
	json_decref(checks);
	return verdict.code;
}

#endif
