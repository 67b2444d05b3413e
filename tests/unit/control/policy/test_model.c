// SPDX-License-Identifier: MIT
/* Models: the shipped ones run; whatever is damaged in one is named. Run from the tree's root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/policy/forecast.h"
#include "control/policy/model.h"

static const char *const shipped[] = { "1tib", "6tib", "24tib", "24tib-huge" };
#define SHIPPED (sizeof(shipped) / sizeof(shipped[0]))

static const char *path_of(const char *name)
{
	static char path[4096];
	const char *root = getenv("TRANSHIP_SOURCE");

	snprintf(path, sizeof(path), "%s/docs/models/%s.json", root ? root : ".", name);
	return path;
}

static json_t *text_of(const char *name)
{
	json_t *j = json_load_file(path_of(name), 0, NULL);

	assert_non_null(j);
	return j;
}

static double number(const json_t *j, const char *outer, const char *inner)
{
	return json_number_value(json_object_get(json_object_get(j, outer), inner));
}

static void each_shipped_model_gives_a_forecast(void **state)
{
	static struct model m;

	(void)state;
	for (size_t i = 0; i < SHIPPED; i++) {
		struct failure f = { 0 };
		json_t *out, *mode;

		if (model_load(&m, path_of(shipped[i]), &f))
			fail_msg("%s: %s", shipped[i], f.message);
		out = forecast(&m);
		assert_non_null(out);
		mode = json_array_get(json_object_get(out, "modes"), 0);
		assert_string_equal(json_string_value(json_object_get(mode, "mode")), "precopy");
		/* a range is one, and holds what is expected */
		assert_true(number(mode, "total_ms", "low") <=
			    number(mode, "total_ms", "expected"));
		assert_true(number(mode, "total_ms", "high") > number(mode, "total_ms", "low"));
		assert_true(number(mode, "wire_bytes", "expected") >
			    0.9 * m.sim.populated_bytes * (1 - m.sim.zero_share));
		json_decref(out);
	}
}

/* What the description promises of a large VM holds in the forecast: time follows from the rate. */
static void the_total_is_at_least_what_the_path_takes(void **state)
{
	static struct model m;
	struct failure f = { 0 };
	double content, rate;
	json_t *out, *mode;

	(void)state;
	assert_int_equal(model_load(&m, path_of("1tib"), &f), 0);
	out = forecast(&m);
	mode = json_array_get(json_object_get(out, "modes"), 0);
	content = m.sim.populated_bytes * (1 - m.sim.zero_share);
	rate = m.sim.first_rate > 0 && m.sim.first_rate < m.sim.link_rate ? m.sim.first_rate
									  : m.sim.link_rate;
	assert_true(number(mode, "total_ms", "expected") > content / rate * 1000);
	assert_true(number(out, "costs", "bitmap_bytes") == m.sim.ram_bytes / 32768);
	/* to the byte */
	assert_int_equal(json_integer_value(json_object_get(out, "ram_bytes")), 1ull << 40);
	json_decref(out);
}

static void refused(const json_t *j, const char *word)
{
	static struct model m;
	struct failure f = { 0 };

	if (!model_read(&m, j, &f))
		fail_msg("taken, with a damaged %s", word);
	assert_string_equal(f.code, "usage");
	if (!strstr(f.message, word))
		fail_msg("'%s' does not name %s", f.message, word);
	assert_true(strlen(f.hint) > 10);
}

/* The member's section, made if it is missing; *name is the part after the dot. */
static json_t *section_of(json_t *j, const char *member, const char **name)
{
	char section[32];
	const char *dot = strchr(member, '.');

	snprintf(section, sizeof(section), "%.*s", (int)(dot - member), member);
	if (!json_object_get(j, section))
		json_object_set_new(j, section, json_object());
	*name = dot + 1;
	return json_object_get(j, section);
}

