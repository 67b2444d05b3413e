// SPDX-License-Identifier: MIT
/* The command line: parsing, requests, the commands besides migrate, the progress line. */
#include "tests/unit/control/cli/cli_harness.h"

#include "control/cli/cli_progress.h"

/* --- usage ------------------------------------------------------------------------------------ */

static void test_usage_errors(void **state)
{
	static const char *const cases[][8] = {
		{ "bogus" },
		{ "-x" },
		{ "migrate" },
		{ "migrate", "web1" },
		{ "migrate", "web1", "unix:/x", "more" },
		{ "migrate", "", "unix:/x" },
		{ "migrate", "\xff", "unix:/x" },
		{ "migrate", "web1", "unix:/x", "--bogus" },
		{ "migrate", "web1", "unix:/x", "-x" },
		{ "migrate", "web1", "unix:/x", "--streams" },
		{ "migrate", "web1", "unix:/x", "--streams", "0" },
		{ "migrate", "web1", "unix:/x", "--streams", "65" },
		{ "migrate", "web1", "unix:/x", "--streams", "4x" },
		{ "migrate", "web1", "unix:/x", "--max-downtime", "100" },
		{ "migrate", "web1", "unix:/x", "--max-downtime", "0ms" },
		{ "migrate", "web1", "unix:/x", "--timeout", "soon" },
		{ "migrate", "web1", "unix:/x", "--bandwidth", "0" },
		{ "migrate", "web1", "unix:/x", "--bandwidth", "-1Gbit" },
		{ "migrate", "web1", "unix:/x", "--bandwidth", "10" }, /* Gbit, he meant */
		{ "migrate", "web1", "unix:/x", "--bandwidth", "63kbit" },
		{ "migrate", "web1", "unix:/x", "--bandwidth", "1GiB" },
		{ "migrate", "web1", "unix:/x", "--mode", "fast" },
		{ "migrate", "web1", "unix:/x", "--mode", "auto|precopy" },
		{ "migrate", "web1", "unix:/x", "--tx", "" },
		{ "migrate", "web1", "unix:/x", "--compress", "lz4" },
		{ "migrate", "web1", "unix:/x", "--compress", "zstd:" },
		{ "migrate", "web1", "unix:/x", "--compress", "zstd:23" },
		{ "migrate", "web1", "unix:/x", "--delta-cache", "much" },
		{ "migrate", "web1", "unix:/x", "--page-hashes", "many" },
		{ "migrate", "web1", "unix:/x", "--delta-cache", "off" },
		{ "migrate", "web1", "unix:/x", "--skip-check", "cpu,,disk" },
		{ "migrate", "web1", "unix:/x", "--skip-check", "ram" },
		{ "migrate", "web1", "unix:/x", "--dry-run=yes" },
		{ "migrate", "web1", "unix:/x", "--dry-run", "--detach" },
		{ "migrate", "web1", "unix:/x", "--socket", "" },
		{ "list", "extra" },
		{ "status", "xyz" },
		{ "status", "../../../etc" },
		{ "cancel" },
		{ "cancel", "12345" },
		{ "tune" },
		{ "tune", FAKE_ID },
		{ "tune", FAKE_ID, "--streams", "2" },
		{ "tune", FAKE_ID, "--impact", "101" },
		{ "tune", FAKE_ID, "--bandwidth", "0" },
		{ "tune", "12345", "--impact", "5" },
		{ "switch" },
		{ "resolve", FAKE_ID },
		{ "resolve", FAKE_ID, "--run-here", "--give-up" },
		{ "dirty-rate" },
		{ "dirty-rate", "web1", "--seconds", "0" },
		{ "dirty-rate", "web1", "--seconds", "3601" },
		{ "dirty-rate", "web1", "--seconds", "1500ms" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *words[10] = { NULL };
		json_t *j;
		int n = 0;

		while (n < 8 && cases[i][n]) {
			words[n] = cases[i][n];
			n++;
		}
		if (run_words(words) != CLI_USAGE)
			fail_msg("case %zu: %s", i, err_text);
		assert_string_equal(out_text, "");
		want_in(err_text, "[usage]");
		words[n] = "--json";
		assert_int_equal(run_words(words), CLI_USAGE);
		j = out_json();
		assert_string_equal(cli_text(json_object_get(j, "error"), "code"), "usage");
		if (!strcmp(cases[i][0], "migrate")) {
			want_contract(j);
			assert_string_equal(cli_text(j, "status"), "refused");
		}
		json_decref(j);
		want_err_json();
		assert_int_equal(fake.calls, 0);
	}
	assert_int_equal(RUN("--json"), CLI_USAGE);
	json_decref(out_json());
}

/* It is the option that is wrong, not the command that is missing. */
static void test_option_without_a_command(void **state)
{
	(void)state;
	assert_int_equal(RUN("-x"), CLI_USAGE);
	want_in(err_text, "There is no option '-x'");
	assert_int_equal(RUN("--json", "--bogus"), CLI_USAGE);
	want_in(out_text, "There is no option '--bogus'");
	assert_int_equal(RUN("--socket", "/tmp/x"), CLI_USAGE);
	want_in(err_text, "A command is missing");
}

static void test_help_and_version(void **state)
{
	(void)state;
	assert_int_equal(RUN("--help"), CLI_DONE);
	want_in(out_text, "migrate VM DEST");
	assert_null(strstr(out_text, "evacuate"));
	assert_int_equal(RUN("migrate", "--help"), CLI_DONE);
	want_in(out_text, "--max-downtime TIME");
	want_in(out_text, "--socket PATH");
	assert_int_equal(RUN("--version"), CLI_DONE);
	assert_string_equal(out_text, "tranship " TRANSHIP_VERSION "\n");
	assert_string_equal(err_text, "");
}

static void test_commands_of_later_versions(void **state)
{
	static const char *const names[] = { "evacuate", "pki" };
	json_t *j;

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(RUN(names[i], "init", "--whatever", "3"), CLI_REFUSED);
		want_in(err_text, "[unsupported-option]");
		assert_int_equal(RUN(names[i], "--json"), CLI_REFUSED);
		j = out_json();
		assert_string_equal(cli_text(json_object_get(j, "error"), "code"),
				    "unsupported-option");
		json_decref(j);
	}
}

