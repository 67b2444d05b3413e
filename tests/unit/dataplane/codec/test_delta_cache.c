// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dataplane/codec/delta_cache.h"

static struct region regions[2] = {
	{ .index = 0, .size = 3ull * CHUNK_BYTES + 5 * PAGE_BYTES },
	{ .index = 1, .size = 16ull * CHUNK_BYTES },
};
static uint8_t in[DELTA_CACHE_RUN * PAGE_BYTES], out[DELTA_CACHE_RUN * PAGE_BYTES];

static void put(struct delta_cache *c, uint32_t region, uint64_t first, uint32_t count,
		uint8_t value, uint32_t round)
{
	for (uint32_t i = 0; i < count; i++)
		memset(in + i * PAGE_BYTES, (int)(value + i), PAGE_BYTES);
	delta_cache_put(c, &regions[region], first, count, in, round);
}

static void expect(struct delta_cache *c, uint32_t region, uint64_t page, int value)
{
	uint32_t found = delta_cache_get(c, &regions[region], page, 1, out);

	assert_int_equal(found, value >= 0);
	for (uint32_t i = 0; value >= 0 && i < PAGE_BYTES; i++)
		assert_int_equal(out[i], value);
}

static void test_put_get_forget(void **state)
{
	struct delta_cache *c;

	(void)state;
	assert_int_equal(delta_cache_new(&c, 8 << 20, regions, 2), 0);
	expect(c, 0, 0, -1);
	put(c, 0, 3 * CHUNK_PAGES, 5, 10, 2);
	put(c, 1, 0, 32, 100, 2);
	expect(c, 0, 3 * CHUNK_PAGES + 4, 14);
	expect(c, 0, 0, -1);
	expect(c, 1, 31, 131);
	put(c, 1, 3, 2, 50, 3);
	expect(c, 1, 2, 102);
	expect(c, 1, 4, 51);
	assert_int_equal(delta_cache_pages(c), 37);
	/* bits of a run that is known in parts */
	delta_cache_forget(c, &regions[1], 8, 8);
	assert_int_equal(delta_cache_get(c, &regions[1], 0, 32, out), 0xffff00ff);
	assert_int_equal(out[7 * PAGE_BYTES + 9], 107);
	assert_int_equal(out[16 * PAGE_BYTES], 116);
	delta_cache_forget(c, &regions[1], 0, CHUNK_PAGES);
	assert_int_equal(delta_cache_get(c, &regions[1], 0, 32, out), 0);
	assert_int_equal(delta_cache_pages(c), 5);
	put(c, 1, 0, 1, 7, 4);
	expect(c, 1, 0, 7);
	delta_cache_free(c);
}

/* What is used stays when more is put than fits; what was not used for a round may go. */
static void test_hot_set_stays(void **state)
{
	const uint64_t hot = 64;
	uint64_t slots, rest = 8ull * CHUNK_PAGES, kept = 0;
	struct delta_cache *c;

	(void)state;
	assert_int_equal(delta_cache_new(&c, 1 << 20, regions, 2), 0);
	for (uint64_t i = 0; i < hot; i += 32)
		put(c, 1, i, 32, (uint8_t)i, 2);
	for (uint64_t i = 0; i < rest; i += 32)
		put(c, 1, CHUNK_PAGES + i, 32, 1, 2);
	slots = delta_cache_pages(c);
	assert_in_range(slots, 240, 256);
	for (uint32_t round = 3; round < 20; round++) {
		for (uint64_t i = 0; i < hot; i += 32) {
			assert_int_equal(delta_cache_get(c, &regions[1], i, 32, out), 0xffffffff);
			put(c, 1, i, 32, (uint8_t)(i + round), round);
		}
		for (uint64_t i = 0; i < rest; i += 32)
			put(c, 1, CHUNK_PAGES + i, 32, (uint8_t)round, round);
		assert_int_equal(delta_cache_pages(c), slots);
	}
	expect(c, 1, 5, 5 + 19);
	/* Another set becomes the hot one. */
	for (uint32_t round = 20; round < 24; round++)
		for (uint64_t i = 0; i < 128; i += 32)
			put(c, 1, 10 * CHUNK_PAGES + i, 32, 9, round);
	for (uint64_t i = 0; i < 128; i += 32)
		kept += (uint64_t)__builtin_popcount(
			delta_cache_get(c, &regions[1], 10 * CHUNK_PAGES + i, 32, out));
	assert_int_equal(kept, 128);
	delta_cache_free(c);
}

static void test_tiny(void **state)
{
	struct delta_cache *c;

	(void)state;
	assert_int_equal(delta_cache_new(&c, 100, regions, 2), 0);
	put(c, 1, 0, 32, 1, 2);
	put(c, 1, 0, 32, 1, 9);
	expect(c, 1, 0, -1);
	delta_cache_forget(c, &regions[1], 0, 32);
	delta_cache_free(c);
	delta_cache_free(NULL);
}

/* Against a model without a limit: never a version that was not the last, and the counts hold. */
static void test_random(void **state)
{
	static int model[2][16 * CHUNK_PAGES];
	uint64_t x = 88172645463325252ull;
	struct delta_cache *c;

	(void)state;
	memset(model, -1, sizeof(model));
	assert_int_equal(delta_cache_new(&c, 40 << 20, regions, 2), 0);
	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t r, count;
		uint64_t first, known = 0;
		uint32_t found;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		r = (uint32_t)(x >> 60) % 2;
		first = (x >> 20) % (region_pages(&regions[r]) - 4);
		count = 1 + (uint32_t)(x >> 40) % 32;
		if (count > CHUNK_PAGES - first % CHUNK_PAGES)
			count = (uint32_t)(CHUNK_PAGES - first % CHUNK_PAGES);
		if (count > region_pages(&regions[r]) - first)
			count = (uint32_t)(region_pages(&regions[r]) - first);
		if ((x >> 50) % 4 == 0) {
			delta_cache_forget(c, &regions[r], first, count);
			for (uint32_t i = 0; i < count; i++)
				model[r][first + i] = -1;
			continue;
		}
		found = delta_cache_get(c, &regions[r], first, count, out);
		for (uint32_t i = 0; i < count; i++) {
			if (!(found >> i & 1))
				continue;
			known++;
			assert_int_equal(out[i * PAGE_BYTES + step % PAGE_BYTES],
					 model[r][first + i]);
		}
		put(c, r, first, count, (uint8_t)x, 2 + step / 1000);
		for (uint32_t i = 0; i < count; i++)
			model[r][first + i] = (uint8_t)(x + i);
		assert_true(known <= count);
	}
	for (uint32_t r = 0; r < 2; r++)
		for (uint64_t p = 0; p < region_pages(&regions[r]); p++)
			if (delta_cache_get(c, &regions[r], p, 1, out))
				assert_int_equal(out[0], model[r][p]);
			else
				model[r][p] = -1;
	delta_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_get_forget),
		cmocka_unit_test(test_hot_set_stays),
		cmocka_unit_test(test_tiny),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
