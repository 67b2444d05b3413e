// SPDX-License-Identifier: MIT
/* tranship predict: shipped models without a daemon, what is refused, what is asked of a daemon. */
#include "tests/unit/control/cli/cli_harness.h"

static const char *model_path(const char *name)
{
	static char path[4096];
	const char *root = getenv("TRANSHIP_SOURCE");

	snprintf(path, sizeof(path), "%s/docs/models/%s.json", root ? root : ".", name);
	return path;
}

static json_t *first_mode(const json_t *forecast)
{
	return json_array_get(json_object_get(forecast, "modes"), 0);
}

static double expected(const json_t *forecast, const char *member)
{
	return json_number_value(
		json_object_get(json_object_get(first_mode(forecast), member), "expected"));
}

static void test_models_run_without_a_daemon(void **state)
{
	static const char *const names[] = { "1tib", "6tib", "24tib", "24tib-huge" };

	(void)state;
	api_free(api);
	api = NULL;
	for (int i = 0; i < 4; i++) {
		json_t *j;

		assert_int_equal(RUN("predict", "--model", model_path(names[i])), CLI_DONE);
		want_in(out_text, "precopy");
		want_in(out_text, "a pause with nothing to send");
		assert_string_equal(err_text, "");
		assert_int_equal(RUN("predict", "--json", "--model", model_path(names[i])),
				 CLI_DONE);
		j = out_json();
		assert_true(expected(j, "total_ms") > 1000);
		assert_string_equal(cli_text(first_mode(j), "mode"), "precopy");
		json_decref(j);
	}
}

static void test_goals_come_before_the_models(void **state)
{
	double free_ms, limited_ms;
	json_t *j;

	(void)state;
	assert_int_equal(RUN("predict", "--json", "--model", model_path("1tib")), CLI_DONE);
	j = out_json();
	free_ms = expected(j, "total_ms");
	json_decref(j);
	assert_int_equal(RUN("predict", "--json", "--model", model_path("1tib"), "--bandwidth",
			     "100Gbit", "--max-downtime", "5s", "--impact", "0", "--timeout", "1h"),
			 CLI_DONE);
	j = out_json();
	limited_ms = expected(j, "total_ms");
	assert_true(limited_ms > 1.5 * free_ms);
	assert_true(json_number_value(json_object_get(json_object_get(j, "goals"),
						      "max_downtime_ms")) == 5000);
	json_decref(j);
}

static void test_what_is_no_model(void **state)
{
	(void)state;
	assert_int_equal(RUN("predict"), CLI_USAGE);
	want_in(err_text, "needs a VM and a DEST");
	assert_int_equal(RUN("predict", "web1"), CLI_USAGE);
	assert_int_equal(RUN("predict", "web1", "unix:/x", "--model", model_path("1tib")),
			 CLI_USAGE);
	assert_int_equal(RUN("predict", "--model", "/nonexistent.json"), CLI_USAGE);
	want_in(err_text, "open /nonexistent.json: No such file or directory. [usage]");
	/* more nanoseconds than 64 bits hold */
	assert_int_equal(
		RUN("predict", "--model", model_path("1tib"), "--max-downtime", "99999999999h"),
		CLI_USAGE);
	want_in(err_text, "max_downtime_ms is a whole number");
	assert_int_equal(RUN("predict", "--model", model_path("1tib"), "--impact", "101"),
			 CLI_USAGE);
}

static void test_what_is_asked_of_the_daemon(void **state)
{
	json_t *model, *in;

	(void)state;
	assert_int_equal(RUN("predict", "--json", "--model", model_path("6tib")), CLI_DONE);
	model = out_json();
	json_object_set_new(model, "measured",
			    json_pack("{s:f, s:f, s:f}", "dirty_rate_bytes_per_s", 1048576.0,
				      "path_bytes_per_s", 125e6, "working_set_bytes", 3145728.0));
	fake.answer = model;
	assert_int_equal(RUN("predict", "web1", "unix:/peer", "--seconds", "2", "--bandwidth",
			     "8Gbit", "--encrypt", "off"),
			 CLI_DONE);
	want_in(out_text, "1.0 MiB/s dirtied, 1.0 Gbit/s across (wire), working set 3.0 MiB");
	assert_string_equal(fake.call, "predict");
	in = fake.in;
	assert_string_equal(cli_text(in, "vm"), "web1");
	assert_string_equal(cli_text(in, "dest"), "unix:/peer");
	assert_int_equal(json_integer_value(json_object_get(in, "seconds")), 2);
	in = json_object_get(in, "options");
	assert_int_equal(json_integer_value(json_object_get(in, "bandwidth")), 1000000000);
	assert_string_equal(cli_text(in, "encrypt"), "off");
	assert_null(json_object_get(in, "-seconds"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_models_run_without_a_daemon),
		CASE(test_goals_come_before_the_models),
		CASE(test_what_is_no_model),
		CASE(test_what_is_asked_of_the_daemon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
