// SPDX-License-Identifier: MIT
/*
 * The policy of a migration.
 *
 * Theory of operation
 *   Each round moves what the scan before it found, while the guest dirties more; with a dirty rate
 *   d below the transfer rate r the pending set shrinks by d/r a round. The pause can begin as soon
 *   as pending/r + overhead, and what such predictions were found wrong by, are within
 *   max_downtime; to pending belongs what is written until the guest stands still. But rounds are
 *   cheap and the pause is not: while a further round still makes the pause markedly shorter,
 *   another round is run; a pending set that moves in less than WORTHLESS_NS is not worth one. When
 *   the set has stopped shrinking, the first scan that fits is taken (its minima are used: the set
 *   fluctuates).
 *
 *   A promise is kept. The pause is a round like others, so the error of its prediction is that of
 *   rounds: each is predicted from what was known before it, and by how much it took longer is
 *   remembered. The largest overrun of the latest rounds, older ones for less, scaled down to a
 *   smaller set and never up (an overrun of a small round is latency), is the margin.
 *
 *   What does not fit and does not get better has three remedies, in this order, as mode and
 *   abilities allow: hot pages are left for later, so that rounds are shorter and find less;
 *   the guest is slowed; the guest goes first and its memory follows. Whether slowing can help is
 *   read from the working-set curve: a guest at share 1-q of its time writes curve((1-q)t) in t,
 *   and rounds tend to the set P with P = curve((1-q) P/r). With a mode that may go post-copy the
 *   guest is slowed only if the curve is known well enough to say that this ends within impact.
 *
 *   It ends: the throttle only rises, by THROTTLE_QUANTUM at least; between two rises, and after
 *   the last, the smallest set shrinks by a fifth in every STALLED_ROUNDS scans or the answer is to
 *   give up; what fits is taken after ROUNDS_ENOUGH.
 */
#include "control/policy/policy.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define WORTHLESS_NS   4000000u /* 4 ms: less than half of what stop, state and load take */
#define SHRINK_FACTOR  0.75	/* another round must promise at least this much */
#define CALM_RATIO     0.1	/* a dirty rate below this of the rate makes rounds worth while */
#define ROUNDS_ENOUGH  30u	/* fits, and this many rounds were tried: go */
#define STALLED_ROUNDS 12u	/* without progress and without fitting */
#define PROGRESS       0.8	/* of the smallest set so far, within STALLED_ROUNDS: 2 % a round */

#define THROTTLE_QUANTUM 5u  /* percent */
#define THROTTLE_STEP	 10u /* at most so much more at once: a guest is slowed smoothly */
#define THROTTLE_PATIENCE                                                                          \
	1u /* scans without progress before it is slowed, and before it is slowed more */
#define THROTTLE_GOAL 0.9 /* of max_downtime: what a throttle is chosen for */
#define CURVE_KNOWN   4.0 /* times between which a curve must be known to promise anything */
#define FIXPOINT_MAX  64

/* Sizes of two scans' finds must differ by so much for their durations to tell costs apart. */
#define SCANS_DIFFER 1.5

/* Of the pre-copy rate, for the push: more if the link is the bound, less if processors are */
#define PUSH_SHARE  0.6
#define ERROR_DECAY 0.85 /* of an overrun's weight, a round */

/* bench/hand_over, all of it: 0.1 to 0.2 us a chunk; 24 TiB with one page missing 0.5 ms */
#define HAND_OVER_NS_PER_CHUNK 150.0
#define HAND_OVER_NS_PER_GIB   25.0
#define HAND_OVER_CHUNK_BYTES  96.0 /* on the wire: a frame's head and 64 bytes */
/*
 * What the hand-over is not held back by it is not measured with: a link that carries as much as
 * the limit lets through carries at least 1 Gbit/s, or there would be no use for the limit.
 */
#define LIMITED_SHARE 0.8
#define LIMITED_LINK  125e6

#define GIB   1073741824.0
#define CHUNK 2097152.0
#define PAGE  4096.0

const char *const policy_mode_names[] = { "auto", "precopy", "postcopy", "hybrid", NULL };

