// SPDX-License-Identifier: MIT
/* Looking at pages: right answers, and nothing allocated by it. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/source/page_reader.h"
#include "dataplane/transport/wire.h"

#define PAGES 1024u

static struct region r;
static uint8_t want[PAGES];
static _Alignas(64) uint8_t scratch[PAGE_READER_SCRATCH];

static int setup(void **state)
{
	uint8_t page[PAGE_BYTES] = { 0 };

	(void)state;
	r = (struct region){ .page_size = PAGE_BYTES,
			     .size = PAGES * PAGE_BYTES,
			     .fd = memfd_create("ram", MFD_CLOEXEC) };
	if (r.fd < 0 || ftruncate(r.fd, (off_t)r.size))
		return -1;
	srandom(3);
	for (uint32_t i = 0; i < PAGES; i++) {
		want[i] = i > 900 ? PAGE_HOLE : (uint8_t)(PAGE_RAW + (random() >> 4) % 3);
		if (want[i] == PAGE_HOLE)
			continue;
		page[PAGE_BYTES - 1] = want[i] == PAGE_RAW;
		if (pwrite(r.fd, page, sizeof(page), (off_t)i * PAGE_BYTES) != sizeof(page))
			return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	region_release(&r);
	return 0;
}

static uint64_t blocks(void)
{
	struct stat st;

	assert_int_equal(fstat(r.fd, &st), 0);
	return (uint64_t)st.st_blocks;
}

static void look(struct page_reader *p, uint32_t first, uint32_t count)
{
	uint8_t kinds[CHUNK_PAGES + 1];

	memset(kinds, 0xee, sizeof(kinds));
	assert_int_equal(page_reader_classify(p, &r, first, count, kinds, scratch), 0);
	for (uint32_t i = 0; i < count; i++) {
		uint8_t expect = want[first + i];

		if (!p->guarded[0] && expect == PAGE_HOLE)
			expect = PAGE_ZERO; /* in a copy they look the same */
		assert_int_equal(kinds[i], expect);
	}
	assert_int_equal(kinds[count], 0xee);
}

static void look_everywhere(struct page_reader *p)
{
	uint64_t before = blocks();

	for (uint32_t first = 0; first < PAGES; first += CHUNK_PAGES)
		look(p, first, CHUNK_PAGES);
	for (uint32_t first = 0; first < PAGES - 70; first += 13)
		look(p, first, 1 + first % 67);
	look(p, 901, 123);
	assert_int_equal(blocks(), before);
}

static void test_guarded(void **state)
{
	struct page_reader p;
	struct failure f = { 0 };

	(void)state;
	assert_int_equal(page_reader_init(&p, &r, 1, &f), 0);
	if (!p.guarded[0]) {
		page_reader_release(&p);
		print_message("no userfaultfd here\n");
		skip();
	}
	look_everywhere(&p);
	/* Punched and populated under our eyes. */
	assert_int_equal(
		fallocate(r.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100 * PAGE_BYTES),
		0);
	memset(want, PAGE_HOLE, 100);
	assert_int_equal(pwrite(r.fd, "x", 1, 950 * PAGE_BYTES + 4000), 1);
	want[950] = PAGE_RAW;
	look_everywhere(&p);
	page_reader_release(&p);
}

static void test_copied(void **state)
{
	struct page_reader p;
	struct failure f = { 0 };

	(void)state;
	r.hugetlb = true; /* the kind of memory that cannot be guarded */
	assert_int_equal(page_reader_init(&p, &r, 1, &f), 0);
	assert_false(p.guarded[0]);
	look_everywhere(&p);
	page_reader_release(&p);
}

static void test_copy(void **state)
{
	static uint8_t a[5 * PAGE_BYTES];
	uint64_t before = blocks();

	(void)state;
	memset(a, 1, sizeof(a));
	assert_int_equal(page_reader_copy(&r, 1000 * PAGE_BYTES, a, sizeof(a)), 0);
	for (size_t i = 0; i < sizeof(a); i++)
		assert_int_equal(a[i], 0);
	assert_int_equal(blocks(), before);
	/* Beyond the end of a file that was cut. */
	assert_int_equal(ftruncate(r.fd, 512 * PAGE_BYTES), 0);
	assert_int_not_equal(page_reader_copy(&r, 511 * PAGE_BYTES, a, sizeof(a)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_guarded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copied, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
