// SPDX-License-Identifier: MIT
/* Encoders, streams and their queue, without sockets: every chunk once, and the round's end. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/codec/encode_pool.h"
#include "tests/unit/dataplane/content.h"

#define CHUNKS	100
#define STREAMS 4
#define WORKERS 3

static struct region region = { .size = CHUNKS * (uint64_t)CHUNK_BYTES, .fd = -1 };

static struct round {
	struct encode_pool *pool;
	uint32_t pages; /* of each chunk that carry data */
	uint32_t cursor;
	uint32_t fail_at; /* the cursor fails there */
	bool ended;	  /* the barrier: all streams have said ROUND_END */
	uint32_t early;	  /* the cursor was asked, or a chunk was found, after that */
	sem_t woken[STREAMS];
	uint32_t sent[CHUNKS];
	uint32_t encoded;
	int errors[STREAMS];
} R;

static int next(void *arg, struct chunk_plan *plan, uint8_t *scratch)
{
	struct round *r = arg;
	struct scheduler_chunk c = { .region = &region, .pages = CHUNK_PAGES };
	uint32_t at = __atomic_fetch_add(&r->cursor, 1, __ATOMIC_RELAXED);

	(void)scratch;
	if (__atomic_load_n(&r->ended, __ATOMIC_ACQUIRE))
		__atomic_fetch_add(&r->early, 1, __ATOMIC_RELAXED);
	if (at >= r->fail_at)
		return -EIO;
	if (at >= CHUNKS)
		return 0;
	c.first_page = at * (uint64_t)CHUNK_PAGES;
	plan_begin(plan, &c);
	if (r->pages)
		plan_add(plan, 0, r->pages, WIRE_ENC_RAW);
	else
		plan->same = 1;
	return 1;
}

static void wake(void *arg, uint32_t stream)
{
	struct round *r = arg;

	sem_post(&r->woken[stream]);
}

static int setup(void **state)
{
	uint8_t page[PAGE_BYTES];

	(void)state;
	region.fd = memfd_create("ram", MFD_CLOEXEC);
	if (region.fd < 0 || ftruncate(region.fd, (off_t)region.size))
		return -1;
	/* the same pages in each chunk, text and noise */
	for (uint64_t i = 0; i < CHUNKS; i++)
		for (uint64_t k = 0; k < 64; k++) {
			content_page(page, i % 3 ? CONTENT_TEXT : CONTENT_RANDOM, k);
			if (pwrite(region.fd, page, sizeof(page),
				   (off_t)(i * CHUNK_BYTES + k * PAGE_BYTES)) != sizeof(page))
				return -1;
		}
	for (int i = 0; i < STREAMS; i++)
		sem_init(&R.woken[i], 0, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(region.fd);
	return 0;
}

static void send_plan(const struct chunk_plan *p)
{
	__atomic_fetch_add(&R.sent[p->first_page / CHUNK_PAGES], 1, __ATOMIC_RELAXED);
}

/* A stream as source_send.c has it. */
static void *stream_main(void *arg)
{
	uint32_t index = (uint32_t)(uintptr_t)arg;
	static _Thread_local struct chunk_plan plan;

	for (;;) {
		struct encoded *e;
		int what = encode_pool_next(R.pool, index, &e), found;

		if (what < 0 || what == ENCODE_END) {
			R.errors[index] = what < 0 ? what : 0;
			return NULL;
		}
		if (what == ENCODE_READY) {
			__atomic_fetch_add(&R.encoded, 1, __ATOMIC_RELAXED);
			send_plan(&e->plan);
			encode_pool_give_back(R.pool, e);
		} else if (what == ENCODE_RAW || what == ENCODE_LOOK) {
			found = next(&R, &plan, NULL);
			if (found <= 0)
				encode_pool_exhausted(R.pool);
			else if (what == ENCODE_LOOK && R.pages)
				encode_pool_offer(R.pool, index, &plan);
			else
				send_plan(&plan);
		} else if (what == ENCODE_BACK) {
			send_plan(&plan);
		} else {
			sem_wait(&R.woken[index]);
		}
	}
}

static void begin(uint32_t pages, uint32_t fail_at, unsigned int workers)
{
	const struct encode_source source = {
		.next = next, .wake = wake, .arg = &R, .scratch_size = PAGE_BYTES
	};

	R.pages = pages;
	R.fail_at = fail_at;
	assert_int_equal(encode_pool_new(&R.pool, &source, &region, 1, STREAMS, workers, NULL), 0);
	assert_int_equal(encode_pool_start(R.pool), 0);
}

static void end(void)
{
	encode_pool_stop(R.pool);
	encode_pool_free(R.pool);
	R.pool = NULL;
}

static void run_round(uint32_t number)
{
	pthread_t threads[STREAMS];

	memset(R.sent, 0, sizeof(R.sent));
	R.encoded = 0;
	__atomic_store_n(&R.cursor, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&R.ended, false, __ATOMIC_RELEASE);
	encode_pool_begin_round(R.pool, number);
	for (uintptr_t i = 0; i < STREAMS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, stream_main, (void *)i), 0);
	for (int i = 0; i < STREAMS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&R.ended, true, __ATOMIC_RELEASE);
}

