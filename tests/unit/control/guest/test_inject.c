// SPDX-License-Identifier: MIT
/*
 * A system call made inside another process leaves that process as it was: registers, signal mask,
 * and whatever system call it sat in. Each victim checks itself and says so by its exit status.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/guest/inject.h"
#include "control/guest/proc_maps.h"
#include "control/guest/uffd.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"

#ifdef __x86_64__

#define INJECTIONS 30

#ifdef __SANITIZE_THREAD__
#define HAS_ONE_THREAD false /* the sanitizer has one of its own, and that is used instead */
#else
#define HAS_ONE_THREAD true
#endif

/* Shared between a test and its victim. */
struct shared {
	volatile int32_t go;	 /* at offset 0: the victim may end */
	volatile int32_t fd;	 /* at 4: what `blocked` reads from */
	uint64_t regs[14];	 /* at 8: rax rbx rcx rdx rsi rdi rbp r8 .. r14 at the end */
	uint64_t xmm[4];	 /* at 120 */
	char byte;		 /* at 152 */
	volatile int32_t inside; /* the victim is about to block */
	volatile int32_t signals;
};

static struct shared *shared;
static int pipe_fds[2];

/*
 * Both fill every register with a pattern, spin until go (or block in read), and store what is in
 * the registers then. r15 holds the structure's address.
 */
void spin_with_registers(struct shared *s);
void block_with_registers(struct shared *s);

#define SAVE                                                                                       \
	"push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n mov %rdi, %r15\n"
#define FILL                                                                                       \
	"movabs $0x1111111111111111, %rbx\n movq %rbx, %xmm0\n movq %rbx, %xmm15\n"                \
	"movabs $0x2222222222222222, %rbp\n movabs $0x3333333333333333, %r12\n"                    \
	"movabs $0x4444444444444444, %r13\n movabs $0x5555555555555555, %r14\n"                    \
	"movabs $0x6666666666666666, %r8\n movabs $0x7777777777777777, %r9\n"                      \
	"movabs $0x8888888888888888, %r10\n"
#define STORE                                                                                      \
	"mov %rax, 8(%r15)\n mov %rbx, 16(%r15)\n mov %rcx, 24(%r15)\n mov %rdx, 32(%r15)\n"       \
	"mov %rsi, 40(%r15)\n mov %rdi, 48(%r15)\n mov %rbp, 56(%r15)\n mov %r8, 64(%r15)\n"       \
	"mov %r9, 72(%r15)\n mov %r10, 80(%r15)\n mov %r11, 88(%r15)\n mov %r12, 96(%r15)\n"       \
	"mov %r13, 104(%r15)\n mov %r14, 112(%r15)\n movq %xmm0, 120(%r15)\n"                      \
	"movq %xmm15, 128(%r15)\n"
#define LOAD "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"

__asm__(".text\n.globl spin_with_registers\nspin_with_registers:\n" SAVE FILL
	"movabs $0x9999999999999999, %rax\n movabs $0xaaaaaaaaaaaaaaaa, %rcx\n"
	"movabs $0xbbbbbbbbbbbbbbbb, %rdx\n movabs $0xcccccccccccccccc, %rsi\n"
	"movabs $0xdddddddddddddddd, %rdi\n movabs $0xeeeeeeeeeeeeeeee, %r11\n"
	"1: cmpl $0, (%r15)\n je 1b\n" STORE LOAD
	".globl block_with_registers\nblock_with_registers:\n" SAVE FILL
	"xor %eax, %eax\n movslq 4(%r15), %rdi\n lea 152(%r15), %rsi\n mov $1, %edx\n"
	"syscall\n" STORE LOAD);

_Static_assert(offsetof(struct shared, regs) == 8 && offsetof(struct shared, xmm) == 120 &&
		       offsetof(struct shared, byte) == 152,
	       "the assembly above knows these");

static void require(bool claim, int line)
{
	if (!claim) {
		fprintf(stderr, "victim: line %d: errno %d\n", line, errno);
		_exit(1);
	}
}
#define REQUIRE(claim) require(claim, __LINE__)

static void setup_shared(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	assert_ptr_not_equal(shared, MAP_FAILED);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	shared->fd = pipe_fds[0];
}

