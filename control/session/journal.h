/* SPDX-License-Identifier: MIT */
/*
 * The journal of one session on one side: STATE_DIR/sessions/ID.SIDE.journal, one JSON object a
 * line, each with "crc" over the rest, appended and fsynced before the step it announces is taken.
 *
 * Replay keeps the last state of a line that is whole; a torn last line is dropped, a damaged line
 * before the last is an error. Records merge: a later key replaces an earlier one.
 */
#ifndef TRANSHIP_CONTROL_JOURNAL_H
#define TRANSHIP_CONTROL_JOURNAL_H

#include <jansson.h>
#include <limits.h>
#include <stdint.h>

#include "lib/base/failure.h"

enum session_state {
	SESSION_NEW,
	SESSION_NEGOTIATED,
	SESSION_COPYING,
	SESSION_PAUSED,
	SESSION_PREPARED,
	SESSION_COMMITTED,
	SESSION_RUNNING, /* at the destination */
	SESSION_DONE,
	SESSION_CANCELLED,
	SESSION_FAILED, /* the source runs */
	SESSION_UNRESOLVED,
};

const char *session_state_name(enum session_state s);
int session_state_parse(const char *name, enum session_state *s); /* -EINVAL */

struct journal {
	int fd;
	char path[PATH_MAX];
};

/* side: "source" or "destination". Creates the directory; the file must not exist. */
int journal_create(struct journal *j, const char *state_dir, const char *id, const char *side,
		   struct failure *f);
/* Opens an existing one for appending; *content (may be NULL) gets its merged content. */
int journal_open(struct journal *j, const char *path, json_t **content, struct failure *f);
/*
 * Appends {"state": ..., "time": ..., fields...} and fsyncs. fields may be NULL; it is not stolen.
 * When this returns 0 the record survives a crash of the host.
 */
int journal_append(struct journal *j, enum session_state s, const json_t *fields,
		   struct failure *f);
void journal_close(struct journal *j);

/*
 * A moment of clock_ns() as it is written down, so that another process finds it again, and back:
 * 0 if it was not.
 */
json_t *journal_moment_json(uint64_t ns);
uint64_t journal_moment(const json_t *content, const char *member);

/* Reads without opening for append: the merged content, or NULL with f. */
json_t *journal_read(const char *path, struct failure *f);

/* Paths of all journals under state_dir, newest first; caller frees each and the array. */
int journal_list(const char *state_dir, char ***paths, size_t *count);

#endif
