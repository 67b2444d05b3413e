// SPDX-License-Identifier: MIT
/*
 * What a host does at its start with the journals that it finds: which are removed, which kept,
 * which taken up; and what a peer is told of sessions that are not listed any more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "control/session/host.h"
#include "lib/base/clock.h"

#define DAY_MS (24ull * 3600 * 1000)

static struct config config;
static struct failure f;
static struct host *host;

static int begin(void **unused)
{
	char path[PATH_MAX];

	(void)unused;
	memset(&config, 0, sizeof(config));
	snprintf(config.state_dir, sizeof(config.state_dir), "/tmp/test_journals.XXXXXX");
	if (!mkdtemp(config.state_dir))
		return -1;
	snprintf(path, sizeof(path), "%.4000s/sessions", config.state_dir);
	host = NULL;
	failure_clear(&f);
	return mkdir(path, 0700);
}

static int end(void **unused)
{
	char command[PATH_MAX + 16];

	(void)unused;
	if (host)
		host_free(host);
	snprintf(command, sizeof(command), "rm -rf %s", config.state_dir);
	return system(command);
}

static void start(void)
{
	if (host_new(&host, &config, &f))
		fail_msg("%s", f.message);
}

static void path_of(unsigned int n, const char *side, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%.4000s/sessions/%032x.%s.journal", config.state_dir, n, side);
}

/* A journal of one record, as old as said; members, if any, are text that goes in. */
static void put(unsigned int n, const char *side, const char *state, uint64_t age_ms,
		const char *members)
{
	uint64_t now = clock_of(CLOCK_REALTIME) / NSEC_PER_MSEC;
	struct timespec times[2];
	char path[PATH_MAX], text[512];
	FILE *file;
	int len;

	len = snprintf(text, sizeof(text), "{\"state\":\"%s\",\"time\":%" PRIu64 "%s", state,
		       now - age_ms, members);
	path_of(n, side, path);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "%s,\"crc\":\"%016" PRIx64 "\"}\n", text, XXH3_64bits(text, (size_t)len));
	fclose(file);
	/* the order of age, for files that are as old as each other */
	times[0] = times[1] = (struct timespec){ .tv_sec = (time_t)((now - age_ms) / 1000),
						 .tv_nsec = 1000000 - n };
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool is_there(unsigned int n, const char *side)
{
	char path[PATH_MAX];

	path_of(n, side, path);
	return !access(path, F_OK);
}

/* The session of that number when it has ended, or after a second. */
static json_t *await_terminal(unsigned int n)
{
	json_t *out = NULL;
	char id[40];

	snprintf(id, sizeof(id), "%032x", n);
	for (int tries = 0; tries < 100; tries++) {
		json_decref(out);
		assert_int_equal(host_status(host, id, 0, 0, &out, &f), 0);
		if (json_is_true(json_object_get(out, "terminal")))
			break;
		usleep(10000);
	}
	return out;
}

static size_t listed(void)
{
	json_t *list = NULL;
	size_t n;

	assert_int_equal(host_list(host, &list, &f), 0);
	n = json_array_size(list);
	json_decref(list);
	return n;
}

static void old_ones_are_removed_beyond_256(void **unused)
{
	static const char *const ends[] = { "done", "failed", "cancelled" };
	static const char *const kinds[] = { "source", "observer" };

	(void)unused;
	for (unsigned int n = 0; n < 300; n++)
		put(n, kinds[n % 2], ends[n % 3], n * 60000, "");
	start();
	for (unsigned int n = 0; n < 300; n++)
		if (is_there(n, kinds[n % 2]) != (n < 256))
			fail_msg("number %u is %s", n, n < 256 ? "gone" : "there");
	/* half of the newest hundred: a measurement has said what it had to */
	assert_int_equal(listed(), 50);
}