static pid_t start_victim(void (*victim)(void))
{
	pid_t pid;

	memset(shared, 0, sizeof(*shared));
	shared->fd = pipe_fds[0];
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		victim();
		_exit(0);
	}
	return pid;
}

/* Returns when the victim's main thread sits in system call nr (-1: when it said it is inside). */
static void wait_blocked(pid_t pid, long nr)
{
	char path[64], text[64] = "";

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	for (;;) {
		int fd = open(path, O_RDONLY);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
		long now = text[0] == 'r' ? -1 : strtol(text, NULL, 10);

		assert_true(n > 0); /* else the victim is gone */
		close(fd);
		/* poll and sleeps are restarted under another number */
		if (shared->inside && (nr < 0 || now == nr || now == SYS_restart_syscall))
			return;
		sched_yield();
	}
}

static void inject_getpid(pid_t pid)
{
	const uint64_t args[6] = { 0 };
	struct failure f = { 0 };
	int64_t result = 0;

	if (inject_syscall(pid, SYS_getpid, args, &result, &f))
		fail_msg("%s (%s)", f.message, f.hint);
	assert_int_equal(result, pid);
}

static uint64_t blocked_signals(pid_t pid)
{
	char path[64], line[256];
	unsigned long long mask = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "SigBlk: %llx", &mask) == 1)
			break;
	fclose(f);
	return mask;
}

static void end_victim(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("victim ended with %#x", status);
}

/* Injects while the victim sits in nr, then lets it go and takes its verdict. */
static void disturb(void (*victim)(void), long nr)
{
	pid_t pid = start_victim(victim);
	uint64_t mask;

	wait_blocked(pid, nr);
	mask = blocked_signals(pid);
	for (int i = 0; i < INJECTIONS; i++)
		inject_getpid(pid);
	wait_blocked(pid, nr);
	assert_int_equal(blocked_signals(pid), mask);
	shared->go = 1;
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	end_victim(pid);
	/* what the victim did not read */
	fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
	while (read(pipe_fds[0], &shared->byte, 1) > 0)
		;
	fcntl(pipe_fds[0], F_SETFL, 0);
}

static void check_registers(bool blocked)
{
	static const uint64_t spun[14] = {
		0x9999999999999999, 0x1111111111111111, 0xaaaaaaaaaaaaaaaa, 0xbbbbbbbbbbbbbbbb,
		0xcccccccccccccccc, 0xdddddddddddddddd, 0x2222222222222222, 0x6666666666666666,
		0x7777777777777777, 0x8888888888888888, 0xeeeeeeeeeeeeeeee, 0x3333333333333333,
		0x4444444444444444, 0x5555555555555555,
	};

	for (int i = 0; i < 14; i++) {
		/* rax rcx rdx rsi rdi r11 are the system call's own */
		bool own = i == 0 || (i >= 2 && i <= 5) || i == 10;

		if (!blocked || !own)
			REQUIRE(shared->regs[i] == spun[i]);
	}
	if (blocked)
		REQUIRE(shared->regs[0] == 1 && shared->regs[3] == 1 && shared->byte == 'x' &&
			shared->regs[5] == (uint64_t)shared->fd &&
			shared->regs[4] == (uintptr_t)&shared->byte);
	REQUIRE(shared->xmm[0] == spun[1] && shared->xmm[1] == spun[1]);
}

static void spinning(void)
{
	shared->inside = 1;
	spin_with_registers(shared);
	check_registers(false);
}

static void in_read(void)
{
	shared->inside = 1;
	block_with_registers(shared);
	check_registers(true);
}

static void in_ppoll(void)
{
	struct pollfd p = { .fd = pipe_fds[0], .events = POLLIN };
	sigset_t during, own;

	/* blocked but while it waits; the other way round for USR2 */
	sigemptyset(&own);
	sigaddset(&own, SIGUSR1);
	sigprocmask(SIG_SETMASK, &own, NULL);
	sigemptyset(&during);
	sigaddset(&during, SIGUSR2);
	shared->inside = 1;
	REQUIRE(ppoll(&p, 1, &(struct timespec){ 60, 0 }, &during) == 1);
	sigprocmask(SIG_SETMASK, NULL, &own);
	REQUIRE(sigismember(&own, SIGUSR1) && !sigismember(&own, SIGUSR2));
}

