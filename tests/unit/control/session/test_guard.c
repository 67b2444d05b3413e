// SPDX-License-Identifier: MIT
/*
 * The guard: a transhipd (a child here) pauses a guest and is killed; the guest must run again, or
 * must be left alone, as the journal says. A second monitor watches the guest meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/session/guard.h"
#include "control/session/journal.h"
#include "lib/base/clock.h"
#include "tests/unit/control/guest/check_ok.h"
#include "tests/unit/control/guest/qemu_fixture.h"
#include "tests/unit/control/guest/state_pipe.h"

#define HANG_MS 200
#define ID	"0123456789abcdef0123456789abcdef"

static struct fixture a;
static struct qmp *watch; /* the second monitor */
static struct config config;

static void find_guard(void)
{
	char self[PATH_MAX] = "";
	char *p;

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		abort();
	p = strstr(self, "/tests/unit/");
	if (!p)
		abort();
	*p = '\0';
	assert_in_range(strlen(self), 1, sizeof(config.guard) - 20);
	strcpy(config.guard, self);
	strcat(config.guard, "/tranship-guard");
	assert_int_equal(access(config.guard, X_OK), 0);
}

static int start(void **state)
{
	char second[128];

	(void)state;
	find_guard();
	failure_clear(&f);
	fixture_init(&a, "guard");
	fixture_shared_ram(&a);
	snprintf(second, sizeof(second), "%s/watch.sock", a.dir);
	fixture_arg(&a, "-qmp");
	fixture_arg(&a, "unix:%s,server=on,wait=off", second);
	fixture_start(&a);
	OK(qmp_connect(&watch, second, 5000, &f));
	return 0;
}

static int stop(void **state)
{
	(void)state;
	qmp_free(watch);
	fixture_stop(&a);
	return 0;
}

/* How far the daemon comes before it dies. */
enum step { AT_PRE_SWITCHOVER, AFTER_SAVING, IN_A_COMMAND, IN_DISMISSAL, HANGS };

struct plan {
	enum step step;
	enum session_state logged; /* the last record */
	bool was_paused, torn;
};

static int journal(const struct plan *p, char path[PATH_MAX])
{
	json_t *fields =
		json_pack("{s:b, s:{s:{s:i, s:i}}}", "was_running", !p->was_paused, "migration",
			  "parameters", "max-bandwidth", 12345678, "downtime-limit", 321);
	struct journal j;
	int ret = journal_create(&j, a.dir, ID, "source", NULL);

	if (!ret)
		ret = journal_append(&j, SESSION_NEGOTIATED, fields, NULL);
	if (!ret)
		ret = journal_append(&j, p->logged, NULL, NULL);
	if (!ret && p->torn && write(j.fd, "{\"state\":\"committed\"", 20) != 20)
		ret = -EIO;
	strcpy(path, j.path);
	json_decref(fields);
	journal_close(&j);
	return ret;
}

/* The daemon: to its step, says so, and waits to be killed. */
static void daemon_run(const struct plan *p, int ready)
{
	struct guard guard = GUARD_NONE;
	struct state_pipe out;
	struct guest *g;
	char path[PATH_MAX], vm[128];

	setpgid(0, 0);
	snprintf(vm, sizeof(vm), "qemu:%s", a.qmp);
	if (guest_open(&g, vm, NULL) || journal(p, path) ||
	    (p->was_paused && g->ops->stop(g, NULL)) || guard_start(&guard, g, &config, path, NULL))
		_exit(10);
	state_pipe_take(&out);
	if (g->ops->pause(g, out.vmm, NULL))
		_exit(11);
	state_pipe_given(&out);
	if (p->step == AFTER_SAVING && g->ops->save(g, NULL))
		_exit(12);
	if (p->step == IN_A_COMMAND &&
	    send(g->ops->guard_fd(g), "{\"execute\": \"query-sta", 22, 0) != 22)
		_exit(13);
	if (p->step == IN_DISMISSAL)
		guard_stop(&guard);
	if (p->step == HANGS)
		guard_limit(&guard, clock_ns() + HANG_MS * NSEC_PER_MSEC);
	if (write(ready, &guard.pid, sizeof(guard.pid)) != sizeof(guard.pid))
		_exit(14);
	if (p->step == HANGS)
		raise(SIGSTOP);
	pause();
	_exit(0);
}

