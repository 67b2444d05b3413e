// SPDX-License-Identifier: MIT
/*
 * What libtranship does with each request, and with the loss of its connection.
 *
 * Theory of operation
 *   Requests and the states in which each is allowed: tranship_proto.h. One handler a type; a
 *   handler that fails leaves the state as it was (a failed load excepted: BROKEN), puts a line
 *   into call.why and returns -errno, which becomes the answer. Malformed packets end the
 *   connection.
 *
 *   Who may run the guest. transhipd answers for exactly one runner; what this side may do by
 *   itself when the connection ends is decided by what the other host can have:
 *   - STOPPED: no other host has the whole guest, for its device state was not handed out. It must
 *     run on here: a dead transhipd must not leave it paused.
 *   - SAVED: the destination may have been prepared and committed. Running here could be a second
 *     guest on the same disks: stay paused and wait for a connection that says RESUME or QUIT (the
 *     guard that holds transhipd's connection, or a transhipd that has read its journal).
 *   - LOADED: the mirror of it: only START runs it.
 *   The state becomes SAVED before the answer to SAVE can be seen by anybody, and returns from it
 *   only by RESUME (or the VMM's own user, tranship_claim).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/base/cleanup.h"
#include "lib/base/io.h"
#include "lib/tranship_internal.h"

struct call {
	struct tranship_packet in;
	int fd; /* that came with the request, or -1; closed after the handler */
	union tranship_body out;
	int out_fd; /* goes with the answer, stays its owner's; or -1 */
	char why[sizeof(((struct tranship_text *)0)->text)];
};

__attribute__((format(printf, 3, 4))) static int refuse(struct call *c, int err, const char *fmt,
							...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, args);
	va_end(args);
	return err;
}

static int wrong_state(const struct tranship *t, struct call *c)
{
	static const char *const names[] = {
		[TRANSHIP_RUNNING] = "runs",
		[TRANSHIP_STOPPED] = "is stopped",
		[TRANSHIP_SAVED] = "is stopped and saved",
		[TRANSHIP_WAITING] = "has not come yet",
		[TRANSHIP_LOADED] = "is loaded and not started",
		[TRANSHIP_BROKEN] = "could not be loaded",
	};

	return refuse(c, -EPROTO, "the guest %s", names[t->state]);
}

static bool guest_runs(const struct tranship *t)
{
	return t->state == TRANSHIP_RUNNING && (!t->ops->running || t->ops->running(t->opaque));
}

static void describe(const struct tranship *t, struct tranship_description *d)
{
	memset(d, 0, sizeof(*d));
	d->version = TRANSHIP_PROTO_VERSION;
	d->state = t->state;
	d->flags = (guest_runs(t) ? TRANSHIP_FLAG_RUNNING : 0) |
		   (t->direct_io ? TRANSHIP_FLAG_DMA : 0) |
		   (t->uffd >= 0 ? TRANSHIP_FLAG_ARMED : 0);
	d->regions = t->nregions;
	d->cpus = t->cpus;
	for (uint32_t i = 0; i < t->nregions; i++)
		d->ram_bytes += t->regions[i].info.size;
	strcpy(d->name, t->name);
	strcpy(d->vmm, t->vmm);
	strcpy(d->vmm_version, t->vmm_version);
	strcpy(d->machine, t->machine);
	strcpy(d->cpu_model, t->cpu_model);
	strcpy(d->accel, t->accel);
}

static int do_hello(struct tranship *t, struct call *c)
{
	const struct tranship_hello *h = &c->in.body.hello;

	if (h->version_min > TRANSHIP_PROTO_VERSION || h->version_max < TRANSHIP_PROTO_VERSION_MIN)
		return refuse(c, -EPROTONOSUPPORT, "libtranship speaks versions %u to %u",
			      TRANSHIP_PROTO_VERSION_MIN, TRANSHIP_PROTO_VERSION);
	describe(t, &c->out.description);
	t->greeted = true;
	return 0;
}

static int do_describe(struct tranship *t, struct call *c)
{
	describe(t, &c->out.description);
	return 0;
}

static int do_region(struct tranship *t, struct call *c)
{
	uint32_t i = c->in.body.index.index;

	if (i >= t->nregions)
		return refuse(c, -ERANGE, "there are %u regions", t->nregions);
	c->out.region = t->regions[i].info;
	c->out_fd = t->regions[i].fd;
	return 0;
}

