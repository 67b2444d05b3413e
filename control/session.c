// SPDX-License-Identifier: MIT
/*
 * The sessions of one host: the list, what others may see of a session, admission.
 *
 * Theory of operation
 *   host_migrate and host_peer_offer make a session and start its thread; from then on the thread
 *   works and the API's threads look at the visible part, wait for it to change, set `cancelled`,
 *   or post a request. A terminal session stays listed, so that its result can be read; the oldest
 *   terminal ones are forgotten beyond SESSIONS_KEPT.
 */
#include "control/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "control/host.h"
#include "control/host_internal.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define SESSIONS_KEPT 256
#define EVENTS_KEPT   500

const struct config *session_config(const struct session *s)
{
	return &s->host->config;
}

const char *session_side_name(enum session_side side)
{
	static const char *const names[] = { "source", "destination", "observer" };

	return names[side];
}

/* --- the visible part ------------------------------------------------------------------------ */

/* Under lock. */
static void touch(struct session *s)
{
	s->seq++;
	pthread_cond_broadcast(&s->changed);
}

void session_set_state(struct session *s, enum session_state state)
{
	SCOPED_LOCK(&s->lock);
	s->state = state;
	touch(s);
}

int session_enter(struct session *s, enum session_state state, const json_t *fields,
		  struct failure *f)
{
	int err;

	if (!s->journaled) {
		err = journal_create(&s->journal, s->host->config.state_dir, s->id,
				     session_side_name(s->side), f);
		if (err)
			return err;
		s->journaled = true;
	}
	err = journal_append(&s->journal, state, fields, f);
	if (err)
		return err;
	session_set_state(s, state);
	return 0;
}

void session_event(struct session *s, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_info("%.8s %s: %s", s->id, s->vm, text);
	SCOPED_LOCK(&s->lock);
	if (json_array_size(s->events) >= EVENTS_KEPT)
		json_array_remove(s->events, 1);
	json_array_append_new(s->events, json_pack("{s:f, s:s}", "ms",
						   clock_ms_since(s->started_ns), "text", text));
	touch(s);
}

bool session_cancelled(struct session *s)
{
	SCOPED_LOCK(&s->lock);
	return s->cancelled;
}

void session_finish(struct session *s, enum session_state state, json_t *result,
		    const struct failure *f)
{
	if (s->journaled) {
		struct failure ignored = { 0 };

		if (journal_append(&s->journal, state, NULL, &ignored))
			log_error("%.8s: %s", s->id, ignored.message);
	}
	if (f && failure_is_set(f))
		log_warn("%.8s %s: %s: %s", s->id, session_state_name(state), f->code, f->message);
	else
		log_info("%.8s %s", s->id, session_state_name(state));
	SCOPED_LOCK(&s->lock);
	s->state = state;
	json_decref(s->result);
	s->result = result;
	if (f)
		s->failure = *f;
	s->promised_bytes = 0;
	s->terminal = true;
	s->opened = true;
	touch(s);
}

bool session_option_bool(const struct session *s, const char *name)
{
	return json_is_true(json_object_get(json_object_get(s->request, "options"), name));
}

const char *session_option_text(const struct session *s, const char *name, const char *fallback)
{
	const char *text =
		json_string_value(json_object_get(json_object_get(s->request, "options"), name));

	return text && *text ? text : fallback;
}

uint64_t session_option_number(const struct session *s, const char *name, uint64_t fallback)
{
	const json_t *j = json_object_get(json_object_get(s->request, "options"), name);

	return json_is_integer(j) && json_integer_value(j) >= 0 ? (uint64_t)json_integer_value(j)
								 : fallback;
}

/* --- the list -------------------------------------------------------------------------------- */

