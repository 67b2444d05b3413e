// SPDX-License-Identifier: MIT
/* Whether to compress, and how hard; see compress_policy.h. */
#include "dataplane/codec/compress_policy.h"

#include <string.h>

#include "lib/base/clock.h"

#define EPOCH_NS (50 * NSEC_PER_MSEC)
#define TRIAL_NS (25 * NSEC_PER_MSEC)

/* Less data says nothing about rates, unless the link took so long for it. */
#define DATA_MIN    (2u << 20)
#define PATIENCE_NS (300 * NSEC_PER_MSEC)

/* What must be promised for a trial, and what it must bring. */
#define TRIAL_GAIN 1.10
#define ON_GAIN	   1.04
/* A rung that brings less is not kept: its cost is the guest's. */
#define RUNG_GAIN 1.02
/* Epochs on a new rung before it is judged. */
#define PROBATION 4

#define BACKOFF_MIN_NS (250 * NSEC_PER_MSEC)
#define BACKOFF_MAX_NS (8 * NSEC_PER_SEC)
#define CHECK_MIN_NS   (2 * NSEC_PER_SEC)
#define CHECK_MAX_NS   (16 * NSEC_PER_SEC)
#define CLIMB_MIN_NS   (500 * NSEC_PER_MSEC)
#define CLIMB_MAX_NS   (32 * NSEC_PER_SEC)

/*
 * Guest data a second. Below this a receiver that expands is never what is slow (it does 1 GB/s a
 * stream), and epochs of raw data would cost a slow link for nothing.
 */
#define SLOW_RECEIVER 150e6

/* A limit below is a slow link from the start; and one that an encoder will fill by itself. */
#define SLOW_LIMIT 300000000u
#define ONLY_LIMIT 120000000u

/* Of a busy processor an encoder still gets its weight's share. */
#define PROCESSORS_MIN 0.12

/*
 * A round shorter than this on the link goes raw; and one of so few bytes. Not one of more, for a
 * link that was never full may be slower than it seems.
 */
#define SMALL_SECONDS	0.004
#define SMALL_BYTES	(512u << 10)
#define SMALL_BYTES_MAX (4u << 20)

/*
 * zstd 1.5 on C headers in pieces of 128 KiB: 453, 429, 117 and 87 MB/s, ratios 5.1, 5.4, 6.4 and
 * 6.6. Only what they are to each other is used, and the first until it has been measured; its
 * ratio is a guess that makes a trial likely.
 */
static const struct {
	int level;
	struct compress_rung prior;
} ladder[COMPRESS_RUNGS] = {
	{ 1, { 450e6, 2.5 } },
	{ 3, { 400e6, 2.6 } },
	{ 6, { 115e6, 3.0 } },
	{ 9, { 85e6, 3.1 } },
};

void compress_policy_init(struct compress_policy *p, uint64_t limit)
{
	memset(p, 0, sizeof(*p));
	p->limit = limit;
	p->state = limit && limit < SLOW_LIMIT ? COMPRESS_TRIAL : COMPRESS_RAW;
	p->only = limit && limit < ONLY_LIMIT;
	p->idle = -1;
	p->backoff_ns = BACKOFF_MIN_NS;
	p->check_interval_ns = CHECK_MIN_NS;
	p->climb_backoff_ns = CLIMB_MIN_NS;
	p->top = COMPRESS_RUNGS - 1;
	for (uint32_t i = 0; i < COMPRESS_RUNGS; i++)
		p->rungs[i] = ladder[i].prior;
}

struct compress_choice compress_policy_choice(const struct compress_policy *p)
{
	bool on = p->state == COMPRESS_TRIAL || p->state == COMPRESS_ON;

	return (struct compress_choice){ .on = on,
					 .only = on && p->only,
					 .level = ladder[p->rung].level };
}

