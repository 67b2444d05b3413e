// SPDX-License-Identifier: MIT
// timeout: 300
/*
 * Every way of sending × every way of placing × every encoding moves memory byte-exact, whatever
 * goes wrong on the way: short transfers, full sockets, no memory, interruptions, slow receivers,
 * connections reset; and a receiver that stalls costs the source no memory.
 *
 * A new way of sending, placing or encoding joins by a row of its table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <assert.h>
#include <cmocka.h>

#include <linux/falloc.h>
#include <pthread.h>
#include <zstd.h>

#include "dataplane/destination/place.h"
#include "dataplane/source/chunk_plan.h"
#include "dataplane/source/page_reader.h"
#include "dataplane/transport/tx.h"
#include "tests/unit/dataplane/injection.h"
#include "tests/unit/dataplane/pair.h"
#include "tests/unit/dataplane/tcp_pair.h"

/* A sanitizer's own memory grows with what a program touches. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* One whole chunk and a part of one, so that every case takes some ms. */
#define RAM_SIZE (CHUNK_BYTES + 100ull * PAGE_BYTES)

static const struct sending {
	const char *name;
	const struct tx_ops *ops;
	bool by_reference; /* injection.h */
} ways_of_sending[] = {
	{ "sendfile", &tx_sendfile_ops, false },
	{ "uring", &tx_uring_ops, false },
	{ "uring, never copied", &tx_uring_ops, true },
	{ "send", &tx_send_ops, false },
};
#define WAYS_OF_SENDING (sizeof(ways_of_sending) / sizeof(ways_of_sending[0]))

static const struct placing {
	const char *name;
	enum place_kind kind;
	bool huge;
} ways_of_placing[] = {
	{ "auto", PLACE_AUTO, true },
	{ "map", PLACE_MAP, false },
	{ "pwrite", PLACE_PWRITE, false },
};

/* What goes wrong: at the sender, at the receiver, and how large the socket's buffers are. */
static const struct trouble {
	const char *name;
	struct injecting tx, rx;
	int buffer;
} troubles[] = {
	{ "nothing", { 0 }, { 0 }, 1 << 20 },
	{ "short",
	  { INJECT_SHORT, .seed = 1, .every = 2 },
	  { INJECT_SHORT, .seed = 2, .every = 2 },
	  1 << 20 },
	{ "full sockets",
	  { INJECT_EAGAIN, .seed = 3, .every = 3 },
	  { INJECT_EINTR, .seed = 4, .every = 3 },
	  1 << 20 },
	{ "no memory", { INJECT_ENOMEM, .seed = 5, .every = 8 }, { 0 }, 1 << 20 },
	{ "interrupted",
	  { INJECT_EINTR, .seed = 6, .every = 2 },
	  { INJECT_EINTR, .seed = 7, .every = 2 },
	  1 << 20 },
	{ "slow receiver", { 0 }, { INJECT_SHORT, .seed = 8, .every = 1 }, 4096 },
	{ "slow and short",
	  { INJECT_SHORT, .seed = 9, .every = 2 },
	  { INJECT_SHORT, .seed = 10, .every = 1 },
	  4096 },
};

/* One move: RAM on both sides and the streams between them. */
struct move {
	struct region src, dst;
	struct page_reader reader;
	uint8_t *content; /* what src reads as */
	uint8_t *present; /* what dst reads as at the beginning */
	uint8_t *snapshot;
	ZSTD_CCtx *zstd;
	int sv[2];
	const struct trouble *trouble;
	const struct placing *placing;
	struct tx *tx;
	uint64_t seed;
	int received; /* result of the receiver */
};

static uint64_t draw(struct move *m, uint64_t below)
{
	m->seed = m->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (m->seed >> 33) % below;
}

/* How a run of pages goes: adds it to the plan. */
static void add_raw(struct move *m, struct chunk_plan *p, uint32_t page, uint32_t pages)
{
	(void)m;
	plan_add(p, page, pages, WIRE_ENC_RAW);
}

static void add_snapshot(struct move *m, struct chunk_plan *p, uint32_t page, uint32_t pages)
{
	size_t at = (size_t)page * PAGE_BYTES, len = (size_t)pages * PAGE_BYTES;

	memcpy(m->snapshot + at, m->content + (p->first_page << PAGE_SHIFT) + at, len);
	plan_add_data(p, page, pages, WIRE_ENC_RAW, m->snapshot + at, (uint32_t)len);
}

