/* SPDX-License-Identifier: MIT */
/* The contract's result object of a migration: complete whatever happened, and as text. */
#ifndef TRANSHIP_CONTROL_CLI_RESULT_H
#define TRANSHIP_CONTROL_CLI_RESULT_H

#include <jansson.h>

#include "control/cli/cli.h"

/*
 * A result with every member of the contract, null where nothing is known. status NULL: as the
 * failure's exit status says. f may be NULL (error: null). New reference.
 */
json_t *cli_result_new(const char *id, const char *vm, const char *status, const struct failure *f);

/* The same from what the daemon gave (may be NULL): its members, and the missing ones as null. */
json_t *cli_result_from(const json_t *given);

/*
 * The same of a session that has ended, from its object. One that this host does not lead has no
 * result of its own: then with its "side", and as "account" what the host knows of its costs.
 */
json_t *cli_result_of(const json_t *session);

/* The exit status of a result: its status, but 1 if the error is one of usage. */
enum cli_exit cli_result_exit(const json_t *result);

/* The account of a migration for a person: on out what was done, on err why it was not. */
void cli_result_print(struct cli *cli, const json_t *result);

/* What the checks said: all of them, or only warnings and errors. */
void cli_checks_print(FILE *to, const json_t *checks, bool all);

#endif
