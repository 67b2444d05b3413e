// SPDX-License-Identifier: MIT
/*
 * The man pages say what the programs do: every option of the tables is documented and every
 * documented option exists; likewise error codes, the result's members and exit statuses.
 */
#include "control/cli/cli.h"
#include "control/cli/cli_result.h"
#include "control/config.h"
#include "control/policy/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 256

static char *page; /* the text of a man page */

/* The pages are found from the source tree's root, where the tests are run, or from
 * TRANSHIP_SOURCE. */
static void read_page(const char *name)
{
	const char *root = getenv("TRANSHIP_SOURCE");
	char path[4096];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/docs/%s", root ? root : ".", name);
	f = fopen(path, "r");
	if (!f)
		fail_msg("cannot open %s", path);
	free(page);
	page = calloc(1, 1 << 20);
	n = fread(page, 1, (1 << 20) - 1, f);
	assert_true(n > 1000);
	fclose(f);
}

/* The words that stand after ".It MACRO " between two headings ("" for the page's bounds). */
struct words {
	char word[WORDS_MAX][64];
	int count;
};

static void collect(struct words *w, const char *heading, const char *item)
{
	const char *at = strstr(page, heading), *line;
	size_t n = strlen(item);

	w->count = 0;
	if (!at) {
		fail_msg("no heading '%s'", heading);
		return;
	}
	for (line = strchr(at + 1, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
		const char *text = line + 1;
		size_t len;

		if (!strncmp(text, ".Sh ", 4) || (heading[3] == 's' && !strncmp(text, ".Ss ", 4)))
			break;
		if (strncmp(text, item, n))
			continue;
		len = strcspn(text + n, " \n");
		assert_true(w->count < WORDS_MAX && len < sizeof(w->word[0]));
		memcpy(w->word[w->count], text + n, len);
		w->word[w->count++][len] = '\0';
	}
	if (!w->count)
		fail_msg("nothing under '%s'", heading);
}

static bool has(const struct words *w, const char *word)
{
	for (int i = 0; i < w->count; i++)
		if (!strcmp(w->word[i], word))
			return true;
	return false;
}

static int rows(const struct cli_option *table)
{
	int n = 0;

	while (table && table[n].name)
		n++;
	return n;
}

/* The table's options and the ".It Fl -NAME" of a heading are the same set. */
static void compare(const struct cli_option *table, const char *heading)
{
	struct words w;

	collect(&w, heading, ".It Fl -");
	for (const struct cli_option *o = table; o->name; o++)
		if (!has(&w, o->name))
			fail_msg("--%s is not in '%s'", o->name, heading);
	for (int i = 0; i < w.count; i++)
		if (!cli_option_find(table, w.word[i], strlen(w.word[i])))
			fail_msg("'%s' documents --%s, which does not exist", heading, w.word[i]);
	assert_int_equal(w.count, rows(table));
}

static void test_options_of_the_commands(void **state)
{
	char heading[64];

	(void)state;
	read_page("tranship.1");
	compare(cli_common_options, "\n.Ss Of all commands\n");
	for (const struct cli_command *const *c = cli_commands; *c; c++) {
		snprintf(heading, sizeof(heading), "\n.Ss Of %s\n", (*c)->name);
		if ((*c)->options)
			compare((*c)->options, heading);
		else if (strstr(page, heading))
			fail_msg("%s has no options", (*c)->name);
	}
}

static void test_commands(void **state)
{
	struct words w, lacking;

	(void)state;
	read_page("tranship.1");
	collect(&w, "\n.Ss Commands\n", ".It Cm ");
	collect(&lacking, "\n.Sh LIMITATIONS\n", ".Cm ");
	for (const struct cli_command *const *c = cli_commands; *c; c++)
		if (!has((*c)->unavailable ? &lacking : &w, (*c)->name))
			fail_msg("the command %s is not documented", (*c)->name);
	for (int i = 0; i < w.count; i++) {
		bool found = false;

		for (const struct cli_command *const *c = cli_commands; *c; c++)
			found |= !strcmp((*c)->name, w.word[i]) && !(*c)->unavailable;
		if (!found)
			fail_msg("there is no command %s", w.word[i]);
	}
}

static void test_error_codes(void **state)
{
	struct words w;
	int codes = 0;

	(void)state;
	read_page("tranship.1");
	collect(&w, "\n.Sh ERRORS\n", ".It Li ");
	for (const struct failure_code *c = failure_codes; c->code; c++, codes++)
		if (!has(&w, c->code))
			fail_msg("the error code %s is not documented", c->code);
	for (int i = 0; i < w.count; i++)
		if (!failure_code_known(w.word[i]))
			fail_msg("there is no error code %s", w.word[i]);
	assert_int_equal(w.count, codes);
}

static void test_exit_statuses(void **state)
{
	static const enum cli_exit all[] = { CLI_DONE,	 CLI_USAGE,	 CLI_REFUSED,
					     CLI_FAILED, CLI_UNRESOLVED, CLI_CANCELLED };
	struct words w;
	char number[16];

	(void)state;
	read_page("tranship.1");
	collect(&w, "\n.Sh EXIT STATUS\n", ".It Li ");
	assert_int_equal(w.count, sizeof(all) / sizeof(all[0]));
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		snprintf(number, sizeof(number), "%d", (int)all[i]);
		if (!has(&w, number))
			fail_msg("exit status %s is not documented", number);
	}
}

