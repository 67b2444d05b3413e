// SPDX-License-Identifier: MIT
/* The compression policy once an epoch; see compress_epochs.h. */
#include "dataplane/codec/compress_epochs.h"

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

void compress_epochs_begin(struct compress_epochs *e, const struct compress_counters *now)
{
	e->begin = *now;
	__atomic_store_n(&e->end_ns, now->ns + compress_policy_epoch_ns(&e->policy),
			 __ATOMIC_RELAXED);
}

bool compress_epochs_over(struct compress_epochs *e)
{
	return clock_ns() >= __atomic_load_n(&e->end_ns, __ATOMIC_RELAXED) &&
	       !pthread_mutex_trylock(&e->lock);
}

bool compress_epochs_step(struct compress_epochs *e, const struct compress_counters *now,
			  uint32_t streams, uint32_t workers)
{
	struct compress_sample s = compress_counters_between(&e->begin, now, streams, workers);
	uint32_t changes = e->policy.changes;
	bool only = e->policy.only;

	compress_policy_step(&e->policy, &s);
	__atomic_store_n(&e->link_rate, (uint64_t)e->policy.link_rate, __ATOMIC_RELAXED);
	compress_epochs_begin(e, now);
	return !e->fixed_level && (e->policy.changes != changes || e->policy.only != only);
}

struct encode_mode compress_epochs_mode(const struct compress_epochs *e)
{
	struct compress_choice choice;

	if (e->fixed_level)
		return (struct encode_mode){ .on = true, .only = true, .level = e->fixed_level };
	choice = compress_policy_choice(&e->policy);
	return (struct encode_mode){ choice.on, choice.only, choice.level };
}

void compress_epochs_stats(struct compress_epochs *e, struct encode_pool *pool, struct ipc_stats *t)
{
	struct encode_totals totals;
	struct encode_mode mode;

	encode_pool_totals(pool, &totals);
	t->encode_cpu_ns = totals.cpu_ns;
	SCOPED_LOCK(&e->lock);
	mode = compress_epochs_mode(e);
	t->encode_level = mode.on ? (uint32_t)mode.level : 0;
	t->encode_changes = e->fixed_level ? 0 : e->policy.changes;
}
