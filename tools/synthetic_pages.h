/* SPDX-License-Identifier: MIT */
/*
 * What a page of the synthetic guest holds: a function of (seed, page, version), so that every page
 * can be checked at any time, and by another process.
 *
 * Version 0: never written, zeros. Otherwise a share of the (page, version) pairs is zero, a share
 * compressible (about 5:1 with zstd level 1), the rest random. The kind is drawn anew for each
 * version, so that a page changes between kinds as it is rewritten. A page that is not zero begins
 * with its number and its version.
 */
#ifndef TRANSHIP_TOOLS_SYNTHETIC_PAGES_H
#define TRANSHIP_TOOLS_SYNTHETIC_PAGES_H

#include <stdint.h>

#define SYNTHETIC_PAGE	4096u
#define SYNTHETIC_WORDS (SYNTHETIC_PAGE / 8)

struct synthetic_kinds {
	uint64_t seed;
	uint32_t zero_percent;
	uint32_t compressible_percent; /* zero + compressible <= 100 */
};

/* Writes the content over page, which need not be zeroed. */
void synthetic_page_write(uint64_t *page, const struct synthetic_kinds *k, uint64_t number,
			  uint32_t version);

/* The first byte that differs from the content, or -1 if the page is right. */
int synthetic_page_check(const uint64_t *page, const struct synthetic_kinds *k, uint64_t number,
			 uint32_t version);

/* The version that a page claims to hold, 0 if it does not look like that page at all. */
uint32_t synthetic_page_claims(const uint64_t *page, uint64_t number);

/* A well mixed 64-bit hash of x (the finaliser of splitmix64). */
uint64_t synthetic_mix(uint64_t x);

#endif
