// SPDX-License-Identifier: MIT
/* Tracking by libtranship: the pagemap reports what was written, and nothing stays behind. */
#include "tests/unit/lib/vmm_process.h"

#include <dirent.h>

#include "lib/base/kernel_abi.h"

/* Pages reported since the scan before, one byte each in seen. */
static unsigned int scan(int pagemap, uint8_t seen[VMM_RAM_PAGES])
{
	static struct pagemap_range found[VMM_RAM_PAGES];
	struct pagemap_scan q = { .size = sizeof(q),
				  .flags = PAGEMAP_SCAN_WP_MATCHING | PAGEMAP_SCAN_CHECK_WPASYNC,
				  .start = vmm.ram_address,
				  .end = vmm.ram_address + VMM_RAM_PAGES * 4096ull,
				  .vec = (uintptr_t)found,
				  .vec_len = VMM_RAM_PAGES,
				  .category_mask = PAGEMAP_IS_WRITTEN,
				  .return_mask = PAGEMAP_IS_WRITTEN };
	unsigned int pages = 0;
	int n = ioctl(pagemap, PAGEMAP_SCAN_IOCTL, &q);

	assert_true(n >= 0);
	assert_int_equal(q.walk_end, q.end);
	memset(seen, 0, VMM_RAM_PAGES);
	for (int i = 0; i < n; i++)
		for (uint64_t a = found[i].start; a < found[i].end; a += 4096, pages++)
			seen[(a - vmm.ram_address) / 4096] = 1;
	return pages;
}

static unsigned int userfaultfds(void)
{
	unsigned int count = 0;
	char path[64], link[64];
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", vmm.pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1);

		link[n > 0 ? n : 0] = '\0';
		count += !!strstr(link, "userfaultfd");
	}
	closedir(dir);
	return count;
}

static int arm(void)
{
	struct tranship_armed armed = { 0 };
	struct failure f = { 0 };
	int err = tranship_link_call(&tl, TRANSHIP_ARM, NULL, -1, &armed, NULL, VMM_WAIT_MS,
				     "tracker-unavailable", &f);

	if (!err)
		assert_int_equal(armed.tracker, TRANSHIP_TRACKER_PAGEMAP);
	return err;
}

static int open_pagemap(void)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", vmm.pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void test_tracking_reports_exactly_what_was_written(void **state)
{
	static uint8_t seen[VMM_RAM_PAGES], expected[VMM_RAM_PAGES];
	unsigned int seed = 4711, count = 0;
	int pagemap = open_pagemap();

	(void)state;
	for (uint32_t page = 0; page < 100; page++) /* populated before it is tracked */
		vmm_do(&vmm, VMM_WRITE, page, 1);
	assert_int_equal(arm(), 0);
	assert_int_equal(arm(), 0); /* twice is once */
	assert_int_equal(userfaultfds(), 1);
	scan(pagemap, seen);
	assert_int_equal(scan(pagemap, seen), 0);
	for (int i = 0; i < 500; i++) {
		uint32_t page = (uint32_t)rand_r(&seed) % VMM_RAM_PAGES;

		count += !expected[page];
		expected[page] = 1;
		assert_int_equal(vmm_do(&vmm, i % 4 ? VMM_WRITE : VMM_READ_INTO, page, 2), 0);
	}
	assert_int_equal(scan(pagemap, seen), count);
	assert_memory_equal(seen, expected, VMM_RAM_PAGES);
	assert_int_equal(scan(pagemap, seen), 0);
	assert_int_equal(ask(TRANSHIP_DISARM), 0);
	assert_int_equal(userfaultfds(), 0);
	assert_int_equal(ask(TRANSHIP_DISARM), 0);
	assert_int_equal(vmm_do(&vmm, VMM_WRITE, 5, 3), 0);
	assert_int_equal(vmm.ram[5 * 4096], 3);
	assert_int_equal(arm(), 0); /* and again */
	close(pagemap);
}

static void test_loss_ends_tracking(void **state)
{
	(void)state;
	assert_int_equal(arm(), 0);
	tranship_link_close(&tl);
	open_link();
	assert_int_equal(description.flags & TRANSHIP_FLAG_ARMED, 0);
	assert_int_equal(userfaultfds(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		AT_SOURCE(test_tracking_reports_exactly_what_was_written),
		AT_SOURCE(test_loss_ends_tracking),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
