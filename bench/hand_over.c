// SPDX-License-Identifier: MIT
/*
 * What the switch to post-copy costs in the guest's pause besides its last scan, by size of the
 * guest and by what is missing: the set of missing pages on its way.
 *
 *   hand_over [GIB [REPEATS]]     1024 GiB, 5 repeats; medians
 *
 * The guest is a sparse file of that size. Of each case so many pages are pending, scattered evenly
 * or side by side. As a session does: they are named on one end of a TCP connection over loopback
 * and taken into a file, mapped and touched before, at the other; then another mapping of that file
 * is counted. named: until the last of it is acknowledged; counted; ms. Last what preparing takes,
 * before the pause: making the file's room, and both mappings.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bench.h"
#include "dataplane/destination/destination_internal.h"
#include "dataplane/source/scheduler.h"
#include "lib/base/clock.h"

/* Pages; with apart as many chunks, as far as there are so many. */
static const struct {
	uint64_t pages;
	bool apart;
} cases[] = { { 1, true },	{ 1000, true },	    { 10000, true },   { 100000, true },
	      { 500000, true }, { 1 << 18, false }, { 1 << 22, false } };
#define CASES (sizeof(cases) / sizeof(cases[0]))

struct bench {
	struct region ram;
	struct scheduler scheduler;
	int ends[2];
	struct bench_values named[CASES], counted[CASES], prepared;
	uint64_t chunks[CASES];
};

