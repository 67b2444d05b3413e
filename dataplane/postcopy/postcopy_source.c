// SPDX-License-Identifier: MIT
/* Post-copy at the source: its life; see postcopy_server.h. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/postcopy/postcopy_server.h"
#include "dataplane/sandbox.h"
#include "dataplane/self_usage.h"
#include "dataplane/transport/stream_auth.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/log.h"
#include "lib/base/thread.h"

#define CONNECT_MS_DEFAULT 10000
#define PROGRESS_MS	   100
#define URGENT		   6 /* SO_PRIORITY: the highest that takes no privilege */

void server_notify(struct server *v)
{
	io_event_signal(v->event_fd);
}

/* --- threads ---------------------------------------------------------------------------------- */

static int shake(struct server_stream *t, struct failure *f)
{
	struct server *v = t->v;
	const struct ipc_config *c = &v->s->config;
	uint64_t ms = c->connect_ms ? c->connect_ms : CONNECT_MS_DEFAULT;
	int err = stream_auth_source(t->fd, c, t->index, clock_ns() + ms * NSEC_PER_MSEC, f);

	if (err)
		return err;
	if (t->index)
		server_bound_queue(t);
	SCOPED_LOCK(&v->lock);
	if (++v->shaken < c->streams)
		return 0;
	/* stream 1 may have learned what is missing before this one was through */
	if (v->state == SERVER_SHAKING)
		__atomic_store_n(&v->state, SERVER_LISTENING, __ATOMIC_RELEASE);
	server_notify(v);
	return 0;
}

static void explain(const struct server_stream *t, int err, struct failure *f)
{
	if (err == -EBADMSG)
		failure_set(f, err, "data-protocol", NULL,
			    "the destination said something malformed on post-copy stream %u",
			    t->index);
	else if (err == -EPIPE || err == -ECONNRESET || err == -ETIMEDOUT || err == -EHOSTUNREACH ||
		 err == -ENETUNREACH || err == -ECONNABORTED)
		failure_set(f, err, "data-lost", NULL, "post-copy stream %u broke: %s", t->index,
			    strerror(-err));
	else
		failure_set(f, err, "internal", NULL, "post-copy stream %u: %s", t->index,
			    strerror(-err));
}

static void *stream_main(void *arg)
{
	struct server_stream *t = arg;
	struct server *v = t->v;
	struct failure f = { 0 };
	int err;

	thread_name(t->index ? "push" : "serve", t->index);
	err = shake(t, &f);
	if (!err)
		err = t->index ? server_push(t) : server_serve_faults(t);
	pthread_mutex_lock(&v->lock);
	v->ended += !err;
	/* when all is pushed and acknowledged, the fault stream may end as it likes */
	if (err && !v->failed && !server_stopping(v) && v->ended + 1 < v->s->config.streams) {
		explain(t, err, &f);
		v->failed = err;
		v->failure = f;
	}
	pthread_mutex_unlock(&v->lock);
	server_notify(v);
	return NULL;
}

static int stream_init(struct server *v, uint32_t i)
{
	struct server_stream *t = &v->streams[i];
	int on = 1, urgent = URGENT;

	t->v = v;
	t->index = i;
	t->fd = v->s->stream_fds[i];
	t->scratch = aligned_alloc(PAGE_BYTES, PAGE_READER_SCRATCH);
	if (!t->scratch)
		return -ENOMEM;
	if (setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) && errno != EOPNOTSUPP &&
	    errno != ENOPROTOOPT)
		return -errno;
	if (!i && setsockopt(t->fd, SOL_SOCKET, SO_PRIORITY, &urgent, sizeof(urgent)))
		log_debug("SO_PRIORITY: %s", strerror(errno));
	/* an answer is a page: never worth a reference */
	return (i ? v->tx_ops : &tx_send_ops)->new (&t->tx, t->fd, v->s->regions, v->s->nregions);
}

static int start_threads(struct server *v, struct failure *f)
{
	int err = v->compress.pool ? encode_pool_start(v->compress.pool) : 0;

	if (err)
		return failure_set(f, err, "internal", NULL, "cannot make a thread: %s",
				   strerror(-err));
	for (uint32_t i = 0; i < v->s->config.streams; i++) {
		struct server_stream *t = &v->streams[i];

		err = pthread_create(&t->thread, NULL, stream_main, t);

		if (err)
			return failure_set(f, -err, "internal", NULL, "cannot make a thread: %s",
					   strerror(err));
		t->running = true;
	}
	return 0;
}

