// SPDX-License-Identifier: MIT
/*
 * tranship-guard KIND CONN_FD PIPE_FD JOURNAL DAEMON: runs a paused guest on if transhipd dies, or
 * hangs, in the pause, before COMMIT.
 *
 * Theory of operation
 *   Started by transhipd before it pauses a guest. It holds a copy of the daemon's connection to
 *   the VMM, silent, and the reading end of a pipe whose only writing end the daemon has. A 'q' on
 *   the pipe: the guest runs or has gone over, the guard ends. The end of the pipe without it: the
 *   daemon is dead. Then the journal decides: once COMMITTED (or later, or unresolved) is in it,
 *   only the destination may run the guest, and the guard ends without doing anything; else it runs
 *   the guest on here.
 *
 *   'l' on the pipe, and a moment (8 bytes, CLOCK_MONOTONIC ns): if nothing else was said by then,
 *   the daemon hangs (it was stopped, or its disk does not answer). It is killed then, and only its
 *   death, the end of the pipe, leads on: so nobody can act on what was decided before, and the
 *   journal has its last word, as ever. A process that cannot be killed does not end the pipe, and
 *   nothing is done.
 *
 *   qemu: the daemon may have died in the middle of a command, so 0xFF first, which resets QEMU's
 *   JSON lexer. migrate_cancel, and cont until QEMU says that the guest runs; QEMU refuses cont
 *   while it puts itself back after a cancel, and tells the end of that by an event, which the
 *   guard waits for a little before it tries again. Then the capabilities that are dangerous to
 *   leave on go off and the parameters get the values of the journal. A guest that was paused
 *   before the session is not run.
 *
 *   tranship: one request on the connection (lib/tranship_proto.h).
 *
 *   It must work when everything else is in pieces: no library but libc, no allocation, and text is
 *   scanned for what is looked for instead of parsed. It has its own session (setsid), so that
 *   signals to the daemon's process group do not reach it, and ignores what ends others.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/tranship_proto.h"

#define ANSWER_MS 2000u	 /* for one answer of the VMM */
#define EVENT_MS  2u	 /* for an event; then it asks again */
#define RESCUE_MS 20000u /* for everything */
#define LATE_MS	  1000u	 /* for a daemon that is taken for one that hangs */
#define BUFFER	  (1u << 16)

static void say(const char *what)
{
	dprintf(STDERR_FILENO, "tranship-guard: %s\n", what);
}

/* --- the journal ------------------------------------------------------------------------------ */

struct journal_facts {
	bool hands_off;	 /* COMMITTED or later, or not to be read: touch nothing */
	bool was_paused; /* before the session */
	long long max_bandwidth, downtime_limit; /* before the session; -1: not known */
};

static const char *skip_spaces(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\r' || *p == '\n'))
		p++;
	return p;
}

/* The text of the value of the first member "key" in [p, end), or NULL. Begins at p + 1. */
static const char *value_of(const char *p, const char *end, const char *key)
{
	size_t len = strlen(key);

	while (++p < end && (p = memmem(p, (size_t)(end - p), key, len))) {
		const char *after = skip_spaces(p + len + 1, end);

		if (p[-1] == '"' && after < end && p[len] == '"' && *after == ':')
			return skip_spaces(after + 1, end);
	}
	return NULL;
}

static bool says(const char *value, const char *end, const char *word)
{
	return value && (size_t)(end - value) >= strlen(word) &&
	       !strncmp(value, word, strlen(word));
}

static void read_record(const char *line, const char *end, struct journal_facts *j)
{
	static const char *const final[] = { "\"committed\"", "\"running\"", "\"done\"",
					     "\"unresolved\"" };
	const char *state = value_of(line, end, "state");
	const char *bandwidth = value_of(line, end, "max-bandwidth");
	const char *limit = value_of(line, end, "downtime-limit");

	for (size_t i = 0; i < sizeof(final) / sizeof(final[0]); i++)
		j->hands_off |= says(state, end, final[i]);
	if (says(value_of(line, end, "was_running"), end, "false"))
		j->was_paused = true;
	if (bandwidth)
		j->max_bandwidth = strtoll(bandwidth, NULL, 10);
	if (limit)
		j->downtime_limit = strtoll(limit, NULL, 10);
}

/*
 * Whole lines only: a torn last one was never durable, so what it announces was not done. A record
 * begins with its state (journal.c); the file ends in zeros, which hold no line.
 */
static void read_journal(const char *path, struct journal_facts *j)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *text, *line, *end;
	struct stat st;

	*j = (struct journal_facts){ .max_bandwidth = -1, .downtime_limit = -1 };
	if (fd < 0 || fstat(fd, &st)) {
		j->hands_off = true;
		return;
	}
	if (st.st_size == 0)
		return;
	text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (text == MAP_FAILED) {
		j->hands_off = true;
		return;
	}
	for (line = text; line < text + st.st_size; line = end + 1) {
		end = memchr(line, '\n', (size_t)(text + st.st_size - line));
		if (!end)
			break;
		read_record(line, end, j);
	}
}

