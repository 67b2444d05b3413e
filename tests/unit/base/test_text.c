// SPDX-License-Identifier: MIT
/* Text made well-formed: judged by what JSON takes; and bytes as digits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/failure.h"
#include "lib/base/text.h"

static void becomes(const char *from, const char *to)
{
	char buf[64];

	snprintf(buf, sizeof(buf), "%s", from);
	assert_string_equal(text_clean(buf), to);
}

static void good_text_stays(void **state)
{
	static const char *const words[] = { "",
					     "plain",
					     "gr\xc3\xbc\xc3\x9f",
					     "\xe2\x82\xac",
					     "\xf0\x9f\x98\x80",
					     "\xed\x9f\xbf",
					     "\xf4\x8f\xbf\xbf" };

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		becomes(words[i], words[i]);
}

static void bad_bytes_are_replaced(void **state)
{
	(void)state;
	becomes("a\xff"
		"b",
		"a?b");
	becomes("\xc3", "?");			/* cut off */
	becomes("\xe2\x82", "??");		/* cut off */
	becomes("\xc0\xaf", "??");		/* longer than it need be */
	becomes("\xed\xa0\x80", "???");		/* half of a pair */
	becomes("\xf4\x90\x80\x80", "????");	/* beyond the last character */
	becomes("\x80x\xc3\xa4", "?x\xc3\xa4"); /* goes on behind it */
}

static void json_takes_whatever_comes_out(void **state)
{
	uint32_t seed = 1;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		char buf[9] = "";
		json_t *j;

		for (int k = 0; k < 8; k++) {
			seed = seed * 1664525 + 1013904223;
			/* mostly bytes that begin or go on with a character */
			buf[k] = (char)(seed >> 28 ? seed >> 24 : 'a');
		}
		j = json_string(text_clean(buf));
		assert_non_null(j);
		json_decref(j);
	}
}

static void failures_are_text(void **state)
{
	struct failure f = { 0 };
	char name[500];
	json_t *j;

	(void)state;
	/* a character on the edge of the message, and a byte that is none */
	memset(name, 'x', sizeof(name));
	for (size_t i = 380; i + 2 < sizeof(name); i += 2)
		memcpy(name + i, "\xc3\xa4", 2);
	name[0] = '\xff';
	name[sizeof(name) - 1] = '\0';
	for (size_t from = 0; from < 4; from++) {
		failure_clear(&f);
		failure_set(&f, -1, "internal", name, "%s", name + from);
		j = json_pack("{s:s, s:s}", "m", f.message, "h", f.hint);
		assert_non_null(j);
		json_decref(j);
	}
}

static void hex_is_two_digits_a_byte(void **state)
{
	uint8_t bytes[256];
	char out[2 * sizeof(bytes) + 2];

	(void)state;
	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	memset(out, 'x', sizeof(out));
	text_hex(out, bytes, sizeof(bytes));
	for (unsigned int i = 0; i < sizeof(bytes); i++) {
		char two[3];

		snprintf(two, sizeof(two), "%02x", i);
		assert_memory_equal(out + 2 * i, two, 2);
	}
	/* its end, and nothing behind that */
	assert_int_equal(out[2 * sizeof(bytes)], '\0');
	assert_int_equal(out[2 * sizeof(bytes) + 1], 'x');
	text_hex(out, "\xff\x01\x80", 3);
	assert_string_equal(out, "ff0180");
	text_hex(out, NULL, 0);
	assert_string_equal(out, "");
}

static void sentences_begin_with_a_capital(void **state)
{
	static const char *const words[][2] = {
		{ "out of memory", "Out of memory" },
		{ "end it", "End it" },
		{ "it", "It" },
		{ "", "" },
		{ "Begun", "Begun" },
		/* names of things */
		{ "transhipd ended", "transhipd ended" },
		{ "memory-backend-file with share=on", "memory-backend-file with share=on" },
		{ "net.core.rmem_max is low", "net.core.rmem_max is low" },
		{ "/dev/shm is full", "/dev/shm is full" },
		{ "page_hashes is a number", "page_hashes is a number" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		char buf[64];

		snprintf(buf, sizeof(buf), "%s", words[i][0]);
		assert_string_equal(text_sentence(buf), words[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sentences_begin_with_a_capital),
		cmocka_unit_test(good_text_stays),
		cmocka_unit_test(bad_bytes_are_replaced),
		cmocka_unit_test(json_takes_whatever_comes_out),
		cmocka_unit_test(failures_are_text),
		cmocka_unit_test(hex_is_two_digits_a_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
