// SPDX-License-Identifier: MIT
/*
 * One connection to a VMM that links libtranship; see tranship_link.h.
 *
 * Answers come in the order of the requests; one that was given up (-ETIMEDOUT) leaves its answer
 * behind, which a later wait recognises by its serial and drops. What the VMM sends is checked: a
 * VMM may be another user's process.
 */
#include "control/guest/tranship_link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"

static const char *const type_names[TRANSHIP_TYPES] = {
	[TRANSHIP_HELLO] = "hello",   [TRANSHIP_DESCRIBE] = "describe",
	[TRANSHIP_REGION] = "region", [TRANSHIP_ARM] = "arm",
	[TRANSHIP_DISARM] = "disarm", [TRANSHIP_STOP] = "stop",
	[TRANSHIP_SAVE] = "save",     [TRANSHIP_RESUME] = "resume",
	[TRANSHIP_QUIT] = "quit",     [TRANSHIP_INCOMING] = "incoming",
	[TRANSHIP_LOAD] = "load",     [TRANSHIP_START] = "start",
};

static int gone(const struct tranship_link *l, int err, uint16_t type, struct failure *f)
{
	return failure_set(f, err, "vm-gone", "Look at the VMM's own log.",
			   "the VMM at %s closed its connection at `%s`: %s", l->path,
			   type_names[type], strerror(-err));
}

static int malformed(const struct tranship_link *l, uint16_t type, struct failure *f)
{
	return failure_set(
		f, -EBADMSG, "vmm-failed", "The VMM's libtranship is damaged or foreign.",
		"the VMM at %s gave a malformed answer to `%s`", l->path, type_names[type]);
}

int tranship_link_ask(struct tranship_link *l, uint16_t type, const void *body, int fd,
		      struct failure *f)
{
	uint32_t size = (uint32_t)tranship_request_size(type);
	struct tranship_packet p;
	int err;

	if (++l->serial == TRANSHIP_SERIAL_GUARD)
		l->serial = 1;
	tranship_request(&p.head, type, l->serial, size);
	if (size)
		memcpy(&p.body, body, size);
	err = io_send_packet(l->sock, &p, sizeof(p.head) + size, &fd, fd >= 0);
	return err ? gone(l, err, type, f) : 0;
}