static int do_arm(struct tranship *t, struct call *c)
{
	int err;

	if (t->state != TRANSHIP_RUNNING && t->state != TRANSHIP_STOPPED)
		return wrong_state(t, c);
	err = tranship_track_arm(t);
	if (err)
		return refuse(c, err, "no userfaultfd with asynchronous write protection: %s",
			      strerror(-err));
	c->out.armed.tracker = TRANSHIP_TRACKER_PAGEMAP;
	return 0;
}

static int do_disarm(struct tranship *t, struct call *c)
{
	(void)c;
	tranship_track_disarm(t);
	return 0;
}

static int do_stop(struct tranship *t, struct call *c)
{
	int err = 0;

	if (t->state == TRANSHIP_STOPPED || t->state == TRANSHIP_SAVED)
		return 0;
	if (t->state != TRANSHIP_RUNNING)
		return wrong_state(t, c);
	t->was_running = guest_runs(t);
	if (t->was_running)
		err = t->ops->pause(t->opaque);
	if (err)
		return refuse(c, err, "the VMM could not pause the guest: %s", strerror(-err));
	t->state = TRANSHIP_STOPPED;
	return 0;
}

static int do_save(struct tranship *t, struct call *c)
{
	int err;

	if (t->state != TRANSHIP_STOPPED)
		return wrong_state(t, c);
	err = t->ops->save_state(t->opaque, c->fd);
	if (err)
		return refuse(c, err, "the VMM could not save the device state: %s",
			      strerror(-err));
	t->state = TRANSHIP_SAVED;
	/* the end of the state is seen before the answer */
	fd_close(&c->fd);
	return 0;
}

static int run_on(struct tranship *t)
{
	int err = t->was_running ? t->ops->resume(t->opaque) : 0;

	if (!err)
		t->state = TRANSHIP_RUNNING;
	return err;
}

static int do_resume(struct tranship *t, struct call *c)
{
	int err;

	if (t->state == TRANSHIP_RUNNING)
		return 0;
	if (t->state != TRANSHIP_STOPPED && t->state != TRANSHIP_SAVED)
		return wrong_state(t, c);
	err = run_on(t);
	return err ? refuse(c, err, "the VMM could not resume the guest: %s", strerror(-err)) : 0;
}

static int do_quit(struct tranship *t, struct call *c)
{
	(void)c;
	t->ops->quit(t->opaque);
	return 0;
}

static int do_incoming(struct tranship *t, struct call *c)
{
	if (t->state != TRANSHIP_WAITING && t->state != TRANSHIP_LOADED &&
	    t->state != TRANSHIP_BROKEN)
		return wrong_state(t, c);
	t->state = TRANSHIP_WAITING;
	return 0;
}

static int do_load(struct tranship *t, struct call *c)
{
	int err = do_incoming(t, c);

	if (err)
		return err;
	err = t->ops->load_state(t->opaque, c->fd);
	t->state = err ? TRANSHIP_BROKEN : TRANSHIP_LOADED;
	return err ? refuse(c, err, "the VMM could not load the device state: %s", strerror(-err))
		   : 0;
}

static int do_start(struct tranship *t, struct call *c)
{
	int err;

	if (t->state == TRANSHIP_RUNNING)
		return 0;
	if (t->state != TRANSHIP_LOADED)
		return wrong_state(t, c);
	t->was_running = true;
	err = run_on(t);
	return err ? refuse(c, err, "the VMM could not start the guest: %s", strerror(-err)) : 0;
}

static int (*const handlers[TRANSHIP_TYPES])(struct tranship *, struct call *) = {
	[TRANSHIP_HELLO] = do_hello,   [TRANSHIP_DESCRIBE] = do_describe,
	[TRANSHIP_REGION] = do_region, [TRANSHIP_ARM] = do_arm,
	[TRANSHIP_DISARM] = do_disarm, [TRANSHIP_STOP] = do_stop,
	[TRANSHIP_SAVE] = do_save,     [TRANSHIP_RESUME] = do_resume,
	[TRANSHIP_QUIT] = do_quit,     [TRANSHIP_INCOMING] = do_incoming,
	[TRANSHIP_LOAD] = do_load,     [TRANSHIP_START] = do_start,
};

