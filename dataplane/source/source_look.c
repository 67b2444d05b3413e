// SPDX-License-Identifier: MIT
/*
 * Looking at a chunk that is about to be sent: what each of its pages is, and how it may be sent.
 *
 * Theory of operation
 *   Each pending page is looked at once (page_reader.h): zero, hole or data. Data usually goes by
 *   reference, as it is when it is sent.
 *
 *   A page that was written again since it was reported will be reported again, so it need not go
 *   now (IPC_SEND_DEFER): a guest that rewrites its memory faster than the link carries it saves
 *   what would be sent in vain. To ask costs 2 us a chunk of the 300 that sending it takes, and
 *   right after the scan there is nothing to learn. Where a part of a chunk was written again, more
 *   of it will be: all of it waits until the round has nothing else, and is asked about once more.
 *
 *   Before the first round some pages may have been found at the destination (source_compare.c):
 *   they are left out, and are no holes.
 *
 *   A chunk of huge pages (known_pages.h) is copied first, and the copy is all that counts: what is
 *   in it is compared, sent and remembered, whatever the guest does to the page meanwhile. It will
 *   be reported again.
 */
#include <string.h>

#include "dataplane/source/source.h"
#include "dataplane/zero.h"
#include "lib/base/clock.h"

/*
 * Which part of a chunk's pending pages, when written again, has the others wait. In simulations a
 * sixteenth did as well, a quarter and a 64th worse; a chunk that waits costs another peek.
 */
#define POSTPONED_PART 8u

/* The run of equal bits that begins at page: its end, and the bits' value. */
static uint32_t bit_run(const uint64_t *bits, uint32_t page, uint32_t limit, bool *set)
{
	uint32_t end = page;

	*set = bits[page / 64] >> (page % 64) & 1;
	while (end < limit) {
		uint64_t flip = *set ? ~0ull : 0;
		uint64_t differ = (bits[end / 64] ^ flip) >> (end % 64);

		if (differ) {
			end += (uint32_t)__builtin_ctzll(differ);
			break;
		}
		end = (end / 64 + 1) * 64;
	}
	return end < limit ? end : limit;
}

/* Remembers which pages of the chunk the file holds. */
static void note_populated(struct source *src, const struct scheduler_chunk *c,
			   const struct chunk_look *look, uint64_t *populated)
{
	bool exact = page_reader_sees_holes(&src->reader, c->region);

	for (uint32_t i = 0; i < c->pages; i++) {
		uint8_t kind = look->kinds[i];

		if (kind == PAGE_RAW || kind == PAGE_SAME || (exact && kind == PAGE_ZERO))
			populated[i / 64] |= 1ull << (i % 64);
	}
	scheduler_looked_at(&src->scheduler, c, populated);
}

/* Copies pages [at, end) of the chunk to their place in scratch and compares the copies. */
static int snapshot_run(struct source *src, const struct scheduler_chunk *c, uint32_t at,
			uint32_t end, struct chunk_look *look, uint8_t *scratch)
{
	int err = page_reader_copy(c->region, (c->first_page + at) << PAGE_SHIFT,
				   scratch + (size_t)at * PAGE_BYTES,
				   (size_t)(end - at) * PAGE_BYTES);

	for (; !err && at < end; at++) {
		const uint8_t *copy = scratch + (size_t)at * PAGE_BYTES;
		uint64_t page = c->first_page + at;

		if (zero_page(copy)) {
			known_pages_forget(&src->known, c->region, page);
			look->kinds[at] = PAGE_ZERO;
		} else if (known_pages_filter(&src->known, &src->hash, c->region, page, copy)) {
			look->kinds[at] = PAGE_SAME;
			look->same++;
		} else {
			look->kinds[at] = PAGE_RAW;
		}
	}
	return err;
}

static int look_at_run(struct source *src, const struct scheduler_chunk *c, uint32_t at,
		       uint32_t end, struct chunk_look *look, uint8_t *scratch)
{
	if (look->snapshot)
		return snapshot_run(src, c, at, end, look, scratch);
	return page_reader_classify(&src->reader, c->region, c->first_page + at, end - at,
				    look->kinds + at, scratch);
}

