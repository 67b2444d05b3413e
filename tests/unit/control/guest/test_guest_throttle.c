// SPDX-License-Identifier: MIT
// timeout: 60
/*
 * Which threads of a QEMU are throttled: those of its virtual processors, whatever PID namespace it
 * lives in, and none of another process, whatever it says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "tests/unit/control/guest/qemu_fixture.h"

#define OWNER	   "fedcba9876543210fedcba9876543210"
#define PROCESSORS 3

static struct fixture x;
static struct failure f;

static void start_qemu(bool in_a_namespace)
{
	static const char *const wrapper[] = { "unshare", "--pid", "--fork",
					       "--kill-child=SIGKILL" };

	fixture_init(&x, "throttle");
	for (size_t i = 0; in_a_namespace && i < 4; i++) {
		memmove(x.argv + i + 1, x.argv + i, (size_t)(x.argc++ - (int)i) * sizeof(*x.argv));
		x.argv[i] = strdup(wrapper[i]);
	}
	fixture_shared_ram(&x);
	fixture_arg(&x, "-smp");
	fixture_arg(&x, "%d", PROCESSORS);
	fixture_start(&x);
}

/* The line of a thread's cgroups that names ours, or "". */
static void group_of(pid_t pid, pid_t tid, char *line, size_t len)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/cgroup", pid, tid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, (int)len, file))
		if (strstr(line, "tranship-" OWNER))
			break;
	if (feof(file))
		line[0] = '\0';
	fclose(file);
}

/* All processors, and they alone, are in groups of their own; or no thread is. */
static void throttled(pid_t pid, bool yes)
{
	char path[64], name[64], line[512], last[32];
	unsigned int n = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((e = readdir(dir))) {
		pid_t tid = (pid_t)atoi(e->d_name);
		FILE *file;

		if (!tid)
			continue;
		group_of(pid, tid, line, sizeof(line));
		snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
		file = fopen(path, "r");
		assert_non_null(file);
		assert_non_null(fgets(name, sizeof(name), file));
		fclose(file);
		/* as QEMU names them with debug-threads: "CPU 0/TCG" */
		assert_int_equal(*line != '\0', yes && !strncmp(name, "CPU ", 4));
		if (!*line)
			continue;
		snprintf(last, sizeof(last), "/%d\n", tid);
		assert_non_null(strstr(line, last));
		n++;
	}
	closedir(dir);
	assert_int_equal(n, yes ? PROCESSORS : 0);
}

static void the_processors_and_nothing_else(bool in_a_namespace)
{
	struct throttle *t = NULL;
	struct guest *g;
	char word[128];
	int err;

	start_qemu(in_a_namespace);
	snprintf(word, sizeof(word), "qemu:%s", x.qmp);
	failure_clear(&f);
	if (guest_open(&g, word, &f))
		fail_msg("open: %s", f.message);
	err = g->ops->throttle(g, OWNER, &t, &f);
	if (err == -EOPNOTSUPP) {
		print_message("%s\n", f.message);
		guest_free(g);
		fixture_stop(&x);
		skip();
	}
	assert_int_equal(err, 0);
	throttled(g->pid, false);
	if (throttle_begin(t, &f))
		fail_msg("begin: %s", f.message);
	throttled(g->pid, true);
	assert_int_equal(throttle_set(t, 40, &f), 0);
	throttle_free(t);
	throttled(g->pid, false);
	guest_free(g);
	fixture_stop(&x);
}

static void of_this_namespace(void **unused)
{
	(void)unused;
	the_processors_and_nothing_else(false);
}

static void of_another_namespace(void **unused)
{
	(void)unused;
	the_processors_and_nothing_else(true);
}

/* --- one that lies ---------------------------------------------------------------------------- */

static int served;
static char answer[256];

static bool read_command(char *line, size_t len)
{
	size_t have = 0;

	while (have < len - 1 && read(served, line + have, 1) == 1)
		if (line[have++] == '\n')
			break;
	line[have] = '\0';
	return have > 0;
}

static void *serve(void *arg)
{
	static const char greeting[] =
		"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": "
		"2, \"major\": 7}}, \"capabilities\": []}}\n";
	char line[512], whole[600];

	if (write(served, greeting, sizeof(greeting) - 1) < 0)
		return arg;
	while (read_command(line, sizeof(line))) {
		json_t *command = json_loads(line, 0, NULL);
		bool asked = strstr(line, "query-cpus-fast");
		json_t *id = json_object_get(command, "id");
		char *name = json_dumps(id, JSON_ENCODE_ANY);

		snprintf(whole, sizeof(whole), "{\"return\": %s%s%s}\n", asked ? answer : "{}",
			 name ? ", \"id\": " : "", name ? name : "");
		free(name);
		json_decref(command);
		if (write(served, whole, strlen(whole)) < 0)
			break;
	}
	return arg;
}

/* err of throttle for a VMM that is this process' child and answers so. */
static int told(const char *cpus)
{
	struct guest_qemu q = { 0 };
	struct throttle *t = NULL;
	pthread_t server;
	int pair[2], err;
	pid_t child = fork();

	if (!child)
		for (;;)
			pause();
	snprintf(answer, sizeof(answer), "%s", cpus);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	served = pair[1];
	assert_int_equal(pthread_create(&server, NULL, serve, NULL), 0);
	failure_clear(&f);
	assert_int_equal(qmp_new(&q.q, pair[0], 5000, &f), 0);
	q.g.pid = child;
	err = guest_qemu_throttle(&q.g, OWNER, &t, &f);
	throttle_free(t);
	qmp_free(q.q);
	pthread_join(server, NULL);
	close(served);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return err;
}

static void threads_of_others_are_left_alone(void **unused)
{
	char mine[64];

	(void)unused;
	snprintf(mine, sizeof(mine), "[{\"thread-id\": %d}, {\"thread-id\": 1}]", getpid());
	assert_int_equal(told(mine), -EOPNOTSUPP);
	assert_string_equal(f.code, "throttle-unavailable");
	assert_non_null(strstr(f.message, "no thread of its own"));
	assert_int_equal(told("[]"), -EOPNOTSUPP);
	assert_int_equal(told("{}"), -EOPNOTSUPP);
	assert_int_equal(told("[1, null, {\"thread-id\": \"x\"}, {\"thread-id\": -1}, "
			      "{\"thread-id\": 99999999999}]"),
			 -EOPNOTSUPP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_this_namespace),
		cmocka_unit_test(of_another_namespace),
		cmocka_unit_test(threads_of_others_are_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
