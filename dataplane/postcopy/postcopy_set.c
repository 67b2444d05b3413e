// SPDX-License-Identifier: MIT
/*
 * The set of missing pages on its way: from the source at the switch-over, which a pre-copy's
 * destination writes into the file of IPC_MISSING, and back from there to whoever serves.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "dataplane/destination/destination_internal.h"
#include "dataplane/postcopy/postcopy.h"
#include "dataplane/transport/wire.h"
#include "lib/base/cleanup.h"

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
	uint64_t words[PAGE_SET_WORDS], chunk = f->offset >> CHUNK_SHIFT;
	const uint8_t *data;
	int err = s ? rx_take(&st->rx, f->length, &data) : -EBADMSG;

	for (uint32_t i = 0; !err && i < f->count; i++, chunk++) {
		err = wire_get_missing(words, data + (size_t)i * WIRE_MISSING_SIZE, r,
				       chunk << CHUNK_SHIFT);
		if (!err)
			page_set_add(page_set_chunk(s, f->region, chunk), words, words);
	}
	return err;
}

int postcopy_take_missing_end(struct stream *st, const struct wire_frame *f)
{
	struct wire_frame ack = { .type = WIRE_ACK, .of = WIRE_MISSING_END, .extent = f->extent };
	uint8_t bytes[WIRE_FRAME_SIZE];
	struct page_set *s = handover_of(st);

	if (!s || page_set_count(s) != f->extent)
		return -EBADMSG;
	pthread_mutex_lock(&st->d->lock);
	st->d->handed_over = true;
	st->d->handover_pages = f->extent;
	pthread_mutex_unlock(&st->d->lock);
	destination_notify(st->d);
	wire_put_frame(bytes, &ack);
	return stream_answer(st, bytes, sizeof(bytes));
}

/* --- sending ---------------------------------------------------------------------------------- */

struct sending {
	int fd;
	const bool *stop;
	uint64_t pages;
	struct wire_frame f; /* being filled; count 0: none */
	uint8_t bytes[WIRE_FRAME_SIZE + WIRE_MISSING_MAX * WIRE_MISSING_SIZE];
};

static int send_all(const struct sending *s, size_t length)
{
	for (size_t at = 0; at < length;) {
		ssize_t n;

		if (s->stop && __atomic_load_n(s->stop, __ATOMIC_RELAXED))
			return -ECANCELED;
		n = send(s->fd, s->bytes + at, length - at, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return -errno;
		at += n < 0 ? 0 : (size_t)n;
	}
	return 0;
}

static int flush(struct sending *s)
{
	int err;

	if (!s->f.count)
		return 0;
	s->f.length = s->f.count * WIRE_MISSING_SIZE;
	wire_put_frame(s->bytes, &s->f);
	err = send_all(s, WIRE_FRAME_SIZE + s->f.length);
	s->f.count = 0;
	return err;
}

/* The chunk follows the frame's last one. */
static int add_chunk(struct sending *s, uint32_t region, uint64_t chunk, const uint64_t *words)
{
	uint64_t next = (s->f.offset >> CHUNK_SHIFT) + s->f.count;
	int err = 0;

	if (s->f.count &&
	    (s->f.region != region || next != chunk || s->f.count == WIRE_MISSING_MAX))
		err = flush(s);
	if (err)
		return err;
	if (!s->f.count)
		s->f = (struct wire_frame){ .type = WIRE_MISSING,
					    .region = (uint16_t)region,
					    .offset = chunk << CHUNK_SHIFT };
	wire_put_missing(s->bytes + WIRE_FRAME_SIZE + (size_t)s->f.count * WIRE_MISSING_SIZE,
			 words);
	s->f.count++;
	s->pages += page_mask_count(words);
	return 0;
}

int postcopy_send_set(int fd, const struct page_set *set, const bool *stop, uint64_t *pages)
{
	AUTO_FREE struct sending *s = calloc(1, sizeof(*s));
	uint64_t words[PAGE_SET_WORDS], chunk;
	int err = s ? 0 : -ENOMEM;

	if (err)
		return err;
	s->fd = fd;
	s->stop = stop;
	for (uint64_t n = 0; !err && n < page_set_chunks(set); n++) {
		uint32_t region;

		memcpy(words, set->words + n * PAGE_SET_WORDS, sizeof(words));
		if (!page_mask_count(words))
			continue;
		region = page_set_region(set, n, &chunk);
		err = add_chunk(s, region, chunk, words);
	}
	if (!err)
		err = flush(s);
	if (err)
		return err;
	s->f = (struct wire_frame){ .type = WIRE_MISSING_END, .extent = s->pages };
	wire_put_frame(s->bytes, &s->f);
	*pages = s->pages;
	return send_all(s, WIRE_FRAME_SIZE);
}
