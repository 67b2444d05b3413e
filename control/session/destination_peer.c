// SPDX-License-Identifier: MIT
/*
 * What a source, or a person, may ask of an arriving session: the API's threads. They look, hand
 * requests to the session's thread and wait; see session_request.c.
 *
 * Giving up is no request but a flag that stays: it holds also when whoever set it has stopped
 * waiting, so that a session whose source has gone home does not become PREPARED and wait for ever.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/session/host_internal.h"
#include "control/session/postcopy_figures.h"
#include "control/session/session_destination.h"
#include "control/session/vm_process.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define REQUEST_MS 30000u
/*
 * A source that is about to commit does so within milliseconds. A person who says run-here is asked
 * to be sure that it is not.
 */
#define RUN_HERE_AFTER_MS 5000

/* --- an ended session ------------------------------------------------------------------------ */

/* Under lock: a request that nobody attends to any more. */
static int already_over(const struct session *s, enum session_ask what, json_t **out,
			struct failure *f)
{
	if (!s->terminal)
		return failure_set(f, -EBUSY, "peer-failed", "Start it again.",
				   "The destination's transhipd is ending.");
	/* A repeated commit or finish finds its work done. */
	if (s->state == SESSION_DONE && what != ASK_LOAD) {
		if (out)
			*out = json_deep_copy(s->result);
		return 0;
	}
	if (failure_is_set(&s->failure))
		return failure_set(f, -EBUSY, s->failure.code, s->failure.hint, "%s",
				   s->failure.message);
	return failure_set(f, -EBUSY, "session-state", NULL,
			   "The session is %s at the destination.", session_state_name(s->state));
}

static int ask_session(struct session *s, enum session_ask what, json_t **out, struct failure *f)
{
	int err = session_ask(s, what, REQUEST_MS, out, f);

	if (err == -ESHUTDOWN) {
		SCOPED_LOCK(&s->lock);
		err = already_over(s, what, out, f);
	}
	return err;
}

static int ask(struct host *h, const char *id, enum session_ask what, json_t **out,
	       struct failure *f)
{
	struct session *s = host_session_get(h, id, SESSION_DESTINATION, f);
	int err;

	if (!s)
		return -ENOENT;
	err = ask_session(s, what, out, f);
	host_session_put(s);
	return err;
}

/* --- giving up ------------------------------------------------------------------------------- */

/* Under lock: the guest may run here, and needs pages of the source. */
static bool depends(const struct session *s)
{
	return s->postcopy && !s->postcopy_complete &&
	       (s->state == SESSION_COMMITTED || s->state == SESSION_RUNNING);
}

/* Under lock. */
static bool may_give_up(const struct session *s)
{
	return !s->terminal && (s->state < SESSION_COMMITTED || s->recallable || depends(s));
}

/* Under lock. */
static int given_up(const struct session *s, struct failure *f)
{
	if (s->terminal && (s->state == SESSION_FAILED || s->state == SESSION_CANCELLED))
		return 0;
	if (s->state == SESSION_UNRESOLVED)
		return failure_set(f, -EBUSY, "unresolved", s->failure.hint, "%s",
				   s->failure.message);
	if (!may_give_up(s))
		return failure_set(f, -EBUSY, "session-state", NULL,
				   "The destination runs the VM already.");
	if (!s->attended)
		return failure_set(f, -EBUSY, "peer-failed", "Start it again.",
				   "The destination's transhipd is ending.");
	return failure_set(f, -ETIMEDOUT, "session-state", "It goes on by itself.",
			   "The destination is still cleaning up.");
}

static int give_up(struct session *s, struct failure *f)
{
	uint64_t deadline = clock_ns() + REQUEST_MS * NSEC_PER_MSEC;
	int err;

	pthread_mutex_lock(&s->lock);
	if (may_give_up(s)) {
		s->abort_wanted = true;
		session_wake(s);
	}
	/* what it ends as is there before the end */
	while (!s->terminal && s->attended && (may_give_up(s) || s->state > SESSION_RUNNING) &&
	       session_wait_changed(s, deadline))
		;
	err = given_up(s, f);
	pthread_mutex_unlock(&s->lock);
	return err;
}

/*
 * Under lock: what a source that notices the end of a session is told of it: the failure, if it was
 * this side's.
 */
static json_t *account_of_end(struct session *s, enum session_state state)
{
	const struct failure *f = &s->failure;
	json_t *out = json_pack("{s:s}", "state", session_state_name(state));

	if (!failure_is_set(f) || s->peer_gave_up)
		return out;
	s->untold = false;
	json_object_set_new(out, "error",
			    json_pack("{s:s, s:s, s:s}", "code", f->code, "message", f->message,
				      "hint", f->hint));
	return out;
}