/* What was learned of the link is void. */
static void forget_link(struct compress_policy *p)
{
	p->raw_rate = p->wire_rate = p->link_rate = p->rate = 0;
	p->retry_ns = p->now_ns;
	p->backoff_ns = BACKOFF_MIN_NS;
	p->check_interval_ns = CHECK_MIN_NS;
	p->check_ns = p->now_ns + p->check_interval_ns;
	p->climb_ns = p->now_ns;
	p->climb_backoff_ns = CLIMB_MIN_NS;
	p->rate_before = 0;
}

void compress_policy_link_changed(struct compress_policy *p, uint64_t limit)
{
	p->limit = limit;
	forget_link(p);
}

uint64_t compress_policy_epoch_ns(const struct compress_policy *p)
{
	return p->state == COMPRESS_TRIAL || p->raw_rate <= 0 ? TRIAL_NS : EPOCH_NS;
}

bool compress_policy_round_is_small(const struct compress_policy *p, uint64_t bytes)
{
	double rate = p->limit && (double)p->limit < p->link_rate ? (double)p->limit : p->link_rate;

	return bytes < SMALL_BYTES ||
	       (bytes < SMALL_BYTES_MAX && (double)bytes < rate * SMALL_SECONDS);
}

/* A moving average that begins with its first value. */
static double blend(double was, double is, double share)
{
	return was > 0 ? was + (is - was) * share : is;
}

static double per_second(uint64_t amount, uint64_t ns)
{
	return ns ? (double)amount * 1e9 / (double)ns : 0;
}

static uint64_t twice(uint64_t ns, uint64_t most)
{
	return 2 * ns < most ? 2 * ns : most;
}

/* What encoders can count on. */
static double processors(const struct compress_policy *p, const struct compress_sample *s)
{
	if (p->idle < 0)
		return s->workers;
	if (p->idle < PROCESSORS_MIN)
		return PROCESSORS_MIN;
	return p->idle < s->workers ? p->idle : s->workers;
}

/* The link, and neither processors nor encoders, is what streams wait for. */
static bool link_bound(const struct compress_policy *p, const struct compress_sample *s)
{
	return s->blocked_ns * 2 > s->ns * s->streams && (p->idle < 0 || p->idle > 0.2);
}

/* The kernel counts in steps of 10 ms: one epoch alone is rough. */
static void learn_idle(struct compress_policy *p, const struct compress_sample *s)
{
	double idle = (double)s->idle_ns / (double)s->ns;

	if (s->idle_ns != COMPRESS_UNKNOWN)
		p->idle = p->idle < 0 ? idle : p->idle + (idle - p->idle) * 0.4;
}

static void learn(struct compress_policy *p, const struct compress_sample *s)
{
	struct compress_rung *r = &p->rungs[p->rung];

	if (!s->shrunk || !s->cpu_ns || !s->out)
		return;
	r->speed = blend(r->speed, per_second(s->shrunk, s->cpu_ns), 0.3);
	r->ratio = blend(r->ratio, (double)s->shrunk / (double)s->out, 0.3);
}

static void enter(struct compress_policy *p, enum compress_state state)
{
	p->changes += p->state != state;
	p->state = state;
	p->epochs = 0;
	p->useless = 0;
	if (state != COMPRESS_ON)
		p->rate_before = 0;
	if (state != COMPRESS_ON && state != COMPRESS_TRIAL)
		p->only = false;
}

static void give_up(struct compress_policy *p)
{
	p->retry_ns = p->now_ns + p->backoff_ns;
	p->backoff_ns = twice(p->backoff_ns, BACKOFF_MAX_NS);
	p->rung = 0;
	enter(p, COMPRESS_RAW);
}

/* --- RAW -------------------------------------------------------------------------------------- */

static bool promises(const struct compress_policy *p, const struct compress_sample *s)
{
	const struct compress_rung *r = &p->rungs[0];
	/* what did not compress lately may be followed by what does */
	double ratio = r->ratio > 2 ? r->ratio : 2;
	double encoded = processors(p, s) * r->speed, most = ratio * p->raw_rate;
	double mixed = p->raw_rate + encoded * (1 - 1 / ratio);

	return (mixed < most ? mixed : most) > TRIAL_GAIN * p->raw_rate;
}

