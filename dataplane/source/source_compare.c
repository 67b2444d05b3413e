// SPDX-License-Identifier: MIT
/*
 * Before the first round: which pages the destination has already, so that they are not sent.
 *
 * Theory of operation
 *   Asked once, at the handshake, how much its RAM files hold, a destination that holds next to
 *   nothing is not asked again. Otherwise all streams share a job before the first round. A stream
 *   asks for the hashes of a chunk (HASHES), a few at a time so that the link's delay does not
 *   count, and compares each answer with its own pages: copies them, hashes the copy, and notes
 *   what is equal in `same`. The round then leaves these pages out.
 *
 *   Only copies are hashed. What the guest writes after the copy was made is dirty again (tracking
 *   was armed before), and the next scan reports it: so an equal copy is as good as a page sent at
 *   that moment. A page that the destination says is zero is not compared: ZERO and HOLE cost
 *   nothing.
 *
 *   It must not cost where little is equal. RAM is gone through in stretches; of each, one chunk is
 *   asked for, and the rest only if enough of that was equal. After many stretches in a row without
 *   success only some are tried. So at worst 1/STRETCH of RAM is looked at in vain, at the start,
 *   and 1/(STRETCH * SPARSE) later. Neighbouring chunks are alike: an interrupted move leaves a
 *   beginning, a former stay leaves what the guest has not written since.
 *
 *   Memory: one bit a page, mapped lazily.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/source/source.h"

/* Chunks in a stretch: 32 MiB. */
#define STRETCH 16u
/* A stretch is gone through if at least this part of its sample is equal. */
#define PROMISING_PART 20u
/* So many stretches in vain, and only each SPARSE'th is tried until one is promising. */
#define VAIN_MAX 16u
#define SPARSE	 8u
/* A destination that holds less than this part of RAM is not asked. */
#define HELD_PART 256u
/* Pages that are copied at once: stays in a second-level cache. */
#define BATCH 32u

bool source_may_compare(struct source *src)
{
	uint64_t held = __atomic_load_n(&src->destination_holds, __ATOMIC_RELAXED), ram = 0;

	for (uint32_t i = 0; i < src->setup->nregions; i++)
		ram += src->setup->regions[i].size;
	return held >= CHUNK_BYTES && held >= ram / HELD_PART;
}

int source_compare_begin(struct source *src)
{
	uint32_t n = src->setup->nregions;
	int err = 0;

	src->same = calloc(n, sizeof(*src->same));
	if (!src->same)
		return -ENOMEM;
	for (uint32_t i = 0; !err && i < n; i++)
		err = bitmap_init(&src->same[i], region_pages(&src->setup->regions[i]));
	src->compare_vain = 0;
	return err;
}

void source_compare_end(struct source *src)
{
	for (uint32_t i = 0; src->same && i < src->setup->nregions; i++)
		bitmap_release(&src->same[i]);
	free(src->same);
	src->same = NULL;
}

/* True if the stream was told that the destination has nothing of the chunk. */
static bool known_to_be_empty(const struct stream_compare *k, uint32_t region, uint64_t chunk)
{
	return region == k->empty_region && chunk >= k->empty_from && chunk < k->empty_until;
}

/* The first chunk of [from, end) of region that has pending pages and is worth a question. */
static bool next_pending(struct stream *s, uint32_t region, uint64_t from, uint64_t end,
			 uint64_t *chunk)
{
	const struct scheduler *sch = &s->source->scheduler;
	uint64_t base = sch->first_chunk[region], first, count;

	for (uint64_t at = base + from;
	     bitmap_next_run(&sch->dirty_chunks, at, base + end, &first, &count); at = first + 1) {
		*chunk = first - base;
		if (!known_to_be_empty(&s->compare, region, *chunk))
			return true;
	}
	return false;
}

static bool in_vain(struct source *src)
{
	return __atomic_load_n(&src->compare_vain, __ATOMIC_RELAXED) >= VAIN_MAX;
}

/* A chunk of the stretch from its middle on, where there is one with pending pages. */
static bool take_sample(struct stream *s, struct compare_question *q)
{
	uint64_t middle = q->begin + (q->end - q->begin) / 2;

	q->sample = true;
	return next_pending(s, q->region, middle, q->end, &q->chunk) ||
	       next_pending(s, q->region, q->begin, middle, &q->chunk);
}

/* The next chunk of a promising stretch; begin moves on. */
static bool take_next(struct stream *s, struct compare_question *p)
{
	uint64_t sample = p->chunk;

	while (next_pending(s, p->region, p->begin, p->end, &p->begin))
		if (p->begin++ != sample)
			return true;
	return false;
}

/* What to ask for next: the rest of a promising stretch, or a sample of a new one. */
static bool next_question(struct stream *s, struct compare_question *q)
{
	struct stream_compare *k = &s->compare;
	const struct region *r;
	uint64_t first, count;

	while (k->promising_count) {
		struct compare_question *p = &k->promising[k->promising_count - 1];

		if (take_next(s, p)) {
			*q = (struct compare_question){ .region = p->region,
							.chunk = p->begin - 1 };
			return true;
		}
		k->promising_count--;
	}
	/* What is passed over now would be asked for after one good answer: so wait for it. */
	while (!(k->count && in_vain(s->source)) &&
	       source_take_chunks(s->source, STRETCH, &r, &first, &count)) {
		*q = (struct compare_question){ .region = r->index,
						.begin = first,
						.end = first + count };
		if (in_vain(s->source) && first / STRETCH % SPARSE)
			continue;
		if (take_sample(s, q))
			return true;
	}
	return false;
}

