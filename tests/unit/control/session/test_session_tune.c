// SPDX-License-Identifier: MIT
/*
 * Changing one's mind about a session: two hosts inside this process, real data planes and a
 * synthetic guest that writes 20 MiB/s.
 */
#include "tests/unit/at_once.h"
#include "tests/unit/control/session_fixture.h"

static int begin(void **unused)
{
	fixture_begin(unused);
	host_start(A);
	host_start(B);
	vm_begin(A, "vm", false);
	vm_begin(B, "vm", true);
	return 0;
}

/* A move that cannot end by itself: less than the guest writes can be sent. */
static json_t *hopeless(void)
{
	json_t *options = plain_options(B, "vm");

	json_object_set_new(options, "bandwidth", json_integer(1 << 20));
	json_object_set_new(options, "max_downtime_ms", json_integer(40));
	json_object_set_new(options, "compress", json_string("off"));
	return options;
}

/* The same, whose first pass takes two seconds. */
static void begin_rounds(char id[40])
{
	json_t *options = hopeless();

	json_object_set_new(options, "bandwidth", json_integer(8 << 20));
	json_object_set_new(options, "max_downtime_ms", json_integer(20));
	assert_true(begin_move(A, B, "vm", options, id));
}

/* The answer, or NULL and f. in is stolen. */
static json_t *ask(enum side s, const char *id, const char *verb, json_t *in)
{
	char path[128];
	json_t *out;

	snprintf(path, sizeof(path), "/v1/sessions/%s/%s", id, verb);
	out = call(s, "POST", path, in);
	json_decref(in);
	return out;
}

static void tune(const char *id, json_t *in)
{
	json_t *out = ask(A, id, "tune", in);

	if (!out)
		fail_msg("tune: %s", f.message);
	assert_string_equal(text(out, "id"), id);
	json_decref(out);
}

static void refused(enum side s, const char *id, const char *verb, json_t *in, const char *code)
{
	json_t *out = ask(s, id, verb, in);

	if (out)
		fail_msg("%s was taken, not %s", verb, code);
	assert_string_equal(f.code, code);
}

/* What the session shows to have been taken over. */
static void await_goal(const char *id, const char *member, json_int_t value)
{
	uint64_t start = clock_ns();
	json_int_t is;

	do {
		json_t *j = session_of(A, id);

		is = json_integer_value(json_object_get(json_object_get(j, "goals"), member));
		json_decref(j);
		nap_ms(2);
	} while (is != value && clock_ms_since(start) < 20000);
	assert_int_equal(is, value);
}

static bool has_event(const json_t *session, const char *part)
{
	json_t *event;
	size_t i;

	json_array_foreach (json_object_get(session, "events"), i, event)
		if (strstr(text(event, "text"), part))
			return true;
	return false;
}

static json_t *ends(const char *id, const char *status)
{
	json_t *session = await_end(A, id), *result = json_object_get(session, "result");

	if (strcmp(text(result, "status"), status))
		fail_msg("%s, not %s: %s", text(result, "status"), status,
			 text(json_object_get(result, "error"), "message"));
	return session;
}

static void says(const json_t *session, const char *member, const char *part)
{
	const char *whole = text(json_object_get(session, "error"), member);

	if (!strstr(whole, part))
		fail_msg("'%s' is not in '%s'", part, whole);
}

static void arrived(void)
{
	assert_true(vm_runs(B, "vm"));
	assert_true(vm_is_right(B, "vm"));
	assert_no_strangers();
}

/* --- cases ----------------------------------------------------------------------------------- */

/* In the middle of a round that would take 13 s, of a move that would never end. */
static void more_bandwidth_lets_it_end(void **unused)
{
	json_t *session;
	char id[40];

	(void)unused;
	assert_true(begin_move(A, B, "vm", hopeless(), id));
	await_state(A, id, "copying");
	await_goal(id, "bandwidth", 1 << 20);
	tune(id, json_pack("{s:i, s:i}", "bandwidth", 0, "max_downtime_ms", 2000));
	await_goal(id, "bandwidth", 0);
	await_goal(id, "max_downtime_ms", 2000);
	session = ends(id, "completed");
	assert_true(has_event(session, "tuned: bandwidth unlimited"));
	assert_true(has_event(session, "tuned: max-downtime 2000 ms, was 40 ms"));
	json_decref(session);
	arrived();
}

static void switched_over_by_its_user(void **unused)
{
	json_t *session, *result;
	char id[40];

	(void)unused;
	begin_rounds(id);
	await_state(A, id, "copying");
	json_decref(ask(A, id, "switch", NULL));
	session = ends(id, "completed");
	result = json_object_get(session, "result");
	assert_string_equal(text(result, "reason"), "asked for by the user");
	assert_true(has_event(session, "asked for by the user"));
	assert_true(json_number_value(json_object_get(result, "downtime_ms")) > 1);
	json_decref(session);
	arrived();
}

