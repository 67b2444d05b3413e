/* SPDX-License-Identifier: MIT */
/*
 * A set of the guest's pages, over all regions, that several threads change at once.
 *
 * Eight words a chunk, regions one after the other: what concerns one chunk lies in one cache line.
 * Every operation is atomic a word, and sequentially consistent: whoever sets a bit here and looks
 * at another set afterwards sees what one sees who does it the other way round, or is seen by him.
 *
 * A set over a large guest in which little lies is walked by its summary, a bit a chunk, which says
 * where something was ever put: by page_set_put, or noted. The other operations leave it alone, and
 * so do sets that nobody walks.
 *
 * One that is mapped from a file outlives its process: what a post-copy still misses is kept so.
 */
#ifndef TRANSHIP_DATAPLANE_PAGE_SET_H
#define TRANSHIP_DATAPLANE_PAGE_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/region.h"

#define PAGE_SET_WORDS (CHUNK_PAGES / 64) /* of a chunk */

struct page_set {
	const struct region *regions; /* must outlive it */
	uint32_t nregions;
	uint64_t *first_chunk; /* of each region; nregions + 1; owned */
	uint64_t *words;       /* mapped */
	uint64_t *summary;     /* behind them; bits of chunks, atomic */
	uint64_t mapped;       /* bytes */
};

/* Bytes of a set over these regions: its words and its summary. */
uint64_t page_set_bytes(const struct region *regions, uint32_t nregions);

/*
 * fd < 0: an empty set in memory of our own, which is used as it is touched. Else the set that the
 * file holds from its beginning, and *tail (if not NULL) the extra bytes behind it, page-aligned.
 * -ENOMEM; -EINVAL: the file is too short.
 */
int page_set_init(struct page_set *s, const struct region *regions, uint32_t nregions, int fd,
		  uint64_t extra, void **tail);
void page_set_release(struct page_set *s);

/*
 * Touches all of a set that is kept in a file, for later to find it in memory: 32 MiB a TiB of
 * guest. An error of that is found again, or not, by whoever uses the set.
 */
void page_set_populate(const struct page_set *s);

static inline uint64_t *page_set_chunk(const struct page_set *s, uint32_t region, uint64_t chunk)
{
	return s->words + (s->first_chunk[region] + chunk) * PAGE_SET_WORDS;
}

/* Chunks are numbered through; the region and the chunk in it of a number. */
uint32_t page_set_region(const struct page_set *s, uint64_t number, uint64_t *chunk);
static inline uint64_t page_set_chunks(const struct page_set *s)
{
	return s->first_chunk[s->nregions];
}
/* The first chunk from this number on with its bit in the summary; page_set_chunks: none. */
uint64_t page_set_next(const struct page_set *s, uint64_t number);

/* Bits first .. first + count - 1 of a chunk. */
void page_mask_fill(uint64_t mask[PAGE_SET_WORDS], uint32_t first, uint32_t count);
uint32_t page_mask_count(const uint64_t mask[PAGE_SET_WORDS]);
/* The next run of set bits from `from` on: its first bit and *count; CHUNK_PAGES: none. */
uint32_t page_mask_run(const uint64_t mask[PAGE_SET_WORDS], uint32_t from, uint32_t *count);

/* Of one chunk's words. Adds mask; out (may be mask): those that were not there. */
void page_set_add(uint64_t *words, const uint64_t *mask, uint64_t *out);
/* Takes mask away; returns how many of them were there. */
uint32_t page_set_remove(uint64_t *words, const uint64_t *mask);
/* mask &= the set. */
void page_set_keep(const uint64_t *words, uint64_t *mask);
static inline bool page_set_has(const uint64_t *words, uint32_t page)
{
	return __atomic_load_n(&words[page / 64], __ATOMIC_SEQ_CST) >> (page % 64) & 1;
}

/* As page_set_add, into a chunk of a set that is walked; returns how many were not there. */
uint32_t page_set_put(const struct page_set *s, uint32_t region, uint64_t chunk,
		      const uint64_t mask[PAGE_SET_WORDS]);
/* Something was written into the chunk's words otherwise. */
void page_set_note(const struct page_set *s, uint32_t region, uint64_t chunk);

/* By the summary. */
uint64_t page_set_count(const struct page_set *s);

#endif
