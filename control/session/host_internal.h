/* SPDX-License-Identifier: MIT */
/* What session.c shares with the other files that implement host.h. */
#ifndef TRANSHIP_CONTROL_HOST_INTERNAL_H
#define TRANSHIP_CONTROL_HOST_INTERNAL_H

#include "control/session/host.h"
#include "control/session/session.h"

struct host {
	struct config config;
	pthread_mutex_t lock;	  /* taken before any session's */
	struct session *sessions; /* newest first */
	bool ending;		  /* atomic */
};

/*
 * Finds a session by its id or an unambiguous beginning of at least 6 digits; side -1 for either
 * (of two with one id, a VM that moves within the host, the source's). It is not forgotten until
 * host_session_put.
 */
struct session *host_session_get(struct host *h, const char *id, int side, struct failure *f);
void host_session_put(struct session *s);
/* Makes, lists and starts a session and gets it. NULL with f. */
struct session *host_session_open(struct host *h, enum session_side side, const char *id,
				  json_t *request, struct failure *f);
/* Makes a session that is listed nowhere yet; request is borrowed. NULL: out of memory. */
struct session *session_new(struct host *h, enum session_side side, const char *id,
			    json_t *request);
/*
 * Lists the session and starts its thread, or, for an observation, leaves the work to the calling
 * thread (which then holds a reference). On failure it is freed.
 */
int session_start(struct session *s, struct failure *f);
/*
 * Both, for a request of this host's, with a new id. out may be NULL: one with a thread of its own
 * may have ended and been forgotten before this returns. -errno with f.
 */
int session_begin(struct host *h, enum session_side side, const json_t *request,
		  char id[SESSION_ID_TEXT], struct session **out, struct failure *f);
/* vm_claim.c: vm-busy if a session works on the VM of these words; 0 also if they do not tell. */
int host_vm_is_free(struct host *h, const char *vm, struct failure *f);
/* Says so in a list of VMs as guest_list() gives it. */
void host_mark_claimed(struct host *h, json_t *vms);
/*
 * vm_moved.c: of a VM that stands still (vm-not-running) since it was moved away and kept, its
 * checks, or a list as guest_list() gives it, say so.
 */
void host_explain_moved(struct host *h, const struct guest *g, json_t *checks);
void host_mark_moved(struct host *h, json_t *vms);
/* session_journals.c: takes up what an earlier transhipd left; forgets old journals. */
int host_recover(struct host *h, struct failure *f);
/* True when transhipd is about to end. */
bool host_ending(const struct host *h);

#endif
