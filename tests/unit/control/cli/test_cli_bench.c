// SPDX-License-Identifier: MIT
/* tranship bench: what it asks of the daemon, what it prints of the answers, how it exits. */
#include "tests/unit/control/cli/cli_harness.h"

#include <errno.h>

/* How the session ends: its status, and its error's code or NULL. */
static const char *ending[2];
static const char *compress = "off";

static json_t *figures(double rate)
{
	return json_pack("{s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:n}", "seconds", 1.0,
			 "bytes", (json_int_t)(rate * 1e9), "compress_ratio", 0.325, "gbytes_per_s",
			 rate, "gbit_per_s", 8 * rate, "tx_cpu_s_per_gb", 0.125, "rx_cpu_s_per_gb",
			 0.25, "zero_copy_share", 0.5, "retransmits", 3, "latency_us");
}

static json_t *row(const char *kind, json_int_t size, double rate)
{
	json_t *j = figures(rate);

	json_object_set_new(j, "kind", json_string(kind));
	json_object_set_new(j, "direction", json_string("forward"));
	json_object_set_new(j, "size", json_integer(size));
	json_object_set_new(j, "intervals", json_array());
	return j;
}

static json_t *result(const char *status)
{
	json_t *j = figures(2);

	json_object_update_new(
		j, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:I, "
			     "s:[], s:n}",
			     "status", status, "dest", "unix:/peer", "transport", "tcp",
			     "congestion", "reno", "tx", "sendfile", "rx", "map", "data", "random",
			     "encrypt", "off", "compress", compress, "streams", 2, "memory_bytes",
			     (json_int_t)(256 << 20), "rows", "error"));
	return j;
}

static int answer(struct host *h, uint64_t since, unsigned int wait_ms, json_t **out,
		  struct failure *f)
{
	static unsigned int polls;
	json_t *r, *rows;

	(void)wait_ms;
	(void)f;
	polls = since ? polls + 1 : 1;
	r = result(ending[0]);
	rows = json_object_get(r, "rows");
	json_array_append_new(rows, row("throughput", 65536, 1.5));
	if (polls < 2 && !h->cancelled) {
		json_t *interval = figures(1.25);

		json_object_update_new(interval,
				       json_pack("{s:f, s:f}", "start_s", 0.0, "end_s", 0.5));
		json_object_set_new(
			r, "running",
			json_pack("{s:i, s:[o]}", "size", 2097152, "intervals", interval));
	} else {
		json_array_append_new(rows, row("throughput", 2097152, 2.5));
	}
	if (ending[1])
		json_object_set_new(r, "error",
				    json_pack("{s:s, s:s, s:s}", "code", ending[1], "message",
					      "It ended.", "hint", ""));
	*out = json_pack("{s:s, s:b, s:i, s:o}", "id", FAKE_ID, "terminal", polls >= 2, "seq",
			 (int)polls, "result", r);
	return 0;
}

static void begin(const char *status, const char *code)
{
	ending[0] = status;
	ending[1] = code;
	fake.status = answer;
	fake.answer = json_pack("{s:s}", "id", FAKE_ID);
}

static void test_the_request(void **state)
{
	json_t *want = json_loads(
		"{\"dest\":\"unix:/peer\",\"options\":{\"size\":\"4KiB,2MiB\",\"time_ms\":500,"
		"\"bytes\":\"1GiB\",\"omit_ms\":100,\"interval_ms\":50,\"streams\":3,"
		"\"reverse\":true,\"bandwidth\":125000000,\"transport\":\"tcp\",\"tx\":\"send\","
		"\"rx\":\"new-map\",\"encrypt\":\"off\",\"compress\":\"off\",\"data\":\"text\","
		"\"memory\":\"64MiB\",\"verify\":true,\"reuse\":true,\"affinity\":\"0/1\","
		"\"tos\":\"ef\",\"congestion\":\"cubic\"}}",
		0, NULL);

	(void)state;
	begin("completed", NULL);
	assert_int_equal(RUN("bench", "unix:/peer", "--size", "4KiB,2MiB", "--time", "500ms",
			     "--bytes", "1GiB", "--omit", "100ms", "--interval", "50ms",
			     "--streams", "3", "--reverse", "--bandwidth", "1Gbit", "--transport",
			     "tcp", "--tx", "send", "--rx", "new-map"),
			 CLI_REFUSED); /* without --encrypt off */
	want_in(err_text, "[encryption-unavailable]");
	assert_int_equal(RUN("bench", "unix:/peer", "--size=4KiB,2MiB", "--time=500ms",
			     "--bytes=1GiB", "--omit=100ms", "--interval=50ms", "--streams=3",
			     "--reverse", "--bandwidth=1Gbit", "--transport=tcp", "--tx=send",
			     "--rx=new-map", "--encrypt=off", "--compress=off", "--data=text",
			     "--memory=64MiB", "--verify", "--reuse", "--affinity=0/1", "--tos=ef",
			     "--congestion=cubic"),
			 CLI_DONE);
	if (!json_equal(fake.in, want))
		fail_msg("asked for %s", json_dumps(fake.in, 0));
	json_decref(want);
}

