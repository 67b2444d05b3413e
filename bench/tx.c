// SPDX-License-Identifier: MIT
/*
 * Ways of sending alone: one stream to a receiver that discards.
 *
 *   tx [MiB [REPEATS [NETNS ADDRESS]]]     default 512 MiB of memfd, 5 times; medians
 *
 * On the loopback; or to ADDRESS in another network namespace, a name of ip netns. The RAM is sent
 * in frames of one chunk whose slices have the length shown, each followed by a gap as long: GB/s,
 * processor seconds of the sending thread, and TCP segments sent, per GB of guest memory. The
 * segments are all of this network namespace: run it in one of its own for these (unshare -n, and
 * lo up).
 */
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "dataplane/source/page_reader.h"
#include "dataplane/transport/tx.h"
#include "dataplane/transport/wire.h"
#include "lib/base/clock.h"
#include "tests/unit/dataplane/pair.h"

#define CASES	    24 /* eight lengths, three ways */
#define REPEATS_MAX 99

struct figures {
	double rate, cpu, segments;
};

/* Where the receiver is: its namespace, or -1, and its address. */
static int receiver_netns = -1, own_netns = -1;
static struct in_addr receiver_address;

static void enter(int netns)
{
	pair_check(netns < 0 || !setns(netns, CLONE_NEWNET));
}

static int tcp_pair(int sv[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof(a);
	int l;

	enter(receiver_netns);
	l = socket(AF_INET, SOCK_STREAM, 0);
	enter(own_netns);
	a.sin_addr = receiver_address;
	if (bind(l, (struct sockaddr *)&a, len) || listen(l, 1) ||
	    getsockname(l, (struct sockaddr *)&a, &len))
		return -1;
	sv[0] = socket(AF_INET, SOCK_STREAM, 0);
	/* as streams between near hosts; where it cannot be had, what the host has */
	if (setsockopt(sv[0], IPPROTO_TCP, TCP_CONGESTION, "reno", 4))
		perror("reno");
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

/* TCP segments that this namespace has sent, as they are on a wire. */
static double segments_sent(void)
{
	FILE *f = fopen("/proc/thread-self/net/snmp", "r");
	unsigned long long segments = 0;
	char line[512];

	pair_check(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Tcp: %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %llu", &segments) ==
		    1)
			break;
	fclose(f);
	return (double)segments;
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

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static struct figures measure(const struct tx_ops *ops, const struct region *r, uint32_t pages)
{
	double bytes = (double)r->size / (pages == CHUNK_PAGES ? 1 : 2);
	struct figures f = { .segments = segments_sent() };
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
	f.segments = (segments_sent() - f.segments) / bytes * 1e9;
	shutdown(sv[0], SHUT_RDWR);
	pthread_join(reader, NULL);
	ops->free(t);
	close(sv[0]);
	close(sv[1]);
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

static void show(const char *name, uint32_t pages, const struct figures *f, int n)
{
	printf("%-9s %6u KiB %8.2f %10.3f %12.0f\n", name, pages * 4,
	       median(f, n, offsetof(struct figures, rate)),
	       median(f, n, offsetof(struct figures, cpu)),
	       median(f, n, offsetof(struct figures, segments)));
}

static bool find_receiver(int argc, char **argv)
{
	char path[256];

	receiver_address.s_addr = htonl(INADDR_LOOPBACK);
	if (argc != 5)
		return argc < 4;
	snprintf(path, sizeof(path), "/run/netns/%s", argv[3]);
	receiver_netns = open(path, O_RDONLY | O_CLOEXEC);
	own_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return receiver_netns >= 0 && own_netns >= 0 && inet_aton(argv[4], &receiver_address);
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
	static struct figures f[CASES][REPEATS_MAX];
	struct page_reader reader;
	struct failure failure = { 0 };
	uint64_t page[512];

	if (!find_receiver(argc, argv) || size < CHUNK_BYTES || repeats < 1 ||
	    repeats > REPEATS_MAX || ftruncate(r.fd, (off_t)size))
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
	printf("%-9s %10s %8s %10s %12s\n", "tx", "slices", "GB/s", "CPU s/GB", "segments/GB");
	for (size_t k = 0; k < CASES; k++)
		show(all[k % 3]->name, lengths[k / 3], f[k], repeats);
	page_reader_release(&reader);
	region_release(&r);
	return 0;
}
