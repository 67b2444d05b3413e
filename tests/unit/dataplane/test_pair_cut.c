// SPDX-License-Identifier: MIT
/*
 * Rounds that are cut, of both data planes: on a slow link, so that most of the round is left when
 * the CUT comes; nothing is lost by it, and nothing is overtaken.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dataplane/postcopy/postcopy.h"
#include "tests/unit/dataplane/pair_guest.h"

#define PAGES (64ull << 20 >> 12)
#define FAST  0
#define SLOW  (4ull << 20) /* bytes a second: a chunk takes half of one */

struct how {
	uint32_t streams;
	enum ipc_tx tx;
	enum ipc_compress compress;
	uint64_t delta_cache;
	uint32_t page_size, flags;
	bool track_dma;
	unsigned int what;
	uint64_t rate; /* of the rounds that are cut; 0: SLOW */
};

static void limit(struct pair *p, uint64_t rate)
{
	struct ipc_limit m = { .rate_limit = rate };

	pair_send(&p->src, IPC_LIMIT, &m, -1);
}

/* All RAM exists at both sides, and is different. False: this host cannot track. */
static bool begin(struct pair *p, struct guest *g, const struct how *how)
{
	*p = PAIR_INIT(how->streams, how->tx);
	p->compress = how->compress;
	p->level = how->compress == IPC_COMPRESS_ZSTD;
	p->delta_cache = how->delta_cache;
	p->page_size = how->page_size;
	p->track_dma = how->track_dma;
	p->send_flags = how->flags;
	p->src_ram[0] = pair_memfd(p, p->size[0]);
	p->dst_ram[0] = pair_memfd(p, p->size[0]);
	pair_fill(p->src_ram[0], p->size[0], 31);
	pair_fill(p->dst_ram[0], p->size[0], 32);
	if (!guest_start(g, p, how->what)) {
		pair_close_ram(p);
		return false;
	}
	pair_start(p);
	pair_scan(p, IPC_SCAN_FIRST);
	return true;
}

/* A test from the begin to the end. */
static void run(const struct how *how,
		void (*test)(struct pair *p, struct guest *g, const struct how *how))
{
	struct guest g;
	struct pair p;

	if (!begin(&p, &g, how))
		skip();
	test(&p, &g, how);
	pair_quit(&p);
	guest_end(&g, &p);
}

/* Some of it is under way when the CUT comes. */
static void await_progress(struct pair *p)
{
	struct ipc_message m;
	int fd;

	do {
		pair_check(!ipc_recv(p->src.sock, &m, &fd, PAIR_TIMEOUT_MS));
		pair_check(m.head.type == IPC_PROGRESS);
	} while (!m.body.stats.sent_pages);
}

static struct ipc_sent cut_round(struct pair *p, uint32_t n, uint64_t rate)
{
	struct ipc_send s = { .round = n, .flags = p->send_flags };

	limit(p, rate ? rate : SLOW);
	pair_send(&p->src, IPC_SEND, &s, -1);
	await_progress(p);
	pair_send(&p->src, IPC_CUT, NULL, -1);
	limit(p, FAST); /* what is on its way need not last */
	return pair_expect(&p->src, IPC_SENT)->sent;
}

