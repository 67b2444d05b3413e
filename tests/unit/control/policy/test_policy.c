// SPDX-License-Identifier: MIT
/* Single decisions of the policy: a table with each reason, and what promises are made of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "control/policy/policy.h"

#define MS  1000000ull
#define S   1000000000ull
#define MIB 1048576ull
#define GIB (1024 * MIB)

/*
 * A guest that is half copied: 95 MiB/s go across, and 200 MiB are pending, 2.1 s; 300 ms are
 * allowed, 15 ms of them taken.
 */
static struct policy_input usual(void)
{
	return (struct policy_input){
		.goals = { .max_downtime_ns = 300 * MS, .impact = 30 },
		.elapsed_ns = 20 * S,
		.round = 3,
		.pending_bytes = 200 * MIB,
		.sent_bytes = 210 * MIB,
		.rate = 95.0 * MIB,
		.wire_ratio = 1,
		.dirty_rate = 90.0 * MIB,
		.since_ns = 2200 * MS,
		.overhead_ns = 15 * MS,
		.postcopy_ns = 30 * MS,
		.history = { .best_pending = 210 * MIB, .rounds_since_best = 2 },
	};
}

/* As usual(), of a set that fits. */
static struct policy_input fitting(void)
{
	struct policy_input in = usual();

	in.pending_bytes = 20 * MIB;
	in.history.best_pending = 21 * MIB;
	return in;
}

static struct policy_input of_reason(enum policy_reason reason)
{
	struct policy_input in = reason == POLICY_SHORTENS || reason == POLICY_ENOUGH_ROUNDS ||
						 reason == POLICY_LOCAL_MINIMUM ||
						 reason == POLICY_UNCERTAIN
					 ? fitting()
					 : usual();

	switch (reason) {
	case POLICY_FIRST_ROUND:
		in.round = 0;
		in.rate = 0;
		break;
	case POLICY_SHORTENS:
		in.history.best_pending = 200 * MIB;
		break;
	case POLICY_TOO_LONG:
		break;
	case POLICY_UNCERTAIN:
		/* the round before took 200 ms longer than it should have */
		policy_note_round(&in.history, 210 * MS, 410 * MS);
		break;
	case POLICY_THROTTLES:
		in.can.throttle = true;
		break;
	case POLICY_NOTHING_LEFT:
		in.pending_bytes = 0;
		break;
	case POLICY_MILLISECONDS:
		in.pending_bytes = MIB / 4;
		break;
	case POLICY_ENOUGH_ROUNDS:
		in.round = 30;
		in.history.best_pending = 200 * MIB;
		break;
	case POLICY_LOCAL_MINIMUM:
		break;
	case POLICY_NO_TIME_LEFT:
		in.can.postcopy = true;
		in.goals.timeout_ns = 25 * S;
		break;
	case POLICY_ASKED:
		in.asked = true;
		break;
	case POLICY_ONE_PASS:
		in.can.postcopy = true;
		in.goals.mode = POLICY_MODE_POSTCOPY;
		in.round = 1;
		break;
	case POLICY_DOES_NOT_PAY:
		in.can.postcopy = true;
		break;
	case POLICY_STALLED:
		in.history.rounds_since_best = 12;
		break;
	case POLICY_BELOW_FLOOR:
		in.goals.max_downtime_ns = 14 * MS;
		break;
	case POLICY_TIMED_OUT:
		in.goals.timeout_ns = 20 * S;
		break;
	default:
		fail_msg("no case of the reason %d", (int)reason);
	}
	return in;
}

