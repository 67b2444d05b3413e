// SPDX-License-Identifier: MIT
/*
 * A stream's share of a round: chunk by chunk, what is pending is looked at, described and sent.
 *
 * Theory of operation
 *   The tracker has re-armed every pending page before this begins (scan first, then read): a page
 *   that changes while it is looked at or sent is reported by the next scan and goes again.
 *
 *   Each page is looked at once (page_reader.h): zero, hole or data. A chunk's pages of one kind
 *   that lie together are a run. Usually a chunk is one frame; under a bandwidth limit it is cut
 *   into frames of a few milliseconds each, so that the limit is smooth. Frames of one chunk hold
 *   different pages and go on one stream.
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

/* Fills s->kinds for the chunk. */
static int look_at_chunk(struct stream *s, const struct scheduler_chunk *c)
{
	uint32_t end;
	bool set;
	int err = 0;

	for (uint32_t at = 0; !err && at < c->pages; at = end) {
		end = bit_run(c->bits, at, c->pages, &set);
		if (set)
			err = page_reader_classify(&s->source->reader, c->region,
						   c->first_page + at, end - at, s->kinds + at,
						   s->scratch);
		else
			memset(s->kinds + at, c->rest_is_hole ? PAGE_HOLE : PAGE_NOT_SENT,
			       end - at);
	}
	return err;
}

/* Remembers which pages of the chunk are about to be sent with content of the file. */
static void note_populated(struct stream *s, const struct scheduler_chunk *c)
{
	bool exact = page_reader_sees_holes(&s->source->reader, c->region);
	uint64_t populated[SCHEDULER_CHUNK_WORDS] = { 0 };

	for (uint32_t i = 0; i < c->pages; i++)
		if (s->kinds[i] == PAGE_RAW || (exact && s->kinds[i] == PAGE_ZERO))
			populated[i / 64] |= 1ull << (i % 64);
	scheduler_looked_at(&s->source->scheduler, c, populated);
}

/* A frame being put together from s->kinds. */
struct builder {
	struct wire_frame frame;
	uint32_t slices;
	uint64_t raw, zero, hole; /* bytes */
};

static void add_run(struct stream *s, struct builder *b, const struct scheduler_chunk *c,
		    uint32_t page, uint32_t pages, uint8_t kind)
{
	static const uint8_t encodings[] = {
		[PAGE_RAW] = WIRE_ENC_RAW, [PAGE_ZERO] = WIRE_ENC_ZERO, [PAGE_HOLE] = WIRE_ENC_HOLE
	};
	uint32_t bytes = pages * PAGE_BYTES;
	struct wire_run run = { .page = (uint16_t)page,
				.pages = (uint16_t)pages,
				.encoding = encodings[kind] };

	if (kind == PAGE_RAW) {
		run.length = bytes;
		s->slices[b->slices++] =
			(struct tx_slice){ .offset = (c->first_page + page) << PAGE_SHIFT,
					   .length = bytes };
		b->raw += bytes;
	} else if (kind == PAGE_ZERO) {
		b->zero += bytes;
	} else {
		b->hole += bytes;
	}
	wire_put_run(s->head + WIRE_FRAME_SIZE + b->frame.count++ * WIRE_RUN_SIZE, &run);
}

/* Puts runs from *at on into one frame of at most max raw bytes (or one page). */
static void build_frame(struct stream *s, struct builder *b, const struct scheduler_chunk *c,
			uint32_t *at, uint64_t max)
{
	*b = (struct builder){ .frame = { .type = WIRE_PAGES,
					  .region = (uint16_t)c->region->index,
					  .offset = c->first_page << PAGE_SHIFT } };
	while (*at < c->pages) {
		uint8_t kind = s->kinds[*at];
		uint32_t end = *at + 1, most = CHUNK_PAGES;

		if (kind == PAGE_RAW) {
			uint64_t left = max > b->raw ? (max - b->raw) >> PAGE_SHIFT : 0;

			if (!left && b->raw)
				break;
			most = left ? (uint32_t)left : 1;
		}
		while (end < c->pages && s->kinds[end] == kind && end - *at < most)
			end++;
		if (kind != PAGE_NOT_SENT)
			add_run(s, b, c, *at, end - *at, kind);
		*at = end;
	}
	b->frame.length = b->frame.count * WIRE_RUN_SIZE + (uint32_t)b->raw;
	wire_put_frame(s->head, &b->frame);
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

static int send_chunk(struct stream *s, const struct scheduler_chunk *c)
{
	uint32_t at = 0;
	int err = look_at_chunk(s, c);

	if (!err)
		note_populated(s, c);
	while (!err && at < c->pages) {
		size_t head_len;
		struct builder b;

		build_frame(s, &b, c, &at, frame_max(s->source));
		if (!b.frame.count)
			break;
		head_len = WIRE_FRAME_SIZE + b.frame.count * WIRE_RUN_SIZE;
		err = stream_pace(s, head_len + b.raw);
		if (!err)
			err = stream_relay(s);
		if (!err)
			err = stream_frame(s, s->head, head_len, c->region, s->slices, b.slices,
					   true);
		if (err)
			break;
		count_add(&s->counts.pages, (b.raw + b.zero + b.hole) >> PAGE_SHIFT);
		count_add(&s->counts.raw_bytes, b.raw);
		count_add(&s->counts.zero_bytes, b.zero);
		count_add(&s->counts.hole_bytes, b.hole);
	}
	return err;
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
