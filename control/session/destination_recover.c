// SPDX-License-Identifier: MIT
/*
 * An arriving session after a crash of its transhipd.
 *
 * Theory of operation
 *   Its data plane died with transhipd. Before PREPARED everything here is thrown away. From
 *   PREPARED on the VM is needed: as long as its process lives it is tried to be opened, however
 *   long that takes (its monitor may be held by somebody), and the session is what it was. A VM
 *   that lives is never taken for one that has gone, for then the source would run the guest.
 *
 *   COMMITTED, and the guest has not run yet: the source is given WORD_MS to say so once more. It
 *   asks every few seconds as long as it does not know; but a person there may have decided
 *   meanwhile that the guest runs at the source (`resolve --run-here`), and then what it says is
 *   that this one is to be given up. A source that says nothing in that time is away, and COMMITTED
 *   stands.
 *
 *   A VM that has gone: in PREPARED it never ran, FAILED. In COMMITTED it may have run and written
 *   its disks before it went, so the source must not go on from an older memory: UNRESOLVED. In
 *   RUNNING it ran here, and what became of it is not ours: DONE, as for one that runs.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/session/host_internal.h"
#include "control/session/session_destination.h"
#include "control/session/vm_process.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define REACH_EVERY_MS 300
#define REACH_MS       10000 /* a VM that waited already and is only to be put back */
/* Longer than a source that has not heard of us waits between two attempts; source_settle.c. */
#define WORD_MS 20000

static void read_created(struct destination *d, const json_t *content)
{
	const json_t *created = json_object_get(content, "created");
	size_t n = json_array_size(created);

	if (!n)
		return; /* the VM was waiting already */
	snprintf(d->plan.log_path, sizeof(d->plan.log_path), "%.4000s/log/%.32s.log",
		 session_config(d->s)->state_dir, d->s->id);
	d->plan.created = calloc(n + 1, sizeof(char *));
	for (size_t i = 0; d->plan.created && i < n; i++)
		d->plan.created[i] = strdup(json_string_value(json_array_get(created, i)) ?: "");
}

void destination_read_journal(struct destination *d, const json_t *content)
{
	read_created(d, content);
	d->pid = (pid_t)json_integer_value(json_object_get(content, "pid"));
	d->start_time = (uint64_t)json_integer_value(json_object_get(content, "start_time"));
	if (json_is_true(json_object_get(content, "launched")) &&
	    vm_process_lives(d->pid, d->start_time))
		d->launched = d->pid;
	/* The journal's own, where it has one, is newer than the offer's. */
	d->was_running = json_is_true(json_object_get(
		json_object_get(content, "was_running") ? content : d->s->request, "was_running"));
}

/* While the VM cannot be opened: a commit has to wait, a person may give it up. */
static int answer_meanwhile(struct destination *d, const struct failure *why)
{
	switch (session_asked(d->s)) {
	case ASK_NONE:
		return 0;
	case ASK_GIVE_UP:
		d->aborted = true;
		return failure_set(&d->f, -ECANCELED, "cancelled", NULL,
				   "A person gave the VM up at the destination.");
	default:
		session_answer(d->s, -EBUSY, why, NULL);
		return 0;
	}
}

/* 0: open. -ESRCH: gone. -ECANCELED: given up. -ESHUTDOWN: transhipd ends. -ETIMEDOUT. */
static int reach(struct destination *d, uint64_t limit_ms)
{
	struct pollfd p = { .fd = d->s->wake_fd, .events = POLLIN };
	uint64_t start = clock_ns();

	for (;;) {
		struct failure why = { 0 };
		int err = vm_process_open(&d->g, d->pid, d->start_time, &why);

		if (!err)
			return 0;
		if (err == -ESRCH) {
			d->f = why;
			return err;
		}
		if (destination_given_up(d) || answer_meanwhile(d, &why))
			return -ECANCELED;
		if (host_ending(d->s->host))
			return -ESHUTDOWN;
		if (limit_ms && clock_ms_since(start) > (double)limit_ms)
			return -ETIMEDOUT;
		poll(&p, 1, REACH_EVERY_MS);
		session_drain_wake(d->s);
	}
}

/* Nothing was promised to anybody yet. */
static void throw_away(struct destination *d, const json_t *content)
{
	destination_postcopy_undo(d, content);
	if (!d->plan.created && d->pid) {
		/* Whether it was given a guest was not written down; it is looked at. */
		d->load_begun = !reach(d, REACH_MS);
		if (!d->load_begun && vm_process_lives(d->pid, d->start_time))
			log_warn("%.8s: the VM that waited cannot be looked at; it is left alone",
				 d->s->id);
		failure_clear(&d->f);
	}
	failure_set(&d->f, -EPIPE, "internal", "Start the migration again at the source.",
		    "The destination's transhipd ended during the migration.");
	destination_end_badly(d, -EPIPE);
}

/* A journal that cannot be written does not stop a guest that runs: COMMITTED says enough. */
static int start(struct destination *d)
{
	struct failure ignored = { 0 };
	int err = destination_start(d);

	if (!err && session_enter(d->s, SESSION_RUNNING, NULL, &ignored))
		session_set_state(d->s, SESSION_RUNNING);
	return err;
}

