// SPDX-License-Identifier: MIT
/* Placing pages: every strategy against a model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "tests/unit/dataplane/destination/place_fixture.h"

static void random_frames(enum place_kind kind, bool stale)
{
	struct fixture x;
	char edge[6];

	open_memfd(&x, kind);
	if (stale)
		make_stale(&x);
	for (unsigned int i = 0; i < 60; i++) {
		struct wire_frame f = random_frame(&x);

		assert_int_equal(place(&x, &f), 0);
		assert_int_equal(rx_buffered(&x.rx), 0);
		assert_as_model(&x);
	}
	assert_int_equal(pread(x.region.fd, edge, 6, FILE_OFFSET - 6), 6);
	assert_memory_equal(edge, "before", 6);
	assert_int_equal(pread(x.region.fd, edge, 6, FILE_OFFSET + REGION_SIZE), 6);
	assert_memory_equal(edge, "behind", 6);
	close_fixture(&x);
}

static void test_random_frames(void **state)
{
	(void)state;
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_PWRITE; kind++) {
		random_frames(kind, false);
		random_frames(kind, true);
	}
}

/* A kernel without MADV_POPULATE_WRITE. */
static void test_without_populate(void **state)
{
	struct wire_run whole = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct wire_frame f;
	struct fixture x;

	(void)state;
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_MAP; kind++) {
		open_memfd(&x, kind);
		x.place.can_populate = false;
		f = build(&x, CHUNK_BYTES, &whole, 1);
		assert_int_equal(place(&x, &f), 0);
		assert_as_model(&x);
		close_fixture(&x);
	}
}

/* Many small frames come with one read; what is read ahead belongs to the next frame. */
static void test_frames_read_ahead(void **state)
{
	struct wire_run runs[] = { { 1, 2, WIRE_ENC_RAW, 0 },
				   { 4, 1, WIRE_ENC_ZERO, 0 },
				   { 9, 1, WIRE_ENC_RAW, 0 } };
	struct wire_run large = { 16, 64, WIRE_ENC_RAW, 0 };
	struct wire_frame small_frames[8], f;
	struct fixture x;

	(void)state;
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_PWRITE; kind++) {
		open_memfd(&x, kind);
		make_stale(&x);
		for (unsigned int i = 0; i < 8; i++) {
			small_frames[i] = build(&x, (i & 1) * (uint64_t)CHUNK_BYTES, runs, 3);
			send_frame(&x);
		}
		for (unsigned int i = 0; i < 8; i++) {
			x.rx.ahead = 60000;
			assert_int_equal(place_pages(&x.placer, &small_frames[i]), 0);
		}
		assert_as_model(&x);
		/* the head of a large frame in the buffer, the rest still to come */
		f = build(&x, 0, runs, 3);
		send_frame(&x);
		small_frames[0] = build(&x, CHUNK_BYTES, &large, 1);
		assert_int_equal(pthread_create(&x.sender, NULL, send_frame, &x), 0);
		assert_int_equal(place_pages(&x.placer, &f), 0);
		x.rx.ahead = 0;
		assert_int_equal(place_pages(&x.placer, &small_frames[0]), 0);
		pthread_join(x.sender, NULL);
		assert_int_equal(rx_buffered(&x.rx), 0);
		assert_as_model(&x);
		close_fixture(&x);
	}
}

/* After a punch the mapping has nothing there; what comes next must still arrive. */
static void test_raw_after_punch(void **state)
{
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct wire_run zero = { 100, 200, WIRE_ENC_ZERO, 0 };
	struct fixture x;

	(void)state;
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_PWRITE; kind++) {
		open_memfd(&x, kind);
		for (unsigned int i = 0; i < 3; i++) {
			struct wire_frame f = build(&x, 0, &raw, 1);

			assert_int_equal(place(&x, &f), 0);
			assert_as_model(&x);
			f = build(&x, 0, &zero, 1);
			assert_int_equal(place(&x, &f), 0);
			assert_as_model(&x);
		}
		close_fixture(&x);
	}
}

static void test_page_tables_are_bounded(void **state)
{
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	unsigned char in_core[CHUNK_PAGES];
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_MAP);
	/* a chunk's page table is its own, so that dropping the chunk frees it */
	assert_int_equal((uintptr_t)x.region.map % CHUNK_BYTES, 0);
	x.place.mapped_max = 1;
	for (unsigned int i = 0; i < 4; i++) {
		struct wire_frame f = build(&x, (i & 1) * (uint64_t)CHUNK_BYTES, &raw, 1);

		assert_int_equal(place(&x, &f), 0);
		assert_as_model(&x);
	}
	assert_int_equal(x.place.mapped_chunks, 1);
	/* dropped from the mapping only: the pages are in the file */
	assert_int_equal(mincore(x.region.map + CHUNK_BYTES, CHUNK_BYTES, in_core), 0);
	for (unsigned int i = 0; i < CHUNK_PAGES; i++)
		assert_true(in_core[i] & 1);
	close_fixture(&x);
}