/* What hangs is killed by the guard, unless the journal says that this does not help. */
static void expect_hanging_end(pid_t child, bool killed)
{
	int fd = (int)syscall(SYS_pidfd_open, child, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	siginfo_t info = { 0 };

	assert_int_equal(poll(&p, 1, killed ? 30000 : 3000), killed);
	close(fd);
	if (!killed)
		return;
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(info.si_status, SIGKILL);
}

/* Runs the plan until the daemon is killed; the guard's pid and the moment of death. */
static pid_t kill_daemon(const struct plan *p, uint64_t *died)
{
	int ends[2];
	pid_t child, guard = -1;

	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		close(ends[0]);
		daemon_run(p, ends[1]);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &guard, sizeof(guard)), sizeof(guard));
	close(ends[0]);
	/* What ends a terminal's foreground group must not end the guard. */
	if (guard > 0) {
		assert_int_equal(kill(guard, SIGTERM), 0);
		assert_int_equal(kill(guard, SIGINT), 0);
	}
	qmp_forget_events(watch, "RESUME");
	*died = clock_ns();
	if (p->step == HANGS)
		expect_hanging_end(child, p->logged < SESSION_COMMITTED);
	assert_int_equal(kill(child, SIGKILL), 0);
	waitpid(child, NULL, 0);
	return guard;
}

/* The guard is nobody's child here: its end is seen by its pidfd. */
static void await_end(pid_t guard)
{
	int fd = (int)syscall(SYS_pidfd_open, guard, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fd < 0)
		return; /* already */
	assert_int_equal(poll(&p, 1, 30000), 1);
	close(fd);
}

/*
 * What QEMU is in once it has put itself back: it tells the end of a migration a moment before, and
 * until then says finish-migrate, unless that is what is expected. Whether the guest runs.
 */
static bool settled(char status[32], const char *expected)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	uint64_t start = clock_ns();
	json_t *answer;
	bool running;

	for (;;) {
		OK(qmp_call(watch, "query-status", NULL, &answer, &f));
		snprintf(status, 32, "%s",
			 json_string_value(json_object_get(answer, "status")) ?: "");
		running = json_is_true(json_object_get(answer, "running"));
		json_decref(answer);
		if (strcmp(status, "finish-migrate") || !strcmp(status, expected) ||
		    clock_ms_since(start) > 10000)
			return running;
		nanosleep(&nap, NULL);
	}
}

static void expect_status(const char *word)
{
	char status[32];

	settled(status, word);
	assert_string_equal(status, word);
}

static bool capability(const char *name)
{
	bool on = true;
	json_t *list;
	const json_t *item;
	size_t i;

	OK(qmp_call(watch, "query-migrate-capabilities", NULL, &list, &f));
	json_array_foreach (list, i, item)
		if (!strcmp(json_string_value(json_object_get(item, "capability")), name))
			on = json_is_true(json_object_get(item, "state"));
	json_decref(list);
	return on;
}

static void rescued(const struct plan *p)
{
	uint64_t died;
	json_t *all;
	pid_t guard = kill_daemon(p, &died);

	OK(qmp_wait_event(watch, "RESUME", NULL, NULL, 10000, NULL, &f));
	print_message("the guest ran %.1f ms after the daemon's death\n", clock_ms_since(died));
	await_end(guard);
	expect_status("running");
	assert_false(capability("x-ignore-shared"));
	assert_false(capability("pause-before-switchover"));
	assert_false(capability("late-block-activate"));
	OK(qmp_call(watch, "query-migrate-parameters", NULL, &all, &f));
	assert_int_equal(json_integer_value(json_object_get(all, "max-bandwidth")), 12345678);
	assert_int_equal(json_integer_value(json_object_get(all, "downtime-limit")), 321);
	json_decref(all);
}