/* --- the peer -------------------------------------------------------------------------------- */

int host_peer_load(struct host *h, const char *id, const json_t *in, json_t **out,
		   struct failure *f)
{
	const json_t *running = json_object_get(in, "running");
	struct session *s = host_session_get(h, id, SESSION_DESTINATION, f);
	int err;

	if (!s)
		return -ENOENT;
	if (json_is_boolean(running)) {
		SCOPED_LOCK(&s->lock);
		s->load_ran = json_is_true(running);
	}
	err = ask_session(s, ASK_LOAD, out, f);
	host_session_put(s);
	return err;
}

int host_peer_postcopy(struct host *h, const char *id, const json_t *in, json_t **out,
		       struct failure *f)
{
	const char *secret = json_string_value(json_object_get(in, "secret"));
	struct session *s = host_session_get(h, id, SESSION_DESTINATION, f);
	int err = 0;

	if (!s)
		return -ENOENT;
	if (json_is_true(json_object_get(in, "withdraw"))) {
		err = ask_session(s, ASK_NO_POSTCOPY, NULL, f);
		host_session_put(s);
		return err;
	}
	if (!secret || strlen(secret) != 2 * IPC_SECRET_SIZE ||
	    strspn(secret, "0123456789abcdef") != 2 * IPC_SECRET_SIZE)
		err = failure_set(f, -EINVAL, "usage", NULL, "The request is malformed.");
	if (!err) {
		SCOPED_LOCK(&s->lock);
		for (int i = 0; i < IPC_SECRET_SIZE; i++)
			sscanf(secret + 2 * i, "%2hhx", &s->postcopy_secret[i]);
	}
	if (!err)
		err = ask_session(s, ASK_POSTCOPY, out, f);
	host_session_put(s);
	return err;
}

int host_peer_commit(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return ask(h, id, ASK_COMMIT, out, f);
}

int host_peer_finish(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return ask(h, id, ASK_FINISH, out, f);
}

/*
 * The state of a session that is not listed any more (this daemon was restarted since it ended). It
 * decides who runs the guest: "not found" would leave the source in the dark.
 */
static int state_in_journal(struct host *h, const char *id, enum session_state *state, bool *ran,
			    struct failure *f)
{
	struct failure why = { 0 };
	char path[PATH_MAX];
	const char *name;
	json_t *content;
	int err;

	snprintf(path, sizeof(path), "%.4000s/sessions/%.32s.destination.journal",
		 h->config.state_dir, id);
	if (access(path, F_OK))
		return -ENOENT; /* f says so already */
	failure_clear(f);
	content = journal_read(path, &why);
	name = json_string_value(json_object_get(content, "state"));
	err = name ? session_state_parse(name, state) : -EIO;
	*ran = json_is_true(json_object_get(content, "ran"));
	json_decref(content);
	return err ? failure_set(f, err, "journal", "See the state directory's journals.",
				 "What became of session %.8s cannot be read: %s", id, why.message)
		   : 0;
}

int host_peer_status(struct host *h, const char *id, json_t **out, struct failure *f)
{
	struct session *s = host_session_get(h, id, SESSION_DESTINATION, f);
	enum session_state state;
	json_t *figures = NULL;
	bool complete = false, served = false, ran;
	int err;

	if (s) {
		pthread_mutex_lock(&s->lock);
		state = s->state;
		complete = s->postcopy_complete;
		served = s->postcopy_served;
		if (s->progress.postcopy)
			figures = postcopy_figures_to_peer(&s->progress.faults);
		*out = account_of_end(s, state);
		ran = s->ran;
		pthread_mutex_unlock(&s->lock);
		host_session_put(s);
	} else {
		err = state_in_journal(h, id, &state, &ran, f);
		if (err)
			return err;
		*out = json_pack("{s:s}", "state", session_state_name(state));
	}
	json_object_set_new(*out, "running",
			    json_boolean(state == SESSION_RUNNING || state == SESSION_DONE));
	json_object_set_new(*out, "postcopy_complete",
			    json_boolean(complete || state == SESSION_DONE));
	json_object_set_new(*out, "postcopy_served", json_boolean(served));
	if (figures)
		json_object_set_new(*out, "postcopy", figures);
	json_object_set_new(
		*out, "never_ran",
		json_boolean(!ran && (state == SESSION_FAILED || state == SESSION_CANCELLED)));
	return 0;
}

/* --- a person -------------------------------------------------------------------------------- */

