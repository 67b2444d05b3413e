// SPDX-License-Identifier: MIT
/*
 * What looking for written pages costs: PAGEMAP_SCAN by dirtiness and by threads.
 *
 *   scan [GIB [REPEATS]]     8 GiB, 3 repeats; medians
 *
 * Another process, as a VMM is, maps a memfd of that size, populates it and registers it for
 * asynchronous write protection. It writes to a share of its pages, scattered evenly, and waits;
 * then it is scanned
 *   read-only    what is written is reported, and stays written
 *   re-protect   what is written is reported and protected again, in windows of 16 MiB
 *   collect      as a session does: read-only first, then re-protecting where something was found
 * with one and with two threads, each with half of the memory (collect: the tracker's own shares).
 * ms, and ms per GiB. Before every re-protecting scan the pages are written anew.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench/bench.h"
#include "control/guest/uffd.h"
#include "dataplane/track/pagemap_scan.h"
#include "dataplane/track/tracker.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"

#define THREADS 2
#define RANGES	2048
#define WINDOW	(16ull << 20)

enum kind { READ_ONLY, PROTECT, COLLECT, KINDS };
static const char *const kinds[KINDS] = { "read-only", "re-protect", "collect" };

/* Every so-manieth page is written; 0: none. */
static const unsigned int strides[] = { 0, 1000, 100, 10, 1 };
#define STRIDES (sizeof(strides) / sizeof(strides[0]))

struct bench {
	uintptr_t map; /* in the other process */
	uint64_t size;
	int other;
	int pagemap;
	struct tracker *trackers[THREADS];
	struct bitmap dirty;
};

struct share {
	const struct bench *b;
	uint64_t start, end;
	bool protect;
	uint64_t pages;
};

static void *scan_share(void *arg)
{
	struct share *s = arg;
	static __thread struct pagemap_range found[RANGES];

	while (s->start < s->end) {
		uint64_t end = s->end;
		struct pagemap_scan q = {
			.flags = s->protect ? PAGEMAP_SCAN_WP_MATCHING : 0,
			.category_mask = PAGEMAP_IS_WRITTEN,
			.return_mask = PAGEMAP_IS_WRITTEN,
			.vec = (uintptr_t)found,
			.vec_len = RANGES,
		};
		long n;

		if (s->protect && end - s->start > WINDOW)
			end = s->start + WINDOW;
		n = pagemap_scan_once(s->b->pagemap, &q, &s->start, end);
		errno = n < 0 ? (int)-n : 0;
		bench_check(n >= 0, "PAGEMAP_SCAN");
		for (long i = 0; i < n; i++)
			s->pages += (found[i].end - found[i].start) / PAGE_BYTES;
	}
	return NULL;
}

/* By this number of threads, the caller among them. Returns the pages found. */
static uint64_t scan(const struct bench *b, bool protect, unsigned int threads)
{
	struct share shares[THREADS];
	pthread_t others[THREADS];
	uint64_t pages = 0;

	for (unsigned int i = 0; i < threads; i++) {
		uint64_t chunks = b->size / CHUNK_BYTES;

		shares[i] = (struct share){
			.b = b,
			.start = b->map + chunks * i / threads * CHUNK_BYTES,
			.end = b->map + chunks * (i + 1) / threads * CHUNK_BYTES,
			.protect = protect,
		};
		if (i)
			bench_check(!pthread_create(&others[i], NULL, scan_share, &shares[i]),
				    "thread");
	}
	scan_share(&shares[0]);
	for (unsigned int i = 0; i < threads; i++) {
		if (i)
			pthread_join(others[i], NULL);
		pages += shares[i].pages;
	}
	return pages;
}

static uint64_t collect(struct bench *b, unsigned int threads)
{
	struct tracker *t = b->trackers[threads - 1];
	struct failure f = { 0 };
	uint64_t pages = 0;

	if (t->ops->collect(t, &b->dirty, &pages, &f)) {
		fprintf(stderr, "collect: %s\n", f.message);
		abort();
	}
	return pages;
}

/* The other process: each stride that comes is written, and the pages written are answered. */
static void be_written(int sock, int ram, uint64_t size)
{
	uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0);
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	uint64_t word = (uintptr_t)map;
	struct failure f = { 0 };

	bench_check(map != MAP_FAILED && !madvise(map, size, MADV_NOHUGEPAGE), "mmap");
	bench_check(!madvise(map, size, MADV_POPULATE_WRITE), "populate");
	bench_check(uffd >= 0, "userfaultfd");
	if (uffd_api(uffd, UFFD_TRACK_FEATURES, &f) ||
	    uffd_register_wp(uffd, (uintptr_t)map, (uintptr_t)map + size, &f)) {
		fprintf(stderr, "%s\n", f.message);
		word = 0;
	}
	while (write(sock, &word, sizeof(word)) == sizeof(word) &&
	       read(sock, &word, sizeof(word)) == sizeof(word)) {
		uint64_t stride = word, pages = 0;

		for (uint64_t at = 0; stride && at < size; at += stride * PAGE_BYTES, pages++)
			map[at]++;
		word = pages;
	}
	_exit(0);
}

