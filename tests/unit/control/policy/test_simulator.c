// SPDX-License-Identifier: MIT
/*
 * Whole migrations in the simulator: some whose course is known, and thousands at random, of which
 * each must end and keep what was asked for.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "control/policy/simulator.h"

#define MS  1e6
#define S   1e9
#define MIB 1048576.0
#define GIB (1024 * MIB)

static const struct policy_goals usual = { .max_downtime_ns = (uint64_t)(300 * MS), .impact = 30 };

/* A guest that writes rate over a working set, at random. */
static struct simulator_model guest(double ram, double rate, double set, double link)
{
	struct simulator_model m;

	simulator_defaults(&m);
	m.ram_bytes = m.populated_bytes = ram;
	m.classes[0] = (struct simulator_class){ .bytes = set, .rate = rate };
	m.nclasses = 1;
	m.link_rate = link;
	return m;
}

static struct simulator_result run(const struct simulator_model *m, const struct policy_goals *g)
{
	static struct simulator_result r;

	simulate(m, g, &r);
	return r;
}

static void a_fast_link_ends_in_a_short_pause(void **state)
{
	struct simulator_model m = guest(2048 * MIB, 150 * MIB, 1024 * MIB, 1500 * MIB);
	struct simulator_result r = run(&m, &usual);

	(void)state;
	assert_int_equal(r.end, POLICY_SWITCH_OVER);
	/* Another round costs little and is taken although 300 ms were allowed. */
	assert_true(r.downtime_ns < 40 * MS);
	assert_true(r.rounds < 10);
	/* 2 GiB at 1.5 GiB/s and what was written meanwhile */
	assert_true(r.total_ns > 1.36 * S && r.total_ns < 2.2 * S);
}

static void an_idle_guest_takes_one_pass(void **state)
{
	struct simulator_model m = guest(1024 * MIB, 0, 0, 100 * MIB);
	struct simulator_result r;

	(void)state;
	m.populated_bytes = 512 * MIB;
	m.zero_share = 0.5;
	r = run(&m, &usual);
	assert_int_equal(r.end, POLICY_SWITCH_OVER);
	assert_int_equal(r.reason, POLICY_NOTHING_LEFT);
	assert_int_equal(r.rounds, 1);
	assert_true(fabs(r.sent_bytes - 256 * MIB) < 1);
}

/* To look at 1 TiB by one thread takes a second: no round makes the pause shorter. */
static void an_idle_guest_of_too_long_scans_is_given_up(void **state)
{
	struct simulator_model m = guest(1024 * GIB, 0, 0, 1000 * MIB);
	struct simulator_result r;

	(void)state;
	m.populated_bytes = GIB;
	r = run(&m, &usual);
	assert_int_equal(r.end, POLICY_GIVE_UP);
	assert_int_equal(r.reason, POLICY_BELOW_FLOOR);
	assert_int_equal(r.rounds, 0); /* before anything is sent */
}

/* A thousand years of sending, in nanoseconds, do not fit 64 bits. */
static void what_takes_for_ever_is_still_decided(void **state)
{
	struct simulator_model m = guest(1024 * 1024 * GIB, 1e15, 1024 * 1024 * GIB, 1000);
	struct simulator_result r;

	(void)state;
	assert_int_equal(policy_whole(1e300), POLICY_UNKNOWN_NS);
	assert_int_equal(policy_whole(-1), 0);
	assert_int_equal(policy_whole(NAN), 0);
	assert_int_equal(policy_whole(4096.9), 4096);
	m.scan_ns_per_gib = m.protect_ns_per_gib = m.arm_ns_per_gib = 1e12;
	m.pause_scans = 16;
	r = run(&m, &usual);
	assert_int_equal(r.end, POLICY_GIVE_UP);
	/* the scans alone take longer than what is called unknown */
	assert_true(r.promised_ns >= (double)POLICY_UNKNOWN_NS);
}

