// SPDX-License-Identifier: MIT
/*
 * The decoders of the data streams' format: hello, frames, runs. What they accept must lie inside
 * the session's regions, and be what the encoders make of it again.
 *
 * Input: a byte of flags (1: a hello follows), then frames; after a PAGES header its descriptors.
 */
#include <errno.h>

#include "dataplane/transport/wire.h"
#include "tests/fuzz/fuzz.h"

static const struct region regions[] = {
	{ .index = 0, .page_size = PAGE_BYTES, .size = 2ull * CHUNK_BYTES + 5 * PAGE_BYTES },
	{ .index = 1, .page_size = PAGE_BYTES, .size = PAGE_BYTES },
	{ .index = 2, .page_size = CHUNK_BYTES, .size = 24ull << 40, .hugetlb = true },
};
#define NREGIONS (sizeof(regions) / sizeof(regions[0]))

static void try_hello(struct fuzz_input *in)
{
	uint8_t bytes[WIRE_HELLO_SIZE], again[WIRE_HELLO_SIZE];
	struct wire_hello h;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = fuzz_u8(in);
	if (wire_get_hello(&h, bytes))
		return;
	fuzz_check(h.streams <= IPC_STREAMS_MAX && h.stream < h.streams);
	wire_put_hello(again, &h);
	fuzz_check(!memcmp(bytes, again, sizeof(again)));
}

static void check_frame(const struct wire_frame *f)
{
	const struct region *r = &regions[f->region];

	fuzz_check(f->region < NREGIONS);
	switch (f->type) {
	case WIRE_PAGES:
		fuzz_check(f->offset < r->size && f->offset % CHUNK_BYTES == 0);
		fuzz_check(f->count && f->count <= WIRE_RUNS_MAX && f->length <= WIRE_PAYLOAD_MAX);
		break;
	case WIRE_HOLES:
		fuzz_check(f->extent && f->extent <= r->size && f->offset <= r->size - f->extent);
		break;
	case WIRE_STATE:
		fuzz_check(f->length && f->length <= WIRE_STATE_MAX);
		break;
	case WIRE_VERIFY:
		fuzz_check(f->length == 8ull * f->count && f->offset < r->size);
		fuzz_check((uint64_t)f->count - 1 <= (r->size - 1 - f->offset) / CHUNK_BYTES);
		break;
	case WIRE_HASHED:
		fuzz_check(f->offset < r->size && f->length <= WIRE_HASHED_MAX);
		fuzz_check(f->extent ? f->extent <= r->size - f->offset
				     : f->count && f->length == 8ull * f->count);
		break;
	case WIRE_MISSING:
		fuzz_check(f->count && f->count <= WIRE_MISSING_MAX);
		fuzz_check(f->length == f->count * WIRE_MISSING_SIZE && f->offset < r->size);
		break;
	case WIRE_REQUEST:
		fuzz_check(f->extent && f->extent <= CHUNK_BYTES && !f->length);
		fuzz_check(f->offset < r->size && f->extent <= r->size - f->offset);
		fuzz_check(f->offset / CHUNK_BYTES == (f->offset + f->extent - 1) / CHUNK_BYTES);
		break;
	default:
		fuzz_check(!f->length);
	}
}

static void try_runs(struct fuzz_input *in, const struct wire_frame *f)
{
	static struct wire_run runs[WIRE_RUNS_MAX];
	size_t len = f->count * WIRE_RUN_SIZE;
	const uint8_t *bytes = fuzz_bytes(in, &len);
	uint64_t payload = 0, next = 0;

	if (wire_get_runs(runs, bytes, len, f, &regions[f->region]))
		return;
	fuzz_check(len == f->count * WIRE_RUN_SIZE);
	for (uint32_t i = 0; i < f->count; i++) {
		uint8_t again[WIRE_RUN_SIZE];

		fuzz_check(runs[i].page >= next && runs[i].pages);
		next = (uint64_t)runs[i].page + runs[i].pages;
		fuzz_check(next <= CHUNK_PAGES);
		fuzz_check(f->offset + next * PAGE_BYTES <= regions[f->region].size);
		fuzz_check(runs[i].length <= runs[i].pages * PAGE_BYTES);
		payload += runs[i].length;
		wire_put_run(again, &runs[i]);
		fuzz_check(!memcmp(again, bytes + i * WIRE_RUN_SIZE, sizeof(again)));
	}
	fuzz_check(payload + len == f->length);
}

static void try_missing(struct fuzz_input *in, const struct wire_frame *f)
{
	const struct region *r = &regions[f->region];
	uint64_t words[CHUNK_PAGES / 64], left = (r->size - f->offset) >> PAGE_SHIFT;
	uint8_t bytes[WIRE_MISSING_SIZE], again[WIRE_MISSING_SIZE];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = fuzz_u8(in);
	if (wire_get_missing(words, bytes, r, f->offset))
		return;
	for (uint64_t page = left; page < CHUNK_PAGES; page++)
		fuzz_check(!(words[page / 64] >> (page % 64) & 1));
	wire_put_missing(again, words);
	fuzz_check(!memcmp(bytes, again, sizeof(again)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };

	if (fuzz_u8(&in) & 1)
		try_hello(&in);
	while (in.left >= WIRE_FRAME_SIZE) {
		size_t n = WIRE_FRAME_SIZE;
		const uint8_t *bytes = fuzz_bytes(&in, &n);
		uint8_t again[WIRE_FRAME_SIZE];
		struct wire_frame f;

		if (wire_get_frame(&f, bytes, regions, NREGIONS))
			continue;
		check_frame(&f);
		wire_put_frame(again, &f);
		fuzz_check(!memcmp(bytes, again, sizeof(again)));
		if (f.type == WIRE_PAGES)
			try_runs(&in, &f);
		if (f.type == WIRE_MISSING)
			try_missing(&in, &f);
	}
	return 0;
}
