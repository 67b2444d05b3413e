// SPDX-License-Identifier: MIT
/*
 * How long tracking from outside stalls the tracked process, measured inside it.
 *
 *   tracker_stall [GIB [POPULATED_MIB [THREADS [hugetlb]]]]
 *
 * A child maps GIB of shared memory of which POPULATED_MIB were touched. One of its threads writes
 * to random touched pages without pause (real-time priority, so that what it misses is ours), one
 * maps and unmaps (needs the mmap lock for writing); both keep their longest gap per phase. This
 * process injects, registers, arms, collects and undoes it all, as a session does.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/guest/uffd.h"
#include "dataplane/track/tracker.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"

enum phase {
	IDLE,
	INJECT,
	REGISTER,
	ARM,
	COLLECT_FIRST,
	COLLECT,
	UNREGISTER,
	CLOSE,
	DIRECT_CLOSE,
	PHASES
};

static const char *const phase_names[PHASES] = {
	"nothing",     "inject",     "register",     "arm",	    "collect 1st",
	"collect x20", "unregister", "close inside", "close armed",
};

/* Shared with the child. */
struct shared {
	_Atomic int phase;
	atomic_bool ready;
	_Atomic uint64_t write_gap[PHASES], mmap_gap[PHASES];
};

struct child {
	struct shared *shared;
	uint8_t *map;
	uint64_t pages;
};

static void note(_Atomic uint64_t *longest, uint64_t gap)
{
	if (gap > atomic_load_explicit(longest, memory_order_relaxed))
		atomic_store_explicit(longest, gap, memory_order_relaxed);
}

/* Alone on a processor of its own, so that other load does not look like a stall. */
static void be_real_time(int processor, int priority)
{
	struct sched_param p = { .sched_priority = priority };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	pthread_setschedparam(pthread_self(), SCHED_FIFO, &p);
}

static void *write_forever(void *arg)
{
	struct child *c = arg;
	uint64_t last, writes = 0, seed = 88172645463325252ull;

	be_real_time(1, 1);
	last = clock_ns();
	for (;;) {
		uint64_t now;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		c->map[seed % c->pages * PAGE_BYTES]++;
		now = clock_ns();
		note(&c->shared->write_gap[c->shared->phase], now - last);
		last = now;
		if (++writes % 64)
			continue;
		/* leave the processor some room, or the kernel takes 50 ms of each second itself */
		nanosleep(&(struct timespec){ 0, 50000 }, NULL);
		last = clock_ns();
	}
	return NULL;
}

static void *map_forever(void *arg)
{
	struct child *c = arg;

	be_real_time(1, 2);
	for (;;) {
		uint64_t start = clock_ns();
		void *p = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		munmap(p, PAGE_BYTES);
		note(&c->shared->mmap_gap[c->shared->phase], clock_ns() - start);
		nanosleep(&(struct timespec){ 0, 200000 }, NULL);
	}
	return NULL;
}

static pid_t start_child(struct shared *shared, uint8_t *map, uint64_t pages)
{
	struct child c = { shared, map, pages };
	pthread_t writer, mapper;
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t i = 0; i < pages; i++)
		map[i * PAGE_BYTES] = 1;
	pthread_create(&writer, NULL, write_forever, &c);
	pthread_create(&mapper, NULL, map_forever, &c);
	atomic_store(&shared->ready, true);
	pthread_join(writer, NULL);
	_exit(1);
}

static void die(const char *what, const struct failure *f)
{
	fprintf(stderr, "%s: %s (%s)\n", what, f->message, strerror(errno));
	exit(1);
}

static struct shared *shared;
static uint64_t phase_start;

static void enter(enum phase p)
{
	static enum phase last;
	double took = clock_ms_since(phase_start);

	usleep(20000); /* who was stalled notes it when it runs again */
	if (last != IDLE || p != IDLE)
		printf("%-13s %8.2f ms   longest gap: writer %7.3f ms, mmap %7.3f ms\n",
		       phase_names[last], took, (double)shared->write_gap[last] / 1e6,
		       (double)shared->mmap_gap[last] / 1e6);
	last = p;
	shared->phase = (int)p;
	phase_start = clock_ns();
}

