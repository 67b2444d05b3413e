// SPDX-License-Identifier: MIT
/*
 * The userfaultfd inside a VMM; see uffd.h.
 *
 * Theory of operation
 *   The descriptor must be made by the process whose memory it governs, hence one injected system
 *   call; pidfd_getfd takes a duplicate out, and all ioctls are made on that. For tracking it is
 *   made with UFFD_USER_MODE_ONLY, which needs no privilege in the VMM: asynchronous write
 *   protection raises no message to be handled, so it sees the kernel's and KVM's writes anyway.
 *
 *   Both descriptors refer to one userfaultfd, which ends with the last of them. Ending it while
 *   ranges are registered would lift the protection of all of them under the VMM's mmap lock.
 */
#include "control/guest/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "control/guest/inject.h"
#include "lib/base/cleanup.h"
#include "lib/base/kernel_abi.h"
#include "lib/base/log.h"

#define UNREGISTER_WINDOW   (8ull << 20)
#define UNREGISTER_PAUSE_NS 20000

/* QEMU itself uses none of these: it post-copies by MISSING alone. */
#define UFFD_OUR_FEATURES    (UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_MINOR_SHMEM)
#define USERFAULTFD_IOC_NEW_ _IO(0xAA, 0x00) /* Linux 6.1 */

#define KERNEL_HINT "Tracking from outside needs Linux 6.7 or later with userfaultfd."

/* Tries to track two pages of our own memory. */
static int probe_tracking(int uffd, uint8_t *map, uint64_t size, struct failure *f)
{
	AUTO_CLOSE int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct pagemap_range found;
	struct pagemap_scan q = {
		.size = sizeof(q),
		.flags = PAGEMAP_SCAN_WP_MATCHING | PAGEMAP_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)map,
		.end = (uintptr_t)map + size,
	};
	int err;

	err = uffd_api(uffd, UFFD_TRACK_FEATURES, f);
	if (!err)
		err = uffd_register_wp(uffd, q.start, q.end, f);
	if (err)
		return err;
	if (pagemap < 0 || ioctl(pagemap, PAGEMAP_SCAN_IOCTL, &q) < 0)
		return failure_set(f, -EOPNOTSUPP, "tracker-unavailable", KERNEL_HINT,
				   "this kernel has no PAGEMAP_SCAN: %s", strerror(errno));
	*(volatile uint8_t *)(map + size / 2) = 1;
	q.flags = PAGEMAP_SCAN_CHECK_WPASYNC;
	q.walk_end = 0;
	q.vec = (uintptr_t)&found;
	q.vec_len = 1;
	q.category_mask = PAGEMAP_IS_WRITTEN;
	q.return_mask = PAGEMAP_IS_WRITTEN;
	if (ioctl(pagemap, PAGEMAP_SCAN_IOCTL, &q) != 1 || found.start != q.start + size / 2)
		return failure_set(f, -EOPNOTSUPP, "tracker-unavailable", KERNEL_HINT,
				   "this kernel's PAGEMAP_SCAN does not report a written page");
	return 0;
}

int uffd_probe(struct failure *f)
{
	AUTO_CLOSE int uffd =
		(int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	AUTO_CLOSE int memory = memfd_create("tranship-probe", MFD_CLOEXEC);
	uint64_t size = 2 * (uint64_t)sysconf(_SC_PAGESIZE);
	uint8_t *map;
	int err;

	if (uffd < 0)
		return failure_set(f, -EOPNOTSUPP, "tracker-unavailable", KERNEL_HINT,
				   "userfaultfd is not available: %s", strerror(errno));
	if (memory < 0 || ftruncate(memory, (off_t)size))
		return failure_set(f, -errno, "internal", NULL, "memfd: %s", strerror(errno));
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (map == MAP_FAILED)
		return failure_set(f, -errno, "internal", NULL, "mmap: %s", strerror(errno));
	err = probe_tracking(uffd, map, size, f);
	munmap(map, size);
	return err;
}

static int take_out(pid_t pid, int remote_fd)
{
	AUTO_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int fd;

	if (pidfd < 0)
		return -errno;
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, remote_fd, 0);
	return fd < 0 ? -errno : fd;
}

