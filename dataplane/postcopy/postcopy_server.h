/* SPDX-License-Identifier: MIT */
/*
 * Post-copy at the source: what postcopy_source.c (life), postcopy_answer.c (stream 0) and
 * postcopy_push.c and postcopy_compress.c (all other streams) share. Nothing else includes this but
 * tests.
 *
 * Theory of operation
 *   The guest stands still here and its RAM does not change any more: any page may be sent at any
 *   time, by any way. Stream 0's thread answers requests as they come, whether the page was pushed
 *   already or not (it may be behind much else); the destination takes what comes first. Push
 *   threads send every page of the set once that has not been asked for, a chunk at a time.
 *
 *   Bytes ahead of a fault. What the push streams have given to the kernel goes over the link
 *   before an answer does, so that is little. Between near hosts it is what the link carries in
 *   less than a millisecond, PUSH_QUEUE_MIN to PUSH_QUEUE in all their sockets' buffers (more where
 *   a few segments are more, as on loopback), and that is enough to fill it; between distant ones
 *   the buffers are left to the kernel, and only what is not sent yet is bounded. The answers'
 *   packets have priority where the host's queues know one.
 *
 *   Compression. With --compress what is pushed goes through the encoders of pre-copy
 *   (encode_pool.h), in parts of PART_PAGES, so that little lies between the choice of a chunk
 *   around a fault and its going out; answers are sent as they are. A page counts as sent when its
 *   part goes to the socket, not when an encoder takes it: who asks for it before is answered, and
 *   what has been answered is left out of the part, unless it is one run with pages that were not.
 *   The bound above is one of bytes in sockets: how many pages they hold does not matter.
 *
 *   Order. First what lies around the latest faults, then the chunks of which most is missing: what
 *   was written in the last moments before the switch is what the guest works with.
 *
 *   Threads and locks: every stream has a thread that alone reads and writes it. `lock` guards the
 *   order and the first failure; it is taken once a chunk or part. Encoders take it too, the pool's
 *   own before it.
 */
#ifndef TRANSHIP_DATAPLANE_POSTCOPY_SERVER_H
#define TRANSHIP_DATAPLANE_POSTCOPY_SERVER_H

#include <pthread.h>

#include "dataplane/codec/compress_epochs.h"
#include "dataplane/postcopy/page_set.h"
#include "dataplane/setup.h"
#include "dataplane/source/chunk_plan.h"
#include "dataplane/source/page_reader.h"
#include "dataplane/transport/token_bucket.h"
#include "dataplane/transport/tx.h"
#include "dataplane/transport/wire.h"

#define PUSH_QUEUE     (256u * 1024)
#define PUSH_QUEUE_MIN (64u * 1024)
/* A first round trip below this: near, as control/session/sockets.c has it. */
#define NEAR_US 1000u

#define RECENT_MAX 8u /* faults that the push goes around */

/* With encoders, what is handed out at once. */
#define PART_PAGES 64u

struct server;

/* What a stream has sent, bytes of guest memory unless out; one writer, read atomically. */
struct push_counts {
	uint64_t pages, raw, zero, hole, zstd_in, zstd_out;
	uint64_t sending_ns, blocked_ns; /* with encoders */
};

struct server_compress {
	struct encode_pool *pool; /* NULL: nothing is compressed */
	uint32_t workers;
	int uptime_fd;
	struct compress_epochs epochs;
	bool small; /* what is missing is not worth it */
};

struct server_stream {
	struct server *v;
	uint32_t index;
	int fd; /* the setup's */
	struct tx *tx;
	pthread_t thread;
	bool running;
	uint8_t *scratch; /* PAGE_READER_SCRATCH, owned */
	struct push_counts counts;
	uint64_t wire_bytes, zero_copy_bytes; /* atomic */
	bool near;			      /* a pushing stream's, as what follows */
	uint64_t queue, queue_least;	      /* bytes: its bound, and what that is at least */
	uint64_t rate_ns, rate_bytes; /* when the rate was last looked at, and sent by then */
	bool woken;		      /* v->lock: there may be something to do beside encoders */
	struct chunk_plan plan, rest;
	struct plan_frame frame;
};

