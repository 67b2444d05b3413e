// SPDX-License-Identifier: MIT
/* Compressing a chunk; see encode.h. */
#include "dataplane/codec/encode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "dataplane/source/page_reader.h"

/* Saving less than a sixteenth is not worth the work at the other end. */
#define WORTH(bytes) ((bytes) - (bytes) / 16)

/* Pieces below this are compressed without a sample, which would be most of them. */
#define SAMPLE_PAGES_MIN 8u
/* From so many pages, spread over the piece, so many bytes each: 5 us for 128 KiB. */
#define SAMPLE_PARTS 4u
#define SAMPLE_PART  1024u
#define SAMPLE_BYTES (SAMPLE_PARTS * SAMPLE_PART)

#define BACKOFF_MAX 6 /* 63 times */

/*
 * A page of which more differs is no new version of the old one. Below, DELTA costs 4 us; a result
 * up to DELTA_SMALL is taken without asking what the page would be by itself (12 us).
 */
#define DELTA_WORDS_MAX 384u
#define DELTA_SMALL	256u
#define PAGE_WORDS	(PAGE_BYTES / sizeof(uint64_t))

static ZSTD_CCtx *new_context(int level, bool checksum)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();

	if (!c)
		return NULL;
	ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, checksum);
	return c;
}

int encoder_init(struct encoder *e)
{
	*e = (struct encoder){ .level = 1 };
	e->zstd = new_context(e->level, false);
	e->delta = new_context(1, true);
	e->sampler = new_context(1, false);
	e->snapshot = aligned_alloc(PAGE_BYTES, ENCODE_PIECE * PAGE_BYTES);
	e->previous = aligned_alloc(PAGE_BYTES, ENCODE_PIECE * PAGE_BYTES);
	e->sample = malloc(SAMPLE_BYTES);
	e->result = malloc(2 * PAGE_BYTES);
	if (e->zstd && e->delta && e->sampler && e->snapshot && e->previous && e->sample &&
	    e->result)
		return 0;
	encoder_release(e);
	return -ENOMEM;
}

void encoder_release(struct encoder *e)
{
	ZSTD_freeCCtx(e->zstd);
	ZSTD_freeCCtx(e->delta);
	ZSTD_freeCCtx(e->sampler);
	free(e->snapshot);
	free(e->previous);
	free(e->sample);
	free(e->result);
	*e = (struct encoder){ 0 };
}

/* Pages of in as they are: from the guest's RAM, behind a run of the same kind if they can be. */
static void add_guest_pages(struct encoder *e, uint32_t page, uint32_t pages)
{
	struct chunk_plan *p = e->out;
	struct plan_run *last = p->count ? &p->runs[p->count - 1] : NULL;

	if (last && last->encoding == WIRE_ENC_RAW && !last->data &&
	    last->page + last->pages == (int)page) {
		last->pages = (uint16_t)(last->pages + pages);
		last->length += pages * PAGE_BYTES;
		return;
	}
	plan_add(p, page, pages, WIRE_ENC_RAW);
}

/* A payload that has been made at e->room, or is copied there. */
static void add_payload(struct encoder *e, uint32_t page, uint32_t pages,
			enum wire_encoding encoding, const uint8_t *data, size_t len)
{
	if (data != e->room)
		memcpy(e->room, data, len);
	plan_add_data(e->out, page, pages, encoding, e->room, (uint32_t)len);
	e->room += len;
}

