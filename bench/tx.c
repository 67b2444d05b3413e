// SPDX-License-Identifier: MIT
/*
 * Ways of sending alone: one stream on the loopback to a receiver that discards.
 *
 *   tx [MiB [REPEATS]]     default 512 MiB of memfd, 5 times; medians
 *
 * The RAM is sent in frames of one chunk whose slices have the length shown, each followed by a
 * gap as long: GB/s, and processor seconds of the sending thread per GB of guest memory.
 */
#include <stdint.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "bench/bench.h"
#include "dataplane/page_reader.h"
#include "dataplane/tx.h"
#include "dataplane/wire.h"
#include "lib/base/clock.h"
#include "tests/unit/dataplane/pair.h"

#define CASES 24 /* eight lengths, three ways */

struct figures {
	double rate, cpu;
};

static int tcp_pair(int sv[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(l, (struct sockaddr *)&a, len) || listen(l, 1) ||
	    getsockname(l, (struct sockaddr *)&a, &len))
		return -1;
	sv[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(sv[0], (struct sockaddr *)&a, len))
		return -1;
	sv[1] = accept(l, NULL, NULL);
	close(l);
	return 0;
}

/* Discards without copying: MSG_TRUNC on a TCP socket. */
static void *discard(void *arg)
{
	int fd = *(int *)arg;

	while (recv(fd, NULL, 1 << 20, MSG_TRUNC) > 0)
		;
	return NULL;
}

static void send_all(struct tx *t, const struct region *r, uint32_t pages)
{
	struct tx_slice slices[WIRE_RUNS_MAX];
	uint8_t head[WIRE_FRAME_SIZE + WIRE_RUNS_MAX * WIRE_RUN_SIZE] = { 0 };

	for (uint64_t at = 0; at < r->size; at += CHUNK_BYTES) {
		uint32_t n = 0, step = pages == CHUNK_PAGES ? pages : 2 * pages;

		for (uint32_t page = 0; page < CHUNK_PAGES; page += step)
			slices[n++] = (struct tx_slice){ .offset = at + page * PAGE_BYTES,
							 .length = (uint64_t)pages * PAGE_BYTES };
		pair_check(!t->ops->frame(t, head, WIRE_FRAME_SIZE + n * WIRE_RUN_SIZE, r, slices,
					  n, at + CHUNK_BYTES < r->size));
	}
}

static struct figures measure(const struct tx_ops *ops, const struct region *r, uint32_t pages)
{
	double bytes = (double)r->size / (pages == CHUNK_PAGES ? 1 : 2);
	struct figures f;
	uint64_t wall, used;
	pthread_t reader;
	struct tx *t;
	int sv[2];

	pair_check(!tcp_pair(sv));
	pair_check(!pthread_create(&reader, NULL, discard, &sv[1]));
	pair_check(!ops->new (&t, sv[0], r, 1));
	wall = clock_ns();
	used = clock_of(CLOCK_THREAD_CPUTIME_ID);
	send_all(t, r, pages);
	pair_check(!t->ops->drain(t));
	f.cpu = (double)(clock_of(CLOCK_THREAD_CPUTIME_ID) - used) / bytes;
	f.rate = bytes / (double)(clock_ns() - wall);
	shutdown(sv[0], SHUT_RDWR);
	pthread_join(reader, NULL);
	ops->free(t);
	close(sv[0]);
	close(sv[1]);
	return f;
}

static void show(const char *name, uint32_t pages, const struct figures *f, int n)
{
	struct bench_values rate = { .n = 0 }, cpu = { .n = 0 };
	double gb_per_s, cpu_per_gb;

	for (int i = 0; i < n; i++) {
		bench_add(&rate, f[i].rate);
		bench_add(&cpu, f[i].cpu);
	}
	gb_per_s = bench_median(&rate);
	cpu_per_gb = bench_median(&cpu);
	printf("%-9s %6u KiB %8.2f %10.3f\n", name, pages * 4, gb_per_s, cpu_per_gb);
	bench_row("{\"bench\":\"tx\",\"tx\":\"%s\",\"slice_kib\":%u,\"gb_per_s\":%.3f,\"min\":%.3f,"
		  "\"max\":%.3f,\"cpu_s_per_gb\":%.4f}",
		  name, pages * 4, gb_per_s, rate.v[0], rate.v[n - 1], cpu_per_gb);
}

int main(int argc, char **argv)
{
	static const struct tx_ops *const all[] = { &tx_sendfile_ops, &tx_send_ops, &tx_uring_ops };
	static const uint32_t lengths[] = { 1, 2, 4, 8, 16, 32, 64, CHUNK_PAGES };
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 512) << 20;
	int repeats = argc > 2 ? atoi(argv[2]) : 5;
	struct region r = { .page_size = PAGE_BYTES,
			    .size = size,
			    .fd = memfd_create("bench-ram", MFD_CLOEXEC) };
	static struct figures f[CASES][BENCH_REPEATS_MAX];
	struct page_reader reader;
	struct failure failure = { 0 };
	uint64_t page[512];

	if (size < CHUNK_BYTES || repeats < 1 || repeats > BENCH_REPEATS_MAX ||
	    ftruncate(r.fd, (off_t)size))
		return 1;
	for (uint64_t at = 0; at < size; at += sizeof(page)) {
		pair_page(page, at);
		pair_check(pwrite(r.fd, page, sizeof(page), (off_t)at) == sizeof(page));
	}
	pair_check(!page_reader_init(&reader, &r, 1, &failure));
	/* Repeats outermost: what else the machine does falls on all alike. */
	for (int i = 0; i < repeats; i++)
		for (size_t k = 0; k < CASES; k++)
			f[k][i] = measure(all[k % 3], &r, lengths[k / 3]);
	printf("%-9s %10s %8s %10s\n", "tx", "slices", "GB/s", "CPU s/GB");
	for (size_t k = 0; k < CASES; k++)
		show(all[k % 3]->name, lengths[k / 3], f[k], repeats);
	page_reader_release(&reader);
	region_release(&r);
	return 0;
}