static void each_reason_has_its_case(void **state)
{
	static const enum policy_action actions[POLICY_REASONS] = {
		[POLICY_FIRST_ROUND] = POLICY_ROUND,
		[POLICY_SHORTENS] = POLICY_ROUND,
		[POLICY_TOO_LONG] = POLICY_ROUND,
		[POLICY_UNCERTAIN] = POLICY_ROUND,
		[POLICY_THROTTLES] = POLICY_ROUND,
		[POLICY_NOTHING_LEFT] = POLICY_SWITCH_OVER,
		[POLICY_MILLISECONDS] = POLICY_SWITCH_OVER,
		[POLICY_ENOUGH_ROUNDS] = POLICY_SWITCH_OVER,
		[POLICY_LOCAL_MINIMUM] = POLICY_SWITCH_OVER,
		[POLICY_NO_TIME_LEFT] = POLICY_POSTCOPY,
		[POLICY_ASKED] = POLICY_SWITCH_OVER,
		[POLICY_ONE_PASS] = POLICY_POSTCOPY,
		[POLICY_DOES_NOT_PAY] = POLICY_POSTCOPY,
		[POLICY_STALLED] = POLICY_GIVE_UP,
		[POLICY_BELOW_FLOOR] = POLICY_GIVE_UP,
		[POLICY_TIMED_OUT] = POLICY_GIVE_UP,
	};

	(void)state;
	for (int reason = 0; reason < POLICY_REASONS; reason++) {
		struct policy_input in = of_reason((enum policy_reason)reason);
		struct policy_decision d = policy_decide(&in);

		if ((int)d.reason != reason || d.action != actions[reason])
			fail_msg("%s: %s because %s",
				 policy_reason_name((enum policy_reason)reason),
				 policy_action_name(d.action), policy_reason_name(d.reason));
	}
}

static void reasons_have_words_of_their_own(void **state)
{
	(void)state;
	for (int a = 0; a < POLICY_REASONS; a++) {
		assert_true(strlen(policy_reason_text((enum policy_reason)a)) > 10);
		for (int b = 0; b < a; b++)
			assert_string_not_equal(policy_reason_name((enum policy_reason)a),
						policy_reason_name((enum policy_reason)b));
	}
}

static void a_pause_that_is_too_long_is_never_begun(void **state)
{
	struct policy_input in = usual();

	(void)state;
	in.round = 100;
	assert_int_equal(policy_decide(&in).action, POLICY_ROUND);
	in.pending_bytes = 20 * MIB;
	assert_int_equal(policy_decide(&in).action, POLICY_SWITCH_OVER);
	/* nothing is left, and still it takes longer than allowed */
	in.pending_bytes = 0;
	in.goals.max_downtime_ns = 1;
	assert_int_equal(policy_decide(&in).action, POLICY_GIVE_UP);
}

static void a_prediction_counts_copy_gap_and_overhead(void **state)
{
	struct policy_input in = { .goals.max_downtime_ns = 1000 * MS,
				   .round = 3,
				   .rate = 1e9,
				   .pending_bytes = 100000000,
				   .overhead_ns = 15 * MS };

	(void)state;
	assert_int_equal(policy_decide(&in).predicted_ns, 115 * MS);
	/* 100 MB a second are written, and the guest stands still 50 ms after the scan began */
	in.gap_ns = 50 * MS;
	in.dirty_rate = 1e8;
	in.since_ns = 1 * S;
	assert_int_equal(policy_decide(&in).predicted_ns, 120 * MS);
}

static void scans_of_a_pause_are_weighed_by_what_they_find(void **state)
{
	struct policy_input in = usual();

	(void)state;
	in.pause_scans = 2;
	in.pending_bytes = 0;
	in.scan_ns = 110 * MS; /* with 200 MiB found: 10 ms of looking, and 0.5 ms a MiB */
	in.since_ns = 2000 * MS;
	in.dirty_rate = 100.0 * MIB;
	/* one scan alone does not tell */
	assert_in_range(policy_decide(&in).predicted_ns, 235 * MS, 235 * MS);
	assert_int_equal(policy_decide(&in).floor_ns, 15 * MS);
	in.history.last_scan = (struct policy_scan){ .bytes = 40 * MIB, .ns = 30 * MS };
	assert_in_range(policy_decide(&in).predicted_ns, 34 * MS, 36 * MS);
	assert_in_range(policy_decide(&in).floor_ns, 34 * MS, 36 * MS);
	/* what such a VM's pause cannot be, is told as soon as it is known */
	in.goals.max_downtime_ns = 30 * MS;
	assert_int_equal(policy_decide(&in).reason, POLICY_BELOW_FLOOR);
}

