/* SPDX-License-Identifier: MIT */
/*
 * Compressing a chunk: a plan of guest pages becomes a plan of encoded ones. One encoder a thread.
 *
 * Theory of operation
 *   The guest writes its pages at any time, so nothing is compressed, compared or remembered but a
 *   snapshot, a copy in memory of our own: a compressor that reads one byte twice and finds two
 *   values makes something that expands to neither. A run of data is handled in pieces of
 *   ENCODE_PIECE pages, so that snapshot and result stay in the cache and what compresses lies
 *   apart from what does not.
 *
 *   A piece is tried on a sample first. What does not compress is left as it was: guest pages,
 *   which are sent by reference. A chunk of which nothing compressed is not tried again the next
 *   time, nor the next 3, 7, 15 times if it is so again (struct encode_memory).
 *
 *   With a cache of versions (delta_cache.h) pages are sent from snapshots always and remembered,
 *   and one that is known goes as a DELTA if that is smaller than it would be by itself. Pages are
 *   remembered from the second round on: who was written since the first is likely to be again.
 */
#ifndef TRANSHIP_DATAPLANE_ENCODE_H
#define TRANSHIP_DATAPLANE_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/codec/delta_cache.h"
#include "dataplane/source/chunk_plan.h"

#define ENCODE_PIECE WIRE_ENCODED_PAGES_MAX /* pages */

/* What is known of a chunk; all zero at first. Its thread's of this round. */
struct encode_memory {
	uint8_t skip;	 /* times that it is not tried */
	uint8_t backoff; /* failures in a row */
};

/* Of one chunk; bytes of guest memory unless out_. */
struct encode_result {
	uint64_t data;	/* that carry data */
	uint64_t tried; /* of these compressed, or sampled in vain */
	uint64_t zstd_in, zstd_out;
	uint64_t delta_in, delta_out;
};

struct encode_how {
	int level;		   /* of zstd */
	struct delta_cache *cache; /* may be NULL */
	uint32_t round;		   /* with cache: from 2 on pages are remembered */
	const bool *stop;	   /* atomic; set: give up with -ECANCELED; may be NULL */
};

struct encoder {
	void *zstd, *delta, *sampler; /* ZSTD_CCtx */
	int level;		      /* that zstd is set to */
	uint8_t *snapshot, *previous; /* ENCODE_PIECE pages each */
	uint8_t *sample;
	uint8_t *result; /* where a page's DELTA and its alternative are made */
	/* The chunk under way. */
	const struct encode_how *how;
	const struct chunk_plan *in;
	struct chunk_plan *out;
	uint8_t *room; /* what is left of the caller's buffer */
	struct encode_result sum;
};

/* -ENOMEM. */
int encoder_init(struct encoder *e);
void encoder_release(struct encoder *e);

/*
 * Encodes in (pages, each at most once) into out, payloads in buffer, which has CHUNK_BYTES and
 * must stay until out is sent. Runs of in that have data keep nothing of it. -errno from reading
 * the region, -ECANCELED.
 */
int encoder_run(struct encoder *e, const struct encode_how *how, struct encode_memory *memory,
		const struct chunk_plan *in, struct chunk_plan *out, uint8_t *buffer,
		struct encode_result *result);

#endif