static void close_number(pid_t pid, int remote_fd)
{
	const uint64_t args[6] = { (uint64_t)remote_fd };
	struct failure f = { 0 };
	int64_t result;

	if (inject_syscall(pid, SYS_close, args, &result, &f))
		log_warn("userfaultfd %d stays open in process %d: %s", remote_fd, (int)pid,
			 f.message);
}

/* Number remote_fd of pid is a new userfaultfd: ours too. */
static int share(pid_t pid, int64_t remote, int *local_fd, int *remote_fd, struct failure *f)
{
	int fd = take_out(pid, (int)remote);

	if (fd < 0) {
		close_number(pid, (int)remote);
		return failure_set(f, fd, "inject-failed", NULL,
				   "the userfaultfd could not be taken out of process %d: %s",
				   (int)pid, strerror(-fd));
	}
	*local_fd = fd;
	*remote_fd = (int)remote;
	return 0;
}

int uffd_inside(pid_t pid, bool full, int *local_fd, int *remote_fd, struct failure *f)
{
	const uint64_t args[6] = { O_CLOEXEC | O_NONBLOCK | (full ? 0 : UFFD_USER_MODE_ONLY) };
	int64_t result;
	int err = inject_syscall(pid, SYS_userfaultfd, args, &result, f);

	if (err)
		return err;
	if (result < 0)
		return failure_set(f, (int)result, "tracker-unavailable",
				   full && result == -EPERM
					   ? "Set vm.unprivileged_userfaultfd=1, or give the VM's "
					     "process CAP_SYS_PTRACE."
					   : KERNEL_HINT,
				   "userfaultfd failed inside process %d: %s", (int)pid,
				   strerror((int)-result));
	return share(pid, result, local_fd, remote_fd, f);
}

int uffd_inside_by_device(pid_t pid, int device, int *local_fd, int *remote_fd, struct failure *f)
{
	const uint64_t args[6] = { (uint64_t)device, USERFAULTFD_IOC_NEW_, O_CLOEXEC | O_NONBLOCK };
	int64_t result;
	int err = inject_syscall(pid, SYS_ioctl, args, &result, f);

	if (err)
		return err;
	if (result < 0)
		return failure_set(f, (int)result, "inject-failed", NULL,
				   "USERFAULTFD_IOC_NEW failed inside process %d: %s", (int)pid,
				   strerror((int)-result));
	return share(pid, result, local_fd, remote_fd, f);
}

int uffd_api(int fd, uint64_t features, struct failure *f)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (!ioctl(fd, UFFDIO_API, &api))
		return 0;
	return failure_set(f, -errno, "tracker-unavailable", KERNEL_HINT,
			   "this kernel's userfaultfd lacks features (asked %#llx): %s",
			   (unsigned long long)features, strerror(errno));
}

static int register_mode(int fd, uint64_t start, uint64_t end, uint64_t mode, struct failure *f)
{
	struct uffdio_register reg = {
		.range = { .start = start, .len = end - start },
		.mode = mode,
	};
	int err;

	if (!ioctl(fd, UFFDIO_REGISTER, &reg))
		return 0;
	err = -errno;
	if (err == -EBUSY)
		return failure_set(f, err, "tracker-unavailable",
				   "End the other use first: a background snapshot, a post-copy "
				   "migration or an earlier session that was cut short.",
				   "the VM's RAM is under another userfaultfd already");
	return failure_set(f, err, err == -ESRCH ? "vm-gone" : "tracker-unavailable", NULL,
			   "the VM's RAM at %#llx cannot be registered: %s",
			   (unsigned long long)start, strerror(-err));
}

int uffd_register_wp(int fd, uint64_t start, uint64_t end, struct failure *f)
{
	return register_mode(fd, start, end, UFFDIO_REGISTER_MODE_WP, f);
}

