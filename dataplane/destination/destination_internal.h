/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the destination share: destination.c (the main thread), destination_accept.c
 * (connections) and destination_stream.c (one stream's frames). See destination.c.
 */
#ifndef TRANSHIP_DATAPLANE_DESTINATION_INTERNAL_H
#define TRANSHIP_DATAPLANE_DESTINATION_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/destination/place.h"
#include "dataplane/destination/rx_reader.h"
#include "dataplane/destination/state_hold.h"
#include "dataplane/page_hash.h"
#include "dataplane/postcopy/postcopy.h"
#include "dataplane/setup.h"

/* Connections that may be open beyond the session's streams: whoever else knocks at the port. */
#define STRANGERS_MAX 16u

struct destination;

/* One data stream; its connection's thread works on it. */
struct stream {
	struct destination *d;
	uint32_t index;
	bool claimed;	   /* d->lock: a connection has proved to be this stream */
	bool verify_ended; /* d->lock: VERIFY_END came, others' is awaited */
	struct rx_reader rx;
	struct placer placer;
	struct ipc_verified verified; /* of the verification under way */
};

/*
 * A slot for one connection and its thread. What may be done in which state:
 *   FREE       the main thread may accept into it
 *   SHAKING    its thread authenticates; the main thread may shut it down to make room
 *   RECEIVING  its thread serves a stream; shut down only to stop
 *   ENDED      its thread is about to return; the main thread joins it and closes the descriptor
 */
enum connection_state {
	CONNECTION_FREE,
	CONNECTION_SHAKING,
	CONNECTION_RECEIVING,
	CONNECTION_ENDED,
};

struct connection {
	struct destination *d;
	enum connection_state state; /* d->lock */
	bool dropped;		     /* d->lock: shut down by us, not worth a word */
	uint64_t accepted_ns;
	pthread_t thread;
	int fd; /* opened and closed by the main thread */
};

struct destination {
	struct setup *s;
	struct place place;
	struct page_hash hash;
	struct stream *streams;		/* s->config.streams */
	struct connection *connections; /* nconnections */
	uint32_t nconnections;
	int event_fd;		  /* wakes the main thread: something below has changed */
	int status_fd;		  /* self_usage */
	uint64_t deadline_ns;	  /* all streams must have come; read-only after start */
	struct postcopy postcopy; /* if that is the role */
	struct state_hold state;  /* stream 0's thread until state_complete, then main's */
	uint64_t state_bytes;	  /* atomic: as far as it has come */
	bool stopping;		  /* atomic: threads' errors no longer matter */

	pthread_mutex_t lock; /* the only one; never held over a system call that can block */
	uint32_t connected;   /* lock: streams claimed */
	bool state_complete;  /* lock: STATE_END came and was right */
	uint32_t verify_ends; /* lock: streams whose VERIFY_END came */
	struct ipc_verified verify_sum; /* lock: of those */
	bool verified;			/* lock: verify_result is to be reported */
	struct ipc_verified verify_result;
	struct page_set
		handover;	 /* lock, until it is mapped: the set of a post-copy; IPC_MISSING */
	bool handed_over;	 /* lock: it has come */
	uint64_t handover_pages; /* stream 0's thread until handed_over */
	int error;		 /* lock: the first failure of a thread, and its words */
	struct failure failure;
};

/* Wakes the main thread. */
void destination_notify(struct destination *d);
/* Records a thread's failure, if it is the first, and wakes the main thread. */
void destination_fail(struct destination *d, int err, const struct failure *f);

static inline bool destination_is_postcopy(const struct destination *d)
{
	return d->s->config.role == IPC_ROLE_POSTCOPY_DESTINATION;
}

static inline bool destination_stopping(const struct destination *d)
{
	return __atomic_load_n(&d->stopping, __ATOMIC_RELAXED);
}

/* destination_accept.c, all called by the main thread. */

/* Accepts what waits, as far as there is room. -errno with f if the listener is broken. */
int connections_accept(struct destination *d, int listener, struct failure *f);
/* True if the listener should be polled: there is a slot to accept into. Makes one if it may. */
bool connections_have_room(struct destination *d);
/* Joins threads that have ended and frees their slots. */
void connections_reap(struct destination *d);
/* Shuts down those that have not become a stream. */
void connections_drop_strangers(struct destination *d);
/* Shuts everything down: whoever waits for a connection waits no more. */
void connections_shut(struct destination *d);
/* After that joins all threads and closes. */
void connections_stop(struct destination *d);

/* destination_stream.c: serves a stream until BYE and its end. -errno with f filled. */
int stream_receive(struct stream *st, int fd, struct failure *f);
/* Sends len bytes back to the source. */
int stream_answer(struct stream *st, const uint8_t *bytes, size_t len);

/* destination_hashes.c: bytes that the RAM files hold; 0 where nothing is worth asking. */
uint64_t destination_held(const struct destination *d);
/* Answers HASHES. */
int stream_take_hashes(struct stream *st, const struct wire_frame *f);

#endif
