// SPDX-License-Identifier: MIT
// timeout: 240
/*
 * Daemons that lose each other in the pause, for longer than anybody waits: words that are owed,
 * sessions that resolve themselves, and those that a person has to decide.
 */
#include "tests/unit/at_once.h"
#include "tests/unit/control/session_fixture.h"

#define RUN_HERE_MS 5000 /* control/session/destination_peer.c */

static char id[40];

/* Both daemons, each with its fault or NULL, and a migration that has begun. */
static void begin(const char *fault_a, const char *fault_b)
{
	daemon_start(A, fault_a);
	daemon_start(B, fault_b);
	vm_begin(A, "vm", false);
	vm_begin(B, "vm", true);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
}

static void await_death(enum side s)
{
	uint64_t start = clock_ns();

	while (!has_ended(sides[s].daemon)) {
		assert_true(clock_ms_since(start) < 30000);
		nap_ms(2);
	}
	sides[s].daemon = 0;
}

static void await_runs(enum side s)
{
	uint64_t start = clock_ns();

	while (!vm_runs(s, "vm")) {
		assert_true(clock_ms_since(start) < 40000);
		nap_ms(20);
	}
}

static void assert_state(enum side s, const char *state)
{
	json_t *j = session_of(s, id);

	assert_string_equal(text(j, "state"), state);
	json_decref(j);
}

static void assert_error(const json_t *session, const char *code, const char *message)
{
	const json_t *error = json_object_get(session, "error");

	assert_string_equal(text(error, "code"), code);
	assert_string_equal(text(error, "message"), message);
}

static bool resolve(enum side s, const char *action)
{
	json_t *in = json_pack("{s:s}", "action", action), *out;
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s/resolve", id);
	out = call(s, "POST", path, in);
	json_decref(in);
	if (!out)
		print_message("%s: %s\n", f.code, f.message);
	json_decref(out);
	return out;
}

static void moves_again(enum side from)
{
	char second[40];
	json_t *session;

	assert_true(begin_move(from, other(from), "vm", plain_options(other(from), "vm"), second));
	session = await_end(from, second);
	assert_string_equal(text(session, "state"), "done");
	json_decref(session);
	assert_true(vm_is_right(other(from), "vm"));
	assert_no_strangers();
}

/* The source gives up while the destination, PREPARED, cannot hear it, and then dies. */
static void lose_the_abort(void)
{
	char path[128];
	json_t *session;

	begin(NULL, "destination.journal.prepared.after:stop");
	await_stop(B);
	snprintf(path, sizeof(path), "/v1/sessions/%s/cancel", id);
	json_decref(call(A, "POST", path, NULL));
	session = await_end(A, id);
	assert_string_equal(text(session, "state"), "cancelled");
	json_decref(session);
	assert_true(vm_runs(A, "vm"));
	daemon_kill(B, SIGKILL);
}

static void an_abort_is_repeated_until_it_is_heard(void **unused)
{
	(void)unused;
	lose_the_abort();
	daemon_start(B, NULL);
	await_state(B, id, "cancelled");
	assert_true(vm_runs(A, "vm"));
	moves_again(A);
}

static void an_abort_is_owed_over_a_restart(void **unused)
{
	json_t *session;

	(void)unused;
	lose_the_abort();
	daemon_kill(A, SIGKILL);
	daemon_start(B, NULL);
	await_state(B, id, "prepared");
	daemon_start(A, NULL);
	await_state(B, id, "cancelled");
	/* and then no more */
	nap_ms(200);
	daemon_kill(A, SIGKILL);
	daemon_start(A, NULL);
	session = session_of(A, id);
	assert_string_equal(text(session, "state"), "cancelled");
	assert_string_equal(text(session, "status"), "cancelled");
	assert_string_equal(text(json_object_get(session, "result"), "id"), id);
	json_decref(session);
	assert_true(vm_runs(A, "vm"));
	moves_again(A);
}

