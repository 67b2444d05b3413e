/* SPDX-License-Identifier: MIT */
/* Kinds of RAM content, for tests and benchmarks of compression. */
#ifndef TRANSHIP_TESTS_CONTENT_H
#define TRANSHIP_TESTS_CONTENT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum content { CONTENT_ZERO, CONTENT_TEXT, CONTENT_RANDOM, CONTENT_MIXED, CONTENTS };

static const char *const content_names[CONTENTS] = { "zero", "text", "random", "mixed" };

static inline uint64_t content_next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static inline void content_random(uint8_t *page, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (unsigned int i = 0; i < 4096; i += 8) {
		uint64_t v = content_next(&x);

		memcpy(page + i, &v, 8);
	}
}

/* Words of a small language, common ones often: about 3:1 with zstd level 1. */
static inline void content_text(uint8_t *page, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 7;
	unsigned int at = 0;

	while (at < 4096) {
		uint64_t v = content_next(&x), word = (v >> 8) % (1ull << (4 + (v >> 40) % 9));
		uint64_t letters = (word + 1) * 0xd6e8feb86659fd93ull;
		unsigned int len = 2 + (unsigned int)(word * 7 % 9);

		for (unsigned int i = 0; i < len && at < 4096; i++, letters >>= 5)
			page[at++] = (uint8_t)("etaoinshrdlucmfwypvbgkjqxzetaoin"[letters % 32]);
		if (at < 4096)
			page[at++] = v % 11 ? ' ' : '\n';
	}
}

static inline void content_page(uint8_t *page, enum content kind, uint64_t number)
{
	uint64_t x = (number / 16 + 1) * 0xd6e8feb86659fd93ull;

	/* mixed: 64 KiB of one kind, a third each */
	if (kind == CONTENT_MIXED)
		kind = (enum content)((x >> 32) % 3);
	if (kind == CONTENT_ZERO)
		memset(page, 0, 4096);
	else if (kind == CONTENT_TEXT)
		content_text(page, number + 1);
	else
		content_random(page, number + 1);
}

/* Fills a file; zero pages are written ones. */
static inline void content_fill(int fd, uint64_t size, enum content kind)
{
	uint8_t page[4096];

	for (uint64_t at = 0; at < size; at += sizeof(page)) {
		content_page(page, kind, at / 4096);
		if (pwrite(fd, page, sizeof(page), (off_t)at) != sizeof(page)) {
			perror("filling RAM");
			abort();
		}
	}
}

#endif
