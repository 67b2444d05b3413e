/* SPDX-License-Identifier: MIT */
/*
 * Compression in a bench: the encoders of a migration on each stream that sends, and one policy
 * for all that this side sends.
 *
 * Theory of operation
 *   Each sending stream has an encode_pool of its own over its window, since what it sends it also
 *   has compared; the encoders that a migration would have are shared out among the streams. A lap
 *   of the window is a round of the pool: encoders and the stream take chunks from one cursor, and
 *   the lap has ended when all were sent. A chunk is encoded message by message and sent so, a
 *   frame a message; messages that stay raw on a slow link go in parts, with what is ready between
 *   them, as in source_send.c.
 *
 *   Streams ask whether the epoch is over between chunks; one asks the policy for all of them
 *   (compress_epochs.h).
 *
 *   A run begins with a new policy, and ends at a chunk's end. Every lap ends with VERIFY_END if
 *   the receiver compares, or takes new memory: chunks may come in any order, so it cannot tell.
 */
#ifndef TRANSHIP_DATAPLANE_BENCH_COMPRESS_H
#define TRANSHIP_DATAPLANE_BENCH_COMPRESS_H

#include <pthread.h>

#include "dataplane/codec/compress_epochs.h"
#include "dataplane/source/chunk_plan.h"

struct bench;
struct bench_stream;

/* Of a side. */
struct bench_compress {
	uint32_t senders; /* streams that send from here; 0: nothing is compressed */
	uint32_t workers; /* of each of them */
	int uptime_fd;
	struct compress_epochs epochs;
};

/* Of a stream that sends. */
struct bench_encode {
	struct encode_pool *pool;
	uint32_t lap; /* rounds of the pool */

	pthread_mutex_t lock; /* a leaf: what follows */
	uint64_t chunk;	      /* the next of the lap, in the window */
	bool over;	      /* the run ends: no more chunks */

	/* The stream's thread's. */
	struct chunk_plan plan, message, raw_message;
	struct plan_frame frame;
	uint64_t raw, in;		 /* bytes sent; atomic */
	uint64_t sending_ns, blocked_ns; /* atomic */
};

/* Before the streams and the sandbox. Without --compress nothing happens here nor below. */
void bench_compress_init(struct bench *b);
void bench_compress_release(struct bench *b);
/* A stream that sends; its window is mapped. */
int bench_encode_init(struct bench_stream *st);
void bench_encode_release(struct bench_stream *st);
/* Confined: makes the encoders' threads. -errno. */
int bench_encode_start(struct bench_stream *st);
/* After the stream's thread has ended. */
void bench_encode_stop(struct bench_stream *st);
/* Processor time of the stream's encoders. Any thread. */
uint64_t bench_encode_cpu_ns(struct bench_stream *st);

/* The main thread, before a run. limit: bytes a second, 0: none. */
void bench_compress_begin(struct bench *b, uint64_t limit);
/* A stream's run, to where all was sent and compared. */
int bench_encode_run(struct bench_stream *st);

#endif
