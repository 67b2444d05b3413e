// SPDX-License-Identifier: MIT
/* Encoder and decoder against each other: a chunk's versions, applied at a model destination. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/codec/decode.h"
#include "dataplane/codec/encode.h"
#include "dataplane/source/page_reader.h"
#include "tests/unit/dataplane/content.h"

#define CHUNKS 2

static struct region region = { .size = CHUNKS * (uint64_t)CHUNK_BYTES, .fd = -1 };
static uint8_t *ram, *dst; /* the guest's, mapped; what the destination holds */
static struct encoder encoder;
static struct decoder decoder;
static struct encode_memory memory[CHUNKS];
static uint8_t *buffer;
static struct chunk_plan in, out;
static struct encode_result result;

static int setup(void **state)
{
	(void)state;
	region.fd = memfd_create("ram", MFD_CLOEXEC);
	if (region.fd < 0 || ftruncate(region.fd, (off_t)region.size))
		return -1;
	ram = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, region.fd, 0);
	dst = calloc(1, region.size);
	buffer = malloc(CHUNK_BYTES);
	return encoder_init(&encoder) || decoder_init(&decoder);
}

static int teardown(void **state)
{
	(void)state;
	munmap(ram, region.size);
	close(region.fd);
	free(dst);
	free(buffer);
	encoder_release(&encoder);
	decoder_release(&decoder);
	return 0;
}

static void fill(uint32_t chunk, enum content kind)
{
	for (uint32_t i = 0; i < CHUNK_PAGES; i++)
		content_page(ram + (uint64_t)chunk * CHUNK_BYTES + i * PAGE_BYTES, kind,
			     chunk * CHUNK_PAGES + i + 1);
}

/* A plan of pages first .. first + count - 1 of a chunk, with runs of at most `longest`. */
static void plan_pages(uint32_t chunk, uint32_t first, uint32_t count, uint32_t longest)
{
	struct scheduler_chunk c = { .region = &region,
				     .first_page = chunk * CHUNK_PAGES,
				     .pages = CHUNK_PAGES };

	plan_begin(&in, &c);
	for (uint32_t at = first; at < first + count; at += longest)
		plan_add(&in, at, first + count - at < longest ? first + count - at : longest,
			 WIRE_ENC_RAW);
}

static void encode(const struct encode_how *how)
{
	assert_int_equal(encoder_run(&encoder, how, &memory[in.first_page / CHUNK_PAGES], &in, &out,
				     buffer, &result),
			 0);
}

/* What the destination makes of out; wire bytes of it, descriptors included. */
static uint64_t apply(void)
{
	uint8_t page[DECODE_BYTES_MAX];
	uint32_t next = 0;
	uint64_t bytes = WIRE_FRAME_SIZE;

	for (uint32_t i = 0; i < out.count; i++) {
		const struct plan_run *r = &out.runs[i];
		uint64_t at = (out.first_page + r->page) * PAGE_BYTES;
		size_t len = (size_t)r->pages * PAGE_BYTES;

		assert_true(r->page >= next && r->page + r->pages <= CHUNK_PAGES);
		next = (uint32_t)r->page + r->pages;
		bytes += WIRE_RUN_SIZE + r->length;
		switch (r->encoding) {
		case WIRE_ENC_RAW:
			assert_int_equal(r->length, len);
			/* by a call, as the kernel sends it: the guest may be writing */
			if (r->data)
				memcpy(dst + at, r->data, len);
			else
				assert_int_equal(pread(region.fd, dst + at, len, (off_t)at),
						 (ssize_t)len);
			break;
		case WIRE_ENC_ZERO:
		case WIRE_ENC_HOLE:
			assert_int_equal(r->length, 0);
			memset(dst + at, 0, len);
			break;
		case WIRE_ENC_ZSTD:
			assert_in_range(r->length, 1, len - 1);
			assert_int_equal(decode_zstd(&decoder, r->data, r->length, page, len), 0);
			memcpy(dst + at, page, len);
			break;
		case WIRE_ENC_DELTA:
			assert_int_equal(
				decode_delta(&decoder, r->data, r->length, dst + at, page, len), 0);
			memcpy(dst + at, page, len);
			break;
		default:
			fail();
		}
	}
	return bytes;
}