/* Rounds of which each second one is cut, while the guest writes; then all that is left. */
static void cut_live(struct pair *p, struct guest *g, const struct how *how)
{
	struct ipc_scanned scanned;
	struct ipc_sent sent;

	sent = pair_round(p, 1);
	assert_int_equal(sent.flags, 0);
	for (uint32_t n = 2; n <= 7; n++) {
		let_it_write(g, 40000);
		/* what is written again before its turn is left out: not all of the round */
		guest_keep_hot(g, !(n % 2) && how->flags & IPC_SEND_DEFER);
		scanned = pair_scan(p, 0);
		sent = n % 2 ? pair_round(p, n) : cut_round(p, n, how->rate);
		assert_int_equal(sent.round, n);
		assert_int_equal(sent.flags, n % 2 ? 0 : IPC_SENT_CUT);
		if (n % 2)
			continue;
		assert_true(sent.pages < scanned.pending_pages);
		/* some of it may have been left for later, which the next scan reports */
		assert_true(sent.total.pending_pages > 0);
		assert_true(sent.total.pending_pages + sent.pages <= scanned.pending_pages);
	}
	guest_stop(g);
	pair_scan(p, IPC_SCAN_BARRIER);
	p->send_flags = 0;
	pair_round(p, 8);
	assert_int_equal(pair_scan(p, IPC_SCAN_BARRIER).pending_pages, 0);
	assert_true(pair_same(p->src_ram[0], p->dst_ram[0], p->size[0]));
	assert_int_equal(pair_verify(p).mismatches, 0);
}

static void test_cut_plain(void **state)
{
	(void)state;
	run(&(struct how){ .streams = 1, .tx = IPC_TX_SENDFILE, .what = WRITES }, cut_live);
	run(&(struct how){ .streams = 4, .tx = IPC_TX_SEND, .what = WRITES }, cut_live);
	run(&(struct how){ .streams = 2, .tx = IPC_TX_URING, .what = WRITES }, cut_live);
}

static void test_cut_with_dma_and_discards(void **state)
{
	(void)state;
	run(&(struct how){ .streams = 2, .track_dma = true, .what = WRITES | PUNCHES }, cut_live);
}

static void test_cut_deferring(void **state)
{
	(void)state;
	run(&(struct how){ .streams = 2, .flags = IPC_SEND_DEFER, .what = WRITES }, cut_live);
}

/* Encoders hold chunks, and queue them. */
static void test_cut_compressed(void **state)
{
	(void)state;
	run(&(struct how){ .streams = 2,
			   .compress = IPC_COMPRESS_ZSTD,
			   .delta_cache = 32u << 20,
			   .rate = SLOW / 256, /* of a page only a word goes */
			   .flags = IPC_SEND_DEFER,
			   .what = WRITES },
	    cut_live);
	run(&(struct how){ .streams = 3, .compress = IPC_COMPRESS_AUTO, .what = WRITES }, cut_live);
}

/* What is remembered of pages that were sent does not hold of those that were not. */
static void test_cut_with_page_hashes(void **state)
{
	(void)state;
	run(&(struct how){ .streams = 2, .page_size = CHUNK_BYTES, .what = WRITES | FLIPS },
	    cut_live);
}

/* It owes holes: CUT has no effect on it. */
static void a_first_round_goes_on(struct pair *p, struct guest *g, const struct how *how)
{
	struct ipc_sent sent;

	(void)how;
	guest_stop(g);
	sent = cut_round(p, 1, SLOW);
	assert_int_equal(sent.flags, 0);
	assert_int_equal(sent.pages, PAGES);
	assert_int_equal(sent.total.pending_pages, 0);
}

static void test_a_first_round_goes_on(void **state)
{
	(void)state;
	run(&(struct how){ .streams = 2, .what = WRITES }, a_first_round_goes_on);
}

/* After the round's end it is nothing, and means nothing to the next one. */
static void too_late(struct pair *p, struct guest *g, const struct how *how)
{
	struct ipc_scanned scanned;
	struct ipc_sent sent;

	(void)how;
	pair_send(&p->src, IPC_CUT, NULL, -1);
	pair_round(p, 1);
	pair_send(&p->src, IPC_CUT, NULL, -1);
	let_it_write(g, 500);
	guest_stop(g);
	scanned = pair_scan(p, IPC_SCAN_BARRIER);
	pair_send(&p->src, IPC_CUT, NULL, -1);
	sent = pair_round(p, 2);
	assert_int_equal(sent.flags, 0);
	assert_int_equal(sent.pages, scanned.pending_pages);
	assert_true(pair_same(p->src_ram[0], p->dst_ram[0], p->size[0]));
}