/* The destination was told to run it and died; it stays away for longer than anybody waits. */
static void lose_the_destination(void)
{
	json_t *session;

	begin(NULL, "destination.journal.committed.after:kill");
	await_death(B);
	session = await_end(A, id);
	assert_string_equal(text(session, "state"), "unresolved");
	assert_string_equal(text(json_object_get(session, "result"), "status"), "unresolved");
	assert_non_null(strstr(text(json_object_get(session, "error"), "hint"),
			       "end its QEMU there first"));
	json_decref(session);
}

static void unresolved_resolves_itself(void **unused)
{
	json_t *session;

	(void)unused;
	lose_the_destination();
	assert_false(vm_runs(A, "vm") || vm_runs(B, "vm"));
	/* a restart in between changes nothing of that */
	daemon_kill(A, SIGKILL);
	daemon_start(A, NULL);
	assert_false(vm_runs(A, "vm") || vm_runs(B, "vm"));
	daemon_start(B, NULL);
	await_runs(B);
	await_state(A, id, "done");
	session = session_of(A, id);
	assert_string_equal(text(json_object_get(session, "result"), "status"), "completed");
	json_decref(session);
	assert_true(vm_has_ended(A, "vm"));
	assert_true(vm_is_right(B, "vm"));
	vm_begin(A, "vm", true);
	moves_again(B);
}

/*
 * The destination was told to run it and died before it did; a person at the source is sure that it
 * stays away, and it does not: it hears of that before it runs the guest a second time.
 */
static void a_person_ran_it_at_the_source_meanwhile(void **unused)
{
	(void)unused;
	lose_the_destination();
	assert_true(resolve(A, "run-here"));
	assert_true(vm_runs(A, "vm"));
	daemon_start(B, NULL);
	await_state(B, id, "failed");
	assert_false(vm_runs(B, "vm"));
	assert_true(vm_runs(A, "vm"));
	moves_again(A);
}

/* The source says nothing any more: the commit stands. */
static void a_committed_destination_is_left_alone(void **unused)
{
	(void)unused;
	begin(NULL, "destination.journal.committed.after:kill");
	await_death(B);
	daemon_kill(A, SIGKILL);
	daemon_start(B, NULL);
	assert_state(B, "committed");
	await_runs(B);
	assert_false(vm_runs(A, "vm"));
	daemon_start(A, NULL);
	await_state(A, id, "done");
	assert_true(vm_has_ended(A, "vm"));
	vm_begin(A, "vm", true);
	moves_again(B);
}

/* The source's host is lost in the pause, with everything on it. */
static void lose_the_source(void)
{
	begin("source.commit:kill", NULL);
	await_state(B, id, "prepared");
	vm_end(A, "vm");
	await_death(A);
}

static void a_person_runs_it_at_the_destination(void **unused)
{
	(void)unused;
	lose_the_source();
	/* the source might yet commit, or go on: not at once */
	assert_false(resolve(B, "run-here"));
	assert_string_equal(f.code, "session-state");
	assert_state(B, "prepared");
	nap_ms(RUN_HERE_MS + 100);
	assert_true(resolve(B, "run-here"));
	assert_true(vm_runs(B, "vm"));
	assert_true(vm_is_right(B, "vm"));
	assert_false(resolve(B, "give-up"));
	/* the source comes back and asks what became of it */
	daemon_start(A, NULL);
	assert_true(vm_runs(B, "vm"));
	vm_begin(A, "vm", true);
	moves_again(B);
}

static void a_person_gives_it_up_at_the_destination(void **unused)
{
	(void)unused;
	lose_the_source();
	assert_true(resolve(B, "give-up"));
	assert_state(B, "cancelled");
	assert_false(resolve(B, "run-here"));
	assert_false(vm_runs(B, "vm"));
	/* the VM waits again */
	daemon_start(A, NULL);
	vm_begin(A, "vm", false);
	moves_again(A);
}

