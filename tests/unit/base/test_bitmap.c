// SPDX-License-Identifier: MIT
/* Bitmap arithmetic against a byte per bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/bitmap.h"

#define BITS 331 /* no multiple of 64 */

struct model {
	struct bitmap bitmap;
	uint8_t bits[BITS];
};

static uint64_t pick(uint64_t below)
{
	return (uint64_t)rand() % below;
}

static void check_same(const struct model *m)
{
	uint64_t set = 0;

	for (uint64_t i = 0; i < BITS; i++) {
		assert_int_equal(bitmap_test(&m->bitmap, i), m->bits[i]);
		set += m->bits[i];
	}
	assert_int_equal(bitmap_count(&m->bitmap), set);
}

static void check_runs(const struct model *m, uint64_t from, uint64_t limit)
{
	uint64_t at, first, count, expected = from;

	for (at = from; bitmap_next_run(&m->bitmap, at, limit, &first, &count);
	     at = first + count) {
		assert_true(count > 0 && first >= at && first + count <= limit);
		for (; expected < first; expected++)
			assert_false(m->bits[expected]);
		for (; expected < first + count; expected++)
			assert_true(m->bits[expected]);
		assert_true(first + count == limit || !m->bits[first + count]);
	}
	for (; expected < limit; expected++)
		assert_false(m->bits[expected]);
}

static void test_against_model(void **state)
{
	struct model m = { 0 };

	(void)state;
	srand(1);
	assert_int_equal(bitmap_init(&m.bitmap, BITS), 0);
	for (int i = 0; i < 3000; i++) {
		uint64_t first = pick(BITS), count = pick(BITS - first + 1), expected = 0;
		int op = (int)pick(3);

		for (uint64_t b = first; b < first + count; b++) {
			expected += op == 2 ? !m.bits[b] : m.bits[b];
			m.bits[b] = op == 1 ? 0 : 1;
		}
		if (op == 0) {
			assert_int_equal(bitmap_count_range(&m.bitmap, first, count), expected);
			bitmap_set_range(&m.bitmap, first, count);
		} else if (op == 1) {
			bitmap_clear_range(&m.bitmap, first, count);
		} else {
			assert_int_equal(bitmap_set_range_atomic(&m.bitmap, first, count),
					 expected);
		}
		check_same(&m);
		check_runs(&m, pick(BITS / 2), BITS / 2 + pick(BITS / 2));
	}
	bitmap_clear_all(&m.bitmap);
	assert_int_equal(bitmap_count(&m.bitmap), 0);
	bitmap_release(&m.bitmap);
	bitmap_release(&m.bitmap); /* twice is allowed */
}

static void test_edges(void **state)
{
	struct bitmap b, other;
	uint64_t first, count;

	(void)state;
	assert_int_equal(bitmap_init(&b, 0), 0);
	assert_int_equal(bitmap_count(&b), 0);
	assert_false(bitmap_next_run(&b, 0, 0, &first, &count));
	bitmap_release(&b);

	assert_int_equal(bitmap_init(&b, 128), 0);
	bitmap_set_range(&b, 0, 128);
	assert_true(bitmap_next_run(&b, 0, 128, &first, &count));
	assert_int_equal(first, 0);
	assert_int_equal(count, 128);
	assert_true(bitmap_next_run(&b, 3, 70, &first, &count));
	assert_int_equal(first, 3);
	assert_int_equal(count, 67);
	bitmap_clear_range(&b, 64, 64);
	assert_int_equal(bitmap_count_range(&b, 60, 68), 4);
	assert_false(bitmap_next_run(&b, 64, 128, &first, &count));
	assert_false(bitmap_next_run(&b, 128, 128, &first, &count));

	assert_int_equal(bitmap_init(&other, 128), 0);
	bitmap_set_range(&other, 100, 1);
	bitmap_or(&b, &other);
	assert_int_equal(bitmap_count(&b), 65);
	assert_true(bitmap_test(&b, 100));
	bitmap_set_range(&b, 5, 0);
	bitmap_clear_range(&b, 5, 0);
	assert_int_equal(bitmap_count(&b), 65);
	bitmap_release(&b);
	bitmap_release(&other);
}

#define THREADS	    4
#define SHARED_BITS 100003

static struct bitmap shared;

static void *set_all(void *arg)
{
	uint64_t *added = arg;

	/* ranges that share words with their neighbours, in another order on each thread */
	for (uint64_t i = 0; i < SHARED_BITS; i += 7) {
		uint64_t first = (i * 31) / 7 * 7 % SHARED_BITS;
		uint64_t count = first + 7 <= SHARED_BITS ? 7 : SHARED_BITS - first;

		*added += bitmap_set_range_atomic(&shared, first, count);
		*added += bitmap_set_range_atomic(&shared, i,
						  i + 7 <= SHARED_BITS ? 7 : SHARED_BITS - i);
	}
	return NULL;
}

static void test_atomic(void **state)
{
	pthread_t threads[THREADS];
	uint64_t added[THREADS] = { 0 }, total = 0;

	(void)state;
	assert_int_equal(bitmap_init(&shared, SHARED_BITS), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, set_all, &added[i]), 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		total += added[i];
	}
	/* each bit was new to exactly one call */
	assert_int_equal(total, SHARED_BITS);
	assert_int_equal(bitmap_count(&shared), SHARED_BITS);
	bitmap_release(&shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_atomic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
