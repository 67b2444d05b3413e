// SPDX-License-Identifier: MIT
/* The sending end of a bench's stream; see bench.h. */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <xxhash.h>

#include "dataplane/bench/bench.h"
#include "dataplane/transport/wire.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"

/* Hashes in one VERIFY frame. */
#define HASHES_AT_ONCE 512u

int bench_tx_init(struct bench_stream *st)
{
	struct bench *b = st->bench;
	uint64_t chunks = b->window >> CHUNK_SHIFT;
	int err = b->tx_ops->new (&st->tx, st->fd, &st->region, 1);

	if (err)
		return err;
	st->latency = calloc(1, sizeof(*st->latency));
	st->hashes = calloc(chunks, sizeof(*st->hashes));
	if (!st->latency || !st->hashes)
		return -ENOMEM;
	/* its memory never changes */
	for (uint64_t i = 0; b->s->bench.verify && i < chunks; i++)
		st->hashes[i] =
			htole64(XXH3_64bits(st->region.map + (i << CHUNK_SHIFT), CHUNK_BYTES));
	return bench_encode_init(st);
}

void bench_tx_release(struct bench_stream *st)
{
	if (st->tx)
		st->tx->ops->free(st->tx);
	st->tx = NULL;
	bench_encode_release(st);
	free(st->latency);
	free(st->hashes);
	st->latency = NULL;
	st->hashes = NULL;
}

int bench_tx_put(struct bench_stream *st, const void *head, size_t len,
		 const struct tx_slice *slices, uint32_t count, bool more)
{
	int err = st->tx->ops->frame(st->tx, head, len, &st->region, slices, count, more);

	__atomic_store_n(&st->counts.wire_bytes, st->tx->counters.wire_bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&st->counts.zero_copy_bytes, st->tx->counters.zero_copy_bytes,
			 __ATOMIC_RELAXED);
	return err;
}

/* A header alone, and its acknowledgement. */
static int barrier(struct bench_stream *st, const struct wire_frame *f, struct wire_frame *ack)
{
	uint8_t bytes[WIRE_FRAME_SIZE];
	int err;

	wire_put_frame(bytes, f);
	err = bench_tx_put(st, bytes, sizeof(bytes), NULL, 0, false);
	if (!err)
		err = io_read_full(st->fd, bytes, sizeof(bytes));
	if (!err)
		err = wire_get_frame(ack, bytes, &st->region, 1);
	if (!err && (ack->type != WIRE_ACK || ack->of != f->type || ack->number != f->number))
		err = -EBADMSG;
	return err;
}

/* The next message, of size bytes; it lies in one chunk. */
static int send_message(struct bench_stream *st, uint64_t size)
{
	uint64_t in_chunk = st->at % CHUNK_BYTES;
	struct wire_frame f = { .type = WIRE_PAGES,
				.offset = st->at - in_chunk,
				.count = 1,
				.length = WIRE_RUN_SIZE + (uint32_t)size };
	struct wire_run run = { .page = (uint16_t)(in_chunk >> PAGE_SHIFT),
				.pages = (uint16_t)(size >> PAGE_SHIFT),
				.encoding = WIRE_ENC_RAW,
				.length = (uint32_t)size };
	struct tx_slice slice = { .offset = st->at, .length = size };
	uint8_t head[WIRE_FRAME_SIZE + WIRE_RUN_SIZE];
	int err;

	wire_put_frame(head, &f);
	wire_put_run(head + WIRE_FRAME_SIZE, &run);
	err = bench_tx_put(st, head, sizeof(head), &slice, 1, true);
	st->at = (st->at + size) % st->bench->window;
	bench_add(&st->counts.bytes, size);
	return err;
}

/* --- verifying -------------------------------------------------------------------------------- */

int bench_tx_end_lap(struct bench_stream *st, uint64_t end)
{
	uint8_t frame[WIRE_FRAME_SIZE + HASHES_AT_ONCE * WIRE_HASH_SIZE];
	uint64_t from = st->unverified >> CHUNK_SHIFT, to = end >> CHUNK_SHIFT;
	struct wire_frame ack, finish = { .type = WIRE_VERIFY_END };
	uint64_t chunks = to - from;
	int err = 0;

	while (!err && from < to) {
		uint32_t n = to - from < HASHES_AT_ONCE ? (uint32_t)(to - from) : HASHES_AT_ONCE;
		struct wire_frame f = { .type = WIRE_VERIFY,
					.offset = from << CHUNK_SHIFT,
					.count = n,
					.length = n * WIRE_HASH_SIZE };

		wire_put_frame(frame, &f);
		memcpy(frame + WIRE_FRAME_SIZE, st->hashes + from, n * WIRE_HASH_SIZE);
		err = bench_tx_put(st, frame, WIRE_FRAME_SIZE + n * WIRE_HASH_SIZE, NULL, 0, true);
		from += n;
	}
	if (!err)
		err = barrier(st, &finish, &ack);
	if (err)
		return err;
	st->unverified = end % st->bench->window;
	bench_add(&st->verified, chunks);
	bench_add(&st->mismatches, ack.extent);
	return 0;
}

/* Compares at the end of each lap, and after the last message what is left of one. */
static int verify_due(struct bench_stream *st, bool last)
{
	if (!st->bench->s->bench.verify)
		return 0;
	if (last)
		return st->at > st->unverified ? bench_tx_end_lap(st, st->at) : 0;
	return st->at ? 0 : bench_tx_end_lap(st, st->bench->window);
}

