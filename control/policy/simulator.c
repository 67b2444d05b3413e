// SPDX-License-Identifier: MIT
/*
 * A migration without a VM.
 *
 * Theory of operation
 *   Time goes from scan to scan. Between the starts of two scans the guest writes for as long as
 *   the scan and the round took, slowed by the throttle; the set that the next scan reports is
 *   simulator_written() of that time. With deferral a page that was written again before its turn
 *   is left out of the round. Turns go evenly over the pending set, what is hot by then last, and
 *   what of it has been written again the curve itself says: what a guest writes in two spans of
 *   time together is less than the sum of both by what it wrote in both.
 *
 *   The policy sees what a session would tell it: rates and durations of what has been, never the
 *   model's own figures. Jitter makes the rate of each round, and of the pause, another one.
 */
#include "control/policy/simulator.h"

#include <math.h>
#include <string.h>

#define GIB	       1073741824.0
#define PAGE_SIZE      4096.0
#define CHUNK	       2097152.0
#define RATE_BYTES_MIN (8u << 20) /* smaller rounds tell no rate; as source_copy.c */
#define STEPS	       32	  /* of a round, when pages are left for later */
#define POSTPONED      0.125	  /* of a chunk written again: it comes last in its round */
#define STOP_NS	       5e6	  /* from the last scan's end until the guest stands still */

struct run {
	const struct simulator_model *m;
	struct simulator_result *out;
	struct policy_input in;
	uint64_t random;
	double now_ns;
	double since_ns; /* since the start of the last scan, as the guest had it */
	double scan_ns;	 /* of the last scan */
	double rate;	 /* of the last round */
};

void simulator_defaults(struct simulator_model *m)
{
	*m = (struct simulator_model){
		.wire_ratio = 1,
		.dirty_scale = 1,
		.round_ns = 2e6,
		.streams = 1,
		/* docs/benchmarks.md, "Finding written pages" and docs/very-large-vms.md */
		.scan_ns_per_gib = 1.0e6,
		.protect_ns_per_gib = 12e6,
		.scan_threads = 1,
		.arm_ns_per_gib = 10e6,
		.setup_ns = 150e6,
		.pause_ns = 15e6,
		.pause_scans = 2,
		.throttle_effect = 1,
		.push_share = 0.6,
	};
}

/* --- the model -------------------------------------------------------------------------------- */

static double class_written(const struct simulator_class *c, double ns)
{
	double bytes = c->rate * ns / 1e9;

	if (c->bytes <= 0)
		return 0;
	return c->in_order ? fmin(c->bytes, bytes) : c->bytes * -expm1(-bytes / c->bytes);
}

double simulator_written(const struct simulator_model *m, double ns)
{
	double sum = 0;

	if (!m->nclasses)
		return fmin(curve_estimate(&m->curve, ns), m->populated_bytes);
	for (uint32_t i = 0; i < m->nclasses; i++)
		sum += class_written(&m->classes[i], ns);
	return fmin(sum, m->populated_bytes);
}

/* -1 .. 1; an LCG is random enough here, and the same everywhere. */
static double noise(struct run *r)
{
	r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
	return (double)(r->random >> 11) / 4503599627370496.0 - 1;
}

static double least(double a, double b)
{
	return b > 0 && b < a ? b : a;
}

/* What the network lets through. */
static double link_now(const struct run *r)
{
	const struct simulator_model *m = r->m;
	double wire = m->wire_ratio > 0 ? m->wire_ratio : 1;
	double rate = least(m->link_rate / wire, m->stream_rate * m->streams / wire);

	return least(rate, (double)r->in.goals.bandwidth / wire);
}

static double rate_now(struct run *r, bool first)
{
	double rate = least(link_now(r), first ? r->m->first_rate : r->m->again_rate);

	return rate * (1 + r->m->jitter * noise(r));
}

/* Of the push of post-copy: a share of what the hosts can, and no more than the network. */
static double push_now(const struct run *r)
{
	const struct simulator_model *m = r->m;
	double hosts = m->again_rate > 0 ? m->again_rate : m->link_rate / m->wire_ratio;

	return least(link_now(r), hosts * m->push_share);
}

/* Chunks of what is populated that so many bytes lie in, if their pages do so at random. */
static double chunks_of(const struct simulator_model *m, double bytes)
{
	double chunks = ceil(m->populated_bytes / CHUNK);

	return chunks > 0 ? chunks * -expm1(-bytes / PAGE_SIZE / chunks) : 0;
}

