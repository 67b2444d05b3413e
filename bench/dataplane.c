// SPDX-License-Identifier: MIT
/*
 * Both data planes on the loopback, RAM full of data in a memfd: throughput and processor time.
 *
 *   dataplane [MiB [REPEATS]]      default 2048 MiB, 3 times; medians are shown
 *
 * One line a way of sending and number of streams: GB/s of the first round, processor seconds per
 * GB at the source and at the destination, and the time of a following round of 256 scattered
 * pages (the least that a round takes).
 */
#include <stdint.h>
#include <sys/resource.h>

#include "lib/base/clock.h"
#include "tests/unit/dataplane/pair.h"

struct figures {
	double rate, cpu_src, cpu_dst;
};

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double cpu_of(pid_t pid)
{
	clockid_t id;
	struct timespec t;

	pair_check(!clock_getcpuclockid(pid, &id) && !clock_gettime(id, &t));
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct figures once(int ram, uint64_t size, enum ipc_tx tx, uint32_t streams)
{
	struct pair p = PAIR_INIT(streams, tx);
	struct figures f;
	struct ipc_sent sent;
	double src, dst;

	p.size[0] = size;
	p.src_ram[0] = dup(ram);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	src = cpu_of(p.src.pid);
	dst = cpu_of(p.dst.pid);
	sent = pair_round(&p, 1);
	f.cpu_src = (cpu_of(p.src.pid) - src) / ((double)size / 1e9);
	f.cpu_dst = (cpu_of(p.dst.pid) - dst) / ((double)size / 1e9);
	f.rate = (double)size / (double)sent.ns;
	pair_quit(&p);
	return f;
}

int main(int argc, char **argv)
{
	static const char *const names[] = { "auto", "sendfile", "uring", "send" };
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 2048) << 20;
	int repeats = argc > 2 ? atoi(argv[2]) : 3;
	uint64_t page[512];
	int ram = memfd_create("bench-ram", MFD_CLOEXEC);

	if (!size || repeats < 1 || repeats > 99 || ftruncate(ram, (off_t)size))
		return 1;
	for (uint64_t at = 0; at < size; at += sizeof(page)) {
		pair_page(page, at);
		pair_check(pwrite(ram, page, sizeof(page), (off_t)at) == sizeof(page));
	}
	printf("%-9s %7s %8s %13s %13s\n", "tx", "streams", "GB/s", "src CPU s/GB", "dst CPU s/GB");
	for (enum ipc_tx tx = IPC_TX_SENDFILE; tx <= IPC_TX_SEND; tx++) {
		for (uint32_t n = 1; n <= 4; n *= 2) {
			double rate[99], src[99], dst[99];

			for (int i = 0; i < repeats; i++) {
				struct figures f = once(ram, size, tx, n);

				rate[i] = f.rate;
				src[i] = f.cpu_src;
				dst[i] = f.cpu_dst;
			}
			qsort(rate, (size_t)repeats, sizeof(double), by_value);
			qsort(src, (size_t)repeats, sizeof(double), by_value);
			qsort(dst, (size_t)repeats, sizeof(double), by_value);
			printf("%-9s %7u %8.2f %13.3f %13.3f\n", names[tx], n, rate[repeats / 2],
			       src[repeats / 2], dst[repeats / 2]);
		}
	}
	return 0;
}
