/* SPDX-License-Identifier: MIT */
/*
 * What the destination holds of pages that are sent again and again: their content as it was sent
 * last, so that the next version can go as a difference (WIRE_ENC_DELTA).
 *
 * Theory of operation
 *   Entries are made from snapshots only, of bytes that were sent exactly so. Whatever else is
 *   sent of a page (by reference, as zeros, as a hole) changes what the destination holds to
 *   something that nobody here knows: delta_cache_forget must be told, before the page is sent. A
 *   version that is not the destination's would be a silent corruption but for the checksum in
 *   every DELTA.
 *
 *   A fixed number of slots, a page each, made once. Slots are found by a hash table of chains;
 *   regions' chunks are spread over shards, each with a lock, which is held for a run of pages at a
 *   time. A chunk is handled by one thread in a round, so an entry is read and replaced by one.
 *
 *   The hot set stays: an entry that was used in this round or the one before is never given up
 *   for another page. Otherwise a round that dirties more than the cache holds would replace each
 *   entry just before its next use. A hand goes around the slots and looks at HAND_STEPS of them
 *   for one that may go; if there is none, the new page is not remembered.
 */
#ifndef TRANSHIP_DATAPLANE_DELTA_CACHE_H
#define TRANSHIP_DATAPLANE_DELTA_CACHE_H

#include <stdint.h>

#include "dataplane/region.h"

/* Pages at a time: one run. */
#define DELTA_CACHE_RUN 32

struct delta_cache;

/*
 * For at most `bytes` of memory, all that belongs to it included, taken as it is used; regions must
 * outlive it. -ENOMEM. Fewer bytes than a few pages make a cache that holds nothing.
 */
int delta_cache_new(struct delta_cache **out, uint64_t bytes, const struct region *regions,
		    uint32_t nregions);
/* NULL is allowed. */
void delta_cache_free(struct delta_cache *c);

/*
 * For pages first .. first + count - 1 of r, which lie in one chunk and are at most
 * DELTA_CACHE_RUN: copies those that are known to out (page i at i * PAGE_BYTES) and returns their
 * bits.
 */
uint32_t delta_cache_get(struct delta_cache *c, const struct region *r, uint64_t first,
			 uint32_t count, uint8_t *out);

/* These pages are sent in this round, exactly so. round rises. */
void delta_cache_put(struct delta_cache *c, const struct region *r, uint64_t first, uint32_t count,
		     const uint8_t *pages, uint32_t round);

/* These pages (any number, in one chunk) are sent in some other way. Cheap if none is known. */
void delta_cache_forget(struct delta_cache *c, const struct region *r, uint64_t first,
			uint32_t count);

/* Pages known now. */
uint64_t delta_cache_pages(struct delta_cache *c);

#endif
