// SPDX-License-Identifier: MIT
/*
 * Between a session and its policy: what was measured goes to control/policy/policy.c, what it
 * decides is noted for whoever asks, and, if it gives up, put into words.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/session/session_source.h"
#include "dataplane/region.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/units.h"

/* Stop, device state, load and resume together, before it has been measured: 11 ms measured. */
#define OVERHEAD_NS (15 * NSEC_PER_MSEC)
/* In a pause: the final scan, and the one that finds nothing any more. */
#define PAUSE_SCANS 2
/* From a decision until the guest stands still: journal, guard, QEMU's pre-switchover. */
#define STOP_NS (5 * NSEC_PER_MSEC)
/* A round of less content says more about latency than about rate: 8 MiB. */
#define RATE_BYTES_MIN (8ull << 20)
/* A page that needs not be sent takes so much less time: bench/compress, zero to random. */
#define EMPTY_SHARE 8
#define MIB	    1048576.0
/* A VM that writes more than this of what can be sent does not get less with time. */
#define CONVERGES 0.9
/* Of a migration of many rounds the first and the latest decisions are kept. */
#define DECISIONS_KEPT 200

static void fill(const struct source *c, struct policy_input *in)
{
	const struct goals *g = &c->o.goals;
	/* the first one arms, which is not what later ones cost */
	uint64_t scan = c->round ? c->scanned.scan_ns : 0;

	*in = (struct policy_input){
		.goals = { .max_downtime_ns = g->max_downtime_ms * NSEC_PER_MSEC,
			   .timeout_ns = g->timeout_ms * NSEC_PER_MSEC,
			   .bandwidth = g->bandwidth,
			   .impact = g->impact },
		.can = c->can,
		.elapsed_ns = clock_ns() - c->s->started_ns,
		.round = c->round,
		.ram_bytes = c->g->desc.ram_bytes,
		.pending_bytes = c->scanned.pending_pages * PAGE_BYTES,
		.pending_chunks = c->scanned.pending_chunks,
		.sent_bytes = c->sent_bytes,
		.rate = c->rate,
		.wire_ratio = c->wire_ratio,
		.dirty_rate = c->scanned.since_ns ? (double)(c->scanned.dirty_pages * PAGE_BYTES) *
							    1e9 / (double)c->scanned.since_ns
						  : 0,
		.since_ns = c->scanned.since_ns,
		.scan_ns = scan,
		.look_ns = c->look_ns,
		.gap_ns = scan + STOP_NS,
		.overhead_ns = OVERHEAD_NS,
		.pause_scans = PAUSE_SCANS,
		.postcopy_ns = OVERHEAD_NS,
		.throttle = c->throttle,
		.asked = c->switch_asked,
		.history = c->history,
	};
	policy_mode_parse(g->mode, &in->goals.mode);
}

/* --- rounds ---------------------------------------------------------------------------------- */

bool source_policy_looked(struct source *c)
{
	struct policy_input in;

	if (!c->look_ns || c->scanned.scan_ns < c->look_ns)
		c->look_ns = c->scanned.scan_ns;
	fill(c, &in);
	return policy_decide(&in).action != POLICY_GIVE_UP;
}

void source_policy_sending(struct source *c)
{
	struct policy_input in;

	fill(c, &in);
	c->sending_ns = c->rate > 0 ? policy_transfer_ns(&in, in.pending_bytes) : 0;
}

/* What was predicted for all that was pending, of what was sent: the rest was left for later. */
static uint64_t expected_ns(const struct source *c, const struct ipc_sent *sent)
{
	uint64_t pending = c->scanned.pending_pages;

	if (!pending || sent->pages >= pending)
		return c->sending_ns;
	return (uint64_t)((double)c->sending_ns * (double)sent->pages / (double)pending);
}

