// SPDX-License-Identifier: MIT
/*
 * The set of missing pages on its way: from the source at the switch-over, which a pre-copy's
 * destination writes into the file of IPC_MISSING, and back from there to whoever serves.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "dataplane/destination/destination_internal.h"
#include "dataplane/postcopy/postcopy.h"
#include "dataplane/source/scheduler.h"
#include "dataplane/transport/wire.h"
#include "lib/base/cleanup.h"

#define READ_AHEAD (64u * 1024)

/* The file, once transhipd has given it; NULL before. */
static struct page_set *handover_of(struct stream *st)
{
	struct destination *d = st->d;
	SCOPED_LOCK(&d->lock);

	return st->index == 0 && d->handover.words && !d->handed_over ? &d->handover : NULL;
}

int postcopy_take_missing(struct stream *st, const struct wire_frame *f)
{
	const struct region *r = &st->d->s->regions[f->region];
	struct page_set *s = handover_of(st);
	uint64_t words[PAGE_SET_WORDS], chunk = f->offset >> CHUNK_SHIFT, pages = 0;
	const uint8_t *data;
	int err;

	/* small frames, many of them */
	st->rx.ahead = READ_AHEAD;
	err = s ? rx_take(&st->rx, f->length, &data) : -EBADMSG;
	for (uint32_t i = 0; !err && i < f->count; i++, chunk++) {
		err = wire_get_missing(words, data + (size_t)i * WIRE_MISSING_SIZE, r,
				       chunk << CHUNK_SHIFT);
		if (!err)
			pages += page_set_put(s, f->region, chunk, words);
	}
	st->d->handover_pages += pages;
	return err;
}

int postcopy_take_missing_end(struct stream *st, const struct wire_frame *f)
{
	struct wire_frame ack = { .type = WIRE_ACK, .of = WIRE_MISSING_END, .extent = f->extent };
	uint8_t bytes[WIRE_FRAME_SIZE];
	struct page_set *s = handover_of(st);

	if (!s || st->d->handover_pages != f->extent)
		return -EBADMSG;
	pthread_mutex_lock(&st->d->lock);
	st->d->handed_over = true;
	pthread_mutex_unlock(&st->d->lock);
	destination_notify(st->d);
	wire_put_frame(bytes, &ack);
	return stream_answer(st, bytes, sizeof(bytes));
}

/* --- sending ---------------------------------------------------------------------------------- */

/* Frames go in batches: a chunk far from the next is a frame of its own. */
#define BATCH_BYTES (64u * 1024)
#define ROOM_BYTES  (WIRE_FRAME_SIZE + WIRE_MISSING_SIZE) /* for a frame with one chunk */

struct postcopy_naming {
	int fd;
	const bool *stop;
	uint64_t pages;
	struct wire_frame f; /* being filled, at `head` of bytes; count 0: none */
	size_t head, used;
	uint8_t bytes[BATCH_BYTES];
};

int postcopy_naming_new(struct postcopy_naming **s, int fd, const bool *stop)
{
	*s = malloc(sizeof(**s));
	if (!*s)
		return -ENOMEM;
	(*s)->fd = fd;
	(*s)->stop = stop;
	(*s)->f.count = 0;
	(*s)->pages = (*s)->used = 0;
	return 0;
}

void postcopy_naming_free(struct postcopy_naming *s)
{
	free(s);
}