int uffd_register_faults(int fd, uint64_t start, uint64_t end, struct failure *f)
{
	return register_mode(fd, start, end,
			     UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR, f);
}

int uffd_unregister_windows(int fd, uint64_t start, uint64_t end)
{
	int first = 0;

	for (uint64_t at = start; at < end; at += UNREGISTER_WINDOW) {
		struct uffdio_range r = {
			.start = at,
			.len = end - at < UNREGISTER_WINDOW ? end - at : UNREGISTER_WINDOW,
		};

		/* without a pause the lock is ours again before a waiting fault is awake */
		nanosleep(&(struct timespec){ 0, UNREGISTER_PAUSE_NS }, NULL);
		if (!ioctl(fd, UFFDIO_UNREGISTER, &r))
			continue;
		if (errno == ESRCH)
			return 0; /* the process ended, and all of it with it */
		if (errno == EINVAL || errno == ENOENT || errno == ENOMEM)
			continue; /* not mapped, or replaced by something else */
		if (!first)
			first = -errno;
	}
	return first;
}

int uffd_unregister(int fd, uint64_t start, uint64_t end)
{
	struct uffdio_range r = { .start = start, .len = end - start };

	return ioctl(fd, UFFDIO_UNREGISTER, &r) && errno != ESRCH && errno != EINVAL ? -errno : 0;
}

/* Whether number remote_fd of pid is a userfaultfd with our features. */
static bool is_ours(pid_t pid, int remote_fd)
{
	AUTO_CLOSE int info = -1;
	char path[64], text[512];
	unsigned long long api, features;
	const char *line;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, remote_fd);
	n = readlink(path, text, sizeof(text) - 1);
	if (n < 0)
		return false;
	text[n] = '\0';
	if (strcmp(text, "anon_inode:[userfaultfd]"))
		return false;
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, remote_fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	n = info < 0 ? -1 : read(info, text, sizeof(text) - 1);
	if (n < 0)
		return false;
	text[n] = '\0';
	line = strstr(text, "API:");
	/* 0 features: made by us and not set up yet */
	return line && sscanf(line, "API: %llx:%llx", &api, &features) == 2 &&
	       (!(features & 0xffffffff) || features & UFFD_OUR_FEATURES);
}

int uffd_adopt(pid_t pid, int remote_fd, int *local_fd, struct failure *f)
{
	int fd;

	if (!is_ours(pid, remote_fd))
		return failure_set(f, -ENOENT, "internal", NULL,
				   "descriptor %d of process %d is no userfaultfd of ours",
				   remote_fd, (int)pid);
	fd = take_out(pid, remote_fd);
	if (fd < 0)
		return failure_set(f, fd, "internal", NULL,
				   "the userfaultfd cannot be taken out of process %d: %s",
				   (int)pid, strerror(-fd));
	*local_fd = fd;
	return 0;
}

int uffd_close_inside(pid_t pid, int remote_fd, int local_fd, struct failure *f)
{
	const uint64_t args[6] = { (uint64_t)remote_fd };
	long same = syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, local_fd, remote_fd);
	int64_t result;
	int err;

	if (same < 0 && (errno == ENOSYS || errno == EPERM))
		same = is_ours(pid, remote_fd) ? 0 : 1;
	if (same < 0 && errno == ESRCH)
		return failure_set(f, -ESRCH, "vm-gone", NULL, "process %d has ended", (int)pid);
	if (same)
		return failure_set(f, -ENOENT, "internal", NULL,
				   "descriptor %d of process %d is not our userfaultfd any more",
				   remote_fd, (int)pid);
	err = inject_syscall(pid, SYS_close, args, &result, f);
	if (!err && result < 0)
		err = failure_set(f, (int)result, "inject-failed", NULL,
				  "close failed inside process %d: %s", (int)pid,
				  strerror((int)-result));
	return err;
}
