// SPDX-License-Identifier: MIT
/* What the destination is known to hold of RAM in huge pages; see known_pages.h. */
#include "dataplane/source/known_pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK_HASHES_BYTES (CHUNK_PAGES * sizeof(uint64_t))

/* A snapshot of which less than this part was equal has cost more than it saved. */
#define USEFUL_PART 16u
/* After n failures in a row the next 2^n - 1 reports go by reference, at most this many. */
#define PAUSE_MAX_SHIFT 7

/* Smaller pages are tracked one by one, larger ones are not tracked (1 GiB is refused). */
static bool covered(const struct region *r)
{
	return r->page_size == CHUNK_BYTES;
}

uint64_t known_pages_default_max(const struct region *regions, uint32_t nregions)
{
	uint64_t ram = 0;

	for (uint32_t i = 0; i < nregions; i++)
		ram += regions[i].size;
	return (16ull << 20) + ram / 4096;
}

static int init_regions(struct known_pages *k)
{
	k->chunks = calloc(k->nregions, sizeof(*k->chunks));
	if (!k->chunks)
		return -ENOMEM;
	for (uint32_t i = 0; i < k->nregions; i++) {
		if (!covered(&k->regions[i]))
			continue;
		k->chunks[i] = calloc(region_chunks(&k->regions[i]), sizeof(*k->chunks[i]));
		if (!k->chunks[i])
			return -ENOMEM;
	}
	return 0;
}

int known_pages_init(struct known_pages *k, const struct region *regions, uint32_t nregions,
		     uint64_t max_bytes)
{
	uint64_t chunks = 0, max = max_bytes / CHUNK_HASHES_BYTES;
	int err;

	*k = (struct known_pages){ .regions = regions, .nregions = nregions };
	for (uint32_t i = 0; i < nregions; i++)
		chunks += covered(&regions[i]) ? region_chunks(&regions[i]) : 0;
	k->all = max >= chunks;
	if (k->all)
		max = chunks;
	if (!max || max > UINT32_MAX)
		return max ? -ENOMEM : 0;
	err = init_regions(k);
	if (!err) {
		void *p = mmap(NULL, max * CHUNK_HASHES_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			err = -errno;
		else
			k->hashes = p;
	}
	k->max = (uint32_t)max;
	if (err)
		known_pages_release(k);
	return err;
}

void known_pages_release(struct known_pages *k)
{
	for (uint32_t i = 0; k->chunks && i < k->nregions; i++)
		free(k->chunks[i]);
	free(k->chunks);
	k->chunks = NULL;
	if (k->hashes)
		munmap(k->hashes, k->max * CHUNK_HASHES_BYTES);
	k->hashes = NULL;
}

static struct known_chunk *chunk_of(struct known_pages *k, const struct region *r, uint64_t page)
{
	return &k->chunks[r->index][page / CHUNK_PAGES];
}

static uint64_t *hashes_of(struct known_pages *k, const struct known_chunk *c)
{
	return k->hashes + (uint64_t)(c->memory - 1) * CHUNK_PAGES;
}

/* False if the bound is reached. */
static bool take_memory(struct known_pages *k, struct known_chunk *c)
{
	uint32_t n;

	if (c->memory)
		return true;
	if (__atomic_load_n(&k->used, __ATOMIC_RELAXED) >= k->max)
		return false;
	n = __atomic_fetch_add(&k->used, 1, __ATOMIC_RELAXED);
	if (n >= k->max) {
		__atomic_fetch_sub(&k->used, 1, __ATOMIC_RELAXED);
		return false;
	}
	c->memory = n + 1;
	return true;
}

static bool worth_a_snapshot(struct known_pages *k, struct known_chunk *c)
{
	bool first = !c->reported;

	c->reported = true;
	if (first && !k->all)
		return false;
	if (c->pause) {
		c->pause--;
		return false;
	}
	return take_memory(k, c);
}

bool known_pages_begin(struct known_pages *k, const struct region *r, uint64_t first_page)
{
	struct known_chunk *c;

	if (!known_pages_covers(k, r))
		return false;
	c = chunk_of(k, r, first_page);
	if (worth_a_snapshot(k, c))
		return true;
	if (c->filtered)
		memset(hashes_of(k, c), 0, CHUNK_HASHES_BYTES);
	c->filtered = false;
	return false;
}

bool known_pages_filter(struct known_pages *k, const struct page_hash *h, const struct region *r,
			uint64_t page, const void *snapshot)
{
	uint64_t *known = hashes_of(k, chunk_of(k, r, page)) + page % CHUNK_PAGES;
	uint64_t now = page_hash(h, snapshot);
	bool same = *known == now;

	*known = now;
	return same;
}

void known_pages_forget(struct known_pages *k, const struct region *r, uint64_t page)
{
	hashes_of(k, chunk_of(k, r, page))[page % CHUNK_PAGES] = PAGE_HASH_NONE;
}

void known_pages_end(struct known_pages *k, const struct region *r, uint64_t first_page,
		     uint32_t filtered, uint32_t equal)
{
	struct known_chunk *c = chunk_of(k, r, first_page);
	bool judged = c->filtered;

	c->filtered = true;
	if (!judged || !filtered)
		return;
	if (equal >= (filtered + USEFUL_PART - 1) / USEFUL_PART) {
		c->failures = 0;
		return;
	}
	if (c->failures < PAUSE_MAX_SHIFT)
		c->failures++;
	c->pause = (uint8_t)((1u << c->failures) - 1);
}

uint64_t known_pages_memory(const struct known_pages *k)
{
	return __atomic_load_n(&k->used, __ATOMIC_RELAXED) * CHUNK_HASHES_BYTES;
}
