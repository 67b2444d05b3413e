/* SPDX-License-Identifier: MIT */
/*
 * The transport benchmark's data plane, shared by its files: bench.c (the main thread), bench_run.c
 * (a run and its figures), bench_accept.c (connections at the destination), bench_tx.c and
 * bench_rx.c (a stream's two ends), bench_compress.c (its encoders). Nothing else includes this.
 *
 * Theory of operation
 *   Both sides run this and differ in who connects. Each stream carries data one way: 0 ..
 *   forward-1 from the side that connects, the others towards it. A sender puts messages on its
 *   stream as a migration puts chunks (a PAGES frame of one raw run, by tx.h), a receiver places
 *   them by place.h, and the end of a run is a ROUND_END that is acknowledged when everything
 *   before it is in place. So what is measured is what moves a VM, without the VM.
 *
 *   Memory is one memfd a side, shared out among the streams: a window each, of whole chunks. A
 *   sender goes round and round in its window; the receiver has a window of the same size.
 *
 *   Runs. RUN comes on both sides, at the receiving one first. A side's run has ended when all it
 *   sends was acknowledged and the end of all it receives was seen. CPU time is that of the
 *   streams' threads, so that two directions at once can be told apart.
 *
 *   Compression. Messages are encoded by the encoders of a migration, and then come in any order;
 *   see bench_compress.h.
 *
 *   Verifying. After each lap the sender sends hashes of what it sent (VERIFY, VERIFY_END), the
 *   receiver compares and then spoils its memory, so that the next lap's bytes must come again to
 *   be equal. A run ends at a chunk's end then.
 *
 *   Latency. A message, if it has a size, and a ROUND_END whose number has PING set; the time to
 *   its acknowledgement is counted.
 *
 *   The end. The side that connects says BYE and closes; the other ends when all its streams have,
 *   so that nothing is left there when its peer vanishes. Between two runs that is no failure.
 *
 * Threads: main serves transhipd; each stream has one thread, which alone uses its socket. The run
 * is written by main while none is under way and released by run_number. lock is a leaf.
 */
#ifndef TRANSHIP_DATAPLANE_BENCH_H
#define TRANSHIP_DATAPLANE_BENCH_H

#include <pthread.h>
#include <stdbool.h>

#include "dataplane/bench/bench_compress.h"
#include "dataplane/bench/bench_histogram.h"
#include "dataplane/destination/place.h"
#include "dataplane/destination/rx_reader.h"
#include "dataplane/setup.h"
#include "dataplane/transport/token_bucket.h"
#include "dataplane/transport/tx.h"

#define BENCH_PING 0x80000000u /* in the number of a ROUND_END: not the end of the run */

/* Cumulative; written by the stream's thread, read by main. Atomic, relaxed. */
struct bench_counts {
	uint64_t bytes, wire_bytes, zero_copy_bytes;
	uint64_t aside_ns; /* processor time that is the benchmark's own */
};

struct bench_stream {
	struct bench *bench;
	uint32_t index;
	bool sends;
	int fd;	     /* -1: not connected yet */
	int wake_fd; /* eventfd */
	pthread_t thread;
	bool running;	     /* thread was made for this stream and is to be joined */
	bool claimed;	     /* lock: a connection has proved to be this stream */
	clockid_t cpu_clock; /* lock: of its thread, valid while started and not ended */
	bool started, ended; /* lock */
	uint64_t cpu_from;   /* lock: of its thread when it had authenticated */
	uint64_t cpu_ns;     /* lock: of an ended thread, since then */
	struct region region;
	struct bench_counts counts;
	uint32_t run_seen; /* of a run that was begun here; a receiver's: ended */
	uint32_t run_done; /* atomic: the number of the last run that has ended here */
	uint64_t done_ns;  /* atomic: clock_ns() of that; before run_done */

	/* a sender's */
	struct tx *tx;
	uint64_t at;		       /* where the next message lies in the window */
	uint64_t unverified;	       /* where what was sent and not compared begins */
	uint64_t *hashes;	       /* of the window's chunks, if everything is verified */
	uint64_t verified, mismatches; /* chunks; atomic */
	struct bench_histogram *latency;
	struct bench_encode *encode; /* NULL: nothing is compressed */

	/* a receiver's */
	struct rx_reader rx;
	struct place place;
	struct placer placer;
	uint64_t next; /* in the window; a message below it begins a lap */
	uint64_t compared, unequal;
};

/* A connection at the destination that may become a stream. */
struct bench_knock {
	struct bench *bench;
	enum { KNOCK_FREE, KNOCK_SHAKING, KNOCK_STREAM, KNOCK_ENDED } state; /* lock */
	bool dropped;							     /* lock */
	int fd;
	uint64_t accepted_ns;
	pthread_t thread;
};

