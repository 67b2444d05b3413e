// SPDX-License-Identifier: MIT
/*
 * The sessions of one host: the list, admission, and what the local API asks of them.
 *
 * Theory of operation
 *   host_migrate and host_peer_offer make a session and start its thread; from then on the thread
 *   works and the API's threads look at the visible part, wait for it to change, set `cancelled`,
 *   or ask the thread for something. A terminal session stays listed, so that its result can be
 *   read; the oldest terminal ones are forgotten beyond SESSIONS_KEPT. One whose thread still has
 *   something to settle with its peer is not.
 *
 *   The end of the host: host_stop makes every thread end what may be ended, host_free waits for
 *   all of them and frees only then, for a thread may look at the whole list until its end.
 */
#include "control/session/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "control/session/host.h"
#include "control/session/host_internal.h"
#include "control/session/options.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/text.h"

#define SESSIONS_KEPT 256
#define ID_MIN	      6

const struct config *session_config(const struct session *s)
{
	return &s->host->config;
}

const char *session_side_name(enum session_side side)
{
	static const char *const names[] = { "source", "destination", "observer", "bench",
					     "bench-peer" };

	return names[side];
}

uint64_t session_promised_elsewhere(const struct session *s)
{
	struct host *h = s->host;
	uint64_t sum = 0;

	SCOPED_LOCK(&h->lock);
	for (struct session *o = h->sessions; o; o = o->next) {
		if (o == s)
			continue;
		SCOPED_LOCK(&o->lock);
		sum += o->promised_bytes;
	}
	return sum;
}

/* --- life ------------------------------------------------------------------------------------ */