static const struct {
	const char *name, *text;
} reasons[POLICY_REASONS] = {
	[POLICY_FIRST_ROUND] = { "first-round", "nothing has been measured yet" },
	[POLICY_SHORTENS] = { "shortens", "another round shortens the pause" },
	[POLICY_TOO_LONG] = { "too-long", "the pause would be too long" },
	[POLICY_UNCERTAIN] = { "uncertain", "it fits, but predictions have been wrong by more than "
					    "what is left" },
	[POLICY_THROTTLES] = { "throttles", "the VM writes too fast and is slowed" },
	[POLICY_NOTHING_LEFT] = { "nothing-left", "nothing is left to send" },
	[POLICY_MILLISECONDS] = { "milliseconds", "what is left moves in milliseconds" },
	[POLICY_ENOUGH_ROUNDS] = { "enough-rounds", "enough rounds, and it fits" },
	[POLICY_LOCAL_MINIMUM] = { "local-minimum", "further rounds gain little" },
	[POLICY_NO_TIME_LEFT] = { "no-time-left", "the time limit leaves no room for another "
						  "round" },
	[POLICY_ASKED] = { "asked", "asked for by the user" },
	[POLICY_ONE_PASS] = { "one-pass", "a full pass was made, as post-copy wants it" },
	[POLICY_DOES_NOT_PAY] = { "does-not-pay", "further rounds would not shorten the pause "
						  "enough" },
	[POLICY_STALLED] = { "stalled", "the set to send has stopped shrinking" },
	[POLICY_BELOW_FLOOR] = { "below-floor", "a pause takes longer than that even with nothing "
						"left to send" },
	[POLICY_TIMED_OUT] = { "timed-out", "the time limit has passed" },
};

const char *policy_action_name(enum policy_action action)
{
	static const char *const names[] = { "round", "switch-over", "postcopy", "give-up" };

	return names[action];
}

const char *policy_reason_name(enum policy_reason reason)
{
	return reasons[reason].name;
}

const char *policy_reason_text(enum policy_reason reason)
{
	return reasons[reason].text;
}

int policy_mode_parse(const char *name, enum policy_mode *mode)
{
	for (int i = 0; policy_mode_names[i]; i++) {
		if (strcmp(name, policy_mode_names[i]))
			continue;
		*mode = (enum policy_mode)i;
		return 0;
	}
	return -EINVAL;
}

/* --- what was -------------------------------------------------------------------------------- */

/* Time as the guest has it: what was taken from it did not pass. */
static double guest_time(double ns, uint32_t throttle)
{
	return ns * (100 - throttle) / 100.0;
}

/* What is known after this scan: the curve with its point. */
static void learn(struct curve *c, const struct policy_input *in)
{
	curve_add(c, policy_whole(guest_time((double)in->since_ns, in->throttle)),
		  policy_whole(in->dirty_rate * (double)in->since_ns / 1e9));
}

static bool differ(uint64_t a, uint64_t b)
{
	double less = (double)(a < b ? a : b), more = (double)(a < b ? b : a);

	return more >= SCANS_DIFFER * less && more > 0;
}

static struct policy_scan this_scan(const struct policy_input *in)
{
	return (struct policy_scan){
		.bytes = policy_whole(in->dirty_rate * (double)in->since_ns / 1e9),
		.ns = in->scan_ns,
	};
}

/* Of two scans, one before the other; the older is kept if it says more than the newer. */
static void learn_scan(struct policy_scan *last, struct policy_scan *other,
		       const struct policy_scan *now)
{
	if (last->ns && differ(last->bytes, now->bytes))
		*other = *last;
	else if (other->ns && !differ(other->bytes, now->bytes))
		*other = (struct policy_scan){ 0 };
	*last = *now;
}

void policy_note_scan(struct policy_history *h, const struct policy_input *in,
		      const struct policy_decision *d)
{
	struct policy_scan now = this_scan(in);

	learn(&h->curve, in);
	learn_scan(&h->last_scan, &h->other_scan, &now);
	if (!h->nscans++ || (double)in->pending_bytes < PROGRESS * (double)h->best_pending) {
		h->best_pending = in->pending_bytes;
		h->rounds_since_best = 0;
	} else {
		h->rounds_since_best++;
	}
	if (d->throttle > in->throttle)
		h->rounds_since_best = 0; /* it must show what it does */
}

void policy_note_round(struct policy_history *h, uint64_t predicted_ns, uint64_t actual_ns)
{
	uint32_t at = h->nrounds++ % POLICY_ROUNDS_KEPT;

	h->rounds[at].predicted_ns = predicted_ns;
	h->rounds[at].actual_ns = actual_ns;
}

/* By how much a transfer that should take predicted_ns may take longer. */
static uint64_t margin(const struct policy_history *h, uint64_t predicted_ns)
{
	double worst = 0, weight = 1;

	for (uint32_t i = 0; i < h->nrounds && i < POLICY_ROUNDS_KEPT; i++) {
		uint32_t at = (h->nrounds - 1 - i) % POLICY_ROUNDS_KEPT;
		double was = (double)h->rounds[at].predicted_ns;
		double over = (double)h->rounds[at].actual_ns - was;

		if (was > (double)predicted_ns)
			over *= (double)predicted_ns / was;
		worst = fmax(worst, over * weight);
		weight *= ERROR_DECAY;
	}
	return policy_whole(worst);
}