/* Of a switch to post-copy: on one stream, and not held back. */
static double hand_over_ns(const struct simulator_model *m, double missing)
{
	return policy_hand_over_ns(m->ram_bytes, chunks_of(m, missing),
				   least(m->link_rate, m->stream_rate));
}

static double scan_cost(const struct simulator_model *m, double dirty)
{
	return m->ram_bytes / GIB * m->scan_ns_per_gib / (m->scan_threads ? m->scan_threads : 1) +
	       dirty / GIB * m->protect_ns_per_gib;
}

/* Time as the guest has it. */
static double slowed(const struct run *r, double ns)
{
	return r->m->dirty_scale * ns * (1 - r->in.throttle / 100.0 * r->m->throttle_effect);
}

/* --- a round ---------------------------------------------------------------------------------- */

/* The scan that follows what has gone on for ns. */
static void scan(struct run *r, double ns)
{
	double dirty = simulator_written(r->m, slowed(r, ns));

	r->scan_ns = scan_cost(r->m, dirty);
	r->now_ns += r->scan_ns;
	r->in.since_ns = policy_whole(ns);
	r->in.dirty_rate = ns > 0 ? dirty / ns * 1e9 : 0;
	r->in.pending_bytes = policy_whole(dirty);
	r->since_ns = ns;
}

/*
 * What of the pending set has been written again t after the scan that found it: what the two
 * spans of time, one after the other, have in common. The first pass has all there is pending.
 */
static double written_again(const struct run *r, double pending, double t)
{
	double again = simulator_written(r->m, slowed(r, t));

	if (!r->in.round)
		return again;
	return again + pending - simulator_written(r->m, slowed(r, r->since_ns + t));
}

/* How much more than evenly the guest writes where a first pass is at this step. */
static double crowding(const struct run *r, int step)
{
	double share = r->m->places[step * SIMULATOR_PLACES / STEPS], all = 0;

	for (int i = 0; i < SIMULATOR_PLACES; i++)
		all += r->m->places[i];
	return all > 0 ? share / all * SIMULATOR_PLACES : 1;
}

/* What of a step of a round has been written again at its turn, t after the scan: 0 .. 1. */
static double left_out(const struct run *r, double bytes, double pending, int step, double t)
{
	double share = written_again(r, pending, t) / bytes;

	if (!r->in.round)
		share *= crowding(r, step);
	return fmin(1, fmax(0, share));
}

/*
 * What of bytes is sent in a round in which hot pages are left for later, and chunks that are hot
 * come at its end (source_look.c).
 */
static double without_hot(const struct run *r, double bytes, double rate)
{
	double pending = simulator_written(r->m, slowed(r, r->since_ns));
	double part = bytes / STEPS, t = 0, sent = 0;
	bool postponed[STEPS] = { false };

	for (int i = 0; i < 2 * STEPS && bytes > 0; i++) {
		int step = i % STEPS;
		double left, goes;

		if (i >= STEPS && !postponed[step])
			continue;
		left = left_out(r, bytes, pending, step, t);
		postponed[step] = i < STEPS && left >= POSTPONED && left < 1;
		if (postponed[step])
			continue;
		goes = part * (1 - left);
		sent += goes;
		t += goes / rate * 1e9;
	}
	return sent;
}

static void keep_round(struct run *r, const struct policy_decision *d, double sent, double ns)
{
	struct simulator_result *o = r->out;

	if (o->rounds < SIMULATOR_ROUNDS_KEPT)
		o->round[o->rounds] = (struct simulator_round){
			.pending_bytes = (double)r->in.pending_bytes,
			.sent_bytes = sent,
			.ns = ns,
			.decision = *d,
		};
	o->rounds++;
}

