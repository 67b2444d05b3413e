// SPDX-License-Identifier: MIT
/*
 * A migration seen from the source: its stages in order, and how each is undone.
 *
 * Theory of operation
 *   stages[] is the life of a session. A stage that fails, or a cancel between two stages or in a
 *   wait, ends the list, and roll_back() undoes whatever the flags in struct source say was done:
 *   first the guest runs on (it is what hurts), then everything else.
 *
 *   The commit. Until COMMITTED is durably in our journal the source owns the guest. From then on
 *   only the destination may run it, with one exception: the destination's own state, asked for
 *   after an error, is FAILED or CANCELLED, which is durable there and says that it never will. An
 *   error answer alone says nothing (it may have been slow). If it cannot be reached, or does not
 *   know the session, nothing runs by itself: UNRESOLVED, and source_settle.c goes on asking until
 *   it answers or a person decides.
 *
 *   PAUSED is journaled before the pause, not in it. PREPARED is durable at the destination only:
 *   for the source it changes nothing, as PAUSED and PREPARED both end in the guest running here.
 *
 *   The VM is closed before the session is finished: who sees its end may use the VM at once.
 */
#include "control/session/session_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "control/failure_class.h"
#include "control/session/source_account.h"
#include "control/session/source_pause.h"
#include "control/session/source_peer.h"
#include "control/session/source_settle.h"
#include "control/session/source_throttle.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"

#define LOAD_MS 20000u /* the guest stands still; loading takes milliseconds */
/* In post-copy its loader may wait for a page that nobody serves any more. */
#define LOAD_POSTCOPY_MS 8000u

/* --- stages ---------------------------------------------------------------------------------- */

/* What a restarted transhipd needs to know; see session_source_recover(). */
static json_t *journal_identity(struct source *c)
{
	return json_pack("{s:O, s:i, s:I, s:b, s:b, s:O}", "request", c->s->request, "pid",
			 (int)c->pid, "start_time", (json_int_t)c->start_time, "was_running",
			 c->was_running, "track_dma", c->track_dma, "ram_files", c->ram_files);
}

/* From here on the guest runs on if this process dies. */
static int guard(struct source *c)
{
	if (c->guard.pid)
		return 0;
	return guard_start(&c->guard, c->g, session_config(c->s), c->s->journal.path, &c->f);
}

static int start_copying(struct source *c)
{
	json_t *fields;
	int err = source_is_late(c) ? source_waited(c, -ETIMEDOUT, "the VM was being checked") : 0;

	if (err)
		return err;
	fields = journal_identity(c);
	err = session_enter(c->s, SESSION_NEGOTIATED, fields, &c->f);
	json_decref(fields);
	/* Barriers stop the guest for a moment, long before the pause. */
	if (!err && c->track_dma)
		err = guard(c);
	if (!err)
		err = source_start_dataplane(c);
	if (!err)
		err = session_enter(c->s, SESSION_COPYING, NULL, &c->f);
	if (!err)
		c->copying_ns = clock_ns();
	return err;
}

static int copy(struct source *c)
{
	if (c->armed)
		source_throttle_init(c);
	/* A guest that does not run dirties nothing: everything goes in the pause. */
	return c->armed ? source_copy_rounds(c) : 0;
}

/* Its user may have stopped it while it was copied: then it stays so, wherever it ends. */
static int note_whether_it_ran(struct source *c)
{
	json_t *fields;
	int err;

	c->ran = c->g->was_running;
	if (c->ran == c->was_running)
		return 0;
	session_event(c->s, "the guest was %s meanwhile", c->ran ? "run" : "stopped");
	fields = json_pack("{s:b}", "was_running", c->ran);
	err = session_enter(c->s, SESSION_PAUSED, fields, &c->f);
	json_decref(fields);
	return err;
}

static bool is_switching(struct source *c)
{
	SCOPED_LOCK(&c->s->lock);
	return c->s->switching;
}

/*
 * The point of no return for whoever changes the goals: connecting for post-copy and the pause take
 * a while, and what is asked for then would be agreed to and not done.
 */
static int turn(struct source *c)
{
	int err = 0;

	/* a preparation that failed has been withdrawn, and more was copied: once more */
	do {
		while (!err && source_turns_back(c))
			err = source_copy_more(c);
		if (!err)
			err = source_postcopy_prepare(c);
	} while (!err && !is_switching(c));
	return err;
}