static void test_a_wrong_value_names_the_right_ones(void **state)
{
	(void)state;
	assert_int_equal(RUN("migrate", "web1", "unix:/x", "--skip-check", "ram"), CLI_USAGE);
	want_in(err_text, "--skip-check takes LIST (cpu, memory, disk,");
	want_in(err_text, "not 'ram'");
	assert_int_equal(RUN("migrate", "web1", "unix:/x", "--compress", "lz4"), CLI_USAGE);
	want_in(err_text, "--compress takes KIND (auto, off, zstd or zstd:LEVEL");
}

/* --- requests --------------------------------------------------------------------------------- */

static void test_migrate_sends_what_was_given(void **state)
{
	json_t *want = json_loads(
		"{\"vm\":\"web1\",\"dest\":\"unix:/peer\",\"options\":{\"dry_run\":true,"
		"\"skip_check\":\"cpu,all\",\"mode\":\"precopy\",\"cold\":true,"
		"\"max_downtime_ms\":100,\"timeout_ms\":600000,\"bandwidth\":1250000000,\"impact\":"
		"40,"
		"\"streams\":3,\"transport\":\"tcp\",\"tx\":\"uring\",\"encrypt\":\"off\","
		"\"compress\":\"zstd:3\",\"delta_cache\":1048576,\"page_hashes\":0,"
		"\"disks\":\"none\",\"location\":"
		"\"/var/lib\","
		"\"incoming\":\"qemu:/run/q\",\"no_start\":true,\"keep_src\":true,"
		"\"keep_dst\":true,\"verify\":true}}",
		0, NULL);

	(void)state;
	failure_set(&fake.failure, -EIO, "vm-busy", "wait", "taken");
	assert_int_equal(RUN("migrate", "--dry-run", "web1", "--skip-check", "cpu,all", "--mode",
			     "precopy", "--cold", "--max-downtime=100ms", "--timeout", "10m",
			     "--impact", "40", "--bandwidth", "10Gbit", "--streams", "3",
			     "--transport", "tcp", "--tx", "uring", "--encrypt", "off",
			     "--compress", "zstd:3", "--delta-cache", "1MiB", "unix:/peer",
			     "--page-hashes", "off", "--disks", "none"),
			 CLI_REFUSED);
	json_object_del(json_object_get(want, "options"), "location");
	json_object_del(json_object_get(want, "options"), "incoming");
	json_object_del(json_object_get(want, "options"), "no_start");
	json_object_del(json_object_get(want, "options"), "keep_src");
	json_object_del(json_object_get(want, "options"), "keep_dst");
	json_object_del(json_object_get(want, "options"), "verify");
	assert_true(json_equal(fake.in, want));
	json_decref(want);

	want = json_loads(
		"{\"vm\":\"web1\",\"dest\":\"unix:/peer\",\"options\":{\"streams\":0,"
		"\"location\":\"/var/lib\",\"incoming\":\"qemu:/run/q\",\"no_start\":true,"
		"\"keep_src\":true,\"keep_dst\":true,\"verify\":true}}",
		0, NULL);
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--streams", "auto", "--location",
			     "/var/lib", "--incoming", "qemu:/run/q", "--no-start", "--keep-src",
			     "--keep-dst", "--verify", "--batch"),
			 CLI_REFUSED);
	assert_true(json_equal(fake.in, want));
	json_decref(want);
}

