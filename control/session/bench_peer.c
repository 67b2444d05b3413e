// SPDX-License-Identifier: MIT
/*
 * A benchmark that another transhipd leads: this side listens, measures its part of each row, and
 * says what it came to.
 *
 * Theory of operation
 *   The offer is the whole plan; of it nothing is believed that bench_options_read has not checked.
 *   The session's thread serves the leader's requests, one at a time, and its data plane. The data
 *   plane ends when its streams do, so a leader that has gone leaves nothing here; that is no
 *   failure unless a row was under way.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "control/bench/bench_lead.h"
#include "control/session/host_internal.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define PROTOCOL_VERSION 1
#define OPEN_MS		 40000u
#define REQUEST_MS	 15000u

struct peer {
	struct session *s;
	struct failure f;
	struct bench_options o;
	struct bench_side side;
	bool result_asked; /* and not answered: the row goes on */
	bool finished;	   /* by the leader, whose request is to be answered */
};

/* --- beginning -------------------------------------------------------------------------------- */

static int check(struct peer *p)
{
	const struct config *c = session_config(p->s);
	int err = bench_options_read(&p->o, json_object_get(p->s->request, "options"), &p->f);

	if (err)
		return err;
	if (!c->allow_plaintext)
		return failure_set(
			&p->f, -EPERM, "plaintext-refused",
			"Start transhipd with --allow-plaintext on both hosts.",
			"The destination's transhipd does not allow unencrypted streams.");
	/* the leader has put something else in its place */
	if (p->o.data == IPC_BENCH_FILE)
		return failure_set(&p->f, -EINVAL, "usage", NULL,
				   "A file is not to be sent from the side that is led.");
	return 0;
}

static void answer_offer(struct peer *p, const struct data_addresses *at)
{
	SCOPED_LOCK(&p->s->lock);
	p->s->answer =
		json_pack("{s:i, s:o, s:s, s:s, s:s, s:s}", "version", PROTOCOL_VERSION, "data",
			  data_addresses_json(at), "tx", bench_tx_name(p->side.ready.tx),
			  "tx_reason", p->side.ready.tx_reason, "rx", p->side.ready.rx_reason,
			  "congestion", p->side.congestion);
	p->s->opened = true;
	p->s->seq++;
	pthread_cond_broadcast(&p->s->changed);
}

static int open_side(struct peer *p)
{
	const char *secret = json_string_value(json_object_get(p->s->request, "secret"));
	struct data_addresses at = { .count = 0 };
	uint8_t raw[IPC_SECRET_SIZE];
	int err = check(p);

	if (err)
		return err;
	{
		SCOPED_LOCK(&p->s->lock);
		p->s->promised_bytes = p->o.memory;
	}
	for (int i = 0; i < IPC_SECRET_SIZE; i++)
		sscanf(secret + 2 * i, "%2hhx", &raw[i]);
	err = bench_side_listen(&p->side, session_config(p->s), &p->o, p->s->raw_id, raw, &at,
				&p->f);
	explicit_bzero(raw, sizeof(raw));
	{
		/* made and filled: it is missing in what is available */
		SCOPED_LOCK(&p->s->lock);
		p->s->promised_bytes = 0;
	}
	if (!err) {
		session_set_state(p->s, SESSION_COPYING);
		answer_offer(p, &at);
	}
	return err;
}

/* --- serving ---------------------------------------------------------------------------------- */

static int refuse(struct peer *p, const char *message)
{
	struct failure f = { 0 };

	failure_set(&f, -EBUSY, "session-state", NULL, "%s", message);
	session_answer(p->s, -EBUSY, &f, NULL);
	return 0;
}

static int begin_row(struct peer *p)
{
	int err;

	if (p->side.running || p->side.runs >= p->o.nsizes)
		return refuse(p, "No row of the benchmark is due.");
	err = bench_side_run(&p->side, p->o.sizes[p->side.runs], &p->f);
	if (!err)
		session_answer(p->s, 0, NULL, NULL);
	return err;
}

static int stop_row(struct peer *p)
{
	int err = bench_side_stop(&p->side, &p->f);

	if (!err)
		session_answer(p->s, 0, NULL, NULL);
	return err;
}

static void answer_result(struct peer *p)
{
	p->result_asked = false;
	session_answer(p->s, 0, NULL, bench_account_to_json(&p->side.account));
}

static int handle_request(struct peer *p)
{
	switch (session_asked(p->s)) {
	case ASK_NONE:
		return 0;
	case ASK_BENCH_RUN:
		return begin_row(p);
	case ASK_BENCH_STOP:
		return stop_row(p);
	case ASK_BENCH_RESULT:
		if (!p->side.runs)
			return refuse(p, "No row of the benchmark has begun.");
		p->result_asked = true;
		if (!p->side.running)
			answer_result(p);
		return 0;
	case ASK_FINISH:
		p->finished = true;
		return 0;
	default:
		return refuse(p, "This is a benchmark.");
	}
}