/* A scan before the first round tells what two of them in a pause take at least. */
static void a_pause_that_scans_alone_fill_is_refused_before_the_first_round(void **state)
{
	struct policy_input in = fitting();

	(void)state;
	in.round = 0;
	in.scan_ns = 0;
	in.pause_scans = 2;
	in.look_ns = 100 * MS;
	in.goals.max_downtime_ns = 216 * MS;
	assert_int_equal(policy_decide(&in).reason, POLICY_FIRST_ROUND);
	assert_int_equal(policy_decide(&in).floor_ns, 215 * MS);
	in.goals.max_downtime_ns = 214 * MS;
	assert_int_equal(policy_decide(&in).action, POLICY_GIVE_UP);
	assert_int_equal(policy_decide(&in).reason, POLICY_BELOW_FLOOR);
	/* post-copy's pause has one of them */
	in.can.postcopy = true;
	in.postcopy_ns = 15 * MS;
	assert_int_equal(policy_decide(&in).reason, POLICY_FIRST_ROUND);
	in.goals.max_downtime_ns = 114 * MS;
	assert_int_equal(policy_decide(&in).reason, POLICY_BELOW_FLOOR);
}

/* What is missing is named in the pause: that counts for what post-copy promises. */
static void post_copys_pause_names_what_is_missing(void **state)
{
	struct policy_input in = usual();
	uint64_t alone;

	(void)state;
	in.goals.mode = POLICY_MODE_POSTCOPY;
	in.can.postcopy = true;
	in.ram_bytes = 1024 * GIB;
	in.pending_chunks = 100;
	assert_int_equal(policy_decide(&in).action, POLICY_POSTCOPY);
	alone = policy_decide(&in).predicted_ns;
	/* 500000 chunks, 48 MB at 95 MiB/s */
	in.pending_chunks = 500000;
	assert_int_equal(policy_decide(&in).action, POLICY_ROUND);
	in.goals.max_downtime_ns = 600 * MS;
	assert_int_equal(policy_decide(&in).action, POLICY_POSTCOPY);
	assert_in_range(policy_decide(&in).predicted_ns - alone, 450 * MS, 500 * MS);
	/* where the link is no bound, the processors are */
	in.rate = 50e9;
	assert_in_range(policy_decide(&in).predicted_ns - alone, 50 * MS, 100 * MS);
	/* no more chunks than there are */
	in.ram_bytes = 2 * MIB;
	assert_in_range(policy_decide(&in).predicted_ns, 30 * MS, 31 * MS);
	/* and before the first pass nothing is known of them */
	in.ram_bytes = 1024 * GIB;
	in.round = 0;
	in.goals.max_downtime_ns = 31 * MS;
	assert_int_equal(policy_decide(&in).reason, POLICY_FIRST_ROUND);
}

static void a_bandwidth_limit_does_not_hold_back_the_hand_over(void **state)
{
	struct policy_input in = usual();

	(void)state;
	in.goals.mode = POLICY_MODE_POSTCOPY;
	in.goals.bandwidth = 1 * MIB;
	in.can.postcopy = true;
	in.rate = 1.0 * MIB;
	in.ram_bytes = 64 * GIB;
	in.pending_chunks = 10000;
	assert_int_equal(policy_decide(&in).action, POLICY_POSTCOPY);
	/* but a link that carries less than the limit does */
	in.goals.bandwidth = 10 * MIB;
	assert_int_equal(policy_decide(&in).action, POLICY_ROUND);
}