static void test_words_after_two_dashes(void **state)
{
	(void)state;
	failure_set(&fake.failure, -EIO, "vm-not-found", NULL, "none");
	assert_int_equal(RUN("migrate", "--", "--odd", "/peer"), CLI_REFUSED);
	assert_string_equal(cli_text(fake.in, "vm"), "--odd");
}

static void test_relative_paths_become_absolute(void **state)
{
	char cwd[PATH_MAX], want[PATH_MAX + 32];

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	failure_set(&fake.failure, -EIO, "vm-not-found", NULL, "none");
	RUN("migrate", "qemu:q.sock", "unix:peer.sock");
	snprintf(want, sizeof(want), "qemu:%s/q.sock", cwd);
	assert_string_equal(cli_text(fake.in, "vm"), want);
	snprintf(want, sizeof(want), "unix:%s/peer.sock", cwd);
	assert_string_equal(cli_text(fake.in, "dest"), want);
	RUN("migrate", "pid:12", "host.example");
	assert_string_equal(cli_text(fake.in, "vm"), "pid:12");
	assert_string_equal(cli_text(fake.in, "dest"), "host.example");
}

/* --- the other commands ----------------------------------------------------------------------- */

static void test_list(void **state)
{
	json_t *j;

	(void)state;
	fake.answer = json_loads(
		"[{\"name\":\"web1\",\"pid\":71,\"kind\":\"qemu\",\"ram_bytes\":2147483648,"
		"\"state\":\"running\",\"migratable\":true,\"reason\":\"\",\"code\":\"\"},"
		"{\"name\":\"ev\\u001bil\",\"pid\":72,\"ram_bytes\":1,\"state\":\"paused\","
		"\"migratable\":false,\"reason\":\"RAM is private\",\"code\":\"ram-not-shared\"}]",
		0, NULL);
	assert_int_equal(RUN("list"), CLI_DONE);
	want_in(out_text, "MIGRATABLE");
	want_in(out_text, "web1");
	want_in(out_text, "2.0 GiB");
	want_in(out_text, "no: RAM is private [ram-not-shared]");
	assert_null(strchr(out_text, '\033'));
	assert_int_equal(RUN("--json", "list"), CLI_DONE);
	j = out_json();
	assert_int_equal(json_array_size(json_object_get(j, "vms")), 2);
	json_decref(j);
}

