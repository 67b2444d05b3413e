// SPDX-License-Identifier: MIT
/* Both data planes while another process writes the RAM (pair_guest.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "tests/unit/dataplane/pair_guest.h"

/* RAM at the source, and a guest that writes it; a host that cannot track it is passed over. */
static void begin(struct pair *p, struct guest *g, uint64_t seed, unsigned int what)
{
	p->src_ram[0] = pair_memfd(p, p->size[0]);
	pair_fill(p->src_ram[0], p->size[0], seed);
	if (!guest_start(g, p, what)) {
		pair_close_ram(p);
		skip();
	}
}

/* Both sides hold the same. */
static void end(struct pair *p, struct guest *g)
{
	assert_true(pair_same(p->src_ram[0], p->dst_ram[0], p->size[0]));
	assert_int_equal(pair_verify(p).mismatches, 0);
	pair_quit(p);
	guest_end(g, p);
}

static void start_observer(struct pair *p)
{
	struct ipc_config c = pair_config(p, IPC_ROLE_OBSERVER);

	pair_spawn(&p->src);
	pair_send(&p->src, IPC_CONFIG, &c, -1);
	pair_send_regions(p, &p->src, true);
	pair_send_tracker(p);
	pair_send(&p->src, IPC_START, NULL, -1);
	pair_expect(&p->src, IPC_READY);
}

static void move_live(enum ipc_tx tx, uint32_t streams, unsigned int what)
{
	struct pair p = PAIR_INIT(streams, tx);
	struct ipc_scanned scanned;
	struct ipc_sent sent;
	struct guest g;

	p.dst_ram[0] = pair_memfd(&p, p.size[0]);
	pair_fill(p.dst_ram[0], p.size[0], 12);
	begin(&p, &g, 11, what);
	pair_start(&p);
	assert_int_equal(p.ready.tracker, IPC_TRACKER_PAGEMAP);
	scanned = pair_scan(&p, IPC_SCAN_FIRST);
	assert_int_equal(scanned.dirty_pages, 0);
	pair_round(&p, 1);
	for (uint32_t n = 2; n <= 6; n++) {
		let_it_write(&g, 2000);
		scanned = pair_scan(&p, 0);
		assert_true(scanned.dirty_pages > 0 && scanned.union_pages >= scanned.dirty_pages);
		assert_true(scanned.since_ns > 0);
		pair_round(&p, n);
	}
	guest_stop(&g);
	pair_scan(&p, IPC_SCAN_BARRIER);
	sent = pair_round(&p, 7);
	assert_true(sent.total.sent_pages > p.size[0] / 4096);
	/* Nothing is left, and both sides hold the same. */
	assert_int_equal(pair_scan(&p, IPC_SCAN_BARRIER).pending_pages, 0);
	end(&p, &g);
}

/*
 * RAM that is reported by the huge page, of a guest that changes pages to and fro: what was sent is
 * remembered while it changes. (The RAM itself is of small pages: that needs no pool.)
 */
static void flip_live(enum ipc_tx tx, uint32_t streams)
{
	struct pair p = PAIR_INIT(streams, tx);
	struct ipc_sent sent;
	struct guest g;

	p.page_size = CHUNK_BYTES;
	begin(&p, &g, 15, WRITES | FLIPS);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	pair_round(&p, 1);
	for (uint32_t n = 2; n <= 10; n++) {
		let_it_write(&g, 2000);
		pair_scan(&p, 0);
		pair_round(&p, n);
	}
	guest_stop(&g);
	pair_scan(&p, IPC_SCAN_BARRIER);
	sent = pair_round(&p, 11);
	assert_true(sent.total.same_bytes > 0);
	end(&p, &g);
}

static void test_live_flips(void **state)
{
	(void)state;
	flip_live(IPC_TX_SENDFILE, 1);
	flip_live(IPC_TX_SENDFILE, 3);
	flip_live(IPC_TX_SEND, 2);
	flip_live(IPC_TX_URING, 2);
}

/* The destination has what the guest had a while ago, as a cancelled move leaves it. */
static void test_live_again(void **state)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	uint64_t wire, data;
	struct ipc_sent sent;
	struct guest g;

	(void)state;
	p.dst_ram[0] = pair_memfd(&p, p.size[0]);
	pair_fill(p.dst_ram[0], p.size[0], 16);
	begin(&p, &g, 16, WRITES | FLIPS | HOT_ONLY);
	let_it_write(&g, 500);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	sent = pair_round(&p, 1);
	wire = sent.total.wire_bytes;
	data = sent.total.raw_bytes + sent.total.same_bytes;
	assert_true(sent.total.same_bytes > data / 2 && wire < data / 2);
	for (uint32_t n = 2; n <= 4; n++) {
		let_it_write(&g, 2000);
		pair_scan(&p, 0);
		pair_round(&p, n);
	}
	guest_stop(&g);
	pair_scan(&p, IPC_SCAN_BARRIER);
	pair_round(&p, 5);
	end(&p, &g);
}