static void add_zero(struct move *m, struct chunk_plan *p, uint32_t page, uint32_t pages)
{
	(void)m;
	plan_add(p, page, pages, WIRE_ENC_ZERO);
}

static void add_hole(struct move *m, struct chunk_plan *p, uint32_t page, uint32_t pages)
{
	(void)m;
	plan_add(p, page, pages, WIRE_ENC_HOLE);
}

/* By zstd; base: NULL, or what the destination has. */
static void add_compressed(struct move *m, struct chunk_plan *p, uint32_t page, uint32_t pages,
			   enum wire_encoding encoding, const uint8_t *base)
{
	size_t at = (size_t)page * PAGE_BYTES, len = (size_t)pages * PAGE_BYTES, n;
	uint8_t *out = m->snapshot + at;

	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_checksumFlag, base != NULL);
	if (base)
		ZSTD_CCtx_refPrefix(m->zstd, base + (p->first_page << PAGE_SHIFT) + at, len);
	n = ZSTD_compress2(m->zstd, out, len, m->content + (p->first_page << PAGE_SHIFT) + at, len);
	assert_false(ZSTD_isError(n));
	plan_add_data(p, page, pages, encoding, out, (uint32_t)n);
}

static void add_zstd(struct move *m, struct chunk_plan *p, uint32_t page, uint32_t pages)
{
	add_compressed(m, p, page, pages, WIRE_ENC_ZSTD, NULL);
}

static void add_delta(struct move *m, struct chunk_plan *p, uint32_t page, uint32_t pages)
{
	add_compressed(m, p, page, pages, WIRE_ENC_DELTA, m->present);
}

enum content { CONTENT_DATA, CONTENT_TEXT, CONTENT_CHANGED, CONTENT_ZERO, CONTENT_HOLE };

static const struct encoding {
	const char *name;
	enum content content; /* of the pages that go so */
	uint32_t longest;     /* run, pages */
	void (*add)(struct move *m, struct chunk_plan *p, uint32_t page, uint32_t pages);
} encodings[] = {
	{ "raw", CONTENT_DATA, CHUNK_PAGES, add_raw },
	{ "snapshot", CONTENT_DATA, 64, add_snapshot },
	{ "zstd", CONTENT_TEXT, WIRE_ENCODED_PAGES_MAX, add_zstd },
	{ "delta", CONTENT_CHANGED, WIRE_ENCODED_PAGES_MAX, add_delta },
	{ "zero", CONTENT_ZERO, CHUNK_PAGES, add_zero },
	{ "hole", CONTENT_HOLE, CHUNK_PAGES, add_hole },
};
#define ENCODINGS (sizeof(encodings) / sizeof(encodings[0]))

/* Stale data, zeros and holes: what a destination may hold before. */
static int new_destination(void)
{
	int fd = memfd_create("matrix-dst", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, RAM_SIZE), 0);
	pair_fill(fd, RAM_SIZE, 99);
	return fd;
}

static void fill_page(struct move *m, uint64_t at, enum content is)
{
	uint8_t *page = m->content + at;

	if (is == CONTENT_DATA)
		pair_page((uint64_t *)page, at + 1);
	for (size_t i = 0; is == CONTENT_TEXT && i < PAGE_BYTES; i++)
		page[i] = "a page of text, number "[i % 23] + (i % 64 ? 0 : at >> 12 & 15);
	if (is != CONTENT_CHANGED)
		return;
	memcpy(page, m->present + at, PAGE_BYTES);
	pair_page((uint64_t *)m->snapshot, at + 2);
	memcpy(page + at % 4032, m->snapshot, 64);
}

