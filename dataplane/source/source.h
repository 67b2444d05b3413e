/* SPDX-License-Identifier: MIT */
/*
 * The source's inside: what its files (source.c, source_stream.c, source_send.c, source_verify.c)
 * share. Nothing else includes this.
 *
 * Threads
 *   The main thread serves transhipd, scans, and owns the scheduler between rounds. Each stream has
 *   a thread that alone reads and writes its socket and alone uses its struct tx. The main thread
 *   gives all of them one job at a time (enum source_job) and wakes them; each reports back by
 *   counting jobs_left down and writing event_fd. So the phases of scheduler.h are kept: the main
 *   thread touches the bitmaps only while no job runs.
 *
 *   Encoders (encode_pool.h), if there are any, take chunks beside the streams in a round, and
 *   nothing after it.
 *
 *   Threads wait only in stream_wait (poll on wake-up, socket, state) and in the socket calls of
 *   tx; the main thread ends either by `stopping` with a wake-up and by shutting the sockets down.
 *
 * Lock order: compress_epochs.lock, encode_pool's; source.lock and state_relay.lock are leaves.
 */
#ifndef TRANSHIP_DATAPLANE_SOURCE_H
#define TRANSHIP_DATAPLANE_SOURCE_H

#include <pthread.h>

#include "dataplane/setup.h"
#include "dataplane/source/chunk_plan.h"
#include "dataplane/source/known_pages.h"
#include "dataplane/source/page_reader.h"
#include "dataplane/source/scheduler.h"
#include "dataplane/source/source_compress.h"
#include "dataplane/source/state_relay.h"
#include "dataplane/track/tracker.h"
#include "dataplane/transport/token_bucket.h"
#include "dataplane/transport/tx.h"
#include "dataplane/transport/wire.h"

enum source_job {
	JOB_NONE,
	JOB_HANDSHAKE,
	JOB_COMPARE,
	JOB_ROUND,
	JOB_VERIFY,
	JOB_HAND_OVER,
	JOB_BYE
};

struct source;

/* Cumulative; written by the stream's thread, read by main. Atomic, relaxed. */
struct stream_counts {
	uint64_t pages, zero_bytes, hole_bytes, raw_bytes, same_bytes, zero_copy_bytes, wire_bytes;
	uint64_t zstd_in_bytes, zstd_out_bytes, delta_in_bytes, delta_out_bytes;
	/* While chunks may be compressed: in sending, and of that without the processor. */
	uint64_t sending_ns, blocked_ns;
};

/* Questions for hashes that a stream has under way; see source_compare.c. */
#define COMPARE_DEPTH 8u

struct compare_question {
	uint32_t region;
	bool sample;	     /* decides about its stretch */
	uint64_t chunk;	     /* of the region */
	uint64_t begin, end; /* sample: the stretch, or what is left of it */
};

struct stream_compare {
	struct compare_question asked[COMPARE_DEPTH]; /* a ring */
	uint32_t first, count;
	struct compare_question promising[COMPARE_DEPTH]; /* stretches whose sample was good */
	uint32_t promising_count;
	uint32_t empty_region; /* where the destination has nothing, as it said last */
	uint64_t empty_from, empty_until;
};

struct stream {
	struct source *source;
	uint32_t index;
	int fd;	     /* the setup's */
	int wake_fd; /* eventfd, owned */
	struct tx *tx;
	pthread_t thread;
	bool running;		   /* the thread was made and is to be joined */
	struct state_relay *relay; /* of the source; stream 0 only */
	uint32_t job_seen;

	/* A frame from the destination, as far as it has come. */
	uint8_t answer[WIRE_FRAME_SIZE + WIRE_HASHED_MAX];
	size_t answer_have;
	bool awaited[WIRE_TYPES]; /* by type acknowledged: sent and not answered yet */
	uint32_t awaited_round;

	struct stream_counts counts;
	struct stream_compare compare;
	struct chunk_plan plan;
	struct plan_frame frame;
	uint8_t *scratch; /* LOOK_SCRATCH, owned */
};

struct source {
	struct setup *setup;
	struct page_reader reader;
	struct known_pages known;
	struct page_hash hash;
	struct scheduler scheduler;
	struct token_bucket bucket;
	struct source_compress compress;
	struct tracker *tracker; /* NULL: nothing writes the guest's RAM any more */
	struct state_relay relay;
	const struct tx_ops *tx_ops;
	char tx_reason[96];
	struct stream *streams; /* config.streams of them; owned */
	int event_fd;		/* streams -> main */
	int usage_fd;		/* self_usage.h */

	/* The job; job and round are written before job_number is released. */
	enum source_job job;
	uint32_t round;
	uint32_t job_number;	 /* atomic */
	uint32_t jobs_left;	 /* atomic: streams that have not finished it */
	bool stopping;		 /* atomic */
	bool state_done;	 /* atomic: the destination holds all of the device state */
	uint64_t chunk_cursor;	 /* atomic: next chunk of a job, over all regions */
	uint64_t defer_from_ns;	 /* from when on pages may be left for later; 0: never */
	uint64_t deferred_pages; /* atomic */

