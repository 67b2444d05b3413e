// SPDX-License-Identifier: MIT
/* From two sides' accounts to rows, intervals and sums; and an account over the API and back. */
#include "control/bench/bench_result.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <string.h>

static const struct ipc_bench_figures sent = { .ns = 2000000000,
					       .bytes = 8000000000,
					       .wire_bytes = 8000100000,
					       .zero_copy_bytes = 6000000000,
					       .cpu_ns = 1600000000,
					       .retransmits = 7 };
static const struct ipc_bench_figures got = { .ns = 1900000000,
					      .bytes = 8000000000,
					      .cpu_ns = 4000000000 };

static double number(const json_t *j, const char *member)
{
	const json_t *value = json_object_get(j, member);

	if (!json_is_number(value))
		fail_msg("%s is no number", member);
	return json_number_value(value);
}

static void want(const json_t *j, const char *member, double value)
{
	double is = number(j, member);

	if (fabs(is - value) > 1e-9 * fabs(value) + 1e-12)
		fail_msg("%s is %g, not %g", member, is, value);
}

static void want_text(const json_t *j, const char *member, const char *text)
{
	assert_string_equal(json_string_value(json_object_get(j, member)), text);
}

static void test_a_row(void **state)
{
	struct bench_account near = { .done.tx = sent }, far = { .done.rx = got };
	struct bench_options o = { .streams = 1 };
	struct bench_totals totals = { 0 };
	json_t *rows = json_array(), *row;

	(void)state;
	bench_result_rows(rows, &totals, &o, 65536, &near, &far);
	assert_int_equal(json_array_size(rows), 1);
	row = json_array_get(rows, 0);
	want_text(row, "kind", "throughput");
	want_text(row, "direction", "forward");
	want(row, "size", 65536);
	want(row, "seconds", 2);
	want(row, "gbytes_per_s", 4);
	want(row, "gbit_per_s", 32);
	want(row, "tx_cpu_s_per_gb", 0.2);
	want(row, "rx_cpu_s_per_gb", 0.5);
	want(row, "zero_copy_share", 0.75);
	want(row, "wire_bytes", 8000100000);
	want(row, "compress_ratio", 1.0000125);
	want(row, "retransmits", 7);
	assert_true(json_is_null(json_object_get(row, "latency_us")));
	assert_null(json_object_get(row, "verified_chunks"));
	json_decref(rows);
}

static void test_nothing_was_moved(void **state)
{
	struct bench_account none = { .nintervals = 0 };
	struct bench_options o = { .streams = 1 };
	struct bench_totals totals = { 0 };
	json_t *rows = json_array(), *row;

	(void)state;
	bench_result_rows(rows, &totals, &o, 4096, &none, &none);
	row = json_array_get(rows, 0);
	want(row, "gbytes_per_s", 0);
	want(row, "tx_cpu_s_per_gb", 0);
	want(row, "zero_copy_share", 0);
	want(row, "compress_ratio", 0);
	json_decref(rows);
}

static void test_both_directions(void **state)
{
	struct bench_account near = { .done = { .tx = sent, .rx = got } };
	struct bench_account far = { .done = { .tx = sent, .rx = got } };
	struct bench_options o = { .streams = 1, .bidir = true, .verify = true };
	struct bench_totals totals = { 0 };
	json_t *rows = json_array(), *all = json_object();

	(void)state;
	far.done.tx.ns = 4000000000;
	far.done.verified = 9;
	far.done.mismatches = 1;
	bench_result_rows(rows, &totals, &o, 4096, &near, &far);
	assert_int_equal(json_array_size(rows), 2);
	want_text(json_array_get(rows, 1), "direction", "reverse");
	want(json_array_get(rows, 0), "gbytes_per_s", 4);
	want(json_array_get(rows, 1), "gbytes_per_s", 2);
	want(json_array_get(rows, 1), "verified_chunks", 9);
	want(json_array_get(rows, 1), "mismatched_chunks", 1);
	/* all bytes in the time of the slower */
	bench_result_totals(all, &totals);
	want(all, "seconds", 4);
	want(all, "bytes", 16e9);
	want(all, "gbytes_per_s", 4);
	want(all, "tx_cpu_s_per_gb", 0.2);
	want(all, "retransmits", 14);
	json_decref(all);
	json_decref(rows);
}