static void collect(struct tracker *t, struct bitmap *dirty, int times)
{
	struct failure f = { 0 };
	double worst = 0, total = 0;
	uint64_t pages = 0;

	for (int i = 0; i < times; i++) {
		uint64_t start = clock_ns();

		bitmap_clear_all(dirty);
		start = clock_ns();
		if (t->ops->collect(t, dirty, &pages, &f))
			die("collect", &f);
		total += clock_ms_since(start);
		if (clock_ms_since(start) > worst)
			worst = clock_ms_since(start);
	}
	printf("  collect: %llu pages at last, mean %.2f ms, worst %.2f ms\n",
	       (unsigned long long)pages, total / times, worst);
}

static int open_pagemap(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int main(int argc, char **argv)
{
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) << 30;
	uint64_t touched = argc > 2 ? strtoull(argv[2], NULL, 10) << 20 : size;
	unsigned int threads = argc > 3 ? (unsigned int)atoi(argv[3]) : 0;
	bool hugetlb = argc > 4 && !strcmp(argv[4], "hugetlb");
	struct region_mapping m = { 0 };
	struct region r = { .size = size,
			    .page_size = hugetlb ? 2u << 20 : PAGE_BYTES,
			    .hugetlb = hugetlb,
			    .mappings = &m,
			    .nmappings = 1 };
	struct failure f = { 0 };
	struct bitmap dirty;
	struct tracker *t;
	uint8_t *map;
	pid_t pid;
	int fd, uffd, remote;

	setvbuf(stdout, NULL, _IOLBF, 0);
	fd = memfd_create("ram", MFD_CLOEXEC | (hugetlb ? MFD_HUGETLB : 0));
	if (fd < 0 || ftruncate(fd, (off_t)size) || bitmap_init(&dirty, size >> PAGE_SHIFT))
		die("memfd", &f);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (map == MAP_FAILED || shared == MAP_FAILED)
		die("mmap", &f);
	r.fd = fd;
	m = (struct region_mapping){ (uintptr_t)map, (uintptr_t)map + size, 0 };
	pid = start_child(shared, map, touched / PAGE_BYTES);
	while (!shared->ready)
		usleep(1000);
	printf("%.1f GiB of memory, %.1f GiB touched\n", (double)size / (1 << 30),
	       (double)touched / (1 << 30));
	be_real_time(0, 1);
	enter(IDLE);
	usleep(500000);

	enter(INJECT);
	if (uffd_inside(pid, false, &uffd, &remote, &f) || uffd_api(uffd, UFFD_TRACK_FEATURES, &f))
		die("inject", &f);
	enter(REGISTER);
	if (uffd_register_wp(uffd, m.start, m.end, &f))
		die("register", &f);
	enter(IDLE);
	if (tracker_pagemap_new(
		    &t, &r, 1, open_pagemap(pid),
		    &(struct tracker_pagemap_options){ .threads = threads, .kvm = true }, &f))
		die("tracker", &f);
	enter(ARM);
	if (t->ops->start(t, &f))
		die("start", &f);
	enter(COLLECT_FIRST);
	collect(t, &dirty, 1);
	enter(COLLECT);
	collect(t, &dirty, 20);
	enter(UNREGISTER);
	uffd_unregister_windows(uffd, m.start, m.end);
	enter(CLOSE);
	if (uffd_close_inside(pid, remote, uffd, &f))
		die("close", &f);
	close(uffd);

	/* for comparison: the same, closed while armed */
	enter(IDLE);
	if (uffd_inside(pid, false, &uffd, &remote, &f) ||
	    uffd_api(uffd, UFFD_TRACK_FEATURES, &f) || uffd_register_wp(uffd, m.start, m.end, &f) ||
	    t->ops->start(t, &f))
		die("again", &f);
	enter(DIRECT_CLOSE);
	if (uffd_close_inside(pid, remote, uffd, &f))
		die("close", &f);
	close(uffd);
	enter(IDLE);
	t->ops->free(t);
	bitmap_release(&dirty);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return 0;
}
