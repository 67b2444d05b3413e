// SPDX-License-Identifier: MIT
/* What a confined process can still do, and what ends it. Each attempt is a process of its own. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/sandbox.h"
#include "dataplane/transport/uring.h"
#include "lib/base/kernel_abi.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NO_FILTER true
#else
#define NO_FILTER false
#endif

static int memory, sockets[2], pagemap;
static struct io_uring ring; /* of one test only: parent and child cannot both use it */

/* Runs fn confined. Its exit status, or minus the signal that ended it. */
static int confined(enum ipc_role role, int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		struct failure f = { 0 };

		if (sandbox_enter(role, 0, &f)) {
			fprintf(stderr, "%s\n", f.message);
			_exit(99);
		}
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Refused: killed, or an error. fn returns 0 only if what it tried was done. */
static void assert_refused(int (*fn)(void))
{
	for (int role = IPC_ROLE_SOURCE; role < IPC_ROLE_END; role++)
		assert_int_not_equal(confined((enum ipc_role)role, fn), 0);
}

static void skip_without_filter(void)
{
	if (!NO_FILTER)
		return;
	print_message("no system call filter under a sanitizer\n");
	skip();
}

static int try_open(void)
{
	return open("/etc/hostname", O_RDONLY) < 0;
}

static int try_openat2(void)
{
	struct {
		uint64_t flags, mode, resolve;
	} how = { O_RDONLY, 0, 0 };

	return syscall(437 /* openat2 */, AT_FDCWD, "/etc/hostname", &how, sizeof(how)) < 0;
}

static int try_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) < 0;
}

static int try_connect(void)
{
	struct sockaddr a = { .sa_family = AF_UNSPEC };

	return connect(sockets[0], &a, sizeof(a)) != 0;
}

static int try_exec(void)
{
	char *argv[] = { "true", NULL };

	execv("/bin/true", argv);
	return 1;
}

static int try_fork(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid < 0;
}

static int try_ptrace(void)
{
	return ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) != 0;
}

static int try_process_vm(void)
{
	return syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0) < 0;
}

static int try_kill_parent(void)
{
	return kill(getppid(), 0) != 0;
}

static int try_uring_setup(void)
{
	struct io_uring_params p = { 0 };

	return syscall(SYS_io_uring_setup, 4, &p) < 0;
}

/* Enabling a ring is all that is left of registrations. */
static int try_uring_register(void)
{
	uint8_t page[4096];
	struct iovec iov = { page, sizeof(page) };

	return syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_BUFFERS, &iov, 1) < 0;
}

static int try_exec_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	       MAP_FAILED;
}

static int try_mprotect_exec(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED || mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static int try_other_ioctl(void)
{
	struct {
		unsigned short rows, cols, x, y;
	} size;

	return ioctl(sockets[0], TIOCGWINSZ, &size) < 0;
}

static int try_userfaultfd(void)
{
	return syscall(SYS_userfaultfd, 1) < 0;
}

static int try_unlink(void)
{
	return unlink("/nonexistent/x") < 0;
}

static void test_refused(void **state)
{
	static int (*const attempts[])(void) = {
		try_open,	 try_openat2,	  try_socket,	   try_connect,
		try_exec,	 try_fork,	  try_ptrace,	   try_process_vm,
		try_kill_parent, try_uring_setup, try_exec_memory, try_mprotect_exec,
		try_other_ioctl, try_userfaultfd, try_unlink,
	};

	(void)state;
	skip_without_filter();
	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
		assert_refused(attempts[i]);
	/* The dangerous ones end the process instead of letting it try something else. */
	assert_int_equal(confined(IPC_ROLE_SOURCE, try_socket), -SIGSYS);
	assert_int_equal(confined(IPC_ROLE_SOURCE, try_exec), -SIGSYS);
	assert_int_equal(confined(IPC_ROLE_DESTINATION, try_ptrace), -SIGSYS);
	assert_int_equal(confined(IPC_ROLE_DESTINATION, try_uring_setup), -SIGSYS);
	assert_int_equal(confined(IPC_ROLE_SOURCE, try_uring_register), -SIGSYS);
}

static int try_write_ram(void)
{
	return pwrite(memory, "x", 1, 0) != 1;
}

static void test_roles_differ(void **state)
{
	(void)state;
	skip_without_filter();
	assert_int_equal(confined(IPC_ROLE_DESTINATION, try_write_ram), 0);
	assert_int_equal(confined(IPC_ROLE_SOURCE, try_write_ram), -SIGSYS);
	assert_int_equal(confined(IPC_ROLE_OBSERVER, try_write_ram), -SIGSYS);
}

static void *thread(void *arg)
{
	int *ran = arg;
	void *p = malloc(1 << 20);

	if (p)
		memset(p, 1, 1 << 20);
	*ran = p != NULL;
	free(p);
	return NULL;
}

static int needed_by_all(void)
{
	struct pagemap_scan scan = { .size = sizeof(scan) };
	pthread_t id;
	int ran = 0;
	char c;

	if (pthread_create(&id, NULL, thread, &ran) || pthread_join(id, NULL) || !ran)
		return 1;
	/* Whatever it says, it was not the filter that said it. */
	if (ioctl(pagemap, PAGEMAP_SCAN_IOCTL, &scan) && errno == EPERM)
		return 2;
	if (pread(memory, &c, 1, 0) != 1 || lseek(memory, 0, SEEK_HOLE) < 0)
		return 3;
	if (write(sockets[0], "a", 1) != 1 || read(sockets[1], &c, 1) != 1)
		return 4;
	if (fprintf(stderr, "%s", "") < 0 || getpid() <= 0)
		return 5;
	return 0;
}

static int needed_by_source(void)
{
	struct pollfd p = { .fd = sockets[1], .events = POLLIN };
	struct timespec t = { .tv_nsec = 1000 };
	off_t at = 0;
	char c[16];
	void *m;

	if (needed_by_all())
		return 10;
	if (sendfile(sockets[0], memory, &at, sizeof(c)) != sizeof(c))
		return 11;
	if (ppoll(&p, 1, &t, NULL) != 1 || recv(sockets[1], c, sizeof(c), 0) != sizeof(c))
		return 12;
	m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, 0);
	return m == MAP_FAILED || munmap(m, 4096) ? 13 : 0;
}

