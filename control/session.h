/* SPDX-License-Identifier: MIT */
/*
 * One session on one side, as session.c, session_source.c and session_destination.c share it.
 *
 * Ownership: the host's list owns every session until host_free. The session's thread alone touches
 * `source` / `destination`, its guest and its data plane. Everything under "visible" is guarded by
 * lock; other threads read it, set cancel or post a request, and wait on changed.
 *
 * States, and what may be done in each (design, section 8):
 *   NEW         checks run; cancel; nothing to undo
 *   NEGOTIATED  the peer holds resources for us; cancel -> abort at the peer
 *   COPYING     the guest runs here and is tracked; cancel
 *   PAUSED      the guest is stopped here; any failure, cancel or crash runs it on here
 *   PREPARED    the destination has loaded it; likewise
 *   COMMITTED   durably logged: only the destination may run it; cancel is refused
 *   RUNNING     the destination has said that it runs
 *   DONE, CANCELLED, FAILED   terminal; FAILED at the source: the guest runs here
 *   UNRESOLVED  terminal until `resolve`: nothing runs by itself
 */
#ifndef TRANSHIP_CONTROL_SESSION_H
#define TRANSHIP_CONTROL_SESSION_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/config.h"
#include "control/guest.h"
#include "control/journal.h"
#include "dataplane/ipc.h"

#define SESSION_ID_TEXT 33 /* 32 hexadecimal digits and the end */

/* An observer (dirty-rate) claims the VM and has it tracked, and moves nothing. */
enum session_side { SESSION_SOURCE, SESSION_DESTINATION, SESSION_OBSERVER };

const char *session_side_name(enum session_side side);

/* What an API thread may ask of a destination's session thread. */
enum session_request { REQUEST_NONE, REQUEST_LOAD, REQUEST_COMMIT, REQUEST_ABORT, REQUEST_FINISH };

struct session_progress {
	uint32_t round;
	uint64_t total_bytes, pending_bytes, sent_bytes, wire_bytes;
	double dirty_rate, throughput; /* bytes per second */
	double predicted_downtime_ms;
};

struct session {
	struct host *host;
	struct session *next;
	enum session_side side;
	char id[SESSION_ID_TEXT];
	uint8_t raw_id[IPC_ID_SIZE];
	json_t *request;	/* what the session was asked to do; read-only once started */
	uint64_t started_ns;
	pthread_t thread;
	bool threaded;		/* thread must be joined */
	int wake_fd;		/* eventfd: cancel or a request is waiting */
	json_t *recovered;	/* owned: merged journal after a crash, or NULL */

	/* visible; under lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t seq;
	enum session_state state;
	bool terminal;
	bool cancelled;
	bool opened;		/* destination: the answer to the offer is ready */
	unsigned int watchers;	/* API threads that hold a reference */
	char vm[128];
	char vm_key[64];	/* pid and start time: one session a VM */
	struct session_progress progress;
	json_t *checks, *events, *result, *answer;
	struct failure failure;
	uint64_t promised_bytes; /* destination: RAM that is reserved but not yet there */
	enum session_request posted; /* being carried out; REQUEST_NONE when free */
	bool request_done;
	int request_err;
	struct failure request_failure;

	struct journal journal;
	bool journaled;
};

/* session.c: the visible part. All take the lock. */
void session_set_state(struct session *s, enum session_state state);
/* Journals with fsync first, then makes the state visible. */
int session_enter(struct session *s, enum session_state state, const json_t *fields,
		  struct failure *f);
void session_event(struct session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool session_cancelled(struct session *s);
/* Marks the end: result is stolen, f may be NULL. Wakes everybody. */
void session_finish(struct session *s, enum session_state state, json_t *result,
		    const struct failure *f);

/*
 * Claims the VM for this session: -EBUSY with vm-busy if another live session of this host has it.
 * Released when the session is terminal.
 */
int session_claim_vm(struct session *s, const struct guest *g, struct failure *f);

/* Request options; absent members give the default. */
bool session_option_bool(const struct session *s, const char *name);
const char *session_option_text(const struct session *s, const char *name, const char *fallback);
uint64_t session_option_number(const struct session *s, const char *name, uint64_t fallback);

/* dirty_rate.c: runs in the thread of the API call. *out: the report. */
int session_observe(struct session *s, json_t **out, struct failure *f);
void session_observer_recover(struct session *s, const json_t *content);

/* Thread bodies and recovery of the two sides. */
void session_source_run(struct session *s);
void session_destination_run(struct session *s);

/*
 * After a crash: content is the merged journal. Brings the session to an end, or to UNRESOLVED; the
 * session is listed already. Runs in the session's thread.
 */
void session_source_recover(struct session *s, const json_t *content);
void session_destination_recover(struct session *s, const json_t *content);
/* A person decided; only in UNRESOLVED (source) or PREPARED without a peer (destination). */
int session_source_resolve(struct session *s, bool run_here, struct failure *f);
int session_destination_resolve(struct session *s, bool run_here, struct failure *f);

const struct config *session_config(const struct session *s);
/* Bytes of RAM promised to the other arriving sessions of this host. */
uint64_t session_promised_elsewhere(const struct session *s);

#endif