/* The same before it is loaded: the destination need not wait for a source that hangs. */
static void a_copy_is_given_up_at_the_destination(void **unused)
{
	json_t *session;

	(void)unused;
	begin("source.pause:stop", NULL);
	await_stop(A);
	assert_state(B, "copying");
	assert_false(resolve(B, "run-here"));
	assert_true(resolve(B, "give-up"));
	assert_state(B, "cancelled");
	kill(sides[A].daemon, SIGCONT);
	session = await_end(A, id);
	assert_string_equal(text(session, "state"), "failed");
	assert_error(session, "peer-failed", "A person gave the migration up at the destination.");
	json_decref(session);
	assert_true(vm_runs(A, "vm"));
	moves_again(A);
}

/*
 * A failure of the destination's reaches whoever waits at the source as what it is, though all that
 * the source sees of it is a stream that ends.
 */
static void the_cause_comes_from_the_destination(void **unused)
{
	json_t *session;

	(void)unused;
	begin("source.copy:stop", NULL);
	await_stop(A);
	vm_end(B, "vm");
	await_state(B, id, "failed");
	kill(sides[A].daemon, SIGCONT);
	session = await_end(A, id);
	assert_string_equal(text(session, "state"), "failed");
	assert_error(session, "vm-gone", "The VM's process ended at the destination.");
	json_decref(session);
	assert_true(vm_runs(A, "vm"));
	vm_begin(B, "vm", true);
	moves_again(A);
}

/* One that is told to end waits until its source has heard it. */
static void a_destination_that_ends_says_so(void **unused)
{
	json_t *session;

	(void)unused;
	begin("source.copy:stop", NULL);
	await_stop(A);
	kill(sides[B].daemon, SIGTERM);
	await_state(B, id, "failed");
	kill(sides[A].daemon, SIGCONT);
	session = await_end(A, id);
	assert_error(session, "peer-failed", "The destination's transhipd ends.");
	json_decref(session);
	await_death(B);
	assert_true(vm_runs(A, "vm"));
	daemon_start(B, NULL);
	moves_again(A);
}

/* Both sides of a move are one daemon's. */
static void both_sides_of_one_host_die(void **unused)
{
	static const char *const faults[] = { "source.load:kill",
					      "destination.journal.prepared.after:kill",
					      "source.journal.committed.after:kill",
					      "destination.journal.committed.after:kill",
					      "destination.started:kill" };

	(void)unused;
	for (int i = 0; i < 5; i++) {
		const char *at = i < 2 ? "vm" : "new", *not_at = i < 2 ? "new" : "vm";
		uint64_t start = clock_ns();

		print_message("%s\n", faults[i]);
		daemon_start(A, faults[i]);
		vm_begin(A, "vm", false);
		vm_begin(A, "new", true);
		assert_true(begin_move(A, A, "vm", plain_options(A, "new"), id));
		await_death(A);
		daemon_start(A, NULL);
		while (!vm_runs(A, at)) {
			assert_true(clock_ms_since(start) < 30000);
			nap_ms(10);
		}
		json_decref(await_end(A, id));
		assert_true(vm_has_ended(A, not_at) || !vm_runs(A, not_at));
		assert_true(vm_is_right(A, at));
		assert_no_strangers();
		daemon_kill(A, SIGKILL);
		vm_end(A, at);
		if (vm_of(A, not_at))
			vm_end(A, not_at);
	}
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, fixture_begin, fixture_end)
	/* the longest first */
	const struct CMUnitTest tests[] = {
		CASE(unresolved_resolves_itself),
		CASE(a_person_ran_it_at_the_source_meanwhile),
		CASE(an_abort_is_repeated_until_it_is_heard),
		CASE(an_abort_is_owed_over_a_restart),
		CASE(a_committed_destination_is_left_alone),
		CASE(a_person_runs_it_at_the_destination),
		CASE(a_person_gives_it_up_at_the_destination),
		CASE(a_copy_is_given_up_at_the_destination),
		CASE(the_cause_comes_from_the_destination),
		CASE(a_destination_that_ends_says_so),
		CASE(both_sides_of_one_host_die),
	};

	return run_at_once(tests, sizeof(tests) / sizeof(tests[0]));
}
