/* SPDX-License-Identifier: MIT */
/*
 * The figures of a post-copy as transhipd has them: from its data plane, from the other side, or
 * from the file that outlives both.
 */
#ifndef TRANSHIP_CONTROL_POSTCOPY_FIGURES_H
#define TRANSHIP_CONTROL_POSTCOPY_FIGURES_H

#include <jansson.h>

#include "control/session/session.h"

/* All but what is missing; a new reference. */
json_t *postcopy_figures_json(const struct ipc_postcopy *g);

/* The same and "missing_bytes", as a peer is told; and back. What is absent or no number is 0. */
json_t *postcopy_figures_to_peer(const struct ipc_postcopy *g);
void postcopy_figures_from_peer(const json_t *j, struct ipc_postcopy *g);

/*
 * Of the file of IPC_MISSING; regions: of the plan, see destination_postcopy.h. Reads it: who can
 * write it is not trusted. -errno.
 */
int postcopy_figures_of_file(int fd, const json_t *regions, struct ipc_postcopy *g);

/* For all to see. left: what is missing too. Takes the lock. */
void session_note_postcopy(struct session *s, const struct ipc_postcopy *g, bool left);

#endif
