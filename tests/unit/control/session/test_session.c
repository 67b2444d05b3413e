// SPDX-License-Identifier: MIT
// timeout: 300
/*
 * Sessions of two hosts inside this process, with real data planes and synthetic guests: what a
 * user may ask, what may fail, and what must be left then.
 */
#include <sys/socket.h>
#include <sys/un.h>

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

/* Moves and waits: the session object. */
static json_t *move(enum side from, enum side to, json_t *options)
{
	char id[40];

	assert_true(begin_move(from, to, "vm", options, id));
	return await_end(from, id);
}

/* Begins a move with so many bytes a second, until it copies. */
static void begin_slow_move(json_int_t bandwidth, char id[40])
{
	json_t *options = plain_options(B, "vm");

	json_object_set_new(options, "bandwidth", json_integer(bandwidth));
	assert_true(begin_move(A, B, "vm", options, id));
	await_state(A, id, "copying");
}

static void assert_status(json_t *session, const char *status, const char *code)
{
	const json_t *result = json_object_get(session, "result");
	const json_t *error = json_object_get(result, "error");

	if (strcmp(text(result, "status"), status) || strcmp(text(error, "code"), code))
		fail_msg("%s [%s] %s, not %s [%s]", text(result, "status"), text(error, "code"),
			 text(error, "message"), status, code);
	if (error) {
		assert_true(*text(error, "message"));
		assert_string_equal(text(error, "code"),
				    text(json_object_get(session, "error"), "code"));
	}
	json_decref(session);
}

static void plain_move(enum side from, enum side to)
{
	assert_status(move(from, to, plain_options(to, "vm")), "completed", "");
	assert_true(vm_runs(to, "vm"));
	assert_true(vm_is_right(to, "vm"));
	assert_int_equal(end_of(vm_of(from, "vm")->pid), 0);
	vm_of(from, "vm")->pid = 0;
}

/* The source runs, nothing is left, and the next try succeeds with the VM that waits. */
static void still_movable(void)
{
	assert_true(vm_runs(A, "vm"));
	assert_false(vm_runs(B, "vm"));
	fault_set(NULL);
	plain_move(A, B);
	assert_no_strangers();
}

static void fails_at(const char *fault, const char *status, const char *code)
{
	assert_int_equal(fault_set(fault), 0);
	assert_status(move(A, B, plain_options(B, "vm")), status, code);
	still_movable();
}

/* --- the plain case -------------------------------------------------------------------------- */

static void assert_numbers(const json_t *j, const char *const *members)
{
	for (; *members; members++)
		if (!json_is_number(json_object_get(j, *members)))
			fail_msg("no number %s", *members);
}

static void result_has_the_contracts_shape(void **unused)
{
	static const char *const numbers[] = {
		"streams", "total_ms", "setup_ms", "downtime_ms", "throttle_max_percent", NULL
	};
	static const char *const parts[] = { "pause_ms", "final_copy_ms", "state_ms", "resume_ms",
					     NULL };
	static const char *const ram[] = { "total_bytes",
					   "zero_bytes",
					   "raw_bytes",
					   "zstd_in_bytes",
					   "zstd_out_bytes",
					   "delta_in_bytes",
					   "delta_out_bytes",
					   "wire_bytes",
					   "zero_copy_bytes",
					   "state_bytes",
					   NULL };
	static const char *const round[] = { "n", "pages", "wire_bytes", "ms", NULL };
	static const char *const both[] = { "source", "destination", NULL };
	json_t *session, *options = plain_options(B, "vm"), *result, *each;
	size_t i;

	(void)unused;
	json_object_set_new(options, "verify", json_true());
	session = move(A, B, options);
	result = json_object_get(session, "result");
	assert_string_equal(text(session, "state"), "done");
	assert_string_equal(text(result, "status"), "completed");
	assert_string_equal(text(result, "id"), text(session, "id"));
	assert_string_equal(text(result, "vm"), "vm");
	assert_string_equal(text(result, "mode"), "precopy");
	assert_string_equal(text(result, "transport"), "tcp");
	assert_string_equal(text(result, "encrypt"), "off");
	assert_string_equal(text(result, "tracker"), "pagemap");
	assert_null(json_object_get(result, "error"));
	assert_numbers(result, numbers);
	assert_numbers(json_object_get(result, "downtime"), parts);
	assert_numbers(json_object_get(result, "ram"), ram);
	assert_numbers(json_object_get(result, "cpu_ms"), both);
	assert_true(json_array_size(json_object_get(result, "rounds")) > 0);
	json_array_foreach (json_object_get(result, "rounds"), i, each)
		assert_numbers(each, round);
	assert_true(json_is_array(json_object_get(result, "disks")));
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(result, "ram"), "total_bytes")),
		16 << 20);
	assert_true(json_number_value(json_object_get(result, "downtime_ms")) > 0);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(result, "ram"),
							    "verified_chunks")),
			 8);
	json_decref(session);
	assert_true(vm_runs(B, "vm"));
	assert_no_strangers();
}