/*
 * Pages that are written again before their turn are left for later, also from encoders and from
 * huge pages; nothing is lost by it, and when the guest stands still nothing is left.
 */
static void defer_live(enum ipc_compress compress, uint32_t page_size)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	struct ipc_sent sent = { 0 };
	struct guest g;

	p.page_size = page_size;
	p.compress = compress;
	p.level = compress == IPC_COMPRESS_ZSTD;
	p.rate = 400 << 20;
	p.send_flags = IPC_SEND_DEFER;
	begin(&p, &g, 21, WRITES);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	for (uint32_t n = 1; n <= 4; n++) {
		sent = pair_round(&p, n);
		let_it_write(&g, 2000);
		pair_scan(&p, 0);
	}
	assert_true(sent.total.deferred_bytes > 0);
	guest_stop(&g);
	pair_scan(&p, IPC_SCAN_BARRIER);
	p.send_flags = 0;
	pair_round(&p, 5);
	assert_int_equal(pair_scan(&p, IPC_SCAN_BARRIER).pending_pages, 0);
	end(&p, &g);
}

static void test_live_deferred(void **state)
{
	(void)state;
	defer_live(IPC_COMPRESS_OFF, 0);
	defer_live(IPC_COMPRESS_ZSTD, 0);
	defer_live(IPC_COMPRESS_OFF, CHUNK_BYTES);
}

static void test_live_sendfile(void **state)
{
	(void)state;
	move_live(IPC_TX_SENDFILE, 1, WRITES);
	move_live(IPC_TX_SENDFILE, 4, WRITES);
}

static void test_live_uring(void **state)
{
	(void)state;
	move_live(IPC_TX_URING, 2, WRITES);
}

static void test_live_send(void **state)
{
	(void)state;
	move_live(IPC_TX_SEND, 2, WRITES);
}

static void test_live_with_discards(void **state)
{
	(void)state;
	move_live(IPC_TX_AUTO, 2, WRITES | PUNCHES);
	move_live(IPC_TX_SEND, 3, WRITES | PUNCHES);
}

/* What a scan and a round cost together: of nothing, and of a few hundred scattered pages. */
static void test_small_round(void **state)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	double best[2] = { 1e9, 1e9 };
	struct guest g;

	(void)state;
	begin(&p, &g, 13, WRITES);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	guest_stop(&g);
	pair_round(&p, 1);
	pair_scan(&p, 0);
	pair_round(&p, 2);
	for (uint32_t n = 3; n < 43; n++) {
		const uint64_t pages = n % 2 ? 300 : 0;
		double *b = &best[n % 2];
		uint64_t start;

		for (uint64_t i = 0; i < pages; i++)
			write_as_guest(&g, (i * 53 + n) % (g.size / 4096), n);
		start = clock_ns();
		assert_int_equal(pair_scan(&p, 0).dirty_pages, pages);
		assert_int_equal(pair_round(&p, n).pages, pages);
		*b = clock_ms_since(start) < *b ? clock_ms_since(start) : *b;
	}
	print_message("scan and round take %.2f ms, of 300 scattered pages %.2f ms\n", best[0],
		      best[1]);
	end(&p, &g);
}

static void test_observer(void **state)
{
	struct pair p = PAIR_INIT(0, IPC_TX_AUTO);
	struct ipc_scan scan = { .flags = IPC_SCAN_FIRST | IPC_SCAN_OBSERVE };
	struct ipc_scanned s;
	struct guest g;

	(void)state;
	begin(&p, &g, 14, WRITES);
	start_observer(&p);
	pair_send(&p.src, IPC_SCAN, &scan, -1);
	pair_expect(&p.src, IPC_SCANNED);
	let_it_write(&g, 5000);
	scan.flags = IPC_SCAN_OBSERVE;
	pair_send(&p.src, IPC_SCAN, &scan, -1);
	s = pair_expect(&p.src, IPC_SCANNED)->scanned;
	assert_true(s.dirty_pages > 100 && s.union_pages == s.dirty_pages && s.since_ns > 0);
	guest_stop(&g);
	pair_send(&p.src, IPC_SCAN, &scan, -1);
	s = pair_expect(&p.src, IPC_SCANNED)->scanned;
	assert_true(s.union_pages >= s.dirty_pages);
	pair_send(&p.src, IPC_SCAN, &scan, -1);
	assert_int_equal(pair_expect(&p.src, IPC_SCANNED)->scanned.dirty_pages, 0);
	pair_send(&p.src, IPC_QUIT, NULL, -1);
	assert_int_equal(pair_wait(&p.src), 0);
	guest_end(&g, &p);
	pair_close_ram(&p);
}

