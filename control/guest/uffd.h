/* SPDX-License-Identifier: MIT */
/*
 * The userfaultfd that lives in a VMM: made inside it, taken out, and undone without a stall.
 *
 * Its life: uffd_inside -> uffd_api -> uffd_register_wp for each mapping -> (tracking) ->
 * uffd_unregister_windows for each mapping -> uffd_close_inside -> close of our own descriptor.
 * A restarted transhipd takes a journaled one over with uffd_adopt and undoes it likewise.
 */
#ifndef TRANSHIP_CONTROL_UFFD_H
#define TRANSHIP_CONTROL_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/failure.h"

/* For tracking: asynchronous write protection, unpopulated pages and shmem and hugetlb too. */
#define UFFD_TRACK_FEATURES                                                                        \
	(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

/*
 * Tries in this process all that tracking rests on: userfaultfd, the features, PAGEMAP_SCAN. 0, or
 * -EOPNOTSUPP with the reason in f (tracker-unavailable). Touches no other process.
 */
int uffd_probe(struct failure *f);

/*
 * A userfaultfd of pid's memory: *local_fd is ours (close-on-exec), *remote_fd its number inside.
 * full: one that also catches the kernel's accesses is needed (post-copy); otherwise one for user
 * mode will do where the VMM lacks the privilege (write-protection tracks the kernel's all the
 * same). Failures: inject-failed, vm-gone, tracker-unavailable.
 */
int uffd_inside(pid_t pid, bool full, int *local_fd, int *remote_fd, struct failure *f);

/* UFFDIO_API; once for each userfaultfd. */
int uffd_api(int fd, uint64_t features, struct failure *f);

/*
 * Write-protection mode over [start, end), addresses in the VMM. -EBUSY (tracker-unavailable) if
 * another userfaultfd has some of it. Microseconds; pages are not touched.
 */
int uffd_register_wp(int fd, uint64_t start, uint64_t end, struct failure *f);

/* The same with a descriptor of /dev/userfaultfd that pid has open as `device`; the full kind. */
int uffd_inside_by_device(pid_t pid, int device, int *local_fd, int *remote_fd, struct failure *f);

/* MISSING and MINOR mode over [start, end), for post-copy; as uffd_register_wp. */
int uffd_register_faults(int fd, uint64_t start, uint64_t end, struct failure *f);

/*
 * Undoes the registration of [start, end) in windows, each of which holds the VMM's mmap lock for
 * a fraction of a millisecond. What is not registered or not mapped any more is passed over.
 */
int uffd_unregister_windows(int fd, uint64_t start, uint64_t end);
/*
 * The same at once, for huge pages (hugetlb): there is little to do, and what windows have split
 * the kernel does not join again (VM_SPECIAL), so that the RAM of the VM would stay in pieces.
 */
int uffd_unregister(int fd, uint64_t start, uint64_t end);

/*
 * Takes over a userfaultfd that an earlier transhipd left inside pid under number remote_fd:
 * *local_fd. -ENOENT if the number is something else by now, or one that we did not make.
 */
int uffd_adopt(pid_t pid, int remote_fd, int *local_fd, struct failure *f);

/*
 * Closes number remote_fd inside pid, if it still is the userfaultfd behind local_fd; -ENOENT if
 * not. Unregister first: closing an armed one stalls the VM by about 10 ms a GiB.
 */
int uffd_close_inside(pid_t pid, int remote_fd, int local_fd, struct failure *f);

#endif
