// SPDX-License-Identifier: MIT
/* Starts and dismisses the guard process; see guard.h. */
#include "control/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

#define CHILD_CONN_FD 3
#define CHILD_PIPE_FD 4

/* Between fork and exec: only async-signal-safe calls. */
static void become_guard(const char *path, char *const argv[], int conn, int pipe_end)
{
	char *const env[] = { NULL };
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	/* Out of the way of the two target numbers first. */
	conn = fcntl(conn, F_DUPFD, 10);
	pipe_end = fcntl(pipe_end, F_DUPFD, 10);
	if (dup2(conn, CHILD_CONN_FD) < 0 || dup2(pipe_end, CHILD_PIPE_FD) < 0)
		_exit(127);
	syscall(SYS_close_range, CHILD_PIPE_FD + 1, ~0u, 0);
	execve(path, argv, env);
	_exit(127);
}

int guard_start(struct guard *guard, struct guest *g, const struct config *c,
		const char *journal_path, struct failure *f)
{
	char *const argv[] = { "tranship-guard", (char *)g->ops->kind, "3", "4",
			       (char *)journal_path, NULL };
	int pipe_ends[2], conn = g->ops->guard_fd(g);
	pid_t pid;

	*guard = GUARD_NONE;
	if (conn < 0)
		return failure_set(f, conn, "internal", NULL, "the VMM gives no guard connection");
	if (pipe2(pipe_ends, O_CLOEXEC))
		return failure_set(f, -errno, "internal", NULL, "pipe failed: %m");
	pid = fork();
	if (pid == 0)
		become_guard(c->guard, argv, conn, pipe_ends[0]);
	close(pipe_ends[0]);
	if (pid < 0) {
		close(pipe_ends[1]);
		return failure_set(f, -errno, "internal", NULL, "fork failed: %m");
	}
	guard->pid = pid;
	guard->pipe = pipe_ends[1];
	return 0;
}

void guard_stop(struct guard *guard)
{
	if (!guard->pid)
		return;
	if (write(guard->pipe, "q", 1) != 1)
		kill(guard->pid, SIGKILL); /* it is gone already, or must not act */
	fd_close(&guard->pipe);
	waitpid(guard->pid, NULL, 0);
	guard->pid = 0;
}
