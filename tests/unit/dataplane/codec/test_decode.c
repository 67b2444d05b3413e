// SPDX-License-Identifier: MIT
/* The decoder against what a hostile or broken source could send. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include <cmocka.h>

#include "dataplane/codec/decode.h"
#include "tests/unit/dataplane/content.h"

#define ROOM (DECODE_BYTES_MAX + 1024)

static struct decoder d;
static uint8_t text[DECODE_BYTES_MAX], frame[ROOM], base[DECODE_BYTES_MAX];

static int setup(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < WIRE_ENCODED_PAGES_MAX; i++)
		content_text(text + i * PAGE_BYTES, i);
	return decoder_init(&d);
}

static int teardown(void **state)
{
	(void)state;
	decoder_release(&d);
	return 0;
}

static size_t compress(const uint8_t *in, size_t len, const uint8_t *prefix, int checksum, int size)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t n;

	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, checksum);
	ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, size);
	if (prefix)
		ZSTD_CCtx_refPrefix(c, prefix, len);
	n = ZSTD_compress2(c, frame, sizeof(frame), in, len);
	assert_false(ZSTD_isError(n));
	ZSTD_freeCCtx(c);
	return n;
}

static void test_round_trip(void **state)
{
	(void)state;
	for (uint32_t pages = 1; pages <= WIRE_ENCODED_PAGES_MAX; pages++) {
		size_t len = pages * PAGE_BYTES, n = compress(text, len, NULL, 0, 1);

		assert_int_equal(decode_zstd(&d, frame, n, d.out, len), 0);
		assert_memory_equal(d.out, text, len);
		memcpy(base, text, len);
		base[len / 2] ^= 1;
		n = compress(text, len, base, 1, 1);
		assert_true(n < 100);
		assert_int_equal(decode_delta(&d, frame, n, base, d.out, len), 0);
		assert_memory_equal(d.out, text, len);
	}
}

static void test_wrong_base(void **state)
{
	size_t n;

	(void)state;
	memcpy(base, text, PAGE_BYTES);
	base[17] ^= 1;
	n = compress(text, PAGE_BYTES, base, 1, 1);
	base[4000] ^= 1;
	assert_int_equal(decode_delta(&d, frame, n, base, d.out, PAGE_BYTES), -EILSEQ);
	base[4000] ^= 1;
	/* the decoder is none the worse for it */
	assert_int_equal(decode_delta(&d, frame, n, base, d.out, PAGE_BYTES), 0);
	n = compress(text, PAGE_BYTES, base, 0, 1);
	assert_int_equal(decode_delta(&d, frame, n, base, d.out, PAGE_BYTES), -EBADMSG);
}

/* A base does not reach into the next payload. */
static void test_base_is_forgotten(void **state)
{
	size_t n;

	(void)state;
	memcpy(base, text, PAGE_BYTES);
	n = compress(text, PAGE_BYTES, base, 1, 1);
	assert_true(n < 64);
	assert_int_equal(decode_delta(&d, frame, n, base, d.out, PAGE_BYTES), 0);
	assert_int_not_equal(decode_zstd(&d, frame, n, d.out, PAGE_BYTES), 0);
}

static void test_sizes(void **state)
{
	size_t n = compress(text, 2 * PAGE_BYTES, NULL, 0, 1), m;

	(void)state;
	assert_int_equal(decode_zstd(&d, frame, n, d.out, PAGE_BYTES), -EBADMSG);
	assert_int_equal(decode_zstd(&d, frame, n, d.out, 3 * PAGE_BYTES), -EBADMSG);
	for (m = 0; m < n; m++)
		assert_int_equal(decode_zstd(&d, frame, m, d.out, 2 * PAGE_BYTES), -EBADMSG);
	frame[n] = 0;
	assert_int_equal(decode_zstd(&d, frame, n + 1, d.out, 2 * PAGE_BYTES), -EBADMSG);
	/* two frames that make up the run together; a size that is not said */
	n = compress(text, PAGE_BYTES, NULL, 0, 1);
	memmove(frame + n, frame, n);
	assert_int_equal(decode_zstd(&d, frame, 2 * n, d.out, 2 * PAGE_BYTES), -EBADMSG);
	assert_int_equal(decode_zstd(&d, frame, 2 * n, d.out, PAGE_BYTES), -EBADMSG);
	n = compress(text, PAGE_BYTES, NULL, 0, 0);
	assert_int_equal(decode_zstd(&d, frame, n, d.out, PAGE_BYTES), -EBADMSG);
}

