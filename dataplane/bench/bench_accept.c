// SPDX-License-Identifier: MIT
/*
 * Connections at a bench's destination: from the listeners to authenticated streams; see bench.h.
 *
 * As at a migration's destination: every connection has a thread, which authenticates it and then
 * serves the stream that it proved to be. There is room for STRANGERS_MAX more than the streams;
 * when it is used up the oldest that has not proved itself is dropped once it is STRANGER_MS old.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/bench/bench.h"
#include "dataplane/transport/stream_auth.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define STRANGERS_MAX 16u
#define STRANGER_MS   2000u
#define NEAR_US	      1000u /* as control/session/sockets.c has it */

int bench_accept_init(struct bench *b)
{
	b->nknocks = b->s->config.streams + STRANGERS_MAX;
	b->knocks = calloc(b->nknocks, sizeof(*b->knocks));
	if (!b->knocks)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->nknocks; i++)
		b->knocks[i] = (struct bench_knock){ .bench = b, .fd = -1 };
	return 0;
}

/* Listeners begin near (sockets.c); a stream that sends far gets the host's own choice back. */
void bench_accept_settle(const struct bench *b, int fd)
{
	const char *far = b->s->bench.far_congestion;
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (!far[0] || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ||
	    info.tcpi_rtt < NEAR_US)
		return;
	if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, far, (socklen_t)strlen(far)))
		log_debug("congestion control stays as it is: %s", strerror(errno));
}

/* Makes the connection the stream that it proved to be; NULL if there is one already. */
static struct bench_stream *claim(struct bench_knock *k, uint32_t index)
{
	struct bench *b = k->bench;
	struct bench_stream *st = &b->streams[index];
	SCOPED_LOCK(&b->lock);

	if (st->claimed)
		return NULL;
	st->claimed = true;
	st->fd = k->fd;
	k->state = KNOCK_STREAM;
	return st;
}

static bool was_dropped(struct bench_knock *k)
{
	SCOPED_LOCK(&k->bench->lock);
	return k->dropped;
}

static void *knock_thread(void *arg)
{
	struct bench_knock *k = arg;
	struct bench *b = k->bench;
	struct bench_stream *st = NULL;
	struct failure f = { 0 };
	uint32_t index;

	if (!stream_auth_destination(k->fd, &b->s->config, &index, b->deadline_ns, &f)) {
		st = claim(k, index);
		if (!st)
			log_warn("dropped a second connection for data stream %u", index);
	} else if (!was_dropped(k)) {
		log_warn("dropped a connection: %s", f.message);
	}
	if (st) {
		bench_accept_settle(b, k->fd);
		bench_stream_main(st);
	}
	pthread_mutex_lock(&b->lock);
	k->state = KNOCK_ENDED;
	pthread_mutex_unlock(&b->lock);
	bench_notify(b);
	return NULL;
}

static void drop(struct bench_knock *k)
{
	k->dropped = true;
	shutdown(k->fd, SHUT_RDWR);
}

/* Under lock. */
static struct bench_knock *free_knock(struct bench *b)
{
	for (uint32_t i = 0; i < b->nknocks; i++)
		if (b->knocks[i].state == KNOCK_FREE)
			return &b->knocks[i];
	return NULL;
}

bool bench_accept_room(struct bench *b)
{
	uint64_t now = clock_ns();
	struct bench_knock *oldest = NULL;
	SCOPED_LOCK(&b->lock);

	if (free_knock(b))
		return true;
	for (uint32_t i = 0; i < b->nknocks; i++) {
		struct bench_knock *k = &b->knocks[i];

		if (k->state == KNOCK_SHAKING && !k->dropped &&
		    now - k->accepted_ns > STRANGER_MS * NSEC_PER_MSEC &&
		    (!oldest || k->accepted_ns < oldest->accepted_ns))
			oldest = k;
	}
	if (oldest)
		drop(oldest);
	return false;
}

static int start(struct bench *b, int fd)
{
	struct bench_knock *k;
	int err;

	pthread_mutex_lock(&b->lock);
	k = free_knock(b);
	k->state = KNOCK_SHAKING;
	k->dropped = false;
	pthread_mutex_unlock(&b->lock);
	k->fd = fd;
	k->accepted_ns = clock_ns();
	err = pthread_create(&k->thread, NULL, knock_thread, k);
	if (!err)
		return 0;
	fd_close(&k->fd);
	pthread_mutex_lock(&b->lock);
	k->state = KNOCK_FREE;
	pthread_mutex_unlock(&b->lock);
	return -err;
}

/* Errors of the connection that was to be accepted, see accept(2). */
static bool is_of_connection(int err)
{
	return err == EINTR || err == ECONNABORTED || err == EPROTO || err == ENETDOWN ||
	       err == EHOSTUNREACH || err == ENETUNREACH;
}

int bench_accept(struct bench *b, int listener, struct failure *f)
{
	while (bench_accept_room(b)) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), err;

		if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (fd < 0 && is_of_connection(errno))
			continue;
		if (fd < 0)
			return failure_set(f, -errno, "data-connect", NULL,
					   "cannot accept data streams: %s", strerror(errno));
		err = start(b, fd);
		if (err)
			return failure_set(f, err, "internal", NULL,
					   "cannot start a thread for a data stream: %s",
					   strerror(-err));
	}
	return 0;
}

void bench_accept_reap(struct bench *b)
{
	for (uint32_t i = 0; i < b->nknocks; i++) {
		struct bench_knock *k = &b->knocks[i];
		bool ended;

		pthread_mutex_lock(&b->lock);
		ended = k->state == KNOCK_ENDED;
		pthread_mutex_unlock(&b->lock);
		if (!ended)
			continue;
		pthread_join(k->thread, NULL);
		fd_close(&k->fd);
		pthread_mutex_lock(&b->lock);
		k->state = KNOCK_FREE;
		pthread_mutex_unlock(&b->lock);
	}
}

void bench_accept_close(struct bench *b)
{
	setup_close_listeners(b->s);
	SCOPED_LOCK(&b->lock);
	for (uint32_t i = 0; i < b->nknocks; i++)
		if (b->knocks[i].state == KNOCK_SHAKING)
			drop(&b->knocks[i]);
}

void bench_accept_stop(struct bench *b)
{
	for (uint32_t i = 0; i < b->nknocks; i++) {
		struct bench_knock *k = &b->knocks[i];
		bool live;

		pthread_mutex_lock(&b->lock);
		live = k->state != KNOCK_FREE;
		pthread_mutex_unlock(&b->lock);
		if (!live)
			continue;
		shutdown(k->fd, SHUT_RDWR);
		pthread_join(k->thread, NULL);
		fd_close(&k->fd);
		k->state = KNOCK_FREE;
	}
	free(b->knocks);
	b->knocks = NULL;
	b->nknocks = 0;
}