	/* What the destination had before the first round; source_compare.c. */
	uint64_t destination_holds; /* atomic: bytes */
	struct bitmap *same;	    /* pages, one a region; NULL: not compared, or over */
	uint32_t compare_vain;	    /* atomic: stretches in a row of which little was equal */

	pthread_mutex_t lock; /* what follows */
	int failed;	      /* first error of a stream, 0 if none */
	struct failure failure;
	struct ipc_verified verified;
};

/* source_stream.c */

/* Makes the eventfds, tx and threads' memory. Before the sandbox. -errno with f. */
int streams_init(struct source *src, struct failure *f);
void streams_release(struct source *src);
/* Makes the threads, whose first job is the one that is set. After the sandbox. */
int streams_start(struct source *src, struct failure *f);
/* Gives all streams a job. None may be running. */
void streams_give(struct source *src, enum source_job job, uint32_t round);
void streams_wake(struct source *src);
void stream_wake(struct stream *s);
/* Ends all threads, whatever they do, and waits for them. */
void streams_stop(struct source *src);

/*
 * Waits until something happened (a wake-up, an answer, a piece of state relayed) or for
 * timeout_ns (UINT64_MAX: no limit). 0; -ECANCELED when stopping; -errno when the stream is lost.
 */
int stream_wait(struct stream *s, uint64_t timeout_ns);
/* Relays state that is there now; between frames. */
int stream_relay(struct stream *s);
/* Waits until the bandwidth limit lets bytes go. */
int stream_pace(struct stream *s, uint64_t bytes);
/* A frame by tx, and its bytes counted. */
int stream_frame(struct stream *s, const void *head, size_t head_len, const struct region *r,
		 const struct tx_slice *slices, uint32_t count, bool more);
/* Sends a header alone and waits until the destination acknowledges it. */
int stream_barrier(struct stream *s, const struct wire_frame *f);

static inline void count_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline bool source_stopping(const struct source *src)
{
	return __atomic_load_n(&src->stopping, __ATOMIC_RELAXED);
}

/* source_compress.c: see source_compress.h. Before the sandbox; after it; before streams_stop. */
int source_compress_init(struct source *src, struct failure *f);
int source_compress_start(struct source *src, struct failure *f);
void source_compress_stop(struct source *src);
void source_compress_release(struct source *src);
/* Between rounds, when the scheduler has begun this one. */
void source_compress_begin_round(struct source *src, uint32_t round);
/* IPC_LIMIT has come. */
void source_compress_link_changed(struct source *src);
/* From any stream, between chunks: ends an epoch if it is time. */
void source_compress_tick(struct source *src);
/* This plan is sent from the guest's RAM: nothing that is remembered of its pages holds. */
void source_compress_forget(struct source *src, const struct chunk_plan *plan);
void source_compress_stats(struct source *src, struct ipc_stats *t);

/* source_send.c: this stream's share of a round, up to the acknowledgement. */
int stream_send_round(struct stream *s);
/* The round's next chunk, looked at: 1; 0: there is none; -errno. scratch: LOOK_SCRATCH bytes. */
int source_next_plan(struct source *src, struct chunk_plan *plan, uint8_t *scratch);

/* What a thread that looks at chunks needs: touched as far as it is used. */
#define LOOK_SCRATCH CHUNK_BYTES

/* What source_look_at_chunk found. */
struct chunk_look {
	uint8_t kinds[CHUNK_PAGES]; /* enum page_kind, one a page of the chunk */
	uint32_t same;		    /* how many are PAGE_SAME */
	const uint8_t *snapshot; /* NULL, or a copy of the chunk in scratch: PAGE_RAW pages must be
				     * sent from it, and not by reference */
};

/*
 * source_look.c: looks at every pending page of c, once. By whoever was given the chunk, once a
 * round, and all of it must then be sent. 1: nothing was looked at, the chunk has been postponed.
 * scratch: LOOK_SCRATCH bytes of the calling thread.
 */
int source_look_at_chunk(struct source *src, const struct scheduler_chunk *c,
			 struct chunk_look *look, uint8_t *scratch);

/* source_compare.c */

/* Asks how much the destination's RAM holds, and waits for the answer. */
int stream_ask_held(struct stream *s);
/* True if that is worth comparing. Main thread, like the next two. */
bool source_may_compare(struct source *src);
/* Before the streams compare. -ENOMEM. */
int source_compare_begin(struct source *src);
/* After the round that used the comparison; also if there was none. */
void source_compare_end(struct source *src);
/* This stream's share of the comparison. */
int stream_compare(struct stream *s);
/* The answer f with its hashes. -EBADMSG if it was not asked for. */
int stream_hashed(struct stream *s, const struct wire_frame *f, const uint8_t *hashes);

/* source_hand_over.c: says what is pending, on stream 0, and waits until that is acknowledged. */
int stream_hand_over(struct stream *s);

/* source_verify.c: this stream's share of the verification, up to the acknowledgement. */
int stream_verify(struct stream *s);
/*
 * Up to max chunks of one region that no other stream takes, from chunk_cursor on; false if there
 * are none left.
 */
bool source_take_chunks(struct source *src, uint64_t max, const struct region **r, uint64_t *first,
			uint64_t *count);
/* Adds a stream's acknowledged result to the source's. */
void source_add_verified(struct source *src, const struct wire_frame *ack);

#endif
