// SPDX-License-Identifier: MIT
/*
 * One system call inside another process, by ptrace; see inject.h.
 *
 * Theory of operation
 *   The work is done by a process of its own, cloned for the purpose: if transhipd is killed in the
 *   middle, that process still finishes and puts the thread back. (Were it killed too, the kernel
 *   detaches the thread as it stands: untouched until the registers are set, and unable to go on
 *   for the some 50 us between that and their restoration. Nothing shorter is possible without
 *   writing to the VMM's memory.) It is cloned without an exit signal, so that no SIGCHLD and no
 *   waitpid(-1) of the daemon ever sees it, allocates nothing and takes no lock, because the other
 *   threads of the daemon do not exist in it.
 *
 *   It seizes one thread, interrupts it and waits for the stop that this causes. A signal on its
 *   way is handed on first; a process stopped by SIGSTOP is let be. Then all signals are blocked,
 *   the registers are set for the call with rip at a `syscall` instruction (of the vDSO, else the
 *   one the thread sits in), and the thread runs from that instruction's entry to its exit
 *   (PTRACE_SYSCALL: no SIGTRAP is involved, which would reset a disposition). At the exit all is
 *   restored and the thread is let go.
 *
 *   An interrupted system call: the kernel has left -ERESTART* in rax and its number in orig_rax,
 *   and decides on the way back to user mode whether to restart. orig_rax = -1 keeps it from
 *   deciding about our call; after the restoration, detaching marks the thread as having a signal
 *   to look at, so that it decides about the original one, with the restart block of nanosleep and
 *   the like in place. The temporary signal mask of ppoll and sigsuspend is re-applied by their
 *   restart; what is saved and restored here is the thread's own (PTRACE_GETSIGMASK).
 *
 *   seccomp: a filter could kill the VMM for a call it does not expect, so it is suspended for the
 *   duration (PTRACE_O_SUSPEND_SECCOMP), or nothing is done.
 */
#include "control/guest/inject.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/guest/proc_maps.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/kernel_abi.h"

#ifdef __x86_64__

/* A thread in a system call stops at once; one that does not is in an uninterruptible wait. */
#define STOP_NS NSEC_PER_SEC
/* The calls made here return in microseconds; close(2) of an armed userfaultfd in seconds. */
#define CALL_MS 30000
#define TRIES	4

#define USER_CS 0x33 /* a 64-bit thread */

enum stage {
	STAGE_DONE,
	STAGE_SEIZE,
	STAGE_SECCOMP,
	STAGE_STOP,
	STAGE_STOPPED,
	STAGE_CODE,
	STAGE_CALL
};

struct order {
	pid_t pid, tid;
	long nr;
	uint64_t args[6];
	uint64_t vdso_syscall; /* address of a syscall instruction, or 0 */
	bool seccomp;
};

struct report {
	enum stage stage; /* where it ended */
	int err;
	int64_t result;
};

/* Waits for the next stop of tid. 0, -ESRCH if it ended, -ETIMEDOUT. deadline 0: none. */
static int wait_stop(pid_t tid, uint64_t deadline, int *status)
{
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	for (;;) {
		pid_t got = waitpid(tid, status, __WALL | WNOHANG);
		struct timespec left = { 1, 0 };
		uint64_t now;

		if (got == tid)
			return WIFSTOPPED(*status) ? 0 : -ESRCH;
		if (got < 0)
			return -ESRCH;
		now = clock_ns();
		if (deadline && now >= deadline)
			return -ETIMEDOUT;
		if (deadline && deadline - now < NSEC_PER_SEC)
			left = (struct timespec){ 0, (long)(deadline - now) };
		sigtimedwait(&child, NULL, &left); /* a stop sends SIGCHLD, which is blocked */
	}
}

static int stop_event(int status)
{
	return status >> 16;
}

/* Waits until the thread stops because of our PTRACE_INTERRUPT. -EBUSY: stopped by a signal. */
static int wait_interrupted(pid_t tid)
{
	uint64_t deadline = clock_ns() + STOP_NS;

	for (;;) {
		int status, err = wait_stop(tid, deadline, &status);

		if (err)
			return err;
		if (stop_event(status) == PTRACE_EVENT_STOP)
			return WSTOPSIG(status) == SIGTRAP ? 0 : -EBUSY;
		/* a signal that came at the same time: delivered first, then we stop it again */
		ptrace(PTRACE_CONT, tid, NULL, stop_event(status) ? 0L : (long)WSTOPSIG(status));
	}
}

/*
 * Runs on to the entry or exit of a system call. SIGSTOP cannot be blocked: *stop_signal remembers
 * that it came, for it is swallowed here.
 */