static int handle_dataplane(struct peer *p)
{
	bool done = false, idle = !p->side.running;
	int err = bench_side_message(&p->side, NULL, &done, &p->f);

	if (!err && done && p->result_asked)
		answer_result(p);
	/* its streams have ended between two rows: so has the benchmark */
	if (err && idle && !strcmp(p->f.code, "dataplane-died")) {
		failure_clear(&p->f);
		p->finished = true;
		return 0;
	}
	return err;
}

static bool given_up(struct peer *p)
{
	bool ending = host_ending(p->s->host);

	SCOPED_LOCK(&p->s->lock);
	if (!p->s->cancelled && !p->s->abort_wanted && !ending)
		return false;
	failure_set(&p->f, -ECANCELED, "cancelled", NULL, "The benchmark was cancelled here.");
	return true;
}

static int serve(struct peer *p)
{
	int err = 0;

	while (!err && !p->finished) {
		struct pollfd w[2] = { { .fd = p->s->wake_fd, .events = POLLIN },
				       { .fd = p->side.dp.sock, .events = POLLIN } };

		if (poll(w, 2, -1) < 0)
			continue;
		if (w[0].revents) {
			session_drain_wake(p->s);
			err = given_up(p) ? -ECANCELED : handle_request(p);
		}
		if (!err && w[1].revents)
			err = handle_dataplane(p);
	}
	return err;
}

void session_bench_peer_run(struct session *s)
{
	struct peer p = { .s = s, .side.dp = DATAPLANE_NONE };
	enum session_state end = SESSION_DONE;
	int err = open_side(&p);

	if (!err)
		err = serve(&p);
	bench_side_end(&p.side);
	if (err)
		end = err == -ECANCELED ? SESSION_CANCELLED : SESSION_FAILED;
	session_finish(s, end, NULL, NULL, err ? &p.f : NULL);
	session_answer(s, err, err ? &p.f : NULL, NULL);
}

/* --- the API's threads ------------------------------------------------------------------------ */

static bool is_hex(const char *text, size_t digits)
{
	return text && strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

static int check_shape(const json_t *in, struct failure *f)
{
	json_int_t version = json_integer_value(json_object_get(in, "version"));

	if (version != PROTOCOL_VERSION)
		return failure_set(f, -EPROTO, "peer-version",
				   "Use the same version of tranship on both hosts.",
				   "This host speaks version %d of the protocol, the other %d.",
				   PROTOCOL_VERSION, (int)version);
	if (!is_hex(json_string_value(json_object_get(in, "id")), 2 * IPC_ID_SIZE) ||
	    !is_hex(json_string_value(json_object_get(in, "secret")), 2 * IPC_SECRET_SIZE) ||
	    !json_is_object(json_object_get(in, "options")))
		return failure_set(f, -EINVAL, "usage", NULL, "The offer is malformed.");
	return 0;
}

/* Under lock: what became of a session whose thread attends no more. */
static int already_over(const struct session *s, struct failure *f)
{
	if (failure_is_set(&s->failure))
		return failure_set(f, -EBUSY, s->failure.code, s->failure.hint, "%s",
				   s->failure.message);
	return failure_set(f, -EBUSY, "session-state", NULL, "The benchmark is over here.");
}

static json_t *with_name(const json_t *in)
{
	json_t *request = json_copy((json_t *)in);

	json_object_set_new(request, "vm", json_string("(bench)"));
	return request;
}

int host_peer_bench(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	uint64_t deadline = clock_ns() + OPEN_MS * NSEC_PER_MSEC;
	struct session *s;
	json_t *request;
	int err = check_shape(in, f);

	if (err)
		return err;
	request = with_name(in);
	s = host_session_open(h, SESSION_BENCH_PEER, json_string_value(json_object_get(in, "id")),
			      request, f);
	json_decref(request);
	if (!s)
		return -EBUSY;
	pthread_mutex_lock(&s->lock);
	while (!s->opened && session_wait_changed(s, deadline))
		;
	if (s->answer && s->opened && !s->terminal)
		*out = json_deep_copy(s->answer);
	else if (s->terminal)
		err = already_over(s, f);
	else
		err = failure_set(f, -ETIMEDOUT, "peer-failed", NULL,
				  "The destination did not get ready in time.");
	pthread_mutex_unlock(&s->lock);
	host_session_put(s);
	return err;
}

static int ask(struct host *h, const char *id, enum session_ask what, json_t **out,
	       struct failure *f)
{
	struct session *s = host_session_get(h, id, SESSION_BENCH_PEER, f);
	int err;

	if (!s)
		return -ENOENT;
	err = session_ask(s, what, REQUEST_MS, out, f);
	if (err == -ESHUTDOWN) {
		SCOPED_LOCK(&s->lock);
		err = what == ASK_FINISH ? 0 : already_over(s, f);
	}
	host_session_put(s);
	return err;
}

int host_peer_bench_run(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return ask(h, id, ASK_BENCH_RUN, out, f);
}

int host_peer_bench_stop(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return ask(h, id, ASK_BENCH_STOP, out, f);
}

int host_peer_bench_result(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return ask(h, id, ASK_BENCH_RESULT, out, f);
}

int host_peer_bench_finish(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return ask(h, id, ASK_FINISH, out, f);
}
