// SPDX-License-Identifier: MIT
/*
 * Post-copy at the destination: faults of the VMM, and letting it see pages; see postcopy.h.
 *
 * Theory of operation
 *   The fault thread alone reads the userfaultfd and alone writes requests to stream 0. A fault on
 *   a page that is in place (most pages of a guest that was pre-copied) maps what else is in place
 *   around it in its chunk: so a chunk costs one such fault and not 512.
 *
 *   Holes. What was never populated at the source, or was given back, is a hole here too, and stays
 *   one until the guest itself wants it: a page of a file in memory is allocated for whoever looks
 *   at it, so nothing else is. UFFDIO_ZEROPAGE does that in one call. Holes around a fault are
 *   passed over, by asking the file where its data goes on and never for a hole's beginning, which
 *   would walk to the end of all data; a chunk in tatters is shown a few holes at a time.
 *
 *   Faults that were read by a data plane that has died are not raised again by themselves:
 *   whoever begins wakes everybody, and those who still have nothing fault again.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/destination/destination_internal.h"
#include "dataplane/postcopy/postcopy.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/kernel_abi.h"
#include "lib/base/log.h"
#include "lib/base/thread.h"

#define FAULTS_AT_ONCE 32u
/* How often a page may be punched under our hands, and memory be lacking for 1 ms. */
#define RETRIES_MAX 1000u
/* Holes that are passed over for one fault, 1 us each: what lies behind them faults by itself. */
#define HOLES_MAX 16u

/* --- letting the VMM see pages ---------------------------------------------------------------- */

static void nap(void)
{
	const struct timespec ms = { .tv_nsec = NSEC_PER_MSEC };

	nanosleep(&ms, NULL);
}

/* The guest wants a page that the file does not hold. As after_failure. */
static int fill_zeros(struct postcopy *p, const struct region *r, uint64_t at, uint64_t offset)
{
	struct uffdio_zeropage z = { .range = { .start = at, .len = r->page_size } };

	/* a fresh huge page is cleared by the kernel */
	if (r->hugetlb)
		return madvise(r->map + offset, r->page_size, MADV_POPULATE_WRITE) ? -errno : 0;
	if (!ioctl(p->uffd, UFFDIO_ZEROPAGE, &z))
		return 1;
	if (errno == ENOMEM)
		nap();
	/* it is there after all; or what else it is CONTINUE says as well */
	return 0;
}

static void wake(int uffd, uint64_t at, uint64_t length)
{
	struct uffdio_range all = { .start = at, .len = length };

	/* needs nothing to be registered there; fails where nothing can be any more */
	if (ioctl(uffd, UFFDIO_WAKE, &all) && errno != EINVAL && errno != ESRCH)
		log_debug("UFFDIO_WAKE: %s", strerror(errno));
}

static uint64_t *chunk_of(const struct page_set *s, const struct region *r, uint64_t offset)
{
	return page_set_chunk(s, r->index, offset >> CHUNK_SHIFT);
}

static bool is_wanted(const struct postcopy *p, const struct region *r, uint64_t offset)
{
	return page_set_has(chunk_of(&p->requested, r, offset),
			    (uint32_t)(offset % CHUNK_BYTES / PAGE_BYTES));
}

/* What a failed CONTINUE at `at` calls for: 0: again; 1: this page is done; -errno. */
static int after_failure(struct postcopy *p, const struct region *r, uint64_t at, uint64_t offset,
			 int err, unsigned int *retries)
{
	if (err == EEXIST) {
		wake(p->uffd, at, r->page_size);
		return 1;
	}
	if (++*retries > RETRIES_MAX)
		return -err;
	switch (err) {
	case EFAULT:
		return fill_zeros(p, r, at, offset);
	case EAGAIN: /* the VMM's mappings are being changed */
		sched_yield();
		return 0;
	case ENOMEM:
		nap();
		return 0;
	default:
		return -err;
	}
}

/* Bytes from offset on, of length, that a hole takes. */
static int hole_at(const struct region *r, uint64_t offset, uint64_t length, uint64_t *hole)
{
	uint64_t data;
	int err = region_first_data(r, offset + r->page_size, offset + length, &data);

	*hole = data - offset;
	return err;
}

