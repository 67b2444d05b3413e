/* SPDX-License-Identifier: MIT */
/* How far a session is: one line that fits a terminal, or plain lines in a log. */
#ifndef TRANSHIP_CONTROL_CLI_PROGRESS_H
#define TRANSHIP_CONTROL_CLI_PROGRESS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "control/cli/cli.h"

/*
 * Writes the line for a session object (state, vm, progress) into buf: at most width columns, never
 * a newline. Fields that do not fit are left out, the least telling first.
 */
void cli_progress_line(const json_t *session, unsigned int width, char *buf, size_t size);

struct cli_progress {
	struct cli *cli;
	bool drawn;	    /* a line stands on the terminal */
	char state[32];	    /* last one shown */
	uint64_t shown_ns;  /* when a plain or JSON line was last written */
	size_t checks_seen; /* of the session's checks */
};

/*
 * Shows a new session object as the mode wants it: redrawn in place on a terminal, a JSON line each
 * time with --batch, else a plain line at each new state and every few seconds. Warnings of the
 * checks are told once.
 */
void cli_progress_show(struct cli_progress *p, const json_t *session);
/* A sentence between the progress lines. */
void cli_progress_say(struct cli_progress *p, const char *code, const char *text);
/* Ends the redrawn line. */
void cli_progress_end(struct cli_progress *p);

#endif
