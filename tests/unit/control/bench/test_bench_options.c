// SPDX-License-Identifier: MIT
/* What a bench may be asked to do, and what is refused with which code. */
#include "control/bench/bench_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

static struct bench_options o;
static struct failure f;

/* text: JSON's members with single quotes; encryption is off unless they say otherwise. */
static int read_options(const char *text)
{
	json_t *j = json_object(), *given;
	char whole[512];
	int err;

	snprintf(whole, sizeof(whole), "{%s}", text);
	for (char *p = whole; *p; p++)
		if (*p == '\'')
			*p = '"';
	given = json_loads(whole, 0, NULL);
	assert_non_null(given);
	json_object_set_new(j, "encrypt", json_string("off"));
	json_object_update(j, given);
	failure_clear(&f);
	err = bench_options_read(&o, j, &f);
	json_decref(given);
	json_decref(j);
	return err;
}

static void want_refused(const char *text, const char *code)
{
	if (!read_options(text))
		fail_msg("{%s} was taken", text);
	assert_string_equal(f.code, code);
	assert_true(*f.message != '\0');
}

static void test_defaults(void **state)
{
	(void)state;
	assert_int_equal(read_options(""), 0);
	assert_int_equal(o.streams, 1);
	assert_int_equal(o.nsizes, 1);
	assert_int_equal(o.sizes[0], 2 << 20);
	assert_int_equal(o.time_ms, 5000);
	assert_int_equal(o.bytes, 0);
	assert_int_equal(o.memory, 256 << 20);
	assert_int_equal(o.tx, IPC_TX_AUTO);
	assert_int_equal(o.place, IPC_BENCH_PLACE_AUTO);
	assert_int_equal(o.data, IPC_BENCH_RANDOM);
	assert_int_equal(o.tos, -1);
	assert_string_equal(o.congestion, "");
	assert_false(o.fresh || o.reverse || o.bidir || o.latency || o.reuse || o.verify);
	assert_int_equal(read_options("'latency': true"), 0);
	assert_int_equal(o.sizes[0], 0);
	assert_int_equal(read_options("'bytes': '1GiB'"), 0);
	assert_int_equal(o.time_ms, 0);
	assert_int_equal(o.bytes, 1 << 30);
}

static void test_directions(void **state)
{
	(void)state;
	assert_int_equal(read_options("'streams': 4"), 0);
	assert_int_equal(bench_options_streams(&o), 4);
	assert_int_equal(bench_options_forward(&o), 4);
	assert_int_equal(read_options("'streams': 4, 'reverse': true"), 0);
	assert_int_equal(bench_options_streams(&o), 4);
	assert_int_equal(bench_options_forward(&o), 0);
	assert_int_equal(read_options("'streams': 32, 'bidir': true"), 0);
	assert_int_equal(bench_options_streams(&o), 64);
	assert_int_equal(bench_options_forward(&o), 32);
}

static void test_everything(void **state)
{
	(void)state;
	assert_int_equal(
		read_options("'size': '4KiB,2MiB', 'time_ms': 100, 'omit_ms': 20, 'interval_ms': "
			     "50, 'bandwidth': 12500, 'tx': 'uring', 'rx': 'new-pwrite', 'data': "
			     "'file', 'file': '/etc/os-release', 'memory': '64MiB', 'tos': 'ef', "
			     "'congestion': 'cubic', 'affinity': '0,2-3/1', 'reuse': true, "
			     "'verify': true, 'transport': 'tcp', 'compress': 'off'"),
		0);
	assert_int_equal(o.nsizes, 2);
	assert_int_equal(o.sizes[0], 4096);
	assert_int_equal(o.sizes[1], 2 << 20);
	assert_int_equal(o.omit_ms, 20);
	assert_int_equal(o.interval_ms, 50);
	assert_int_equal(o.bandwidth, 12500);
	assert_int_equal(o.tx, IPC_TX_URING);
	assert_int_equal(o.place, IPC_BENCH_PLACE_PWRITE);
	assert_true(o.fresh && o.reuse && o.verify);
	assert_int_equal(o.data, IPC_BENCH_FILE);
	assert_int_equal(o.tos, 46 << 2);
	assert_string_equal(o.congestion, "cubic");
	assert_int_equal(o.near.count, 3);
	assert_int_equal(o.near.cpu[2], 3);
	assert_int_equal(o.far.count, 1);
	assert_int_equal(o.far.cpu[0], 1);
}

