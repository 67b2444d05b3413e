// SPDX-License-Identifier: MIT
/*
 * The source's stream threads: their waiting, their reading of answers, their jobs; see source.h.
 *
 * Theory of operation
 *   A stream is read and written by its own thread only. What the destination sends are
 *   acknowledgements of what was sent before on the same stream; each must have been awaited.
 *   Anything else, or the end of the stream, is the loss of the stream, noticed also when idle.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "dataplane/source/source.h"
#include "dataplane/transport/stream_auth.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/log.h"
#include "lib/base/thread.h"

#define CONNECT_MS_DEFAULT 10000

static int on_answer(struct stream *s, const struct wire_frame *f, const uint8_t *payload)
{
	if (f->type == WIRE_HASHED)
		return stream_hashed(s, f, payload);
	if (f->type != WIRE_ACK || f->of >= WIRE_TYPES || !s->awaited[f->of])
		return -EBADMSG;
	if (f->of == WIRE_ROUND_END && f->number != s->awaited_round)
		return -EBADMSG;
	s->awaited[f->of] = false;
	if (f->of == WIRE_VERIFY_END)
		source_add_verified(s->source, f);
	if (f->of == WIRE_HELD)
		__atomic_store_n(&s->source->destination_holds, f->extent, __ATOMIC_RELAXED);
	if (f->of == WIRE_STATE_END) {
		__atomic_store_n(&s->source->state_done, true, __ATOMIC_RELEASE);
		io_event_signal(s->source->event_fd);
	}
	return 0;
}

/* Decodes the answer as far as it has come. *missing: the bytes that it lacks. */
static int decode_answer(const struct stream *s, struct wire_frame *f, size_t *missing)
{
	const struct setup *set = s->source->setup;
	int err;

	*missing = s->answer_have < WIRE_FRAME_SIZE ? WIRE_FRAME_SIZE - s->answer_have : 0;
	if (*missing)
		return 0;
	err = wire_get_frame(f, s->answer, set->regions, set->nregions);
	if (err)
		return err;
	/* Of what the source sends some has a longer payload; none of it may come back. */
	if (f->type != WIRE_ACK && f->type != WIRE_HASHED)
		return -EBADMSG;
	*missing = WIRE_FRAME_SIZE + f->length - s->answer_have;
	return 0;
}