static int enter_paused(struct source *c)
{
	json_t *account = source_account_before_pause(c);
	int err = session_enter(c->s, SESSION_PAUSED, account, &c->f);

	json_decref(account);
	return err;
}

static int pause_guest(struct source *c)
{
	int pair[2], err = source_check_unchanged(c);

	if (!err)
		err = enter_paused(c);
	if (!err)
		err = guard(c);
	if (err)
		return err;
	source_throttle_lift(c);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return failure_set(&c->f, -errno, "internal", NULL, "socketpair failed: %m");
	err = dataplane_send(&c->dp, IPC_STATE, NULL, pair[0], &c->f);
	close(pair[0]);
	c->downtime.begin = clock_ns();
	c->paused = true;
	source_pause_asked(c);
	if (!err)
		err = c->g->ops->pause(c->g, pair[1], &c->f);
	close(pair[1]);
	/* Most of a pause the guest still runs: QEMU says when it stopped. */
	if (c->g->stopped_ns > c->downtime.begin)
		c->downtime.begin = c->g->stopped_ns;
	c->downtime.pause = clock_ns() - c->downtime.begin;
	if (!err)
		err = note_whether_it_ran(c);
	if (!err)
		source_pause_begins(c, c->downtime.begin);
	return err;
}

/* The final pages go while the device state is saved: a stopped guest changes neither. */
static int final_copy(struct source *c)
{
	uint64_t start = clock_ns();
	/* what is pending is named when the state is saved, and stays here */
	int err = source_postcopy_decided(c) ? 0 : source_final_begin(c);

	c->downtime.final_copy = clock_ns() - start;
	return err;
}

static int device_state(struct source *c)
{
	uint64_t start = clock_ns(), saved;
	struct ipc_message answer;
	struct dataplane_wait w;
	int err = c->g->ops->save(c->g, &c->f);

	saved = clock_ns();
	if (!err && !source_postcopy_decided(c))
		err = source_send_end(c);
	start += clock_ns() - saved; /* what is left of the copy is the copy's */
	c->downtime.final_copy += clock_ns() - saved;
	if (!err)
		err = dataplane_send(&c->dp, IPC_STATE_END, NULL, -1, &c->f);
	source_wait_init(c, &w, false);
	if (!err)
		err = dataplane_expect(&c->dp, IPC_STATE_DONE, &answer, &w, &c->f);
	if (!err)
		c->state_bytes = answer.body.count.bytes;
	if (!err)
		err = source_postcopy_decided(c) ? source_postcopy_hand_over(c)
						 : source_final_settle(c);
	c->downtime.state = clock_ns() - start;
	source_pause_copied(c);
	return err;
}

static int verify(struct source *c)
{
	struct ipc_message answer;
	struct dataplane_wait w;
	const struct ipc_verified *v = &answer.body.verified;
	int err;

	if (!c->o.verify)
		return 0;
	/* It takes what reading all of RAM takes, as who asks for it knows. */
	source_pause_ends(c);
	err = dataplane_send(&c->dp, IPC_VERIFY, NULL, -1, &c->f);
	source_wait_init(c, &w, false);
	if (!err)
		err = dataplane_expect(&c->dp, IPC_VERIFIED, &answer, &w, &c->f);
	if (err)
		return err;
	source_pause_copied(c);
	c->verified = *v;
	if (v->mismatches)
		return failure_set(
			&c->f, -EIO, "verify-mismatch", "Report this with both daemons' logs.",
			"%" PRIu64 " of %" PRIu64 " chunks differ at the destination, the "
			"first in region %u at %#" PRIx64 ".",
			v->mismatches, v->chunks, v->first_region, v->first_offset);
	session_event(c->s, "verified %" PRIu64 " chunks", v->chunks);
	return 0;
}

static int load(struct source *c)
{
	json_t *in = json_pack("{s:b}", "running", c->ran);
	uint64_t start = clock_ns();
	int err;

	c->load_asked = true;
	err = source_peer_call(
		c, "load", in, &c->peer_account,
		source_pause_patience(c, source_postcopy_decided(c) ? LOAD_POSTCOPY_MS : LOAD_MS),
		&c->f);
	json_decref(in);
	c->downtime.state += clock_ns() - start;
	if (!err)
		session_set_state(c->s, SESSION_PREPARED);
	return err;
}

