// SPDX-License-Identifier: MIT
/*
 * A system call interrupted by PTRACE_INTERRUPT is restarted by the kernel after another one was
 * run in its place, if rax and orig_rax are put back and the tracer detaches at the exit stop of
 * that other one: poll goes on as restart_syscall with what is left of its time.
 */
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "tests/platform/common.h"

#ifdef __x86_64__

static long current_call(pid_t pid)
{
	char path[64], text[128] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	prove(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0, "%s", strerror(errno));
	close(fd);
	return text[0] == 'r' ? -1 : strtol(text, NULL, 10);
}

static void step(pid_t pid, enum __ptrace_request how)
{
	int status;

	prove(!ptrace(how, pid, NULL, NULL), "%s", strerror(errno));
	prove(waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status), "status %#x", status);
}

int main(void)
{
	struct user_regs_struct saved, regs;
	int fds[2], status;
	pid_t pid;

	prove(!pipe2(fds, O_CLOEXEC), "pipe");
	pid = fork();
	if (pid == 0) {
		struct pollfd p = { .fd = fds[0], .events = POLLIN };

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(poll(&p, 1, 60000) == 1 ? 0 : 1);
	}
	while (current_call(pid) != SYS_poll)
		;
	if (ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACESYSGOOD))
		skip("may not trace: %s", strerror(errno));
	step(pid, PTRACE_INTERRUPT);
	prove(!ptrace(PTRACE_GETREGS, pid, NULL, &saved), "registers");
	prove((long)saved.rax == -516 && saved.orig_rax == SYS_poll, "rax %ld, orig_rax %ld",
	      (long)saved.rax, (long)saved.orig_rax); /* -ERESTART_RESTARTBLOCK */

	regs = saved;
	regs.rip = saved.rip - 2;
	regs.rax = SYS_getpid;
	regs.orig_rax = (unsigned long long)-1;
	prove(!ptrace(PTRACE_SETREGS, pid, NULL, &regs), "set");
	step(pid, PTRACE_SYSCALL);
	step(pid, PTRACE_SYSCALL);
	prove(!ptrace(PTRACE_GETREGS, pid, NULL, &regs) && (pid_t)regs.rax == pid,
	      "getpid was run");
	prove(!ptrace(PTRACE_SETREGS, pid, NULL, &saved), "restore");
	prove(!ptrace(PTRACE_DETACH, pid, NULL, NULL), "detach");

	while (current_call(pid) != SYS_restart_syscall)
		prove(waitpid(pid, &status, WNOHANG) == 0, "ended with %#x instead", status);
	prove(write(fds[1], "x", 1) == 1, "wake");
	prove(waitpid(pid, &status, 0) == pid && status == 0, "status %#x", status);
	puts("poll went on as restart_syscall and returned what it waited for");
	return 0;
}

#else

int main(void)
{
	skip("x86-64 only");
}

#endif
