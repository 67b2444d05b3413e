// SPDX-License-Identifier: MIT
/* Starts and dismisses the guard process; see guard.h. */
#include "control/session/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/log.h"

#define CHILD_CONN_FD	3
#define CHILD_PIPE_FD	4
#define CHILD_REPORT_FD 5
#define QUIT_MS		2000

/*
 * Between fork and exec: only async-signal-safe calls. report is closed by a successful exec; the
 * errno of anything that fails goes there.
 */
static void become_guard(const char *path, char *const argv[], int conn, int pipe_end, int report)
{
	char *const env[] = { NULL };
	sigset_t none;
	int err;

	signal(SIGPIPE, SIG_DFL); /* ignored here; what is ignored stays so over exec */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	/* Out of the way of the target numbers first. */
	conn = fcntl(conn, F_DUPFD, 10);
	pipe_end = fcntl(pipe_end, F_DUPFD, 10);
	report = fcntl(report, F_DUPFD, 10);
	if (dup2(conn, CHILD_CONN_FD) >= 0 && dup2(pipe_end, CHILD_PIPE_FD) >= 0 &&
	    dup3(report, CHILD_REPORT_FD, O_CLOEXEC) >= 0) {
		syscall(SYS_close_range, CHILD_REPORT_FD + 1, ~0u, 0);
		report = CHILD_REPORT_FD;
		execve(path, argv, env);
	}
	err = errno;
	if (write(report, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

/* Waits until the child is the guard, a millisecond. -errno: it could not become it. */
static int await_exec(int report)
{
	int err = 0;
	ssize_t n;

	while ((n = read(report, &err, sizeof(err))) < 0 && errno == EINTR)
		;
	return n == 0 ? 0 : n == (ssize_t)sizeof(err) && err ? -err : -EIO;
}

static int spawn(struct guard *guard, const char *path, char *const argv[], int conn)
{
	AUTO_CLOSE int hold = -1, theirs = -1, report = -1, theirs_report = -1;
	int ends[2], err;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	theirs = ends[0];
	hold = ends[1];
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	report = ends[0];
	theirs_report = ends[1];
	pid = fork();
	if (pid == 0)
		become_guard(path, argv, conn, theirs, theirs_report);
	if (pid < 0)
		return -errno;
	fd_close(&theirs_report);
	err = await_exec(report);
	if (err) {
		waitpid(pid, NULL, 0);
		return err;
	}
	guard->pid = pid;
	guard->pipe = fd_take(&hold);
	return 0;
}

int guard_start(struct guard *guard, struct guest *g, const struct config *c,
		const char *journal_path, struct failure *f)
{
	char self[16], *const argv[] = {
		"tranship-guard", (char *)g->ops->kind, "3", "4", (char *)journal_path, self, NULL
	};
	int err, conn = g->ops->guard_fd(g);

	*guard = GUARD_NONE;
	snprintf(self, sizeof(self), "%d", getpid());
	if (conn < 0)
		return failure_set(f, conn, "internal", NULL, "The VMM gives no guard connection.");
	err = spawn(guard, c->guard, argv, conn);
	return err ? failure_set(f, err, "internal", "Name the program with --guard.",
				 "%.300s cannot be started: %s.", c->guard, strerror(-err))
		   : 0;
}

static bool reap_within(pid_t pid, int ms)
{
	AUTO_CLOSE int pidfd = pidfd_open(pid, 0);
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return pidfd < 0 || poll(&p, 1, ms) > 0;
}

void guard_limit(struct guard *guard, uint64_t end_ns)
{
	char word[1 + sizeof(end_ns)] = "l";

	memcpy(word + 1, &end_ns, sizeof(end_ns));
	/* One that has gone cannot be told, and will do nothing. */
	if (guard->pid && write(guard->pipe, word, sizeof(word)) != sizeof(word))
		log_warn("the guard could not be told how long the pause may last: %m");
}

void guard_stop(struct guard *guard)
{
	if (!guard->pid)
		return;
	/* If it cannot be told, or does not go, it must not act either. */
	if (write(guard->pipe, "q", 1) != 1 || !reap_within(guard->pid, QUIT_MS))
		kill(guard->pid, SIGKILL);
	fd_close(&guard->pipe);
	waitpid(guard->pid, NULL, 0);
	guard->pid = 0;
}
