// SPDX-License-Identifier: MIT
/* The pre-copy policy: single decisions, and whole migrations in a small simulation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "control/session/policy.h"

#define MS  1000000ull
#define MIB 1048576.0

static void first_round_is_never_skipped(void **state)
{
	struct policy_input in = { .max_downtime_ns = 10000 * MS, .pending_bytes = 4096 };

	(void)state;
	assert_int_equal(policy_decide(&in).action, POLICY_ROUND);
}

static void nothing_pending_switches_over(void **state)
{
	struct policy_input in = { .max_downtime_ns = 1, .round = 1, .rate = 1e9 };

	(void)state;
	assert_int_equal(policy_decide(&in).action, POLICY_SWITCH_OVER);
}

static void a_pause_that_is_too_long_is_never_begun(void **state)
{
	struct policy_input in = { .max_downtime_ns = 50 * MS,
				   .round = 100,
				   .rate = 1000 * MIB,
				   .pending_bytes = (uint64_t)(100 * MIB),
				   .dirty_rate = 10 * MIB,
				   .overhead_ns = 15 * MS };

	(void)state;
	assert_int_equal(policy_decide(&in).action, POLICY_ROUND);
	in.pending_bytes = (uint64_t)(30 * MIB);
	assert_int_equal(policy_decide(&in).action, POLICY_SWITCH_OVER);
}

static void prediction_counts_copy_and_overhead(void **state)
{
	struct policy_input in = { .max_downtime_ns = 1000 * MS,
				   .round = 3,
				   .rate = 1e9,
				   .pending_bytes = 100000000,
				   .overhead_ns = 15 * MS };

	(void)state;
	assert_int_equal(policy_decide(&in).predicted_ns, 115 * MS);
}

struct outcome {
	enum policy_action action;
	uint32_t rounds;
	uint64_t pause_ns;
};

/* A guest of ram bytes that dirties rate bytes/s over a working set, on a link of link bytes/s. */
static struct outcome simulate(double ram, double rate, double working_set, double link,
			       uint64_t max_downtime)
{
	struct policy_input in = { .max_downtime_ns = max_downtime, .overhead_ns = 15 * MS };
	double pending = ram;

	for (;;) {
		struct policy_decision d;
		double took = pending / link;
		double dirtied = rate * took < working_set ? rate * took : working_set;

		in.round++;
		in.rate = link;
		in.dirty_rate = took > 0 ? dirtied / took : 0;
		in.pending_bytes = (uint64_t)dirtied;
		d = policy_decide(&in);
		if (d.action != POLICY_ROUND)
			return (struct outcome){ d.action, in.round, d.predicted_ns };
		policy_note(&in.history, in.pending_bytes);
		pending = dirtied;
		assert_true(in.round < 1000); /* it always ends */
	}
}

static void a_fast_link_ends_in_a_short_pause(void **state)
{
	struct outcome o = simulate(2048 * MIB, 150 * MIB, 1024 * MIB, 1500 * MIB, 300 * MS);

	(void)state;
	assert_int_equal(o.action, POLICY_SWITCH_OVER);
	/* Another round costs little and is taken although 300 ms were allowed. */
	assert_true(o.pause_ns < 25 * MS);
	assert_true(o.rounds < 10);
}

static void a_guest_faster_than_the_link_is_given_up(void **state)
{
	struct outcome o = simulate(2048 * MIB, 300 * MIB, 512 * MIB, 95 * MIB, 200 * MS);

	(void)state;
	assert_int_equal(o.action, POLICY_GIVE_UP);
}

static void a_small_working_set_moves_however_fast_it_is_written(void **state)
{
	struct outcome o = simulate(2048 * MIB, 5000 * MIB, 8 * MIB, 95 * MIB, 200 * MS);

	(void)state;
	assert_int_equal(o.action, POLICY_SWITCH_OVER);
	assert_true(o.pause_ns <= 200 * MS);
}

static void it_always_ends_and_keeps_the_limit(void **state)
{
	uint64_t seed = 1;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct outcome o;
		double v[4];

		for (int k = 0; k < 4; k++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			v[k] = (double)(seed >> 33) / 2147483648.0;
		}
		o = simulate(64 * MIB + v[0] * 1e12, v[1] * 4e9, v[2] * 64e9, 1e6 + v[3] * 5e10,
			     300 * MS);
		if (o.action == POLICY_SWITCH_OVER)
			assert_true(o.pause_ns <= 300 * MS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_round_is_never_skipped),
		cmocka_unit_test(nothing_pending_switches_over),
		cmocka_unit_test(a_pause_that_is_too_long_is_never_begun),
		cmocka_unit_test(prediction_counts_copy_and_overhead),
		cmocka_unit_test(a_fast_link_ends_in_a_short_pause),
		cmocka_unit_test(a_guest_faster_than_the_link_is_given_up),
		cmocka_unit_test(a_small_working_set_moves_however_fast_it_is_written),
		cmocka_unit_test(it_always_ends_and_keeps_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
