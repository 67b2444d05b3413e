// SPDX-License-Identifier: MIT
/* Bandwidth limit shared by all streams of a session; see token_bucket.h. */
#include "dataplane/transport/token_bucket.h"

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

static uint64_t burst_of(uint64_t rate)
{
	return rate / 1000 * TOKEN_BUCKET_BURST_MS;
}

/* Grants what has become due. The lock is held. */
static void settle(struct token_bucket *b, uint64_t now_ns)
{
	unsigned __int128 due;
	uint64_t most = b->reserved + burst_of(b->rate);

	if (now_ns < b->updated_ns)
		return; /* two threads read the clock in one order and came here in the other */
	due = (unsigned __int128)(now_ns - b->updated_ns) * b->rate + b->credit;
	b->updated_ns = now_ns;
	if (!b->rate || due / NSEC_PER_SEC + b->granted >= most) {
		b->granted = most;
		b->credit = 0;
		return;
	}
	b->granted += (uint64_t)(due / NSEC_PER_SEC);
	b->credit = (uint64_t)(due % NSEC_PER_SEC);
}

void token_bucket_init(struct token_bucket *b, uint64_t rate, uint64_t now_ns)
{
	*b = (struct token_bucket){ .rate = rate, .updated_ns = now_ns };
	pthread_mutex_init(&b->lock, NULL);
	b->granted = burst_of(rate);
}

void token_bucket_release(struct token_bucket *b)
{
	pthread_mutex_destroy(&b->lock);
}

void token_bucket_set_rate(struct token_bucket *b, uint64_t rate, uint64_t now_ns)
{
	SCOPED_LOCK(&b->lock);

	settle(b, now_ns);
	__atomic_store_n(&b->rate, rate, __ATOMIC_RELAXED);
}

uint64_t token_bucket_rate(struct token_bucket *b)
{
	return __atomic_load_n(&b->rate, __ATOMIC_RELAXED);
}

uint64_t token_bucket_reserve(struct token_bucket *b, uint64_t bytes, uint64_t now_ns)
{
	SCOPED_LOCK(&b->lock);
	uint64_t reservation;

	settle(b, now_ns);
	reservation = b->reserved;
	b->reserved += bytes;
	return reservation;
}

uint64_t token_bucket_wait_ns(struct token_bucket *b, uint64_t reservation, uint64_t now_ns)
{
	SCOPED_LOCK(&b->lock);
	unsigned __int128 missing;

	settle(b, now_ns);
	if (!b->rate || b->granted >= reservation)
		return 0;
	missing = (unsigned __int128)(reservation - b->granted) * NSEC_PER_SEC - b->credit;
	return (uint64_t)((missing + b->rate - 1) / b->rate);
}