static void a_guest_faster_than_the_link_is_given_up(void **state)
{
	struct simulator_model m = guest(2048 * MIB, 300 * MIB, 512 * MIB, 95 * MIB);
	struct simulator_result r = run(&m, &usual);

	(void)state;
	assert_int_equal(r.end, POLICY_GIVE_UP);
	assert_int_equal(r.reason, POLICY_STALLED);
	assert_true(r.downtime_ns == 0);
}

static void the_same_guest_goes_postcopy_after_one_pass(void **state)
{
	struct simulator_model m = guest(512 * MIB, 300 * MIB, 512 * MIB, 95 * MIB);
	struct policy_goals g = usual;
	struct simulator_result r;

	(void)state;
	g.max_downtime_ns = (uint64_t)(200 * MS);
	m.can = (struct policy_abilities){ .throttle = true, .postcopy = true };
	r = run(&m, &g);
	assert_int_equal(r.end, POLICY_POSTCOPY);
	assert_int_equal(r.reason, POLICY_DOES_NOT_PAY);
	assert_int_equal(r.rounds, 1);
	assert_int_equal(r.throttle, 0);
	assert_true(r.downtime_ns < 30 * MS);
}

/* As a session: what names the missing pages goes over in the pause without regard to it. */
static void a_low_limit_leaves_postcopy_its_pause(void **state)
{
	struct simulator_model m = guest(64 * GIB, 30 * MIB, 512 * MIB, 1000 * MIB);
	struct policy_goals g = usual;
	struct simulator_result r;

	(void)state;
	g.bandwidth = (uint64_t)(5 * MIB);
	g.mode = POLICY_MODE_POSTCOPY;
	m.can.postcopy = true;
	r = run(&m, &g);
	assert_int_equal(r.end, POLICY_POSTCOPY);
	assert_int_equal(r.rounds, 1);
	assert_true(r.downtime_ns < 100 * MS);
	/* what the limited link carries is not known; it is taken to be little */
	assert_true(r.promised_ns > r.downtime_ns && r.promised_ns < r.downtime_ns + 30 * MS);
	g.mode = POLICY_MODE_HYBRID;
	assert_int_equal(run(&m, &g).end, POLICY_POSTCOPY);
}

/* What names the missing pages of a very large VM is most of its pause: a round mends that. */
static void postcopy_of_a_very_large_guest_waits_for_a_shorter_pause(void **state)
{
	struct simulator_model m = guest(24 * 1024 * GIB, GIB, 4 * 1024 * GIB, 50 * GIB);
	struct policy_goals g = usual;
	struct simulator_result r;

	(void)state;
	m.scan_ns_per_gib = 0.03e6;
	m.scan_threads = 16;
	m.can.postcopy = true;
	g.mode = POLICY_MODE_POSTCOPY;
	g.max_downtime_ns = (uint64_t)(5 * S);
	r = run(&m, &g);
	assert_int_equal(r.end, POLICY_POSTCOPY);
	assert_in_range(r.rounds, 2, 10);
	/* 12.6 million chunks take 1.9 s to name */
	assert_true(r.downtime_ns < 300 * MS);
	/* a guest of usual size has nothing to wait for */
	m = guest(64 * GIB, GIB, 32 * GIB, 5 * GIB);
	m.can.postcopy = true;
	assert_int_equal(run(&m, &g).rounds, 1);
}

static void a_throttle_makes_the_rest_fit(void **state)
{
	/* 10 % more than goes across, of a large set: rounds do not shrink, slowed ones do */
	struct simulator_model m = guest(8 * GIB, 110 * MIB, 7 * GIB, 100 * MIB);
	struct policy_goals g = usual;
	struct simulator_result r = run(&m, &g);

	(void)state;
	assert_int_equal(r.end, POLICY_GIVE_UP);
	m.can.throttle = true;
	g.impact = 60;
	r = run(&m, &g);
	assert_int_equal(r.end, POLICY_SWITCH_OVER);
	assert_in_range(r.throttle, 5, 60);
	g.impact = 0;
	r = run(&m, &g);
	assert_int_equal(r.end, POLICY_GIVE_UP);
	assert_int_equal(r.throttle, 0);
}