/* False when the time limit passed within the round. */
static bool send_round(struct run *r, const struct policy_decision *d)
{
	bool first = !r->in.round;
	double rate = rate_now(r, first), timeout = (double)r->in.goals.timeout_ns;
	double bytes = first ? r->m->populated_bytes * (1 - r->m->zero_share)
			     : (double)r->in.pending_bytes;
	double sent = r->m->defers ? without_hot(r, bytes, rate) : bytes;
	double ns = r->m->round_ns + sent / rate * 1e9;
	bool late = timeout > 0 && r->now_ns + ns > timeout;

	if (!first)
		policy_note_round(&r->in.history, policy_transfer_ns(&r->in, policy_whole(sent)),
				  policy_whole(ns));
	if (late) {
		sent *= fmax(0, (timeout - r->now_ns) / ns);
		ns = fmax(0, timeout - r->now_ns);
	}
	r->in.throttle = d->throttle;
	r->out->throttle = d->throttle > r->out->throttle ? d->throttle : r->out->throttle;
	keep_round(r, d, sent, ns);
	r->now_ns += ns;
	r->out->sent_bytes += sent;
	if (sent >= RATE_BYTES_MIN || r->rate <= 0)
		r->rate = sent > 0 ? sent / ns * 1e9 : rate;
	r->in.round++;
	r->in.sent_bytes = policy_whole(sent);
	if (!late)
		scan(r, r->scan_ns + ns);
	return !late;
}

/* --- ends ------------------------------------------------------------------------------------- */

/* The guest stands still: what was written since the last scan began goes as well. */
static void finish(struct run *r, const struct policy_decision *d)
{
	struct simulator_result *o = r->out;
	const struct simulator_model *m = r->m;
	double gap = r->scan_ns + STOP_NS, rate = rate_now(r, false);
	double left = simulator_written(m, slowed(r, r->since_ns + gap));
	/* the first scan of a pause finds what the last one before it could not */
	double scan_ns = scan_cost(m, simulator_written(m, slowed(r, gap)));
	double scans = m->pause_scans ? scan_ns + (m->pause_scans - 1) * scan_cost(m, 0) : 0;

	o->end = d->action;
	o->reason = d->reason;
	o->promised_ns = (double)(d->predicted_ns + d->margin_ns);
	o->dirty_rate = r->in.dirty_rate;
	o->pending_bytes = (double)r->in.pending_bytes;
	if (d->action == POLICY_SWITCH_OVER) {
		o->downtime_ns = m->pause_ns + scans + left / rate * 1e9;
		o->sent_bytes += left;
	} else if (d->action == POLICY_POSTCOPY) {
		o->downtime_ns = m->pause_ns + scan_ns + hand_over_ns(m, left);
		o->postcopy_ns = left / push_now(r) * 1e9;
		o->sent_bytes += left;
	}
	o->total_ns = r->now_ns + o->downtime_ns + o->postcopy_ns;
	o->wire_bytes = o->sent_bytes * m->wire_ratio;
}

static struct policy_decision ask(struct run *r)
{
	const struct simulator_model *m = r->m;
	struct policy_input *in = &r->in;

	in->elapsed_ns = policy_whole(r->now_ns);
	in->rate = r->rate;
	in->wire_ratio = m->wire_ratio;
	/* the first one arms, which is not what later ones cost */
	in->scan_ns = in->round ? policy_whole(r->scan_ns) : 0;
	in->look_ns = policy_whole(scan_cost(m, 0));
	in->gap_ns = policy_whole(r->scan_ns + STOP_NS);
	in->overhead_ns = policy_whole(m->pause_ns);
	in->pause_scans = m->pause_scans;
	in->postcopy_ns = policy_whole(m->pause_ns);
	in->ram_bytes = policy_whole(m->ram_bytes);
	in->pending_chunks = policy_whole(chunks_of(m, (double)in->pending_bytes));
	return policy_decide(in);
}

void simulate(const struct simulator_model *m, const struct policy_goals *goals,
	      struct simulator_result *out)
{
	struct run r = { .m = m, .out = out, .random = m->seed * 2654435761u + 1 };
	struct policy_decision d;

	memset(out, 0, sizeof(*out));
	r.in.goals = *goals;
	r.in.can = m->can;
	r.scan_ns = m->populated_bytes / GIB * m->arm_ns_per_gib;
	r.now_ns = m->setup_ns + r.scan_ns;
	r.in.pending_bytes = policy_whole(m->populated_bytes);
	for (;;) {
		d = ask(&r);
		if (d.action != POLICY_ROUND)
			break;
		/* as a session: the set of the full pass says nothing of what is written */
		if (r.in.round)
			policy_note_scan(&r.in.history, &r.in, &d);
		if (!send_round(&r, &d) || out->rounds >= SIMULATOR_ROUNDS_MAX) {
			d = (struct policy_decision){ .action = POLICY_GIVE_UP,
						      .reason = out->rounds >= SIMULATOR_ROUNDS_MAX
									? POLICY_STALLED
									: POLICY_TIMED_OUT };
			break;
		}
	}
	finish(&r, &d);
}
