/* SPDX-License-Identifier: MIT */
/*
 * A chunk as it goes to the destination: its pages as runs, and the frames that carry them.
 *
 * Theory of operation
 *   Who looked at a chunk (a stream's thread or an encoder) writes down runs in rising page order.
 *   A run without data of its own is sent from the guest's RAM as it is then; a run with data was
 *   taken from a snapshot and does not change any more. plan_next_frame cuts the runs into frames:
 *   raw pages between any two of them, encoded runs only as wholes.
 *
 *   Pure functions over what they are given: no allocation, no state.
 */
#ifndef TRANSHIP_DATAPLANE_CHUNK_PLAN_H
#define TRANSHIP_DATAPLANE_CHUNK_PLAN_H

#include <stdint.h>

#include "dataplane/source/scheduler.h"
#include "dataplane/transport/tx.h"
#include "dataplane/transport/wire.h"

struct plan_run {
	uint16_t page;	     /* first page, within the chunk */
	uint16_t pages;	     /* at least 1 */
	uint8_t encoding;    /* enum wire_encoding */
	uint32_t length;     /* bytes of its payload */
	const uint8_t *data; /* the payload; NULL: none, or RAW from the region itself */
};

struct chunk_plan {
	const struct region *region;
	uint64_t first_page; /* of the chunk, in the region */
	uint32_t same;	     /* pages that need not be sent: the destination has them */
	uint32_t count;
	struct plan_run runs[WIRE_RUNS_MAX];
};

#define PLAN_HEAD_MAX (WIRE_FRAME_SIZE + WIRE_RUNS_MAX * WIRE_RUN_SIZE)

/* A frame cut from a plan; the buffers of its user. */
struct plan_frame {
	size_t head_len;
	uint32_t runs, slices;
	uint64_t payload;	      /* bytes in slices */
	uint64_t pages;		      /* described, all encodings */
	uint64_t in[WIRE_ENCODINGS];  /* guest bytes by encoding */
	uint64_t out[WIRE_ENCODINGS]; /* their payload */
	struct tx_slice slice[WIRE_RUNS_MAX];
	uint8_t head[PLAN_HEAD_MAX];
};

/* How far a plan has been cut: all zero at first. */
struct plan_cursor {
	uint32_t run;
	uint32_t page; /* pages of that run that are done */
};

/* Begins the plan of c, without runs. */
void plan_begin(struct chunk_plan *p, const struct scheduler_chunk *c);

/* Adds a run of guest pages, or of pages that need no payload, behind those there are. */
void plan_add(struct chunk_plan *p, uint32_t page, uint32_t pages, enum wire_encoding encoding);

/* Adds a run whose payload is data, which must stay until its frame is sent. */
void plan_add_data(struct chunk_plan *p, uint32_t page, uint32_t pages, enum wire_encoding encoding,
		   const void *data, uint32_t length);

/*
 * The runs of pages of equal kind (enum page_kind, one a page of c) as a plan of guest pages, or of
 * the pages of snapshot, a copy of the whole chunk, if that is not NULL.
 */
void plan_from_kinds(struct chunk_plan *p, const struct scheduler_chunk *c, const uint8_t *kinds,
		     const uint8_t *snapshot);

/* Whether any of it goes as it is, which encoders could do something about. */
bool plan_has_data(const struct chunk_plan *p);

/*
 * The next frame with at most max bytes of payload, or one page or encoded run if that is more.
 * False when nothing is left.
 */
bool plan_next_frame(const struct chunk_plan *p, struct plan_cursor *at, uint64_t max,
		     struct plan_frame *f);

#endif
