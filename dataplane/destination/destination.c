// SPDX-License-Identifier: MIT
/*
 * The destination's data plane: authenticated streams in, guest RAM and device state out.
 *
 * Theory of operation
 *   The main thread serves transhipd (ipc.h) and owns the listeners, the slots of connections, the
 *   held device state once it is complete, and the descriptor that it is loaded through. Each
 *   connection has a thread (destination_accept.c), which becomes the receive thread of its stream
 *   (destination_stream.c). Threads tell the main thread what happened by fields of struct
 *   destination under its one lock, and by an eventfd; only the main thread talks to transhipd.
 *
 *   Streams share nothing but the guest's RAM: a chunk travels once a round, on one stream.
 *
 *   Everything that needs a privilege or much memory is done before sandbox_enter: mappings, the
 *   buffers of all streams, the reservation for the device state, the descriptor of /proc. After
 *   it, no frame allocates.
 *
 *   The end. QUIT, or the end of transhipd's socket, ends the process whatever its threads do:
 *   their sockets are shut down, and all they wait for is sockets. A thread's failure is the
 *   session's: it is returned, and main reports it.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/destination/destination_internal.h"
#include "dataplane/sandbox.h"
#include "dataplane/self_usage.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/log.h"

#define PROGRESS_MS	   100
#define CONNECT_MS_DEFAULT 10000u /* as at the source */

/* What only the main thread sees. */
struct main_loop {
	struct destination *d;
	bool quit;		 /* QUIT came, or transhipd is gone */
	bool state_reported;	 /* STATE_DONE was sent */
	bool handover_reported;	 /* HANDED_OVER was sent */
	int load_fd;		 /* the device state is being written there; -1: not */
	uint64_t progress_ns;	 /* when PROGRESS was sent last */
	uint64_t progress_total; /* and what had been done then, see report_progress */
};

void destination_notify(struct destination *d)
{
	io_event_signal(d->event_fd);
}

void destination_fail(struct destination *d, int err, const struct failure *f)
{
	pthread_mutex_lock(&d->lock);
	if (!d->error) {
		d->error = err;
		d->failure = *f;
	}
	pthread_mutex_unlock(&d->lock);
	destination_notify(d);
}

/* Sends to transhipd; one that does not listen any more is the same as QUIT. */
static int report(struct main_loop *m, enum ipc_type type, const void *body, struct failure *f)
{
	int err = ipc_send(m->d->s->sock, type, body, -1);

	if (err == -EPIPE || err == -ECONNRESET) {
		m->quit = true;
		return 0;
	}
	if (err)
		return failure_set(f, err, "internal", NULL, "cannot report %s: %s",
				   ipc_type_name(type), strerror(-err));
	return 0;
}

static void collect_stats(const struct destination *d, struct ipc_stats *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < d->s->config.streams; i++) {
		const struct place_counters *c = &d->streams[i].placer.counters;

		out->sent_pages += __atomic_load_n(&c->pages, __ATOMIC_RELAXED);
		out->raw_bytes += __atomic_load_n(&c->raw_bytes, __ATOMIC_RELAXED);
		out->zero_bytes += __atomic_load_n(&c->zero_bytes, __ATOMIC_RELAXED);
		out->hole_bytes += __atomic_load_n(&c->hole_bytes, __ATOMIC_RELAXED);
		out->zstd_in_bytes += __atomic_load_n(&c->zstd_in_bytes, __ATOMIC_RELAXED);
		out->zstd_out_bytes += __atomic_load_n(&c->zstd_out_bytes, __ATOMIC_RELAXED);
		out->delta_in_bytes += __atomic_load_n(&c->delta_in_bytes, __ATOMIC_RELAXED);
		out->delta_out_bytes += __atomic_load_n(&c->delta_out_bytes, __ATOMIC_RELAXED);
		out->wire_bytes += __atomic_load_n(&d->streams[i].rx.bytes, __ATOMIC_RELAXED);
	}
	out->state_bytes = __atomic_load_n(&d->state_bytes, __ATOMIC_RELAXED);
	out->pending_pages = __atomic_load_n(&d->postcopy.left, __ATOMIC_RELAXED);
}

