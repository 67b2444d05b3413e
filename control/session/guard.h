/* SPDX-License-Identifier: MIT */
/*
 * The guard: a process that runs a paused guest on if transhipd dies, or hangs, before COMMIT. It
 * holds a copy of the connection to the VMM and the reading end of a pipe; see guard_main.c.
 */
#ifndef TRANSHIP_CONTROL_GUARD_H
#define TRANSHIP_CONTROL_GUARD_H

#include <stdint.h>
#include <sys/types.h>

#include "control/config.h"
#include "control/guest/guest.h"

struct guard {
	pid_t pid; /* 0: none */
	int pipe;  /* its end means: rescue */
};

#define GUARD_NONE ((struct guard){ .pid = 0, .pipe = -1 })

/* journal_path: where it looks for COMMIT before it acts. -errno with f. */
int guard_start(struct guard *guard, struct guest *g, const struct config *c,
		const char *journal_path, struct failure *f);
/*
 * From end_ns on (clock_ns(); 0: none) this process is taken for one that hangs, and killed. Then
 * the guard does what it does when it has died.
 */
void guard_limit(struct guard *guard, uint64_t end_ns);
/* The guest runs, or is not ours any more: the guard ends without doing anything. */
void guard_stop(struct guard *guard);

#endif
