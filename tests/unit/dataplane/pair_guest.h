/* SPDX-License-Identifier: MIT */
/*
 * The process that writes the RAM of a pair: a stand-in for a VMM, which registers itself for
 * tracking, writes, punches holes and stops when told to.
 */
#ifndef TRANSHIP_TESTS_PAIR_GUEST_H
#define TRANSHIP_TESTS_PAIR_GUEST_H

#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "lib/base/kernel_abi.h"
#include "tests/unit/dataplane/pair.h"

#define WP_HUGETLBFS_SHMEM (1u << 12)

/* FLIPS: one word a page, of two values: what a page was comes back. */
enum { WRITES = 1, PUNCHES = 2, FLIPS = 4, HOT_ONLY = 8 };

struct guest {
	pid_t pid;
	int ram, pagemap;
	uint64_t size;
	uint8_t *map;
	struct guest_control {
		int armed; /* 1, or -errno */
		int stop, stopped;
		int hot_only; /* as HOT_ONLY, for a while */
		uint64_t writes;
	} * control; /* shared */
};

static inline int arm(struct guest *g)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
					      WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = { .range = { (uintptr_t)g->map, g->size },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		return -errno;
	return 1;
}

/* The guest's life: a hot quarter, a cold rest, first touches of holes, sometimes a discard. */
static inline void live(struct guest *g, unsigned int what)
{
	uint64_t x = 88172645463325252ull, pages = g->size / 4096;

	while (!__atomic_load_n(&g->control->stop, __ATOMIC_ACQUIRE)) {
		uint64_t page;
		bool hot;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		hot = (x >> 8) % 8 || (what & HOT_ONLY) ||
		      __atomic_load_n(&g->control->hot_only, __ATOMIC_RELAXED);
		page = (x >> 20) % (hot ? pages / 4 : pages);
		if ((what & PUNCHES) && (x >> 11) % 512 == 0) {
			uint64_t n = 1 + (x >> 50) % 40;

			if (page + n <= pages)
				madvise(g->map + page * 4096, n * 4096, MADV_REMOVE);
			continue;
		}
		if (what & FLIPS)
			*(uint64_t *)(g->map + page * 4096) = (x >> 13) % 2;
		else
			*(uint64_t *)(g->map + page * 4096 + (x >> 13) % 512 * 8) = x;
		__atomic_fetch_add(&g->control->writes, 1, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&g->control->stopped, 1, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

static inline bool guest_start(struct guest *g, struct pair *p, unsigned int what)
{
	char path[64];
	int state;

	g->size = p->size[0];
	g->ram = p->src_ram[0];
	/* as the RAM's pages are aligned, also where they only seem to be large */
	g->map = mmap(NULL, g->size + CHUNK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pair_check(g->map != MAP_FAILED);
	g->map = (uint8_t *)(((uintptr_t)g->map + CHUNK_BYTES - 1) & ~(uintptr_t)(CHUNK_BYTES - 1));
	g->map = mmap(g->map, g->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, g->ram, 0);
	g->control = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pair_check(g->map != MAP_FAILED && g->control != MAP_FAILED);
	g->pid = fork();
	pair_check(g->pid >= 0);
	if (!g->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		state = arm(g);
		__atomic_store_n(&g->control->armed, state, __ATOMIC_RELEASE);
		if (state == 1)
			live(g, what);
		_exit(0);
	}
	while (!(state = __atomic_load_n(&g->control->armed, __ATOMIC_ACQUIRE)))
		sched_yield();
	if (state != 1) {
		printf("no asynchronous write protection here: %s\n", strerror(-state));
		return false;
	}
	snprintf(path, sizeof(path), "/proc/%d/pagemap", g->pid);
	p->tracker_fd = open(path, O_RDONLY | O_CLOEXEC);
	pair_check(p->tracker_fd >= 0);
	p->mapping[0] = (struct ipc_mapping){ .start = (uintptr_t)g->map,
					      .end = (uintptr_t)g->map + g->size };
	return true;
}

static inline void guest_stop(struct guest *g)
{
	__atomic_store_n(&g->control->stop, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&g->control->stopped, __ATOMIC_ACQUIRE))
		sched_yield();
}

static inline void guest_end(struct guest *g, struct pair *p)
{
	pair_check(!kill(g->pid, SIGKILL) && waitpid(g->pid, NULL, 0) == g->pid);
	munmap(g->map, g->size);
	munmap(g->control, 4096);
	fd_close(&p->tracker_fd);
}

/* From now on the guest writes the hot quarter only, or again all of it. */
static inline void guest_keep_hot(struct guest *g, bool hot)
{
	__atomic_store_n(&g->control->hot_only, hot, __ATOMIC_RELAXED);
}

/* Waits until the guest has written so often again. */
static inline void let_it_write(struct guest *g, uint64_t writes)
{
	uint64_t until = __atomic_load_n(&g->control->writes, __ATOMIC_RELAXED) + writes;

	while (__atomic_load_n(&g->control->writes, __ATOMIC_RELAXED) < until)
		sched_yield();
}

/* Writes into the guest through its own page tables, as its VMM would. */
static inline void write_as_guest(struct guest *g, uint64_t page, uint64_t value)
{
	struct iovec from = { &value, sizeof(value) };
	struct iovec to = { g->map + page * 4096 + 8, sizeof(value) };

	pair_check(process_vm_writev(g->pid, &from, 1, &to, 1, 0) == sizeof(value));
}

#endif
