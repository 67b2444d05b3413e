/* SPDX-License-Identifier: MIT */
/*
 * The source's side of one migration, shared by its files: session_source.c (stages and their
 * undoing), source_offer.c (options, guest, what the peer says), source_copy.c (data plane and
 * rounds), source_policy.c (decisions), source_throttle.c (the guest slowed down), source_pause.c
 * (how long it may stand still), source_peer.c
 * (the destination's transhipd), source_postcopy.c (serving after the switch), source_settle.c
 * (what is left open, also by a crash), source_result.c (the account of it).
 */
#ifndef TRANSHIP_CONTROL_SESSION_SOURCE_H
#define TRANSHIP_CONTROL_SESSION_SOURCE_H

#include "control/client.h"
#include "control/policy/policy.h"
#include "control/session/compression.h"
#include "control/session/data_addresses.h"
#include "control/session/dataplane_process.h"
#include "control/session/guard.h"
#include "control/session/session.h"
#include "control/session/source_postcopy.h"

struct source_options {
	struct goals goals; /* as they are now */
	uint32_t streams;
	enum ipc_tx tx;
	bool cold, dry_run, keep_src, no_start, verify;
	const char *encrypt, *compress;
	struct compression compression; /* compress, and what came of it */
	uint64_t page_hashes;		/* as in struct ipc_config */
};

/* Durations of the pause, ns. */
struct source_downtime {
	uint64_t begin, end; /* clock_ns() */
	uint64_t pause, final_copy, state, resume;
};

struct source {
	struct session *s;
	struct failure f; /* the first failure */
	struct source_options o;
	struct guest *g;
	pid_t pid; /* of g, also when it is not open; 0: not found yet */
	uint64_t start_time;
	json_t *ram_files;	  /* see source_ram_files() */
	json_t *residue, *arming; /* after a crash: what is left in the VM, or may be */
	struct client *peer;
	struct dataplane dp;
	struct guard guard;
	enum ipc_tracker_kind tracker;
	bool was_running; /* the guest, before we touched it */
	bool ran;	  /* when it was paused: it runs on or stays as it was */
	bool track_dma;
	bool negotiated; /* the peer holds a session for us */
	bool armed;
	bool paused;	      /* the guest is stopped by us */
	bool switch_asked;    /* a person wants the switch-over now */
	bool sending;	      /* a round is under way, and the guest runs */
	bool cut;	      /* that round has been told to end, or cannot be */
	bool load_asked;      /* the destination may hold a loaded VM, which waits for us */
	bool committed;	      /* durably: only the destination may run the guest */
	bool unsettled;	      /* who runs it is open, or it is ours and stands still */
	bool owes_abort;      /* the destination has yet to hear that the session is over */
	struct failure cause; /* of a guest that is ours and stands still: what ended the session */
	uint64_t settle_ns;   /* clock_ns() since when it is unsettled */
	uint8_t secret[IPC_SECRET_SIZE];
	struct data_addresses to; /* of the data streams */
	char congestion[16];	  /* of the data streams; as the last one's */
	struct ipc_ready ready;
	struct ipc_scanned scanned; /* the last scan */
	struct ipc_stats stats;
	uint64_t stats_ns;    /* clock_ns() of stats */
	uint64_t state_bytes; /* of device state */
	struct ipc_verified verified;
	json_t *rounds;
	size_t rounds_noted; /* how many of them the journal had before the pause */
	bool account_known;  /* after a crash: source_account.h */
	uint32_t round;
	/* source_policy.c */
	struct policy_abilities can;
	struct policy_history history;
	struct policy_decision last; /* if there were any: ndecisions */
	uint32_t ndecisions;
	struct goals decided_by; /* the last decision */
	bool drained;		 /* block I/O was, before the switch-over; see source_copy.c */
	json_t *decisions;
	json_t *forecast;    /* of a dry run, or NULL */
	double rate;	     /* guest bytes with content per second, recent rounds */
	double wire_ratio;   /* wire bytes for one of those */
	uint64_t sent_bytes; /* of guest memory, by the last round */
	uint64_t sending_ns; /* what the round under way was predicted to take; 0: unknown */
	struct ipc_stats round_stats; /* at the end of the last round */
	uint64_t look_ns;	      /* the shortest scan before the first round */
	uint32_t throttle;	      /* percent, in force; see source_throttle.h */
	uint32_t throttle_max;	      /* the most that it has been */
	struct throttle *brake;	      /* NULL: cannot be throttled */
	bool braked;		      /* its groups are made */

