// SPDX-License-Identifier: MIT
/* What proves that two hosts see the same storage, and what does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "control/admission/disk_identity.h"

static void test_disk_identity(void **state)
{
	static const struct {
		const char *a, *b;
		bool fixed, same;
	} pairs[] = {
#define ID(boot, rest) "boot=" boot " kind=" rest
#define NFS	       "file fs=6969 dev="
#define EXT4	       "file fs=ef53 dev="
#define BLOCK	       "block fs=0 dev="
		/* one kernel */
		{ ID("A", EXT4 "10 ino=5 size=9 wwid="), ID("A", EXT4 "10 ino=5 size=10 wwid="),
		  true, true },
		{ ID("A", EXT4 "10 ino=5 size=9 wwid="), ID("A", EXT4 "11 ino=5 size=9 wwid="),
		  true, false },
		{ ID("A", NFS "10 ino=5 size=9 wwid="), ID("A", NFS "10 ino=6 size=9 wwid="), true,
		  false },
		/* two kernels: local file systems repeat inode numbers */
		{ ID("A", EXT4 "10 ino=12 size=9 wwid="), ID("B", EXT4 "10 ino=12 size=9 wwid="),
		  true, false },
		{ ID("A", NFS "10 ino=5 size=9 wwid="), ID("B", NFS "99 ino=5 size=9 wwid="), true,
		  true },
		{ ID("A", NFS "10 ino=5 size=9 wwid="), ID("B", NFS "10 ino=6 size=9 wwid="), true,
		  false },
		{ ID("A", NFS "10 ino=5 size=9 wwid="), ID("B", EXT4 "10 ino=5 size=9 wwid="), true,
		  false },
		/* a growing image */
		{ ID("A", NFS "1 ino=5 size=9 wwid="), ID("B", NFS "1 ino=5 size=8 wwid="), true,
		  false },
		{ ID("A", NFS "1 ino=5 size=9 wwid="), ID("B", NFS "1 ino=5 size=8 wwid="), false,
		  true },
		/* block devices */
		{ ID("A", BLOCK "810 ino=0 size=9 wwid=naa.5"),
		  ID("B", BLOCK "820 ino=0 size=9 wwid=naa.5"), true, true },
		{ ID("A", BLOCK "810 ino=0 size=9 wwid=naa.5"),
		  ID("B", BLOCK "810 ino=0 size=9 wwid=naa.6"), true, false },
		{ ID("A", BLOCK "810 ino=0 size=9 wwid="), ID("B", BLOCK "810 ino=0 size=9 wwid="),
		  true, false },
		{ ID("A", BLOCK "810 ino=0 size=9 wwid=naa.5"), ID("B", NFS "1 ino=5 size=9 wwid="),
		  true, false },
	};
	static const char *const malformed[] = {
		"",
		"boot=A",
		"boot=A kind=link fs=0 dev=0 ino=0 size=0 wwid=",
		"boot=A kind=file fs=zz dev=0 ino=0 size=0 wwid=",
		"kind=file",
	};
	struct disk_identity a, b;
	char why[100], text[DISK_IDENTITY_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		why[0] = '\0';
		assert_int_equal(disk_identity_parse(pairs[i].a, &a), 0);
		assert_int_equal(disk_identity_parse(pairs[i].b, &b), 0);
		if (disk_identity_same(&a, &b, pairs[i].fixed, why, sizeof(why)) != pairs[i].same)
			fail_msg("%s | %s", pairs[i].a, pairs[i].b);
		assert_int_equal(why[0] == '\0', pairs[i].same);
	}
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++)
		assert_int_equal(disk_identity_parse(malformed[i], &a), -EINVAL);
	assert_int_equal(disk_identity_look("/dev/null", &a), -ENOTSUP);
	assert_int_equal(disk_identity_look("/nowhere/at/all", &a), -ENOENT);
	assert_int_equal(disk_identity_read("/proc/self/exe", text, 10), -ENOSPC);
	assert_int_equal(disk_identity_read("/proc/self/exe", text, sizeof(text)), 0);
	assert_int_equal(disk_identity_parse(text, &a), 0);
	assert_int_equal(disk_identity_look("/proc/self/exe", &b), 0);
	assert_true(disk_identity_same(&a, &b, true, why, sizeof(why)));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_disk_identity) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
