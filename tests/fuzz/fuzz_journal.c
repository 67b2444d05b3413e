// SPDX-License-Identifier: MIT
/*
 * A journal as a crash, a full disk or a person's editor may have left it.
 *
 * Input: a byte of flags (1: every line gets the checksum that it needs), then the file. A journal
 * that can be read can be gone on with: a record appended to it must be what is read next, with all
 * that was there before. One that is damaged is refused, by both readers.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "control/session/journal.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

static int file = -1;
static char path[64];

static void put(const void *bytes, size_t n)
{
	fuzz_check(write(file, bytes, n) == (ssize_t)n);
}

/* A line with its checksum in the place of its last brace. */
static void put_signed(const uint8_t *line, size_t n)
{
	char tail[64];

	if (n && line[n - 1] == '}') {
		n--;
		snprintf(tail, sizeof(tail), ",\"crc\":\"%016" PRIx64 "\"}", XXH3_64bits(line, n));
		put(line, n);
		put(tail, strlen(tail));
	} else {
		put(line, n);
	}
}

static void write_file(struct fuzz_input *in)
{
	bool sign = fuzz_u8(in) & 1;

	fuzz_check(!ftruncate(file, 0) && !lseek(file, 0, SEEK_SET));
	while (in->left) {
		const uint8_t *end = memchr(in->p, '\n', in->left);
		size_t n = end ? (size_t)(end - in->p) : in->left;

		if (sign)
			put_signed(in->p, n);
		else
			put(in->p, n);
		if (end)
			put("\n", 1);
		in->p += n + (end ? 1 : 0);
		in->left -= n + (end ? 1 : 0);
	}
}

static void go_on(json_t *before)
{
	json_t *content = NULL, *fields = json_pack("{s:s, s:i}", "note", "more", "n", 7), *after;
	struct failure f = { 0 };
	struct journal j;

	fuzz_check(!journal_open(&j, path, &content, &f));
	fuzz_check(json_equal(content, before));
	fuzz_check(!journal_append(&j, SESSION_PAUSED, fields, &f));
	journal_close(&j);
	after = journal_read(path, &f);
	fuzz_check(after);
	fuzz_check(!strcmp(json_string_value(json_object_get(after, "state")), "paused"));
	/* time is the one member that is the journal's own to change */
	json_object_update(before, fields);
	json_object_set_new(before, "state", json_string("paused"));
	json_object_set(before, "time", json_object_get(after, "time"));
	fuzz_check(json_equal(before, after));
	json_decref(content);
	json_decref(fields);
	json_decref(after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct failure f = { 0 };
	json_t *content;

	if (file < 0) {
		log_init("fuzz", LOG_LEVEL_ERROR);
		file = memfd_create("fuzz-journal", MFD_CLOEXEC);
		fuzz_check(file >= 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	}
	write_file(&in);
	content = journal_read(path, &f);
	if (content) {
		go_on(content);
		json_decref(content);
	} else {
		struct journal j;

		fuzz_check(failure_is_set(&f));
		failure_clear(&f);
		fuzz_check(journal_open(&j, path, &content, &f) && !content && j.fd < 0);
	}
	return 0;
}
