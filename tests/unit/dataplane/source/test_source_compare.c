// SPDX-License-Identifier: MIT
/*
 * What a source asks a destination about its pages, and what it makes of the answers: one stream of
 * a source against a destination that is played by a thread of the test.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/source/source.h"
#include "lib/base/cleanup.h"
#include "lib/base/io.h"

/* Little data in large regions: the first page of each chunk; the last chunk is half a one. */
#define REGIONS 2u
#define CHUNKS	1200u
#define SIZE	((uint64_t)CHUNKS * CHUNK_BYTES + CHUNK_BYTES / 2)
#define TOTAL	(REGIONS * (CHUNKS + 1))

static const uint8_t secret[IPC_SECRET_SIZE] = { 1 }, id[IPC_ID_SIZE] = { 2 };

struct fixture {
	struct setup setup;
	struct region regions[REGIONS];
	struct source src;
	struct stream stream;
	uint8_t *guest[REGIONS];
	int peer;
	pthread_t thread;
	/* What the destination has of a chunk's page, which the guest's RAM has besides. */
	enum has {
		HAS_NOTHING,
		HAS_SAME,
		HAS_OTHER,
		HAS_ZEROS
	} (*has)(uint32_t region, uint64_t c);
	bool range; /* says how far there is nothing */
	int lie;    /* what is wrong with the first answer */
	uint32_t questions, most_at_once;
};

enum { LIE_NONE, LIE_OTHER_CHUNK, LIE_TWICE, LIE_QUESTION, LIE_END };

static void init_region(struct fixture *x, uint32_t i)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);
	char path[64];

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	x->regions[i] = (struct region){ .index = i,
					 .page_size = PAGE_BYTES,
					 .size = SIZE,
					 .fd = open(path, O_RDONLY | O_CLOEXEC) };
	x->guest[i] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(x->guest[i], MAP_FAILED);
	for (uint64_t c = 0; c <= CHUNKS; c++)
		memset(x->guest[i] + c * CHUNK_BYTES, (int)(1 + c % 200), PAGE_BYTES);
	close(fd);
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct failure f = { 0 };
	int sv[2];

	assert_non_null(x);
	*state = x;
	for (uint32_t i = 0; i < REGIONS; i++)
		init_region(x, i);
	x->setup.regions = x->regions;
	x->setup.nregions = REGIONS;
	x->setup.config.streams = 1;
	x->src.setup = &x->setup;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	x->peer = sv[1];
	x->stream = (struct stream){ .source = &x->src, .fd = sv[0] };
	x->stream.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	x->stream.scratch = aligned_alloc(PAGE_BYTES, LOOK_SCRATCH);
	assert_int_equal(tx_send_ops.new(&x->stream.tx, sv[0], x->regions, REGIONS), 0);
	assert_int_equal(page_hash_init(&x->src.hash, secret, id), 0);
	assert_int_equal(known_pages_init(&x->src.known, x->regions, REGIONS, 0), 0);
	assert_int_equal(scheduler_init(&x->src.scheduler, x->regions, REGIONS, false), 0);
	assert_int_equal(page_reader_init(&x->src.reader, x->regions, REGIONS, &f), 0);
	assert_int_equal(scheduler_first(&x->src.scheduler, false), 0);
	assert_int_equal(source_compare_begin(&x->src), 0);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	source_compare_end(&x->src);
	page_reader_release(&x->src.reader);
	scheduler_release(&x->src.scheduler);
	known_pages_release(&x->src.known);
	x->stream.tx->ops->free(x->stream.tx);
	for (uint32_t i = 0; i < REGIONS; i++) {
		munmap(x->guest[i], SIZE);
		region_release(&x->regions[i]);
	}
	close(x->stream.fd);
	close(x->stream.wake_fd);
	free(x->stream.scratch);
	free(x);
	return 0;
}

/* --- the destination ------------------------------------------------------------------------- */

