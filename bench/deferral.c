// SPDX-License-Identifier: MIT
/*
 * What leaving pages for later saves that were written again before their turn.
 *
 *   deferral [MiB [REPEATS [RATE]]]      512 MiB, 3 times, a link of RATE Mbit/s: 800; medians
 *
 * Two data planes on the loopback, the link's speed by the source's own limit. Another process, as
 * a VMM is, holds RAM that is all touched and writes to it at a set rate: by Zipf's law
 * (synthetic_pattern.h) scattered over all pages, or over chunks, any page of which is written;
 * nine of ten writes into a quarter of it; or each page alike. Rounds go on until what is left
 * would pass in a tenth of a second, at most ROUNDS; then the writer stops for the last one. Bytes
 * on the wire and seconds, with and without deferral, in turns.
 */
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "control/guest/uffd.h"
#include "lib/base/kernel_abi.h"
#include "lib/base/clock.h"
#include "tests/unit/dataplane/pair.h"
#include "tools/synthetic_pattern.h"

#define ROUNDS 12

enum where { EVEN, ZIPF_PAGES, ZIPF_CHUNKS, HOT_QUARTER };

static const struct writing {
	const char *name;
	enum where where;
	uint64_t mib_s;
} writings[] = {
	{ "zipf", ZIPF_PAGES, 50 },
	{ "zipf", ZIPF_PAGES, 100 },
	{ "zipf", ZIPF_PAGES, 200 },
	{ "zipf, chunks", ZIPF_CHUNKS, 50 },
	{ "zipf, chunks", ZIPF_CHUNKS, 100 },
	{ "zipf, chunks", ZIPF_CHUNKS, 200 },
	{ "a quarter", HOT_QUARTER, 50 },
	{ "a quarter", HOT_QUARTER, 100 },
	{ "random", EVEN, 50 },
};
#define WRITINGS (sizeof(writings) / sizeof(writings[0]))

struct guest {
	pid_t pid;
	uint8_t *map;
	uint64_t size;
	const struct writing *how;
	int *state; /* shared: 0 made, 1 armed, 2 to stop, 3 stopped, negative: an error */
};

/* Where the next write goes. */
struct writer {
	enum where where;
	uint64_t pages;
	struct synthetic_walk all, chunks, within;
};

static void writer_init(struct writer *w, enum where where, uint64_t pages)
{
	*w = (struct writer){ .where = where, .pages = pages };
	synthetic_walk_init(&w->all, where == ZIPF_PAGES ? SYNTHETIC_ZIPF : SYNTHETIC_RAND, pages,
			    7);
	synthetic_walk_init(&w->chunks, SYNTHETIC_ZIPF, pages / CHUNK_PAGES, 8);
	synthetic_walk_init(&w->within, SYNTHETIC_RAND, CHUNK_PAGES, 9);
}

static uint64_t writer_next(struct writer *w)
{
	uint64_t page;

	if (w->where == ZIPF_CHUNKS) {
		page = synthetic_walk_next(&w->chunks) * CHUNK_PAGES;
		return page + synthetic_walk_next(&w->within);
	}
	page = synthetic_walk_next(&w->all);
	/* the quarter in the middle: as far from the first turn as from the last */
	if (w->where == HOT_QUARTER && synthetic_walk_next(&w->within) < CHUNK_PAGES * 9 / 10)
		page = w->pages * 3 / 8 + page / 4;
	return page;
}