	uint64_t copying_ns;		       /* clock_ns() when COPYING began */
	uint64_t pause_since_ns, pause_end_ns; /* see source_pause.c; 0: it may last */
	uint64_t unchanged_ns;		       /* clock_ns() of the last source_check_unchanged() */
	char reason[160];		       /* of the last decision: what a result tells */
	struct source_downtime downtime;
	struct source_postcopy post;
	json_t *peer_account; /* what the destination said of its own costs */
};

/* session_source.c */
void source_init(struct source *c, struct session *s);
void source_release(struct source *c);
/*
 * Takes over what was asked of the session meanwhile: goals (the data plane's limit at once) and
 * the switch-over. The waits of source_wait_init() do so by themselves.
 */
void source_take_wishes(struct source *c);
/*
 * Before what cannot be taken back: true if the goals are not those any more that were decided by.
 * Else they stay so, and whoever wants to change them is told.
 */
bool source_turns_back(struct source *c);

/* source_offer.c; stages but the first. */

/* How many streams a migration has for which no number was asked. */
uint32_t source_streams_default(void);
/* What the request says, into c->o; also after a crash. */
int source_take_options(struct source *c);
/* Claims the VM that the request names. */
int source_find_guest(struct source *c);
/* The checks of both sides; the offer makes the destination reserve what the VM needs. */
int source_check_and_offer(struct source *c);

/* source_copy.c */

/* How much of limit_ms may be waited by --timeout, at least 1; and whether its time has passed. */
unsigned int source_patience(const struct source *c, unsigned int limit_ms);
bool source_is_late(const struct source *c);
/*
 * After a wait that was cut so, with its result: -ETIMEDOUT is told as the time limit's (timeout),
 * if that is what it was. what: "the destination was ..."
 */
int source_waited(struct source *c, int err, const char *what);
int source_start_dataplane(struct source *c);
int source_copy_rounds(struct source *c);
/* After that: until the policy lets the guest leave. Its goals may be changed again. */
int source_copy_more(struct source *c);
/*
 * In the pause. begin: the final scan, and what it found is on its way; the device state may be
 * saved meanwhile. settle, after that: scans again and sends until a scan finds nothing, for saving
 * may have written RAM.
 */
int source_final_begin(struct source *c);
int source_final_settle(struct source *c);
int source_scan(struct source *c, uint32_t flags);
/* A round of what is pending: begun, waited for, or both. */
int source_send_begin(struct source *c);
int source_send_end(struct source *c);
int source_send(struct source *c);
/* A stop-scan-cont barrier against DMA in flight, see DESIGN hazards; then a round. */
int source_barrier_round(struct source *c);
/* Whether the VM still is the one that was described; vm-changed. */
int source_check_unchanged(struct source *c);
void source_wait_init(struct source *c, struct dataplane_wait *w, bool limited);

/*
 * source_policy.c. A round is about to be sent, or was: what the policy knows of it. decide: after
 * a scan; is noted for the result, the events and the status. gave_up: why not, as a failure.
 */
/* After a scan before the first round: false if another may show that it can be done after all. */
bool source_policy_looked(struct source *c);
void source_policy_sending(struct source *c);
void source_policy_sent(struct source *c, const struct ipc_sent *sent);
struct policy_decision source_decide(struct source *c);
/*
 * In the middle of a round: the guest would leave if it were decided now, either way if a person
 * wants it to, else for post-copy, which needs no more of the round. *reason: why.
 */
bool source_leaves(const struct source *c, enum policy_reason *reason);
/* What status says until the next decision. */
void source_show_reason(struct source *c, const char *text);
int source_gave_up(struct source *c);
/* The time limit passed, in a round or between two: likewise, in any failure's place. */
int source_timed_out(struct source *c);

/* source_forecast.c: of a dry run, after its checks; -ECANCELED with f. */
int source_forecast(struct source *c);

/* source_result.c: the contract's result object. status: "completed", "failed" ... */
json_t *source_result(const struct source *c, const char *status);

#endif