static void test_not_in_this_version(void **state)
{
	(void)state;
	want_refused("'transport': 'rdma'", "unsupported-option");
	want_refused("'compress': 'zstd', 'latency': true", "unsupported-option");
	want_refused("'compress': 'auto', 'latency': true", "unsupported-option");
	want_refused("'encrypt': 'on'", "encryption-unavailable");
}

static void test_compression(void **state)
{
	static const struct {
		const char *text, *name;
		enum ipc_compress kind;
		uint32_t level;
	} cases[] = {
		{ "'size': '4KiB'", "off", IPC_COMPRESS_OFF, 0 },
		{ "'compress': 'off', 'latency': true", "off", IPC_COMPRESS_OFF, 0 },
		{ "'compress': 'auto'", "auto", IPC_COMPRESS_AUTO, 0 },
		{ "'compress': 'zstd'", "zstd:3", IPC_COMPRESS_ZSTD, 3 },
		{ "'compress': 'zstd:22'", "zstd:22", IPC_COMPRESS_ZSTD, 22 },
	};
	char name[16];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(read_options(cases[i].text), 0);
		assert_int_equal(o.compress.kind, cases[i].kind);
		assert_int_equal(o.compress.level, cases[i].level);
		assert_string_equal(bench_compress_name(&o, name), cases[i].name);
	}
}

static void test_malformed(void **state)
{
	static const char *const cases[] = {
		"'streams': 65",
		"'streams': -1",
		"'streams': '4'",
		"'streams': 33, 'bidir': true",
		"'reverse': true, 'bidir': true",
		"'size': '3KiB'",
		"'size': '2KiB'",
		"'size': '4MiB'",
		"'size': '12KiB'",
		"'size': '4KiB,'",
		"'size': ','",
		"'size': '4K,4K,4K,4K,4K,4K,4K,4K,4K,4K,4K,4K,4K,4K,4K,4K,4K'",
		"'time_ms': 0",
		"'time_ms': 90000000000",
		"'bytes': 'many'",
		"'bytes': '0'",
		"'interval_ms': 1",
		"'interval_ms': 10, 'time_ms': 10000000",
		"'memory': '17GiB'",
		"'tx': 'rdma'",
		"'rx': 'newmap'",
		"'compress': 'on'",
		"'compress': 'zstd:0'",
		"'compress': 'zstd:23'",
		"'compress': 'zstd:3x'",
		"'rx': 'new-'",
		"'data': 'junk'",
		"'data': 'file'",
		"'file': '/etc/os-release'",
		"'data': 'file', 'file': 'relative'",
		"'data': 'file', 'file': '/etc/os-release', 'reverse': true",
		"'data': 'file', 'file': '/etc/os-release', 'bidir': true",
		"'latency': true, 'bytes': '1MiB'",
		"'tos': '256'",
		"'tos': 'af14'",
		"'congestion': 'a name that is far too long'",
		"'congestion': 'cu bic'",
		"'affinity': '3-2'",
		"'affinity': '0,'",
		"'affinity': '0/'",
		"'affinity': '0/1/2'",
		"'affinity': '0-64'",
		"'affinity': '1024'",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		want_refused(cases[i], "usage");
	failure_clear(&f);
	assert_int_equal(bench_options_read(&o, NULL, &f), -EINVAL);
}

static void test_tos(void **state)
{
	static const struct {
		const char *text;
		int tos;
	} cases[] = { { "0", 0 },	   { "255", 255 },    { "0x10", 16 },
		      { "cs0", 0 },	   { "CS7", 7 << 5 }, { "af11", 10 << 2 },
		      { "AF43", 38 << 2 }, { "le", 4 },	      { "ef", 184 } };
	int tos;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(bench_parse_tos(cases[i].text, &tos), 0);
		assert_int_equal(tos, cases[i].tos);
	}
	assert_int_equal(bench_parse_tos("", &tos), -EINVAL);
	assert_int_equal(bench_parse_tos("-1", &tos), -EINVAL);
	assert_int_equal(bench_parse_tos("cs8", &tos), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),    cmocka_unit_test(test_directions),
		cmocka_unit_test(test_everything),  cmocka_unit_test(test_not_in_this_version),
		cmocka_unit_test(test_malformed),   cmocka_unit_test(test_tos),
		cmocka_unit_test(test_compression),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