static int report_progress(struct main_loop *m, struct failure *f)
{
	uint64_t now = clock_ns(), total;
	struct ipc_stats stats;

	if (now - m->progress_ns < PROGRESS_MS * NSEC_PER_MSEC)
		return 0;
	collect_stats(m->d, &stats);
	/* whatever a stream does raises one of these last */
	total = stats.wire_bytes + stats.sent_pages + stats.state_bytes;
	if (total == m->progress_total)
		return 0;
	m->progress_ns = now;
	m->progress_total = total;
	self_usage_read(m->d->status_fd, &stats.cpu_ns, &stats.rss_bytes);
	if (destination_is_postcopy(m->d) && m->d->postcopy.served) {
		struct ipc_postcopy figures;
		int err;

		postcopy_report(&m->d->postcopy, &figures);
		err = report(m, IPC_POSTCOPY, &figures, f);
		if (err)
			return err;
	}
	return report(m, IPC_PROGRESS, &stats, f);
}

/* Nothing is missing: the guest needs the source no more. */
static int report_complete(struct main_loop *m, struct failure *f)
{
	struct postcopy *p = &m->d->postcopy;
	struct ipc_postcopy figures;

	if (p->reported || !postcopy_is_complete(p))
		return 0;
	p->reported = true;
	postcopy_report(p, &figures);
	return report(m, IPC_COMPLETE, &figures, f);
}

/* All streams are there: nobody else is let in. */
static int close_listener(struct main_loop *m, struct failure *f)
{
	struct destination *d = m->d;

	setup_close_listeners(d->s);
	connections_drop_strangers(d);
	log_info("%u data streams connected", d->s->config.streams);
	return report(m, IPC_CONNECTED, NULL, f);
}

static int check_deadline(struct destination *d, uint32_t connected, struct failure *f)
{
	if (clock_ns() < d->deadline_ns)
		return 0;
	return failure_set(f, -ETIMEDOUT, "data-connect",
			   "Look for a firewall between the hosts on the data port.",
			   "%u of %u data streams came within %u ms", connected,
			   d->s->config.streams, d->s->config.connect_ms);
}

/* Passes on what the threads have left. */
static int handle_events(struct main_loop *m, struct failure *f)
{
	struct destination *d = m->d;
	bool state_done, verified, handed_over;
	struct ipc_verified result;
	uint32_t connected;
	int err;

	pthread_mutex_lock(&d->lock);
	err = d->error;
	if (err)
		*f = d->failure;
	connected = d->connected;
	state_done = d->state_complete && !m->state_reported;
	verified = d->verified;
	result = d->verify_result;
	d->verified = false;
	handed_over = d->handed_over && !m->handover_reported;
	pthread_mutex_unlock(&d->lock);

	if (!err && d->s->nlisteners)
		err = connected == d->s->config.streams ? close_listener(m, f)
							: check_deadline(d, connected, f);
	if (!err && state_done) {
		struct ipc_count count = { .bytes = d->state.used };

		m->state_reported = true;
		err = report(m, IPC_STATE_DONE, &count, f);
	}
	if (!err && verified)
		err = report(m, IPC_VERIFIED, &result, f);
	if (!err && handed_over) {
		struct ipc_count pages = { d->handover_pages };

		m->handover_reported = true;
		err = report(m, IPC_HANDED_OVER, &pages, f);
	}
	return err ? err : report_complete(m, f);
}

static int begin_load(struct main_loop *m, int fd, struct failure *f)
{
	int err;

	if (!m->state_reported || m->load_fd >= 0) {
		close(fd);
		return failure_set(f, -EINVAL, "internal", NULL,
				   "device state was to be loaded before it is complete, or twice "
				   "at once");
	}
	m->load_fd = fd;
	err = state_hold_rewind(&m->d->state, fd);
	if (err)
		return failure_set(f, err, "internal", NULL, "cannot write device state: %s",
				   strerror(-err));
	return 0;
}

static int continue_load(struct main_loop *m, struct failure *f)
{
	struct ipc_count count = { .bytes = m->d->state.used };
	int err = state_hold_write(&m->d->state, m->load_fd);

	if (err == -EAGAIN)
		return 0;
	if (err)
		return failure_set(f, err, "state-failed",
				   "Look at the log of the destination's VMM.",
				   "the VMM did not take the device state: %s", strerror(-err));
	fd_close(&m->load_fd);
	return report(m, IPC_LOADED, &count, f);
}

