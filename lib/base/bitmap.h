/* SPDX-License-Identifier: MIT */
/*
 * Bitmap of 4 KiB pages with iteration over runs of set bits.
 * Plain operations are for one thread; *_atomic ones may run beside each other.
 */
#ifndef TRANSHIP_BASE_BITMAP_H
#define TRANSHIP_BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmap {
	uint64_t *words;
	uint64_t bits;
};

/* All bits clear. -ENOMEM. Memory is mapped lazily: an untouched bitmap costs nothing. */
int bitmap_init(struct bitmap *b, uint64_t bits);
void bitmap_release(struct bitmap *b);

bool bitmap_test(const struct bitmap *b, uint64_t bit);
void bitmap_set_range(struct bitmap *b, uint64_t first, uint64_t count);
void bitmap_clear_range(struct bitmap *b, uint64_t first, uint64_t count);
/* As bitmap_set_range, safe beside other *_atomic calls; returns how many bits were newly set. */
uint64_t bitmap_set_range_atomic(struct bitmap *b, uint64_t first, uint64_t count);
/* dst |= src; both of the same size. */
void bitmap_or(struct bitmap *dst, const struct bitmap *src);
void bitmap_clear_all(struct bitmap *b);
uint64_t bitmap_count(const struct bitmap *b);
uint64_t bitmap_count_range(const struct bitmap *b, uint64_t first, uint64_t count);

/*
 * The next run of set bits at or after from, cut at limit. False if there is none.
 * for (at = 0; bitmap_next_run(&b, at, limit, &first, &count); at = first + count) ...
 */
bool bitmap_next_run(const struct bitmap *b, uint64_t from, uint64_t limit, uint64_t *first,
		     uint64_t *count);

#endif
