// SPDX-License-Identifier: MIT
/* Source and destination data planes against each other, as processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "tests/unit/dataplane/pair.h"

static uint64_t blocks_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks;
}

/* A full copy of a stopped guest, verified here and by VERIFY; holes stay holes on both sides. */
static void copy_everything(enum ipc_tx tx, uint32_t streams)
{
	struct pair p = PAIR_INIT(streams, tx);
	struct ipc_verified v;
	struct ipc_sent sent;
	uint64_t blocks[2];

	p.nregions = 2;
	p.size[1] = (8ull << 20) + 5 * 4096; /* not a whole chunk at its end */
	for (int i = 0; i < 2; i++) {
		p.src_ram[i] = pair_memfd(&p, p.size[i]);
		p.dst_ram[i] = pair_memfd(&p, p.size[i]);
		pair_fill(p.src_ram[i], p.size[i], 77 + (uint64_t)i);
		pair_fill(p.dst_ram[i], p.size[i], 1); /* an earlier stay */
		blocks[i] = blocks_of(p.src_ram[i]);
	}
	pair_start(&p);
	assert_int_equal(p.ready.tx, tx);
	assert_int_equal(pair_scan(&p, IPC_SCAN_FIRST).pending_pages * 8, blocks[0] + blocks[1]);
	sent = pair_round(&p, 1);
	/* what happens to be equal from the earlier stay need not go again */
	assert_int_equal(sent.pages * 4096 + sent.total.same_bytes, p.size[0] + p.size[1]);
	assert_int_equal(sent.total.hole_bytes,
			 p.size[0] + p.size[1] - 512 * (blocks[0] + blocks[1]));
	assert_true(sent.total.zero_bytes > 0 && sent.total.raw_bytes > 0);
	assert_int_equal(sent.total.raw_bytes + sent.total.zero_bytes + sent.total.hole_bytes +
				 sent.total.same_bytes,
			 p.size[0] + p.size[1]);
	assert_int_equal(sent.total.pending_pages, 0);
	for (int i = 0; i < 2; i++) {
		assert_true(pair_same(p.src_ram[i], p.dst_ram[i], p.size[i]));
		assert_int_equal(blocks_of(p.src_ram[i]), blocks[i]);
	}
	v = pair_verify(&p);
	assert_int_equal(v.mismatches, 0);
	assert_int_equal(v.chunks, 32 + 5);
	for (int i = 0; i < 2; i++)
		assert_int_equal(blocks_of(p.src_ram[i]), blocks[i]);
	pair_quit(&p);
}

/* The destination has all of it, and data where the source has holes and zeros. */
static void test_there_already(void **state)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	uint64_t page[512], data = 0, extra = 0, blocks;
	struct ipc_sent sent;

	(void)state;
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	p.dst_ram[0] = pair_memfd(&p, p.size[0]);
	pair_fill(p.src_ram[0], p.size[0], 5);
	pair_fill(p.dst_ram[0], p.size[0], 5);
	for (uint64_t at = 0; at < p.size[0]; at += 4096) {
		pair_check(pread(p.src_ram[0], page, 4096, (off_t)at) == 4096);
		if (page[0] || page[511]) {
			data += 4096;
		} else if (at / 4096 % 3 == 0) {
			pair_page(page, at);
			pair_check(pwrite(p.dst_ram[0], page, 4096, (off_t)at) == 4096);
			extra++;
		}
	}
	assert_true(data > p.size[0] / 4 && extra > 100);
	blocks = blocks_of(p.src_ram[0]);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	sent = pair_round(&p, 1);
	assert_int_equal(sent.total.same_bytes, data);
	assert_int_equal(sent.total.raw_bytes, 0);
	assert_true(sent.total.wire_bytes < p.size[0] / 200);
	assert_true(pair_same(p.src_ram[0], p.dst_ram[0], p.size[0]));
	assert_int_equal(blocks_of(p.src_ram[0]), blocks);
	assert_true(blocks_of(p.dst_ram[0]) <= blocks);
	assert_int_equal(pair_verify(&p).mismatches, 0);
	/* A next round sends what it is given: here nothing. */
	pair_scan(&p, 0);
	assert_int_equal(pair_round(&p, 2).pages, 0);
	pair_quit(&p);
}

#define COPY(tx, name, n)                                                                          \
	static void test_copy_##name##_##n(void **state)                                           \
	{                                                                                          \
		(void)state;                                                                       \
		copy_everything(tx, n);                                                            \
	}