static void open_move(struct move *m, const struct sending *way, const struct placing *placing,
		      const struct trouble *trouble, const struct encoding *e)
{
	struct failure f = { 0 };

	*m = (struct move){ .placing = placing, .trouble = trouble, .seed = 1 };
	m->src = (struct region){ .page_size = PAGE_BYTES,
				  .size = RAM_SIZE,
				  .fd = memfd_create("matrix-src", MFD_CLOEXEC) };
	m->dst = m->src;
	m->dst.fd = new_destination();
	m->content = calloc(1, RAM_SIZE);
	m->snapshot = malloc(CHUNK_BYTES);
	m->present = malloc(RAM_SIZE);
	m->zstd = ZSTD_createCCtx();
	assert_true(m->content && m->present && m->snapshot && m->zstd && m->src.fd >= 0);
	assert_int_equal(pread(m->dst.fd, m->present, RAM_SIZE, 0), RAM_SIZE);
	assert_int_equal(ftruncate(m->src.fd, RAM_SIZE), 0);
	for (uint64_t at = 0; at < RAM_SIZE; at += PAGE_BYTES) {
		/* but for the first rows every other stretch is data all the same */
		enum content is = at >> 17 & 1 ? CONTENT_DATA : e->content;

		if (is == CONTENT_HOLE)
			continue;
		fill_page(m, at, is);
		assert_int_equal(pwrite(m->src.fd, m->content + at, PAGE_BYTES, (off_t)at),
				 PAGE_BYTES);
	}
	assert_int_equal(page_reader_init(&m->reader, &m->src, 1, &f), 0);
	assert_int_equal(region_map(&m->dst, true), 0);
	tcp_pair(m->sv, trouble->buffer);
	assert_int_equal(way->ops->new (&m->tx, m->sv[0], &m->src, 1), 0);
}

static void close_move(struct move *m)
{
	m->tx->ops->free(m->tx);
	page_reader_release(&m->reader);
	region_release(&m->src);
	region_release(&m->dst);
	ZSTD_freeCCtx(m->zstd);
	free(m->content);
	free(m->present);
	free(m->snapshot);
	close(m->sv[0]);
	close(m->sv[1]);
}

/* All pages of the chunk, each described once. */
static void plan_chunk(struct move *m, const struct encoding *e, uint64_t first,
		       struct chunk_plan *p)
{
	uint64_t left = region_pages(&m->src) - first;
	struct scheduler_chunk c = { .region = &m->src,
				     .first_page = first,
				     .pages = left < CHUNK_PAGES ? (uint32_t)left : CHUNK_PAGES };

	plan_begin(p, &c);
	for (uint32_t page = 0; page < c.pages;) {
		uint32_t rest = c.pages - page, stretch = 32 - page % 32;
		bool data = (first + page) >> 5 & 1;
		uint32_t most = e->content == CONTENT_DATA ? e->longest : stretch;
		uint32_t n = 1 + (uint32_t)draw(m, draw(m, 2) ? 6 : most);

		n = n > most ? most : n;
		n = n > rest ? rest : n;
		if (data && e->content != CONTENT_DATA)
			add_raw(m, p, page, n);
		else
			e->add(m, p, page, n);
		page += n;
	}
}

/* All of the RAM, then BYE. */
static int send_all(struct move *m, const struct encoding *e)
{
	static __thread struct chunk_plan plan;
	static __thread struct plan_frame f;
	struct wire_frame bye = { .type = WIRE_BYE };
	uint8_t head[WIRE_FRAME_SIZE];
	int err = 0;

	for (uint64_t first = 0; !err && first < region_pages(&m->src); first += CHUNK_PAGES) {
		struct plan_cursor at = { 0 };

		plan_chunk(m, e, first, &plan);
		while (!err && plan_next_frame(&plan, &at, PAGE_BYTES << draw(m, 10), &f))
			err = m->tx->ops->frame(m->tx, f.head, f.head_len, &m->src, f.slice,
						f.slices, true);
	}
	wire_put_frame(head, &bye);
	if (!err)
		err = m->tx->ops->frame(m->tx, head, sizeof(head), NULL, NULL, 0, false);
	return err ? err : m->tx->ops->drain(m->tx);
}

static int receive_all(struct move *m, struct placer *p, struct rx_reader *rx)
{
	for (;;) {
		struct wire_frame f;
		const uint8_t *head;
		int err = rx_take(rx, WIRE_FRAME_SIZE, &head);

		if (!err)
			err = wire_get_frame(&f, head, &m->dst, 1);
		if (err || f.type == WIRE_BYE)
			return err;
		rx->ahead = f.length <= 65536 ? 65536 : 0; /* as destination_stream.c */
		err = place_pages(p, &f);
		if (err)
			return err;
	}
}

