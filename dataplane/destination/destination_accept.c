// SPDX-License-Identifier: MIT
/*
 * Connections at the destination: from the listeners to an authenticated stream.
 *
 * Theory of operation
 *   Every accepted connection gets a slot and a thread, which first authenticates it and then, if
 *   it is one of the session's streams, receives on it. A stranger (silent, garbage, a wrong
 *   secret) costs its own slot and nobody's time. There are slots for all streams and
 *   STRANGERS_MAX more. When they are full, the oldest connection that has not proved itself is
 *   dropped once it is older than STRANGER_MS: the source connects all streams first and
 *   authenticates them when its data plane is ready, so youth alone is no offence.
 *
 *   Slots are the main thread's; connection threads only move their slot's state on, under the
 *   lock, and wake it.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/destination/destination_internal.h"
#include "dataplane/transport/stream_auth.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define STRANGER_MS 2000u
/* A thread needs little; the default of 8 MiB counts against limits on address space. */
#define THREAD_STACK (512u * 1024)

/* Makes the connection the stream it proved to be; NULL if that one is taken already. */
static struct stream *claim(struct connection *c, uint32_t index)
{
	struct destination *d = c->d;
	struct stream *st = &d->streams[index];
	SCOPED_LOCK(&d->lock);

	if (st->claimed)
		return NULL;
	st->claimed = true;
	/* before it counts as connected: in post-copy other threads write to it then */
	st->rx.fd = c->fd;
	c->state = CONNECTION_RECEIVING;
	d->connected++;
	return st;
}

static void end(struct connection *c)
{
	pthread_mutex_lock(&c->d->lock);
	c->state = CONNECTION_ENDED;
	pthread_mutex_unlock(&c->d->lock);
	destination_notify(c->d);
}

static bool was_dropped(struct connection *c)
{
	SCOPED_LOCK(&c->d->lock);
	return c->dropped;
}

static struct stream *authenticate(struct connection *c)
{
	struct destination *d = c->d;
	struct failure f = { 0 };
	struct stream *st;
	uint32_t index;

	if (stream_auth_destination(c->fd, &d->s->config, &index, d->deadline_ns, &f)) {
		if (!was_dropped(c))
			log_warn("dropped a connection: %s", f.message);
		return NULL;
	}
	st = claim(c, index);
	if (!st)
		log_warn("dropped a second connection for data stream %u", index);
	return st;
}

static void *connection_thread(void *arg)
{
	struct connection *c = arg;
	struct destination *d = c->d;
	struct stream *st = authenticate(c);
	struct failure f = { 0 };

	if (st) {
		int err;

		destination_notify(d);
		err = stream_receive(st, c->fd, &f);
		/* a post-copy that has everything needs its streams no more */
		if (err && !destination_stopping(d) && !postcopy_is_complete(&d->postcopy))
			destination_fail(d, err, &f);
	}
	end(c);
	return NULL;
}

static struct connection *free_slot(struct destination *d)
{
	for (uint32_t i = 0; i < d->nconnections; i++)
		if (d->connections[i].state == CONNECTION_FREE)
			return &d->connections[i];
	return NULL;
}

/* Shuts a connection down that is still authenticating; its thread then ends by itself. */
static void drop(struct connection *c)
{
	c->dropped = true;
	shutdown(c->fd, SHUT_RDWR);
}

static void drop_oldest(struct destination *d)
{
	uint64_t now = clock_ns();
	struct connection *oldest = NULL;

	for (uint32_t i = 0; i < d->nconnections; i++) {
		struct connection *c = &d->connections[i];

		if (c->state == CONNECTION_SHAKING && !c->dropped &&
		    now - c->accepted_ns > STRANGER_MS * NSEC_PER_MSEC &&
		    (!oldest || c->accepted_ns < oldest->accepted_ns))
			oldest = c;
	}
	if (oldest) {
		log_warn("too many connections: dropped the oldest that has not proved itself");
		drop(oldest);
	}
}

bool connections_have_room(struct destination *d)
{
	SCOPED_LOCK(&d->lock);

	if (free_slot(d))
		return true;
	drop_oldest(d);
	return false;
}

static int start(struct destination *d, struct connection *c, int fd)
{
	pthread_attr_t attr;
	int err;

	c->d = d;
	c->fd = fd;
	c->dropped = false;
	c->accepted_ns = clock_ns();
	pthread_mutex_lock(&d->lock);
	c->state = CONNECTION_SHAKING;
	pthread_mutex_unlock(&d->lock);
	err = pthread_attr_init(&attr);
	if (!err) {
		pthread_attr_setstacksize(&attr, THREAD_STACK);
		err = pthread_create(&c->thread, &attr, connection_thread, c);
		pthread_attr_destroy(&attr);
	}
	if (!err)
		return 0;
	pthread_mutex_lock(&d->lock);
	c->state = CONNECTION_FREE;
	pthread_mutex_unlock(&d->lock);
	fd_close(&c->fd);
	return -err;
}

int connections_accept(struct destination *d, int listener, struct failure *f)
{
	while (connections_have_room(d)) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), err;

		if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		/* these are errors of the connection that was to be accepted, see accept(2) */
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED || errno == EPROTO ||
			       errno == ENETDOWN || errno == EHOSTUNREACH || errno == ENETUNREACH))
			continue;
		if (fd < 0)
			return failure_set(f, -errno, "data-connect", NULL,
					   "cannot accept data streams: %s", strerror(errno));
		pthread_mutex_lock(&d->lock);
		struct connection *c = free_slot(d);

		pthread_mutex_unlock(&d->lock);
		err = start(d, c, fd);
		if (err)
			return failure_set(f, err, "internal", NULL,
					   "cannot start a thread for a data stream: %s",
					   strerror(-err));
	}
	return 0;
}

static struct connection *next_ended(struct destination *d)
{
	SCOPED_LOCK(&d->lock);

	for (uint32_t i = 0; i < d->nconnections; i++)
		if (d->connections[i].state == CONNECTION_ENDED)
			return &d->connections[i];
	return NULL;
}

void connections_reap(struct destination *d)
{
	struct connection *c;

	while ((c = next_ended(d))) {
		pthread_join(c->thread, NULL);
		fd_close(&c->fd);
		pthread_mutex_lock(&d->lock);
		c->state = CONNECTION_FREE;
		pthread_mutex_unlock(&d->lock);
	}
}

void connections_drop_strangers(struct destination *d)
{
	SCOPED_LOCK(&d->lock);

	for (uint32_t i = 0; i < d->nconnections; i++)
		if (d->connections[i].state == CONNECTION_SHAKING)
			drop(&d->connections[i]);
}

static bool is_live(struct destination *d, const struct connection *c)
{
	SCOPED_LOCK(&d->lock);
	return c->state != CONNECTION_FREE;
}

void connections_shut(struct destination *d)
{
	__atomic_store_n(&d->stopping, true, __ATOMIC_RELAXED);
	connections_drop_strangers(d);
	for (uint32_t i = 0; i < d->nconnections; i++)
		if (is_live(d, &d->connections[i]))
			shutdown(d->connections[i].fd, SHUT_RDWR);
}

void connections_stop(struct destination *d)
{
	connections_shut(d);
	for (uint32_t i = 0; i < d->nconnections; i++) {
		struct connection *c = &d->connections[i];

		if (!is_live(d, c))
			continue;
		pthread_join(c->thread, NULL);
		fd_close(&c->fd);
		c->state = CONNECTION_FREE;
	}
}
