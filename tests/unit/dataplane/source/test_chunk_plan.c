// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dataplane/source/chunk_plan.h"
#include "dataplane/source/page_reader.h"

static struct region region = { .index = 3, .size = 8ull * CHUNK_BYTES };
static struct chunk_plan plan;
static struct plan_frame frame;

static struct scheduler_chunk chunk_at(uint64_t first_page, uint32_t pages)
{
	return (struct scheduler_chunk){ .region = &region,
					 .first_page = first_page,
					 .pages = pages };
}

/* What the frame says, checked as the destination would. */
static uint32_t runs_of(struct wire_run *runs)
{
	struct region regions[4] = { [3] = region };
	struct wire_frame f;

	assert_int_equal(wire_get_frame(&f, frame.head, regions, 4), 0);
	assert_int_equal(f.type, WIRE_PAGES);
	assert_int_equal(f.offset, plan.first_page * PAGE_BYTES);
	assert_int_equal(frame.head_len, WIRE_FRAME_SIZE + f.count * WIRE_RUN_SIZE);
	assert_int_equal(wire_get_runs(runs, frame.head + WIRE_FRAME_SIZE,
				       frame.head_len - WIRE_FRAME_SIZE, &f, &region),
			 0);
	return f.count;
}

static void test_kinds_become_runs(void **state)
{
	struct scheduler_chunk c = chunk_at(CHUNK_PAGES, CHUNK_PAGES);
	struct plan_cursor at = { 0 };
	struct wire_run runs[WIRE_RUNS_MAX];
	uint8_t kinds[CHUNK_PAGES];

	(void)state;
	memset(kinds, PAGE_NOT_SENT, sizeof(kinds));
	memset(kinds + 2, PAGE_RAW, 3);
	memset(kinds + 5, PAGE_ZERO, 1);
	memset(kinds + 100, PAGE_HOLE, 50);
	memset(kinds + 200, PAGE_SAME, 7);
	kinds[511] = PAGE_RAW;
	plan_from_kinds(&plan, &c, kinds, NULL);
	assert_int_equal(plan.same, 7);
	assert_true(plan_next_frame(&plan, &at, CHUNK_BYTES, &frame));
	assert_int_equal(runs_of(runs), 4);
	assert_int_equal(runs[0].page, 2);
	assert_int_equal(runs[0].length, 3 * PAGE_BYTES);
	assert_int_equal(runs[1].encoding, WIRE_ENC_ZERO);
	assert_int_equal(runs[2].pages, 50);
	assert_int_equal(runs[2].encoding, WIRE_ENC_HOLE);
	assert_int_equal(frame.slices, 2);
	assert_int_equal(frame.slice[0].offset, (CHUNK_PAGES + 2ull) * PAGE_BYTES);
	assert_int_equal(frame.slice[1].offset, (CHUNK_PAGES + 511ull) * PAGE_BYTES);
	assert_null(frame.slice[1].data);
	assert_int_equal(frame.pages, 55);
	assert_int_equal(frame.payload, 4 * PAGE_BYTES);
	assert_false(plan_next_frame(&plan, &at, CHUNK_BYTES, &frame));
}

/* Frames of any size cover every page once, encoded runs whole. */
static void test_cut(void **state)
{
	static const uint64_t sizes[] = { 1,	 PAGE_BYTES, 3 * PAGE_BYTES + 5, 64 * 1024,
					  40000, 1 << 20,    CHUNK_BYTES };
	struct scheduler_chunk c = chunk_at(0, CHUNK_PAGES);
	static uint8_t data[30000];

	(void)state;
	plan_begin(&plan, &c);
	plan_add(&plan, 0, 100, WIRE_ENC_RAW);
	plan_add_data(&plan, 100, 32, WIRE_ENC_ZSTD, data, sizeof(data));
	plan_add(&plan, 140, 60, WIRE_ENC_ZERO);
	plan_add_data(&plan, 200, 1, WIRE_ENC_DELTA, data, 90);
	plan_add_data(&plan, 201, 7, WIRE_ENC_RAW, data, 7 * PAGE_BYTES);
	plan_add(&plan, 300, 212, WIRE_ENC_RAW);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct plan_cursor at = { 0 };
		struct wire_run runs[WIRE_RUNS_MAX];
		uint8_t covered[CHUNK_PAGES] = { 0 };
		uint64_t in[WIRE_ENCODINGS] = { 0 }, out = 0;

		while (plan_next_frame(&plan, &at, sizes[i], &frame)) {
			uint32_t n = runs_of(runs);
			uint64_t payload = 0;

			for (uint32_t k = 0; k < n; k++)
				for (uint32_t page = 0; page < runs[k].pages; page++)
					assert_int_equal(covered[runs[k].page + page]++, 0);
			for (uint32_t k = 0; k < frame.slices; k++)
				payload += frame.slice[k].length;
			assert_int_equal(payload, frame.payload);
			assert_true(frame.payload <= sizes[i] || frame.slices == 1);
			for (int k = 0; k < WIRE_ENCODINGS; k++)
				in[k] += frame.in[k];
			out += frame.payload;
		}
		for (uint32_t page = 0; page < CHUNK_PAGES; page++)
			assert_int_equal(covered[page],
					 page < 132 || (page >= 140 && page < 208) || page >= 300);
		assert_int_equal(in[WIRE_ENC_RAW], 319 * PAGE_BYTES);
		assert_int_equal(in[WIRE_ENC_ZSTD], 32 * PAGE_BYTES);
		assert_int_equal(in[WIRE_ENC_DELTA], PAGE_BYTES);
		assert_int_equal(out, 319 * PAGE_BYTES + sizeof(data) + 90);
	}
}

/* A run that is sent from a copy is cut in it as in the region. */
static void test_snapshot(void **state)
{
	struct scheduler_chunk c = chunk_at(0, CHUNK_PAGES);
	static uint8_t copy[CHUNK_BYTES];
	struct plan_cursor at = { 0 };
	uint8_t kinds[CHUNK_PAGES];

	(void)state;
	memset(kinds, PAGE_NOT_SENT, sizeof(kinds));
	memset(kinds + 10, PAGE_RAW, 20);
	plan_from_kinds(&plan, &c, kinds, copy);
	assert_true(plan_next_frame(&plan, &at, 4 * PAGE_BYTES, &frame));
	assert_ptr_equal(frame.slice[0].data, copy + 10 * PAGE_BYTES);
	assert_true(plan_next_frame(&plan, &at, 4 * PAGE_BYTES, &frame));
	assert_ptr_equal(frame.slice[0].data, copy + 14 * PAGE_BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds_become_runs),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
