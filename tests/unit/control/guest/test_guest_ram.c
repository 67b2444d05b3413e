// SPDX-License-Identifier: MIT
/* The RAM of QEMU guests in the forms that users start: which file, which mapping, or why not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mount.h>
#include <sys/vfs.h>

#include "control/guest/guest_qemu_internal.h"
#include "tests/unit/control/guest/check_ok.h"
#include "tests/unit/control/guest/first_error.h"
#include "tests/unit/control/guest/qemu_fixture.h"

static struct fixture a;
static struct guest *g;
static char huge_dir[64];
static long huge_before = -1; /* pages reserved before the test, if it reserved more */

static int reserve_huge_pages(long count)
{
	FILE *file = fopen("/proc/sys/vm/nr_hugepages", "w");
	bool bad = !file || fprintf(file, "%ld", count) < 0;

	return (file && fclose(file)) || bad ? -1 : 0;
}

static int release(void **state)
{
	(void)state;
	guest_free(g);
	g = NULL;
	if (a.pid)
		fixture_stop(&a);
	if (huge_dir[0]) {
		umount(huge_dir);
		rmdir(huge_dir);
		huge_dir[0] = '\0';
	}
	if (huge_before >= 0)
		reserve_huge_pages(huge_before);
	huge_before = -1;
	failure_clear(&f);
	return 0;
}

static void described(void **state)
{
	const struct guest_region *r;
	struct stat st, opened;
	int fd;

	(void)state;
	fixture_init(&a, "desc");
	fixture_shared_ram(&a);
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	assert_string_equal(g->desc.kind, "qemu");
	assert_int_equal(strncmp(g->desc.machine, "pc-q35-", 7), 0);
	assert_true(strchr(g->desc.version, '.') != NULL);
	assert_string_equal(g->desc.accel, "tcg");
	assert_string_equal(g->desc.state, "running");
	assert_true(g->desc.running && g->desc.cpus == 1 && g->desc.nregions == 1);
	assert_true(!g->desc.needs_dma_barrier && g->desc.ndisks == 0);
	r = &g->desc.regions[0];
	assert_string_equal(r->id, "ram0");
	assert_string_equal(r->path, a.ram);
	assert_int_equal(r->backing, GUEST_BACKING_FILE);
	assert_true(r->size == 128u << 20 && r->page_size == 4096 && r->share && !r->hugetlb);
	assert_int_equal(r->nmappings, 1);
	assert_true(r->mappings[0].end - r->mappings[0].start == r->size);
	assert_int_equal(stat(a.ram, &st), 0);
	assert_true(r->inode == st.st_ino && r->device == st.st_dev);
	OK(g->ops->open_ram(g, 0, false, &fd, &f));
	assert_int_equal(fstat(fd, &opened), 0);
	assert_true(opened.st_ino == st.st_ino && opened.st_dev == st.st_dev);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1); /* read-only */
	close(fd);
	assert_string_equal(first_error_of(g), "");
	/* Removed, as some managers do: still found, still opened. */
	unlink(a.ram);
	OK(g->ops->describe(g, &f));
	assert_string_equal(g->desc.regions[0].path, "");
	assert_int_equal(g->desc.regions[0].nmappings, 1);
	OK(g->ops->open_ram(g, 0, true, &fd, &f));
	close(fd);
}

static void private_ram_is_refused(void **state)
{
	(void)state;
	fixture_init(&a, "priv");
	fixture_arg(&a, "-m");
	fixture_arg(&a, "64M");
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	assert_int_equal(g->desc.nregions, 1);
	assert_int_equal(g->desc.regions[0].backing, GUEST_BACKING_PRIVATE);
	assert_true(g->desc.regions[0].size == 64u << 20);
	assert_string_equal(first_error_of(g), "ram-not-shared");
	int fd;
	assert_int_equal(g->ops->open_ram(g, 0, false, &fd, &f), -EOPNOTSUPP);
	assert_non_null(strstr(f.hint, "memory-backend-file"));
	check_failed(-EOPNOTSUPP, -EOPNOTSUPP, "ram-not-shared");
}

static void share_off_is_refused(void **state)
{
	(void)state;
	fixture_init(&a, "off");
	fixture_arg(&a, "-machine");
	fixture_arg(&a, "q35,memory-backend=ram0");
	fixture_arg(&a, "-m");
	fixture_arg(&a, "64M");
	fixture_arg(&a, "-object");
	fixture_arg(&a, "memory-backend-file,id=ram0,size=64M,mem-path=%s,share=off", a.ram);
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	assert_string_equal(first_error_of(g), "ram-not-shared");
}

