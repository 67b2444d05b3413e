// SPDX-License-Identifier: MIT
/*
 * A migration seen from the destination.
 *
 * Theory of operation
 *   The offer is checked (destination_open.c), then the session's thread has a VM that waits, a data
 *   plane that receives, and serves what comes: messages of the data plane, requests of the source
 *   (load, commit, abort, finish; posted by the API's threads, one at a time), the VM's end.
 *
 *   Until COMMITTED every failure ends in cleaning up: the source owns the guest. PREPARED is
 *   durable before it is answered, and from then on the session waits as long as it takes: it may
 *   not run the guest, and may not drop it, before the source (or a person) has spoken. COMMITTED is
 *   durable before the guest is started; if it then cannot be started, the VM is ended and that is
 *   durable before the source hears of it, so that the source may run the guest again.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/host_internal.h"
#include "control/session_destination.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define STATE_WAIT_MS  15000u /* load was asked for: the state is on the streams already */
#define FINISH_WAIT_MS 60000u /* the guest runs here; the source has only to say goodbye */
#define REQUEST_MS     30000u

/* --- requests from the API's threads --------------------------------------------------------- */

static int post(struct host *h, const char *id, enum session_request request, json_t **out,
		struct failure *f)
{
	uint64_t deadline = clock_ns() + REQUEST_MS * NSEC_PER_MSEC;
	struct session *s = host_session_get(h, id, SESSION_DESTINATION, f);
	bool in_time = true;
	int err = 0;

	if (!s)
		return -ENOENT;
	pthread_mutex_lock(&s->lock);
	while (s->posted != REQUEST_NONE && !s->terminal && in_time)
		in_time = session_wait_changed(s, deadline);
	if (s->terminal) {
		/* A repeated abort, commit or finish finds its work done. */
		if ((request == REQUEST_ABORT) == (s->state != SESSION_DONE) &&
		    request != REQUEST_LOAD)
			err = 0;
		else if (failure_is_set(&s->failure))
			err = failure_set(f, -EBUSY, s->failure.code, s->failure.hint, "%s",
					  s->failure.message);
		else
			err = failure_set(f, -EBUSY, "session-state", NULL,
					  "The session is %s at the destination.",
					  session_state_name(s->state));
	} else if (in_time) {
		s->posted = request;
		s->request_done = false;
		session_wake(s);
		while (!s->request_done && in_time)
			in_time = session_wait_changed(s, deadline);
		if (s->request_done) {
			err = s->request_err;
			if (err)
				*f = s->request_failure;
		}
	}
	if (!in_time)
		err = failure_set(f, -ETIMEDOUT, "session-state", NULL,
				  "The destination's session did not answer in time.");
	if (!err && out)
		*out = s->answer ? json_deep_copy(s->answer) : json_object();
	pthread_mutex_unlock(&s->lock);
	host_session_put(s);
	return err;
}

/* The thread's answer to the posted request. answer is stolen and may be NULL. */
static void complete(struct destination *d, int err, const struct failure *f, json_t *answer)
{
	struct session *s = d->s;

	SCOPED_LOCK(&s->lock);
	if (answer) {
		json_decref(s->answer);
		s->answer = answer;
	}
	s->posted = REQUEST_NONE;
	s->request_done = true;
	s->request_err = err;
	if (f)
		s->request_failure = *f;
	s->seq++;
	pthread_cond_broadcast(&s->changed);
}

int host_peer_load(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return post(h, id, REQUEST_LOAD, out, f);
}

/*
 * The state of a session that is not listed any more (this daemon was restarted since it ended). It
 * decides who runs the guest: "not found" would leave the source in the dark.
 */
static int state_in_journal(struct host *h, const char *id, enum session_state *state,
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
	json_decref(content);
	return err ? failure_set(f, err, "journal", "See the state directory's journals.",
				 "What became of session %.8s cannot be read: %s", id, why.message)
		   : 0;
}

int host_peer_commit(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return post(h, id, REQUEST_COMMIT, out, f);
}

