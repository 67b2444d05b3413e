// SPDX-License-Identifier: MIT
/*
 * Encoding and decoding of the data streams' format; see wire.h.
 *
 * Theory of operation
 *   Pure functions over byte arrays: no descriptor, no allocation, no state, so that they can be
 *   fuzzed as they are. Layouts, all little-endian (offsets in bytes):
 *
 *     hello  0 magic  4 version  8 id[16]  24 stream u16  26 streams u16  28 nonce[32]  60 zero u32
 *     frame  0 type u8  1 of u8  2 region u16  4 length u32  8 number u32  12 count u32
 *            16 offset u64  24 extent u64
 *     run    0 page u16  2 pages u16  4 encoding u8  5 zero[3]  8 length u32
 *
 *   A frame type is a row in frame_rules: which fields it uses (all others must be zero) and one
 *   check of those. An encoding is a case in run_length_ok.
 */
#include "dataplane/transport/wire.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

static_assert(4 + 4 + IPC_ID_SIZE + 2 + 2 + WIRE_NONCE_SIZE + 4 == WIRE_HELLO_SIZE, "hello");
static_assert(WIRE_NONCE_SIZE + WIRE_PROOF_SIZE == WIRE_CHALLENGE_SIZE, "challenge");
static_assert(1 + 1 + 2 + 4 + 4 + 4 + 8 + 8 == WIRE_FRAME_SIZE, "frame");
static_assert(2 + 2 + 1 + 3 + 4 == WIRE_RUN_SIZE, "run");
static_assert(WIRE_RUNS_MAX <= UINT16_MAX && IPC_REGIONS_MAX <= UINT16_MAX, "16-bit fields");

static void put16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

void wire_put_hello(uint8_t out[WIRE_HELLO_SIZE], const struct wire_hello *h)
{
	memset(out, 0, WIRE_HELLO_SIZE);
	put32(out, WIRE_MAGIC);
	put32(out + 4, h->version);
	memcpy(out + 8, h->id, IPC_ID_SIZE);
	put16(out + 24, h->stream);
	put16(out + 26, h->streams);
	memcpy(out + 28, h->nonce, WIRE_NONCE_SIZE);
}

int wire_get_hello(struct wire_hello *h, const uint8_t in[WIRE_HELLO_SIZE])
{
	memset(h, 0, sizeof(*h));
	if (get32(in) != WIRE_MAGIC)
		return -EBADMSG;
	h->version = get32(in + 4);
	if (h->version != WIRE_VERSION)
		return -EPROTONOSUPPORT;
	memcpy(h->id, in + 8, IPC_ID_SIZE);
	h->stream = get16(in + 24);
	h->streams = get16(in + 26);
	memcpy(h->nonce, in + 28, WIRE_NONCE_SIZE);
	if (get32(in + 60))
		return -EBADMSG;
	if (!h->streams || h->streams > IPC_STREAMS_MAX || h->stream >= h->streams)
		return -EBADMSG;
	return 0;
}

void wire_put_frame(uint8_t out[WIRE_FRAME_SIZE], const struct wire_frame *f)
{
	out[0] = f->type;
	out[1] = f->of;
	put16(out + 2, f->region);
	put32(out + 4, f->length);
	put32(out + 8, f->number);
	put32(out + 12, f->count);
	put64(out + 16, f->offset);
	put64(out + 24, f->extent);
}

void wire_put_run(uint8_t out[WIRE_RUN_SIZE], const struct wire_run *r)
{
	memset(out, 0, WIRE_RUN_SIZE);
	put16(out, r->page);
	put16(out + 2, r->pages);
	out[4] = r->encoding;
	put32(out + 8, r->length);
}

/* Bytes that f's payload spends on run descriptors. f->count is at most WIRE_RUNS_MAX. */
static uint32_t runs_bytes(const struct wire_frame *f)
{
	return f->count * WIRE_RUN_SIZE;
}

/* r is NULL where the type does not use the region; otherwise the region that the frame names. */
static bool check_pages(const struct wire_frame *f, const struct region *r)
{
	return f->offset % CHUNK_BYTES == 0 && f->offset < r->size && f->count > 0 &&
	       f->count <= WIRE_RUNS_MAX && f->length >= runs_bytes(f) &&
	       f->length <= WIRE_PAYLOAD_MAX;
}

