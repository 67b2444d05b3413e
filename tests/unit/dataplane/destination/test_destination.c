// SPDX-License-Identifier: MIT
/* The destination's data plane doing its work: rounds, device state, verification. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <endian.h>
#include <xxhash.h>

#include "dataplane/page_hash.h"
#include "tests/unit/dataplane/destination/destination_fixture.h"

static void test_rounds(void **state)
{
	(void)state;
	start_connected();
	memset(S.regions[1].map, 9, SECOND_SIZE); /* not empty before */
	put_pages(S.streams[0], 0, 0, 0, 512, 1);
	put_pages(S.streams[1], 0, 1, 100, 1, 2);
	put_pages(S.streams[0], 0, 2, 0, 3, 3);
	put_frame(
		S.streams[1],
		(struct wire_frame){ .type = WIRE_HOLES, .region = 1, .extent = 10 * PAGE_BYTES });
	round_end(1);
	/* acknowledged means in place */
	assert_bytes(0, 0, 512, 1);
	assert_bytes(0, 512, 100, 0);
	assert_bytes(0, 612, 1, 2);
	assert_bytes(0, 1024, 3, 3);
	assert_bytes(1, 0, 10, 0);
	assert_bytes(1, 10, 502, 9);
	for (uint8_t n = 2; n < 40; n++) {
		put_pages(S.streams[n & 1], 0, 0, 7, 5, n);
		put_pages(S.streams[(n + 1) & 1], 1, 0, 7, 5, n & 2 ? n : 0);
		round_end(n);
		assert_bytes(0, 7, 5, n);
		assert_bytes(1, 7, 5, n & 2 ? n : 0);
	}
	quit();
}

/* PROGRESS comes while something moves, and the last one tells all of it. */
static void test_progress(void **state)
{
	const uint64_t pages = 40 * 17 + 100;
	const struct ipc_stats *p = &S.progress;

	(void)state;
	start_connected();
	for (unsigned int i = 0; i < 40; i++) {
		put_pages(S.streams[0], 0, 0, 0, 16, 1);
		put_pages(S.streams[1], 1, 0, 0, 1, 0);
	}
	put_frame(
		S.streams[1],
		(struct wire_frame){ .type = WIRE_HOLES, .extent = 100 * PAGE_BYTES, .region = 1 });
	put_state(S.streams[0], (const uint8_t *)"state", 5);
	round_end(1);
	do {
		int fd;

		assert_int_equal(ipc_recv(S.sock, &S.last, &fd, WAIT_MS), 0);
		assert_int_equal(S.last.head.type, IPC_PROGRESS);
		S.progress = S.last.body.stats;
		assert_true(p->sent_pages <= pages);
	} while (p->sent_pages < pages);
	assert_int_equal(p->raw_bytes, 40 * 16 * PAGE_BYTES);
	assert_int_equal(p->zero_bytes, 40 * PAGE_BYTES);
	assert_int_equal(p->hole_bytes, 100 * PAGE_BYTES);
	assert_int_equal(p->state_bytes, 5);
	/* frames: 80 of pages, holes, state, two round ends */
	assert_int_equal(p->wire_bytes,
			 84 * WIRE_FRAME_SIZE + 80 * WIRE_RUN_SIZE + p->raw_bytes + 5);
	assert_true(p->cpu_ns > 0 && p->rss_bytes > 0);
	assert_true(p->rss_bytes < 64u << 20);
	quit();
}

/* Has the state loaded through fd[1] and reads it from fd[0]. */
static void load_through(int fd[2], const uint8_t *wanted, uint32_t len)
{
	uint8_t *got = malloc(len + 1);
	size_t n = 0;
	ssize_t r;

	assert_non_null(got);
	assert_int_equal(ipc_send(S.sock, IPC_LOAD, NULL, fd[1]), 0);
	close(fd[1]);
	while ((r = read(fd[0], got + n, len + 1 - n)) > 0)
		n += (size_t)r;
	assert_int_equal(r, 0); /* it closes its end */
	close(fd[0]);
	assert_int_equal(n, len);
	assert_memory_equal(got, wanted, len);
	free(got);
	expect(IPC_LOADED);
	assert_int_equal(S.last.body.count.bytes, len);
}

static void test_device_state(void **state)
{
	uint8_t *bytes = some_state(700000);
	int fd[2];

	(void)state;
	start_connected();
	send_state(bytes, 700000);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	load_through(fd, bytes, 700000);
	assert_int_equal(pipe(fd), 0); /* and again, another way */
	load_through(fd, bytes, 700000);
	/* pages may still come */
	put_pages(S.streams[1], 0, 1, 0, 512, 4);
	round_end(3);
	assert_bytes(0, 512, 512, 4);
	quit();
	free(bytes);
}