static void assert_unknown(const json_t *j, const char *const *members, bool unknown)
{
	for (; *members; members++)
		if (json_is_null(json_object_get(j, *members)) != unknown)
			fail_msg("%s is %s", *members, unknown ? "said" : "not known");
}

/* What a session did not come to is not told as if it had been. */
static void what_was_not_come_to_is_not_known(void **unused)
{
	static const char *const streams[] = { "mode",	     "transport", "tx",
					       "congestion", "encrypt",	  "streams",
					       "tracker",    "setup_ms",  NULL };
	static const char *const pause[] = { "downtime_ms", NULL };
	static const char *const parts[] = { "pause_ms", "final_copy_ms", "state_ms", "resume_ms",
					     NULL };
	static const char *const source[] = { "source", NULL };
	json_t *options = plain_options(B, "vm"), *session, *result;

	(void)unused;
	json_object_set_new(options, "encrypt", json_string("on"));
	json_object_set_new(options, "compress", json_string("zstd:7"));
	session = move(A, B, options);
	result = json_object_get(session, "result");
	assert_string_equal(text(result, "status"), "refused");
	assert_string_equal(text(result, "compress"), "zstd:7");
	assert_unknown(result, streams, true);
	assert_unknown(result, pause, true);
	assert_unknown(json_object_get(result, "downtime"), parts, true);
	assert_unknown(json_object_get(result, "cpu_ms"), source, true);
	json_decref(session);

	assert_int_equal(fault_set("source.pause:error"), 0);
	session = move(A, B, plain_options(B, "vm"));
	result = json_object_get(session, "result");
	assert_string_equal(text(result, "status"), "failed");
	assert_unknown(result, streams, false);
	assert_unknown(result, pause, true);
	assert_unknown(json_object_get(result, "downtime"), parts, true);
	assert_unknown(json_object_get(result, "cpu_ms"), source, false);
	json_decref(session);
	still_movable();
}

static void to_and_fro(void **unused)
{
	(void)unused;
	for (enum side from = A, i = 0; i < 4; i++, from = other(from)) {
		plain_move(from, other(from));
		vm_begin(from, "vm", true);
	}
	assert_no_strangers();
}

static void within_one_host(void **unused)
{
	char id[40];

	(void)unused;
	vm_begin(A, "new", true);
	assert_true(begin_move(A, A, "vm", plain_options(A, "new"), id));
	assert_status(await_end(A, id), "completed", "");
	assert_true(vm_runs(A, "new"));
	assert_true(vm_is_right(A, "new"));
}

static void onto_itself_is_refused(void **unused)
{
	char id[40];

	(void)unused;
	assert_true(begin_move(A, A, "vm", plain_options(A, "vm"), id));
	assert_status(await_end(A, id), "refused", "vm-busy");
	still_movable();
}

static void two_at_once(void **unused)
{
	char one[40], two[40];

	(void)unused;
	vm_begin(A, "two", false);
	vm_begin(B, "two", true);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), one));
	assert_true(begin_move(A, B, "two", plain_options(B, "two"), two));
	assert_status(await_end(A, one), "completed", "");
	assert_status(await_end(A, two), "completed", "");
	assert_true(vm_is_right(B, "vm") && vm_is_right(B, "two"));
	assert_no_strangers();
}