/* --- a run ------------------------------------------------------------------------------------ */

/* Something that came while nothing is due: only the end of the stream is to be expected. */
static int on_idle_input(struct bench_stream *st)
{
	uint8_t byte;
	ssize_t n = recv(st->fd, &byte, sizeof(byte), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n > 0 ? -EBADMSG : n ? -errno : -ECONNRESET;
}

/* Until a wake-up or the time: UINT64_MAX for ever. */
int bench_tx_wait(struct bench_stream *st, uint64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / NSEC_PER_SEC),
			      .tv_nsec = (long)(ns % NSEC_PER_SEC) };
	struct pollfd p[2] = { { .fd = st->wake_fd, .events = POLLIN },
			       { .fd = st->fd, .events = POLLIN | POLLRDHUP } };
	int err;

	if (ppoll(p, 2, ns == UINT64_MAX ? NULL : &t, NULL) < 0)
		return errno == EINTR ? 0 : -errno;
	err = p[0].revents ? io_event_clear(st->wake_fd) : 0;
	if (err && err != -EAGAIN)
		return err;
	if (bench_stopping(st->bench))
		return -ECANCELED;
	return p[1].revents ? on_idle_input(st) : 0;
}

int bench_tx_pace(struct bench_stream *st, uint64_t bytes)
{
	struct token_bucket *bucket = &st->bench->bucket;
	uint64_t reservation, wait;
	int err = 0;

	if (!token_bucket_rate(bucket))
		return 0;
	reservation = token_bucket_reserve(bucket, bytes, clock_ns());
	while (!err && !bench_run_stopped(st->bench) &&
	       (wait = token_bucket_wait_ns(bucket, reservation, clock_ns())))
		err = bench_tx_wait(st, wait);
	return err;
}

bool bench_tx_may_send(struct bench_stream *st, uint64_t size)
{
	struct bench *b = st->bench;

	if (bench_run_stopped(b) || bench_stopping(b))
		return false;
	if (b->run_until_ns && clock_ns() >= b->run_until_ns)
		return false;
	if (!b->run.bytes)
		return true;
	return __atomic_fetch_sub(&b->budget, (int64_t)size, __ATOMIC_RELAXED) > 0;
}

static int send_bulk(struct bench_stream *st)
{
	uint64_t size = st->bench->run.size;
	bool whole = st->bench->s->bench.verify; /* only whole chunks can be compared */
	int err = 0;

	while (!err) {
		bool more = bench_tx_may_send(st, size);

		if (!more && !(whole && st->at % CHUNK_BYTES))
			break;
		err = more ? bench_tx_pace(st, size) : 0;
		if (!err)
			err = send_message(st, size);
		if (!err)
			err = verify_due(st, false);
	}
	return err ? err : verify_due(st, true);
}

static int send_pings(struct bench_stream *st)
{
	const struct ipc_bench_run *run = &st->bench->run;
	struct wire_frame ack, ping = { .type = WIRE_ROUND_END };
	bool whole = st->bench->s->bench.verify && run->size;
	int err = 0;

	for (uint32_t i = 0; !err; i++) {
		bool more = bench_tx_may_send(st, run->size ? run->size : 1);
		uint64_t start;

		if (!more && !(whole && st->at % CHUNK_BYTES))
			break;
		err = more ? bench_tx_pace(st, run->size + WIRE_FRAME_SIZE) : 0;
		ping.number = BENCH_PING | i;
		start = clock_ns();
		if (!err && run->size)
			err = send_message(st, run->size);
		if (!err)
			err = barrier(st, &ping, &ack);
		if (!err && start >= st->bench->run_from_ns)
			bench_histogram_add(st->latency, clock_ns() - start);
		if (!err && run->size)
			err = verify_due(st, false);
	}
	return err ? err : verify_due(st, true);
}

static int send_run(struct bench_stream *st)
{
	const struct ipc_bench_run *run = &st->bench->run;
	struct wire_frame ack, end = { .type = WIRE_ROUND_END, .number = run->number };
	int err;

	if (st->at % (run->size ? run->size : 1)) /* after smaller messages */
		st->at = (st->at / run->size + 1) * run->size % st->bench->window;
	bench_histogram_clear(st->latency);
	if (run->flags & IPC_BENCH_LATENCY)
		err = send_pings(st);
	else
		err = st->encode ? bench_encode_run(st) : send_bulk(st);
	if (!err)
		err = barrier(st, &end, &ack);
	if (!err)
		bench_stream_done(st);
	return err;
}

static int say_bye(struct bench_stream *st)
{
	struct wire_frame bye = { .type = WIRE_BYE };
	uint8_t head[WIRE_FRAME_SIZE];

	wire_put_frame(head, &bye);
	return bench_tx_put(st, head, sizeof(head), NULL, 0, false);
}

int bench_tx_serve(struct bench_stream *st)
{
	struct bench *b = st->bench;
	int err = 0;

	st->tx->fd = st->fd;
	while (!err) {
		uint32_t number = __atomic_load_n(&b->run_number, __ATOMIC_ACQUIRE);

		if (number == st->run_seen) {
			err = bench_tx_wait(st, UINT64_MAX);
			continue;
		}
		st->run_seen = number;
		err = send_run(st);
	}
	if (err != -ECANCELED)
		return err;
	/* idle, and told to end */
	return say_bye(st);
}