/* Whoever went away finds it as it would have been without the restart. */
static void ended_ones_are_listed_with_their_results(void **unused)
{
	json_t *out = NULL, *list = NULL;
	char id[40];

	(void)unused;
	put(1, "source", "done", 1000,
	    ",\"request\":{\"vm\":\"web1\"},\"result\":{\"status\":\"completed\",\"total_ms\":12.5}"
	    ","
	    "\"error\":null");
	put(2, "destination", "failed", 2000,
	    ",\"request\":{\"vm\":\"web2\"},\"result\":null,\"error\":{\"code\":\"disk-locked\","
	    "\"message\":\"It is locked.\",\"hint\":\"Unlock it.\"}");
	put(3, "source", "done", 8 * DAY_MS, "");
	start();
	assert_int_equal(host_list(host, &list, &f), 0);
	assert_int_equal(json_array_size(list), 2);
	out = json_array_get(list, 0);
	assert_string_equal(json_string_value(json_object_get(out, "vm")), "web1");
	assert_string_equal(json_string_value(json_object_get(out, "status")), "completed");
	json_decref(list);

	snprintf(id, sizeof(id), "%032x", 1);
	assert_int_equal(host_status(host, id, 0, 1000, &out, &f), 0);
	assert_string_equal(json_string_value(json_object_get(out, "state")), "done");
	assert_true(json_is_true(json_object_get(out, "terminal")));
	assert_true(json_real_value(json_object_get(json_object_get(out, "result"), "total_ms")) ==
		    12.5);
	assert_null(json_object_get(out, "error"));
	json_decref(out);
	assert_int_equal(host_cancel(host, id, &out, &f), -EBUSY);
	failure_clear(&f);
	assert_int_equal(host_resolve(host, id, "run-here", &out, &f), -EBUSY);
	failure_clear(&f);

	snprintf(id, sizeof(id), "%032x", 2);
	assert_int_equal(host_status(host, id, 0, 0, &out, &f), 0);
	assert_string_equal(json_string_value(json_object_get(out, "vm")), "web2");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(out, "error"), "code")),
		"disk-locked");
	json_decref(out);
	/* the source may still ask, and hears what it would have heard */
	assert_int_equal(host_peer_commit(host, id, &out, &f), -EBUSY);
	assert_string_equal(f.code, "disk-locked");
	failure_clear(&f);
	assert_int_equal(host_peer_abort(host, id, NULL, &out, &f), 0);
	json_decref(out);
}

/* A source may ask after days what became of its session. */
static void destinations_are_kept_for_a_week(void **unused)
{
	json_t *out = NULL;
	char id[40];

	(void)unused;
	for (unsigned int n = 0; n < 300; n++)
		put(n, "source", "done", 1000, "");
	put(1000, "destination", "failed", 6 * DAY_MS, "");
	put(1001, "destination", "done", 8 * DAY_MS, "");
	start();
	assert_true(is_there(1000, "destination"));
	assert_false(is_there(1001, "destination"));
	snprintf(id, sizeof(id), "%032x", 1000);
	assert_int_equal(host_peer_status(host, id, &out, &f), 0);
	assert_string_equal(json_string_value(json_object_get(out, "state")), "failed");
	assert_true(json_is_false(json_object_get(out, "running")));
	json_decref(out);
	snprintf(id, sizeof(id), "%032x", 1001);
	assert_int_equal(host_peer_status(host, id, &out, &f), -ENOENT);
	assert_string_equal(f.code, "session-not-found");
}

static void open_ones_are_never_removed(void **unused)
{
	(void)unused;
	for (unsigned int n = 0; n < 300; n++)
		put(n, "source", "done", 1000, "");
	/* their VMs are gone long since */
	put(1000, "source", "copying", 400 * DAY_MS, ",\"pid\":1999999999");
	put(1001, "destination", "unresolved", 400 * DAY_MS, ",\"pid\":1999999999");
	put(1002, "destination", "committed", 400 * DAY_MS, ",\"pid\":1999999999");
	start();
	assert_true(is_there(1000, "source"));
	assert_true(is_there(1001, "destination"));
	assert_true(is_there(1002, "destination"));
	/* before them the newest of the ended */
	assert_int_equal(listed(), 3 + 100);
}

