// SPDX-License-Identifier: MIT
/* The last sent versions of hot pages; see delta_cache.h. */
#include "dataplane/codec/delta_cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/cleanup.h"

/* Slots that a put looks at for one that may go. */
#define HAND_STEPS 8
/* A shard holds a few chunks at least: the pages of one come together. */
#define SHARD_SLOTS 4096u
#define SHARDS_MAX  64u
#define NONE	    UINT32_MAX

struct slot {
	uint64_t page; /* number over all regions: CHUNK_PAGES a chunk */
	uint32_t next; /* in its chain, or in the list of free slots */
	uint32_t used; /* round; 0: the slot is free */
};

struct shard {
	pthread_mutex_t lock;
	struct slot *slots;
	uint32_t *buckets; /* a power of two of them */
	uint8_t *pages;	   /* slot i's content at i * PAGE_BYTES */
	uint32_t count, mask;
	uint32_t fresh; /* slots from here on were never used */
	uint32_t free;	/* list of slots that were given up */
	uint32_t hand;
};

struct delta_cache {
	struct shard shards[SHARDS_MAX];
	uint32_t nshards;
	uint64_t *first_chunk; /* one a region: its first chunk's number over all */
	/* Entries of each chunk; atomic. Only the chunk's thread of this round adds to it. */
	uint16_t *known;
	uint8_t *memory;
	size_t memory_size;
};

/* splitmix64's finaliser: neighbours must not share a chain or a shard. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t page_number(const struct delta_cache *c, const struct region *r, uint64_t page)
{
	return c->first_chunk[r->index] * CHUNK_PAGES + page;
}

static uint16_t *known_of(struct delta_cache *c, const struct region *r, uint64_t page)
{
	return &c->known[c->first_chunk[r->index] + page / CHUNK_PAGES];
}

static struct shard *shard_of(struct delta_cache *c, const struct region *r, uint64_t page)
{
	return &c->shards[mix(c->first_chunk[r->index] + page / CHUNK_PAGES + 1) % c->nshards];
}

static uint32_t power_of_two_from(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p *= 2;
	return p;
}

/* Bytes of a shard of n slots. */
static size_t shard_bytes(uint32_t n)
{
	return (size_t)n * (PAGE_BYTES + sizeof(struct slot)) +
	       (size_t)power_of_two_from(n) * sizeof(uint32_t);
}

static void shard_init(struct shard *s, uint8_t *memory, uint32_t slots)
{
	uint32_t buckets = power_of_two_from(slots);

	pthread_mutex_init(&s->lock, NULL);
	s->count = slots;
	s->mask = buckets - 1;
	s->free = NONE;
	s->pages = memory;
	s->slots = (struct slot *)(memory + (size_t)slots * PAGE_BYTES);
	s->buckets = (uint32_t *)(s->slots + slots);
	memset(s->buckets, 0xff, buckets * sizeof(*s->buckets));
}

static int number_chunks(struct delta_cache *c, const struct region *regions, uint32_t nregions)
{
	uint64_t chunks = 0;

	c->first_chunk = calloc(nregions + 1ul, sizeof(*c->first_chunk));
	if (!c->first_chunk)
		return -ENOMEM;
	for (uint32_t i = 0; i < nregions; i++) {
		c->first_chunk[i] = chunks;
		chunks += region_chunks(&regions[i]);
	}
	c->known = calloc(chunks + 1, sizeof(*c->known));
	return c->known ? 0 : -ENOMEM;
}

int delta_cache_new(struct delta_cache **out, uint64_t bytes, const struct region *regions,
		    uint32_t nregions)
{
	/* two words of buckets a slot at most */
	uint64_t slots = bytes / (PAGE_BYTES + sizeof(struct slot) + 2 * sizeof(uint32_t));
	struct delta_cache *c = calloc(1, sizeof(*c));
	uint64_t each;

	if (!c)
		return -ENOMEM;
	c->nshards = slots / SHARD_SLOTS < 1		? 1
		     : slots / SHARD_SLOTS > SHARDS_MAX ? SHARDS_MAX
							: (uint32_t)(slots / SHARD_SLOTS);
	each = slots / c->nshards < UINT32_MAX / 2 ? slots / c->nshards : UINT32_MAX / 2;
	/* shards begin on pages */
	c->memory_size = c->nshards * ((shard_bytes((uint32_t)each) + PAGE_BYTES - 1) &
				       ~(size_t)(PAGE_BYTES - 1));
	c->memory = mmap(NULL, c->memory_size + PAGE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->memory == MAP_FAILED || number_chunks(c, regions, nregions)) {
		delta_cache_free(c);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < c->nshards; i++)
		shard_init(&c->shards[i], c->memory + i * (c->memory_size / c->nshards),
			   (uint32_t)each);
	*out = c;
	return 0;
}

