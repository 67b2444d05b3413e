// SPDX-License-Identifier: MIT
/* The failure record keeps the first cause, and its codes are well formed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "lib/base/failure.h"

static void test_first_kept(void **state)
{
	struct failure f = { 0 };

	(void)state;
	assert_false(failure_is_set(&f));
	assert_int_equal(failure_set(&f, -EIO, "internal", NULL, "disk %d", 3), -EIO);
	assert_true(failure_is_set(&f));
	assert_string_equal(f.code, "internal");
	assert_string_equal(f.message, "Disk 3");
	assert_string_equal(f.hint, "");
	assert_int_equal(failure_set(&f, -EPERM, "usage", "do it", "later"), -EPERM);
	assert_string_equal(f.code, "internal");
	failure_clear(&f);
	assert_false(failure_is_set(&f));
	failure_set(&f, -EPERM, "usage", "do it", "later");
	assert_string_equal(f.hint, "Do it");
	assert_string_equal(f.message, "Later");
	failure_clear(&f);
	failure_set(&f, -EPERM, "usage", NULL, "%s is gone", "web");
	assert_string_equal(f.message, "web is gone");
	assert_int_equal(failure_set(NULL, -ENOMEM, "internal", NULL, "nobody looks"), -ENOMEM);
}

static void test_long_text(void **state)
{
	char text[1000];
	struct failure f = { 0 };

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	failure_set(&f, -EIO, text, text, "%s", text);
	assert_int_equal(strlen(f.code), sizeof(f.code) - 1);
	assert_int_equal(strlen(f.message), sizeof(f.message) - 1);
	assert_int_equal(strlen(f.hint), sizeof(f.hint) - 1);
}

static void test_codes(void **state)
{
	(void)state;
	for (const struct failure_code *c = failure_codes; c->code; c++) {
		struct failure f = { 0 };

		assert_int_equal(strspn(c->code, "abcdefghijklmnopqrstuvwxyz-"), strlen(c->code));
		assert_true(strlen(c->code) < sizeof(f.code));
		assert_true(failure_code_known(c->code));
		assert_true(strlen(c->meaning) > 10);
		for (const struct failure_code *d = failure_codes; d != c; d++)
			assert_string_not_equal(c->code, d->code);
	}
	assert_false(failure_code_known(""));
	assert_false(failure_code_known("no-such-code"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_kept),
		cmocka_unit_test(test_long_text),
		cmocka_unit_test(test_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
