// SPDX-License-Identifier: MIT
/*
 * docs/very-large-vms.md: every command shown is run, and prints what the document says it does.
 * Run from the tree's root, as the commands are.
 */
#include "tests/unit/control/cli/cli_harness.h"

#include <unistd.h>

static char *text; /* of the document */

static int read_document(void **state)
{
	const char *root = getenv("TRANSHIP_SOURCE");
	FILE *f;
	size_t n;

	(void)state;
	if (root && chdir(root))
		return -1;
	f = fopen("docs/very-large-vms.md", "r");
	text = calloc(1, 1 << 20);
	if (!f || !text)
		return -1;
	n = fread(text, 1, (1 << 20) - 1, f);
	fclose(f);
	return n > 1000 ? 0 : -1;
}

static int forget_document(void **state)
{
	(void)state;
	free(text);
	return 0;
}

/* line: the words after "tranship", which are cut apart. */
static int run_line(char *line)
{
	const char *words[32];
	char *save, *word;
	int n = 0;

	for (word = strtok_r(line, " ", &save); word && n < 31; word = strtok_r(NULL, " ", &save))
		words[n++] = word;
	words[n] = NULL;
	return run_words(words);
}

static void test_commands_print_what_is_shown(void **state)
{
	static const char begin[] = "\n```\n$ tranship ";
	unsigned int commands = 0;
	char line[256];

	(void)state;
	for (const char *at = text; (at = strstr(at, begin)); commands++) {
		const char *end, *block;
		size_t n;

		at += sizeof(begin) - 1;
		n = strcspn(at, "\n");
		assert_true(n < sizeof(line));
		memcpy(line, at, n);
		line[n] = '\0';
		print_message("%s\n", line);
		block = at + n + 1;
		end = strstr(block, "```\n");
		assert_non_null(end);
		assert_int_equal(run_line(line), CLI_DONE);
		if (strlen(out_text) != (size_t)(end - block) ||
		    memcmp(out_text, block, strlen(out_text)))
			fail_msg("the document shows\n%.*s\nand it is\n%s", (int)(end - block),
				 block, out_text);
	}
	assert_in_range(commands, 7, 100);
	/* and none stands elsewhere, unrun */
	commands = 0;
	for (const char *at = text; (at = strstr(at, "\n$ ")); at++)
		commands++;
	for (const char *at = text; (at = strstr(at, begin)); at++)
		commands--;
	assert_int_equal(commands, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { CASE(test_commands_print_what_is_shown) };

	return cmocka_run_group_tests(tests, read_document, forget_document);
}
