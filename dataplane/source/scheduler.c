// SPDX-License-Identifier: MIT
/* The source's bitmaps and the order of a round; see scheduler.h. */
#include "dataplane/source/scheduler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"

/* Beyond every order; whoever asks still counts it up. */
#define CURSOR_CUT (UINT64_MAX / 2)

static struct bitmap *new_bitmaps(const struct region *regions, uint32_t nregions)
{
	struct bitmap *b = calloc(nregions ? nregions : 1, sizeof(*b));

	for (uint32_t i = 0; b && i < nregions; i++) {
		if (!bitmap_init(&b[i], region_pages(&regions[i])))
			continue;
		while (i > 0)
			bitmap_release(&b[--i]);
		free(b);
		return NULL;
	}
	return b;
}

static void free_bitmaps(struct bitmap *b, uint32_t nregions)
{
	for (uint32_t i = 0; b && i < nregions; i++)
		bitmap_release(&b[i]);
	free(b);
}

int scheduler_init(struct scheduler *s, const struct region *regions, uint32_t nregions,
		   bool track_dma)
{
	uint64_t chunks = 0;

	*s = (struct scheduler){ .regions = regions, .nregions = nregions, .track_dma = track_dma };
	pthread_mutex_init(&s->lock, NULL);
	if (scheduler_walk_new(s))
		goto no_memory;
	s->first_chunk = calloc(nregions + 1ul, sizeof(*s->first_chunk));
	s->pending = new_bitmaps(regions, nregions);
	s->scanned = new_bitmaps(regions, nregions);
	s->seen = new_bitmaps(regions, nregions);
	s->held = new_bitmaps(regions, nregions);
	s->held_counts = calloc(nregions ? nregions : 1, sizeof(*s->held_counts));
	if (track_dma)
		s->suspect = new_bitmaps(regions, nregions);
	if (!s->first_chunk || !s->pending || !s->scanned || !s->seen || !s->held ||
	    !s->held_counts || (track_dma && !s->suspect))
		goto no_memory;
	for (uint32_t i = 0; i < nregions; i++) {
		s->first_chunk[i] = chunks;
		chunks += region_chunks(&regions[i]);
	}
	s->first_chunk[nregions] = chunks;
	/* Chunks are numbered in 32 bits: 8 EiB of guest. */
	if (chunks > UINT32_MAX)
		goto no_memory;
	s->order = malloc((chunks + 1) * sizeof(*s->order));
	s->postponed = malloc((chunks + 1) * sizeof(*s->postponed));
	s->heat = calloc(chunks + 1, sizeof(*s->heat));
	if (!s->order || !s->postponed || !s->heat || bitmap_init(&s->dirty_chunks, chunks))
		goto no_memory;
	return 0;

no_memory:
	scheduler_release(s);
	return -ENOMEM;
}

void scheduler_release(struct scheduler *s)
{
	free_bitmaps(s->pending, s->nregions);
	free_bitmaps(s->scanned, s->nregions);
	free_bitmaps(s->seen, s->nregions);
	free_bitmaps(s->held, s->nregions);
	free_bitmaps(s->suspect, s->nregions);
	bitmap_release(&s->dirty_chunks);
	free(s->held_counts);
	free(s->first_chunk);
	free(s->order);
	free(s->postponed);
	free(s->heat);
	free(s->holes);
	scheduler_walk_free(s);
	pthread_mutex_destroy(&s->lock);
	*s = (struct scheduler){ 0 };
}

struct bitmap *scheduler_scanned(struct scheduler *s)
{
	return s->scanned;
}

uint64_t scheduler_pending(const struct scheduler *s)
{
	return __atomic_load_n(&s->pending_pages, __ATOMIC_RELAXED);
}

/* The words of a bitmap that belong to chunk number chunk of its region. */
static uint64_t words_of_chunk(const struct bitmap *b, uint64_t chunk)
{
	uint64_t words = (b->bits + 63) / 64, at = chunk * SCHEDULER_CHUNK_WORDS;

	return words - at < SCHEDULER_CHUNK_WORDS ? words - at : SCHEDULER_CHUNK_WORDS;
}

/* The first scan's part: what the file holds is pending. */
static int first_part(struct scheduler *s, const struct scheduler_part *part, void *barrier)
{
	const struct region *r = &s->regions[part->region];
	struct bitmap *p = &s->pending[part->region];
	uint64_t *words = p->words + part->first_word, pages = 0;
	uint64_t first = part->first_word * 64, limit = first + part->words * 64;
	int err;

	memset(words, 0, part->words * sizeof(*words));
	err = region_extents_of(r, first, limit < p->bits ? limit : p->bits, p);
	if (err)
		return err;
	for (uint64_t w = 0; w < part->words; w++) {
		if (!words[w])
			continue;
		pages += (uint64_t)__builtin_popcountll(words[w]);
		bitmap_set_range_atomic(&s->dirty_chunks,
					s->first_chunk[part->region] +
						(part->first_word + w) / SCHEDULER_CHUNK_WORDS,
					1);
	}
	__atomic_fetch_add(&s->pending_pages, pages, __ATOMIC_RELAXED);
	if (s->track_dma) {
		uint64_t *suspect = s->suspect[part->region].words + part->first_word;

		memset(suspect, 0, part->words * sizeof(*suspect));
		if (!*(const bool *)barrier)
			memcpy(suspect, words, part->words * sizeof(*suspect));
	}
	return 0;
}