static void each_damaged_member_is_named(void **state)
{
	json_t *wrong[] = { json_null(),      json_array(),	  json_string("many"),
			    json_integer(-1), json_string("-3s"), json_real(1e300) };
	char member[64];

	(void)state;
	for (unsigned int i = 0; model_member(i, member, sizeof(member)); i++) {
		for (size_t w = 0; w < sizeof(wrong) / sizeof(wrong[0]); w++) {
			json_t *j = text_of("1tib");
			const char *name;
			json_t *section = section_of(j, member, &name);

			json_object_set(section, name, wrong[w]);
			refused(j, member);
			json_decref(j);
		}
	}
	for (size_t w = 0; w < sizeof(wrong) / sizeof(wrong[0]); w++)
		json_decref(wrong[w]);
}

static void what_is_needed_is_missed(void **state)
{
	static const char *const needed[] = { "guest.ram", "link.rate" };

	(void)state;
	for (int i = 0; i < 2; i++) {
		json_t *j = text_of("1tib");
		const char *name;
		json_t *section = section_of(j, needed[i], &name);

		json_object_del(section, name);
		refused(j, needed[i]);
		json_decref(j);
	}
}

static void what_is_not_known_is_not_passed_over(void **state)
{
	json_t *j = text_of("1tib");

	(void)state;
	json_object_set_new(json_object_get(j, "guest"), "colour", json_string("blue"));
	refused(j, "guest.colour");
	json_decref(j);
	j = text_of("1tib");
	json_object_set_new(j, "weather", json_object());
	refused(j, "weather");
	json_decref(j);
	j = text_of("1tib");
	json_object_set_new(j, "link", json_integer(3));
	refused(j, "link");
	json_decref(j);
	j = json_array();
	refused(j, "no JSON object");
	json_decref(j);
}

static void damaged_writes_are_named(void **state)
{
	static const struct {
		const char *json, *word;
	} cases[] = {
		{ "[3]", "writes[0]" },
		{ "[{}]", "bytes" },
		{ "[{\"bytes\":\"1GiB\"}]", "per_second" },
		{ "[{\"bytes\":\"x\",\"per_second\":1}]", "bytes" },
		{ "[{\"bytes\":0,\"per_second\":1}]", "bytes" },
		{ "[{\"bytes\":\"1GiB\",\"per_second\":-1}]", "per_second" },
		{ "[{\"bytes\":\"1GiB\",\"per_second\":1,\"order\":\"up\"}]", "order" },
		{ "[{\"bytes\":\"1GiB\",\"per_second\":1,\"orders\":\"up\"}]", "not known" },
		{ "[{\"bytes\":\"1GiB\",\"per_second\":1}, {\"bytes\":\"1GiB\"}]", "writes[1]" },
		{ "[{\"bytes\":\"2048GiB\",\"per_second\":1}]", "guest.writes" },
		{ "{}", "guest.writes" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *j = text_of("1tib");

		json_object_set_new(json_object_get(j, "guest"), "writes",
				    json_loads(cases[i].json, 0, NULL));
		refused(j, cases[i].word);
		json_decref(j);
	}
}

static void the_place_of_a_broken_file_is_told(void **state)
{
	static struct model m;
	struct failure f = { 0 };
	char path[] = "/tmp/test_model.XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "{\n\"guest\": {,\n", 14), 14);
	close(fd);
	assert_true(model_load(&m, path, &f) < 0);
	assert_non_null(strstr(f.message, "line 2"));
	unlink(path);
	memset(&f, 0, sizeof(f));
	assert_true(model_load(&m, path, &f) < 0);
	assert_non_null(strstr(f.message, path));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_shipped_model_gives_a_forecast),
		cmocka_unit_test(the_total_is_at_least_what_the_path_takes),
		cmocka_unit_test(each_damaged_member_is_named),
		cmocka_unit_test(what_is_needed_is_missed),
		cmocka_unit_test(what_is_not_known_is_not_passed_over),
		cmocka_unit_test(damaged_writes_are_named),
		cmocka_unit_test(the_place_of_a_broken_file_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
