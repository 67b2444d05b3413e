// SPDX-License-Identifier: MIT
/* Percentiles against a sorted list of the same values. */
#include "dataplane/bench/bench_histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#define VALUES 20000

static struct bench_histogram h, other;

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void test_empty(void **state)
{
	(void)state;
	bench_histogram_clear(&h);
	assert_int_equal(bench_histogram_quantile(&h, 500), 0);
	assert_int_equal(bench_histogram_quantile(&h, 1000), 0);
}

static void test_one_value(void **state)
{
	(void)state;
	bench_histogram_clear(&h);
	bench_histogram_add(&h, 123456789);
	assert_int_equal(h.min, 123456789);
	assert_int_equal(h.max, 123456789);
	/* never above the greatest, however wide the bucket */
	assert_int_equal(bench_histogram_quantile(&h, 1), 123456789);
	assert_int_equal(bench_histogram_quantile(&h, 999), 123456789);
}

/* Small values are exact: 1..100 once each. */
static void test_ranks(void **state)
{
	(void)state;
	bench_histogram_clear(&h);
	for (uint64_t i = 100; i; i--)
		bench_histogram_add(&h, i);
	assert_int_equal(bench_histogram_quantile(&h, 500), 50);
	assert_int_equal(bench_histogram_quantile(&h, 990), 99);
	assert_int_equal(bench_histogram_quantile(&h, 991), 100);
	assert_int_equal(bench_histogram_quantile(&h, 1000), 100);
	assert_int_equal(bench_histogram_quantile(&h, 0), 1);
}

static void test_extremes(void **state)
{
	(void)state;
	bench_histogram_clear(&h);
	bench_histogram_add(&h, 0);
	bench_histogram_add(&h, UINT64_MAX);
	assert_int_equal(h.min, 0);
	assert_int_equal(bench_histogram_quantile(&h, 500), 0);
	assert_int_equal(bench_histogram_quantile(&h, 501), UINT64_MAX);
}

static void want_near(const uint64_t *sorted, unsigned int per_mille)
{
	uint64_t exact = sorted[((uint64_t)VALUES * per_mille + 999) / 1000 - 1];
	uint64_t got = bench_histogram_quantile(&h, per_mille);

	/* the bucket's upper end: never below, and above by less than a 128th */
	assert_in_range(got, exact, exact + exact / 128 + 1);
}

static void test_against_sorting(void **state)
{
	static uint64_t values[VALUES];
	uint64_t seed = 88172645463325252ull;

	(void)state;
	bench_histogram_clear(&h);
	bench_histogram_clear(&other);
	for (int i = 0; i < VALUES; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		/* every magnitude from nanoseconds to minutes */
		values[i] = seed >> (28 + (seed & 31));
		bench_histogram_add(i % 3 ? &h : &other, values[i]);
	}
	bench_histogram_join(&h, &other);
	qsort(values, VALUES, sizeof(values[0]), by_value);
	assert_int_equal(h.count, VALUES);
	assert_int_equal(h.min, values[0]);
	assert_int_equal(h.max, values[VALUES - 1]);
	for (unsigned int p = 1; p <= 1000; p += 7)
		want_near(values, p);
	want_near(values, 990);
	want_near(values, 999);
}

static void test_joining_nothing(void **state)
{
	(void)state;
	bench_histogram_clear(&h);
	bench_histogram_clear(&other);
	bench_histogram_add(&h, 7);
	bench_histogram_join(&h, &other);
	assert_int_equal(h.min, 7);
	assert_int_equal(h.count, 1);
	bench_histogram_join(&other, &h);
	assert_int_equal(other.min, 7);
	assert_int_equal(bench_histogram_quantile(&other, 999), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),		cmocka_unit_test(test_one_value),
		cmocka_unit_test(test_ranks),		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_against_sorting), cmocka_unit_test(test_joining_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