static void same(uint32_t chunk)
{
	assert_memory_equal(ram + (uint64_t)chunk * CHUNK_BYTES,
			    dst + (uint64_t)chunk * CHUNK_BYTES, CHUNK_BYTES);
}

static void forget_everything(void)
{
	memset(memory, 0, sizeof(memory));
}

static void test_contents(void **state)
{
	(void)state;
	for (int kind = CONTENT_TEXT; kind < CONTENTS; kind++)
		for (int level = 1; level <= 19; level += 6)
			for (uint32_t longest = 1; longest <= CHUNK_PAGES; longest *= 8) {
				uint64_t bytes;

				forget_everything();
				fill(0, (enum content)kind);
				memset(dst, 0xff, region.size);
				plan_pages(0, 0, CHUNK_PAGES, longest);
				encode(&(struct encode_how){ .level = level });
				bytes = apply();
				same(0);
				assert_int_equal(result.data, CHUNK_BYTES);
				if (kind == CONTENT_TEXT)
					assert_true(bytes < CHUNK_BYTES / 2 &&
						    result.zstd_in == CHUNK_BYTES);
				if (kind == CONTENT_MIXED)
					assert_true(bytes < CHUNK_BYTES * 3 / 4);
				if (kind == CONTENT_RANDOM)
					assert_int_equal(result.zstd_in, 0);
			}
}

/* What does not compress stays the guest's own pages, in runs as long as they were. */
static void test_random_goes_by_reference(void **state)
{
	(void)state;
	forget_everything();
	fill(0, CONTENT_RANDOM);
	plan_pages(0, 3, 500, 500);
	encode(&(struct encode_how){ .level = 1 });
	assert_int_equal(out.count, 1);
	assert_null(out.runs[0].data);
	assert_int_equal(out.runs[0].pages, 500);
	/* and is not tried again for a while */
	for (int skip = 0; skip < 1 + 3 + 7; skip++) {
		if (skip == 1 || skip == 4)
			encode(&(struct encode_how){ .level = 1 });
		encode(&(struct encode_how){ .level = 1 });
		assert_int_equal(result.tried, 0);
		assert_int_equal(result.data, 500 * PAGE_BYTES);
	}
	/* until it has become something else */
	fill(0, CONTENT_TEXT);
	encode(&(struct encode_how){ .level = 1 });
	assert_int_equal(result.zstd_in, 500 * PAGE_BYTES);
	encode(&(struct encode_how){ .level = 1 });
	assert_int_equal(result.zstd_in, 500 * PAGE_BYTES);
}

/* Runs of a snapshot that is not the encoder's are sent from it, whatever the guest has by now. */
static void test_foreign_snapshot(void **state)
{
	static uint8_t copy[CHUNK_BYTES];
	struct scheduler_chunk c = { .region = &region, .pages = CHUNK_PAGES };

	(void)state;
	forget_everything();
	for (int kind = CONTENT_TEXT; kind < CONTENTS; kind++) {
		fill(0, (enum content)kind);
		memcpy(copy, ram, sizeof(copy));
		memset(ram, 0x77, CHUNK_BYTES);
		plan_begin(&in, &c);
		plan_add_data(&in, 0, CHUNK_PAGES, WIRE_ENC_RAW, copy, CHUNK_BYTES);
		for (int times = 0; times < 3; times++) {
			memset(dst, 0, CHUNK_BYTES);
			encode(&(struct encode_how){ .level = 1 });
			for (uint32_t i = 0; i < out.count; i++)
				assert_true(out.runs[i].data >= buffer &&
					    out.runs[i].data + out.runs[i].length <=
						    buffer + CHUNK_BYTES);
			apply();
			assert_memory_equal(dst, copy, CHUNK_BYTES);
		}
	}
}