void source_policy_sent(struct source *c, const struct ipc_sent *sent)
{
	const struct ipc_stats *now = &sent->total, *was = &c->round_stats;
	uint64_t content = now->raw_bytes - was->raw_bytes + now->zstd_in_bytes -
			   was->zstd_in_bytes + now->delta_in_bytes - was->delta_in_bytes;
	uint64_t empty = now->zero_bytes - was->zero_bytes + now->same_bytes - was->same_bytes;
	uint64_t moved = content + empty / EMPTY_SHARE;

	/* the end of one that was cut is what was under way, and says nothing of the others */
	if (c->sending_ns && !c->paused && !(sent->flags & IPC_SENT_CUT))
		policy_note_round(&c->history, expected_ns(c, sent), sent->ns);
	if (sent->ns && moved && (content >= RATE_BYTES_MIN || c->rate <= 0))
		c->rate = (double)moved * 1e9 / (double)sent->ns;
	if (content >= RATE_BYTES_MIN || (content && c->wire_ratio <= 0))
		c->wire_ratio = (double)sent->wire_bytes / (double)content;
	c->sent_bytes = sent->pages * PAGE_BYTES;
	c->round_stats = *now;
}

/* --- decisions ------------------------------------------------------------------------------- */

static json_t *decision_json(const struct source *c, const struct policy_input *in,
			     const struct policy_decision *d)
{
	bool known = d->predicted_ns < POLICY_UNKNOWN_NS;

	return json_pack("{s:i, s:f, s:s, s:s, s:o, s:f, s:I, s:i}", "round", (int)c->round, "ms",
			 (double)in->elapsed_ns / 1e6, "action", policy_action_name(d->action),
			 "reason", policy_reason_name(d->reason), "predicted_ms",
			 known ? json_real((double)d->predicted_ns / 1e6) : json_null(),
			 "margin_ms", (double)d->margin_ns / 1e6, "pending_bytes",
			 (json_int_t)in->pending_bytes, "throttle_percent", (int)d->throttle);
}

static void tell(struct source *c, const struct policy_input *in, const struct policy_decision *d)
{
	bool news = !c->ndecisions || c->last.action != d->action || c->last.reason != d->reason ||
		    c->last.throttle != d->throttle;

	if (json_array_size(c->decisions) >= DECISIONS_KEPT)
		json_array_remove(c->decisions, DECISIONS_KEPT / 2);
	json_array_append_new(c->decisions, decision_json(c, in, d));
	c->ndecisions++;
	if (!news || !c->round)
		return;
	session_event(c->s, "%s after %u rounds, %.1f MiB pending: %s (%s)",
		      policy_action_name(d->action), c->round, (double)in->pending_bytes / 1048576,
		      policy_reason_text(d->reason), policy_reason_name(d->reason));
}

struct policy_decision source_decide(struct source *c)
{
	struct policy_input in;
	struct policy_decision d;

	fill(c, &in);
	d = policy_decide(&in);
	/* the set of the full pass says nothing of what is written */
	if (c->round)
		policy_note_scan(&c->history, &in, &d);
	tell(c, &in, &d);
	c->last = d;
	c->decided_by = c->o.goals;
	snprintf(c->reason, sizeof(c->reason), "%s", policy_reason_text(d.reason));
	SCOPED_LOCK(&c->s->lock);
	snprintf(c->s->progress.reason, sizeof(c->s->progress.reason), "%s", c->reason);
	c->s->progress.predicted_downtime_ms =
		d.predicted_ns < POLICY_UNKNOWN_NS ? (double)d.predicted_ns / 1e6 : 0;
	return d;
}

bool source_leaves(const struct source *c, enum policy_reason *reason)
{
	struct policy_decision d;
	struct policy_input in;

	fill(c, &in);
	d = policy_decide(&in);
	*reason = d.reason;
	return d.action == POLICY_POSTCOPY || (c->switch_asked && d.action == POLICY_SWITCH_OVER);
}

void source_show_reason(struct source *c, const char *text)
{
	SCOPED_LOCK(&c->s->lock);

	snprintf(c->s->progress.reason, sizeof(c->s->progress.reason), "%s", text);
}

/* --- why not --------------------------------------------------------------------------------- */