static void *receiver(void *arg)
{
	struct move *m = arg;
	struct rx_reader rx;
	struct placer p;
	struct place pl;
	char why[96];

	injecting = m->trouble->rx;
	pair_check(
		!place_init(&pl, &m->dst, 1, m->placing->kind, m->placing->huge, why, sizeof(why)));
	pl.encodings = IPC_ENCODING_ZSTD | IPC_ENCODING_DELTA;
	pair_check(!rx_reader_init(&rx, m->sv[1]) && !placer_init(&p, &pl, &rx));
	m->received = receive_all(m, &p, &rx);
	placer_release(&p);
	rx_reader_release(&rx);
	place_release(&pl);
	return NULL;
}

static void one(const struct sending *way, const struct placing *placing,
		const struct trouble *trouble, const struct encoding *e)
{
	struct move m;
	pthread_t thread;
	uint64_t injected;
	int err;

	open_move(&m, way, placing, trouble, e);
	assert_int_equal(pthread_create(&thread, NULL, receiver, &m), 0);
	injecting = trouble->tx;
	injecting.by_reference = way->by_reference;
	err = send_all(&m, e);
	injected = injecting.done;
	injecting = (struct injecting){ 0 };
	if (err)
		shutdown(m.sv[0], SHUT_RDWR);
	pthread_join(thread, NULL);
	if (err || m.received || !pair_same(m.src.fd, m.dst.fd, RAM_SIZE))
		fail_msg("%s, %s, %s, %s: sent %s, received %s", way->name, placing->name, e->name,
			 trouble->name, strerror(-err), strerror(-m.received));
	if (trouble->tx.what != INJECT_NOTHING && !injected)
		fail_msg("%s, %s: nothing went wrong", way->name, trouble->name);
	/* where nothing is copied, large frames of guest pages must count as sent by reference */
	if (way->by_reference && trouble->tx.what == INJECT_NOTHING && e->longest > 64)
		assert_true(m.tx->counters.zero_copy_bytes > 0);
	close_move(&m);
}

static void under(const struct trouble *t)
{
	for (size_t i = 0; i < WAYS_OF_SENDING; i++)
		for (size_t k = 0; k < sizeof(ways_of_placing) / sizeof(ways_of_placing[0]); k++)
			for (size_t e = 0; e < ENCODINGS; e++)
				one(&ways_of_sending[i], &ways_of_placing[k], t, &encodings[e]);
}

/* One test a trouble. */
static void test_trouble(void **state)
{
	under(*state);
}

