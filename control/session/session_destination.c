// SPDX-License-Identifier: MIT
/*
 * A migration seen from the destination.
 *
 * Theory of operation
 *   The offer is checked (destination_open.c), then the session's thread has a VM that waits, a
 *   data plane that receives, and serves what comes: messages of the data plane, requests of the
 *   source (load, commit, finish; asked by the API's threads, one at a time), its giving up, the
 *   VM's end.
 *
 *   Until COMMITTED every failure ends in cleaning up: the source owns the guest. PREPARED is
 *   durable before it is answered, and from then on the session waits as long as it takes: it may
 *   not run the guest, and may not drop it, before the source (or a person) has spoken. COMMITTED
 *   is durable before the guest is started. If it then certainly did not run, the VM is ended and
 *   that is durable before the source hears of it, so that the source may run the guest again. If
 *   it may have run (its VM died in starting, a crash) nobody goes on by himself: UNRESOLVED. If it
 *   has run and stopped by itself, it is here.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/session/host_internal.h"
#include "control/session/session_destination.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"

#define STATE_WAIT_MS  15000u /* load was asked for: the state is on the streams already */
#define FINISH_WAIT_MS 60000u /* the guest runs here; the source has only to say goodbye */
#define LOADED_WAIT_MS 5000u  /* it has written all of it when the VMM has loaded it */

/* How serving ended. LEAVE: transhipd ends, and the journal says how the session goes on. */
enum served { SERVED_DONE = 1, SERVED_LEAVE };

/* --- the hand-over --------------------------------------------------------------------------- */

static void note_stats(struct destination *d, const struct ipc_stats *stats)
{
	SCOPED_LOCK(&d->s->lock);
	d->stats = *stats;
	d->s->progress.wire_bytes = stats->wire_bytes;
	d->s->progress.sent_bytes = stats->sent_pages * PAGE_BYTES;
	/* What has arrived is not a promise any more: it is missing in MemAvailable already. */
	d->s->promised_bytes = stats->raw_bytes < d->promised ? d->promised - stats->raw_bytes : 0;
}

static void on_progress(void *arg, const struct ipc_stats *stats)
{
	note_stats(arg, stats);
}

/* CONNECTED and VERIFIED may still be waiting: they say nothing that matters here. */
static struct dataplane_wait wait_for(struct destination *d, unsigned int ms)
{
	return (struct dataplane_wait){ .cancel_fd = d->s->wake_fd, /* given up, or the end */
					.guest_fd = d->g->pidfd,
					.deadline_ns = clock_ns() + ms * NSEC_PER_MSEC,
					.progress = on_progress,
					.arg = d,
					.late = "The device state did not come in time.",
					.skip_others = true };
}

/* Why a VMM did not load is in its log, which goes with it. */
static void quote_log(struct destination *d)
{
	struct failure why = d->f;
	char tail[240];

	launch_log_tail(&d->plan, 2, tail, sizeof(tail));
	if (!d->launched || strcmp(why.code, "state-failed") || !tail[0])
		return;
	failure_clear(&d->f);
	failure_set(&d->f, -EIO, why.code,
		    "A device that was added to, or removed from, the VM since it was started "
		    "makes it another one; else see whether both hosts' QEMUs fit.",
		    "%.150s: %s", why.message, tail);
}

/* The state that the data plane holds goes into the VMM. */
static int load_state(struct destination *d)
{
	struct dataplane_wait w = wait_for(d, STATE_WAIT_MS);
	struct ipc_message m;
	int pair[2], err = 0;

	if (!d->state_held)
		err = dataplane_expect(&d->dp, IPC_STATE_DONE, &m, &w, &d->f);
	/* the loader reads RAM */
	if (!err && d->post.on)
		err = destination_postcopy_begin(d);
	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return failure_set(&d->f, -errno, "internal", NULL, "socketpair failed: %m");
	fault_at("destination.load");
	d->load_begun = true;
	err = d->g->ops->load_begin(d->g, pair[1], &d->f);
	close(pair[1]);
	if (!err)
		err = dataplane_send(&d->dp, IPC_LOAD, NULL, pair[0], &d->f);
	close(pair[0]);
	if (!err)
		err = d->g->ops->load_wait(d->g, &d->f);
	if (err) {
		quote_log(d);
		return err;
	}
	w = wait_for(d, LOADED_WAIT_MS);
	return dataplane_expect(&d->dp, IPC_LOADED, &m, &w, &d->f);
}

