// SPDX-License-Identifier: MIT
/*
 * Walks over all of a guest's bitmaps; see scheduler.h.
 *
 * Some steps look at every word: reading the extents (7 ms a GiB of small pages), and taking over
 * what a scan found, which happens in the pause too. Of a large guest that is too much for one
 * thread. The bitmaps are cut into parts, handed out by an atomic cursor.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/source/scheduler.h"

/* 256 MiB of guest. */
#define PART_WORDS (128 * SCHEDULER_CHUNK_WORDS)
/* Guest memory that is worth a thread: 3 ms of reading extents, 10 us of merging. */
#define PARTS_PER_THREAD 2
#define THREADS_MAX	 64

struct scheduler_walk {
	struct workers *workers;
	struct scheduler *s;
	uint64_t *first_part; /* of each region; nregions + 1 */
	uint64_t part_words;

	/* The walk under way. */
	scheduler_walker *fn;
	void *arg;
	uint32_t region;
	uint64_t limit;
	_Atomic uint64_t cursor;
	atomic_int err;
};

static uint64_t words_of(const struct region *r)
{
	return (region_pages(r) + 63) / 64;
}

int scheduler_walk_new(struct scheduler *s)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	struct scheduler_walk *w = calloc(1, sizeof(*w));
	uint64_t parts = 0, threads;

	s->walk = w;
	if (!w)
		return -ENOMEM;
	w->s = s;
	w->part_words = PART_WORDS;
	for (uint32_t i = 0; i < s->nregions; i++)
		if (!region_extents_divisible(&s->regions[i]))
			w->part_words = UINT64_MAX / 2; /* one part each */
	w->first_part = calloc(s->nregions + 1ul, sizeof(*w->first_part));
	if (!w->first_part)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->nregions; i++) {
		w->first_part[i] = parts;
		parts += (words_of(&s->regions[i]) + w->part_words - 1) / w->part_words;
	}
	w->first_part[s->nregions] = parts;
	threads = parts / PARTS_PER_THREAD;
	if (processors > 0 && threads > (uint64_t)processors)
		threads = (uint64_t)processors;
	if (threads > THREADS_MAX)
		threads = THREADS_MAX;
	return workers_new(&w->workers, threads ? (unsigned int)threads : 1);
}

void scheduler_walk_free(struct scheduler *s)
{
	if (!s->walk)
		return;
	workers_free(s->walk->workers);
	free(s->walk->first_part);
	free(s->walk);
	s->walk = NULL;
}

/* Part number n, which is of region *i or of one after it. */
static struct scheduler_part part(const struct scheduler_walk *w, uint64_t n, uint32_t *i)
{
	struct scheduler_part p;
	uint64_t words;

	while (n >= w->first_part[*i + 1])
		++*i;
	p.region = *i;
	p.first_word = (n - w->first_part[*i]) * w->part_words;
	words = words_of(&w->s->regions[*i]) - p.first_word;
	p.words = words < w->part_words ? words : w->part_words;
	return p;
}

static void work(void *arg, unsigned int index)
{
	struct scheduler_walk *w = arg;
	uint32_t region = w->region == ALL_REGIONS ? 0 : w->region;
	uint64_t n;

	(void)index;
	while (!atomic_load(&w->err) && (n = atomic_fetch_add(&w->cursor, 1)) < w->limit) {
		struct scheduler_part p = part(w, n, &region);
		int err = w->fn(w->s, &p, w->arg);

		if (err)
			atomic_store(&w->err, err);
	}
}

int scheduler_walk(struct scheduler *s, uint32_t region, scheduler_walker *fn, void *arg)
{
	struct scheduler_walk *w = s->walk;
	bool all = region == ALL_REGIONS;

	w->fn = fn;
	w->arg = arg;
	w->region = region;
	w->limit = w->first_part[all ? s->nregions : region + 1];
	atomic_store(&w->cursor, w->first_part[all ? 0 : region]);
	atomic_store(&w->err, 0);
	if (w->limit - atomic_load(&w->cursor) < 2 * PARTS_PER_THREAD)
		work(w, 0);
	else
		workers_run(w->workers, work, w);
	return atomic_load(&w->err);
}
