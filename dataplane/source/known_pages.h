/* SPDX-License-Identifier: MIT */
/*
 * What the destination is known to hold, as hashes of 4 KiB pages, of RAM in huge pages.
 *
 * Theory of operation
 *   A tracker reports RAM in huge pages by the huge page: one byte written makes 512 pages
 *   pending. So a chunk is snapshot, page by page: pages whose hash is what was last sent are not
 *   sent, the others are sent from the snapshot and their hashes remembered. A guest that writes
 *   one byte of each huge page: 0.5 MiB a round for 256, and a quarter of the processor time
 *   (bench/huge_pages).
 *
 *   If there may be hashes of all such RAM, that begins with the first report: to learn costs no
 *   more than sending by reference does (hugetlb is looked at in copies anyway, page_reader.h).
 *   Otherwise it begins with the second, since most huge pages are never written again.
 *
 *   The rule. A hash that is remembered is of bytes that were sent, so of a private copy: the guest
 *   may write a page while it goes by reference, and what the destination then has is unknown.
 *   Everything sent otherwise must be forgotten. known_pages_begin forgets a chunk that is to go
 *   by reference; known_pages_filter is the only one that remembers.
 *
 *   Memory. 8 bytes a page, 4 KiB a chunk, taken when a chunk is first snapshot, up to a bound.
 *   Chunks beyond the bound go by reference.
 *
 *   Where nothing stays equal (a guest that fills huge pages from end to end) snapshots only cost.
 *   Each chunk counts how often in a row less than 1/USEFUL_PART of it was equal, n, and then goes
 *   by reference 2^n - 1 times before it is tried again.
 *
 *   Threads. In a round a chunk is one thread's alone (scheduler.h), and so are its hashes; rounds
 *   are ordered by whoever starts them. Only the count of chunks that have memory is shared.
 */
#ifndef TRANSHIP_DATAPLANE_KNOWN_PAGES_H
#define TRANSHIP_DATAPLANE_KNOWN_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataplane/page_hash.h"
#include "dataplane/region.h"

/* One chunk of a region in huge pages. */
struct known_chunk {
	uint32_t memory;  /* its hashes are the memory-1'th of known_pages.hashes; 0: it has none */
	bool reported;	  /* at least once */
	bool filtered;	  /* since all of it was last forgotten: its hashes mean something */
	uint8_t failures; /* in a row */
	uint8_t pause;	  /* reports that are not worth a snapshot */
};

struct known_pages {
	const struct region *regions;
	uint32_t nregions;
	struct known_chunk **chunks; /* per region; NULL: of small pages, nothing is known */
	uint64_t *hashes;	     /* CHUNK_PAGES for each chunk that has memory; mapped lazily */
	uint32_t max;		     /* chunks that can have memory */
	bool all;		     /* which is all there are */
	uint32_t used;		     /* atomic */
};

/*
 * max_bytes bounds the hashes. Nothing is allocated where no region is in huge pages of a chunk's
 * size. -ENOMEM.
 */
int known_pages_init(struct known_pages *k, const struct region *regions, uint32_t nregions,
		     uint64_t max_bytes);
void known_pages_release(struct known_pages *k);

/* The bound where none was asked for: 16 MiB and 1/4096 of the RAM. */
uint64_t known_pages_default_max(const struct region *regions, uint32_t nregions);

static inline bool known_pages_covers(const struct known_pages *k, const struct region *r)
{
	return k->chunks && k->chunks[r->index];
}

/*
 * The chunk at first_page of r was reported and is about to be sent. True: from a snapshot, whose
 * pages go through known_pages_filter. False: in any way; nothing is known of it any more.
 */
bool known_pages_begin(struct known_pages *k, const struct region *r, uint64_t first_page);

/*
 * True if the destination has what is in snapshot, a private copy of the page, and need not get it.
 * Otherwise these very bytes must be sent: their hash is remembered. After a true known_pages_begin
 * of its chunk.
 */
bool known_pages_filter(struct known_pages *k, const struct page_hash *h, const struct region *r,
			uint64_t page, const void *snapshot);

/* Nothing is known of the page any more: it was sent as zeros or hole. As known_pages_filter. */
void known_pages_forget(struct known_pages *k, const struct region *r, uint64_t page);

/* All of the chunk has been filtered: so many pages, so many of them equal. */
void known_pages_end(struct known_pages *k, const struct region *r, uint64_t first_page,
		     uint32_t filtered, uint32_t equal);

/* Bytes of hashes in use. */
uint64_t known_pages_memory(const struct known_pages *k);

#endif
