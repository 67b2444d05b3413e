// SPDX-License-Identifier: MIT
/*
 * Pages that the guest gives back while it is copied: finding the holes that no tracker reports.
 *
 * Theory of operation
 *   `held` is what a region's file held as far as we know: its extents when they were last read,
 *   what was reported since, and what was found when pages were looked at to be sent. A page that
 *   is sent with content must be in it, also if it was pending as a hole and came back just then:
 *   it may be given back again without ever being reported.
 *   The file's number of blocks is known to fstat for nothing; it must be that of `held`
 *   plus what was allocated otherwise: pages written after the scan (reported by the next) and
 *   pages that the guest only read. Fewer blocks are a proof of discards. As many or more are none
 *   against, so a difference in that direction also leads to a look, but one that may not cost
 *   much.
 *
 *   A look reads all extents (28 ns a small page, 7 ms a GiB, measured). While the guest runs, no
 *   more than 1/LOOK_SHARE of the time goes into looks, unless there is proof. In the pause, where
 *   the count is exact, a look without proof is taken only if it is short.
 *
 *   What is missed keeps its last content at the destination until the guest writes it again: the
 *   guest gave it up and may find there what it wrote last. It costs memory, and VERIFY shows it.
 *
 *   hugetlb has no extents: if it has fewer blocks, all of it is looked at again page by page.
 */
#include <errno.h>
#include <sys/stat.h>

#include "dataplane/source/scheduler.h"
#include "lib/base/clock.h"

#define BLOCKS_PER_PAGE	 (PAGE_BYTES / 512)
#define WALK_NS_PER_PAGE 28
/* A hundredth: a guest that touches new memory has more blocks than expected at every scan. */
#define LOOK_SHARE 100
/* The longest look in the pause without a proof that it will find something. */
#define PAUSE_LOOK_NS (3 * NSEC_PER_MSEC)

uint64_t scheduler_blocks(const struct region *r)
{
	struct stat st;

	return fstat(r->fd, &st) ? 0 : (uint64_t)st.st_blocks;
}

void scheduler_held_begin(struct scheduler *s, uint32_t i, uint64_t before, uint64_t after)
{
	struct scheduler_held *h = &s->held_counts[i];
	struct stat st;

	bitmap_clear_all(&s->held[i]);
	bitmap_or(&s->held[i], &s->pending[i]);
	h->pages = bitmap_count(&s->held[i]);
	h->walked_ns = clock_ns();
	/*
	 * A file that is larger than the region has other blocks too. Their number is a guess: the
	 * guest may have given back one page and populated another while we counted.
	 */
	h->offset = s->regions[i].hugetlb ? (int64_t)after : 0;
	if (s->regions[i].hugetlb)
		return;
	if (!fstat(s->regions[i].fd, &st) && (uint64_t)st.st_size != s->regions[i].size &&
	    before == after)
		h->offset = (int64_t)(before - h->pages * BLOCKS_PER_PAGE);
}

void scheduler_looked_at(struct scheduler *s, const struct scheduler_chunk *c,
			 const uint64_t populated[SCHEDULER_CHUNK_WORDS])
{
	uint32_t i = c->region->index;
	uint64_t *held = s->held[i].words + c->first_page / 64, words = (c->pages + 63) / 64;
	int64_t grown = 0;

	/* The chunk is this thread's alone, and so are its words. */
	for (uint64_t w = 0; w < words; w++) {
		uint64_t now = (held[w] & ~c->bits[w]) | (c->bits[w] & populated[w]);

		grown += __builtin_popcountll(now) - __builtin_popcountll(held[w]);
		held[w] = now;
	}
	if (grown)
		__atomic_fetch_add(&s->held_counts[i].pages, (uint64_t)grown, __ATOMIC_RELAXED);
}

struct look {
	struct bitmap now; /* the region's extents at this moment */
	uint64_t vanished, held;
};