int host_peer_abort(struct host *h, const char *id, const json_t *in, json_t **out,
		    struct failure *f)
{
	const char *why = json_string_value(json_object_get(in, "message"));

	log_info("%.8s: the source gives up: %s", id, why ? why : "no reason given");
	return post(h, id, REQUEST_ABORT, out, f);
}

int host_peer_finish(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return post(h, id, REQUEST_FINISH, out, f);
}

int host_peer_status(struct host *h, const char *id, json_t **out, struct failure *f)
{
	struct session *s = host_session_get(h, id, SESSION_DESTINATION, f);
	enum session_state state;
	int err;

	if (s) {
		pthread_mutex_lock(&s->lock);
		state = s->state;
		pthread_mutex_unlock(&s->lock);
		host_session_put(s);
	} else {
		err = state_in_journal(h, id, &state, f);
		if (err)
			return err;
	}
	*out = json_pack("{s:s, s:b}", "state", session_state_name(state), "running",
			 state == SESSION_RUNNING || state == SESSION_DONE);
	return 0;
}

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
	return (struct dataplane_wait){ .cancel_fd = -1,
					.guest_fd = d->g->pidfd,
					.deadline_ns = clock_ns() + ms * NSEC_PER_MSEC,
					.progress = on_progress,
					.arg = d,
					.skip_others = true };
}

/* The state that the data plane holds goes into the VMM. */
static int load_state(struct destination *d)
{
	struct dataplane_wait w = wait_for(d, STATE_WAIT_MS);
	struct ipc_message m;
	int pair[2], err = 0;

	if (!d->state_held)
		err = dataplane_expect(&d->dp, IPC_STATE_DONE, &m, &w, &d->f);
	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return failure_set(&d->f, -errno, "internal", NULL, "socketpair failed: %m");
	d->load_begun = true;
	err = d->g->ops->load_begin(d->g, pair[1], &d->f);
	close(pair[1]);
	if (!err)
		err = dataplane_send(&d->dp, IPC_LOAD, NULL, pair[0], &d->f);
	close(pair[0]);
	if (!err)
		err = d->g->ops->load_wait(d->g, &d->f);
	if (!err)
		err = dataplane_expect(&d->dp, IPC_LOADED, &m, &w, &d->f);
	return err;
}

static json_t *account(const struct destination *d)
{
	double ran = d->g && d->g->resumed_ns ? clock_ms_since(d->g->resumed_ns) : 0;

	/* run_ms: how long the guest has run here already; the source's clock is another. */
	return json_pack("{s:s, s:f, s:I, s:s, s:f}", "state", session_state_name(d->s->state),
			 "cpu_ms", (double)d->stats.cpu_ns / 1e6, "rss_bytes",
			 (json_int_t)d->stats.rss_bytes, "rx", d->rx_reason, "run_ms", ran);
}

static int handle_load(struct destination *d)
{
	uint64_t start = clock_ns();
	int err = d->s->state == SESSION_COPYING ? load_state(d) : 0;

	if (!err && d->s->state == SESSION_COPYING)
		err = session_enter(d->s, SESSION_PREPARED, NULL, &d->f);
	if (err)
		return err; /* answered after the cleaning up */
	log_debug("%.8s: loaded in %.1f ms", d->s->id, clock_ms_since(start));
	complete(d, 0, NULL, account(d));
	return 0;
}

static int handle_commit(struct destination *d)
{
	bool start = d->was_running && !session_option_bool(d->s, "no_start");
	int err;

	if (d->s->state == SESSION_RUNNING) {
		complete(d, 0, NULL, account(d));
		return 0;
	}
	if (d->s->state != SESSION_PREPARED && d->s->state != SESSION_COMMITTED)
		return failure_set(&d->f, -EBUSY, "session-state", NULL,
				   "The destination has not loaded the VM: it is %s.",
				   session_state_name(d->s->state));
	err = session_enter(d->s, SESSION_COMMITTED, NULL, &d->f);
	if (!err && start)
		err = d->g->ops->start(d->g, &d->f);
	if (err == -ETIMEDOUT) {
		/* It may run or not: no end of this session, and the source asks again. */
		complete(d, err, &d->f, NULL);
		failure_clear(&d->f);
		return 0;
	}
	if (err)
		return err;
	session_set_state(d->s, SESSION_RUNNING);
	complete(d, 0, NULL, account(d));
	/* After the answer: it is outside the pause, and COMMITTED says enough after a crash. */
	return session_enter(d->s, SESSION_RUNNING, NULL, &d->f);
}

