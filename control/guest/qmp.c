// SPDX-License-Identifier: MIT
/*
 * Client of QEMU's machine protocol; see qmp.h.
 *
 * Theory of operation
 *   Everything QEMU says is a sequence of JSON objects. They are cut at balanced braces, not at
 *   newlines, because a monitor with pretty=on spreads one over many lines; the cutter keeps its
 *   place between reads, so that a large answer is scanned once. A message is an event (queued), an
 *   answer to the command under way (its id says so) or something that nobody waits for any more
 *   (an answer that came after its time limit), which is dropped.
 *
 *   One command is under way at a time. Its id is a number that only rises, hence a late answer is
 *   never taken for the next one's.
 *
 *   The descriptor is non-blocking and every wait is a poll() with what is left of the time limit.
 *   The guard process holds a copy of it (guard_main.c) but stays silent while transhipd lives.
 */
#include "control/guest/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define READ_BYTES    65536u
#define CALL_LIMIT_MS 5000u
#define BUSY_HINT                                                                                  \
	"another manager (libvirt, a monitor session) holds this socket: start the VM "            \
	"with one more -qmp unix:PATH,server=on,wait=off"

/* Where the cutter is in the JSON text. */
struct cutter {
	size_t at;	    /* bytes of buf already looked at */
	unsigned int depth; /* open braces and brackets */
	bool string, escape;
};

struct qmp {
	int fd;
	uint64_t next_id;
	unsigned int limit_ms;
	uint64_t deadline; /* of everything; 0: none */
	int version[3];
	bool broken; /* what came was not QMP */
	char error[320];
	char *buf;
	size_t len, size;
	struct cutter cut;
	json_t *events[QMP_EVENTS_MAX];
	unsigned int nevents;
	uint64_t event_ns; /* when the last event taken happened */
};

static uint64_t deadline_in(const struct qmp *q, unsigned int ms)
{
	uint64_t d = clock_ns() + ms * NSEC_PER_MSEC;

	return q->deadline && q->deadline < d ? q->deadline : d;
}