/* The file that the set of a post-copy is to be written to. */
static int take_missing_file(struct main_loop *m, int fd, struct failure *f)
{
	struct destination *d = m->d;
	struct page_set s;
	int err = d->handover.words || destination_is_postcopy(d) ? -EALREADY : 0;

	if (!err)
		err = page_set_init(&s, d->s->regions, d->s->nregions, fd, 0, NULL);
	close(fd);
	if (err)
		return failure_set(f, err, "internal", NULL,
				   "the file for missing pages cannot be used: %s", strerror(-err));
	pthread_mutex_lock(&d->lock);
	d->handover = s;
	pthread_mutex_unlock(&d->lock);
	page_set_populate(&s); /* its owner may use it meanwhile, and frees it after us */
	return 0;
}

static int begin_serving(struct main_loop *m, struct failure *f)
{
	int err;

	if (!destination_is_postcopy(m->d))
		return failure_set(f, -EINVAL, "internal", NULL, "this is no post-copy");
	err = postcopy_serve(&m->d->postcopy, f);
	if (!err)
		err = report(m, IPC_SERVING, NULL, f);
	return err ? err : report_complete(m, f);
}

static int handle_message(struct main_loop *m, struct failure *f)
{
	struct ipc_message msg;
	int fd, err;

	err = ipc_recv(m->d->s->sock, &msg, &fd, 0);
	if (err == -ETIMEDOUT)
		return 0;
	if (err == -ECONNRESET || err == -EPIPE) {
		m->quit = true;
		return 0;
	}
	if (err)
		return failure_set(f, err, "internal", NULL, "a malformed message of transhipd");
	switch (msg.head.type) {
	case IPC_LOAD:
		return begin_load(m, fd, f);
	case IPC_MISSING:
		return take_missing_file(m, fd, f);
	case IPC_SERVE:
		return begin_serving(m, f);
	case IPC_QUIT:
		m->quit = true;
		break;
	case IPC_LIMIT:
		break; /* the source limits itself */
	default:
		err = failure_set(f, -EBADMSG, "internal", NULL,
				  "%s is not a message for a destination",
				  ipc_type_name(msg.head.type));
	}
	fd_close(&fd);
	return err;
}

enum { POLL_IPC, POLL_EVENT, POLL_LOAD, POLL_LISTEN, POLL_COUNT = POLL_LISTEN + IPC_LISTENERS_MAX };

static void prepare_poll(struct main_loop *m, struct pollfd p[POLL_COUNT])
{
	struct destination *d = m->d;
	bool listening = d->s->nlisteners && connections_have_room(d);

	/* poll ignores negative descriptors */
	p[POLL_IPC] = (struct pollfd){ .fd = d->s->sock, .events = POLLIN };
	p[POLL_EVENT] = (struct pollfd){ .fd = d->event_fd, .events = POLLIN };
	for (uint32_t i = 0; i < IPC_LISTENERS_MAX; i++)
		p[POLL_LISTEN + i] = (struct pollfd){
			.fd = listening && i < d->s->nlisteners ? d->s->listen_fds[i] : -1,
			.events = POLLIN,
		};
	p[POLL_LOAD] = (struct pollfd){ .fd = m->load_fd, .events = POLLOUT };
}

static int serve_once(struct main_loop *m, struct failure *f)
{
	struct destination *d = m->d;
	struct pollfd p[POLL_COUNT];
	int err = 0;

	prepare_poll(m, p);
	if (poll(p, POLL_COUNT, PROGRESS_MS) < 0)
		return errno == EINTR ? 0 : failure_set(f, -errno, "internal", NULL, "poll failed");
	if (p[POLL_EVENT].revents)
		err = io_event_clear(d->event_fd);
	if (err == -EAGAIN)
		err = 0;
	else if (err)
		failure_set(f, err, "internal", NULL, "eventfd: %s", strerror(-err));
	connections_reap(d);
	for (uint32_t i = 0; !err && i < IPC_LISTENERS_MAX; i++)
		if (p[POLL_LISTEN + i].revents)
			err = connections_accept(d, d->s->listen_fds[i], f);
	if (!err)
		err = handle_events(m, f);
	if (!err && p[POLL_LOAD].revents)
		err = continue_load(m, f);
	if (!err && p[POLL_IPC].revents)
		err = handle_message(m, f);
	if (!err && !m->quit)
		err = report_progress(m, f);
	return err;
}