/* Takes what has come without blocking. */
static int read_answers(struct stream *s)
{
	for (;;) {
		struct wire_frame f;
		size_t missing;
		int err = decode_answer(s, &f, &missing);
		ssize_t n;

		if (!err && !missing) {
			s->answer_have = 0;
			err = on_answer(s, &f, s->answer + WIRE_FRAME_SIZE);
			missing = WIRE_FRAME_SIZE;
		}
		if (err)
			return err;
		n = recv(s->fd, s->answer + s->answer_have, missing, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return -ECONNRESET;
		s->answer_have += (size_t)n;
	}
}

int stream_frame(struct stream *s, const void *head, size_t head_len, const struct region *r,
		 const struct tx_slice *slices, uint32_t count, bool more)
{
	int err = s->tx->ops->frame(s->tx, head, head_len, r, slices, count, more);

	__atomic_store_n(&s->counts.wire_bytes, s->tx->counters.wire_bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&s->counts.zero_copy_bytes, s->tx->counters.zero_copy_bytes,
			 __ATOMIC_RELAXED);
	return err;
}

int stream_relay(struct stream *s)
{
	bool ended = false;
	size_t len = 0;
	int err;

	if (!s->relay || (s->relay->fd < 0 && !s->relay->finish))
		return 0;
	do {
		err = state_relay_frame(s->relay, &len, &ended);
		if (err || !len)
			break;
		if (ended)
			s->awaited[WIRE_STATE_END] = true;
		/* Charged, not held back. */
		token_bucket_reserve(&s->source->bucket, len, clock_ns());
		err = stream_frame(s, s->relay->frame, len, NULL, NULL, 0, false);
	} while (!err && !ended);
	return err;
}

int stream_wait(struct stream *s, uint64_t timeout_ns)
{
	struct timespec t = { .tv_sec = (time_t)(timeout_ns / NSEC_PER_SEC),
			      .tv_nsec = (long)(timeout_ns % NSEC_PER_SEC) };
	struct pollfd p[3] = { { .fd = s->wake_fd, .events = POLLIN },
			       { .fd = s->fd, .events = POLLIN | POLLRDHUP },
			       { .fd = s->relay ? s->relay->fd : -1, .events = POLLIN } };
	int err = 0;

	if (source_stopping(s->source))
		return -ECANCELED;
	if (ppoll(p, 3, timeout_ns == UINT64_MAX ? NULL : &t, NULL) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[0].revents) {
		io_event_clear(s->wake_fd);
		if (source_stopping(s->source))
			return -ECANCELED;
		if (s->relay)
			state_relay_collect(s->relay);
	}
	if (p[1].revents)
		err = read_answers(s);
	if (!err && (p[0].revents || p[2].revents))
		err = stream_relay(s);
	return err;
}

int stream_pace(struct stream *s, uint64_t bytes)
{
	struct token_bucket *b = &s->source->bucket;
	uint64_t reservation, wait;
	int err = 0;

	if (!token_bucket_rate(b))
		return 0;
	reservation = token_bucket_reserve(b, bytes, clock_ns());
	while (!err && (wait = token_bucket_wait_ns(b, reservation, clock_ns())))
		err = stream_wait(s, wait);
	return err;
}

int stream_barrier(struct stream *s, const struct wire_frame *f)
{
	uint8_t head[WIRE_FRAME_SIZE];
	int err;

	wire_put_frame(head, f);
	s->awaited[f->type] = true;
	s->awaited_round = f->number;
	err = stream_frame(s, head, sizeof(head), NULL, NULL, 0, false);
	while (!err && s->awaited[f->type])
		err = stream_wait(s, UINT64_MAX);
	return err;
}

static int handshake(struct stream *s, struct failure *f)
{
	const struct ipc_config *c = &s->source->setup->config;
	uint64_t ms = c->connect_ms ? c->connect_ms : CONNECT_MS_DEFAULT;

	int err = stream_auth_source(s->fd, c, s->index, clock_ns() + ms * NSEC_PER_MSEC, f);

	return err || s->index ? err : stream_ask_held(s);
}

static int say_bye(struct stream *s)
{
	struct wire_frame bye = { .type = WIRE_BYE };
	uint8_t head[WIRE_FRAME_SIZE];
	int err;

	wire_put_frame(head, &bye);
	err = stream_frame(s, head, sizeof(head), NULL, NULL, 0, false);
	return err ? err : s->tx->ops->drain(s->tx);
}

static int do_job(struct stream *s, enum source_job job, struct failure *f)
{
	switch (job) {
	case JOB_HANDSHAKE:
		return handshake(s, f);
	case JOB_COMPARE:
		return stream_compare(s);
	case JOB_ROUND:
		return stream_send_round(s);
	case JOB_VERIFY:
		return stream_verify(s);
	case JOB_HAND_OVER:
		return stream_hand_over(s);
	case JOB_BYE:
		return say_bye(s);
	case JOB_NONE:
		break;
	}
	return 0;
}

/* Names the loss of a stream, unless its cause is known already. */
static void explain(const struct stream *s, int err, struct failure *f)
{
	if (err == -EBADMSG || err == -EPROTONOSUPPORT)
		failure_set(f, err, "data-protocol", NULL,
			    "the destination answered something malformed on data stream %u",
			    s->index);
	else if (err == -EPIPE || err == -ECONNRESET || err == -ETIMEDOUT || err == -EHOSTUNREACH ||
		 err == -ENETUNREACH || err == -ECONNABORTED)
		failure_set(f, err, "data-lost", "see the destination's log for its side",
			    "data stream %u broke: %s", s->index, strerror(-err));
	else
		failure_set(f, err, "internal", NULL, "sending on data stream %u failed: %s",
			    s->index, strerror(-err));
}

static void report_failure(struct stream *s, int err, struct failure *f)
{
	struct source *src = s->source;

	explain(s, err, f);
	pthread_mutex_lock(&src->lock);
	if (!src->failed) {
		src->failed = err;
		src->failure = *f;
	}
	pthread_mutex_unlock(&src->lock);
	io_event_signal(src->event_fd);
}

static void *stream_main(void *arg)
{
	struct stream *s = arg;
	struct source *src = s->source;
	enum source_job job = JOB_NONE;
	struct failure f = { 0 };
	int err = 0;

	thread_name("tx", s->index);
	while (!err && job != JOB_BYE) {
		uint32_t number = __atomic_load_n(&src->job_number, __ATOMIC_ACQUIRE);

		if (number == s->job_seen) {
			err = stream_wait(s, UINT64_MAX);
			continue;
		}
		s->job_seen = number;
		job = src->job;
		err = do_job(s, job, &f);
		if (!err && !__atomic_sub_fetch(&src->jobs_left, 1, __ATOMIC_ACQ_REL))
			io_event_signal(src->event_fd);
	}
	if (err && err != -ECANCELED)
		report_failure(s, err, &f);
	return NULL;
}

static int stream_init(struct source *src, uint32_t i)
{
	const struct setup *set = src->setup;
	struct stream *s = &src->streams[i];
	int on = 1;

	*s = (struct stream){ .source = src, .index = i, .fd = set->stream_fds[i], .wake_fd = -1 };
	s->relay = i == 0 ? &src->relay : NULL;
	s->scratch = aligned_alloc(PAGE_BYTES, LOOK_SCRATCH);
	if (!s->scratch)
		return -ENOMEM;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0)
		return -errno;
	/* Frames that end a burst must not wait for the acknowledgement of what went before. */
	if (setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) && errno != EOPNOTSUPP &&
	    errno != ENOPROTOOPT)
		return -errno;
	return src->tx_ops->new (&s->tx, s->fd, set->regions, set->nregions);
}