static void session_free(struct session *s)
{
	json_decref(s->request);
	json_decref(s->checks);
	json_decref(s->events);
	json_decref(s->result);
	json_decref(s->answer);
	json_decref(s->recovered);
	json_decref(s->tuned);
	if (s->journaled)
		journal_close(&s->journal);
	fd_close(&s->wake_fd);
	fd_close(&s->wish_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

struct session *session_new(struct host *h, enum session_side side, const char *id, json_t *request)
{
	struct session *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return NULL;
	s->host = h;
	s->side = side;
	s->request = json_incref(request);
	s->checks = json_array();
	s->events = json_array();
	s->started_ns = s->state_ns = clock_ns();
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->wish_fd = side == SESSION_SOURCE ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	s->journal.fd = -1;
	s->load_ran = -1;
	snprintf(s->id, sizeof(s->id), "%s", id);
	for (int i = 0; i < IPC_ID_SIZE; i++)
		sscanf(id + 2 * i, "%2hhx", &s->raw_id[i]);
	snprintf(s->vm, sizeof(s->vm), "%s",
		 json_string_value(json_object_get(request, "vm")) ?: "");
	text_clean(s->vm);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (s->wake_fd < 0 || (side == SESSION_SOURCE && s->wish_fd < 0)) {
		session_free(s);
		return NULL;
	}
	return s;
}

/* Under h->lock: forgets the oldest terminal sessions beyond the limit. */
static void forget_old(struct host *h)
{
	unsigned int kept = 0;

	for (struct session **at = &h->sessions; *at;) {
		struct session *s = *at;
		bool over;

		pthread_mutex_lock(&s->lock);
		over = s->terminal && !s->attended && s->state != SESSION_UNRESOLVED &&
		       ++kept > SESSIONS_KEPT && !s->watchers;
		pthread_mutex_unlock(&s->lock);
		if (!over) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		if (s->threaded)
			pthread_join(s->thread, NULL);
		session_free(s);
	}
}

static void *session_thread(void *arg)
{
	struct session *s = arg;

	static const struct {
		void (*run)(struct session *s);
		void (*recover)(struct session *s, const json_t *content);
	} sides[] = {
		[SESSION_SOURCE] = { session_source_run, session_source_recover },
		[SESSION_DESTINATION] = { session_destination_run, session_destination_recover },
		[SESSION_OBSERVER] = { NULL, session_observer_recover },
		[SESSION_BENCH] = { session_bench_run, NULL },
		[SESSION_BENCH_PEER] = { session_bench_peer_run, NULL },
	};

	if (s->recovered)
		sides[s->side].recover(s, s->recovered);
	else
		sides[s->side].run(s);
	session_leave(s);
	return NULL;
}

static unsigned int live_sessions(struct host *h)
{
	unsigned int n = 0;

	for (struct session *s = h->sessions; s; s = s->next) {
		SCOPED_LOCK(&s->lock);
		n += !s->terminal;
	}
	return n;
}

/* Under h->lock. */
static int admit(struct host *h, const struct session *s, struct failure *f)
{
	if (host_ending(h))
		return failure_set(f, -EBUSY, "busy", "Start transhipd again.",
				   "This host's transhipd is ending.");
	for (struct session *o = h->sessions; o; o = o->next)
		if (o->side == s->side && !strcmp(o->id, s->id))
			return failure_set(f, -EEXIST, "session-state", NULL,
					   "A session of this id exists already.");
	if (!s->recovered && live_sessions(h) >= h->config.sessions_max)
		return failure_set(f, -EBUSY, "busy", "Wait for one to end.",
				   "This host already has %u sessions under way.",
				   h->config.sessions_max);
	return 0;
}

int session_start(struct session *s, struct failure *f)
{
	struct host *h = s->host;
	bool thread = s->side != SESSION_OBSERVER || s->recovered;
	int err;

	SCOPED_LOCK(&h->lock);
	forget_old(h);
	err = admit(h, s, f);
	if (!err && thread) {
		s->attended = true;
		err = -pthread_create(&s->thread, NULL, session_thread, s);
		if (err)
			failure_set(f, err, "internal", NULL, "No thread could be started: %s.",
				    strerror(-err));
	}
	if (err) {
		session_free(s);
		return err;
	}
	s->threaded = thread;
	s->watchers += !thread;
	s->next = h->sessions;
	h->sessions = s;
	return 0;
}

static bool has_side(const struct session *s, int side)
{
	return side < 0 || (int)s->side == side;
}

/* Under h->lock. NULL with f. */
static struct session *find(struct host *h, const char *id, int side, struct failure *f)
{
	struct session *found = NULL;
	size_t digits = strlen(id);

	for (struct session *s = h->sessions; s && digits >= ID_MIN; s = s->next) {
		if (!has_side(s, side) || strncmp(s->id, id, digits))
			continue;
		if (found && strcmp(found->id, s->id)) {
			failure_set(f, -ENOTUNIQ, "session-not-found",
				    "Give more of it; `tranship status` lists them.",
				    "More than one session begins with %s.", id);
			return NULL;
		}
		/* Both sides may be here (a VM moves within the host): the source speaks for it. */
		if (!found || s->side == SESSION_SOURCE)
			found = s;
	}
	if (!found)
		failure_set(f, -ENOENT, "session-not-found", "`tranship status` lists them.",
			    "There is no session %s here.", id);
	return found;
}

struct session *host_session_get(struct host *h, const char *id, int side, struct failure *f)
{
	struct session *found;

	SCOPED_LOCK(&h->lock);
	found = find(h, id, side, f);
	if (!found)
		return NULL;
	SCOPED_LOCK(&found->lock);
	found->watchers++;
	return found;
}

void host_session_put(struct session *s)
{
	SCOPED_LOCK(&s->lock);
	s->watchers--;
}

struct session *host_session_open(struct host *h, enum session_side side, const char *id,
				  json_t *request, struct failure *f)
{
	struct session *s = session_new(h, side, id, request);

	if (!s) {
		failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
		return NULL;
	}
	if (session_start(s, f))
		return NULL;
	return host_session_get(h, id, (int)side, f);
}

/* --- host ------------------------------------------------------------------------------------ */

const struct config *host_config(const struct host *h)
{
	return &h->config;
}

bool host_ending(const struct host *h)
{
	return __atomic_load_n(&h->ending, __ATOMIC_RELAXED);
}

int host_new(struct host **out, const struct config *c, struct failure *f)
{
	struct host *h = calloc(1, sizeof(*h));
	int err;

	if (!h)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	h->config = *c;
	pthread_mutex_init(&h->lock, NULL);
	err = host_recover(h, f);
	if (err) {
		host_free(h);
		return err;
	}
	*out = h;
	return 0;
}

void host_stop(struct host *h)
{
	SCOPED_LOCK(&h->lock);
	__atomic_store_n(&h->ending, true, __ATOMIC_RELAXED);
	for (struct session *s = h->sessions; s; s = s->next) {
		pthread_mutex_lock(&s->lock);
		s->cancelled = true;
		s->seq++;
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
		session_wake(s);
	}
}

bool host_untold(struct host *h)
{
	bool any = false;

	SCOPED_LOCK(&h->lock);
	for (struct session *s = h->sessions; s && !any; s = s->next) {
		SCOPED_LOCK(&s->lock);
		any = s->side == SESSION_DESTINATION &&
		      (s->untold || (s->attended && !s->terminal));
	}
	return any;
}

void host_free(struct host *h)
{
	struct session *s;

	host_stop(h);
	/* The list does not change any more: nothing is admitted, nobody is left to forget. */
	for (s = h->sessions; s; s = s->next)
		if (s->threaded)
			pthread_join(s->thread, NULL);
	while ((s = h->sessions)) {
		h->sessions = s->next;
		session_free(s);
	}
	pthread_mutex_destroy(&h->lock);
	free(h);
}

/* --- the local API --------------------------------------------------------------------------- */

static int new_id(char id[SESSION_ID_TEXT])
{
	uint8_t raw[IPC_ID_SIZE];

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		return -EIO;
	text_hex(id, raw, sizeof(raw));
	return 0;
}

int session_begin(struct host *h, enum session_side side, const json_t *request,
		  char id[SESSION_ID_TEXT], struct session **out, struct failure *f)
{
	struct session *s;

	if (new_id(id))
		return failure_set(f, -EIO, "internal", NULL, "no random numbers");
	s = session_new(h, side, id, (json_t *)request);
	if (!s)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	if (out)
		*out = s;
	return session_start(s, f);
}

int host_migrate(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	static const char *const members[] = { "vm", "dest", "options", NULL };
	char id[SESSION_ID_TEXT];
	int err;

	if (!json_is_string(json_object_get(in, "vm")) ||
	    !json_is_string(json_object_get(in, "dest")))
		return failure_set(f, -EINVAL, "usage", NULL,
				   "A migration needs the members vm and dest.");
	/* Before there is a session: what is not understood must not begin to do anything. */
	err = request_check(in, members, f);
	if (!err)
		err = options_check(migration_options, json_object_get(in, "options"), f);
	if (!err)
		err = session_begin(h, SESSION_SOURCE, in, id, NULL, f);
	if (!err)
		*out = json_pack("{s:s}", "id", id);
	return err;
}

int host_status(struct host *h, const char *id, uint64_t since, unsigned int wait_ms, json_t **out,
		struct failure *f)
{
	uint64_t deadline = clock_ns() + wait_ms * NSEC_PER_MSEC;
	struct session *s = host_session_get(h, id, -1, f);

	if (!s)
		return -ENOENT;
	pthread_mutex_lock(&s->lock);
	while (s->seq <= since && !s->terminal && session_wait_changed(s, deadline))
		;
	*out = session_json(s, true);
	pthread_mutex_unlock(&s->lock);
	host_session_put(s);
	return 0;
}

int host_list(struct host *h, json_t **out, struct failure *f)
{
	json_t *list = json_array();

	(void)f;
	SCOPED_LOCK(&h->lock);
	for (struct session *s = h->sessions; s; s = s->next) {
		SCOPED_LOCK(&s->lock);
		json_array_append_new(list, session_json(s, false));
	}
	*out = list;
	return 0;
}

/* Under lock. */
static int may_cancel(const struct session *s, struct failure *f)
{
	if (s->side == SESSION_DESTINATION && !s->terminal)
		return failure_set(f, -EBUSY, "session-state",
				   "Cancel it at the source; if that has gone, "
				   "`tranship resolve ID --give-up` here.",
				   "Session %.8s is led by the source.", s->id);
	if (!s->terminal && s->state == SESSION_RUNNING)
		return failure_set(f, -EBUSY, "session-state",
				   "What it has done there would be lost: let it come to its end.",
				   "Session %.8s is running and cannot be cancelled any more: the "
				   "guest runs at the destination.",
				   s->id);
	if (s->terminal || s->decided || s->state >= SESSION_COMMITTED)
		return failure_set(f, -EBUSY, "session-state", NULL,
				   "Session %.8s is %s and cannot be cancelled any more.", s->id,
				   session_state_name(s->state));
	return 0;
}

int host_cancel(struct host *h, const char *id, json_t **out, struct failure *f)
{
	struct session *s = host_session_get(h, id, -1, f);
	int err;

	if (!s)
		return -ENOENT;
	pthread_mutex_lock(&s->lock);
	err = may_cancel(s, f);
	s->cancelled |= !err;
	pthread_mutex_unlock(&s->lock);
	if (!err) {
		session_wake(s);
		*out = json_pack("{s:s}", "id", s->id);
	}
	host_session_put(s);
	return err;
}

/* The session that a person may decide about: of two with this id the one that needs it. */
static struct session *get_to_resolve(struct host *h, const char *id, struct failure *f)
{
	struct session *s = host_session_get(h, id, -1, f), *other;
	struct failure ignored = { 0 };
	bool needs;

	if (!s || s->side != SESSION_SOURCE)
		return s;
	pthread_mutex_lock(&s->lock);
	needs = s->state == SESSION_UNRESOLVED;
	pthread_mutex_unlock(&s->lock);
	other = needs ? NULL : host_session_get(h, s->id, SESSION_DESTINATION, &ignored);
	if (!other)
		return s;
	host_session_put(s);
	return other;
}

int host_resolve(struct host *h, const char *id, const char *action, json_t **out,
		 struct failure *f)
{
	bool run_here = !strcmp(action, "run-here");
	struct session *s;
	int err;

	if (!run_here && strcmp(action, "give-up"))
		return failure_set(f, -EINVAL, "usage", NULL,
				   "A session is resolved with run-here or give-up, not %s.",
				   action);
	s = get_to_resolve(h, id, f);
	if (!s)
		return -ENOENT;
	if (s->side != SESSION_SOURCE && s->side != SESSION_DESTINATION)
		err = failure_set(f, -EBUSY, "session-state", NULL,
				  "A measurement leaves nothing to resolve.");
	else
		err = s->side == SESSION_SOURCE ? session_source_resolve(s, run_here, f)
						: session_destination_resolve(s, run_here, f);
	if (!err) {
		SCOPED_LOCK(&s->lock);
		*out = session_json(s, true);
	}
	host_session_put(s);
	return err;
}

int host_vms(struct host *h, json_t **out, struct failure *f)
{
	*out = guest_list();
	if (!*out)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	host_mark_moved(h, *out);
	host_mark_claimed(h, *out);
	return 0;
}
