// SPDX-License-Identifier: MIT
/* The receiving end of a bench's stream; see bench.h. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "dataplane/bench/bench.h"
#include "dataplane/transport/wire.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"

/* How far to read ahead while frames are small; as a migration's destination. */
#define READ_AHEAD   (64u * 1024)
#define HASHES_BATCH 1024u
#define SPOILED	     0xa5

static int begin_placing(struct bench_stream *st, char *why, size_t len)
{
	static const enum place_kind kinds[] = { PLACE_AUTO, PLACE_MAP, PLACE_PWRITE };
	const struct setup *s = st->bench->s;
	int err = place_init(&st->place, &st->region, 1, kinds[s->bench.place], s->config.thp, why,
			     len);

	st->place.encodings = s->config.encodings;
	return err;
}

int bench_rx_init(struct bench_stream *st, char *why, size_t len)
{
	const struct region *r = &st->region;
	int err = rx_reader_init(&st->rx, -1);

	/* Resident: the file's pages exist and our mapping has them. */
	if (!err && !st->bench->s->bench.fresh && madvise(r->map, r->size, MADV_POPULATE_WRITE))
		err = errno == EINVAL ? 0 : -errno;
	if (!err)
		err = begin_placing(st, why, len);
	if (!err)
		err = placer_init(&st->placer, &st->place, &st->rx);
	return err;
}

void bench_rx_release(struct bench_stream *st)
{
	placer_release(&st->placer);
	place_release(&st->place);
	rx_reader_release(&st->rx);
}

/* A lap begins: the window's memory is given back, as if it had never been used. */
static int refresh(struct bench_stream *st)
{
	const struct region *r = &st->region;
	uint64_t start = clock_of(CLOCK_THREAD_CPUTIME_ID);
	char why[sizeof(st->bench->ready.rx_reason)];
	int err = 0;

	if (fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->file_offset,
		      (off_t)r->size))
		err = -errno;
	place_release(&st->place);
	if (!err)
		err = begin_placing(st, why, sizeof(why));
	bench_add(&st->counts.aside_ns, clock_of(CLOCK_THREAD_CPUTIME_ID) - start);
	return err;
}

static int take_pages(struct bench_stream *st, const struct wire_frame *f)
{
	const struct setup *s = st->bench->s;
	const struct place_counters *c = &st->placer.counters;
	int err = 0;

	/* What is read ahead of a large payload would have to be copied once more. */
	st->rx.ahead = f->length <= READ_AHEAD ? READ_AHEAD : 0;
	/* compressed ones come in any order: their laps end with VERIFY_END */
	if (s->bench.fresh && !s->config.encodings && f->offset < st->next)
		err = refresh(st);
	/* the chunk is begun: from its end on, lower offsets are another lap */
	st->next = f->offset;
	if (!err)
		err = place_pages(&st->placer, f);
	__atomic_store_n(&st->counts.bytes, c->raw_bytes + c->zstd_in_bytes, __ATOMIC_RELAXED);
	return err;
}

static int acknowledge(struct bench_stream *st, const struct wire_frame *ack)
{
	uint8_t bytes[WIRE_FRAME_SIZE], *p = bytes;
	size_t left = sizeof(bytes);

	wire_put_frame(bytes, ack);
	while (left) {
		ssize_t n = send(st->fd, p, left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		left -= (size_t)n;
	}
	return 0;
}

static int take_round_end(struct bench_stream *st, const struct wire_frame *f)
{
	struct wire_frame ack = { .type = WIRE_ACK, .of = WIRE_ROUND_END, .number = f->number };

	if (!(f->number & BENCH_PING)) {
		/* a short run's end may come before our own word of its beginning */
		if (f->number - st->run_seen != 1)
			return -EBADMSG;
		st->run_seen = f->number;
		bench_stream_done(st);
	}
	return acknowledge(st, &ack);
}

static int take_verify(struct bench_stream *st, const struct wire_frame *f)
{
	const struct region *r = &st->region;
	uint64_t at = f->offset;

	for (uint32_t done = 0; done < f->count;) {
		uint32_t n = f->count - done < HASHES_BATCH ? f->count - done : HASHES_BATCH;
		const uint8_t *wanted;
		int err = rx_take(&st->rx, n * WIRE_HASH_SIZE, &wanted);

		for (uint32_t i = 0; !err && i < n; i++, at += CHUNK_BYTES) {
			uint64_t theirs, ours;

			memcpy(&theirs, wanted + i * WIRE_HASH_SIZE, sizeof(theirs));
			err = place_hash(&st->placer, r, at, CHUNK_BYTES, &ours);
			st->compared++;
			st->unequal += !err && le64toh(theirs) != ours;
			if (!err)
				memset(r->map + at, SPOILED, CHUNK_BYTES);
		}
		if (err)
			return err;
		done += n;
	}
	return 0;
}

static int take_verify_end(struct bench_stream *st, const struct wire_frame *f)
{
	struct wire_frame ack = { .type = WIRE_ACK, .of = WIRE_VERIFY_END, .extent = st->unequal };
	const struct setup *s = st->bench->s;
	int err = s->bench.fresh && s->config.encodings ? refresh(st) : 0;

	(void)f;
	st->unequal = 0;
	return err ? err : acknowledge(st, &ack);
}

static int (*const takers[])(struct bench_stream *st, const struct wire_frame *f) = {
	[WIRE_PAGES] = take_pages,
	[WIRE_ROUND_END] = take_round_end,
	[WIRE_VERIFY] = take_verify,
	[WIRE_VERIFY_END] = take_verify_end,
};

int bench_rx_serve(struct bench_stream *st)
{
	st->rx.fd = st->fd;
	for (;;) {
		struct wire_frame f;
		const uint8_t *head;
		int err = rx_take(&st->rx, WIRE_FRAME_SIZE, &head);

		__atomic_store_n(&st->counts.wire_bytes, st->rx.bytes, __ATOMIC_RELAXED);
		if (!err)
			err = wire_get_frame(&f, head, &st->region, 1);
		if (err)
			return err;
		if (f.type == WIRE_BYE)
			return rx_end(&st->rx);
		if (f.type >= sizeof(takers) / sizeof(takers[0]) || !takers[f.type])
			return -EBADMSG;
		err = takers[f.type](st, &f);
		if (err)
			return err;
	}
}