static void what_scans_keep_from_shrinking_is_taken(void **state)
{
	struct policy_input in = fitting();

	(void)state;
	/* a calm guest: 10 MiB in 1 s, 9 MiB of them in any 100 ms; and a scan takes 100 ms */
	in.rate = 1000.0 * MIB;
	in.dirty_rate = 10.0 * MIB;
	in.since_ns = 1000 * MS;
	in.pending_bytes = 10 * MIB;
	in.history.best_pending = 11 * MIB;
	assert_int_equal(policy_decide(&in).reason, POLICY_SHORTENS);
	curve_add(&in.history.curve, 100 * MS, 9 * MIB);
	in.scan_ns = 100 * MS;
	assert_int_equal(policy_decide(&in).reason, POLICY_LOCAL_MINIMUM);
}

static void a_limit_that_was_lowered_counts_at_once(void **state)
{
	struct policy_input in = { .goals.max_downtime_ns = 1000 * MS,
				   .round = 3,
				   .rate = 1e9,
				   .wire_ratio = 0.5,
				   .pending_bytes = 100000000 };

	(void)state;
	in.goals.bandwidth = 250000000;
	assert_int_equal(policy_decide(&in).predicted_ns, 200 * MS);
	in.goals.bandwidth = 1000000000;
	assert_int_equal(policy_decide(&in).predicted_ns, 100 * MS);
}

static void the_margin_is_what_rounds_were_late_by(void **state)
{
	struct policy_input in = fitting(); /* 210 ms of copying */
	struct policy_history *h = &in.history;
	uint64_t before;

	(void)state;
	assert_int_equal(policy_decide(&in).margin_ns, 0);
	/* a round ten times as long, late by a tenth: so may be this */
	policy_note_round(h, 2105 * MS, 2315 * MS);
	assert_in_range(policy_decide(&in).margin_ns, 20 * MS, 22 * MS);
	/* early is no error */
	policy_note_round(h, 2000 * MS, 1000 * MS);
	before = policy_decide(&in).margin_ns;
	assert_in_range(before, 16 * MS, 19 * MS);
	/* a small round's lateness is not multiplied */
	policy_note_round(h, 1 * MS, 60 * MS);
	assert_in_range(policy_decide(&in).margin_ns, 58 * MS, 60 * MS);
	/* and it is forgotten */
	for (int i = 0; i < POLICY_ROUNDS_KEPT; i++)
		policy_note_round(h, 100 * MS, 100 * MS);
	assert_int_equal(policy_decide(&in).margin_ns, 0);
}

static void precopy_never_goes_postcopy(void **state)
{
	(void)state;
	for (int reason = 0; reason < POLICY_REASONS; reason++) {
		struct policy_input in = of_reason((enum policy_reason)reason);

		in.goals.mode = POLICY_MODE_PRECOPY;
		in.can.postcopy = true;
		assert_int_not_equal(policy_decide(&in).action, POLICY_POSTCOPY);
	}
}

static void postcopy_waits_for_a_full_pass(void **state)
{
	struct policy_input in = usual();

	(void)state;
	in.goals.mode = POLICY_MODE_POSTCOPY;
	in.can.postcopy = true;
	in.round = 0;
	in.rate = 0;
	assert_int_equal(policy_decide(&in).action, POLICY_ROUND);
	in.asked = true;
	assert_int_equal(policy_decide(&in).action, POLICY_ROUND);
}

static void postcopy_keeps_the_promise_too(void **state)
{
	struct policy_input in = usual();

	(void)state;
	in.can.postcopy = true;
	in.postcopy_ns = 301 * MS;
	assert_int_equal(policy_decide(&in).action, POLICY_ROUND);
	in.postcopy_ns = 300 * MS;
	assert_int_equal(policy_decide(&in).action, POLICY_POSTCOPY);
	assert_int_equal(policy_decide(&in).predicted_ns, 300 * MS);
}