int scheduler_first(struct scheduler *s, bool barrier)
{
	s->pending_pages = 0;
	s->holes_owed = true;
	bitmap_clear_all(&s->dirty_chunks);
	for (uint32_t i = 0; i < s->nregions; i++) {
		const struct region *r = &s->regions[i];
		uint64_t blocks = scheduler_blocks(r);
		int err = scheduler_walk(s, i, first_part, &barrier);

		if (err)
			return err;
		scheduler_held_begin(s, i, blocks, scheduler_blocks(r));
	}
	return 0;
}

/* What merging finds to be new, of one part. */
struct merged {
	uint64_t pending, seen, held;
};

/* Words [w, end) of a chunk of region i. Returns how many pages the scan reported in it. */
static uint64_t merge_chunk(struct scheduler *s, uint32_t i, uint64_t w, uint64_t end, bool barrier,
			    struct merged *new)
{
	uint64_t *pending = s->pending[i].words, *scanned = s->scanned[i].words;
	uint64_t *seen = s->seen[i].words, *suspect = s->suspect ? s->suspect[i].words : NULL;
	uint64_t *held = s->held[i].words, reported = 0, any = 0;
	uint64_t chunk = s->first_chunk[i] + w / SCHEDULER_CHUNK_WORDS;

	for (; w < end; w++) {
		uint64_t report = scanned[w], add = report;

		if (suspect && barrier && suspect[w]) {
			add |= suspect[w];
			suspect[w] = 0;
		}
		if (!add)
			continue;
		if (report) {
			reported += (uint64_t)__builtin_popcountll(report);
			new->seen += (uint64_t)__builtin_popcountll(report & ~seen[w]);
			seen[w] |= report;
			new->held += (uint64_t)__builtin_popcountll(report & ~held[w]);
			held[w] |= report;
			scanned[w] = 0;
			if (suspect && !barrier)
				suspect[w] |= report;
		}
		new->pending += (uint64_t)__builtin_popcountll(add & ~pending[w]);
		pending[w] |= add;
		any |= add;
	}
	if (any)
		bitmap_set_range_atomic(&s->dirty_chunks, chunk, 1);
	return reported;
}

/* Takes over a part of what a scan reported, and of what is suspect if this is a barrier. */
static int merge_part(struct scheduler *s, const struct scheduler_part *part, void *arg)
{
	bool barrier = *(const bool *)arg;
	uint64_t limit = part->first_word + part->words, end;
	uint8_t *heat = s->heat + s->first_chunk[part->region];
	struct merged new = { 0 };

	for (uint64_t w = part->first_word; w < limit; w = end) {
		end = limit - w < SCHEDULER_CHUNK_WORDS ? limit : w + SCHEDULER_CHUNK_WORDS;
		heat[w / SCHEDULER_CHUNK_WORDS] =
			scheduler_heat(merge_chunk(s, part->region, w, end, barrier, &new));
	}
	__atomic_fetch_add(&s->pending_pages, new.pending, __ATOMIC_RELAXED);
	__atomic_fetch_add(&s->seen_pages, new.seen, __ATOMIC_RELAXED);
	__atomic_fetch_add(&s->held_counts[part->region].pages, new.held, __ATOMIC_RELAXED);
	return 0;
}

void scheduler_merge(struct scheduler *s, bool barrier)
{
	scheduler_walk(s, ALL_REGIONS, merge_part, &barrier);
}

static int add_holes(struct scheduler *s, const struct region *r, uint64_t first_chunk,
		     uint64_t end)
{
	uint64_t offset = first_chunk << CHUNK_SHIFT, stop = end << CHUNK_SHIFT;

	if (s->holes_count == s->holes_room) {
		uint64_t room = s->holes_room ? 2 * s->holes_room : 64;
		void *p = realloc(s->holes, room * sizeof(*s->holes));

		if (!p)
			return -ENOMEM;
		s->holes = p;
		s->holes_room = room;
	}
	if (stop > r->size)
		stop = r->size;
	s->holes[s->holes_count++] = (struct scheduler_holes){ r, offset, stop - offset };
	return 0;
}

/* Runs of chunks without a pending page are never-populated ranges. */
static int find_holes(struct scheduler *s)
{
	for (uint32_t i = 0; i < s->nregions; i++) {
		uint64_t base = s->first_chunk[i], limit = s->first_chunk[i + 1];
		uint64_t at = base, first, count;
		int err = 0;

		while (bitmap_next_run(&s->dirty_chunks, at, limit, &first, &count)) {
			if (first > at)
				err = add_holes(s, &s->regions[i], at - base, first - base);
			if (err)
				return err;
			at = first + count;
		}
		if (at < limit)
			err = add_holes(s, &s->regions[i], at - base, limit - base);
		if (err)
			return err;
	}
	return 0;
}