/* --- what would be --------------------------------------------------------------------------- */

static double rate_of(const struct policy_input *in)
{
	double limit = (double)in->goals.bandwidth;

	if (limit > 0 && in->wire_ratio > 0 && in->rate * in->wire_ratio > limit)
		return limit / in->wire_ratio;
	return in->rate;
}

uint64_t policy_transfer_ns(const struct policy_input *in, uint64_t bytes)
{
	double rate = rate_of(in), ns = rate > 0 ? (double)bytes / rate * 1e9 : 0;

	if (!bytes)
		return 0;
	return rate > 0 && ns < (double)POLICY_UNKNOWN_NS ? (uint64_t)ns : POLICY_UNKNOWN_NS;
}

double policy_hand_over_ns(double ram_bytes, double chunks, double wire_rate)
{
	double wire = wire_rate > 0 ? chunks * HAND_OVER_CHUNK_BYTES / wire_rate * 1e9 : 0;

	/* both go on at once */
	return ram_bytes / GIB * HAND_OVER_NS_PER_GIB + fmax(chunks * HAND_OVER_NS_PER_CHUNK, wire);
}

/* What the link carries, as far as it has been seen; bytes of the wire per second. */
static double link_of(const struct policy_input *in)
{
	double rate = in->rate * in->wire_ratio, limit = (double)in->goals.bandwidth;

	return limit > 0 && rate >= LIMITED_SHARE * limit ? fmax(rate, LIMITED_LINK) : rate;
}

/* Of a switch to post-copy now, when late bytes more will be missing; after the first pass. */
static double hand_over_ns(const struct policy_input *in, double late)
{
	double ram = (double)in->ram_bytes;
	double chunks = in->round ? (double)in->pending_chunks + late / PAGE : 0;

	return policy_hand_over_ns(ram, fmin(chunks, ceil(ram / CHUNK)), link_of(in));
}

/* All that the decision is made of. */
struct view {
	const struct policy_input *in;
	struct curve curve;
	double rate;
	uint64_t copy_ns, predicted_ns, margin_ns;
	double overhead_ns;	  /* of a pause: all but RAM */
	double floor_ns;	  /* the same, if nothing at all were found any more */
	double postcopy_ns;	  /* the pause of post-copy */
	double hand_over_ns;	  /* of it: naming what is missing */
	double postcopy_floor_ns; /* it, if nothing at all were missing */
	bool fits, pays;
	bool could_postcopy, may_postcopy; /* some time, now */
	uint32_t impact;		   /* the most that may be taken from the guest, percent */
};

/* What a round that sends bytes finds to be sent again. */
static double next_set(const struct view *v, double bytes, uint32_t throttle)
{
	double ns = bytes / v->rate * 1e9 + (double)v->in->scan_ns;

	return curve_bytes(&v->curve, guest_time(ns, throttle));
}

/* Whether rounds with that throttle come to fit with a share of max_downtime. */
static bool would_fit(const struct view *v, uint32_t throttle, double share)
{
	double late = curve_bytes(&v->curve, guest_time((double)v->in->gap_ns, throttle));
	double room = share * (double)v->in->goals.max_downtime_ns - v->overhead_ns -
		      (double)v->margin_ns - late / v->rate * 1e9;
	double set = (double)v->in->pending_bytes;

	for (int i = 0; i < FIXPOINT_MAX; i++) {
		double next = next_set(v, set, throttle);

		if (next / v->rate * 1e9 <= room)
			return true;
		if (next > 0.99 * set)
			return false;
		set = next;
	}
	return false;
}

/* The smallest throttle with which it fits, in whole quanta; impact if none does. */
static uint32_t throttle_needed(const struct view *v, bool *enough)
{
	uint32_t q = v->in->throttle;

	for (; q <= v->impact; q += THROTTLE_QUANTUM) {
		*enough = would_fit(v, q, THROTTLE_GOAL);
		if (*enough)
			return q;
	}
	*enough = false;
	return v->impact;
}

/*
 * What the scans of a pause cost, that find late bytes: the time of a scan is that of looking at
 * all RAM, and more for what it finds and protects again. Two scans of different finds tell these
 * apart; until then every scan is taken to be as the last, and the least is what one took before.
 */
