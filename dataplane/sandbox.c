// SPDX-License-Identifier: MIT
/*
 * Dropping every privilege of a data plane; see sandbox.h.
 *
 * Theory of operation
 *   The filter is an allow-list; what is not on it kills the process, which fails the session and
 *   harms no guest. A few calls that the C library tries and can do without (opening locale or
 *   topology files, clone3) return an error instead, so that a library update does not become an
 *   outage.
 *
 *   Arguments are checked where they decide: mappings may not be executable, ioctl is limited to
 *   the requests listed, clone to threads, prctl to naming, signals to this process.
 *
 *   io_uring submits operations past the filter. io_uring_setup is not allowed, and of
 *   io_uring_register only the enabling of rings that were made before, restricted to sending
 *   (uring.h).
 *
 *   The sanitizers' runtimes read /proc and make calls of their own at any time, so a build with
 *   one gets everything but the filter.
 */
#include "dataplane/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/kernel_abi.h"
#include "lib/base/log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* Descriptors that come over the socketpair later (device state), and one made meanwhile. */
#define SPARE_FDS 4

/* A bench does what both sides of a migration do, for each of its two can send and receive. */
#define ROLE_BENCH	 (1u << IPC_ROLE_BENCH_SOURCE | 1u << IPC_ROLE_BENCH_DESTINATION)
#define ROLE_SOURCE	 (1u << IPC_ROLE_SOURCE | 1u << IPC_ROLE_POSTCOPY_SOURCE | ROLE_BENCH)
#define ROLE_FAULTS	 (1u << IPC_ROLE_POSTCOPY_DESTINATION)
#define ROLE_DESTINATION (1u << IPC_ROLE_DESTINATION | ROLE_FAULTS | ROLE_BENCH)
#define ROLE_OBSERVER	 (1u << IPC_ROLE_OBSERVER)
#define ROLE_ALL	 (ROLE_SOURCE | ROLE_DESTINATION | ROLE_OBSERVER)
#define ROLE_MOVING	 (ROLE_SOURCE | ROLE_DESTINATION)
#define ROLE_ACCEPTING                                                                             \
	(1u << IPC_ROLE_DESTINATION | ROLE_FAULTS | 1u << IPC_ROLE_BENCH_DESTINATION)