static void connect_ends(int ends[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	bench_check(listener >= 0 && !bind(listener, (struct sockaddr *)&at, len) &&
			    !listen(listener, 1) &&
			    !getsockname(listener, (struct sockaddr *)&at, &len),
		    "a listener");
	ends[0] = socket(AF_INET, SOCK_STREAM, 0);
	bench_check(!connect(ends[0], (struct sockaddr *)&at, len), "connect");
	ends[1] = accept(listener, NULL, NULL);
	bench_check(ends[1] >= 0, "accept");
	bench_check(!setsockopt(ends[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) &&
			    !setsockopt(ends[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)),
		    "TCP_NODELAY");
	close(listener);
}

/* A destination's first stream, as far as it takes what is missing. */
static void *take(void *arg)
{
	struct stream *st = arg;
	struct wire_frame f;
	const uint8_t *head;

	st->rx.ahead = RX_BUFFER_SIZE;
	do {
		bench_check(!rx_take(&st->rx, WIRE_FRAME_SIZE, &head), "a frame");
		bench_check(!wire_get_frame(&f, head, st->d->s->regions, 1), "a frame's head");
		bench_check(!(f.type == WIRE_MISSING ? postcopy_take_missing(st, &f)
						     : postcopy_take_missing_end(st, &f)),
			    "taking what is missing");
	} while (f.type != WIRE_MISSING_END);
	return NULL;
}

static void make_pending(struct bench *b, size_t i)
{
	uint64_t chunks = region_chunks(&b->ram), pages = cases[i].pages;
	struct bitmap *scanned = scheduler_scanned(&b->scheduler);

	/* as after a round */
	bitmap_clear_all(&b->scheduler.pending[0]);
	bitmap_clear_all(&b->scheduler.dirty_chunks);
	b->scheduler.pending_pages = 0;
	if (!cases[i].apart)
		bitmap_set_range(scanned, 0, pages);
	for (uint64_t k = 0; cases[i].apart && k < pages; k++)
		bitmap_set_range(scanned,
				 pages <= chunks ? k * (chunks / pages) * CHUNK_PAGES
						 : k % chunks * CHUNK_PAGES + k / chunks,
				 1);
	scheduler_merge(&b->scheduler, true);
}

static void prepare(struct bench *b, int fd, struct destination *d, struct page_set *later)
{
	uint64_t start = clock_ns();

	bench_check(!posix_fallocate(fd, 0, (off_t)postcopy_file_bytes(&b->ram, 1)), "the file");
	bench_check(!page_set_init(&d->handover, &b->ram, 1, fd, 0, NULL), "the set");
	page_set_populate(&d->handover);
	bench_check(!page_set_init(later, &b->ram, 1, fd, 0, NULL), "the set again");
	page_set_populate(later);
	bench_add(&b->prepared, clock_ms_since(start));
}

static void once(struct bench *b, size_t i)
{
	struct setup setup = { .regions = &b->ram, .nregions = 1 };
	struct destination d = { .s = &setup, .event_fd = -1 };
	struct stream st = { .d = &d };
	uint8_t ack[WIRE_FRAME_SIZE];
	struct page_set later;
	uint64_t start, pages;
	pthread_t taker;
	int fd = memfd_create("missing", MFD_CLOEXEC);

	pthread_mutex_init(&d.lock, NULL);
	bench_check(!rx_reader_init(&st.rx, b->ends[1]), "a reader");
	prepare(b, fd, &d, &later);
	make_pending(b, i);
	bench_check(!pthread_create(&taker, NULL, take, &st), "a thread");
	start = clock_ns();
	bench_check(!postcopy_name_pending(b->ends[0], &b->scheduler, NULL, &pages), "naming");
	bench_check(recv(b->ends[0], ack, sizeof(ack), MSG_WAITALL) == sizeof(ack), "its answer");
	bench_add(&b->named[i], clock_ms_since(start));
	pthread_join(taker, NULL);
	start = clock_ns();
	bench_check(page_set_count(&later) == pages && pages == cases[i].pages, "the count");
	bench_add(&b->counted[i], clock_ms_since(start));
	b->chunks[i] = bitmap_count(&b->scheduler.dirty_chunks);
	page_set_release(&d.handover);
	page_set_release(&later);
	rx_reader_release(&st.rx);
	pthread_mutex_destroy(&d.lock);
	close(fd);
}

static void report(struct bench *b, double gib)
{
	printf("%.0f GiB\n%10s %10s %10s %10s\n", gib, "pages", "in chunks", "named ms",
	       "counted ms");
	for (size_t i = 0; i < CASES; i++) {
		double named = bench_median(&b->named[i]), counted = bench_median(&b->counted[i]);

		printf("%10lu %10lu %10.2f %10.3f\n", (unsigned long)cases[i].pages,
		       (unsigned long)b->chunks[i], named, counted);
		bench_row("{\"bench\":\"hand_over\",\"gib\":%.0f,\"pages\":%lu,\"chunks\":%lu,"
			  "\"named_ms\":%.3f,\"counted_ms\":%.4f,\"prepared_ms\":%.1f}",
			  gib, (unsigned long)cases[i].pages, (unsigned long)b->chunks[i], named,
			  counted, bench_median(&b->prepared));
	}
	printf("prepared before the pause in %.1f ms\n", bench_median(&b->prepared));
}

int main(int argc, char **argv)
{
	double gib = argc > 1 ? strtod(argv[1], NULL) : 1024;
	int repeats = argc > 2 ? atoi(argv[2]) : 5;
	static struct bench b;

	b.ram = (struct region){ .size = (uint64_t)(gib * 1024) << 20,
				 .page_size = PAGE_BYTES,
				 .fd = memfd_create("guest", MFD_CLOEXEC) };
	if (b.ram.size < (uint64_t)cases[CASES - 1].pages << PAGE_SHIFT || repeats < 1 ||
	    repeats > BENCH_REPEATS_MAX)
		return 1;
	bench_check(b.ram.fd >= 0 && !ftruncate(b.ram.fd, (off_t)b.ram.size), "the guest's RAM");
	bench_check(!scheduler_init(&b.scheduler, &b.ram, 1, false), "a scheduler");
	connect_ends(b.ends);
	for (int k = 0; k < repeats; k++)
		for (size_t i = 0; i < CASES; i++)
			once(&b, i);
	report(&b, gib);
	scheduler_release(&b.scheduler);
	return 0;
}
