// SPDX-License-Identifier: MIT
/*
 * Both data planes with compression, this process in the place of the VMM: it maps the RAM, is
 * tracked, and writes what the test says between rounds, or all the time.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"
#include "tests/unit/dataplane/content.h"
#include "tests/unit/dataplane/pair.h"

#define WP_HUGETLBFS_SHMEM (1u << 12)

static struct pair new_pair(uint32_t streams, enum ipc_tx tx, uint32_t level, uint64_t cache)
{
	struct pair p = PAIR_INIT(streams, tx);

	p.compress = level ? IPC_COMPRESS_ZSTD : IPC_COMPRESS_AUTO;
	p.level = level;
	p.delta_cache = cache;
	return p;
}

static uint64_t described(const struct ipc_stats *t)
{
	return t->raw_bytes + t->zero_bytes + t->hole_bytes + t->same_bytes + t->zstd_in_bytes +
	       t->delta_in_bytes;
}

static void check_same(struct pair *p)
{
	for (uint32_t i = 0; i < p->nregions; i++)
		assert_true(pair_same(p->src_ram[i], p->dst_ram[i], p->size[i]));
	assert_int_equal(pair_verify(p).mismatches, 0);
}

/* What guests have, and kinds of content page by page, onto RAM that is not empty. */
static void copy(enum ipc_tx tx, uint32_t streams, uint32_t level, uint64_t rate)
{
	struct pair p = new_pair(streams, tx, level, 0);
	struct ipc_sent sent;
	uint8_t page[4096];

	p.rate = rate;
	p.nregions = 2;
	p.size[0] = 32 << 20;
	p.size[1] = (24ull << 20) + 5 * 4096;
	for (int i = 0; i < 2; i++) {
		p.src_ram[i] = pair_memfd(&p, p.size[i]);
		p.dst_ram[i] = pair_memfd(&p, p.size[i]);
		pair_fill(p.src_ram[i], p.size[i], 77 + (uint64_t)i);
		pair_fill(p.dst_ram[i], p.size[i], 1);
	}
	for (uint64_t at = 0; at < p.size[1]; at += 4096) {
		content_page(page, (enum content)(at / 4096 % (at < 8 << 20 ? 4 : 2)), at / 4096);
		assert_int_equal(pwrite(p.src_ram[1], page, 4096, (off_t)at), 4096);
	}
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	sent = pair_round(&p, 1);
	assert_int_equal(sent.pages, (p.size[0] + p.size[1]) / 4096);
	assert_int_equal(described(&sent.total), p.size[0] + p.size[1]);
	assert_int_equal(sent.total.delta_in_bytes, 0);
	if (level) {
		assert_true(sent.total.zstd_in_bytes >= 6 << 20);
		assert_true(sent.total.zstd_out_bytes < sent.total.zstd_in_bytes / 3 * 2);
		assert_int_equal(sent.total.encode_level, level);
		assert_true(sent.total.encode_cpu_ns > 0);
	}
	check_same(&p);
	pair_quit(&p);
}

static void test_copy(void **state)
{
	(void)state;
	for (enum ipc_tx tx = IPC_TX_SENDFILE; tx <= IPC_TX_SEND; tx++) {
		copy(tx, 1, 1, 0);
		copy(tx, 3, 3, 0);
	}
	copy(IPC_TX_AUTO, 2, 19, 0);
	copy(IPC_TX_AUTO, 4, 1, 50 << 20);
	copy(IPC_TX_AUTO, 2, 0, 0);
	copy(IPC_TX_AUTO, 2, 0, 50 << 20);
}