static void test_the_table(void **state)
{
	(void)state;
	begin("completed", NULL);
	assert_int_equal(RUN("bench", "unix:/peer", "--encrypt", "off", "--interval", "500ms"),
			 CLI_DONE);
	want_in(out_text, "unix:/peer: 2 streams, tcp reno, tx sendfile, data random");
	want_in(out_text, "ZERO-COPY");
	want_in(out_text, "64 KiB");
	want_in(out_text, "0.0-0.5 s");
	want_in(out_text, "2 MiB");
	want_in(out_text, "2.500    20.00     0.125     0.250       50 %        3");
	/* each once, however often the object was seen */
	assert_null(strstr(strstr(out_text, "64 KiB") + 1, "64 KiB"));
	assert_null(strstr(strstr(out_text, "0.0-0.5 s") + 1, "0.0-0.5 s"));
	assert_string_equal(err_text, "");
}

/* With compression there is a column for it. */
static void test_the_table_of_compressed_rows(void **state)
{
	(void)state;
	begin("completed", NULL);
	assert_int_equal(RUN("bench", "unix:/peer", "--encrypt", "off"), CLI_DONE);
	assert_null(strstr(out_text, "WIRE"));
	assert_null(strstr(out_text, "compression"));
	json_decref(fake.answer);
	begin("completed", NULL);
	compress = "zstd:3";
	assert_int_equal(RUN("bench", "unix:/peer", "--encrypt=off", "--compress=zstd:3"),
			 CLI_DONE);
	want_in(out_text, "compression zstd:3");
	want_in(out_text, "RETRANS     WIRE\n");
	want_in(out_text, "   32.5 %\n");
	compress = "off";
}

static void test_json(void **state)
{
	json_t *j;

	(void)state;
	begin("completed", NULL);
	assert_int_equal(RUN("bench", "unix:/peer", "--encrypt", "off", "--json"), CLI_DONE);
	j = out_json();
	assert_string_equal(cli_text(j, "status"), "completed");
	assert_int_equal(json_array_size(json_object_get(j, "rows")), 2);
	json_decref(j);
	want_err_json();
	want_in(err_text, "\"interval\"");
}

/* What was measured is shown, whatever ended it. */
static void test_ends(void **state)
{
	static const struct {
		const char *status, *code;
		enum cli_exit exit;
	} cases[] = {
		{ "cancelled", "cancelled", CLI_CANCELLED },
		{ "failed", "data-lost", CLI_FAILED },
		{ "failed", "verify-mismatch", CLI_FAILED },
		{ "refused", "plaintext-refused", CLI_REFUSED },
		{ "refused", "busy", CLI_REFUSED },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_decref(fake.answer);
		begin(cases[i].status, cases[i].code);
		assert_int_equal(RUN("bench", "unix:/peer", "--encrypt", "off"), cases[i].exit);
		want_in(out_text, "2.500");
		want_in(err_text, "It ended.");
		want_in(err_text, cases[i].code);
	}
}

static void want_usage(const char *says)
{
	want_in(err_text, "[usage]");
	want_in(err_text, says);
	assert_string_equal(out_text, "");
}

static void test_usage(void **state)
{
	json_t *j;

	(void)state;
	assert_int_equal(RUN("bench"), CLI_USAGE);
	want_usage("DEST");
	assert_int_equal(RUN("bench", "--local", "unix:/peer"), CLI_USAGE);
	want_usage("DEST");
	assert_int_equal(RUN("bench", "--local", "--size", "3KiB"), CLI_USAGE);
	want_usage("--size");
	assert_int_equal(RUN("bench", "--local", "--data", "/no/such/file"), CLI_USAGE);
	want_usage("/no/such/file");
	assert_int_equal(RUN("bench", "--local", "--reverse", "--bidir"), CLI_USAGE);
	want_usage("not both");
	assert_int_equal(RUN("bench", "--local", "--compress", "zstd:23"), CLI_USAGE);
	want_usage("--compress");
	assert_int_equal(RUN("bench", "--local", "--latency", "--compress=auto"), CLI_REFUSED);
	want_in(err_text, "[unsupported-option]");
	assert_int_equal(RUN("bench", "--local", "--transport", "rdma"), CLI_REFUSED);
	want_in(err_text, "[unsupported-option]");
	assert_int_equal(RUN("bench", "--json", "--streams", "65"), CLI_USAGE);
	j = out_json();
	assert_string_equal(cli_text(j, "status"), "refused");
	assert_string_equal(cli_text(json_object_get(j, "error"), "code"), "usage");
	assert_true(json_is_array(json_object_get(j, "rows")));
	json_decref(j);
}

static void test_a_daemon_that_refuses(void **state)
{
	(void)state;
	failure_set(&fake.failure, -EBUSY, "busy", "Wait.", "Full.");
	assert_int_equal(RUN("bench", "unix:/peer", "--encrypt", "off"), CLI_REFUSED);
	want_in(err_text, "[busy]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_the_request, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_table_of_compressed_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_json, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_daemon_that_refuses, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
