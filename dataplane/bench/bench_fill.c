// SPDX-License-Identifier: MIT
/* What a bench sends; see bench_fill.h. */
#include "dataplane/bench/bench_fill.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* xorshift64*, Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016). */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

static void fill_random(uint8_t *to, size_t len, uint64_t *state)
{
	for (; len >= sizeof(uint64_t); to += sizeof(uint64_t), len -= sizeof(uint64_t)) {
		uint64_t word = next_random(state);

		memcpy(to, &word, sizeof(word));
	}
	if (len) {
		uint64_t word = next_random(state);

		memcpy(to, &word, len);
	}
}

static void fill_text(uint8_t *to, size_t len, uint64_t *state)
{
	static const char *const words[] = {
		"memory",  "page ",  "kernel ", "guest ",   "the ",	   "of ",	 "and ",
		"in ",	   "to ",    "value=",	"request ", "error: ",	   "127.0.0.1 ", "GET /",
		"status ", "index ", "0x7f00",	"session ", "connection ", "user ",	 "at ",
		"from ",   "2026-",  "\n",	"<td>",	    "</td>",	   "null, ",	 "true, ",
		"\"id\":", "size ",  "[info] ", "write ",
	};

	while (len) {
		uint64_t r = next_random(state);
		const char *word = words[r >> 59];
		size_t n = strlen(word);
		/* one word in four is a number: text is not all repetition */
		char digits[4] = { (char)('0' + (r >> 8) % 10), (char)('0' + (r >> 16) % 10),
				   (char)('0' + (r >> 24) % 10), ' ' };

		if (!(r >> 32 & 3)) {
			word = digits;
			n = sizeof(digits);
		}
		n = n < len ? n : len;
		memcpy(to, word, n);
		to += n;
		len -= n;
	}
}

static int fill_file(uint8_t *to, size_t len, int fd)
{
	off_t at = 0;

	while (len) {
		ssize_t n = pread(fd, to, len, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n && !at)
			return -ENODATA;
		at = n ? at + n : 0;
		to += n;
		len -= (size_t)n;
	}
	return 0;
}

int bench_fill(uint8_t *to, size_t len, enum ipc_bench_data kind, uint64_t seed, int fd)
{
	/* neighbouring seeds give unlike states, and none is zero, where it would stay */
	uint64_t state = (seed + 1) * 0x9e3779b97f4a7c15ull;

	switch (kind) {
	case IPC_BENCH_ZERO:
		memset(to, 0, len);
		break;
	case IPC_BENCH_TEXT:
		fill_text(to, len, &state);
		break;
	case IPC_BENCH_RANDOM:
		fill_random(to, len, &state);
		break;
	case IPC_BENCH_FILE:
		return fill_file(to, len, fd);
	}
	return 0;
}
