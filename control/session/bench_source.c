// SPDX-License-Identifier: MIT
/*
 * A benchmark that this transhipd leads: a session with a thread, a place among sessions-max, and
 * no VM and no journal. The other side is another transhipd, reached as a migration's destination.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/bench/bench_lead.h"
#include "control/client.h"
#include "control/session/bench_probe.h"
#include "control/bench/bench_options.h"
#include "control/session/host_internal.h"
#include "control/session/options.h"
#include "lib/base/cleanup.h"
#include "lib/base/text.h"

#define PROTOCOL_VERSION 1
#define OPEN_MS		 45000u /* filling much memory takes a while */
#define CALL_MS		 10000u
#define RESULT_MS	 20000u

struct far {
	struct session *s;
	struct client *peer;
	char id[SESSION_ID_TEXT]; /* of the session there */
	bool open;
};

/* --- the other transhipd ---------------------------------------------------------------------- */

static int malformed(struct failure *f)
{
	return failure_set(f, -EPROTO, "peer-failed", "Use the same version on both hosts.",
			   "The destination's answer about the benchmark is malformed.");
}

static int far_open(void *arg, const struct bench_opening *o, struct bench_answer *out,
		    struct failure *f)
{
	char secret[2 * IPC_SECRET_SIZE + 1];
	struct far *far = arg;
	json_t *in, *answer = NULL, *options = json_copy((json_t *)o->options);
	int err;

	text_hex(far->id, o->id, sizeof(o->id));
	text_hex(secret, o->secret, sizeof(o->secret));
	/* a path of this host is nothing to the other */
	if (o->o->data == IPC_BENCH_FILE) {
		json_object_set_new(options, "data", json_string("zero"));
		json_object_del(options, "file");
	}
	in = json_pack("{s:i, s:s, s:s, s:o}", "version", PROTOCOL_VERSION, "id", far->id, "secret",
		       secret, "options", options);
	explicit_bzero(secret, sizeof(secret));
	client_set_interrupt(far->peer, far->s->wake_fd);
	err = client_call(far->peer, "POST", "/v1/peer/bench", in, &answer, OPEN_MS,
			  "peer-unreachable", f);
	client_set_interrupt(far->peer, -1);
	/* also when the answer was not waited for */
	far->open = client_was_sent(far->peer);
	if (!err && bench_answer_from_json(out, answer))
		err = malformed(f);
	json_decref(answer);
	json_decref(in);
	return err;
}

static int call(struct far *far, const char *verb, json_t **out, unsigned int ms, struct failure *f)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/peer/bench/%s/%s", far->id, verb);
	return client_call(far->peer, "POST", path, NULL, out, ms, "peer-unreachable", f);
}

static int far_run(void *arg, struct failure *f)
{
	return call(arg, "run", NULL, CALL_MS, f);
}

static int far_stop(void *arg, struct failure *f)
{
	return call(arg, "stop", NULL, CALL_MS, f);
}

static int far_result(void *arg, struct bench_account *out, struct failure *f)
{
	json_t *answer = NULL;
	int err = call(arg, "result", &answer, RESULT_MS, f);

	if (!err && bench_account_from_json(out, answer))
		err = malformed(f);
	json_decref(answer);
	return err;
}

static void far_close(void *arg)
{
	struct far *far = arg;
	struct failure ignored = { 0 };

	/* it ends by itself as well, with its streams */
	if (far->open)
		call(far, "finish", NULL, CALL_MS, &ignored);
	far->open = false;
}

static const struct bench_far_ops far_ops = {
	.open = far_open,
	.run = far_run,
	.stop = far_stop,
	.result = far_result,
	.close = far_close,
};

/* --- the session ------------------------------------------------------------------------------ */

static bool cancelled(void *arg)
{
	struct far *far = arg;

	return session_cancelled(far->s) || host_ending(far->s->host);
}

/* What is known so far is there for whoever asks for the session. */
static void publish(void *arg, const json_t *result)
{
	struct session *s = ((struct far *)arg)->s;
	json_t *copy = json_deep_copy(result);

	json_object_set_new(copy, "id", json_string(s->id));
	SCOPED_LOCK(&s->lock);
	json_decref(s->result);
	s->result = copy;
	s->progress.wire_bytes = s->progress.sent_bytes =
		(uint64_t)json_integer_value(json_object_get(copy, "bytes"));
	s->seq++;
	pthread_cond_broadcast(&s->changed);
}

/* Without news. */
static struct bench_lead lead_of(struct far *far, const char *dest, const json_t *options)
{
	return (struct bench_lead){ .config = session_config(far->s),
				    .options = options,
				    .dest = dest,
				    .far_ops = &far_ops,
				    .far = far,
				    .cancel_fd = far->s->wake_fd,
				    .cancelled = cancelled,
				    .arg = far };
}

static int prepare(struct far *far, const struct bench_lead *lead, struct failure *f)
{
	struct bench_options checked;
	int err = bench_options_read(&checked, lead->options, f);

	if (err)
		return err;
	if (!session_config(far->s)->allow_plaintext)
		return failure_set(f, -EPERM, "plaintext-refused",
				   "Start transhipd with --allow-plaintext on both hosts.",
				   "This host's transhipd does not allow unencrypted streams.");
	return client_new(&far->peer, lead->dest, f);
}

int session_bench_probe(struct session *s, const char *dest, const json_t *options, json_t **result,
			struct failure *f)
{
	struct far far = { .s = s };
	struct bench_lead lead = lead_of(&far, dest, options);
	int err = prepare(&far, &lead, f);

	if (!err)
		err = bench_lead(&lead, result, f);
	client_free(far.peer);
	return err;
}

void session_bench_run(struct session *s)
{
	const json_t *options = json_object_get(s->request, "options");
	const char *dest = json_string_value(json_object_get(s->request, "dest"));
	struct far far = { .s = s };
	struct bench_lead lead = lead_of(&far, dest, options);
	enum session_state end = SESSION_DONE;
	struct failure f = { 0 };
	json_t *result = NULL;
	int err = prepare(&far, &lead, &f);

	lead.news = publish;
	if (!err)
		session_set_state(s, SESSION_COPYING);
	if (!err)
		err = bench_lead(&lead, &result, &f);
	else
		result = bench_result_empty(dest, bench_status(&f), &f);
	json_object_set_new(result, "id", json_string(s->id));
	client_free(far.peer);
	if (err)
		end = strcmp(f.code, "cancelled") ? SESSION_FAILED : SESSION_CANCELLED;
	session_finish(s, end, NULL, result, err ? &f : NULL);
}

int host_bench(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	static const char *const members[] = { "dest", "options", NULL };
	const json_t *dest = json_object_get(in, "dest");
	const json_t *options = json_object_get(in, "options");
	char id[SESSION_ID_TEXT];
	json_t *request;
	int err;

	if (!json_is_string(dest) || !json_is_object(options))
		return failure_set(f, -EINVAL, "usage", NULL,
				   "A benchmark needs the members dest and options.");
	if (request_check(in, members, f))
		return -EINVAL;
	err = options_check(bench_option_rules, options, f);
	if (err)
		return err;
	/* no VM can be called so: what stands in lists is not a name */
	request = json_pack("{s:s, s:O, s:O}", "vm", "(bench)", "dest", dest, "options", options);
	err = session_begin(h, SESSION_BENCH, request, id, NULL, f);
	json_decref(request);
	if (!err)
		*out = json_pack("{s:s}", "id", id);
	return err;
}
