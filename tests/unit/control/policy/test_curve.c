// SPDX-License-Identifier: MIT
/* Working-set curves: what is between and beyond their points. */
#include <math.h>
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

/* A set of 1000 that is written at random: what is known of 1 s tells of 4 s. */
static void what_comes_later_is_estimated(void **state)
{
	struct curve c = { 0 };

	(void)state;
	for (int ms = 50; ms <= 1000; ms += 50)
		curve_add(&c, (uint64_t)ms * MS, (uint64_t)(1e6 * (1 - exp(-ms / 1000.0))));
	assert_true(fabs(curve_estimate(&c, 4e9) - 1e6 * (1 - exp(-4))) < 6e4);
	assert_true(curve_estimate(&c, 1e12) < 1.1e6);
	assert_true(curve_estimate(&c, 5e8) == curve_bytes(&c, 5e8));
	/* in order, it is not seen to end */
	c = (struct curve){ 0 };
	curve_add(&c, 500 * MS, 500);
	curve_add(&c, 1000 * MS, 1000);
	assert_true(curve_estimate(&c, 4e9) == 4000);
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
		cmocka_unit_test(what_comes_later_is_estimated),
		cmocka_unit_test(any_time_has_a_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
