// SPDX-License-Identifier: MIT
/*
 * Making a waiting QEMU's accesses to RAM fault, so that it can run before all of its RAM is there.
 *
 * Theory of operation
 *   A userfaultfd is made inside QEMU, of the full kind: the kernel's accesses (KVM, vhost-net)
 *   must wait too. Where QEMU lacks the privilege it is handed /dev/userfaultfd, opened by us, for
 *   the moment that USERFAULTFD_IOC_NEW takes. Every mapping of RAM is registered for MISSING and
 *   MINOR; then its page table is emptied by an injected madvise, so that what QEMU has touched
 *   before (preallocation) faults as well. Files keep what they hold.
 *
 *   QEMU's own descriptor stays open: if we and the data plane die, faults wait instead of being
 *   given zeros. guest_qemu_disarm() undoes it as it does for tracking, and after a crash
 *   guest_qemu_disarm_residue(); uffd_adopt() takes it over instead.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/guest/inject.h"
#include "control/guest/uffd.h"
#include "lib/base/cleanup.h"
#include "lib/base/kernel_abi.h"
#include "lib/base/log.h"

/* An injected call must return within a second; 4 GiB of small pages take 40 ms. */
#define ZAP_WINDOW (4ull << 30)

static int zap(pid_t pid, uint64_t start, uint64_t end, struct failure *f)
{
	for (uint64_t at = start; at < end; at += ZAP_WINDOW) {
		uint64_t length = end - at < ZAP_WINDOW ? end - at : ZAP_WINDOW;
		uint64_t args[6] = { at, length, MADV_DONTNEED_LOCKED };
		int64_t result;
		int err = inject_syscall(pid, SYS_madvise, args, &result, f);

		if (!err && result == -EINVAL) {
			args[2] = MADV_DONTNEED;
			err = inject_syscall(pid, SYS_madvise, args, &result, f);
		}
		if (err)
			return err;
		if (result < 0)
			return failure_set(f, (int)result, "inject-failed", NULL,
					   "the page table of process %d cannot be emptied: %s",
					   (int)pid, strerror((int)-result));
	}
	return 0;
}

static int watch_all(struct guest_qemu *q, struct failure *f)
{
	const struct guest_description *d = &q->g.desc;
	uint64_t features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM;
	int err;

	for (uint32_t i = 0; i < d->nregions; i++)
		if (d->regions[i].hugetlb)
			features |= UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS;
	err = uffd_api(q->uffd, features, f);
	for (uint32_t i = 0; !err && i < d->nregions; i++)
		for (uint32_t k = 0; !err && k < d->regions[i].nmappings; k++) {
			const struct guest_mapping *m = &d->regions[i].mappings[k];

			err = uffd_register_faults(q->uffd, m->start, m->end, f);
			if (!err)
				err = zap(q->g.pid, m->start, m->end, f);
		}
	return err;
}

/* The number under which process pid has the device open, or -1. */
static int number_of_device(pid_t pid)
{
	struct stat device, st;
	char path[64];

	if (stat("/dev/userfaultfd", &device))
		return -1;
	for (int fd = 0; fd < 4096; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
		if (!stat(path, &st) && S_ISCHR(st.st_mode) && st.st_rdev == device.st_rdev)
			return fd;
	}
	return -1;
}

/* For a QEMU that may not make one itself. */
static int make_by_device(struct guest_qemu *q, struct failure *f)
{
	AUTO_CLOSE int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int number, err;

	if (device < 0)
		return failure_set(f, -errno, "inject-failed",
				   "Set vm.unprivileged_userfaultfd=1, or give the VM's process "
				   "CAP_SYS_PTRACE.",
				   "/dev/userfaultfd cannot be opened: %s", strerror(errno));
	err = qmp_call_fd(q->q, "getfd", json_pack("{s:s}", "fdname", "tranship-uffd"), device,
			  NULL, f);
	if (err)
		return err;
	number = number_of_device(q->g.pid);
	err = number < 0 ? failure_set(f, -ENOENT, "inject-failed", NULL,
				       "QEMU did not keep the device it was given")
			 : uffd_inside_by_device(q->g.pid, number, &q->uffd, &q->remote_uffd, f);
	qmp_call(q->q, "closefd", json_pack("{s:s}", "fdname", "tranship-uffd"), NULL, NULL);
	return err;
}

int guest_qemu_postcopy(struct guest *g, int *fd, json_t **residue, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	int err;

	*fd = -1;
	*residue = NULL;
	if (q->uffd >= 0)
		return failure_set(f, -EBUSY, "internal", NULL, "the VM is watched already");
	err = uffd_inside(g->pid, true, &q->uffd, &q->remote_uffd, f);
	if (err == -EPERM) {
		failure_clear(f);
		err = make_by_device(q, f);
	}
	if (err) {
		q->uffd = -1;
		return err;
	}
	err = watch_all(q, f);
	if (err) {
		guest_qemu_disarm(g);
		return err;
	}
	q->faults = true;
	*residue = guest_qemu_residue(q);
	*fd = fcntl(q->uffd, F_DUPFD_CLOEXEC, 0);
	return *fd < 0 ? failure_set(f, -errno, "internal", NULL, "fcntl: %m") : 0;
}
