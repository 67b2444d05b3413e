/* SPDX-License-Identifier: MIT */
/*
 * What the source says to its destination's transhipd about one session. No call waits for ever;
 * those that the guest's ownership hangs on are in source_peer_commit.
 */
#ifndef TRANSHIP_CONTROL_SOURCE_PEER_H
#define TRANSHIP_CONTROL_SOURCE_PEER_H

#include "control/session/session_source.h"

/* POST of a verb on the session: "load", "commit", "abort", "finish". */
int source_peer_call(struct source *c, const char *verb, const json_t *in, json_t **out,
		     unsigned int timeout_ms, struct failure *f);

/*
 * Tells the destination that the session is over. 0 if it has heard it, or knows of none. If it had
 * failed there before, and this side knows no more than that it is gone (a stream broke),
 * c->f becomes what it says of its failure.
 */
int source_peer_abort(struct source *c);

/* What the destination says of the session. */
struct source_peer_state {
	enum session_state state;
	bool complete;	/* it needs nothing of a post-copy any more */
	bool deserted;	/* nobody serves its guest's faults: it waits to be connected again */
	bool never_ran; /* it has ended there, and the guest did not run */
};

/* -ENODATA if it has answered and knows none. */
int source_peer_state(struct source *c, struct source_peer_state *out);

/*
 * Asks, once, that the destination run the guest. 0: it does; *ran_ns (may be NULL): for how long
 * already. -EREMOTEIO: it does not and never will, that is durable there; f says why.
 * -EINPROGRESS: it is at it. -EBUSY: it does not know either, and waits for a person.
 * -EHOSTUNREACH: not known, it does not answer or does not know of the session.
 */
int source_peer_commit(struct source *c, unsigned int limit_ms, uint64_t *ran_ns,
		       struct failure *f);
/* The same until it is known, but for no longer than about COMMIT_RETRY_MS without an answer. */
int source_peer_commit_insist(struct source *c, uint64_t *ran_ns, struct failure *f);

#endif