/* --- QEMU ------------------------------------------------------------------------------------- */

struct connection {
	int fd;
	uint64_t deadline;
	unsigned int id;
	char buf[BUFFER];
	size_t len;
};

static int wait_for(int fd, short what, uint64_t deadline)
{
	for (;;) {
		uint64_t now = clock_ns();
		struct pollfd p = { .fd = fd, .events = what };
		int left = now < deadline ? (int)((deadline - now) / NSEC_PER_MSEC) + 1 : 0;
		int n = poll(&p, 1, left);

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int send_text(struct connection *c, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(c->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			int ret = wait_for(c->fd, POLLOUT, c->deadline);

			if (ret)
				return ret;
			continue;
		}
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* Drops the first n bytes. */
static void consume(struct connection *c, size_t n)
{
	c->len -= n;
	memmove(c->buf, c->buf + n, c->len);
}

/* Reads more; a message longer than the buffer cannot be one that is waited for. */
static int read_more(struct connection *c, uint64_t deadline)
{
	ssize_t n;
	int ret;

	if (c->len == sizeof(c->buf))
		c->len = 0;
	ret = wait_for(c->fd, POLLIN, deadline < c->deadline ? deadline : c->deadline);
	if (ret)
		return ret;
	n = recv(c->fd, c->buf + c->len, sizeof(c->buf) - c->len, MSG_DONTWAIT);
	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	c->len += (size_t)n;
	return 0;
}

/*
 * Sends a command (with its arguments, or "") and copies the line of its answer. A monitor with
 * pretty=on spreads it over several lines; then the id comes last, and what is in the buffer up to
 * it is the answer.
 */
static int ask(struct connection *c, const char *command, const char *arguments, char *answer,
	       size_t size)
{
	uint64_t deadline = clock_ns() + ANSWER_MS * NSEC_PER_MSEC;
	char text[512], id[32];
	int ret;

	c->len = 0; /* what came before is of no interest */
	snprintf(id, sizeof(id), "\"guard-%u\"", ++c->id);
	snprintf(text, sizeof(text), "{\"execute\":\"%s\"%s%s,\"id\":%s}\n", command,
		 arguments[0] ? ",\"arguments\":" : "", arguments, id);
	ret = send_text(c, text, strlen(text));
	while (!ret) {
		const char *at = memmem(c->buf, c->len, id, strlen(id));
		const char *end = at ? memchr(at, '}', c->len - (size_t)(at - c->buf)) : NULL;

		if (end) {
			size_t len = (size_t)(end - c->buf) + 1;

			snprintf(answer, size, "%.*s", (int)len, c->buf);
			consume(c, len);
			return 0;
		}
		ret = read_more(c, deadline);
	}
	return ret;
}

static bool is_running(struct connection *c)
{
	char answer[4096];
	const char *value;

	if (ask(c, "query-status", "", answer, sizeof(answer)))
		return false;
	value = value_of(answer, answer + strlen(answer), "running");
	return says(value, answer + strlen(answer), "true");
}

/*
 * Waits until QEMU tells something: while it puts itself back after a cancel that is RESUME, and it
 * may have come with the last answer. After completed nothing comes and cont is tried again.
 */
static int await_event(struct connection *c)
{
	uint64_t deadline = clock_ns() + EVENT_MS * NSEC_PER_MSEC;
	int ret = 0;

	while (!ret && !memchr(c->buf, '{', c->len))
		ret = read_more(c, deadline);
	c->len = 0;
	return ret == -ETIMEDOUT ? 0 : ret;
}

static int run_on(struct connection *c)
{
	char answer[4096];
	int ret = ask(c, "migrate_cancel", "", answer, sizeof(answer));

	while (!ret && clock_ns() < c->deadline) {
		if (is_running(c))
			return 0;
		ret = ask(c, "cont", "", answer, sizeof(answer));
		if (!ret && strstr(answer, "\"error\""))
			ret = await_event(c);
	}
	return ret ? ret : -ETIMEDOUT;
}

/* Asks until it is granted: while a cancelled migration is being cleaned up nothing can be set. */
static void ask_until_granted(struct connection *c, const char *command, const char *arguments)
{
	uint64_t deadline = clock_ns() + ANSWER_MS * NSEC_PER_MSEC;
	char answer[4096];

	while (clock_ns() < deadline) {
		if (ask(c, command, arguments, answer, sizeof(answer)) ||
		    !strstr(answer, "\"error\"") || await_event(c))
			return;
	}
}

/* What a later migration by QEMU itself must not find. */
static void put_back(struct connection *c, const struct journal_facts *j)
{
	char text[256];

	ask_until_granted(c, "migrate-set-capabilities",
			  "{\"capabilities\":["
			  "{\"capability\":\"x-ignore-shared\",\"state\":false},"
			  "{\"capability\":\"pause-before-switchover\",\"state\":false},"
			  "{\"capability\":\"late-block-activate\",\"state\":false}]}");
	if (j->max_bandwidth >= 0 && j->downtime_limit >= 0) {
		snprintf(text, sizeof(text), "{\"max-bandwidth\":%lld,\"downtime-limit\":%lld}",
			 j->max_bandwidth, j->downtime_limit);
		ask_until_granted(c, "migrate-set-parameters", text);
	}
}

static int rescue_qemu(int fd, const struct journal_facts *j)
{
	static struct connection c;
	char answer[4096];
	int ret;

	c.fd = fd;
	c.deadline = clock_ns() + RESCUE_MS * NSEC_PER_MSEC;
	ret = send_text(&c, "\xff\n", 2);
	if (!ret && j->was_paused)
		ret = ask(&c, "migrate_cancel", "", answer, sizeof(answer));
	else if (!ret)
		ret = run_on(&c);
	if (!ret)
		put_back(&c, j);
	return ret;
}

/* --- a VMM with libtranship ------------------------------------------------------------------- */

/* One request; answers to what transhipd asked before it died may come first. */
static int rescue_tranship(int fd, const struct journal_facts *j)
{
	uint64_t deadline = clock_ns() + RESCUE_MS * NSEC_PER_MSEC;
	static char packet[TRANSHIP_PACKET_MAX];
	struct tranship_head h;
	int ret = 0;

	if (j->was_paused)
		return 0;
	tranship_request_resume(&h);
	if (send(fd, &h, sizeof(h), MSG_NOSIGNAL) != sizeof(h))
		return -errno;
	while (!ret) {
		ssize_t n;

		ret = wait_for(fd, POLLIN, deadline);
		if (ret)
			break;
		n = recv(fd, packet, sizeof(packet), MSG_DONTWAIT);
		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n < (ssize_t)sizeof(h))
			continue;
		memcpy(&h, packet, sizeof(h));
		if (h.serial == TRANSHIP_SERIAL_GUARD)
			return h.status;
	}
	return ret;
}

/* --- main ------------------------------------------------------------------------------------- */

static const struct kind {
	const char *name;
	int (*rescue)(int fd, const struct journal_facts *j);
} kinds[] = {
	{ "qemu", rescue_qemu },
	{ "tranship", rescue_tranship },
};

/* The daemon, or -1 if it has ended already: then the pipe says so too. */
static int open_daemon(pid_t pid)
{
	int fd = pid > 1 ? pidfd_open(pid, 0) : -1;

	/* its number may be another's by now, but not while we are its child */
	if (fd >= 0 && getppid() == pid)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Only where its death helps: what is committed is not ours to run, and it may yet say so. */
static void kill_daemon(int daemon, const char *journal)
{
	struct journal_facts j;

	read_journal(journal, &j);
	if (j.hands_off)
		return;
	say("transhipd hangs while the guest stands still: it is killed");
	if (daemon < 0 || pidfd_send_signal(daemon, SIGKILL, NULL, 0))
		say("it could not be killed");
}

/* True if the daemon dismissed us, false if it died. */
static bool dismissed(int fd, int daemon, const char *journal)
{
	uint64_t end = 0; /* clock_ns() at which it is taken for one that hangs; 0: never */
	bool late = false;
	char word[1];

	for (;;) {
		ssize_t n;

		if (end && wait_for(fd, POLLIN, end) == -ETIMEDOUT) {
			/* if both were frozen, or starved, it gets a moment to go on first */
			if (late)
				kill_daemon(daemon, journal);
			end = late ? 0 : clock_ns() + LATE_MS * NSEC_PER_MSEC;
			late = true;
			continue;
		}
		late = false;
		n = read(fd, word, 1);
		if (n == 1 && word[0] == 'q')
			return true;
		if (n == 1 && word[0] == 'l' && read(fd, &end, sizeof(end)) != sizeof(end))
			return false;
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
			return false;
	}
}

static int number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	return end == text || *end || n < 0 || n > INT32_MAX ? -1 : (int)n;
}

int main(int argc, char **argv)
{
	static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE };
	const struct kind *kind = NULL;
	struct journal_facts j;
	int conn, pipe_end, daemon, ret;

	for (size_t i = 0; argc == 6 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(argv[1], kinds[i].name))
			kind = &kinds[i];
	conn = argc == 6 ? number(argv[2]) : -1;
	pipe_end = argc == 6 ? number(argv[3]) : -1;
	if (!kind || conn < 0 || pipe_end < 0) {
		say("usage: tranship-guard KIND CONN_FD PIPE_FD JOURNAL DAEMON; transhipd starts "
		    "it");
		return 1;
	}
	daemon = open_daemon(number(argv[5]));
	setsid();
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	if (dismissed(pipe_end, daemon, argv[4]))
		return 0;
	read_journal(argv[4], &j);
	if (j.hands_off) {
		say("transhipd is gone; the guest is not ours to run any more");
		return 0;
	}
	ret = kind->rescue(conn, &j);
	say(ret		   ? "transhipd is gone; the guest could not be run on"
	    : j.was_paused ? "transhipd is gone; the guest stays paused, as it was"
			   : "transhipd is gone; the guest runs on");
	return ret ? 2 : 0;
}