static void test_dirty_rate(void **state)
{
	json_t *j;

	(void)state;
	fake.answer = json_loads("{\"vm\":\"web1\",\"seconds\":3,\"dirty_rate_mib_s\":152.25,"
				 "\"dirty_rate_bytes_per_s\":159645696.0,"
				 "\"working_set_bytes\":268435456,\"ram_bytes\":2147483648,"
				 "\"samples_mib_s\":[150.0,152.5,154.25]}",
				 0, NULL);
	assert_int_equal(RUN("dirty-rate", "web1", "--seconds", "3"), CLI_DONE);
	assert_int_equal(json_integer_value(json_object_get(fake.in, "seconds")), 3);
	want_in(out_text, "152.2 MiB/s");
	want_in(out_text, "256.0 MiB of 2.0 GiB (12.5 %)");
	want_in(out_text, "154.2");
	assert_int_equal(RUN("dirty-rate", "web1", "--json", "--seconds=2m"), CLI_DONE);
	assert_int_equal(json_integer_value(json_object_get(fake.in, "seconds")), 120);
	j = out_json();
	assert_true(json_equal(j, fake.answer));
	json_decref(j);
}

static void test_status(void **state)
{
	json_t *j;

	(void)state;
	fake.answer = json_loads("[" COPYING "," ENDED("done", COMPLETED) "]", 0, NULL);
	assert_int_equal(RUN("status"), CLI_DONE);
	want_in(out_text, "copying");
	want_in(out_text, "40 %");
	assert_int_equal(RUN("status", "--json"), CLI_DONE);
	j = out_json();
	assert_int_equal(json_array_size(json_object_get(j, "sessions")), 2);
	json_decref(j);
	json_decref(fake.answer);
	fake.answer = json_loads(COPYING, 0, NULL);
	assert_int_equal(RUN("status", "001122"), CLI_DONE);
	want_in(out_text, "1.2 GiB of 2.0 GiB left");
	assert_int_equal(RUN("status", FAKE_ID, "--json"), CLI_DONE);
	j = out_json();
	assert_true(json_equal(j, fake.answer));
	json_decref(j);
	failure_set(&fake.failure, -ENOENT, "session-not-found", NULL, "None.");
	assert_int_equal(RUN("status", FAKE_ID), CLI_REFUSED);
	assert_int_equal(RUN("cancel", FAKE_ID), CLI_REFUSED);
}

/* What moved nothing does not look as if it had, nor as if it had broken. */
static void test_status_of_what_was_not_moved(void **state)
{
	(void)state;
	fake.answer = json_loads(
		"[{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"side\":\"source\",\"state\":\"done\","
		"\"terminal\":true,\"status\":\"completed\",\"dry_run\":true},"
		"{\"id\":\"" FAKE_ID "\",\"vm\":\"web2\",\"side\":\"source\",\"state\":\"failed\","
		"\"terminal\":true,\"status\":\"refused\"}]",
		0, NULL);
	assert_int_equal(RUN("status"), CLI_DONE);
	want_in(out_text, "source       dry-run ");
	want_in(out_text, "source       refused ");
	assert_null(strstr(out_text, "done"));
	assert_null(strstr(out_text, "failed"));
}

/* What nobody can tell yet is not shown as nothing. */
static void test_status_of_the_first_pass(void **state)
{
	json_t *progress;

	(void)state;
	fake.answer = json_loads(COPYING, 0, NULL);
	progress = json_object_get(fake.answer, "progress");
	json_object_set_new(progress, "predicted_downtime_ms", json_real(0));
	assert_int_equal(RUN("status", FAKE_ID), CLI_DONE);
	want_in(out_text, "dirtied");
	assert_null(strstr(out_text, "if it came now"));
	json_object_set_new(progress, "predicted_downtime_ms", json_real(23.4));
	assert_int_equal(RUN("status", FAKE_ID), CLI_DONE);
	want_in(out_text, "pause      23 ms, if it came now");
}