static bool check_holes(const struct wire_frame *f, const struct region *r)
{
	return f->offset % PAGE_BYTES == 0 && f->extent % PAGE_BYTES == 0 && f->extent > 0 &&
	       f->extent <= r->size && f->offset <= r->size - f->extent;
}

static bool check_state(const struct wire_frame *f, const struct region *r)
{
	(void)r;
	return f->length > 0 && f->length <= WIRE_STATE_MAX;
}

static bool check_verify(const struct wire_frame *f, const struct region *r)
{
	return f->offset % CHUNK_BYTES == 0 && f->offset < r->size && f->count > 0 &&
	       f->count <= WIRE_HASHES_MAX && f->length == f->count * WIRE_HASH_SIZE &&
	       f->count <= region_chunks(r) - (f->offset >> CHUNK_SHIFT);
}

static bool check_hashes(const struct wire_frame *f, const struct region *r)
{
	return f->offset % CHUNK_BYTES == 0 && f->offset < r->size;
}

static bool check_hashed(const struct wire_frame *f, const struct region *r)
{
	uint64_t left, pages;

	if (!check_hashes(f, r))
		return false;
	left = r->size - f->offset;
	pages = left < CHUNK_BYTES ? left >> PAGE_SHIFT : CHUNK_PAGES;
	if (!f->extent)
		return f->count == pages && f->length == f->count * WIRE_HASH_SIZE;
	return !f->count && !f->length && f->extent % PAGE_BYTES == 0 && f->extent <= left;
}

static bool check_missing(const struct wire_frame *f, const struct region *r)
{
	return check_hashes(f, r) && f->count > 0 && f->count <= WIRE_MISSING_MAX &&
	       f->length == f->count * WIRE_MISSING_SIZE &&
	       f->count <= region_chunks(r) - (f->offset >> CHUNK_SHIFT);
}

static bool check_request(const struct wire_frame *f, const struct region *r)
{
	return check_holes(f, r) && f->extent <= CHUNK_BYTES &&
	       f->offset % CHUNK_BYTES <= CHUNK_BYTES - f->extent;
}

static bool check_ack(const struct wire_frame *f, const struct region *r)
{
	if (f->of == WIRE_HELD || f->of == WIRE_MISSING_END)
		return !f->number && !f->region && !f->offset;
	if (f->of == WIRE_ROUND_END)
		return !f->region && !f->offset && !f->extent;
	if (f->of == WIRE_STATE_END)
		return !f->number && !f->region && !f->offset && !f->extent;
	if (f->of != WIRE_VERIFY_END || f->number)
		return false;
	if (!f->extent)
		return !f->region && !f->offset;
	return f->offset % CHUNK_BYTES == 0 && f->offset < r->size;
}

static bool check_nothing(const struct wire_frame *f, const struct region *r)
{
	(void)f;
	(void)r;
	return true;
}

enum field {
	HAS_OF = 1,
	HAS_REGION = 2,
	HAS_LENGTH = 4,
	HAS_NUMBER = 8,
	HAS_COUNT = 16,
	HAS_OFFSET = 32,
	HAS_EXTENT = 64,
};

struct frame_rule {
	unsigned int fields; /* enum field */
	bool (*check)(const struct wire_frame *f, const struct region *r);
};

static const struct frame_rule frame_rules[] = {
	[WIRE_PAGES] = { HAS_REGION | HAS_OFFSET | HAS_COUNT | HAS_LENGTH, check_pages },
	[WIRE_HOLES] = { HAS_REGION | HAS_OFFSET | HAS_EXTENT, check_holes },
	[WIRE_ROUND_END] = { HAS_NUMBER, check_nothing },
	[WIRE_STATE] = { HAS_LENGTH, check_state },
	[WIRE_STATE_END] = { HAS_EXTENT, check_nothing },
	[WIRE_VERIFY] = { HAS_REGION | HAS_OFFSET | HAS_COUNT | HAS_LENGTH, check_verify },
	[WIRE_VERIFY_END] = { 0, check_nothing },
	[WIRE_ACK] = { HAS_OF | HAS_NUMBER | HAS_REGION | HAS_OFFSET | HAS_EXTENT, check_ack },
	[WIRE_BYE] = { 0, check_nothing },
	[WIRE_HELD] = { 0, check_nothing },
	[WIRE_HASHES] = { HAS_REGION | HAS_OFFSET, check_hashes },
	[WIRE_HASHED] = { HAS_REGION | HAS_OFFSET | HAS_COUNT | HAS_LENGTH | HAS_EXTENT,
			  check_hashed },
	[WIRE_MISSING] = { HAS_REGION | HAS_OFFSET | HAS_COUNT | HAS_LENGTH, check_missing },
	[WIRE_MISSING_END] = { HAS_EXTENT, check_nothing },
	[WIRE_REQUEST] = { HAS_REGION | HAS_OFFSET | HAS_EXTENT, check_request },
};