/* All of it in one chunk. */
static void note_shown(struct postcopy *p, const struct region *r, uint64_t offset, uint64_t length)
{
	uint64_t mask[PAGE_SET_WORDS];

	page_mask_fill(mask, (uint32_t)(offset % CHUNK_BYTES / PAGE_BYTES),
		       (uint32_t)(length / PAGE_BYTES));
	page_set_add(chunk_of(&p->shown, r, offset), mask, mask);
}

/*
 * [at, at + length) of the VMM, which is at offset of r, in one chunk. holes: how many may be
 * passed over, then the rest is left; NULL: any number.
 */
static int continue_range(struct postcopy *p, const struct region *r, uint64_t at, uint64_t offset,
			  uint64_t length, unsigned int *holes)
{
	unsigned int retries = 0;

	while (length) {
		struct uffdio_continue c = { .range = { .start = at, .len = length } };
		uint64_t done = length;
		int err;

		if (ioctl(p->uffd, UFFDIO_CONTINUE, &c)) {
			err = errno;
			done = c.mapped > 0 ? (uint64_t)c.mapped : 0;
			/*
			 * Not mapped there, or not watched, any more. Unregistering wakes who
			 * waits and clears the mapping afterwards: who faults between the two
			 * waits for us.
			 */
			if (!done && (err == ENOENT || err == EINVAL)) {
				wake(p->uffd, at, length);
				return 0;
			}
			if (!done && err == EFAULT && !is_wanted(p, r, offset)) {
				if (holes && !*holes)
					return 0;
				if (holes)
					--*holes;
				err = hole_at(r, offset, length, &done);
				if (err)
					return err;
			} else if (!done) {
				err = after_failure(p, r, at, offset, err, &retries);
				if (err < 0)
					return err;
				done = err ? r->page_size : 0;
			}
		}
		note_shown(p, r, offset, done);
		at += done;
		offset += done;
		length -= done;
	}
	return 0;
}

static int continue_region(struct postcopy *p, const struct region *r, uint64_t offset,
			   uint64_t length, unsigned int *holes)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < r->nmappings; i++) {
		const struct region_mapping *m = &r->mappings[i];
		uint64_t end = m->offset + (m->end - m->start);
		uint64_t from = offset > m->offset ? offset : m->offset;
		uint64_t to = offset + length < end ? offset + length : end;

		if (from < to)
			err = continue_range(p, r, m->start + (from - m->offset), from, to - from,
					     holes);
	}
	return err;
}

static int release(struct postcopy *p, const struct region *r, uint64_t chunk, const uint64_t *mask,
		   unsigned int *holes)
{
	uint32_t count, first = page_mask_run(mask, 0, &count);
	int err = 0;

	while (!err && first < CHUNK_PAGES && (!holes || *holes)) {
		err = continue_region(p, r, (chunk << CHUNK_SHIFT) + (uint64_t)first * PAGE_BYTES,
				      (uint64_t)count * PAGE_BYTES, holes);
		first = page_mask_run(mask, first + count, &count);
	}
	return err;
}

int postcopy_release_pages(struct postcopy *p, const struct region *r, uint64_t chunk,
			   const uint64_t mask[PAGE_SET_WORDS])
{
	return release(p, r, chunk, mask, NULL);
}

/* --- who waits -------------------------------------------------------------------------------- */

static void add_waiter(struct postcopy *p, const struct region *r, uint64_t page, uint64_t now)
{
	SCOPED_LOCK(&p->figures_lock);
	if (p->nwaiters < POSTCOPY_WAITERS_MAX)
		p->waiters[p->nwaiters++] = (struct postcopy_waiter){ r->index, page, now };
	p->figures->faults++;
}

/* It was there all the same. */
static void drop_waiter(struct postcopy *p, const struct region *r, uint64_t page, bool counted)
{
	SCOPED_LOCK(&p->figures_lock);
	p->figures->local_faults++;
	if (!counted)
		return;
	p->figures->faults--;
	for (uint32_t i = 0; i < p->nwaiters; i++)
		if (p->waiters[i].region == r->index && p->waiters[i].page == page) {
			p->waiters[i] = p->waiters[--p->nwaiters];
			return;
		}
}