static void test_hugetlb(void **state)
{
	struct pair p = new_pair(2, IPC_TX_AUTO, 1, 0);
	uint8_t *map;

	(void)state;
	p.memfd_flags = MFD_HUGETLB;
	p.page_size = 2 << 20;
	p.size[0] = 16 << 20;
	p.src_ram[0] = memfd_create("ram", MFD_CLOEXEC | MFD_HUGETLB);
	p.dst_ram[0] = memfd_create("ram", MFD_CLOEXEC | MFD_HUGETLB);
	map = p.src_ram[0] < 0 || ftruncate(p.src_ram[0], (off_t)p.size[0]) ||
			      ftruncate(p.dst_ram[0], (off_t)p.size[0])
		      ? MAP_FAILED
		      : mmap(NULL, p.size[0], PROT_WRITE, MAP_SHARED, p.src_ram[0], 0);
	if (map != MAP_FAILED &&
	    mmap(NULL, p.size[0], PROT_WRITE, MAP_SHARED, p.dst_ram[0], 0) == MAP_FAILED) {
		munmap(map, p.size[0]);
		map = MAP_FAILED;
	}
	if (map == MAP_FAILED) {
		print_message("fewer than 16 huge pages are free here\n");
		pair_close_ram(&p);
		skip();
	}
	for (uint64_t i = 0; i < p.size[0] / 4096; i++)
		content_page(map + i * 4096, (enum content)(i / 32 % 3), i);
	munmap(map, p.size[0]);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	assert_true(pair_round(&p, 1).total.zstd_in_bytes > 4 << 20);
	check_same(&p);
	pair_quit(&p);
}

/* Noise is not compressed, and not copied either: it goes as without compression. */
static void test_noise_goes_raw(void **state)
{
	struct pair p = new_pair(2, IPC_TX_SENDFILE, 1, 0);
	struct ipc_sent sent;

	(void)state;
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	content_fill(p.src_ram[0], p.size[0], CONTENT_RANDOM);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	sent = pair_round(&p, 1);
	assert_int_equal(sent.total.raw_bytes, p.size[0]);
	assert_int_equal(sent.total.zero_copy_bytes, p.size[0]);
	check_same(&p);
	pair_quit(&p);
}

static void test_not_agreed(void **state)
{
	struct pair p = new_pair(1, IPC_TX_AUTO, 1, 0);
	struct ipc_send round = { .round = 1 };

	(void)state;
	p.encodings_refused = true;
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	content_fill(p.src_ram[0], p.size[0], CONTENT_TEXT);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	pair_send(&p.src, IPC_SEND, &round, -1);
	assert_string_equal(pair_expect(&p.dst, IPC_FAILED)->failure.code, "data-protocol");
	assert_string_equal(pair_expect(&p.src, IPC_FAILED)->failure.code, "data-lost");
	assert_int_equal(pair_wait(&p.src), 1);
	assert_int_equal(pair_wait(&p.dst), 1);
	pair_close_ram(&p);
}