COPY(IPC_TX_SENDFILE, sendfile, 1)
COPY(IPC_TX_SENDFILE, sendfile, 2)
COPY(IPC_TX_SENDFILE, sendfile, 4)
COPY(IPC_TX_SEND, send, 1)
COPY(IPC_TX_SEND, send, 2)
COPY(IPC_TX_SEND, send, 4)
COPY(IPC_TX_URING, uring, 1)
COPY(IPC_TX_URING, uring, 2)
COPY(IPC_TX_URING, uring, 4)

static void test_verify_finds_a_difference(void **state)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	struct ipc_verified v;

	(void)state;
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	pair_fill(p.src_ram[0], p.size[0], 5);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	pair_round(&p, 1);
	assert_int_equal(pwrite(p.dst_ram[0], "x", 1, (7 << 21) + 12345), 1);
	assert_int_equal(pwrite(p.dst_ram[0], "y", 1, (9 << 21) + 1), 1);
	v = pair_verify(&p);
	assert_int_equal(v.mismatches, 2);
	assert_int_equal(v.first_offset, 7 << 21);
	pair_quit(&p);
}

/* State written in pieces during a round arrives whole, in order, while the round runs. */
static void test_state_flows_during_a_round(void **state)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	static uint8_t out[3 << 20], in[sizeof(out) + 1];
	struct ipc_send round = { .round = 1 };
	int vm[2], load[2];
	size_t got = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + (i >> 8));
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	pair_fill(p.src_ram[0], p.size[0], 6);
	p.rate = 100 << 20; /* so that the round takes long */
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	pair_send(&p.src, IPC_SEND, &round, -1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, vm), 0);
	pair_send(&p.src, IPC_STATE, NULL, vm[1]);
	close(vm[1]);
	for (size_t at = 0; at < sizeof(out); at += 32768)
		assert_int_equal(write(vm[0], out + at, 32768), 32768);
	close(vm[0]);
	pair_send(&p.src, IPC_STATE_END, NULL, -1);
	/* The state overtakes the rest of the round. */
	assert_int_equal(pair_expect(&p.src, IPC_STATE_DONE)->count.bytes, sizeof(out));
	assert_int_equal(pair_expect(&p.dst, IPC_STATE_DONE)->count.bytes, sizeof(out));
	pair_expect(&p.src, IPC_SENT);
	assert_true(p.src.progress > 0);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, load), 0);
	pair_send(&p.dst, IPC_LOAD, NULL, load[1]);
	close(load[1]);
	for (ssize_t n; (n = read(load[0], in + got, sizeof(in) - got)) > 0;)
		got += (size_t)n;
	close(load[0]);
	assert_int_equal(got, sizeof(out));
	assert_memory_equal(in, out, sizeof(out));
	assert_int_equal(pair_expect(&p.dst, IPC_LOADED)->count.bytes, sizeof(out));
	assert_true(pair_same(p.src_ram[0], p.dst_ram[0], p.size[0]));
	pair_quit(&p);
}

/* Idle streams: what the relay adds to the pause. */
static void test_state_when_idle(void **state)
{
	struct pair p = PAIR_INIT(4, IPC_TX_AUTO);
	static uint8_t out[200000];
	uint64_t start;
	int vm[2];

	(void)state;
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	pair_round(&p, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, vm), 0);
	start = clock_ns();
	pair_send(&p.src, IPC_STATE, NULL, vm[1]);
	close(vm[1]);
	for (size_t at = 0; at < sizeof(out); at += 20000)
		assert_int_equal(write(vm[0], out + at, 20000), 20000);
	close(vm[0]);
	pair_send(&p.src, IPC_STATE_END, NULL, -1);
	assert_int_equal(pair_expect(&p.src, IPC_STATE_DONE)->count.bytes, sizeof(out));
	pair_expect(&p.dst, IPC_STATE_DONE);
	print_message("200 kB of state took %.2f ms\n", clock_ms_since(start));
	pair_quit(&p);
}