/* From here a cancel is refused, so that none is accepted and then not obeyed. */
static int decide(struct source *c)
{
	SCOPED_LOCK(&c->s->lock);
	if (c->s->cancelled)
		return failure_set(&c->f, -ECANCELED, "cancelled", NULL,
				   "The migration was cancelled.");
	c->s->decided = true;
	return 0;
}

static int unresolved(struct source *c, const struct failure *why)
{
	c->committed = c->unsettled = true;
	failure_clear(&c->f);
	return failure_set(&c->f, -EHOSTUNREACH, "unresolved", SOURCE_UNRESOLVED_HINT,
			   "Whether the destination runs the guest is not known: %s", why->message);
}

/*
 * The record may be there all the same, and a transhipd that finds it would have the destination
 * run the guest: the guest runs here only when the destination is known to be out of it.
 */
static int not_committed(struct source *c, int err)
{
	struct failure why = c->f;

	if (source_peer_abort(c))
		return unresolved(c, &why);
	c->negotiated = c->load_asked = false;
	return err;
}

static int commit(struct source *c)
{
	uint64_t start = clock_ns(), ran = 0;
	struct failure why = { 0 };
	json_t *fields;
	int err = decide(c);

	if (err)
		return err;
	fields = source_account_committed(c);
	err = session_enter(c->s, SESSION_COMMITTED, fields, &c->f);
	json_decref(fields);
	if (err)
		return not_committed(c, err);
	c->committed = true;
	source_pause_ends(c);
	err = c->post.on ? source_postcopy_commit(c, &ran, &why)
			 : source_peer_commit_insist(c, &ran, &why);
	fault_at("source.answered");
	c->downtime.end = clock_ns();
	if (ran < c->downtime.end - start)
		c->downtime.end -= ran;
	c->downtime.resume = c->downtime.end - start;
	if (!err)
		return 0;
	if (err == -EREMOTEIO) {
		/* That is durable there, and it has cleaned up. */
		c->f = why;
		c->committed = c->negotiated = c->load_asked = false;
		return err;
	}
	return unresolved(c, &why);
}

static int release(struct source *c)
{
	struct failure ignored = { 0 };
	json_t *ran;

	if (c->post.leaving)
		return 0;
	ran = source_account_ran(c);
	session_enter(c->s, SESSION_RUNNING, ran, &ignored);
	json_decref(ran);
	guard_stop(&c->guard);
	source_unthrottle(c);
	dataplane_dismiss(&c->dp);
	source_release_guest(c);
	dataplane_stop(&c->dp);
	return 0;
}

static const struct stage {
	const char *name;
	int (*run)(struct source *c);
	bool refuses; /* a failure here is a refusal: nothing was begun */
} stages[] = {
	{ "find", source_find_guest, true }, { "check", source_check_and_offer, true },
	{ "start", start_copying, false },   { "copy", copy, false },
	{ "postcopy", turn, false },	     { "pause", pause_guest, false },
	{ "final-copy", final_copy, false }, { "device-state", device_state, false },
	{ "verify", verify, false },	     { "load", load, false },
	{ "commit", commit, false },	     { "serve", source_postcopy_serve, false },
	{ "release", release, false },
};

/* --- ends ------------------------------------------------------------------------------------ */

static int run_on(struct source *c, struct failure *why)
{
	int err = fault_at("source.run-on");

	if (err)
		failure_set(why, err, "internal", NULL, "a fault was asked for");
	else if (c->paused)
		err = c->g->ops->resume(c->g, why);
	c->paused &= err != 0;
	return err;
}

/*
 * The guest runs here again, the destination is clean, nothing of ours is left in the VMM. A guest
 * that cannot be run on is tried once more when the destination has let go of what it may hold
 * (disk locks); after that source_settle.c goes on.
 */
static void roll_back(struct source *c)
{
	struct failure why = { 0 };
	int err;

	fault_at("source.rollback");
	source_pause_ends(c);
	err = run_on(c, &why);
	fault_at("source.resumed");
	source_unthrottle(c);
	if (!err)
		guard_stop(&c->guard);
	dataplane_stop(&c->dp);
	dataplane_stop(&c->post.dp);
	if (c->negotiated)
		c->owes_abort = source_peer_abort(c) && c->load_asked;
	fault_at("source.aborted");
	if (err) {
		failure_clear(&why);
		err = run_on(c, &why);
	}
	guard_stop(&c->guard);
	if (c->armed)
		c->g->ops->disarm(c->g);
	/* If it has ended there is nothing left to run: the failure says so. */
	if (!err || !guest_alive(c->g))
		return;
	log_error("%.8s: the guest could not be run on: %s", c->s->id, why.message);
	c->cause = c->f;
	c->unsettled = true;
	failure_clear(&c->f);
	failure_set(&c->f, err, "unresolved",
		    "It is tried again; look at the VM, then `tranship resolve ID --run-here`.",
		    "The guest is stopped at the source and could not be run on: %s", why.message);
}

