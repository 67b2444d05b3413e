// SPDX-License-Identifier: MIT
/* What others may see of a session, and what its thread tells them; see session.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/session/host_internal.h"
#include "control/session/postcopy_figures.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/io.h"
#include "lib/base/log.h"
#include "lib/base/text.h"

#define EVENTS_KEPT 500

/* Under lock. */
static void touch(struct session *s)
{
	s->seq++;
	pthread_cond_broadcast(&s->changed);
}

/* Under lock. */
static void set_state(struct session *s, enum session_state state)
{
	s->state = state;
	s->state_ns = clock_ns();
	touch(s);
}

void session_set_state(struct session *s, enum session_state state)
{
	SCOPED_LOCK(&s->lock);
	set_state(s, state);
}

bool session_wait_changed(struct session *s, uint64_t deadline_ns)
{
	struct timespec t = { .tv_sec = (time_t)(deadline_ns / NSEC_PER_SEC),
			      .tv_nsec = (long)(deadline_ns % NSEC_PER_SEC) };

	return pthread_cond_timedwait(&s->changed, &s->lock, &t) != ETIMEDOUT;
}

void session_wake(struct session *s)
{
	io_event_signal(s->wake_fd);
}

void session_drain_wake(struct session *s)
{
	io_event_clear(s->wake_fd);
}

/* --- states ---------------------------------------------------------------------------------- */

static int make_journal(struct session *s, struct failure *f)
{
	int err;

	if (s->journaled)
		return 0;
	err = journal_create(&s->journal, session_config(s)->state_dir, s->id,
			     session_side_name(s->side), f);
	s->journaled = !err;
	return err;
}

/* With places for faults: before a record nothing of it is there, after it all of it. */
static int append(struct session *s, enum session_state state, const json_t *fields,
		  struct failure *f)
{
	const char *side = session_side_name(s->side), *name = session_state_name(state);
	int err = fault_at_parts(side, "journal", name, "before");

	if (!err)
		err = journal_append(&s->journal, state, fields, f);
	if (!err)
		err = fault_at_parts(side, "journal", name, "after");
	return err ? failure_set(f, err, "journal", NULL, "A record could not be made: %s.",
				 strerror(-err))
		   : 0;
}

int session_enter(struct session *s, enum session_state state, const json_t *fields,
		  struct failure *f)
{
	int err = make_journal(s, f);

	if (!err)
		err = append(s, state, fields, f);
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
	text_clean(text);
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

/* Under lock. f may be NULL. */
static void set_failure(struct session *s, const struct failure *f)
{
	failure_clear(&s->failure);
	if (f)
		s->failure = *f;
	text_clean(s->failure.message);
	text_clean(s->failure.hint);
}

void session_show_failure(struct session *s, const struct failure *f)
{
	SCOPED_LOCK(&s->lock);
	set_failure(s, f);
	touch(s);
}

static json_t *failure_json(const struct failure *f)
{
	return json_pack("{s:s, s:s, s:s}", "code", f->code, "message", f->message, "hint",
			 f->hint);
}

/* With what there is to tell of the end, for whoever asks the next transhipd; host_recover(). */
static int append_end(struct session *s, enum session_state state, const json_t *fields,
		      const json_t *result, const struct failure *f, struct failure *why)
{
	json_t *all = fields ? json_copy((json_t *)fields) : json_object();
	int err;

	/* null takes back what an earlier end, UNRESOLVED, has said */
	json_object_set_new(all, "result", json_incref((json_t *)result) ?: json_null());
	json_object_set_new(all, "error", (f && *f->code ? failure_json(f) : NULL) ?: json_null());
	err = append(s, state, all, why);
	json_decref(all);
	return err;
}

void session_finish(struct session *s, enum session_state state, const json_t *fields,
		    json_t *result, const struct failure *f)
{
	struct failure why = { 0 };

	if (s->journaled && append_end(s, state, fields, result ? result : s->result, f, &why))
		log_error("%.8s: %s", s->id, why.message);
	if (f && failure_is_set(f))
		log_warn("%.8s %s: %s: %s", s->id, session_state_name(state), f->code, f->message);
	else
		log_info("%.8s %s", s->id, session_state_name(state));
	SCOPED_LOCK(&s->lock);
	if (result) {
		json_decref(s->result);
		s->result = result;
	}
	set_failure(s, f);
	s->promised_bytes = 0;
	s->terminal = true;
	s->opened = true;
	set_state(s, state);
}

void session_revive(struct session *s, enum session_state state)
{
	struct failure why = { 0 };

	if (s->journaled && append(s, state, NULL, &why))
		log_error("%.8s: %s", s->id, why.message);
	SCOPED_LOCK(&s->lock);
	json_decref(s->result);
	s->result = NULL;
	failure_clear(&s->failure);
	s->terminal = false;
	set_state(s, state);
}

/* --- options --------------------------------------------------------------------------------- */

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

/* --- looking --------------------------------------------------------------------------------- */

/* Under lock. */
static json_t *progress_json(const struct session *s)
{
	const struct session_progress *p = &s->progress;
	bool known = p->pending_known && p->total_bytes;
	double percent =
		known ? 100.0 * (1.0 - (double)p->pending_bytes / (double)p->total_bytes) : 0;

	return json_pack("{s:i, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:f, s:s, s:s, s:i, s:o*}",
			 "round", (int)p->round, "pending_bytes", (json_int_t)p->pending_bytes,
			 "total_bytes", (json_int_t)p->total_bytes, "sent_bytes",
			 (json_int_t)p->sent_bytes, "wire_bytes", (json_int_t)p->wire_bytes,
			 "dirty_rate", p->dirty_rate, "throughput", p->throughput,
			 "predicted_downtime_ms", p->predicted_downtime_ms, "percent",
			 known ? json_real(percent < 0 ? 0.0 : percent) : json_null(), "elapsed_ms",
			 clock_ms_since(s->started_ns), "state", session_state_name(s->state),
			 "reason", p->reason, "throttle_percent", (int)p->throttle_percent,
			 "postcopy", p->postcopy ? postcopy_figures_json(&p->faults) : NULL);
}

json_t *session_json(const struct session *s, bool whole)
{
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:b, s:I, s:o}", "id", s->id, "vm", s->vm,
			      "side", session_side_name(s->side), "state",
			      session_state_name(s->state), "terminal", s->terminal, "seq",
			      (json_int_t)s->seq, "progress", progress_json(s));
	const json_t *status = json_object_get(s->result, "status");

	if (json_is_string(status))
		json_object_set(j, "status", (json_t *)status);
	if (session_option_bool(s, "dry_run"))
		json_object_set_new(j, "dry_run", json_true());
	if (!whole)
		return j;
	json_object_set_new(j, "checks", json_deep_copy(s->checks));
	json_object_set_new(j, "events", json_deep_copy(s->events));
	if (s->goals.mode)
		json_object_set_new(j, "goals", goals_json(&s->goals));
	if (s->result)
		json_object_set_new(j, "result", json_deep_copy(s->result));
	if (failure_is_set(&s->failure))
		json_object_set_new(j, "error", failure_json(&s->failure));
	return j;
}