static int run_to_syscall_stop(pid_t tid, bool *stop_signal)
{
	for (;;) {
		int status, err;

		if (ptrace(PTRACE_SYSCALL, tid, NULL, NULL))
			return -errno;
		err = wait_stop(tid, 0, &status);
		if (err)
			return err;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80))
			return 0;
		if (!stop_event(status) && WSTOPSIG(status) == SIGSTOP)
			*stop_signal = true;
	}
}

/*
 * Within a restartable sequence (rseq) the kernel would see a foreign rip and forget to abort it.
 * Only a thread in user code can be in one.
 */
static bool in_rseq_section(pid_t tid, uint64_t rip)
{
	struct {
		uint64_t pointer;
		uint32_t size, signature, flags, pad;
	} config = { 0 };
	const enum __ptrace_request get_rseq = (enum __ptrace_request)0x420f;
	long section, start, length;

	if (ptrace(get_rseq, tid, sizeof(config), &config) <= 0 || !config.pointer)
		return false;
	section = ptrace(PTRACE_PEEKDATA, tid, config.pointer + 8, NULL);
	if (section == 0 || section == -1)
		return false;
	start = ptrace(PTRACE_PEEKDATA, tid, section + 8, NULL);
	length = ptrace(PTRACE_PEEKDATA, tid, section + 16, NULL);
	return rip - (uint64_t)start < (uint64_t)length;
}

/* The address of a syscall instruction that the thread may execute, or 0. */
static uint64_t find_instruction(const struct order *o, const struct user_regs_struct *regs)
{
	if (o->vdso_syscall)
		return o->vdso_syscall;
	if ((long)regs->orig_rax >= 0) {
		long code;

		errno = 0;
		code = ptrace(PTRACE_PEEKTEXT, o->tid, regs->rip - 2, NULL);
		if (!errno && (code & 0xffff) == 0x050f)
			return regs->rip - 2;
	}
	return 0;
}

static void set_call(struct user_regs_struct *r, const struct order *o, uint64_t instruction)
{
	r->rip = instruction;
	r->rax = (unsigned long long)o->nr;
	r->orig_rax = (unsigned long long)-1;
	r->rdi = o->args[0];
	r->rsi = o->args[1];
	r->rdx = o->args[2];
	r->r10 = o->args[3];
	r->r8 = o->args[4];
	r->r9 = o->args[5];
}

/* The thread is in its interrupt stop, unchanged, and is unchanged again at return. */
static int make_call(const struct order *o, struct report *rep, bool *stop_signal)
{
	struct user_regs_struct saved, regs;
	uint64_t mask, all = ~0ull, instruction;
	int err;

	rep->stage = STAGE_CODE;
	if (ptrace(PTRACE_GETREGS, o->tid, NULL, &saved) ||
	    ptrace(PTRACE_GETSIGMASK, o->tid, sizeof(mask), &mask))
		return -errno;
	instruction = find_instruction(o, &saved);
	if (saved.cs != USER_CS || !instruction)
		return -EOPNOTSUPP;
	if ((long)saved.orig_rax < 0 && in_rseq_section(o->tid, saved.rip))
		return -EAGAIN;

	rep->stage = STAGE_CALL;
	regs = saved;
	set_call(&regs, o, instruction);
	if (ptrace(PTRACE_SETSIGMASK, o->tid, sizeof(all), &all))
		return -errno;
	err = ptrace(PTRACE_SETREGS, o->tid, NULL, &regs) ? -errno : 0;
	if (!err)
		err = run_to_syscall_stop(o->tid, stop_signal); /* entry */
	if (!err)
		err = run_to_syscall_stop(o->tid, stop_signal); /* exit */
	if (err == -ESRCH)
		return err;
	if (!err)
		err = ptrace(PTRACE_GETREGS, o->tid, NULL, &regs) ? -errno : 0;
	rep->result = (int64_t)regs.rax;
	if (ptrace(PTRACE_SETREGS, o->tid, NULL, &saved) ||
	    ptrace(PTRACE_SETSIGMASK, o->tid, sizeof(mask), &mask))
		err = err ? err : -errno;
	return err;
}

