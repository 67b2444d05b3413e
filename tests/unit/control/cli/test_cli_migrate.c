// SPDX-License-Identifier: MIT
/* tranship migrate: exit codes, JSON, progress, interrupts, and a daemon that goes away. */
#include "tests/unit/control/cli/cli_harness.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* --- a migration ------------------------------------------------------------------------------ */

static void test_migrate_completes(void **state)
{
	json_t *j;

	(void)state;
	play("[" COPYING "," COPYING "," ENDED("done", COMPLETED) "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer"), CLI_DONE);
	want_in(out_text, "web1 has moved in 4.21 s, downtime 23.4 ms");
	want_in(out_text, "pause 3.1, final copy 8.2, device state 6.3, resume 5.8");
	want_in(out_text, "source 0.41 s, destination 0.92 s");
	want_in(out_text, "raw 1.0 GiB");
	want_in(out_text, "524288 pages");
	want_in(err_text, "warning: Host CPU?[31m.");
	assert_null(strchr(err_text, '\033')); /* no terminal, and nothing of the peer's */
	assert_null(strchr(err_text, '\r'));
	assert_null(strstr(err_text, "fine"));

	play("[" COPYING "," ENDED("done", COMPLETED) "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--json"), CLI_DONE);
	j = out_json();
	want_contract(j);
	assert_string_equal(cli_text(j, "status"), "completed");
	assert_true(json_is_null(json_object_get(j, "error")));
	assert_int_equal(json_integer_value(json_object_get(j, "extra")), 1);
	assert_int_equal(json_array_size(json_object_get(j, "rounds")), 2);
	assert_true(json_is_null(json_object_get(json_object_get(j, "ram"), "zstd_in_bytes")));
	json_decref(j);
	want_err_json();
	want_in(err_text, "\"dirty_rate\":160000000");
	want_in(err_text, "\"check\":");

	play("[" COPYING "," ENDED("done", COMPLETED) "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--batch"), CLI_DONE);
	want_in(out_text, "web1 has moved");
	want_err_json();
}

static void test_migrate_by_postcopy(void **state)
{
	(void)state;
	play("[" POSTCOPY
	     "," ENDED("done", "{\"status\":\"completed\",\"vm\":\"web1\",\"mode\":\"postcopy\","
			       "\"total_ms\":93666.7,\"downtime_ms\":58.2,\"setup_ms\":351.0,"
			       "\"postcopy\":" FAULTS "}") "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer"), CLI_DONE);
	want_in(out_text, "post-copy  8497 faults, median 0.041 ms, p99 0.144 ms, longest 40.1 ms; "
			  "complete 41.49 s after the switch-over");
	want_in(out_text, "interrupted 2 times, 30.012 s in all");
	play("[" ENDED("done", COMPLETED) "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer"), CLI_DONE);
	assert_null(strstr(out_text, "post-copy"));
}

/* What a transhipd that is gone knew is not made up. */
static void test_migrate_outlives_transhipd(void **state)
{
	(void)state;
	play("[" ENDED("done", "{\"status\":\"completed\",\"vm\":\"web1\",\"restarted\":true,"
			       "\"mode\":\"postcopy\",\"postcopy\":{\"complete\":true,"
			       "\"complete_ms\":null,\"faults\":0}}") "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer"), CLI_DONE);
	want_in(out_text, "how long it took is not known since transhipd was restarted");
	want_in(out_text, "downtime   not known since");
	want_in(out_text, "rounds     not known since");
	want_in(out_text, "RAM        not known since");
	assert_null(strstr(out_text, "  by "));
	assert_null(strstr(out_text, "complete 0"));
	play("[" ENDED("done", "{\"status\":\"completed\",\"vm\":\"web1\",\"restarted\":true,"
			       "\"total_ms\":9000.0,\"setup_ms\":1.0,\"downtime_ms\":20.5,"
			       "\"rounds\":[{\"n\":1,\"pages\":7,\"wire_bytes\":9,\"ms\":3.0}],"
			       "\"ram\":{\"total_bytes\":9,\"wire_bytes\":1048576},"
			       "\"mode\":\"postcopy\",\"postcopy\":{\"complete\":true}}") "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer"), CLI_DONE);
	want_in(out_text, "web1 has moved in 9.00 s, downtime 20.5 ms");
	want_in(out_text, "and what post-copy sent before transhipd was restarted");
	assert_null(strstr(out_text, "not known"));
}