/* What UNRESOLVED left here is thrown away; that is durable before the source hears of it. */
static int discard(struct session *s, struct failure *f)
{
	struct failure why = { 0 };
	struct destination d;
	json_t *content = journal_read(s->journal.path, &why);
	bool postcopy = json_is_object(json_object_get(content, "postcopy"));
	json_t *fields = postcopy ? json_pack("{s:b}", "ran", 1) : NULL;
	int err = 0;

	destination_init(&d, s);
	destination_read_journal(&d, content);
	/* before anything is undone: it may be waiting for a page, and must not go on without it */
	if (postcopy)
		vm_process_kill(d.pid, d.start_time);
	destination_postcopy_undo(&d, content);
	if (d.plan.created)
		launch_undo(&d.plan, d.launched);
	else
		err = vm_process_end(d.pid, d.start_time);
	if (err || vm_process_lives(d.pid, d.start_time))
		err = failure_set(f, -EBUSY, "unresolved", "End it by hand.",
				  "The VM here (process %d) cannot be ended.", d.pid);
	if (!err)
		err = session_enter(s, SESSION_FAILED, fields, f);
	destination_release(&d);
	json_decref(content);
	if (!err) {
		failure_set(&why, -ECANCELED, "cancelled", NULL, "A person gave the VM up%s.",
			    postcopy ? "" : " at the destination");
		{
			SCOPED_LOCK(&s->lock);
			s->ran = postcopy;
		}
		session_finish(s, SESSION_FAILED, fields, NULL, &why);
	}
	json_decref(fields);
	return err;
}

static int resolve_unresolved(struct session *s, bool run_here, struct failure *f)
{
	int err;

	if (run_here)
		return failure_set(f, -EBUSY, "session-state",
				   "Give it up here, and the source runs it.",
				   "The destination does not hold the guest ready any more.");
	pthread_mutex_lock(&s->lock);
	err = s->resolving || s->state != SESSION_UNRESOLVED ? -EBUSY : 0;
	s->resolving |= !err;
	pthread_mutex_unlock(&s->lock);
	if (err)
		return failure_set(f, err, "session-state", NULL, "It is being resolved already.");
	err = discard(s, f);
	SCOPED_LOCK(&s->lock);
	s->resolving = false;
	return err;
}

int session_destination_resolve(struct session *s, bool run_here, struct failure *f)
{
	enum session_state state;
	bool waits, served;
	double since;

	{
		SCOPED_LOCK(&s->lock);
		state = s->state;
		since = clock_ms_since(s->state_ns);
		waits = depends(s);
		served = s->postcopy_served;
	}
	if (state == SESSION_UNRESOLVED)
		return resolve_unresolved(s, run_here, f);
	if (!run_here && waits && served)
		return failure_set(f, -EBUSY, "session-state", "Let it come to its end.",
				   "The guest runs here, and the source serves its pages.");
	if (!run_here && (waits || state < SESSION_COMMITTED))
		return give_up(s, f);
	if (state != SESSION_COMMITTED && state != SESSION_PREPARED)
		return failure_set(f, -EBUSY, "session-state", NULL,
				   "Session %.8s is %s: there is nothing to resolve.", s->id,
				   session_state_name(state));
	if (run_here && state == SESSION_PREPARED && since < RUN_HERE_AFTER_MS)
		return failure_set(
			f, -EBUSY, "session-state",
			"Wait some seconds, and see what the source says.",
			"Session %.8s has only just been loaded: the source may yet decide.",
			s->id);
	return ask_session(s, run_here ? ASK_RUN_HERE : ASK_GIVE_UP, NULL, f);
}

/* --- the source gives up ---------------------------------------------------------------------- */

static bool is_unresolved_postcopy(struct session *s)
{
	SCOPED_LOCK(&s->lock);
	return s->state == SESSION_UNRESOLVED && s->postcopy;
}

int host_peer_abort(struct host *h, const char *id, const json_t *in, json_t **out,
		    struct failure *f)
{
	const char *why = json_string_value(json_object_get(in, "message"));
	struct session *s = host_session_get(h, id, SESSION_DESTINATION, f);
	int err;

	if (!s)
		return -ENOENT;
	log_info("%.8s: the source gives up: %s", id, why ? why : "no reason given");
	{
		SCOPED_LOCK(&s->lock);
		s->peer_gave_up |= !s->abort_wanted && !failure_is_set(&s->failure);
	}
	/* of a post-copy nothing here is of use without the source */
	err = is_unresolved_postcopy(s) ? resolve_unresolved(s, false, f) : give_up(s, f);
	if (!err) {
		SCOPED_LOCK(&s->lock);
		*out = account_of_end(s, s->state);
	}
	host_session_put(s);
	return err;
}