static void guest_sees(unsigned int guest_address, const char *value)
{
	char command[32], *text;

	snprintf(command, sizeof(command), "xp /1xw 0x%x", guest_address);
	text = qemu_human(guest_qemu_of(g)->q, command);
	assert_non_null(text);
	if (!strstr(text, value))
		fail_msg("%s instead of %s", text, value);
	free(text);
}

/* Two memfds of one size: each must be told from the other by where the guest sees it. */
static void memfds(void **state)
{
	static const char *const ids[] = { "zeta", "alpha" };
	bool sent_whole;
	int fd[2];

	(void)state;
	fixture_init(&a, "memfd");
	fixture_arg(&a, "-machine");
	fixture_arg(&a, "q35");
	fixture_arg(&a, "-m");
	fixture_arg(&a, "64M");
	fixture_arg(&a, "-smp");
	fixture_arg(&a, "2");
	for (int i = 0; i < 2; i++) {
		fixture_arg(&a, "-object");
		fixture_arg(&a, "memory-backend-memfd,id=%s,size=32M,share=on", ids[i]);
		fixture_arg(&a, "-numa");
		fixture_arg(&a, "node,memdev=%s", ids[i]);
	}
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	assert_int_equal(g->desc.nregions, 2);
	assert_string_equal(g->desc.regions[0].id, "alpha"); /* sorted: the same on both sides */
	assert_string_equal(g->desc.regions[1].id, "zeta");
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(g->desc.regions[i].backing, GUEST_BACKING_MEMFD);
		assert_int_equal(g->desc.regions[i].nmappings, 1);
		OK(g->ops->open_ram(g, i, true, &fd[i], &f));
	}
	assert_true(g->desc.regions[0].inode != g->desc.regions[1].inode);
	/* The oracle is the guest's own view: zeta is its first 32 MiB, alpha the next. */
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t mark = 0xabcd0000 + i;

		assert_int_equal(pwrite(fd[i], &mark, 4, 20 << 20), 4);
	}
	guest_sees(20 << 20, "0xabcd0001");
	guest_sees(52 << 20, "0xabcd0000");
	close(fd[0]);
	close(fd[1]);
	sent_whole = guest_qemu_of(g)->version[0] > 8 ||
		     (guest_qemu_of(g)->version[0] == 8 && guest_qemu_of(g)->version[1] >= 1);
	assert_string_equal(first_error_of(g), sent_whole ? "ram-memfd" : "");
}

static bool mount_huge_pages(void)
{
	FILE *file = fopen("/proc/sys/vm/nr_hugepages", "r");
	bool known = file && fscanf(file, "%ld", &huge_before) == 1;

	if (file)
		fclose(file);
	strcpy(huge_dir, "/tmp/tranship-test-huge-XXXXXX");
	return known && !reserve_huge_pages(huge_before + 40) && mkdtemp(huge_dir) &&
	       !mount("hugetlbfs", huge_dir, "hugetlbfs", 0, "pagesize=2M");
}

/* A hugetlbfs that is given as a directory: QEMU makes a file in it and removes its name. */
static void huge_pages(void **state)
{
	struct statfs fs;
	int fd;

	(void)state;
	if (!mount_huge_pages()) {
		print_message("no huge pages can be had here\n");
		skip();
	}
	fixture_init(&a, "huge");
	fixture_arg(&a, "-machine");
	fixture_arg(&a, "q35,memory-backend=ram0");
	fixture_arg(&a, "-m");
	fixture_arg(&a, "64M");
	fixture_arg(&a, "-object");
	fixture_arg(&a, "memory-backend-file,id=ram0,size=64M,mem-path=%s,share=on,prealloc=on",
		    huge_dir);
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	assert_true(g->desc.regions[0].hugetlb && g->desc.regions[0].page_size == 2u << 20);
	assert_true(g->desc.regions[0].prealloc);
	assert_int_equal(g->desc.regions[0].nmappings, 1);
	assert_string_equal(first_error_of(g), "");
	OK(g->ops->open_ram(g, 0, true, &fd, &f));
	assert_int_equal(fstatfs(fd, &fs), 0);
	assert_int_equal(fs.f_bsize, 2 << 20);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(described, release),
		cmocka_unit_test_teardown(private_ram_is_refused, release),
		cmocka_unit_test_teardown(share_off_is_refused, release),
		cmocka_unit_test_teardown(memfds, release),
		cmocka_unit_test_teardown(huge_pages, release),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
