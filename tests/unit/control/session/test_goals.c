// SPDX-License-Identifier: MIT
/* Goals as members of a request: defaults, bounds, and all or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "control/session/goals.h"

static struct failure f;

static int take(struct goals *g, const char *options)
{
	json_t *j = options ? json_loads(options, 0, NULL) : NULL;
	int err;

	failure_clear(&f);
	assert_true(!options || j);
	err = goals_take(g, j, &f);
	json_decref(j);
	return err;
}

static void defaults(void **unused)
{
	struct goals g;

	(void)unused;
	goals_init(&g);
	assert_int_equal(take(&g, NULL), 0);
	assert_int_equal(take(&g, "{}"), 0);
	assert_int_equal(g.max_downtime_ms, 300);
	assert_int_equal(g.timeout_ms, 0);
	assert_int_equal(g.bandwidth, 0);
	assert_int_equal(g.impact, GOALS_IMPACT);
	assert_string_equal(g.mode, "auto");
}

static void what_is_given_counts_and_the_rest_stays(void **unused)
{
	struct goals g;
	json_t *j;

	(void)unused;
	goals_init(&g);
	assert_int_equal(take(&g, "{\"max_downtime_ms\": 1, \"timeout_ms\": 60000, \"bandwidth\": "
				  "125000000, \"impact\": 100, \"mode\": \"precopy\"}"),
			 0);
	assert_int_equal(take(&g, "{\"timeout_ms\": 0, \"streams\": 2}"), 0);
	assert_int_equal(g.max_downtime_ms, 1);
	assert_int_equal(g.timeout_ms, 0);
	assert_int_equal(g.bandwidth, 125000000);
	assert_int_equal(g.impact, 100);
	assert_string_equal(g.mode, "precopy");
	/* and back again */
	j = goals_json(&g);
	goals_init(&g);
	assert_int_equal(goals_take(&g, j, &f), 0);
	assert_int_equal(g.bandwidth, 125000000);
	assert_string_equal(g.mode, "precopy");
	assert_int_equal(json_object_size(j), 5);
	json_decref(j);
}

static void what_is_wrong_changes_nothing(void **unused)
{
	static const char *const wrong[] = {
		"{\"impact\": 7, \"max_downtime_ms\": 0}",
		"{\"impact\": 7, \"max_downtime_ms\": -1}",
		"{\"impact\": 7, \"max_downtime_ms\": 1.5}",
		"{\"impact\": 7, \"max_downtime_ms\": \"300ms\"}",
		"{\"impact\": 7, \"max_downtime_ms\": 9223372036855}", /* more ns than there are */
		"{\"impact\": 7, \"timeout_ms\": true}",
		"{\"impact\": 7, \"bandwidth\": -1}",
		"{\"impact\": 7, \"bandwidth\": 7999}",
		"{\"impact\": 7, \"timeout_ms\": null}",
		"{\"bandwidth\": 70000, \"impact\": 101}",
		"{\"bandwidth\": 70000, \"impact\": -1}",
		"{\"bandwidth\": 70000, \"mode\": \"fast\"}",
		"{\"bandwidth\": 70000, \"mode\": \"\"}",
		"{\"bandwidth\": 70000, \"mode\": 1}",
	};
	struct goals g, was;

	(void)unused;
	goals_init(&g);
	was = g;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(take(&g, wrong[i]), -EINVAL);
		assert_string_equal(f.code, "usage");
		assert_memory_equal(&g, &was, sizeof(g));
	}
}

static void names(void **unused)
{
	struct goals g;
	const char *member;
	json_t *j, *value;

	(void)unused;
	goals_init(&g);
	j = goals_json(&g);
	json_object_foreach (j, member, value)
		assert_true(goals_has(member));
	json_decref(j);
	assert_false(goals_has("streams"));
	assert_false(goals_has(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(what_is_given_counts_and_the_rest_stays),
		cmocka_unit_test(what_is_wrong_changes_nothing),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