int streams_init(struct source *src, struct failure *f)
{
	uint32_t n = src->setup->config.streams;
	int err = 0;

	src->streams = calloc(n, sizeof(*src->streams));
	if (!src->streams)
		return failure_set(f, -ENOMEM, "internal", NULL, "no memory");
	for (uint32_t i = 0; i < n; i++)
		src->streams[i].wake_fd = -1;
	for (uint32_t i = 0; !err && i < n; i++) {
		err = stream_init(src, i);
		if (err)
			failure_set(f, err, "internal", NULL, "cannot prepare data stream %u: %s",
				    i, strerror(-err));
	}
	return err;
}

void streams_release(struct source *src)
{
	for (uint32_t i = 0; src->streams && i < src->setup->config.streams; i++) {
		struct stream *s = &src->streams[i];

		if (s->tx)
			s->tx->ops->free(s->tx);
		fd_close(&s->wake_fd);
		free(s->scratch);
	}
	free(src->streams);
	src->streams = NULL;
}

int streams_start(struct source *src, struct failure *f)
{
	for (uint32_t i = 0; i < src->setup->config.streams; i++) {
		struct stream *s = &src->streams[i];
		int err = pthread_create(&s->thread, NULL, stream_main, s);

		if (err)
			return failure_set(f, -err, "internal", NULL, "cannot make a thread: %s",
					   strerror(err));
		s->running = true;
	}
	return 0;
}

void streams_give(struct source *src, enum source_job job, uint32_t round)
{
	src->job = job;
	src->round = round;
	__atomic_store_n(&src->jobs_left, src->setup->config.streams, __ATOMIC_RELAXED);
	__atomic_add_fetch(&src->job_number, 1, __ATOMIC_RELEASE);
	streams_wake(src);
}

void stream_wake(struct stream *s)
{
	io_event_signal(s->wake_fd);
}

void streams_wake(struct source *src)
{
	for (uint32_t i = 0; i < src->setup->config.streams; i++)
		stream_wake(&src->streams[i]);
}

void streams_stop(struct source *src)
{
	uint32_t n = src->streams ? src->setup->config.streams : 0;

	__atomic_store_n(&src->stopping, true, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < n; i++) {
		if (src->streams[i].running)
			shutdown(src->streams[i].fd, SHUT_RDWR);
		io_event_signal(src->streams[i].wake_fd);
	}
	for (uint32_t i = 0; i < n; i++)
		if (src->streams[i].running)
			pthread_join(src->streams[i].thread, NULL);
}
