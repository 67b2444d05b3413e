// SPDX-License-Identifier: MIT
/*
 * The ends of a destination's session, and its cleaning up.
 *
 * Theory of operation
 *   Before COMMITTED the source owns the guest: whatever is here is thrown away. A launched VM is
 *   killed and its files go; a VM that was waiting already waits again if it can, else it is ended,
 *   because a loaded guest must never run. One that runs was taken over by somebody: it is left.
 *
 *   After COMMITTED the source runs the guest again if it reads FAILED here. So FAILED is written
 *   only when the VM is known to be gone or to be waiting again, and never to have run; and when it
 *   cannot be written the session is not ended so. Whatever is not certain is UNRESOLVED.
 *
 *   The VM is closed before the session is finished: who sees its end may use the VM at once.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/session/host_internal.h"
#include "control/session/session_destination.h"
#include "control/session/vm_process.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"

static void close_guest(struct destination *d)
{
	guest_free(d->g);
	d->g = NULL;
}

/* --keep-dst: the RAM files stay; everything else that was made goes. */
static void keep_ram_files(struct destination *d)
{
	size_t kept = 0;

	for (size_t i = 0; d->plan.created && d->plan.created[i]; i++) {
		bool ram = false;

		for (uint32_t k = 0; d->g && k < d->g->desc.nregions; k++)
			ram |= !strcmp(d->g->desc.regions[k].path, d->plan.created[i]);
		if (ram)
			free(d->plan.created[i]);
		else
			d->plan.created[kept++] = d->plan.created[i];
	}
	if (d->plan.created)
		d->plan.created[kept] = NULL;
}

/* A VM that was waiting already and may have been given a guest. */
static void put_back_waiting(struct destination *d)
{
	struct failure why = { 0 };

	if (!d->load_begun || !d->g || !guest_alive(d->g))
		return;
	if (d->g->ops->describe(d->g, &why) || d->g->desc.running) {
		log_warn("%.8s: the VM that waited here runs; it is left alone", d->s->id);
		return;
	}
	failure_clear(&why);
	if (!d->g->ops->incoming(d->g, &why)) {
		d->load_begun = false;
		log_info("%.8s: the VM waits again", d->s->id);
		return;
	}
	failure_clear(&why);
	if (d->g->ops->quit(d->g, &why))
		log_error("%.8s: the VM could not be ended: %s", d->s->id, why.message);
	snprintf(d->f.hint, sizeof(d->f.hint),
		 "The waiting VM at the destination was ended: start it anew.");
}

/*
 * The streams of a data plane that failed end, its source notices and gives up, and that may be
 * heard here before the data plane is. Then it is what failed. That a stream was lost is not: the
 * source ends them when it gives up.
 */
static void look_for_the_cause(struct destination *d)
{
	struct failure why = { 0 };

	if (!dataplane_stop_hear(&d->dp, &why) || !d->aborted || !strcmp(why.code, "data-lost") ||
	    !strcmp(why.code, "data-connect"))
		return;
	d->f = why;
	d->aborted = false;
	if (!strcmp(why.code, "dataplane-died"))
		snprintf(d->f.message, sizeof(d->f.message), "%s",
			 "The destination's data-plane process ended unexpectedly.");
}

static void clean_up(struct destination *d)
{
	fault_at("destination.cleanup");
	dataplane_stop(&d->dp);
	destination_postcopy_end(d);
	if (d->plan.created) {
		if (session_option_bool(d->s, "keep_dst"))
			keep_ram_files(d);
		launch_undo(&d->plan, d->launched);
	} else {
		put_back_waiting(d);
	}
	close_guest(d);
	fault_at("destination.cleaned");
}

static void note_all_there(struct session *s)
{
	SCOPED_LOCK(&s->lock);
	s->progress.pending_bytes = 0;
	s->progress.pending_known = true;
}

void destination_end_well(struct destination *d)
{
	json_t *answer;

	dataplane_stop(&d->dp);
	if (d->post.on)
		destination_postcopy_end(d);
	answer = destination_account(d);
	close_guest(d);
	note_all_there(d->s);
	session_finish(d->s, SESSION_DONE, NULL, json_deep_copy(answer), NULL);
	session_answer(d->s, 0, NULL, answer);
}

