/* SPDX-License-Identifier: MIT */
/* Recognition of pages that hold only zeros. */
#ifndef TRANSHIP_DATAPLANE_ZERO_H
#define TRANSHIP_DATAPLANE_ZERO_H

#include <stdbool.h>

/*
 * True if the PAGE_BYTES at page (64-byte aligned) are all zero. A page that is not is mostly
 * recognised from its first cache line. The memory may change meanwhile: the answer is then true
 * of some mixture of moments, which is enough for a page that is tracked.
 *
 * Which of the variants below looks at the rest is chosen by the first call and kept.
 */
bool zero_page(const void *page);

/* One way of looking at a whole page, for tests and measurements. */
struct zero_variant {
	const char *name;
	bool (*usable)(void); /* on this processor; the others must not be called */
	bool (*page)(const void *page);
};

/* The first that is usable is the one that is chosen; the last is usable everywhere. */
extern const struct zero_variant zero_variants[];
extern const unsigned int zero_variants_count;

/* The variant that zero_page uses. */
const struct zero_variant *zero_variant_chosen(void);

#endif
