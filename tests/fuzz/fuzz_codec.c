// SPDX-License-Identifier: MIT
/*
 * Encoded runs of pages. What comes from the network expands within its room or not at all, and a
 * DELTA that is accepted is what its checksum says. What an encoder makes of pages, of their next
 * version and of one sent otherwise in between expands to these pages.
 *
 * Input: a byte of flags; hostile: a byte of pages, then the payload; else the seeds of pages.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "dataplane/codec/decode.h"
#include "dataplane/codec/encode.h"
#include "tests/fuzz/fuzz.h"

enum { FLAG_ROUND_TRIP = 1, FLAG_DELTA = 2, FLAG_HEADER = 4 };

#define PAGES	 48u
#define VERSIONS 4u

static struct region region = { .size = CHUNK_BYTES, .fd = -1 };
static struct decoder decoder;
static struct encoder encoder;
static uint8_t *ram, *buffer, *present;

static void set_up(void)
{
	if (ram)
		return;
	region.fd = memfd_create("fuzz-ram", MFD_CLOEXEC);
	fuzz_check(region.fd >= 0 && !ftruncate(region.fd, CHUNK_BYTES));
	ram = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, region.fd, 0);
	buffer = malloc(CHUNK_BYTES);
	present = malloc(CHUNK_BYTES);
	fuzz_check(ram != MAP_FAILED && buffer && present);
	fuzz_check(!decoder_init(&decoder) && !encoder_init(&encoder));
}

static void hostile(struct fuzz_input *in, uint8_t flags)
{
	/* today's format, one segment, a checksum, two bytes of size */
	static const uint8_t head[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x64 };
	size_t out_len = (1 + fuzz_u8(in) % WIRE_ENCODED_PAGES_MAX) * (size_t)PAGE_BYTES;
	size_t len = in->left, at = 0;
	uint8_t *payload, *out = malloc(out_len);
	int err;

	payload = malloc(sizeof(head) + 2 + len + 1);
	fuzz_check(payload && out);
	if ((flags & FLAG_HEADER) && out_len <= 16 * PAGE_BYTES - 256) {
		memcpy(payload, head, sizeof(head));
		payload[sizeof(head)] = (uint8_t)(out_len - 256);
		payload[sizeof(head) + 1] = (uint8_t)((out_len - 256) >> 8);
		at = sizeof(head) + 2;
	}
	memcpy(payload + at, in->p, len);
	/* exactly as long as it is, for the address sanitizer */
	payload = realloc(payload, at + len ? at + len : 1);
	memset(present, 0x41, out_len);
	err = flags & FLAG_DELTA ? decode_delta(&decoder, payload, at + len, present, out, out_len)
				 : decode_zstd(&decoder, payload, at + len, out, out_len);
	fuzz_check(!err || err == -EBADMSG || (err == -EILSEQ && (flags & FLAG_DELTA)));
	if (!err && (flags & FLAG_DELTA)) {
		uint32_t sum = (uint32_t)XXH64(out, out_len, 0), said;

		memcpy(&said, payload + at + len - sizeof(said), sizeof(said));
		fuzz_check(sum == said);
	}
	free(payload);
	free(out);
}

/* Changes pages as the input says; what it says of a page is repeated all over it. */
static void write_pages(struct fuzz_input *in)
{
	for (uint32_t page = 0; page < PAGES && in->left; page++) {
		uint8_t *p = ram + page * PAGE_BYTES, what = fuzz_u8(in);
		size_t n = what % 16;
		const uint8_t *bytes = fuzz_bytes(in, &n);

		if (what & 0x80) { /* here and there */
			for (size_t i = 0; i < n; i++)
				p[(i * 257 + what) % PAGE_BYTES] = bytes[i];
		} else if (what & 0x40) { /* noise */
			for (size_t i = 0; i < PAGE_BYTES; i++)
				p[i] = (uint8_t)((i * 2654435761u + what) >> 13);
		} else if (n) {
			for (size_t i = 0; i < PAGE_BYTES; i++)
				p[i] = bytes[i % n];
		}
	}
}

/* What the destination makes of it. */
static void apply(const struct chunk_plan *plan)
{
	uint8_t pages[DECODE_BYTES_MAX];

	for (uint32_t i = 0; i < plan->count; i++) {
		const struct plan_run *r = &plan->runs[i];
		size_t at = r->page * PAGE_BYTES, len = r->pages * (size_t)PAGE_BYTES;
		const uint8_t *from = pages;

		fuzz_check(at + len <= CHUNK_BYTES);
		if (r->encoding == WIRE_ENC_RAW)
			from = r->data ? r->data : ram + at;
		else if (r->encoding == WIRE_ENC_ZSTD)
			fuzz_check(!decode_zstd(&decoder, r->data, r->length, pages, len));
		else
			fuzz_check(!decode_delta(&decoder, r->data, r->length, present + at, pages,
						 len));
		memcpy(present + at, from, len);
	}
}

static void round_trip(struct fuzz_input *in)
{
	static struct chunk_plan plan, out;
	struct scheduler_chunk c = { .region = &region, .pages = CHUNK_PAGES };
	struct encode_memory memory = { 0 };
	struct encode_result result;
	struct delta_cache *cache;

	fuzz_check(!delta_cache_new(&cache, 1 << 20, &region, 1));
	memset(ram, 0, PAGES * PAGE_BYTES);
	memset(present, 0xff, PAGES * PAGE_BYTES);
	for (uint32_t round = 1; round <= VERSIONS; round++) {
		struct encode_how how = { .level = 1 + round % 3, .cache = cache, .round = round };
		uint32_t first = fuzz_u8(in) % PAGES;

		write_pages(in);
		/* some go by reference, beside the encoder */
		memcpy(present + first * PAGE_BYTES, ram + first * PAGE_BYTES,
		       (PAGES - first) * PAGE_BYTES);
		delta_cache_forget(cache, &region, first, PAGES - first);
		plan_begin(&plan, &c);
		if (first)
			plan_add(&plan, 0, first, WIRE_ENC_RAW);
		fuzz_check(!encoder_run(&encoder, &how, &memory, &plan, &out, buffer, &result));
		apply(&out);
		fuzz_check(!memcmp(ram, present, PAGES * PAGE_BYTES));
	}
	delta_cache_free(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint8_t flags = fuzz_u8(&in);

	set_up();
	if (flags & FLAG_ROUND_TRIP)
		round_trip(&in);
	else
		hostile(&in, flags);
	return 0;
}
