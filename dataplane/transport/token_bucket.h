/* SPDX-License-Identifier: MIT */
/*
 * Bandwidth limit shared by all streams of a session.
 *
 * Theory of operation
 *   Bytes are numbered in the order in which they are reserved. A reservation of n bytes takes the
 *   next n numbers and may be sent when the byte before it has been granted; grants grow with time
 *   at the rate. So reservations are served first come first served whatever their sizes, a large
 *   one is paid for by those that follow, and over any time t no more than
 *   rate * t + burst + one reservation is sent. What is not used is kept up to the burst
 *   (TOKEN_BUCKET_BURST_MS worth), no further.
 *
 *   The bucket never sleeps: it says how long to wait, so that the caller can wait for other
 *   things too, and ask again when the rate has changed. Times come from the caller (clock_ns();
 *   tests inject their own).
 */
#ifndef TRANSHIP_DATAPLANE_TOKEN_BUCKET_H
#define TRANSHIP_DATAPLANE_TOKEN_BUCKET_H

#include <pthread.h>
#include <stdint.h>

#define TOKEN_BUCKET_BURST_MS 10

struct token_bucket {
	pthread_mutex_t lock;
	uint64_t rate;	   /* bytes per second; 0: no limit */
	uint64_t reserved; /* bytes numbered so far */
	uint64_t granted;  /* bytes that may be sent */
	uint64_t credit;   /* granted fraction of a byte, in 1/NSEC_PER_SEC */
	uint64_t updated_ns;
};

/* rate: bytes per second, 0 for no limit. All functions are safe from any thread. */
void token_bucket_init(struct token_bucket *b, uint64_t rate, uint64_t now_ns);
void token_bucket_release(struct token_bucket *b);

/* Takes effect at once, for reservations that wait already too: they ask again. */
void token_bucket_set_rate(struct token_bucket *b, uint64_t rate, uint64_t now_ns);
uint64_t token_bucket_rate(struct token_bucket *b);

/* Reserves bytes and returns the reservation's number for token_bucket_wait_ns. */
uint64_t token_bucket_reserve(struct token_bucket *b, uint64_t bytes, uint64_t now_ns);

/* Nanoseconds until the reservation may be sent; 0: now. */
uint64_t token_bucket_wait_ns(struct token_bucket *b, uint64_t reservation, uint64_t now_ns);

#endif
