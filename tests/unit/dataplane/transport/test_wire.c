// SPDX-License-Identifier: MIT
/* The stream format: round trips, and everything a hostile peer may put into each field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/transport/wire.h"

/* The second ends in the middle of its third chunk; the third is larger than any count. */
static const struct region regions[] = {
	{ .index = 0, .page_size = 4096, .size = 64ull << 20 },
	{ .index = 1, .page_size = 4096, .size = 2 * (uint64_t)CHUNK_BYTES + 5 * PAGE_BYTES },
	{ .index = 2, .page_size = 4096, .size = 1ull << 52 },
};
#define NREGIONS 3

static int decode(const struct wire_frame *in, struct wire_frame *out)
{
	uint8_t bytes[WIRE_FRAME_SIZE];

	wire_put_frame(bytes, in);
	return wire_get_frame(out, bytes, regions, NREGIONS);
}

static void accepts(struct wire_frame f)
{
	struct wire_frame out;

	assert_int_equal(decode(&f, &out), 0);
	assert_memory_equal(&f, &out, sizeof(f));
}

static void refuses(struct wire_frame f)
{
	struct wire_frame out;

	assert_int_equal(decode(&f, &out), -EBADMSG);
}

/* One good frame of each type, with every field that it uses. */
static const struct wire_frame good[] = {
	{ .type = WIRE_PAGES,
	  .region = 1,
	  .length = WIRE_RUN_SIZE + PAGE_BYTES,
	  .count = 1,
	  .offset = CHUNK_BYTES },
	{ .type = WIRE_HOLES, .region = 1, .offset = PAGE_BYTES, .extent = 3 * PAGE_BYTES },
	{ .type = WIRE_ROUND_END, .number = 7 },
	{ .type = WIRE_STATE, .length = 1000 },
	{ .type = WIRE_STATE_END, .extent = 123456789 },
	{ .type = WIRE_VERIFY,
	  .region = 1,
	  .length = 2 * WIRE_HASH_SIZE,
	  .count = 2,
	  .offset = CHUNK_BYTES },
	{ .type = WIRE_VERIFY_END },
	{ .type = WIRE_ACK, .of = WIRE_ROUND_END, .number = 7 },
	{ .type = WIRE_ACK, .of = WIRE_STATE_END },
	{ .type = WIRE_ACK,
	  .of = WIRE_VERIFY_END,
	  .region = 1,
	  .offset = CHUNK_BYTES,
	  .extent = 2 },
	{ .type = WIRE_BYE },
	{ .type = WIRE_HELD },
	{ .type = WIRE_ACK, .of = WIRE_HELD, .extent = 12345 },
	{ .type = WIRE_HASHES, .region = 1, .offset = CHUNK_BYTES },
	{ .type = WIRE_HASHED,
	  .region = 1,
	  .length = CHUNK_PAGES * WIRE_HASH_SIZE,
	  .count = CHUNK_PAGES,
	  .offset = CHUNK_BYTES },
	{ .type = WIRE_HASHED, .region = 1, .offset = CHUNK_BYTES, .extent = PAGE_BYTES },
	{ .type = WIRE_MISSING,
	  .region = 1,
	  .offset = CHUNK_BYTES,
	  .count = 2,
	  .length = 2 * WIRE_MISSING_SIZE },
	{ .type = WIRE_MISSING_END, .extent = 12345 },
	{ .type = WIRE_ACK, .of = WIRE_MISSING_END, .extent = 12345 },
	{ .type = WIRE_REQUEST, .region = 1, .offset = PAGE_BYTES, .extent = 2 * PAGE_BYTES },
};
#define NGOOD (sizeof(good) / sizeof(good[0]))

static void test_hello_round_trip(void **state)
{
	struct wire_hello in = { .version = WIRE_VERSION, .stream = 3, .streams = 4 }, out;
	uint8_t bytes[WIRE_HELLO_SIZE];

	(void)state;
	for (unsigned int i = 0; i < sizeof(in.id); i++)
		in.id[i] = (uint8_t)(i + 1);
	for (unsigned int i = 0; i < sizeof(in.nonce); i++)
		in.nonce[i] = (uint8_t)(200 - i);
	memset(bytes, 0xff, sizeof(bytes));
	wire_put_hello(bytes, &in);
	assert_int_equal(wire_get_hello(&out, bytes), 0);
	assert_int_equal(out.version, in.version);
	assert_int_equal(out.stream, 3);
	assert_int_equal(out.streams, 4);
	assert_memory_equal(out.id, in.id, sizeof(in.id));
	assert_memory_equal(out.nonce, in.nonce, sizeof(in.nonce));
}

