/* SPDX-License-Identifier: MIT */
/*
 * Kernel interfaces newer than Debian 12's headers (Linux 6.1), under names that stay valid beside
 * newer headers. <linux/fs.h>, where PAGEMAP_SCAN lives, cannot be included beside <sys/mount.h>,
 * so its structures are declared here under names of our own. And a few older constants that a
 * libc may lack.
 */
#ifndef TRANSHIP_BASE_KERNEL_ABI_H
#define TRANSHIP_BASE_KERNEL_ABI_H

#include <assert.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* userfaultfd features: 6.4, 6.6, 6.7. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* PAGEMAP_SCAN, 6.7: one run of pages with the same categories. */
struct pagemap_range {
	uint64_t start, end;
	uint64_t categories;
};

struct pagemap_scan {
	uint64_t size;	/* of this struct */
	uint64_t flags; /* PAGEMAP_SCAN_WP_MATCHING ... */
	uint64_t start, end;
	uint64_t walk_end; /* out: where the walk stopped */
	uint64_t vec;	   /* struct pagemap_range *, or 0 */
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};
static_assert(sizeof(struct pagemap_scan) == 96, "kernel ABI");
static_assert(sizeof(struct pagemap_range) == 24, "kernel ABI");

#define PAGEMAP_SCAN_IOCTL _IOWR('f', 16, struct pagemap_scan)

#define PAGEMAP_SCAN_WP_MATCHING   (1ull << 0) /* write-protect what matches */
#define PAGEMAP_SCAN_CHECK_WPASYNC (1ull << 1) /* EPERM where WP_ASYNC is not registered */

#define PAGEMAP_IS_WPALLOWED (1ull << 0)
#define PAGEMAP_IS_WRITTEN   (1ull << 1)
#define PAGEMAP_IS_FILE	     (1ull << 2)
#define PAGEMAP_IS_PRESENT   (1ull << 3)
#define PAGEMAP_IS_SWAPPED   (1ull << 4) /* markers and migration entries too */
#define PAGEMAP_IS_PFNZERO   (1ull << 5)
#define PAGEMAP_IS_HUGE	     (1ull << 6)

/* ptrace, from <linux/ptrace.h>, which cannot be included beside <sys/ptrace.h>. */
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif
#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

/* madvise: 5.4, 5.14, 5.18 (memory that is mlocked too), 6.1. */
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Linux 3.12: bytes of a socket's queue that are not sent yet, above which it is not writable. */
#ifndef TCP_NOTSENT_LOWAT
#define TCP_NOTSENT_LOWAT 25
#endif

/* cachestat, Linux 6.5: what of a file is in memory. One number on every architecture. */
#define SYS_cachestat_ 451
struct cachestat_area {
	uint64_t offset, length; /* bytes */
};
struct cachestat_pages {
	uint64_t cache, dirty, writeback, evicted, recently_evicted;
};

#endif
