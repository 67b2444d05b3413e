// SPDX-License-Identifier: MIT
/*
 * A first round to a destination that has nothing, the same, other data, or zeros already.
 *
 *   known_pages [MiB [REPEATS]]     default 512 MiB of memfd, 5 times; medians
 *
 * Time from the order to the acknowledgement, bytes on the wire, processor seconds of both data
 * planes per GB of guest RAM.
 */
#include <stddef.h>
#include <stdint.h>

#include "lib/base/clock.h"
#include "tests/unit/dataplane/pair.h"

#define REPEATS_MAX 99

enum has { HAS_NOTHING, HAS_SAME, HAS_HALF, HAS_OTHER, HAS_ZEROS, HAS_COUNT };
static const char *const names[] = { "nothing", "the same", "a half", "other data", "zeros" };

struct figures {
	double ms, wire, src, dst;
};

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double cpu_of(pid_t pid)
{
	clockid_t id;

	pair_check(!clock_getcpuclockid(pid, &id));
	return (double)clock_of(id) / 1e9;
}

/* Pages of data from seed up to limit; seed 0: zeros that exist. */
static int make_ram(uint64_t size, uint64_t limit, uint64_t seed)
{
	int fd = memfd_create("bench-ram", MFD_CLOEXEC);
	uint64_t page[512] = { 0 };

	pair_check(fd >= 0 && !ftruncate(fd, (off_t)size));
	for (uint64_t at = 0; at < limit; at += sizeof(page)) {
		if (seed)
			pair_page(page, at ^ seed << 40);
		pair_check(pwrite(fd, page, sizeof(page), (off_t)at) == sizeof(page));
	}
	return fd;
}

static int destination(enum has has, uint64_t size)
{
	switch (has) {
	case HAS_SAME:
		return make_ram(size, size, 1);
	case HAS_HALF:
		return make_ram(size, size / 2, 1);
	case HAS_OTHER:
		return make_ram(size, size, 2);
	case HAS_ZEROS:
		return make_ram(size, size, 0);
	default:
		return make_ram(size, 0, 0);
	}
}

static struct figures once(int ram, uint64_t size, enum has has)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	double gb = (double)size / 1e9, src, dst;
	struct figures f;
	uint64_t start;

	p.size[0] = size;
	p.src_ram[0] = dup(ram);
	p.dst_ram[0] = destination(has, size);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	src = cpu_of(p.src.pid);
	dst = cpu_of(p.dst.pid);
	start = clock_ns();
	f.wire = (double)pair_round(&p, 1).total.wire_bytes / 1048576;
	f.ms = clock_ms_since(start);
	f.src = (cpu_of(p.src.pid) - src) / gb;
	f.dst = (cpu_of(p.dst.pid) - dst) / gb;
	pair_quit(&p);
	return f;
}

static double median(const struct figures *f, int n, size_t member)
{
	double v[REPEATS_MAX];

	for (int i = 0; i < n; i++)
		v[i] = *(const double *)((const char *)&f[i] + member);
	qsort(v, (size_t)n, sizeof(v[0]), by_value);
	return v[n / 2];
}

int main(int argc, char **argv)
{
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 512) << 20;
	int repeats = argc > 2 ? atoi(argv[2]) : 5, ram;
	static struct figures f[HAS_COUNT][REPEATS_MAX];

	if (!size || size % CHUNK_BYTES || repeats < 1 || repeats > REPEATS_MAX)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	ram = make_ram(size, size, 1);
	/* Repeats outermost: what else the machine does falls on all alike. */
	for (int i = 0; i < repeats; i++)
		for (enum has h = 0; h < HAS_COUNT; h++)
			f[h][i] = once(ram, size, h);
	printf("%-11s %9s %9s %13s %13s\n", "there", "ms", "wire MiB", "src CPU s/GB",
	       "dst CPU s/GB");
	for (enum has h = 0; h < HAS_COUNT; h++)
		printf("%-11s %9.0f %9.1f %13.3f %13.3f\n", names[h],
		       median(f[h], repeats, offsetof(struct figures, ms)),
		       median(f[h], repeats, offsetof(struct figures, wire)),
		       median(f[h], repeats, offsetof(struct figures, src)),
		       median(f[h], repeats, offsetof(struct figures, dst)));
	return 0;
}