static uint32_t count_bits(const uint64_t bits[SCHEDULER_CHUNK_WORDS])
{
	uint32_t n = 0;

	for (uint32_t w = 0; w < SCHEDULER_CHUNK_WORDS; w++)
		n += (uint32_t)__builtin_popcountll(bits[w]);
	return n;
}

/*
 * Takes from bits the pages that are not to be sent now, and notes them in out: which the
 * comparison before this round found at the destination, and which were written again. 1: so many
 * were that all of them should wait.
 */
static int leave_out(struct source *src, const struct scheduler_chunk *c,
		     uint64_t bits[SCHEDULER_CHUNK_WORDS], uint64_t out[SCHEDULER_CHUNK_WORDS])
{
	uint64_t later[SCHEDULER_CHUNK_WORDS] = { 0 };
	const struct tracker *t = src->tracker;
	uint32_t deferred, pending;
	int err = 0;

	memcpy(bits, c->bits, sizeof(c->bits));
	memset(out, 0, sizeof(c->bits));
	if (src->defer_from_ns && clock_ns() >= src->defer_from_ns)
		err = t->ops->peek(t, c->region, c->first_page, c->pages, later);
	for (uint32_t w = 0; w * 64 < c->pages; w++) {
		if (src->same)
			out[w] =
				bits[w] & src->same[c->region->index].words[c->first_page / 64 + w];
		bits[w] &= ~out[w];
		later[w] &= bits[w];
	}
	deferred = count_bits(later);
	if (err || !deferred)
		return err;
	pending = count_bits(bits);
	if (!c->again && deferred < pending && deferred * POSTPONED_PART >= pending)
		return 1;
	for (uint32_t w = 0; w < SCHEDULER_CHUNK_WORDS; w++) {
		out[w] |= later[w];
		bits[w] &= ~later[w];
	}
	__atomic_fetch_add(&src->deferred_pages, deferred, __ATOMIC_RELAXED);
	return 0;
}

static bool nothing_in(const uint64_t bits[SCHEDULER_CHUNK_WORDS])
{
	for (uint32_t w = 0; w < SCHEDULER_CHUNK_WORDS; w++)
		if (bits[w])
			return false;
	return true;
}

static void mark_left_out(struct chunk_look *look, const uint64_t *out, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		if (out[i / 64] >> (i % 64) & 1)
			look->kinds[i] = PAGE_NOT_SENT;
}

/* What is not pending: a hole if the round says what was never populated. */
static void skip_run(struct source *src, const struct scheduler_chunk *c, uint32_t at, uint32_t end,
		     struct chunk_look *look)
{
	memset(look->kinds + at, c->rest_is_hole ? PAGE_HOLE : PAGE_NOT_SENT, end - at);
	for (; look->snapshot && c->rest_is_hole && at < end; at++)
		known_pages_forget(&src->known, c->region, c->first_page + at);
}

int source_look_at_chunk(struct source *src, const struct scheduler_chunk *c,
			 struct chunk_look *look, uint8_t *scratch)
{
	uint64_t bits[SCHEDULER_CHUNK_WORDS], out[SCHEDULER_CHUNK_WORDS];
	uint32_t end, pending = 0;
	bool set;
	int err = leave_out(src, c, bits, out);

	look->same = 0;
	if (err > 0)
		scheduler_postpone(&src->scheduler, c);
	if (err)
		return err;
	if (!c->rest_is_hole && nothing_in(bits)) {
		look->snapshot = NULL;
		memset(look->kinds, PAGE_NOT_SENT, c->pages);
		note_populated(src, c, look, out);
		return 0;
	}
	look->snapshot = known_pages_begin(&src->known, c->region, c->first_page) ? scratch : NULL;
	for (uint32_t at = 0; !err && at < c->pages; at = end) {
		end = bit_run(bits, at, c->pages, &set);
		pending += set ? end - at : 0;
		if (set)
			err = look_at_run(src, c, at, end, look, scratch);
		else
			skip_run(src, c, at, end, look);
	}
	if (err)
		return err;
	mark_left_out(look, out, c->pages);
	if (look->snapshot)
		known_pages_end(&src->known, c->region, c->first_page, pending, look->same);
	note_populated(src, c, look, out);
	return 0;
}
