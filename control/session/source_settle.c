// SPDX-License-Identifier: MIT
/*
 * The source after its stages: what could not be settled then, and what a crash left.
 *
 * Theory of operation
 *   Three things may be open. (1) COMMITTED, and the destination has not said what became of it: it
 *   is asked again; that it runs ends the VM here, that it never will runs the guest here. (2) The
 *   guest is ours and could not be run on: it is tried again. (3) The destination may hold a loaded
 *   VM (PREPARED waits for ever) and could not be told that the session is over: it is told again.
 *   settle() does (1) and (2), one attempt a call.
 *
 *   After a crash the same: the journal says whether the session was COMMITTED, and settle() is
 *   called until it succeeds. A session that is not settled within SETTLE_MS is UNRESOLVED: whoever
 *   waits for it is told so, a person may decide (`resolve`), and the thread goes on trying with
 *   growing pauses. Nothing of a person's decision races with that: it is carried out by this very
 *   thread, after one more attempt to have the destination decide.
 *
 *   The VM is opened only for an attempt: meanwhile its monitor is free for whoever looks.
 */
#include "control/session/source_settle.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/session/arming.h"
#include "control/session/host_internal.h"
#include "control/session/source_account.h"
#include "control/session/source_peer.h"
#include "control/session/vm_process.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"

#define SETTLE_MS	   20000u
#define SETTLE_EVERY_MS	   200u
#define LINGER_MIN_MS	   500u
#define LINGER_MAX_MS	   10000u /* destination_recover.c waits for longer */
#define LINGER_POSTCOPY_MS 1500u  /* a guest waits for its pages, or is to be stopped */
#define SETTLE_CALL_MS	   5000u
#define FINISH_MS	   10000u
#define RESOLVE_MS	   50000u /* the command line waits a minute */
#define END_BY_SIGNAL_MS                                                                           \
	30000u /* a monitor that is held by somebody else is not waited for longer */

/* --- the VM that has moved away -------------------------------------------------------------- */

json_t *source_ram_files(const struct guest_description *d)
{
	json_t *files = json_array();

	for (uint32_t i = 0; i < d->nregions; i++) {
		const struct guest_region *r = &d->regions[i];

		if (r->backing == GUEST_BACKING_FILE)
			json_array_append_new(files, json_pack("{s:s, s:I, s:I}", "path", r->path,
							       "inode", (json_int_t)r->inode,
							       "device", (json_int_t)r->device));
	}
	return files;
}

void source_unlink_ram(const json_t *files)
{
	const json_t *file;
	size_t i;

	json_array_foreach ((json_t *)files, i, file) {
		const char *path = json_string_value(json_object_get(file, "path"));
		struct stat st;

		if (!path || stat(path, &st) ||
		    (json_int_t)st.st_ino != json_integer_value(json_object_get(file, "inode")) ||
		    (json_int_t)st.st_dev != json_integer_value(json_object_get(file, "device")))
			continue;
		if (unlink(path))
			log_warn("%s: %m", path);
	}
}

void source_say_finish(struct source *c)
{
	struct failure ignored = { 0 };
	json_t *answer = NULL;

	fault_at("source.finish");
	if (c->peer && source_peer_call(c, "finish", NULL, &answer, FINISH_MS, &ignored))
		log_warn("%.8s: finish at the destination: %s", c->s->id, ignored.message);
	if (answer) {
		json_decref(c->peer_account);
		c->peer_account = answer;
	}
}

void source_release_guest(struct source *c)
{
	struct failure why = { 0 };

	if (c->o.keep_src) {
		c->g->ops->disarm(c->g);
	} else if (c->g->ops->quit(c->g, &why)) {
		log_warn("%.8s: the source's VMM did not end: %s", c->s->id, why.message);
	} else {
		fault_at("source.quit");
		source_unlink_ram(c->ram_files);
	}
	source_say_finish(c);
}

/* --- one attempt ----------------------------------------------------------------------------- */

/* What a crash left in the VM. After the guest is closed: it needs the monitor itself. */
static void undo_residue(struct source *c)
{
	if (c->residue)
		guest_disarm_residue(c->residue);
	else
		arming_undo(c->arming);
	json_decref(c->residue);
	json_decref(c->arming);
	c->residue = c->arming = NULL;
}

static void close_guest(struct source *c)
{
	guest_free(c->g);
	c->g = NULL;
}