int scheduler_begin_round(struct scheduler *s, bool coldest_first)
{
	s->holes_count = 0;
	s->holes_cursor = 0;
	s->cursor = 0;
	s->order_count = 0;
	s->postponed_count = 0;
	s->postponed_cursor = 0;
	s->cut = false;
	s->round_has_holes = s->holes_owed;
	if (s->holes_owed) {
		int err = find_holes(s);

		if (err)
			return err;
	}
	scheduler_make_order(s, coldest_first);
	bitmap_clear_all(&s->dirty_chunks);
	s->holes_owed = false;
	return 0;
}

/* The region that holds chunk number c: the last whose first chunk is not above it. */
static uint32_t region_of_chunk(const struct scheduler *s, uint64_t c)
{
	uint32_t lo = 0, hi = s->nregions - 1;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo + 1) / 2;

		if (s->first_chunk[mid] <= c)
			lo = mid;
		else
			hi = mid - 1;
	}
	return lo;
}

/* Of what was postponed, when all else has been given. */
static bool next_postponed(struct scheduler *s, uint32_t *number)
{
	SCOPED_LOCK(&s->lock);

	if (s->cut || s->postponed_cursor == s->postponed_count)
		return false;
	*number = s->postponed[s->postponed_cursor++];
	return true;
}

bool scheduler_next(struct scheduler *s, struct scheduler_chunk *c)
{
	uint64_t at = __atomic_fetch_add(&s->cursor, 1, __ATOMIC_RELAXED), chunk, words, taken = 0;
	struct bitmap *p;
	uint32_t i, number;

	c->again = at >= s->order_count;
	if (!c->again)
		number = s->order[at];
	else if (!next_postponed(s, &number))
		return false;
	i = region_of_chunk(s, number);
	chunk = number - s->first_chunk[i];
	p = &s->pending[i];
	words = words_of_chunk(p, chunk);
	c->region = &s->regions[i];
	c->first_page = chunk * CHUNK_PAGES;
	c->pages = p->bits - c->first_page < CHUNK_PAGES ? (uint32_t)(p->bits - c->first_page)
							 : CHUNK_PAGES;
	c->rest_is_hole = s->round_has_holes;
	memset(c->bits, 0, sizeof(c->bits));
	for (uint64_t k = 0; k < words; k++) {
		uint64_t *w = &p->words[chunk * SCHEDULER_CHUNK_WORDS + k];

		c->bits[k] = *w;
		*w = 0;
		taken += (uint64_t)__builtin_popcountll(c->bits[k]);
	}
	__atomic_fetch_sub(&s->pending_pages, taken, __ATOMIC_RELAXED);
	return true;
}

void scheduler_postpone(struct scheduler *s, const struct scheduler_chunk *c)
{
	uint64_t chunk = c->first_page / CHUNK_PAGES, pages = 0;
	uint64_t *words = s->pending[c->region->index].words + c->first_page / 64;
	uint64_t count = words_of_chunk(&s->pending[c->region->index], chunk);

	/* The chunk is this thread's alone until the next one gets it by way of the lock. */
	for (uint64_t k = 0; k < count; k++) {
		words[k] |= c->bits[k];
		pages += (uint64_t)__builtin_popcountll(c->bits[k]);
	}
	__atomic_fetch_add(&s->pending_pages, pages, __ATOMIC_RELAXED);
	SCOPED_LOCK(&s->lock);
	s->postponed[s->postponed_count++] = (uint32_t)(s->first_chunk[c->region->index] + chunk);
}

bool scheduler_cut(struct scheduler *s)
{
	SCOPED_LOCK(&s->lock);

	if (s->round_has_holes)
		return false;
	if (!s->cut)
		s->cut_at = __atomic_exchange_n(&s->cursor, CURSOR_CUT, __ATOMIC_RELAXED);
	s->cut = true;
	return true;
}

bool scheduler_end_round(struct scheduler *s)
{
	bool left =
		s->cut && (s->cut_at < s->order_count || s->postponed_cursor < s->postponed_count);

	if (!left)
		return false;
	for (uint64_t k = s->cut_at; k < s->order_count; k++)
		bitmap_set_range(&s->dirty_chunks, s->order[k], 1);
	for (uint64_t k = s->postponed_cursor; k < s->postponed_count; k++)
		bitmap_set_range(&s->dirty_chunks, s->postponed[k], 1);
	return true;
}

uint32_t scheduler_next_holes(struct scheduler *s, struct scheduler_holes *out, uint32_t max)
{
	uint64_t at = __atomic_load_n(&s->holes_cursor, __ATOMIC_RELAXED), n;

	if (at >= s->holes_count)
		return 0;
	at = __atomic_fetch_add(&s->holes_cursor, max, __ATOMIC_RELAXED);
	if (at >= s->holes_count)
		return 0;
	n = s->holes_count - at < max ? s->holes_count - at : max;
	memcpy(out, s->holes + at, n * sizeof(*out));
	return (uint32_t)n;
}
