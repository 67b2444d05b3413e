// SPDX-License-Identifier: MIT
/* Post-copy between two real data planes, while a guest reads, checks and writes its pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/dataplane/content.h"
#include "tests/unit/dataplane/postcopy/vmm.h"

static struct vmm v;

static void prepare(uint32_t regions, uint64_t mib, uint32_t streams, unsigned int flags)
{
	v = (struct vmm){ .p = PAIR_INIT(streams, IPC_TX_AUTO) };
	v.p.nregions = regions;
	for (uint32_t i = 0; i < regions; i++)
		v.p.size[i] = mib << 20;
	v.p.memfd_flags = flags;
	v.p.page_size = flags & MFD_HUGETLB ? CHUNK_BYTES : 0;
	if (!vmm_init(&v, streams))
		skip();
}

static struct ipc_postcopy expect_complete(void)
{
	struct ipc_postcopy at_source, p;

	at_source = vmm_expect(&v.p.src, IPC_COMPLETE)->postcopy;
	p = vmm_expect(&v.p.dst, IPC_COMPLETE)->postcopy;
	assert_int_equal(p.missing_pages, 0);
	assert_int_equal(at_source.missing_pages, 0);
	assert_int_equal(page_set_count(&v.missing), 0);
	return p;
}

static void move(uint32_t streams, enum ipc_compress compress, uint64_t rate)
{
	uint64_t missing;
	struct ipc_postcopy p;

	prepare(2, 48, streams, 0);
	v.p.compress = compress;
	v.p.level = compress == IPC_COMPRESS_ZSTD;
	v.p.rate = rate; /* so that there is something to fault on */
	missing = page_set_count(&v.missing);
	vmm_serve(&v);
	vmm_run(&v);
	p = expect_complete();
	vmm_let_it_touch(&v, 2000);
	vmm_stop(&v);
	vmm_check_all(&v);
	assert_true(p.faults > 0);
	assert_true(p.local_faults > 0);
	assert_int_equal(p.demand_pages + p.push_pages, missing);
	assert_true(!p.interruptions && !p.interrupted_ns);
	assert_true(p.p50_ns > 0 && p.p50_ns <= p.p99_ns && p.p99_ns <= p.max_ns);
	print_message("%llu faults, p50 %.3f ms, p99 %.3f ms; %llu local, %llu asked for, "
		      "%llu pushed, %llu late\n",
		      (unsigned long long)p.faults, (double)p.p50_ns / 1e6, (double)p.p99_ns / 1e6,
		      (unsigned long long)p.local_faults, (unsigned long long)p.demand_pages,
		      (unsigned long long)p.push_pages, (unsigned long long)p.late_pages);
	vmm_quit(&v);
	vmm_release(&v);
}

static void test_a_running_guest_gets_every_page(void **state)
{
	(void)state;
	move(3, IPC_COMPRESS_OFF, 20u << 20);
}

/* By one push stream and by several, compressed at once or when the policy finds that it pays. */
static void test_compressed(void **state)
{
	(void)state;
	move(2, IPC_COMPRESS_ZSTD, 60u << 20);
	move(4, IPC_COMPRESS_ZSTD, 30u << 20);
	move(3, IPC_COMPRESS_AUTO, 30u << 20);
}

/* Fewer bytes than pages, and what the source says of them adds up. */
static void test_compressed_bytes(void **state)
{
	struct ipc_stats s = { 0 };
	uint64_t missing;

	(void)state;
	prepare(1, 48, 2, 0);
	for (uint64_t at = 0; at < v.p.size[0] >> 12; at++) {
		uint8_t page[4096];

		if (!page_set_has(page_set_chunk(&v.missing, 0, at / CHUNK_PAGES),
				  (uint32_t)(at % CHUNK_PAGES)))
			continue;
		content_page(page, at % 64 < 8 ? CONTENT_RANDOM : CONTENT_TEXT, at);
		pair_check(pwrite(v.p.src_ram[0], page, 4096, (off_t)(at * 4096)) == 4096);
	}
	v.p.compress = IPC_COMPRESS_ZSTD;
	v.p.level = 1;
	missing = page_set_count(&v.missing) * PAGE_BYTES;
	vmm_serve(&v);
	/* before COMPLETE comes the last account */
	do {
		pair_check(!ipc_recv(v.p.src.sock, &v.p.src.last, &(int){ -1 }, PAIR_TIMEOUT_MS));
		if (v.p.src.last.head.type == IPC_PROGRESS)
			s = v.p.src.last.body.stats;
	} while (v.p.src.last.head.type != IPC_COMPLETE);
	vmm_expect(&v.p.dst, IPC_COMPLETE);
	assert_int_equal(s.zstd_in_bytes + s.raw_bytes + s.zero_bytes + s.hole_bytes, missing);
	assert_true(s.zstd_in_bytes > missing / 2);
	assert_true(s.zstd_out_bytes < s.zstd_in_bytes * 2 / 3);
	assert_true(s.wire_bytes > s.zstd_out_bytes + s.raw_bytes);
	assert_true(s.wire_bytes < s.zstd_out_bytes + s.raw_bytes + missing / 20);
	assert_int_equal(s.encode_level, 1);
	assert_true(s.encode_cpu_ns > 0);
	vmm_check_all(&v);
	vmm_quit(&v);
	vmm_release(&v);
}