/* Until an event of the session says that. */
static void await_event(const char *id, const char *part)
{
	uint64_t start = clock_ns();
	bool found;

	do {
		json_t *j = session_of(A, id);

		found = has_event(j, part);
		json_decref(j);
		nap_ms(2);
	} while (!found && clock_ms_since(start) < 20000);
	if (!found)
		fail_msg("not said: %s", part);
}

static void await_round(const char *id, json_int_t round)
{
	uint64_t start = clock_ns();
	json_int_t is;

	do {
		json_t *j = session_of(A, id);

		is = json_integer_value(json_object_get(json_object_get(j, "progress"), "round"));
		json_decref(j);
		nap_ms(2);
	} while (is < round && clock_ms_since(start) < 20000);
	assert_true(is >= round);
}

static unsigned int rounds_cut(const json_t *session)
{
	json_t *round;
	unsigned int n = 0;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(session, "result"), "rounds"), i, round)
		n += json_is_true(json_object_get(round, "cut"));
	return n;
}

static void shows(const char *id, const char *reason)
{
	json_t *j = session_of(A, id);

	assert_non_null(strstr(text(json_object_get(j, "progress"), "reason"), reason));
	json_decref(j);
}

/* A second round that would take minutes, when a person wants the switch-over. */
static void until_a_round_is_cut(char id[40])
{
	begin_rounds(id);
	await_round(id, 2);
	tune(id, json_pack("{s:i}", "bandwidth", 64 << 10));
	await_goal(id, "bandwidth", 64 << 10);
	json_decref(ask(A, id, "switch", NULL));
	await_event(id, "is cut short: asked for by the user");
}

/* A round that would take minutes ends when a person wants the switch-over. */
static void a_round_is_cut(void **unused)
{
	json_t *session;
	char id[40];

	(void)unused;
	until_a_round_is_cut(id);
	/* what is on its way, and the pause, need not last */
	tune(id, json_pack("{s:i}", "bandwidth", 0));
	session = ends(id, "completed");
	assert_string_equal(text(json_object_get(session, "result"), "reason"),
			    "asked for by the user");
	assert_int_equal(rounds_cut(session), 1);
	json_decref(session);
	arrived();
}

/* It says what was never populated: so it is not cut, and status says what is waited for. */
static void the_first_round_is_waited_for(void **unused)
{
	json_t *session;
	char id[40];

	(void)unused;
	assert_true(begin_move(A, B, "vm", hopeless(), id));
	await_round(id, 1);
	json_decref(ask(A, id, "switch", NULL));
	await_event(id, "waits for the end of the first full pass");
	shows(id, "waits for the first full pass");
	tune(id, json_pack("{s:i}", "bandwidth", 0));
	session = ends(id, "completed");
	assert_int_equal(rounds_cut(session), 0);
	assert_string_equal(text(json_object_get(session, "result"), "reason"),
			    "asked for by the user");
	json_decref(session);
	arrived();
}

static void cancelled_in_a_cut_round(void **unused)
{
	char id[40];

	(void)unused;
	until_a_round_is_cut(id);
	json_decref(ask(A, id, "cancel", NULL));
	json_decref(ends(id, "cancelled"));
	assert_true(vm_runs(A, "vm"));
	assert_false(vm_runs(B, "vm"));
	assert_no_strangers();
}

/* What is asked for before there is a data plane counts as well. */
static void before_it_copies(void **unused)
{
	json_t *session;
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("source.check:sleep=300"), 0);
	assert_true(begin_move(A, B, "vm", hopeless(), id));
	tune(id, json_pack("{s:i}", "bandwidth", 64 << 20));
	json_decref(ask(A, id, "switch", NULL));
	session = ends(id, "completed");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(session, "goals"), "bandwidth")),
		64 << 20);
	assert_string_equal(text(json_object_get(session, "result"), "reason"),
			    "asked for by the user");
	json_decref(session);
	arrived();
}

/* In the middle of a wait that had none. */
static void a_time_limit_comes_later(void **unused)
{
	json_t *session;
	char id[40];

	(void)unused;
	assert_true(begin_move(A, B, "vm", hopeless(), id));
	await_state(A, id, "copying");
	tune(id, json_pack("{s:i}", "timeout_ms", 1));
	session = ends(id, "failed");
	assert_string_equal(text(json_object_get(session, "error"), "code"), "timeout");
	says(session, "message", "passed in the first pass: ");
	says(session, "message", " of 16.0 MiB were not sent yet, at ");
	says(session, "hint", "--timeout");
	json_decref(session);
	assert_true(vm_runs(A, "vm"));
	assert_false(vm_runs(B, "vm"));
	assert_no_strangers();
}