int session_claim_vm(struct session *s, const struct guest *g, struct failure *f)
{
	struct host *h = s->host;
	char key[sizeof(s->vm_key)];

	snprintf(key, sizeof(key), "%d/%" PRIu64, g->pid, g->start_time);
	SCOPED_LOCK(&h->lock);
	for (struct session *o = h->sessions; o; o = o->next) {
		if (o == s)
			continue;
		SCOPED_LOCK(&o->lock);
		if ((o->terminal && o->state != SESSION_UNRESOLVED) || strcmp(o->vm_key, key))
			continue;
		return failure_set(f, -EBUSY, "vm-busy",
				   "Wait for it, or cancel it with `tranship cancel`.",
				   "Session %.8s already works on this VM.", o->id);
	}
	SCOPED_LOCK(&s->lock);
	snprintf(s->vm_key, sizeof(s->vm_key), "%s", key);
	snprintf(s->vm, sizeof(s->vm), "%s", g->desc.name);
	return 0;
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

static void session_free(struct session *s)
{
	json_decref(s->request);
	json_decref(s->checks);
	json_decref(s->events);
	json_decref(s->result);
	json_decref(s->answer);
	json_decref(s->recovered);
	if (s->journaled)
		journal_close(&s->journal);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

static struct session *session_new(struct host *h, enum session_side side, const char *id,
				   json_t *request)
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
	s->started_ns = clock_ns();
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->journal.fd = -1;
	snprintf(s->id, sizeof(s->id), "%s", id);
	for (int i = 0; i < IPC_ID_SIZE; i++)
		sscanf(id + 2 * i, "%2hhx", &s->raw_id[i]);
	snprintf(s->vm, sizeof(s->vm), "%s",
		 json_string_value(json_object_get(request, "vm")) ?: "");
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (s->wake_fd < 0) {
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
		over = s->terminal && s->state != SESSION_UNRESOLVED && ++kept > SESSIONS_KEPT &&
		       !s->watchers;
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
	};

	if (s->recovered)
		sides[s->side].recover(s, s->recovered);
	else
		sides[s->side].run(s);
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

/*
 * Lists the session and starts its thread, or, for an observation, leaves the work to the calling
 * thread (which then holds a reference). On failure it is freed.
 */
static int session_start(struct session *s, struct failure *f)
{
	struct host *h = s->host;
	bool thread = s->side != SESSION_OBSERVER || s->recovered;
	int err = 0;

	SCOPED_LOCK(&h->lock);
	forget_old(h);
	if (!s->recovered && live_sessions(h) >= h->config.sessions_max) {
		unsigned int max = h->config.sessions_max;

		session_free(s);
		return failure_set(f, -EBUSY, "busy", "Wait for one to end.",
				   "This host already has %u sessions under way.", max);
	}
	for (struct session *o = h->sessions; o; o = o->next) {
		if (o->side != s->side || strcmp(o->id, s->id))
			continue;
		session_free(s);
		return failure_set(f, -EEXIST, "session-state", NULL,
				   "A session of this id exists already.");
	}
	if (thread)
		err = pthread_create(&s->thread, NULL, session_thread, s);
	if (err) {
		session_free(s);
		return failure_set(f, -err, "internal", NULL, "no thread could be started");
	}
	s->threaded = thread;
	s->watchers += !thread;
	s->next = h->sessions;
	h->sessions = s;
	return 0;
}

struct session *host_session_get(struct host *h, const char *id, int side, struct failure *f)
{
	struct session *found = NULL;

	SCOPED_LOCK(&h->lock);
	for (struct session *s = h->sessions; s; s = s->next) {
		if ((side >= 0 && (int)s->side != side) || strncmp(s->id, id, strlen(id)))
			continue;
		if (strlen(id) < 6 || (found && strcmp(found->id, s->id)))
			break;
		/* Both sides may be here (two VMs of one host): the source speaks for the session. */
		if (!found || s->side == SESSION_SOURCE)
			found = s;
	}
	if (!found) {
		failure_set(f, -ENOENT, "session-not-found", "`tranship status` lists them.",
			    "There is no session %s here.", id);
		return NULL;
	}
	SCOPED_LOCK(&found->lock);
	found->watchers++;
	return found;
}

void host_session_put(struct session *s)
{
	SCOPED_LOCK(&s->lock);
	s->watchers--;
}

void session_wake(struct session *s)
{
	uint64_t one = 1;

	if (write(s->wake_fd, &one, sizeof(one)) < 0) {
		/* full: it is awake already */
	}
}

/* --- host ------------------------------------------------------------------------------------ */

const struct config *host_config(const struct host *h)
{
	return &h->config;
}

static void recover(struct host *h, const char *path)
{
	struct failure f = { 0 };
	json_t *content = journal_read(path, &f);
	const char *state_name, *id;
	enum session_side side = SESSION_SOURCE;
	enum session_state state;
	char suffix[32];
	struct session *s;
	const char *slash = strrchr(path, '/');
	char id_text[SESSION_ID_TEXT] = "";

	if (!content) {
		log_error("%s: %s", path, f.message);
		return;
	}
	state_name = json_string_value(json_object_get(content, "state"));
	sscanf(slash ? slash + 1 : path, "%32[0-9a-f]", id_text);
	id = id_text;
	for (; side <= SESSION_OBSERVER; side++) {
		snprintf(suffix, sizeof(suffix), ".%s.journal", session_side_name(side));
		if (strstr(path, suffix))
			break;
	}
	if (!state_name || session_state_parse(state_name, &state) || strlen(id) != 32 ||
	    side > SESSION_OBSERVER) {
		log_error("%s: not a session's journal", path);
		json_decref(content);
		return;
	}
	if (state == SESSION_DONE || state == SESSION_CANCELLED || state == SESSION_FAILED) {
		json_decref(content);
		return;
	}
	log_warn("session %.8s (%s) was %s when transhipd ended; recovering it", id,
		 session_side_name(side), state_name);
	s = session_new(h, side, id, json_object_get(content, "request"));
	if (!s) {
		json_decref(content);
		return;
	}
	s->recovered = content;
	s->state = state;
	s->journaled = !journal_open(&s->journal, path, NULL, &f);
	if (!s->journaled)
		log_error("%s: %s", path, f.message);
	failure_clear(&f);
	if (session_start(s, &f))
		log_error("%s: %s", path, f.message);
}

int host_new(struct host **out, const struct config *c, struct failure *f)
{
	struct host *h = calloc(1, sizeof(*h));
	char **paths = NULL;
	size_t count = 0;
	int err;

	if (!h)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	h->config = *c;
	pthread_mutex_init(&h->lock, NULL);
	err = journal_list(c->state_dir, &paths, &count);
	if (err && err != -ENOENT) {
		free(h);
		return failure_set(f, err, "journal", "Check the state directory.",
				   "The journals under %s cannot be read: %s.", c->state_dir,
				   strerror(-err));
	}
	for (size_t i = 0; i < count; i++) {
		recover(h, paths[i]);
		free(paths[i]);
	}
	free(paths);
	*out = h;
	return 0;
}

void host_stop(struct host *h)
{
	SCOPED_LOCK(&h->lock);
	h->ending = true;
	for (struct session *s = h->sessions; s; s = s->next) {
		pthread_mutex_lock(&s->lock);
		s->cancelled = true;
		touch(s);
		pthread_mutex_unlock(&s->lock);
		session_wake(s);
	}
}

void host_free(struct host *h)
{
	struct session *s;

	host_stop(h);
	while ((s = h->sessions)) {
		h->sessions = s->next;
		if (s->threaded)
			pthread_join(s->thread, NULL);
		session_free(s);
	}
	pthread_mutex_destroy(&h->lock);
	free(h);
}

bool host_ending(const struct host *h)
{
	return __atomic_load_n(&h->ending, __ATOMIC_RELAXED);
}

static int new_id(char id[SESSION_ID_TEXT])
{
	uint8_t raw[IPC_ID_SIZE];

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		return -EIO;
	for (int i = 0; i < IPC_ID_SIZE; i++)
		snprintf(id + 2 * i, 3, "%02x", raw[i]);
	return 0;
}

int host_migrate(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	char id[SESSION_ID_TEXT];
	struct session *s;
	int err;

	if (!json_is_string(json_object_get(in, "vm")) ||
	    !json_is_string(json_object_get(in, "dest")))
		return failure_set(f, -EINVAL, "usage", NULL,
				   "A migration needs the members vm and dest.");
	if (new_id(id))
		return failure_set(f, -EIO, "internal", NULL, "no random numbers");
	s = session_new(h, SESSION_SOURCE, id, (json_t *)in);
	if (!s)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	err = session_start(s, f);
	if (err)
		return err;
	*out = json_pack("{s:s}", "id", id);
	return 0;
}

/* --- looking --------------------------------------------------------------------------------- */

/* Under lock. */
static json_t *progress_json(const struct session *s)
{
	const struct session_progress *p = &s->progress;
	double percent = p->total_bytes ? 100.0 * (1.0 - (double)p->pending_bytes /
								(double)p->total_bytes) : 0;

	return json_pack("{s:i, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:s}", "round",
			 (int)p->round, "pending_bytes", (json_int_t)p->pending_bytes, "total_bytes",
			 (json_int_t)p->total_bytes, "sent_bytes", (json_int_t)p->sent_bytes,
			 "wire_bytes", (json_int_t)p->wire_bytes, "dirty_rate", p->dirty_rate,
			 "throughput", p->throughput, "predicted_downtime_ms",
			 p->predicted_downtime_ms, "percent", percent < 0 ? 0.0 : percent,
			 "elapsed_ms", clock_ms_since(s->started_ns), "state",
			 session_state_name(s->state));
}

/* Under lock. */
static json_t *session_json(const struct session *s, bool whole)
{
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:b, s:I, s:o}", "id", s->id, "vm", s->vm, "side",
			      session_side_name(s->side), "state",
			      session_state_name(s->state), "terminal", s->terminal, "seq",
			      (json_int_t)s->seq, "progress", progress_json(s));

	if (!whole)
		return j;
	json_object_set_new(j, "checks", json_deep_copy(s->checks));
	json_object_set_new(j, "events", json_deep_copy(s->events));
	if (s->result)
		json_object_set_new(j, "result", json_deep_copy(s->result));
	if (failure_is_set(&s->failure))
		json_object_set_new(j, "error",
				    json_pack("{s:s, s:s, s:s}", "code", s->failure.code, "message",
					      s->failure.message, "hint", s->failure.hint));
	return j;
}