/* What ran may have written its disks: that it is gone now does not give the guest back. */
static void a_vm_that_has_gone(void **unused)
{
	static const struct {
		const char *before, *after;
	} cases[] = {
		{ "negotiated", "failed" }, { "copying", "failed" },
		{ "prepared", "failed" },   { "committed", "unresolved" },
		{ "running", "done" },	    { "unresolved", "unresolved" },
	};

	(void)unused;
	for (unsigned int n = 0; n < 6; n++)
		put(n, "destination", cases[n].before, 1000, ",\"pid\":1999999999");
	start();
	for (unsigned int n = 0; n < 6; n++) {
		json_t *out = await_terminal(n);
		const char *state;

		state = json_string_value(json_object_get(out, "state"));
		if (strcmp(state, cases[n].after))
			fail_msg("%s became %s, not %s", cases[n].before, state, cases[n].after);
		json_decref(out);
	}
}

/* A person who knows better says so, also of a VM that has gone. */
static void unresolved_is_given_up(void **unused)
{
	json_t *out;
	char id[40];

	(void)unused;
	put(7, "destination", "unresolved", 1000, ",\"pid\":1999999999");
	start();
	out = await_terminal(7);
	snprintf(id, sizeof(id), "%s", json_string_value(json_object_get(out, "id")));
	json_decref(out);
	assert_int_equal(host_resolve(host, id, "run-here", &out, &f), -EBUSY);
	failure_clear(&f);
	assert_int_equal(host_resolve(host, id, "give-up", &out, &f), 0);
	assert_string_equal(json_string_value(json_object_get(out, "state")), "failed");
	json_decref(out);
	assert_int_equal(host_resolve(host, id, "give-up", &out, &f), -EBUSY);
	failure_clear(&f);
	/* durable */
	host_free(host);
	start();
	assert_int_equal(listed(), 1);
	assert_int_equal(host_peer_status(host, id, &out, &f), 0);
	assert_string_equal(json_string_value(json_object_get(out, "state")), "failed");
	json_decref(out);
}

static void what_is_no_journal_is_left(void **unused)
{
	static const char *const names[] = { "x.source.journal", "readme.journal",
					     "00000000000000000000000000000001.other.journal",
					     "0000000000000000000000000000000g.source.journal" };
	char path[PATH_MAX];

	(void)unused;
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%.3000s/sessions/%s", config.state_dir, names[i]);
		close(open(path, O_CREAT | O_WRONLY, 0600));
	}
	/* damaged: never removed, never taken up */
	put(2, "source", "done", 400 * DAY_MS, "");
	path_of(2, "source", path);
	assert_int_equal(truncate(path, 0), 0);
	{
		FILE *file = fopen(path, "w");

		fputs("{\"state\":\"committed\",\"crc\":\"0000000000000000\"}\n", file);
		fclose(file);
	}
	start();
	assert_int_equal(listed(), 0);
	assert_true(is_there(2, "source"));
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%.3000s/sessions/%s", config.state_dir, names[i]);
		assert_int_equal(access(path, F_OK), 0);
	}
}

/* Made and never written: nothing was begun. */
static void an_empty_one_is_removed(void **unused)
{
	char path[PATH_MAX];

	(void)unused;
	path_of(3, "destination", path);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(truncate(path, 32768), 0);
	start();
	assert_int_equal(listed(), 0);
	assert_false(is_there(3, "destination"));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		CASE(old_ones_are_removed_beyond_256),
		CASE(ended_ones_are_listed_with_their_results),
		CASE(destinations_are_kept_for_a_week),
		CASE(open_ones_are_never_removed),
		CASE(a_vm_that_has_gone),
		CASE(unresolved_is_given_up),
		CASE(what_is_no_journal_is_left),
		CASE(an_empty_one_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
