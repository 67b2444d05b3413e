// SPDX-License-Identifier: MIT
/* Post-copy at the source: what is pushed, compressed on its way; see postcopy_server.h. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "dataplane/postcopy/postcopy_server.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

/* While a stream waits for encoders the policy may come to think that it should not. */
#define WAIT_NS (20 * NSEC_PER_MSEC)

static int next_plan(void *arg, struct chunk_plan *plan, uint8_t *scratch)
{
	return server_next_plan(arg, plan, scratch);
}

/* The pool's streams are the pushing ones. */
static void wake(void *arg, uint32_t stream)
{
	struct server *v = arg;
	SCOPED_LOCK(&v->lock);

	v->streams[stream + 1].woken = true;
	pthread_cond_broadcast(&v->changed);
}

static int await_wake(struct server_stream *t)
{
	struct server *v = t->v;
	uint64_t until = clock_ns() + WAIT_NS;
	struct timespec at = { .tv_sec = (time_t)(until / NSEC_PER_SEC),
			       .tv_nsec = (long)(until % NSEC_PER_SEC) };
	int late = 0;
	SCOPED_LOCK(&v->lock);

	while (!t->woken && !late && !server_stopping(v))
		late = pthread_cond_clockwait(&v->changed, &v->lock, CLOCK_MONOTONIC, &at);
	t->woken = false;
	return server_stopping(v) ? -ECANCELED : 0;
}

/* --- the policy ------------------------------------------------------------------------------- */

static void read_counters(struct server *v, struct compress_counters *c)
{
	compress_counters_begin(c, v->compress.uptime_fd);
	for (uint32_t i = 1; i < v->s->config.streams; i++) {
		const struct push_counts *n = &v->streams[i].counts;

		c->raw += push_count(&n->raw);
		c->in += push_count(&n->zstd_in);
		c->empty += push_count(&n->zero) + push_count(&n->hole);
		c->wire += push_count(&v->streams[i].wire_bytes);
		c->sending_ns += push_count(&n->sending_ns);
		c->blocked_ns += push_count(&n->blocked_ns);
	}
	compress_counters_encoders(c, v->compress.pool);
}

static void tick(struct server *v)
{
	struct server_compress *c = &v->compress;
	struct compress_counters now;

	if (c->small || !compress_epochs_over(&c->epochs))
		return;
	read_counters(v, &now);
	if (compress_epochs_step(&c->epochs, &now, v->s->config.streams - 1, c->workers)) {
		struct encode_mode mode = compress_epochs_mode(&c->epochs);

		encode_pool_set(c->pool, &mode);
	}
	pthread_mutex_unlock(&c->epochs.lock);
}

void server_compress_begin(struct server *v)
{
	struct server_compress *c = &v->compress;
	struct compress_counters now;
	struct encode_mode mode;

	if (!c->pool)
		return;
	read_counters(v, &now);
	pthread_mutex_lock(&c->epochs.lock);
	compress_epochs_begin(&c->epochs, &now);
	mode = compress_epochs_mode(&c->epochs);
	c->small = compress_policy_round_is_small(&c->epochs.policy, v->wanted_pages * PAGE_BYTES);
	if (c->small)
		mode.on = mode.only = false;
	pthread_mutex_unlock(&c->epochs.lock);
	encode_pool_set(c->pool, &mode);
	encode_pool_begin_round(c->pool, 1);
}

void server_compress_link_changed(struct server *v)
{
	struct server_compress *c = &v->compress;

	if (!c->pool)
		return;
	SCOPED_LOCK(&c->epochs.lock);
	compress_policy_link_changed(&c->epochs.policy, token_bucket_rate(&v->bucket));
}

/* --- pushing ---------------------------------------------------------------------------------- */

static int send_encoded(struct server_stream *t, struct encoded *e)
{
	int err = server_send_plan(t, &e->plan);

	encode_pool_give_back(t->v->compress.pool, e);
	return err;
}

/* Into t->plan: 1; 0: there is no more. */
static int take_plan(struct server_stream *t)
{
	int found = server_next_plan(t->v, &t->plan, t->scratch);

	if (!found)
		encode_pool_exhausted(t->v->compress.pool);
	return found;
}

static int send_raw(struct server_stream *t)
{
	int found = take_plan(t);

	return found > 0 ? server_send_plan(t, &t->plan) : found;
}

/* Encoders are to have it, unless there is nothing in it for them. */
static int look_for_encoders(struct server_stream *t)
{
	int found = take_plan(t);

	if (found <= 0)
		return found;
	if (!plan_has_data(&t->plan))
		return server_send_plan(t, &t->plan);
	encode_pool_offer(t->v->compress.pool, t->index - 1, &t->plan);
	return 0;
}

int server_push_beside_encoders(struct server_stream *t)
{
	struct encode_pool *pool = t->v->compress.pool;
	int err = 0;

	while (!err) {
		struct encoded *e;

		tick(t->v);
		server_adapt_queue(t);
		if (server_stopping(t->v))
			return -ECANCELED;
		switch (err = encode_pool_next(pool, t->index - 1, &e)) {
		case ENCODE_READY:
			err = send_encoded(t, e);
			break;
		case ENCODE_RAW:
			err = send_raw(t);
			break;
		case ENCODE_LOOK:
			err = look_for_encoders(t);
			break;
		case ENCODE_BACK:
			err = server_send_plan(t, &t->plan);
			break;
		case ENCODE_WAIT:
			err = await_wake(t);
			break;
		case ENCODE_END:
			return 0;
		}
	}
	return err;
}

/* --- life ------------------------------------------------------------------------------------- */

void server_compress_stats(struct server *v, struct ipc_stats *t)
{
	if (v->compress.pool)
		compress_epochs_stats(&v->compress.epochs, v->compress.pool, t);
}

int server_compress_init(struct server *v)
{
	const struct encode_source source = { .next = next_plan,
					      .wake = wake,
					      .arg = v,
					      .scratch_size = PAGE_READER_SCRATCH,
					      .once = true };
	const struct ipc_config *config = &v->s->config;
	struct server_compress *c = &v->compress;
	uint64_t ram = 0;

	if (config->compress == IPC_COMPRESS_OFF)
		return 0;
	for (uint32_t i = 0; i < v->s->nregions; i++)
		ram += v->s->regions[i].size;
	compress_policy_init(&c->epochs.policy, config->rate_limit);
	if (config->compress == IPC_COMPRESS_ZSTD)
		c->epochs.fixed_level = (int)config->level;
	c->workers = encode_pool_workers(ram);
	c->uptime_fd = compress_counters_open();
	return encode_pool_new(&c->pool, &source, v->s->regions, v->s->nregions,
			       config->streams - 1, c->workers, NULL);
}

void server_compress_release(struct server *v)
{
	encode_pool_free(v->compress.pool);
	v->compress.pool = NULL;
	fd_close(&v->compress.uptime_fd);
	pthread_mutex_destroy(&v->compress.epochs.lock);
}