static void stop_threads(struct server *v)
{
	uint32_t n = v->streams ? v->s->config.streams : 0;

	pthread_mutex_lock(&v->lock);
	__atomic_store_n(&v->stopping, true, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	for (uint32_t i = 0; i < n; i++)
		if (v->streams[i].running)
			shutdown(v->streams[i].fd, SHUT_RDWR);
	for (uint32_t i = 0; i < n; i++)
		if (v->streams[i].running)
			pthread_join(v->streams[i].thread, NULL);
	encode_pool_stop(v->compress.pool);
}

/* --- the main thread -------------------------------------------------------------------------- */

struct serving {
	struct server *v;
	bool ready, complete, quit;
	uint64_t told_bytes; /* of the last PROGRESS */
};

static void collect_stats(struct server *v, struct ipc_stats *out)
{
	for (uint32_t i = 0; i < v->s->config.streams; i++) {
		const struct server_stream *t = &v->streams[i];

		out->raw_bytes += push_count(&t->counts.raw);
		out->zero_bytes += push_count(&t->counts.zero);
		out->hole_bytes += push_count(&t->counts.hole);
		out->zstd_in_bytes += push_count(&t->counts.zstd_in);
		out->zstd_out_bytes += push_count(&t->counts.zstd_out);
		out->zero_copy_bytes += push_count(&t->zero_copy_bytes);
		out->wire_bytes += push_count(&t->wire_bytes);
	}
	server_compress_stats(v, out);
}

static void figures(const struct server *v, struct ipc_postcopy *out)
{
	uint64_t demand = push_count(&v->streams[0].counts.pages), push = 0;
	uint64_t wanted = __atomic_load_n(&v->wanted_pages, __ATOMIC_RELAXED);

	for (uint32_t i = 1; i < v->s->config.streams; i++)
		push += push_count(&v->streams[i].counts.pages);
	*out = (struct ipc_postcopy){ .faults = __atomic_load_n(&v->requests, __ATOMIC_RELAXED),
				      .demand_pages = demand,
				      .push_pages = push };
	/* what was asked for is not pushed any more */
	if (wanted > push + demand)
		out->missing_pages = wanted - push - demand;
}

static int progress(struct serving *m)
{
	struct ipc_stats stats = { 0 };
	struct ipc_postcopy p;
	int err;

	collect_stats(m->v, &stats);
	if (stats.wire_bytes == m->told_bytes)
		return 0;
	m->told_bytes = stats.wire_bytes;
	figures(m->v, &p);
	stats.sent_pages = p.demand_pages + p.push_pages;
	stats.pending_pages = p.missing_pages;
	self_usage_read(m->v->usage_fd, &stats.cpu_ns, &stats.rss_bytes);
	err = ipc_send(m->v->s->sock, IPC_POSTCOPY, &p, -1);
	return err ? err : ipc_send(m->v->s->sock, IPC_PROGRESS, &stats, -1);
}

static int on_event(struct serving *m, struct failure *f)
{
	struct server *v = m->v;
	struct ipc_ready ready = { .tx = v->tx_ops->kind };
	struct ipc_postcopy p;
	bool shaken, pushed;
	int err = io_event_clear(v->event_fd);

	if (err)
		return err == -EAGAIN ? 0 : err;
	pthread_mutex_lock(&v->lock);
	err = v->failed;
	if (err)
		*f = v->failure;
	shaken = v->shaken == v->s->config.streams;
	pushed = v->ended + 1 >= v->s->config.streams;
	pthread_mutex_unlock(&v->lock);
	if (!err && shaken && !m->ready) {
		m->ready = true;
		snprintf(ready.tx_reason, sizeof(ready.tx_reason), "%s", v->tx_reason);
		err = ipc_send(v->s->sock, IPC_READY, &ready, -1);
	}
	if (!err && pushed && !m->complete) {
		m->complete = true;
		err = progress(m);
		figures(v, &p);
		p.missing_pages = 0;
		if (!err)
			err = ipc_send(v->s->sock, IPC_COMPLETE, &p, -1);
	}
	return err;
}

static int on_message(struct serving *m, struct failure *f)
{
	struct ipc_message msg;
	int fd, err = ipc_recv(m->v->s->sock, &msg, &fd, 0);

	if (err == -ETIMEDOUT)
		return 0;
	fd_close(&fd);
	if (err)
		return err;
	if (msg.head.type == IPC_LIMIT) {
		token_bucket_set_rate(&m->v->bucket, msg.body.limit.rate_limit, clock_ns());
		server_compress_link_changed(m->v);
		return 0;
	}
	m->quit = msg.head.type == IPC_QUIT;
	return m->quit ? 0
		       : failure_set(f, -EPROTO, "internal", NULL,
				     "%s is not a message for a post-copy's source",
				     ipc_type_name(msg.head.type));
}

static int serve(struct server *v, struct failure *f)
{
	struct serving m = { .v = v };
	struct pollfd p[2] = { { .fd = v->s->sock, .events = POLLIN },
			       { .fd = v->event_fd, .events = POLLIN } };
	int err = start_threads(v, f);

	while (!err && !m.quit) {
		if (poll(p, 2, PROGRESS_MS) < 0 && errno != EINTR)
			err = -errno;
		if (!err && p[1].revents)
			err = on_event(&m, f);
		if (!err && p[0].revents)
			err = on_message(&m, f);
		if (!err && !m.quit && m.ready)
			err = progress(&m);
	}
	/* the last account: a destination that was asked for all ends before we have pushed */
	if (m.ready && progress(&m))
		log_debug("nobody hears the last account");
	if ((err == -ECONNRESET || err == -EPIPE) && !failure_is_set(f))
		return -ECANCELED; /* transhipd is gone */
	return err;
}

int server_init(struct server *v, struct setup *s, struct failure *f)
{
	int err;

	*v = (struct server){ .s = s, .event_fd = -1, .usage_fd = -1, .reader.uffd = -1 };
	v->compress.uptime_fd = -1;
	pthread_mutex_init(&v->compress.epochs.lock, NULL);
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, NULL);
	token_bucket_init(&v->bucket, s->config.rate_limit, clock_ns());
	v->usage_fd = self_usage_open();
	v->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	v->streams = calloc(s->config.streams, sizeof(*v->streams));
	err = v->event_fd < 0 || !v->streams ? -ENOMEM : 0;
	if (!err)
		err = page_set_init(&v->wanted, s->regions, s->nregions, -1, 0, NULL);
	if (!err)
		err = page_set_init(&v->sent, s->regions, s->nregions, -1, 0, NULL);
	if (!err) {
		v->taken = calloc(page_set_chunks(&v->wanted) + 1, 1);
		err = v->taken ? 0 : -ENOMEM;
	}
	if (!err)
		err = server_compress_init(v);
	if (err)
		return failure_set(f, err, "internal", NULL, "no memory for post-copy");
	err = page_reader_init(&v->reader, s->regions, s->nregions, f);
	if (err)
		return err;
	v->tx_ops = tx_choose((enum ipc_tx)s->config.tx, s->stream_fds[0], s->regions, s->nregions,
			      v->tx_reason, sizeof(v->tx_reason));
	if (!v->tx_ops)
		return failure_set(f, -EOPNOTSUPP, "unsupported-option", "use --tx auto",
				   "this way of sending does not work here: %s", v->tx_reason);
	for (uint32_t i = 0; !err && i < s->config.streams; i++)
		err = stream_init(v, i);
	return err ? failure_set(f, err, "internal", NULL, "cannot prepare post-copy: %s",
				 strerror(-err))
		   : 0;
}

void server_release(struct server *v)
{
	server_compress_release(v);
	for (uint32_t i = 0; v->streams && i < v->s->config.streams; i++) {
		if (v->streams[i].tx)
			v->streams[i].tx->ops->free(v->streams[i].tx);
		free(v->streams[i].scratch);
	}
	free(v->streams);
	free(v->taken);
	free(v->order);
	page_reader_release(&v->reader);
	page_set_release(&v->wanted);
	page_set_release(&v->sent);
	token_bucket_release(&v->bucket);
	fd_close(&v->event_fd);
	fd_close(&v->usage_fd);
	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->changed);
}

int postcopy_source_run(struct setup *s, struct failure *f)
{
	struct server v;
	int err = server_init(&v, s, f);

	if (!err)
		err = sandbox_enter(IPC_ROLE_POSTCOPY_SOURCE, 0, f);
	if (!err)
		err = serve(&v, f);
	stop_threads(&v);
	server_release(&v);
	return err;
}
