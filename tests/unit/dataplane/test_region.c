// SPDX-License-Identifier: MIT
/* Extents of a region's file, where the region begins and ends inside a larger one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dataplane/region.h"

#define PAGES	     64
#define OFFSET_PAGES 10

static struct region make(void)
{
	struct region r = { .page_size = PAGE_BYTES,
			    .size = PAGES * PAGE_BYTES,
			    .file_offset = OFFSET_PAGES * PAGE_BYTES };

	r.fd = memfd_create("region", MFD_CLOEXEC);
	assert_true(r.fd >= 0);
	assert_int_equal(ftruncate(r.fd, (off_t)(r.file_offset + 2 * r.size)), 0);
	return r;
}

static void fill(const struct region *r, uint64_t first, uint64_t count)
{
	static const char page[PAGE_BYTES] = { 1 };

	for (uint64_t i = first; i < first + count; i++)
		assert_int_equal(
			pwrite(r->fd, page, sizeof(page), (off_t)(r->file_offset + i * PAGE_BYTES)),
			PAGE_BYTES);
}

static void check_extents(const struct region *r, const char *expected)
{
	struct bitmap b;
	char text[PAGES + 1] = { 0 };

	assert_int_equal(bitmap_init(&b, PAGES), 0);
	assert_int_equal(region_extents(r, &b), 0);
	for (int i = 0; i < PAGES; i++)
		text[i] = bitmap_test(&b, (uint64_t)i) ? '#' : '.';
	assert_string_equal(text, expected);
	bitmap_release(&b);
}

static void test_extents(void **state)
{
	struct region r = make();
	uint64_t start, end;

	(void)state;
	/* data just before and after the region is not the region's */
	fill(&r, (uint64_t)-1, 1);
	fill(&r, PAGES, 3);
	assert_int_equal(region_next_data(&r, 0, &start, &end), -ENXIO);
	check_extents(&r, "................................................................");
	fill(&r, 0, 2);
	fill(&r, 5, 1);
	fill(&r, 62, 2);
	check_extents(&r, "##...#........................................................##");
	assert_int_equal(region_next_data(&r, 0, &start, &end), 0);
	assert_int_equal(start, 0);
	assert_int_equal(end, 2 * PAGE_BYTES);
	assert_int_equal(region_next_data(&r, PAGE_BYTES, &start, &end), 0);
	assert_int_equal(start, PAGE_BYTES);
	assert_int_equal(region_next_data(&r, end, &start, &end), 0);
	assert_int_equal(start, 5 * PAGE_BYTES);
	assert_int_equal(end, 6 * PAGE_BYTES);
	assert_int_equal(region_next_data(&r, 63 * PAGE_BYTES, &start, &end), 0);
	assert_int_equal(end, r.size);
	assert_int_equal(region_next_data(&r, r.size, &start, &end), -ENXIO);

	assert_int_equal(fallocate(r.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)r.file_offset, PAGE_BYTES),
			 0);
	check_extents(&r, ".#...#........................................................##");
	region_release(&r);
	assert_int_equal(r.fd, -1);
}

static void test_reading_a_hole(void **state)
{
	struct region r = make();

	(void)state;
	fill(&r, 3, 1);
	assert_int_equal(region_map(&r, false), 0);
	assert_int_equal(region_map(&r, false), -EEXIST);
	assert_int_equal(r.map[3 * PAGE_BYTES], 1);
	/* this is why holes are asked for and never touched: reading one fills it */
	check_extents(&r, "...#............................................................");
	assert_int_equal(*(volatile uint8_t *)&r.map[7 * PAGE_BYTES], 0);
	check_extents(&r, "...#...#........................................................");
	region_release(&r);
	assert_null(r.map);
}

static void test_writable(void **state)
{
	struct region r = make();
	uint8_t byte = 0;

	(void)state;
	assert_int_equal(region_map(&r, true), 0);
	r.map[PAGE_BYTES] = 9;
	assert_int_equal(pread(r.fd, &byte, 1, (off_t)r.file_offset + PAGE_BYTES), 1);
	assert_int_equal(byte, 9);
	region_release(&r);
	region_release(&r); /* twice is allowed */
}

static void test_hugetlb_is_all_data(void **state)
{
	struct region r = make();
	uint64_t start, end;

	(void)state;
	r.hugetlb = true;
	check_extents(&r, "################################################################");
	assert_int_equal(region_next_data(&r, 8 * PAGE_BYTES, &start, &end), 0);
	assert_int_equal(start, 8 * PAGE_BYTES);
	assert_int_equal(end, r.size);
	region_release(&r);
}

static void test_errors(void **state)
{
	struct region r = make();
	struct bitmap b;

	(void)state;
	close(r.fd);
	assert_int_equal(bitmap_init(&b, PAGES), 0);
	assert_int_equal(region_extents(&r, &b), -EBADF);
	assert_int_equal(region_map(&r, false), -EBADF);
	bitmap_release(&b);
	r.fd = -1;
	region_release(&r);
}

/* Extents read part by part are those of the whole, whatever is full, empty or mixed. */
static void test_extents_by_parts(void **state)
{
	const uint64_t chunks = 8, pages = chunks * CHUNK_PAGES;
	struct region r = { .page_size = PAGE_BYTES,
			    .size = pages * PAGE_BYTES,
			    .file_offset = OFFSET_PAGES * PAGE_BYTES };
	uint64_t seed = 7;
	struct bitmap want, got;

	(void)state;
	r.fd = memfd_create("region", MFD_CLOEXEC);
	assert_int_equal(ftruncate(r.fd, (off_t)(r.file_offset + r.size)), 0);
	assert_true(region_extents_divisible(&r));
	assert_int_equal(bitmap_init(&want, pages), 0);
	assert_int_equal(bitmap_init(&got, pages), 0);
	/* full, full, mixed, empty, full, full to the middle, from the middle, mixed */
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t chunk = i / CHUNK_PAGES, half = i % CHUNK_PAGES >= CHUNK_PAGES / 2;
		bool data =
			chunk < 2 || chunk == 4 || (chunk == 5 && !half) || (chunk == 6 && half);

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		if (chunk == 2 || chunk == 7)
			data = seed >> 62;
		if (!data)
			continue;
		fill(&r, i, 1);
		bitmap_set_range(&want, i, 1);
	}
	for (uint64_t part = 64; part <= pages; part *= 2) {
		bitmap_clear_all(&got);
		for (uint64_t at = 0; at < pages; at += part)
			assert_int_equal(region_extents_of(&r, at, at + part, &got), 0);
		assert_memory_equal(got.words, want.words, pages / 8);
	}
	bitmap_clear_all(&got);
	assert_int_equal(region_extents(&r, &got), 0);
	assert_memory_equal(got.words, want.words, pages / 8);
	bitmap_release(&want);
	bitmap_release(&got);
	close(r.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_extents),	 cmocka_unit_test(test_reading_a_hole),
		cmocka_unit_test(test_writable), cmocka_unit_test(test_hugetlb_is_all_data),
		cmocka_unit_test(test_errors),	 cmocka_unit_test(test_extents_by_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