static void change(uint64_t page, uint32_t at, uint32_t bytes, uint64_t *x)
{
	for (uint32_t i = 0; i < bytes; i++)
		ram[page * PAGE_BYTES + (at + i) % PAGE_BYTES] = (uint8_t)(content_next(x) >> 13);
}

/* 64 bytes of each page change: at most 200 bytes a page on the wire, from the third round on. */
static void test_delta_is_small(void **state)
{
	struct delta_cache *cache;
	uint64_t x = 42, bytes = 0;

	(void)state;
	assert_int_equal(delta_cache_new(&cache, 16 << 20, &region, 1), 0);
	for (int kind = CONTENT_TEXT; kind <= CONTENT_RANDOM; kind++) {
		forget_everything();
		fill(0, (enum content)kind);
		for (uint32_t round = 1; round <= 5; round++) {
			struct encode_how how = { .level = 1, .cache = cache, .round = round };

			plan_pages(0, 0, CHUNK_PAGES, CHUNK_PAGES);
			encode(&how);
			bytes = apply();
			same(0);
			if (round > 2) {
				assert_int_equal(result.delta_in, CHUNK_BYTES);
				assert_true(bytes / CHUNK_PAGES <= 200);
			} else {
				assert_int_equal(result.delta_in, 0);
			}
			for (uint32_t i = 0; i < CHUNK_PAGES; i++)
				change(i, (uint32_t)(content_next(&x) % PAGE_BYTES), 64, &x);
		}
		print_message("%s: %.1f bytes a page\n", content_names[kind],
			      (double)bytes / CHUNK_PAGES);
		delta_cache_forget(cache, &region, 0, CHUNK_PAGES);
	}
	delta_cache_free(cache);
}

/* DELTA where it is smaller than the page by itself, and only there. */
static void test_delta_only_if_smaller(void **state)
{
	struct delta_cache *cache;
	uint64_t bytes = 0;

	(void)state;
	assert_int_equal(delta_cache_new(&cache, 16 << 20, &region, 1), 0);
	for (uint32_t round = 2; round <= 3; round++) {
		for (uint64_t i = 0; i < 32; i++) {
			uint8_t text[PAGE_BYTES];

			content_random(ram + i * PAGE_BYTES, i);
			content_text(text, i);
			if (round == 3)
				memcpy(ram + i * PAGE_BYTES + 2048, text, 2048);
		}
		plan_pages(0, 0, 32, 32);
		encode(&(struct encode_how){ .level = 3, .cache = cache, .round = round });
		bytes = apply();
		assert_memory_equal(ram, dst, 32 * PAGE_BYTES);
	}
	/* half of each page is noise that is known: only a DELTA has that for nothing */
	assert_int_equal(result.delta_in, 32 * PAGE_BYTES);
	assert_true(bytes < 32 * 2048);
	/* pages of one value are nearly nothing, whatever they were */
	memset(ram, 5, 32 * PAGE_BYTES);
	encode(&(struct encode_how){ .level = 3, .cache = cache, .round = 4 });
	bytes = apply();
	assert_memory_equal(ram, dst, 32 * PAGE_BYTES);
	assert_int_equal(result.delta_in, 0);
	assert_true(bytes < 200);
	delta_cache_free(cache);
}

