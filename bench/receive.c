// SPDX-License-Identifier: MIT
/*
 * How fast received pages reach RAM: each placement strategy on each state of the destination's
 * memory, fed over loopback TCP by sendfile, as a session would.
 *
 *   receive [MIB [STREAMS [REPEATS]]]        512 MiB, 2 streams, median of 3
 *
 * Memory that the host has not given us lately (a virtual machine with free page reporting) costs
 * many times more at its first touch, whatever the strategy: one round is run and thrown away.
 */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bench.h"
#include "dataplane/destination/place.h"
#include "lib/base/clock.h"

#define STREAMS_MAX 16

/* Which pages of a chunk are sent: `take` of every `of`. */
struct pattern {
	const char *name;
	uint32_t take, of;
};

static const struct pattern patterns[] = {
	{ "whole chunks", CHUNK_PAGES, CHUNK_PAGES },
	{ "16 of 32 pages", 16, 32 },
	{ "every 2nd page", 1, 2 },
	{ "every 64th page", 1, 64 },
};

enum memory { MEMORY_NEW, MEMORY_RESIDENT, MEMORY_MAPPED, MEMORY_COUNT };
static const char *const memory_names[] = { "new pages", "resident", "mapped" };

static const struct strategy {
	const char *name;
	enum place_kind kind;
	bool huge;
} strategies[] = {
	{ "auto", PLACE_AUTO, true },
	{ "map, huge", PLACE_MAP, true },
	{ "map", PLACE_MAP, false },
	{ "pwrite", PLACE_PWRITE, false },
};

#define STRATEGIES (sizeof(strategies) / sizeof(strategies[0]))

struct bench {
	uint64_t size;
	unsigned int streams, repeats;
	int source;
	struct region region;
	struct place place;
	const struct pattern *pattern;
};

struct end {
	struct bench *b;
	unsigned int index;
	int tx, rx;
	uint64_t tx_ns, rx_ns; /* processor time */
	struct rx_reader reader;
	struct placer placer;
	pthread_t threads[2];
};

/* The part of the region that an end carries. */
static void share(const struct end *e, uint64_t *from, uint64_t *to)
{
	uint64_t chunks = e->b->size / CHUNK_BYTES;

	*from = chunks * e->index / e->b->streams * CHUNK_BYTES;
	*to = chunks * (e->index + 1) / e->b->streams * CHUNK_BYTES;
}

