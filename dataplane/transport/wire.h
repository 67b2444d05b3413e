/* SPDX-License-Identifier: MIT */
/*
 * The format on the data streams, version 1. docs/protocol.md describes it for other readers.
 *
 * Theory of operation
 *   A stream is a TCP connection from source to destination. It begins with four handshake
 *   messages in which both sides prove that they know the session's secret (wire_hello ...
 *   wire_ready); nothing else is believed before. Then the source sends frames: a fixed header of
 *   WIRE_FRAME_SIZE bytes, then `length` bytes of payload. The destination answers only
 *   ROUND_END, STATE_END, VERIFY_END and HELD, with an ACK frame on the same stream, and HASHES,
 *   with HASHED.
 *
 *   PAGES frames describe one chunk (2 MiB): `count` run descriptors of WIRE_RUN_SIZE bytes, in
 *   rising page order and not overlapping, then the payloads of the runs, one after the other, in
 *   the same order. `length` covers descriptors and payloads.
 *
 *   Order. A chunk is sent at most once a round and any stream may carry it. A round ends with
 *   ROUND_END on every stream, and the next round does not begin before the destination has
 *   acknowledged all of them; it acknowledges when everything before it on that stream is in
 *   place. So a page's newer version never meets an older one on the way, whatever the streams do.
 *
 *   All integers are little-endian. Every decoder gets the number of bytes there are, and checks
 *   every field against the limits here and the regions of the session before it is used.
 */
#ifndef TRANSHIP_DATAPLANE_WIRE_H
#define TRANSHIP_DATAPLANE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "dataplane/ipc.h"
#include "dataplane/region.h"

#define WIRE_MAGIC	    0x50485354u /* "TSHP" */
#define WIRE_VERSION	    1u
#define WIRE_NONCE_SIZE	    32
#define WIRE_PROOF_SIZE	    32 /* HMAC-SHA256 */
#define WIRE_HELLO_SIZE	    64
#define WIRE_CHALLENGE_SIZE 64 /* nonce of the destination, then its proof */
#define WIRE_READY_SIZE	    8
#define WIRE_FRAME_SIZE	    32
#define WIRE_RUN_SIZE	    12
#define WIRE_RUNS_MAX	    CHUNK_PAGES
/* The most a frame's payload can be: descriptors and one whole chunk raw. */
#define WIRE_PAYLOAD_MAX (CHUNK_BYTES + WIRE_RUNS_MAX * WIRE_RUN_SIZE)
#define WIRE_STATE_MAX	 (256u * 1024) /* device state in one STATE frame */
#define WIRE_HASH_SIZE	 8
#define WIRE_HASHES_MAX	 (WIRE_PAYLOAD_MAX / WIRE_HASH_SIZE) /* in one VERIFY frame */
#define WIRE_HASHED_MAX	 (CHUNK_PAGES * WIRE_HASH_SIZE)	     /* the payload of a HASHED frame */
/* MISSING: a bit a page, so many bytes a chunk, and the most chunks of one frame. */
#define WIRE_MISSING_SIZE (CHUNK_PAGES / 8)
#define WIRE_MISSING_MAX  1024u

enum wire_frame_type {
	WIRE_PAGES = 1,	     /* one chunk; see above */
	WIRE_HOLES = 2,	     /* [offset, offset+extent) of the region holds nothing; no payload */
	WIRE_ROUND_END = 3,  /* number = round; every stream; answered with ACK */
	WIRE_STATE = 4,	     /* device state, in order, stream 0 only; payload */
	WIRE_STATE_END = 5,  /* extent = bytes of state in all; stream 0; answered with ACK */
	WIRE_VERIFY = 6,     /* payload: count XXH3-64 hashes of consecutive chunks from offset */
	WIRE_VERIFY_END = 7, /* every stream; answered with ACK whose extent is the mismatches on
			      * this stream, offset/region the first */
	WIRE_ACK = 8, /* destination to source; number and `of` repeat what is acknowledged */
	WIRE_BYE = 9, /* the source is done with this stream; an end without it is a loss */
	WIRE_HELD =
		10, /* what does the destination's RAM hold? answered with ACK: extent = bytes */
	WIRE_HASHES = 11,  /* what are the pages of the chunk at offset? answered with HASHED */
	WIRE_HASHED = 12,  /* destination to source; payload: count page_hash of the chunk's pages,
			   * PAGE_HASH_NONE for zeros; or none: [offset, +extent) holds nothing */
	WIRE_MISSING = 13, /* which pages of count chunks from offset are not up to date; payload */
	WIRE_MISSING_END = 14, /* extent = pages named in all; answered with ACK */
	WIRE_REQUEST = 15, /* post-copy, destination to source: [offset, +extent) is waited for */
	WIRE_TYPES	   /* one more than the last */
};