/*
 * A code of the peer's can mean something else here: that it was cancelled there, or is not settled
 * there, is its failure.
 */
static void translate_failure(struct source *c)
{
	bool ours = strcmp(c->f.code, "cancelled") ? c->unsettled : session_cancelled(c->s);

	if ((strcmp(c->f.code, "cancelled") && strcmp(c->f.code, "unresolved")) || ours)
		return;
	snprintf(c->f.code, sizeof(c->f.code), "peer-failed");
}

static void end_unsuccessfully(struct source *c, const struct stage *at)
{
	const char *status = "failed";
	enum session_state state = SESSION_FAILED;
	json_t *fields = NULL, *result;

	translate_failure(c);
	if (!strcmp(c->f.code, "cancelled")) {
		state = SESSION_CANCELLED;
		status = "cancelled";
	} else if (at->refuses && failure_class_of(c->f.code) != FAILURE_BROKEN) {
		status = "refused";
	}
	if (!c->committed) {
		roll_back(c);
	} else {
		guard_stop(&c->guard);
		source_unthrottle(c);
		dataplane_stop(&c->dp);
		if (c->armed)
			c->g->ops->disarm(c->g);
	}
	guest_free(c->g);
	c->g = NULL;
	if (c->unsettled) {
		source_finish_unresolved(c);
		return;
	}
	if (c->owes_abort)
		fields = json_pack("{s:b}", "abort_owed", 1);
	result = source_result(c, status);
	session_finish(c->s, state, fields, result, &c->f);
	json_decref(fields);
}

static void end_successfully(struct source *c)
{
	json_t *result;

	if (c->post.leaving)
		return;
	if (c->committed) {
		SCOPED_LOCK(&c->s->lock);
		/* what a post-copy's data plane said last was before its end */
		c->s->progress.pending_bytes = 0;
	}
	result = source_result(c, "completed");
	guest_free(c->g);
	c->g = NULL;
	session_finish(c->s, SESSION_DONE, NULL, result, NULL);
}

void source_init(struct source *c, struct session *s)
{
	*c = (struct source){ .s = s,
			      .dp = DATAPLANE_NONE,
			      .guard = GUARD_NONE,
			      .rounds = json_array(),
			      .decisions = json_array() };
	source_postcopy_init(c);
}

void source_release(struct source *c)
{
	explicit_bzero(c->secret, sizeof(c->secret));
	dataplane_stop(&c->dp);
	source_postcopy_release(c);
	throttle_free(c->brake);
	guest_free(c->g);
	client_free(c->peer);
	json_decref(c->rounds);
	json_decref(c->decisions);
	json_decref(c->forecast);
	json_decref(c->ram_files);
	json_decref(c->residue);
	json_decref(c->arming);
	json_decref(c->peer_account);
}

static int run_stage(struct source *c, const struct stage *at)
{
	int err;

	if (!c->committed && session_cancelled(c->s))
		return failure_set(&c->f, -ECANCELED, "cancelled", NULL,
				   "The migration was cancelled.");
	log_debug("%.8s: %s", c->s->id, at->name);
	err = fault_at_parts("source", at->name);
	if (!err || c->committed)
		err = source_pause_ended(c, at->run(c));
	if (err)
		failure_set(&c->f, err, "internal", NULL, "stage %s failed: %s", at->name,
			    strerror(-err));
	return err;
}

void session_source_run(struct session *s)
{
	const struct stage *at = stages, *end = stages + sizeof(stages) / sizeof(stages[0]);
	struct source c;
	int err = 0;

	source_init(&c, s);
	for (; at < end; at++) {
		err = run_stage(&c, at);
		if (!err && c.o.dry_run && at->run == source_check_and_offer)
			err = source_forecast(&c);
		if (err || (c.o.dry_run && at->run == source_check_and_offer))
			break;
	}
	if (err)
		end_unsuccessfully(&c, at);
	else
		end_successfully(&c);
	source_linger(&c);
	source_release(&c);
}