/*
 * A source that gives up just now has not ended it, if it has failed before. A transhipd that ends
 * waits a little until its sources have asked why; see host_untold().
 */
static void note_whose_it_is(struct destination *d)
{
	struct session *s = d->s;
	bool ending = host_ending(s->host);
	SCOPED_LOCK(&s->lock);

	s->peer_gave_up &= d->aborted;
	s->untold = ending && s->opened && !s->peer_gave_up;
}

void destination_end_badly(struct destination *d, int err)
{
	enum session_state state;

	look_for_the_cause(d);
	state = d->aborted ? SESSION_CANCELLED : SESSION_FAILED;
	session_show_failure(d->s, &d->f);
	note_whose_it_is(d);
	clean_up(d);
	session_finish(d->s, state, NULL, NULL, &d->f);
	session_answer(d->s, err, &d->f, NULL);
}

void destination_end_unresolved(struct destination *d, int err)
{
	struct failure why = d->f;

	dataplane_stop(&d->dp);
	dataplane_stop(&d->post.dp);
	if (!vm_process_lives(d->pid, d->start_time))
		destination_postcopy_end(d);
	if (d->plan.created && !vm_process_lives(d->pid, d->start_time))
		launch_undo(&d->plan, d->launched); /* of what has gone, its files */
	close_guest(d);
	failure_clear(&d->f);
	failure_set(
		&d->f, err, "unresolved",
		"Look whether the guest ran here, then `tranship resolve ID --give-up` lets the "
		"source run it.",
		"The guest was to run at the destination, and whether it did is not known: %s",
		why.message);
	session_finish(d->s, SESSION_UNRESOLVED, NULL, NULL, &d->f);
	session_answer(d->s, err, &d->f, NULL);
}

void destination_end_lost(struct destination *d)
{
	const struct ipc_postcopy *g = &d->post.figures;

	if (vm_process_lives(d->pid, d->start_time)) {
		/* not gone, whatever went wrong here: its faults wait for the next attempt */
		log_error("%.8s: %s", d->s->id, d->f.message);
		destination_end_unresolved(d, -EIO);
		return;
	}
	failure_clear(&d->f);
	failure_set(&d->f, -ESRCH, "vm-gone", NULL,
		    "its process ended here %.1f s after the switch-over, with %llu MiB of its RAM "
		    "still at the source.",
		    d->post.begun_ns ? clock_ms_since(d->post.begun_ns) / 1e3 : 0.0,
		    (unsigned long long)(g->missing_pages * PAGE_BYTES >> 20));
	destination_end_unresolved(d, -ESRCH);
}

void destination_end_given_up(struct destination *d)
{
	json_t *ran = json_pack("{s:b}", "ran", 1);
	struct failure why = { 0 };
	/* first of all, and without a word to it: it must not write its disks any more */
	int err = vm_process_kill(d->pid, d->start_time);

	d->post.on &= err != 0; /* what has ended has nothing to disarm */
	if (!err)
		clean_up(d);
	if (!d->plan.created)
		snprintf(d->f.hint, sizeof(d->f.hint),
			 "The VM that waited at the destination was ended: start it anew.");
	/* that is durable before the source hears of it and runs the guest */
	if (!err)
		err = session_enter(d->s, SESSION_FAILED, ran, &why);
	if (err) {
		destination_end_unresolved(d, err);
	} else {
		{
			SCOPED_LOCK(&d->s->lock);
			d->s->ran = true;
		}
		session_finish(d->s, SESSION_FAILED, ran, NULL, &d->f);
		session_answer(d->s, -ECANCELED, &d->f, NULL);
	}
	json_decref(ran);
}

void destination_end_committed(struct destination *d, int err)
{
	struct failure ignored = { 0 };

	clean_up(d);
	/* Still there, and not waiting again. */
	if (vm_process_lives(d->pid, d->start_time) && (d->plan.created || d->load_begun)) {
		destination_end_unresolved(d, err);
		return;
	}
	if (session_enter(d->s, SESSION_FAILED, NULL, &ignored)) {
		destination_end_unresolved(d, err);
		return;
	}
	session_finish(d->s, SESSION_FAILED, NULL, NULL, &d->f);
	session_answer(d->s, err, &d->f, NULL);
}
