// SPDX-License-Identifier: MIT
/* The tranship command line: finding the command, help, failures; the commands are in cli_*.c. */
#include "control/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/config.h"
#include "control/failure_class.h"
#include "lib/base/cleanup.h"

#define JSON_LINE (JSON_COMPACT | JSON_REAL_PRECISION(12))

const struct cli_command *const cli_commands[] = {
	&cli_list,    &cli_migrate,    &cli_status,  &cli_tune,	    &cli_switch, &cli_cancel,
	&cli_resolve, &cli_dirty_rate, &cli_predict, &cli_evacuate, &cli_bench,	 &cli_pki,
	NULL,
};

/* clang-format off */
const struct cli_option cli_common_options[] = {
	{ .name = "socket", .arg = "PATH", .kind = CLI_TEXT, .member = "socket",
	  .help = "the local daemon's socket [" CONFIG_DEFAULT_SOCKET "]" },
	{ .name = "json", .kind = CLI_SWITCH, .member = "json",
	  .help = "one JSON object in one line on standard output" },
	{ .name = "help", .kind = CLI_SWITCH, .member = "help", .help = "print help" },
	{ .name = "version", .kind = CLI_SWITCH, .member = "version", .help = "print the version" },
	{ .name = NULL },
};
/* clang-format on */

/* --- output ----------------------------------------------------------------------------------- */

static void print_line(FILE *to, const json_t *j)
{
	char *text = json_dumps(j, JSON_LINE | JSON_ENCODE_ANY);

	/* out of memory: even then a line that is JSON */
	fprintf(to, "%s\n", text ? text : "{\"error\":{\"code\":\"internal\"}}");
	fflush(to);
	free(text);
}

void cli_print_json(struct cli *cli, const json_t *j)
{
	print_line(cli->out, j);
}

void cli_note_json(struct cli *cli, json_t *j)
{
	print_line(cli->err, j);
}

const char *cli_clean(const char *text, char *buf, size_t size)
{
	size_t n = 0;

	for (; *text && n + 1 < size; text++)
		buf[n++] = (unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text;
	/* not in the middle of a UTF-8 sequence */
	while (*text && n && ((unsigned char)*text & 0xc0) == 0x80) {
		text--;
		n--;
	}
	buf[n] = '\0';
	return buf;
}

const char *cli_text(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : "";
}

static json_t *failure_json(const struct failure *f)
{
	return json_pack("{s:s, s:s, s:s}", "code", f->code, "message", f->message, "hint",
			 f->hint);
}

void cli_print_failure(struct cli *cli, const struct failure *f)
{
	char text[sizeof(f->message)];

	fprintf(cli->err, "tranship: %s [%s]\n", cli_clean(f->message, text, sizeof(text)),
		f->code);
	if (*f->hint)
		fprintf(cli->err, "          %s\n", cli_clean(f->hint, text, sizeof(text)));
}

enum cli_exit cli_exit_of(const struct failure *f)
{
	switch (failure_class_of(f->code)) {
	case FAILURE_USAGE:
		return CLI_USAGE;
	case FAILURE_NOT_FOUND:
	case FAILURE_CONFLICT:
	case FAILURE_REFUSED:
		return CLI_REFUSED;
	case FAILURE_CANCELLED:
		return CLI_CANCELLED;
	case FAILURE_UNRESOLVED:
		return CLI_UNRESOLVED;
	case FAILURE_BROKEN:
		break;
	}
	return CLI_FAILED;
}

enum cli_exit cli_fail(struct cli *cli, const struct failure *f)
{
	json_t *j;

	if (cli->json) {
		j = json_pack("{s:o}", "error", failure_json(f));
		cli_print_json(cli, j);
		json_decref(j);
	} else {
		cli_print_failure(cli, f);
	}
	return cli_exit_of(f);
}

/* --- the daemon ------------------------------------------------------------------------------- */

int cli_connect(struct cli *cli, struct failure *f)
{
	return cli->client ? 0 : client_new(&cli->client, cli->socket, f);
}

int cli_call(struct cli *cli, const char *method, const char *path, const json_t *in, json_t **out,
	     unsigned int timeout_ms, struct failure *f)
{
	int err = cli_connect(cli, f);

	return err ? err
		   : client_call(cli->client, method, path, in, out, timeout_ms,
				 "daemon-unreachable", f);
}

json_t *cli_absolute(const char *word)
{
	static const char *const prefixes[] = { "qemu:", "tranship:", "unix:" };
	AUTO_FREE char *text = NULL;
	char cwd[PATH_MAX];

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t n = strlen(prefixes[i]);

		if (strncmp(word, prefixes[i], n) || word[n] == '/' || !word[n])
			continue;
		if (!getcwd(cwd, sizeof(cwd)) ||
		    asprintf(&text, "%s%s/%s", prefixes[i], cwd, word + n) < 0)
			break;
		return json_string(text);
	}
	return json_string(word);
}