/* Pages that change kind, go by other ways and come back, over many rounds. */
static void test_random_life(void **state)
{
	uint64_t x = 88172645463325252ull, deltas = 0;
	struct delta_cache *cache;

	(void)state;
	/* room for a third of it */
	assert_int_equal(delta_cache_new(&cache, CHUNKS * CHUNK_BYTES / 3, &region, 1), 0);
	forget_everything();
	memset(dst, 0, region.size);
	memset(ram, 0, region.size);
	for (uint32_t round = 1; round < 150; round++) {
		struct scheduler_chunk c = { .region = &region, .pages = CHUNK_PAGES };
		struct encode_how how = { .level = 1, .cache = cache, .round = round };
		uint32_t page = 0;

		c.first_page = round % CHUNKS * CHUNK_PAGES;
		plan_begin(&in, &c);
		while (page < CHUNK_PAGES) {
			uint32_t n = 1 + (uint32_t)(content_next(&x) % 60), what;
			uint8_t *p = ram + (c.first_page + page) * PAGE_BYTES;

			if (n > CHUNK_PAGES - page)
				n = CHUNK_PAGES - page;
			what = (uint32_t)(content_next(&x) >> 20) % 10;
			if (what == 0) {
				memset(p, 0, n * PAGE_BYTES);
				plan_add(&in, page, n, WIRE_ENC_ZERO);
			} else if (what < 3) {
				for (uint32_t i = 0; i < n; i++)
					content_page(p + i * PAGE_BYTES, (enum content)what,
						     content_next(&x));
				plan_add(&in, page, n, WIRE_ENC_RAW);
			} else if (what < 8) {
				for (uint32_t i = 0; i < n; i++)
					change(c.first_page + page + i, (uint32_t)(x % 4096),
					       (uint32_t)(x >> 32) % (what == 7 ? 4096 : 100), &x);
				plan_add(&in, page, n, WIRE_ENC_RAW);
			} else if (what == 8) { /* by reference, beside the encoders */
				change(c.first_page + page, 9, 8, &x);
				delta_cache_forget(cache, &region, c.first_page + page, n);
				memcpy(dst + (c.first_page + page) * PAGE_BYTES, p, n * PAGE_BYTES);
			}
			page += n;
		}
		encode(&how);
		apply();
		deltas += result.delta_in / PAGE_BYTES;
		assert_memory_equal(ram, dst, region.size);
	}
	assert_true(deltas > 1000);
	delta_cache_free(cache);
}

static bool writing;

/* Flips every word of the chunk between two values. */
static void *flip(void *arg)
{
	volatile uint64_t *word = (volatile uint64_t *)ram;

	(void)arg;
	for (uint64_t i = 0; __atomic_load_n(&writing, __ATOMIC_RELAXED); i++)
		word[i % (CHUNK_BYTES / 8)] = i / 3 % 2 ? 0x4141414141414141ull : i;
	return NULL;
}

/* The guest writes all the while: whatever is encoded expands, and to what is remembered. */
static void test_guest_writes_meanwhile(void **state)
{
	struct delta_cache *cache;
	pthread_t writer;

	(void)state;
	assert_int_equal(delta_cache_new(&cache, 16 << 20, &region, 1), 0);
	forget_everything();
	writing = true;
	assert_int_equal(pthread_create(&writer, NULL, flip, NULL), 0);
	for (uint32_t round = 1; round < 60; round++) {
		plan_pages(0, 0, CHUNK_PAGES, CHUNK_PAGES);
		encode(&(struct encode_how){ .level = 1, .cache = cache, .round = round });
		apply(); /* fails if something does not expand or does not fit its base */
	}
	__atomic_store_n(&writing, false, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	plan_pages(0, 0, CHUNK_PAGES, CHUNK_PAGES);
	encode(&(struct encode_how){ .level = 1, .cache = cache, .round = 60 });
	apply();
	same(0);
	delta_cache_free(cache);
}

static void test_stop(void **state)
{
	const bool stop = true;

	(void)state;
	plan_pages(0, 0, CHUNK_PAGES, CHUNK_PAGES);
	assert_int_equal(encoder_run(&encoder, &(struct encode_how){ .level = 1, .stop = &stop },
				     memory, &in, &out, buffer, &result),
			 -ECANCELED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contents),
		cmocka_unit_test(test_random_goes_by_reference),
		cmocka_unit_test(test_foreign_snapshot),
		cmocka_unit_test(test_delta_is_small),
		cmocka_unit_test(test_delta_only_if_smaller),
		cmocka_unit_test(test_random_life),
		cmocka_unit_test(test_guest_writes_meanwhile),
		cmocka_unit_test(test_stop),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
