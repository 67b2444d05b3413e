// SPDX-License-Identifier: MIT
/* Calls of PAGEMAP_SCAN; see pagemap_scan.h. */
#include "dataplane/track/pagemap_scan.h"

#include <errno.h>

/* Arming costs 0.5 ms per 64 MiB of mapped pages, 0.1 ms when they are protected already. */
#define ARM_WINDOW (16ull << 20)

long pagemap_scan_once(int fd, struct pagemap_scan *q, uint64_t *at, uint64_t end)
{
	const struct pagemap_range *found = (const struct pagemap_range *)(uintptr_t)q->vec;
	long n;

	q->size = sizeof(*q);
	q->flags |= PAGEMAP_SCAN_CHECK_WPASYNC;
	q->start = *at;
	q->end = end;
	q->walk_end = 0;
	do {
		n = ioctl(fd, PAGEMAP_SCAN_IOCTL, q);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (q->walk_end <= *at || q->walk_end > end || (uint64_t)n > q->vec_len)
		return -EPROTO; /* would loop for ever, or leave pages out */
	*at = q->walk_end;
	/* a walk that takes several of the kernel's own buffers ends with a walk_end gone stale */
	if (n > 0 && found[n - 1].end > *at)
		*at = found[n - 1].end;
	return *at > end ? -EPROTO : n;
}

int pagemap_arm(int fd, uint64_t start, uint64_t end)
{
	while (start < end) {
		struct pagemap_scan q = { .flags = PAGEMAP_SCAN_WP_MATCHING };
		long n = pagemap_scan_once(fd, &q, &start,
					   end - start < ARM_WINDOW ? end : start + ARM_WINDOW);

		if (n < 0)
			return (int)n;
	}
	return 0;
}

int pagemap_check_mapped(int fd, uint64_t address, uint32_t page_size)
{
	struct pagemap_range found;
	struct pagemap_scan q = {
		.category_mask = PAGEMAP_IS_WPALLOWED,
		.return_mask = PAGEMAP_IS_WPALLOWED,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
	};
	long n = pagemap_scan_once(fd, &q, &address, address + page_size);

	return n < 0 ? (int)n : n == 0 ? -EOWNERDEAD : 0;
}
