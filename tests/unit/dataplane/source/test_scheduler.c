// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/source/scheduler.h"

#define THREADS 4

/* Region 0 ends within a chunk and within a word of its bitmap; region 1 is one page. */
static struct region regions[3];

static int setup(void **state)
{
	static const uint64_t pages[] = { 5 * CHUNK_PAGES + 77, 1, 3 * CHUNK_PAGES };

	(void)state;
	for (uint32_t i = 0; i < 3; i++) {
		regions[i] = (struct region){ .index = i,
					      .page_size = PAGE_BYTES,
					      .size = pages[i] * PAGE_BYTES,
					      .fd = memfd_create("ram", MFD_CLOEXEC) };
		if (regions[i].fd < 0 || ftruncate(regions[i].fd, (off_t)regions[i].size))
			return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		region_release(&regions[i]);
	return 0;
}

static void populate(uint32_t r, uint64_t page)
{
	assert_int_equal(pwrite(regions[r].fd, "x", 1, (off_t)(page * PAGE_BYTES)), 1);
}

/* What a round gave, page by page: how often each page came. */
static uint8_t got[3][5 * CHUNK_PAGES + 77];

static void note(const struct scheduler_chunk *c)
{
	assert_true(c->first_page % CHUNK_PAGES == 0);
	assert_true(c->first_page + c->pages <= region_pages(c->region));
	for (uint32_t k = 0; k < CHUNK_PAGES; k++) {
		if (!(c->bits[k / 64] >> (k % 64) & 1))
			continue;
		assert_true(k < c->pages);
		got[c->region->index][c->first_page + k]++;
	}
}

static uint64_t run_round(struct scheduler *s)
{
	struct scheduler_chunk c;
	uint64_t chunks = 0;

	memset(got, 0, sizeof(got));
	assert_int_equal(scheduler_begin_round(s, true), 0);
	while (scheduler_next(s, &c)) {
		note(&c);
		chunks++;
	}
	assert_int_equal(scheduler_pending(s), 0);
	return chunks;
}

static uint64_t pages_got(void)
{
	uint64_t n = 0;

	for (size_t i = 0; i < sizeof(got); i++)
		n += ((uint8_t *)got)[i];
	return n;
}

static void report(struct scheduler *s, uint32_t r, uint64_t first, uint64_t count)
{
	bitmap_set_range(&scheduler_scanned(s)[r], first, count);
}

static void test_first_takes_extents_and_owes_holes(void **state)
{
	struct scheduler_holes h[8];
	struct scheduler s;
	uint32_t n;

	(void)state;
	populate(0, 3 * CHUNK_PAGES + 5);
	populate(0, 5 * CHUNK_PAGES + 76);
	assert_int_equal(scheduler_init(&s, regions, 3, false), 0);
	assert_int_equal(scheduler_first(&s, false), 0);
	assert_int_equal(scheduler_pending(&s), 2);
	assert_int_equal(run_round(&s), 2);
	assert_int_equal(got[0][3 * CHUNK_PAGES + 5], 1);
	assert_int_equal(got[0][5 * CHUNK_PAGES + 76], 1);
	n = scheduler_next_holes(&s, h, 3);
	assert_int_equal(n, 3);
	n += scheduler_next_holes(&s, h + 3, 5);
	assert_int_equal(n, 4);
	assert_int_equal(scheduler_next_holes(&s, h + 4, 4), 0);
	assert_true(h[0].offset == 0 && h[0].length == 3ul * CHUNK_BYTES);
	assert_true(h[1].offset == 4ul * CHUNK_BYTES && h[1].length == CHUNK_BYTES);
	assert_true(h[2].region == &regions[1] && h[2].length == PAGE_BYTES);
	assert_true(h[3].region == &regions[2] && h[3].length == regions[2].size);
	/* Owed once. */
	assert_int_equal(run_round(&s), 0);
	assert_int_equal(scheduler_next_holes(&s, h, 8), 0);
	scheduler_release(&s);
}

static void test_rest_of_a_chunk_is_hole_only_in_the_first_round(void **state)
{
	struct scheduler_chunk c;
	struct scheduler s;

	(void)state;
	populate(0, 1);
	assert_int_equal(scheduler_init(&s, regions, 3, false), 0);
	assert_int_equal(scheduler_first(&s, false), 0);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_true(scheduler_next(&s, &c));
	assert_true(c.rest_is_hole);
	assert_false(scheduler_next(&s, &c));
	report(&s, 0, 1, 1);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_true(scheduler_next(&s, &c));
	assert_false(c.rest_is_hole);
	scheduler_release(&s);
}

static void test_reports_become_pending_once(void **state)
{
	struct scheduler s;

	(void)state;
	assert_int_equal(scheduler_init(&s, regions, 3, false), 0);
	assert_int_equal(scheduler_first(&s, false), 0);
	run_round(&s);
	report(&s, 0, 500, 700);
	report(&s, 1, 0, 1);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_pending(&s), 701);
	assert_int_equal(s.seen_pages, 701);
	report(&s, 0, 1100, 200);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_pending(&s), 801);
	assert_int_equal(s.seen_pages, 801);
	assert_int_equal(bitmap_count(&scheduler_scanned(&s)[0]), 0);
	assert_int_equal(run_round(&s), 4);
	assert_int_equal(pages_got(), 801);
	for (uint64_t i = 500; i < 1300; i++)
		assert_int_equal(got[0][i], 1);
	/* Nothing again without a report; the working set stays. */
	scheduler_merge(&s, false);
	assert_int_equal(run_round(&s), 0);
	assert_int_equal(s.seen_pages, 801);
	scheduler_release(&s);
}