static void move_huge_pages(enum ipc_compress compress)
{
	char line[128] = "";
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "re");

	if (!f || !fgets(line, sizeof(line), f) || atoi(line) < 40) {
		print_message("needs 40 huge pages of 2 MiB\n");
		skip();
	}
	fclose(f);
	prepare(1, 32, 2, MFD_HUGETLB);
	v.p.rate = 100u << 20;
	v.p.compress = compress;
	v.p.level = compress == IPC_COMPRESS_ZSTD;
	vmm_serve(&v);
	vmm_run(&v);
	assert_true(expect_complete().faults > 0);
	vmm_stop(&v);
	vmm_check_all(&v);
	vmm_quit(&v);
	vmm_release(&v);
}

static void test_huge_pages(void **state)
{
	(void)state;
	move_huge_pages(IPC_COMPRESS_OFF);
	move_huge_pages(IPC_COMPRESS_ZSTD);
}

/* The guest gives pages back while others still come, and touches them again: zeros. */
static void test_pages_given_back(void **state)
{
	(void)state;
	prepare(1, 16, 2, 0);
	vmm_serve(&v);
	expect_complete();
	for (uint64_t page = 0; page < 512; page += 3) {
		static const uint8_t zeros[4096];
		off_t at = (off_t)(page * 4096);

		if (page % 2) /* mapped before */
			vmm_touch(&v, 0, page, 0);
		pair_check(!fallocate(v.p.dst_ram[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      at, 4096));
		assert_memory_equal(v.map[0] + at, zeros, 4096);
	}
	vmm_quit(&v);
	vmm_release(&v);
}

/* What is left of both sides after a loss. */
static void bury(struct pair_side *s)
{
	kill(s->pid, SIGKILL);
	pair_wait(s);
}

static void expect_lost(struct pair_side *s)
{
	const struct failure *f = &vmm_expect(s, IPC_FAILED)->failure;

	assert_string_equal(f->code, "data-lost");
}

enum loss { LOSE_LINK, LOSE_SOURCE, LOSE_DESTINATION };

/* Whatever is lost in the middle, the guest goes on as soon as there are two data planes again. */
static void lose(enum loss what, enum ipc_compress compress)
{
	uint64_t left, begun = clock_ns();
	struct ipc_postcopy p;

	prepare(1, 64, 3, 0);
	v.p.compress = compress;
	v.p.level = compress == IPC_COMPRESS_ZSTD;
	v.p.rate = 60u << 20;
	vmm_serve(&v);
	vmm_run(&v);
	left = page_set_count(&v.missing);
	while (page_set_count(&v.missing) > left / 2)
		sched_yield();
	switch (what) {
	case LOSE_LINK:
		for (uint32_t i = 0; i < v.p.streams; i++)
			shutdown(v.cut_fds[i], SHUT_RDWR);
		expect_lost(&v.p.src);
		expect_lost(&v.p.dst);
		break;
	case LOSE_SOURCE:
		bury(&v.p.src);
		v.p.src.pid = 0;
		for (uint32_t i = 0; i < v.p.streams; i++)
			fd_close(&v.cut_fds[i]);
		expect_lost(&v.p.dst);
		break;
	case LOSE_DESTINATION:
		bury(&v.p.dst);
		v.p.dst.pid = 0;
		expect_lost(&v.p.src);
		break;
	}
	if (v.p.src.pid)
		bury(&v.p.src);
	if (v.p.dst.pid)
		bury(&v.p.dst);
	left = page_set_count(&v.missing);
	assert_true(left > 0);
	v.p.rate = 0;
	vmm_serve(&v);
	p = expect_complete();
	/* whoever of them died, and although the faults that waited then are timed anew */
	assert_int_equal(p.interruptions, 1);
	assert_in_range(p.interrupted_ns, 1, clock_ns() - begun);
	vmm_let_it_touch(&v, 1000);
	vmm_stop(&v);
	vmm_check_all(&v);
	vmm_quit(&v);
	vmm_release(&v);
}

static void test_link_lost(void **state)
{
	(void)state;
	lose(LOSE_LINK, IPC_COMPRESS_OFF);
	lose(LOSE_LINK, IPC_COMPRESS_ZSTD);
}

static void test_source_killed(void **state)
{
	(void)state;
	lose(LOSE_SOURCE, IPC_COMPRESS_OFF);
}

static void test_destination_killed(void **state)
{
	(void)state;
	lose(LOSE_DESTINATION, IPC_COMPRESS_ZSTD);
}

static void punch(uint64_t page, uint64_t pages)
{
	for (int i = 0; i < 2; i++)
		pair_check(!fallocate(i ? v.p.dst_ram[0] : v.p.src_ram[0],
				      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      (off_t)(page << PAGE_SHIFT), (off_t)(pages << PAGE_SHIFT)));
}

/* Pages that the destination's file holds. */
static uint64_t held(uint64_t page, uint64_t pages)
{
	struct region r = { .size = v.p.size[0], .fd = v.p.dst_ram[0] };
	struct bitmap b;
	uint64_t n;

	pair_check(!bitmap_init(&b, region_pages(&r)) && !region_extents(&r, &b));
	n = bitmap_count_range(&b, page, pages);
	bitmap_release(&b);
	return n;
}

/* What was never populated at the source stays so here, but for what the guest looks at. */
static void test_holes(void **state)
{
	/* of vmm_fill: nothing of these chunks is missing */
	const uint64_t empty = 3 * CHUNK_PAGES, tatters = 7 * CHUNK_PAGES, half = 11 * CHUNK_PAGES;
	struct ipc_postcopy p;

	(void)state;
	prepare(1, 32, 2, 0);
	punch(empty, CHUNK_PAGES);
	for (uint32_t i = 1; i < CHUNK_PAGES; i += 2)
		punch(tatters + i, 1);
	punch(half + 100, CHUNK_PAGES - 100);
	vmm_serve(&v);
	vmm_touch(&v, 0, empty + 10, 0);
	vmm_touch(&v, 0, empty + 300, 1);
	vmm_touch(&v, 0, tatters + 101, 1);
	for (uint32_t i = 0; i < CHUNK_PAGES; i += 2)
		vmm_touch(&v, 0, tatters + i, 0);
	vmm_touch(&v, 0, half + 5, 1);
	vmm_touch(&v, 0, half + 511, 0);
	p = expect_complete();
	assert_int_equal(held(empty, CHUNK_PAGES), 2);
	assert_int_equal(held(tatters, CHUNK_PAGES), CHUNK_PAGES / 2 + 1);
	assert_int_equal(held(half, CHUNK_PAGES), 101);
	/* and what lies between holes came with its neighbours, not each by itself */
	assert_in_range(p.local_faults, 5, 5 + CHUNK_PAGES / 2 / 8);
	vmm_check_all(&v);
	vmm_quit(&v);
	vmm_release(&v);
}

/* One that was killed between filling a page and mapping it, at the very end. */
static void test_nothing_is_missing(void **state)
{
	(void)state;
	prepare(1, 8, 2, 0);
	vmm_serve(&v);
	expect_complete();
	vmm_quit(&v);
	madvise(v.map[0], v.p.size[0], MADV_DONTNEED);
	vmm_run(&v);
	vmm_serve(&v);
	expect_complete();
	vmm_let_it_touch(&v, 1000);
	vmm_stop(&v);
	vmm_check_all(&v);
	vmm_quit(&v);
	vmm_release(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_running_guest_gets_every_page),
		cmocka_unit_test(test_compressed),
		cmocka_unit_test(test_compressed_bytes),
		cmocka_unit_test(test_huge_pages),
		cmocka_unit_test(test_pages_given_back),
		cmocka_unit_test(test_holes),
		cmocka_unit_test(test_link_lost),
		cmocka_unit_test(test_source_killed),
		cmocka_unit_test(test_destination_killed),
		cmocka_unit_test(test_nothing_is_missing),
	};

	signal(SIGPIPE, SIG_IGN);
	log_init("test", LOG_LEVEL_WARN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