json_t *destination_account(const struct destination *d)
{
	double ran = d->g && d->g->resumed_ns ? clock_ms_since(d->g->resumed_ns) : 0;
	const struct destination_postcopy *p = &d->post;
	uint64_t cpu = d->stats.cpu_ns + p->ended_cpu_ns + p->cpu_ns;
	uint64_t rss = d->stats.rss_bytes > p->rss_bytes ? d->stats.rss_bytes : p->rss_bytes;

	/* run_ms: how long the guest has run here already; the source's clock is another. */
	return json_pack("{s:s, s:f, s:I, s:s, s:f, s:o*}", "state",
			 session_state_name(d->s->state), "cpu_ms", (double)cpu / 1e6, "rss_bytes",
			 (json_int_t)rss, "rx", d->rx_reason, "run_ms", ran, "postcopy",
			 destination_postcopy_account(d));
}

bool destination_given_up(struct destination *d)
{
	SCOPED_LOCK(&d->s->lock);
	/* a guest that has all of its RAM is never taken away again */
	if (!d->s->abort_wanted ||
	    (d->s->state >= SESSION_COMMITTED && !destination_postcopy_pending(&d->post)))
		return false;
	d->aborted = true;
	/* whatever it interrupted is not the reason */
	failure_clear(&d->f);
	failure_set(&d->f, -ECANCELED, "cancelled", NULL,
		    d->s->peer_gave_up ? "The source gave the migration up."
				       : "A person gave the migration up at the destination.");
	return true;
}

/* PREPARED, with what the source says of the guest if that is not what it offered. */
static int enter_prepared(struct destination *d)
{
	json_t *fields = NULL;
	int ran, err;

	{
		SCOPED_LOCK(&d->s->lock);
		ran = d->s->load_ran;
	}
	if (ran >= 0 && ran != d->was_running) {
		d->was_running = ran;
		fields = json_pack("{s:b}", "was_running", ran);
	}
	err = session_enter(d->s, SESSION_PREPARED, fields, &d->f);
	json_decref(fields);
	return err;
}

static int transhipd_ends(struct destination *d)
{
	/* PREPARED and COMMITTED outlive this daemon; the journal knows. */
	if (d->s->state == SESSION_PREPARED || d->s->state == SESSION_COMMITTED ||
	    (d->s->state == SESSION_RUNNING && destination_postcopy_pending(&d->post)))
		return SERVED_LEAVE;
	if (d->s->state == SESSION_RUNNING)
		return SERVED_DONE;
	return failure_set(&d->f, -ECANCELED, "cancelled", NULL,
			   "The destination's transhipd ends.");
}

static int handle_load(struct destination *d)
{
	uint64_t start = clock_ns();
	int err = d->s->state == SESSION_COPYING ? load_state(d) : 0;

	if (!err)
		err = fault_at("destination.loaded");
	if (destination_given_up(d))
		return -ECANCELED;
	if (err == -ECANCELED && host_ending(d->s->host)) {
		failure_clear(&d->f);
		return transhipd_ends(d);
	}
	if (!err && d->s->state == SESSION_COPYING)
		err = enter_prepared(d);
	if (err)
		return err; /* answered after the cleaning up */
	log_debug("%.8s: loaded in %.1f ms", d->s->id, clock_ms_since(start));
	session_answer(d->s, 0, NULL, destination_account(d));
	return 0;
}

bool destination_never_ran(const struct guest_description *d)
{
	static const char *const states[] = { "paused", "inmigrate", "prelaunch", "postmigrate" };

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (!d->running && !strcmp(d->state, states[i]))
			return true;
	return false;
}

/* After a failed start: 0 if the guest has run here all the same, else what start should return. */
static int after_failed_start(struct destination *d, int err)
{
	struct failure ignored = { 0 };

	if (!guest_alive(d->g))
		return -ESRCH;
	if (d->g->ops->describe(d->g, &ignored))
		return guest_alive(d->g) ? -ETIMEDOUT : -ESRCH;
	if (destination_never_ran(&d->g->desc))
		return err;
	log_warn("%.8s: the guest has run here and is %s: %s", d->s->id, d->g->desc.state,
		 d->f.message);
	failure_clear(&d->f);
	return 0;
}

int destination_start(struct destination *d)
{
	bool start = d->was_running && !session_option_bool(d->s, "no_start");
	int err = fault_at("destination.start");

	if (!err && start)
		err = d->g->ops->start(d->g, &d->f);
	if (!err)
		err = fault_at("destination.started");
	if (err && err != -ETIMEDOUT)
		err = after_failed_start(d, err);
	if (err)
		failure_set(&d->f, err, "internal", NULL, "The guest could not be started: %s.",
			    strerror(-err));
	return err;
}

static int refuse(struct destination *d, const char *code, const char *message)
{
	struct failure f = { 0 };

	failure_set(&f, -EBUSY, code, NULL, "%s It is %s.", message,
		    session_state_name(d->s->state));
	session_answer(d->s, -EBUSY, &f, NULL);
	return 0;
}

