/* SPDX-License-Identifier: MIT */
/*
 * Compression in a source: encoders, the cache of versions, and the policy that is asked about
 * them once an epoch.
 *
 * Theory of operation
 *   Streams ask source_compress_tick between chunks; the one that finds the epoch over takes the
 *   differences of all counters since the last one, asks the policy (compress_policy.h) and sets
 *   the pool's mode. With a fixed level the policy only learns how fast the link is, and the mode
 *   never changes but for small rounds.
 *
 *   A round that is over before compressing pays, as those of the pause should be, goes raw: no
 *   encoder is woken.
 */
#ifndef TRANSHIP_DATAPLANE_SOURCE_COMPRESS_H
#define TRANSHIP_DATAPLANE_SOURCE_COMPRESS_H

#include <pthread.h>

#include "dataplane/codec/compress_counters.h"

struct source_compress {
	struct encode_pool *pool; /* NULL: nothing is compressed in this session */
	struct delta_cache *cache;
	uint32_t workers;
	int fixed_level; /* 0: the policy decides */
	int uptime_fd;
	uint64_t epoch_end_ns; /* atomic */
	uint64_t link_rate;    /* atomic: of the policy, bytes a second; 0: not known */

	pthread_mutex_t lock; /* what follows */
	struct compress_policy policy;
	struct compress_counters begin; /* of the epoch */
	bool small_round;
};

#endif