/* Whether a sample of the piece compresses; pages: its snapshot, or NULL. */
static int try_sample(struct encoder *e, uint32_t page, uint32_t count, const uint8_t *pages,
		      bool *compresses)
{
	uint8_t out[SAMPLE_BYTES];
	size_t n;

	for (uint32_t i = 0; i < SAMPLE_PARTS; i++) {
		/* not at a page's beginning, where headers are */
		uint64_t at = (uint64_t)(count * (2 * i + 1) / (2 * SAMPLE_PARTS)) * PAGE_BYTES +
			      PAGE_BYTES / 2;
		uint64_t offset = ((e->in->first_page + page) << PAGE_SHIFT) + at;
		int err = 0;

		if (pages)
			memcpy(e->sample + i * SAMPLE_PART, pages + at, SAMPLE_PART);
		else
			err = page_reader_copy(e->in->region, offset, e->sample + i * SAMPLE_PART,
					       SAMPLE_PART);
		if (err)
			return err;
	}
	n = ZSTD_compress2(e->sampler, out, WORTH(SAMPLE_BYTES), e->sample, SAMPLE_BYTES);
	*compresses = !ZSTD_isError(n);
	return 0;
}

static int take_snapshot(struct encoder *e, uint32_t page, uint32_t count, const uint8_t **pages)
{
	*pages = e->snapshot;
	return page_reader_copy(e->in->region, (e->in->first_page + page) << PAGE_SHIFT,
				e->snapshot, (size_t)count * PAGE_BYTES);
}

/*
 * Pages by themselves. pages: their snapshot, from which they are sent whatever comes of it; or
 * NULL, then one is made if it is worth it.
 */
static int encode_plain(struct encoder *e, uint32_t page, uint32_t count, const uint8_t *pages)
{
	size_t len = (size_t)count * PAGE_BYTES, n = 0;
	const uint8_t *from = pages;
	bool compresses = true;
	int err = 0;

	e->sum.tried += len;
	if (count >= SAMPLE_PAGES_MIN)
		err = try_sample(e, page, count, pages, &compresses);
	if (!err && compresses && !from)
		err = take_snapshot(e, page, count, &from);
	if (err)
		return err;
	if (compresses) {
		n = ZSTD_compress2(e->zstd, e->room, WORTH(len), from, len);
		compresses = !ZSTD_isError(n); /* it did not fit */
	}
	if (compresses) {
		e->sum.zstd_in += len;
		e->sum.zstd_out += n;
		add_payload(e, page, count, WIRE_ENC_ZSTD, e->room, n);
	} else if (pages) {
		add_payload(e, page, count, WIRE_ENC_RAW, pages, len);
	} else {
		add_guest_pages(e, page, count);
	}
	return 0;
}

static bool is_new_version(const uint8_t *was, const uint8_t *is)
{
	unsigned int differ = 0;

	for (size_t i = 0; i < PAGE_BYTES; i += sizeof(uint64_t)) {
		uint64_t a, b;

		memcpy(&a, was + i, sizeof(a));
		memcpy(&b, is + i, sizeof(b));
		differ += a != b;
	}
	return differ <= DELTA_WORDS_MAX;
}

/* The page as a DELTA in e->result; its size, or 0 if it is not worth it. */
static size_t try_delta(struct encoder *e, const uint8_t *was, const uint8_t *is)
{
	size_t n, alone;

	if (!is_new_version(was, is))
		return 0;
	n = ZSTD_CCtx_refPrefix(e->delta, was, PAGE_BYTES); /* for one frame */
	if (!ZSTD_isError(n))
		n = ZSTD_compress2(e->delta, e->result, WORTH(PAGE_BYTES), is, PAGE_BYTES);
	if (ZSTD_isError(n))
		return 0;
	if (n <= DELTA_SMALL)
		return n;
	alone = ZSTD_compress2(e->zstd, e->result + PAGE_BYTES, PAGE_BYTES, is, PAGE_BYTES);
	return ZSTD_isError(alone) || n < alone ? n : 0;
}