/* Nothing of pre-copy is shown when the guest runs already. */
static void test_status_in_postcopy(void **state)
{
	char line[512];

	(void)state;
	fake.answer = json_loads(POSTCOPY, 0, NULL);
	assert_int_equal(RUN("status", FAKE_ID), CLI_DONE);
	want_in(out_text, "post-copy  38.1 MiB of 256.0 MiB left, 85 % done");
	want_in(out_text, "rate       32.0 Mbit/s");
	want_in(out_text, "8497 served, median 0.041 ms, p99 0.144 ms, longest 40.136 ms");
	assert_null(strstr(out_text, "dirtied"));
	assert_null(strstr(out_text, "if it came now"));
	assert_null(strstr(out_text, "round"));
	cli_progress_line(fake.answer, 120, line, sizeof(line));
	want_in(line, "38MiB left 8497 faults 32Mbit/s p99 0.1ms");
	json_object_set_new(json_object_get(fake.answer, "progress"), "percent", json_null());
	assert_int_equal(RUN("status", FAKE_ID), CLI_DONE);
	want_in(out_text, "what is left is not known yet");
}

/* A destination leads nothing: it has no result, and says what it knows. */
static void test_status_of_a_destination(void **state)
{
	json_t *j;

	(void)state;
	fake.answer = json_loads(ARRIVED("done", ACCOUNT), 0, NULL);
	assert_int_equal(RUN("status", FAKE_ID), CLI_DONE);
	want_in(out_text, "web1 has arrived\n");
	want_in(out_text, "8497 faults, median 0.041 ms");
	want_in(out_text, "CPU        0.29 s, memory 12.0 MiB");
	assert_string_equal(err_text, "");
	play("[" ARRIVED("done", ACCOUNT) "]");
	assert_int_equal(RUN("status", FAKE_ID, "--watch", "--json"), CLI_DONE);
	j = out_json();
	want_contract(j);
	assert_string_equal(cli_text(j, "status"), "completed");
	json_decref(j);
	json_decref(fake.answer);
	fake.status = NULL;
	fake.answer = json_loads(ARRIVED("failed", "\"error\":{\"code\":\"data-lost\","
						   "\"message\":\"Lost.\",\"hint\":\"\"}"),
				 0, NULL);
	assert_int_equal(RUN("status", FAKE_ID), CLI_DONE);
	want_in(err_text, "web1 has not arrived: failed");
	want_in(err_text, "Lost. [data-lost]");
	json_decref(fake.answer);
	/* while it receives: nobody tells it what is left */
	fake.answer =
		json_loads("[{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"side\":\"destination\","
			   "\"state\":\"copying\",\"terminal\":false,\"progress\":{\"round\":0,"
			   "\"sent_bytes\":1048576,\"total_bytes\":2097152,\"percent\":null}}]",
			   0, NULL);
	assert_int_equal(RUN("status"), CLI_DONE);
	assert_null(strstr(out_text, "%"));
	j = json_incref(json_array_get(fake.answer, 0));
	json_decref(fake.answer);
	fake.answer = j;
	assert_int_equal(RUN("status", FAKE_ID), CLI_DONE);
	want_in(out_text, "received   1.0 MiB, of 2.0 MiB of RAM");
}

/* Exits as the migration; an id's beginning is enough; nothing is cancelled. */
static void test_status_watch(void **state)
{
	json_t *j;

	(void)state;
	play("[" COPYING "," COPYING "," ENDED("failed", BADLY("failed", "data-lost")) "]");
	assert_int_equal(RUN("status", "001122", "--watch"), CLI_FAILED);
	want_in(err_text, "[data-lost]");
	fake.polls = 0;
	assert_int_equal(RUN("status", "001122", "--watch", "--json"), CLI_FAILED);
	j = out_json();
	want_contract(j);
	json_decref(j);
	want_err_json();
	assert_false(fake.cancelled);
	json_decref(fake.answer);
	fake.answer = json_loads("[" ENDED("done", COMPLETED) "]", 0, NULL);
	assert_int_equal(RUN("status", "--watch"), CLI_DONE);
	want_in(out_text, "done");
}

static void test_cancel_and_resolve(void **state)
{
	(void)state;
	fake.answer = json_pack("{s:s}", "id", FAKE_ID);
	assert_int_equal(RUN("cancel", FAKE_ID), CLI_DONE);
	assert_string_equal(fake.call, "cancel");
	assert_int_equal(RUN("resolve", FAKE_ID, "--run-here"), CLI_DONE);
	assert_string_equal(fake.action, "run-here");
	assert_int_equal(RUN("resolve", FAKE_ID, "--give-up", "--json"), CLI_DONE);
	assert_string_equal(fake.action, "give-up");
	json_decref(out_json());
}