/* Reads a part, then lets the connection be reset. */
static void *reset_by_receiver(void *arg)
{
	struct linger now = { .l_onoff = 1 };
	struct move *m = arg;
	char part[100000];

	pair_check(recv(m->sv[1], part, sizeof(part), MSG_WAITALL) == sizeof(part));
	pair_check(!setsockopt(m->sv[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(m->sv[1]);
	m->sv[1] = -1;
	return NULL;
}

static void test_reset_by_the_receiver(void **state)
{
	(void)state;
	for (size_t i = 0; i < WAYS_OF_SENDING; i++)
		for (size_t e = 0; e < ENCODINGS; e++) {
			static const struct trouble small = { "reset", { 0 }, { 0 }, 16384 };
			struct move m;
			pthread_t thread;
			int err;

			open_move(&m, &ways_of_sending[i], &ways_of_placing[0], &small,
				  &encodings[e]);
			assert_int_equal(pthread_create(&thread, NULL, reset_by_receiver, &m), 0);
			err = send_all(&m, &encodings[e]);
			pthread_join(thread, NULL);
			if (err != -ECONNRESET && err != -EPIPE)
				fail_msg("%s, %s: %s", ways_of_sending[i].name, encodings[e].name,
					 strerror(-err));
			close_move(&m);
		}
}

static void test_reset_by_the_sender(void **state)
{
	const struct linger now = { .l_onoff = 1 };
	static uint8_t head[WIRE_FRAME_SIZE + WIRE_RUN_SIZE], page[PAGE_BYTES];

	(void)state;
	for (size_t k = 0; k < sizeof(ways_of_placing) / sizeof(ways_of_placing[0]); k++) {
		struct wire_frame f = { .type = WIRE_PAGES, .count = 1 };
		struct wire_run run = { .pages = 300, .length = 300 * PAGE_BYTES };
		struct move m;
		pthread_t thread;

		open_move(&m, &ways_of_sending[WAYS_OF_SENDING - 1], &ways_of_placing[k],
			  &troubles[0], &encodings[0]);
		f.length = WIRE_RUN_SIZE + run.length;
		wire_put_frame(head, &f);
		wire_put_run(head + WIRE_FRAME_SIZE, &run);
		assert_int_equal(pthread_create(&thread, NULL, receiver, &m), 0);
		assert_int_equal(send(m.sv[0], head, sizeof(head), 0), sizeof(head));
		assert_int_equal(send(m.sv[0], page, sizeof(page), 0), sizeof(page));
		assert_int_equal(setsockopt(m.sv[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
		m.tx->ops->free(m.tx);
		m.tx = NULL;
		close(m.sv[0]);
		pthread_join(thread, NULL);
		assert_int_equal(m.received, -ECONNRESET);
		m.sv[0] = -1;
		assert_int_equal(tx_send_ops.new(&m.tx, -1, NULL, 0), 0); /* for close_move */
		close_move(&m);
	}
}

/* Anonymous memory of a process, KiB. */
static long anonymous_kib(pid_t pid)
{
	char path[64], line[256];
	long kib = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %ld", &kib) == 1)
			break;
	fclose(f);
	assert_true(kib >= 0);
	return kib;
}

/* Until so many reports of progress in a row show that nothing moves. */
static void await_stall(struct pair_side *s, unsigned int reports)
{
	uint64_t last = UINT64_MAX;
	unsigned int same = 0;

	while (same < reports) {
		struct ipc_message msg;
		int fd;

		assert_int_equal(ipc_recv(s->sock, &msg, &fd, PAIR_TIMEOUT_MS), 0);
		assert_int_equal(msg.head.type, IPC_PROGRESS);
		same = msg.body.stats.wire_bytes == last ? same + 1 : 0;
		last = msg.body.stats.wire_bytes;
	}
}

/*
 * A destination that does not read: whatever the source has to send, it keeps no more of it than
 * before (the kernel's socket buffers are bounded by the host), and goes on where it was.
 */
static void test_stalled_receiver(void **state)
{
	static const enum ipc_tx kinds[] = { IPC_TX_SENDFILE, IPC_TX_URING, IPC_TX_SEND };
	const uint64_t size = 192ull << 20;

	(void)state;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct pair p = PAIR_INIT(2, kinds[i]);
		struct ipc_send round = { .round = 1 };
		long before, stalled, later;

		p.size[0] = size;
		p.src_ram[0] = memfd_create("stall-src", MFD_CLOEXEC);
		assert_int_equal(ftruncate(p.src_ram[0], (off_t)size), 0);
		pair_fill(p.src_ram[0], size, 3 + i);
		pair_start(&p);
		pair_scan(&p, IPC_SCAN_FIRST);
		before = anonymous_kib(p.src.pid);
		pair_freeze(&p.dst);
		pair_send(&p.src, IPC_SEND, &round, -1);
		await_stall(&p.src, 3);
		stalled = anonymous_kib(p.src.pid);
		await_stall(&p.src, 3);
		later = anonymous_kib(p.src.pid);
		print_message("RssAnon of the source, KiB: %ld before, %ld stalled, %ld later\n",
			      before, stalled, later);
		assert_true(SANITIZED || stalled - before < 8 * 1024);
		assert_true(later - stalled < 256);
		assert_int_equal(kill(p.dst.pid, SIGCONT), 0);
		pair_expect(&p.src, IPC_SENT);
		assert_true(pair_same(p.src_ram[0], p.dst_ram[0], size));
		pair_quit(&p);
	}
}

int main(void)
{
#define TROUBLE(i)                                                                                 \
	{                                                                                          \
		troubles[i].name, test_trouble, NULL, NULL, (void *)&troubles[i]                   \
	}
	const struct CMUnitTest tests[] = {
		TROUBLE(0),
		TROUBLE(1),
		TROUBLE(2),
		TROUBLE(3),
		TROUBLE(4),
		TROUBLE(5),
		TROUBLE(6),
		cmocka_unit_test(test_reset_by_the_receiver),
		cmocka_unit_test(test_reset_by_the_sender),
		cmocka_unit_test(test_stalled_receiver),
	};

	static_assert(sizeof(troubles) / sizeof(troubles[0]) == 7, "one test each");
	log_init("test_matrix", LOG_LEVEL_WARN);
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
