// SPDX-License-Identifier: MIT
/*
 * Requests of API threads to a session's thread, one at a time.
 *
 * Theory of operation
 *   A request is posted into the session's one slot and the thread is woken; others wait for the
 *   slot. The thread takes it, works, answers. Who gives up waiting withdraws what was not taken
 *   yet, so that nothing is begun for somebody who has gone; of what was taken the answer is thrown
 *   away. A request belongs to its asker until it is abandoned, then to the slot. All under the
 *   session's lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "control/session/session.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

struct session_request {
	enum session_ask what;
	bool taken, done, abandoned;
	int err;
	struct failure failure;
	json_t *answer;
};

static void request_free(struct session_request *r)
{
	if (!r)
		return;
	json_decref(r->answer);
	free(r);
}

/* Under lock: the answer of a request that is done. */
static int take_answer(struct session_request *r, json_t **out, struct failure *f)
{
	if (r->err) {
		if (failure_is_set(&r->failure))
			*f = r->failure;
		return r->err;
	}
	if (out) {
		*out = r->answer;
		r->answer = NULL;
	}
	return 0;
}

static int too_late(struct failure *f)
{
	return failure_set(f, -ETIMEDOUT, "session-state", "Look at that transhipd's log.",
			   "The session's thread did not answer in time.");
}

int session_ask(struct session *s, enum session_ask what, unsigned int limit_ms, json_t **out,
		struct failure *f)
{
	uint64_t deadline = clock_ns() + limit_ms * NSEC_PER_MSEC;
	struct session_request *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	r->what = what;
	pthread_mutex_lock(&s->lock);
	while (s->attended && s->posted && session_wait_changed(s, deadline))
		;
	if (!s->attended) {
		err = -ESHUTDOWN;
	} else if (s->posted) {
		err = too_late(f);
	} else {
		s->posted = r;
		session_wake(s);
		while (!r->done && session_wait_changed(s, deadline))
			;
		err = r->done ? take_answer(r, out, f) : too_late(f);
		if (!r->done && r->taken) {
			r->abandoned = true;
			r = NULL;
		} else if (!r->done) {
			s->posted = NULL;
			pthread_cond_broadcast(&s->changed);
		}
	}
	pthread_mutex_unlock(&s->lock);
	request_free(r);
	return err;
}

enum session_ask session_asked(struct session *s)
{
	SCOPED_LOCK(&s->lock);
	if (!s->posted || s->posted->taken)
		return ASK_NONE;
	s->posted->taken = true;
	return s->posted->what;
}

/* Under lock. */
static void finish_request(struct session *s, int err, const struct failure *f, json_t *answer)
{
	struct session_request *r = s->posted;

	s->posted = NULL;
	s->seq++;
	pthread_cond_broadcast(&s->changed);
	r->err = err;
	r->answer = answer;
	if (f)
		r->failure = *f;
	r->done = true;
	if (r->abandoned)
		request_free(r);
}

void session_answer(struct session *s, int err, const struct failure *f, json_t *answer)
{
	SCOPED_LOCK(&s->lock);
	if (s->posted && s->posted->taken)
		finish_request(s, err, f, answer);
	else
		json_decref(answer);
}

void session_leave(struct session *s)
{
	SCOPED_LOCK(&s->lock);
	s->attended = false;
	fd_close(&s->wish_fd); /* sessions are kept long after */
	if (s->posted)
		finish_request(s, -ESHUTDOWN, NULL, NULL);
	else
		pthread_cond_broadcast(&s->changed);
}