static void test_suspects_go_again_after_a_barrier(void **state)
{
	struct scheduler s;

	(void)state;
	assert_int_equal(scheduler_init(&s, regions, 3, true), 0);
	assert_int_equal(scheduler_first(&s, true), 0);
	run_round(&s);
	report(&s, 0, 10, 5);
	scheduler_merge(&s, false);
	run_round(&s);
	report(&s, 2, 7, 1);
	scheduler_merge(&s, false);
	run_round(&s);
	/* The barrier's own report is safe; what was reported before goes again. */
	report(&s, 0, 100, 3);
	scheduler_merge(&s, true);
	assert_int_equal(scheduler_pending(&s), 5 + 1 + 3);
	run_round(&s);
	assert_int_equal(got[0][10], 1);
	assert_int_equal(got[2][7], 1);
	assert_int_equal(got[0][100], 1);
	scheduler_merge(&s, true);
	assert_int_equal(scheduler_pending(&s), 0);
	report(&s, 0, 20, 1);
	scheduler_merge(&s, false);
	run_round(&s);
	scheduler_merge(&s, true);
	assert_int_equal(scheduler_pending(&s), 1);
	scheduler_release(&s);
}

static void test_first_scan_without_barrier_suspects_everything(void **state)
{
	struct scheduler s;

	(void)state;
	populate(2, 100);
	populate(2, 101);
	assert_int_equal(scheduler_init(&s, regions, 3, true), 0);
	assert_int_equal(scheduler_first(&s, false), 0);
	run_round(&s);
	scheduler_merge(&s, true);
	assert_int_equal(scheduler_pending(&s), 2);
	scheduler_release(&s);
}

static void punch(uint32_t r, uint64_t page, uint64_t count)
{
	assert_int_equal(fallocate(regions[r].fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)(page * PAGE_BYTES), (off_t)(count * PAGE_BYTES)),
			 0);
}

static void test_discards_are_found(void **state)
{
	struct scheduler s;
	uint64_t gone;

	(void)state;
	for (uint64_t i = 0; i < 1000; i++)
		populate(0, i);
	populate(1, 0);
	assert_int_equal(scheduler_init(&s, regions, 3, false), 0);
	assert_int_equal(scheduler_first(&s, false), 0);
	run_round(&s);
	assert_int_equal(scheduler_recheck(&s, false, &gone), 0);
	assert_int_equal(gone, 0);
	punch(0, 3, 5);
	punch(1, 0, 1);
	assert_int_equal(scheduler_recheck(&s, false, &gone), 0);
	assert_int_equal(gone, 6);
	assert_int_equal(scheduler_pending(&s), 6);
	run_round(&s);
	assert_int_equal(pages_got(), 6);
	assert_int_equal(got[0][3] + got[0][7] + got[1][0], 3);
	/* Written, which is reported, and given back as many: the pause finds it. */
	populate(0, 3);
	report(&s, 0, 3, 1);
	scheduler_merge(&s, true);
	punch(0, 900, 1);
	assert_int_equal(scheduler_recheck(&s, true, &gone), 0);
	assert_int_equal(gone, 1);
	run_round(&s);
	assert_int_equal(got[0][900] + got[0][3], 2);
	/* As many populated by a mere read, which nobody reports. */
	populate(0, 4);
	populate(0, 5);
	punch(0, 901, 1);
	assert_int_equal(scheduler_recheck(&s, true, &gone), 0);
	assert_int_equal(gone, 1);
	/* Found once. */
	run_round(&s);
	assert_int_equal(scheduler_recheck(&s, true, &gone), 0);
	assert_int_equal(gone, 0);
	scheduler_release(&s);
}