static void test_hello_refusals(void **state)
{
	struct wire_hello h = { .version = WIRE_VERSION, .stream = 0, .streams = 1 }, out;
	uint8_t bytes[WIRE_HELLO_SIZE];

	(void)state;
	wire_put_hello(bytes, &h);
	bytes[0] ^= 1;
	assert_int_equal(wire_get_hello(&out, bytes), -EBADMSG);
	wire_put_hello(bytes, &h);
	bytes[63] = 1;
	assert_int_equal(wire_get_hello(&out, bytes), -EBADMSG);

	static const struct {
		uint32_t version;
		uint16_t stream, streams;
		int err;
	} cases[] = {
		{ WIRE_VERSION + 1, 0, 1, -EPROTONOSUPPORT },
		{ 0, 0, 1, -EPROTONOSUPPORT },
		{ WIRE_VERSION, 1, 1, -EBADMSG },
		{ WIRE_VERSION, 0, 0, -EBADMSG },
		{ WIRE_VERSION, 0, IPC_STREAMS_MAX + 1, -EBADMSG },
		{ WIRE_VERSION, UINT16_MAX, UINT16_MAX, -EBADMSG },
		{ WIRE_VERSION, IPC_STREAMS_MAX - 1, IPC_STREAMS_MAX, 0 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		h.version = cases[i].version;
		h.stream = cases[i].stream;
		h.streams = cases[i].streams;
		wire_put_hello(bytes, &h);
		assert_int_equal(wire_get_hello(&out, bytes), cases[i].err);
	}
}

/* The layout is a contract: other implementations read these bytes. */
static void test_layout_is_little_endian(void **state)
{
	static const uint8_t frame[WIRE_FRAME_SIZE] = {
		8,    3,    0x02, 0x01, 0x06, 0x05, 0x04, 0x03, 0x0a, 0x09, 0x08,
		0x07, 0x0e, 0x0d, 0x0c, 0x0b, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13,
		0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
	};
	static const uint8_t run[WIRE_RUN_SIZE] = { 0x02, 0x01, 0x04, 0x03, 5,	  0,
						    0,	  0,	0x09, 0x08, 0x07, 0x06 };
	struct wire_frame f = { 8,
				3,
				0x0102,
				0x03040506,
				0x0708090a,
				0x0b0c0d0e,
				0x1112131415161718,
				0x2122232425262728 };
	struct wire_run r = { 0x0102, 0x0304, 5, 0x06070809 };
	uint8_t bytes[WIRE_FRAME_SIZE];

	(void)state;
	memset(bytes, 0xff, sizeof(bytes));
	wire_put_frame(bytes, &f);
	assert_memory_equal(bytes, frame, sizeof(frame));
	memset(bytes, 0xff, sizeof(bytes));
	wire_put_run(bytes, &r);
	assert_memory_equal(bytes, run, sizeof(run));
}

static void test_frames_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < NGOOD; i++)
		accepts(good[i]);
}

static void test_unknown_types(void **state)
{
	(void)state;
	for (unsigned int type = 0; type < 256; type++) {
		struct wire_frame f = { .type = (uint8_t)type };

		if (type < WIRE_PAGES || type >= WIRE_TYPES)
			refuses(f);
	}
}

