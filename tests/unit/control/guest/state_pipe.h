/* SPDX-License-Identifier: MIT */
/* Both ends of a device-state stream as the data planes serve it: kept in memory, then fed. */
#ifndef TRANSHIP_TEST_STATE_PIPE_H
#define TRANSHIP_TEST_STATE_PIPE_H

#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define STATE_PIPE_MAX (64u << 20)

struct state_pipe {
	int ours, vmm; /* the VMM's end; closed by state_pipe_given() */
	pthread_t thread;
	char *buf;
	size_t len;
};

static inline void *state_pipe_drain(void *arg)
{
	struct state_pipe *p = arg;
	ssize_t n;

	while (p->len < STATE_PIPE_MAX &&
	       (n = read(p->ours, p->buf + p->len, STATE_PIPE_MAX - p->len)) > 0)
		p->len += (size_t)n;
	return NULL;
}

static inline void *state_pipe_feed(void *arg)
{
	struct state_pipe *p = arg;
	size_t at = 0;
	ssize_t n;

	while (at < p->len && (n = send(p->ours, p->buf + at, p->len - at, MSG_NOSIGNAL)) > 0)
		at += (size_t)n;
	shutdown(p->ours, SHUT_WR);
	return NULL;
}

/* Takes everything that the VMM writes to p->vmm. */
static inline void state_pipe_take(struct state_pipe *p)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	p->ours = pair[0];
	p->vmm = pair[1];
	p->len = 0;
	p->buf = malloc(STATE_PIPE_MAX);
	if (!p->buf || pthread_create(&p->thread, NULL, state_pipe_drain, p))
		abort();
}

/* Gives what `from` took (or len bytes of buf) to whoever reads p->vmm. */
static inline void state_pipe_give(struct state_pipe *p, char *buf, size_t len)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	p->ours = pair[0];
	p->vmm = pair[1];
	p->buf = buf;
	p->len = len;
	if (pthread_create(&p->thread, NULL, state_pipe_feed, p))
		abort();
}

/* The VMM has it: our copy of its end goes. */
static inline void state_pipe_given(struct state_pipe *p)
{
	close(p->vmm);
	p->vmm = -1;
}

/* Nobody reads or writes our end any more, as when a data plane dies. */
static inline void state_pipe_break(struct state_pipe *p)
{
	shutdown(p->ours, SHUT_RDWR);
}

/* Waits for the end of the stream; p->buf stays. */
static inline void state_pipe_end(struct state_pipe *p)
{
	if (p->vmm >= 0)
		state_pipe_given(p);
	pthread_join(p->thread, NULL);
	close(p->ours);
}

#endif