static void answer(struct fixture *x, const struct wire_frame *q)
{
	struct wire_frame f = { .type = WIRE_HASHED, .region = q->region, .offset = q->offset };
	uint8_t bytes[WIRE_FRAME_SIZE + WIRE_HASHED_MAX] = { 0 };
	uint64_t chunk = q->offset >> CHUNK_SHIFT, hash = PAGE_HASH_NONE;
	enum has has = x->has(q->region, chunk);

	if (has == HAS_NOTHING) {
		f.extent = CHUNK_BYTES;
		while (x->range && x->has(q->region, ++chunk) == HAS_NOTHING && chunk <= CHUNKS)
			f.extent += CHUNK_BYTES;
		if (f.extent > SIZE - f.offset)
			f.extent = SIZE - f.offset;
	} else {
		f.count = chunk < CHUNKS ? CHUNK_PAGES : CHUNK_PAGES / 2;
		f.length = f.count * WIRE_HASH_SIZE;
		if (has != HAS_ZEROS)
			hash = page_hash(&x->src.hash, x->guest[q->region] + q->offset);
		hash = htole64(hash + (has == HAS_OTHER));
		memcpy(bytes + WIRE_FRAME_SIZE, &hash, sizeof(hash));
	}
	if (x->lie == LIE_OTHER_CHUNK)
		f.offset += CHUNK_BYTES;
	if (x->lie == LIE_QUESTION)
		f = (struct wire_frame){ .type = WIRE_STATE, .length = WIRE_STATE_MAX };
	wire_put_frame(bytes, &f);
	for (int i = 0; i < (x->lie == LIE_TWICE ? 20 : 1); i++)
		if (io_write_full(x->peer, bytes, WIRE_FRAME_SIZE + f.count * WIRE_HASH_SIZE))
			return;
	x->lie = x->lie == LIE_END ? LIE_END : LIE_NONE;
}

/* Answers questions as late as it can, so that as many as there may be are under way. */
static void *destination(void *arg)
{
	struct fixture *x = arg;
	uint8_t bytes[COMPARE_DEPTH * 4 * WIRE_FRAME_SIZE];

	for (;;) {
		ssize_t n = recv(x->peer, bytes, sizeof(bytes), 0);
		uint32_t count = n > 0 ? (uint32_t)n / WIRE_FRAME_SIZE : 0;

		if (n <= 0 || n % WIRE_FRAME_SIZE || (x->lie == LIE_END && x->questions > 3))
			break;
		if (count > x->most_at_once)
			x->most_at_once = count;
		x->questions += count;
		for (uint32_t i = 0; i < count; i++) {
			struct wire_frame q;

			if (wire_get_frame(&q, bytes + i * WIRE_FRAME_SIZE, x->regions, REGIONS) ||
			    q.type != WIRE_HASHES)
				abort();
			answer(x, &q);
		}
	}
	close(x->peer);
	return NULL;
}

/* Compares everything; how many pages were found to be equal, or -errno. */
static int64_t compare(struct fixture *x)
{
	uint64_t same = 0;
	int err;

	assert_int_equal(pthread_create(&x->thread, NULL, destination, x), 0);
	err = stream_compare(&x->stream);
	shutdown(x->stream.fd, SHUT_RDWR);
	pthread_join(x->thread, NULL);
	for (uint32_t i = 0; i < REGIONS; i++)
		same += bitmap_count(&x->src.same[i]);
	if (err)
		return err;
	assert_int_equal(same << PAGE_SHIFT, x->stream.counts.same_bytes);
	return (int64_t)same;
}

/* --- tests ----------------------------------------------------------------------------------- */

static enum has all_same(uint32_t region, uint64_t chunk)
{
	(void)region;
	(void)chunk;
	return HAS_SAME;
}

static void test_all_the_same(void **state)
{
	struct fixture *x = *state;

	x->has = all_same;
	assert_int_equal(compare(x), TOTAL);
	assert_int_equal(x->questions, TOTAL);
	assert_true(x->most_at_once <= COMPARE_DEPTH);
	for (uint32_t i = 0; i < REGIONS; i++)
		for (uint64_t c = 0; c <= CHUNKS; c++)
			assert_true(bitmap_test(&x->src.same[i], c * CHUNK_PAGES));
}