static void test_tune_and_switch(void **state)
{
	json_t *want =
		json_pack("{s:i, s:i, s:i, s:i, s:s}", "bandwidth", 100000000, "max_downtime_ms",
			  500, "timeout_ms", 0, "impact", 40, "mode", "precopy");

	(void)state;
	fake.answer = json_pack("{s:s}", "id", FAKE_ID);
	assert_int_equal(RUN("tune", FAKE_ID, "--bandwidth", "800Mbit", "--max-downtime", "500ms",
			     "--timeout", "never", "--impact", "40", "--mode", "precopy", "--json"),
			 CLI_DONE);
	json_decref(out_json());
	assert_string_equal(fake.call, "tune");
	assert_true(json_equal(fake.in, want));
	json_decref(want);
	/* what is not given is not sent: 0 is a value, and means unlimited */
	want = json_pack("{s:i}", "bandwidth", 0);
	assert_int_equal(RUN("tune", FAKE_ID, "--bandwidth", "unlimited"), CLI_DONE);
	assert_true(json_equal(fake.in, want));
	want_in(out_text, "tuned");
	json_decref(want);
	assert_int_equal(RUN("switch", FAKE_ID), CLI_DONE);
	assert_string_equal(fake.call, "switch");
	assert_string_equal(fake.id, FAKE_ID);
}

/* --- the progress line ------------------------------------------------------------------------ */

static void test_progress_line_fits(void **state)
{
	json_t *s = json_loads(COPYING, 0, NULL);
	char line[512];

	(void)state;
	for (unsigned int width = 1; width < 300; width++) {
		memset(line, 'Z', sizeof(line));
		cli_progress_line(s, width, line, sizeof(line));
		if (strlen(line) > width || strchr(line, '\n'))
			fail_msg("width %u: '%s' has %zu", width, line, strlen(line));
	}
	/* what the contract names is all there on an ordinary terminal */
	cli_progress_line(s, 99, line, sizeof(line));
	want_in(line, "web1 [###");
	want_in(line, " 40%");
	want_in(line, "round 3");
	want_in(line, "1.2GiB left");
	want_in(line, "dirty 153MiB/s");
	want_in(line, "9.4Gbit/s");
	want_in(line, "pause 23ms");
	cli_progress_line(s, 79, line, sizeof(line));
	want_in(line, "pause 23ms");
	/* names that would break the line, figures that cannot be */
	json_object_set_new(s, "vm",
			    json_string("a\nb\033[2J\u00e4 very long name of a VM indeed"));
	json_object_set_new(json_object_get(s, "progress"), "percent", json_real(1e9));
	json_object_set_new(json_object_get(s, "progress"), "pending_bytes", json_real(1e300));
	for (unsigned int width = 1; width < 300; width++) {
		cli_progress_line(s, width, line, sizeof(line));
		assert_true(strlen(line) <= width);
		assert_null(strchr(line, '\033'));
	}
	json_decref(s);
	s = json_object();
	cli_progress_line(s, 80, line, sizeof(line));
	want_in(line, "0%");
	json_decref(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_usage_errors),
		CASE(test_option_without_a_command),
		CASE(test_a_wrong_value_names_the_right_ones),
		CASE(test_help_and_version),
		CASE(test_commands_of_later_versions),
		CASE(test_migrate_sends_what_was_given),
		CASE(test_words_after_two_dashes),
		CASE(test_relative_paths_become_absolute),
		CASE(test_list),
		CASE(test_dirty_rate),
		CASE(test_status),
		CASE(test_status_of_what_was_not_moved),
		CASE(test_status_of_the_first_pass),
		CASE(test_status_in_postcopy),
		CASE(test_status_of_a_destination),
		CASE(test_status_watch),
		CASE(test_cancel_and_resolve),
		CASE(test_tune_and_switch),
		CASE(test_progress_line_fits),
	};

	return cmocka_run_group_tests(tests, NULL, cleanup_script);
}