static void in_poll(void)
{
	struct pollfd p = { .fd = pipe_fds[0], .events = POLLIN };

	shared->inside = 1;
	REQUIRE(poll(&p, 1, 60000) == 1);
}

static void in_select(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(pipe_fds[0], &set);
	shared->inside = 1;
	REQUIRE(select(pipe_fds[0] + 1, &set, NULL, NULL, NULL) == 1);
}

static void in_nanosleep(void)
{
	uint64_t start = clock_ns();

	/* goes on as restart_syscall, with the remaining time */
	shared->inside = 1;
	REQUIRE(syscall(SYS_nanosleep, &(struct timespec){ 1, 0 }, NULL) == 0);
	REQUIRE(clock_ns() - start >= NSEC_PER_SEC && clock_ns() - start < 60 * NSEC_PER_SEC);
}

static void in_futex(void)
{
	struct timespec limit = { 60, 0 };

	shared->inside = 1;
	/* go becomes 1 without a wake: then the restarted call sees another value */
	while (!shared->go) {
		long r = syscall(SYS_futex, &shared->go, FUTEX_WAIT, 0, &limit);

		REQUIRE(r == 0 || errno == EAGAIN);
	}
}

static void in_wait(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		char c;

		_exit(read(pipe_fds[0], &c, 1) == 1 ? 42 : 1);
	}
	shared->inside = 1;
	REQUIRE(syscall(SYS_wait4, child, &status, 0, NULL) == child);
	REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

static void on_signal(int signo)
{
	(void)signo;
	shared->signals++;
}

static void in_sigsuspend(void)
{
	struct sigaction a = { .sa_handler = on_signal };
	sigset_t all, none, now;

	sigaction(SIGUSR1, &a, NULL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigemptyset(&none);
	shared->inside = 1;
	sigsuspend(&none);
	REQUIRE(shared->signals == 1 && shared->go);
	sigprocmask(SIG_SETMASK, NULL, &now);
	REQUIRE(sigismember(&now, SIGUSR1) && sigismember(&now, SIGTERM));
}

static void test_calls_go_on(void **state)
{
	(void)state;
	disturb(spinning, -1);
	disturb(in_read, SYS_read);
	disturb(in_ppoll, SYS_ppoll);
	disturb(in_poll, SYS_poll);
	disturb(in_select, SYS_pselect6);
	disturb(in_wait, SYS_wait4);
}

static void test_futex(void **state)
{
	pid_t pid;

	(void)state;
	pid = start_victim(in_futex);
	wait_blocked(pid, SYS_futex);
	for (int i = 0; i < INJECTIONS; i++)
		inject_getpid(pid);
	shared->go = 1;
	/* woken, if it waits on the same address again; or it saw the new value and ended */
	for (;;) {
		siginfo_t ended = { 0 };

		assert_int_equal(waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT), 0);
		if (ended.si_pid == pid || syscall(SYS_futex, &shared->go, FUTEX_WAKE, 1) > 0)
			break;
		sched_yield();
	}
	end_victim(pid);
}

static void test_sleep(void **state)
{
	pid_t pid = start_victim(in_nanosleep);
	uint64_t start;

	(void)state;
	while (!shared->inside)
		sched_yield();
	start = clock_ns();
	for (int i = 0; i < INJECTIONS && clock_ns() - start < NSEC_PER_SEC / 2; i++)
		inject_getpid(pid);
	end_victim(pid);
}

static void test_sigsuspend(void **state)
{
	pid_t pid = start_victim(in_sigsuspend);

	(void)state;
	wait_blocked(pid, SYS_rt_sigsuspend);
	for (int i = 0; i < INJECTIONS; i++)
		inject_getpid(pid);
	wait_blocked(pid, SYS_rt_sigsuspend);
	assert_int_equal(shared->signals, 0);
	shared->go = 1;
	kill(pid, SIGUSR1);
	end_victim(pid);
}

#define STORM 2000

