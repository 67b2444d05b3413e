/* SPDX-License-Identifier: MIT */
/*
 * host.h without sessions: every call is noted and answered from settable values, so that the API,
 * the client and the command line can be tested against each other over a real socket. Included
 * once by a test program; its symbols take the place of the library's.
 */
#ifndef TRANSHIP_TESTS_FAKE_HOST_H
#define TRANSHIP_TESTS_FAKE_HOST_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/session/host.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define FAKE_ID "00112233445566778899aabbccddeeff"

struct host {
	pthread_mutex_t lock;
	struct config config;
	char call[32]; /* the last one */
	char id[64];
	char action[32];
	json_t *in; /* of the last one, owned */
	unsigned int calls;
	struct failure failure; /* if set, every call but status fails so */
	json_t *answer;		/* given to every call but status; owned */
	/* status, if set, answers host_status; it may wait. */
	int (*status)(struct host *h, uint64_t since, unsigned int wait_ms, json_t **out,
		      struct failure *f);
	unsigned int polls;
	bool cancelled;
};

static struct host fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Forgets everything but the configuration. */
static inline void fake_reset(void)
{
	SCOPED_LOCK(&fake.lock);
	json_decref(fake.in);
	json_decref(fake.answer);
	fake.in = fake.answer = NULL;
	fake.call[0] = fake.id[0] = fake.action[0] = '\0';
	fake.calls = fake.polls = 0;
	fake.cancelled = false;
	fake.status = NULL;
	failure_clear(&fake.failure);
}

static int fake_call(struct host *h, const char *call, const char *id, const json_t *in,
		     json_t **out, struct failure *f)
{
	SCOPED_LOCK(&h->lock);
	h->calls++;
	snprintf(h->call, sizeof(h->call), "%s", call);
	snprintf(h->id, sizeof(h->id), "%s", id ? id : "");
	json_decref(h->in);
	h->in = json_deep_copy(in);
	if (failure_is_set(&h->failure)) {
		*f = h->failure;
		return -EIO;
	}
	*out = json_deep_copy(h->answer);
	return 0;
}

const struct config *host_config(const struct host *h)
{
	return &h->config;
}

int host_new(struct host **out, const struct config *c, struct failure *f)
{
	(void)f;
	fake.config = *c;
	*out = &fake;
	return 0;
}

void host_free(struct host *h)
{
	(void)h;
}

int host_migrate(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	return fake_call(h, "migrate", NULL, in, out, f);
}

int host_status(struct host *h, const char *id, uint64_t since, unsigned int wait_ms, json_t **out,
		struct failure *f)
{
	{
		SCOPED_LOCK(&h->lock);
		h->polls++;
	}
	if (h->status)
		return h->status(h, since, wait_ms, out, f);
	return fake_call(h, "status", id, NULL, out, f);
}

int host_list(struct host *h, json_t **out, struct failure *f)
{
	return fake_call(h, "list", NULL, NULL, out, f);
}

int host_cancel(struct host *h, const char *id, json_t **out, struct failure *f)
{
	h->cancelled = true;
	return fake_call(h, "cancel", id, NULL, out, f);
}

int host_tune(struct host *h, const char *id, const json_t *in, json_t **out, struct failure *f)
{
	return fake_call(h, "tune", id, in, out, f);
}

int host_switch(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return fake_call(h, "switch", id, NULL, out, f);
}

int host_resolve(struct host *h, const char *id, const char *action, json_t **out,
		 struct failure *f)
{
	snprintf(h->action, sizeof(h->action), "%s", action);
	return fake_call(h, "resolve", id, NULL, out, f);
}

int host_vms(struct host *h, json_t **out, struct failure *f)
{
	return fake_call(h, "vms", NULL, NULL, out, f);
}

int host_dirty_rate(struct host *h, const json_t *in, int client_fd, json_t **out,
		    struct failure *f)
{
	(void)client_fd;
	return fake_call(h, "dirty_rate", NULL, in, out, f);
}

int host_predict(struct host *h, const json_t *in, int client_fd, json_t **out, struct failure *f)
{
	(void)client_fd;
	return fake_call(h, "predict", NULL, in, out, f);
}

int host_peer_offer(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	return fake_call(h, "offer", NULL, in, out, f);
}

int host_peer_load(struct host *h, const char *id, const json_t *in, json_t **out,
		   struct failure *f)
{
	return fake_call(h, "load", id, in, out, f);
}

int host_peer_postcopy(struct host *h, const char *id, const json_t *in, json_t **out,
		       struct failure *f)
{
	return fake_call(h, "postcopy", id, in, out, f);
}

int host_peer_commit(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return fake_call(h, "commit", id, NULL, out, f);
}

int host_peer_abort(struct host *h, const char *id, const json_t *in, json_t **out,
		    struct failure *f)
{
	return fake_call(h, "abort", id, in, out, f);
}

int host_peer_finish(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return fake_call(h, "finish", id, NULL, out, f);
}

int host_peer_status(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return fake_call(h, "peer_status", id, NULL, out, f);
}

int host_bench(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	return fake_call(h, "bench", NULL, in, out, f);
}

int host_peer_bench(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	return fake_call(h, "bench_offer", NULL, in, out, f);
}

int host_peer_bench_run(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return fake_call(h, "bench_run", id, NULL, out, f);
}

int host_peer_bench_stop(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return fake_call(h, "bench_stop", id, NULL, out, f);
}

int host_peer_bench_result(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return fake_call(h, "bench_result", id, NULL, out, f);
}

int host_peer_bench_finish(struct host *h, const char *id, json_t **out, struct failure *f)
{
	return fake_call(h, "bench_finish", id, NULL, out, f);
}

#endif
