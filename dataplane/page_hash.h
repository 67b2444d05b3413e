/* SPDX-License-Identifier: MIT */
/*
 * Hashes of pages under a key of the session, by which both sides recognise equal pages.
 *
 * Theory of operation
 *   XXH3-64 with a secret of 192 bytes, which HMAC-SHA256 derives from the session's secret and
 *   number. A page is only ever compared with the same page of the same region, so that an equal
 *   hash of unequal pages costs one chance in 2^64 a comparison: moving 24 TiB once, 2^-31, less
 *   than what memory itself does to so many bits.
 *
 *   That holds for contents that know nothing of the hash. XXH3 is no cryptographic function: with
 *   a known secret, pages of equal hash can be made at will. So the secret is random, new in every
 *   session, and not told to the guest, who sees nothing of what depends on it; and what a guest
 *   could gain is to damage a page of its own.
 */
#ifndef TRANSHIP_DATAPLANE_PAGE_HASH_H
#define TRANSHIP_DATAPLANE_PAGE_HASH_H

#include <stdint.h>

#include "dataplane/ipc.h"

#define PAGE_HASH_SECRET 192 /* bytes; XXH3 wants 136 at least */

/* What no page has: not known, or nothing but zeros. */
#define PAGE_HASH_NONE 0

struct page_hash {
	_Alignas(64) uint8_t secret[PAGE_HASH_SECRET];
	uint64_t (*function)(const void *page, const uint8_t secret[PAGE_HASH_SECRET]);
};

/* Both sides derive the same. 0, or -EIO if there is no HMAC. */
int page_hash_init(struct page_hash *h, const uint8_t secret[IPC_SECRET_SIZE],
		   const uint8_t id[IPC_ID_SIZE]);

/*
 * The hash of PAGE_BYTES at page; never PAGE_HASH_NONE. The page must be a copy that nobody else
 * can write: what a changing page hashes to says nothing about what is sent of it.
 */
uint64_t page_hash(const struct page_hash *h, const void *page);

#if defined(__x86_64__)
/* page_hash_avx2.c; on processors that have AVX2. */
uint64_t page_hash_avx2(const void *page, const uint8_t secret[PAGE_HASH_SECRET]);
#endif
/* On every processor; the same value. */
uint64_t page_hash_portable(const void *page, const uint8_t secret[PAGE_HASH_SECRET]);

#endif