static void test_state_at_its_limit(void **state)
{
	uint8_t *bytes = some_state(STATE_MAX + 1);

	(void)state;
	start_connected();
	send_state(bytes, STATE_MAX);
	quit();
	start_connected();
	for (uint32_t at = 0; at < STATE_MAX; at += WIRE_STATE_MAX)
		put_state(S.streams[0], bytes + at, WIRE_STATE_MAX);
	put_state(S.streams[0], bytes, 1);
	expect_failure("state-failed");
	stop(1);
	free(bytes);
}

static void test_empty_state(void **state)
{
	int fd[2];

	(void)state;
	start_connected();
	send_state(NULL, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	load_through(fd, (const uint8_t *)"", 0);
	quit();
}

/* The VMM that should load is gone. */
static void test_load_into_nothing(void **state)
{
	uint8_t *bytes = some_state(1000);
	int fd[2];

	(void)state;
	start_connected();
	send_state(bytes, 1000);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	close(fd[0]);
	assert_int_equal(ipc_send(S.sock, IPC_LOAD, NULL, fd[1]), 0);
	close(fd[1]);
	expect_failure("state-failed");
	stop(1);
	free(bytes);
}

static void test_load_before_the_state_is_complete(void **state)
{
	int fd[2];

	(void)state;
	start_connected();
	put_state(S.streams[0], (const uint8_t *)"abc", 3);
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(ipc_send(S.sock, IPC_LOAD, NULL, fd[1]), 0);
	close(fd[0]);
	close(fd[1]);
	expect_failure("internal");
	stop(1);
}

/* Hashes of all chunks of a region from its present content, one spoilt if wanted. */
static void put_hashes(int fd, uint32_t region, uint64_t spoilt)
{
	const struct region *r = &S.regions[region];
	uint64_t hashes[8];
	uint32_t n = 0;

	for (uint64_t at = 0; at < r->size; at += CHUNK_BYTES, n++) {
		uint64_t len = r->size - at < CHUNK_BYTES ? r->size - at : CHUNK_BYTES;
		uint64_t h = XXH3_64bits(r->map + at, len);

		hashes[n] = htole64(n == spoilt ? h ^ 1 : h);
	}
	put_frame(fd, (struct wire_frame){ .type = WIRE_VERIFY,
					   .region = (uint16_t)region,
					   .count = n,
					   .length = n * WIRE_HASH_SIZE });
	put(fd, hashes, n * WIRE_HASH_SIZE);
}

static void verify(uint64_t spoilt0, uint64_t spoilt1, struct wire_frame acks[STREAMS])
{
	put_hashes(S.streams[0], 1, spoilt1);
	put_hashes(S.streams[1], 0, spoilt0);
	for (uint32_t i = 0; i < STREAMS; i++)
		put_frame(S.streams[i], (struct wire_frame){ .type = WIRE_VERIFY_END });
	for (uint32_t i = 0; i < STREAMS; i++)
		acks[i] = get_ack(S.streams[i], WIRE_VERIFY_END);
	expect(IPC_VERIFIED);
	assert_int_equal(S.last.body.verified.chunks, 4);
}

static void test_verify(void **state)
{
	const struct ipc_verified *v = &S.last.body.verified;
	struct wire_frame acks[STREAMS];

	(void)state;
	start_connected();
	put_pages(S.streams[0], 0, 2, 0, 3, 8); /* chunk 1 stays a hole */
	put_pages(S.streams[0], 0, 0, 0, 512, 7);
	round_end(1);
	for (unsigned int i = 0; i < 3; i++) {
		verify(UINT64_MAX, UINT64_MAX, acks);
		assert_int_equal(v->mismatches, 0);
		assert_true(!acks[0].extent && !acks[1].extent);
	}
	verify(2, 0, acks);
	assert_int_equal(v->mismatches, 2);
	assert_int_equal(v->first_region, 0);
	assert_int_equal(v->first_offset, 2ull * CHUNK_BYTES);
	assert_int_equal(acks[0].extent, 1);
	assert_int_equal(acks[0].region, 1);
	assert_int_equal(acks[1].extent, 1);
	assert_int_equal(acks[1].offset, 2ull * CHUNK_BYTES);
	quit();
}

static void test_bye_is_a_clean_end(void **state)
{
	uint8_t *bytes = some_state(100);
	int fd[2];

	(void)state;
	start_connected();
	send_state(bytes, 100);
	for (uint32_t i = 0; i < STREAMS; i++) {
		char byte;

		put_frame(S.streams[i], (struct wire_frame){ .type = WIRE_BYE });
		shutdown(S.streams[i], SHUT_WR);
		assert_int_equal(recv(S.streams[i], &byte, 1, 0), 0); /* closed there as well */
	}
	/* what it holds outlives the streams */
	assert_int_equal(pipe(fd), 0);
	load_through(fd, bytes, 100);
	quit();
	free(bytes);
}

static void test_messages_not_for_a_destination(void **state)
{
	struct ipc_limit limit = { .rate_limit = 1 };
	struct ipc_send order = { .round = 1 };

	(void)state;
	start_connected();
	assert_int_equal(ipc_send(S.sock, IPC_LIMIT, &limit, -1), 0); /* harmless */
	assert_int_equal(ipc_send(S.sock, IPC_SEND, &order, -1), 0);
	expect_failure("internal");
	stop(1);
}

/* The answer about the chunk at offset of region: how many hashes; 0: *extent bytes of nothing. */
static uint32_t ask_hashes(int fd, uint32_t region, uint64_t offset, uint64_t *hashes,
			   uint64_t *extent)
{
	uint8_t head[WIRE_FRAME_SIZE];
	struct wire_frame f;

	put_frame(fd, (struct wire_frame){
			      .type = WIRE_HASHES, .region = (uint16_t)region, .offset = offset });
	assert_int_equal(io_read_full(fd, head, sizeof(head)), 0);
	assert_int_equal(wire_get_frame(&f, head, S.regions, 2), 0);
	assert_int_equal(f.type, WIRE_HASHED);
	assert_int_equal(f.region, region);
	assert_int_equal(f.offset, offset);
	assert_int_equal(io_read_full(fd, hashes, f.length), 0);
	*extent = f.extent;
	return f.count;
}

/* What the RAM holds is told as it is, and asking makes nothing. */
static void test_hashes(void **state)
{
	static uint64_t hashes[CHUNK_PAGES];
	struct page_hash key;
	uint64_t extent;
	uint8_t *map;

	(void)state;
	start_connected();
	assert_int_equal(page_hash_init(&key, S.config.secret, S.config.id), 0);
	map = S.regions[0].map;
	put_frame(S.streams[0], (struct wire_frame){ .type = WIRE_HELD });
	assert_int_equal(get_ack(S.streams[0], WIRE_HELD).extent, 0);
	assert_int_equal(ask_hashes(S.streams[1], 0, 0, hashes, &extent), 0);
	assert_int_equal(extent, RAM_SIZE);

	put_pages(S.streams[0], 0, 1, 5, 2, 7);
	put_pages(S.streams[0], 0, 2, 1, 1, 8);
	round_end(1);
	memset(map + CHUNK_BYTES + 9 * PAGE_BYTES, 0, PAGE_BYTES); /* exists, and is zeros */
	put_frame(S.streams[1], (struct wire_frame){ .type = WIRE_HELD });
	assert_int_equal(get_ack(S.streams[1], WIRE_HELD).extent, 4 * PAGE_BYTES);
	assert_int_equal(ask_hashes(S.streams[1], 0, 0, hashes, &extent), 0);
	assert_int_equal(extent, CHUNK_BYTES + 5 * PAGE_BYTES);
	assert_int_equal(ask_hashes(S.streams[0], 0, CHUNK_BYTES, hashes, &extent), CHUNK_PAGES);
	for (uint64_t i = 0; i < CHUNK_PAGES; i++)
		assert_int_equal(le64toh(hashes[i]),
				 i == 5 || i == 6
					 ? page_hash(&key, map + CHUNK_BYTES + i * PAGE_BYTES)
					 : PAGE_HASH_NONE);
	assert_int_equal(ask_hashes(S.streams[0], 0, 2 * CHUNK_BYTES, hashes, &extent), 3);
	assert_int_equal(le64toh(hashes[1]), page_hash(&key, map + 2 * CHUNK_BYTES + PAGE_BYTES));
	assert_int_equal(hashes[0] | hashes[2], PAGE_HASH_NONE);
	put_frame(S.streams[0], (struct wire_frame){ .type = WIRE_HELD });
	assert_int_equal(get_ack(S.streams[0], WIRE_HELD).extent, 4 * PAGE_BYTES);
	quit();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hashes),
		cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_progress),
		cmocka_unit_test(test_device_state),
		cmocka_unit_test(test_state_at_its_limit),
		cmocka_unit_test(test_empty_state),
		cmocka_unit_test(test_load_into_nothing),
		cmocka_unit_test(test_load_before_the_state_is_complete),
		cmocka_unit_test(test_verify),
		cmocka_unit_test(test_bye_is_a_clean_end),
		cmocka_unit_test(test_messages_not_for_a_destination),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