static void test_counters(void **state)
{
	struct wire_run runs[] = { { 0, 3, WIRE_ENC_RAW, 0 },
				   { 5, 4, WIRE_ENC_ZERO, 0 },
				   { 9, 2, WIRE_ENC_HOLE, 0 },
				   { 11, 1, WIRE_ENC_RAW, 0 } };
	struct wire_frame f;
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	f = build(&x, 0, runs, 4);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(x.placer.counters.pages, 10);
	assert_int_equal(x.placer.counters.raw_bytes, 4 * PAGE_BYTES);
	assert_int_equal(x.placer.counters.zero_bytes, 4 * PAGE_BYTES);
	assert_int_equal(x.placer.counters.hole_bytes, 2 * PAGE_BYTES);
	assert_int_equal(x.rx.bytes, x.frame_len);
	close_fixture(&x);
}

static void test_malformed_frames_change_nothing(void **state)
{
	struct wire_run runs[] = { { 0, 4, WIRE_ENC_ZERO, 0 }, { 4, 4, WIRE_ENC_RAW, 0 } };
	struct wire_frame f;
	struct fixture x;
	uint8_t *kept;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	make_stale(&x);
	kept = malloc(REGION_SIZE);
	assert_non_null(kept);
	memcpy(kept, x.model, REGION_SIZE);
	f = build(&x, 0, runs, 2);
	x.frame[WIRE_RUN_SIZE] = 3; /* the second run now begins inside the first */
	assert_int_equal(place(&x, &f), -EBADMSG);
	memcpy(x.model, kept, REGION_SIZE);
	assert_as_model(&x);
	free(kept);
	close_fixture(&x);
}

static void test_encoding_not_agreed_on(void **state)
{
	struct wire_run run = { 0, 4, WIRE_ENC_ZSTD, 100 };
	struct wire_frame f = { .type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE + 100 };
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	wire_put_run(x.frame, &run);
	memset(x.frame + WIRE_RUN_SIZE, 0, 100);
	x.frame_len = f.length;
	assert_int_equal(place(&x, &f), -EPROTONOSUPPORT);
	close_fixture(&x);
}

/* Sends what there is of the frame, then ends the stream. */
static void *send_and_end(void *arg)
{
	struct fixture *x = arg;

	send_frame(x);
	shutdown(x->tx, SHUT_WR);
	return NULL;
}

static void test_truncated_payload(void **state)
{
	static const size_t cut[] = { 1, 5000, CHUNK_BYTES, CHUNK_BYTES + 1 };
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct fixture x;

	(void)state;
	for (enum place_kind kind = PLACE_MAP; kind <= PLACE_PWRITE; kind++) {
		for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
			struct wire_frame f;

			open_memfd(&x, kind);
			f = build(&x, 0, &raw, 1);
			x.frame_len -= cut[i];
			assert_int_equal(pthread_create(&x.sender, NULL, send_and_end, &x), 0);
			assert_int_equal(place_pages(&x.placer, &f), -ECONNRESET);
			pthread_join(x.sender, NULL);
			close_fixture(&x);
		}
	}
}

static void test_reasons_are_given(void **state)
{
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	assert_non_null(strstr(x.why, x.place.can_populate ? "map:" : "pwrite:"));
	close_fixture(&x);
	open_memfd(&x, PLACE_PWRITE);
	assert_non_null(strstr(x.why, "pwrite: asked for"));
	close_fixture(&x);
}

static uint64_t huge_chunks(const struct fixture *x)
{
	return x->place.huge[0].chunks;
}

/* A frame of the chunk at offset whose first raw pages are raw and the rest is not in it. */
static void place_first(struct fixture *x, uint64_t offset, uint16_t raw)
{
	struct wire_run run = { .pages = raw, .encoding = WIRE_ENC_RAW };
	struct wire_frame f = build(x, offset, &run, 1);

	assert_int_equal(place(x, &f), 0);
	assert_as_model(x);
}

