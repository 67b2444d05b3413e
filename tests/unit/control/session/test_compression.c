// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "control/session/compression.h"

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		enum ipc_compress kind;
		uint32_t level;
	} good[] = {
		{ "auto", IPC_COMPRESS_AUTO, 0 },     { "off", IPC_COMPRESS_OFF, 0 },
		{ "zstd", IPC_COMPRESS_ZSTD, 3 },     { "zstd:1", IPC_COMPRESS_ZSTD, 1 },
		{ "zstd:22", IPC_COMPRESS_ZSTD, 22 },
	};
	static const char *const bad[] = { "",	      "on",	 "zstd:",   "zstd:0", "zstd:23",
					   "zstd:-1", "zstd:+1", "zstd:3x", "zstd3",  "lz4" };

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct compression c = { .level = 9 };

		assert_int_equal(compression_parse(&c, good[i].text, NULL), 0);
		assert_int_equal(c.kind, good[i].kind);
		assert_int_equal(c.level, good[i].level);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct compression c = { 0 };
		struct failure f = { 0 };

		assert_int_equal(compression_parse(&c, bad[i], &f), -EINVAL);
		assert_string_equal(f.code, "usage");
	}
}

static void test_default_cache(void **state)
{
	(void)state;
	assert_int_equal(compression_default_cache(1000 << 20), 20 << 20);
	assert_int_equal(compression_default_cache(1ull << 40), 256 << 20);
}

/* What the source ends up with, by what it wanted and what the destination takes. */
static struct compression settle(const char *want, uint64_t cache, const char *taken, int expected)
{
	struct compression c = { .delta_cache = cache };
	json_t *offer, *answer = taken ? json_loads(taken, 0, NULL) : NULL;
	struct failure f = { 0 };

	assert_int_equal(compression_parse(&c, want, NULL), 0);
	offer = compression_offer(&c);
	assert_int_equal(!offer, c.kind == IPC_COMPRESS_OFF);
	if (offer)
		assert_int_equal(json_array_size(offer), cache ? 2 : 1);
	assert_int_equal(compression_settle(&c, answer, &f), expected);
	if (expected)
		assert_string_equal(f.code, "unsupported-option");
	json_decref(offer);
	json_decref(answer);
	return c;
}

static void test_negotiation(void **state)
{
	const uint32_t both = IPC_ENCODING_ZSTD | IPC_ENCODING_DELTA;
	struct compression c = settle("auto", 100, "[\"delta\", \"zstd\", \"lz77\", 5]", 0);
	json_t *names;

	(void)state;
	assert_int_equal(c.kind, IPC_COMPRESS_AUTO);
	assert_int_equal(c.encodings, both);
	assert_int_equal(c.delta_cache, 100);
	c = settle("zstd:5", 100, "[\"zstd\"]", 0);
	assert_int_equal(c.encodings, IPC_ENCODING_ZSTD);
	assert_int_equal(c.level, 5);
	assert_int_equal(c.delta_cache, 0);
	/* a destination that knows of nothing */
	c = settle("auto", 100, NULL, 0);
	assert_int_equal(c.kind, IPC_COMPRESS_OFF);
	assert_int_equal(c.encodings, 0);
	assert_int_equal(c.delta_cache, 0);
	settle("zstd:5", 100, NULL, -EOPNOTSUPP);
	settle("zstd:5", 100, "\"zstd\"", -EOPNOTSUPP);
	c = settle("off", 100, "[\"zstd\"]", 0);
	assert_int_equal(c.kind, IPC_COMPRESS_OFF);
	assert_int_equal(c.encodings, 0);
	assert_int_equal(c.delta_cache, 0);

	names = compression_names(both);
	assert_int_equal(compression_accept(names), both);
	json_decref(names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_default_cache),
		cmocka_unit_test(test_negotiation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