/* Each leaves where the others arrive, again and again. */
static void four_to_and_fro(void **unused)
{
	static const char *const names[] = { "vm", "two", "three", "four" };
	enum side at[4] = { A, A, B, B };
	char ids[4][40];

	(void)unused;
	vm_begin(A, "two", false);
	vm_begin(B, "three", false);
	vm_begin(B, "four", false);
	vm_begin(B, "two", true);
	vm_begin(A, "three", true);
	vm_begin(A, "four", true);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 4; i++) {
			const enum side to = other(at[i]);

			assert_true(begin_move(at[i], to, names[i], plain_options(to, names[i]),
					       ids[i]));
		}
		for (int i = 0; i < 4; i++) {
			assert_status(await_end(at[i], ids[i]), "completed", "");
			assert_true(vm_runs(other(at[i]), names[i]));
			assert_true(vm_is_right(other(at[i]), names[i]));
			assert_int_equal(end_of(vm_of(at[i], names[i])->pid), 0);
			vm_of(at[i], names[i])->pid = 0;
			vm_begin(at[i], names[i], true);
			json_decref(vm_tell(other(at[i]), names[i], "run"));
			at[i] = other(at[i]);
		}
	}
	assert_no_strangers();
}

/* --- options --------------------------------------------------------------------------------- */

static json_t *with_switch(const char *name)
{
	json_t *options = plain_options(B, "vm");

	json_object_set_new(options, name, json_true());
	return options;
}

static void cold(void **unused)
{
	json_t *session = move(A, B, with_switch("cold"));

	(void)unused;
	assert_string_equal(text(json_object_get(session, "result"), "mode"), "cold");
	assert_status(session, "completed", "");
	assert_true(vm_runs(B, "vm") && vm_is_right(B, "vm"));
}

/* Plain options with these, as a request of its own would have them: no session comes of it. */
static void not_taken(const char *with, const char *code)
{
	json_t *options = plain_options(B, "vm"), *given = json_loads(with, 0, NULL);
	char id[40];

	assert_non_null(given);
	json_object_update(options, given);
	json_decref(given);
	if (begin_move(A, B, "vm", options, id))
		fail_msg("%s was taken", with);
	assert_string_equal(f.code, code);
	assert_true(*f.message);
}

/* What is not understood must not move anything: a dry run that is misspelt least of all. */
static void options_are_checked(void **unused)
{
	static const char *const wrong[] = {
		"{\"dry_run\": \"yes\"}",      "{\"dry_run\": 1}",
		"{\"dry_run\": null}",	       "{\"streams\": \"x\"}",
		"{\"streams\": -3}",	       "{\"streams\": 65}",
		"{\"streams\": 2.5}",	       "{\"incoming\": 7}",
		"{\"incoming\": \"\"}",	       "{\"encrypt\": false}",
		"{\"page_hashes\": -1}",       "{\"page_hashes\": \"16MiB\"}",
		"{\"delta_cache\": -1}",       "{\"bandwidth\": 1}",
		"{\"max_downtime_ms\": 0}",    "{\"timeout_ms\": \"4s\"}",
		"{\"impact\": 101}",	       "{\"keep_src\": \"true\"}",
		"{\"skip_check\": [\"all\"]}",
	};
	json_t *in, *sessions;
	char dest[160];

	(void)unused;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		not_taken(wrong[i], "usage");
	not_taken("{\"bogus\": 1}", "unsupported-option");
	not_taken("{\"dry-run\": true}", "unsupported-option");
	/* beside the options, or instead of them */
	snprintf(dest, sizeof(dest), "unix:%s", sides[B].config.socket);
	in = json_pack("{s:s, s:s, s:b}", "vm", vm_word(A, "vm"), "dest", dest, "dry_run", 1);
	assert_null(call(A, "POST", "/v1/sessions", in));
	assert_string_equal(f.code, "usage");
	json_object_del(in, "dry_run");
	json_object_set_new(in, "options", json_string("dry_run"));
	assert_null(call(A, "POST", "/v1/sessions", in));
	assert_string_equal(f.code, "usage");
	/* of a forecast likewise */
	json_object_set_new(in, "seconds", json_integer(1));
	json_object_set_new(in, "options", json_pack("{s:s}", "streams", "x"));
	assert_null(call(A, "POST", "/v1/predict", in));
	assert_string_equal(f.code, "usage");
	json_decref(in);
	sessions = call(A, "GET", "/v1/sessions", NULL);
	assert_int_equal(json_array_size(sessions), 0);
	json_decref(sessions);
	assert_true(vm_runs(A, "vm"));
}