static void test_too_late(void **state)
{
	(void)state;
	run(&(struct how){ .streams = 2, .what = WRITES }, too_late);
}

/* Every page that differs at the destination is in the set. */
static void assert_named(const struct pair *p, const struct page_set *named)
{
	uint8_t a[4096], b[4096];

	for (uint64_t page = 0; page < PAGES; page++) {
		pair_check(pread(p->src_ram[0], a, 4096, (off_t)(page << 12)) == 4096);
		pair_check(pread(p->dst_ram[0], b, 4096, (off_t)(page << 12)) == 4096);
		if (memcmp(a, b, 4096))
			assert_true(named->words[page / 64] >> (page % 64) & 1);
	}
}

/* What was left by a cut is named at the switch to post-copy, with the rest. */
static void what_is_left_is_handed_over(struct pair *p, struct guest *g, const struct how *how)
{
	struct region region = { .size = PAGES << 12 };
	struct ipc_scanned scanned;
	struct page_set named;
	struct ipc_sent sent;
	int fd;

	(void)how;
	fd = memfd_create("missing", MFD_CLOEXEC);
	pair_check(!ftruncate(fd, (off_t)postcopy_file_bytes(&region, 1)));
	assert_int_equal(page_set_init(&named, &region, 1, fd, 0, NULL), 0);
	pair_send(&p->dst, IPC_MISSING, NULL, fd);
	pair_round(p, 1);
	let_it_write(g, 4000);
	pair_scan(p, 0);
	sent = cut_round(p, 2, SLOW);
	assert_int_equal(sent.flags, IPC_SENT_CUT);
	guest_stop(g);
	scanned = pair_scan(p, IPC_SCAN_BARRIER);
	assert_true(scanned.pending_pages >= sent.total.pending_pages);
	pair_send(&p->src, IPC_HAND_OVER, NULL, -1);
	assert_int_equal(pair_expect(&p->src, IPC_HANDED_OVER)->count.bytes, scanned.pending_pages);
	assert_int_equal(pair_expect(&p->dst, IPC_HANDED_OVER)->count.bytes, scanned.pending_pages);
	assert_int_equal(page_set_count(&named), scanned.pending_pages);
	assert_named(p, &named);
	page_set_release(&named);
	close(fd);
}

static void test_what_is_left_is_handed_over(void **state)
{
	(void)state;
	run(&(struct how){ .streams = 2, .what = WRITES }, what_is_left_is_handed_over);
}

/* A cancel in the middle of it. */
static void test_quit_in_a_cut_round(void **state)
{
	struct how how = { .streams = 2, .compress = IPC_COMPRESS_ZSTD, .what = WRITES };
	struct ipc_send s = { .round = 2 };
	struct guest g;
	struct pair p;

	(void)state;
	if (!begin(&p, &g, &how))
		skip();
	pair_round(&p, 1);
	let_it_write(&g, 4000);
	pair_scan(&p, 0);
	limit(&p, SLOW);
	pair_send(&p.src, IPC_SEND, &s, -1);
	await_progress(&p);
	pair_send(&p.src, IPC_CUT, NULL, -1);
	pair_send(&p.src, IPC_QUIT, NULL, -1);
	assert_int_equal(pair_wait(&p.src), 0);
	/* it may say that its streams broke, or be told first */
	ipc_send(p.dst.sock, IPC_QUIT, NULL, -1);
	pair_wait(&p.dst);
	pair_close_ram(&p);
	guest_end(&g, &p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut_plain),
		cmocka_unit_test(test_cut_with_dma_and_discards),
		cmocka_unit_test(test_cut_deferring),
		cmocka_unit_test(test_cut_compressed),
		cmocka_unit_test(test_cut_with_page_hashes),
		cmocka_unit_test(test_a_first_round_goes_on),
		cmocka_unit_test(test_too_late),
		cmocka_unit_test(test_what_is_left_is_handed_over),
		cmocka_unit_test(test_quit_in_a_cut_round),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
