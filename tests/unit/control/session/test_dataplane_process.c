// SPDX-License-Identifier: MIT
/* A data-plane process as its session sees it: that hangs, dies, is not there; what ends a wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/session/dataplane_process.h"
#include "lib/base/clock.h"

static struct config config;
static struct dataplane d;
static struct failure f;
static char dir[64];

static int begin(void **unused)
{
	(void)unused;
	signal(SIGPIPE, SIG_IGN); /* as transhipd does */
	memset(&config, 0, sizeof(config));
	d = DATAPLANE_NONE;
	failure_clear(&f);
	snprintf(dir, sizeof(dir), "/tmp/test_dataplane.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int end(void **unused)
{
	char command[96];

	(void)unused;
	dataplane_stop(&d);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* A shell script in place of the program. */
static void start(const char *script)
{
	FILE *file;

	snprintf(config.dataplane, sizeof(config.dataplane), "%s/program", dir);
	file = fopen(config.dataplane, "w");
	assert_non_null(file);
	fprintf(file, "#!/bin/sh\n%s\n", script);
	fclose(file);
	assert_int_equal(chmod(config.dataplane, 0700), 0);
	assert_int_equal(dataplane_start(&d, &config, &f), 0);
}

static int expect(const struct dataplane_wait *w)
{
	struct ipc_message m;

	failure_clear(&f);
	return dataplane_expect(&d, IPC_READY, &m, w, &f);
}

static const struct dataplane_wait plain = { .cancel_fd = -1, .guest_fd = -1 };

static void one_that_is_not_there(void **unused)
{
	(void)unused;
	snprintf(config.dataplane, sizeof(config.dataplane), "%s/nothing", dir);
	assert_int_equal(dataplane_start(&d, &config, &f), 0);
	assert_int_equal(expect(&plain), -EPIPE);
	assert_string_equal(f.code, "dataplane-died");
}

static void one_that_dies(void **unused)
{
	(void)unused;
	start("kill -SEGV $$");
	assert_int_equal(expect(&plain), -EPIPE);
	assert_string_equal(f.code, "dataplane-died");
	failure_clear(&f);
	assert_int_equal(dataplane_send(&d, IPC_START, NULL, -1, &f), -EPIPE);
	assert_string_equal(f.code, "dataplane-died");
}

static void what_ends_a_wait_for_one_that_hangs(void **unused)
{
	struct dataplane_wait w = plain;
	int ready = eventfd(1, 0);

	(void)unused;
	start("exec sleep 1000");
	w.deadline_ns = clock_ns() + 50 * NSEC_PER_MSEC;
	assert_int_equal(expect(&w), -ETIMEDOUT);
	assert_string_equal(f.code, "timeout");
	w.deadline_ns = clock_ns() + 50 * NSEC_PER_MSEC;
	w.late = "It is late.";
	assert_int_equal(expect(&w), -ETIMEDOUT);
	assert_string_equal(f.code, "internal");
	assert_string_equal(f.message, "It is late.");
	w = plain;
	w.stall_ms = 50;
	assert_int_equal(expect(&w), -ETIMEDOUT);
	assert_string_equal(f.code, "data-lost");
	w.deadline_ns = clock_ns() + 1000 * NSEC_PER_SEC;
	assert_int_equal(expect(&w), -ETIMEDOUT);
	assert_string_equal(f.code, "data-lost");
	w = plain;
	w.cancel_fd = ready;
	assert_int_equal(expect(&w), -ECANCELED);
	assert_string_equal(f.code, "cancelled");
	w = plain;
	w.guest_fd = ready;
	assert_int_equal(expect(&w), -ESRCH);
	assert_string_equal(f.code, "vm-gone");
	close(ready);
}

/* The other end is the test's. */
static int with_a_socket(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	d.sock = pair[0];
	return pair[1];
}

static void fails(int peer, const char *code)
{
	struct failure told = { 0 };

	failure_set(&told, -1, code, NULL, "told");
	assert_int_equal(ipc_send(peer, IPC_FAILED, &told, -1), 0);
}

static void *wait_for_the_end(void *fd)
{
	char c;

	_exit(read(*(int *)fd, &c, 1) < 0);
}

/* As one that is being killed: its first thread has ended, and it has not yet. */
static pid_t dying(int until)
{
	pthread_t thread;
	pid_t pid = fork();

	if (pid)
		return pid;
	pthread_create(&thread, NULL, wait_for_the_end, &until);
	syscall(SYS_exit, 0);
	abort();
}

static bool is_zombie(pid_t pid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
	fclose(file);
	return state == 'Z';
}

/* The data plane loses the VM's memory a moment before the VM is seen to have ended. */
static void failed_because_the_vm_ends(void **unused)
{
	int peer = with_a_socket(), hold[2];
	struct dataplane_wait w = plain;
	pid_t vm;

	(void)unused;
	assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
	w.guest_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	fails(peer, "internal");
	assert_int_equal(expect(&w), -EREMOTEIO);
	assert_string_equal(f.message, "Told");
	close(w.guest_fd);
	vm = dying(hold[0]);
	w.guest_fd = (int)syscall(SYS_pidfd_open, vm, 0);
	while (!is_zombie(vm))
		usleep(500);
	fails(peer, "internal");
	assert_int_equal(expect(&w), -ESRCH);
	assert_string_equal(f.code, "vm-gone");
	kill(vm, SIGKILL);
	waitpid(vm, NULL, 0);
	close(w.guest_fd);
	close(hold[0]);
	close(hold[1]);
	close(peer);
}

static unsigned int notices;

static void give_a_deadline(void *arg, struct dataplane_wait *w)
{
	uint64_t count;

	notices++;
	assert_int_equal(read(w->notice_fd, &count, sizeof(count)), sizeof(count));
	w->deadline_ns = clock_ns() + *(uint64_t *)arg;
}

/* In the middle of a wait, which may have been for ever. */
static void noticed(void **unused)
{
	int peer = with_a_socket(), notice = eventfd(1, 0);
	uint64_t soon = 20 * NSEC_PER_MSEC;
	struct dataplane_wait w = plain;

	(void)unused;
	notices = 0;
	w.notice_fd = notice;
	w.noticed = give_a_deadline;
	w.arg = &soon;
	assert_int_equal(expect(&w), -ETIMEDOUT);
	assert_string_equal(f.code, "timeout");
	assert_int_equal(notices, 1);
	/* the caller's is as it was, and what comes is not lost for it */
	assert_int_equal(w.deadline_ns, 0);
	soon = 1000 * NSEC_PER_SEC;
	assert_int_equal(eventfd_write(notice, 1), 0);
	fails(peer, "data-lost");
	assert_int_equal(expect(&w), -EREMOTEIO);
	assert_int_equal(notices, 2);
	close(notice);
	close(peer);
}

static void one_that_hangs_is_ended(void **unused)
{
	uint64_t start_ns;
	pid_t pid;

	(void)unused;
	start("trap '' TERM; exec sleep 1000");
	pid = d.pid;
	start_ns = clock_ns();
	dataplane_stop(&d);
	assert_true(clock_ms_since(start_ns) < 10000);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
	dataplane_stop(&d);
}

/* Nobody waits for it before somebody asks whether it is gone. */
static void one_that_is_dismissed(void **unused)
{
	pid_t pid;

	(void)unused;
	start("trap '' TERM; cat <&3 >/dev/null; exec sleep 1000");
	pid = d.pid;
	dataplane_dismiss(&d);
	assert_int_equal(d.sock, -1);
	assert_int_equal(d.pid, pid);
	assert_int_equal(kill(pid, 0), 0);
	if (!geteuid())
		assert_int_equal(getpriority(PRIO_PROCESS, (id_t)pid), 19);
	dataplane_stop(&d);
	assert_int_equal(d.pid, 0);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
	dataplane_dismiss(&d); /* harmless */
}

/* What is ignored stays ignored over exec: the child must get the default back. */
static void nothing_is_inherited(void **unused)
{
	char script[600], path[96], line[256], link[512];
	unsigned long long ignored = 1;
	struct dataplane_wait w = plain;
	int extra = open("/dev/null", O_RDONLY); /* without O_CLOEXEC */
	FILE *file;

	(void)unused;
	snprintf(path, sizeof(path), "%s/status", dir);
	snprintf(script, sizeof(script),
		 "cat /proc/$$/status > %s.new; echo /proc/$$/fd/* >> %s.new; mv %s.new %s; "
		 "exec sleep 1000",
		 path, path, path, path);
	start(script);
	for (uint64_t start_ns = clock_ns(); access(path, F_OK);) {
		assert_true(clock_ms_since(start_ns) < 10000);
		w.deadline_ns = clock_ns() + 10 * NSEC_PER_MSEC;
		expect(&w);
	}
	file = fopen(path, "r");
	link[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		sscanf(line, "SigIgn: %llx", &ignored);
		if (!strncmp(line, "/proc/", 6))
			snprintf(link, sizeof(link), "%s", line);
	}
	fclose(file);
	assert_int_equal(ignored & 1ull << (SIGPIPE - 1), 0);
	/* standard streams, the socket at 3, and what the shell itself opened (10 and above) */
	assert_non_null(strstr(link, "/fd/3"));
	for (int n = 4; n < 10; n++) {
		snprintf(line, sizeof(line), "/fd/%d ", n);
		assert_null(strstr(link, line));
	}
	close(extra);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		CASE(one_that_is_not_there),
		CASE(one_that_dies),
		CASE(what_ends_a_wait_for_one_that_hangs),
		CASE(failed_because_the_vm_ends),
		CASE(noticed),
		CASE(one_that_hangs_is_ended),
		CASE(one_that_is_dismissed),
		CASE(nothing_is_inherited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