/* None at all is a size. */
static void no_page_hashes(void **unused)
{
	json_t *options = plain_options(B, "vm");

	(void)unused;
	json_object_set_new(options, "page_hashes", json_integer(0));
	assert_status(move(A, B, options), "completed", "");
}

static void paused_stays_paused(void **unused)
{
	(void)unused;
	json_decref(vm_tell(A, "vm", "pause"));
	assert_status(move(A, B, plain_options(B, "vm")), "completed", "");
	assert_false(vm_runs(B, "vm"));
	assert_true(vm_is_right(B, "vm"));
	json_decref(vm_tell(B, "vm", "run"));
	assert_true(vm_runs(B, "vm"));
}

/* By its user, who finds it so at the destination. */
static void paused_while_it_is_copied(void **unused)
{
	char id[40];

	(void)unused;
	begin_slow_move(16 << 20, id);
	json_decref(vm_tell(A, "vm", "pause"));
	assert_status(await_end(A, id), "completed", "");
	assert_false(vm_runs(B, "vm"));
	assert_true(vm_is_right(B, "vm"));
	json_decref(vm_tell(B, "vm", "run"));
	assert_true(vm_runs(B, "vm"));
}

static void paused_stays_paused_when_it_fails(void **unused)
{
	(void)unused;
	json_decref(vm_tell(A, "vm", "pause"));
	assert_int_equal(fault_set("source.load:error"), 0);
	assert_status(move(A, B, plain_options(B, "vm")), "failed", "internal");
	assert_false(vm_runs(A, "vm"));
	assert_false(vm_runs(B, "vm"));
	json_decref(vm_tell(A, "vm", "run"));
	assert_true(vm_runs(A, "vm"));
}

static void no_start(void **unused)
{
	(void)unused;
	assert_status(move(A, B, with_switch("no_start")), "completed", "");
	assert_false(vm_runs(B, "vm"));
	assert_true(vm_is_right(B, "vm"));
}

/* The kept copy stands still, and is not moved a second time. */
static void keep_src(void **unused)
{
	json_t *session, *error;

	(void)unused;
	assert_status(move(A, B, with_switch("keep_src")), "completed", "");
	assert_true(vm_runs(B, "vm"));
	assert_false(vm_runs(A, "vm"));
	assert_false(vm_has_ended(A, "vm"));
	vm_begin(B, "again", true);
	/* and says why, also when transhipd was started anew */
	for (int i = 0; i < 2; i++) {
		session = move(A, B, plain_options(B, "again"));
		error = json_object_get(session, "error");
		assert_non_null(strstr(text(error, "message"), "has moved to unix:"));
		assert_non_null(strstr(text(error, "hint"), "must not run on"));
		assert_status(session, "refused", "vm-not-running");
		host_end(A);
		host_start(A);
	}
	assert_false(vm_runs(A, "vm"));
	assert_true(vm_runs(B, "vm"));
	assert_true(vm_is_right(B, "vm"));
}

static void dry_run(void **unused)
{
	json_t *session = move(A, B, with_switch("dry_run"));

	(void)unused;
	assert_true(json_array_size(json_object_get(session, "checks")) > 0);
	assert_status(session, "completed", "");
	still_movable();
}

/* Nothing stands against it but what is asked for: not refused, and told. */
static void hopeless(json_int_t timeout_ms)
{
	json_t *options = with_switch("dry_run"), *session, *forecast, *check = NULL;
	size_t i, times = 0, n = 0;

	json_object_set_new(options, "timeout_ms", json_integer(timeout_ms));
	json_object_set_new(options, "mode", json_string("precopy"));
	json_object_set_new(options, "bandwidth", json_integer(1 << 20));
	json_object_set_new(options, "impact", json_integer(0));
	json_object_set_new(options, "max_downtime_ms", json_integer(40));
	session = move(A, B, options);
	forecast = json_object_get(json_object_get(session, "result"), "forecast");
	assert_string_equal(text(forecast, "mode"), "precopy");
	assert_string_equal(text(forecast, "end"), "give-up");
	/* the path was not probed faster than may be sent */
	assert_in_range((uint64_t)json_number_value(json_object_get(
				json_object_get(forecast, "measured"), "path_bytes_per_s")),
			1 << 18, 3 << 19);
	json_array_foreach (json_object_get(session, "checks"), i, check)
		if (!strcmp(text(check, "code"), "not-converging") && ++n)
			times += strstr(text(check, "hint"), "--timeout") != NULL;
	assert_true(n == 1 && times == (timeout_ms > 0));
	assert_status(session, "completed", "");
}

