// SPDX-License-Identifier: MIT
/* Working-set curves: what is between and beyond their points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/policy/curve.h"

#define MS 1000000ull

static void nothing_is_known_of_an_empty_curve(void **state)
{
	struct curve c = { 0 };

	(void)state;
	assert_true(curve_bytes(&c, 1e9) == 0);
	assert_false(curve_spans(&c, 1));
	curve_add(&c, 0, 100);
	assert_true(curve_bytes(&c, 1e9) == 0);
}

static void lines_join_the_points(void **state)
{
	struct curve c = { 0 };

	(void)state;
	curve_add(&c, 1000 * MS, 1000);
	curve_add(&c, 100 * MS, 400);
	assert_true(curve_bytes(&c, 0) == 0);
	assert_true(curve_bytes(&c, 50e6) == 200);
	assert_true(curve_bytes(&c, 100e6) == 400);
	assert_true(curve_bytes(&c, 550e6) == 700);
	assert_true(curve_bytes(&c, 1000e6) == 1000);
	/* at most as fast as it was on the whole */
	assert_true(curve_bytes(&c, 2000e6) == 2000);
	assert_true(curve_spans(&c, 10));
	assert_false(curve_spans(&c, 11));
}

static void a_new_point_replaces_one_of_about_that_time(void **state)
{
	struct curve c = { 0 };

	(void)state;
	curve_add(&c, 1000 * MS, 1000);
	curve_add(&c, 1010 * MS, 100);
	assert_true(curve_bytes(&c, 1010e6) == 100);
	assert_false(curve_spans(&c, 1.5));
}

static void it_never_falls(void **state)
{
	struct curve c = { 0 };

	(void)state;
	curve_add(&c, 10 * MS, 500);
	curve_add(&c, 100 * MS, 300);
	assert_true(curve_bytes(&c, 100e6) == 500);
}

static void what_is_long_ago_is_forgotten(void **state)
{
	struct curve c = { 0 };

	(void)state;
	curve_add(&c, 10 * MS, 500);
	for (int i = 0; i < 30; i++)
		curve_add(&c, 1000 * MS, 1000);
	assert_false(curve_spans(&c, 2));
	assert_true(curve_bytes(&c, 10e6) == 10);
}

static void any_time_has_a_place(void **state)
{
	struct curve c = { 0 };

	(void)state;
	curve_add(&c, 1, 1);
	curve_add(&c, UINT64_MAX, 2);
	assert_true(curve_bytes(&c, 1) == 1);
	assert_true(curve_bytes(&c, 1e30) > 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_known_of_an_empty_curve),
		cmocka_unit_test(lines_join_the_points),
		cmocka_unit_test(a_new_point_replaces_one_of_about_that_time),
		cmocka_unit_test(it_never_falls),
		cmocka_unit_test(what_is_long_ago_is_forgotten),
		cmocka_unit_test(any_time_has_a_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
