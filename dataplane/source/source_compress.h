/* SPDX-License-Identifier: MIT */
/*
 * Compression in a source: encoders, the cache of versions, and the policy that is asked about
 * them once an epoch.
 *
 * Theory of operation
 *   Streams ask source_compress_tick between chunks (compress_epochs.h). With a fixed level the
 *   mode never changes but for small rounds.
 *
 *   A round that is over before compressing pays, as those of the pause should be, goes raw: no
 *   encoder is woken.
 */
#ifndef TRANSHIP_DATAPLANE_SOURCE_COMPRESS_H
#define TRANSHIP_DATAPLANE_SOURCE_COMPRESS_H

#include "dataplane/codec/compress_epochs.h"

struct source_compress {
	struct encode_pool *pool; /* NULL: nothing is compressed in this session */
	struct delta_cache *cache;
	uint32_t workers;
	int uptime_fd;
	struct compress_epochs epochs;
	bool small_round; /* under its lock */
};

#endif