/* From here on the source's giving up comes too late; true if it has come. */
static bool taken_back(struct destination *d)
{
	{
		SCOPED_LOCK(&d->s->lock);
		d->s->recallable &= d->s->abort_wanted;
		if (!d->s->recallable)
			return false;
	}
	d->aborted = true;
	failure_clear(&d->f);
	failure_set(&d->f, -ECANCELED, "cancelled", NULL, "The source took the VM back.");
	return true;
}

/* One request. 0: there is none; 1: go on, it was answered; else as await_word(). */
static int answer_word(struct destination *d)
{
	static const struct failure wait = { .code = "session-state",
					     .message = "It waits for the source's word." };
	enum session_ask what = session_asked(d->s);
	int err;

	switch (what) {
	case ASK_NONE:
		return 0;
	case ASK_COMMIT:
	case ASK_RUN_HERE:
		if (taken_back(d))
			return -ECANCELED;
		err = destination_handle_commit(d);
		return err ? err : 1;
	case ASK_GIVE_UP:
		d->aborted = true;
		return failure_set(&d->f, -ECANCELED, "cancelled", NULL,
				   "A person gave the VM up at the destination.");
	default:
		session_answer(d->s, -EBUSY, &wait, NULL);
		return 0;
	}
}

static bool is_recalled(struct destination *d)
{
	SCOPED_LOCK(&d->s->lock);
	return d->s->abort_wanted;
}

/* 0: run it, or it runs already. -ECANCELED: given up. -ESHUTDOWN: transhipd ends. -ESRCH: gone. */
static int await_word(struct destination *d)
{
	struct pollfd p[2] = { { .fd = d->s->wake_fd, .events = POLLIN },
			       { .fd = d->g->pidfd, .events = POLLIN } };
	uint64_t start = clock_ns();

	session_event(d->s, "the source is waited for, before the guest runs");
	for (;;) {
		double spent = clock_ms_since(start);
		int err = answer_word(d);

		if (err)
			return err > 0 ? 0 : err;
		if (host_ending(d->s->host))
			return -ESHUTDOWN;
		if (is_recalled(d) || spent >= WORD_MS)
			return taken_back(d) ? -ECANCELED : 0;
		poll(p, 2, WORD_MS - (int)spent);
		session_drain_wake(d->s);
		if (p[1].revents)
			return failure_set(&d->f, -ESRCH, "vm-gone", "See the VM's log.",
					   "The VM's process ended at the destination.");
	}
}

/* The guest is to run here, if it does not. */
static int run_committed(struct destination *d)
{
	int err = 0;

	if (destination_never_ran(&d->g->desc)) {
		err = await_word(d);
	} else {
		SCOPED_LOCK(&d->s->lock);
		d->s->recallable = false;
	}
	if (!err && d->s->state == SESSION_COMMITTED)
		err = start(d);
	return err;
}

static void go_on(struct destination *d)
{
	enum session_state state = d->s->state;
	int err;

	/* Whether it lives or not: it is its user's. */
	if (state == SESSION_RUNNING) {
		destination_end_well(d);
		return;
	}
	d->load_begun = true;
	err = reach(d, 0);
	if (!err && state == SESSION_COMMITTED)
		err = run_committed(d);
	if (err == -ESHUTDOWN)
		return;
	if (d->s->state == SESSION_RUNNING) {
		/* Nothing here depends on the source any more; if it asks, DONE is the answer. */
		destination_end_well(d);
	} else if (!err || (err == -ETIMEDOUT && state == SESSION_COMMITTED)) {
		failure_clear(&d->f);
		destination_serve(d);
	} else if (state != SESSION_COMMITTED) {
		destination_end_badly(d, err);
	} else if (err == -ESRCH) {
		destination_end_unresolved(d, err);
	} else {
		destination_end_committed(d, err);
	}
}

/* True if that is what it is. */
static bool go_on_postcopy(struct destination *d, const json_t *content)
{
	int found = destination_postcopy_recover(d, content);

	if (!found)
		return false;
	d->load_begun = true;
	if (found > 0) {
		session_event(d->s, "post-copy stands still until the source connects again");
		destination_serve(d);
	} else if (d->s->state == SESSION_PREPARED) {
		failure_set(&d->f, found, "vm-gone", NULL, "The VM has ended meanwhile.");
		destination_end_badly(d, found);
	} else {
		destination_end_lost(d);
	}
	return true;
}

void session_destination_recover(struct session *s, const json_t *content)
{
	struct destination d;

	destination_init(&d, s);
	destination_read_journal(&d, content);
	if (s->state == SESSION_UNRESOLVED) {
		{
			SCOPED_LOCK(&s->lock);
			s->postcopy = json_is_object(json_object_get(content, "postcopy"));
		}
		failure_set(&d.f, -EHOSTUNREACH, "unresolved", NULL,
			    "transhipd was restarted meanwhile.");
		destination_end_unresolved(&d, -EHOSTUNREACH);
	} else if (s->state < SESSION_PREPARED) {
		throw_away(&d, content);
	} else if (!go_on_postcopy(&d, content)) {
		go_on(&d);
	}
	destination_release(&d);
}
