/* SPDX-License-Identifier: MIT */
/* Recognition of pages that hold only zeros. */
#ifndef TRANSHIP_DATAPLANE_ZERO_H
#define TRANSHIP_DATAPLANE_ZERO_H

#include <stdbool.h>

/*
 * True if the PAGE_BYTES at page (64-byte aligned) are all zero. A page that is not is mostly
 * recognised from its first cache line. The memory may change meanwhile: the answer is then true
 * of some mixture of moments, which is enough for a page that is tracked.
 */
bool zero_page(const void *page);

/* The same without vector instructions of the processor at hand; for machines without and tests. */
bool zero_page_portable(const void *page);

#endif