static void weigh_scans(struct view *v, double late)
{
	const struct policy_input *in = v->in;
	struct policy_scan a = in->history.last_scan, b = in->history.other_scan;
	struct policy_scan now = this_scan(in);
	double each = 0, look = (double)now.ns, least = (double)in->look_ns;

	learn_scan(&a, &b, &now);
	if (b.ns) {
		each = ((double)a.ns - (double)b.ns) / ((double)a.bytes - (double)b.bytes);
		each = fmax(0, each);
		look = fmin((double)a.ns, (double)b.ns);
		look = fmax(0, look - each * (double)(a.bytes < b.bytes ? a.bytes : b.bytes));
		least = look;
	}
	v->floor_ns = (double)in->overhead_ns + in->pause_scans * least;
	v->overhead_ns = (double)in->overhead_ns + in->pause_scans * look +
			 (in->pause_scans ? each * late : 0);
	v->hand_over_ns = hand_over_ns(in, late);
	v->postcopy_ns = (double)in->postcopy_ns + look + each * late + v->hand_over_ns;
	v->postcopy_floor_ns = (double)in->postcopy_ns + least;
}

static void look(struct view *v, const struct policy_input *in)
{
	uint32_t impact =
		in->goals.impact < POLICY_IMPACT_MAX ? in->goals.impact : POLICY_IMPACT_MAX;
	uint64_t final_ns;
	double late;

	*v = (struct view){ .in = in, .curve = in->history.curve, .rate = rate_of(in) };
	learn(&v->curve, in);
	v->copy_ns = policy_transfer_ns(in, in->pending_bytes);
	late = curve_bytes(&v->curve, guest_time((double)in->gap_ns, in->throttle));
	weigh_scans(v, late);
	final_ns = policy_transfer_ns(in, in->pending_bytes + policy_whole(late));
	v->predicted_ns = final_ns + policy_whole(v->overhead_ns);
	v->margin_ns = margin(&in->history, final_ns);
	v->fits = v->predicted_ns + v->margin_ns <= in->goals.max_downtime_ns;
	v->pays = v->rate > 0 && next_set(v, (double)in->pending_bytes, in->throttle) <
					 PROGRESS * (double)in->pending_bytes;
	v->impact = in->can.throttle ? impact : 0;
	/* Allowed, possible, and its own pause fits: that with nothing missing; the present one. */
	v->could_postcopy = in->can.postcopy && in->goals.mode != POLICY_MODE_PRECOPY &&
			    v->postcopy_floor_ns <= (double)in->goals.max_downtime_ns;
	v->may_postcopy = in->round && v->could_postcopy &&
			  v->postcopy_ns <= (double)in->goals.max_downtime_ns;
}

/* --- decisions ------------------------------------------------------------------------------- */

/* The throttle stays as it is, unless less is allowed now. */
static struct policy_decision decide(const struct view *v, enum policy_action action,
				     enum policy_reason reason)
{
	const struct policy_input *in = v->in;
	bool post = action == POLICY_POSTCOPY;

	return (struct policy_decision){
		.action = action,
		.reason = reason,
		.predicted_ns = post ? policy_whole(v->postcopy_ns) : v->predicted_ns,
		.floor_ns = policy_whole(v->floor_ns),
		.margin_ns = post ? 0 : v->margin_ns,
		.throttle = in->throttle < v->impact ? in->throttle : v->impact,
	};
}

/* What fits: now, or better after another round? */
static struct policy_decision decide_fitting(const struct view *v)
{
	const struct policy_input *in = v->in;
	const struct policy_history *h = &in->history;
	double ratio = v->rate > 0 ? in->dirty_rate / v->rate : 0;
	uint64_t timeout = in->goals.timeout_ns;

	if (!in->pending_bytes)
		return decide(v, POLICY_SWITCH_OVER, POLICY_NOTHING_LEFT);
	if (v->copy_ns <= WORTHLESS_NS)
		return decide(v, POLICY_SWITCH_OVER, POLICY_MILLISECONDS);
	if (in->round >= ROUNDS_ENOUGH)
		return decide(v, POLICY_SWITCH_OVER, POLICY_ENOUGH_ROUNDS);
	if (h->best_pending &&
	    (double)in->pending_bytes > SHRINK_FACTOR * (double)h->best_pending &&
	    (ratio > CALM_RATIO || !v->pays))
		return decide(v, POLICY_SWITCH_OVER, POLICY_LOCAL_MINIMUM);
	if (timeout &&
	    in->elapsed_ns + 2 * (v->copy_ns + v->margin_ns) + policy_whole(v->overhead_ns) >=
		    timeout)
		return decide(v, POLICY_SWITCH_OVER, POLICY_NO_TIME_LEFT);
	return decide(v, POLICY_ROUND, POLICY_SHORTENS);
}