enum wire_encoding {
	WIRE_ENC_RAW = 0,   /* length = pages * 4096 */
	WIRE_ENC_ZERO = 1,  /* no payload; the page reads as zeros */
	WIRE_ENC_HOLE = 2,  /* no payload; the page is not populated at the source */
	WIRE_ENC_ZSTD = 3,  /* one zstd frame that expands to pages * 4096 */
	WIRE_ENC_DELTA = 4, /* as ZSTD, with the destination's present content as prefix */
};
#define WIRE_ENCODINGS 5
/* The most pages in one ZSTD or DELTA run: what both sides hold of it stays in a core's cache. */
#define WIRE_ENCODED_PAGES_MAX 32

/*
 * Which fields of a frame header a type uses; all others are zero, and a decoder insists on it.
 *   PAGES       region, offset (chunk-aligned), count = runs 1..512, length
 *   HOLES       region, offset, extent > 0 (both page-aligned)
 *   ROUND_END   number = round
 *   STATE       length 1..WIRE_STATE_MAX
 *   STATE_END   extent = bytes of state in all
 *   VERIFY      region, offset (chunk-aligned), count = hashes 1.., length = 8 * count
 *   VERIFY_END  none
 *   ACK         of; number as acknowledged (ROUND_END); of VERIFY_END also extent = mismatches
 *               and, unless that is 0, region and offset (chunk-aligned) of the first
 *   BYE         none
 *   HELD        none; its ACK: extent
 *   HASHES      region, offset (chunk-aligned)
 *   HASHED      region, offset (chunk-aligned); and either count = pages of the chunk, length
 *               = 8 * count, or extent > 0 (page-aligned)
 *   MISSING     region, offset (chunk-aligned), count = chunks 1..WIRE_MISSING_MAX, length
 *               = 64 * count
 *   MISSING_END extent = pages in all; its ACK: extent
 *   REQUEST     region, offset, extent > 0 (page-aligned), all of it in one chunk
 */
struct wire_hello {
	uint32_t version;
	uint8_t id[IPC_ID_SIZE];
	uint16_t stream, streams;
	uint8_t nonce[WIRE_NONCE_SIZE];
};

struct wire_frame {
	uint8_t type; /* enum wire_frame_type */
	uint8_t of;   /* ACK: the type acknowledged */
	uint16_t region;
	uint32_t length; /* payload bytes that follow */
	uint32_t number; /* round, or 0 */
	uint32_t count;	 /* runs or hashes in the payload */
	uint64_t offset; /* bytes in the region */
	uint64_t extent; /* bytes, or a total; see the types */
};

/* A run of pages within the chunk of a PAGES frame. */
struct wire_run {
	uint16_t page;	  /* first page, within the chunk: 0 .. 511 */
	uint16_t pages;	  /* 1 .. 512 */
	uint8_t encoding; /* enum wire_encoding */
	uint32_t length;  /* bytes of its payload */
};

/* Encoders write exactly the SIZE of their message to out. */
void wire_put_missing(uint8_t out[WIRE_MISSING_SIZE], const uint64_t words[CHUNK_PAGES / 64]);
void wire_put_hello(uint8_t out[WIRE_HELLO_SIZE], const struct wire_hello *h);
void wire_put_frame(uint8_t out[WIRE_FRAME_SIZE], const struct wire_frame *f);
void wire_put_run(uint8_t out[WIRE_RUN_SIZE], const struct wire_run *r);

/* Decoders: 0, or -EBADMSG (malformed), -EPROTONOSUPPORT (another version). */
int wire_get_hello(struct wire_hello *h, const uint8_t in[WIRE_HELLO_SIZE]);

/*
 * Decodes a frame header and checks it against the regions (sizes as wire_check wants them):
 * known type, region in range, offset and extent page-aligned and inside it, a PAGES offset
 * chunk-aligned, length and count within the limits of the type and of each other, fields that a
 * type does not use zero. -EBADMSG otherwise.
 */
int wire_get_frame(struct wire_frame *f, const uint8_t in[WIRE_FRAME_SIZE],
		   const struct region *regions, uint32_t nregions);

/*
 * Decodes and checks the count descriptors of a PAGES frame: rising, not overlapping, inside the
 * chunk and the region, known encodings, lengths that fit the encoding and add up to f->length
 * less the descriptors. runs has room for WIRE_RUNS_MAX. -EBADMSG otherwise.
 */
int wire_get_runs(struct wire_run *runs, const uint8_t *in, size_t len, const struct wire_frame *f,
		  const struct region *region);

/* Bits of the chunk at offset from a MISSING frame; -EBADMSG if some lie beyond the region. */
int wire_get_missing(uint64_t words[CHUNK_PAGES / 64], const uint8_t in[WIRE_MISSING_SIZE],
		     const struct region *region, uint64_t offset);

#endif