static enum has interrupted(uint32_t region, uint64_t chunk)
{
	return region == 0 && chunk < 500 ? HAS_SAME : HAS_NOTHING;
}

/* What an interrupted move leaves: all of it is found, and of the rest next to nothing asked. */
static void test_a_beginning(void **state)
{
	struct fixture *x = *state;

	x->has = interrupted;
	x->range = true;
	assert_in_range(compare(x), 500 - 32, 500);
	assert_in_range(x->questions, 500, 500 + 32 + 2 * COMPARE_DEPTH);
}

static enum has all_other(uint32_t region, uint64_t chunk)
{
	(void)region;
	(void)chunk;
	return HAS_OTHER;
}

static void test_nothing_the_same(void **state)
{
	struct fixture *x = *state;

	x->has = all_other;
	assert_int_equal(compare(x), 0);
	assert_in_range(x->questions, 10, TOTAL / 32 + REGIONS + 1);
}

static enum has all_zeros(uint32_t region, uint64_t chunk)
{
	(void)region;
	(void)chunk;
	return HAS_ZEROS;
}

/* RAM that the destination's VMM has allocated ahead. */
static void test_zeros(void **state)
{
	struct fixture *x = *state;

	x->has = all_zeros;
	assert_int_equal(compare(x), 0);
	assert_in_range(x->questions, 10, TOTAL / 32 + REGIONS + 1);
}

static enum has rarely(uint32_t region, uint64_t chunk)
{
	return region == 1 && chunk >= 1000 ? HAS_SAME : HAS_OTHER;
}

/* After long vain, what is there is found all the same, but for a few stretches. */
static void test_an_end(void **state)
{
	struct fixture *x = *state;

	x->has = rarely;
	assert_in_range(compare(x), 150, 201);
}

static void test_pages_that_are_not_pending(void **state)
{
	struct fixture *x = *state;

	x->has = all_same;
	bitmap_clear_range(&x->src.scheduler.pending[0], 7 * CHUNK_PAGES, 1);
	assert_int_equal(compare(x), TOTAL - 1);
	assert_false(bitmap_test(&x->src.same[0], 7 * CHUNK_PAGES));
}

static void test_wrong_answers(void **state)
{
	struct fixture *x = *state;

	x->has = all_same;
	x->lie = LIE_OTHER_CHUNK;
	assert_int_equal(compare(x), -EBADMSG);
}

static void test_more_answers_than_questions(void **state)
{
	struct fixture *x = *state;

	x->has = all_same;
	x->lie = LIE_TWICE;
	assert_int_equal(compare(x), -EBADMSG);
}

static void test_no_answer_at_all(void **state)
{
	struct fixture *x = *state;

	x->has = all_same;
	x->lie = LIE_QUESTION;
	assert_int_equal(compare(x), -EBADMSG);
}

static void test_lost(void **state)
{
	struct fixture *x = *state;

	x->has = all_same;
	x->lie = LIE_END;
	assert_true(compare(x) < 0);
}

static void test_worth_it(void **state)
{
	struct fixture *x = *state;

	x->src.destination_holds = 0;
	assert_false(source_may_compare(&x->src));
	x->src.destination_holds = CHUNK_BYTES;
	assert_false(source_may_compare(&x->src));
	x->src.destination_holds = REGIONS * SIZE / 100;
	assert_true(source_may_compare(&x->src));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_all_the_same),     CASE(test_a_beginning),
		CASE(test_nothing_the_same), CASE(test_zeros),
		CASE(test_an_end),	     CASE(test_pages_that_are_not_pending),
		CASE(test_wrong_answers),    CASE(test_more_answers_than_questions),
		CASE(test_no_answer_at_all), CASE(test_lost),
		CASE(test_worth_it),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
