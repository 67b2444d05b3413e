/* SPDX-License-Identifier: MIT */
/*
 * What is to be sent, and who sends which chunk: the source's bitmaps and the order of a round.
 *
 * Theory of operation
 *   Four bitmaps, one bit a page: `scanned` receives a tracker's report, `pending` is what the next
 *   round sends, `seen` is what was ever reported (the working set), `suspect` is what was reported
 *   since the last barrier. A summary with one bit a chunk says where pending bits are, so that
 *   beginning a round costs nothing for the clean rest of a large guest.
 *
 *   Phases alternate and never overlap: between rounds one thread (main) calls
 *   scheduler_first/merge/begin_round; during a round any number of threads call scheduler_next
 *   and scheduler_next_holes. The one who starts the round's threads orders the two.
 *
 *   In a round an atomic cursor over the list of dirty chunks gives each chunk to exactly one
 *   thread, which takes and clears its bits at that moment; no page has a lock of its own.
 *   A chunk is sent once a round and rounds end with a barrier (wire.h): so no older version of a
 *   page overtakes a newer one.
 *
 *   Order, scheduler_heat.c. The guest runs on, and what it writes again before its turn need not
 *   be sent in this round. So while it runs the coldest chunks come first, by what the last scan
 *   reported of each. Whoever was given a chunk and finds it being written may postpone it, once:
 *   it comes again after all others.
 *
 *   A round can be cut: nobody is given a chunk any more, and what was not given stays pending. Not
 *   the round that says what was never populated: it owes that of every chunk, and said in a later
 *   round, of a chunk that has been sent by then, it would take back its pages.
 *
 *   Discards. A guest gives memory back (balloon, free-page reporting) by punching holes, which no
 *   tracker reports; scheduler_recheck.c finds them.
 *
 *   Direct memory access. A page that was reported and re-armed while it is pinned for a device
 *   can change later without a report. So pages reported since the last barrier (a moment with no
 *   I/O in flight) are sent again after the next one. What a barrier's own scan reports is safe.
 *   A first scan arms everything: without a barrier at that moment every page is suspect.
 */
#ifndef TRANSHIP_DATAPLANE_SCHEDULER_H
#define TRANSHIP_DATAPLANE_SCHEDULER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/region.h"
#include "dataplane/workers.h"

#define SCHEDULER_CHUNK_WORDS (CHUNK_PAGES / 64)

struct scheduler_holes {
	const struct region *region;
	uint64_t offset, length; /* bytes, whole chunks (or to the region's end) */
};

/* The file of a region, as far as it is known. */
struct scheduler_held {
	uint64_t pages;	    /* bits in held; atomic during a round */
	int64_t offset;	    /* blocks that the file has beyond those pages; hugetlb: all of them */
	uint64_t walked_ns; /* when its extents were last read */
};

struct scheduler {
	const struct region *regions;
	uint32_t nregions;
	bool track_dma;
	struct bitmap *pending, *scanned, *seen, *held, *suspect; /* one a region; owned */
	struct scheduler_held *held_counts;			  /* one a region; owned */
	uint8_t *heat;		    /* one a chunk: HEAT_PAGES that the last scan reported; owned */
	struct bitmap dirty_chunks; /* over all regions, numbered through */
	uint64_t *first_chunk;	    /* number of each region's first chunk; nregions + 1 */
	bool holes_owed;	    /* the next round also says what was never populated */

	/* The round. */
	bool round_has_holes;
	uint32_t *order;
	uint64_t order_count;
	uint64_t cursor; /* atomic; beyond order_count: the round is cut, or all are given */
	struct scheduler_holes *holes;
	uint64_t holes_count, holes_room;
	uint64_t holes_cursor; /* atomic */
	pthread_mutex_t lock;  /* a leaf; what follows */
	uint32_t *postponed;   /* chunks, as order; owned */
	uint64_t postponed_count, postponed_cursor;
	bool cut;
	uint64_t cut_at; /* the cursor was there */

	uint64_t pending_pages; /* atomic */
	uint64_t seen_pages;	/* atomic while the bitmaps are walked */

	/* Walking all of the bitmaps, on several threads; scheduler_walk.c. */
	struct scheduler_walk *walk;
};

