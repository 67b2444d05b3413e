// SPDX-License-Identifier: MIT
/* docs/protocol.md against the code: routes, codes, states, offsets, numbers. Run from the root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/bench/bench_options.h"
#include "control/failure_class.h"
#include "control/session/journal.h"
#include "control/session/options.h"
#include "dataplane/transport/wire.h"
#include "lib/base/failure.h"
#include "lib/tranship_proto.h"

static char *doc;

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = calloc(1, 1 << 20);

	if (!file || !text)
		return NULL;
	text[fread(text, 1, (1 << 20) - 1, file)] = '\0';
	fclose(file);
	return text;
}

/* The text must be in the part of the document that begins with `from`. */
static void must_say(const char *from, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void must_say(const char *from, const char *fmt, ...)
{
	const char *part = strstr(doc, from), *end;
	char text[200], *section;
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (!part)
		fail_msg("docs/protocol.md has no \"%s\"", from);
	/* to the next heading, but for one of the part's own */
	end = strstr(part + strlen(from), "\n# ");
	section = strndup(part, end ? (size_t)(end - part) : strlen(part));
	if (!strstr(section, text))
		fail_msg("docs/protocol.md does not say \"%s\" under \"%s\"", text, from);
	free(section);
}

static void test_routes(void **state)
{
	char *source = read_file("control/api_routes.c"), *at;
	unsigned int routes = 0;
	char method[8], path[80];

	(void)state;
	assert_non_null(source);
	for (at = source; (at = strstr(at, "\t{ \"")); at++) {
		char *star;

		if (sscanf(at, "\t{ \"%7[A-Z]\", \"%79[^\"]\"", method, path) != 2)
			continue;
		star = strchr(path, '*');
		if (star) {
			memmove(star + 2, star + 1, strlen(star));
			memcpy(star, "ID", 2);
		}
		if (!strcmp(path, "/v1/sessions/ID"))
			strcat(path, "?since=N&wait=MS");
		must_say("## Routes", "| %s | `%s` |", method, path);
		routes++;
	}
	assert_in_range(routes, 14, 100);
	free(source);
}

/* A table under `from`, of at least two columns, whose first has names: both ways. */
static void must_list(const char *from, const struct option_rule *rules)
{
	static const char *const types[] = { "bool", "number", "string" };
	const char *row = strstr(doc, from), *end = row ? strstr(row, "\n## ") : NULL;
	unsigned int rows = 0, expected = 0;

	assert_non_null(end);
	while (expected < 100 && rules[expected].name)
		expected++;
	while ((row = strstr(row, "\n| `")) && row < end) {
		const char *stop = strchr(row + 1, '\n'), *type = strstr(row, " | ");
		char names[200];

		assert_true(type && type < stop);
		snprintf(names, sizeof(names), "%.*s", (int)(type - row - 3), row + 3);
		for (char *name = strtok(names, "`, "); name; name = strtok(NULL, "`, "), rows++) {
			const struct option_rule *r = option_find(rules, name);

			if (!r)
				fail_msg("\"%s\": the code knows no %s", from, name);
			if (strncmp(type + 3, types[r->type], strlen(types[r->type])))
				fail_msg("\"%s\": %s is a %s", from, name, types[r->type]);
		}
		row = stop;
	}
	if (rows != expected)
		fail_msg("\"%s\" lists %u members of %u", from, rows, expected);
}

static void test_options(void **state)
{
	(void)state;
	must_list("## Starting a migration", migration_options);
	must_list("## A bench", bench_option_rules);
}

static void test_codes(void **state)
{
	(void)state;
	for (const struct failure_code *c = failure_codes; c->code; c++)
		if (failure_class_of(c->code) != FAILURE_BROKEN)
			must_say("## Errors", "`%s`", c->code);
}

static void test_states(void **state)
{
	(void)state;
	for (int s = SESSION_NEW; s <= SESSION_UNRESOLVED; s++)
		must_say("### States", "`%s`", session_state_name((enum session_state)s));
}

static void must_have_field(const char *from, size_t offset, const char *type, const char *field)
{
	must_say(from, "| %zu | %s | %s |", offset, type, field);
}

static void test_frame(void **state)
{
	static const struct {
		struct wire_frame f;
		const char *type, *field;
	} fields[] = {
		{ { .type = 1 }, "u8", "type" },      { { .of = 1 }, "u8", "of" },
		{ { .region = 1 }, "u16", "region" }, { { .length = 1 }, "u32", "length" },
		{ { .number = 1 }, "u32", "number" }, { { .count = 1 }, "u32", "count" },
		{ { .offset = 1 }, "u64", "offset" }, { { .extent = 1 }, "u64", "extent" },
	};
	static const char *const names[] = { "PAGES",	  "HOLES",	 "ROUND_END",  "STATE",
					     "STATE_END", "VERIFY",	 "VERIFY_END", "ACK",
					     "BYE",	  "HELD",	 "HASHES",     "HASHED",
					     "MISSING",	  "MISSING_END", "REQUEST" };
	static const char *const encodings[] = { "RAW", "ZERO", "HOLE", "ZSTD", "DELTA" };

	(void)state;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		uint8_t bytes[WIRE_FRAME_SIZE];
		size_t at = 0;

		wire_put_frame(bytes, &fields[i].f);
		while (!bytes[at])
			at++;
		must_have_field("## Frames", at, fields[i].type, fields[i].field);
	}
	for (unsigned int i = 0; i < WIRE_TYPES - WIRE_PAGES; i++)
		must_say("## Frames", "| %u | %s |", WIRE_PAGES + i, names[i]);
	for (unsigned int i = 0; i < 5; i++)
		must_say("### PAGES", "| %u | %s |", WIRE_ENC_RAW + i, encodings[i]);
	must_say("## Frames", "at most %u)", WIRE_STATE_MAX);
}

