// SPDX-License-Identifier: MIT
/* The session journal: merging, torn and damaged records, failed writes, listing. */
#include "control/session/journal.h"
#include "lib/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID "00112233445566778899aabbccddeeff"

static char state_dir[64];

static int setup(void **state)
{
	(void)state;
	snprintf(state_dir, sizeof(state_dir), "/tmp/test_journal.XXXXXX");
	return mkdtemp(state_dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", state_dir);
	return system(command);
}

static const char *text_of(const json_t *content, const char *key)
{
	const char *text = json_string_value(json_object_get(content, key));

	return text ? text : "(absent)";
}

static void append(struct journal *j, enum session_state s, const char *key, int value)
{
	json_t *fields = json_pack("{s:i}", key, value);
	struct failure f = { 0 };

	assert_int_equal(journal_append(j, s, fields, &f), 0);
	json_decref(fields);
}

/* A journal with three records, closed; returns its bytes in use. */
static size_t three_records(char *path, size_t size, char *bytes, size_t *ends)
{
	struct failure f = { 0 };
	struct journal j;
	int fd;
	ssize_t n;

	assert_int_equal(journal_create(&j, state_dir, ID, "source", &f), 0);
	snprintf(path, size, "%s", j.path);
	append(&j, SESSION_NEW, "a", 1);
	ends[0] = (size_t)lseek(j.fd, 0, SEEK_CUR);
	append(&j, SESSION_COPYING, "b", 2);
	ends[1] = (size_t)lseek(j.fd, 0, SEEK_CUR);
	append(&j, SESSION_PAUSED, "a", 3);
	ends[2] = (size_t)lseek(j.fd, 0, SEEK_CUR);
	journal_close(&j);
	fd = open(path, O_RDONLY);
	n = read(fd, bytes, 4096);
	close(fd);
	assert_true(n > (ssize_t)ends[2]);
	return ends[2];
}

static void put(const char *path, const char *bytes, size_t n, size_t zeros)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	assert_int_equal(ftruncate(fd, (off_t)(n + zeros)), 0);
	close(fd);
}