void postcopy_note_served(struct postcopy *p, const struct region *r, uint64_t chunk,
			  const uint64_t mask[PAGE_SET_WORDS])
{
	uint64_t now = clock_ns();
	SCOPED_LOCK(&p->figures_lock);

	for (uint32_t i = 0; i < p->nwaiters;) {
		const struct postcopy_waiter *w = &p->waiters[i];
		uint64_t at = w->page % CHUNK_PAGES;

		if (w->region != r->index || w->page / CHUNK_PAGES != chunk ||
		    !(mask[at / 64] >> (at % 64) & 1)) {
			i++;
			continue;
		}
		bench_histogram_add(&p->figures->latency, now - w->since_ns);
		p->waiters[i] = p->waiters[--p->nwaiters];
	}
}

/* --- the fault thread ------------------------------------------------------------------------- */

struct requests {
	uint8_t bytes[FAULTS_AT_ONCE * WIRE_FRAME_SIZE];
	size_t used;
};

static void request(struct requests *out, const struct region *r, uint64_t page)
{
	struct wire_frame f = { .type = WIRE_REQUEST,
				.region = (uint16_t)r->index,
				.offset = page << PAGE_SHIFT,
				.extent = r->page_size };

	wire_put_frame(out->bytes + out->used, &f);
	out->used += WIRE_FRAME_SIZE;
}

/* Pages of a chunk that are in place; once: who faults again has lost a page or two. */
static int release_rest(struct postcopy *p, const struct region *r, uint64_t chunk, uint32_t first,
			uint32_t end, unsigned int *holes)
{
	uint64_t mask[PAGE_SET_WORDS], shown[PAGE_SET_WORDS];

	page_mask_fill(mask, first, end - first);
	memcpy(shown, mask, sizeof(shown));
	page_set_keep(page_set_chunk(&p->shown, r->index, chunk), shown);
	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
		mask[i] &= ~shown[i];
	return release(p, r, chunk, mask, holes);
}

int postcopy_release_chunk(struct postcopy *p, const struct region *r, uint64_t chunk)
{
	uint64_t left = region_pages(r) - chunk * CHUNK_PAGES;
	unsigned int holes = HOLES_MAX;

	return release_rest(p, r, chunk, 0, left < CHUNK_PAGES ? (uint32_t)left : CHUNK_PAGES,
			    &holes);
}

/* Everything that is in place around a page of the chunk, in one run; first what follows it. */
static int release_around(struct postcopy *p, const struct region *r, uint64_t page)
{
	uint64_t chunk = page / CHUNK_PAGES, left;
	const uint64_t *missing = page_set_chunk(&p->missing, r->index, chunk);
	uint32_t at = (uint32_t)(page % CHUNK_PAGES), first = at, end = at + 1, limit;
	unsigned int holes = HOLES_MAX;
	int err;

	left = region_pages(r) - chunk * CHUNK_PAGES;
	limit = left < CHUNK_PAGES ? (uint32_t)left : CHUNK_PAGES;
	while (first > 0 && !page_set_has(missing, first - 1))
		first--;
	while (end < limit && !page_set_has(missing, end))
		end++;
	err = release_rest(p, r, chunk, at + 1, end, &holes);
	return err ? err : release_rest(p, r, chunk, first, at, &holes);
}

/* A page that is in place, and whoever waits for it. */
static int release_local(struct postcopy *p, const struct region *r, uint64_t page)
{
	int err = continue_region(p, r, page << PAGE_SHIFT, r->page_size, NULL);

	return err || r->page_size > PAGE_BYTES ? err : release_around(p, r, page);
}

static bool find_page(const struct destination *d, uint64_t address, const struct region **r,
		      uint64_t *page)
{
	for (uint32_t i = 0; i < d->s->nregions; i++) {
		*r = &d->s->regions[i];
		for (uint32_t k = 0; k < (*r)->nmappings; k++) {
			const struct region_mapping *m = &(*r)->mappings[k];

			if (address < m->start || address >= m->end)
				continue;
			*page = ((m->offset + (address - m->start)) &
				 ~(uint64_t)((*r)->page_size - 1)) >>
				PAGE_SHIFT;
			return true;
		}
	}
	return false;
}