/* COMMITTED could not be written, or the guest did not run yet: nothing has ended. */
static int answer_failure(struct destination *d, int err)
{
	session_answer(d->s, err, &d->f, NULL);
	failure_clear(&d->f);
	return 0;
}

static int enter_running(struct destination *d)
{
	json_t *fields = json_pack("{s:o}", "runs_since", journal_moment_json(clock_ns()));
	int err = session_enter(d->s, SESSION_RUNNING, fields, &d->f);

	json_decref(fields);
	return err;
}

int destination_handle_commit(struct destination *d)
{
	int err = 0;

	if (d->s->state == SESSION_RUNNING) {
		session_answer(d->s, 0, NULL, destination_account(d));
		return 0;
	}
	if (d->s->state != SESSION_PREPARED && d->s->state != SESSION_COMMITTED)
		return refuse(d, "session-state", "The destination has not loaded the VM.");
	/* its monitor would not answer: the source has to connect again first */
	if (destination_postcopy_pending(&d->post) && !d->post.serving)
		return refuse(d, "data-lost", "Nobody serves the pages that are missing.");
	err = d->g ? 0 : destination_postcopy_reach(d);
	if (err)
		return answer_failure(d, err);
	if (d->s->state == SESSION_PREPARED)
		err = session_enter(d->s, SESSION_COMMITTED, NULL, &d->f);
	if (err)
		return answer_failure(d, err);
	err = destination_start(d);
	if (err == -ETIMEDOUT)
		return answer_failure(d, err); /* it may run or not: the source asks again */
	if (err)
		return err;
	session_set_state(d->s, SESSION_RUNNING);
	session_answer(d->s, 0, NULL, destination_account(d));
	if (d->post.on)
		destination_postcopy_guest_runs(d);
	/* After the answer: it is outside the pause, and COMMITTED says enough after a crash. */
	err = enter_running(d);
	if (!err || !destination_postcopy_pending(&d->post))
		return err;
	/* it still needs its pages, with a record or without */
	log_error("%.8s: %s", d->s->id, d->f.message);
	failure_clear(&d->f);
	return 0;
}

/* The source wants to connect for post-copy, for the first time or again. */
static int handle_postcopy(struct destination *d)
{
	bool runs = d->s->state >= SESSION_COMMITTED;
	json_t *answer = NULL;
	int err;

	if (d->s->state < SESSION_COPYING || d->s->state > SESSION_RUNNING || d->post.complete)
		return refuse(d, "session-state", "There is nothing to post-copy.");
	err = destination_postcopy_open(d, &answer);
	if (!err) {
		session_answer(d->s, 0, NULL, answer);
		return 0;
	}
	if (!runs && d->s->state != SESSION_COPYING)
		return err;
	failure_set(&d->f, err, "internal", NULL,
		    "The VM that waits could not be made ready for it: %s.", strerror(-err));
	/* the VM goes on to wait for what it was to wait for: the source may do without */
	if (!runs)
		destination_postcopy_withdraw(d);
	return answer_failure(d, err); /* it asks again */
}

/* The source does without post-copy. */
static int handle_no_postcopy(struct destination *d)
{
	if (d->s->state != SESSION_COPYING)
		return refuse(d, "session-state", "Post-copy cannot be withdrawn.");
	destination_postcopy_withdraw(d);
	session_answer(d->s, 0, NULL, NULL);
	return 0;
}

/* 0: go on; else as serve(). */
static int handle_request(struct destination *d)
{
	int err;

	if (destination_given_up(d))
		return -ECANCELED;
	switch (session_asked(d->s)) {
	case ASK_LOAD:
		return handle_load(d);
	case ASK_POSTCOPY:
		return handle_postcopy(d);
	case ASK_NO_POSTCOPY:
		return handle_no_postcopy(d);
	case ASK_COMMIT:
		return destination_handle_commit(d);
	case ASK_RUN_HERE:
		err = destination_handle_commit(d);
		/* A person decided that the source is not waited for. */
		return !err && d->s->state == SESSION_RUNNING ? SERVED_DONE : err;
	case ASK_FINISH:
		if (d->s->state == SESSION_RUNNING && !destination_postcopy_pending(&d->post))
			return SERVED_DONE;
		if (d->s->state == SESSION_RUNNING)
			return refuse(d, "session-state", "Some of its pages are missing.");
		return refuse(d, "session-state", "The VM does not run at the destination.");
	case ASK_GIVE_UP:
		if (d->s->state != SESSION_COMMITTED)
			return refuse(d, "session-state", "There is nothing to give up.");
		return failure_set(&d->f, -ECANCELED, "cancelled", NULL,
				   "A person gave the VM up at the destination.");
	default:
		return 0;
	}
}

