// SPDX-License-Identifier: MIT
/*
 * One shard of a VMM's RAM in its page table: armed, and asked what was written.
 *
 * Theory of operation
 *   What the entries of the page table mean is at the head of tracker_pagemap.c.
 *
 *   Arming protects every 2 MiB block in which the file holds anything, entries that are none
 *   included (markers). Blocks without data stay bare: that costs no page tables, and what appears
 *   there later appears unprotected, thus written.
 *
 *   Collecting takes two steps. A read-only scan finds what is written or none; its findings are
 *   dirty. Then only those places, coalesced over short gaps, are protected by a second scan, which
 *   reports every page whose protection it renews: what was written in a gap between the two steps
 *   is among them. The bitmap gets the union. One scan for both would make KVM drop its mappings of
 *   the whole range (the notifier covers what is walked), and UFFDIO_WRITEPROTECT would swallow
 *   what is written between the steps.
 *
 *   Transparent huge pages, which a VM that was moved here mostly has (place_huge.c), would be
 *   reported whole for a byte written. So they are split in the VMM's page table before they are
 *   armed, or when one is met that came later; the file keeps them. The guest pays with a fault for
 *   each small page that it touches again.
 */
#include "dataplane/track/pagemap_shard.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/track/pagemap_scan.h"

/* Most that one re-protecting scan spans; 32 MiB fully written take 0.2 ms. */
#define PROTECT_WINDOW (16ull << 20)
/*
 * Each protecting call ends in a TLB flush: 7 us while a thread of the VMM runs on another
 * processor (measured in a VM). But KVM loses its mappings of all that a call spans. So with KVM
 * written places closer than PROTECT_GAP_KVM, and those of one block if they are more than
 * PAGEMAP_GROUPS, go in one call: a collection of 20,000 random pages of 4 GiB took 158 ms with a
 * call each, 60 ms with this. Without KVM only the calls count: 5,000 random pages of 1 GiB take
 * 22 ms so, 6 ms with one call a window. A paused VM needs no flush.
 */
#define PROTECT_GAP_KVM (64ull << 10)
#define RANGES		2048

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t set_dirty(struct pagemap_scanner *w, const struct pagemap_shard *s, uint64_t start,
			  uint64_t end)
{
	uint64_t first = (s->offset + start - s->start) >> PAGE_SHIFT;

	return bitmap_set_range_atomic(&w->dirty[s->region->index], first,
				       (end - start) >> PAGE_SHIFT);
}

/* What is written or none (and markers, which are told apart by their categories). */
static const struct pagemap_scan unprotected = {
	.category_inverted = PAGEMAP_IS_PRESENT,
	.category_anyof_mask = PAGEMAP_IS_WRITTEN | PAGEMAP_IS_PRESENT,
	.return_mask =
		PAGEMAP_IS_WRITTEN | PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED | PAGEMAP_IS_HUGE,
	.vec_len = RANGES,
};

static bool is_none(uint64_t categories)
{
	return !(categories & (PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED));
}

static bool is_written(uint64_t categories)
{
	return categories & PAGEMAP_IS_WRITTEN && !is_none(categories);
}

/* Protects what is not protected in [start, end) and reports what of it was written. */
static int protect(struct pagemap_scanner *w, const struct pagemap_shard *s, uint64_t start,
		   uint64_t end)
{
	while (start < end) {
		/* Never end inside a huge page: it would be split, and its state lost with it. */
		uint64_t limit = (start + PROTECT_WINDOW) & ~(PAGEMAP_BLOCK_BYTES - 1);
		struct pagemap_scan q = unprotected;
		long n;

		q.flags = PAGEMAP_SCAN_WP_MATCHING;
		q.vec = (uintptr_t)w->protected;
		n = pagemap_scan_once(w->fd, &q, &start, min_u64(end, limit));
		if (n < 0)
			return (int)n;
		for (long i = 0; i < n; i++) {
			const struct pagemap_range *r = &w->protected[i];

			if (is_written(r->categories))
				w->pages += set_dirty(w, s, r->start, r->end);
		}
	}
	return 0;
}

/* The address of the first page at or after start that the file holds; end if none is before it. */
static int next_data(const struct pagemap_shard *s, uint64_t start, uint64_t end, uint64_t *at)
{
	int err = region_first_data(s->region, s->offset + start - s->start,
				    s->offset + end - s->start, at);

	*at = *at - s->offset + s->start;
	return err;
}

/* Reports the pages of [start, end) that the file holds. They are protected already. */
static int report_data(struct pagemap_scanner *w, const struct pagemap_shard *s, uint64_t start,
		       uint64_t end)
{
	uint64_t at;
	int err;

	while (start < end) {
		err = next_data(s, start, end, &at);
		if (err)
			return err;
		if (at < end)
			w->pages += set_dirty(w, s, at, at + PAGE_BYTES);
		start = at + PAGE_BYTES;
	}
	return 0;
}

/*
 * Entries that are none. Within a block of which other pages are mapped they become markers, so
 * that they are not met again; a whole block only if the file holds some of it. Of hugetlb, none
 * cannot be protected by PAGEMAP_SCAN, and need not be: nothing takes a page out of the page table
 * there but a punch, and one that is mapped later is mapped unprotected, thus written.
 */
