// SPDX-License-Identifier: MIT
/* Word-wise bitmap operations; see bitmap.h. */
#include "lib/base/bitmap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static size_t bytes_of(uint64_t bits)
{
	return (size_t)((bits + 63) / 64 * 8);
}

int bitmap_init(struct bitmap *b, uint64_t bits)
{
	void *p = mmap(NULL, bits ? bytes_of(bits) : 8, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	b->words = p;
	b->bits = bits;
	return 0;
}

void bitmap_release(struct bitmap *b)
{
	if (b->words)
		munmap(b->words, b->bits ? bytes_of(b->bits) : 8);
	b->words = NULL;
	b->bits = 0;
}

bool bitmap_test(const struct bitmap *b, uint64_t bit)
{
	return b->words[bit / 64] >> (bit % 64) & 1;
}

/* The bits of word w that lie in [first, end). */
static uint64_t mask_in_word(uint64_t w, uint64_t first, uint64_t end)
{
	uint64_t mask = ~0ull;

	if (first > w * 64)
		mask &= ~0ull << (first - w * 64);
	if (end < w * 64 + 64)
		mask &= ~0ull >> (w * 64 + 64 - end);
	return mask;
}

void bitmap_set_range(struct bitmap *b, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;

	for (uint64_t w = first / 64; w * 64 < end; w++)
		b->words[w] |= mask_in_word(w, first, end);
}

void bitmap_clear_range(struct bitmap *b, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;

	for (uint64_t w = first / 64; w * 64 < end; w++)
		b->words[w] &= ~mask_in_word(w, first, end);
}

uint64_t bitmap_set_range_atomic(struct bitmap *b, uint64_t first, uint64_t count)
{
	uint64_t end = first + count, added = 0;

	for (uint64_t w = first / 64; w * 64 < end; w++) {
		uint64_t mask = mask_in_word(w, first, end);
		uint64_t old = __atomic_fetch_or(&b->words[w], mask, __ATOMIC_RELAXED);

		added += (uint64_t)__builtin_popcountll(mask & ~old);
	}
	return added;
}

void bitmap_or(struct bitmap *dst, const struct bitmap *src)
{
	for (uint64_t w = 0; w < bytes_of(dst->bits) / 8; w++)
		if (src->words[w])
			dst->words[w] |= src->words[w];
}

void bitmap_clear_all(struct bitmap *b)
{
	/* Reading an untouched page does not allocate it, writing zeros would. */
	for (uint64_t w = 0; w < bytes_of(b->bits) / 8; w++)
		if (b->words[w])
			b->words[w] = 0;
}

uint64_t bitmap_count_range(const struct bitmap *b, uint64_t first, uint64_t count)
{
	uint64_t end = first + count, total = 0;

	for (uint64_t w = first / 64; w * 64 < end; w++)
		total += (uint64_t)__builtin_popcountll(b->words[w] & mask_in_word(w, first, end));
	return total;
}

uint64_t bitmap_count(const struct bitmap *b)
{
	return bitmap_count_range(b, 0, b->bits);
}

/* The first bit at or after from, below limit, whose value is value; limit if there is none. */
static uint64_t find(const struct bitmap *b, uint64_t from, uint64_t limit, bool value)
{
	uint64_t flip = value ? 0 : ~0ull;

	if (from >= limit)
		return limit;
	for (uint64_t w = from / 64; w * 64 < limit; w++) {
		uint64_t bits = (b->words[w] ^ flip) & mask_in_word(w, from, limit);

		if (bits)
			return w * 64 + (uint64_t)__builtin_ctzll(bits);
	}
	return limit;
}

bool bitmap_next_run(const struct bitmap *b, uint64_t from, uint64_t limit, uint64_t *first,
		     uint64_t *count)
{
	uint64_t start = find(b, from, limit, true);

	if (start >= limit)
		return false;
	*first = start;
	*count = find(b, start, limit, false) - start;
	return true;
}
