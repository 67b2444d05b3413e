// SPDX-License-Identifier: MIT
/* Faults on demand: what is parsed, what a site does, that each is hit once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/fault.h"

static void unset_costs_nothing_and_does_nothing(void **state)
{
	(void)state;
	assert_int_equal(fault_set(NULL), 0);
	assert_false(fault_armed);
	assert_int_equal(fault_at("a"), 0);
	assert_int_equal(fault_set(""), 0);
	assert_false(fault_armed);
}

static void malformed_ones_are_refused(void **state)
{
	static const char *const words[] = {
		"a",	   ":kill",    "a:",	     "a:die",	       "a:kill,b",
		"a:sleep", "a:sleep=", "a:sleep=1x", "a:kill,,b:kill", "a:sleep=99999999"
	};
	char many[256] = "";

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		assert_int_equal(fault_set("a:error"), 0);
		assert_int_equal(fault_set(words[i]), -EINVAL);
		assert_false(fault_armed);
		assert_int_equal(fault_at("a"), 0);
	}
	for (int i = 0; i < 17; i++)
		strcat(many, i ? ",a:error" : "a:error");
	assert_int_equal(fault_set(many), -EINVAL);
}

static void an_error_is_returned_once_an_entry(void **state)
{
	(void)state;
	assert_int_equal(fault_set("a.b:error,c:error,c:error"), 0);
	assert_int_equal(fault_at("a"), 0);
	assert_int_equal(fault_at_parts("a", "b"), -EIO);
	assert_int_equal(fault_at_parts("a", "b"), 0);
	assert_int_equal(fault_at("c"), -EIO);
	assert_int_equal(fault_at("c"), -EIO);
	assert_int_equal(fault_at("c"), 0);
}

static void a_site_takes_longer(void **state)
{
	uint64_t start = clock_ns();

	(void)state;
	assert_int_equal(fault_set("a:sleep=30"), 0);
	assert_int_equal(fault_at("a"), 0);
	assert_true(clock_ms_since(start) >= 30);
}

/* What became of a child that comes to the site. */
static int child_at(const char *fault, bool stopped)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		fault_set(fault);
		_exit(fault_at("here") ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, stopped ? WUNTRACED : 0), pid);
	if (stopped) {
		assert_true(WIFSTOPPED(status));
		kill(pid, SIGCONT);
		assert_int_equal(waitpid(pid, &status, 0), pid);
	}
	return status;
}

static void a_site_kills_and_stops(void **state)
{
	int status;

	(void)state;
	status = child_at("here:kill", false);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	status = child_at("here:stop", true);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	status = child_at("there:kill", false);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unset_costs_nothing_and_does_nothing),
		cmocka_unit_test(malformed_ones_are_refused),
		cmocka_unit_test(an_error_is_returned_once_an_entry),
		cmocka_unit_test(a_site_takes_longer),
		cmocka_unit_test(a_site_kills_and_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