static unsigned int fields_set(const struct wire_frame *f)
{
	return (f->of ? HAS_OF : 0) | (f->region ? HAS_REGION : 0) | (f->length ? HAS_LENGTH : 0) |
	       (f->number ? HAS_NUMBER : 0) | (f->count ? HAS_COUNT : 0) |
	       (f->offset ? HAS_OFFSET : 0) | (f->extent ? HAS_EXTENT : 0);
}

int wire_get_frame(struct wire_frame *f, const uint8_t in[WIRE_FRAME_SIZE],
		   const struct region *regions, uint32_t nregions)
{
	const struct frame_rule *rule;

	f->type = in[0];
	f->of = in[1];
	f->region = get16(in + 2);
	f->length = get32(in + 4);
	f->number = get32(in + 8);
	f->count = get32(in + 12);
	f->offset = get64(in + 16);
	f->extent = get64(in + 24);

	if (f->type >= sizeof(frame_rules) / sizeof(frame_rules[0]) || !frame_rules[f->type].check)
		return -EBADMSG;
	rule = &frame_rules[f->type];
	if (fields_set(f) & ~rule->fields)
		return -EBADMSG;
	if ((rule->fields & HAS_REGION) && f->region >= nregions)
		return -EBADMSG;
	return rule->check(f, &regions[f->region]) ? 0 : -EBADMSG;
}

void wire_put_missing(uint8_t out[WIRE_MISSING_SIZE], const uint64_t words[CHUNK_PAGES / 64])
{
	for (unsigned int i = 0; i < CHUNK_PAGES / 64; i++)
		put64(out + 8 * (size_t)i, words[i]);
}

int wire_get_missing(uint64_t words[CHUNK_PAGES / 64], const uint8_t in[WIRE_MISSING_SIZE],
		     const struct region *region, uint64_t offset)
{
	uint64_t left = (region->size - offset) >> PAGE_SHIFT;

	for (unsigned int i = 0; i < CHUNK_PAGES / 64; i++) {
		words[i] = get64(in + 8 * (size_t)i);
		if (left < 64 && words[i] >> left)
			return -EBADMSG;
		left -= left < 64 ? left : 64;
	}
	return 0;
}

static bool run_length_ok(const struct wire_run *r)
{
	uint32_t raw = (uint32_t)r->pages * PAGE_BYTES;

	switch (r->encoding) {
	case WIRE_ENC_RAW:
		return r->length == raw;
	case WIRE_ENC_ZERO:
	case WIRE_ENC_HOLE:
		return r->length == 0;
	case WIRE_ENC_ZSTD:
	case WIRE_ENC_DELTA:
		/* what did not get smaller goes raw, so a frame's payload stays bounded */
		return r->length > 0 && r->length < raw && r->pages <= WIRE_ENCODED_PAGES_MAX;
	default:
		return false;
	}
}

int wire_get_runs(struct wire_run *runs, const uint8_t *in, size_t len, const struct wire_frame *f,
		  const struct region *region)
{
	uint64_t left = f->offset < region->size ? region->size - f->offset : 0, payload = 0;
	uint32_t pages = left < CHUNK_BYTES ? (uint32_t)(left >> PAGE_SHIFT) : CHUNK_PAGES;
	uint32_t next = 0;

	if (f->count > WIRE_RUNS_MAX || len < runs_bytes(f) || f->length < runs_bytes(f))
		return -EBADMSG;
	for (uint32_t i = 0; i < f->count; i++, in += WIRE_RUN_SIZE) {
		struct wire_run *r = &runs[i];

		r->page = get16(in);
		r->pages = get16(in + 2);
		r->encoding = in[4];
		r->length = get32(in + 8);
		if (in[5] || in[6] || in[7])
			return -EBADMSG;
		if (!r->pages || r->page < next || (uint32_t)r->page + r->pages > pages)
			return -EBADMSG;
		if (!run_length_ok(r))
			return -EBADMSG;
		next = (uint32_t)r->page + r->pages;
		payload += r->length;
	}
	return payload == f->length - runs_bytes(f) ? 0 : -EBADMSG;
}