static int needed_by_destination(void)
{
	if (needed_by_all())
		return 20;
	if (try_write_ram())
		return 21;
	return fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) ? 22 : 0;
}

static void test_needed_calls_work(void **state)
{
	(void)state;
	assert_int_equal(confined(IPC_ROLE_SOURCE, needed_by_source), 0);
	assert_int_equal(confined(IPC_ROLE_DESTINATION, needed_by_destination), 0);
	assert_int_equal(confined(IPC_ROLE_OBSERVER, needed_by_all), 0);
}

/* Descriptors are bounded by what was open. */
static int check_limits(void)
{
	int n = 0;

	while (n < 100 && dup(memory) >= 0)
		n++;
	return n < 10 ? 0 : 51;
}

/* 0 if the status file shows none. */
static int capabilities_in(int fd)
{
	char text[4096], *at;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return 1;
	text[n] = '\0';
	at = strstr(text, "CapEff:");
	if (!at || strtoull(at + 7, NULL, 16))
		return 2;
	at = strstr(text, "CapBnd:");
	return at && !strtoull(at + 7, NULL, 16) ? 0 : 3;
}

static void test_privileges_are_gone(void **state)
{
	int status, fd, made[400], n = 0;
	pid_t pid;

	(void)state;
	do { /* fill the gaps: the limit is on numbers */
		made[n] = fd = dup(memory);
	} while (fd >= 0 && fd < 399 && ++n < 400);
	assert_int_equal(confined(IPC_ROLE_SOURCE, check_limits), 0);
	while (n >= 0)
		close(made[n--]);
	if (geteuid()) {
		print_message("not root: no capabilities to lose\n");
		return;
	}
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct failure f = { 0 };

		fd = open("/proc/self/status", O_RDONLY);
		if (fd < 0 || sandbox_enter(IPC_ROLE_SOURCE, 0, &f))
			_exit(98);
		_exit(capabilities_in(fd));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int submit(struct io_uring_sqe *sqe)
{
	struct io_uring_cqe *cqe;
	int res;

	sqe->user_data = 1;
	if (io_uring_submit_and_wait(&ring, 1) < 1 || io_uring_wait_cqe(&ring, &cqe))
		return -1000;
	res = cqe->res;
	io_uring_cqe_seen(&ring, cqe);
	return res;
}

static int ring_cannot_open(void)
{
	struct io_uring_sqe *sqe;
	int res;

	if (uring_enable(&ring))
		return 30;
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_openat(sqe, AT_FDCWD, "/etc/hostname", O_RDONLY, 0);
	res = submit(sqe);
	if (res != -EACCES)
		return 31;
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_socket(sqe, AF_INET, SOCK_STREAM, 0, 0);
	return submit(sqe) == -EACCES ? 0 : 32;
}

static int ring_can_send(void)
{
	struct io_uring_sqe *sqe;
	struct iovec iov = { "hello", 5 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	char got[5];

	if (uring_enable(&ring))
		return 40;
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_sendmsg(sqe, sockets[0], &msg, 0);
	if (submit(sqe) != 5)
		return 41;
	return read(sockets[1], got, 5) == 5 && !memcmp(got, "hello", 5) ? 0 : 42;
}

static void test_ring_made_before(void **state)
{
	bool registered;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		if (uring_new_sender(&ring, 4, NULL, 0, &registered)) {
			print_message("io_uring is not available here\n");
			skip();
		}
		assert_int_equal(confined(IPC_ROLE_SOURCE, i ? ring_cannot_open : ring_can_send),
				 0);
		io_uring_queue_exit(&ring);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_roles_differ),
		cmocka_unit_test(test_needed_calls_work),
		cmocka_unit_test(test_privileges_are_gone),
		cmocka_unit_test(test_ring_made_before),
	};

	memory = memfd_create("ram", MFD_CLOEXEC);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (memory < 0 || pagemap < 0 || ftruncate(memory, 1 << 20) ||
	    pwrite(memory, "0123456789abcdef", 16, 0) != 16 ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