static void settled(struct source *c, enum session_state state, const char *status)
{
	json_t *fields = NULL;

	close_guest(c);
	undo_residue(c);
	c->unsettled = false;
	if (state == SESSION_FAILED && c->peer && c->load_asked && !c->committed)
		c->owes_abort = source_peer_abort(c) != 0;
	if (c->owes_abort)
		fields = json_pack("{s:b}", "abort_owed", 1);
	session_finish(c->s, state, fields, source_result(c, status),
		       failure_is_set(&c->f) ? &c->f : NULL);
	json_decref(fields);
}

/* Not this time. */
static void still_open(struct source *c, const char *hint, const char *what,
		       const struct failure *why)
{
	failure_clear(&c->f);
	failure_set(&c->f, -EHOSTUNREACH, "unresolved", hint, "%s: %s", what, why->message);
}

/* The destination runs it. */
static void settle_forward(struct source *c)
{
	struct failure why = { 0 };
	int err;

	if (c->s->state != SESSION_RUNNING)
		session_enter(c->s, SESSION_RUNNING, NULL, &why);
	failure_clear(&why);
	err = vm_process_open(&c->g, c->pid, c->start_time, &why);
	/* Its guest runs elsewhere and it stands still: it needs no monitor to be ended. */
	if (err && err != -ESRCH && !c->o.keep_src) {
		if (clock_ms_since(c->settle_ns) < END_BY_SIGNAL_MS ||
		    vm_process_end(c->pid, c->start_time)) {
			still_open(
				c, "End the VM here.",
				"The destination runs the guest, but the VM here cannot be ended",
				&why);
			return;
		}
		err = -ESRCH;
	}
	if (!err) {
		source_release_guest(c);
	} else {
		if (!c->o.keep_src)
			source_unlink_ram(c->ram_files);
		source_say_finish(c);
	}
	failure_clear(&c->f);
	settled(c, SESSION_DONE, "completed");
}

static bool run_on(struct source *c, struct failure *why)
{
	if (!c->ran || c->g->desc.running)
		return true;
	return !c->g->ops->resume(c->g, why);
}

/* It is ours. why: what ended the session. */
static void settle_back(struct source *c, const struct failure *why)
{
	struct failure f = { 0 };
	int err = vm_process_open(&c->g, c->pid, c->start_time, &f);

	if (!err && !run_on(c, &f)) {
		close_guest(c);
		err = -EBUSY;
	}
	if (err && err != -ESRCH) {
		still_open(c,
			   "Look at the VM; it is tried again. `tranship resolve ID --run-here` "
			   "tries at once.",
			   "The guest is the source's and could not be run on", &f);
		return;
	}
	c->f = err ? f : *why;
	settled(c, SESSION_FAILED, "failed");
}

void source_finish_unresolved(struct source *c)
{
	json_t *fields = json_pack("{s:b}", "committed", c->committed);

	c->settle_ns = clock_ns();
	session_finish(c->s, SESSION_UNRESOLVED, fields, source_result(c, "unresolved"), &c->f);
	json_decref(fields);
}

static bool postcopy_is_open(const struct source *c)
{
	return c->committed && c->post.on && !c->post.complete;
}

/*
 * The guest runs at the destination, or is about to, and needs what is here: until it has all of
 * it, or the destination is not heard of any more, or its guest is lost or never ran, or transhipd
 * ends. Its VMM here is not needed for that, and may have ended.
 */
static void settle_postcopy(struct source *c)
{
	struct failure f;
	int err = source_postcopy_go_on(c);

	if (!err && c->post.leaving)
		return;
	if (!err) {
		c->settle_ns = clock_ns();
		settle_forward(c);
		return;
	}
	/* what it says then is what a later attempt or a person needs to know: c->f */
	if (err != -EREMOTEIO)
		return;
	f = c->f;
	c->post.on = c->load_asked = false;
	settle_back(c, &f);
}

/* One attempt to bring it to an end; c->unsettled tells whether it succeeded. */
static void settle(struct source *c)
{
	struct failure why = { 0 };
	int err = -EREMOTEIO;

	if (postcopy_is_open(c)) {
		settle_postcopy(c);
		return;
	}
	if (c->s->state == SESSION_RUNNING)
		err = 0;
	else if (c->committed)
		err = c->peer ? source_peer_commit(c, SETTLE_CALL_MS, NULL, &why) : -EHOSTUNREACH;
	if (!err) {
		settle_forward(c);
	} else if (err == -EREMOTEIO) {
		/* It has ended there: no word is owed. */
		c->load_asked &= !c->committed;
		settle_back(c, c->committed ? &why : &c->cause);
	} else {
		still_open(c, SOURCE_UNRESOLVED_HINT,
			   "Whether the destination runs the guest is not known", &why);
	}
}