/* Under lock: waits for changed until the deadline; false when it passed. */
bool session_wait_changed(struct session *s, uint64_t deadline_ns)
{
	struct timespec t = { .tv_sec = (time_t)(deadline_ns / NSEC_PER_SEC),
			      .tv_nsec = (long)(deadline_ns % NSEC_PER_SEC) };

	return pthread_cond_timedwait(&s->changed, &s->lock, &t) != ETIMEDOUT;
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

int host_cancel(struct host *h, const char *id, json_t **out, struct failure *f)
{
	struct session *s = host_session_get(h, id, -1, f);
	int err = 0;

	if (!s)
		return -ENOENT;
	pthread_mutex_lock(&s->lock);
	if (s->side == SESSION_DESTINATION && !s->terminal)
		err = failure_set(f, -EBUSY, "session-state", "Cancel it at the source.",
				  "Session %.8s is led by the source.", s->id);
	else if (s->terminal || s->state >= SESSION_COMMITTED)
		err = failure_set(f, -EBUSY, "session-state", NULL,
				  "Session %.8s is %s and cannot be cancelled any more.", s->id,
				  session_state_name(s->state));
	else
		s->cancelled = true;
	pthread_mutex_unlock(&s->lock);
	if (!err) {
		session_wake(s);
		*out = json_pack("{s:s}", "id", s->id);
	}
	host_session_put(s);
	return err;
}

int host_resolve(struct host *h, const char *id, const char *action, json_t **out,
		 struct failure *f)
{
	bool run_here = !strcmp(action, "run-here");
	struct session *s;
	int err;

	if (!run_here && strcmp(action, "give-up"))
		return failure_set(f, -EINVAL, "usage", NULL,
				   "A session is resolved with run-here or give-up, not %s.", action);
	s = host_session_get(h, id, -1, f);
	if (!s)
		return -ENOENT;
	err = s->side == SESSION_SOURCE ? session_source_resolve(s, run_here, f)
					: session_destination_resolve(s, run_here, f);
	if (!err) {
		SCOPED_LOCK(&s->lock);
		*out = session_json(s, true);
	}
	host_session_put(s);
	return err;
}

int host_dirty_rate(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	json_int_t seconds = json_integer_value(json_object_get(in, "seconds"));
	char id[SESSION_ID_TEXT];
	struct session *s;
	int err;

	if (!json_is_string(json_object_get(in, "vm")) || seconds < 1 || seconds > 3600)
		return failure_set(f, -EINVAL, "usage", NULL,
				   "dirty-rate needs a VM and 1 to 3600 seconds.");
	if (new_id(id))
		return failure_set(f, -EIO, "internal", NULL, "no random numbers");
	s = session_new(h, SESSION_OBSERVER, id, (json_t *)in);
	if (!s)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	err = session_start(s, f);
	if (err)
		return err;
	err = session_observe(s, out, f);
	session_finish(s, err ? SESSION_FAILED : SESSION_DONE, NULL, f);
	host_session_put(s);
	return err;
}

int host_vms(struct host *h, json_t **out, struct failure *f)
{
	(void)h;
	*out = guest_list();
	return *out ? 0 : failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
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