static bool same_frame(const struct wire_frame *a, const struct wire_frame *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/*
 * Every field that a type does not use, set in a good frame, must be noticed. Those it uses are
 * tested one by one below.
 */
static void test_unused_fields_must_be_zero(void **state)
{
	enum { OF = 1, REGION = 2, LENGTH = 4, NUMBER = 8, COUNT = 16, OFFSET = 32, EXTENT = 64 };
	static const unsigned int used[NGOOD] = {
		REGION | LENGTH | COUNT | OFFSET,
		REGION | OFFSET | EXTENT,
		NUMBER,
		LENGTH,
		EXTENT,
		REGION | LENGTH | COUNT | OFFSET,
		0,
		OF | NUMBER,
		OF,
		OF | REGION | OFFSET | EXTENT,
		0,
		0,
		OF | EXTENT,
		REGION | OFFSET,
		REGION | LENGTH | COUNT | OFFSET | EXTENT,
		REGION | LENGTH | COUNT | OFFSET | EXTENT,
		REGION | LENGTH | COUNT | OFFSET,
		EXTENT,
		OF | EXTENT,
		REGION | OFFSET | EXTENT,
	};

	(void)state;
	for (size_t i = 0; i < NGOOD; i++) {
		for (unsigned int field = OF; field <= EXTENT; field <<= 1) {
			struct wire_frame f = good[i];

			if (used[i] & field)
				continue;
			switch (field) {
			case OF:
				f.of = WIRE_ROUND_END;
				break;
			case REGION:
				f.region = 1;
				break;
			case LENGTH:
				f.length = 1;
				break;
			case NUMBER:
				f.number = 1;
				break;
			case COUNT:
				f.count = 1;
				break;
			case OFFSET:
				f.offset = CHUNK_BYTES;
				break;
			case EXTENT:
				f.extent = PAGE_BYTES;
				break;
			}
			assert_false(same_frame(&f, &good[i]));
			refuses(f);
		}
	}
}

static void test_pages_header(void **state)
{
	struct wire_frame f = good[0];

	(void)state;
	f.region = NREGIONS;
	refuses(f);
	f.region = UINT16_MAX;
	refuses(f);
	f = good[0];
	f.offset = CHUNK_BYTES + PAGE_BYTES;
	refuses(f);
	f.offset = 2ull * CHUNK_BYTES; /* the partial chunk at the end */
	accepts(f);
	f.offset = 3ull * CHUNK_BYTES;
	refuses(f);
	f.offset = 0ull - CHUNK_BYTES;
	refuses(f);
	f = good[0];
	f.count = 0;
	f.length = 0;
	refuses(f);
	f.count = WIRE_RUNS_MAX;
	f.length = WIRE_RUNS_MAX * WIRE_RUN_SIZE;
	accepts(f);
	f.length--;
	refuses(f);
	f.count = WIRE_RUNS_MAX + 1;
	f.length = WIRE_PAYLOAD_MAX;
	refuses(f);
	f.count = UINT32_MAX; /* times the size of a run this wraps */
	refuses(f);
	f.count = 1;
	accepts(f);
	f.length = WIRE_PAYLOAD_MAX + 1;
	refuses(f);
	f.length = UINT32_MAX;
	refuses(f);
}

static void test_holes_header(void **state)
{
	struct wire_frame f = good[1];
	uint64_t size = regions[1].size;

	(void)state;
	f.offset = 0;
	f.extent = size;
	accepts(f);
	f.extent = size + PAGE_BYTES;
	refuses(f);
	f.extent = 0;
	refuses(f);
	f.extent = 100;
	refuses(f);
	f.extent = PAGE_BYTES;
	f.offset = size - PAGE_BYTES;
	accepts(f);
	f.offset = size;
	refuses(f);
	f.offset = 1;
	refuses(f);
	f.offset = 0ull - PAGE_BYTES; /* offset + extent wraps to 0 */
	refuses(f);
	f.extent = 0ull - PAGE_BYTES;
	f.offset = 2 * PAGE_BYTES; /* and to a page inside */
	refuses(f);
	f = good[1];
	f.region = NREGIONS;
	refuses(f);
}

static void test_missing_and_request(void **state)
{
	struct wire_frame f = good[16];
	uint64_t words[CHUNK_PAGES / 64] = { 0 }, again[CHUNK_PAGES / 64];
	uint8_t bytes[WIRE_MISSING_SIZE];

	(void)state;
	f.count = 0;
	f.length = 0;
	refuses(f);
	f.count = 3; /* the region ends before */
	f.length = 3 * WIRE_MISSING_SIZE;
	refuses(f);
	f.count = 1;
	refuses(f);
	f.offset = PAGE_BYTES;
	f.length = WIRE_MISSING_SIZE;
	refuses(f);
	f = good[19];
	f.offset = CHUNK_BYTES - PAGE_BYTES; /* over the end of a chunk */
	refuses(f);
	f.extent = PAGE_BYTES;
	accepts(f);
	f.extent = 100;
	refuses(f);
	f.offset = 0;
	f.extent = CHUNK_BYTES;
	accepts(f);
	f.extent = CHUNK_BYTES + PAGE_BYTES;
	refuses(f);
	f.offset = regions[1].size;
	f.extent = PAGE_BYTES;
	refuses(f);

	/* bits beyond the end of a region that is no whole number of chunks */
	words[0] = 1ull << ((regions[1].size % CHUNK_BYTES >> PAGE_SHIFT) - 1);
	wire_put_missing(bytes, words);
	assert_int_equal(wire_get_missing(again, bytes, &regions[1], 2 * CHUNK_BYTES), 0);
	assert_memory_equal(words, again, sizeof(words));
	words[0] <<= 1;
	wire_put_missing(bytes, words);
	assert_int_equal(wire_get_missing(again, bytes, &regions[1], 0), 0);
	assert_int_equal(wire_get_missing(again, bytes, &regions[1], 2 * CHUNK_BYTES), -EBADMSG);
	words[0] = 0;
	words[7] = 1;
	wire_put_missing(bytes, words);
	assert_int_equal(wire_get_missing(again, bytes, &regions[1], 2 * CHUNK_BYTES), -EBADMSG);
}

static void test_state_header(void **state)
{
	struct wire_frame f = good[3];

	(void)state;
	f.length = 0;
	refuses(f);
	f.length = WIRE_STATE_MAX;
	accepts(f);
	f.length = WIRE_STATE_MAX + 1;
	refuses(f);
	f.length = UINT32_MAX;
	refuses(f);
	f = good[4];
	f.extent = 0;
	accepts(f);
	f.extent = UINT64_MAX;
	accepts(f); /* a total: it is compared, never used as a size */
}

static void test_verify_header(void **state)
{
	struct wire_frame f = good[5];

	(void)state;
	f.offset = 2ull * CHUNK_BYTES; /* one chunk is left, two hashes came */
	refuses(f);
	f.count = 1;
	refuses(f); /* length */
	f.length = WIRE_HASH_SIZE;
	accepts(f);
	f.offset = 3ull * CHUNK_BYTES;
	refuses(f);
	f.offset = PAGE_BYTES;
	refuses(f);
	f = good[5];
	f.count = f.length = 0;
	refuses(f);
	f.region = 2;
	f.count = WIRE_HASHES_MAX;
	f.length = WIRE_HASHES_MAX * WIRE_HASH_SIZE;
	accepts(f);
	f.count++;
	f.length += WIRE_HASH_SIZE;
	refuses(f);
	f.count = 0x20000001u; /* times 8 this wraps to 8 */
	f.length = 8;
	refuses(f);
	f = good[5];
	f.length += 1;
	refuses(f);
	f = good[5];
	f.region = NREGIONS;
	refuses(f);
}

static void test_hashes_header(void **state)
{
	const struct wire_frame hashes = good[13], hashed = good[14], nothing = good[15];
	struct wire_frame f;

	(void)state;
	f = hashes;
	f.offset += PAGE_BYTES; /* not a chunk's */
	refuses(f);
	f = hashes;
	f.offset = 1ull << 40;
	refuses(f);
	f = hashes;
	f.region = NREGIONS;
	refuses(f);
	f = hashed;
	f.count--; /* of all pages of the chunk, */
	f.length -= WIRE_HASH_SIZE;
	refuses(f);
	f = hashed;
	f.length--;
	refuses(f);
	f = hashed;
	f.extent = PAGE_BYTES; /* or of nothing */
	refuses(f);
	f = nothing;
	f.extent = 0;
	refuses(f);
	f = nothing;
	f.extent = PAGE_BYTES + 1;
	refuses(f);
	f = nothing;
	f.extent = 1ull << 40;
	refuses(f);
}

static void test_ack_header(void **state)
{
	(void)state;
	for (unsigned int of = 0; of < 256; of++) {
		struct wire_frame f = { .type = WIRE_ACK, .of = (uint8_t)of };

		if (of == WIRE_ROUND_END || of == WIRE_STATE_END || of == WIRE_VERIFY_END ||
		    of == WIRE_HELD || of == WIRE_MISSING_END)
			accepts(f);
		else
			refuses(f);
	}
	struct wire_frame f = { .type = WIRE_ACK, .of = WIRE_ROUND_END, .number = 1, .extent = 1 };

	refuses(f);
	f = (struct wire_frame){ .type = WIRE_ACK, .of = WIRE_STATE_END, .number = 1 };
	refuses(f);
	f = good[9];
	f.number = 1;
	refuses(f);
	f = good[9];
	f.extent = 0; /* no mismatch, and yet a first one */
	refuses(f);
	f = good[9];
	f.region = NREGIONS;
	refuses(f);
	f = good[9];
	f.offset = 3ull * CHUNK_BYTES;
	refuses(f);
	f.offset = 4096;
	refuses(f);
	f = good[9];
	f.length = 1;
	refuses(f);
}

/* Descriptors for a chunk of regions[region] at offset, with a header whose length fits. */
static int decode_runs(unsigned int region, uint64_t offset, const struct wire_run *in,
		       uint32_t count, int64_t extra, struct wire_run *out)
{
	struct wire_frame f = {
		.type = WIRE_PAGES, .region = (uint16_t)region, .offset = offset, .count = count
	};
	size_t len = count * WIRE_RUN_SIZE;
	/* exactly the bytes there are, so that the sanitizer sees one read too many */
	uint8_t *bytes = malloc(len ? len : 1);
	int64_t payload = extra;
	int err;

	assert_non_null(bytes);
	for (uint32_t i = 0; i < count; i++) {
		wire_put_run(bytes + i * WIRE_RUN_SIZE, &in[i]);
		payload += in[i].length;
	}
	f.length = (uint32_t)((int64_t)len + payload);
	err = wire_get_runs(out, bytes, len, &f, &regions[region]);
	free(bytes);
	return err;
}

static struct wire_run decoded[WIRE_RUNS_MAX];

#define RUNS_OK(region, offset, ...)                                                               \
	do {                                                                                       \
		const struct wire_run in_[] = { __VA_ARGS__ };                                     \
		uint32_t n_ = sizeof(in_) / sizeof(in_[0]);                                        \
		assert_int_equal(decode_runs(region, offset, in_, n_, 0, decoded), 0);             \
		for (uint32_t i_ = 0; i_ < n_; i_++) {                                             \
			assert_int_equal(decoded[i_].page, in_[i_].page);                          \
			assert_int_equal(decoded[i_].pages, in_[i_].pages);                        \
			assert_int_equal(decoded[i_].encoding, in_[i_].encoding);                  \
			assert_int_equal(decoded[i_].length, in_[i_].length);                      \
		}                                                                                  \
	} while (0)
#define RUNS_BAD(region, offset, ...)                                                              \
	do {                                                                                       \
		const struct wire_run in_[] = { __VA_ARGS__ };                                     \
		uint32_t n_ = sizeof(in_) / sizeof(in_[0]);                                        \
		assert_int_equal(decode_runs(region, offset, in_, n_, 0, decoded), -EBADMSG);      \
	} while (0)
#define RAW(page, pages)                                                                           \
	{                                                                                          \
		page, pages, WIRE_ENC_RAW, (pages)*PAGE_BYTES                                      \
	}
#define ZERO(page, pages)                                                                          \
	{                                                                                          \
		page, pages, WIRE_ENC_ZERO, 0                                                      \
	}
#define HOLE(page, pages)                                                                          \
	{                                                                                          \
		page, pages, WIRE_ENC_HOLE, 0                                                      \
	}

static void test_runs_round_trip(void **state)
{
	(void)state;
	RUNS_OK(0, 0, RAW(0, 512));
	RUNS_OK(0, 0, RAW(0, 1), ZERO(1, 2), HOLE(3, 4), RAW(7, 505));
	RUNS_OK(0, CHUNK_BYTES, RAW(511, 1));
	RUNS_OK(0, 0, { 4, 2, WIRE_ENC_ZSTD, 1 }, { 6, 2, WIRE_ENC_DELTA, 2 * PAGE_BYTES - 1 });
	struct wire_run all[WIRE_RUNS_MAX];

	for (uint16_t i = 0; i < WIRE_RUNS_MAX; i++)
		all[i] = (struct wire_run)RAW(i, 1);
	assert_int_equal(decode_runs(0, 0, all, WIRE_RUNS_MAX, 0, decoded), 0);
}

static void test_runs_out_of_order_or_place(void **state)
{
	(void)state;
	RUNS_BAD(0, 0, RAW(0, 2), RAW(1, 1));	/* overlapping */
	RUNS_BAD(0, 0, RAW(5, 1), RAW(5, 1));	/* twice */
	RUNS_BAD(0, 0, ZERO(5, 1), ZERO(4, 1)); /* falling */
	RUNS_BAD(0, 0, ZERO(0, 0));		/* empty */
	RUNS_BAD(0, 0, ZERO(0, 513));		/* more than a chunk */
	RUNS_BAD(0, 0, ZERO(511, 2));		/* across its end */
	RUNS_BAD(0, 0, ZERO(512, 1));		/* behind it */
	RUNS_BAD(0, 0, ZERO(UINT16_MAX, 1));
	RUNS_BAD(0, 0, ZERO(1, UINT16_MAX)); /* in 16 bits this wraps to 0 */
	RUNS_BAD(0, 0, ZERO(UINT16_MAX, UINT16_MAX));
}

static void test_runs_in_a_partial_chunk(void **state)
{
	(void)state;
	RUNS_OK(1, 2ull * CHUNK_BYTES, RAW(0, 5));
	RUNS_OK(1, 2ull * CHUNK_BYTES, RAW(4, 1));
	RUNS_BAD(1, 2ull * CHUNK_BYTES, RAW(0, 6));
	RUNS_BAD(1, 2ull * CHUNK_BYTES, ZERO(5, 1));
	RUNS_BAD(1, 2ull * CHUNK_BYTES, HOLE(0, 512));
	RUNS_OK(1, CHUNK_BYTES, RAW(0, 512));
	/* an offset that the header's check would have refused is not trusted here either */
	RUNS_BAD(1, 3ull * CHUNK_BYTES, ZERO(0, 1));
	RUNS_BAD(1, 0ull - CHUNK_BYTES, ZERO(0, 1));
}

static void test_run_lengths(void **state)
{
	(void)state;
	RUNS_BAD(0, 0, { 0, 1, WIRE_ENC_RAW, PAGE_BYTES - 1 });
	RUNS_BAD(0, 0, { 0, 1, WIRE_ENC_RAW, PAGE_BYTES + 1 });
	RUNS_BAD(0, 0, { 0, 1, WIRE_ENC_RAW, 0 });
	RUNS_BAD(0, 0, { 0, 2, WIRE_ENC_RAW, PAGE_BYTES });
	RUNS_BAD(0, 0, { 0, 1, WIRE_ENC_ZERO, 1 });
	RUNS_BAD(0, 0, { 0, 1, WIRE_ENC_HOLE, PAGE_BYTES });
	RUNS_BAD(0, 0, { 0, 1, WIRE_ENC_ZSTD, 0 });
	RUNS_BAD(0, 0, { 0, 1, WIRE_ENC_ZSTD, PAGE_BYTES });
	RUNS_BAD(0, 0, { 0, 1, WIRE_ENC_DELTA, UINT32_MAX });
	for (unsigned int e = WIRE_ENC_DELTA + 1; e < 256; e++)
		RUNS_BAD(0, 0, { 0, 1, (uint8_t)e, 0 });
}

static void test_runs_must_add_up(void **state)
{
	const struct wire_run two[] = { RAW(0, 2), RAW(4, 1) };
	uint8_t bytes[2 * WIRE_RUN_SIZE];
	struct wire_frame f = { .type = WIRE_PAGES, .count = 2 };

	(void)state;
	assert_int_equal(decode_runs(0, 0, two, 2, 0, decoded), 0);
	assert_int_equal(decode_runs(0, 0, two, 2, 1, decoded), -EBADMSG);
	assert_int_equal(decode_runs(0, 0, two, 2, -1, decoded), -EBADMSG);
	assert_int_equal(decode_runs(0, 0, two, 2, -3 * (int64_t)PAGE_BYTES, decoded), -EBADMSG);
	/* fewer descriptors than the header counts, and a header too short for its own */
	wire_put_run(bytes, &two[0]);
	wire_put_run(bytes + WIRE_RUN_SIZE, &two[1]);
	f.length = sizeof(bytes) + 3 * PAGE_BYTES;
	for (size_t len = 0; len < sizeof(bytes); len++)
		assert_int_equal(wire_get_runs(decoded, bytes, len, &f, &regions[0]), -EBADMSG);
	assert_int_equal(wire_get_runs(decoded, bytes, sizeof(bytes), &f, &regions[0]), 0);
	f.length = WIRE_RUN_SIZE;
	assert_int_equal(wire_get_runs(decoded, bytes, sizeof(bytes), &f, &regions[0]), -EBADMSG);
	f.count = UINT32_MAX;
	assert_int_equal(wire_get_runs(decoded, bytes, sizeof(bytes), &f, &regions[0]), -EBADMSG);
}

static void test_run_padding_must_be_zero(void **state)
{
	struct wire_run r = ZERO(0, 1);
	struct wire_frame f = { .type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE };
	uint8_t bytes[WIRE_RUN_SIZE];

	(void)state;
	for (unsigned int at = 5; at < 8; at++) {
		wire_put_run(bytes, &r);
		assert_int_equal(wire_get_runs(decoded, bytes, sizeof(bytes), &f, &regions[0]), 0);
		bytes[at] = 1;
		assert_int_equal(wire_get_runs(decoded, bytes, sizeof(bytes), &f, &regions[0]),
				 -EBADMSG);
	}
}

/* Random bytes: whatever is accepted keeps every promise of the decoder. */
static void test_random_input_keeps_the_bounds(void **state)
{
	uint64_t x = 88172645463325252ull;
	unsigned int taken = 0;

	(void)state;
	for (unsigned int i = 0; i < 200000; i++) {
		uint8_t bytes[WIRE_FRAME_SIZE];
		struct wire_frame f;

		for (size_t b = 0; b < sizeof(bytes); b++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			/* mostly zeros, or nothing would ever be accepted */
			bytes[b] = x & 0x700000 ? 0 : (uint8_t)(x >> 32) & (x & 8 ? 0xff : 0x21);
		}
		bytes[0] = (uint8_t)(x % 11);
		if (wire_get_frame(&f, bytes, regions, NREGIONS))
			continue;
		taken++;
		assert_true(f.region < NREGIONS);
		assert_true(f.length <= WIRE_PAYLOAD_MAX);
		if (f.type == WIRE_HOLES)
			assert_true(f.offset + f.extent > f.offset &&
				    f.offset + f.extent <= regions[f.region].size);
		else
			assert_true(f.offset < regions[f.region].size);
	}
	assert_true(taken > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello_round_trip),
		cmocka_unit_test(test_hello_refusals),
		cmocka_unit_test(test_layout_is_little_endian),
		cmocka_unit_test(test_frames_round_trip),
		cmocka_unit_test(test_unknown_types),
		cmocka_unit_test(test_unused_fields_must_be_zero),
		cmocka_unit_test(test_pages_header),
		cmocka_unit_test(test_holes_header),
		cmocka_unit_test(test_missing_and_request),
		cmocka_unit_test(test_state_header),
		cmocka_unit_test(test_verify_header),
		cmocka_unit_test(test_hashes_header),
		cmocka_unit_test(test_ack_header),
		cmocka_unit_test(test_runs_round_trip),
		cmocka_unit_test(test_runs_out_of_order_or_place),
		cmocka_unit_test(test_runs_in_a_partial_chunk),
		cmocka_unit_test(test_run_lengths),
		cmocka_unit_test(test_runs_must_add_up),
		cmocka_unit_test(test_run_padding_must_be_zero),
		cmocka_unit_test(test_random_input_keeps_the_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
