// SPDX-License-Identifier: MIT
/* Sets of pages that several threads, or processes one after the other, change; see page_set.h. */
#include "dataplane/postcopy/page_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "lib/base/kernel_abi.h"
#include "lib/base/log.h"

uint64_t page_set_bytes(const struct region *regions, uint32_t nregions)
{
	uint64_t chunks = 0, page = PAGE_BYTES, words;

	for (uint32_t i = 0; i < nregions; i++)
		chunks += region_chunks(&regions[i]);
	words = chunks * PAGE_SET_WORDS + (chunks + 63) / 64;
	return (words * sizeof(uint64_t) + page - 1) & ~(page - 1);
}

int page_set_init(struct page_set *s, const struct region *regions, uint32_t nregions, int fd,
		  uint64_t extra, void **tail)
{
	uint64_t bytes = page_set_bytes(regions, nregions), chunks = 0;
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
	struct stat st;
	void *p;

	*s = (struct page_set){ .regions = regions, .nregions = nregions };
	if (fd >= 0 && (fstat(fd, &st) || (uint64_t)st.st_size < bytes + extra))
		return -EINVAL;
	s->first_chunk = calloc(nregions + 1ul, sizeof(*s->first_chunk));
	if (!s->first_chunk)
		return -ENOMEM;
	for (uint32_t i = 0; i < nregions; i++) {
		s->first_chunk[i] = chunks;
		chunks += region_chunks(&regions[i]);
	}
	s->first_chunk[nregions] = chunks;
	p = mmap(NULL, bytes + extra, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (p == MAP_FAILED) {
		page_set_release(s);
		return -ENOMEM;
	}
	s->words = p;
	s->summary = s->words + chunks * PAGE_SET_WORDS;
	s->mapped = bytes + extra;
	if (tail)
		*tail = (uint8_t *)p + bytes;
	return 0;
}

void page_set_release(struct page_set *s)
{
	if (s->words)
		munmap(s->words, s->mapped);
	free(s->first_chunk);
	*s = (struct page_set){ 0 };
}

void page_set_populate(const struct page_set *s)
{
	if (madvise(s->words, s->mapped, MADV_POPULATE_WRITE))
		log_debug("a set of pages is touched as it is used: %s", strerror(errno));
}

uint32_t page_set_region(const struct page_set *s, uint64_t number, uint64_t *chunk)
{
	uint32_t lo = 0, hi = s->nregions;

	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;

		if (s->first_chunk[mid] <= number)
			lo = mid;
		else
			hi = mid;
	}
	*chunk = number - s->first_chunk[lo];
	return lo;
}

void page_mask_fill(uint64_t mask[PAGE_SET_WORDS], uint32_t first, uint32_t count)
{
	memset(mask, 0, PAGE_SET_WORDS * sizeof(*mask));
	for (uint32_t i = first; i < first + count;) {
		uint32_t bit = i % 64, n = 64 - bit;

		if (n > first + count - i)
			n = first + count - i;
		mask[i / 64] |= (n == 64 ? ~0ull : (1ull << n) - 1) << bit;
		i += n;
	}
}

uint32_t page_mask_count(const uint64_t mask[PAGE_SET_WORDS])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
		n += (uint32_t)__builtin_popcountll(mask[i]);
	return n;
}

/* The first bit from `from` on that is equal to set; CHUNK_PAGES: none. */
static uint32_t find(const uint64_t *mask, uint32_t from, bool set)
{
	while (from < CHUNK_PAGES) {
		uint64_t word = (set ? mask[from / 64] : ~mask[from / 64]) >> (from % 64);

		if (word)
			return from + (uint32_t)__builtin_ctzll(word);
		from = (from / 64 + 1) * 64;
	}
	return CHUNK_PAGES;
}

uint32_t page_mask_run(const uint64_t mask[PAGE_SET_WORDS], uint32_t from, uint32_t *count)
{
	uint32_t first = find(mask, from, true);

	*count = first < CHUNK_PAGES ? find(mask, first, false) - first : 0;
	return first;
}

void page_set_add(uint64_t *words, const uint64_t *mask, uint64_t *out)
{
	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++) {
		uint64_t m = mask[i];

		out[i] = m ? m & ~__atomic_fetch_or(&words[i], m, __ATOMIC_SEQ_CST) : 0;
	}
}

uint32_t page_set_remove(uint64_t *words, const uint64_t *mask)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++) {
		uint64_t was =
			mask[i] ? __atomic_fetch_and(&words[i], ~mask[i], __ATOMIC_SEQ_CST) : 0;

		n += (uint32_t)__builtin_popcountll(was & mask[i]);
	}
	return n;
}

void page_set_keep(const uint64_t *words, uint64_t *mask)
{
	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
		if (mask[i])
			mask[i] &= __atomic_load_n(&words[i], __ATOMIC_SEQ_CST);
}

void page_set_note(const struct page_set *s, uint32_t region, uint64_t chunk)
{
	uint64_t number = s->first_chunk[region] + chunk, bit = 1ull << (number % 64);
	uint64_t *word = &s->summary[number / 64];

	if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
		__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
}

uint32_t page_set_put(const struct page_set *s, uint32_t region, uint64_t chunk,
		      const uint64_t mask[PAGE_SET_WORDS])
{
	uint64_t new[PAGE_SET_WORDS];

	page_set_add(page_set_chunk(s, region, chunk), mask, new);
	page_set_note(s, region, chunk);
	return page_mask_count(new);
}

uint64_t page_set_next(const struct page_set *s, uint64_t number)
{
	uint64_t chunks = page_set_chunks(s);

	while (number < chunks) {
		uint64_t word = __atomic_load_n(&s->summary[number / 64], __ATOMIC_RELAXED) >>
				(number % 64);

		if (word) {
			number += (uint64_t)__builtin_ctzll(word);
			break;
		}
		number = (number / 64 + 1) * 64;
	}
	return number < chunks ? number : chunks;
}

uint64_t page_set_count(const struct page_set *s)
{
	uint64_t chunks = page_set_chunks(s), pages = 0;

	for (uint64_t n = page_set_next(s, 0); n < chunks; n = page_set_next(s, n + 1)) {
		uint64_t all[PAGE_SET_WORDS];

		memset(all, 0xff, sizeof(all));
		page_set_keep(s->words + n * PAGE_SET_WORDS, all);
		pages += page_mask_count(all);
	}
	return pages;
}