static void test_migrate_ends_badly(void **state)
{
	static const struct {
		const char *json;
		int exit;
		const char *status, *says;
	} cases[] = {
		{ "[" ENDED("failed", BADLY("refused", "ram-not-shared")) "]", CLI_REFUSED,
		  "refused", "refused, nothing was changed" },
		{ "[" ENDED("failed", BADLY("refused", "usage")) "]", CLI_USAGE, "refused",
		  "[usage]" },
		{ "[" ENDED("failed", BADLY("refused", "unsupported-option")) "]", CLI_REFUSED,
		  "refused", "[unsupported-option]" },
		{ "[" COPYING "," ENDED("failed", BADLY("failed", "data-lost")) "]", CLI_FAILED,
		  "failed", "it stays at the source" },
		{ "[" ENDED("cancelled", BADLY("cancelled", "cancelled")) "]", CLI_CANCELLED,
		  "cancelled", "[cancelled]" },
		{ "[" ENDED("unresolved", BADLY("unresolved", "unresolved")) "]", CLI_UNRESOLVED,
		  "unresolved", "NOT KNOWN" },
		{ "[" ENDED("strange", "{\"status\":\"strange\"}") "]", CLI_UNRESOLVED, "strange",
		  "" },
		/* terminal, but without an account */
		{ "[" ENDED("failed", "null") "]", CLI_FAILED, "failed", "" },
		{ "[" ENDED("unresolved", "null") "]", CLI_UNRESOLVED, "unresolved", "" },
	};
	json_t *j;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		play(cases[i].json);
		assert_int_equal(RUN("migrate", "web1", "unix:/peer"), cases[i].exit);
		want_in(err_text, cases[i].says);
		assert_string_equal(out_text, "");
		play(cases[i].json);
		assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--json"), cases[i].exit);
		j = out_json();
		want_contract(j);
		assert_string_equal(cli_text(j, "status"), cases[i].status);
		assert_string_equal(cli_text(j, "vm"), "web1");
		json_decref(j);
		want_err_json();
	}
}

/* Failures of the very first request. */
static void test_migrate_is_refused_at_once(void **state)
{
	static const struct {
		const char *code;
		int exit;
		const char *status;
	} cases[] = {
		{ "usage", CLI_USAGE, "refused" },
		{ "vm-busy", CLI_REFUSED, "refused" },
		{ "busy", CLI_REFUSED, "refused" },
		{ "internal", CLI_FAILED, "failed" },
	};
	json_t *j;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		failure_clear(&fake.failure);
		failure_set(&fake.failure, -EIO, cases[i].code, "hint", "No.");
		assert_int_equal(RUN("migrate", "web1", "unix:/peer"), cases[i].exit);
		want_in(err_text, "tranship: No. [");
		assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--json"), cases[i].exit);
		j = out_json();
		want_contract(j);
		assert_string_equal(cli_text(j, "status"), cases[i].status);
		json_decref(j);
	}
}

static void test_dry_run(void **state)
{
	json_t *j;

	(void)state;
	play("[{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"state\":\"done\",\"terminal\":true,"
	     "\"checks\":[{\"check\":\"memory\",\"level\":\"ok\",\"message\":\"Enough.\"}],"
	     "\"result\":{\"status\":\"completed\",\"vm\":\"web1\",\"dry_run\":true}}]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--dry-run"), CLI_DONE);
	want_in(out_text, "memory     Enough.");
	want_in(out_text, "can be moved");
	assert_null(strstr(out_text, "has moved"));
	assert_string_equal(err_text, ""); /* no progress of what does not move */
	fake.polls = 0;
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--dry-run", "--json"), CLI_DONE);
	j = out_json();
	assert_int_equal(json_array_size(json_object_get(j, "checks")), 1);
	json_decref(j);
}

/* The checks let it pass, and it would not get anywhere. */
static void test_dry_run_of_what_is_hopeless(void **state)
{
	(void)state;
	play("[" ENDED("done", "{\"status\":\"completed\",\"vm\":\"web1\",\"dry_run\":true,"
			       "\"forecast\":{\"mode\":\"precopy\",\"end\":\"give-up\","
			       "\"because\":\"it does not get better\",\"modes\":[]}}") "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--dry-run"), CLI_DONE);
	want_in(out_text, "would NOT succeed: it would be given up, as it does not get better");
	assert_null(strstr(out_text, "The VM can be moved"));
}