/* In a round, as it mostly does, and not between two: the reason is told all the same. */
static void a_time_limit_says_why(void **unused)
{
	json_t *options = hopeless(), *session;
	char id[40];

	(void)unused;
	json_object_set_new(options, "bandwidth", json_integer(8 << 20));
	json_object_set_new(options, "impact", json_integer(0));
	assert_true(begin_move(A, B, "vm", options, id));
	await_round(id, 3);
	tune(id, json_pack("{s:i}", "timeout_ms", 1));
	session = ends(id, "failed");
	assert_string_equal(text(json_object_get(session, "error"), "code"), "timeout");
	assert_string_equal(text(json_object_get(session, "result"), "reason"),
			    "the time limit has passed");
	says(session, "message", "passed in round ");
	says(session, "message", "MiB were left, the VM writes ");
	says(session, "message", "MiB/s can be sent; the pause would be ");
	says(session, "message", "and 40 ms are allowed");
	says(session, "hint", "needs a bandwidth of about ");
	json_decref(session);
	assert_true(vm_runs(A, "vm"));
	assert_no_strangers();
}

static void what_is_no_goal_is_refused(void **unused)
{
	json_t *session;
	char id[40];

	(void)unused;
	assert_true(begin_move(A, B, "vm", hopeless(), id));
	await_state(A, id, "copying");
	await_state(B, id, "copying");
	refused(A, id, "tune", NULL, "usage");
	refused(A, id, "tune", json_pack("{s:i}", "streams", 2), "usage");
	refused(A, id, "tune", json_pack("{s:s}", "bandwidth", "much"), "usage");
	refused(A, id, "tune", json_pack("{s:i}", "bandwidth", -1), "usage");
	refused(A, id, "tune", json_pack("{s:i}", "max_downtime_ms", 0), "usage");
	refused(A, id, "tune", json_pack("{s:i}", "impact", 101), "usage");
	refused(A, id, "tune", json_pack("{s:s}", "mode", "fast"), "usage");
	/* as migrate would have refused it: the VMM is one with libtranship */
	refused(A, id, "tune", json_pack("{s:s}", "mode", "postcopy"), "unsupported-option");
	/* one wrong member: nothing of it counts */
	refused(A, id, "tune", json_pack("{s:i, s:i}", "impact", 7, "timeout_ms", -1), "usage");
	refused(B, id, "tune", json_pack("{s:i}", "impact", 7), "session-state");
	refused(B, id, "switch", NULL, "session-state");
	refused(A, "00112233445566778899aabbccddeeff", "switch", NULL, "session-not-found");
	session = session_of(A, id);
	assert_false(has_event(session, "tuned"));
	json_decref(session);
	json_decref(ask(A, id, "cancel", NULL));
	json_decref(ends(id, "cancelled"));
	refused(A, id, "tune", json_pack("{s:i}", "impact", 7), "session-state");
	refused(A, id, "switch", NULL, "session-state");
	assert_true(vm_runs(A, "vm"));
}

/* Between the decision and the pause: what is agreed to is done, else it is refused. */
static void in_the_last_moment(void **unused)
{
	json_t *options = plain_options(B, "vm"), *session;
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("source.postcopy:sleep=1500"), 0);
	json_object_set_new(options, "max_downtime_ms", json_integer(2000));
	assert_true(begin_move(A, B, "vm", options, id));
	await_event(id, "switch-over after ");
	tune(id, json_pack("{s:i}", "max_downtime_ms", 3000));
	session = ends(id, "completed");
	/* it was decided again */
	assert_true(has_event(session, "tuned: max-downtime 3000 ms, was 2000 ms"));
	assert_true(json_array_size(
			    json_object_get(json_object_get(session, "result"), "decisions")) > 2);
	json_decref(session);
	arrived();
}

/* Nothing shows that moment but that no switch-over is taken any more. */
static void await_switching(const char *id)
{
	uint64_t start = clock_ns();
	json_t *out;

	while ((out = ask(A, id, "switch", NULL))) {
		json_decref(out);
		assert_true(clock_ms_since(start) < 20000);
		nap_ms(2);
	}
}

static void too_late_for_goals(void **unused)
{
	json_t *session, *goals;
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("source.pause:sleep=1500"), 0);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
	await_event(id, "switch-over after ");
	await_switching(id);
	refused(A, id, "tune", json_pack("{s:s}", "mode", "precopy"), "session-state");
	assert_non_null(strstr(f.message, "is switching over"));
	refused(A, id, "tune", json_pack("{s:i}", "max_downtime_ms", 9), "session-state");
	refused(A, id, "switch", NULL, "session-state");
	tune(id, json_pack("{s:i}", "bandwidth", 900 << 20));
	session = ends(id, "completed");
	goals = json_object_get(session, "goals");
	assert_string_equal(text(goals, "mode"), "auto");
	assert_int_equal(json_integer_value(json_object_get(goals, "max_downtime_ms")), 300);
	json_decref(session);
	arrived();
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, fixture_end)
	const struct CMUnitTest tests[] = {
		CASE(more_bandwidth_lets_it_end),
		CASE(switched_over_by_its_user),
		CASE(a_round_is_cut),
		CASE(the_first_round_is_waited_for),
		CASE(cancelled_in_a_cut_round),
		CASE(before_it_copies),
		CASE(a_time_limit_comes_later),
		CASE(what_is_no_goal_is_refused),
		CASE(a_time_limit_says_why),
		CASE(in_the_last_moment),
		CASE(too_late_for_goals),
	};

	return run_at_once(tests, sizeof(tests) / sizeof(tests[0]));
}