enum server_state {
	SERVER_SHAKING,
	SERVER_LISTENING, /* what is missing is not known yet */
	SERVER_PUSHING,
};

struct server {
	struct setup *s;
	struct page_reader reader;
	struct token_bucket bucket;
	const struct tx_ops *tx_ops;
	char tx_reason[96];
	struct server_stream *streams; /* config.streams of them; owned */
	int event_fd;		       /* streams -> main */
	int usage_fd;
	struct page_set wanted;	 /* stream 1's thread until PUSHING, then read-only */
	struct page_set sent;	 /* by somebody, or he is about to */
	uint64_t wanted_pages;	 /* atomic */
	uint64_t requests;	 /* atomic */
	bool stopping;		 /* atomic */
	enum server_state state; /* atomic */
	struct server_compress compress;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	uint32_t shaken, ended; /* streams that are through the handshake; that have pushed */
	uint8_t *taken;		/* a chunk each; owned */
	uint32_t *order;	/* chunks that hold something, best first; owned */
	uint64_t order_count, cursor;
	uint64_t open;			     /* a chunk of which part has been handed out, and */
	uint64_t open_pages[PAGE_SET_WORDS]; /* what of it has not */
	uint64_t recent[RECENT_MAX];	     /* chunks of faults, latest first */
	uint32_t nrecent;
	int failed;
	struct failure failure;
};

static inline bool server_stopping(const struct server *v)
{
	return __atomic_load_n(&v->stopping, __ATOMIC_RELAXED);
}

/*
 * postcopy_source.c. All that a server needs of the setup, before the sandbox; release also after a
 * failure, when no thread runs. -errno with f.
 */
int server_init(struct server *v, struct setup *s, struct failure *f);
void server_release(struct server *v);
/* Wakes the main thread. */
void server_notify(struct server *v);

/* postcopy_answer.c: stream 0's thread's work, until the stream ends; -errno, -EBADMSG. */
int server_serve_faults(struct server_stream *t);
static inline uint64_t push_count(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* What these pages of a chunk are, as a plan. scratch: PAGE_READER_SCRATCH bytes. -errno. */
int server_plan_pages(struct server *v, uint32_t region, uint64_t chunk,
		      const uint64_t mask[PAGE_SET_WORDS], struct chunk_plan *plan,
		      uint8_t *scratch);
/* Sends a plan, and counts it. -errno. */
int server_send_frames(struct server_stream *t, const struct chunk_plan *p, bool more);
/* Sends these pages of a chunk, as they are, and counts them. -errno. */
int server_send_pages(struct server_stream *t, uint32_t region, uint64_t chunk,
		      const uint64_t mask[PAGE_SET_WORDS], bool more);
/* Reads len bytes; -ECONNRESET at the end. */
int server_read(const struct server_stream *t, void *out, size_t len);

/* postcopy_push.c: a push thread's work, up to the acknowledgement of its ROUND_END. */
int server_push(struct server_stream *t);
/* A fault in this chunk (numbered through). */
void server_note_fault(struct server *v, uint64_t number);
/* Bounds what waits in a push stream's socket; again, as the link has turned out. */
void server_bound_queue(struct server_stream *t);
void server_adapt_queue(struct server_stream *t);
/* The next pages that are to be pushed: 1; 0: there are no more; -errno. Encoders too. */
int server_next_plan(struct server *v, struct chunk_plan *plan, uint8_t *scratch);
/* Sends of them what nobody has sent meanwhile. */
int server_send_plan(struct server_stream *t, const struct chunk_plan *p);

/* postcopy_compress.c. init: -ENOMEM; begin: what is missing is known; the rest at any time. */
int server_compress_init(struct server *v);
void server_compress_release(struct server *v);
void server_compress_begin(struct server *v);
void server_compress_link_changed(struct server *v);
void server_compress_stats(struct server *v, struct ipc_stats *t);
/* server_push() where there are encoders, up to the last page. */
int server_push_beside_encoders(struct server_stream *t);

#endif
