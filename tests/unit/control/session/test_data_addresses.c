// SPDX-License-Identifier: MIT
/* A host's data addresses: listened on, written, and read from a peer that may say anything. */
#include "control/session/data_addresses.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void test_a_listener_on_each(void **state)
{
	static struct config c = { .ndata_addresses = 3,
				   .data_addresses = { "127.0.0.1", "127.0.0.2", "127.0.0.3" } };
	struct data_addresses a, b;
	struct failure f = { 0 };
	int fds[IPC_LISTENERS_MAX];
	json_t *j;

	(void)state;
	assert_int_equal(data_addresses_listen(&c, true, &a, fds, &f), 0);
	assert_int_equal(a.count, 3);
	assert_string_equal(a.address[2], "127.0.0.3");
	for (uint32_t i = 0; i < 3; i++) {
		assert_true(a.port[i]);
		close(fds[i]);
	}
	assert_int_equal(fds[3], -1);
	j = data_addresses_json(&a);
	assert_int_equal(data_addresses_from_json(&b, j), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	json_decref(j);
	j = data_addresses_names(&a);
	assert_int_equal(json_array_size(j), 3);
	assert_string_equal(json_string_value(json_array_get(j, 1)), "127.0.0.2");
	json_decref(j);
}

/* The one after which nothing can be listened on: what is open is said, for the caller to close. */
static void test_one_that_is_not_ours(void **state)
{
	static struct config c = { .ndata_addresses = 2,
				   .data_addresses = { "127.0.0.1", "192.0.2.1" } };
	struct data_addresses a;
	struct failure f = { 0 };
	int fds[IPC_LISTENERS_MAX];

	(void)state;
	assert_true(data_addresses_listen(&c, true, &a, fds, &f) < 0);
	assert_true(failure_is_set(&f));
	assert_int_equal(a.count, 1);
	assert_true(fds[0] >= 0);
	assert_int_equal(fds[1], -1);
	close(fds[0]);
}

/* A post-copy that is begun again takes what there is. */
static void test_those_that_are_ours(void **state)
{
	static struct config c = { .ndata_addresses = 3,
				   .data_addresses = { "192.0.2.1", "127.0.0.1", "127.0.0.2" } };
	struct data_addresses a;
	struct failure f = { 0 };
	int fds[IPC_LISTENERS_MAX];

	(void)state;
	assert_int_equal(data_addresses_listen(&c, false, &a, fds, &f), 0);
	assert_false(failure_is_set(&f));
	assert_int_equal(a.count, 2);
	assert_string_equal(a.address[0], "127.0.0.1");
	assert_string_equal(a.address[1], "127.0.0.2");
	assert_int_equal(fds[2], -1);
	close(fds[0]);
	close(fds[1]);
	c.ndata_addresses = 1;
	assert_true(data_addresses_listen(&c, false, &a, fds, &f) < 0);
	assert_true(failure_is_set(&f));
	assert_int_equal(fds[0], -1);
}

static void test_an_answer(void **state)
{
	static const struct {
		const char *text;
		uint32_t count; /* 0: refused */
	} answers[] = {
		{ "{\"address\": \"10.0.0.1\", \"port\": 5}", 1 },
		{ "{\"address\": \"10.0.0.1\", \"port\": 5, \"addresses\": [{\"address\": "
		  "\"10.0.0.1\", "
		  "\"port\": 5}, {\"address\": \"10.0.0.2\", \"port\": 6}]}",
		  2 },
		{ "{\"address\": \"10.0.0.1\", \"port\": 5, \"addresses\": []}", 0 },
		{ "{\"port\": 5}", 0 },
		{ "{}", 0 },
	};

	struct data_addresses a;

	(void)state;
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		json_t *j = json_loads(answers[i].text, 0, NULL);

		assert_int_equal(data_addresses_from_answer(&a, j), answers[i].count ? 0 : -EPROTO);
		assert_int_equal(a.count, answers[i].count);
		json_decref(j);
	}
	/* no answer at all */
	assert_int_equal(data_addresses_from_answer(&a, NULL), -EPROTO);
}

static void test_what_a_peer_may_say(void **state)
{
	static const char *const bad[] = {
		"[]",
		"{}",
		"[1]",
		"[{\"address\": \"10.0.0.1\"}]",
		"[{\"port\": 5}]",
		"[{\"address\": \"10.0.0.1\", \"port\": 0}]",
		"[{\"address\": \"10.0.0.1\", \"port\": 65536}]",
		"[{\"address\": \"10.0.0.1\", \"port\": 5}, {\"address\": 7, \"port\": 5}]",
	};
	struct data_addresses a;
	json_t *j;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		j = json_loads(bad[i], 0, NULL);
		assert_non_null(j);
		assert_int_equal(data_addresses_from_json(&a, j), -EPROTO);
		assert_int_equal(a.count, 0);
		json_decref(j);
	}
	assert_int_equal(data_addresses_from_json(&a, NULL), -EPROTO);
	j = json_array();
	for (int i = 0; i < IPC_LISTENERS_MAX; i++)
		json_array_append_new(j, json_pack("{s:s, s:i}", "address", "::1", "port", 5 + i));
	assert_int_equal(data_addresses_from_json(&a, j), 0);
	assert_int_equal(a.count, IPC_LISTENERS_MAX);
	json_array_append_new(j, json_pack("{s:s, s:i}", "address", "::1", "port", 5));
	assert_int_equal(data_addresses_from_json(&a, j), -EPROTO);
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_listener_on_each),
		cmocka_unit_test(test_one_that_is_not_ours),
		cmocka_unit_test(test_those_that_are_ours),
		cmocka_unit_test(test_an_answer),
		cmocka_unit_test(test_what_a_peer_may_say),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