static void dry_run_of_what_is_hopeless(void **unused)
{
	(void)unused;
	hopeless(0);
	hopeless(100);
	still_movable();
}

/* What the move would refuse. */
static void dry_run_of_what_is_refused(void **unused)
{
	json_t *options = with_switch("dry_run");

	(void)unused;
	json_object_set_new(options, "mode", json_string("postcopy"));
	assert_status(move(A, B, options), "refused", "unsupported-option");
	options = plain_options(B, "vm");
	json_object_set_new(options, "mode", json_string("postcopy"));
	assert_status(move(A, B, options), "refused", "unsupported-option");
	still_movable();
}

/* --- refusals -------------------------------------------------------------------------------- */

static void cancel(const char *id)
{
	char path[128];
	json_t *out;

	snprintf(path, sizeof(path), "/v1/sessions/%s/cancel", id);
	out = call(A, "POST", path, NULL);
	if (!out)
		fail_msg("cancel: %s", f.message);
	json_decref(out);
}

static void one_session_a_vm(void **unused)
{
	char first[40];

	(void)unused;
	begin_slow_move(4 << 20, first);
	/* the VM that moves, and the VM that is moved to */
	assert_status(move(A, B, plain_options(B, "vm")), "refused", "vm-busy");
	vm_begin(A, "two", false);
	{
		char id[40];

		assert_true(begin_move(A, B, "two", plain_options(B, "vm"), id));
		assert_status(await_end(A, id), "refused", "vm-busy");
	}
	assert_true(vm_runs(A, "two"));
	cancel(first);
	assert_status(await_end(A, first), "cancelled", "cancelled");
	still_movable();
}

/* Its transhipd takes the connection and says nothing. */
static void the_time_limit_counts_before_copying(void **unused)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	json_t *in, *out, *session;
	char dest[160], id[40];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)unused;
	snprintf(at.sun_path, sizeof(at.sun_path), "%s/mute", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 4), 0);
	snprintf(dest, sizeof(dest), "unix:%s", at.sun_path);
	in = json_pack("{s:s, s:s, s:{s:s, s:i}}", "vm", vm_word(A, "vm"), "dest", dest, "options",
		       "encrypt", "off", "timeout_ms", 400);
	out = call(A, "POST", "/v1/sessions", in);
	assert_non_null(out);
	snprintf(id, sizeof(id), "%s", text(out, "id"));
	json_decref(out);
	json_decref(in);
	session = await_end(A, id);
	assert_non_null(strstr(text(json_object_get(session, "error"), "message"),
			       "destination's transhipd"));
	assert_status(session, "failed", "timeout");
	close(fd);
	still_movable();
}

static void a_guard_that_is_missing(void **unused)
{
	(void)unused;
	/* found out before the guest is stopped */
	host_end(A);
	strcpy(sides[A].config.guard, "/nonexistent/guard");
	host_start(A);
	assert_status(move(A, B, plain_options(B, "vm")), "failed", "internal");
	assert_true(vm_runs(A, "vm"));
	host_end(A);
	settings(A);
	host_start(A);
	still_movable();
}

static void ids(void **unused)
{
	static const char *const words[] = { "00000000aaaaaaaaaaaaaaaaaaaaaaaa",
					     "00000000bbbbbbbbbbbbbbbbbbbbbbbb" };
	json_t *out = NULL;
	char one[40];

	(void)unused;
	for (int i = 0; i < 2; i++) {
		char path[256], lib[128];
		FILE *file;

		snprintf(lib, sizeof(lib), "%s/a/lib/sessions", dir);
		host_end(A);
		snprintf(path, sizeof(path), "mkdir -p %s", lib);
		assert_int_equal(system(path), 0);
		snprintf(path, sizeof(path), "%s/%s.source.journal", lib, words[i]);
		file = fopen(path, "w");
		assert_non_null(file);
		fclose(file);
	}
	host_start(A);
	/* a journal without a record was never acknowledged */
	assert_int_equal(host_status(sides[A].host, words[0], 0, 0, &out, &f), -ENOENT);
	failure_clear(&f);
	assert_true(begin_move(A, B, "vm", with_switch("dry_run"), one));
	json_decref(await_end(A, one));
	one[8] = '\0';
	assert_int_equal(host_status(sides[A].host, one, 0, 0, &out, &f), 0);
	json_decref(out);
	one[5] = '\0';
	assert_int_equal(host_status(sides[A].host, one, 0, 0, &out, &f), -ENOENT);
	assert_string_equal(f.code, "session-not-found");
}

