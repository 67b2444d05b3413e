// SPDX-License-Identifier: MIT
/* The built transhipd and tranship: start, readiness, exclusion, what remains after the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS_MAX 16

static char dir[64], sock[96], state[96], bin[4096];
static pid_t daemon_pid;

static int setup(void **unused)
{
	ssize_t n = readlink("/proc/self/exe", bin, sizeof(bin) - 1);

	(void)unused;
	/* BUILD/tests/unit/control/test_transhipd */
	if (n < 0)
		return -1;
	bin[n] = '\0';
	for (int i = 0; i < 4; i++)
		dirname(bin);
	snprintf(dir, sizeof(dir), "/tmp/test_transhipd.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(sock, sizeof(sock), "%s/run/deep/s", dir);
	snprintf(state, sizeof(state), "%s/state", dir);
	daemon_pid = 0;
	return 0;
}

static int teardown(void **unused)
{
	char command[128];

	(void)unused;
	if (daemon_pid > 0) {
		kill(daemon_pid, SIGKILL);
		waitpid(daemon_pid, NULL, 0);
	}
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* Starts BUILD/name with the words; output to a file of the scratch directory. */
static pid_t start(const char *name, const char *const *words)
{
	char program[4200], log[128];
	char *argv[ARGS_MAX + 2] = { (char *)name };
	int n = 1, fd;
	pid_t pid;

	snprintf(program, sizeof(program), "%.4000s/%s", bin, name);
	snprintf(log, sizeof(log), "%s/%s.log", dir, name);
	for (; *words; words++)
		argv[n++] = (char *)*words;
	pid = fork();
	if (pid)
		return pid;
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	execv(program, argv);
	_exit(127);
}

static int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#define RUN(name, ...) end_of(start(name, (const char *[]){ __VA_ARGS__, NULL }))

/* In what transhipd has said. */
static bool log_has(const char *text)
{
	char log[128], line[1024];
	bool has = false;
	FILE *file;

	snprintf(log, sizeof(log), "%s/transhipd.log", dir);
	file = fopen(log, "re");
	while (file && !has && fgets(line, sizeof(line), file))
		has = strstr(line, text);
	if (file)
		fclose(file);
	return has;
}

static void start_daemon(void)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000000 };
	const char *words[] = { "--socket", sock, "--state-dir", state, NULL };

	daemon_pid = start("transhipd", words);
	/* ready means: the socket answers */
	while (RUN("tranship", "--socket", sock, "status")) {
		if (waitpid(daemon_pid, NULL, WNOHANG))
			fail_msg("transhipd ended");
		nanosleep(&pause, NULL);
	}
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void ends_by(int signal)
{
	char socket_dir[96];

	start_daemon();
	assert_int_equal(mode_of(sock), 0600);
	assert_int_equal(mode_of(state), 0700);
	snprintf(socket_dir, sizeof(socket_dir), "%s/run/deep", dir);
	assert_int_equal(mode_of(socket_dir), 0700);
	kill(daemon_pid, signal);
	assert_int_equal(end_of(daemon_pid), 0);
	daemon_pid = 0;
	assert_int_equal(access(sock, F_OK), -1);
	assert_int_equal(RUN("tranship", "--socket", sock, "status"), 3);
}

static void test_ends_by_sigterm(void **unused)
{
	(void)unused;
	ends_by(SIGTERM);
}

static void test_ends_by_sigint(void **unused)
{
	(void)unused;
	ends_by(SIGINT);
}

static void test_second_one_is_refused(void **unused)
{
	char other[96];

	(void)unused;
	start_daemon();
	/* the same state directory, another socket; then the other way round */
	snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(RUN("transhipd", "--socket", other, "--state-dir", state), 2);
	assert_int_equal(RUN("transhipd", "--socket", sock, "--state-dir", other), 2);
	assert_int_equal(RUN("tranship", "--socket", sock, "status"), 0);
}

static void test_starts_after_kill(void **unused)
{
	(void)unused;
	start_daemon();
	kill(daemon_pid, SIGKILL);
	assert_int_equal(end_of(daemon_pid), 1000 + SIGKILL);
	assert_int_equal(access(sock, F_OK), 0);
	start_daemon();
}

static void test_usage(void **unused)
{
	char missing[96];

	(void)unused;
	snprintf(missing, sizeof(missing), "%s/no-such-program", dir);
	assert_int_equal(RUN("transhipd", "--bogus"), 1);
	assert_int_equal(RUN("transhipd", "--listen", "[::]:1"), 1);
	assert_int_equal(RUN("transhipd", "--version"), 0);
	assert_int_equal(
		RUN("transhipd", "--socket", sock, "--state-dir", state, "--dataplane", missing),
		2);
	assert_int_equal(RUN("tranship", "--bogus"), 1);
	assert_int_equal(RUN("tranship", "--version"), 0);
}

/* What would make every move fail is said at the start. */
static void test_unfit_places(void **unused)
{
	char missing[96];

	(void)unused;
	snprintf(missing, sizeof(missing), "%s/missing", dir);
	assert_int_equal(
		RUN("transhipd", "--socket", sock, "--state-dir", state, "--ram-dir", missing), 2);
	assert_true(log_has("missing, where RAM files are to go"));
	assert_int_equal(RUN("transhipd", "--data-address", "0.0.0.0"), 1);
	assert_int_equal(RUN("transhipd", "--data-address", "::"), 1);
	assert_true(log_has("an address of this host"));
	assert_int_equal(access(sock, F_OK), -1);
}

/* As it is for another user, and for root in many containers. */
static void test_without_privileges(void **unused)
{
	pid_t pid = fork();

	(void)unused;
	if (!pid) {
		if (!geteuid() && prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE))
			_exit(126);
		_exit(RUN("transhipd", "--socket", sock, "--state-dir", state));
	}
	assert_int_equal(end_of(pid), 2);
	assert_true(log_has("CAP_SYS_PTRACE"));
	assert_int_equal(access(sock, F_OK), -1);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_ends_by_sigterm),
		CASE(test_ends_by_sigint),
		CASE(test_second_one_is_refused),
		CASE(test_starts_after_kill),
		CASE(test_usage),
		CASE(test_unfit_places),
		CASE(test_without_privileges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
