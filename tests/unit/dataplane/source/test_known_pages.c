// SPDX-License-Identifier: MIT
/*
 * What is remembered of huge pages, and the rule that it is only remembered of what was sent: a
 * guest changes pages between the look and the sending, and back.
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
#include "dataplane/transport/tx_common.h"
#include "lib/base/cleanup.h"

#define CHUNKS 8u
#define SIZE   ((uint64_t)CHUNKS * CHUNK_BYTES)
#define PAGES  (CHUNKS * CHUNK_PAGES)

static const uint8_t secret[IPC_SECRET_SIZE] = { 1, 2, 3 };
static const uint8_t id[IPC_ID_SIZE] = { 4, 5, 6 };

/* A source without streams, its guest's RAM, and the RAM that a destination would have. */
struct fixture {
	struct region region;
	struct source src;
	uint8_t *guest, *destination, *scratch;
};

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct failure f = { 0 };
	char path[64];
	int fd = memfd_create("ram", MFD_CLOEXEC);

	if (!x || fd < 0 || ftruncate(fd, SIZE))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* Small pages that are tracked like huge ones: needs none of the host's pool. */
	x->region = (struct region){ .page_size = CHUNK_BYTES,
				     .size = SIZE,
				     .hugetlb = true,
				     .fd = open(path, O_RDONLY | O_CLOEXEC) };
	x->guest = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	x->destination =
		mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	x->scratch = aligned_alloc(PAGE_BYTES, LOOK_SCRATCH);
	close(fd);
	*state = x;
	if (x->guest == MAP_FAILED || x->destination == MAP_FAILED || !x->scratch ||
	    page_hash_init(&x->src.hash, secret, id) ||
	    known_pages_init(&x->src.known, &x->region, 1, (CHUNKS - 1) * 4096) ||
	    scheduler_init(&x->src.scheduler, &x->region, 1, false) ||
	    page_reader_init(&x->src.reader, &x->region, 1, &f))
		return -1;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	page_reader_release(&x->src.reader);
	scheduler_release(&x->src.scheduler);
	known_pages_release(&x->src.known);
	region_release(&x->region);
	munmap(x->guest, SIZE);
	munmap(x->destination, SIZE);
	free(x->scratch);
	free(x);
	return 0;
}

static void write_page(struct fixture *x, uint64_t page, uint64_t value)
{
	uint64_t *p = (uint64_t *)(x->guest + page * PAGE_BYTES);

	for (unsigned int i = 0; i < PAGE_BYTES / 8; i++)
		p[i] = value + i;
}

/* A chunk as a tracker of huge pages reports it. */
static struct scheduler_chunk chunk(const struct fixture *x, uint64_t number)
{
	struct scheduler_chunk c = { .region = &x->region,
				     .first_page = number * CHUNK_PAGES,
				     .pages = CHUNK_PAGES };

	memset(c.bits, 0xff, sizeof(c.bits));
	return c;
}

static struct chunk_look look_at(struct fixture *x, const struct scheduler_chunk *c)
{
	struct chunk_look look;

	assert_int_equal(source_look_at_chunk(&x->src, c, &look, x->scratch), 0);
	return look;
}

/* What a transmission by any way of sending puts in place: from the plan, as RAM is now. */
static uint64_t transmit(struct fixture *x, const struct scheduler_chunk *c,
			 const struct chunk_look *look)
{
	static struct chunk_plan plan;
	static struct plan_frame f;
	static struct wire_run runs[WIRE_RUNS_MAX];
	struct plan_cursor at = { 0 };
	uint64_t payload = 0;

	plan_from_kinds(&plan, c, look->kinds, look->snapshot);
	assert_int_equal(plan.same, look->same);
	/* Frames of an odd number of pages: they cut runs, also those of the snapshot. */
	while (plan_next_frame(&plan, &at, 37 * PAGE_BYTES, &f)) {
		struct wire_frame head;
		uint32_t slice = 0;

		assert_int_equal(wire_get_frame(&head, f.head, &x->region, 1), 0);
		assert_int_equal(wire_get_runs(runs, f.head + WIRE_FRAME_SIZE,
					       f.head_len - WIRE_FRAME_SIZE, &head, &x->region),
				 0);
		for (uint32_t i = 0; i < head.count; i++) {
			uint8_t *to = x->destination + head.offset + runs[i].page * PAGE_BYTES;

			if (runs[i].encoding == WIRE_ENC_RAW) {
				struct iovec v = tx_iov_of_slice(&x->region, &f.slice[slice++]);

				memcpy(to, v.iov_base, v.iov_len);
			} else {
				memset(to, 0, (size_t)runs[i].pages * PAGE_BYTES);
			}
		}
		payload += f.payload;
	}
	return payload;
}