static void a_small_working_set_moves_however_fast_it_is_written(void **state)
{
	struct simulator_model m = guest(2048 * MIB, 5000 * MIB, 8 * MIB, 95 * MIB);
	struct simulator_result r = run(&m, &usual);

	(void)state;
	assert_int_equal(r.end, POLICY_SWITCH_OVER);
	assert_true(r.downtime_ns <= 300 * MS);
}

/* Classes of a Zipf-like writer: each next one ten times as large and half as fast. */
static void hot_pages_left_for_later_save_bytes(void **state)
{
	struct simulator_model m = guest(4 * GIB, 0, 0, 400 * MIB);
	struct simulator_result with, without;

	(void)state;
	m.nclasses = 3;
	m.classes[0] = (struct simulator_class){ .bytes = 60 * MIB, .rate = 900 * MIB };
	m.classes[1] = (struct simulator_class){ .bytes = 320 * MIB, .rate = 100 * MIB };
	m.classes[2] = (struct simulator_class){ .bytes = 3200 * MIB, .rate = 50 * MIB };
	without = run(&m, &usual);
	m.defers = true;
	with = run(&m, &usual);
	assert_int_equal(without.end, with.end);
	/* of what goes more than once */
	assert_true(with.sent_bytes - 4 * GIB < 0.8 * (without.sent_bytes - 4 * GIB));
}

/* The first pass leaves out what the guest wrote before it came by. */
static void a_first_pass_leaves_out_what_it_meets_late(void **state)
{
	struct simulator_model m = guest(1024 * MIB, 200 * MIB, 256 * MIB, 100 * MIB);
	double even, early, late;

	(void)state;
	even = run(&m, &usual).round[0].sent_bytes;
	assert_true(fabs(even - 1024 * MIB) < 1);
	m.defers = true;
	even = run(&m, &usual).round[0].sent_bytes;
	m.places[0] = m.places[1] = m.places[2] = m.places[3] = 0.25;
	early = run(&m, &usual).round[0].sent_bytes;
	memset(m.places, 0, sizeof(m.places));
	m.places[15] = m.places[14] = m.places[13] = m.places[12] = 0.25;
	late = run(&m, &usual).round[0].sent_bytes;
	/* hot chunks that come early are put off to the end, but for the first of them */
	assert_true(late < early && early < even && even < 900 * MIB);
	/* by then all of it is written, and only the rest goes */
	assert_true(fabs(late - 768 * MIB) < 2 * MIB);
}

/* One that writes in order comes back to what is pending only when it has been through the rest. */
static void what_is_written_in_order_is_left_only_when_it_comes_round(void **state)
{
	struct simulator_model m = guest(512 * MIB, 50 * MIB, 256 * MIB, 100 * MIB);
	struct simulator_result r;

	(void)state;
	m.classes[0].in_order = true;
	m.defers = true;
	m.populated_bytes = 256 * MIB;
	r = run(&m, &usual);
	/* at least half the set was written in the pass: what the next one finds is sent once */
	for (uint32_t i = 1; i + 1 < r.rounds && i < SIMULATOR_ROUNDS_KEPT; i++)
		if (r.round[i].pending_bytes * 1.5 < 256 * MIB)
			assert_true(fabs(r.round[i].sent_bytes - r.round[i].pending_bytes) < 1);
	assert_true(r.rounds > 2);
	/* and so says a curve of the same */
	m.nclasses = 0;
	for (double s = 0.01; s < 8; s *= 2)
		curve_add(&m.curve, (uint64_t)(s * S), (uint64_t)fmin(256 * MIB, s * 50 * MIB));
	assert_true(fabs(run(&m, &usual).sent_bytes / r.sent_bytes - 1) < 0.05);
}

