// SPDX-License-Identifier: MIT
/*
 * Compression: what each setting makes of each kind of content at each speed of the link.
 *
 *   compress [MiB [REPEATS [CONTENT|- [RATE]]]]   default 512 MiB, 3 times; RATE in Mbit/s, 0: none
 *
 * Two data planes on the loopback, the link's speed by the source's own limit. A whole round of a
 * guest's RAM; guest data rate in MB/s, medians; settings interleaved. Then processor seconds per
 * GB of guest data at both sides, and auto's rate to that of the best fixed setting.
 */
#include <stddef.h>
#include <stdint.h>

#include "bench/bench.h"
#include "lib/base/clock.h"
#include "tests/unit/dataplane/content.h"
#include "tests/unit/dataplane/pair.h"

#define REPEATS_MAX 99
#define SETTINGS    4

static const struct setting {
	const char *name;
	enum ipc_compress compress;
	uint32_t level;
} settings[SETTINGS] = {
	{ "off", IPC_COMPRESS_OFF, 0 },
	{ "zstd:1", IPC_COMPRESS_ZSTD, 1 },
	{ "zstd:3", IPC_COMPRESS_ZSTD, 3 },
	{ "auto", IPC_COMPRESS_AUTO, 0 },
};

static const uint64_t rates[] = { 200, 1000, 5000, 0 }; /* Mbit/s */

struct figures {
	double rate, cpu;
	struct ipc_stats stats;
};

static double cpu_of(pid_t pid)
{
	clockid_t id;

	pair_check(!clock_getcpuclockid(pid, &id));
	return (double)clock_of(id) / 1e9;
}

static struct figures once(int ram, uint64_t size, uint64_t mbit, const struct setting *how)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	struct figures f;
	struct ipc_sent sent;
	double cpu;

	p.size[0] = size;
	p.src_ram[0] = dup(ram);
	p.rate = mbit * 125000;
	p.compress = how->compress;
	p.level = how->level;
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	cpu = cpu_of(p.src.pid) + cpu_of(p.dst.pid);
	sent = pair_round(&p, 1);
	f.cpu = (cpu_of(p.src.pid) + cpu_of(p.dst.pid) - cpu) / ((double)size / 1e9);
	f.rate = (double)size / (double)sent.ns * 1e3;
	f.stats = sent.total;
	pair_quit(&p);
	return f;
}

static int by_rate(const void *a, const void *b)
{
	const struct figures *x = a, *y = b;

	return x->rate < y->rate ? -1 : x->rate > y->rate;
}

static void compare(enum content kind, uint64_t mbit, int ram, uint64_t size, int repeats)
{
	static struct figures f[SETTINGS][REPEATS_MAX];
	double best = 0, rate = 0;

	for (int i = 0; i < repeats; i++)
		for (int k = 0; k < SETTINGS; k++)
			f[k][i] = once(ram, size, mbit, &settings[k]);
	printf("%-7s %6lu", content_names[kind], (unsigned long)mbit);
	for (int k = 0; k < SETTINGS; k++) {
		const struct figures *m = &f[k][repeats / 2];

		qsort(f[k], (size_t)repeats, sizeof(f[k][0]), by_rate);
		printf("  %7.0f %4.2f", m->rate, m->cpu);
		rate = m->rate;
		if (k < SETTINGS - 1 && rate > best)
			best = rate;
	}
	bench_row("{\"bench\":\"compress\",\"mib\":%lu,\"content\":\"%s\",\"mbit\":%lu,"
		  "\"off\":%.0f,\"zstd1\":%.0f,\"zstd3\":%.0f,\"auto\":%.0f,\"ratio\":%.3f,"
		  "\"off_cpu\":%.3f,\"zstd1_cpu\":%.3f,\"zstd3_cpu\":%.3f,\"auto_cpu\":%.3f}",
		  (unsigned long)(size >> 20), content_names[kind], (unsigned long)mbit,
		  f[0][repeats / 2].rate, f[1][repeats / 2].rate, f[2][repeats / 2].rate, rate,
		  rate / best, f[0][repeats / 2].cpu, f[1][repeats / 2].cpu, f[2][repeats / 2].cpu,
		  f[3][repeats / 2].cpu);
	printf("  %5.2f  %u changes, level %u, %.0f%% encoded\n", rate / best,
	       f[SETTINGS - 1][repeats / 2].stats.encode_changes,
	       f[SETTINGS - 1][repeats / 2].stats.encode_level,
	       100.0 * (double)f[SETTINGS - 1][repeats / 2].stats.zstd_in_bytes / (double)size);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 512) << 20;
	int repeats = argc > 2 ? atoi(argv[2]) : 3;

	if (!size || repeats < 1 || repeats > REPEATS_MAX)
		return 1;
	printf("%-7s %6s", "content", "Mbit/s");
	for (int k = 0; k < SETTINGS; k++)
		printf("  %7s s/GB", settings[k].name);
	printf("  auto/best\n");
	for (int kind = 0; kind < CONTENTS; kind++) {
		int ram = memfd_create("bench-ram", MFD_CLOEXEC);

		if (argc > 3 && strcmp(argv[3], "-") && strcmp(argv[3], content_names[kind]))
			continue;
		pair_check(ram >= 0 && !ftruncate(ram, (off_t)size));
		content_fill(ram, size, (enum content)kind);
		for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
			if (argc < 5 || strtoull(argv[4], NULL, 10) == rates[i])
				compare((enum content)kind, rates[i], ram, size, repeats);
		close(ram);
	}
	return 0;
}