static void test_config_is_checked(void **state)
{
	static const struct {
		uint32_t encodings, compress, level;
		uint64_t cache;
	} wrong[] = {
		{ 0, IPC_COMPRESS_AUTO, 0, 0 },
		{ IPC_ENCODING_DELTA, IPC_COMPRESS_ZSTD, 3, 0 },
		{ IPC_ENCODING_ZSTD, IPC_COMPRESS_ZSTD, 0, 0 },
		{ IPC_ENCODING_ZSTD, IPC_COMPRESS_ZSTD, 23, 0 },
		{ IPC_ENCODING_ZSTD, IPC_COMPRESS_AUTO, 1, 0 },
		{ IPC_ENCODING_ZSTD, IPC_COMPRESS_AUTO, 0, 1 },
		{ IPC_ENCODING_ZSTD, 3, 0, 0 },
		{ 4, IPC_COMPRESS_OFF, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct pair p = PAIR_INIT(1, IPC_TX_AUTO);
		struct ipc_config c = pair_config(&p, IPC_ROLE_SOURCE);

		c.encodings = wrong[i].encodings;
		c.compress = wrong[i].compress;
		c.level = wrong[i].level;
		c.delta_cache = wrong[i].cache;
		pair_spawn(&p.src);
		pair_send(&p.src, IPC_CONFIG, &c, -1);
		assert_string_equal(pair_expect(&p.src, IPC_FAILED)->failure.code, "internal");
		assert_int_equal(pair_wait(&p.src), 1);
	}
}

/* --- a guest that writes ---------------------------------------------------------------------- */

/* On a faster link rounds of a few thousand pages would be too small to compress. */
#define LIMIT (200ull << 20)

struct guest {
	struct pair p;
	uint8_t *map;
	int uffd;
	uint32_t round;
	struct ipc_sent sent; /* of the last round */
};

static bool guest_open(struct guest *g, uint32_t streams, uint32_t level, uint64_t cache)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
					      WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct pair *p = &g->p;

	*g = (struct guest){ .p = new_pair(streams, IPC_TX_AUTO, level, cache) };
	p->rate = LIMIT;
	p->src_ram[0] = pair_memfd(p, p->size[0]);
	g->map = mmap(NULL, p->size[0], PROT_READ | PROT_WRITE, MAP_SHARED, p->src_ram[0], 0);
	assert_ptr_not_equal(g->map, MAP_FAILED);
	reg.range.start = (uintptr_t)g->map;
	reg.range.len = p->size[0];
	g->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (g->uffd < 0 || ioctl(g->uffd, UFFDIO_API, &api) ||
	    ioctl(g->uffd, UFFDIO_REGISTER, &reg)) {
		print_message("no asynchronous write protection here: %s\n", strerror(errno));
		return false;
	}
	p->tracker_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	p->mapping[0] = (struct ipc_mapping){ .start = (uintptr_t)g->map,
					      .end = (uintptr_t)g->map + p->size[0] };
	return p->tracker_fd >= 0;
}

static void guest_round(struct guest *g)
{
	pair_scan(&g->p, g->round ? 0 : IPC_SCAN_FIRST);
	g->sent = pair_round(&g->p, ++g->round);
}

static void guest_close(struct guest *g)
{
	pair_quit(&g->p);
	munmap(g->map, g->p.size[0]);
	close(g->uffd);
	fd_close(&g->p.tracker_fd);
}

static void write_pages(struct guest *g, uint64_t first, uint64_t count, uint32_t bytes,
			uint64_t *x)
{
	for (uint64_t page = first; page < first + count; page++) {
		uint64_t at = content_next(x) % (4096 - bytes);

		for (uint32_t i = 0; i < bytes; i++)
			g->map[page * 4096 + at + i] = (uint8_t)(content_next(x) >> 17);
	}
}

/* 64 bytes of a page: at most 200 on the wire, once the version before is known. */
static void test_delta(void **state)
{
	const uint64_t pages = 4000;
	struct ipc_stats before;
	uint64_t x = 5;
	struct guest g;

	(void)state;
	if (!guest_open(&g, 2, 1, 64 << 20))
		skip();
	content_fill(g.p.src_ram[0], g.p.size[0], CONTENT_MIXED);
	pair_start(&g.p);
	guest_round(&g);
	write_pages(&g, 100, pages, 64, &x);
	guest_round(&g);
	assert_int_equal(g.sent.pages, pages);
	assert_int_equal(g.sent.total.delta_in_bytes, 0);
	for (int i = 0; i < 3; i++) {
		before = g.sent.total;
		write_pages(&g, 100, pages, 64, &x);
		guest_round(&g);
		assert_int_equal(g.sent.pages, pages);
		assert_int_equal(g.sent.total.delta_in_bytes - before.delta_in_bytes, pages * 4096);
		assert_true(g.sent.wire_bytes <= 200 * pages);
	}
	print_message("%.1f bytes a page\n", (double)g.sent.wire_bytes / pages);
	check_same(&g.p);
	guest_close(&g);
}

/*
 * Whole chunks become zeros, which streams describe without encoders, and then again what they
 * were: the destination has zeros, and what is remembered is the version before.
 */
