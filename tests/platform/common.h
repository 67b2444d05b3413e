/* SPDX-License-Identifier: MIT */
/* What the proofs of kernel behaviour share: a tracked mapping in this process, and its scan. */
#ifndef TRANSHIP_TESTS_PLATFORM_COMMON_H
#define TRANSHIP_TESTS_PLATFORM_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/kernel_abi.h"

#define PAGE 4096ul
#define HUGE 0x200000ul

#define SKIP 77

#define skip(...)                                                                                  \
	do {                                                                                       \
		printf("skip: " __VA_ARGS__);                                                      \
		putchar('\n');                                                                     \
		exit(SKIP);                                                                        \
	} while (0)

/* The claim, and the program's failure if it is false. */
#define prove(claim, ...)                                                                          \
	do {                                                                                       \
		if (!(claim)) {                                                                    \
			printf("%s:%d: not so: %s: ", __FILE__, __LINE__, #claim);                 \
			printf(__VA_ARGS__);                                                       \
			putchar('\n');                                                             \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* A shared mapping of a file, write-protected asynchronously by a userfaultfd. */
struct tracked {
	int fd, uffd, pagemap;
	uint8_t *map;
	uint64_t size;
};

/* Further flags for userfaultfd(2). */
static int tracked_flags;

static inline void tracked_register(struct tracked *t)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
					      UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = { .range = { (uintptr_t)t->map, t->size },
				       .mode = UFFDIO_REGISTER_MODE_WP };

	t->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | tracked_flags);
	if (t->uffd < 0)
		skip("userfaultfd: %s", strerror(errno));
	if (ioctl(t->uffd, UFFDIO_API, &api))
		skip("no asynchronous write protection: %s", strerror(errno));
	prove(!ioctl(t->uffd, UFFDIO_REGISTER, &reg), "%s", strerror(errno));
	t->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	prove(t->pagemap >= 0, "%s", strerror(errno));
}

/* fd: taken; size bytes are mapped at an address aligned to 2 MiB. */
static inline void tracked_map(struct tracked *t, int fd, uint64_t size)
{
	uint8_t *room = mmap(NULL, size + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t at = ((uintptr_t)room + HUGE - 1) & ~(HUGE - 1);

	prove(room != MAP_FAILED, "%s", strerror(errno));
	t->fd = fd;
	t->size = size;
	t->map = mmap((void *)at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (t->map == MAP_FAILED)
		skip("cannot map %llu bytes: %s", (unsigned long long)size, strerror(errno));
}

static inline int memfd_of(uint64_t size)
{
	int fd = memfd_create("proof", MFD_CLOEXEC);

	prove(fd >= 0 && !ftruncate(fd, (off_t)size), "%s", strerror(errno));
	return fd;
}

/*
 * Pages of [first, first + count) that are written, re-armed if arm is set; -errno. The ranges go
 * to the bytes of seen (one per page), if it is not NULL.
 */
static inline long tracked_scan(struct tracked *t, uint64_t first, uint64_t count, bool arm,
				uint8_t *seen)
{
	static struct pagemap_range found[1024];
	uint64_t at = (uintptr_t)t->map + first * PAGE, end = at + count * PAGE;
	long pages = 0;

	while (at < end) {
		struct pagemap_scan q = {
			.size = sizeof(q),
			.flags = PAGEMAP_SCAN_CHECK_WPASYNC | (arm ? PAGEMAP_SCAN_WP_MATCHING : 0),
			.start = at,
			.end = end,
			.vec = (uintptr_t)found,
			.vec_len = 1024,
			.category_mask = PAGEMAP_IS_WRITTEN,
			.return_mask = PAGEMAP_IS_WRITTEN,
		};
		long n = ioctl(t->pagemap, PAGEMAP_SCAN_IOCTL, &q);

		if (n < 0 && errno == ENOTTY)
			skip("this kernel has no PAGEMAP_SCAN");
		if (n < 0)
			return -errno;
		for (long i = 0; i < n; i++) {
			uint64_t len = (found[i].end - found[i].start) / PAGE;

			pages += (long)len;
			if (seen)
				memset(seen + (found[i].start - (uintptr_t)t->map) / PAGE, 1, len);
		}
		if (q.walk_end <= at)
			return -EDEADLK;
		at = q.walk_end;
	}
	return pages;
}

/* Protects every page, mapped or not, in the way of pagemap_shard.c; 0 or -errno. */
static inline long tracked_arm_all(struct tracked *t)
{
	struct pagemap_scan q = {
		.size = sizeof(q),
		.flags = PAGEMAP_SCAN_CHECK_WPASYNC | PAGEMAP_SCAN_WP_MATCHING,
		.start = (uintptr_t)t->map,
		.end = (uintptr_t)t->map + t->size,
	};

	return ioctl(t->pagemap, PAGEMAP_SCAN_IOCTL, &q) < 0 ? -errno : 0;
}

/* The categories of one page, 0 if it is in none of them. */
static inline uint64_t tracked_categories(struct tracked *t, uint64_t page)
{
	struct pagemap_range found;
	struct pagemap_scan q = {
		.size = sizeof(q),
		.start = (uintptr_t)t->map + page * PAGE,
		.end = (uintptr_t)t->map + (page + 1) * PAGE,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.return_mask = PAGEMAP_IS_WPALLOWED | PAGEMAP_IS_WRITTEN | PAGEMAP_IS_PRESENT |
			       PAGEMAP_IS_SWAPPED | PAGEMAP_IS_HUGE,
	};

	return ioctl(t->pagemap, PAGEMAP_SCAN_IOCTL, &q) == 1 ? found.categories : 0;
}

/* A file of a tmpfs that nobody else sees; huge: its pages, as the mount option has it. */
static inline int tmpfs_file(uint64_t size, const char *huge)
{
	char dir[] = "/tmp/tranship-tmpfs-XXXXXX", path[64], options[64];
	int fd;

	prove(mkdtemp(dir) != NULL, "%s", strerror(errno));
	snprintf(options, sizeof(options), "huge=%s,size=64m", huge);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", dir, "tmpfs", 0, options)) {
		rmdir(dir);
		skip("cannot mount a tmpfs with huge=%s: %s", huge, strerror(errno));
	}
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	prove(fd >= 0 && !ftruncate(fd, (off_t)size), "%s", strerror(errno));
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	return fd;
}

#endif