static void written_bytes_follow_the_classes(void **state)
{
	struct simulator_model m = guest(GIB, 100 * MIB, 100 * MIB, GIB);

	(void)state;
	assert_true(fabs(simulator_written(&m, 1 * S) / MIB - 100 * (1 - exp(-1))) < 0.01);
	m.classes[0].in_order = true;
	assert_true(fabs(simulator_written(&m, 0.5 * S) / MIB - 50) < 0.01);
	assert_true(fabs(simulator_written(&m, 5 * S) / MIB - 100) < 0.01);
	m.nclasses = 0;
	curve_add(&m.curve, (uint64_t)S, (uint64_t)(10 * MIB));
	assert_true(fabs(simulator_written(&m, 0.5 * S) / MIB - 5) < 0.01);
	/* no more than there is */
	assert_true(simulator_written(&m, 1e15) <= GIB);
}

static void the_same_seed_gives_the_same(void **state)
{
	struct simulator_model m = guest(2048 * MIB, 80 * MIB, 512 * MIB, 95 * MIB);
	struct simulator_result a, b;

	(void)state;
	m.jitter = 0.2;
	m.seed = 7;
	a = run(&m, &usual);
	b = run(&m, &usual);
	assert_memory_equal(&a, &b, sizeof(a));
	m.seed = 8;
	b = run(&m, &usual);
	assert_memory_not_equal(&a, &b, sizeof(a));
}

/* --- at random ------------------------------------------------------------------------------- */

struct random {
	uint64_t seed;
};

static double uniform(struct random *r)
{
	r->seed = r->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (double)(r->seed >> 33) / 2147483648.0;
}

/* Evenly over the magnitudes between lo and hi. */
static double magnitude(struct random *r, double lo, double hi)
{
	return lo * pow(hi / lo, uniform(r));
}

static struct simulator_model any_model(struct random *r)
{
	struct simulator_model m =
		guest(magnitude(r, 64 * MIB, 24 * 1024 * GIB), 0, 0, magnitude(r, MIB, 50 * GIB));

	m.populated_bytes = m.ram_bytes * uniform(r);
	m.zero_share = uniform(r);
	m.wire_ratio = 0.2 + 0.85 * uniform(r);
	m.nclasses = 1 + (uint32_t)(uniform(r) * 5);
	for (uint32_t i = 0; i < m.nclasses; i++)
		m.classes[i] = (struct simulator_class){
			.bytes = m.populated_bytes * magnitude(r, 1e-6, 1) / m.nclasses,
			.rate = magnitude(r, 1e4, 2 * m.link_rate),
			.in_order = uniform(r) < 0.3,
		};
	m.scan_threads = 1 + (uint32_t)(uniform(r) * 64);
	m.first_rate = uniform(r) < 0.5 ? 0 : m.link_rate * magnitude(r, 0.1, 2);
	m.can.throttle = uniform(r) < 0.5;
	m.can.postcopy = uniform(r) < 0.5;
	m.defers = uniform(r) < 0.5;
	m.throttle_effect = uniform(r);
	m.jitter = uniform(r) < 0.5 ? 0 : 0.3 * uniform(r);
	m.seed = r->seed;
	return m;
}

static struct policy_goals any_goals(struct random *r)
{
	return (struct policy_goals){
		.mode = (enum policy_mode)(uniform(r) * 4),
		.max_downtime_ns = (uint64_t)magnitude(r, 1 * MS, 10 * S),
		.timeout_ns = uniform(r) < 0.5 ? 0 : (uint64_t)magnitude(r, S, 1e5 * S),
		.bandwidth = uniform(r) < 0.7 ? 0 : (uint64_t)magnitude(r, MIB, 10 * GIB),
		.impact = (uint32_t)(uniform(r) * 101),
	};
}

/* The throttle of the rounds that were kept never falls, and rises in steps. */
static void check_throttle(const struct simulator_model *m, const struct policy_goals *g,
			   const struct simulator_result *o)
{
	uint32_t before = 0;

	assert_true(o->throttle <= g->impact);
	assert_true(m->can.throttle || !o->throttle);
	for (uint32_t i = 0; i < o->rounds && i < SIMULATOR_ROUNDS_KEPT; i++) {
		uint32_t now = o->round[i].decision.throttle;

		assert_true(now >= before && now <= before + 10);
		before = now;
	}
}