/* A pass over all that there is: how fast the VM writes is not known before its end. */
static int timed_out_in_first_pass(struct source *c, double seconds)
{
	const struct session_progress *p = &c->s->progress;
	double moved = (double)p->total_bytes - (double)p->pending_bytes;
	double ms = c->copying_ns ? clock_ms_since(c->copying_ns) : 0;
	double rate = ms > 0 && moved > 0 ? moved * 1000 / ms : 0;
	char hint[200] = "Allow more time with --timeout, or more bandwidth.";

	if (rate > 0)
		snprintf(hint, sizeof(hint),
			 "At this rate the first pass alone takes %.0f s: allow more time with "
			 "--timeout, or more bandwidth.",
			 (double)p->total_bytes / rate);
	return failure_set(&c->f, -ETIMEDOUT, "timeout", hint,
			   "The time limit of %.3g s passed in the first pass: %.1f of %.1f MiB "
			   "were not sent yet, at %.1f MiB/s.",
			   seconds, (double)p->pending_bytes / MIB, (double)p->total_bytes / MIB,
			   rate / MIB);
}

/* What would let it end: of what was asked for, that which stands against it. */
static void advise(const struct source *c, double dirty, char *hint, size_t size)
{
	const struct goals *g = &c->o.goals;
	double wire = dirty * (c->wire_ratio > 0 ? c->wire_ratio : 1) / CONVERGES;
	bool precopy = !strcmp(g->mode, "precopy");
	char rate[32];

	if (dirty < CONVERGES * c->rate) {
		snprintf(hint, size, "Allow more time with --timeout, or a longer --max-downtime.");
		return;
	}
	snprintf(
		hint, size,
		"More time will not do: it needs a bandwidth of about %s, a VM that writes less%s, "
		"a longer --max-downtime%s.",
		units_format_rate(wire, rate, sizeof(rate)),
		c->can.throttle && g->impact < POLICY_IMPACT_MAX ? " (--impact slows it)" : "",
		c->can.postcopy && precopy ? ", or post-copy (--mode auto)" : "");
}

int source_timed_out(struct source *c)
{
	const struct session_progress *p = &c->s->progress;
	double seconds = (double)c->o.goals.timeout_ms / 1000;
	double ms = (double)c->last.predicted_ns / 1e6;
	char hint[300];

	failure_clear(&c->f);
	snprintf(c->reason, sizeof(c->reason), "%s", policy_reason_text(POLICY_TIMED_OUT));
	if (c->rate <= 0 || !c->scanned.since_ns || c->last.predicted_ns >= POLICY_UNKNOWN_NS)
		return timed_out_in_first_pass(c, seconds);
	advise(c, p->dirty_rate, hint, sizeof(hint));
	return failure_set(&c->f, -ETIMEDOUT, "timeout", hint,
			   "The time limit of %.3g s passed in round %u: %.1f MiB were left, the "
			   "VM writes %.1f MiB/s and %.1f MiB/s can be sent; the pause would be "
			   "%.0f ms, and %.0f ms are allowed.",
			   seconds, c->round, (double)p->pending_bytes / MIB, p->dirty_rate / MIB,
			   c->rate / MIB, ms, (double)c->o.goals.max_downtime_ms);
}

int source_gave_up(struct source *c)
{
	const struct policy_decision *d = &c->last;
	double ms = (double)d->predicted_ns / 1e6;

	if (d->reason == POLICY_TIMED_OUT)
		return source_timed_out(c);
	if (d->reason == POLICY_BELOW_FLOOR)
		return failure_set(&c->f, -EAGAIN, "not-converging",
				   "Allow a longer --max-downtime.",
				   "A pause of this VM takes about %.0f ms even with nothing left "
				   "to send, and %.0f ms are allowed.",
				   (double)d->floor_ns / 1e6, (double)c->o.goals.max_downtime_ms);
	return failure_set(
		&c->f, -EAGAIN, "not-converging",
		"Allow a longer --max-downtime, more --bandwidth, or reduce the load of the VM.",
		"The VM dirties %.0f MiB/s and %.0f MiB/s can be sent: the pause would be %.0f ms, "
		"and %s.",
		c->s->progress.dirty_rate / 1048576, c->rate / 1048576, ms,
		policy_reason_text(d->reason));
}
