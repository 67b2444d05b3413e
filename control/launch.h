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
#include "control/guest.h"

struct launch_plan {
	char **argv;		/* owned, NULL-terminated */
	char qmp_path[PATH_MAX];
	char **created;		/* owned, NULL-terminated: files to remove if the session fails */
	char log_path[PATH_MAX]; /* where QEMU's standard error goes */
};

/*
 * Builds the destination's command line from the source's description: drops -incoming, -S,
 * -daemonize, -pidfile; pins the versioned machine type; gives every memory-backend-file a new path
 * (ram_dir, or its old directory) with the session's id; adds -incoming defer -S. Refuses, with
 * launch-refused and the offending word: options not on the allow-list, inherited descriptors
 * (fd=, fdset, /dev/fd, /proc/self/fd), commands (exec:, -netdev tap script=..., bridge helpers),
 * a directory as mem-path, a QMP socket path that exists already. Pure but for the existence checks.
 */
int launch_plan(struct launch_plan *p, const struct guest_description *source,
		const struct config *c, const char *session_id, struct failure *f);
void launch_plan_release(struct launch_plan *p);

/*
 * Starts it (own process group, standard streams to the log, no inherited descriptors) and waits
 * until its QMP socket answers. -ETIMEDOUT or launch-failed with the last line of its log.
 */
int launch_start(const struct launch_plan *p, pid_t *pid, struct failure *f);

/* Kills what was started, waits for it, removes every created file. */
void launch_undo(const struct launch_plan *p, pid_t pid);

#endif