static void check(const struct simulator_model *m, const struct policy_goals *g,
		  const struct simulator_result *o)
{
	double max = (double)g->max_downtime_ns, gib = m->populated_bytes / GIB;
	double arm = gib * m->arm_ns_per_gib;
	double scan = m->ram_bytes / GIB * m->scan_ns_per_gib + gib * m->protect_ns_per_gib;

	assert_int_not_equal(o->end, POLICY_ROUND);
	assert_true(o->rounds < SIMULATOR_ROUNDS_MAX);
	check_throttle(m, g, o);
	if (o->end == POLICY_GIVE_UP) {
		assert_true(o->downtime_ns == 0);
	} else {
		assert_true(o->rounds >= 1);
		/* promised: not more than was asked for, and not less than can be */
		assert_true(o->promised_ns <= max);
		assert_true(o->promised_ns >= m->pause_ns);
		if (g->timeout_ns)
			assert_true(o->total_ns - o->downtime_ns - o->postcopy_ns <
				    (double)g->timeout_ns);
	}
	if (o->end == POLICY_POSTCOPY) {
		assert_int_not_equal(g->mode, POLICY_MODE_PRECOPY);
		assert_true(m->can.postcopy);
	}
	/* a round that would pass the limit is not finished; the scan before it may have been */
	if (g->timeout_ns && o->end == POLICY_GIVE_UP)
		assert_true(o->total_ns <= fmax((double)g->timeout_ns, m->setup_ns + arm) + scan);
}

static void whatever_the_guest_it_ends_as_it_must(void **state)
{
	uint32_t ends[4] = { 0 }, throttled = 0;
	struct random r = { 1 };

	(void)state;
	for (int i = 0; i < 60000; i++) {
		struct simulator_model m = any_model(&r);
		struct policy_goals g = any_goals(&r);
		struct simulator_result o = run(&m, &g);

		check(&m, &g, &o);
		ends[o.end]++;
		throttled += o.throttle > 0;
	}
	/* all ends were seen, so that what holds for them was */
	assert_true(ends[POLICY_SWITCH_OVER] > 1000 && ends[POLICY_POSTCOPY] > 1000);
	assert_true(ends[POLICY_GIVE_UP] > 1000 && throttled > 500);
}

/* Where rates only vary as much as they were seen to, what was promised is what happens. */
static void promises_are_kept(void **state)
{
	uint32_t moves = 0, late = 0;
	struct random r = { 2 };

	(void)state;
	for (int i = 0; i < 60000; i++) {
		struct simulator_model m = any_model(&r);
		struct policy_goals g = any_goals(&r);
		struct simulator_result o = run(&m, &g);

		if (o.end != POLICY_SWITCH_OVER)
			continue;
		moves++;
		late += o.downtime_ns > o.promised_ns + fmax(20 * MS, 0.2 * o.promised_ns);
	}
	assert_true(moves > 1000);
	assert_true(late * 20 <= moves);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fast_link_ends_in_a_short_pause),
		cmocka_unit_test(an_idle_guest_takes_one_pass),
		cmocka_unit_test(an_idle_guest_of_too_long_scans_is_given_up),
		cmocka_unit_test(what_takes_for_ever_is_still_decided),
		cmocka_unit_test(a_guest_faster_than_the_link_is_given_up),
		cmocka_unit_test(the_same_guest_goes_postcopy_after_one_pass),
		cmocka_unit_test(a_low_limit_leaves_postcopy_its_pause),
		cmocka_unit_test(postcopy_of_a_very_large_guest_waits_for_a_shorter_pause),
		cmocka_unit_test(a_throttle_makes_the_rest_fit),
		cmocka_unit_test(a_small_working_set_moves_however_fast_it_is_written),
		cmocka_unit_test(hot_pages_left_for_later_save_bytes),
		cmocka_unit_test(a_first_pass_leaves_out_what_it_meets_late),
		cmocka_unit_test(what_is_written_in_order_is_left_only_when_it_comes_round),
		cmocka_unit_test(written_bytes_follow_the_classes),
		cmocka_unit_test(the_same_seed_gives_the_same),
		cmocka_unit_test(whatever_the_guest_it_ends_as_it_must),
		cmocka_unit_test(promises_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
