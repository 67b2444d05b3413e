// SPDX-License-Identifier: MIT
/* Page contents of the synthetic guest; see synthetic_pages.h. */
#include "tools/synthetic_pages.h"

#include <stdbool.h>
#include <string.h>

#define LANES 8 /* independent generators: fills a page in about 0.2 us, one chain takes 1 us */

uint64_t synthetic_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static void fill_words(uint64_t *page, uint64_t base, uint64_t keep, uint64_t fixed)
{
	uint64_t lane[LANES];

	for (int i = 0; i < LANES; i++)
		lane[i] = synthetic_mix(base + (uint64_t)i) | 1;
	for (unsigned int at = 0; at < SYNTHETIC_WORDS; at += LANES)
		for (int i = 0; i < LANES; i++) {
			uint64_t x = lane[i];

			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			lane[i] = x;
			page[at + (unsigned int)i] = (x & keep) | fixed;
		}
}

void synthetic_page_write(uint64_t *page, const struct synthetic_kinds *k, uint64_t number,
			  uint32_t version)
{
	uint64_t base = synthetic_mix(synthetic_mix(k->seed ^ (number << 20)) + version);
	uint32_t kind = (uint32_t)((base >> 40) % 100);

	if (!version || kind < k->zero_percent) {
		memset(page, 0, SYNTHETIC_PAGE);
		return;
	}
	if (kind < k->zero_percent + k->compressible_percent)
		fill_words(page, base, 0xff, synthetic_mix(base) & ~0xffull);
	else
		fill_words(page, base, ~0ull, 0);
	page[0] = number;
	page[1] = version;
}

int synthetic_page_check(const uint64_t *page, const struct synthetic_kinds *k, uint64_t number,
			 uint32_t version)
{
	uint64_t expected[SYNTHETIC_WORDS];

	synthetic_page_write(expected, k, number, version);
	if (!memcmp(page, expected, SYNTHETIC_PAGE))
		return -1;
	for (int i = 0;; i++)
		if (((const uint8_t *)page)[i] != ((const uint8_t *)expected)[i])
			return i;
}

uint32_t synthetic_page_claims(const uint64_t *page, uint64_t number)
{
	return page[0] == number && page[1] <= UINT32_MAX ? (uint32_t)page[1] : 0;
}