static void step_raw(struct compress_policy *p, const struct compress_sample *s)
{
	/* time spent on looking at zeros says nothing about sending */
	if (s->raw && s->empty < 4 * s->raw) {
		double rate = per_second(s->raw, s->ns);

		if (rate < p->raw_rate / 2) /* another link: no trial failed on this one */
			forget_link(p);
		p->raw_rate = blend(p->raw_rate, rate, 0.5);
	}
	if (p->raw_rate > 0 && p->now_ns >= p->retry_ns && promises(p, s)) {
		p->rung = 0;
		enter(p, COMPRESS_TRIAL);
	}
}

/* Share of the encoders' time that they waited for the link. */
static double slack(const struct compress_sample *s)
{
	return (double)s->waited_ns / ((double)s->ns * s->workers);
}

static void choose_only(struct compress_policy *p, const struct compress_sample *s)
{
	p->only = p->only ? slack(s) > 0.02 : slack(s) > 0.25;
}

/* --- TRIAL ------------------------------------------------------------------------------------ */

static bool nothing_shrinks(const struct compress_sample *s)
{
	return s->tried && s->shrunk < s->tried / 16;
}

static void turn_on(struct compress_policy *p)
{
	p->backoff_ns = BACKOFF_MIN_NS;
	p->check_ns = p->now_ns + p->check_interval_ns;
	p->climb_ns = p->now_ns;
	enter(p, COMPRESS_ON);
}

static void step_trial(struct compress_policy *p, const struct compress_sample *s)
{
	if (nothing_shrinks(s)) {
		give_up(p);
		return;
	}
	/* the first epoch has the encoders' start in it */
	if (p->epochs < 2)
		return;
	choose_only(p, s);
	if (p->raw_rate > 0 ? p->rate > ON_GAIN * p->raw_rate : link_bound(p, s)) {
		turn_on(p);
	} else if (p->raw_rate > 0) {
		give_up(p);
	} else {
		enter(p, COMPRESS_RAW); /* to know what it would be */
		p->retry_ns = p->now_ns;
	}
}

/* --- ON --------------------------------------------------------------------------------------- */

static bool can_climb(const struct compress_policy *p, const struct compress_sample *s)
{
	const struct compress_rung *r = &p->rungs[p->rung];
	uint32_t next = p->rung + 1;
	double speed;

	if (next > p->top || p->rate_before > 0 || p->now_ns < p->climb_ns || slack(s) < 0.4)
		return false;
	speed = r->speed * ladder[next].prior.speed / ladder[p->rung].prior.speed;
	return processors(p, s) * speed > 1.2 * p->rate;
}

static void judge_rung(struct compress_policy *p)
{
	bool better;

	p->probation_rate += p->rate;
	if (p->epochs < PROBATION)
		return;
	better = p->probation_rate / p->epochs > RUNG_GAIN * p->rate_before;
	p->rate_before = 0;
	if (better) {
		p->climb_backoff_ns = CLIMB_MIN_NS;
		return;
	}
	p->rung--;
	p->changes++;
	p->climb_ns = p->now_ns + p->climb_backoff_ns;
	p->climb_backoff_ns = twice(p->climb_backoff_ns, CLIMB_MAX_NS);
}

static void choose_rung(struct compress_policy *p, const struct compress_sample *s)
{
	if (p->rate_before > 0) {
		judge_rung(p);
	} else if (p->rung && slack(s) < 0.05 && s->raw * 8 > s->in) {
		p->rung--; /* the link takes more than this rung makes */
		p->changes++;
		p->climb_ns = p->now_ns + p->climb_backoff_ns;
	} else if (p->epochs >= PROBATION && can_climb(p, s)) {
		p->rate_before = p->rate;
		p->probation_rate = 0;
		p->rung++;
		p->epochs = 0;
		p->changes++;
	}
}