static int set_socket(struct cli *cli, const json_t *values, struct failure *f)
{
	const char *path = cli_text(values, "socket");
	char cwd[PATH_MAX] = "";
	int n;

	if (!*path)
		path = CONFIG_DEFAULT_SOCKET;
	if (!strncmp(path, "unix:", 5)) /* as a destination is written */
		path += 5;
	if (*path != '/' && !getcwd(cwd, sizeof(cwd)))
		return failure_set(f, -errno, "usage", NULL,
				   "The directory of %.80s is not known: %m.", path);
	n = snprintf(cli->socket, sizeof(cli->socket), "%s%s%s", cwd, *cwd ? "/" : "", path);
	if ((size_t)n >= sizeof(cli->socket))
		return failure_set(f, -EINVAL, "usage", NULL, "The socket's path is too long.");
	return 0;
}

/* --- help ------------------------------------------------------------------------------------- */

static void print_options(FILE *to, const struct cli_option *table)
{
	for (const struct cli_option *o = table; o && o->name; o++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "",
			 o->arg ? o->arg : "");
		fprintf(to, "  %-30s %s\n", left, o->help);
	}
}

static void print_help(FILE *to)
{
	fputs("usage: tranship [--socket PATH] [--json] COMMAND ...\n\n", to);
	for (const struct cli_command *const *c = cli_commands; *c; c++) {
		char left[64];

		if ((*c)->unavailable)
			continue;
		snprintf(left, sizeof(left), "%s %s", (*c)->name, (*c)->words);
		fprintf(to, "  %-30s %s\n", left, (*c)->help);
	}
	fputs("\nVM    NAME | qemu:/path/to/qmp.sock | tranship:/path/to.sock | pid:N\n"
	      "DEST  unix:/path/to/transhipd.sock\n\n",
	      to);
	print_options(to, cli_common_options);
	fputs("\n`tranship COMMAND --help` shows a command's options; tranship(1) has "
	      "everything.\n",
	      to);
}

static void print_command_help(FILE *to, const struct cli_command *c)
{
	fprintf(to, "usage: tranship %s%s%s%s\n\n%s\n\n", c->name, *c->words ? " " : "", c->words,
		c->options ? " [options]" : "", c->help);
	print_options(to, c->options);
	print_options(to, cli_common_options);
}

/* --- running ---------------------------------------------------------------------------------- */

static const struct cli_command *find_command(const char *name)
{
	for (const struct cli_command *const *c = cli_commands; *c; c++)
		if (!strcmp((*c)->name, name))
			return *c;
	return NULL;
}

/* The index of the command's word: the first that is neither an option nor an option's value. */
static int command_index(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (argv[i][0] != '-')
			return i;
		if (!strcmp(argv[i], "--socket"))
			i++;
	}
	return 0;
}

static bool has_word(int argc, char **argv, const char *word)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], word))
			return true;
	return false;
}