static void test_latency(void **state)
{
	struct bench_account near = { .done.latency = { 1000, 1500, 20000, 30500, 40000, 50000 } };
	struct bench_account far = { .nintervals = 0 };
	struct bench_options o = { .streams = 1, .latency = true };
	struct bench_totals totals = { 0 };
	json_t *rows = json_array(), *all = json_object(), *l;

	(void)state;
	bench_result_rows(rows, &totals, &o, 0, &near, &far);
	l = json_object_get(json_array_get(rows, 0), "latency_us");
	want_text(json_array_get(rows, 0), "kind", "latency");
	want(l, "count", 1000);
	want(l, "min", 1.5);
	want(l, "p50", 20);
	want(l, "p99", 30.5);
	want(l, "p99_9", 40);
	want(l, "max", 50);
	bench_result_totals(all, &totals);
	want(json_object_get(all, "latency_us"), "max", 50);
	/* percentiles of two rows are not mixed */
	bench_result_rows(rows, &totals, &o, 4096, &near, &far);
	bench_result_totals(all, &totals);
	assert_true(json_is_null(json_object_get(all, "latency_us")));
	json_decref(all);
	json_decref(rows);
}

static void test_intervals(void **state)
{
	struct ipc_bench_interval tx[2] = { { .start_ns = 0, .end_ns = 1000000000 },
					    { .start_ns = 1000000000, .end_ns = 2000000000 } };
	struct ipc_bench_interval rx[1] = { { .rx = got } };
	struct bench_account near = { .done.tx = sent, .intervals = tx, .nintervals = 2 };
	struct bench_account far = { .done.rx = got, .intervals = rx, .nintervals = 1 };
	struct bench_options o = { .streams = 1 };
	struct bench_totals totals = { 0 };
	json_t *rows = json_array(), *list;

	(void)state;
	tx[0].tx = tx[1].tx = sent;
	bench_result_rows(rows, &totals, &o, 4096, &near, &far);
	list = json_object_get(json_array_get(rows, 0), "intervals");
	assert_int_equal(json_array_size(list), 2);
	want(json_array_get(list, 0), "rx_cpu_s_per_gb", 0.5);
	want(json_array_get(list, 1), "start_s", 1);
	want(json_array_get(list, 1), "end_s", 2);
	/* the other side has none: not known, rather than nothing */
	assert_true(json_is_null(json_object_get(json_array_get(list, 1), "rx_cpu_s_per_gb")));
	json_decref(rows);
}

static void test_account_over_the_api(void **state)
{
	struct ipc_bench_interval v = { .start_ns = 5, .end_ns = 6, .tx = sent, .rx = got };
	struct bench_account a = { .done = { .tx = sent,
					     .rx = got,
					     .latency = { 1, 2, 3, 4, 5, 6 },
					     .verified = 8,
					     .mismatches = 9 },
				   .intervals = &v,
				   .nintervals = 1 };
	struct bench_account b = { .nintervals = 0 };
	json_t *j = bench_account_to_json(&a);

	(void)state;
	assert_int_equal(bench_account_from_json(&b, j), 0);
	assert_memory_equal(&b.done, &a.done, sizeof(a.done));
	assert_int_equal(b.nintervals, 1);
	assert_memory_equal(&b.intervals[0], &v, sizeof(v));
	/* of another form: refused whole */
	json_array_append_new(json_object_get(j, "tx"), json_integer(1));
	assert_int_equal(bench_account_from_json(&b, j), -EPROTO);
	assert_int_equal(b.nintervals, 0);
	json_decref(j);
	j = bench_account_to_json(&a);
	json_object_set_new(j, "verified", json_integer(-1));
	assert_int_equal(bench_account_from_json(&b, j), -EPROTO);
	json_object_del(j, "verified");
	assert_int_equal(bench_account_from_json(&b, j), -EPROTO);
	/* of which two could not be added up */
	json_object_set_new(j, "verified", json_integer(INT64_MAX));
	assert_int_equal(bench_account_from_json(&b, j), -EPROTO);
	json_object_set_new(j, "verified", json_integer(1));
	json_object_set_new(j, "intervals", json_pack("[{}]"));
	assert_int_equal(bench_account_from_json(&b, j), -EPROTO);
	json_decref(j);
	assert_int_equal(bench_account_from_json(&b, NULL), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_row),		cmocka_unit_test(test_nothing_was_moved),
		cmocka_unit_test(test_both_directions), cmocka_unit_test(test_latency),
		cmocka_unit_test(test_intervals),	cmocka_unit_test(test_account_over_the_api),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