static void step_on(struct compress_policy *p, const struct compress_sample *s)
{
	bool bound = link_bound(p, s);
	double raw = p->raw_rate > 0 ? p->raw_rate : bound ? p->wire_rate : 0;

	p->useless = nothing_shrinks(s) ? p->useless + 1 : 0;
	if (p->useless >= 3) {
		give_up(p);
		return;
	}
	/* two epochs, for one may be the end of a run of text */
	if (p->epochs >= 2 && !(bound && p->rate < SLOW_RECEIVER) &&
	    (p->rate < raw || p->now_ns >= p->check_ns)) {
		enter(p, COMPRESS_CHECK);
		return;
	}
	choose_only(p, s);
	choose_rung(p, s);
}

/* --- CHECK ------------------------------------------------------------------------------------ */

static void step_check(struct compress_policy *p, const struct compress_sample *s)
{
	/* its first epoch sends what was encoded before */
	if (p->epochs < 2)
		return;
	p->raw_rate = per_second(s->raw, s->ns);
	if (p->rate > ON_GAIN * p->raw_rate) {
		p->check_interval_ns = twice(p->check_interval_ns, CHECK_MAX_NS);
		turn_on(p);
	} else {
		p->check_interval_ns = CHECK_MIN_NS;
		give_up(p);
	}
}

static void add(struct compress_sample *sum, const struct compress_sample *s)
{
	sum->ns += s->ns;
	sum->raw += s->raw;
	sum->in += s->in;
	sum->empty += s->empty;
	sum->wire += s->wire;
	sum->tried += s->tried;
	sum->shrunk += s->shrunk;
	sum->out += s->out;
	sum->cpu_ns += s->cpu_ns;
	sum->waited_ns += s->waited_ns;
	sum->sending_ns += s->sending_ns;
	sum->blocked_ns += s->blocked_ns;
	if (s->idle_ns == COMPRESS_UNKNOWN)
		sum->idle_ns = COMPRESS_UNKNOWN;
	else if (sum->idle_ns != COMPRESS_UNKNOWN)
		sum->idle_ns += s->idle_ns;
	sum->streams = s->streams;
	sum->workers = s->workers;
}

/* Whether what has been added up is enough; it is dropped if it was not the link's fault. */
static bool enough(struct compress_sample *sum)
{
	if (sum->raw + sum->in >= DATA_MIN)
		return true;
	if (sum->ns < PATIENCE_NS)
		return false;
	if (sum->raw + sum->in && sum->blocked_ns / 2 > sum->ns * sum->streams / 4)
		return true;
	*sum = (struct compress_sample){ 0 };
	return false;
}

struct compress_choice compress_policy_step(struct compress_policy *p,
					    const struct compress_sample *epoch)
{
	const struct compress_sample *s = &p->sum;

	if (!epoch->ns || !epoch->workers)
		return compress_policy_choice(p);
	p->now_ns += epoch->ns;
	add(&p->sum, epoch);
	if (!enough(&p->sum))
		return compress_policy_choice(p);
	p->epochs++;
	p->wire_rate = blend(p->wire_rate, per_second(s->wire, s->ns), 0.3);
	if (s->sending_ns)
		p->link_rate =
			blend(p->link_rate, per_second(s->wire, s->sending_ns) * s->streams, 0.3);
	if (p->state == COMPRESS_ON || p->state == COMPRESS_TRIAL)
		p->rate =
			blend(p->epochs > 1 ? p->rate : 0, per_second(s->raw + s->in, s->ns), 0.4);
	learn(p, s);
	learn_idle(p, s);
	switch (p->state) {
	case COMPRESS_RAW:
		step_raw(p, s);
		break;
	case COMPRESS_TRIAL:
		step_trial(p, s);
		break;
	case COMPRESS_ON:
		step_on(p, s);
		break;
	case COMPRESS_CHECK:
		step_check(p, s);
		break;
	}
	p->sum = (struct compress_sample){ 0 };
	return compress_policy_choice(p);
}
