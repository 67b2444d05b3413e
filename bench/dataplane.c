// SPDX-License-Identifier: MIT
/*
 * Both data planes on the loopback, RAM full of data in a memfd: throughput and processor time.
 *
 *   dataplane [MiB [REPEATS]]      default 2048 MiB, 3 times; medians are shown
 *
 * One line a way of sending and number of streams: GB/s of a whole round, and processor seconds
 * per GB at the source and at the destination.
 */
#include <stdint.h>

#include "bench/bench.h"
#include "lib/base/clock.h"
#include "tests/unit/dataplane/pair.h"

#define CASES 9 /* three ways of sending over 1, 2 and 4 streams */

struct figures {
	double rate, cpu_src, cpu_dst;
};

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

static void show(const char *tx, unsigned int streams, const struct figures *f, int n)
{
	struct bench_values rate = { .n = 0 }, src = { .n = 0 }, dst = { .n = 0 };
	double gb_per_s, cpu_src, cpu_dst;

	for (int i = 0; i < n; i++) {
		bench_add(&rate, f[i].rate);
		bench_add(&src, f[i].cpu_src);
		bench_add(&dst, f[i].cpu_dst);
	}
	gb_per_s = bench_median(&rate);
	cpu_src = bench_median(&src);
	cpu_dst = bench_median(&dst);
	printf("%-9s %7u %8.2f %13.3f %13.3f\n", tx, streams, gb_per_s, cpu_src, cpu_dst);
	bench_row("{\"bench\":\"dataplane\",\"tx\":\"%s\",\"streams\":%u,\"gb_per_s\":%.3f,\"min\":"
		  "%.3f,"
		  "\"max\":%.3f,\"source_cpu_s_per_gb\":%.4f,\"destination_cpu_s_per_gb\":%.4f}",
		  tx, streams, gb_per_s, rate.v[0], rate.v[n - 1], cpu_src, cpu_dst);
}

int main(int argc, char **argv)
{
	static const char *const names[] = { "auto", "sendfile", "uring", "send" };
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 2048) << 20;
	int repeats = argc > 2 ? atoi(argv[2]) : 3;
	static struct figures f[CASES][BENCH_REPEATS_MAX];
	uint64_t page[512];
	int ram = memfd_create("bench-ram", MFD_CLOEXEC);

	if (!size || repeats < 1 || repeats > BENCH_REPEATS_MAX || ftruncate(ram, (off_t)size))
		return 1;
	for (uint64_t at = 0; at < size; at += sizeof(page)) {
		pair_page(page, at);
		pair_check(pwrite(ram, page, sizeof(page), (off_t)at) == sizeof(page));
	}
	/* Repeats outermost: what else the machine does falls on all alike. */
	for (int i = 0; i < repeats; i++)
		for (uint32_t k = 0; k < CASES; k++)
			f[k][i] = once(ram, size, (enum ipc_tx)(1 + k / 3), 1u << k % 3);
	printf("%-9s %7s %8s %13s %13s\n", "tx", "streams", "GB/s", "src CPU s/GB", "dst CPU s/GB");
	for (uint32_t k = 0; k < CASES; k++)
		show(names[1 + k / 3], 1u << k % 3, f[k], repeats);
	return 0;
}