/* --- a person's decision --------------------------------------------------------------------- */

static void decided(struct source *c, bool run_here)
{
	failure_clear(&c->f);
	failure_set(&c->f, -ECANCELED, "cancelled", NULL, "A person decided that the VM %s.",
		    run_here ? "runs at the source" : "is not the source's");
}

/*
 * Of a post-copy that is not complete. The destination has stopped its VM, or cannot be asked and
 * will be told; before the guest runs here it is durable that only here it may run, for its RAM is
 * then not any more what the destination waits for.
 */
static int take_back(struct source *c, bool run_here, struct failure *f)
{
	json_t *fields;
	int err = source_postcopy_take_back(c, &c->load_asked, f);

	if (err || !run_here)
		return err;
	fields = json_pack("{s:b}", "committed", 0);
	err = session_enter(c->s, SESSION_UNRESOLVED, fields, f);
	json_decref(fields);
	if (err)
		return err;
	c->committed = c->post.on = false;
	decided(c, true);
	c->cause = c->f;
	return 0;
}

/* What is here is not needed any more. The VM may have ended. */
static int end_here(struct source *c, struct failure *f)
{
	int err = c->g && !c->o.keep_src ? c->g->ops->quit(c->g, f) : 0;

	if (!err && !c->o.keep_src)
		source_unlink_ram(c->ram_files);
	return err;
}

/* In the session's thread; the attempt before it has left the session open. */
static int decide(struct source *c, bool run_here, struct failure *f)
{
	bool incomplete = postcopy_is_open(c), back;
	int err = vm_process_open(&c->g, c->pid, c->start_time, f);

	if (err == -ESRCH && !run_here) {
		failure_clear(f);
		err = 0;
	}
	/* A destination that comes back must not run it as well: it is told. */
	c->load_asked = true;
	if (!err && incomplete)
		err = take_back(c, run_here, f);
	if (!err && run_here)
		err = run_on(c, f) ? 0 : -EIO;
	else if (!err && (c->committed || !c->g))
		err = end_here(c, f);
	if (err) {
		close_guest(c);
		return err;
	}
	decided(c, run_here);
	/* nobody has all of a guest that was given up in the middle */
	back = run_here || incomplete || (!c->committed && c->g);
	c->committed &= !run_here && !incomplete;
	settled(c, back ? SESSION_FAILED : SESSION_DONE, back ? "failed" : "completed");
	return 0;
}

static void answer_request(struct source *c, enum session_ask what)
{
	struct failure f = { 0 };
	bool run_here = what == ASK_RUN_HERE;
	int err;

	if (!c->unsettled) {
		err = failure_set(&f, -EBUSY, "session-state", NULL,
				  "The session has ended: there is nothing to resolve.");
		session_answer(c->s, err, &f, NULL);
		return;
	}
	/* What the destination says goes before what a person believes. */
	c->post.revived = false;
	settle(c);
	if (c->post.revived)
		return; /* it has been told so */
	if (c->unsettled)
		err = decide(c, run_here, &f);
	else if (run_here == (c->s->state == SESSION_FAILED))
		err = 0;
	else
		err = failure_set(&f, -EBUSY, "session-state", NULL,
				  "The destination has answered meanwhile: the session is %s.",
				  session_state_name(c->s->state));
	session_answer(c->s, err, &f, NULL);
}

int session_source_resolve(struct session *s, bool run_here, struct failure *f)
{
	int err;

	{
		SCOPED_LOCK(&s->lock);
		if (s->state != SESSION_UNRESOLVED)
			return failure_set(f, -EBUSY, "session-state", NULL,
					   "Session %.8s is %s: there is nothing to resolve.",
					   s->id, session_state_name(s->state));
	}
	err = session_ask(s, run_here ? ASK_RUN_HERE : ASK_GIVE_UP, RESOLVE_MS, NULL, f);
	return err == -ESHUTDOWN ? failure_set(f, err, "busy", "Start transhipd again.",
					       "This host's transhipd is ending.")
				 : err;
}

/* --- again and again ------------------------------------------------------------------------- */

/* Waits, at most so long, for the host's end or a request, which is carried out. */
static void await(struct source *c, unsigned int ms)
{
	struct pollfd p = { .fd = c->s->wake_fd, .events = POLLIN };
	enum session_ask what;

	session_drain_wake(c->s);
	what = session_asked(c->s);
	if (what == ASK_NONE && !host_ending(c->s->host) && poll(&p, 1, (int)ms) > 0)
		what = session_asked(c->s);
	if (what != ASK_NONE)
		answer_request(c, what);
}