static void test_empty_between(void **state)
{
	const uint64_t pages = 8192;
	uint8_t *was = malloc(pages * 4096);
	struct guest g;
	uint64_t x = 8;

	(void)state;
	assert_non_null(was);
	if (!guest_open(&g, 3, 1, 64 << 20)) {
		free(was);
		skip();
	}
	content_fill(g.p.src_ram[0], g.p.size[0], CONTENT_MIXED);
	pair_start(&g.p);
	guest_round(&g);
	for (int times = 0; times < 3; times++) {
		write_pages(&g, 0, pages, 64, &x);
		guest_round(&g);
		memcpy(was, g.map, pages * 4096);
		memset(g.map, 0, pages * 4096);
		guest_round(&g);
		memcpy(g.map, was, pages * 4096);
		write_pages(&g, 0, pages, 64, &x);
		guest_round(&g);
	}
	check_same(&g.p);
	guest_close(&g);
	free(was);
}

/*
 * A, then B by reference, then A again: the destination has B, and what is remembered is A. Fails
 * if a page that is sent by reference is not forgotten.
 */
static void test_a_b_a(void **state)
{
	static uint8_t a[4096];
	struct guest g;
	uint64_t x = 6;

	(void)state;
	if (!guest_open(&g, 1, 1, 64 << 20))
		skip();
	content_fill(g.p.src_ram[0], g.p.size[0], CONTENT_TEXT);
	content_random(a, 1);
	pair_start(&g.p);
	guest_round(&g);
	for (int times = 0; times < 3; times++) {
		/* A goes with many others, encoded, and is remembered */
		memcpy(g.map + 7 * 4096, a, sizeof(a));
		write_pages(&g, 100, 1000, 64, &x);
		guest_round(&g);
		/* B goes alone: so small a round goes by reference */
		memset(g.map + 7 * 4096, 0xb0 + times, 4096);
		guest_round(&g);
		assert_int_equal(g.sent.pages, 1);
		/* A again, with many others */
		memcpy(g.map + 7 * 4096, a, sizeof(a));
		write_pages(&g, 100, 1000, 64, &x);
		guest_round(&g);
		/* zeros in between are not remembered either */
		memset(g.map + 7 * 4096, 0, 4096);
		guest_round(&g);
	}
	assert_true(g.sent.total.delta_in_bytes > 1000 * 4096);
	check_same(&g.p);
	guest_close(&g);
}

struct writer {
	struct guest *g;
	pthread_t thread;
	bool stop;
	uint64_t writes;
};

