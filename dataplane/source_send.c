// SPDX-License-Identifier: MIT
/*
 * A stream's share of a round: chunk by chunk, what is pending is looked at, described and sent.
 *
 * Theory of operation
 *   The tracker has re-armed every pending page before this begins (scan first, then read): a page
 *   that changes while it is looked at or sent is reported by the next scan and goes again.
 *
 *   Each page is looked at once (page_reader.h): zero, hole or data. A chunk's pages of one kind
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

/* The run of equal bits that begins at page: its end, and the bits' value. */
static uint32_t bit_run(const uint64_t *bits, uint32_t page, uint32_t limit, bool *set)
{
	uint32_t end = page;

	*set = bits[page / 64] >> (page % 64) & 1;
	while (end < limit) {
		uint64_t flip = *set ? ~0ull : 0;
		uint64_t differ = (bits[end / 64] ^ flip) >> (end % 64);

		if (differ) {
			end += (uint32_t)__builtin_ctzll(differ);
			break;
		}
		end = (end / 64 + 1) * 64;
	}
	return end < limit ? end : limit;
}

/* Remembers which pages of the chunk are about to be sent with content of the file. */
static void note_populated(struct source *src, const struct scheduler_chunk *c,
			   const uint8_t *kinds)
{
	bool exact = page_reader_sees_holes(&src->reader, c->region);
	uint64_t populated[SCHEDULER_CHUNK_WORDS] = { 0 };

	for (uint32_t i = 0; i < c->pages; i++)
		if (kinds[i] == PAGE_RAW || (exact && kinds[i] == PAGE_ZERO))
			populated[i / 64] |= 1ull << (i % 64);
	scheduler_looked_at(&src->scheduler, c, populated);
}

int source_look_at_chunk(struct source *src, const struct scheduler_chunk *c,
			 uint8_t kinds[CHUNK_PAGES], uint8_t *scratch)
{
	uint32_t end;
	bool set;
	int err = 0;

	for (uint32_t at = 0; !err && at < c->pages; at = end) {
		end = bit_run(c->bits, at, c->pages, &set);
		if (set)
			err = page_reader_classify(&src->reader, c->region, c->first_page + at,
						   end - at, kinds + at, scratch);
		else
			memset(kinds + at, c->rest_is_hole ? PAGE_HOLE : PAGE_NOT_SENT, end - at);
	}
	if (!err)
		note_populated(src, c, kinds);
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
	uint8_t kinds[CHUNK_PAGES];
	int err = source_look_at_chunk(s->source, c, kinds, s->scratch);

	if (err)
		return err;
	plan_from_kinds(&s->plan, c, kinds);
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