static int on_fault(struct postcopy *p, uint64_t address, uint64_t now, struct requests *out)
{
	uint64_t mask[PAGE_SET_WORDS], asked[PAGE_SET_WORDS], page, chunk;
	const struct region *r;
	bool first;

	if (!find_page(p->d, address, &r, &page))
		return 0; /* not guest RAM: not ours to answer */
	chunk = page / CHUNK_PAGES;
	page_mask_fill(mask, (uint32_t)(page % CHUNK_PAGES), r->page_size / PAGE_BYTES);
	page_set_add(page_set_chunk(&p->requested, r->index, chunk), mask, asked);
	first = page_mask_count(asked);
	if (first)
		add_waiter(p, r, page, now);
	/* after noting that it is waited for: see postcopy.h */
	page_set_keep(page_set_chunk(&p->missing, r->index, chunk), mask);
	if (!page_mask_count(mask)) {
		drop_waiter(p, r, page, first);
		return release_local(p, r, page);
	}
	if (first)
		request(out, r, page);
	return 0;
}

static int send_requests(struct postcopy *p, const struct requests *out)
{
	SCOPED_LOCK(&p->send_lock);
	return stream_answer(&p->d->streams[0], out->bytes, out->used);
}

static int take_faults(struct postcopy *p)
{
	struct uffd_msg m[FAULTS_AT_ONCE];
	ssize_t n = read(p->uffd, m, sizeof(m));
	struct requests out = { .used = 0 };
	uint64_t now = clock_ns();
	int err = 0;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (size_t i = 0; !err && i < (size_t)n / sizeof(m[0]); i++)
		if (m[i].event == UFFD_EVENT_PAGEFAULT)
			err = on_fault(p, m[i].arg.pagefault.address, now, &out);
	return err || !out.used ? err : send_requests(p, &out);
}

/* An error that is the session's, unless all is there or we are ending. */
static void fail(struct postcopy *p, int err, const char *what)
{
	struct failure f = { 0 };

	if (destination_stopping(p->d) || postcopy_is_complete(p))
		return;
	if (err == -ESRCH)
		failure_set(&f, err, "vm-gone", NULL, "The VM's process ended at the destination.");
	else if (err == -EPIPE || err == -ECONNRESET || err == -ETIMEDOUT || err == -EHOSTUNREACH ||
		 err == -ENETUNREACH)
		failure_set(&f, err, "data-lost", NULL, "the source cannot be asked for pages: %s",
			    strerror(-err));
	else
		failure_set(&f, err, "internal", NULL, "%s: %s", what, strerror(-err));
	destination_fail(p->d, err, &f);
}

static void *fault_main(void *arg)
{
	struct postcopy *p = arg;
	struct pollfd fds[2] = { { .fd = p->uffd, .events = POLLIN },
				 { .fd = p->stop_fd, .events = POLLIN } };
	int err = 0;

	thread_name("fault", 0);
	while (!err) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			err = -errno;
		if (fds[1].revents)
			return NULL;
		if (!err && fds[0].revents & (POLLERR | POLLNVAL))
			err = -EBADF;
		if (!err && fds[0].revents)
			err = take_faults(p);
	}
	fail(p, err, "serving the VM's faults");
	return NULL;
}

/* --- beginning and end ------------------------------------------------------------------------ */

/* Tells the source what is missing, on a stream that faults do not use. */
static void *tell_main(void *arg)
{
	struct postcopy *p = arg;
	uint64_t pages = 0;
	int err = postcopy_name_set(p->d->streams[1].rx.fd, &p->missing, &p->d->stopping, &pages);

	thread_name("tell", 0);
	if (err)
		fail(p, err, "naming what is missing");
	else
		log_info("post-copy: %llu pages are missing", (unsigned long long)pages);
	return NULL;
}