static uint64_t answer_of(const struct bench *b)
{
	uint64_t word;

	bench_check(read(b->other, &word, sizeof(word)) == sizeof(word), "the other process");
	return word;
}

static uint64_t make_dirty(const struct bench *b, uint64_t stride)
{
	bench_check(write(b->other, &stride, sizeof(stride)) == sizeof(stride), "write");
	return answer_of(b);
}

static double measure(struct bench *b, enum kind kind, unsigned int threads, unsigned int stride)
{
	uint64_t pages = make_dirty(b, stride), found, start;
	double ms;

	if (kind == COLLECT)
		bitmap_clear_all(&b->dirty);
	start = clock_ns();
	found = kind == COLLECT ? collect(b, threads) : scan(b, kind == PROTECT, threads);
	ms = clock_ms_since(start);
	errno = 0;
	bench_check(found == pages, "the scan found another number of pages");
	if (kind == READ_ONLY)
		bench_check(scan(b, true, THREADS) == pages, "clean up");
	return ms;
}

static void open_tracking(struct bench *b, struct region *r, struct region_mapping *m)
{
	struct failure f = { 0 };
	char path[64];
	int socks[2];
	pid_t pid;

	bench_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), "socketpair");
	pid = fork();
	bench_check(pid >= 0, "fork");
	if (!pid) {
		close(socks[0]);
		be_written(socks[1], r->fd, b->size);
	}
	close(socks[1]);
	b->other = socks[0];
	b->map = answer_of(b);
	if (!b->map)
		exit(77);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	b->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	bench_check(b->pagemap >= 0 && !bitmap_init(&b->dirty, b->size >> PAGE_SHIFT), "pagemap");
	*m = (struct region_mapping){ b->map, b->map + b->size, 0 };
	r->mappings = m;
	r->nmappings = 1;
	for (unsigned int i = 0; i < THREADS; i++) {
		const struct tracker_pagemap_options o = { .threads = i + 1 };

		bench_check(!tracker_pagemap_new(&b->trackers[i], r, 1, dup(b->pagemap), &o, &f) &&
				    !b->trackers[i]->ops->start(b->trackers[i], &f),
			    "tracker");
	}
}

static void show(const struct bench *b, unsigned int stride, enum kind kind,
		 struct bench_values v[THREADS])
{
	double one = bench_median(&v[0]), two = bench_median(&v[1]);
	double gib = (double)b->size / (1 << 30), percent = stride ? 100.0 / stride : 0;

	printf("%7.1f %% %-10s %9.2f %9.2f %12.2f %12.2f %8.2f\n", percent, kinds[kind], one, two,
	       one / gib, two / gib, two / one);
	bench_row("{\"bench\":\"scan\",\"gib\":%.2f,\"dirty_percent\":%.1f,\"kind\":\"%s\","
		  "\"ms_1\":%.3f,\"ms_1_min\":%.3f,\"ms_1_max\":%.3f,"
		  "\"ms_2\":%.3f,\"ms_2_min\":%.3f,\"ms_2_max\":%.3f}",
		  gib, percent, kinds[kind], one, v[0].v[0], v[0].v[v[0].n - 1], two, v[1].v[0],
		  v[1].v[v[1].n - 1]);
}

int main(int argc, char **argv)
{
	struct bench b = { .size = (uint64_t)((argc > 1 ? atof(argv[1]) : 8) * 1024) << 20 };
	int repeats = argc > 2 ? atoi(argv[2]) : 3;
	static struct bench_values v[STRIDES][KINDS][THREADS];
	struct region r = { .page_size = PAGE_BYTES, .size = b.size };
	struct region_mapping m;

	if (b.size < CHUNK_BYTES || repeats < 1 || repeats > BENCH_REPEATS_MAX)
		return 1;
	r.fd = memfd_create("bench-scan", MFD_CLOEXEC);
	bench_check(r.fd >= 0 && !ftruncate(r.fd, (off_t)b.size), "memfd");
	open_tracking(&b, &r, &m);
	/* One thread and two in turns, so that a drifting machine hits both alike. */
	for (size_t s = 0; s < STRIDES; s++)
		for (int i = -1; i < repeats; i++)
			for (enum kind k = 0; k < KINDS; k++)
				for (unsigned int t = 0; t < THREADS; t++) {
					double ms = measure(&b, k, t + 1, strides[s]);

					if (i >= 0) /* the first warms up */
						bench_add(&v[s][k][t], ms);
				}
	printf("%9s %-10s %9s %9s %12s %12s %8s\n", "written", "scan", "1 thread", "2 threads",
	       "1: ms/GiB", "2: ms/GiB", "ratio");
	for (enum kind k = 0; k < KINDS; k++)
		for (size_t s = 0; s < STRIDES; s++)
			show(&b, strides[s], k, v[s][k]);
	return 0;
}