static int collect_none(struct pagemap_scanner *w, const struct pagemap_shard *s, uint64_t start,
			uint64_t end)
{
	int err = 0;

	if (s->region->hugetlb)
		return 0;
	while (start < end && !err) {
		uint64_t block_end =
			min_u64(end, (start & ~(PAGEMAP_BLOCK_BYTES - 1)) + PAGEMAP_BLOCK_BYTES);
		uint64_t at;

		if (block_end - start == PAGEMAP_BLOCK_BYTES) {
			err = next_data(s, start, end, &at);
			if (err)
				return err;
			if (at >= block_end) {
				start = at == end ? end : at & ~(PAGEMAP_BLOCK_BYTES - 1);
				continue;
			}
		}
		err = protect(w, s, start, block_end);
		if (!err)
			err = report_data(w, s, start, block_end);
		start = block_end;
	}
	return err;
}

static int protect_groups(struct pagemap_scanner *w, const struct pagemap_shard *s)
{
	int err = 0;

	for (unsigned int i = 0; i < w->ngroups && !err; i++)
		err = protect(w, s, w->groups[i].start, w->groups[i].end);
	w->ngroups = 0;
	return err;
}

/* Takes one written run into what is to be protected next; see PAGEMAP_GROUPS. */
static int add_written(struct pagemap_scanner *w, const struct pagemap_shard *s,
		       const struct pagemap_range *r)
{
	struct pagemap_group *last = w->ngroups ? &w->groups[w->ngroups - 1] : NULL;
	int err = 0;

	if (last && r->start - last->end <= w->gap) {
		last->end = r->end;
		return 0;
	}
	if (last && (last->end - 1) / PAGEMAP_BLOCK_BYTES != r->start / PAGEMAP_BLOCK_BYTES)
		err = protect_groups(w, s);
	if (w->ngroups == PAGEMAP_GROUPS) {
		w->groups[0].end = r->end;
		w->ngroups = 1;
	} else {
		w->groups[w->ngroups++] = (struct pagemap_group){ r->start, r->end };
	}
	return err;
}

/*
 * Splits the huge pages in [start, end) that are mapped and not protected: a protecting call that
 * ends inside of one does. What of it was written can no longer be told.
 */
static int split_huge(struct pagemap_scanner *w, uint64_t start, uint64_t end)
{
	for (uint64_t at = start & ~(PAGEMAP_BLOCK_BYTES - 1); at < end;
	     at += PAGEMAP_BLOCK_BYTES) {
		int err = pagemap_arm(w->fd, at, at + PAGE_BYTES);

		if (err)
			return err;
	}
	return 0;
}

int pagemap_shard_collect(struct pagemap_scanner *w, const struct pagemap_shard *s)
{
	uint64_t at = s->start;
	int err = 0;

	w->ngroups = 0;
	while (at < s->end && !err) {
		struct pagemap_scan q = unprotected;
		long n;

		q.vec = (uintptr_t)w->found;
		n = pagemap_scan_once(w->fd, &q, &at, s->end);
		if (n < 0)
			return (int)n;
		for (long i = 0; i < n && !err; i++) {
			const struct pagemap_range *r = &w->found[i];

			if (is_none(r->categories)) {
				err = collect_none(w, s, r->start, r->end);
				continue;
			}
			if (!is_written(r->categories))
				continue;
			set_dirty(w, s, r->start, r->end);
			w->pages += (r->end - r->start) >> PAGE_SHIFT;
			if (r->categories & PAGEMAP_IS_HUGE && !s->region->hugetlb)
				err = split_huge(w, r->start, r->end);
			if (!err)
				err = add_written(w, s, r);
		}
	}
	return err ? err : protect_groups(w, s);
}

/* Splits all huge pages of a shard, which is about to be armed. */
static int split_shard(struct pagemap_scanner *w, const struct pagemap_shard *s)
{
	uint64_t at = s->start;

	while (at < s->end) {
		struct pagemap_scan q = { .category_mask = PAGEMAP_IS_HUGE,
					  .return_mask = PAGEMAP_IS_HUGE,
					  .vec_len = RANGES,
					  .vec = (uintptr_t)w->found };
		long n = pagemap_scan_once(w->fd, &q, &at, s->end);

		if (n < 0)
			return (int)n;
		for (long i = 0; i < n; i++) {
			int err = split_huge(w, w->found[i].start, w->found[i].end);

			if (err)
				return err;
		}
	}
	return 0;
}

int pagemap_shard_arm(struct pagemap_scanner *w, const struct pagemap_shard *s)
{
	uint64_t at, end, start = s->start;
	int err;

	if (s->region->hugetlb)
		return pagemap_arm(w->fd, s->start, s->end);
	err = split_shard(w, s);
	if (err)
		return err;
	while (start < s->end) {
		err = next_data(s, start, s->end, &at);
		if (err || at >= s->end)
			return err;
		/* this block, and those after it that hold data too */
		start = at & ~(PAGEMAP_BLOCK_BYTES - 1);
		if (start < s->start)
			start = s->start;
		do {
			end = min_u64(s->end,
				      (at & ~(PAGEMAP_BLOCK_BYTES - 1)) + PAGEMAP_BLOCK_BYTES);
			if (end == s->end)
				break;
			err = next_data(s, end, s->end, &at);
			if (err)
				return err;
		} while (at < s->end && at - end < PAGEMAP_BLOCK_BYTES);
		err = pagemap_arm(w->fd, start, end);
		if (err)
			return err;
		start = end;
	}
	return 0;
}

int pagemap_scanner_init(struct pagemap_scanner *w, int fd, bool kvm)
{
	*w = (struct pagemap_scanner){ .fd = fd, .gap = kvm ? PROTECT_GAP_KVM : PROTECT_WINDOW };
	w->found = calloc(RANGES, sizeof(*w->found));
	w->protected = calloc(RANGES, sizeof(*w->protected));
	return w->found && w->protected ? 0 : -ENOMEM;
}

void pagemap_scanner_release(struct pagemap_scanner *w)
{
	free(w->found);
	free(w->protected);
}