/* A round and then post-copy would not end in time any more. */
static bool last_chance(const struct view *v)
{
	const struct policy_input *in = v->in;
	double round = (double)v->copy_ns, push = round / PUSH_SHARE;

	return in->goals.timeout_ns &&
	       (double)in->elapsed_ns + round + push >= (double)in->goals.timeout_ns;
}

/*
 * A full pass was made. What names the missing pages of a very large VM may be most of its pause:
 * then rounds go on while they make that shorter.
 */
static struct policy_decision decide_postcopy(const struct view *v)
{
	const struct policy_history *h = &v->in->history;

	if (2 * v->hand_over_ns > v->postcopy_ns && v->pays && !h->rounds_since_best &&
	    v->in->round < ROUNDS_ENOUGH && !last_chance(v))
		return decide(v, POLICY_ROUND, POLICY_SHORTENS);
	return decide(v, POLICY_POSTCOPY, POLICY_ONE_PASS);
}

/* One step of throttling; 0 if there is nothing to be gained by one. */
static uint32_t throttle_step(const struct view *v)
{
	const struct policy_input *in = v->in;
	uint32_t needed, step;
	bool enough;

	if (in->throttle >= v->impact || in->history.rounds_since_best < THROTTLE_PATIENCE)
		return 0;
	needed = throttle_needed(v, &enough);
	/* Nothing is known of times as short as the pause: then it is tried in small steps. */
	if (needed < in->throttle + THROTTLE_QUANTUM)
		needed = in->throttle + THROTTLE_QUANTUM;
	step = needed - in->throttle < THROTTLE_STEP ? needed - in->throttle : THROTTLE_STEP;
	return in->throttle + step < v->impact ? in->throttle + step : v->impact;
}

/* Whether a guest that may go post-copy is slowed instead: it must be known to end. */
static bool throttling_ends(const struct view *v)
{
	bool enough = false;

	if (!v->impact || !curve_spans(&v->curve, CURVE_KNOWN))
		return false;
	throttle_needed(v, &enough);
	return enough;
}

static struct policy_decision decide_not_fitting(const struct view *v)
{
	const struct policy_input *in = v->in;
	const struct policy_history *h = &in->history;
	struct policy_decision d;
	uint32_t throttle;

	if (v->may_postcopy && last_chance(v))
		return decide(v, POLICY_POSTCOPY, POLICY_NO_TIME_LEFT);
	d = decide(v, POLICY_ROUND,
		   v->predicted_ns <= in->goals.max_downtime_ns ? POLICY_UNCERTAIN
								: POLICY_TOO_LONG);
	if (v->pays && h->rounds_since_best < STALLED_ROUNDS)
		return d;
	if (v->may_postcopy && (h->rounds_since_best >= STALLED_ROUNDS || !throttling_ends(v)))
		return decide(v, POLICY_POSTCOPY, POLICY_DOES_NOT_PAY);
	throttle = throttle_step(v);
	if (throttle > d.throttle) {
		d.throttle = throttle;
		d.reason = POLICY_THROTTLES;
		return d;
	}
	if (h->rounds_since_best >= STALLED_ROUNDS)
		return decide(v, POLICY_GIVE_UP,
			      d.reason == POLICY_UNCERTAIN ? d.reason
			      : in->pending_bytes	   ? POLICY_STALLED
							   : POLICY_BELOW_FLOOR);
	return d;
}

struct policy_decision policy_decide(const struct policy_input *in)
{
	const struct policy_goals *g = &in->goals;
	struct view v;

	look(&v, in);
	if (g->timeout_ns && in->elapsed_ns >= g->timeout_ns)
		return decide(&v, POLICY_GIVE_UP, POLICY_TIMED_OUT);
	if (v.floor_ns > (double)g->max_downtime_ns && !in->asked && !v.could_postcopy)
		return decide(&v, POLICY_GIVE_UP, POLICY_BELOW_FLOOR);
	if (!in->round || (v.rate <= 0 && in->pending_bytes))
		return decide(&v, POLICY_ROUND, POLICY_FIRST_ROUND);
	if (in->asked)
		return decide(&v, v.may_postcopy && !v.fits ? POLICY_POSTCOPY : POLICY_SWITCH_OVER,
			      POLICY_ASKED);
	if (g->mode == POLICY_MODE_POSTCOPY && v.may_postcopy)
		return decide_postcopy(&v);
	return v.fits ? decide_fitting(&v) : decide_not_fitting(&v);
}
