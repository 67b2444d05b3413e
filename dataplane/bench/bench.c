// SPDX-License-Identifier: MIT
/* The transport benchmark's data plane: preparation, the main thread, the end; see bench.h. */
#include "dataplane/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/bench/bench_fill.h"
#include "dataplane/sandbox.h"
#include "dataplane/transport/stream_auth.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/log.h"
#include "lib/base/thread.h"

#define CONNECT_MS_DEFAULT 10000u
/* A lap must show: the receiver of fresh memory sees it by the chunk's offset going back. */
#define WINDOW_CHUNKS_MIN 2u

static bool connects(const struct bench *b)
{
	return b->s->config.role == IPC_ROLE_BENCH_SOURCE;
}

void bench_notify(struct bench *b)
{
	io_event_signal(b->event_fd);
}

void bench_wake(struct bench_stream *st)
{
	io_event_signal(st->wake_fd);
}

void bench_fail(struct bench *b, int err, const struct failure *f)
{
	pthread_mutex_lock(&b->lock);
	if (!b->error) {
		b->error = err;
		b->failure = *f;
	}
	pthread_mutex_unlock(&b->lock);
	bench_notify(b);
}

/* --- a stream's thread ------------------------------------------------------------------------ */

static void bind_to_processor(const struct bench_stream *st)
{
	const struct ipc_bench *c = &st->bench->s->bench;
	cpu_set_t set;

	if (!c->ncpus)
		return;
	CPU_ZERO(&set);
	CPU_SET(c->cpus[st->index % c->ncpus] % CPU_SETSIZE, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		log_warn("stream %u does not run on processor %u: %s", st->index,
			 c->cpus[st->index % c->ncpus], strerror(errno));
}

/* A stream that ends between two runs has ended well: its peer has what it wanted, or has gone. */
static bool ended_idle(const struct bench_stream *st, int err)
{
	const struct bench *b = st->bench;

	return !connects(b) && (err == -ECONNRESET || err == -EPIPE || err == -ECONNABORTED) &&
	       __atomic_load_n(&st->run_done, __ATOMIC_ACQUIRE) ==
		       __atomic_load_n(&b->run_number, __ATOMIC_ACQUIRE);
}

static void explain(const struct bench_stream *st, int err, struct failure *f)
{
	switch (err) {
	case -EBADMSG:
	case -EPROTONOSUPPORT:
		failure_set(f, err, "data-protocol", "Both hosts should run the same version.",
			    "data stream %u carried something malformed", st->index);
		break;
	case -ENOSPC:
	case -ENOMEM:
	case -EFAULT:
		failure_set(f, err, "memory", "Free memory, or give a smaller --memory.",
			    "there is no memory to receive into: %s", strerror(-err));
		break;
	case -ECONNRESET:
	case -ECONNABORTED:
	case -EPIPE:
	case -ETIMEDOUT:
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		failure_set(f, err, "data-lost", "Look at the link and at the other side's log.",
			    "data stream %u ended before its time: %s", st->index, strerror(-err));
		break;
	default:
		failure_set(f, err, "internal", NULL, "data stream %u: %s", st->index,
			    strerror(-err));
	}
}

static void began(struct bench_stream *st)
{
	struct bench *b = st->bench;

	pthread_mutex_lock(&b->lock);
	pthread_getcpuclockid(pthread_self(), &st->cpu_clock);
	st->cpu_from = clock_of(st->cpu_clock);
	st->started = true;
	b->connected++;
	pthread_mutex_unlock(&b->lock);
	bench_notify(b);
}

static void has_ended(struct bench_stream *st)
{
	struct bench *b = st->bench;

	pthread_mutex_lock(&b->lock);
	st->cpu_ns = clock_of(st->cpu_clock) - st->cpu_from;
	st->ended = true;
	b->over++;
	pthread_mutex_unlock(&b->lock);
	bench_notify(b);
}

void bench_stream_main(struct bench_stream *st)
{
	struct failure f = { 0 };
	int err;

	thread_name(st->sends ? "tx" : "rx", st->index);
	bind_to_processor(st);
	began(st);
	err = st->sends ? bench_tx_serve(st) : bench_rx_serve(st);
	if (err && err != -ECANCELED && !bench_stopping(st->bench) && !ended_idle(st, err)) {
		explain(st, err, &f);
		bench_fail(st->bench, err, &f);
	}
	has_ended(st);
}

/* The side that connects: authenticates, then serves. */
static void *connected_thread(void *arg)
{
	struct bench_stream *st = arg;
	struct bench *b = st->bench;
	struct failure f = { 0 };
	int err = stream_auth_source(st->fd, &b->s->config, st->index, b->deadline_ns, &f);

	if (err)
		bench_fail(b, err, &f);
	else
		bench_stream_main(st);
	return NULL;
}

static int start_connected(struct bench *b, struct failure *f)
{
	for (uint32_t i = 0; i < b->s->config.streams; i++) {
		struct bench_stream *st = &b->streams[i];
		int err = pthread_create(&st->thread, NULL, connected_thread, st);

		if (err)
			return failure_set(f, -err, "internal", NULL, "cannot make a thread: %s",
					   strerror(err));
		st->running = true;
	}
	return 0;
}

/* --- the main thread -------------------------------------------------------------------------- */

struct main_loop {
	struct bench *b;
	struct bench_measure measure;
	bool reported; /* READY of the side that connects, CONNECTED of the other */
	/* A run that was asked for before our own threads had said that all streams are there. */
	struct ipc_bench_run early;
	bool early_come;
	bool quit;
};

/* All streams are there. */
static int report_connected(struct main_loop *m)
{
	struct bench *b = m->b;

	m->reported = true;
	if (connects(b))
		return ipc_send(b->s->sock, IPC_READY, &b->ready, -1);
	bench_accept_close(b);
	return ipc_send(b->s->sock, IPC_CONNECTED, NULL, -1);
}

static int handle_events(struct main_loop *m, struct failure *f)
{
	struct bench *b = m->b;
	uint32_t connected, over;
	int err;

	pthread_mutex_lock(&b->lock);
	err = b->error;
	if (err)
		*f = b->failure;
	connected = b->connected;
	over = b->over;
	pthread_mutex_unlock(&b->lock);
	if (!err && !m->reported && connected == b->s->config.streams)
		err = report_connected(m);
	else if (!err && !m->reported && clock_ns() >= b->deadline_ns)
		err = failure_set(f, -ETIMEDOUT, "data-connect",
				  "Look for a firewall between the hosts on the data port.",
				  "%u of %u data streams came in time", connected,
				  b->s->config.streams);
	if (!err && m->reported && m->early_come) {
		m->early_come = false;
		err = bench_measure_begin(&m->measure, &m->early, f);
	}
	if (!err)
		err = bench_measure_go_on(&m->measure);
	/* the peer has gone, and nothing is under way */
	if (!err && over == b->s->config.streams)
		m->quit = true;
	return err;
}

static int handle_message(struct main_loop *m, struct failure *f)
{
	struct bench *b = m->b;
	AUTO_CLOSE int fd = -1;
	struct ipc_message msg;
	int err = ipc_recv(b->s->sock, &msg, &fd, 0);

	if (err == -ETIMEDOUT)
		return 0;
	if (err)
		return err;
	switch (msg.head.type) {
	case IPC_BENCH_RUN:
		if (!m->reported) {
			m->early = msg.body.bench_run;
			m->early_come = true;
			return 0;
		}
		return bench_measure_begin(&m->measure, &msg.body.bench_run, f);
	case IPC_BENCH_STOP:
		if (m->early_come) {
			m->early.omit_ns = 0;
			m->early.time_ns = 1;
		}
		__atomic_store_n(&b->run_stop, true, __ATOMIC_RELAXED);
		for (uint32_t i = 0; i < b->s->config.streams; i++)
			bench_wake(&b->streams[i]);
		return 0;
	case IPC_QUIT:
		m->quit = true;
		return 0;
	default:
		break;
	}
	return failure_set(f, -EBADMSG, "internal", NULL, "%s is not a message for a bench now",
			   ipc_type_name(msg.head.type));
}

static int poll_timeout(const struct main_loop *m)
{
	uint64_t now = clock_ns();

	if (m->reported)
		return bench_measure_timeout(&m->measure);
	return m->b->deadline_ns <= now ? 0 : (int)((m->b->deadline_ns - now) / NSEC_PER_MSEC) + 1;
}

static int serve_once(struct main_loop *m, struct failure *f)
{
	struct bench *b = m->b;
	struct pollfd p[2 + IPC_LISTENERS_MAX] = { { .fd = b->s->sock, .events = POLLIN },
						   { .fd = b->event_fd, .events = POLLIN } };
	bool room = b->s->nlisteners && bench_accept_room(b);
	int timeout = poll_timeout(m), err = 0;

	for (uint32_t i = 0; i < IPC_LISTENERS_MAX; i++)
		p[2 + i] = (struct pollfd){
			.fd = room && i < b->s->nlisteners ? b->s->listen_fds[i] : -1,
			.events = POLLIN,
		};
	if (b->s->nlisteners && !room)
		timeout = 100; /* somebody is dropped when he is old enough */
	if (poll(p, 2 + IPC_LISTENERS_MAX, timeout) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[1].revents)
		err = io_event_clear(b->event_fd);
	if (err == -EAGAIN)
		err = 0;
	if (!connects(b))
		bench_accept_reap(b);
	for (uint32_t i = 0; !err && i < IPC_LISTENERS_MAX; i++)
		if (p[2 + i].revents)
			err = bench_accept(b, b->s->listen_fds[i], f);
	if (!err)
		err = handle_events(m, f);
	if (!err && p[0].revents)
		err = handle_message(m, f);
	return err;
}

static void stop(struct bench *b, bool idle)
{
	__atomic_store_n(&b->stopping, true, __ATOMIC_RELAXED);
	for (uint32_t i = 0; b->streams && i < b->s->config.streams; i++) {
		struct bench_stream *st = &b->streams[i];

		if (!st->running)
			continue;
		/* one that is idle says goodbye by itself */
		if (!idle || !st->sends)
			shutdown(st->fd, SHUT_RDWR);
		bench_wake(st);
	}
	for (uint32_t i = 0; b->streams && i < b->s->config.streams; i++) {
		if (b->streams[i].running)
			pthread_join(b->streams[i].thread, NULL);
		b->streams[i].running = false;
	}
	for (uint32_t i = 0; b->streams && i < b->s->config.streams; i++)
		bench_encode_stop(&b->streams[i]);
	bench_accept_stop(b);
}

/* Encoders are confined too. */
static int start_encoders(struct bench *b, struct failure *f)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < b->s->config.streams; i++)
		err = bench_encode_start(&b->streams[i]);
	return err ? failure_set(f, err, "internal", NULL, "cannot make a thread: %s",
				 strerror(-err))
		   : 0;
}