/* 0 when the descriptor is ready, -ETIMEDOUT, -errno. */
static int wait_ready(int fd, short what, uint64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = what };

	for (;;) {
		uint64_t now = clock_ns();
		uint64_t left = now < deadline ? deadline - now : 0;
		struct timespec t = { .tv_sec = (time_t)(left / NSEC_PER_SEC),
				      .tv_nsec = (long)(left % NSEC_PER_SEC) };
		int n = ppoll(&p, 1, &t, NULL);

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

/* The end of the first whole object in buf, or 0 if it is not there yet; -EBADMSG. */
static ssize_t cut_object(struct qmp *q)
{
	struct cutter *c = &q->cut;

	for (; c->at < q->len; c->at++) {
		char ch = q->buf[c->at];

		if (c->string) {
			if (c->escape)
				c->escape = false;
			else if (ch == '\\')
				c->escape = true;
			else if (ch == '"')
				c->string = false;
		} else if (ch == '{' || ch == '[') {
			c->depth++;
		} else if (ch == '}' || ch == ']') {
			if (!c->depth)
				return -EBADMSG;
			if (!--c->depth)
				return (ssize_t)++c->at;
		} else if (ch == '"') {
			if (!c->depth)
				return -EBADMSG;
			c->string = true;
		} else if (!c->depth && ch != '\r' && ch != '\n' && ch != ' ' && ch != '\t') {
			return -EBADMSG;
		}
	}
	return 0;
}

/* Reads what is there. 0, -EAGAIN, -ECONNRESET, -EMSGSIZE, -ENOMEM, -errno. */
static int fill(struct qmp *q)
{
	ssize_t n;

	if (q->len + READ_BYTES > q->size) {
		size_t size = q->size * 2 > q->len + READ_BYTES ? q->size * 2 : q->len + READ_BYTES;
		char *bigger;

		if (q->len >= QMP_MESSAGE_MAX)
			return -EMSGSIZE;
		bigger = realloc(q->buf, size);
		if (!bigger)
			return -ENOMEM;
		q->buf = bigger;
		q->size = size;
	}
	do {
		n = recv(q->fd, q->buf + q->len, READ_BYTES, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ECONNRESET;
	q->len += (size_t)n;
	return 0;
}

/* One whole message (new reference), in whatever pieces it comes. */
static int read_message(struct qmp *q, uint64_t deadline, json_t **out)
{
	for (;;) {
		ssize_t end = cut_object(q);
		int ret;

		if (end < 0)
			return (int)end;
		if (end > 0) {
			*out = json_loadb(q->buf, (size_t)end, 0, NULL);
			q->len -= (size_t)end;
			memmove(q->buf, q->buf + end, q->len);
			q->cut = (struct cutter){ 0 };
			return json_is_object(*out) ? 0 : (json_decref(*out), -EBADMSG);
		}
		ret = fill(q);
		if (ret == -EAGAIN)
			ret = wait_ready(q->fd, POLLIN, deadline);
		if (ret)
			return ret;
	}
}

static void queue_event(struct qmp *q, json_t *event)
{
	if (q->nevents == QMP_EVENTS_MAX) {
		json_decref(q->events[0]);
		memmove(q->events, q->events + 1, sizeof(q->events[0]) * --q->nevents);
	}
	q->events[q->nevents++] = event;
}

/*
 * The next message that is no event. Events read on the way are queued; with one_event it returns
 * 0 and *out NULL after each of them.
 */
static int next_message(struct qmp *q, uint64_t deadline, bool one_event, json_t **out)
{
	*out = NULL;
	for (;;) {
		json_t *m = NULL;
		int ret = read_message(q, deadline, &m);

		if (ret)
			return ret;
		if (!json_object_get(m, "event")) {
			*out = m;
			return 0;
		}
		queue_event(q, m);
		if (one_event)
			return 0;
	}
}

/* Turns what read_message() and send gave into a failure; -ETIMEDOUT is the caller's to explain. */
static int lost(struct qmp *q, int err, const char *doing, struct failure *f)
{
	switch (err) {
	case -ETIMEDOUT:
		return err;
	case -ECONNRESET:
	case -EPIPE:
		return failure_set(f, -ECONNRESET, "vm-gone", NULL,
				   "QEMU ended or closed its QMP connection during %s", doing);
	default:
		q->broken = true;
		return failure_set(f, err == -ENOMEM ? err : -EBADMSG, "qmp-failed", NULL,
				   "what came over QMP during %s cannot be used: %s", doing,
				   strerror(-err));
	}
}

static int send_all(struct qmp *q, const char *text, size_t len, int fd, uint64_t deadline)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };

	while (len) {
		struct iovec iov = { .iov_base = (void *)text, .iov_len = len };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n;

		if (fd >= 0) {
			msg.msg_control = control.bytes;
			msg.msg_controllen = sizeof(control.bytes);
			control.head.cmsg_level = SOL_SOCKET;
			control.head.cmsg_type = SCM_RIGHTS;
			control.head.cmsg_len = CMSG_LEN(sizeof(int));
			memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		}
		n = sendmsg(q->fd, &msg, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN) {
			int ret = wait_ready(q->fd, POLLOUT, deadline);

			if (ret)
				return ret;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		fd = -1; /* went with the first byte */
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int send_command(struct qmp *q, const char *command, const json_t *args, uint64_t id, int fd,
			uint64_t deadline)
{
	json_t *o = json_pack("{s:s, s:O*, s:I}", "execute", command, "arguments", args, "id",
			      (json_int_t)id);
	AUTO_FREE char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	size_t len;

	json_decref(o);
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	text[len++] = '\n'; /* over the terminator, which nobody needs from here */
	return send_all(q, text, len, fd, deadline);
}

/* Reads on until the answer to id. 0 and *answer, or -errno. */
static int await_answer(struct qmp *q, uint64_t id, uint64_t deadline, json_t **answer)
{
	for (;;) {
		json_t *m;
		int ret = next_message(q, deadline, false, &m);

		if (ret)
			return ret;
		if (json_is_integer(json_object_get(m, "id")) &&
		    (uint64_t)json_integer_value(json_object_get(m, "id")) == id) {
			*answer = m;
			return 0;
		}
		log_debug("QMP: a message that nobody waits for was dropped");
		json_decref(m);
	}
}

static int refused(struct qmp *q, const char *command, const json_t *error, struct failure *f)
{
	const char *desc = json_string_value(json_object_get(error, "desc"));

	snprintf(q->error, sizeof(q->error), "%s", desc ? desc : "no reason given");
	return failure_set(f, -EREMOTEIO, "qmp-failed", NULL, "QEMU refused %s: %s", command,
			   q->error);
}

int qmp_call_fd(struct qmp *q, const char *command, json_t *args, int fd, json_t **ret,
		struct failure *f)
{
	uint64_t deadline = deadline_in(q, q->limit_ms), id = q->next_id++;
	json_t *answer = NULL, *value;
	int err;

	if (ret)
		*ret = NULL;
	q->error[0] = '\0';
	err = q->broken ? -EBADMSG : send_command(q, command, args, id, fd, deadline);
	json_decref(args);
	if (err == -ETIMEDOUT)
		q->broken = true; /* half a command may be out */
	if (!err)
		err = await_answer(q, id, deadline, &answer);
	if (err == -ETIMEDOUT)
		return failure_set(f, err, "qmp-failed", NULL, "QEMU did not answer %s in time",
				   command);
	if (err)
		return lost(q, err, command, f);
	value = json_object_get(answer, "return");
	if (!value)
		err = refused(q, command, json_object_get(answer, "error"), f);
	else if (ret)
		*ret = json_incref(value);
	json_decref(answer);
	return err;
}

int qmp_call(struct qmp *q, const char *command, json_t *args, json_t **ret, struct failure *f)
{
	return qmp_call_fd(q, command, args, -1, ret, f);
}

/* Takes the oldest queued event that fits; false if there is none. */
/* QEMU stamps events with the time of day; one from the future is taken as now. */
static uint64_t time_of(const json_t *event)
{
	const json_t *stamp = json_object_get(event, "timestamp");
	uint64_t wall = clock_of(CLOCK_REALTIME), now = clock_ns(), at;

	at = (uint64_t)json_integer_value(json_object_get(stamp, "seconds")) * NSEC_PER_SEC +
	     (uint64_t)json_integer_value(json_object_get(stamp, "microseconds")) * 1000;
	return at < wall && wall - at < now ? now - (wall - at) : now;
}

uint64_t qmp_event_time(const struct qmp *q)
{
	return q->event_ns;
}

static bool take_event(struct qmp *q, const char *name, qmp_match_fn *match, void *arg,
		       json_t **data)
{
	for (unsigned int i = 0; i < q->nevents; i++) {
		json_t *e = q->events[i];
		json_t *d = json_object_get(e, "data");

		if (strcmp(json_string_value(json_object_get(e, "event")) ?: "", name) ||
		    (match && !match(d, arg)))
			continue;
		if (data)
			*data = json_incref(d);
		q->event_ns = time_of(e);
		json_decref(e);
		memmove(q->events + i, q->events + i + 1, sizeof(e) * (--q->nevents - i));
		return true;
	}
	return false;
}

int qmp_wait_event(struct qmp *q, const char *name, qmp_match_fn *match, void *arg,
		   unsigned int timeout_ms, json_t **data, struct failure *f)
{
	uint64_t deadline = deadline_in(q, timeout_ms);

	if (data)
		*data = NULL;
	while (!take_event(q, name, match, arg, data)) {
		json_t *m;
		int ret = q->broken ? -EBADMSG : next_message(q, deadline, true, &m);

		if (ret)
			return lost(q, ret, name, f);
		json_decref(m);
	}
	return 0;
}

void qmp_forget_events(struct qmp *q, const char *name)
{
	while (take_event(q, name, NULL, NULL, NULL))
		;
}

static int greet(struct qmp *q, unsigned int greet_ms, struct failure *f)
{
	static const char *const parts[] = { "major", "minor", "micro" };
	json_t *m, *qemu;
	int ret = next_message(q, deadline_in(q, greet_ms), false, &m);

	if (ret == -ETIMEDOUT)
		return failure_set(
			f, ret, "qmp-busy", BUSY_HINT,
			"the VM's QMP socket accepts and never greets: somebody holds it");
	if (ret)
		return lost(q, ret, "the greeting", f);
	qemu = json_object_get(json_object_get(json_object_get(m, "QMP"), "version"), "qemu");
	for (int i = 0; i < 3; i++)
		q->version[i] = (int)json_integer_value(json_object_get(qemu, parts[i]));
	json_decref(m);
	if (!qemu)
		return lost(q, -EBADMSG, "the greeting", f);
	return qmp_call(q, "qmp_capabilities", NULL, NULL, f);
}

int qmp_new(struct qmp **out, int fd, unsigned int greet_ms, struct failure *f)
{
	struct qmp *q = calloc(1, sizeof(*q));
	int ret;

	*out = NULL;
	if (!q) {
		close(fd);
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	}
	q->fd = fd;
	q->limit_ms = CALL_LIMIT_MS;
	q->next_id = 1;
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		ret = failure_set(f, -errno, "internal", NULL, "fcntl failed: %m");
	else
		ret = greet(q, greet_ms, f);
	if (ret)
		qmp_free(q);
	else
		*out = q;
	return ret;
}

int qmp_connect(struct qmp **out, const char *path, unsigned int greet_ms, struct failure *f)
{
	/* With QEMU's backlog of one full, connect() waits; SO_SNDTIMEO bounds that. */
	struct timeval limit = { .tv_sec = greet_ms / 1000, .tv_usec = greet_ms % 1000 * 1000 };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*out = NULL;
	if (fd < 0)
		return failure_set(f, -errno, "internal", NULL, "socket failed: %m");
	if (strlen(path) >= sizeof(a.sun_path))
		return failure_set(f, -ENAMETOOLONG, "qmp-failed", NULL, "%s is too long a path",
				   path);
	strcpy(a.sun_path, path);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return failure_set(f, -ETIMEDOUT, "qmp-busy", BUSY_HINT,
					   "others wait already for the QMP socket %s", path);
		return failure_set(f, -errno, "qmp-failed", NULL, "cannot connect to %s: %m", path);
	}
	return qmp_new(out, fd_take(&fd), greet_ms, f);
}

void qmp_free(struct qmp *q)
{
	if (!q)
		return;
	for (unsigned int i = 0; i < q->nevents; i++)
		json_decref(q->events[i]);
	fd_close(&q->fd);
	free(q->buf);
	free(q);
}

int qmp_fd(const struct qmp *q)
{
	return q->fd;
}

void qmp_version(const struct qmp *q, int version[3])
{
	memcpy(version, q->version, sizeof(q->version));
}

void qmp_set_time_limit(struct qmp *q, unsigned int ms)
{
	q->limit_ms = ms;
}

void qmp_set_deadline(struct qmp *q, uint64_t deadline_ns)
{
	q->deadline = deadline_ns;
}

const char *qmp_error(const struct qmp *q)
{
	return q->error;
}