static void test_detach(void **state)
{
	json_t *j;

	(void)state;
	fake.answer = json_pack("{s:s}", "id", FAKE_ID);
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--detach"), CLI_DONE);
	assert_string_equal(out_text, FAKE_ID "\n");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--detach", "--json"), CLI_DONE);
	j = out_json();
	assert_string_equal(cli_text(j, "status"), "started");
	assert_string_equal(cli_text(j, "id"), FAKE_ID);
	assert_string_equal(cli_text(j, "vm"), "web1");
	want_contract(j);
	json_decref(j);
	assert_int_equal(fake.polls, 0);
}

static void test_redraws_on_a_terminal(void **state)
{
	(void)state;
	terminal = true;
	play("[" COPYING "," COPYING "," ENDED("done", COMPLETED) "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer"), CLI_DONE);
	want_in(err_text, "\rweb1 [");
	want_in(err_text, "\033[K");
	want_in(err_text, "40%");
	assert_int_equal(err_text[strlen(err_text) - 1], '\n');
	/* with --json never, terminal or not */
	play("[" COPYING "," ENDED("done", COMPLETED) "]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--json"), CLI_DONE);
	want_err_json();
}

/* --- interrupts ------------------------------------------------------------------------------- */

static void interrupt_twice(unsigned int n)
{
	if (n == 1 || n == 2)
		kill(getpid(), n == 1 ? SIGINT : SIGTERM);
	if (n == 4) {
		json_decref(script);
		script = json_loads("[" ENDED("cancelled", BADLY("cancelled", "cancelled")) "]", 0,
				    NULL);
	}
}

static void test_interrupt_cancels(void **state)
{
	(void)state;
	play("[" COPYING "]");
	at_poll = interrupt_twice;
	assert_int_equal(RUN("migrate", "web1", "unix:/peer"), CLI_CANCELLED);
	assert_true(fake.cancelled);
	assert_int_equal(fake.calls, 2); /* migrate, and one cancel for two interrupts */
	assert_string_equal(fake.id, FAKE_ID);
	want_in(err_text, "Cancelling; waiting");
	want_in(err_text, "being cancelled already");
	assert_string_equal(out_text, "");
}

static void too_late(unsigned int n)
{
	if (n == 1)
		failure_set(&fake.failure, -EBUSY, "session-state", NULL, "It is committed.");
	if (n == 1 || n == 2)
		kill(getpid(), SIGINT);
	if (n == 4) {
		json_decref(script);
		script = json_loads("[" ENDED("done", COMPLETED) "]", 0, NULL);
	}
}

static void test_interrupt_that_comes_too_late(void **state)
{
	json_t *j;

	(void)state;
	play("[" COPYING "]");
	at_poll = too_late;
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--json"), CLI_DONE);
	j = out_json();
	assert_string_equal(cli_text(j, "status"), "completed");
	json_decref(j);
	want_err_json();
	want_in(err_text, "It is committed.");
	/* the second is no news of a cancel that was never agreed to */
	want_in(strstr(err_text, "It is committed.") + 1, "It is committed.");
	assert_null(strstr(err_text, "being cancelled already"));
	assert_int_equal(fake.calls, 3); /* migrate, and two that were refused */
}

/* Interrupts once somebody asks the daemon that never answers. */
static void *interrupt_the_asking(void *listener)
{
	struct pollfd p = { .fd = *(int *)listener, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 10000), 1);
	kill(getpid(), SIGINT);
	return NULL;
}

static void interrupted_before_an_answer(const char *option)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status;
	pthread_t thread;
	json_t *j;

	snprintf(sock, sizeof(sock), "%s/mute%s", dir, option);
	memcpy(name.sun_path, sock, strlen(sock));
	assert_int_equal(bind(listener, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(listener, 8), 0);
	assert_int_equal(pthread_create(&thread, NULL, interrupt_the_asking, &listener), 0);
	status = RUN("migrate", "web1", "unix:/peer", "--json", option);
	pthread_join(thread, NULL);
	close(listener);
	assert_int_equal(status, CLI_CANCELLED);
	j = out_json();
	want_contract(j);
	assert_string_equal(cli_text(j, "status"), "cancelled");
	assert_string_equal(cli_text(json_object_get(j, "error"), "code"), "cancelled");
	json_decref(j);
	want_err_json();
}

static void test_interrupt_before_the_first_answer(void **state)
{
	(void)state;
	interrupted_before_an_answer("--batch");
	interrupted_before_an_answer("--detach");
}