static void *sender(void *arg)
{
	struct end *e = arg;
	const struct pattern *p = e->b->pattern;
	uint32_t runs = CHUNK_PAGES / p->of, bytes = p->take * PAGE_BYTES;
	static __thread uint8_t head[WIRE_FRAME_SIZE + WIRE_RUNS_MAX * WIRE_RUN_SIZE];
	uint64_t at, to;

	for (share(e, &at, &to); at < to; at += CHUNK_BYTES) {
		size_t len = WIRE_FRAME_SIZE + (size_t)runs * WIRE_RUN_SIZE;
		struct wire_frame f = { .type = WIRE_PAGES, .count = runs, .offset = at };

		f.length = runs * (WIRE_RUN_SIZE + bytes);
		wire_put_frame(head, &f);
		for (uint32_t i = 0; i < runs; i++) {
			struct wire_run r = { .page = (uint16_t)(i * p->of),
					      .pages = (uint16_t)p->take,
					      .length = bytes };

			wire_put_run(head + WIRE_FRAME_SIZE + i * WIRE_RUN_SIZE, &r);
		}
		bench_check(send(e->tx, head, len, MSG_MORE) == (ssize_t)len, "send");
		for (uint32_t i = 0; i < runs; i++) {
			off_t off = (off_t)(at + (uint64_t)i * p->of * PAGE_BYTES);

			for (size_t left = bytes; left;) {
				ssize_t n = sendfile(e->tx, e->b->source, &off, left);

				bench_check(n > 0, "sendfile");
				left -= (size_t)n;
			}
		}
	}
	shutdown(e->tx, SHUT_WR);
	e->tx_ns = clock_of(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

static void *receiver(void *arg)
{
	struct end *e = arg;
	const uint8_t *head;
	struct wire_frame f;

	while (!rx_take(&e->reader, WIRE_FRAME_SIZE, &head)) {
		bench_check(!wire_get_frame(&f, head, &e->b->region, 1), "frame");
		e->reader.ahead = f.length <= 65536 ? 65536 : 0;
		errno = -place_pages(&e->placer, &f);
		bench_check(!errno, "place_pages");
	}
	e->rx_ns = clock_of(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

static void connect_pair(struct end *e)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(a);

	bench_check(!bind(listener, (struct sockaddr *)&a, sizeof(a)) && !listen(listener, 1),
		    "listen");
	getsockname(listener, (struct sockaddr *)&a, &len);
	e->tx = socket(AF_INET, SOCK_STREAM, 0);
	bench_check(!connect(e->tx, (struct sockaddr *)&a, sizeof(a)), "connect");
	e->rx = accept(listener, NULL, NULL);
	bench_check(e->rx >= 0, "accept");
	close(listener);
}

/* Once over the whole region; adds processor seconds. */
static double pass(struct bench *b, double *tx_s, double *rx_s)
{
	static struct end ends[STREAMS_MAX];
	uint64_t start;
	double seconds;

	for (unsigned int i = 0; i < b->streams; i++) {
		struct end *e = &ends[i];

		memset(e, 0, sizeof(*e));
		e->b = b;
		e->index = i;
		connect_pair(e);
		bench_check(!rx_reader_init(&e->reader, e->rx), "reader");
		bench_check(!placer_init(&e->placer, &b->place, &e->reader), "placer");
	}
	start = clock_ns();
	for (unsigned int i = 0; i < b->streams; i++) {
		pthread_create(&ends[i].threads[0], NULL, sender, &ends[i]);
		pthread_create(&ends[i].threads[1], NULL, receiver, &ends[i]);
	}
	for (unsigned int i = 0; i < b->streams; i++) {
		struct end *e = &ends[i];

		pthread_join(e->threads[0], NULL);
		pthread_join(e->threads[1], NULL);
		*tx_s += (double)e->tx_ns / 1e9;
		*rx_s += (double)e->rx_ns / 1e9;
		close(e->tx);
		close(e->rx);
		placer_release(&e->placer);
		rx_reader_release(&e->reader);
	}
	seconds = (double)(clock_ns() - start) / 1e9;
	return seconds;
}

/* Destination memory of the wanted state. */
static void set_up(struct bench *b, const struct strategy *how, enum memory memory)
{
	char why[96];

	b->region = (struct region){ .page_size = PAGE_BYTES, .size = b->size };
	b->region.fd = memfd_create("bench-destination", MFD_CLOEXEC);
	bench_check(!ftruncate(b->region.fd, (off_t)b->size), "ftruncate");
	bench_check(!region_map(&b->region, true), "map");
	if (memory >= MEMORY_RESIDENT) {
		memset(b->region.map, 1, b->size);
		madvise(b->region.map, b->size, MADV_DONTNEED); /* leaves the page table only */
	}
	bench_check(!place_init(&b->place, &b->region, 1, how->kind, how->huge, why, sizeof(why)),
		    "place_init");
	if (memory == MEMORY_MAPPED) {
		double ignored = 0;

		pass(b, &ignored, &ignored);
	}
}

static void show(const struct bench *b, const struct strategy *how, enum memory memory,
		 struct bench_values *rate, struct bench_values *tx, struct bench_values *rx)
{
	double gb_per_s = bench_median(rate), send_cpu = bench_median(tx);
	double receive_cpu = bench_median(rx);

	printf("%-16s %-10s %-9s %6.2f GB/s   cpu s/GB: receive %.2f send %.2f\n", b->pattern->name,
	       memory_names[memory], how->name, gb_per_s, receive_cpu, send_cpu);
	fflush(stdout);
	bench_row("{\"bench\":\"receive\",\"pages\":\"%s\",\"memory\":\"%s\",\"rx\":\"%s\","
		  "\"streams\":%u,\"gb_per_s\":%.3f,\"min\":%.3f,\"max\":%.3f,"
		  "\"receive_cpu_s_per_gb\":%.4f,\"send_cpu_s_per_gb\":%.4f}",
		  b->pattern->name, memory_names[memory], how->name, b->streams, gb_per_s,
		  rate->v[0], rate->v[rate->n - 1], receive_cpu, send_cpu);
}

static void measure(struct bench *b, const struct strategy *how, enum memory memory,
		    struct bench_values *rate, struct bench_values *tx, struct bench_values *rx)
{
	double gb = (double)b->size * b->pattern->take / b->pattern->of / 1e9;
	double seconds, tx_s = 0, rx_s = 0;

	set_up(b, how, memory);
	seconds = pass(b, &tx_s, &rx_s);
	bench_add(rate, gb / seconds);
	bench_add(tx, tx_s / gb);
	bench_add(rx, rx_s / gb);
	place_release(&b->place);
	region_release(&b->region);
}

/* Every strategy on every state of memory, in turns; the first turn warms up and is not counted. */
static void measure_pattern(struct bench *b)
{
	static struct bench_values rate[MEMORY_COUNT][STRATEGIES], tx[MEMORY_COUNT][STRATEGIES],
		rx[MEMORY_COUNT][STRATEGIES], ignored;

	memset(rate, 0, sizeof(rate));
	memset(tx, 0, sizeof(tx));
	memset(rx, 0, sizeof(rx));
	measure(b, strategies, MEMORY_NEW, &ignored, &ignored, &ignored);
	for (unsigned int i = 0; i < b->repeats; i++)
		for (enum memory m = MEMORY_NEW; m < MEMORY_COUNT; m++)
			for (size_t k = 0; k < STRATEGIES; k++)
				measure(b, &strategies[k], m, &rate[m][k], &tx[m][k], &rx[m][k]);
	for (enum memory m = MEMORY_NEW; m < MEMORY_COUNT; m++)
		for (size_t k = 0; k < STRATEGIES; k++)
			show(b, &strategies[k], m, &rate[m][k], &tx[m][k], &rx[m][k]);
}

int main(int argc, char **argv)
{
	struct bench b = { .size = (uint64_t)(argc > 1 ? atoi(argv[1]) : 512) << 20,
			   .streams = argc > 2 ? (unsigned int)atoi(argv[2]) : 2,
			   .repeats = argc > 3 ? (unsigned int)atoi(argv[3]) : 3 };
	uint64_t *p;

	if (!b.size || !b.streams || b.streams > STREAMS_MAX || !b.repeats || b.repeats > 16) {
		fprintf(stderr, "receive [MIB [STREAMS [REPEATS]]]\n");
		return 1;
	}
	b.source = memfd_create("bench-source", MFD_CLOEXEC);
	bench_check(!ftruncate(b.source, (off_t)b.size), "ftruncate");
	p = mmap(NULL, b.size, PROT_READ | PROT_WRITE, MAP_SHARED, b.source, 0);
	bench_check(p != MAP_FAILED, "mmap");
	for (uint64_t i = 0; i < b.size / sizeof(*p); i++)
		p[i] = i * 0x9E3779B97F4A7C15ull | 1;
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		b.pattern = &patterns[i];
		measure_pattern(&b);
	}
	return 0;
}