static void test_run_and_hello(void **state)
{
	struct wire_hello h = { .version = 1, .stream = 2, .streams = 3 };
	uint8_t run[WIRE_RUN_SIZE], hello[WIRE_HELLO_SIZE];

	(void)state;
	wire_put_run(run, &(struct wire_run){ .page = 1, .pages = 2, .encoding = 3, .length = 4 });
	for (size_t at = 0; at < sizeof(run); at++) {
		static const char *const types[] = { "", "u16", "u16", "u8", "u32" };
		static const char *const names[] = { "", "page", "pages", "encoding", "length" };

		if (run[at])
			must_have_field("### PAGES", at, types[run[at]], names[run[at]]);
	}
	wire_put_hello(hello, &h);
	for (size_t at = 4; at < sizeof(hello); at++) {
		static const char *const types[] = { "", "u32", "u16", "u16" };
		static const char *const names[] = { "", "version", "stream", "streams" };

		if (hello[at])
			must_have_field("## Handshake", at, types[hello[at]], names[hello[at]]);
	}
	must_say("## Handshake", "0x%08x", WIRE_MAGIC);
}

#define FIELD(s, from, type, member) must_have_field(from, offsetof(s, member), type, #member)

static void test_libtranship(void **state)
{
	static const char *const names[] = { "HELLO",  "DESCRIBE", "REGION", "ARM",
					     "DISARM", "STOP",	   "SAVE",   "RESUME",
					     "QUIT",   "INCOMING", "LOAD",   "START" };

	(void)state;
	FIELD(struct tranship_head, "Head, 24", "u32", magic);
	FIELD(struct tranship_head, "Head, 24", "u16", version);
	FIELD(struct tranship_head, "Head, 24", "u16", type);
	FIELD(struct tranship_head, "Head, 24", "u32", serial);
	FIELD(struct tranship_head, "Head, 24", "i32", status);
	FIELD(struct tranship_head, "Head, 24", "u32", size);
	FIELD(struct tranship_description, "Description, 624", "u32", version);
	FIELD(struct tranship_description, "Description, 624", "u32", state);
	FIELD(struct tranship_description, "Description, 624", "u32", flags);
	FIELD(struct tranship_description, "Description, 624", "u32", regions);
	FIELD(struct tranship_description, "Description, 624", "u32", cpus);
	FIELD(struct tranship_description, "Description, 624", "u64", ram_bytes);
	FIELD(struct tranship_description, "Description, 624", "128 bytes", name);
	FIELD(struct tranship_description, "Description, 624", "64 bytes", vmm);
	FIELD(struct tranship_description, "Description, 624", "64 bytes", vmm_version);
	FIELD(struct tranship_description, "Description, 624", "64 bytes", machine);
	FIELD(struct tranship_description, "Description, 624", "256 bytes", cpu_model);
	FIELD(struct tranship_description, "Description, 624", "16 bytes", accel);
	FIELD(struct tranship_region_info, "Region, 160", "128 bytes", id);
	FIELD(struct tranship_region_info, "Region, 160", "u64", size);
	FIELD(struct tranship_region_info, "Region, 160", "u64", file_offset);
	FIELD(struct tranship_region_info, "Region, 160", "u64", address);
	FIELD(struct tranship_region_info, "Region, 160", "u32", page_size);
	for (unsigned int i = TRANSHIP_HELLO; i < TRANSHIP_TYPES; i++)
		must_say("# libtranship", "| %u | %s |", i, names[i - 1]);
	must_say("# libtranship", "0x%08x", TRANSHIP_PROTO_MAGIC);
}

static int load_doc(void **state)
{
	(void)state;
	doc = read_file("docs/protocol.md");
	return doc ? 0 : -1;
}

static int free_doc(void **state)
{
	(void)state;
	free(doc);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),	    cmocka_unit_test(test_options),
		cmocka_unit_test(test_codes),	    cmocka_unit_test(test_states),
		cmocka_unit_test(test_frame),	    cmocka_unit_test(test_run_and_hello),
		cmocka_unit_test(test_libtranship),
	};

	return cmocka_run_group_tests(tests, load_doc, free_doc);
}