static void counting(void)
{
	struct sigaction a = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	sigaction(SIGRTMIN, &a, NULL);
	shared->inside = 1;
	while (shared->signals < STORM) {
		struct pollfd p = { .fd = pipe_fds[0], .events = POLLIN };

		/* EINTR is the signal's doing here */
		REQUIRE(ppoll(&p, 1, &(struct timespec){ 60, 0 }, NULL) < 0 && errno == EINTR);
	}
	while (!shared->go)
		sched_yield();
	REQUIRE(shared->signals == STORM);
}

static void *send_storm(void *arg)
{
	pid_t pid = *(pid_t *)arg;

	for (int i = 0; i < STORM;) {
		if (!sigqueue(pid, SIGRTMIN, (union sigval){ 0 }))
			i++;
		else
			sched_yield();
	}
	return NULL;
}

static void test_signals_arrive(void **state)
{
	pid_t pid = start_victim(counting);
	pthread_t sender;

	(void)state;
	while (!shared->inside)
		sched_yield();
	assert_int_equal(pthread_create(&sender, NULL, send_storm, &pid), 0);
	do {
		inject_getpid(pid);
	} while (shared->signals < STORM);
	pthread_join(sender, NULL);
	shared->go = 1;
	end_victim(pid);
}

static void sleeping_for_ever(void)
{
	shared->inside = 1;
	for (;;)
		pause();
}

static void kill_victim(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* and of nothing before */
}

static void test_refusals(void **state)
{
	const uint64_t args[6] = { (uint64_t)-1 };
	pid_t pid = start_victim(sleeping_for_ever);
	struct failure f = { 0 };
	int64_t result = 0;
	int status;

	(void)state;
	wait_blocked(pid, SYS_pause);
	assert_int_equal(inject_syscall(pid, SYS_close, args, &result, &f), 0);
	assert_int_equal(result, -EBADF);

	kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_int_equal(inject_syscall(pid, SYS_getpid, args, &result, &f), -EBUSY);
	assert_string_equal(f.code, "inject-failed");
	/* still stopped, and not lost to SIGCONT */
	assert_int_equal(waitpid(pid, &status, WCONTINUED | WNOHANG), 0);
	kill(pid, SIGCONT);
	assert_int_equal(waitpid(pid, &status, WCONTINUED), pid);
	inject_getpid(pid);

	assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
	failure_clear(&f);
	assert_int_equal(inject_syscall(pid, SYS_getpid, args, &result, &f),
			 HAS_ONE_THREAD ? -EBUSY : 0);
	ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
	assert_int_equal(waitpid(pid, &status, __WALL), pid);
	assert_int_equal(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
	inject_getpid(pid);

	kill(pid, SIGKILL);
	waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT);
	failure_clear(&f);
	assert_int_equal(inject_syscall(pid, SYS_getpid, args, &result, &f), -ESRCH); /* a zombie */
	waitpid(pid, &status, 0);
	failure_clear(&f);
	assert_int_equal(inject_syscall(pid, SYS_getpid, args, &result, &f), -ESRCH);
	assert_string_equal(f.code, "vm-gone");
}

/* An uninterruptible wait: the parent of a vfork. */
static void in_vfork(void)
{
	pid_t child;

	shared->inside = 1;
	child = vfork();
	if (child == 0) {
		char c;

		_exit(read(pipe_fds[0], &c, 1) == 1 ? 0 : 1);
	}
	REQUIRE(child > 0);
	REQUIRE(waitpid(child, NULL, 0) == child);
}

static void test_unstoppable(void **state)
{
	const uint64_t args[6] = { 0 };
	pid_t pid = start_victim(in_vfork);
	struct failure f = { 0 };
	int64_t result;

	(void)state;
	while (!shared->inside)
		sched_yield();
	while (proc_status_number(pid, "TracerPid") != 0)
		sched_yield();
	usleep(20000); /* into the vfork; if not, the call below succeeds and the test fails */
	assert_int_equal(inject_syscall(pid, SYS_getpid, args, &result, &f),
			 HAS_ONE_THREAD ? -ETIMEDOUT : 0);
	assert_int_equal(proc_status_number(pid, "TracerPid"), 0);
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	end_victim(pid);
}

static void *other_thread(void *arg)
{
	(void)arg;
	shared->inside = 1;
	for (;;)
		pause();
	return NULL;
}

