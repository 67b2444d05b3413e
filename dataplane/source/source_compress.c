// SPDX-License-Identifier: MIT
/* Compression in a source; see source_compress.h. */
#include "dataplane/source/source_compress.h"

#include <string.h>

#include "dataplane/source/source.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

static int next_plan(void *arg, struct chunk_plan *plan, uint8_t *scratch)
{
	return source_next_plan(arg, plan, scratch);
}

static void wake(void *arg, uint32_t stream)
{
	struct source *src = arg;

	stream_wake(&src->streams[stream]);
}

static uint64_t load(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void read_counters(struct source *src, struct compress_counters *c)
{
	compress_counters_begin(c, src->compress.uptime_fd);
	for (uint32_t i = 0; i < src->setup->config.streams; i++) {
		const struct stream_counts *n = &src->streams[i].counts;

		c->raw += load(&n->raw_bytes);
		c->in += load(&n->zstd_in_bytes) + load(&n->delta_in_bytes);
		c->empty += load(&n->zero_bytes) + load(&n->hole_bytes) + load(&n->same_bytes);
		c->wire += load(&n->wire_bytes);
		c->sending_ns += load(&n->sending_ns);
		c->blocked_ns += load(&n->blocked_ns);
	}
	compress_counters_encoders(c, src->compress.pool);
}

/* The lock is held, or nothing runs. */
static void set_mode(struct source_compress *c)
{
	struct encode_mode mode = compress_epochs_mode(&c->epochs);

	if (c->small_round)
		mode.on = mode.only = false;
	encode_pool_set(c->pool, &mode);
}

void source_compress_tick(struct source *src)
{
	struct source_compress *c = &src->compress;
	struct compress_counters now;

	if (c->small_round || !compress_epochs_over(&c->epochs))
		return;
	read_counters(src, &now);
	if (compress_epochs_step(&c->epochs, &now, src->setup->config.streams, c->workers))
		set_mode(c);
	pthread_mutex_unlock(&c->epochs.lock);
}

void source_compress_link_changed(struct source *src)
{
	struct source_compress *c = &src->compress;

	if (!c->pool)
		return;
	SCOPED_LOCK(&c->epochs.lock);
	compress_policy_link_changed(&c->epochs.policy, token_bucket_rate(&src->bucket));
}

void source_compress_begin_round(struct source *src, uint32_t round)
{
	struct source_compress *c = &src->compress;
	uint64_t bytes = scheduler_pending(&src->scheduler) << PAGE_SHIFT;
	struct compress_counters now;

	if (!c->pool)
		return;
	c->small_round = compress_policy_round_is_small(&c->epochs.policy, bytes);
	/* What lies between rounds is no epoch. */
	read_counters(src, &now);
	compress_epochs_begin(&c->epochs, &now);
	set_mode(c);
	encode_pool_begin_round(c->pool, round);
}

void source_compress_forget(struct source *src, const struct chunk_plan *plan)
{
	struct delta_cache *cache = src->compress.cache;

	for (uint32_t i = 0; cache && i < plan->count; i++)
		delta_cache_forget(cache, plan->region, plan->first_page + plan->runs[i].page,
				   plan->runs[i].pages);
}

void source_compress_stats(struct source *src, struct ipc_stats *t)
{
	if (src->compress.pool)
		compress_epochs_stats(&src->compress.epochs, src->compress.pool, t);
}

int source_compress_init(struct source *src, struct failure *f)
{
	const struct encode_source source = {
		.next = next_plan, .wake = wake, .arg = src, .scratch_size = LOOK_SCRATCH
	};
	struct source_compress *c = &src->compress;
	const struct setup *set = src->setup;
	uint64_t ram = 0;
	int err = 0;

	*c = (struct source_compress){ .uptime_fd = -1 };
	if (set->config.compress == IPC_COMPRESS_OFF)
		return 0;
	for (uint32_t i = 0; i < set->nregions; i++)
		ram += set->regions[i].size;
	pthread_mutex_init(&c->epochs.lock, NULL);
	compress_policy_init(&c->epochs.policy, set->config.rate_limit);
	if (set->config.compress == IPC_COMPRESS_ZSTD)
		c->epochs.fixed_level = (int)set->config.level;
	c->workers = encode_pool_workers(ram);
	c->uptime_fd = compress_counters_open();
	if (set->config.delta_cache)
		err = delta_cache_new(&c->cache, set->config.delta_cache, set->regions,
				      set->nregions);
	if (!err)
		err = encode_pool_new(&c->pool, &source, set->regions, set->nregions,
				      set->config.streams, c->workers, c->cache);
	if (err)
		return failure_set(f, err, "internal", NULL, "no memory to compress in");
	return 0;
}

int source_compress_start(struct source *src, struct failure *f)
{
	int err = src->compress.pool ? encode_pool_start(src->compress.pool) : 0;

	return err ? failure_set(f, err, "internal", NULL, "cannot make a thread: %s",
				 strerror(-err))
		   : 0;
}

void source_compress_stop(struct source *src)
{
	encode_pool_stop(src->compress.pool);
}

void source_compress_release(struct source *src)
{
	struct source_compress *c = &src->compress;

	encode_pool_free(c->pool);
	delta_cache_free(c->cache);
	fd_close(&c->uptime_fd);
	if (c->pool)
		pthread_mutex_destroy(&c->epochs.lock);
	c->pool = NULL;
	c->cache = NULL;
}