static int send_batch(struct postcopy_naming *s)
{
	for (size_t at = 0; at < s->used;) {
		ssize_t n;

		if (s->stop && __atomic_load_n(s->stop, __ATOMIC_RELAXED))
			return -ECANCELED;
		n = send(s->fd, s->bytes + at, s->used - at, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return -errno;
		at += n < 0 ? 0 : (size_t)n;
	}
	s->used = 0;
	return 0;
}

static void end_frame(struct postcopy_naming *s)
{
	if (!s->f.count)
		return;
	s->f.length = s->f.count * WIRE_MISSING_SIZE;
	wire_put_frame(s->bytes + s->head, &s->f);
	s->f.count = 0;
}

/* A frame's chunks follow one another. */
static bool continues(const struct postcopy_naming *s, uint32_t region, uint64_t chunk)
{
	return s->f.count && s->f.count < WIRE_MISSING_MAX && s->f.region == region &&
	       (s->f.offset >> CHUNK_SHIFT) + s->f.count == chunk;
}

static void begin_frame(struct postcopy_naming *s, uint32_t region, uint64_t chunk)
{
	end_frame(s);
	s->f = (struct wire_frame){ .type = WIRE_MISSING,
				    .region = (uint16_t)region,
				    .offset = chunk << CHUNK_SHIFT };
	s->head = s->used;
	s->used += WIRE_FRAME_SIZE;
}

int postcopy_name(struct postcopy_naming *s, uint32_t region, uint64_t chunk,
		  const uint64_t words[PAGE_SET_WORDS])
{
	uint32_t pages = page_mask_count(words);

	if (!pages)
		return 0;
	if (sizeof(s->bytes) - s->used < ROOM_BYTES) {
		int err;

		end_frame(s);
		err = send_batch(s);
		if (err)
			return err;
	}
	if (!continues(s, region, chunk))
		begin_frame(s, region, chunk);
	wire_put_missing(s->bytes + s->used, words);
	s->used += WIRE_MISSING_SIZE;
	s->f.count++;
	s->pages += pages;
	return 0;
}

int postcopy_naming_end(struct postcopy_naming *s, uint64_t *pages)
{
	struct wire_frame end = { .type = WIRE_MISSING_END, .extent = s->pages };
	int err = 0;

	end_frame(s);
	if (sizeof(s->bytes) - s->used < WIRE_FRAME_SIZE)
		err = send_batch(s);
	if (err)
		return err;
	wire_put_frame(s->bytes + s->used, &end);
	s->used += WIRE_FRAME_SIZE;
	*pages = s->pages;
	return send_batch(s);
}

int postcopy_name_set(int fd, const struct page_set *set, const bool *stop, uint64_t *pages)
{
	struct postcopy_naming *s;
	uint64_t words[PAGE_SET_WORDS], chunks = page_set_chunks(set), chunk, n;
	int err = postcopy_naming_new(&s, fd, stop);

	for (n = page_set_next(set, 0); !err && n < chunks; n = page_set_next(set, n + 1)) {
		uint32_t region = page_set_region(set, n, &chunk);

		memcpy(words, set->words + n * PAGE_SET_WORDS, sizeof(words));
		err = postcopy_name(s, region, chunk, words);
	}
	if (!err)
		err = postcopy_naming_end(s, pages);
	postcopy_naming_free(s);
	return err;
}

/* Names a run of chunks, numbered through, of region i. The last may have fewer words. */
static int name_run(const struct scheduler *s, uint32_t i, uint64_t first, uint64_t count,
		    struct postcopy_naming *n)
{
	const struct bitmap *pending = &s->pending[i];
	uint64_t at = (first - s->first_chunk[i]) * SCHEDULER_CHUNK_WORDS;
	int err = 0;

	for (uint64_t k = 0; !err && k < count; k++, at += SCHEDULER_CHUNK_WORDS) {
		uint64_t words[PAGE_SET_WORDS] = { 0 }, left = (pending->bits + 63) / 64 - at;

		memcpy(words, pending->words + at,
		       (left < PAGE_SET_WORDS ? left : PAGE_SET_WORDS) * sizeof(*words));
		err = postcopy_name(n, i, first + k - s->first_chunk[i], words);
	}
	return err;
}

int postcopy_name_pending(int fd, const struct scheduler *s, const bool *stop, uint64_t *pages)
{
	struct postcopy_naming *n;
	uint64_t first, count;
	int err = postcopy_naming_new(&n, fd, stop);

	for (uint32_t i = 0; !err && i < s->nregions; i++) {
		uint64_t at = s->first_chunk[i], limit = s->first_chunk[i + 1];

		for (; !err && bitmap_next_run(&s->dirty_chunks, at, limit, &first, &count);
		     at = first + count)
			err = name_run(s, i, first, count, n);
	}
	if (!err)
		err = postcopy_naming_end(n, pages);
	postcopy_naming_free(n);
	return err;
}