/* Reports, looks and sends without anything between. */
static uint64_t send_chunk(struct fixture *x, uint64_t number, struct chunk_look *look)
{
	struct scheduler_chunk c = chunk(x, number);

	*look = look_at(x, &c);
	return transmit(x, &c, look);
}

static void assert_arrived(const struct fixture *x)
{
	assert_memory_equal(x->guest, x->destination, SIZE);
}

static void fill(struct fixture *x)
{
	for (uint64_t p = 0; p < PAGES; p++)
		if (p % 5)
			write_page(x, p, p * 1000);
}

static void test_one_byte_costs_one_page(void **state)
{
	struct fixture *x = *state;
	struct chunk_look look;

	fill(x);
	assert_true(send_chunk(x, 0, &look) > 400 * PAGE_BYTES);
	assert_null(look.snapshot); /* once: by reference */
	x->guest[7 * PAGE_BYTES + 100] ^= 1;
	assert_true(send_chunk(x, 0, &look) > 400 * PAGE_BYTES);
	assert_non_null(look.snapshot); /* nothing was known, now it is */
	assert_int_equal(look.same, 0);
	x->guest[9 * PAGE_BYTES + 4095] ^= 1;
	assert_int_equal(send_chunk(x, 0, &look), PAGE_BYTES);
	assert_int_equal(look.kinds[9], PAGE_RAW);
	assert_int_equal(send_chunk(x, 0, &look), 0);
	assert_memory_equal(x->guest, x->destination, CHUNK_BYTES);
}

/* Where all hashes may be kept, the first report is learned from. */
static void test_all_may_be_kept(void **state)
{
	struct fixture *x = *state;
	struct chunk_look look;

	known_pages_release(&x->src.known);
	assert_int_equal(known_pages_init(&x->src.known, &x->region, 1, CHUNKS * 4096), 0);
	fill(x);
	for (uint64_t c = 0; c < CHUNKS; c++) {
		send_chunk(x, c, &look);
		assert_non_null(look.snapshot);
	}
	for (uint64_t c = 0; c < CHUNKS; c++)
		x->guest[(c * CHUNK_PAGES + 77) * PAGE_BYTES + c] ^= 1;
	for (uint64_t c = 0; c < CHUNKS; c++)
		assert_int_equal(send_chunk(x, c, &look), PAGE_BYTES);
	assert_arrived(x);
}

/* Zeros and data that replace each other. */
static void test_zeros_come_and_go(void **state)
{
	struct fixture *x = *state;
	struct chunk_look look;

	fill(x);
	send_chunk(x, 0, &look);
	send_chunk(x, 0, &look);
	memset(x->guest + 6 * PAGE_BYTES, 0, PAGE_BYTES);
	write_page(x, 5, 1);
	assert_int_equal(send_chunk(x, 0, &look), PAGE_BYTES);
	assert_int_equal(look.kinds[6], PAGE_ZERO);
	/* What page 6 had before the zeros: equal to an old hash, and not what is there. */
	write_page(x, 6, 6 * 1000);
	assert_int_equal(send_chunk(x, 0, &look), PAGE_BYTES);
	assert_memory_equal(x->guest, x->destination, CHUNK_BYTES);
}

/*
 * A -> B -> A: the page is A when it is looked at, B while it is transmitted, and A again when it
 * is reported the next time. If what was hashed is not what was sent, B stays.
 */
static void test_changed_between_look_and_send(void **state)
{
	struct fixture *x = *state;
	struct scheduler_chunk c = chunk(x, 0);
	struct chunk_look look;

	fill(x);
	send_chunk(x, 0, &look);
	look = look_at(x, &c);
	for (uint64_t p = 1; p < CHUNK_PAGES; p += 3)
		write_page(x, p, ~p);
	transmit(x, &c, &look);
	for (uint64_t p = 1; p < CHUNK_PAGES; p += 3)
		if (p % 5)
			write_page(x, p, p * 1000);
		else
			memset(x->guest + p * PAGE_BYTES, 0, PAGE_BYTES);
	send_chunk(x, 0, &look);
	assert_memory_equal(x->guest, x->destination, CHUNK_BYTES);
}

/* The same around a transmission by reference, after the page was known from a snapshot. */
static void test_forgotten_by_a_send_by_reference(void **state)
{
	struct fixture *x = *state;
	struct known_chunk *k = &x->src.known.chunks[0][0];
	struct chunk_look look;

	fill(x);
	send_chunk(x, 0, &look);
	send_chunk(x, 0, &look); /* A is known */
	k->pause = 1;
	write_page(x, 3, 77); /* B */
	send_chunk(x, 0, &look);
	assert_null(look.snapshot);
	write_page(x, 3, 3000); /* A */
	send_chunk(x, 0, &look);
	assert_non_null(look.snapshot);
	assert_memory_equal(x->guest, x->destination, CHUNK_BYTES);
}

