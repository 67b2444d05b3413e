/* SPDX-License-Identifier: MIT */
/*
 * When the compression policy is asked: once an epoch, by one thread, with what streams, encoders
 * and processors have done in it. A migration's source and a benchmark's sender share this.
 *
 * Theory of operation
 *   Streams ask compress_epochs_over between chunks. The one that finds the epoch over has the
 *   lock, reads the counters, gives them to compress_epochs_step, sets its encoders' mode if that
 *   says so, and unlocks. With a fixed level the policy only learns how fast the link is.
 */
#ifndef TRANSHIP_DATAPLANE_COMPRESS_EPOCHS_H
#define TRANSHIP_DATAPLANE_COMPRESS_EPOCHS_H

#include <pthread.h>

#include "dataplane/codec/compress_counters.h"

struct compress_epochs {
	int fixed_level;    /* 0: the policy decides */
	uint64_t end_ns;    /* atomic: of the present one */
	uint64_t link_rate; /* atomic: of the policy, bytes a second; 0: not known */

	pthread_mutex_t lock; /* its user makes it; what follows */
	struct compress_policy policy;
	struct compress_counters begin; /* of the epoch */
};

/* The lock is held, or nothing runs. */
void compress_epochs_begin(struct compress_epochs *e, const struct compress_counters *now);
/* True: the epoch is over, and the lock is the caller's to release. */
bool compress_epochs_over(struct compress_epochs *e);
/* The lock is held: ends the epoch and begins another. True if the mode has changed. */
bool compress_epochs_step(struct compress_epochs *e, const struct compress_counters *now,
			  uint32_t streams, uint32_t workers);
/* What encoders are to do. The lock is held, or nothing runs. */
struct encode_mode compress_epochs_mode(const struct compress_epochs *e);
/* Tells what encoders have used, and the choice that holds now. Takes the lock. */
void compress_epochs_stats(struct compress_epochs *e, struct encode_pool *pool,
			   struct ipc_stats *t);

#endif