/* --- a daemon that goes away ------------------------------------------------------------------ */

static void test_no_daemon(void **state)
{
	json_t *j;

	(void)state;
	api_free(api);
	api = NULL;
	assert_int_equal(RUN("list"), CLI_FAILED);
	want_in(err_text, "[daemon-unreachable]");
	assert_int_equal(RUN("migrate", "web1", "unix:/peer", "--json"), CLI_FAILED);
	j = out_json();
	want_contract(j);
	assert_string_equal(cli_text(j, "status"), "failed");
	assert_string_equal(cli_text(json_object_get(j, "error"), "code"), "daemon-unreachable");
	json_decref(j);
}

static void *end_daemon(void *arg)
{
	unsigned int polls;

	(void)arg;
	do {
		usleep(1000);
		SCOPED_LOCK(&fake.lock);
		polls = fake.polls;
	} while (polls < 2);
	api_free(api);
	api = NULL;
	return NULL;
}

/* The source's journal as a daemon left it; state NULL: none. Returns the daemon's lock. */
static int leave_journal(const char *state, bool was_running)
{
	struct failure f = { 0 };
	enum session_state s;
	struct journal j;
	char path[200];
	json_t *fields;

	assert_int_equal(mkdir(fake.config.state_dir, 0700), 0);
	snprintf(path, sizeof(path), "%s/state/lock", dir);
	if (state) {
		fields = json_pack("{s:i, s:i, s:b}", "pid", 4711, "start_time", 99, "was_running",
				   was_running);
		assert_int_equal(session_state_parse(state, &s), 0);
		assert_int_equal(journal_create(&j, fake.config.state_dir, FAKE_ID, "source", &f),
				 0);
		assert_int_equal(journal_append(&j, SESSION_NEGOTIATED, fields, &f), 0);
		assert_int_equal(journal_append(&j, s, NULL, &f), 0);
		journal_close(&j);
		json_decref(fields);
	}
	return open(path, O_CREAT | O_RDWR, 0600);
}

/* Follows a session whose daemon dies under it; the exit status. */
static int lose_daemon(const char *seen)
{
	pthread_t thread;
	char json[2048];
	int status;

	snprintf(json, sizeof(json),
		 "[{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"state\":\"%s\",\"terminal\":false,"
		 "\"progress\":{}}]",
		 seen);
	play(json);
	pthread_create(&thread, NULL, end_daemon, NULL);
	status = RUN("migrate", "web1", "unix:/peer", "--json");
	pthread_join(thread, NULL);
	return status;
}

static void want_end(int status, int want, const char *word)
{
	json_t *j = out_json();

	want_contract(j);
	if (status != want)
		fail_msg("exit %d, not %d: %s", status, want, out_text);
	assert_string_equal(cli_text(j, "status"), word);
	assert_string_equal(cli_text(j, "id"), FAKE_ID);
	json_decref(j);
	want_err_json();
}

/* The journal decides, not what was seen last. */
static void test_daemon_dies_while_copying(void **state)
{
	(void)state;
	close(leave_journal("copying", true));
	want_end(lose_daemon("copying"), CLI_FAILED, "failed");
	assert_int_equal(guest_asked, 0);
}

static void test_daemon_dies_committed(void **state)
{
	(void)state;
	close(leave_journal("committed", true));
	want_end(lose_daemon("copying"), CLI_UNRESOLVED, "unresolved");
}

static void test_daemon_dies_in_the_pause(void **state)
{
	(void)state;
	close(leave_journal("paused", true));
	guest_runs = true;
	want_end(lose_daemon("paused"), CLI_FAILED, "failed");
	assert_int_equal(guest_asked, 1);
}

static void test_daemon_dies_in_the_pause_and_the_guest_stays(void **state)
{
	(void)state;
	close(leave_journal("paused", true));
	want_end(lose_daemon("paused"), CLI_UNRESOLVED, "unresolved");
}

static void test_daemon_dies_with_a_guest_that_was_paused(void **state)
{
	(void)state;
	close(leave_journal("paused", false));
	want_end(lose_daemon("paused"), CLI_FAILED, "failed");
	assert_int_equal(guest_asked, 0);
}

static void test_daemon_dies_after_the_end(void **state)
{
	(void)state;
	close(leave_journal("done", true));
	want_end(lose_daemon("committed"), CLI_DONE, "completed");
}