static void from_pre_switchover(void **state)
{
	(void)state;
	rescued(&(struct plan){ .step = AT_PRE_SWITCHOVER, .logged = SESSION_PAUSED });
}

static void after_saving(void **state)
{
	(void)state;
	rescued(&(struct plan){ .step = AFTER_SAVING, .logged = SESSION_PREPARED });
}

static void in_the_middle_of_a_command(void **state)
{
	(void)state;
	rescued(&(struct plan){ .step = IN_A_COMMAND, .logged = SESSION_PAUSED });
}

static void a_torn_commit_is_none(void **state)
{
	(void)state;
	rescued(&(struct plan){ .step = AFTER_SAVING, .logged = SESSION_PREPARED, .torn = true });
}

static void left_alone(const struct plan *p, const char *status)
{
	uint64_t died;
	pid_t guard = kill_daemon(p, &died);

	await_end(guard);
	expect_status(status);
	assert_int_equal(qmp_wait_event(watch, "RESUME", NULL, NULL, 0, NULL, &f), -ETIMEDOUT);
}

static void after_commit_nothing_is_touched(void **state)
{
	(void)state;
	left_alone(&(struct plan){ .step = AFTER_SAVING, .logged = SESSION_COMMITTED },
		   "postmigrate");
}

static void unresolved_is_left_to_a_person(void **state)
{
	(void)state;
	left_alone(&(struct plan){ .step = AFTER_SAVING, .logged = SESSION_UNRESOLVED },
		   "postmigrate");
}

static void a_paused_guest_is_not_run(void **state)
{
	uint64_t died;
	pid_t guard = kill_daemon(&(struct plan){ .step = AT_PRE_SWITCHOVER,
						  .logged = SESSION_PAUSED,
						  .was_paused = true },
				  &died);
	char status[32];

	(void)state;
	await_end(guard);
	assert_false(settled(status, ""));
	assert_string_not_equal(status, "finish-migrate");
	assert_false(capability("x-ignore-shared"));
}

static void dismissed_it_does_nothing(void **state)
{
	uint64_t died;
	pid_t guard = kill_daemon(&(struct plan){ .step = IN_DISMISSAL, .logged = SESSION_PAUSED },
				  &died);

	(void)state;
	assert_int_equal(guard, 0); /* it had ended when guard_stop() returned */
	expect_status("finish-migrate");
}

static void from_one_that_hangs(void **state)
{
	(void)state;
	rescued(&(struct plan){ .step = HANGS, .logged = SESSION_PAUSED });
}

static void one_that_hangs_after_commit_is_let_be(void **state)
{
	(void)state;
	left_alone(&(struct plan){ .step = HANGS, .logged = SESSION_COMMITTED }, "finish-migrate");
}

static void wrong_words(void **state)
{
	char command[PATH_MAX + 64];

	(void)state;
	find_guard();
	snprintf(command, sizeof(command), "%s unknown 3 4 /x 1 2>/dev/null", config.guard);
	assert_int_equal(system(command), 1 << 8);
	snprintf(command, sizeof(command), "%s qemu 3 x /x 1 2>/dev/null", config.guard);
	assert_int_equal(system(command), 1 << 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(from_pre_switchover, start, stop),
		cmocka_unit_test_setup_teardown(after_saving, start, stop),
		cmocka_unit_test_setup_teardown(in_the_middle_of_a_command, start, stop),
		cmocka_unit_test_setup_teardown(a_torn_commit_is_none, start, stop),
		cmocka_unit_test_setup_teardown(after_commit_nothing_is_touched, start, stop),
		cmocka_unit_test_setup_teardown(unresolved_is_left_to_a_person, start, stop),
		cmocka_unit_test_setup_teardown(a_paused_guest_is_not_run, start, stop),
		cmocka_unit_test_setup_teardown(dismissed_it_does_nothing, start, stop),
		cmocka_unit_test_setup_teardown(from_one_that_hangs, start, stop),
		cmocka_unit_test_setup_teardown(one_that_hangs_after_commit_is_let_be, start, stop),
		cmocka_unit_test(wrong_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