void delta_cache_free(struct delta_cache *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < c->nshards; i++)
		if (c->shards[i].buckets)
			pthread_mutex_destroy(&c->shards[i].lock);
	if (c->memory != MAP_FAILED)
		munmap(c->memory, c->memory_size + PAGE_BYTES);
	free(c->first_chunk);
	free(c->known);
	free(c);
}

/* Where the chain refers to the page's slot, or its end. */
static uint32_t *link_of(struct shard *s, uint64_t page)
{
	uint32_t *at = &s->buckets[mix(page) & s->mask];

	while (*at != NONE && s->slots[*at].page != page)
		at = &s->slots[*at].next;
	return at;
}

uint32_t delta_cache_get(struct delta_cache *c, const struct region *r, uint64_t first,
			 uint32_t count, uint8_t *out)
{
	struct shard *s = shard_of(c, r, first);
	uint32_t found = 0;

	if (!__atomic_load_n(known_of(c, r, first), __ATOMIC_RELAXED))
		return 0;
	SCOPED_LOCK(&s->lock);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t at = *link_of(s, page_number(c, r, first + i));

		if (at == NONE)
			continue;
		memcpy(out + (size_t)i * PAGE_BYTES, s->pages + (size_t)at * PAGE_BYTES,
		       PAGE_BYTES);
		found |= 1u << i;
	}
	return found;
}

/* Takes the slot that *at refers to out of its chain; the caller puts it to other use. */
static void unlink_slot(struct delta_cache *c, struct shard *s, uint32_t *at)
{
	struct slot *slot = &s->slots[*at];

	*at = slot->next;
	slot->used = 0;
	__atomic_fetch_sub(&c->known[slot->page / CHUNK_PAGES], 1, __ATOMIC_RELAXED);
}

/* A slot that nothing refers to, or NONE. */
static uint32_t take_slot(struct delta_cache *c, struct shard *s, uint32_t round)
{
	uint32_t at = s->free;

	if (at != NONE) {
		s->free = s->slots[at].next;
		return at;
	}
	if (s->fresh < s->count)
		return s->fresh++;
	for (int i = 0; i < HAND_STEPS && s->count; i++) {
		at = s->hand;
		s->hand = at + 1 < s->count ? at + 1 : 0;
		if (s->slots[at].used + 1 < round) {
			unlink_slot(c, s, link_of(s, s->slots[at].page));
			return at;
		}
	}
	return NONE;
}

void delta_cache_put(struct delta_cache *c, const struct region *r, uint64_t first, uint32_t count,
		     const uint8_t *pages, uint32_t round)
{
	struct shard *s = shard_of(c, r, first);
	SCOPED_LOCK(&s->lock);

	for (uint32_t i = 0; i < count; i++) {
		uint64_t page = page_number(c, r, first + i);
		uint32_t at = *link_of(s, page);

		if (at == NONE) {
			uint32_t *bucket = &s->buckets[mix(page) & s->mask];

			at = take_slot(c, s, round);
			if (at == NONE)
				continue;
			s->slots[at].page = page;
			s->slots[at].next = *bucket;
			*bucket = at;
			__atomic_fetch_add(&c->known[page / CHUNK_PAGES], 1, __ATOMIC_RELAXED);
		}
		s->slots[at].used = round;
		memcpy(s->pages + (size_t)at * PAGE_BYTES, pages + (size_t)i * PAGE_BYTES,
		       PAGE_BYTES);
	}
}

void delta_cache_forget(struct delta_cache *c, const struct region *r, uint64_t first,
			uint32_t count)
{
	struct shard *s = shard_of(c, r, first);

	if (!__atomic_load_n(known_of(c, r, first), __ATOMIC_RELAXED))
		return;
	SCOPED_LOCK(&s->lock);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t *link = link_of(s, page_number(c, r, first + i)), at = *link;

		if (at == NONE)
			continue;
		unlink_slot(c, s, link);
		s->slots[at].next = s->free;
		s->free = at;
	}
}

uint64_t delta_cache_pages(struct delta_cache *c)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < c->nshards; i++) {
		struct shard *s = &c->shards[i];
		SCOPED_LOCK(&s->lock);

		for (uint32_t k = 0; k < s->fresh; k++)
			pages += s->slots[k].used != 0;
	}
	return pages;
}