/* A hot eighth and a cold rest; most writes change a little, some pages go to and fro. */
static void *write_all_the_time(void *arg)
{
	struct writer *w = arg;
	uint64_t x = 88172645463325252ull, pages = w->g->p.size[0] / 4096;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		uint64_t v = content_next(&x), page = v >> 20;
		uint8_t *p;

		page %= (v >> 8) % 8 ? pages / 8 : pages;
		p = w->g->map + page * 4096;
		if ((v >> 12) % 4 == 0)
			memset(p, (int)(v >> 14) & 1, 4096);
		else
			memcpy(p + (v >> 16) % 4000, &v, sizeof(v));
		__atomic_fetch_add(&w->writes, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void live(uint32_t streams, uint32_t level, uint64_t cache, uint64_t rate)
{
	struct guest g;
	struct writer w = { .g = &g };

	if (!guest_open(&g, streams, level, cache))
		skip();
	g.p.rate = rate ? rate : g.p.rate;
	content_fill(g.p.src_ram[0], g.p.size[0], CONTENT_MIXED);
	pair_start(&g.p);
	assert_int_equal(pthread_create(&w.thread, NULL, write_all_the_time, &w), 0);
	for (int i = 0; i < 8; i++) {
		uint64_t until = __atomic_load_n(&w.writes, __ATOMIC_RELAXED) + 4000;

		while (__atomic_load_n(&w.writes, __ATOMIC_RELAXED) < until)
			sched_yield();
		guest_round(&g);
	}
	__atomic_store_n(&w.stop, true, __ATOMIC_RELAXED);
	pthread_join(w.thread, NULL);
	guest_round(&g);
	if (level && cache)
		assert_true(g.sent.total.delta_in_bytes > 0);
	check_same(&g.p);
	guest_close(&g);
}

static void test_live(void **state)
{
	(void)state;
	live(2, 1, 16 << 20, 0);
	live(3, 3, 4 << 20, 0);
	live(2, 1, 0, 0);
	live(2, 0, 64 << 20, 0);
	live(2, 0, 16 << 20, 100 << 20);
}

/* --- stalls and changes ----------------------------------------------------------------------- */

static uint64_t rss_anon(pid_t pid)
{
	char path[64], line[256];
	unsigned long long kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	pair_check(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %llu kB", &kib) == 1)
			break;
	fclose(f);
	return kib << 10;
}

/* The receiver stops: encoders stop too, memory stays bounded, and quitting takes no time. */
static void test_receiver_stalls(void **state)
{
	(void)state;
	for (uint32_t level = 1; level <= 22; level += 21) {
		struct pair p = new_pair(2, IPC_TX_AUTO, level, 0);
		struct ipc_send round = { .round = 1 };
		uint64_t rss;

		p.size[0] = 256 << 20;
		p.src_ram[0] = pair_memfd(&p, p.size[0]);
		content_fill(p.src_ram[0], p.size[0], CONTENT_TEXT);
		pair_start(&p);
		pair_scan(&p, IPC_SCAN_FIRST);
		pair_freeze(&p.dst);
		pair_send(&p.src, IPC_SEND, &round, -1);
		for (int i = 0; i < 3; i++) {
			int fd;

			assert_int_equal(ipc_recv(p.src.sock, &p.src.last, &fd, PAIR_TIMEOUT_MS),
					 0);
			assert_int_equal(p.src.last.head.type, IPC_PROGRESS);
		}
		rss = rss_anon(p.src.pid);
		print_message("level %u: %.1f MiB\n", level, (double)rss / 1048576);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		assert_true(rss < 64 << 20);
#endif
		pair_send(&p.src, IPC_QUIT, NULL, -1);
		assert_int_equal(pair_wait(&p.src), 0);
		assert_int_equal(kill(p.dst.pid, SIGKILL), 0);
		assert_int_equal(pair_wait(&p.dst), -SIGKILL);
		pair_close_ram(&p);
	}
}

/* auto on a slow link compresses text, goes on when the limit changes, and all arrives. */
static void test_auto_follows_the_limit(void **state)
{
	struct pair p = new_pair(2, IPC_TX_AUTO, 0, 0);
	struct ipc_send round = { .round = 1 };
	struct ipc_limit limit = { .rate_limit = 0 };
	struct ipc_sent sent;
	int fd;

	(void)state;
	p.size[0] = 128 << 20;
	p.rate = 10 << 20;
	p.src_ram[0] = pair_memfd(&p, p.size[0]);
	content_fill(p.src_ram[0], p.size[0], CONTENT_TEXT);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	pair_send(&p.src, IPC_SEND, &round, -1);
	do { /* until it has found out */
		assert_int_equal(ipc_recv(p.src.sock, &p.src.last, &fd, PAIR_TIMEOUT_MS), 0);
		assert_int_equal(p.src.last.head.type, IPC_PROGRESS);
	} while (p.src.last.body.stats.zstd_in_bytes < 8 << 20);
	pair_send(&p.src, IPC_LIMIT, &limit, -1);
	sent = pair_expect(&p.src, IPC_SENT)->sent;
	assert_true(sent.total.zstd_out_bytes < sent.total.zstd_in_bytes / 2);
	assert_int_equal(described(&sent.total), p.size[0]);
	check_same(&p);
	pair_quit(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_hugetlb),
		cmocka_unit_test(test_noise_goes_raw),
		cmocka_unit_test(test_not_agreed),
		cmocka_unit_test(test_config_is_checked),
		cmocka_unit_test(test_delta),
		cmocka_unit_test(test_a_b_a),
		cmocka_unit_test(test_empty_between),
		cmocka_unit_test(test_live),
		cmocka_unit_test(test_receiver_stalls),
		cmocka_unit_test(test_auto_follows_the_limit),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