static void test_hugetlb(void **state)
{
	(void)state;
	for (enum ipc_tx tx = IPC_TX_SENDFILE; tx <= IPC_TX_SEND; tx++) {
		struct pair p = PAIR_INIT(2, tx);
		uint8_t *map;
		int probe;

		p.memfd_flags = MFD_HUGETLB;
		p.page_size = 2 << 20;
		p.size[0] = 16 << 20;
		probe = memfd_create("probe", MFD_CLOEXEC | MFD_HUGETLB);
		map = probe < 0 || ftruncate(probe, 2 * (off_t)p.size[0])
			      ? MAP_FAILED
			      : mmap(NULL, 2 * p.size[0], PROT_WRITE, MAP_SHARED, probe, 0);
		fd_close(&probe);
		if (map == MAP_FAILED) {
			print_message("fewer than 16 huge pages are free here\n");
			skip();
		}
		munmap(map, 2 * p.size[0]);
		p.src_ram[0] = pair_memfd(&p, p.size[0]);
		map = mmap(NULL, p.size[0], PROT_WRITE, MAP_SHARED, p.src_ram[0], 0);
		assert_ptr_not_equal(map, MAP_FAILED);
		/* Huge pages 1 and 5 are never touched; zeros and data lie in the others. */
		for (uint64_t page = 0; page < p.size[0] / 4096; page++)
			if (page / 512 != 1 && page / 512 != 5 && page % 7)
				pair_page((uint64_t *)(map + page * 4096), page);
		munmap(map, p.size[0]);
		pair_start(&p);
		pair_scan(&p, IPC_SCAN_FIRST);
		assert_int_equal(pair_round(&p, 1).pages, p.size[0] / 4096);
		assert_true(pair_same(p.src_ram[0], p.dst_ram[0], p.size[0]));
		assert_int_equal(pair_verify(&p).mismatches, 0);
		/* Looking at huge pages that do not exist has not made them. */
		assert_int_equal(blocks_of(p.src_ram[0]), 6 * 4096);
		pair_quit(&p);
	}
}

/* The limit holds over all streams together, and a change during the round counts. */
static void test_bandwidth_limit(void **state)
{
	const uint64_t rate = 40 << 20;
	struct pair p = PAIR_INIT(4, IPC_TX_AUTO);
	struct ipc_send round = { .round = 1 };
	struct ipc_limit none = { 0 };
	uint64_t page[512];
	struct ipc_sent sent;
	uint64_t least;

	(void)state;
	p.rate = rate;
	p.size[0] = 16 << 20;
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	for (uint64_t at = 0; at < p.size[0]; at += 4096) {
		pair_page(page, at);
		assert_int_equal(pwrite(p.src_ram[0], page, 4096, (off_t)at), 4096);
	}
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	sent = pair_round(&p, 1);
	/* Burst and one frame a stream may be in flight beyond the limit. */
	least = (sent.wire_bytes - rate / 100 - 4 * (rate / 200 + 16384)) * NSEC_PER_SEC / rate;
	assert_true(sent.ns >= least);
	pair_quit(&p);

	p = PAIR_INIT(2, IPC_TX_AUTO);
	p.rate = 1; /* for ever */
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	pair_fill(p.src_ram[0], p.size[0], 3);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	pair_send(&p.src, IPC_SEND, &round, -1);
	pair_send(&p.src, IPC_LIMIT, &none, -1);
	pair_expect(&p.src, IPC_SENT);
	assert_true(pair_same(p.src_ram[0], p.dst_ram[0], p.size[0]));
	pair_quit(&p);
}

static void start_stuck_round(struct pair *p)
{
	struct ipc_send round = { .round = 1 };

	p->src_ram[0] = pair_memfd(p, p->size[0]);
	pair_fill(p->src_ram[0], p->size[0], 9);
	pair_start(p);
	pair_scan(p, IPC_SCAN_FIRST);
	pair_freeze(&p->dst); /* the peer stalls */
	pair_send(&p->src, IPC_SEND, &round, -1);
}

static void test_quit_while_the_peer_stalls(void **state)
{
	(void)state;
	for (enum ipc_tx tx = IPC_TX_SENDFILE; tx <= IPC_TX_SEND; tx++) {
		struct pair p = PAIR_INIT(2, tx);
		uint64_t start;

		start_stuck_round(&p);
		start = clock_ns();
		pair_send(&p.src, IPC_QUIT, NULL, -1);
		assert_int_equal(pair_wait(&p.src), 0);
		print_message("quit after %.1f ms\n", clock_ms_since(start));
		assert_int_equal(kill(p.dst.pid, SIGKILL), 0);
		assert_int_equal(pair_wait(&p.dst), -SIGKILL);
		pair_close_ram(&p);
	}
}

