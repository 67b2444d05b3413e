// SPDX-License-Identifier: MIT
/* XXH3 of a page, compiled for AVX2 from the library's header; see page_hash.h. */
#if defined(__x86_64__)
#pragma GCC target("avx2")

#include <immintrin.h>

#define XXH_INLINE_ALL
#define XXH_VECTOR XXH_AVX2
#include <xxhash.h>

#include "dataplane/page_hash.h"
#include "dataplane/region.h"

uint64_t page_hash_avx2(const void *page, const uint8_t secret[PAGE_HASH_SECRET])
{
	return XXH3_64bits_withSecret(page, PAGE_BYTES, secret, PAGE_HASH_SECRET);
}
#else
extern const int page_hash_avx2_is_for_x86; /* a file may not be empty */
#endif