static int check_words(const struct cli_command *c, const struct cli_words *words,
		       struct failure *f)
{
	if (words->count < c->words_min)
		return failure_set(f, -EINVAL, "usage", "See `tranship COMMAND --help`.",
				   "%s needs %s.", c->name, c->words);
	if (words->count > c->words_max)
		return failure_set(f, -EINVAL, "usage", "See `tranship COMMAND --help`.",
				   "%s takes %s, and '%.80s' is too much.", c->name,
				   *c->words ? c->words : "no words", words->word[c->words_max]);
	for (int i = 0; i < words->count; i++) {
		json_t *text = json_string(words->word[i]);

		json_decref(text);
		if (!text || !*words->word[i])
			return failure_set(f, -EINVAL, "usage", NULL,
					   "A word is empty or not UTF-8.");
	}
	return 0;
}

static enum cli_exit run_command(struct cli *cli, const struct cli_command *c, int argc,
				 char **argv)
{
	json_t *values = json_object();
	struct cli_words words = { .count = 0 };
	struct failure f = { 0 };
	enum cli_exit status;
	int err = 0;

	if (!c->unavailable)
		err = cli_options_parse(c->options, cli_common_options, argc, argv, values, &words,
					&f);
	if (!err && !c->unavailable)
		err = check_words(c, &words, &f);
	if (!err)
		err = set_socket(cli, values, &f);
	if (err)
		status = c->refuse ? c->refuse(cli, &words, &f) : cli_fail(cli, &f);
	else
		status = c->run(cli, &words, values);
	json_decref(values);
	return status;
}

/* Where a command is missing: the first option that none has. */
static const char *unknown_option(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];

		if (strncmp(word, "--", 2) ||
		    (word[2] &&
		     !cli_option_find(cli_common_options, word + 2, strcspn(word + 2, "="))))
			return word;
		if (!strcmp(word, "--socket"))
			i++;
	}
	return NULL;
}

static enum cli_exit no_command(struct cli *cli, const char *name, const char *option)
{
	struct failure f = { 0 };

	if (option)
		failure_set(&f, -EINVAL, "usage", "`tranship --help` lists them.",
			    "There is no option '%.80s'.", option);
	else if (name)
		failure_set(&f, -EINVAL, "usage", "`tranship --help` lists the commands.",
			    "There is no command '%.80s'.", name);
	else
		failure_set(&f, -EINVAL, "usage", "`tranship --help` lists the commands.",
			    "A command is missing.");
	return cli_fail(cli, &f);
}

static enum cli_exit dispatch(struct cli *cli, int argc, char **argv)
{
	const struct cli_command *c = NULL;
	int at = command_index(argc, argv);
	enum cli_exit status;
	char **rest;
	int n = 0;

	if (at)
		c = find_command(argv[at]);
	if (has_word(argc, argv, "--version")) {
		fprintf(cli->out, "tranship %s\n", TRANSHIP_VERSION);
		return CLI_DONE;
	}
	if (has_word(argc, argv, "--help") || has_word(argc, argv, "-h")) {
		if (c)
			print_command_help(cli->out, c);
		else
			print_help(cli->out);
		return CLI_DONE;
	}
	if (!c)
		return no_command(cli, at ? argv[at] : NULL,
				  at ? NULL : unknown_option(argc, argv));
	rest = calloc((size_t)argc + 1, sizeof(*rest));
	if (!rest)
		return CLI_FAILED;
	for (int i = 1; i < argc; i++)
		if (i != at)
			rest[n++] = argv[i];
	status = run_command(cli, c, n, rest);
	free(rest);
	return status;
}

enum cli_exit cli_run(struct cli *cli, int argc, char **argv)
{
	enum cli_exit status;

	/* before anything can go wrong, for errors are told in that form too */
	cli->json = cli->batch = has_word(argc, argv, "--json");
	cli->terminal &= !cli->json;
	cli->client = NULL;
	status = dispatch(cli, argc, argv);
	client_free(cli->client);
	cli->client = NULL;
	return status;
}