static int serve(struct destination *d, struct failure *f)
{
	struct main_loop m = { .d = d, .load_fd = -1 };
	int err = 0;

	while (!err && !m.quit)
		err = serve_once(&m, f);
	fd_close(&m.load_fd);
	return m.quit ? 0 : err;
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

static int prepare_listeners(const struct setup *s)
{
	for (uint32_t i = 0; i < s->nlisteners; i++) {
		int fd = s->listen_fds[i], flags = fcntl(fd, F_GETFL), one = 1;

		if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
			return -errno;
		/*
		 * Inherited by what is accepted: an acknowledgement must not wait. Not TCP in some
		 * tests.
		 */
		if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
			log_debug("no TCP_NODELAY: %s", strerror(errno));
	}
	return 0;
}

static int prepare_streams(struct destination *d)
{
	const struct ipc_config *c = &d->s->config;

	d->nconnections = c->streams + STRANGERS_MAX;
	d->connections = calloc(d->nconnections, sizeof(*d->connections));
	d->streams = calloc(c->streams, sizeof(*d->streams));
	if (!d->connections || !d->streams)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->nconnections; i++)
		d->connections[i].fd = -1;
	for (uint32_t i = 0; i < c->streams; i++) {
		struct stream *st = &d->streams[i];
		int err = rx_reader_init(&st->rx, -1);

		st->d = d;
		st->index = i;
		if (!err)
			err = placer_init(&st->placer, &d->place, &st->rx);
		if (err)
			return err;
	}
	return 0;
}

static int prepare(struct destination *d, struct ipc_ready *ready, struct failure *f)
{
	struct setup *s = d->s;
	const char *what = "map the guest's RAM";
	int err = 0;

	d->status_fd = self_usage_open();
	d->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (d->event_fd < 0)
		return failure_set(f, -errno, "internal", NULL, "eventfd: %s", strerror(errno));
	for (uint32_t i = 0; !err && i < s->nregions; i++)
		err = region_map(&s->regions[i], true);
	if (!err) {
		what = "prepare for receiving";
		err = place_init(&d->place, s->regions, s->nregions, PLACE_AUTO, s->config.thp,
				 ready->rx_reason, sizeof(ready->rx_reason));
	}
	d->place.stop = &d->stopping;
	d->place.encodings = s->config.encodings;
	if (!err)
		err = prepare_streams(d);
	if (!err)
		err = state_hold_init(&d->state, s->config.state_max);
	if (!err)
		err = prepare_listeners(s);
	if (!err)
		err = warm_up_crypto();
	if (!err)
		err = page_hash_init(&d->hash, s->config.secret, s->config.id);
	if (!err && destination_is_postcopy(d))
		err = postcopy_init(&d->postcopy, d);
	if (err)
		return failure_set(f, err, err == -ENOMEM ? "memory" : "internal", NULL,
				   "the destination's data plane cannot %s: %s", what,
				   strerror(-err));
	return sandbox_enter((enum ipc_role)s->config.role, d->nconnections, f);
}

static void release(struct destination *d)
{
	for (uint32_t i = 0; d->streams && i < d->s->config.streams; i++) {
		placer_release(&d->streams[i].placer);
		rx_reader_release(&d->streams[i].rx);
	}
	postcopy_release(&d->postcopy);
	page_set_release(&d->handover);
	place_release(&d->place);
	state_hold_release(&d->state);
	free(d->streams);
	free(d->connections);
	fd_close(&d->event_fd);
	fd_close(&d->status_fd);
	pthread_mutex_destroy(&d->lock);
}

int destination_run(struct setup *s, struct failure *f)
{
	struct destination d = { .s = s, .event_fd = -1, .status_fd = -1 };
	struct ipc_ready ready = { 0 };
	int err;

	pthread_mutex_init(&d.lock, NULL);
	err = prepare(&d, &ready, f);
	if (!s->config.connect_ms)
		s->config.connect_ms = CONNECT_MS_DEFAULT;
	if (!err) {
		d.deadline_ns = clock_ns() + s->config.connect_ms * NSEC_PER_MSEC;
		log_info("destination: %s", ready.rx_reason);
		err = ipc_send(s->sock, IPC_READY, &ready, -1);
	}
	if (!err)
		err = serve(&d, f);
	else if (err == -EPIPE || err == -ECONNRESET)
		err = 0;
	connections_shut(&d);
	postcopy_stop(&d.postcopy); /* it writes to streams */
	connections_stop(&d);
	release(&d);
	return err;
}
