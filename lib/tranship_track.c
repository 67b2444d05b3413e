// SPDX-License-Identifier: MIT
/*
 * The guest's writes made trackable from inside its VMM; see tranship_internal.h.
 *
 * Theory of operation
 *   arm makes a userfaultfd and registers every region's mapping for asynchronous write protection.
 *   That alone protects nothing: transhipd's data plane does so with PAGEMAP_SCAN on this process's
 *   pagemap, which reports and re-protects written pages in one step. A protected page's first
 *   write costs one fault that the kernel resolves by itself; nobody reads this descriptor.
 *
 *   WP_UNPOPULATED: pages that were never touched are reported too once they are. USER_MODE_ONLY
 *   suffices, so that the VMM needs no privilege: with WP_ASYNC the kernel's own writes (read(2)
 *   into guest RAM, KVM) never wait for a handler and are reported all the same.
 *
 *   disarm unregisters in windows and only then closes: closing an armed userfaultfd of a large
 *   guest holds the address space's lock for about 10 ms a GiB, and every fault of the guest waits
 *   for it. A window of 32 MiB takes at most 4 ms.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/kernel_abi.h"
#include "lib/tranship_internal.h"

#define UNREGISTER_WINDOW (32ull << 20)

static int track_register(int uffd, const struct tranship_region_info *r)
{
	struct uffdio_register reg = { .range = { r->address, r->size },
				       .mode = UFFDIO_REGISTER_MODE_WP };

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static void track_unregister(int uffd, const struct tranship_region_info *r)
{
	uint64_t window = UNREGISTER_WINDOW > r->page_size ? UNREGISTER_WINDOW : r->page_size;

	for (uint64_t at = 0; at < r->size; at += window) {
		uint64_t len = r->size - at < window ? r->size - at : window;
		struct uffdio_range range = { r->address + at, len };

		/* EINVAL: this part was never registered, or the VMM has mapped it anew */
		ioctl(uffd, UFFDIO_UNREGISTER, &range);
	}
}

int tranship_track_arm(struct tranship *t)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
					      UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	int err = 0;

	if (t->uffd >= 0)
		return 0;
	t->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (t->uffd < 0)
		return -errno;
	if (ioctl(t->uffd, UFFDIO_API, &api))
		err = -errno;
	for (uint32_t i = 0; !err && i < t->nregions; i++) {
		err = track_register(t->uffd, &t->regions[i].info);
		if (err)
			tranship_log(t, "region %s cannot be tracked: %s", t->regions[i].info.id,
				     strerror(-err));
	}
	if (err)
		tranship_track_disarm(t);
	return err;
}

void tranship_track_disarm(struct tranship *t)
{
	if (t->uffd < 0)
		return;
	for (uint32_t i = 0; i < t->nregions; i++)
		track_unregister(t->uffd, &t->regions[i].info);
	close(t->uffd);
	t->uffd = -1;
}