static int serve(struct bench *b, struct failure *f)
{
	struct main_loop m = { .b = b, .measure.bench = b };
	int err = start_encoders(b, f);

	if (!err && !connects(b))
		err = ipc_send(b->s->sock, IPC_READY, &b->ready, -1);
	else if (!err)
		err = start_connected(b, f);
	while (!err && !m.quit)
		err = serve_once(&m, f);
	stop(b, !err && m.reported && !m.measure.running);
	/* transhipd is gone: nobody is left to be told */
	return err == -EPIPE || (err == -ECONNRESET && !failure_is_set(f)) ? 0 : err;
}

/* --- preparation ------------------------------------------------------------------------------ */

static int make_memory(struct bench *b)
{
	uint32_t streams = b->s->config.streams;
	uint64_t chunks = b->s->bench.memory / streams >> CHUNK_SHIFT;

	b->window = (chunks < WINDOW_CHUNKS_MIN ? WINDOW_CHUNKS_MIN : chunks) << CHUNK_SHIFT;
	b->memory_fd = memfd_create("tranship-bench", MFD_CLOEXEC);
	if (b->memory_fd < 0 || ftruncate(b->memory_fd, (off_t)(b->window * streams)))
		return -errno;
	return 0;
}

static int make_stream(struct bench *b, uint32_t i)
{
	struct bench_stream *st = &b->streams[i];

	*st = (struct bench_stream){ .bench = b, .index = i, .fd = -1, .wake_fd = -1 };
	st->sends = (i < b->s->bench.forward) == connects(b);
	if (connects(b))
		st->fd = b->s->stream_fds[i];
	st->region = (struct region){ .page_size = PAGE_BYTES,
				      .size = b->window,
				      .file_offset = b->window * i,
				      .fd = fcntl(b->memory_fd, F_DUPFD_CLOEXEC, 0) };
	if (st->region.fd < 0)
		return -errno;
	st->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (st->wake_fd < 0)
		return -errno;
	return region_map(&st->region, true);
}