static void test_other_formats(void **state)
{
	static const uint8_t skippable[] = { 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4 };
	size_t n = compress(text, PAGE_BYTES, NULL, 0, 1);

	(void)state;
	assert_int_equal(decode_zstd(&d, skippable, sizeof(skippable), d.out, PAGE_BYTES),
			 -EBADMSG);
	memmove(frame + sizeof(skippable), frame, n);
	memcpy(frame, skippable, sizeof(skippable));
	assert_int_equal(decode_zstd(&d, frame, n + sizeof(skippable), d.out, PAGE_BYTES),
			 -EBADMSG);
	memmove(frame, frame + sizeof(skippable), n);
	/* zstd 0.1 to 0.7 */
	for (unsigned int v = 0x1e; v <= 0x27; v++) {
		frame[0] = (uint8_t)v;
		assert_int_equal(decode_zstd(&d, frame, n, d.out, PAGE_BYTES), -EBADMSG);
	}
}

/* Frames that are right but for some bytes: an error, or pages, and nothing beside them. */
static void test_mutations(void **state)
{
	static uint8_t good[2][ROOM], guarded[4 * PAGE_BYTES + 64];
	const size_t len = 4 * PAGE_BYTES;
	uint64_t x = 88172645463325252ull;
	uint32_t accepted[2] = { 0 };
	size_t n[2];

	(void)state;
	memcpy(base, text, len);
	for (size_t i = 0; i < len; i += 700)
		base[i] ^= 0x55;
	for (int delta = 0; delta < 2; delta++) {
		n[delta] = compress(text, len, delta ? base : NULL, delta, 1);
		memcpy(good[delta], frame, n[delta]);
	}
	for (uint32_t round = 0; round < 60000; round++) {
		uint32_t delta = round % 2;
		int err;

		memcpy(frame, good[delta], n[delta]);
		for (uint32_t k = 0; k <= round % 3; k++)
			frame[content_next(&x) % (round % 7 ? n[delta] : 20)] =
				(uint8_t)(content_next(&x) >> 9);
		memset(guarded, 0xa5, sizeof(guarded));
		err = delta ? decode_delta(&d, frame, n[delta], base, guarded, len)
			    : decode_zstd(&d, frame, n[delta], guarded, len);
		assert_true(!err || err == -EBADMSG || err == -EILSEQ);
		accepted[delta] += !err;
		if (!err && delta) /* the checksum holds: it is what was meant */
			assert_memory_equal(guarded, text, len);
		for (size_t i = len; i < sizeof(guarded); i++)
			assert_int_equal(guarded[i], 0xa5);
	}
	print_message("accepted: %u of 30000, %u of 30000 deltas\n", accepted[0], accepted[1]);
}

static void test_noise(void **state)
{
	uint64_t x = 1234567;

	(void)state;
	for (uint32_t round = 0; round < 20000; round++) {
		size_t n = 1 + content_next(&x) % 300;

		for (size_t i = 0; i < n; i++)
			frame[i] = (uint8_t)(content_next(&x) >> 11);
		if (round % 2) {
			/* a header that fits: single segment, two bytes of size */
			static const uint8_t head[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x0f };

			memcpy(frame, head, sizeof(head));
		}
		decode_zstd(&d, frame, n, d.out, PAGE_BYTES);
		decode_delta(&d, frame, n, text, d.out, PAGE_BYTES);
	}
	assert_int_equal(
		decode_zstd(&d, frame, compress(text, PAGE_BYTES, NULL, 0, 1), d.out, PAGE_BYTES),
		0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_wrong_base),
		cmocka_unit_test(test_base_is_forgotten),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_other_formats),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