/* Offers with chosen ids: two that begin alike. */
static void an_ambiguous_id_is_refused(void **unused)
{
	json_t *out = NULL;

	(void)unused;
	for (int i = 0; i < 2; i++) {
		char id[40], secret[80];
		json_t *offer;

		snprintf(id, sizeof(id), "abcdef%026d", i);
		snprintf(secret, sizeof(secret), "%064d", 1);
		offer = json_pack("{s:i, s:s, s:s, s:s, s:i, s:{}}", "version", 1, "id", id,
				  "secret", secret, "vm", "x", "streams", 1, "guest");
		failure_clear(&f);
		assert_true(host_peer_offer(sides[B].host, offer, &out, &f) < 0);
		json_decref(offer);
	}
	failure_clear(&f);
	assert_int_equal(host_status(sides[B].host, "abcdef", 0, 0, &out, &f), -ENOENT);
	assert_non_null(strstr(f.message, "More than one"));
	failure_clear(&f);
	assert_int_equal(
		host_status(sides[B].host, "abcdef00000000000000000000000001", 0, 0, &out, &f), 0);
	assert_string_equal(text(out, "id"), "abcdef00000000000000000000000001");
	json_decref(out);
}

/* --- cancels --------------------------------------------------------------------------------- */

static void cancelled_while_copying(void **unused)
{
	char id[40];

	(void)unused;
	begin_slow_move(1 << 20, id);
	cancel(id);
	assert_status(await_end(A, id), "cancelled", "cancelled");
	assert_status(await_end(A, id), "cancelled", "cancelled");
	still_movable();
}

/* The source gives up while the destination is about to be PREPARED: it must not stay so. */
static void cancelled_while_loading(void **unused)
{
	json_t *theirs;
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("destination.loaded:sleep=1500"), 0);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
	await_state(A, id, "paused");
	nap_ms(300);
	cancel(id);
	assert_status(await_end(A, id), "cancelled", "cancelled");
	theirs = await_end(B, id);
	assert_string_equal(text(theirs, "state"), "cancelled");
	json_decref(theirs);
	still_movable();
}

/* A cancel is accepted and obeyed, or refused: at any moment. */
static void cancel_at_any_moment(void **unused)
{
	(void)unused;
	for (unsigned int delay = 0; delay < 120; delay += 6) {
		json_t *session;
		char id[40], path[128];
		bool accepted;
		json_t *out;

		assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
		nap_ms(delay);
		snprintf(path, sizeof(path), "/v1/sessions/%s/cancel", id);
		out = call(A, "POST", path, NULL);
		accepted = out;
		json_decref(out);
		session = await_end(A, id);
		if (accepted != !strcmp(text(session, "state"), "cancelled"))
			fail_msg("after %u ms the cancel was %s and the session is %s", delay,
				 accepted ? "accepted" : "refused", text(session, "state"));
		json_decref(session);
		if (!accepted)
			break;
		assert_true(vm_runs(A, "vm"));
	}
}

/* --- failures -------------------------------------------------------------------------------- */

static void every_stage_may_fail(void **unused)
{
	static const char *const faults[] = {
		"source.start:error",
		"source.copy:error",
		"source.pause:error",
		"source.final-copy:error",
		"source.device-state:error",
		"source.verify:error",
		"source.load:error",
		"source.commit:error",
		"destination.loaded:error",
		"source.journal.negotiated.before:error",
		"source.journal.copying.after:error",
		"source.journal.paused.before:error",
		"destination.journal.negotiated.after:error",
		"destination.journal.copying.before:error",
		"destination.journal.prepared.before:error",
		"destination.journal.prepared.after:error",
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		json_t *session;

		print_message("%s\n", faults[i]);
		assert_int_equal(fault_set(faults[i]), 0);
		session = move(A, B, plain_options(B, "vm"));
		assert_string_equal(text(session, "state"), "failed");
		assert_true(*text(json_object_get(session, "error"), "code"));
		json_decref(session);
		assert_true(vm_runs(A, "vm"));
		assert_false(vm_runs(B, "vm"));
		assert_true(vm_is_right(A, "vm"));
	}
	still_movable();
}