static int prepare_sender(struct bench *b, struct bench_stream *st, struct failure *f)
{
	const struct ipc_bench *c = &b->s->bench;
	int fd = connects(b) ? b->s->stream_fds[0] : b->s->listen_fds[0];
	int err = bench_fill(st->region.map, b->window, (enum ipc_bench_data)c->data, st->index,
			     b->s->bench_fd);

	if (err == -ENODATA || err == -EISDIR)
		return failure_set(f, -EINVAL, "usage", "Name a file that holds something.",
				   "the file whose bytes are to be sent cannot be read: %s",
				   strerror(-err));
	if (err)
		return err;
	if (!b->tx_ops)
		b->tx_ops = tx_choose((enum ipc_tx)b->s->config.tx, fd, &st->region, 1,
				      b->ready.tx_reason, sizeof(b->ready.tx_reason));
	if (!b->tx_ops)
		return failure_set(f, -EOPNOTSUPP, "unsupported-option", "Use --tx auto.",
				   "this way of sending does not work here: %s",
				   b->ready.tx_reason);
	b->ready.tx = b->tx_ops->kind;
	return bench_tx_init(st);
}

static int prepare_streams(struct bench *b, struct failure *f)
{
	uint32_t n = b->s->config.streams;
	int err = 0;

	b->streams = calloc(n, sizeof(*b->streams));
	if (!b->streams)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		b->streams[i] = (struct bench_stream){ .fd = -1, .wake_fd = -1, .region.fd = -1 };
	for (uint32_t i = 0; !err && i < n; i++) {
		struct bench_stream *st = &b->streams[i];

		err = make_stream(b, i);
		if (!err)
			err = st->sends ? prepare_sender(b, st, f)
					: bench_rx_init(st, b->ready.rx_reason,
							sizeof(b->ready.rx_reason));
	}
	return err;
}