static void test_records_merge(void **state)
{
	size_t ends[3];
	char path[PATH_MAX], bytes[4096];
	struct failure f = { 0 };
	json_t *content;
	struct stat st;

	(void)state;
	three_records(path, sizeof(path), bytes, ends);
	content = journal_read(path, &f);
	assert_non_null(content);
	assert_string_equal(text_of(content, "state"), "paused");
	assert_int_equal(json_integer_value(json_object_get(content, "a")), 3);
	assert_int_equal(json_integer_value(json_object_get(content, "b")), 2);
	assert_true(json_integer_value(json_object_get(content, "time")) > 1600000000000);
	assert_null(json_object_get(content, "crc"));
	json_decref(content);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_reserved_members_win(void **state)
{
	json_t *fields = json_pack("{s:s,s:s,s:s}", "state", "done", "crc", "x", "note", "kept");
	struct failure f = { 0 };
	struct journal j;
	json_t *content;

	(void)state;
	assert_int_equal(journal_create(&j, state_dir, ID, "source", &f), 0);
	assert_int_equal(journal_append(&j, SESSION_COMMITTED, fields, &f), 0);
	json_decref(fields);
	content = journal_read(j.path, &f);
	assert_string_equal(text_of(content, "state"), "committed");
	assert_string_equal(text_of(content, "note"), "kept");
	json_decref(content);
	journal_close(&j);
}

/* Whatever part of the last record arrived, with or without the zeros that were there before. */
static void test_torn_record_is_dropped(void **state)
{
	size_t ends[3], n;
	char path[PATH_MAX], bytes[4096], torn[4096];

	(void)state;
	n = three_records(path, sizeof(path), bytes, ends);
	for (size_t cut = ends[1]; cut < n; cut++) {
		for (int form = 0; form < 3; form++) {
			struct failure f = { 0 };
			json_t *content;

			memcpy(torn, bytes, n);
			if (form == 2) /* the beginning did not arrive, the end did */
				memset(torn + ends[1], 0, cut - ends[1] + 1);
			put(path, torn, form == 2 ? n : cut, form ? 512 : 0);
			content = journal_read(path, &f);
			assert_non_null(content);
			assert_string_equal(text_of(content, "state"), "copying");
			assert_int_equal(json_integer_value(json_object_get(content, "a")), 1);
			json_decref(content);
		}
	}
}

static void test_damage_is_an_error(void **state)
{
	size_t ends[3], n;
	char path[PATH_MAX], bytes[4096], bad[4096];

	(void)state;
	n = three_records(path, sizeof(path), bytes, ends);
	for (size_t at = 0; at < n - 1; at++) {
		struct failure f = { 0 };

		memcpy(bad, bytes, n);
		bad[at] ^= 1;
		put(path, bad, n, 512);
		assert_null(journal_read(path, &f));
		assert_string_equal(f.code, "journal");
	}
	/* a record lost from the middle, its place zero */
	memcpy(bad, bytes, n);
	memset(bad + ends[0], 0, ends[1] - ends[0] - 1);
	put(path, bad, n, 0);
	struct failure f = { 0 };
	assert_null(journal_read(path, &f));
	assert_non_null(strstr(f.message, "Line 2"));
}

static void test_open_goes_on_after_a_torn_record(void **state)
{
	size_t ends[3], n;
	char path[PATH_MAX], bytes[4096];
	struct failure f = { 0 };
	struct journal j;
	json_t *content;

	(void)state;
	n = three_records(path, sizeof(path), bytes, ends);
	put(path, bytes, n - 5, 100);
	assert_int_equal(journal_open(&j, path, &content, &f), 0);
	assert_string_equal(text_of(content, "state"), "copying");
	json_decref(content);
	append(&j, SESSION_FAILED, "c", 4);
	journal_close(&j);
	assert_int_equal(journal_open(&j, path, NULL, &f), 0);
	append(&j, SESSION_FAILED, "d", 5);
	journal_close(&j);
	content = journal_read(path, &f);
	assert_non_null(content);
	assert_string_equal(text_of(content, "state"), "failed");
	assert_int_equal(json_integer_value(json_object_get(content, "a")), 1);
	assert_int_equal(json_integer_value(json_object_get(content, "d")), 5);
	json_decref(content);
}

/* More than is reserved ahead, in records larger than a sector. */
static void test_grows(void **state)
{
	struct failure f = { 0 };
	struct journal j;
	json_t *content, *fields;
	char big[3000];

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_int_equal(journal_create(&j, state_dir, ID, "destination", &f), 0);
	for (int i = 0; i < 40; i++) {
		fields = json_pack("{s:s,s:i}", "big", big, "i", i);
		assert_int_equal(journal_append(&j, SESSION_COPYING, fields, &f), 0);
		json_decref(fields);
	}
	journal_close(&j);
	content = journal_read(j.path, &f);
	assert_non_null(content);
	assert_int_equal(json_integer_value(json_object_get(content, "i")), 39);
	assert_string_equal(text_of(content, "big"), big);
	json_decref(content);
}

/* A full file system: the record is refused, what was there stays, and the journal still works. */
static void test_failed_append_is_taken_back(void **state)
{
	struct rlimit before, limit;
	struct failure f = { 0 };
	struct journal j;
	json_t *content, *fields;
	char big[3000];
	int err = 0, i;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(journal_create(&j, state_dir, ID, "source", &f), 0);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = 32768;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (i = 0; i < 20 && !err; i++) {
		fields = json_pack("{s:s,s:i}", "big", big, "i", i);
		err = journal_append(&j, SESSION_COPYING, fields, &f);
		json_decref(fields);
	}
	setrlimit(RLIMIT_FSIZE, &before);
	assert_int_equal(err, -EFBIG);
	assert_string_equal(f.code, "journal");
	content = journal_read(j.path, &f);
	assert_non_null(content);
	assert_int_equal(json_integer_value(json_object_get(content, "i")), i - 2);
	json_decref(content);
	append(&j, SESSION_FAILED, "i", 99);
	journal_close(&j);
	content = journal_read(j.path, &f);
	assert_int_equal(json_integer_value(json_object_get(content, "i")), 99);
	json_decref(content);
}

static void test_refuses(void **state)
{
	struct failure f = { 0 };
	struct journal j, again;
	json_t *content;

	(void)state;
	assert_int_equal(journal_create(&j, state_dir, "../escape", "source", &f), -EINVAL);
	assert_int_equal(j.fd, -1);
	failure_clear(&f);
	assert_int_equal(journal_create(&j, state_dir, "", "source", &f), -EINVAL);
	failure_clear(&f);
	assert_int_equal(journal_create(&j, state_dir, ID, "source", &f), 0);
	assert_int_equal(journal_create(&again, state_dir, ID, "source", &f), -EEXIST);
	failure_clear(&f);
	assert_int_equal(journal_open(&again, "/nowhere/x.journal", &content, &f), -ENOENT);
	assert_null(content);
	journal_close(&j);
	journal_close(&j);
}

static void test_empty_journal(void **state)
{
	struct failure f = { 0 };
	struct journal j;
	json_t *content;

	(void)state;
	assert_int_equal(journal_create(&j, state_dir, ID, "source", &f), 0);
	content = journal_read(j.path, &f);
	assert_non_null(content);
	assert_int_equal(json_object_size(content), 0);
	json_decref(content);
	journal_close(&j);
}

static void test_list(void **state)
{
	static const char *const ids[] = { "aa", "bb", "cc" };
	struct failure f = { 0 };
	struct journal j;
	char **paths, other[128];
	size_t n;

	(void)state;
	assert_int_equal(journal_list(state_dir, &paths, &n), 0);
	assert_int_equal(n, 0);
	for (int i = 0; i < 3; i++) {
		struct timespec times[2] = { { .tv_sec = 1000 + (i == 1 ? 50 : i) },
					     { .tv_sec = 1000 + (i == 1 ? 50 : i) } };

		assert_int_equal(journal_create(&j, state_dir, ids[i], "source", &f), 0);
		journal_close(&j);
		assert_int_equal(utimensat(AT_FDCWD, j.path, times, 0), 0);
	}
	snprintf(other, sizeof(other), "%s/sessions/notes.txt", state_dir);
	close(open(other, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(journal_list(state_dir, &paths, &n), 0);
	assert_int_equal(n, 3);
	assert_non_null(strstr(paths[0], "/bb.source.journal"));
	assert_non_null(strstr(paths[1], "/cc.source.journal"));
	assert_non_null(strstr(paths[2], "/aa.source.journal"));
	for (size_t i = 0; i < n; i++)
		free(paths[i]);
	free(paths);
}

static void test_state_names(void **state)
{
	enum session_state s;

	(void)state;
	for (int i = SESSION_NEW; i <= SESSION_UNRESOLVED; i++) {
		assert_int_equal(session_state_parse(session_state_name((enum session_state)i), &s),
				 0);
		assert_int_equal(s, i);
	}
	assert_int_equal(session_state_parse("COMMITTED", &s), -EINVAL);
	assert_int_equal(session_state_parse("", &s), -EINVAL);
	assert_string_equal(session_state_name((enum session_state)99), "unknown");
}

/* A moment is the same for the process that reads it, whatever its own clock has counted. */
static void test_a_moment(void **state)
{
	uint64_t then = clock_ns() - 5 * NSEC_PER_SEC, read;
	json_t *j = json_pack("{s:o, s:i, s:s}", "at", journal_moment_json(then), "early", 1, "odd",
			      "x");

	(void)state;
	read = journal_moment(j, "at");
	assert_in_range(read, then - NSEC_PER_SEC, then + NSEC_PER_SEC);
	assert_int_equal(journal_moment(j, "early"), 0);
	assert_int_equal(journal_moment(j, "odd"), 0);
	assert_int_equal(journal_moment(j, "absent"), 0);
	json_decref(j);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_records_merge),
		CASE(test_reserved_members_win),
		CASE(test_torn_record_is_dropped),
		CASE(test_damage_is_an_error),
		CASE(test_open_goes_on_after_a_torn_record),
		CASE(test_grows),
		CASE(test_failed_append_is_taken_back),
		CASE(test_refuses),
		CASE(test_empty_journal),
		CASE(test_list),
		CASE(test_state_names),
		cmocka_unit_test(test_a_moment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