static const struct {
	int call;
	unsigned int roles;
} allowed[] = {
	/* Bytes between descriptors. */
	{ SCMP_SYS(read), ROLE_ALL },
	{ SCMP_SYS(write), ROLE_ALL },
	{ SCMP_SYS(readv), ROLE_MOVING },
	{ SCMP_SYS(writev), ROLE_ALL },
	{ SCMP_SYS(pread64), ROLE_ALL },
	{ SCMP_SYS(preadv), ROLE_MOVING },
	{ SCMP_SYS(pwrite64), ROLE_DESTINATION },
	{ SCMP_SYS(pwritev), ROLE_DESTINATION },
	{ SCMP_SYS(fallocate), ROLE_DESTINATION },
	{ SCMP_SYS(sendfile), ROLE_SOURCE },
	{ SCMP_SYS(splice), ROLE_MOVING },
	{ SCMP_SYS(vmsplice), ROLE_MOVING },
	{ SCMP_SYS(lseek), ROLE_ALL },
	{ SYS_cachestat_, ROLE_ALL }, /* libseccomp 2.5 has no name for it */
	{ SCMP_SYS(sendto), ROLE_ALL },
	{ SCMP_SYS(sendmsg), ROLE_ALL },
	{ SCMP_SYS(recvfrom), ROLE_ALL },
	{ SCMP_SYS(recvmsg), ROLE_ALL },
	{ SCMP_SYS(accept), ROLE_ACCEPTING },
	{ SCMP_SYS(accept4), ROLE_ACCEPTING },
	{ SCMP_SYS(shutdown), ROLE_MOVING },
	{ SCMP_SYS(setsockopt), ROLE_MOVING },
	{ SCMP_SYS(getsockopt), ROLE_MOVING },
	{ SCMP_SYS(getpeername), ROLE_MOVING },
	{ SCMP_SYS(io_uring_enter), ROLE_MOVING },
	{ SCMP_SYS(close), ROLE_ALL },
	{ SCMP_SYS(dup), ROLE_ALL },
	{ SCMP_SYS(fcntl), ROLE_ALL },
	{ SCMP_SYS(fstat), ROLE_ALL },
	{ SCMP_SYS(eventfd2), ROLE_ALL },
	{ SCMP_SYS(pipe2), ROLE_ALL },

	/* Waiting. */
	{ SCMP_SYS(poll), ROLE_ALL },
	{ SCMP_SYS(ppoll), ROLE_ALL },
	{ SCMP_SYS(epoll_create1), ROLE_MOVING },
	{ SCMP_SYS(epoll_ctl), ROLE_MOVING },
	{ SCMP_SYS(epoll_wait), ROLE_MOVING },
	{ SCMP_SYS(epoll_pwait), ROLE_MOVING },
	{ SCMP_SYS(futex), ROLE_ALL },
	{ SCMP_SYS(nanosleep), ROLE_ALL },
	{ SCMP_SYS(clock_nanosleep), ROLE_ALL },
	{ SCMP_SYS(clock_gettime), ROLE_ALL },
	{ SCMP_SYS(clock_getres), ROLE_ALL },
	{ SCMP_SYS(gettimeofday), ROLE_ALL },
	{ SCMP_SYS(restart_syscall), ROLE_ALL },

	/* Memory and threads of this process. */
	{ SCMP_SYS(munmap), ROLE_ALL },
	{ SCMP_SYS(mremap), ROLE_ALL },
	{ SCMP_SYS(madvise), ROLE_ALL },
	{ SCMP_SYS(brk), ROLE_ALL },
	{ SCMP_SYS(set_robust_list), ROLE_ALL },
	{ SCMP_SYS(rseq), ROLE_ALL },
	{ SCMP_SYS(membarrier), ROLE_ALL },
	{ SCMP_SYS(sched_yield), ROLE_ALL },
	{ SCMP_SYS(sched_getaffinity), ROLE_ALL },
	{ SCMP_SYS(getpid), ROLE_ALL },
	{ SCMP_SYS(gettid), ROLE_ALL },
	{ SCMP_SYS(getppid), ROLE_ALL },
	{ SCMP_SYS(getrusage), ROLE_ALL },
	{ SCMP_SYS(getrandom), ROLE_ALL },
	{ SCMP_SYS(getcpu), ROLE_ALL },
	{ SCMP_SYS(rt_sigaction), ROLE_ALL },
	{ SCMP_SYS(rt_sigprocmask), ROLE_ALL },
	{ SCMP_SYS(rt_sigreturn), ROLE_ALL },
	{ SCMP_SYS(sigaltstack), ROLE_ALL },
	{ SCMP_SYS(exit), ROLE_ALL },
	{ SCMP_SYS(exit_group), ROLE_ALL },
};

/* Tried by the C library, which has another way. */
static const struct {
	int call;
	uint32_t error;
} declined[] = {
	{ SCMP_SYS(clone3), ENOSYS }, /* its flags are in memory: not to be filtered; clone is */
	{ SCMP_SYS(openat), EPERM },	{ SCMP_SYS(open), EPERM },    { SCMP_SYS(access), EPERM },
	{ SCMP_SYS(readlink), EPERM },	{ SCMP_SYS(sysinfo), EPERM }, { SCMP_SYS(uname), EPERM },
	{ SCMP_SYS(prlimit64), EPERM },
};

static const unsigned long ioctls[] = { PAGEMAP_SCAN_IOCTL, FIONREAD, FIONBIO, SIOCOUTQ };

static int allow_calls(scmp_filter_ctx ctx, unsigned int role)
{
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(allowed) / sizeof(allowed[0]); i++)
		if (allowed[i].roles & role)
			err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i].call, 0);
	for (size_t i = 0; !err && i < sizeof(declined) / sizeof(declined[0]); i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(declined[i].error), declined[i].call, 0);
	return err;
}

/* A bench may bind the calling thread to processors, and no other thread. */
static int allow_affinity(scmp_filter_ctx ctx, unsigned int role)
{
	if (!(role & ROLE_BENCH))
		return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(sched_setaffinity), 0);
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(sched_setaffinity), 1,
				SCMP_A0_32(SCMP_CMP_EQ, 0));
}