static int handle_dataplane(struct destination *d)
{
	struct ipc_message m;
	int fd, err = ipc_recv(d->dp.sock, &m, &fd, 0);

	fd_close(&fd);
	if (err == -ETIMEDOUT)
		return 0;
	/* Once the state is loaded the data plane has done its work. */
	if (d->s->state >= SESSION_PREPARED) {
		if (err)
			dataplane_dismiss(&d->dp);
		else if (m.head.type == IPC_PROGRESS)
			note_stats(d, &m.body.stats);
		/* It ends with the source's: no goodbye will come. */
		return err && d->s->state == SESSION_RUNNING && !d->post.plan ? SERVED_DONE : 0;
	}
	if (err)
		return failure_set(&d->f, -EPIPE, "dataplane-died", "See transhipd's log.",
				   "The destination's data-plane process ended unexpectedly.");
	switch (m.head.type) {
	case IPC_PROGRESS:
		note_stats(d, &m.body.stats);
		return 0;
	case IPC_STATE_DONE:
		d->state_held = true;
		return 0;
	case IPC_HANDED_OVER:
		d->post.handed_over = true;
		return 0;
	case IPC_FAILED:
		return failure_set(&d->f, -EREMOTEIO, m.body.failure.code, m.body.failure.hint,
				   "%s", m.body.failure.message);
	default:
		return 0; /* CONNECTED, VERIFIED: nothing to do */
	}
}

static int vm_ended(struct destination *d)
{
	return failure_set(&d->f, -ESRCH, "vm-gone", "See the VM's log.",
			   "The VM's process ended at the destination.");
}

/* A served, or -errno and d->f: it failed. */
static int serve(struct destination *d)
{
	for (;;) {
		struct pollfd p[4] = { { .fd = d->s->wake_fd, .events = POLLIN },
				       { .fd = d->dp.sock, .events = POLLIN },
				       { .fd = d->g ? d->g->pidfd : d->post.pidfd,
					 .events = POLLIN },
				       { .fd = d->post.dp.sock, .events = POLLIN } };
		bool running =
			d->s->state == SESSION_RUNNING && !destination_postcopy_pending(&d->post);
		int n = poll(p, 4, running ? (int)FINISH_WAIT_MS : -1), err = 0;

		if (n == 0)
			return SERVED_DONE; /* the source said no goodbye; the guest is here */
		if (n < 0)
			continue;
		if (p[0].revents) {
			session_drain_wake(d->s);
			err = handle_request(d);
		}
		if (!err && p[1].revents && d->dp.sock >= 0)
			err = handle_dataplane(d);
		if (!err && p[3].revents && d->post.dp.sock >= 0)
			err = destination_postcopy_handle(d);
		if (!err && p[2].revents)
			err = vm_ended(d);
		if (!err && host_ending(d->s->host))
			err = transhipd_ends(d);
		if (err)
			return err;
	}
}

void destination_serve(struct destination *d)
{
	int err = serve(d);

	if (err == SERVED_LEAVE) {
		dataplane_stop(&d->dp);
		dataplane_stop(&d->post.dp);
	} else if (err == SERVED_DONE) {
		destination_end_well(d);
	} else if (d->aborted && d->s->state >= SESSION_COMMITTED) {
		destination_end_given_up(d);
	} else if (d->s->state == SESSION_RUNNING && destination_postcopy_pending(&d->post)) {
		destination_end_lost(d);
	} else if (d->s->state == SESSION_RUNNING) {
		/* A running guest is never taken away again. */
		log_warn("%.8s: %s", d->s->id, d->f.message);
		destination_end_well(d);
	} else if (d->s->state != SESSION_COMMITTED) {
		destination_end_badly(d, err);
	} else if (err == -ESRCH) {
		/* It was told to run, and is gone. */
		destination_end_unresolved(d, err);
	} else {
		destination_end_committed(d, err);
	}
}

/* --- life ------------------------------------------------------------------------------------ */

void destination_init(struct destination *d, struct session *s)
{
	*d = (struct destination){ .s = s, .dp = DATAPLANE_NONE };
	destination_postcopy_init(d);
}

void destination_release(struct destination *d)
{
	destination_postcopy_release(d);
	guest_free(d->g);
	launch_plan_release(&d->plan);
}

void session_destination_run(struct session *s)
{
	struct destination d;
	int err;

	destination_init(&d, s);
	err = destination_open(&d);
	if (err) {
		destination_given_up(&d);
		destination_end_badly(&d, err);
	} else {
		{
			SCOPED_LOCK(&s->lock);
			s->opened = true;
			s->seq++;
			pthread_cond_broadcast(&s->changed);
		}
		destination_serve(&d);
	}
	destination_release(&d);
}
