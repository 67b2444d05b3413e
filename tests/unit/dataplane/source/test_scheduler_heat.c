// SPDX-License-Identifier: MIT
/* The order of a round, chunks that are postponed, and rounds that are cut. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/source/scheduler.h"

#define THREADS 4
#define CHUNKS	40u /* of region 0, of which the last is short */
#define PAGES	(39u * CHUNK_PAGES + 77)

static struct region regions[2];
static struct scheduler s;

static int setup(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 2; i++) {
		regions[i] = (struct region){ .index = i,
					      .page_size = PAGE_BYTES,
					      .size = (i ? 1ul : PAGES) * PAGE_BYTES,
					      .fd = memfd_create("ram", MFD_CLOEXEC) };
		if (regions[i].fd < 0 || ftruncate(regions[i].fd, (off_t)regions[i].size))
			return -1;
	}
	return scheduler_init(&s, regions, 2, false);
}

static int teardown(void **state)
{
	(void)state;
	scheduler_release(&s);
	for (uint32_t i = 0; i < 2; i++)
		region_release(&regions[i]);
	return 0;
}

static void report(uint32_t r, uint64_t first, uint64_t count)
{
	bitmap_set_range(&scheduler_scanned(&s)[r], first, count);
}

static void report_chunk(uint64_t chunk, uint64_t pages)
{
	report(0, chunk * CHUNK_PAGES, pages);
}

static uint64_t next_random(uint64_t *x)
{
	*x = *x * 6364136223846793005ull + 1442695040888963407ull;
	return *x >> 33;
}

/* The chunk of region 0 that comes next. */
static void assert_next(uint64_t chunk)
{
	struct scheduler_chunk c;

	assert_true(scheduler_next(&s, &c));
	assert_ptr_equal(c.region, &regions[0]);
	assert_int_equal(c.first_page / CHUNK_PAGES, chunk);
}

static void assert_no_more(void)
{
	struct scheduler_chunk c;

	assert_false(scheduler_next(&s, &c));
}

/* --- order ----------------------------------------------------------------------------------- */

static void report_various(void)
{
	static const uint64_t pages[] = { 512, 1, 100, 512, 3, 0, 101, 0, 512 };

	for (uint64_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		report_chunk(i, pages[i]);
	scheduler_merge(&s, false);
}

static void test_coldest_first(void **state)
{
	/* 1 and 3 pages are as cold, 100 not quite as 101; what is alike lies as in memory */
	static const uint64_t order[] = { 1, 4, 2, 6, 0, 3, 8 };

	(void)state;
	report_various();
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		assert_next(order[i]);
	assert_no_more();
}

static void test_as_it_lies(void **state)
{
	static const uint64_t order[] = { 0, 1, 2, 3, 4, 6, 8 };

	(void)state;
	report_various();
	assert_int_equal(scheduler_begin_round(&s, false), 0);
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		assert_next(order[i]);
	assert_no_more();
}

/* What is written more is hotter now, whatever it was. */
static void test_the_last_scan_counts(void **state)
{
	(void)state;
	report_chunk(3, 512);
	report_chunk(5, 40);
	scheduler_merge(&s, false);
	report_chunk(3, 4);
	scheduler_merge(&s, false);
	/* 5 was not reported any more: it is cold, and still pending */
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_next(5);
	assert_next(3);
	assert_no_more();
	assert_int_equal(scheduler_pending(&s), 0);
}

/* A short last chunk, and a region of one page, are counted by their pages. */
static void test_ends_of_regions(void **state)
{
	struct scheduler_chunk c;

	(void)state;
	report_chunk(39, 77);
	report(1, 0, 1);
	report_chunk(0, 78 + HEAT_PAGES);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_true(scheduler_next(&s, &c));
	assert_ptr_equal(c.region, &regions[1]);
	assert_next(39);
	assert_next(0);
	assert_no_more();
}

/* --- postponed ------------------------------------------------------------------------------- */

static void test_postponed_comes_again_last(void **state)
{
	struct scheduler_chunk c, again;

	(void)state;
	for (uint64_t i = 0; i < 4; i++)
		report_chunk(i, 20);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_next(0);
	assert_true(scheduler_next(&s, &c));
	assert_false(c.again);
	scheduler_postpone(&s, &c);
	assert_int_equal(scheduler_pending(&s), 60);
	assert_next(2);
	assert_next(3);
	assert_true(scheduler_next(&s, &again));
	assert_true(again.again);
	assert_true(again.first_page == c.first_page && again.pages == c.pages);
	assert_memory_equal(again.bits, c.bits, sizeof(c.bits));
	assert_no_more();
	assert_int_equal(scheduler_pending(&s), 0);
	assert_false(scheduler_end_round(&s));
}

/* The whole of a round that says holes can be postponed, and still says them. */
static void test_postponed_in_a_first_round(void **state)
{
	struct scheduler_chunk c;

	(void)state;
	assert_int_equal(pwrite(regions[0].fd, "x", 1, 5 * CHUNK_BYTES), 1);
	assert_int_equal(scheduler_first(&s, false), 0);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_true(scheduler_next(&s, &c));
	scheduler_postpone(&s, &c);
	assert_true(scheduler_next(&s, &c));
	assert_true(c.again && c.rest_is_hole);
	assert_int_equal(c.bits[0], 1);
	assert_no_more();
}

/* --- cut ------------------------------------------------------------------------------------- */

static void test_cut_leaves_the_rest_pending(void **state)
{
	struct scheduler_chunk c;

	(void)state;
	for (uint64_t i = 0; i < 6; i++)
		report_chunk(i, 10);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_next(0);
	assert_true(scheduler_next(&s, &c)); /* 1 */
	scheduler_postpone(&s, &c);
	assert_next(2);
	assert_true(scheduler_cut(&s));
	assert_no_more();
	assert_true(scheduler_cut(&s));
	assert_no_more();
	assert_int_equal(scheduler_pending(&s), 40);
	assert_true(scheduler_end_round(&s));
	/* with what is found meanwhile, and once */
	report_chunk(0, 200);
	report_chunk(4, 10);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_pending(&s), 240);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_next(1);
	assert_next(3);
	assert_next(5);
	assert_next(4);
	assert_next(0);
	assert_no_more();
	assert_false(scheduler_end_round(&s));
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_no_more();
}

