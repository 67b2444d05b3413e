/* SPDX-License-Identifier: MIT */
/* What streams, encoders and processors have done, and an epoch of it for the policy. */
#ifndef TRANSHIP_DATAPLANE_COMPRESS_COUNTERS_H
#define TRANSHIP_DATAPLANE_COMPRESS_COUNTERS_H

#include "dataplane/codec/compress_policy.h"
#include "dataplane/codec/encode_pool.h"

/* Cumulative, all streams and encoders of one side; as struct compress_sample. */
struct compress_counters {
	uint64_t ns, raw, in, empty, wire, sending_ns, blocked_ns, idle_ns;
	struct encode_totals encoders;
};

/* What compress_counters_begin reads; before the sandbox. -1: idle processors are not seen. */
int compress_counters_open(void);

/* All zero but the time and the processors' idle time. */
void compress_counters_begin(struct compress_counters *c, int uptime_fd);
/* Adds the encoders of one pool. */
void compress_counters_encoders(struct compress_counters *c, struct encode_pool *pool);

/* What lies between a and b. */
struct compress_sample compress_counters_between(const struct compress_counters *a,
						 const struct compress_counters *b,
						 uint32_t streams, uint32_t workers);

#endif