static int trace(const struct order *o, struct report *rep)
{
	long options = PTRACE_O_TRACESYSGOOD | (o->seccomp ? PTRACE_O_SUSPEND_SECCOMP : 0);
	bool stop_signal = false;
	int err;

	rep->stage = STAGE_SEIZE;
	if (ptrace(PTRACE_SEIZE, o->tid, NULL, options)) {
		err = -errno;
		/* without the option the same would have worked: it is what fails */
		if (o->seccomp && !ptrace(PTRACE_SEIZE, o->tid, NULL, NULL))
			rep->stage = STAGE_SECCOMP;
		return err; /* our exit detaches */
	}
	rep->stage = STAGE_STOP;
	if (ptrace(PTRACE_INTERRUPT, o->tid, NULL, NULL))
		return -errno;
	err = wait_interrupted(o->tid);
	if (err == -EBUSY)
		rep->stage = STAGE_STOPPED;
	if (err == -ETIMEDOUT)
		return err; /* a running thread cannot be detached but by our exit */
	if (!err)
		err = make_call(o, rep, &stop_signal);
	ptrace(PTRACE_DETACH, o->tid, NULL, NULL);
	if (stop_signal)
		kill(o->pid, SIGSTOP);
	if (!err)
		rep->stage = STAGE_DONE;
	return err;
}

/* The cloned process: only async-signal-safe calls from here on. */
static _Noreturn void tracer(const struct order *o, int pipe_fd)
{
	struct sigaction by_default = { .sa_handler = SIG_DFL };
	struct sched_param soon = { .sched_priority = 1 };
	struct report rep = { 0 };
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	sigaction(SIGCHLD, &by_default, NULL);
	setsid(); /* Ctrl-C in the daemon's terminal is not for us */
	/* Nobody must wait for an end of ours that is a copy of the daemon's. */
	if (pipe_fd != 3)
		dup2(pipe_fd, 3);
	syscall(SYS_close_range, 4u, ~0u, 0u);
	/* The thread stands still until we have had the processor a few times: soon. */
	sched_setscheduler(0, SCHED_FIFO, &soon);
	rep.err = trace(o, &rep);
	_exit(io_write_full(3, &rep, sizeof(rep)) ? 1 : 0);
}

/* Clones the tracer and waits for what it says. -errno if there is no report. */
static int run_tracer(const struct order *o, struct report *rep)
{
	AUTO_CLOSE int in = -1;
	AUTO_CLOSE int out = -1;
	struct pollfd p = { .events = POLLIN };
	int fds[2], ready, err;
	long child;

	/* those that outlasted their time-out, if any */
	while (waitpid(-1, NULL, __WCLONE | WNOHANG) > 0)
		;
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	in = fds[0];
	out = fds[1];
	child = syscall(SYS_clone, 0ul, NULL, NULL, NULL, 0ul);
	if (child < 0)
		return -errno;
	if (child == 0)
		tracer(o, out);
	fd_close(&out);

	p.fd = in;
	do {
		ready = poll(&p, 1, CALL_MS);
	} while (ready < 0 && errno == EINTR);
	if (ready <= 0)
		return -ETIMEDOUT;
	err = io_read_full(in, rep, sizeof(*rep));
	waitpid((pid_t)child, NULL, __WALL);
	return err ? -EIO : 0;
}

struct vdso {
	pid_t pid;
	uint64_t instruction;
};

static int scan_vdso(const struct proc_map *m, void *arg)
{
	struct vdso *v = arg;
	struct iovec here, there;
	AUTO_FREE uint8_t *code = NULL;
	ssize_t n;

	if (strcmp(m->path, "[vdso]") || m->end - m->start > (1u << 20))
		return 0;
	code = malloc(m->end - m->start);
	if (!code)
		return 1;
	here = (struct iovec){ code, m->end - m->start };
	there = (struct iovec){ (void *)(uintptr_t)m->start, m->end - m->start };
	n = process_vm_readv(v->pid, &here, 1, &there, 1, 0);
	for (ssize_t i = 0; i + 1 < n && !v->instruction; i++)
		if (code[i] == 0x0f && code[i + 1] == 0x05)
			v->instruction = m->start + (uint64_t)i;
	return 1;
}

/* How well a thread suits, from /proc: 0 not at all. */
static int rate_thread(pid_t pid, pid_t tid)
{
	/* these give EINTR after any stop, KVM_RUN (ioctl) among them; the others restart */
	static const long never_restarted[] = {
		SYS_epoll_wait,	     SYS_epoll_pwait,  441 /* epoll_pwait2 */,
		SYS_rt_sigtimedwait, SYS_io_getevents, SYS_io_pgetevents,
		SYS_io_uring_enter,  SYS_ioctl,	       SYS_semop,
		SYS_semtimedop,	     SYS_msgrcv,       SYS_msgsnd,
	};
	AUTO_CLOSE int fd = -1;
	char path[64], text[256], *end;
	ssize_t n;
	long nr;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", (int)pid, (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 1; /* not told; or a zombie, which the seizing will find out */
	text[n] = '\0';
	nr = strtol(text, &end, 10);
	if (end == text || nr < 0)
		return 2; /* "running", or stopped in user code */
	for (size_t i = 0; i < sizeof(never_restarted) / sizeof(never_restarted[0]); i++)
		if (nr == never_restarted[i])
			return 1;
	return 3;
}