/* One packet before the deadline, with its descriptor or -1. */
static int receive(struct tranship_link *l, struct tranship_packet *p, size_t *len, int *fd,
		   uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = l->sock, .events = POLLIN };
	int fds[IO_FDS_MAX], nfds, err;

	for (;;) {
		uint64_t now = clock_ns();
		uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
		int n = poll(&pfd, 1, (int)((left + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			break;
		if (clock_ns() >= deadline_ns)
			return -ETIMEDOUT;
	}
	*len = sizeof(*p);
	err = io_recv_packet(l->sock, p, len, fds, &nfds, MSG_DONTWAIT);
	if (err)
		return err;
	*fd = nfds ? fds[0] : -1;
	for (int i = 1; i < nfds; i++)
		close(fds[i]);
	return 0;
}

static bool answer_valid(const struct tranship_packet *p, size_t len, uint16_t type, bool has_fd)
{
	const struct tranship_head *h = &p->head;
	size_t size;

	if (h->magic != TRANSHIP_PROTO_MAGIC || h->type != (type | TRANSHIP_REPLY) ||
	    h->status > 0 || h->size != len - sizeof(*h))
		return false;
	if (h->status == -EBUSY && type == TRANSHIP_HELLO)
		size = sizeof(struct tranship_description);
	else if (h->status)
		size = sizeof(struct tranship_text);
	else
		size = (size_t)tranship_reply_size(type);
	return h->size == size && has_fd == (!h->status && tranship_reply_fds(type));
}

static int refused(const struct tranship_link *l, struct tranship_packet *p, uint16_t type,
		   const char *code, struct failure *f)
{
	p->body.text.text[sizeof(p->body.text.text) - 1] = '\0';
	for (char *c = p->body.text.text; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = '?';
	return failure_set(f, p->head.status, code, "Look at the VMM's own log.",
			   "the VMM at %s refused `%s`: %s", l->path, type_names[type],
			   p->body.text.text);
}

int tranship_link_wait(struct tranship_link *l, uint16_t type, void *out, int *out_fd,
		       int timeout_ms, const char *code, struct failure *f)
{
	uint64_t deadline = clock_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	struct tranship_packet p;
	AUTO_CLOSE int fd = -1;
	size_t len;
	int err;

	do {
		fd_close(&fd);
		err = receive(l, &p, &len, &fd, deadline);
		if (err == -ETIMEDOUT)
			return failure_set(f, err, code, "Look at the VMM's own log.",
					   "the VMM at %s did not answer `%s` within %d s", l->path,
					   type_names[type], timeout_ms / 1000);
		if (err)
			return gone(l, err, type, f);
		if (len < sizeof(p.head))
			return malformed(l, type, f);
	} while (p.head.serial != l->serial);
	if (!answer_valid(&p, len, type, fd >= 0))
		return malformed(l, type, f);
	if (p.head.status == -EBUSY && type == TRANSHIP_HELLO)
		memcpy(out, &p.body, p.head.size);
	if (p.head.status == -EBUSY && type == TRANSHIP_HELLO)
		return failure_set(f, -EBUSY, "vm-busy", "Wait for the session that holds it.",
				   "another connection holds the VMM at %s", l->path);
	if (p.head.status)
		return refused(l, &p, type, code, f);
	if (out && p.head.size)
		memcpy(out, &p.body, p.head.size);
	if (out_fd)
		*out_fd = fd_take(&fd);
	return 0;
}

int tranship_link_call(struct tranship_link *l, uint16_t type, const void *body, int fd, void *out,
		       int *out_fd, int timeout_ms, const char *code, struct failure *f)
{
	int err = tranship_link_ask(l, type, body, fd, f);

	return err ? err : tranship_link_wait(l, type, out, out_fd, timeout_ms, code, f);
}

static bool description_valid(struct tranship_description *d)
{
	d->name[sizeof(d->name) - 1] = '\0';
	d->vmm[sizeof(d->vmm) - 1] = '\0';
	d->vmm_version[sizeof(d->vmm_version) - 1] = '\0';
	d->machine[sizeof(d->machine) - 1] = '\0';
	d->cpu_model[sizeof(d->cpu_model) - 1] = '\0';
	d->accel[sizeof(d->accel) - 1] = '\0';
	return d->version >= TRANSHIP_PROTO_VERSION_MIN && d->version <= TRANSHIP_PROTO_VERSION &&
	       d->state >= TRANSHIP_RUNNING && d->state <= TRANSHIP_BROKEN && d->regions &&
	       d->regions <= TRANSHIP_PROTO_REGIONS_MAX;
}

static int link_connect(struct tranship_link *l, const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	strcpy(a.sun_path, path);
	strcpy(l->path, path);
	l->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->sock < 0)
		return -errno;
	/* non-blocking: a full queue is EAGAIN and not a wait for a VMM that hangs */
	if (connect(l->sock, (struct sockaddr *)&a, sizeof(a)) ||
	    getsockopt(l->sock, SOL_SOCKET, SO_PEERCRED, &peer, &size))
		return -errno;
	l->pid = peer.pid;
	return 0;
}

int tranship_link_open(struct tranship_link *l, const char *path, struct tranship_description *d,
		       int timeout_ms, struct failure *f)
{
	static const struct tranship_hello hello = { TRANSHIP_PROTO_VERSION_MIN,
						     TRANSHIP_PROTO_VERSION };
	int err;

	memset(l, 0, sizeof(*l));
	l->sock = -1;
	err = link_connect(l, path);
	if (err)
		failure_set(f, err, "vm-not-found", "Is the VMM running, and is this its socket?",
			    "no VMM answers at %s: %s", path, strerror(-err));
	if (!err)
		err = tranship_link_call(l, TRANSHIP_HELLO, &hello, -1, d, NULL, timeout_ms,
					 "vmm-failed", f);
	if ((!err || err == -EBUSY) && !description_valid(d))
		err = malformed(l, TRANSHIP_HELLO, f);
	if (err)
		tranship_link_close(l);
	return err;
}

void tranship_link_close(struct tranship_link *l)
{
	fd_close(&l->sock);
}
