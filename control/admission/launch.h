/* SPDX-License-Identifier: MIT */
/*
 * Launching a VM at the destination from the source's command line.
 *
 * The peer is not believed: only binaries of the configuration are run, only options of the
 * allow-list are taken, and every path that the VM would create is new.
 */
#ifndef TRANSHIP_CONTROL_LAUNCH_H
#define TRANSHIP_CONTROL_LAUNCH_H

#include <sys/types.h>

#include "control/config.h"
#include "control/guest/guest.h"

struct launch_plan {
	char **argv; /* owned, NULL-terminated */
	char qmp_path[PATH_MAX];
	char **created;		 /* owned, NULL-terminated: files to remove if the session fails;
				  * the QMP socket is always among them */
	char log_path[PATH_MAX]; /* where QEMU's output goes: STATE_DIR/log/ID.log */
	unsigned int start_ms;	 /* how long it may take until QMP answers */
};

/*
 * Builds the destination's command line from the source's description: drops -incoming, -S,
 * -daemonize, -pidfile; pins the versioned machine type; gives every memory-backend-file a new path
 * (ram_dir, or its old directory) with the session's id (hexadecimal); adds -incoming defer -S.
 * Refuses, with launch-refused and the offending word: options not on the allow-list, inherited
 * descriptors (fd=, fdset, /dev/fd), commands (-netdev tap script=..., bridge helpers), a directory
 * as mem-path, paths that would be made and exist already (a QMP socket), disks and RAM that are on
 * only one of command line and description. Changes nothing; looks at the file system.
 */
int launch_plan(struct launch_plan *p, const struct guest_description *source,
		const struct config *c, const char *session_id, struct failure *f);
void launch_plan_release(struct launch_plan *p);

/* The configured binary that a command line's first word stands for, or NULL. */
const char *launch_binary(const struct config *c, const char *word);

/*
 * Starts it (own session, standard streams to the log, no inherited descriptors, a minimal
 * environment) and waits until QMP answers. It survives transhipd; a thread of this process reaps
 * it. -ETIMEDOUT or -ECHILD with launch-failed and the last line of its log; after a failure
 * nothing of it remains and *pid is 0. The caller must not wait for *pid.
 */
int launch_start(const struct launch_plan *p, pid_t *pid, struct failure *f);

/* The last lines that say something of what QEMU wrote, at most 4, in one; "" if there are none. */
void launch_log_tail(const struct launch_plan *p, unsigned int lines, char *text, size_t len);

/*
 * Kills what was started, waits for it, removes every created file and the log. Only a process
 * with exactly the plan's command line is killed, so that a pid from a journal is safe to give; if
 * the plan has no argv (made from a journal) the caller vouches for pid. Safe to call twice.
 *
 * pid <= 0: with argv, nothing was started and nothing is done. Without, it is looked for by the
 * files it names, since transhipd may have died before it wrote the pid down; if there is none, of
 * the created files those go that nobody uses (sockets that refuse connections, files that no
 * process has open).
 */
void launch_undo(const struct launch_plan *p, pid_t pid);

#endif