static void test_daemon_dies_before_a_journal(void **state)
{
	(void)state;
	close(leave_journal(NULL, true));
	want_end(lose_daemon("new"), CLI_FAILED, "failed");
}

static void test_daemon_dies_and_the_journal_is_gone(void **state)
{
	(void)state;
	close(leave_journal(NULL, true));
	want_end(lose_daemon("copying"), CLI_UNRESOLVED, "unresolved");
}

static void test_daemon_dies_and_the_journal_is_damaged(void **state)
{
	char path[200];
	int fd;

	(void)state;
	close(leave_journal("copying", true));
	snprintf(path, sizeof(path), "%s/state/sessions/" FAKE_ID ".source.journal", dir);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "XX", 2, 20), 2);
	close(fd);
	want_end(lose_daemon("copying"), CLI_UNRESOLVED, "unresolved");
}

/* It holds its lock: it lives, and may go on to commit. */
static void test_daemon_lives_but_is_silent(void **state)
{
	int lock = leave_journal("copying", true);

	(void)state;
	assert_int_equal(flock(lock, LOCK_EX), 0);
	want_end(lose_daemon("copying"), CLI_UNRESOLVED, "unresolved");
	close(lock);
}

static int forgotten(struct host *h, uint64_t since, unsigned int wait_ms, json_t **out,
		     struct failure *f)
{
	(void)h;
	(void)since;
	(void)wait_ms;
	(void)out;
	return failure_set(f, -ENOENT, "session-not-found", NULL, "There is no such session.");
}

/* A restarted daemon has rolled the session back and does not list it any more. */
static void test_daemon_has_forgotten_the_session(void **state)
{
	(void)state;
	close(leave_journal("failed", true));
	fake.answer = json_pack("{s:s}", "id", FAKE_ID);
	fake.status = forgotten;
	want_end(RUN("migrate", "web1", "unix:/peer", "--json"), CLI_FAILED, "failed");
}

static void test_lost_rule(void **state)
{
	(void)state;
	for (int s = SESSION_NEW; s <= SESSION_UNRESOLVED; s++) {
		for (int bits = 0; bits < 4; bits++) {
			bool was_running = bits & 1, runs = bits & 2;
			enum cli_lost lost =
				cli_lost_rule((enum session_state)s, was_running, runs);

			/* past COMMIT the source never is said to have it */
			if (s == SESSION_COMMITTED || s == SESSION_RUNNING || s == SESSION_DONE ||
			    s == SESSION_UNRESOLVED)
				assert_int_not_equal(lost, LOST_AT_SOURCE);
			if (s < SESSION_PAUSED)
				assert_int_equal(lost, LOST_AT_SOURCE);
		}
	}
	assert_int_equal(cli_lost_rule(SESSION_PREPARED, true, false), LOST_UNRESOLVED);
	assert_int_equal(cli_lost_rule(SESSION_PREPARED, true, true), LOST_AT_SOURCE);
	assert_int_equal(cli_lost_rule(SESSION_CANCELLED, true, true), LOST_CANCELLED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_migrate_completes),
		CASE(test_migrate_by_postcopy),
		CASE(test_migrate_outlives_transhipd),
		CASE(test_migrate_ends_badly),
		CASE(test_migrate_is_refused_at_once),
		CASE(test_dry_run),
		CASE(test_dry_run_of_what_is_hopeless),
		CASE(test_detach),
		CASE(test_redraws_on_a_terminal),
		CASE(test_interrupt_cancels),
		CASE(test_interrupt_that_comes_too_late),
		CASE(test_interrupt_before_the_first_answer),
		CASE(test_no_daemon),
		CASE(test_daemon_dies_while_copying),
		CASE(test_daemon_dies_committed),
		CASE(test_daemon_dies_in_the_pause),
		CASE(test_daemon_dies_in_the_pause_and_the_guest_stays),
		CASE(test_daemon_dies_with_a_guest_that_was_paused),
		CASE(test_daemon_dies_after_the_end),
		CASE(test_daemon_dies_before_a_journal),
		CASE(test_daemon_dies_and_the_journal_is_gone),
		CASE(test_daemon_dies_and_the_journal_is_damaged),
		CASE(test_daemon_lives_but_is_silent),
		CASE(test_daemon_has_forgotten_the_session),
		CASE(test_lost_rule),
	};

	return cmocka_run_group_tests(tests, NULL, cleanup_script);
}