/* Chunks of which nothing stays equal are left alone, longer each time, and not for ever. */
static void test_what_is_all_new_is_not_copied(void **state)
{
	struct fixture *x = *state;
	struct chunk_look look;
	unsigned int snapshots = 0;

	for (uint64_t i = 0; i < 100; i++) {
		for (uint64_t p = 0; p < CHUNK_PAGES; p++)
			write_page(x, p, i * 7919 + p);
		send_chunk(x, 0, &look);
		snapshots += look.snapshot != NULL;
	}
	assert_in_range(snapshots, 5, 20);
	/* It calms down: found out after one more snapshot that only learns. */
	for (unsigned int i = 0; i < 129; i++)
		send_chunk(x, 0, &look);
	assert_int_equal(send_chunk(x, 0, &look), 0);
	assert_memory_equal(x->guest, x->destination, CHUNK_BYTES);
}

static void test_bounded(void **state)
{
	struct fixture *x = *state;
	struct chunk_look look;
	unsigned int snapshots = 0;

	known_pages_release(&x->src.known);
	assert_int_equal(known_pages_init(&x->src.known, &x->region, 1, 3 * 4096 + 100), 0);
	fill(x);
	for (int round = 0; round < 3; round++)
		for (uint64_t c = 0; c < CHUNKS; c++) {
			send_chunk(x, c, &look);
			snapshots += look.snapshot != NULL;
		}
	assert_int_equal(snapshots, 2 * 3);
	assert_int_equal(known_pages_memory(&x->src.known), 3 * 4096);
	assert_arrived(x);
	known_pages_release(&x->src.known);
	assert_int_equal(known_pages_init(&x->src.known, &x->region, 1, 0), 0);
	send_chunk(x, 0, &look);
	send_chunk(x, 0, &look);
	assert_null(look.snapshot);
}

static void test_small_pages_cost_nothing(void **state)
{
	struct fixture *x = *state;
	struct chunk_look look;

	known_pages_release(&x->src.known);
	x->region.page_size = PAGE_BYTES;
	assert_int_equal(known_pages_init(&x->src.known, &x->region, 1, SIZE), 0);
	assert_null(x->src.known.chunks);
	for (int i = 0; i < 3; i++)
		send_chunk(x, 0, &look);
	assert_null(look.snapshot);
}

/* All of it at random, with a change between every look and its transmission, and the last calm. */
static void test_at_random(void **state)
{
	struct fixture *x = *state;
	struct chunk_look look;
	uint64_t r = 88172645463325252ull;

	fill(x);
	for (unsigned int i = 0; i < 600; i++) {
		struct scheduler_chunk c = chunk(x, i % CHUNKS);

		for (unsigned int k = 0; k < 40; k++) {
			uint64_t page;

			r ^= r << 13;
			r ^= r >> 7;
			r ^= r << 17;
			/* few pages and few values, so that old ones come back */
			page = c.first_page + r % 64;
			if (k == 20)
				look = look_at(x, &c);
			if ((r >> 20) % 4)
				write_page(x, page, (r >> 30) % 3);
			else
				memset(x->guest + page * PAGE_BYTES, 0, PAGE_BYTES);
		}
		transmit(x, &c, &look);
	}
	for (uint64_t c = 0; c < CHUNKS; c++)
		send_chunk(x, c, &look);
	assert_arrived(x);
}

static void test_hash_is_of_the_session(void **state)
{
	static _Alignas(64) uint8_t page[PAGE_BYTES];
	struct page_hash a, b, c;
	uint8_t other[IPC_SECRET_SIZE] = { 9 }, other_id[IPC_ID_SIZE] = { 9 };
	uint64_t hash;

	(void)state;
	assert_int_equal(page_hash_init(&a, secret, id), 0);
	assert_int_equal(page_hash_init(&b, other, id), 0);
	assert_int_equal(page_hash_init(&c, secret, other_id), 0);
	hash = page_hash(&a, page);
	assert_int_not_equal(hash, PAGE_HASH_NONE);
	assert_int_not_equal(hash, page_hash(&b, page));
	assert_int_not_equal(hash, page_hash(&c, page));
	for (unsigned int i = 0; i < PAGE_BYTES; i++) {
		page[i] = 1;
		assert_int_not_equal(page_hash(&a, page), hash);
		assert_int_equal(page_hash_portable(page, a.secret), a.function(page, a.secret));
		page[i] = 0;
	}
	assert_int_equal(page_hash(&a, page), hash);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_byte_costs_one_page, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all_may_be_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zeros_come_and_go, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed_between_look_and_send, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_forgotten_by_a_send_by_reference, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_what_is_all_new_is_not_copied, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_pages_cost_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_at_random, setup, teardown),
		cmocka_unit_test(test_hash_is_of_the_session),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