static void leaderless(void)
{
	pthread_t t;

	pthread_create(&t, NULL, other_thread, NULL);
	pthread_exit(NULL);
}

static void test_main_thread_ended(void **state)
{
	pid_t pid = start_victim(leaderless);
	char path[64], text[256];

	(void)state;
	/* until its main thread is a zombie */
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	do {
		int fd = open(path, O_RDONLY);

		memset(text, 0, sizeof(text));
		assert_true(read(fd, text, sizeof(text) - 1) > 0);
		close(fd);
	} while (!strstr(text, ") Z"));
	inject_getpid(pid);
	kill_victim(pid);
}

/* Its own filter refuses userfaultfd; ours must pass, and the filter must be back after. */
static void filtered(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };
	char c;

	REQUIRE(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	REQUIRE(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	shared->inside = 1;
	REQUIRE(read(pipe_fds[0], &c, 1) == 1);
	syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY);
}

static void test_seccomp(void **state)
{
	pid_t pid = start_victim(filtered);
	struct failure f = { 0 };
	int local, remote, status;

	(void)state;
	wait_blocked(pid, SYS_read);
	if (uffd_inside(pid, false, &local, &remote, &f)) {
		/* a kernel that cannot suspend filters: refused, and the victim lives */
		assert_string_equal(f.code, "inject-failed");
		kill_victim(pid);
		return;
	}
	assert_int_equal(uffd_close_inside(pid, remote, local, &f), 0);
	close(local);
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static void test_uffd_life(void **state)
{
	pid_t pid = start_victim(sleeping_for_ever);
	struct failure f = { 0 };
	int local, remote, adopted, other = open("/dev/null", O_RDONLY);

	(void)state;
	if (uffd_probe(&f))
		skip();
	wait_blocked(pid, SYS_pause);
	assert_int_equal(uffd_inside(pid, false, &local, &remote, &f), 0);
	assert_int_equal(uffd_api(local, UFFD_TRACK_FEATURES, &f), 0);
	assert_int_equal(uffd_adopt(pid, remote, &adopted, &f), 0);
	close(adopted);
	assert_int_equal(uffd_adopt(pid, pipe_fds[0], &adopted, &f), -ENOENT);
	failure_clear(&f);
	assert_int_equal(uffd_close_inside(pid, remote, other, &f), -ENOENT); /* not that one */
	assert_int_equal(uffd_close_inside(pid, remote, local, &f), 0);
	assert_int_equal(uffd_close_inside(pid, remote, local, &f), -ENOENT);
	close(local);
	close(other);
	kill_victim(pid);
}

/* The daemon is killed at any moment of it: the victim never notices. */
static void test_killed_injector(void **state)
{
	const uint64_t no_args[6] = { 0 };
	pid_t pid = start_victim(in_ppoll);
	int64_t number;

	(void)state;
	wait_blocked(pid, SYS_ppoll);
	for (int i = 0; i < 60; i++) {
		pid_t injector = fork();
		int status;

		if (injector == 0) {
			const uint64_t args[6] = { 0 };
			int64_t result;

			for (;;)
				inject_syscall(pid, SYS_getpid, args, &result, NULL);
		}
		nanosleep(&(struct timespec){ 0, 1000000 + i * 37000 }, NULL);
		kill(injector, SIGKILL);
		assert_int_equal(waitpid(injector, &status, 0), injector);
	}
	/* until what the last one left behind has finished */
	while (inject_syscall(pid, SYS_getpid, no_args, &number, NULL) == -EBUSY)
		sched_yield();
	inject_getpid(pid);
	wait_blocked(pid, SYS_ppoll);
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	end_victim(pid);
	assert_int_equal(read(pipe_fds[0], &shared->byte, 1), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls_go_on),	cmocka_unit_test(test_futex),
		cmocka_unit_test(test_sleep),		cmocka_unit_test(test_sigsuspend),
		cmocka_unit_test(test_signals_arrive),	cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_unstoppable),	cmocka_unit_test(test_main_thread_ended),
		cmocka_unit_test(test_seccomp),		cmocka_unit_test(test_uffd_life),
		cmocka_unit_test(test_killed_injector),
	};

	setup_shared();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
	return 77; /* x86-64 only */
}

#endif
