// SPDX-License-Identifier: MIT
/*
 * Dirty tracking of another process by PAGEMAP_SCAN (Linux 6.7).
 *
 * Theory of operation
 *   transhipd has registered the VMM's RAM mappings with a userfaultfd in asynchronous
 *   write-protection mode. A protected page's first write clears its protection in the page table
 *   and goes on, without a message. So "not protected" means "written since it was protected", and
 *   PAGEMAP_SCAN reads that from the page tables and protects again in one step per page.
 *
 *   A page-table entry of the VMM is one of
 *     protected  present or a marker (a marker stands for a page that is not mapped)
 *     written    present and not protected
 *     none       nothing: never touched; or zapped after it was written (swapped out, a huge page
 *                that was split, a punch), with the file still holding the page; or mapped never by
 *                the VMM but filled by others before (a VM that was moved here)
 *   Kernels differ in whether they call `none` written, so nothing here rests on it: a page that is
 *   none counts as written if the file holds it (SEEK_DATA).
 *   Always protect first and read the file's extents after; then a page that comes to exist
 *   meanwhile is found present and written by the next scan.
 *
 *   What is done to one shard of RAM, to arm it and to collect from it, is in pagemap_shard.c.
 *
 *   Threads. RAM is cut into shards of address space, handed out by an atomic cursor; the caller of
 *   start and collect works too. Threads are made by the first start, not by _new: the sandbox is
 *   entered in between. They sleep between jobs. The bitmap takes atomic sets, for two mappings of
 *   one region may be in work at once.
 *
 *   Lost tracking is never silent: EPERM (a mapping without our registration), no progress, or a
 *   mapping whose ends are no longer there (the VMM exited: an empty address space reads as clean)
 *   end in tracker-lost.
 *
 *   Limits. 1 GiB hugetlb pages are refused: kernels before mid-2026 report them without
 *   protecting them, and a guest writes to every one of them all the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataplane/track/pagemap_scan.h"
#include "dataplane/track/pagemap_shard.h"
#include "dataplane/track/tracker.h"
#include "dataplane/workers.h"
#include "lib/base/cleanup.h"
#include "lib/base/kernel_abi.h"

/*
 * The read-only scan holds the VMM's mmap lock for reading over one shard at most, and takes
 * 0.2-0.3 ms a shard of 4 KiB pages, 0.9 ms if all of them are markers.
 */
#define SHARD_BYTES (256ull << 20)

#define THREADS_MAX 64
/*
 * A clean scan of 1 GiB takes 0.8 ms on one thread and 0.45 ms on two, of 4 GiB 3.3 and 2.0 ms;
 * with less than this a thread, waking another gains nothing worth a processor of the guest's, and
 * two threads that protect scattered pages flush each other's processors.
 */
#define BYTES_PER_THREAD (2ull << 30)

struct pagemap_tracker {
	struct tracker base;
	int fd;
	struct pagemap_shard *shards;
	size_t nshards;
	struct pagemap_scanner *scanners;
	unsigned int nscanners;
	struct workers *workers;