static void committed_cannot_be_written(void **unused)
{
	(void)unused;
	fails_at("source.journal.committed.before:error", "failed", "journal");
}

/* The record is there all the same. */
static void committed_is_written_in_spite_of_an_error(void **unused)
{
	(void)unused;
	fails_at("source.journal.committed.after:error", "failed", "journal");
}

static void the_destination_cannot_start_it(void **unused)
{
	(void)unused;
	fails_at("destination.start:error", "failed", "internal");
}

static void started_in_spite_of_an_error(void **unused)
{
	(void)unused;
	assert_int_equal(fault_set("destination.started:error"), 0);
	assert_status(move(A, B, plain_options(B, "vm")), "completed", "");
	assert_true(vm_runs(B, "vm"));
	assert_true(vm_has_ended(A, "vm"));
}

static void the_destinations_commit_is_written_at_the_second_try(void **unused)
{
	(void)unused;
	assert_int_equal(fault_set("destination.journal.committed.before:error"), 0);
	assert_status(move(A, B, plain_options(B, "vm")), "completed", "");
	assert_true(vm_runs(B, "vm"));
}

static void the_destinations_account_cannot_be_written(void **unused)
{
	(void)unused;
	assert_int_equal(fault_set("destination.journal.running.before:error,"
				   "destination.journal.done.before:error"),
			 0);
	assert_status(move(A, B, plain_options(B, "vm")), "completed", "");
	assert_true(vm_runs(B, "vm"));
}

static void resolve(enum side s, const char *id, const char *action, bool succeeds)
{
	json_t *in = json_pack("{s:s}", "action", action), *out;
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s/resolve", id);
	out = call(s, "POST", path, in);
	json_decref(in);
	if (!out == succeeds)
		fail_msg("resolve %s: %s", action, f.message);
	json_decref(out);
}

/*
 * It failed after COMMITTED and that cannot be made durable: nobody runs. A person gives it up
 * there; then the source learns that by itself.
 */
static void unresolved_at_the_destination(void **unused)
{
	json_t *session;
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("destination.start:error,"
				   "destination.journal.failed.before:error"),
			 0);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
	assert_status(await_end(A, id), "unresolved", "unresolved");
	session = await_end(B, id);
	assert_string_equal(text(session, "state"), "unresolved");
	json_decref(session);
	assert_false(vm_runs(A, "vm"));
	assert_false(vm_runs(B, "vm"));
	/* the claim holds */
	assert_status(move(A, B, plain_options(B, "vm")), "refused", "vm-busy");
	resolve(B, id, "run-here", false);
	resolve(B, id, "give-up", true);
	resolve(B, id, "give-up", false);
	for (uint64_t start = clock_ns(); !vm_runs(A, "vm");) {
		assert_true(clock_ms_since(start) < 60000);
		nap_ms(50);
	}
	await_state(A, id, "failed");
	assert_true(vm_has_ended(B, "vm"));
	vm_begin(B, "vm", true);
	still_movable();
}

/* The same; but a person at the source knows that the destination never will. */
static void run_here_at_the_source(void **unused)
{
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("destination.start:error,"
				   "destination.journal.failed.before:error"),
			 0);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
	assert_status(await_end(A, id), "unresolved", "unresolved");
	resolve(A, id, "run-here", true);
	assert_true(vm_runs(A, "vm"));
	await_state(A, id, "failed");
	assert_false(vm_runs(B, "vm"));
	resolve(A, id, "run-here", false);
}

static void give_up_at_the_source(void **unused)
{
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("destination.start:error,"
				   "destination.journal.failed.before:error"),
			 0);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
	assert_status(await_end(A, id), "unresolved", "unresolved");
	resolve(A, id, "give-up", true);
	await_state(A, id, "done");
	assert_true(vm_has_ended(A, "vm"));
}

/* It stands still, and nobody but we can help it. */
static void it_cannot_be_run_on(void **unused)
{
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("source.load:error,source.run-on:error,source.run-on:error"), 0);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
	assert_status(await_end(A, id), "unresolved", "unresolved");
	/* it is tried again */
	for (uint64_t start = clock_ns(); !vm_runs(A, "vm"); nap_ms(10))
		assert_true(clock_ms_since(start) < 30000);
	await_state(A, id, "failed");
	still_movable();
}