/*
 * The invariant of encode_pool.h: when all streams have said ROUND_END, each chunk was sent, once,
 * and no encoder asks the cursor any more.
 */
static void every_chunk_once(const struct encode_mode *mode, uint32_t pages)
{
	begin(pages, UINT32_MAX, WORKERS);
	encode_pool_set(R.pool, mode);
	for (uint32_t round = 1; round <= 20; round++) {
		run_round(round);
		for (uint32_t i = 0; i < CHUNKS; i++)
			assert_int_equal(R.sent[i], 1);
		if (mode->on && mode->only && pages)
			assert_int_equal(R.encoded, CHUNKS);
		if (!mode->on)
			assert_int_equal(R.encoded, 0);
	}
	end();
	assert_int_equal(R.early, 0);
}

static void test_off(void **state)
{
	(void)state;
	every_chunk_once(&(struct encode_mode){ .level = 1 }, 3);
}

static void test_only(void **state)
{
	(void)state;
	every_chunk_once(&(struct encode_mode){ .on = true, .only = true, .level = 1 }, 10);
	every_chunk_once(&(struct encode_mode){ .on = true, .only = true, .level = 1 }, 0);
}

static void test_side_by_side(void **state)
{
	(void)state;
	every_chunk_once(&(struct encode_mode){ .on = true, .level = 1 }, 1);
	every_chunk_once(&(struct encode_mode){ .on = true, .level = 1 }, 64);
}

static bool changing;

static void *change_mode(void *arg)
{
	uint64_t x = 99;

	(void)arg;
	while (__atomic_load_n(&changing, __ATOMIC_RELAXED)) {
		uint64_t v = content_next(&x) >> 7;

		encode_pool_set(R.pool, &(struct encode_mode){ .on = v & 1,
							       .only = v >> 1 & 1,
							       .level = 1 + (int)(v >> 2 & 3) });
		sched_yield();
	}
	return NULL;
}

static void test_mode_changes(void **state)
{
	pthread_t changer;

	(void)state;
	begin(20, UINT32_MAX, WORKERS);
	changing = true;
	assert_int_equal(pthread_create(&changer, NULL, change_mode, NULL), 0);
	for (uint32_t round = 1; round <= 30; round++) {
		run_round(round);
		for (uint32_t i = 0; i < CHUNKS; i++)
			assert_int_equal(R.sent[i], 1);
	}
	__atomic_store_n(&changing, false, __ATOMIC_RELAXED);
	pthread_join(changer, NULL);
	end();
	assert_int_equal(R.early, 0);
}

/* An encoder's error reaches every stream, waiting or not. */
static void test_error(void **state)
{
	(void)state;
	begin(10, 30, WORKERS);
	encode_pool_set(R.pool, &(struct encode_mode){ .on = true, .only = true, .level = 1 });
	run_round(1);
	for (int i = 0; i < STREAMS; i++)
		assert_int_equal(R.errors[i], -EIO);
	end();
}

/* Nobody takes what is ready: encoders stop at their buffers, and end when told to. */
static void test_receiver_stalls(void **state)
{
	struct encode_totals t;
	uint32_t most = 2 * WORKERS + STREAMS;

	(void)state;
	begin(64, UINT32_MAX, WORKERS);
	encode_pool_set(R.pool, &(struct encode_mode){ .on = true, .only = true, .level = 1 });
	__atomic_store_n(&R.ended, false, __ATOMIC_RELEASE);
	__atomic_store_n(&R.cursor, 0, __ATOMIC_RELAXED);
	encode_pool_begin_round(R.pool, 1);
	do {
		encode_pool_totals(R.pool, &t);
		sched_yield();
	} while (t.sum.data < most * 64ull * PAGE_BYTES);
	assert_int_equal(t.sum.data, most * 64ull * PAGE_BYTES);
	assert_int_equal(__atomic_load_n(&R.cursor, __ATOMIC_RELAXED), most);
	end();
}

static void test_workers(void **state)
{
	(void)state;
	assert_in_range(encode_pool_workers(1 << 20), 1, 5);
	assert_true(encode_pool_workers(1ull << 40) >= encode_pool_workers(1 << 20));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_off),	     cmocka_unit_test(test_only),
		cmocka_unit_test(test_side_by_side), cmocka_unit_test(test_mode_changes),
		cmocka_unit_test(test_error),	     cmocka_unit_test(test_receiver_stalls),
		cmocka_unit_test(test_workers),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
