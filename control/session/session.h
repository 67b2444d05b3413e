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
 *   UNRESOLVED  terminal for whoever waits; nothing runs by itself. The source's thread goes on to
 *	       ask the destination; it ends by the answer or by `resolve`; a post-copy is RUNNING
 *	       again with the answer
 */
#ifndef TRANSHIP_CONTROL_SESSION_H
#define TRANSHIP_CONTROL_SESSION_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/config.h"
#include "control/guest/guest.h"
#include "control/session/goals.h"
#include "control/session/journal.h"
#include "dataplane/ipc.h"

#define SESSION_ID_TEXT 33 /* 32 hexadecimal digits and the end */

/*
 * An observer (dirty-rate) claims the VM and has it tracked, and moves nothing. A bench has no VM
 * and no journal: nothing of it survives its transhipd.
 */
enum session_side {
	SESSION_SOURCE,
	SESSION_DESTINATION,
	SESSION_OBSERVER,
	SESSION_BENCH,	    /* leads one */
	SESSION_BENCH_PEER, /* is led */
};

const char *session_side_name(enum session_side side);

/* What an API thread may ask of a session's thread; session_request.c. */
enum session_ask {
	ASK_NONE,
	ASK_LOAD,	  /* destination: the peer's */
	ASK_COMMIT,	  /* destination: the peer's */
	ASK_POSTCOPY,	  /* destination: the peer's */
	ASK_NO_POSTCOPY,  /* destination: the peer's */
	ASK_FINISH,	  /* destination: the peer's */
	ASK_RUN_HERE,	  /* a person's */
	ASK_GIVE_UP,	  /* a person's */
	ASK_BENCH_RUN,	  /* bench peer: the leader's */
	ASK_BENCH_STOP,	  /* likewise */
	ASK_BENCH_RESULT, /* likewise */
};

struct session_request; /* one of them, on its way */

struct session_progress {
	uint32_t round;
	uint64_t total_bytes, pending_bytes, sent_bytes, wire_bytes;
	double dirty_rate, throughput; /* bytes per second */
	double predicted_downtime_ms;
	char reason[160];	    /* of the last decision: what holds it up */
	uint32_t throttle_percent;  /* by which the guest is slowed now */
	bool pending_known;	    /* a destination is told nothing of it before post-copy */
	bool postcopy;		    /* the guest is served while memory still comes, and */
	struct ipc_postcopy faults; /* what that has cost it, as far as was heard */
};

struct session {
	struct host *host;
	struct session *next;
	enum session_side side;
	char id[SESSION_ID_TEXT];
	uint8_t raw_id[IPC_ID_SIZE];
	json_t *request; /* what the session was asked to do; read-only once started */
	uint64_t started_ns;
	pthread_t thread;
	bool threaded; /* thread must be joined */
	int wake_fd;   /* eventfd: cancelled, abort_wanted, a request, or the host ends */
	int wish_fd; /* source, its thread: eventfd: tuned, switch_asked; others write under lock */
	json_t *recovered; /* owned: merged journal after a crash, or NULL */

	/* visible; under lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t seq;
	enum session_state
		state;	   /* written by the session's thread: it may read without the lock */
	uint64_t state_ns; /* clock_ns() when it came there */
	bool attended;	   /* the thread takes requests; also after the end (terminal) */
	bool terminal;
	bool cancelled;
	bool switching;	      /* source: its goals are decided by, no other counts any more */
	char no_postcopy[64]; /* source: why it cannot be had, once that is known; else "" */
	bool decided;	      /* source: about to be COMMITTED, too late for a cancel */
	signed char load_ran; /* destination: whether it ran when it was paused; -1: not said */
	uint8_t postcopy_secret[IPC_SECRET_SIZE]; /* destination: of the connections to come */
	bool postcopy;		/* destination: its VM's accesses to RAM fault, or did */
	bool postcopy_served;	/* destination: and the source is connected */
	bool postcopy_complete; /* destination: the guest needs the source no more */
	bool abort_wanted;	/* destination: sticky, the source or a person gave it up */
	bool peer_gave_up;	/* destination: it was the source, and it was the first */
	bool untold;		/* destination: why it failed; its source has not asked yet */
	/* destination: COMMITTED before a crash, and it has not run: the source may take it back */
	bool recallable;
	bool ran; /* destination: FAILED, and yet the guest may have run here and written disks */
	bool resolving;	       /* destination: UNRESOLVED, and a person's decision is carried out */
	bool opened;	       /* destination: the answer to the offer is ready */
	unsigned int watchers; /* API threads that hold a reference */
	char vm[128];
	char vm_key[64]; /* pid and start time: one session a VM */
	struct session_progress progress;
	struct goals goals; /* source: as its thread works towards them; mode NULL: not known yet */
	json_t *tuned;	    /* source: changes of them that its thread has not taken over yet */
	bool switch_asked;  /* source: a person wants the switch-over now; stays */
	json_t *checks, *events, *result, *answer;
	struct failure failure;
	uint64_t promised_bytes;	/* destination: RAM that is reserved but not yet there */
	struct session_request *posted; /* NULL when free */

