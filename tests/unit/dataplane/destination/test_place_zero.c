// SPDX-License-Identifier: MIT
/* Zeros and holes, hashes, memory that runs out, and hugetlb. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <xxhash.h>

#include "tests/unit/dataplane/destination/place_fixture.h"

static void test_zero_punches_what_is_not_zero(void **state)
{
	struct wire_run zero = { 0, 100, WIRE_ENC_ZERO, 0 };
	struct wire_frame f;
	struct fixture x;
	uint64_t before;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	memset(x.model, 5, 200 * PAGE_BYTES);
	assert_int_equal(pwrite(x.region.fd, x.model, 200 * PAGE_BYTES, FILE_OFFSET),
			 200 * PAGE_BYTES);
	before = resident(&x);
	f = build(&x, 0, &zero, 1);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(resident(&x), before - 100);
	assert_as_model(&x);
	close_fixture(&x);
}

/* A guest that preallocated keeps its memory; one that did not gets none. */
static void test_zero_leaves_zeros_and_holes(void **state)
{
	struct wire_run runs[] = { { 0, 256, WIRE_ENC_ZERO, 0 }, { 256, 256, WIRE_ENC_HOLE, 0 } };
	struct wire_frame f;
	struct fixture x;
	uint64_t before;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	assert_int_equal(fallocate(x.region.fd, 0, FILE_OFFSET, CHUNK_BYTES), 0);
	/* single pages that are not zero between those that are */
	for (unsigned int page = 3; page < CHUNK_PAGES; page += 64)
		assert_int_equal(pwrite(x.region.fd, "x", 1,
					(off_t)(FILE_OFFSET + (page + 1) * PAGE_BYTES - 1)),
				 1);
	before = resident(&x);
	f = build(&x, 0, runs, 2);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(resident(&x), before - 8);
	assert_as_model(&x);
	/* the second chunk is a hole and stays one */
	f = build(&x, CHUNK_BYTES, runs, 2);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(resident(&x), before - 8);
	close_fixture(&x);
}

static void test_holes_over_the_region(void **state)
{
	struct wire_frame f = { .type = WIRE_HOLES,
				.offset = 2 * PAGE_BYTES,
				.extent = REGION_SIZE - 3 * PAGE_BYTES };
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	make_stale(&x);
	assert_int_equal(place_holes(&x.placer, &f), 0);
	memset(x.model + f.offset, 0, f.extent);
	assert_as_model(&x);
	assert_int_equal(x.placer.counters.hole_bytes, f.extent);
	close_fixture(&x);
}

static void test_hash_is_of_the_content(void **state)
{
	struct fixture x;
	uint64_t before, hash;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	make_stale(&x);
	before = resident(&x);
	for (uint64_t at = 0; at < REGION_SIZE; at += CHUNK_BYTES) {
		size_t len = REGION_SIZE - at < CHUNK_BYTES ? REGION_SIZE - at : CHUNK_BYTES;

		assert_int_equal(place_hash(&x.placer, &x.region, at, len, &hash), 0);
		assert_int_equal(hash, XXH3_64bits(x.model + at, len));
	}
	assert_int_equal(resident(&x), before);
	close_fixture(&x);

	open_memfd(&x, PLACE_AUTO); /* all hole, after the scratch was used for something else */
	before = resident(&x);
	memset(x.placer.scratch, 0xff, PLACE_SCRATCH_SIZE);
	assert_int_equal(place_hash(&x.placer, &x.region, CHUNK_BYTES, CHUNK_BYTES, &hash), 0);
	assert_int_equal(hash, XXH3_64bits(x.model, CHUNK_BYTES));
	assert_int_equal(resident(&x), before);
	close_fixture(&x);
}

/* Memory that runs out is an error, whatever the strategy, and never a signal. */
static void test_file_system_full(void **state)
{
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct wire_run tiny = { 0, 8, WIRE_ENC_RAW, 0 };
	char dir[] = "/tmp/test-place-XXXXXX", path[64];
	struct fixture x;

	(void)state;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		skip();
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/ram", dir);
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_PWRITE; kind++) {
		struct wire_frame f;
		int fd, err;

		assert_int_equal(mount("none", dir, "tmpfs", 0, "size=1m"), 0);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_int_equal(umount2(dir, MNT_DETACH), 0);
		assert_true(fd >= 0 && !ftruncate(fd, 8 << 20));
		open_fixture(&x, kind, fd, 8 << 20, 0);
		f = build(&x, CHUNK_BYTES, &tiny, 1);
		assert_int_equal(place(&x, &f), 0);
		f = build(&x, 0, &raw, 1);
		err = place(&x, &f);
		assert_true(err == -ENOSPC || err == -ENOMEM || err == -EFAULT);
		close_fixture(&x);
	}
	rmdir(dir);
}

#define HUGE_BYTES (2ull << 20)
#define HUGE_2MB   (21u << 26) /* MFD_HUGE_2MB */

/* A hugetlb region of three pages, or a skip where the host has none to give. */
static void open_hugetlb(struct fixture *x)
{
	int fd = new_memfd(3 * HUGE_BYTES, MFD_CLOEXEC | MFD_HUGETLB | HUGE_2MB);
	void *probe;

	if (fd < 0)
		skip();
	probe = mmap(NULL, 3 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (probe == MAP_FAILED) {
		close(fd);
		print_message("no 2 MiB huge pages: set vm.nr_hugepages to 3 or more\n");
		skip();
	}
	munmap(probe, 3 * HUGE_BYTES);
	open_fixture(x, PLACE_AUTO, fd, 3 * HUGE_BYTES, 0);
	x->region.hugetlb = true;
	x->region.page_size = HUGE_BYTES;
}

static void test_hugetlb_frames(void **state)
{
	struct fixture x;

	(void)state;
	open_hugetlb(&x);
	for (unsigned int i = 0; i < 60; i++) {
		struct wire_frame f = random_frame(&x);

		assert_int_equal(place(&x, &f), 0);
		assert_as_model(&x);
	}
	close_fixture(&x);
}

/* A punched huge page loses its reservation: zeroed in place, and holes are not populated. */
static void test_hugetlb_zero(void **state)
{
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct wire_run zero = { 0, CHUNK_PAGES, WIRE_ENC_ZERO, 0 };
	struct wire_frame f;
	struct fixture x;
	uint64_t before;

	(void)state;
	open_hugetlb(&x);
	f = build(&x, 0, &zero, 1);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(resident(&x), 0);
	f = build(&x, 0, &raw, 1);
	assert_int_equal(place(&x, &f), 0);
	before = resident(&x);
	assert_true(before > 0);
	f = build(&x, 0, &zero, 1);
	assert_int_equal(place(&x, &f), 0);
	assert_as_model(&x);
	assert_int_equal(resident(&x), before);
	close_fixture(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_zero_punches_what_is_not_zero),
		cmocka_unit_test(test_zero_leaves_zeros_and_holes),
		cmocka_unit_test(test_holes_over_the_region),
		cmocka_unit_test(test_hash_is_of_the_content),
		cmocka_unit_test(test_file_system_full),
		cmocka_unit_test(test_hugetlb_frames),
		cmocka_unit_test(test_hugetlb_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
