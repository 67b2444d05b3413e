/* SPDX-License-Identifier: MIT */
/* Following a session to its end, whatever happens to the daemon meanwhile. */
#ifndef TRANSHIP_CONTROL_CLI_WATCH_H
#define TRANSHIP_CONTROL_CLI_WATCH_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/cli/cli.h"
#include "control/session/journal.h"

struct cli_watch {
	struct cli *cli;
	const char *id;
	const char *vm;		  /* as the user named it */
	char state_dir[PATH_MAX]; /* of the daemon, "" if not known */
	bool cancels;		  /* an interrupt cancels the session */
};

/*
 * Reads the daemon's version answer: state_dir. Fails with daemon-unreachable; with cancelled at an
 * interrupt, if they are counted.
 */
int cli_watch_init(struct cli_watch *w, struct cli *cli, struct failure *f);

/*
 * Shows progress until the session is terminal; returns the contract's result (new reference),
 * always. When the daemon goes away and does not come back, cli_lost_result says what is known.
 */
json_t *cli_watch_run(struct cli_watch *w);

/* SIGINT and SIGTERM are counted from here on instead of ending the process. */
void cli_interrupts_begin(void);
unsigned int cli_interrupts(void);

/* --- cli_lost.c ------------------------------------------------------------------------------- */

/*
 * What is known of a session whose daemon is gone, from its journal and the VM itself. seen: the
 * last session object, or NULL. forgotten: a daemon answers, and does not know the session. New
 * reference.
 */
json_t *cli_lost_result(const struct cli_watch *w, const json_t *seen, bool forgotten);

enum cli_lost { LOST_AT_SOURCE, LOST_COMPLETED, LOST_CANCELLED, LOST_UNRESOLVED };

/*
 * The rule, apart from where the facts come from. journaled: the last durable state at the source.
 * was_running: the guest ran before the session. runs: it runs now (asked only if the guest may
 * have been stopped).
 */
enum cli_lost cli_lost_rule(enum session_state journaled, bool was_running, bool runs);

/* --- cli_survey.c ----------------------------------------------------------------------------- */

/*
 * True if the VM of that process runs, asked of its VMM directly. Waits up to limit_ms for it to be
 * so: the guard needs a moment to run a paused guest on.
 */
bool cli_guest_runs(pid_t pid, uint64_t start_time, unsigned int limit_ms);

#endif
