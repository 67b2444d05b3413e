// SPDX-License-Identifier: MIT
/* Launching real QEMUs from planned command lines, and undoing it. */
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "tests/unit/control/admission/launch_fixture.h"

static bool exists(const char *path)
{
	struct stat st;

	return !lstat(path, &st);
}

/* Everything that the plan says it creates, and the log. */
static void assert_nothing_left(void)
{
	for (char **p = fx.plan.created; *p; p++)
		if (exists(*p))
			fail_msg("%s is left", *p);
	assert_false(exists(fx.plan.log_path));
}

static void qmp_send(FILE *q, const char *command, char *answer, int len)
{
	fprintf(q, "%s\n", command);
	fflush(q);
	do {
		if (!fgets(answer, len, q))
			fail_msg("QMP ended");
	} while (!strstr(answer, "\"return\"") && !strstr(answer, "\"error\""));
}

/* QEMU's answer to a command, on a connection of its own. */
static void ask(const char *command, char *answer, int len)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char line[4096];
	FILE *q;

	memcpy(addr.sun_path, fx.plan.qmp_path, strlen(fx.plan.qmp_path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	q = fdopen(fd, "r+");
	assert_non_null(fgets(line, sizeof(line), q));
	qmp_send(q, "{\"execute\":\"qmp_capabilities\"}", line, sizeof(line));
	qmp_send(q, command, answer, len);
	fclose(q);
}

static void assert_gone(pid_t pid)
{
	/* The reaper may need a moment to collect it. */
	for (int i = 0; i < 500 && !kill(pid, 0); i++)
		usleep(10000);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
}

/* Descriptors of ours must not be in the VM. */
static void assert_clean_process(pid_t pid, int inherited)
{
	char path[64], target[PATH_MAX], mine[PATH_MAX];
	ssize_t n, m;

	snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
	n = readlink(path, target, sizeof(target));
	assert_int_equal(n, 1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", inherited);
	m = readlink(path, mine, sizeof(mine));
	for (int fd = 0; fd < 256; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
		n = readlink(path, target, sizeof(target));
		if (n == m && !memcmp(target, mine, (size_t)n))
			fail_msg("descriptor %d of the VM is one of ours", fd);
	}
	assert_int_equal(getsid(pid), pid);
}

static void test_launch(void **state)
{
	struct stat st;
	char answer[8192];
	int pipe_fds[2]; /* not close-on-exec, on purpose */
	pid_t pid = 0;

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	add_words(WORDS("-serial", "unix:DIR/serial.sock,server=on", "-device", "virtio-rng-pci"));
	assert_planned();
	if (launch_start(&fx.plan, &pid, &fx.f))
		fail_msg("%s", fx.f.message);
	assert_clean_process(pid, pipe_fds[1]);
	ask("{\"execute\":\"query-status\"}", answer, sizeof(answer));
	assert_non_null(strstr(answer, "\"inmigrate\""));
	ask("{\"execute\":\"qom-get\",\"arguments\":{\"path\":\"/machine\",\"property\":\"type\"}}",
	    answer, sizeof(answer));
	assert_non_null(strstr(answer, "pc-q35-7.2-machine"));
	/* Its RAM is the new file. */
	assert_int_equal(stat(fx.plan.created[0], &st), 0);
	assert_int_equal(st.st_size, 64 << 20);
	launch_undo(&fx.plan, pid);
	assert_gone(pid);
	assert_nothing_left();
	launch_undo(&fx.plan, pid); /* twice is allowed */
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

/* QEMU refuses what no list of ours can know: its own words come back. */
static void test_early_death(void **state)
{
	pid_t pid = 77;

	(void)state;
	add_words(WORDS("-device", "virtio-net-pci,netdev=nosuch"));
	assert_planned();
	assert_int_equal(launch_start(&fx.plan, &pid, &fx.f), -ECHILD);
	assert_int_equal(pid, 0);
	assert_string_equal(fx.f.code, "launch-failed");
	if (!strstr(fx.f.message, "nosuch"))
		fail_msg("'%s' does not say why", fx.f.message);
	assert_nothing_left();
}

/* A program that is no QEMU never answers. */
static void test_silent(void **state)
{
	char *script = in_dir("DIR/qemu-silent");
	FILE *out = fopen(script, "w");
	pid_t pid;

	(void)state;
	fputs("#!/bin/sh\necho first\necho 'last words'\nexec sleep 100\n", out);
	fclose(out);
	chmod(script, 0755);
	snprintf(fx.config.qemu_binaries[0], PATH_MAX, "%s", script);
	free(fx.argv[0]);
	fx.argv[0] = strdup("qemu-silent");
	assert_planned();
	fx.plan.start_ms = 200;
	assert_int_equal(launch_start(&fx.plan, &pid, &fx.f), -ETIMEDOUT);
	assert_non_null(strstr(fx.f.message, "last words"));
	assert_nothing_left();
	free(script);
}

/* Between plan and start another session may have come to use a path. */
static void test_taken_meanwhile(void **state)
{
	pid_t pid;

	(void)state;
	assert_planned();
	make_file("DIR/qmp.sock", 0600, 0);
	assert_int_equal(launch_start(&fx.plan, &pid, &fx.f), -EEXIST);
	assert_non_null(strstr(fx.f.message, "qmp.sock"));
	assert_int_equal(pid, 0);
	launch_undo(&fx.plan, pid);
	assert_true(exists(fx.plan.qmp_path)); /* it is somebody else's */
}

/* A pid from an old journal may be anybody's by now. */
static void test_foreign_pid(void **state)
{
	int status;
	pid_t other = fork();

	(void)state;
	if (!other) {
		pause();
		_exit(0);
	}
	assert_planned();
	launch_undo(&fx.plan, other);
	assert_int_equal(waitpid(other, &status, WNOHANG), 0);
	kill(other, SIGKILL);
	assert_int_equal(waitpid(other, &status, 0), other);
}

/* After a crash of transhipd there is a journal, and what it names may be used by others. */
static void test_journaled(void **state)
{
	char *ram = in_dir("DIR/ram.x"), *used = in_dir("DIR/used"), *gone = in_dir("DIR/gone");
	char *dead = in_dir("DIR/dead"), *live = in_dir("DIR/live");
	char *created[] = { ram, used, gone, dead, live, NULL };
	struct launch_plan p = { .created = created };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int status, fd, dead_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int live_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	pid_t pid;

	(void)state;
	make_file("DIR/ram.x", 0600, 4096);
	make_file("DIR/used", 0600, 4096);
	fd = open(used, O_RDONLY);
	strcpy(addr.sun_path, dead);
	assert_int_equal(bind(dead_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(dead_fd);
	strcpy(addr.sun_path, live);
	assert_int_equal(bind(live_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(live_fd, 1), 0);
	launch_undo(&p, 0);
	assert_false(exists(ram));
	assert_true(exists(used));
	assert_false(exists(dead));
	assert_true(exists(live));
	/* A pid that the caller vouches for. */
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	launch_undo(&p, pid);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_false(exists(used));
	close(fd);
	close(live_fd);
	for (char **c = created; *c; c++)
		free(*c);
}

/* The journal has the files and not the pid. */
static void test_lost_pid(void **state)
{
	struct launch_plan p = { 0 };
	pid_t pid;

	(void)state;
	assert_planned();
	assert_int_equal(launch_start(&fx.plan, &pid, &fx.f), 0);
	p.created = fx.plan.created;
	strcpy(p.log_path, fx.plan.log_path);
	launch_undo(&p, 0);
	assert_gone(pid);
	assert_nothing_left();
}

/* A VM that ends by itself is collected, and undoing it still removes its files. */
static void test_ends_itself(void **state)
{
	char answer[4096];
	pid_t pid;

	(void)state;
	assert_planned();
	assert_int_equal(launch_start(&fx.plan, &pid, &fx.f), 0);
	ask("{\"execute\":\"quit\"}", answer, sizeof(answer));
	assert_gone(pid);
	assert_true(exists(fx.plan.created[0])); /* a named RAM file outlives QEMU */
	launch_undo(&fx.plan, pid);
	assert_nothing_left();
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_launch),	    TEST(test_early_death), TEST(test_silent),
		TEST(test_taken_meanwhile), TEST(test_foreign_pid), TEST(test_ends_itself),
		TEST(test_journaled),	    TEST(test_lost_pid),
	};

	if (access(QEMU, X_OK)) {
		printf("skipped: no %s\n", QEMU);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
