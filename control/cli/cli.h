/* SPDX-License-Identifier: MIT */
/*
 * The tranship command line: a table of commands, each with a table of options.
 *
 * Standard output carries what was asked for, standard error what happens meanwhile. With --json,
 * standard output gets one JSON object in one line, whatever happens, and standard error only JSON
 * objects.
 */
#ifndef TRANSHIP_CONTROL_CLI_H
#define TRANSHIP_CONTROL_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "control/cli/cli_options.h"
#include "control/client.h"
#include "lib/base/failure.h"

/* What the exit status says; the contract of tranship(1), EXIT STATUS. */
enum cli_exit {
	CLI_DONE = 0,
	CLI_USAGE = 1,
	CLI_REFUSED = 2,
	CLI_FAILED = 3,
	CLI_UNRESOLVED = 4,
	CLI_CANCELLED = 130,
};

struct cli {
	FILE *out, *err;
	bool json;
	bool batch;		   /* progress as JSON lines; --json implies it */
	bool terminal;		   /* err is one, and progress may be redrawn */
	char socket[512];	   /* of the local daemon */
	struct client *client;	   /* to it; cli_connect */
	unsigned int reconnect_ms; /* how long a daemon that went away is asked again */
};

#define CLI_RECONNECT_MS 5000

struct cli_command {
	const char *name;
	const char *words; /* "VM DEST", shown in help */
	int words_min, words_max;
	const struct cli_option *options;
	const char *help; /* one line */
	/* Returns the exit status, having printed everything. values: the options' members. */
	enum cli_exit (*run)(struct cli *cli, const struct cli_words *words, json_t *values);
	/* Tells a failure that came before run; NULL: cli_fail. */
	enum cli_exit (*refuse)(struct cli *cli, const struct cli_words *words,
				const struct failure *f);
	bool unavailable; /* in the contract, not in this version: any words are taken */
};

/* The commands in the order of help, NULL-terminated, and the options that all of them take. */
extern const struct cli_command *const cli_commands[];
extern const struct cli_option cli_common_options[];

extern const struct cli_command cli_list, cli_migrate, cli_status, cli_cancel, cli_tune, cli_switch,
	cli_resolve, cli_dirty_rate, cli_predict, cli_evacuate, cli_bench, cli_pki;

/*
 * The whole program but for main. cli has out, err, terminal and reconnect_ms; the rest is set
 * here. Writes to out and err only.
 */
enum cli_exit cli_run(struct cli *cli, int argc, char **argv);

/* Makes the client of the local daemon. */
int cli_connect(struct cli *cli, struct failure *f);
/* A request to it with a limit of timeout_ms; failures as client_call gives them. */
int cli_call(struct cli *cli, const char *method, const char *path, const json_t *in, json_t **out,
	     unsigned int timeout_ms, struct failure *f);

/* 0 if these are the digits of a session's id, or the beginning of one; -EINVAL (usage). */
int cli_check_id(const char *id, struct failure *f);
/* One request (POST VERB) for a session; says done (with the id) when it was taken. */
enum cli_exit cli_ask_session(struct cli *cli, const char *id, const char *verb, const json_t *in,
			      unsigned int timeout_ms, const char *done);

/* The exit status that a failure of this code means. */
enum cli_exit cli_exit_of(const struct failure *f);

/* Tells a failure as the mode wants it, and gives its exit status. */
enum cli_exit cli_fail(struct cli *cli, const struct failure *f);

/* One object, one line, on standard output. */
void cli_print_json(struct cli *cli, const json_t *j);
/* One object, one line, on standard error. */
void cli_note_json(struct cli *cli, json_t *j);
/* A failure as text on standard error. */
void cli_print_failure(struct cli *cli, const struct failure *f);

/* Text of other processes for a terminal: without control characters, cut to size. */
const char *cli_clean(const char *text, char *buf, size_t size);
/*
 * A VM or DEST as a string for a request (new reference): the daemon has another working directory,
 * so that relative socket paths become absolute here.
 */
json_t *cli_absolute(const char *word);
/* The member's text, or "" if it is none. */
const char *cli_text(const json_t *object, const char *member);

#define CLI_CALL_MS 10000u

#endif