int postcopy_init(struct postcopy *p, struct destination *d)
{
	const struct setup *s = d->s;
	void *figures = NULL;
	int err;

	p->d = d;
	p->uffd = s->uffd;
	p->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pthread_mutex_init(&p->figures_lock, NULL);
	pthread_mutex_init(&p->send_lock, NULL);
	if (p->stop_fd < 0)
		return -errno;
	err = page_set_init(&p->missing, s->regions, s->nregions, s->missing_fd,
			    sizeof(struct postcopy_figures), &figures);
	p->figures = figures;
	if (!err)
		page_set_populate(&p->missing);
	if (!err)
		err = page_set_init(&p->claimed, s->regions, s->nregions, -1, 0, NULL);
	if (!err)
		err = page_set_init(&p->requested, s->regions, s->nregions, -1, 0, NULL);
	if (!err)
		err = page_set_init(&p->shown, s->regions, s->nregions, -1, 0, NULL);
	return err;
}

void postcopy_release(struct postcopy *p)
{
	if (!p->d)
		return;
	page_set_release(&p->missing);
	page_set_release(&p->claimed);
	page_set_release(&p->requested);
	page_set_release(&p->shown);
	fd_close(&p->stop_fd);
	pthread_mutex_destroy(&p->figures_lock);
	pthread_mutex_destroy(&p->send_lock);
}

static void wake_everybody(struct postcopy *p)
{
	const struct setup *s = p->d->s;

	for (uint32_t i = 0; i < s->nregions; i++)
		for (uint32_t k = 0; k < s->regions[i].nmappings; k++) {
			const struct region_mapping *m = &s->regions[i].mappings[k];

			wake(p->uffd, m->start, m->end - m->start);
		}
}

/* If somebody has served before, nobody did since his last page. */
static void note_begin(struct postcopy_figures *g)
{
	uint64_t now = clock_ns();

	if (g->placed_ns && g->placed_ns < now) {
		g->interruptions++;
		g->interrupted_ns += now - g->placed_ns;
	}
	g->placed_ns = now;
}

int postcopy_serve(struct postcopy *p, struct failure *f)
{
	int err = p->served ? EALREADY : 0;

	if (!err && p->d->s->nlisteners)
		err = ENOTCONN;
	if (err)
		return failure_set(f, -err, "internal", NULL,
				   "post-copy was to begin at the wrong time: %s", strerror(err));
	p->left = page_set_count(&p->missing);
	note_begin(p->figures);
	__atomic_store_n(&p->served, true, __ATOMIC_RELEASE);
	wake_everybody(p);
	err = pthread_create(&p->fault_thread, NULL, fault_main, p);
	p->fault_runs = !err;
	if (!err) {
		err = pthread_create(&p->tell_thread, NULL, tell_main, p);
		p->tell_runs = !err;
	}
	return err ? failure_set(f, -err, "internal", NULL, "cannot make a thread: %s",
				 strerror(err))
		   : 0;
}

void postcopy_stop(struct postcopy *p)
{
	if (!p->d)
		return;
	io_event_signal(p->stop_fd);
	if (p->fault_runs)
		pthread_join(p->fault_thread, NULL);
	if (p->tell_runs)
		pthread_join(p->tell_thread, NULL);
	p->fault_runs = p->tell_runs = false;
}

void postcopy_sum_figures(const struct postcopy_figures *g, struct ipc_postcopy *out)
{
	*out = (struct ipc_postcopy){
		.faults = g->faults,
		.local_faults = g->local_faults,
		.p50_ns = bench_histogram_quantile(&g->latency, 500),
		.p99_ns = bench_histogram_quantile(&g->latency, 990),
		.max_ns = g->latency.max,
		.demand_pages = __atomic_load_n(&g->demand_pages, __ATOMIC_RELAXED),
		.push_pages = __atomic_load_n(&g->push_pages, __ATOMIC_RELAXED),
		.late_pages = __atomic_load_n(&g->late_pages, __ATOMIC_RELAXED),
		.interruptions = g->interruptions,
		.interrupted_ns = g->interrupted_ns,
	};
}

void postcopy_report(struct postcopy *p, struct ipc_postcopy *out)
{
	SCOPED_LOCK(&p->figures_lock);

	postcopy_sum_figures(p->figures, out);
	out->missing_pages = __atomic_load_n(&p->left, __ATOMIC_RELAXED);
}