static void a_guest_is_slowed_only_when_that_is_known_to_end(void **state)
{
	struct policy_input in = usual();
	struct policy_decision d;

	(void)state;
	in.can = (struct policy_abilities){ .throttle = true, .postcopy = true };
	in.dirty_rate = 110.0 * MIB;
	/* of short times nothing is known: its working set may be all in them */
	assert_int_equal(policy_decide(&in).action, POLICY_POSTCOPY);
	/* it is not: at 75 % of its time it writes less than goes across */
	curve_add(&in.history.curve, 200 * MS, 22 * MIB);
	d = policy_decide(&in);
	assert_int_equal(d.reason, POLICY_THROTTLES);
	assert_in_range(d.throttle, 5, 30);
	/* but not within what is allowed */
	in.goals.impact = 3;
	assert_int_equal(policy_decide(&in).action, POLICY_POSTCOPY);
}

static void the_throttle_rises_in_steps_to_what_is_allowed(void **state)
{
	struct policy_input in = usual();
	uint32_t scans = 0;

	(void)state;
	in.can.throttle = true;
	in.goals.impact = 33;
	in.dirty_rate = 500.0 * MIB;
	while (in.throttle < 33 && scans++ < 50) {
		struct policy_decision d = policy_decide(&in);

		assert_int_equal(d.action, POLICY_ROUND);
		assert_in_range(d.throttle, in.throttle, in.throttle + 10);
		assert_true(d.throttle <= 33);
		policy_note_scan(&in.history, &in, &d);
		in.throttle = d.throttle;
	}
	assert_int_equal(in.throttle, 33);
	/* less is allowed now */
	in.goals.impact = 10;
	assert_int_equal(policy_decide(&in).throttle, 10);
	in.goals.impact = 0;
	assert_int_equal(policy_decide(&in).throttle, 0);
}

static void no_round_is_begun_that_cannot_end_in_time(void **state)
{
	struct policy_input in = fitting();
	struct policy_decision d;

	(void)state;
	in.history.best_pending = 200 * MIB;
	in.goals.timeout_ns = in.elapsed_ns + 1000 * MS;
	assert_int_equal(policy_decide(&in).reason, POLICY_SHORTENS);
	in.goals.timeout_ns = in.elapsed_ns + 300 * MS;
	d = policy_decide(&in);
	assert_int_equal(d.action, POLICY_SWITCH_OVER);
	assert_int_equal(d.reason, POLICY_NO_TIME_LEFT);
}

static void modes_have_names(void **state)
{
	enum policy_mode mode;

	(void)state;
	assert_int_equal(policy_mode_parse("hybrid", &mode), 0);
	assert_int_equal(mode, POLICY_MODE_HYBRID);
	assert_int_equal(policy_mode_parse("precopy", &mode), 0);
	assert_int_equal(mode, POLICY_MODE_PRECOPY);
	assert_true(policy_mode_parse("fast", &mode) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_reason_has_its_case),
		cmocka_unit_test(reasons_have_words_of_their_own),
		cmocka_unit_test(a_pause_that_is_too_long_is_never_begun),
		cmocka_unit_test(a_prediction_counts_copy_gap_and_overhead),
		cmocka_unit_test(scans_of_a_pause_are_weighed_by_what_they_find),
		cmocka_unit_test(a_pause_that_scans_alone_fill_is_refused_before_the_first_round),
		cmocka_unit_test(what_scans_keep_from_shrinking_is_taken),
		cmocka_unit_test(a_limit_that_was_lowered_counts_at_once),
		cmocka_unit_test(the_margin_is_what_rounds_were_late_by),
		cmocka_unit_test(precopy_never_goes_postcopy),
		cmocka_unit_test(postcopy_waits_for_a_full_pass),
		cmocka_unit_test(postcopy_keeps_the_promise_too),
		cmocka_unit_test(post_copys_pause_names_what_is_missing),
		cmocka_unit_test(a_bandwidth_limit_does_not_hold_back_the_hand_over),
		cmocka_unit_test(a_guest_is_slowed_only_when_that_is_known_to_end),
		cmocka_unit_test(the_throttle_rises_in_steps_to_what_is_allowed),
		cmocka_unit_test(no_round_is_begun_that_cannot_end_in_time),
		cmocka_unit_test(modes_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