/* >0: the session is over well; <0: it failed; 0: go on. */
static int handle_request(struct destination *d)
{
	enum session_request request;
	int err = 0;

	{
		SCOPED_LOCK(&d->s->lock);
		request = d->s->posted;
	}
	switch (request) {
	case REQUEST_NONE:
		return 0;
	case REQUEST_LOAD:
		return handle_load(d);
	case REQUEST_COMMIT:
		return handle_commit(d);
	case REQUEST_ABORT:
		if (d->s->state >= SESSION_COMMITTED) {
			struct failure f = { 0 };

			failure_set(&f, -EBUSY, "session-state", NULL,
				    "The destination runs the VM already.");
			complete(d, -EBUSY, &f, NULL);
			return 0;
		}
		d->aborted = true;
		err = failure_set(&d->f, -ECANCELED, "cancelled", NULL,
				  "The source gave the migration up.");
		return err;
	case REQUEST_FINISH:
		if (d->s->state == SESSION_RUNNING)
			return 1;
		failure_set(&d->f, -EBUSY, "session-state", NULL,
			    "The VM does not run at the destination.");
		complete(d, -EBUSY, &d->f, NULL);
		failure_clear(&d->f);
		return 0;
	}
	return 0;
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
			dataplane_stop(&d->dp);
		else if (m.head.type == IPC_PROGRESS)
			note_stats(d, &m.body.stats);
		return 0;
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
	case IPC_FAILED:
		return failure_set(&d->f, -EREMOTEIO, m.body.failure.code, m.body.failure.hint, "%s",
				   m.body.failure.message);
	default:
		return 0; /* CONNECTED, VERIFIED: nothing to do */
	}
}

static void drain_wake(struct session *s)
{
	uint64_t count;

	if (read(s->wake_fd, &count, sizeof(count)) < 0) {
		/* another wake-up will come */
	}
}

/* 1: done; <0: failed. */
static int serve(struct destination *d)
{
	for (;;) {
		struct pollfd p[3] = { { .fd = d->s->wake_fd, .events = POLLIN },
				       { .fd = d->dp.sock, .events = POLLIN },
				       { .fd = d->g->pidfd, .events = POLLIN } };
		bool running = d->s->state == SESSION_RUNNING;
		int n = poll(p, 3, running ? (int)FINISH_WAIT_MS : -1), err = 0;

		if (n == 0)
			return 1; /* the source said no goodbye; the guest runs here anyway */
		if (n < 0)
			continue;
		if (p[0].revents) {
			drain_wake(d->s);
			err = handle_request(d);
		}
		if (!err && p[1].revents && d->dp.sock >= 0)
			err = handle_dataplane(d);
		if (!err && p[2].revents)
			err = failure_set(&d->f, -ESRCH, "vm-gone", "See the VM's log.",
					  "The VM's process ended at the destination.");
		if (!err && host_ending(d->s->host)) {
			/* PREPARED and later outlive this daemon; the journal knows. */
			if (d->s->state >= SESSION_PREPARED)
				return 1;
			err = failure_set(&d->f, -ECANCELED, "cancelled", NULL,
					  "The destination's transhipd ends.");
		}
		if (err)
			return err;
	}
}

/* --- ends ------------------------------------------------------------------------------------ */

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

static void clean_up(struct destination *d)
{
	struct failure ignored = { 0 };

	dataplane_stop(&d->dp);
	if (d->plan.created) {
		if (session_option_bool(d->s, "keep_dst"))
			keep_ram_files(d);
		launch_undo(&d->plan, d->launched);
	} else if (d->g && d->load_begun && guest_alive(d->g)) {
		/* It holds a loaded guest that must never run, and cannot wait again. */
		d->g->ops->quit(d->g, &ignored);
		snprintf(d->f.hint, sizeof(d->f.hint),
			 "The waiting VM at the destination was ended: start it anew.");
	}
}

