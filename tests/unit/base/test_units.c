// SPDX-License-Identifier: MIT
/* Quantities as users write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "lib/base/units.h"

struct sample {
	const char *text;
	int err;
	uint64_t value;
};

static void check(int (*parse)(const char *, uint64_t *), const struct sample *s)
{
	for (; s->text; s++) {
		uint64_t value = 12345;
		int err = parse(s->text, &value);

		if (err != s->err || (!err && value != s->value))
			fail_msg("'%s': %d, %llu", s->text, err, (unsigned long long)value);
		if (err)
			assert_int_equal(value, 12345); /* untouched */
	}
}

static void test_rate(void **state)
{
	static const struct sample samples[] = {
		{ "10Gbit", 0, 1250000000 },
		{ "800Mbit", 0, 100000000 },
		{ "64kbit", 0, 8000 },
		{ "1000bit", 0, 125 },
		{ "8000", 0, 1000 },
		{ "1.5Gbit", 0, 187500000 },
		{ "1Tbit", 0, 125000000000 },
		{ "10gbit", 0, 1250000000 },
		{ "10 Gbit/s", 0, 1250000000 },
		{ "", -EINVAL, 0 },
		{ "Gbit", -EINVAL, 0 },
		{ "-1Gbit", -EINVAL, 0 },
		{ "+1Gbit", -EINVAL, 0 },
		{ " 1Gbit", -EINVAL, 0 },
		{ "10GiB", -EINVAL, 0 },
		{ "10Gbits", -EINVAL, 0 },
		{ "0x10Gbit", -EINVAL, 0 },
		{ "1e3Gbit", -EINVAL, 0 },
		{ "nan", -EINVAL, 0 },
		{ "inf", -EINVAL, 0 },
		{ "1000000000000Tbit", -ERANGE, 0 },
		{ NULL, 0, 0 },
	};

	(void)state;
	check(units_parse_rate, samples);
}

static void test_size(void **state)
{
	static const struct sample samples[] = {
		{ "4096", 0, 4096 },
		{ "64MiB", 0, 64ull << 20 },
		{ "2G", 0, 2ull << 30 },
		{ "24TiB", 0, 24ull << 40 },
		{ "0", 0, 0 },
		{ "1.5K", 0, 1536 },
		{ "1KB", -EINVAL, 0 },
		{ "1 x", -EINVAL, 0 },
		{ "16777216T", -ERANGE, 0 },
		{ "99999999999999999999", -ERANGE, 0 },
		{ NULL, 0, 0 },
	};

	(void)state;
	check(units_parse_size, samples);
}

static void test_time(void **state)
{
	static const struct sample samples[] = {
		{ "300ms", 0, 300 },	{ "10s", 0, 10000 }, { "5m", 0, 300000 },
		{ "1h", 0, 3600000 },	{ "2.5s", 0, 2500 }, { "10", -EINVAL, 0 },
		{ "10us", -EINVAL, 0 }, { "s", -EINVAL, 0 }, { NULL, 0, 0 },
	};

	(void)state;
	check(units_parse_time, samples);
}

static void test_format(void **state)
{
	char buf[32], small[5];

	(void)state;
	assert_string_equal(units_format_size(0, buf, sizeof(buf)), "0 B");
	assert_string_equal(units_format_size(1023, buf, sizeof(buf)), "1023 B");
	assert_string_equal(units_format_size(1536, buf, sizeof(buf)), "1.5 KiB");
	assert_string_equal(units_format_size(2040109466, buf, sizeof(buf)), "1.9 GiB");
	assert_string_equal(units_format_size(~0ull, buf, sizeof(buf)), "16777216.0 TiB");
	assert_string_equal(units_format_rate(1.175e9, buf, sizeof(buf)), "9.4 Gbit/s");
	assert_string_equal(units_format_rate(0, buf, sizeof(buf)), "0.0 bit/s");
	assert_string_equal(units_format_size(1536, small, sizeof(small)), "1.5 ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