static unsigned int count(const char *path)
{
	struct dirent *e;
	unsigned int n = 0;
	DIR *d = opendir(path);

	assert_non_null(d);
	while ((e = readdir(d)))
		n += isdigit((unsigned char)e->d_name[0]) != 0;
	closedir(d);
	return n;
}

/* Each session that is kept has its journal and its eventfd; nothing else may grow. */
static void nothing_leaks(void **unused)
{
	static const char *const faults[] = { NULL,
					      "source.load:error",
					      "destination.loaded:error",
					      "source.commit:error",
					      "source.start:error",
					      "destination.start:error",
					      NULL };
	unsigned int files = 0, threads = 0, moves = 0;
	enum side at = A;

	(void)unused;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++, moves++) {
		json_t *session;

		assert_int_equal(fault_set(faults[i]), 0);
		session = move(at, other(at), plain_options(other(at), "vm"));
		if (!strcmp(text(session, "state"), "done")) {
			end_of(vm_of(at, "vm")->pid);
			vm_of(at, "vm")->pid = 0;
			vm_begin(at, "vm", true);
			at = other(at);
		}
		json_decref(session);
		for (enum side s = A; s <= B; s++) {
			client_free(sides[s].client);
			sides[s].client = NULL;
		}
		assert_no_strangers();
		if (!moves) {
			/* the server's end of the connections */
			nap_ms(300);
			files = count("/proc/self/fd");
			threads = count("/proc/self/task");
		}
	}
	for (uint64_t start = clock_ns(); count("/proc/self/task") > threads; nap_ms(10))
		assert_true(clock_ms_since(start) < 5000);
	/* two of each a move: both sides are here; a session without a journal has one less */
	assert_in_range(count("/proc/self/fd"), files, files + 4 * (moves - 1));
}

/* The destination's host ends while it is PREPARED: the commit must not be answered as done. */
static void the_destination_ends_when_prepared(void **unused)
{
	char id[40];

	(void)unused;
	assert_int_equal(fault_set("source.commit:sleep=700"), 0);
	assert_true(begin_move(A, B, "vm", plain_options(B, "vm"), id));
	await_state(B, id, "prepared");
	host_end(B);
	nap_ms(900);
	assert_false(vm_runs(A, "vm"));
	assert_false(vm_runs(B, "vm"));
	host_start(B);
	assert_status(await_end(A, id), "completed", "");
	assert_true(vm_runs(B, "vm"));
	assert_true(vm_is_right(B, "vm"));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, fixture_end)
	const struct CMUnitTest tests[] = {
		CASE(result_has_the_contracts_shape),
		CASE(what_was_not_come_to_is_not_known),
		CASE(to_and_fro),
		CASE(within_one_host),
		CASE(onto_itself_is_refused),
		CASE(two_at_once),
		CASE(four_to_and_fro),
		CASE(paused_while_it_is_copied),
		CASE(cold),
		CASE(options_are_checked),
		CASE(no_page_hashes),
		CASE(paused_stays_paused),
		CASE(paused_stays_paused_when_it_fails),
		CASE(no_start),
		CASE(keep_src),
		CASE(dry_run),
		CASE(dry_run_of_what_is_hopeless),
		CASE(dry_run_of_what_is_refused),
		CASE(one_session_a_vm),
		CASE(a_guard_that_is_missing),
		CASE(the_time_limit_counts_before_copying),
		CASE(ids),
		CASE(an_ambiguous_id_is_refused),
		CASE(cancelled_while_copying),
		CASE(cancelled_while_loading),
		CASE(cancel_at_any_moment),
		CASE(every_stage_may_fail),
		CASE(committed_cannot_be_written),
		CASE(committed_is_written_in_spite_of_an_error),
		CASE(the_destination_cannot_start_it),
		CASE(started_in_spite_of_an_error),
		CASE(the_destinations_commit_is_written_at_the_second_try),
		CASE(the_destinations_account_cannot_be_written),
		CASE(unresolved_at_the_destination),
		CASE(run_here_at_the_source),
		CASE(give_up_at_the_source),
		CASE(the_destination_ends_when_prepared),
		CASE(it_cannot_be_run_on),
		CASE(nothing_leaks),
	};

	return run_at_once(tests, sizeof(tests) / sizeof(tests[0]));
}