static void test_daemon_gone_while_the_peer_stalls(void **state)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);

	(void)state;
	start_stuck_round(&p);
	shutdown(p.src.sock, SHUT_RDWR);
	assert_int_equal(pair_wait(&p.src), 0);
	assert_int_equal(kill(p.dst.pid, SIGKILL), 0);
	assert_int_equal(pair_wait(&p.dst), -SIGKILL);
	pair_close_ram(&p);
}

static void test_destination_killed_in_a_round(void **state)
{
	(void)state;
	for (enum ipc_tx tx = IPC_TX_SENDFILE; tx <= IPC_TX_SEND; tx++) {
		struct pair p = PAIR_INIT(2, tx);

		start_stuck_round(&p);
		assert_int_equal(kill(p.dst.pid, SIGKILL), 0);
		assert_string_equal(pair_expect(&p.src, IPC_FAILED)->failure.code, "data-lost");
		assert_int_equal(pair_wait(&p.src), 1);
		assert_int_equal(pair_wait(&p.dst), -SIGKILL);
		pair_close_ram(&p);
	}
}

static void test_destination_killed_when_idle(void **state)
{
	struct pair p = PAIR_INIT(3, IPC_TX_AUTO);

	(void)state;
	pair_start(&p);
	assert_int_equal(kill(p.dst.pid, SIGKILL), 0);
	assert_string_equal(pair_expect(&p.src, IPC_FAILED)->failure.code, "data-lost");
	assert_int_equal(pair_wait(&p.src), 1);
	assert_int_equal(pair_wait(&p.dst), -SIGKILL);
	pair_close_ram(&p);
}

static void test_source_killed(void **state)
{
	struct pair p = PAIR_INIT(3, IPC_TX_AUTO);

	(void)state;
	pair_start(&p);
	assert_int_equal(kill(p.src.pid, SIGKILL), 0);
	assert_string_equal(pair_expect(&p.dst, IPC_FAILED)->failure.code, "data-lost");
	assert_int_equal(pair_wait(&p.src), -SIGKILL);
	assert_int_equal(pair_wait(&p.dst), 1);
	pair_close_ram(&p);
}

static void test_wrong_secret(void **state)
{
	struct pair p = PAIR_INIT(1, IPC_TX_AUTO);
	struct ipc_config c;
	struct ipc_tracker t = { .kind = IPC_TRACKER_NONE };
	struct ipc_stream st = { 0 };
	struct sockaddr_in at;
	int fd;

	(void)state;
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	p.dst_ram[0] = pair_memfd(&p, p.size[0]);
	pair_start_destination(&p, &at);
	c = pair_config(&p, IPC_ROLE_SOURCE);
	c.secret[31] ^= 1;
	pair_spawn(&p.src);
	pair_send(&p.src, IPC_CONFIG, &c, -1);
	pair_send_regions(&p, &p.src, true);
	pair_send(&p.src, IPC_TRACKER, &t, -1);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	pair_send(&p.src, IPC_STREAM, &st, fd);
	close(fd);
	pair_send(&p.src, IPC_START, NULL, -1);
	assert_string_equal(pair_expect(&p.src, IPC_FAILED)->failure.code, "data-auth");
	assert_int_equal(pair_wait(&p.src), 1);
	kill(p.dst.pid, SIGKILL);
	assert_int_equal(pair_wait(&p.dst), -SIGKILL);
	pair_close_ram(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy_sendfile_1),
		cmocka_unit_test(test_copy_sendfile_2),
		cmocka_unit_test(test_copy_sendfile_4),
		cmocka_unit_test(test_copy_send_1),
		cmocka_unit_test(test_copy_send_2),
		cmocka_unit_test(test_copy_send_4),
		cmocka_unit_test(test_copy_uring_1),
		cmocka_unit_test(test_copy_uring_2),
		cmocka_unit_test(test_copy_uring_4),
		cmocka_unit_test(test_there_already),
		cmocka_unit_test(test_verify_finds_a_difference),
		cmocka_unit_test(test_state_flows_during_a_round),
		cmocka_unit_test(test_state_when_idle),
		cmocka_unit_test(test_hugetlb),
		cmocka_unit_test(test_bandwidth_limit),
		cmocka_unit_test(test_quit_while_the_peer_stalls),
		cmocka_unit_test(test_daemon_gone_while_the_peer_stalls),
		cmocka_unit_test(test_destination_killed_in_a_round),
		cmocka_unit_test(test_destination_killed_when_idle),
		cmocka_unit_test(test_source_killed),
		cmocka_unit_test(test_wrong_secret),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
