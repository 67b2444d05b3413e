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

#include "dataplane/source/source.h"
#include "lib/base/clock.h"

/* Headers of never-populated ranges sent at once. */
#define HOLES_AT_ONCE 64

/* Under a limit a frame holds about this much of a second, and at least FRAME_MIN bytes. */
#define FRAMES_PER_SECOND 200
#define FRAME_MIN	  (64u * 1024)

/* While a stream waits for encoders the policy may come to think that it should not. */
#define WAIT_NS (20 * NSEC_PER_MSEC)

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
	count_add(&n->zstd_in_bytes, f->in[WIRE_ENC_ZSTD]);
	count_add(&n->zstd_out_bytes, f->out[WIRE_ENC_ZSTD]);
	count_add(&n->delta_in_bytes, f->in[WIRE_ENC_DELTA]);
	count_add(&n->delta_out_bytes, f->out[WIRE_ENC_DELTA]);
}

static int send_frame(struct stream *s, const struct chunk_plan *p, const struct plan_frame *f)
{
	int err = stream_pace(s, f->head_len + f->payload);

	if (!err)
		err = stream_relay(s);
	if (!err)
		err = stream_frame(s, f->head, f->head_len, p->region, f->slice, f->slices, true);
	if (!err)
		count_frame(&s->counts, f);
	return err;
}

static void count_same(struct stream *s, const struct chunk_plan *p)
{
	count_add(&s->counts.pages, p->same);
	count_add(&s->counts.same_bytes, (uint64_t)p->same << PAGE_SHIFT);
}

static int send_plan(struct stream *s, const struct chunk_plan *p)
{
	struct plan_cursor at = { 0 };
	int err = 0;

	count_same(s, p);
	while (!err && plan_next_frame(p, &at, frame_max(s->source), &s->frame))
		err = send_frame(s, p, &s->frame);
	return err;
}

/* A frame, and how long the stream did not get on for the link's sake. */
static int send_timed(struct stream *s, const struct chunk_plan *p, const struct plan_frame *f)
{
	uint64_t cpu = clock_of(CLOCK_THREAD_CPUTIME_ID), start = clock_ns(), passed;
	int err = send_frame(s, p, f);

	passed = clock_ns() - start;
	cpu = clock_of(CLOCK_THREAD_CPUTIME_ID) - cpu;
	count_add(&s->counts.sending_ns, passed);
	count_add(&s->counts.blocked_ns, passed > cpu ? passed - cpu : 0);
	return err;
}

static int plan_chunk(struct source *src, const struct scheduler_chunk *c, struct chunk_plan *plan,
		      uint8_t *scratch)
{
	struct chunk_look look;
	int err = source_look_at_chunk(src, c, &look, scratch);

	if (!err)
		plan_from_kinds(plan, c, look.kinds, look.snapshot);
	return err;
}

int source_next_plan(struct source *src, struct chunk_plan *plan, uint8_t *scratch)
{
	struct scheduler_chunk c;
	int err;

	/* Whoever postpones a chunk goes on asking: so none that waits is left when all end. */
	do {
		if (!scheduler_next(&src->scheduler, &c))
			return 0;
		err = source_stopping(src) ? -ECANCELED : plan_chunk(src, &c, plan, scratch);
	} while (err > 0);
	return err ? err : 1;
}

/* Chunks as they are, one after the other. */
static int send_chunks(struct stream *s)
{
	int found;

	while ((found = source_next_plan(s->source, &s->plan, s->scratch)) > 0) {
		int err = send_plan(s, &s->plan);

		if (err)
			return err;
	}
	return found;
}

static int send_encoded(struct stream *s, struct encoded *e)
{
	struct plan_cursor at = { 0 };
	int err = 0;

	count_same(s, &e->plan);
	while (!err && plan_next_frame(&e->plan, &at, frame_max(s->source), &s->frame))
		err = send_timed(s, &e->plan, &s->frame);
	encode_pool_give_back(s->source->compress.pool, e);
	return err;
}

/* What encoders have ready, all there is. */
static int send_ready(struct stream *s)
{
	struct encoded *e;
	int err = 0;

	while (!err && encode_pool_take(s->source->compress.pool, &e))
		err = send_encoded(s, e);
	return err;
}

/*
 * On a slow link a chunk takes long, and encoders would stand still behind it: it goes in parts,
 * and what is ready goes between them. (Other chunks, so in any order.)
 */
static uint64_t part_max(struct source *src)
{
	uint64_t rate = __atomic_load_n(&src->compress.epochs.link_rate, __ATOMIC_RELAXED);
	uint64_t part = rate / FRAMES_PER_SECOND, most = frame_max(src);

	part = part < FRAME_MIN ? FRAME_MIN : part;
	return rate && part < most ? part : most;
}

static int send_in_parts(struct stream *s, const struct chunk_plan *p)
{
	struct plan_cursor at = { 0 };
	int err = 0;

	count_same(s, p);
	while (!err && plan_next_frame(p, &at, part_max(s->source), &s->frame)) {
		err = send_timed(s, p, &s->frame);
		if (!err)
			err = send_ready(s);
	}
	return err;
}

static int send_raw(struct stream *s, const struct chunk_plan *p)
{
	source_compress_forget(s->source, p);
	return send_in_parts(s, p);
}

static int send_raw_chunk(struct stream *s)
{
	struct source *src = s->source;
	int found = source_next_plan(src, &s->plan, s->scratch);

	if (!found)
		encode_pool_exhausted(src->compress.pool);
	if (found <= 0)
		return found;
	return send_raw(s, &s->plan);
}

/* A chunk that encoders are to have, unless there is nothing in it for them. */
static int look_for_encoders(struct stream *s)
{
	struct encode_pool *pool = s->source->compress.pool;
	int found = source_next_plan(s->source, &s->plan, s->scratch);

	if (!found)
		encode_pool_exhausted(pool);
	if (found <= 0)
		return found;
	if (!plan_has_data(&s->plan)) {
		source_compress_forget(s->source, &s->plan); /* the destination has zeros now */
		return send_plan(s, &s->plan);
	}
	encode_pool_offer(pool, s->index, &s->plan);
	return 0;
}

/* Beside encoders: what they have ready first; see encode_pool.h. */
static int send_beside_encoders(struct stream *s)
{
	struct encode_pool *pool = s->source->compress.pool;
	int err = 0;

	while (!err) {
		struct encoded *e;

		source_compress_tick(s->source);
		if (source_stopping(s->source))
			return -ECANCELED;
		switch (err = encode_pool_next(pool, s->index, &e)) {
		case ENCODE_READY:
			err = send_encoded(s, e);
			break;
		case ENCODE_RAW:
			err = send_raw_chunk(s);
			break;
		case ENCODE_LOOK:
			err = look_for_encoders(s);
			break;
		case ENCODE_BACK:
			err = send_raw(s, &s->plan);
			break;
		case ENCODE_WAIT:
			err = stream_wait(s, WAIT_NS);
			break;
		case ENCODE_END:
			return 0;
		}
	}
	return err;
}

int stream_send_round(struct stream *s)
{
	struct wire_frame end = { .type = WIRE_ROUND_END, .number = s->source->round };
	int err = send_holes(s);

	if (!err)
		err = s->source->compress.pool ? send_beside_encoders(s) : send_chunks(s);
	return err ? err : stream_barrier(s, &end);
}