static void end_well(struct destination *d)
{
	bool over = d->s->state == SESSION_RUNNING;
	json_t *answer;

	dataplane_stop(&d->dp);
	answer = account(d);
	if (over)
		session_finish(d->s, SESSION_DONE, json_deep_copy(answer), NULL);
	complete(d, 0, NULL, answer);
}

static void end_badly(struct destination *d, int err)
{
	clean_up(d);
	session_finish(d->s, d->aborted ? SESSION_CANCELLED : SESSION_FAILED, NULL, &d->f);
	/* An abort asked for just this. */
	complete(d, d->aborted ? 0 : err, &d->f, NULL);
}

static void destination_init(struct destination *d, struct session *s)
{
	*d = (struct destination){ .s = s, .dp = DATAPLANE_NONE };
}

static void destination_release(struct destination *d)
{
	guest_free(d->g);
	launch_plan_release(&d->plan);
}

static void serve_to_the_end(struct destination *d)
{
	int err = serve(d);

	/* A running guest is never taken away again. */
	if (err < 0 && d->s->state != SESSION_RUNNING) {
		end_badly(d, err);
		return;
	}
	if (err < 0)
		log_warn("%.8s: %s", d->s->id, d->f.message);
	end_well(d);
}

void session_destination_run(struct session *s)
{
	struct destination d;
	int err;

	destination_init(&d, s);
	err = destination_open(&d);
	if (err) {
		end_badly(&d, err);
	} else {
		{
			SCOPED_LOCK(&s->lock);
			s->opened = true;
			s->seq++;
			pthread_cond_broadcast(&s->changed);
		}
		serve_to_the_end(&d);
	}
	destination_release(&d);
}

/* --- after a crash --------------------------------------------------------------------------- */

static void recover_created(struct destination *d, const json_t *content)
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

static void recover_guest(struct destination *d, const json_t *content)
{
	json_int_t pid = json_integer_value(json_object_get(content, "pid"));
	json_int_t start = json_integer_value(json_object_get(content, "start_time"));
	char vm[32];

	snprintf(vm, sizeof(vm), "pid:%d", (int)pid);
	if (!pid || guest_open(&d->g, vm, &d->f))
		return;
	if (d->g->start_time != (uint64_t)start) {
		guest_free(d->g);
		d->g = NULL;
	} else if (json_is_true(json_object_get(content, "launched"))) {
		d->launched = (pid_t)pid;
	}
}

void session_destination_recover(struct session *s, const json_t *content)
{
	struct destination d;

	destination_init(&d, s);
	d.was_running = json_is_true(json_object_get(s->request, "was_running"));
	recover_created(&d, content);
	recover_guest(&d, content);
	failure_clear(&d.f);
	{
		SCOPED_LOCK(&s->lock);
		s->opened = true;
	}
	if (!d.g || s->state < SESSION_PREPARED) {
		failure_set(&d.f, -EPIPE, "internal", "Start the migration again at the source.",
			    "The destination's transhipd ended during the migration.");
		d.load_begun = d.g && json_is_true(json_object_get(content, "loading"));
		end_badly(&d, -EPIPE);
	} else {
		session_claim_vm(s, d.g, &d.f);
		failure_clear(&d.f);
		if (s->state == SESSION_COMMITTED)
			handle_commit(&d);
		serve_to_the_end(&d);
	}
	destination_release(&d);
}

int session_destination_resolve(struct session *s, bool run_here, struct failure *f)
{
	json_t *out = NULL;
	int err;

	{
		SCOPED_LOCK(&s->lock);
		if (s->state != SESSION_PREPARED)
			return failure_set(f, -EBUSY, "session-state", NULL,
					   "Session %.8s is %s: there is nothing to resolve.", s->id,
					   session_state_name(s->state));
	}
	err = post(s->host, s->id, run_here ? REQUEST_COMMIT : REQUEST_ABORT, &out, f);
	json_decref(out);
	return err;
}
