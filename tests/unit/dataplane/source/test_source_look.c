// SPDX-License-Identifier: MIT
/*
 * What is left for later: chunks are asked for as streams do it, with a tracker that says what has
 * been written again as the test wants.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/source/source.h"

#define CHUNKS	4u
#define SIZE	((uint64_t)CHUNKS * CHUNK_BYTES)
#define PENDING 80u /* pages of each chunk, from its first on */

static const uint8_t secret[IPC_SECRET_SIZE] = { 1 }, id[IPC_ID_SIZE] = { 2 };

static struct region region;
static struct setup config;
static struct source src;
static uint8_t *scratch;
static uint32_t written[CHUNKS]; /* again: so many pages of the chunk, from its first on */
static unsigned int peeks;

static int peek(const struct tracker *t, const struct region *r, uint64_t first, uint32_t count,
		uint64_t *bits)
{
	(void)t;
	assert_ptr_equal(r, &region);
	assert_int_equal(count, CHUNK_PAGES);
	for (uint32_t i = 0; i < written[first / CHUNK_PAGES]; i++)
		bits[i / 64] |= 1ull << (i % 64);
	peeks++;
	return 0;
}

static const struct tracker_ops ops = { .peek = peek };
static struct tracker tracker = { .ops = &ops };

static int setup(void **state)
{
	struct failure f = { 0 };
	char path[64];
	uint8_t *map;
	int fd = memfd_create("ram", MFD_CLOEXEC);

	(void)state;
	if (fd < 0 || ftruncate(fd, SIZE))
		return -1;
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	memset(map, 'x', SIZE);
	munmap(map, SIZE);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	region = (struct region){ .page_size = PAGE_BYTES,
				  .size = SIZE,
				  .fd = open(path, O_RDONLY | O_CLOEXEC) };
	close(fd);
	config = (struct setup){ .regions = &region, .nregions = 1 };
	src = (struct source){ .setup = &config, .tracker = &tracker, .defer_from_ns = 1 };
	scratch = aligned_alloc(PAGE_BYTES, LOOK_SCRATCH);
	memset(written, 0, sizeof(written));
	peeks = 0;
	assert_int_equal(page_hash_init(&src.hash, secret, id), 0);
	assert_int_equal(known_pages_init(&src.known, &region, 1, 0), 0);
	assert_int_equal(scheduler_init(&src.scheduler, &region, 1, false), 0);
	assert_int_equal(page_reader_init(&src.reader, &region, 1, &f), 0);
	for (uint64_t c = 0; c < CHUNKS; c++)
		bitmap_set_range(&scheduler_scanned(&src.scheduler)[0], c * CHUNK_PAGES, PENDING);
	scheduler_merge(&src.scheduler, false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	page_reader_release(&src.reader);
	scheduler_release(&src.scheduler);
	known_pages_release(&src.known);
	region_release(&region);
	free(scratch);
	return 0;
}

static void begin_round(void)
{
	assert_int_equal(scheduler_begin_round(&src.scheduler, true), 0);
}

/* The next plan: of that chunk, its pages from `first` on. */
static void assert_plan(uint64_t chunk, uint32_t first)
{
	struct chunk_plan plan;

	assert_int_equal(source_next_plan(&src, &plan, scratch), 1);
	assert_int_equal(plan.first_page, chunk * CHUNK_PAGES);
	assert_int_equal(plan.count, first < PENDING);
	if (!plan.count)
		return;
	assert_int_equal(plan.runs[0].page, first);
	assert_int_equal(plan.runs[0].pages, PENDING - first);
	assert_int_equal(plan.runs[0].encoding, WIRE_ENC_RAW);
}

static void assert_over(uint64_t deferred)
{
	struct chunk_plan plan;

	assert_int_equal(source_next_plan(&src, &plan, scratch), 0);
	assert_int_equal(src.deferred_pages, deferred);
	assert_int_equal(scheduler_pending(&src.scheduler), 0);
}

static void test_pages_are_left_for_later(void **state)
{
	(void)state;
	/* too few to say anything of the others; and all, so that nothing can wait */
	written[1] = PENDING / 8 - 1;
	written[2] = PENDING;
	begin_round();
	assert_plan(0, 0);
	assert_plan(1, PENDING / 8 - 1);
	assert_plan(2, PENDING);
	assert_plan(3, 0);
	assert_over(PENDING / 8 - 1 + PENDING);
	assert_int_equal(peeks, CHUNKS);
}

static void test_a_chunk_that_is_being_written_waits(void **state)
{
	(void)state;
	written[0] = PENDING / 8;
	written[2] = PENDING - 1;
	begin_round();
	assert_plan(1, 0);
	assert_plan(3, 0);
	/* nothing of it counts before its turn has come; it does not wait a second time */
	assert_int_equal(src.deferred_pages, 0);
	written[0] = PENDING / 2;
	assert_plan(0, PENDING / 2);
	assert_plan(2, PENDING - 1);
	assert_over(PENDING / 2 + PENDING - 1);
	assert_int_equal(peeks, CHUNKS + 2);
}

/* All of them wait: then each of them comes. */
static void test_all_wait(void **state)
{
	(void)state;
	for (uint32_t c = 0; c < CHUNKS; c++)
		written[c] = PENDING / 4;
	begin_round();
	for (uint32_t c = 0; c < CHUNKS; c++)
		assert_plan(c, PENDING / 4);
	assert_over(CHUNKS * (PENDING / 4));
}

/* What the destination has is left out first, and is no reason to wait. */
static void test_what_is_there_does_not_count(void **state)
{
	struct bitmap same = { 0 };

	(void)state;
	assert_int_equal(bitmap_init(&same, CHUNKS * CHUNK_PAGES), 0);
	bitmap_set_range(&same, 0, 20);
	src.same = &same;
	written[0] = 20;
	begin_round();
	for (uint32_t c = 0; c < CHUNKS; c++)
		assert_plan(c, c ? 0 : 20);
	assert_over(0);
	src.same = NULL;
	bitmap_release(&same);
}

/* In the pause nobody is asked. */
static void test_nothing_is_left_in_the_pause(void **state)
{
	(void)state;
	src.defer_from_ns = 0;
	written[1] = PENDING;
	written[2] = PENDING / 2;
	begin_round();
	for (uint32_t c = 0; c < CHUNKS; c++)
		assert_plan(c, 0);
	assert_over(0);
	assert_int_equal(peeks, 0);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_pages_are_left_for_later),
		CASE(test_a_chunk_that_is_being_written_waits),
		CASE(test_all_wait),
		CASE(test_what_is_there_does_not_count),
		CASE(test_nothing_is_left_in_the_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
