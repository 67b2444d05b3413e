// SPDX-License-Identifier: MIT
/* Starts, talks to and ends a data-plane process; see dataplane_process.h. */
#include "control/session/dataplane_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/guest/proc_maps.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define QUIT_WAIT_MS 1000 /* a data plane ends within milliseconds; this is for a stuck one */
#define SEND_WAIT_S  10
#define CHILD_IPC_FD 3
#define LAST_NICE    19
#define BUSY_NS	     (200 * NSEC_PER_MSEC) /* of processor time; waking up costs 1 ms a second */

/* Between fork and exec: only async-signal-safe calls. */
static void become_dataplane(const char *path, char *const argv[], int sock)
{
	char *const env[] = { NULL };
	sigset_t none;

	signal(SIGPIPE, SIG_DFL); /* ignored here; what is ignored stays so over exec */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (sock == CHILD_IPC_FD)
		fcntl(sock, F_SETFD, 0);
	else if (dup2(sock, CHILD_IPC_FD) < 0)
		_exit(127);
	syscall(SYS_close_range, CHILD_IPC_FD + 1, ~0u, 0);
	execve(path, argv, env);
	_exit(127);
}

int dataplane_start(struct dataplane *d, const struct config *c, struct failure *f)
{
	const struct timeval most = { .tv_sec = SEND_WAIT_S };
	char fd_arg[16], *const argv[] = { "tranship-dataplane", fd_arg, NULL };
	int pair[2];
	pid_t pid;

	*d = DATAPLANE_NONE;
	snprintf(fd_arg, sizeof(fd_arg), "%d", CHILD_IPC_FD);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return failure_set(f, -errno, "internal", NULL, "socketpair failed: %m");
	pid = fork();
	if (pid == 0)
		become_dataplane(c->dataplane, argv, pair[1]);
	close(pair[1]);
	if (pid < 0) {
		int err = -errno;

		close(pair[0]);
		return failure_set(f, err, "internal", NULL, "fork failed: %s", strerror(-err));
	}
	d->pid = pid;
	d->sock = pair[0];
	/* One that hangs takes nothing any more. */
	setsockopt(d->sock, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
	return 0;
}

static int died(struct dataplane *d, struct failure *f)
{
	int status = 0;

	if (d->pid && waitpid(d->pid, &status, WNOHANG) == d->pid)
		d->pid = 0;
	if (WIFSIGNALED(status))
		return failure_set(f, -EPIPE, "dataplane-died", "See transhipd's log.",
				   "The data-plane process was killed by signal %d.",
				   WTERMSIG(status));
	return failure_set(f, -EPIPE, "dataplane-died", "See transhipd's log.",
			   "The data-plane process ended unexpectedly.");
}

static int told_failure(const struct failure *why, struct failure *f)
{
	return failure_set(f, -EREMOTEIO, failure_code_known(why->code) ? why->code : "internal",
			   why->hint, "%s", why->message);
}

int dataplane_send(struct dataplane *d, enum ipc_type type, const void *body, int fd,
		   struct failure *f)
{
	int err = ipc_send(d->sock, type, body, fd);
	struct ipc_message m;
	int got;

	if (!err)
		return 0;
	/* It may have said why before it went. */
	while (!ipc_recv(d->sock, &m, &got, 0)) {
		fd_close(&got);
		if (m.head.type == IPC_FAILED)
			return told_failure(&m.body.failure, f);
	}
	if (err == -EPIPE || err == -ECONNRESET)
		return died(d, f);
	return failure_set(f, err, "internal", NULL, "sending %s to the data plane: %s",
			   ipc_type_name(type), strerror(-err));
}

/* --- waiting --------------------------------------------------------------------------------- */

/* What shows that a data plane is at work: a stuck one wakes up to say so, for microseconds. */
struct liveness {
	uint64_t since_ns;
	struct ipc_stats at;
};

static void note_life(struct liveness *l, const struct ipc_stats *s)
{
	if (s->wire_bytes == l->at.wire_bytes && s->sent_pages == l->at.sent_pages &&
	    s->state_bytes == l->at.state_bytes && s->cpu_ns < l->at.cpu_ns + BUSY_NS)
		return;
	l->since_ns = clock_ns();
	l->at = *s;
}

static int too_late(const struct dataplane_wait *w, struct failure *f)
{
	if (w->late)
		return failure_set(f, -ETIMEDOUT, "internal", "See transhipd's log.", "%s",
				   w->late);
	return failure_set(f, -ETIMEDOUT, "timeout",
			   "Allow more time with --timeout, or more bandwidth.",
			   "The time limit of the migration passed.");
}

static int stalled(const struct dataplane_wait *w, struct failure *f)
{
	return failure_set(f, -ETIMEDOUT, "data-lost",
			   "Look at the destination and at the network between the hosts.",
			   "Nothing was sent or acknowledged for %u s.", w->stall_ms / 1000);
}

/* Milliseconds that may be waited, -1: for ever. -ETIMEDOUT with f if that was too long already. */
static int patience(const struct dataplane_wait *w, const struct liveness *l, int *ms,
		    struct failure *f)
{
	uint64_t now = clock_ns(), end = l->since_ns + w->stall_ms * NSEC_PER_MSEC;

	if (w->deadline_ns && now >= w->deadline_ns)
		return too_late(w, f);
	if (w->stall_ms && now >= end)
		return stalled(w, f);
	if (!w->stall_ms || (w->deadline_ns && w->deadline_ns < end))
		end = w->deadline_ns;
	*ms = end ? (int)((end - now) / NSEC_PER_MSEC) + 1 : -1;
	return 0;
}

static int vm_gone(struct failure *f)
{
	return failure_set(f, -ESRCH, "vm-gone", NULL,
			   "The VM's process ended during the migration.");
}

/*
 * A data plane that reads the memory of a process that is being killed fails a moment before that
 * process has ended for its pidfd. It has no memory any more then, as /proc shows.
 */
static bool has_lost_its_memory(int pidfd)
{
	char path[64], line[64];
	long pid = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	file = fopen(path, "re");
	while (file && pid < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "Pid: %ld", &pid);
	if (file)
		fclose(file);
	return pid > 0 && proc_status_number((pid_t)pid, "VmSize") < 0;
}

/* Waits until the socket is readable, or for one of the other reasons. */
static int wait_message(struct dataplane *d, struct dataplane_wait *w, const struct liveness *l,
			struct failure *f)
{
	struct pollfd p[4] = { { .fd = d->sock, .events = POLLIN },
			       { .fd = w->cancel_fd, .events = POLLIN },
			       { .fd = w->guest_fd, .events = POLLIN },
			       { .fd = w->noticed ? w->notice_fd : -1, .events = POLLIN } };

	for (;;) {
		int ms = -1, n, err = patience(w, l, &ms, f);

		if (err)
			return err;
		n = poll(p, 4, ms);
		if (n < 0 && errno != EINTR)
			return failure_set(f, -errno, "internal", NULL, "poll failed: %m");
		if (n <= 0)
			continue;
		if (p[1].revents)
			return failure_set(f, -ECANCELED, "cancelled", NULL,
					   "The migration was cancelled.");
		if (p[2].revents)
			return vm_gone(f);
		if (p[3].revents)
			w->noticed(w->arg, w);
		if (p[0].revents)
			return 0;
	}
}

/* One message, PROGRESS and FAILED dealt with. -EAGAIN: it was nothing to look at. */
static int next_message(struct dataplane *d, struct ipc_message *m, struct dataplane_wait *w,
			struct liveness *l, struct failure *f)
{
	int err = wait_message(d, w, l, f), fd;

	if (err)
		return err;
	err = ipc_recv(d->sock, m, &fd, 0);
	fd_close(&fd);
	if (err == -ECONNRESET)
		return died(d, f);
	if (err == -ETIMEDOUT)
		return -EAGAIN;
	if (err)
		return failure_set(f, err, "internal", NULL,
				   "a malformed message came from the data plane: %s",
				   strerror(-err));
	if (m->head.type == IPC_FAILED)
		return has_lost_its_memory(w->guest_fd) ? vm_gone(f)
							: told_failure(&m->body.failure, f);
	if (m->head.type != IPC_PROGRESS)
		return 0;
	note_life(l, &m->body.stats);
	if (w->progress)
		w->progress(w->arg, &m->body.stats);
	return -EAGAIN;
}

int dataplane_expect(struct dataplane *d, enum ipc_type want, struct ipc_message *m,
		     const struct dataplane_wait *wanted, struct failure *f)
{
	struct dataplane_wait w = *wanted;
	struct liveness l = { .since_ns = clock_ns() };
	int err;

	for (;;) {
		err = next_message(d, m, &w, &l, f);
		if (err == -EAGAIN)
			continue;
		if (err)
			return err;
		if (m->head.type == want)
			return 0;
		if (w.skip_others)
			continue;
		return failure_set(f, -EPROTO, "internal", NULL,
				   "the data plane said %s where %s was due",
				   ipc_type_name(m->head.type), ipc_type_name(want));
	}
}

/* --- the end --------------------------------------------------------------------------------- */

static bool reap_within(struct dataplane *d, int ms)
{
	int pidfd = (int)syscall(SYS_pidfd_open, d->pid, 0);
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	bool gone;

	gone = pidfd < 0 || poll(&p, 1, ms) > 0;
	if (pidfd >= 0)
		close(pidfd);
	return gone;
}

/* Reads what it has said until there is no more. True with why: that it failed. */
static bool hear(struct dataplane *d, struct failure *why, int *err)
{
	bool failed = false;
	struct ipc_message m;
	int fd;

	while (!(*err = ipc_recv(d->sock, &m, &fd, 0))) {
		fd_close(&fd);
		if (m.head.type == IPC_FAILED && !failed) {
			told_failure(&m.body.failure, why);
			failed = true;
		}
	}
	return failed;
}

bool dataplane_stop_hear(struct dataplane *d, struct failure *why)
{
	bool failed = false;
	int err = 0, sock;

	if (d->sock >= 0) {
		failed = hear(d, why, &err);
		/* nobody has told it to end yet */
		if (!failed && (err == -ECONNRESET || err == -EPIPE)) {
			died(d, why);
			failed = true;
		}
	}
	/* its last words are read when it has ended */
	sock = d->sock >= 0 ? fcntl(d->sock, F_DUPFD_CLOEXEC, 0) : -1;
	dataplane_stop(d);
	if (sock >= 0 && !failed) {
		struct dataplane after = { .sock = sock };

		failed = hear(&after, why, &err);
	}
	fd_close(&sock);
	return failed;
}

/* Of its main thread, which undoes what it has when the others are gone. */
static void set_priority(const struct dataplane *d, int nice)
{
	if (d->pid > 0 && setpriority(PRIO_PROCESS, (id_t)d->pid, nice))
		log_debug("priority of data plane %d: %s", d->pid, strerror(errno));
}

void dataplane_dismiss(struct dataplane *d)
{
	set_priority(d, LAST_NICE);
	if (d->sock >= 0)
		ipc_send(d->sock, IPC_QUIT, NULL, -1);
	fd_close(&d->sock);
}

void dataplane_stop(struct dataplane *d)
{
	set_priority(d, 0); /* somebody waits for it now */
	if (d->sock >= 0)
		ipc_send(d->sock, IPC_QUIT, NULL, -1);
	if (d->pid > 0) {
		if (!reap_within(d, QUIT_WAIT_MS)) {
			log_warn("data plane %d did not quit, killing it", d->pid);
			kill(d->pid, SIGKILL);
		}
		waitpid(d->pid, NULL, 0);
	}
	d->pid = 0;
	fd_close(&d->sock);
}