	/* The job under way. */
	struct bitmap *dirty; /* NULL: arm */
	atomic_size_t cursor; /* next shard */
	atomic_bool failed;
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

static void work(void *arg, unsigned int index)
{
	struct pagemap_tracker *t = arg;
	struct pagemap_scanner *w = &t->scanners[index];
	size_t i;

	while (!atomic_load(&t->failed) && (i = atomic_fetch_add(&t->cursor, 1)) < t->nshards) {
		const struct pagemap_shard *s = &t->shards[i];

		w->err = t->dirty ? pagemap_shard_collect(w, s) : pagemap_shard_arm(w, s);
		if (w->err)
			atomic_store(&t->failed, true);
	}
}

/* Arms (dirty is NULL) or collects on all threads; the first error, and in *pages the reports. */
static int run(struct pagemap_tracker *t, struct bitmap *dirty, uint64_t *pages)
{
	int err = 0;

	t->dirty = dirty;
	atomic_store(&t->cursor, 0);
	atomic_store(&t->failed, false);
	for (unsigned int i = 0; i < t->nscanners; i++) {
		t->scanners[i].dirty = dirty;
		t->scanners[i].pages = 0;
		t->scanners[i].err = 0;
	}
	workers_run(t->workers, work, t);
	*pages = 0;
	for (unsigned int i = 0; i < t->nscanners; i++) {
		*pages += t->scanners[i].pages;
		if (!err)
			err = t->scanners[i].err;
	}
	return err;
}

/* After a job: mappings that went away meanwhile read as clean, so their ends must still be there.
 */
static int check_all_mapped(const struct pagemap_tracker *t)
{
	for (uint32_t i = 0; i < t->base.nregions; i++) {
		const struct region *r = &t->base.regions[i];

		for (uint32_t k = 0; k < r->nmappings; k++) {
			const struct region_mapping *m = &r->mappings[k];
			int err = pagemap_check_mapped(t->fd, m->start, r->page_size);

			if (!err)
				err = pagemap_check_mapped(t->fd, m->end - r->page_size,
							   r->page_size);
			if (err)
				return err;
		}
	}
	return 0;
}

static int lost(int err, struct failure *f)
{
	if (err == -ESRCH)
		return failure_set(f, err, "vm-gone", NULL, "the VM's process has ended");
	if (err == -EOWNERDEAD)
		return failure_set(f, err, "tracker-lost",
				   "The VM ended or its memory layout changed; start again.",
				   "RAM of the VM is no longer mapped where it was");
	return failure_set(f, err, "tracker-lost",
			   "Another tool may have taken over the VM's write tracking; start again.",
			   "PAGEMAP_SCAN over the VM's RAM failed: %s", strerror(-err));
}

static uint32_t pagemap_granule(const struct tracker *t, const struct region *r)
{
	(void)t;
	return r->page_size;
}

static int pagemap_start(struct tracker *base, struct failure *f)
{
	struct pagemap_tracker *t = (struct pagemap_tracker *)base;
	uint64_t pages;
	int err;

	err = run(t, NULL, &pages);
	if (!err)
		err = check_all_mapped(t);
	if (err == -EOWNERDEAD || err == -ESRCH)
		return lost(err, f);
	if (err)
		return failure_set(f, err, "tracker-unavailable", NULL,
				   "the VM's RAM could not be write-protected: %s", strerror(-err));
	return 0;
}

static int pagemap_collect(struct tracker *base, struct bitmap *dirty, uint64_t *pages,
			   struct failure *f)
{
	struct pagemap_tracker *t = (struct pagemap_tracker *)base;
	int err = run(t, dirty, pages);