static void write_on(const struct guest *g)
{
	struct writer w;
	uint64_t start = clock_ns(), written = 0;

	writer_init(&w, g->how->where, g->size / PAGE_BYTES);
	while (__atomic_load_n(g->state, __ATOMIC_ACQUIRE) == 1) {
		uint64_t due = (clock_ns() - start) * g->how->mib_s / 1000 * 256 / 1000000;

		for (; written < due; written++)
			++*(uint64_t *)(g->map + writer_next(&w) * PAGE_BYTES);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	__atomic_store_n(g->state, 3, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

static void be_a_guest(const struct guest *g)
{
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	struct failure f = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (uffd < 0 || uffd_api(uffd, UFFD_TRACK_FEATURES, &f) ||
	    uffd_register_wp(uffd, (uintptr_t)g->map, (uintptr_t)g->map + g->size, &f)) {
		__atomic_store_n(g->state, -1, __ATOMIC_RELEASE);
		_exit(1);
	}
	__atomic_store_n(g->state, 1, __ATOMIC_RELEASE);
	write_on(g);
}

static void guest_start(struct guest *g, struct pair *p)
{
	char path[64];
	int state;

	g->map = mmap(NULL, g->size, PROT_READ | PROT_WRITE, MAP_SHARED, p->src_ram[0], 0);
	g->state = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bench_check(g->map != MAP_FAILED && g->state != MAP_FAILED, "mmap");
	g->pid = fork();
	bench_check(g->pid >= 0, "fork");
	if (!g->pid)
		be_a_guest(g);
	while (!(state = __atomic_load_n(g->state, __ATOMIC_ACQUIRE)))
		sched_yield();
	if (state < 0) {
		fprintf(stderr, "no asynchronous write protection here\n");
		exit(77);
	}
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)g->pid);
	p->tracker_fd = open(path, O_RDONLY | O_CLOEXEC);
	bench_check(p->tracker_fd >= 0, path);
	p->mapping[0] = (struct ipc_mapping){ .start = (uintptr_t)g->map,
					      .end = (uintptr_t)g->map + g->size };
}

static void guest_end(struct guest *g, struct pair *p)
{
	kill(g->pid, SIGKILL);
	waitpid(g->pid, NULL, 0);
	munmap(g->map, g->size);
	munmap(g->state, 4096);
	fd_close(&p->tracker_fd);
}

struct outcome {
	double mib, seconds;
};

static struct outcome move(const struct writing *how, uint64_t size, uint64_t rate, bool defer)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	struct guest g = { .size = size, .how = how };
	struct ipc_scanned scanned;
	struct ipc_sent sent;
	struct outcome o;
	uint64_t start, ended;
	uint32_t n = 0;

	p.size[0] = size;
	p.rate = rate;
	p.send_flags = defer ? IPC_SEND_DEFER : 0;
	p.src_ram[0] = pair_memfd(&p, size);
	pair_fill(p.src_ram[0], size, 1);
	guest_start(&g, &p);
	pair_start(&p);
	start = clock_ns();
	pair_scan(&p, IPC_SCAN_FIRST);
	do {
		pair_round(&p, ++n);
		scanned = pair_scan(&p, 0);
	} while (n < ROUNDS && scanned.pending_pages * PAGE_BYTES > rate / 10);
	__atomic_store_n(g.state, 2, __ATOMIC_RELEASE);
	while (__atomic_load_n(g.state, __ATOMIC_ACQUIRE) != 3)
		sched_yield();
	pair_scan(&p, IPC_SCAN_BARRIER);
	p.send_flags = 0;
	sent = pair_round(&p, ++n);
	ended = clock_ns();
	bench_check(pair_same(p.src_ram[0], p.dst_ram[0], size), "what arrived");
	o = (struct outcome){ (double)sent.total.wire_bytes / 1048576,
			      (double)(ended - start) / 1e9 };
	pair_quit(&p);
	guest_end(&g, &p);
	return o;
}

int main(int argc, char **argv)
{
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 512) << 20;
	int repeats = argc > 2 ? atoi(argv[2]) : 3;
	uint64_t rate = (argc > 3 ? strtoull(argv[3], NULL, 10) : 800) * 125000;

	if (!size || !rate || repeats < 1 || repeats > BENCH_REPEATS_MAX)
		return 1;
	printf("%-12s %6s %10s %10s %8s %8s %8s\n", "writer", "MiB/s", "MiB sent", "deferring",
	       "ratio", "s", "deferring");
	for (size_t i = 0; i < WRITINGS; i++) {
		static struct bench_values mib[WRITINGS][2], s[WRITINGS][2];

		for (int k = 0; k < repeats; k++)
			for (int defer = 0; defer < 2; defer++) {
				struct outcome o = move(&writings[i], size, rate, defer);

				bench_add(&mib[i][defer], o.mib);
				bench_add(&s[i][defer], o.seconds);
			}
		printf("%-12s %6lu %10.0f %10.0f %8.2f %8.2f %8.2f\n", writings[i].name,
		       (unsigned long)writings[i].mib_s, bench_median(&mib[i][0]),
		       bench_median(&mib[i][1]),
		       bench_median(&mib[i][1]) / bench_median(&mib[i][0]), bench_median(&s[i][0]),
		       bench_median(&s[i][1]));
		bench_row("{\"bench\":\"deferral\",\"mib\":%lu,\"writer\":\"%s\",\"mib_s\":%lu,"
			  "\"link_mbit\":%lu,\"sent_mib\":%.1f,\"deferring_mib\":%.1f,"
			  "\"s\":%.2f,\"deferring_s\":%.2f}",
			  (unsigned long)(size >> 20), writings[i].name,
			  (unsigned long)writings[i].mib_s, (unsigned long)(rate / 125000),
			  bench_median(&mib[i][0]), bench_median(&mib[i][1]),
			  bench_median(&s[i][0]), bench_median(&s[i][1]));
		fflush(stdout);
	}
	return 0;
}