/* A chunk that the caller alone sends in this round. */
struct scheduler_chunk {
	const struct region *region;
	uint64_t first_page; /* of the chunk, in the region */
	uint32_t pages;	     /* in the chunk: fewer than CHUNK_PAGES at a region's end */
	bool rest_is_hole;   /* pages whose bit is clear were never populated: say so */
	bool again;	     /* it has been postponed */
	uint64_t bits[SCHEDULER_CHUNK_WORDS];
};

/* Regions must outlive it. -ENOMEM. */
int scheduler_init(struct scheduler *s, const struct region *regions, uint32_t nregions,
		   bool track_dma);
void scheduler_release(struct scheduler *s);

/*
 * After a tracker was started: pending becomes what the files hold, the rest is owed as holes.
 * barrier: nothing was in flight when the tracker armed. -errno from reading extents.
 */
int scheduler_first(struct scheduler *s, bool barrier);

/* The bitmaps for a tracker's collect; all clear. */
struct bitmap *scheduler_scanned(struct scheduler *s);

/* Takes over what a collect put into scanned, and clears it. barrier: as in scheduler_first. */
void scheduler_merge(struct scheduler *s, bool barrier);

/* A part of region's bitmaps: whole chunks, so that no two parts share a word. */
struct scheduler_part {
	uint32_t region;
	uint64_t first_word, words;
};

typedef int scheduler_walker(struct scheduler *s, const struct scheduler_part *p, void *arg);

/*
 * scheduler_walk.c: calls fn for every part of all bitmaps, or of one region's (ALL_REGIONS), on as
 * many threads as that is worth, and returns when all is done: 0, or an error that fn returned.
 */
#define ALL_REGIONS UINT32_MAX
int scheduler_walk_new(struct scheduler *s);
void scheduler_walk_free(struct scheduler *s);
int scheduler_walk(struct scheduler *s, uint32_t region, scheduler_walker *fn, void *arg);

/*
 * After scheduler_merge: finds pages that the guest has given back since, makes them pending and
 * counts them in *vanished. barrier: the guest is stopped. -errno from reading extents.
 */
int scheduler_recheck(struct scheduler *s, bool barrier, uint64_t *vanished);
/* Within scheduler_first: region i's extents are in pending; the file's blocks around that. */
void scheduler_held_begin(struct scheduler *s, uint32_t i, uint64_t before, uint64_t after);
/* st_blocks of the region's file. */
uint64_t scheduler_blocks(const struct region *r);

/* Takes what is pending into a round. coldest_first: else as it lies in memory. -ENOMEM. */
int scheduler_begin_round(struct scheduler *s, bool coldest_first);
/* The next chunk, its bits taken; false when the round has no more. Any thread. */
bool scheduler_next(struct scheduler *s, struct scheduler_chunk *c);
/*
 * Gives a chunk back of which nothing was looked at or sent; scheduler_next gives it once more, to
 * anybody. The caller must ask scheduler_next again before it takes the round to be at its end.
 */
void scheduler_postpone(struct scheduler *s, const struct scheduler_chunk *c);
/* From now on scheduler_next has no more. False: not this round. Any thread. */
bool scheduler_cut(struct scheduler *s);
/* All that was given has been sent. True if the round was cut and something was not given. */
bool scheduler_end_round(struct scheduler *s);
/*
 * The chunk's pages have been looked at and go as they are: bits of `populated` say which of its
 * pages the file held then. The thread that was given the chunk, once, before it sends.
 */
void scheduler_looked_at(struct scheduler *s, const struct scheduler_chunk *c,
			 const uint64_t populated[SCHEDULER_CHUNK_WORDS]);
/* Up to max ranges that were never populated; 0 when there are no more. Any thread. */
uint32_t scheduler_next_holes(struct scheduler *s, struct scheduler_holes *out, uint32_t max);

uint64_t scheduler_pending(const struct scheduler *s);

/* scheduler_heat.c: of a chunk of which a scan reported so many pages. */
#define HEAT_PAGES  4u
#define HEAT_LEVELS (CHUNK_PAGES / HEAT_PAGES + 1)
static inline uint8_t scheduler_heat(uint64_t reported)
{
	return (uint8_t)((reported + HEAT_PAGES - 1) / HEAT_PAGES);
}
/* Within scheduler_begin_round: dirty_chunks into order. */
void scheduler_make_order(struct scheduler *s, bool coldest_first);

#endif