/* Each level counts once what several scans have found; of the files a sample is looked at. */
static void test_observer_periods(void **state)
{
	struct pair p = PAIR_INIT(0, IPC_TX_AUTO);
	struct ipc_scan scan = { .flags = IPC_SCAN_FIRST | IPC_SCAN_OBSERVE | IPC_SCAN_PERIODS };
	struct ipc_scanned s[8], first;
	struct guest g;

	(void)state;
	begin(&p, &g, 14, WRITES | HOT_ONLY);
	start_observer(&p);
	pair_send(&p.src, IPC_SCAN, &scan, -1);
	first = pair_expect(&p.src, IPC_SCANNED)->scanned;
	assert_in_range(first.populated_pages, 1, p.size[0] / 4096);
	assert_in_range(first.sampled_pages, 100, 2048);
	assert_true(first.sampled_zero_pages <= first.sampled_pages);
	scan.flags = IPC_SCAN_OBSERVE | IPC_SCAN_PERIODS;
	for (int i = 0; i < 8; i++) {
		if (i < 6)
			let_it_write(&g, 300);
		else if (i == 6)
			guest_stop(&g);
		pair_send(&p.src, IPC_SCAN, &scan, -1);
		s[i] = pair_expect(&p.src, IPC_SCANNED)->scanned;
		assert_int_equal(s[i].period_pages[0], s[i].dirty_pages);
	}
	/* two, four and eight scans are all that there were then */
	assert_int_equal(s[1].period_pages[1], s[1].union_pages);
	assert_int_equal(s[3].period_pages[2], s[3].union_pages);
	assert_int_equal(s[7].period_pages[3], s[7].union_pages);
	/* later ones begin anew */
	assert_in_range(s[3].period_pages[1], s[3].dirty_pages,
			s[2].dirty_pages + s[3].dirty_pages);
	assert_in_range(s[7].period_pages[1], s[6].dirty_pages,
			s[6].dirty_pages + s[7].dirty_pages);
	assert_int_equal(s[0].period_pages[1] + s[2].period_pages[1] + s[1].period_pages[2], 0);
	/* it writes in the first quarter only */
	assert_true(s[7].written_places[0] > 0);
	for (int i = 0; i < IPC_PLACES; i++) {
		assert_true(s[7].written_places[i] >= s[0].written_places[i]);
		assert_true(i < IPC_PLACES / 2 || !s[7].written_places[i]);
	}
	pair_send(&p.src, IPC_QUIT, NULL, -1);
	assert_int_equal(pair_wait(&p.src), 0);
	guest_end(&g, &p);
	pair_close_ram(&p);
}

/* The VMM dies: the tracker says so, nothing is believed to be clean. */
static void test_vmm_dies(void **state)
{
	struct pair p = PAIR_INIT(1, IPC_TX_AUTO);
	struct ipc_scan scan = { 0 };
	struct guest g;

	(void)state;
	begin(&p, &g, 17, WRITES);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	guest_end(&g, &p);
	pair_send(&p.src, IPC_SCAN, &scan, -1);
	assert_string_equal(pair_expect(&p.src, IPC_FAILED)->failure.code, "vm-gone");
	assert_int_equal(pair_wait(&p.src), 1);
	pair_expect(&p.dst, IPC_FAILED);
	pair_wait(&p.dst);
	pair_close_ram(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {

		cmocka_unit_test(test_live_deferred),	   cmocka_unit_test(test_live_sendfile),
		cmocka_unit_test(test_live_uring),	   cmocka_unit_test(test_live_send),
		cmocka_unit_test(test_live_with_discards), cmocka_unit_test(test_live_flips),
		cmocka_unit_test(test_live_again),	   cmocka_unit_test(test_small_round),
		cmocka_unit_test(test_observer),	   cmocka_unit_test(test_observer_periods),
		cmocka_unit_test(test_vmm_dies),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