static int prepare_listeners(struct bench *b)
{
	for (uint32_t i = 0; i < b->s->nlisteners; i++) {
		int fd = b->s->listen_fds[i], flags = fcntl(fd, F_GETFL);

		if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
			return -errno;
	}
	return connects(b) ? 0 : bench_accept_init(b);
}

/* The parts of gnutls that a handshake uses, once, so that nothing is left to be set up later. */
static int warm_up_crypto(void)
{
	uint8_t key[IPC_SECRET_SIZE], out[32];

	if (gnutls_rnd(GNUTLS_RND_NONCE, key, sizeof(key)) < 0 ||
	    gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, sizeof(key), key, sizeof(key), out) < 0)
		return -EIO;
	return 0;
}

static int prepare(struct bench *b, struct failure *f)
{
	int err = 0;

	b->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->event_fd < 0)
		err = -errno;
	b->latency = calloc(1, sizeof(*b->latency));
	if (!err && !b->latency)
		err = -ENOMEM;
	bench_compress_init(b);
	if (!err)
		err = make_memory(b);
	if (!err)
		err = prepare_streams(b, f);
	if (!err)
		err = prepare_listeners(b);
	if (!err)
		err = warm_up_crypto();
	if (err)
		return failure_set(f, err, err == -ENOMEM || err == -ENOSPC ? "memory" : "internal",
				   NULL, "the bench cannot be prepared: %s", strerror(-err));
	return sandbox_enter((enum ipc_role)b->s->config.role, b->nknocks, f);
}

static void release(struct bench *b)
{
	bench_accept_stop(b);
	for (uint32_t i = 0; b->streams && i < b->s->config.streams; i++) {
		struct bench_stream *st = &b->streams[i];

		if (st->sends)
			bench_tx_release(st);
		else
			bench_rx_release(st);
		fd_close(&st->wake_fd);
		if (st->region.fd >= 0)
			region_release(&st->region);
	}
	free(b->streams);
	free(b->latency);
	bench_compress_release(b);
	fd_close(&b->memory_fd);
	fd_close(&b->event_fd);
	token_bucket_release(&b->bucket);
	pthread_mutex_destroy(&b->compress.epochs.lock);
	pthread_mutex_destroy(&b->lock);
}

int bench_run(struct setup *s, struct failure *f)
{
	struct bench b = { .s = s, .memory_fd = -1, .event_fd = -1, .compress.uptime_fd = -1 };
	int err;

	pthread_mutex_init(&b.lock, NULL);
	pthread_mutex_init(&b.compress.epochs.lock, NULL);
	token_bucket_init(&b.bucket, 0, clock_ns());
	err = prepare(&b, f);
	if (!s->config.connect_ms)
		s->config.connect_ms = CONNECT_MS_DEFAULT;
	if (!err) {
		b.deadline_ns = clock_ns() + s->config.connect_ms * NSEC_PER_MSEC;
		err = serve(&b, f);
	}
	release(&b);
	return err;
}