/*
 * One packet and its descriptor, its form checked. -EAGAIN: none waits; -EBADMSG: malformed. A peer
 * that closes with answers unread leaves ECONNRESET in front of what it had asked before: the
 * second receipt gets that, or the end.
 */
static int receive(int sock, struct call *c)
{
	const struct tranship_head *h = &c->in.head;
	int fds[IO_FDS_MAX], nfds = 0, size, err;
	size_t len = sizeof(c->in);

	memset(c, 0, sizeof(*c));
	c->fd = c->out_fd = -1;
	err = io_recv_packet(sock, &c->in, &len, fds, &nfds, MSG_DONTWAIT);
	if (err == -ECONNRESET) {
		len = sizeof(c->in);
		err = io_recv_packet(sock, &c->in, &len, fds, &nfds, MSG_DONTWAIT);
	}
	if (err)
		return err;
	if (nfds)
		c->fd = fds[0];
	for (int i = 1; i < nfds; i++)
		close(fds[i]);
	size = len >= sizeof(*h) ? tranship_request_size(h->type) : -1;
	/* an unknown type, a later version's, may have any body and no descriptor: answered */
	if (len < sizeof(*h) || h->magic != TRANSHIP_PROTO_MAGIC || h->status || h->reserved ||
	    h->type & TRANSHIP_REPLY || h->size != len - sizeof(*h) ||
	    (size >= 0 && h->size != (uint32_t)size) || nfds != tranship_request_fds(h->type)) {
		fd_close(&c->fd);
		return -EBADMSG;
	}
	return 0;
}

/* 0 even if the asker is gone: what it asked before is still carried out. */
static int answer(int sock, struct call *c, int status, uint32_t size)
{
	struct tranship_packet p;
	int fd = status ? -1 : c->out_fd, err;

	tranship_request(&p.head, c->in.head.type | TRANSHIP_REPLY, c->in.head.serial, size);
	p.head.status = status;
	if (size)
		memcpy(&p.body, &c->out, size);
	err = io_send_packet(sock, &p, sizeof(p.head) + size, &fd, fd >= 0);
	return err == -EPIPE || err == -ECONNRESET ? 0 : err;
}

int tranship_serve_request(struct tranship *t)
{
	struct call c;
	uint16_t type;
	int err, status;

	err = receive(t->conn_fd, &c);
	if (err == -EAGAIN || err == -EINTR)
		return 0;
	type = c.in.head.type;
	if (!err && !t->greeted && type != TRANSHIP_HELLO)
		err = -EBADMSG;
	if (!err && t->greeted && c.in.head.version != TRANSHIP_PROTO_VERSION)
		err = -EBADMSG;
	if (err) {
		if (err != -ECONNRESET)
			tranship_log(t, "connection ended: %s", strerror(-err));
		fd_close(&c.fd);
		return err;
	}
	if (type < TRANSHIP_TYPES && handlers[type])
		status = handlers[type](t, &c);
	else
		status = refuse(&c, -EOPNOTSUPP, "libtranship knows no request %u", type);
	fd_close(&c.fd);
	if (status) {
		memset(&c.out, 0, sizeof(c.out));
		memcpy(c.out.text.text, c.why, sizeof(c.why));
		tranship_log(t, "%s", c.why);
		return answer(t->conn_fd, &c, status, sizeof(c.out.text));
	}
	return answer(t->conn_fd, &c, 0, (uint32_t)tranship_reply_size(type));
}

void tranship_serve_busy(struct tranship *t)
{
	struct call c;

	if (!receive(t->busy_fd, &c)) {
		if (c.in.head.type == TRANSHIP_HELLO) {
			describe(t, &c.out.description);
			answer(t->busy_fd, &c, -EBUSY, sizeof(c.out.description));
		}
		fd_close(&c.fd);
	}
	fd_close(&t->busy_fd);
}

void tranship_serve_lost(struct tranship *t)
{
	int err;

	if (t->state == TRANSHIP_STOPPED) {
		tranship_log(t, "transhipd was lost in the pause: the guest runs on");
		err = run_on(t);
		if (err)
			tranship_log(t, "the guest could not be resumed: %s", strerror(-err));
	} else if (t->state == TRANSHIP_SAVED) {
		tranship_log(t, "transhipd was lost after the guest was saved: it stays paused");
	}
	tranship_track_disarm(t);
}
