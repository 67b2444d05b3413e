/* SPDX-License-Identifier: MIT */
/*
 * Slowing down the threads of virtual processors, and nothing else, by cgroup processor bandwidth.
 *
 * Each thread may use a share of the time that it could have had, so the processors stay even with
 * each other; see throttle.c for how that respects the groups that a manager made. Nothing is left
 * when it ends; what a crash leaves is undone by throttle_undo() from what the journal kept.
 *
 * One struct throttle is used by one thread at a time. Calls make a few small writes to cgroup
 * files a thread; moving threads (begin, end) waits for the kernel, some milliseconds in all.
 */
#ifndef TRANSHIP_CONTROL_THROTTLE_H
#define TRANSHIP_CONTROL_THROTTLE_H

#include <jansson.h>
#include <stddef.h>
#include <sys/types.h>

#include "lib/base/failure.h"

struct throttle;

#define THROTTLE_SHARE_MIN 1
#define THROTTLE_SHARE_MAX 100

/*
 * Finds out how these threads of process pid can be throttled, and changes nothing. owner: a word
 * that is this session's alone (its id); groups are named after it. -EOPNOTSUPP with f
 * (throttle-unavailable) where no cgroup can be used: then f says why, and the guest goes on at
 * full speed. -ESRCH (vm-gone) if none of the threads lives.
 */
int throttle_new(struct throttle **out, pid_t pid, const pid_t *threads, size_t count,
		 const char *owner, struct failure *f);

/* For the journal, before throttle_begin(): enough for throttle_undo(). A new reference. */
json_t *throttle_residue(const struct throttle *t);

/*
 * Makes the groups and moves the threads into them, at full speed. A thread that has ended is
 * passed over. On failure (throttle-unavailable) everything is as it was.
 */
int throttle_begin(struct throttle *t, struct failure *f);

/*
 * From now on each thread runs for share percent (1 .. 100) of what it could; 100 lifts the quotas
 * but leaves the groups. Takes effect within a period of 10 ms (longer below 10 percent). Quotas
 * that a manager changed meanwhile are read anew. A group that has vanished with its threads is
 * passed over. -EOPNOTSUPP if the kernel refuses; -EINVAL for no such share.
 */
int throttle_set(struct throttle *t, unsigned int share, struct failure *f);

/* Every thread goes back to the group that it came from, and the groups are removed. Idempotent. */
void throttle_end(struct throttle *t);

/* Ends and frees it. NULL is allowed. */
void throttle_free(struct throttle *t);

/* Undoes what a dead transhipd left; residue as journaled, NULL is allowed. Logs, never fails. */
void throttle_undo(const json_t *residue);

#endif