/* Pages with a cache of versions: those that are known as DELTA, what lies between by itself. */
static int encode_versions(struct encoder *e, uint32_t page, uint32_t count, const uint8_t *pages)
{
	struct delta_cache *cache = e->how->cache;
	const struct region *r = e->in->region;
	uint64_t first = e->in->first_page + page;
	uint32_t known = delta_cache_get(cache, r, first, count, e->previous), plain = 0;
	int err = 0;

	for (uint32_t i = 0; !err && i < count; i++) {
		const uint8_t *is = pages + (size_t)i * PAGE_BYTES;
		size_t n =
			known >> i & 1 ? try_delta(e, e->previous + (size_t)i * PAGE_BYTES, is) : 0;

		if (!n)
			continue;
		if (plain < i)
			err = encode_plain(e, page + plain, i - plain,
					   pages + (size_t)plain * PAGE_BYTES);
		plain = i + 1;
		add_payload(e, page + i, 1, WIRE_ENC_DELTA, e->result, n);
		e->sum.delta_in += PAGE_BYTES;
		e->sum.delta_out += n;
	}
	if (!err && plain < count)
		err = encode_plain(e, page + plain, count - plain,
				   pages + (size_t)plain * PAGE_BYTES);
	if (!err)
		delta_cache_put(cache, r, first, count, pages, e->how->round);
	return err;
}

static int encode_piece(struct encoder *e, uint32_t page, uint32_t count, const uint8_t *pages)
{
	int err = 0;

	if (!e->how->cache || e->how->round < 2)
		return encode_plain(e, page, count, pages);
	if (!pages)
		err = take_snapshot(e, page, count, &pages);
	return err ? err : encode_versions(e, page, count, pages);
}

static int encode_data(struct encoder *e, const struct plan_run *run)
{
	int err = 0;

	for (uint32_t at = 0; !err && at < run->pages; at += ENCODE_PIECE) {
		uint32_t n = run->pages - at < ENCODE_PIECE ? run->pages - at : ENCODE_PIECE;

		if (e->how->stop && __atomic_load_n(e->how->stop, __ATOMIC_RELAXED))
			return -ECANCELED;
		err = encode_piece(e, run->page + at, n,
				   run->data ? run->data + (size_t)at * PAGE_BYTES : NULL);
	}
	e->sum.data += (uint64_t)run->pages * PAGE_BYTES;
	return err;
}

/* A run that is not to be compressed. */
static void pass_run(struct encoder *e, const struct plan_run *run)
{
	if (e->how->cache)
		delta_cache_forget(e->how->cache, e->in->region, e->in->first_page + run->page,
				   run->pages);
	if (run->encoding == WIRE_ENC_RAW)
		e->sum.data += run->length;
	if (run->data)
		add_payload(e, run->page, run->pages, WIRE_ENC_RAW, run->data, run->length);
	else
		plan_add(e->out, run->page, run->pages, (enum wire_encoding)run->encoding);
}

static void remember(struct encode_memory *m, const struct encode_result *sum)
{
	if (!sum->tried)
		return;
	if (sum->zstd_in > sum->tried / 32) {
		m->backoff = 0;
		return;
	}
	if (m->backoff < BACKOFF_MAX)
		m->backoff++;
	m->skip = (uint8_t)((1u << m->backoff) - 1);
}

int encoder_run(struct encoder *e, const struct encode_how *how, struct encode_memory *memory,
		const struct chunk_plan *in, struct chunk_plan *out, uint8_t *buffer,
		struct encode_result *result)
{
	bool pass = memory->skip && !(how->cache && how->round >= 2);
	int err = 0;

	e->how = how;
	e->in = in;
	e->out = out;
	e->room = buffer;
	e->sum = (struct encode_result){ 0 };
	out->region = in->region;
	out->first_page = in->first_page;
	out->same = in->same;
	out->count = 0;
	if (e->level != how->level) {
		ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_compressionLevel, how->level);
		e->level = how->level;
	}
	if (pass)
		memory->skip--;
	for (uint32_t i = 0; !err && i < in->count; i++) {
		if (pass || in->runs[i].encoding != WIRE_ENC_RAW)
			pass_run(e, &in->runs[i]);
		else
			err = encode_data(e, &in->runs[i]);
	}
	if (!pass)
		remember(memory, &e->sum);
	*result = e->sum;
	return err;
}
