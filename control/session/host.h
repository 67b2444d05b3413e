/* SPDX-License-Identifier: MIT */
/*
 * One transhipd: its configuration and its sessions. What api_routes.c calls; implemented by
 * session.c (the list, admission, recovery), session_source.c and session_destination.c (the two
 * sides).
 *
 * Threads: each session has a thread of its own that does all the work on its guest and its data
 * plane; calls here come from the API's threads and only look, ask (cancel) or hand over work and
 * wait. Locks, in this order: host->lock (the list), session->lock (one session's visible state).
 */
#ifndef TRANSHIP_CONTROL_HOST_H
#define TRANSHIP_CONTROL_HOST_H

#include <jansson.h>
#include <stdint.h>

#include "control/config.h"
#include "lib/base/failure.h"

struct host;

/* Reads journals, cleans up after a crash (docs/architecture.md, Recovery). */
int host_new(struct host **out, const struct config *c, struct failure *f);
/* Asks every session to end; calls that wait for one return. Before the API is taken down. */
void host_stop(struct host *h);
/* A session ends, or has ended because of that, and its source has not asked why: wait a little. */
bool host_untold(struct host *h);
/* host_stop, then waits for the sessions' threads. No API thread may be left. */
void host_free(struct host *h);
const struct config *host_config(const struct host *h);

/*
 * JSON in, JSON out. Each returns 0 and a new reference in *out, or -errno and f. in is borrowed.
 *
 * Source side, for the CLI:
 *   migrate   in {"vm","dest","options":{...}}      out {"id"} at once; the session goes on
 *             options: the CLI's long options as members, numbers in base units:
 *             "dry_run" bool, "skip_check" string, "mode" string, "cold" bool,
 *             "max_downtime_ms", "timeout_ms", "bandwidth" (bytes/s), "impact" (percent),
 *             "streams" (0: auto),
 *             "transport", "tx", "encrypt" "on"|"off", "compress",
 *             "delta_cache" (bytes), "page_hashes" (bytes),
 *             "disks", "location", "incoming" string, "no_start", "keep_src", "keep_dst",
 *             "verify" bool; any other, or one of another type, is refused (options.h)
 *   status    by id: the session object (docs/protocol.md); it has "state", "terminal" bool, "seq"
 *             (rises with each change), "progress" {...}, "checks" [...] and, once terminal,
 *             "result" (the contract's object)
 *             Waits up to wait_ms for a seq above `since`.
 *   list      every session known: [{"id","vm","side","state",...}]
 *   cancel    by id. resolve by id with action "run-here" or "give-up".
 *   tune      by id; in: those goals that change ("max_downtime_ms", "timeout_ms", "bandwidth",
 *             "impact", "mode", as in options)       out {"id","goals":{all of them}}
 *   switch    by id: switches over at the next possible scan, whatever pause that means
 *   vms       guest_list()
 *   bench     in {"dest","options":{...}}           out {"id"} at once; as migrate
 *   dirty_rate in {"vm","seconds"}                   out the contract's object
 *             client_fd (or -1): when its other end has been closed, nobody waits for the answer
 *   predict   in {"vm","dest","seconds","options":{...}}  out the forecast; client_fd likewise
 */
int host_migrate(struct host *h, const json_t *in, json_t **out, struct failure *f);
int host_status(struct host *h, const char *id, uint64_t since, unsigned int wait_ms, json_t **out,
		struct failure *f);
int host_list(struct host *h, json_t **out, struct failure *f);
int host_cancel(struct host *h, const char *id, json_t **out, struct failure *f);
int host_resolve(struct host *h, const char *id, const char *action, json_t **out,
		 struct failure *f);
int host_tune(struct host *h, const char *id, const json_t *in, json_t **out, struct failure *f);
int host_switch(struct host *h, const char *id, json_t **out, struct failure *f);
int host_vms(struct host *h, json_t **out, struct failure *f);
int host_bench(struct host *h, const json_t *in, json_t **out, struct failure *f);
int host_dirty_rate(struct host *h, const json_t *in, int client_fd, json_t **out,
		    struct failure *f);
int host_predict(struct host *h, const json_t *in, int client_fd, json_t **out, struct failure *f);

/*
 * Destination side, for the peer:
 *   offer     in {"version","id","secret" hex,"vm", "guest": description, "options", "dry_run"}
 *             out {"version","checks":[...],"data":{"address","port"},...}
 *   load      {"running"}: whether the guest ran when it was paused (absent: as was_running)
 *             the final pages and the device state have been sent: load them; returns when PREPARED
 *   postcopy  in {"secret" hex}: the source is about to connect for post-copy, for the first time
 *             or again                              out {"address","port"}
 *   commit    run it; idempotent
 *   abort     give up, clean; idempotent; -EBUSY (session-state) after commit
 *   finish    the source has ended its VM: forget the session
 *   peer_status {"state", "running": bool}; also renews the lease
 */
int host_peer_offer(struct host *h, const json_t *in, json_t **out, struct failure *f);
int host_peer_load(struct host *h, const char *id, const json_t *in, json_t **out,
		   struct failure *f);
int host_peer_postcopy(struct host *h, const char *id, const json_t *in, json_t **out,
		       struct failure *f);
int host_peer_commit(struct host *h, const char *id, json_t **out, struct failure *f);
int host_peer_abort(struct host *h, const char *id, const json_t *in, json_t **out,
		    struct failure *f);
int host_peer_finish(struct host *h, const char *id, json_t **out, struct failure *f);
int host_peer_status(struct host *h, const char *id, json_t **out, struct failure *f);

/*
 * The led side of a benchmark:
 *   offer     in {"version","id","secret","options"}   out {"version","data":[...],"tx","rx"...}
 *   run       the next row begins; stop: what is sent from here ends early; result: its figures,
 *             when it has ended; finish: the streams have ended, nothing remains
 */
int host_peer_bench(struct host *h, const json_t *in, json_t **out, struct failure *f);
int host_peer_bench_run(struct host *h, const char *id, json_t **out, struct failure *f);
int host_peer_bench_stop(struct host *h, const char *id, json_t **out, struct failure *f);
int host_peer_bench_result(struct host *h, const char *id, json_t **out, struct failure *f);
int host_peer_bench_finish(struct host *h, const char *id, json_t **out, struct failure *f);

#endif