/* True if the text names the word, bounded by what is no part of a word. */
static bool names(const char *text, const char *word)
{
	static const char inside[] = "abcdefghijklmnopqrstuvwxyz_-";
	size_t n = strlen(word);

	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
		if (at > text && !strchr(inside, at[-1]) && (!at[n] || !strchr(inside, at[n])))
			return true;
	return false;
}

static void want_members(const char *text, const json_t *object)
{
	const char *member;
	json_t *value;

	json_object_foreach ((json_t *)object, member, value) {
		if (!names(text, member))
			fail_msg("the result's member %s is not documented", member);
		if (json_is_object(value))
			want_members(text, value);
	}
}

static void test_members_of_the_result(void **state)
{
	json_t *result = cli_result_new("id", "vm", "started", NULL);
	struct words w;

	(void)state;
	read_page("tranship.1");
	want_members(strstr(page, "\n.Sh OUTPUT\n"), result);
	collect(&w, "\n.Sh OUTPUT\n", ".It Li ");
	for (int i = 0; i < w.count; i++)
		if (!json_object_get(result, w.word[i]) && strcmp(w.word[i], "check"))
			fail_msg("a result has no member %s", w.word[i]);
	json_decref(result);
}

static void test_members_of_a_model(void **state)
{
	char member[64];
	struct words w;
	unsigned int i;

	(void)state;
	read_page("tranship.1");
	collect(&w, "\n.Sh MODELS\n", ".It Li ");
	for (i = 0; model_member(i, member, sizeof(member)); i++)
		if (!has(&w, member))
			fail_msg("the model's member %s is not documented", member);
	/* and guest.writes, which is a list */
	assert_true(has(&w, "guest.writes"));
	assert_int_equal(w.count, i + 1);
}

static void test_settings_of_the_daemon(void **state)
{
	static const char *const others[] = { "config", "version", "help" };
	struct words w;
	const char *name, *files;
	int settings = 0;

	(void)state;
	read_page("transhipd.8");
	collect(&w, "\n.Sh OPTIONS\n", ".It Fl -");
	files = strstr(page, "\n.Sh FILES\n");
	assert_non_null(files);
	while ((name = config_setting_name((unsigned int)settings))) {
		if (!has(&w, name))
			fail_msg("--%s is not documented", name);
		if (!names(files, name))
			fail_msg("the key %s is not documented", name);
		settings++;
	}
	for (int i = 0; i < 3; i++)
		assert_true(has(&w, others[i]));
	assert_int_equal(w.count, settings + 3);
}

/* What the synopsis names exists. */
static void test_synopsis_of_the_daemon(void **state)
{
	const char *at, *end;

	(void)state;
	read_page("transhipd.8");
	at = strstr(page, "\n.Sh SYNOPSIS\n");
	end = strstr(page, "\n.Sh DESCRIPTION\n");
	assert_true(at && end);
	for (unsigned int i = 0; config_setting_name(i); i++) {
		char item[64], *found;

		snprintf(item, sizeof(item), "\n.Op Fl -%s", config_setting_name(i));
		found = strstr(at, item);
		if (!found || found > end)
			fail_msg("--%s is not in the synopsis", config_setting_name(i));
	}
}

static int release(void **state)
{
	(void)state;
	free(page);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_of_the_commands),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_error_codes),
		cmocka_unit_test(test_exit_statuses),
		cmocka_unit_test(test_members_of_the_result),
		cmocka_unit_test(test_members_of_a_model),
		cmocka_unit_test(test_settings_of_the_daemon),
		cmocka_unit_test(test_synopsis_of_the_daemon),
	};

	return cmocka_run_group_tests(tests, NULL, release);
}