/* Pending as a hole, populated again just before it was looked at, given back before any report. */
static void test_discard_of_a_page_that_came_back(void **state)
{
	uint64_t populated[SCHEDULER_CHUNK_WORDS] = { 1ull << 5 }, gone;
	struct scheduler_chunk c;
	struct scheduler s;

	(void)state;
	populate(0, 5);
	assert_int_equal(scheduler_init(&s, regions, 3, false), 0);
	assert_int_equal(scheduler_first(&s, false), 0);
	run_round(&s);
	punch(0, 5, 1);
	assert_int_equal(scheduler_recheck(&s, false, &gone), 0);
	assert_int_equal(gone, 1);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_true(scheduler_next(&s, &c));
	populate(0, 5);
	scheduler_looked_at(&s, &c, populated);
	assert_false(scheduler_next(&s, &c));
	punch(0, 5, 1);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_recheck(&s, false, &gone), 0);
	assert_int_equal(gone, 1);
	scheduler_release(&s);
}

/* A region in the middle of a file that has blocks elsewhere. */
static void test_discards_in_a_part_of_a_file(void **state)
{
	struct region r = regions[0];
	struct scheduler s;
	uint64_t gone;

	(void)state;
	for (uint64_t i = 0; i < 1000; i++)
		populate(0, i);
	r.file_offset = CHUNK_BYTES;
	r.size = CHUNK_BYTES;
	assert_int_equal(r.index, 0);
	assert_int_equal(scheduler_init(&s, &r, 1, false), 0);
	assert_int_equal(scheduler_first(&s, false), 0);
	assert_int_equal(scheduler_pending(&s), 1000 - CHUNK_PAGES);
	run_round(&s);
	assert_int_equal(scheduler_recheck(&s, true, &gone), 0);
	assert_int_equal(gone, 0);
	punch(0, CHUNK_PAGES + 7, 2);
	assert_int_equal(scheduler_recheck(&s, true, &gone), 0);
	assert_int_equal(gone, 2);
	scheduler_release(&s);
}

struct taker {
	struct scheduler *s;
	struct scheduler_chunk taken[16];
	uint32_t count;
	struct scheduler_holes holes[16];
	uint32_t nholes;
};

static void *take(void *arg)
{
	struct taker *t = arg;

	while (scheduler_next(t->s, &t->taken[t->count]))
		t->count++;
	t->nholes = scheduler_next_holes(t->s, t->holes, 16);
	return NULL;
}

static void test_threads_share_without_overlap(void **state)
{
	struct scheduler s;

	(void)state;
	assert_int_equal(scheduler_init(&s, regions, 3, false), 0);
	assert_int_equal(scheduler_first(&s, false), 0);
	run_round(&s);
	for (int round = 0; round < 200; round++) {
		struct taker t[THREADS] = { 0 };
		pthread_t id[THREADS];

		for (uint32_t r = 0; r < 3; r++)
			report(&s, r, 0, region_pages(&regions[r]));
		scheduler_merge(&s, false);
		assert_int_equal(scheduler_begin_round(&s, true), 0);
		for (int i = 0; i < THREADS; i++) {
			t[i].s = &s;
			assert_int_equal(pthread_create(&id[i], NULL, take, &t[i]), 0);
		}
		memset(got, 0, sizeof(got));
		for (int i = 0; i < THREADS; i++) {
			assert_int_equal(pthread_join(id[i], NULL), 0);
			for (uint32_t k = 0; k < t[i].count; k++)
				note(&t[i].taken[k]);
		}
		assert_int_equal(scheduler_pending(&s), 0);
		for (uint32_t r = 0; r < 3; r++)
			for (uint64_t k = 0; k < region_pages(&regions[r]); k++)
				assert_int_equal(got[r][k], 1);
	}
	scheduler_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first_takes_extents_and_owes_holes, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			test_rest_of_a_chunk_is_hole_only_in_the_first_round, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reports_become_pending_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_suspects_go_again_after_a_barrier, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_first_scan_without_barrier_suspects_everything,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_discards_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_discard_of_a_page_that_came_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_discards_in_a_part_of_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads_share_without_overlap, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
