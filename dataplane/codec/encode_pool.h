/* SPDX-License-Identifier: MIT */
/*
 * Threads that compress chunks beside the streams, and the queue of chunks that are ready.
 *
 * Theory of operation
 *   Encoders and streams take chunks from one cursor (scheduler.h), so each chunk of a round is
 *   taken once, by an encoder, which puts its result on the queue, or by a stream, which sends it
 *   at once. A stream takes what is ready first. Who finds nothing ready takes a chunk itself, or
 *   waits, as the mode says: compressing pays at all (on), and so much that raw bytes would only
 *   be in the way (only). Where chunks turn out to have nothing to compress, streams look at them
 *   too, and offer the first that has to an encoder.
 *
 *   Order (wire.h). At any moment a chunk of the round is at one place: behind the cursor, offered,
 *   in an encoder, on the queue, or in a stream. A stream is told ENCODE_END, and says ROUND_END,
 *   when the first four are empty: the cursor has come to its end, nothing is offered, no encoder
 *   works and the queue is empty. An encoder counts as working from before it asks the cursor until
 *   its result is on the queue, so nothing is between two places unseen; and from then on until the
 *   next round begins no encoder asks the cursor again. What streams still hold they send before
 *   their own ROUND_END. So when all streams' ROUND_END are acknowledged, every chunk of the round
 *   is in place.
 *
 *   Memory. A result needs a buffer, of which there are a fixed number; an encoder gets one before
 *   it takes a chunk, so they are the bound of the queue and what stops encoders that are faster
 *   than the link.
 *
 *   Encoders run at a lower priority than everything else: what the guest or a stream wants of the
 *   processors they get first.
 *
 *   One lock (a leaf) for queue, mode and counts, taken twice a chunk.
 */
#ifndef TRANSHIP_DATAPLANE_ENCODE_POOL_H
#define TRANSHIP_DATAPLANE_ENCODE_POOL_H

#include "dataplane/codec/encode.h"

struct encode_pool;

/* What the pool needs of the source; from any of its threads. */
struct encode_source {
	/*
	 * The next chunk of the round as a plan of guest pages: 1; 0: there is none; -errno.
	 * scratch: scratch_size bytes of the calling thread, which runs may refer to until its
	 * next call.
	 */
	int (*next)(void *arg, struct chunk_plan *plan, uint8_t *scratch);
	/* Wakes a stream that was told to wait. */
	void (*wake)(void *arg, uint32_t stream);
	void *arg;
	size_t scratch_size;
	/* Each page comes once, of a chunk maybe several plans: nothing is remembered of chunks. */
	bool once;
};

struct encode_mode {
	bool on, only;
	int level;
};

struct encoded {
	struct chunk_plan plan;
	uint8_t *buffer; /* CHUNK_BYTES */
	struct encoded *next;
};

/* Cumulative. Bytes of guest memory unless out. */
struct encode_totals {
	struct encode_result sum;
	uint64_t cpu_ns;
	uint64_t waited_ns; /* of encoders, for a buffer: the link is slower than they are */
};

enum encode_next {
	ENCODE_READY, /* *e is to be sent and given back */
	ENCODE_RAW,   /* take a chunk from the cursor; if it has none: encode_pool_exhausted */
	ENCODE_LOOK,  /* likewise, and if it has data: encode_pool_offer */
	ENCODE_BACK,  /* what was offered is the stream's again: send it as it is */
	ENCODE_WAIT,  /* until woken */
	ENCODE_END,   /* the round has no more for anybody */
};

/* Encoders that are worth having: processors that this process may use, less one, and memory. */
unsigned int encode_pool_workers(uint64_t ram_bytes);

/*
 * For a source with these regions and streams; cache may be NULL and stays the caller's. Allocates
 * all; no thread yet. -ENOMEM.
 */
int encode_pool_new(struct encode_pool **out, const struct encode_source *source,
		    const struct region *regions, uint32_t nregions, uint32_t streams,
		    unsigned int workers, struct delta_cache *cache);
/* Makes the threads. A process may confine itself before. -errno. */
int encode_pool_start(struct encode_pool *p);
/* Ends the threads, whatever they do. */
void encode_pool_stop(struct encode_pool *p);
/* After encode_pool_stop. NULL is allowed. */
void encode_pool_free(struct encode_pool *p);

/* Between rounds: encoders may take chunks from now on, if the mode says so. */
void encode_pool_begin_round(struct encode_pool *p, uint32_t round);
/* At any time. */
void encode_pool_set(struct encode_pool *p, const struct encode_mode *mode);

/* What this stream is to do next; or -errno of an encoder. */
int encode_pool_next(struct encode_pool *p, uint32_t stream, struct encoded **e);
/* Only what is ready, if there is something. */
bool encode_pool_take(struct encode_pool *p, struct encoded **e);
void encode_pool_give_back(struct encode_pool *p, struct encoded *e);
void encode_pool_exhausted(struct encode_pool *p);
/*
 * After ENCODE_LOOK: a plan with data. It, and what its runs refer to, stay as they are until
 * encode_pool_next says other than ENCODE_READY and ENCODE_WAIT.
 */
void encode_pool_offer(struct encode_pool *p, uint32_t stream, const struct chunk_plan *plan);

void encode_pool_totals(struct encode_pool *p, struct encode_totals *t);

#endif