/* What a part of a region's file no longer holds becomes pending. */
static int look_at_part(struct scheduler *s, const struct scheduler_part *part, void *arg)
{
	struct look *l = arg;
	uint32_t i = part->region;
	uint64_t *pending = s->pending[i].words, *held = s->held[i].words;
	uint64_t vanished = 0, added = 0, holds = 0, limit = part->first_word + part->words;
	uint64_t last_page = limit * 64 < l->now.bits ? limit * 64 : l->now.bits;
	int err = region_extents_of(&s->regions[i], part->first_word * 64, last_page, &l->now);

	if (err)
		return err;
	for (uint64_t w = part->first_word; w < limit; w++) {
		uint64_t gone = held[w] & ~l->now.words[w];

		held[w] = l->now.words[w];
		holds += (uint64_t)__builtin_popcountll(held[w]);
		if (!gone)
			continue;
		vanished += (uint64_t)__builtin_popcountll(gone);
		added += (uint64_t)__builtin_popcountll(gone & ~pending[w]);
		pending[w] |= gone;
		bitmap_set_range_atomic(&s->dirty_chunks,
					s->first_chunk[i] + w / SCHEDULER_CHUNK_WORDS, 1);
	}
	__atomic_fetch_add(&s->pending_pages, added, __ATOMIC_RELAXED);
	__atomic_fetch_add(&l->vanished, vanished, __ATOMIC_RELAXED);
	__atomic_fetch_add(&l->held, holds, __ATOMIC_RELAXED);
	return 0;
}

static int look(struct scheduler *s, uint32_t i, uint64_t *vanished)
{
	struct look l = { 0 };
	int err = bitmap_init(&l.now, region_pages(&s->regions[i]));

	if (err)
		return err;
	err = scheduler_walk(s, i, look_at_part, &l);
	if (!err) {
		*vanished += l.vanished;
		s->held_counts[i].pages = l.held;
	}
	bitmap_release(&l.now);
	s->held_counts[i].walked_ns = clock_ns();
	return err;
}

static bool worth_a_look(const struct scheduler_held *h, uint64_t blocks, bool barrier)
{
	uint64_t expected = h->pages * BLOCKS_PER_PAGE + (uint64_t)h->offset;
	uint64_t cost_ns = blocks / BLOCKS_PER_PAGE * WALK_NS_PER_PAGE;

	if (blocks <= expected)
		return blocks < expected;
	return barrier ? cost_ns <= PAUSE_LOOK_NS
		       : cost_ns <= (clock_ns() - h->walked_ns) / LOOK_SHARE;
}

/* All of a hugetlb region is pending if the file has fewer blocks than the last time. */
static uint64_t recheck_hugetlb(struct scheduler *s, uint32_t i, uint64_t blocks)
{
	struct scheduler_held *h = &s->held_counts[i];
	uint64_t pages = region_pages(&s->regions[i]), added;
	bool shrunk = (int64_t)blocks < h->offset;

	h->offset = (int64_t)blocks;
	if (!shrunk)
		return 0;
	added = pages - bitmap_count(&s->pending[i]);
	s->pending_pages += added;
	bitmap_set_range(&s->pending[i], 0, pages);
	bitmap_set_range(&s->dirty_chunks, s->first_chunk[i],
			 s->first_chunk[i + 1] - s->first_chunk[i]);
	return added;
}

int scheduler_recheck(struct scheduler *s, bool barrier, uint64_t *vanished)
{
	int err = 0;

	*vanished = 0;
	for (uint32_t i = 0; !err && i < s->nregions; i++) {
		uint64_t blocks = scheduler_blocks(&s->regions[i]);

		if (s->regions[i].hugetlb)
			*vanished += recheck_hugetlb(s, i, blocks);
		else if (worth_a_look(&s->held_counts[i], blocks, barrier))
			err = look(s, i, vanished);
	}
	return err;
}