	struct journal journal;
	bool journaled;
};

/* session_visible.c: the visible part. All take the lock. */
void session_set_state(struct session *s, enum session_state state);
/* Journals with fsync first, then makes the state visible. */
int session_enter(struct session *s, enum session_state state, const json_t *fields,
		  struct failure *f);
void session_event(struct session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool session_cancelled(struct session *s);
/* Before the end, which takes a while: why it comes. */
void session_show_failure(struct session *s, const struct failure *f);
/*
 * Marks the end, or, after UNRESOLVED, the end that was found: result is stolen, fields (for the
 * journal) and f may be NULL. Wakes everybody. The last that is done of a session: who sees it may
 * use the VM at once.
 */
void session_finish(struct session *s, enum session_state state, const json_t *fields,
		    json_t *result, const struct failure *f);
/* After UNRESOLVED: it goes on, and what was said of its end is forgotten. */
void session_revive(struct session *s, enum session_state state);
/* What is listed of it, or all. Under lock. */
json_t *session_json(const struct session *s, bool whole);
/* Under lock: waits for a change until deadline_ns (clock_ns()); false when it passed. */
bool session_wait_changed(struct session *s, uint64_t deadline_ns);
/* Makes wake_fd readable. And not readable. */
void session_wake(struct session *s);
void session_drain_wake(struct session *s);

/*
 * session_request.c. ask: hands a request to the session's thread and waits for its answer: 0 and
 * *out (may be NULL; a new reference or NULL), or the thread's error and failure. -ETIMEDOUT
 * with f: a request that was not begun by then is withdrawn. -ESHUTDOWN, without f: no thread
 * attends.
 */
int session_ask(struct session *s, enum session_ask what, unsigned int limit_ms, json_t **out,
		struct failure *f);
/* The thread: takes the request that waits, if any; each must be answered. answer is stolen. */
enum session_ask session_asked(struct session *s);
void session_answer(struct session *s, int err, const struct failure *f, json_t *answer);
/* The thread's end: nobody attends any more. */
void session_leave(struct session *s);

/*
 * vm_claim.c: claims the VM for this session: -EBUSY with vm-busy if another live session of this
 * host has it. Released when the session is terminal and not UNRESOLVED.
 */
int session_claim_vm(struct session *s, const struct guest *g, struct failure *f);
/* Before it is opened: by its words, 0 where they do not tell. It is claimed again when it is. */
int session_claim_words(struct session *s, const char *vm, struct failure *f);

/* Request options, as options.h lets them in; absent members give the default. */
bool session_option_bool(const struct session *s, const char *name);
const char *session_option_text(const struct session *s, const char *name, const char *fallback);
uint64_t session_option_number(const struct session *s, const char *name, uint64_t fallback);

/* observe.c: what a crash left of one that only looked. */
void session_observer_recover(struct session *s, const json_t *content);

/* bench_source.c, bench_peer.c: thread bodies of a benchmark's two sides. */
void session_bench_run(struct session *s);
void session_bench_peer_run(struct session *s);

/* Thread bodies and recovery of the two sides. */
void session_source_run(struct session *s);
void session_destination_run(struct session *s);

/*
 * After a crash: content is the merged journal. Brings the session to an end, or to UNRESOLVED; the
 * session is listed already. Runs in the session's thread.
 */
void session_source_recover(struct session *s, const json_t *content);
void session_destination_recover(struct session *s, const json_t *content);
/*
 * A person decided. Source: only in UNRESOLVED. Destination: give_up until the guest runs here,
 * run_here in PREPARED and COMMITTED. In the thread of the API call.
 */
int session_source_resolve(struct session *s, bool run_here, struct failure *f);
int session_destination_resolve(struct session *s, bool run_here, struct failure *f);

const struct config *session_config(const struct session *s);
/* Bytes of RAM promised to the other arriving sessions of this host. */
uint64_t session_promised_elsewhere(const struct session *s);

#endif