static void test_cut_after_all_was_given(void **state)
{
	(void)state;
	report_chunk(7, 10);
	scheduler_merge(&s, false);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_next(7);
	assert_no_more();
	assert_true(scheduler_cut(&s));
	assert_false(scheduler_end_round(&s));
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_no_more();
}

/* It owes holes: what is not said then is never said. */
static void test_a_first_round_is_not_cut(void **state)
{
	(void)state;
	assert_int_equal(pwrite(regions[0].fd, "x", 1, 0), 1);
	assert_int_equal(pwrite(regions[0].fd, "x", 1, 3 * CHUNK_BYTES), 1);
	assert_int_equal(scheduler_first(&s, false), 0);
	assert_int_equal(scheduler_begin_round(&s, true), 0);
	assert_next(0);
	assert_false(scheduler_cut(&s));
	assert_next(3);
	assert_no_more();
	assert_false(scheduler_end_round(&s));
}

/* --- all of it at once ----------------------------------------------------------------------- */

struct taker {
	pthread_t thread;
	uint64_t random;
	uint8_t *pages;	    /* of both regions: how often each came */
	uint32_t cut_after; /* chunks; 0: never */
};

static void note(struct taker *t, const struct scheduler_chunk *c)
{
	uint64_t base = c->region->index ? PAGES : c->first_page;

	for (uint32_t k = 0; k < CHUNK_PAGES; k++)
		t->pages[base + k] += k < c->pages && (c->bits[k / 64] >> (k % 64) & 1);
}

static void *take(void *arg)
{
	struct taker *t = arg;
	struct scheduler_chunk c;

	for (uint32_t n = 1; scheduler_next(&s, &c); n++) {
		if (n == t->cut_after)
			assert_true(scheduler_cut(&s));
		if (!c.again && next_random(&t->random) % 3 == 0)
			scheduler_postpone(&s, &c);
		else
			note(t, &c);
	}
	return NULL;
}

/* How often each page is pending or was given, this round or before; all of it once. */
static uint8_t due[PAGES + CHUNK_PAGES], got[THREADS][PAGES + CHUNK_PAGES];

static void report_at_random(uint64_t *x)
{
	for (uint64_t n = next_random(x) % 60; n; n--) {
		uint64_t page = next_random(x) % PAGES, count = 1 + next_random(x) % 700;

		count = page + count > PAGES ? PAGES - page : count;
		report(0, page, count);
		memset(due + page, 1, count);
	}
	if (next_random(x) % 2) {
		report(1, 0, 1);
		due[PAGES] = 1;
	}
	scheduler_merge(&s, false);
}

static void run_round(uint64_t *x, bool cut)
{
	struct taker t[THREADS];

	memset(got, 0, sizeof(got));
	assert_int_equal(scheduler_begin_round(&s, next_random(x) % 4), 0);
	for (int i = 0; i < THREADS; i++) {
		t[i] = (struct taker){ .random = next_random(x), .pages = got[i] };
		t[i].cut_after = cut && !i ? 1 + (uint32_t)(next_random(x) % 12) : 0;
		assert_int_equal(pthread_create(&t[i].thread, NULL, take, &t[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(t[i].thread, NULL), 0);
	scheduler_end_round(&s);
}

/* Whatever the heat, who postpones what, and when it is cut: no page is lost, none comes twice. */
static void test_every_page_comes_once(void **state)
{
	uint64_t x = 1;

	(void)state;
	for (int round = 0; round < 300; round++) {
		bool cut = round % 3 == 1 && round < 299;
		uint64_t left = 0;

		report_at_random(&x);
		run_round(&x, cut);
		for (uint64_t k = 0; k < sizeof(due); k++) {
			unsigned int times = 0;

			for (int i = 0; i < THREADS; i++)
				times += got[i][k];
			assert_true(times <= due[k]);
			due[k] = (uint8_t)(due[k] - times);
			left += due[k];
		}
		assert_int_equal(scheduler_pending(&s), left);
		assert_true(cut || !left);
	}
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_coldest_first),
		CASE(test_as_it_lies),
		CASE(test_the_last_scan_counts),
		CASE(test_ends_of_regions),
		CASE(test_postponed_comes_again_last),
		CASE(test_postponed_in_a_first_round),
		CASE(test_cut_leaves_the_rest_pending),
		CASE(test_cut_after_all_was_given),
		CASE(test_a_first_round_is_not_cut),
		CASE(test_every_page_comes_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
