/* SPDX-License-Identifier: MIT */
/* OK(call(..., &f)): a call that must return 0, or the test fails with what it says in f. */
#ifndef TRANSHIP_TEST_CHECK_OK_H
#define TRANSHIP_TEST_CHECK_OK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/base/failure.h"

static struct failure f; /* of the last call */

static inline void check_ok(int ret, const char *what)
{
	if (ret)
		fail_msg("%s: %d %s: %s", what, ret, f.code, f.message);
}

#define OK(call) (failure_clear(&f), check_ok((call), #call))

/* The last call failed with err and that code. */
static inline void check_failed(int ret, int err, const char *code)
{
	assert_int_equal(ret, err);
	assert_string_equal(f.code, code);
	failure_clear(&f);
}

#endif