/* A stream's thread enables the ring that was made and restricted for it. */
static int allow_rings(scmp_filter_ctx ctx, unsigned int role)
{
	if (!(role & ROLE_SOURCE))
		return 0;
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(io_uring_register), 1,
				SCMP_A1_32(SCMP_CMP_EQ, IORING_REGISTER_ENABLE_RINGS));
}

/* Post-copy lets the VMM see pages: all that may be done with its userfaultfd. */
static int allow_faults(scmp_filter_ctx ctx, unsigned int role)
{
	static const unsigned long requests[] = { UFFDIO_CONTINUE, UFFDIO_ZEROPAGE, UFFDIO_WAKE };
	int err = 0;

	for (size_t i = 0; role & ROLE_FAULTS && !err && i < 3; i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				       SCMP_A1_32(SCMP_CMP_EQ, (uint32_t)requests[i]));
	return err;
}

static int allow_checked(scmp_filter_ctx ctx)
{
	const unsigned int thread = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
	const unsigned int pid = (unsigned int)getpid();
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(ioctls) / sizeof(ioctls[0]); i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				       SCMP_A1_32(SCMP_CMP_EQ, (uint32_t)ioctls[i]));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				       SCMP_A0(SCMP_CMP_MASKED_EQ, thread, thread));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0_32(SCMP_CMP_EQ, PR_SET_NAME));
	if (!err) /* how the C library does fstat() */
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
				       SCMP_A3_32(SCMP_CMP_EQ, AT_EMPTY_PATH));
	/* Encoders step back; nobody has the capability to step forward. */
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(setpriority), 2,
				       SCMP_A0_32(SCMP_CMP_EQ, PRIO_PROCESS),
				       SCMP_A1_32(SCMP_CMP_EQ, 0));
	if (!err) /* abort() */
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				       SCMP_A0_32(SCMP_CMP_EQ, pid));
	return err;
}

static int install_filter(enum ipc_role role)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int err;

	if (!ctx)
		return -ENOMEM;
	err = allow_calls(ctx, 1u << role);
	if (!err)
		err = allow_affinity(ctx, 1u << role);
	if (!err)
		err = allow_rings(ctx, 1u << role);
	if (!err)
		err = allow_faults(ctx, 1u << role);
	if (!err)
		err = allow_checked(ctx);
	/* A tree instead of a list: the filter runs at every call of the hot path. */
	if (!err)
		err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!err)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	/* Groups first: it takes a capability. Without it there is nothing to drop. */
	if (setgroups(0, NULL) && errno != EPERM)
		return -errno;
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && errno != EPERM)
			return -errno;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) && errno != EINVAL)
		return -errno;
	return syscall(SYS_capset, &head, none) ? -errno : 0;
}

/* The highest descriptor open now. */
static int highest_fd(void)
{
	DIR *d = opendir("/proc/self/fd");
	int highest = 2;

	if (!d)
		return -errno;
	for (struct dirent *e; (e = readdir(d));) {
		int fd = atoi(e->d_name);

		if (fd > highest && fd != dirfd(d))
			highest = fd;
	}
	closedir(d);
	return highest;
}

static int limit_resources(unsigned int accepts)
{
	struct rlimit core = { 0, 0 }, files;
	int highest = highest_fd();

	if (highest < 0)
		return highest;
	files.rlim_cur = files.rlim_max = (rlim_t)highest + 1 + accepts + SPARE_FDS;
	if (setrlimit(RLIMIT_CORE, &core) || setrlimit(RLIMIT_NOFILE, &files))
		return -errno;
	return 0;
}

int sandbox_enter(enum ipc_role role, unsigned int accepts, struct failure *f)
{
	const char *what = "limit resources";
	int err = limit_resources(accepts);

	if (!err) {
		what = "drop capabilities";
		err = drop_capabilities();
	}
	if (!err &&
	    (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))) {
		what = "renounce new privileges";
		err = -errno;
	}
	if (!err && SANITIZED) {
		log_info("no system call filter: the sanitizer's runtime needs more calls");
		return 0;
	}
	if (!err) {
		what = "install the system call filter";
		err = install_filter(role);
	}
	if (err)
		return failure_set(f, err, "internal",
				   "the kernel needs CONFIG_SECCOMP_FILTER, and /proc mounted",
				   "cannot %s: %s", what, strerror(-err));
	return 0;
}
