// SPDX-License-Identifier: MIT
/*
 * The source's calls to its destination; see source_peer.h.
 *
 * An error answer to a commit says nothing by itself: it may come from a request that is still
 * being carried out. Only the destination's state decides, asked for afterwards: FAILED and
 * CANCELLED are durable there and end it for good; RUNNING and DONE say that it has run.
 */
#include "control/session/source_peer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "control/session/host_internal.h"
#include "control/session/postcopy_figures.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"

#define ABORT_MS	3000u /* best effort at first; see source_settle.c */
#define STATE_MS	3000u
#define CAUSE_MS	1000u  /* what it says while it cleans up; one that hangs says nothing */
#define COMMIT_CALL_MS	10000u /* one call; then its state is asked for */
#define COMMIT_RETRY_MS 20000u /* how long an unreachable destination is asked again */
#define COMMIT_START_MS 60000u /* how long one that is at it may take in all */
#define RETRY_NS	(100 * 1000000)

int source_peer_call(struct source *c, const char *verb, const json_t *in, json_t **out,
		     unsigned int timeout_ms, struct failure *f)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/peer/sessions/%s/%s", c->s->id, verb);
	return client_call(c->peer, "POST", path, in, out, timeout_ms, "peer-unreachable", f);
}

/* What a side sees of a failure of the other one's. */
static bool is_a_symptom(const struct failure *f)
{
	static const char *const codes[] = { "data-lost", "data-connect", "peer-unreachable",
					     "state-failed", "pause-limit" };

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (!strcmp(f->code, codes[i]))
			return true;
	return false;
}

/* answer: of abort or of the session's state. */
static void take_cause(struct source *c, const json_t *answer)
{
	struct failure told = { 0 };

	if (!is_a_symptom(&c->f) || !client_read_failure(json_object_get(answer, "error"), &told) ||
	    !strcmp(told.code, "data-lost") || !strcmp(told.code, "data-connect"))
		return;
	log_info("%.8s: %s: %s", c->s->id, c->f.code, c->f.message);
	c->f = told;
	/* these would say of this side what was meant of that one */
	if (!strcmp(told.code, "cancelled") || !strcmp(told.code, "unresolved"))
		snprintf(c->f.code, sizeof(c->f.code), "peer-failed");
}

static int get_session(struct source *c, unsigned int limit_ms, json_t **answer)
{
	struct failure ignored = { 0 };
	char path[128];

	snprintf(path, sizeof(path), "/v1/peer/sessions/%s", c->s->id);
	return client_call(c->peer, "GET", path, NULL, answer, limit_ms, "peer-unreachable",
			   &ignored);
}

int source_peer_abort(struct source *c)
{
	json_t *in = json_pack("{s:s, s:s}", "code", c->f.code, "message", c->f.message);
	json_t *answer = NULL;
	struct failure why = { 0 };
	int err;

	client_set_interrupt(c->peer, -1);
	err = source_peer_call(c, "abort", in, &answer, ABORT_MS, &why);
	json_decref(in);
	/* it is told again and again, as long as it takes */
	if (err && !c->owes_abort && strcmp(why.code, "session-not-found"))
		log_warn("%.8s: aborting at the destination: %s", c->s->id, why.message);
	/* its cleaning up may take longer than this waits */
	if (err == -ETIMEDOUT && is_a_symptom(&c->f))
		get_session(c, CAUSE_MS, &answer);
	take_cause(c, answer);
	if (!answer && err && err != -EREMOTEIO && !strcmp(c->f.code, "data-lost"))
		snprintf(c->f.hint, sizeof(c->f.hint),
			 "The destination's transhipd does not answer either: see whether it runs, "
			 "and the network between the hosts.");
	json_decref(answer);
	/* Whatever it answered, it has heard it; and it does not forget. */
	return err == -EREMOTEIO ? 0 : err;
}

/* What its faults have cost the guest is seen there; what is left here too, while we send. */
static void note_figures(struct source *c, const json_t *said)
{
	struct ipc_postcopy g;

	if (!c->post.on || !json_is_object(said))
		return;
	postcopy_figures_from_peer(said, &g);
	session_note_postcopy(c->s, &g, c->post.dp.sock < 0);
}

int source_peer_state(struct source *c, struct source_peer_state *out)
{
	json_t *answer = NULL;
	const char *name;
	int err;

	err = get_session(c, STATE_MS, &answer);
	if (err)
		return err == -EREMOTEIO ? -ENODATA : err;
	name = json_string_value(json_object_get(answer, "state"));
	err = name && !session_state_parse(name, &out->state) ? 0 : -ENODATA;
	out->complete = json_is_true(json_object_get(answer, "postcopy_complete"));
	/* one that does not say so is of an earlier version */
	out->deserted = json_is_false(json_object_get(answer, "postcopy_served"));
	out->never_ran = json_is_true(json_object_get(answer, "never_ran"));
	note_figures(c, json_object_get(answer, "postcopy"));
	json_decref(answer);
	return err;
}

int source_peer_commit(struct source *c, unsigned int limit_ms, uint64_t *ran_ns, struct failure *f)
{
	struct source_peer_state there;
	json_t *answer = NULL;

	client_set_interrupt(c->peer, -1);
	if (!source_peer_call(c, "commit", NULL, &answer, limit_ms, f)) {
		if (ran_ns)
			*ran_ns = (uint64_t)(json_number_value(json_object_get(answer, "run_ms")) *
					     1e6);
		json_decref(answer);
		return 0;
	}
	if (source_peer_state(c, &there))
		return -EHOSTUNREACH;
	switch (there.state) {
	case SESSION_RUNNING:
	case SESSION_DONE:
		return 0;
	case SESSION_FAILED:
	case SESSION_CANCELLED:
		/* in post-copy it may have run, and been given up since, its disks written */
		return c->post.on && !there.never_ran ? -EBUSY : -EREMOTEIO;
	case SESSION_COMMITTED:
		return -EINPROGRESS;
	case SESSION_UNRESOLVED:
		return -EBUSY;
	default:
		return -EHOSTUNREACH;
	}
}

int source_peer_commit_insist(struct source *c, uint64_t *ran_ns, struct failure *f)
{
	const struct timespec nap = { .tv_nsec = RETRY_NS };
	uint64_t start = clock_ns();

	for (;;) {
		double spent;
		int err;

		failure_clear(f);
		err = source_peer_commit(c, COMMIT_CALL_MS, ran_ns, f);
		if (!err || err == -EREMOTEIO || err == -EBUSY)
			return err;
		spent = clock_ms_since(start);
		if (host_ending(c->s->host) || spent > COMMIT_START_MS ||
		    (err != -EINPROGRESS && spent > COMMIT_RETRY_MS))
			return -EHOSTUNREACH;
		nanosleep(&nap, NULL);
	}
}