/* The best thread that was not tried: the main one if it is as good as any. 0: none. */
static pid_t choose_thread(pid_t pid, const pid_t *tried, int ntried)
{
	char path[32];
	struct dirent *e;
	pid_t best = 0;
	int best_rate = 0, seen = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d)) && seen < 256) {
		pid_t tid = (pid_t)atoi(e->d_name);
		int rate;
		bool again = tid <= 0;

		for (int i = 0; i < ntried; i++)
			again |= tried[i] == tid;
		if (again)
			continue;
		seen++;
		rate = rate_thread(pid, tid) * 2 + (tid == pid);
		if (rate > best_rate) {
			best_rate = rate;
			best = tid;
		}
	}
	if (d)
		closedir(d);
	return best;
}

/* Seizing says EPERM for a traced and for an ended process too. */
static int why_not_permitted(pid_t pid)
{
	AUTO_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	if (pidfd < 0 || poll(&p, 1, 0) == 1)
		return -ESRCH;
	return proc_status_number(pid, "TracerPid") > 0 ? -EBUSY : -EPERM;
}

static int explain(const struct report *rep, pid_t pid, struct failure *f)
{
	const char *code = "inject-failed", *hint = NULL, *what = strerror(-rep->err);

	switch (rep->stage) {
	case STAGE_SECCOMP:
		hint = "Start QEMU with -sandbox off, or transhipd with CAP_SYS_ADMIN and no "
		       "filter "
		       "of its own, on a kernel with CONFIG_CHECKPOINT_RESTORE.";
		what = "its seccomp filter cannot be suspended";
		break;
	case STAGE_SEIZE:
		hint = "Detach the debugger or tracer from it; transhipd needs CAP_SYS_PTRACE.";
		if (rep->err == -EBUSY)
			what = "another process traces it";
		break;
	case STAGE_STOPPED:
		hint = "Continue the process (SIGCONT) first.";
		what = "it is stopped by a signal";
		break;
	case STAGE_STOP:
		what = "no thread of it stopped in time";
		break;
	case STAGE_CODE:
		what = "it is not an x86-64 process or has no system call instruction to use";
		break;
	default:
		break;
	}
	if (rep->err == -ESRCH)
		return failure_set(f, rep->err, "vm-gone", NULL, "process %d has ended", (int)pid);
	return failure_set(f, rep->err, code, hint,
			   "a system call could not be made inside process %d: %s", (int)pid, what);
}

int inject_syscall(pid_t pid, long nr, const uint64_t args[6], int64_t *result, struct failure *f)
{
	struct vdso vdso = { .pid = pid };
	struct order o = { .pid = pid, .nr = nr };
	struct report rep = { .stage = STAGE_SEIZE, .err = -ESRCH };
	pid_t tried[TRIES];

	memcpy(o.args, args, sizeof(o.args));
	proc_maps_each(pid, scan_vdso, &vdso);
	o.vdso_syscall = vdso.instruction;
	for (int i = 0; i < TRIES; i++) {
		int err;

		o.tid = choose_thread(pid, tried, i);
		if (!o.tid)
			break;
		tried[i] = o.tid;
		o.seccomp = proc_status_number(o.tid, "Seccomp") > 0;
		err = run_tracer(&o, &rep);
		if (err)
			return failure_set(f, err, "inject-failed", NULL,
					   "the call inside process %d was not completed: %s",
					   (int)pid, strerror(-err));
		if (!rep.err) {
			*result = rep.result;
			return 0;
		}
		/* another thread may do where one was ending, or would not stop */
		if (rep.err != -ETIMEDOUT && rep.err != -EAGAIN && rep.err != -ESRCH &&
		    rep.stage != STAGE_SEIZE)
			break;
	}
	if (rep.stage == STAGE_SEIZE && rep.err == -EPERM)
		rep.err = why_not_permitted(pid);
	return explain(&rep, pid, f);
}

#else

int inject_syscall(pid_t pid, long nr, const uint64_t args[6], int64_t *result, struct failure *f)
{
	(void)nr;
	(void)args;
	(void)result;
	return failure_set(f, -EOPNOTSUPP, "inject-failed", "Only x86-64 hosts are supported.",
			   "no system call can be made inside process %d on this machine",
			   (int)pid);
}

#endif