struct bench {
	struct setup *s;
	uint64_t window;
	int memory_fd;
	struct bench_stream *streams; /* s->config.streams of them */
	struct bench_knock *knocks;
	uint32_t nknocks;
	const struct tx_ops *tx_ops; /* NULL: this side sends nothing */
	struct token_bucket bucket;
	struct bench_compress compress;
	struct bench_histogram *latency; /* of all streams, for the report */
	struct ipc_ready ready;
	int event_fd;	      /* streams -> main */
	uint64_t deadline_ns; /* all streams must have come */
	bool stopping;	      /* atomic: the process ends */

	/* The run. */
	struct ipc_bench_run run;
	uint64_t run_from_ns;  /* what counts begins */
	uint64_t run_until_ns; /* 0: no limit */
	uint32_t run_number;   /* atomic */
	bool run_stop;	       /* atomic: senders end it now */
	int64_t budget;	       /* atomic: bytes still to be sent */

	pthread_mutex_t lock;
	uint32_t connected, over; /* lock: streams that came, that have ended */
	int error;		  /* lock: the first failure of a thread */
	struct failure failure;
};

static inline void bench_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline bool bench_stopping(const struct bench *b)
{
	return __atomic_load_n(&b->stopping, __ATOMIC_RELAXED);
}

static inline bool bench_run_stopped(const struct bench *b)
{
	return __atomic_load_n(&b->run_stop, __ATOMIC_RELAXED);
}

/* bench.c: wakes the main thread; records a thread's failure, the first one counts. */
void bench_notify(struct bench *b);
void bench_wake(struct bench_stream *st);
void bench_fail(struct bench *b, int err, const struct failure *f);
/* The body of a connected and authenticated stream's thread: to its end. */
void bench_stream_main(struct bench_stream *st);

/* bench_accept.c, called by main: as connections_*() of a migration's destination. */
int bench_accept_init(struct bench *b);
bool bench_accept_room(struct bench *b);
int bench_accept(struct bench *b, int listener, struct failure *f);
void bench_accept_reap(struct bench *b);
/* All streams are there: the others are let go. */
void bench_accept_close(struct bench *b);
void bench_accept_stop(struct bench *b);
/* What is held of an accepted stream's congestion control if its peer is not near. */
void bench_accept_settle(const struct bench *b, int fd);

/* bench_tx.c, bench_rx.c. init: before the sandbox, fd -1 at the destination. */
int bench_tx_init(struct bench_stream *st);
void bench_tx_release(struct bench_stream *st);
/* Serves runs until the process ends or the peer has gone. 0, -ECONNRESET ... */
int bench_tx_serve(struct bench_stream *st);
/* For bench_compress.c, of a run: a frame; waiting for the limit, and for a wake-up or ns. */
int bench_tx_put(struct bench_stream *st, const void *head, size_t len,
		 const struct tx_slice *slices, uint32_t count, bool more);
int bench_tx_pace(struct bench_stream *st, uint64_t bytes);
int bench_tx_wait(struct bench_stream *st, uint64_t ns);
/* True if another `size` bytes of the run may be sent; takes them from the budget. Any thread. */
bool bench_tx_may_send(struct bench_stream *st, uint64_t size);
/*
 * Has the receiver compare what was sent since the last time, up to end (bytes in the window, whole
 * chunks; 0: nothing), and waits until it is ready for the next lap.
 */
int bench_tx_end_lap(struct bench_stream *st, uint64_t end);
int bench_rx_init(struct bench_stream *st, char *why, size_t len);
void bench_rx_release(struct bench_stream *st);
int bench_rx_serve(struct bench_stream *st);
/* The stream's share of the run has ended. */
void bench_stream_done(struct bench_stream *st);

/* bench_run.c: a run as main sees it. */
struct bench_base {
	struct ipc_bench_figures tx, rx; /* cumulative */
	uint64_t verified, mismatches;
};

struct bench_measure {
	struct bench *bench;
	bool running, counting;
	uint64_t interval_at_ns; /* when the next interval ends; 0: none */
	uint32_t interval;
	struct bench_base base, interval_base;
	/*
	 * At the end of the run before. What comes before we have heard that a run has begun is of
	 * that run: nothing moves between two.
	 */
	struct bench_base last;
};

int bench_measure_begin(struct bench_measure *m, const struct ipc_bench_run *run,
			struct failure *f);
/* To be called after every wake-up; sends what is due. */
int bench_measure_go_on(struct bench_measure *m);
/* Milliseconds until it is to be called at the latest; -1: no matter. */
int bench_measure_timeout(const struct bench_measure *m);

#endif
