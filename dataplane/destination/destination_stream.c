// SPDX-License-Identifier: MIT
/*
 * One data stream at the destination: decodes its frames and acts on them, in order.
 *
 * Theory of operation
 *   Everything a frame asks for is done before the next one is read, by one thread and system
 *   calls that have returned. So when ROUND_END is read, all pages before it on this stream are
 *   in place, and its acknowledgement may say so: this is the destination's half of the order that
 *   wire.h promises.
 *
 *   Every frame is checked (wire_get_frame, wire_get_runs) before any of it is used. A frame that
 *   is malformed, or out of its place, ends the session: nothing is skipped.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "dataplane/destination/destination_internal.h"
#include "lib/base/cleanup.h"
#include "lib/base/thread.h"

/* How far to read ahead while frames are small. */
#define READ_AHEAD (64u * 1024)
/* Hashes taken from the reader at a time. */
#define HASHES_BATCH 1024u

int stream_answer(struct stream *st, const uint8_t *p, size_t left)
{
	while (left) {
		ssize_t n = send(st->rx.fd, p, left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		left -= (size_t)n;
	}
	return 0;
}

static int acknowledge(struct stream *st, const struct wire_frame *ack)
{
	uint8_t bytes[WIRE_FRAME_SIZE];

	wire_put_frame(bytes, ack);
	return stream_answer(st, bytes, sizeof(bytes));
}

static int take_pages(struct stream *st, const struct wire_frame *f)
{
	/* What is read ahead of a large payload would have to be copied once more. */
	st->rx.ahead = f->length <= READ_AHEAD ? READ_AHEAD : 0;
	return place_pages(&st->placer, f);
}

static int take_postcopy_pages(struct stream *st, const struct wire_frame *f)
{
	st->rx.ahead = f->length <= READ_AHEAD ? READ_AHEAD : 0;
	return postcopy_take_pages(st, f);
}

static int take_holes(struct stream *st, const struct wire_frame *f)
{
	return place_holes(&st->placer, f);
}

static int take_round_end(struct stream *st, const struct wire_frame *f)
{
	struct wire_frame ack = { .type = WIRE_ACK, .of = WIRE_ROUND_END, .number = f->number };

	return acknowledge(st, &ack);
}

static bool state_complete(struct destination *d)
{
	SCOPED_LOCK(&d->lock);
	return d->state_complete;
}

static int take_state(struct stream *st, const struct wire_frame *f)
{
	struct destination *d = st->d;
	const uint8_t *data;
	uint8_t *room;
	int err;

	if (st->index != 0 || state_complete(d))
		return -EBADMSG;
	err = state_hold_append(&d->state, f->length, &room);
	if (!err)
		err = rx_take(&st->rx, f->length, &data);
	if (err)
		return err;
	memcpy(room, data, f->length);
	__atomic_store_n(&d->state_bytes, d->state.used, __ATOMIC_RELAXED);
	return 0;
}

static int take_state_end(struct stream *st, const struct wire_frame *f)
{
	struct wire_frame ack = { .type = WIRE_ACK, .of = WIRE_STATE_END };
	struct destination *d = st->d;

	if (st->index != 0 || state_complete(d) || f->extent != d->state.used)
		return -EBADMSG;
	pthread_mutex_lock(&d->lock);
	d->state_complete = true;
	pthread_mutex_unlock(&d->lock);
	destination_notify(d);
	return acknowledge(st, &ack);
}

static void note_mismatch(struct ipc_verified *v, uint32_t region, uint64_t offset)
{
	if (!v->mismatches || region < v->first_region ||
	    (region == v->first_region && offset < v->first_offset)) {
		v->first_region = region;
		v->first_offset = offset;
	}
	v->mismatches++;
}

static int take_verify(struct stream *st, const struct wire_frame *f)
{
	const struct region *r = &st->d->s->regions[f->region];
	uint64_t at = f->offset;

	for (uint32_t done = 0; done < f->count;) {
		uint32_t n = f->count - done < HASHES_BATCH ? f->count - done : HASHES_BATCH;
		const uint8_t *wanted;
		int err = rx_take(&st->rx, n * WIRE_HASH_SIZE, &wanted);

		for (uint32_t i = 0; !err && i < n; i++, at += CHUNK_BYTES) {
			uint64_t length = r->size - at < CHUNK_BYTES ? r->size - at : CHUNK_BYTES;
			uint64_t theirs, ours;

			memcpy(&theirs, wanted + i * WIRE_HASH_SIZE, sizeof(theirs));
			err = destination_stopping(st->d)
				      ? -ECANCELED
				      : place_hash(&st->placer, r, at, length, &ours);
			if (!err && le64toh(theirs) != ours)
				note_mismatch(&st->verified, f->region, at);
			st->verified.chunks++;
		}
		if (err)
			return err;
		done += n;
	}
	return 0;
}

/* Adds this stream's verification to the others'; the last one makes the result. */
static int join_verification(struct stream *st)
{
	struct destination *d = st->d;
	struct ipc_verified *sum = &d->verify_sum;
	SCOPED_LOCK(&d->lock);

	if (st->verify_ended)
		return -EBADMSG;
	st->verify_ended = true;
	if (st->verified.mismatches) {
		uint64_t others = sum->mismatches;

		note_mismatch(sum, st->verified.first_region, st->verified.first_offset);
		sum->mismatches = others + st->verified.mismatches;
	}
	sum->chunks += st->verified.chunks;
	if (++d->verify_ends < d->s->config.streams)
		return 0;
	d->verify_result = *sum;
	d->verified = true;
	memset(sum, 0, sizeof(*sum));
	d->verify_ends = 0;
	for (uint32_t i = 0; i < d->s->config.streams; i++)
		d->streams[i].verify_ended = false;
	return 0;
}

static int take_verify_end(struct stream *st, const struct wire_frame *f)
{
	struct wire_frame ack = { .type = WIRE_ACK, .of = WIRE_VERIFY_END };
	int err = join_verification(st);

	(void)f;
	if (err)
		return err;
	destination_notify(st->d);
	ack.extent = st->verified.mismatches;
	if (ack.extent) {
		ack.region = (uint16_t)st->verified.first_region;
		ack.offset = st->verified.first_offset;
	}
	memset(&st->verified, 0, sizeof(st->verified));
	return acknowledge(st, &ack);
}

static int take_held(struct stream *st, const struct wire_frame *f)
{
	struct wire_frame ack = { .type = WIRE_ACK, .of = WIRE_HELD };

	(void)f;
	ack.extent = destination_held(st->d);
	return acknowledge(st, &ack);
}

/* One row a frame type; what is not here is not the source's to send. BYE ends the loop. */
static int (*const takers[WIRE_TYPES])(struct stream *st, const struct wire_frame *f) = {
	[WIRE_PAGES] = take_pages,
	[WIRE_HOLES] = take_holes,
	[WIRE_ROUND_END] = take_round_end,
	[WIRE_STATE] = take_state,
	[WIRE_STATE_END] = take_state_end,
	[WIRE_VERIFY] = take_verify,
	[WIRE_VERIFY_END] = take_verify_end,
	[WIRE_HELD] = take_held,
	[WIRE_HASHES] = stream_take_hashes,
	[WIRE_MISSING] = postcopy_take_missing,
	[WIRE_MISSING_END] = postcopy_take_missing_end,
};

static int (*const postcopy_takers[WIRE_TYPES])(struct stream *st, const struct wire_frame *f) = {
	[WIRE_PAGES] = take_postcopy_pages,
	[WIRE_ROUND_END] = take_round_end,
};

static int take_frames(struct stream *st)
{
	const struct setup *s = st->d->s;

	for (;;) {
		int (*const *table)(struct stream *, const struct wire_frame *) =
			destination_is_postcopy(st->d) ? postcopy_takers : takers;
		struct wire_frame f;
		const uint8_t *head;
		int err = rx_take(&st->rx, WIRE_FRAME_SIZE, &head);

		if (!err)
			err = wire_get_frame(&f, head, s->regions, s->nregions);
		if (err)
			return err;
		if (f.type == WIRE_BYE)
			return rx_end(&st->rx);
		if (!table[f.type])
			return -EBADMSG;
		err = table[f.type](st, &f);
		if (err)
			return err;
	}
}

/* Words for what ended a stream. */
static int explain(const struct stream *st, int err, struct failure *f)
{
	switch (err) {
	case -EBADMSG:
		return failure_set(f, err, "data-protocol",
				   "Both hosts should run the same version.",
				   "data stream %u carried something malformed", st->index);
	case -EPROTONOSUPPORT:
		return failure_set(f, err, "data-protocol", NULL,
				   "data stream %u uses an encoding that was not agreed on",
				   st->index);
	case -EILSEQ:
		return failure_set(f, err, "data-protocol",
				   "Report it, with both hosts' logs; --delta-cache 0 avoids it.",
				   "data stream %u: a page's changes do not fit what is here",
				   st->index);
	case -EFBIG:
		return failure_set(f, err, "state-failed", NULL,
				   "the device state is larger than the %llu bytes allowed",
				   (unsigned long long)st->d->state.max);
	case -ENOSPC:
	case -ENOMEM:
	case -EFAULT:
		return failure_set(f, err, "memory",
				   "Free memory or huge pages at the destination.",
				   "the destination has no memory for a page of the guest: %s",
				   /* what recv() says of a mapping whose file cannot grow */
				   strerror(err == -EFAULT ? ENOSPC : -err));
	case -ECONNRESET:
	case -ECONNABORTED:
	case -EPIPE:
	case -ETIMEDOUT:
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		return failure_set(f, err, "data-lost", "Look at the link and at the source's log.",
				   "data stream %u ended before its time: %s", st->index,
				   strerror(-err));
	default:
		return failure_set(f, err, "internal", NULL, "data stream %u: %s", st->index,
				   strerror(-err));
	}
}

int stream_receive(struct stream *st, int fd, struct failure *f)
{
	int err;

	thread_name("rx", st->index);
	if (st->rx.fd != fd)
		st->rx.fd = fd;
	err = take_frames(st);
	return err ? explain(st, err, f) : 0;
}