	if (!err)
		err = check_all_mapped(t);
	return err ? lost(err, f) : 0;
}

/* Every other page written is the most that a chunk can have. */
#define PEEK_RANGES (CHUNK_PAGES / 2)

static int peek_mapping(const struct pagemap_tracker *t, const struct region_mapping *m,
			uint64_t offset, uint64_t end, uint64_t base, uint64_t *bits)
{
	struct pagemap_range found[PEEK_RANGES];
	struct pagemap_scan q = { .category_mask = PAGEMAP_IS_WRITTEN,
				  .category_anyof_mask = PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED,
				  .return_mask = PAGEMAP_IS_WRITTEN,
				  .vec_len = PEEK_RANGES,
				  .vec = (uintptr_t)found };
	uint64_t at = m->start + offset - m->offset;
	long n = pagemap_scan_once(t->fd, &q, &at, m->start + end - m->offset);

	for (long i = 0; i < n; i++) {
		uint64_t first = found[i].start - m->start + m->offset - base;
		uint64_t limit = found[i].end - m->start + m->offset - base;

		for (uint64_t page = first >> PAGE_SHIFT; page < limit >> PAGE_SHIFT; page++)
			bits[page / 64] |= 1ull << (page % 64);
	}
	return n < 0 ? (int)n : 0;
}

static int pagemap_peek(const struct tracker *base, const struct region *r, uint64_t first,
			uint32_t count, uint64_t *bits)
{
	const struct pagemap_tracker *t = (const struct pagemap_tracker *)base;
	uint64_t from = first << PAGE_SHIFT, limit = (first + count) << PAGE_SHIFT;

	for (uint32_t i = 0; i < r->nmappings; i++) {
		const struct region_mapping *m = &r->mappings[i];
		uint64_t mapped_end = m->offset + m->end - m->start;
		uint64_t at = from > m->offset ? from : m->offset;
		uint64_t end = min_u64(limit, mapped_end);
		int err = at < end ? peek_mapping(t, m, at, end, from, bits) : 0;

		if (err)
			return err;
	}
	return 0;
}

static void pagemap_free(struct tracker *base)
{
	struct pagemap_tracker *t = (struct pagemap_tracker *)base;

	workers_free(t->workers);
	for (unsigned int i = 0; t->scanners && i < t->nscanners; i++)
		pagemap_scanner_release(&t->scanners[i]);
	free(t->scanners);
	free(t->shards);
	fd_close(&t->fd);
	free(t);
}

static const struct tracker_ops pagemap_ops = {
	.name = "pagemap",
	.granule = pagemap_granule,
	.start = pagemap_start,
	.collect = pagemap_collect,
	.peek = pagemap_peek,
	.free = pagemap_free,
};

static bool mapping_valid(const struct region *r, const struct region_mapping *m)
{
	uint64_t unit = r->page_size - 1;

	return m->start < m->end && m->offset <= r->size &&
	       m->end - m->start <= r->size - m->offset &&
	       !((m->start | m->end | m->offset) & unit);
}

/* Counts the shards of all mappings, and fills them in if shards is not NULL. */
static size_t cut_shards(const struct tracker *t, struct pagemap_shard *shards)
{
	size_t n = 0;

	for (uint32_t i = 0; i < t->nregions; i++) {
		const struct region *r = &t->regions[i];

		for (uint32_t k = 0; k < r->nmappings; k++) {
			const struct region_mapping *m = &r->mappings[k];
			uint64_t end;

			for (uint64_t at = m->start; at < m->end; at = end, n++) {
				end = min_u64(m->end, round_up(at + 1, SHARD_BYTES));
				if (shards)
					shards[n] = (struct pagemap_shard){
						.region = r,
						.start = at,
						.end = end,
						.offset = m->offset + at - m->start,
					};
			}
		}
	}
	return n;
}

static int check_regions(const struct region *regions, uint32_t nregions, uint64_t *bytes,
			 struct failure *f)
{
	*bytes = 0;
	for (uint32_t i = 0; i < nregions; i++) {
		const struct region *r = &regions[i];

		if (r->hugetlb && r->page_size > PAGEMAP_BLOCK_BYTES)
			return failure_set(f, -EOPNOTSUPP, "tracker-unavailable",
					   "Use 2 MiB huge pages for the VM's memory backend.",
					   "writes to huge pages of %u MiB cannot be tracked",
					   r->page_size >> 20);
		if (r->index != i || r->page_size < PAGE_BYTES || r->page_size & (r->page_size - 1))
			return failure_set(f, -EINVAL, "internal", NULL,
					   "RAM region %u is malformed", i);
		for (uint32_t k = 0; k < r->nmappings; k++) {
			if (!mapping_valid(r, &r->mappings[k]))
				return failure_set(f, -EINVAL, "internal", NULL,
						   "mapping %u of RAM region %u is malformed", k,
						   i);
			*bytes += r->mappings[k].end - r->mappings[k].start;
		}
	}
	return 0;
}

static unsigned int choose_threads(unsigned int wanted, uint64_t bytes)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t n = wanted ? wanted : min_u64(bytes / BYTES_PER_THREAD, (uint64_t)processors);

	return n < 1 ? 1 : (unsigned int)min_u64(n, THREADS_MAX);
}

int tracker_pagemap_new(struct tracker **out, const struct region *regions, uint32_t nregions,
			int pagemap_fd, const struct tracker_pagemap_options *o, struct failure *f)
{
	struct pagemap_tracker *t;
	uint64_t bytes;
	int err = check_regions(regions, nregions, &bytes, f);

	if (err)
		return err;
	t = calloc(1, sizeof(*t));
	if (!t)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	t->base = (struct tracker){ .ops = &pagemap_ops, .regions = regions, .nregions = nregions };
	t->fd = -1;
	t->nscanners = choose_threads(o->threads, bytes);
	t->nshards = cut_shards(&t->base, NULL);
	t->scanners = calloc(t->nscanners, sizeof(*t->scanners));
	t->shards = calloc(t->nshards ? t->nshards : 1, sizeof(*t->shards));
	err = t->scanners && t->shards ? workers_new(&t->workers, t->nscanners) : -ENOMEM;
	for (unsigned int i = 0; i < t->nscanners && !err; i++)
		err = pagemap_scanner_init(&t->scanners[i], pagemap_fd, o->kvm);
	if (err) {
		pagemap_free(&t->base);
		return failure_set(f, err, "internal", NULL, "out of memory");
	}
	cut_shards(&t->base, t->shards);
	t->fd = pagemap_fd;
	*out = &t->base;
	return 0;
}