/* It went on for a while (session_revive), and is open again. */
static void end_again(struct source *c)
{
	if (c->unsettled && !c->s->terminal && !host_ending(c->s->host))
		source_finish_unresolved(c);
}

void source_linger(struct source *c)
{
	unsigned int ms = LINGER_MIN_MS, most;

	while ((c->unsettled || c->owes_abort) && !host_ending(c->s->host)) {
		await(c, ms);
		if (host_ending(c->s->host))
			return;
		if (c->unsettled) {
			settle(c);
			end_again(c);
		} else if (c->owes_abort && !source_peer_abort(c)) {
			struct failure ignored = { 0 };
			json_t *fields = json_pack("{s:b}", "abort_owed", 0);

			c->owes_abort = false;
			session_enter(c->s, c->s->state, fields, &ignored);
			json_decref(fields);
		}
		most = c->post.kept.note && !c->post.complete ? LINGER_POSTCOPY_MS : LINGER_MAX_MS;
		ms = ms * 2 < most ? ms * 2 : most;
	}
}

/* --- after a crash --------------------------------------------------------------------------- */

static void init_recovered(struct source *c, struct session *s, const json_t *content)
{
	const char *dest = json_string_value(json_object_get(s->request, "dest"));
	struct failure ignored = { 0 };

	source_init(c, s);
	c->o.keep_src = session_option_bool(s, "keep_src");
	c->o.compress = session_option_text(s, "compress", "auto");
	if (dest)
		client_new(&c->peer, dest, &ignored);
	c->pid = (pid_t)json_integer_value(json_object_get(content, "pid"));
	c->start_time = (uint64_t)json_integer_value(json_object_get(content, "start_time"));
	c->was_running = c->ran = json_is_true(json_object_get(content, "was_running"));
	c->ram_files = json_incref(json_object_get(content, "ram_files"));
	c->residue = json_incref(json_object_get(content, "residue"));
	c->arming = json_incref(json_object_get(content, "arming"));
	c->committed = s->state == SESSION_COMMITTED || s->state == SESSION_RUNNING ||
		       (s->state == SESSION_UNRESOLVED &&
			json_is_true(json_object_get(content, "committed")));
	/* Whether load was asked for is not written down: in the pause it may have been. */
	c->load_asked = s->state == SESSION_PAUSED || s->state == SESSION_UNRESOLVED;
	c->post.on = c->committed && json_is_true(json_object_get(content, "postcopy"));
	c->post.kept.note = json_incref(json_object_get(content, "postcopy_ram"));
	if (c->post.on && source_take_options(c))
		log_warn("%.8s: %s", s->id, c->f.message);
	failure_clear(&c->f);
	if (c->committed)
		source_account_restore(c, content);
	c->settle_ns = clock_ns();
	failure_set(&c->cause, -EPIPE, "internal", "Start the migration again.",
		    "transhipd ended during the migration; the source runs on.");
}

/* True if the guest was never stopped: then there is nothing to do to it. */
static bool never_stopped(const struct session *s, const json_t *content)
{
	return s->state < SESSION_PAUSED && !json_is_true(json_object_get(content, "track_dma"));
}

static void end_early(struct source *c)
{
	undo_residue(c);
	c->f = c->cause;
	if (!vm_process_lives(c->pid, c->start_time)) {
		failure_clear(&c->f);
		failure_set(&c->f, -ESRCH, "vm-gone", NULL, "The VM has ended meanwhile.");
	}
	if (c->peer)
		source_peer_abort(c);
	session_finish(c->s, SESSION_FAILED, NULL, source_result(c, "failed"), &c->f);
}

void session_source_recover(struct session *s, const json_t *content)
{
	struct source c;

	/* First of all: the guest may be slow. */
	throttle_undo(json_object_get(content, "throttle"));
	init_recovered(&c, s, content);
	if (s->terminal) {
		c.owes_abort = true;
	} else if (never_stopped(s, content)) {
		end_early(&c);
	} else {
		c.unsettled = true;
		while (c.unsettled && clock_ms_since(c.settle_ns) < SETTLE_MS &&
		       !host_ending(s->host)) {
			settle(&c);
			if (c.unsettled)
				await(&c, SETTLE_EVERY_MS);
		}
		/* one that leaves a guest that it serves has nothing open */
		if (c.unsettled && !c.post.leaving)
			source_finish_unresolved(&c);
	}
	source_linger(&c);
	source_release(&c);
}