/* Chunks that are new and come mostly whole get a huge page, others exactly what they hold. */
static void test_huge_pages(void **state)
{
	const uint64_t whole = CHUNK_PAGES;
	struct fixture x;

	(void)state;
	open_fixture(&x, PLACE_AUTO, new_memfd(4ull * CHUNK_BYTES, MFD_CLOEXEC), 4ull * CHUNK_BYTES,
		     0);
	if (x.place.huge[0].off) {
		close_fixture(&x);
		skip();
	}
	place_first(&x, 0, CHUNK_PAGES);
	if (x.place.huge[0].failures || x.place.huge[0].off) {
		print_message("skip: no huge pages to be had\n");
		close_fixture(&x);
		skip();
	}
	assert_int_equal(huge_chunks(&x), 1);
	assert_int_equal(resident(&x), whole);
	/* most of it */
	place_first(&x, CHUNK_BYTES, CHUNK_PAGES / 4 * 3);
	assert_int_equal(huge_chunks(&x), 2);
	assert_int_equal(resident(&x), 2 * whole);
	/* too little */
	place_first(&x, 2 * CHUNK_BYTES, CHUNK_PAGES / 2);
	assert_int_equal(huge_chunks(&x), 2);
	assert_int_equal(resident(&x), 2 * whole + CHUNK_PAGES / 2);
	/* something is there already */
	assert_int_equal(pwrite(x.region.fd, "x", 1, 3 * CHUNK_BYTES + 5 * PAGE_BYTES), 1);
	place_first(&x, 3 * CHUNK_BYTES, CHUNK_PAGES);
	assert_int_equal(huge_chunks(&x), 2);
	/* pages of a huge page are emptied like others */
	assert_int_equal(place_zero(&x.placer, &x.region, PAGE_BYTES, 3 * PAGE_BYTES), 0);
	memset(x.model + PAGE_BYTES, 0, 3 * PAGE_BYTES);
	assert_as_model(&x);
	place_first(&x, 0, CHUNK_PAGES);
	close_fixture(&x);
}

/* A region's last chunk, full but no whole one: no huge page, which others get as before. */
static void test_huge_pages_at_the_end(void **state)
{
	const uint64_t pages = CHUNK_PAGES - 32, size = CHUNK_BYTES + pages * PAGE_BYTES;
	struct fixture x;

	(void)state;
	open_fixture(&x, PLACE_AUTO, new_memfd(2ull * CHUNK_BYTES, MFD_CLOEXEC), size, 0);
	if (x.place.huge[0].off) {
		close_fixture(&x);
		skip();
	}
	place_first(&x, CHUNK_BYTES, (uint16_t)pages);
	assert_int_equal(resident(&x), pages);
	assert_int_equal(huge_chunks(&x), 0);
	assert_false(x.place.huge[0].off || x.place.huge[0].failures);
	place_first(&x, 0, CHUNK_PAGES);
	assert_int_equal(huge_chunks(&x) + x.place.huge[0].failures, 1);
	close_fixture(&x);
}

/* When huge pages cannot be had, tries become rare, and a success makes them frequent again. */
static void test_huge_pages_pause(void **state)
{
	struct place_huge *h;
	struct fixture x;

	(void)state;
	open_fixture(&x, PLACE_AUTO, new_memfd(4ull * CHUNK_BYTES, MFD_CLOEXEC), 4ull * CHUNK_BYTES,
		     0);
	h = x.place.huge;
	h->pause = 2; /* as after two failures in a row */
	h->failures = 2;
	if (h->off) {
		close_fixture(&x);
		skip();
	}
	place_first(&x, 0, CHUNK_PAGES);
	place_first(&x, CHUNK_BYTES, CHUNK_PAGES);
	assert_int_equal(huge_chunks(&x), 0);
	assert_int_equal(h->pause, 0);
	place_first(&x, 2 * CHUNK_BYTES, CHUNK_PAGES);
	if (huge_chunks(&x))
		assert_int_equal(h->failures, 0);
	else
		assert_int_equal(h->failures, 3);
	close_fixture(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_frames),
		cmocka_unit_test(test_without_populate),
		cmocka_unit_test(test_frames_read_ahead),
		cmocka_unit_test(test_raw_after_punch),
		cmocka_unit_test(test_page_tables_are_bounded),
		cmocka_unit_test(test_huge_pages),
		cmocka_unit_test(test_huge_pages_at_the_end),
		cmocka_unit_test(test_huge_pages_pause),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_malformed_frames_change_nothing),
		cmocka_unit_test(test_encoding_not_agreed_on),
		cmocka_unit_test(test_truncated_payload),
		cmocka_unit_test(test_reasons_are_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
