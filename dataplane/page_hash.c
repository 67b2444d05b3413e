// SPDX-License-Identifier: MIT
/* Hashes of pages under a session's key; see page_hash.h. */
#include "dataplane/page_hash.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <xxhash.h>

#include "dataplane/region.h"

#define LABEL  "tranship v1 pages"
#define DIGEST 32u

static_assert(PAGE_HASH_SECRET % DIGEST == 0, "whole digests");

uint64_t page_hash_portable(const void *page, const uint8_t secret[PAGE_HASH_SECRET])
{
	return XXH3_64bits_withSecret(page, PAGE_BYTES, secret, PAGE_HASH_SECRET);
}

int page_hash_init(struct page_hash *h, const uint8_t secret[IPC_SECRET_SIZE],
		   const uint8_t id[IPC_ID_SIZE])
{
	/* label, number of the part, id */
	uint8_t message[sizeof(LABEL) + IPC_ID_SIZE] = LABEL;

	memcpy(message + sizeof(LABEL), id, IPC_ID_SIZE);
	for (uint32_t i = 0; i < PAGE_HASH_SECRET / DIGEST; i++) {
		message[sizeof(LABEL) - 1] = (uint8_t)(i + 1);
		if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, secret, IPC_SECRET_SIZE, message,
				     sizeof(message), h->secret + i * DIGEST) < 0)
			return -EIO;
	}
	h->function = page_hash_portable;
#if defined(__x86_64__)
	/* The library is built for the oldest processor: 417 ns a page, 117 with AVX2. */
	if (__builtin_cpu_supports("avx2"))
		h->function = page_hash_avx2;
#endif
	return 0;
}

uint64_t page_hash(const struct page_hash *h, const void *page)
{
	uint64_t hash = h->function(page, h->secret);

	return hash == PAGE_HASH_NONE ? 1 : hash;
}
