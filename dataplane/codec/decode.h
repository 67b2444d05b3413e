/* SPDX-License-Identifier: MIT */
/*
 * Compressed runs of pages back into pages; one decoder a stream, its thread's alone.
 *
 * Theory of operation
 *   What comes is from the network. A payload must be exactly one frame of today's zstd format
 *   (no skippable, older or further frame), say how much it expands to, and that must be what the
 *   run's descriptor says; so a decoder writes no more than it has room for and holds no window.
 *   A DELTA must carry zstd's checksum of the result: with another base than the source's it would
 *   expand to something wrong without an error.
 */
#ifndef TRANSHIP_DATAPLANE_DECODE_H
#define TRANSHIP_DATAPLANE_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "dataplane/transport/wire.h"

#define DECODE_BYTES_MAX (WIRE_ENCODED_PAGES_MAX * PAGE_BYTES)

struct decoder {
	void *zstd;	  /* ZSTD_DCtx */
	uint8_t *out;	  /* DECODE_BYTES_MAX, for a caller that has no other place */
	uint8_t *present; /* DECODE_BYTES_MAX, for the present content of a DELTA's pages */
};

/* -ENOMEM. */
int decoder_init(struct decoder *d);
void decoder_release(struct decoder *d);

/* Expands in[0 .. len-1] to exactly out_len bytes at out; -EBADMSG. */
int decode_zstd(struct decoder *d, const uint8_t *in, size_t len, uint8_t *out, size_t out_len);

/*
 * The same with a base of out_len bytes, which out must not overlap. -EBADMSG; -EILSEQ: it is well
 * formed and does not fit this base.
 */
int decode_delta(struct decoder *d, const uint8_t *in, size_t len, const uint8_t *base,
		 uint8_t *out, size_t out_len);

#endif