static int ask(struct stream *s, const struct compare_question *q)
{
	struct stream_compare *k = &s->compare;
	struct wire_frame f = { .type = WIRE_HASHES,
				.region = (uint16_t)q->region,
				.offset = q->chunk << CHUNK_SHIFT };
	uint8_t head[WIRE_FRAME_SIZE];

	k->asked[(k->first + k->count++) % COMPARE_DEPTH] = *q;
	wire_put_frame(head, &f);
	return stream_frame(s, head, sizeof(head), NULL, NULL, 0, false);
}

/* The hashes of pages [at, end) of a copy against the destination's; notes what is equal. */
static uint32_t compare_copy(struct source *src, uint64_t page, uint32_t pages, const uint8_t *copy,
			     const uint8_t *hashes, struct bitmap *same)
{
	uint32_t equal = 0;

	for (uint32_t i = 0; i < pages; i++) {
		uint64_t theirs;

		memcpy(&theirs, hashes + (size_t)i * WIRE_HASH_SIZE, sizeof(theirs));
		theirs = le64toh(theirs);
		if (theirs == PAGE_HASH_NONE ||
		    page_hash(&src->hash, copy + (size_t)i * PAGE_BYTES) != theirs)
			continue;
		bitmap_set_range(same, page + i, 1);
		equal++;
	}
	return equal;
}

/* True if the destination has content in some of these pages. */
static bool any_content(const uint8_t *hashes, uint32_t pages)
{
	for (uint32_t i = 0; i < pages * WIRE_HASH_SIZE; i++)
		if (hashes[i])
			return true;
	return false;
}

static int compare_chunk(struct stream *s, const struct region *r, const struct wire_frame *f,
			 const uint8_t *hashes, uint32_t *pending, uint32_t *equal)
{
	struct source *src = s->source;
	const struct bitmap *todo = &src->scheduler.pending[r->index];
	uint64_t base = f->offset >> PAGE_SHIFT, first, count;

	*pending = *equal = 0;
	for (uint64_t at = base; bitmap_next_run(todo, at, base + f->count, &first, &count);
	     at = first + count) {
		const uint8_t *theirs = hashes + (first - base) * WIRE_HASH_SIZE;
		int err;

		if (count > BATCH)
			count = BATCH;
		*pending += (uint32_t)count;
		if (!any_content(theirs, (uint32_t)count))
			continue;
		err = page_reader_copy(r, first << PAGE_SHIFT, s->scratch, count << PAGE_SHIFT);
		if (err)
			return err;
		*equal += compare_copy(src, first, (uint32_t)count, s->scratch, theirs,
				       &src->same[r->index]);
	}
	return 0;
}

static void judge(struct stream *s, const struct compare_question *q, uint32_t pending,
		  uint32_t equal)
{
	struct stream_compare *k = &s->compare;

	if (!q->sample)
		return;
	if (equal * PROMISING_PART < pending || !equal) {
		__atomic_add_fetch(&s->source->compare_vain, 1, __ATOMIC_RELAXED);
		return;
	}
	__atomic_store_n(&s->source->compare_vain, 0, __ATOMIC_RELAXED);
	k->promising[k->promising_count++] = *q;
}

int stream_hashed(struct stream *s, const struct wire_frame *f, const uint8_t *hashes)
{
	struct stream_compare *k = &s->compare;
	struct compare_question q;
	uint32_t pending = 0, equal = 0;
	int err = 0;

	if (!k->count)
		return -EBADMSG;
	q = k->asked[k->first];
	if (f->region != q.region || f->offset != q.chunk << CHUNK_SHIFT)
		return -EBADMSG;
	k->first = (k->first + 1) % COMPARE_DEPTH;
	k->count--;
	if (f->extent) {
		k->empty_region = q.region;
		k->empty_from = q.chunk;
		k->empty_until = (f->offset + f->extent) >> CHUNK_SHIFT;
	} else {
		err = compare_chunk(s, &s->source->setup->regions[q.region], f, hashes, &pending,
				    &equal);
		count_add(&s->counts.same_bytes, (uint64_t)equal << PAGE_SHIFT);
		judge(s, &q, pending, equal);
	}
	return err;
}

int stream_compare(struct stream *s)
{
	struct compare_question q;
	bool more = true;
	int err = 0;

	s->compare = (struct stream_compare){ .empty_region = UINT32_MAX };
	while (!err) {
		/* one place is kept for each answer under way that may be promising */
		while (!err && more && s->compare.count < COMPARE_DEPTH) {
			more = next_question(s, &q);
			if (more)
				err = ask(s, &q);
		}
		if (err || !s->compare.count)
			break;
		err = stream_wait(s, UINT64_MAX);
		more = true;
	}
	return err;
}

int stream_ask_held(struct stream *s)
{
	struct wire_frame f = { .type = WIRE_HELD };

	return stream_barrier(s, &f);
}
