/* SPDX-License-Identifier: MIT */
/* What session.c shares with the other files that implement host.h. */
#ifndef TRANSHIP_CONTROL_HOST_INTERNAL_H
#define TRANSHIP_CONTROL_HOST_INTERNAL_H

#include "control/host.h"
#include "control/session.h"

struct host {
	struct config config;
	pthread_mutex_t lock;	  /* taken before any session's */
	struct session *sessions; /* newest first */
	bool ending;
};

/*
 * Finds a session by its id or an unambiguous beginning of at least 6 digits; side -1 for either.
 * It is not forgotten until host_session_put.
 */
struct session *host_session_get(struct host *h, const char *id, int side, struct failure *f);
void host_session_put(struct session *s);
/* Makes, lists and starts a session and gets it. NULL with f. */
struct session *host_session_open(struct host *h, enum session_side side, const char *id,
				  json_t *request, struct failure *f);
/* Makes wake_fd readable. */
void session_wake(struct session *s);
/* Under s->lock: waits for a change until deadline_ns; false when it passed. */
bool session_wait_changed(struct session *s, uint64_t deadline_ns);
/* True when transhipd is about to end. */
bool host_ending(const struct host *h);

#endif
