// SPDX-License-Identifier: MIT
/*
 * A stream's share of a round: chunk by chunk, what is pending is looked at, described and sent.
 *
 * Theory of operation
 *   The tracker has re-armed every pending page before this begins (scan first, then read): a page
 *   that changes while it is looked at or sent is reported by the next scan and goes again.
 *
 *   Each page is looked at once (source_look.c): zero, hole or data. A chunk's pages of one kind
 *   that lie together are a run of its plan (chunk_plan.h). Usually a chunk is one frame; under a
 *   bandwidth limit it is cut into frames of a few milliseconds each, so that the limit is smooth.
 *   Frames of one chunk hold different pages and go on one stream.
 */
#include <errno.h>
#include <string.h>

#include "dataplane/source.h"

/* Headers of never-populated ranges sent at once. */
#define HOLES_AT_ONCE 64

/* Under a limit a frame holds about this much of a second, and at least FRAME_MIN bytes. */
#define FRAMES_PER_SECOND 200
#define FRAME_MIN	  (64u * 1024)

static int send_holes(struct stream *s)
{
	struct scheduler_holes h[HOLES_AT_ONCE];
	uint8_t heads[HOLES_AT_ONCE * WIRE_FRAME_SIZE];
	uint32_t n;
	int err = 0;

	while (!err && (n = scheduler_next_holes(&s->source->scheduler, h, HOLES_AT_ONCE))) {
		uint64_t bytes = 0;

		for (uint32_t i = 0; i < n; i++) {
			struct wire_frame f = {
				.type = WIRE_HOLES,
				.region = (uint16_t)h[i].region->index,
				.offset = h[i].offset,
				.extent = h[i].length,
			};

			wire_put_frame(heads + (size_t)i * WIRE_FRAME_SIZE, &f);
			bytes += h[i].length;
		}
		err = stream_pace(s, n * WIRE_FRAME_SIZE);
		if (!err)
			err = stream_frame(s, heads, n * WIRE_FRAME_SIZE, NULL, NULL, 0, true);
		count_add(&s->counts.pages, bytes >> PAGE_SHIFT);
		count_add(&s->counts.hole_bytes, bytes);
	}
	return err;
}

/* The most guest bytes in one frame at the present limit. */
static uint64_t frame_max(struct source *src)
{
	uint64_t rate = token_bucket_rate(&src->bucket);
	uint64_t most = rate / FRAMES_PER_SECOND & ~(uint64_t)(PAGE_BYTES - 1);

	if (!rate || most > CHUNK_BYTES)
		return CHUNK_BYTES;
	return most < FRAME_MIN ? FRAME_MIN : most;
}

static void count_frame(struct stream_counts *n, const struct plan_frame *f)
{
	count_add(&n->pages, f->pages);
	count_add(&n->raw_bytes, f->in[WIRE_ENC_RAW]);
	count_add(&n->zero_bytes, f->in[WIRE_ENC_ZERO]);
	count_add(&n->hole_bytes, f->in[WIRE_ENC_HOLE]);
}

static int send_plan(struct stream *s, const struct chunk_plan *p)
{
	struct plan_frame *f = &s->frame;
	struct plan_cursor at = { 0 };
	int err = 0;

	count_add(&s->counts.pages, p->same);
	count_add(&s->counts.same_bytes, (uint64_t)p->same << PAGE_SHIFT);
	while (!err && plan_next_frame(p, &at, frame_max(s->source), f)) {
		err = stream_pace(s, f->head_len + f->payload);
		if (!err)
			err = stream_relay(s);
		if (!err)
			err = stream_frame(s, f->head, f->head_len, p->region, f->slice, f->slices,
					   true);
		if (!err)
			count_frame(&s->counts, f);
	}
	return err;
}

static int send_chunk(struct stream *s, const struct scheduler_chunk *c)
{
	struct chunk_look look;
	int err = source_look_at_chunk(s->source, c, &look, s->scratch);

	if (err)
		return err;
	plan_from_kinds(&s->plan, c, look.kinds, look.snapshot);
	return send_plan(s, &s->plan);
}

int stream_send_round(struct stream *s)
{
	struct wire_frame end = { .type = WIRE_ROUND_END, .number = s->source->round };
	struct scheduler_chunk c;
	int err = send_holes(s);

	while (!err && scheduler_next(&s->source->scheduler, &c))
		err = source_stopping(s->source) ? -ECANCELED : send_chunk(s, &c);
	return err ? err : stream_barrier(s, &end);
}
