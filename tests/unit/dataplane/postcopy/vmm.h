/* SPDX-License-Identifier: MIT */
/*
 * Both data planes of a post-copy as real processes, and threads of the test in the place of the
 * VMM: they touch a mapping of the destination's RAM that is registered with a userfaultfd, check
 * every page against the source's, and write it.
 */
#ifndef TRANSHIP_TESTS_POSTCOPY_VMM_H
#define TRANSHIP_TESTS_POSTCOPY_VMM_H

#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "dataplane/postcopy/postcopy.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"
#include "tests/unit/dataplane/pair.h"

#define VMM_THREADS 4u

struct vmm;

struct vmm_thread {
	struct vmm *v;
	unsigned int index;
	pthread_t thread;
	uint64_t touched; /* atomic */
};

struct vmm {
	struct pair p; /* its files and processes */
	struct region regions[PAIR_REGIONS_MAX];
	struct page_set missing; /* our view of the file */
	struct postcopy_figures *figures;
	int missing_fd, uffd, cut_fds[IPC_STREAMS_MAX];
	uint8_t *map[PAIR_REGIONS_MAX];
	uint64_t *stamps[PAIR_REGIONS_MAX]; /* a page each; 0: as at the source */
	struct vmm_thread threads[VMM_THREADS];
	bool stop; /* atomic */
};

static inline uint64_t vmm_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* Fills both sides; about half of the pages are missing, of some chunks all and of some none. */
static inline void vmm_fill(struct vmm *v, uint64_t seed)
{
	uint64_t page[512], x = seed | 1;

	for (uint32_t i = 0; i < v->p.nregions; i++) {
		int src = v->p.src_ram[i], dst = v->p.dst_ram[i];
		bool huge = v->p.memfd_flags & MFD_HUGETLB;
		uint8_t *a = mmap(NULL, v->p.size[i], PROT_READ | PROT_WRITE, MAP_SHARED, src, 0);
		uint8_t *b = mmap(NULL, v->p.size[i], PROT_READ | PROT_WRITE, MAP_SHARED, dst, 0);

		pair_check(a != MAP_FAILED && b != MAP_FAILED);
		if (!huge)
			pair_fill(src, v->p.size[i], seed);
		for (uint64_t at = 0; at < v->p.size[i] >> 12; at++) {
			uint64_t *words = page_set_chunk(&v->missing, i, at / CHUNK_PAGES);
			uint64_t r = vmm_random(&x), kind = at / CHUNK_PAGES % 4;
			bool missing = kind == 0 || (kind < 3 && r >> 40 & 1);

			if (huge) {
				pair_page(page, r);
				memcpy(a + at * 4096, page, 4096);
			}
			if (!missing) {
				pair_check(huge ||
					   pread(src, page, 4096, (off_t)(at * 4096)) == 4096);
				memcpy(b + at * 4096, page, 4096);
				continue;
			}
			words[at % CHUNK_PAGES / 64] |= 1ull << (at % 64);
			page_set_note(&v->missing, i, at / CHUNK_PAGES);
			if (r >> 41 & 1) /* an older version is there, or nothing */
				memset(b + at * 4096, 0xee, 4096);
		}
		munmap(a, v->p.size[i]);
		munmap(b, v->p.size[i]);
	}
}

/* False, with a word, where userfaultfd cannot be had. */
static inline bool vmm_arm(struct vmm *v)
{
	bool huge = v->p.memfd_flags & MFD_HUGETLB;
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = huge ? UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS
				 : UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM
	};

	v->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (v->uffd < 0 || ioctl(v->uffd, UFFDIO_API, &api)) {
		fprintf(stderr, "no userfaultfd with minor faults: %s\n", strerror(errno));
		return false;
	}
	for (uint32_t i = 0; i < v->p.nregions; i++) {
		struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING |
						       UFFDIO_REGISTER_MODE_MINOR };

		v->map[i] = mmap(NULL, v->p.size[i], PROT_READ | PROT_WRITE, MAP_SHARED,
				 v->p.dst_ram[i], 0);
		pair_check(v->map[i] != MAP_FAILED);
		reg.range.start = (uintptr_t)v->map[i];
		reg.range.len = v->p.size[i];
		pair_check(!ioctl(v->uffd, UFFDIO_REGISTER, &reg));
		pair_check(!madvise(v->map[i], v->p.size[i], MADV_DONTNEED));
		v->stamps[i] = calloc(v->p.size[i] >> 12, sizeof(uint64_t));
		pair_check(v->stamps[i]);
	}
	return true;
}

static inline bool vmm_init(struct vmm *v, uint32_t streams)
{
	void *tail = NULL;

	v->p.streams = streams;
	for (uint32_t i = 0; i < v->p.nregions; i++) {
		v->p.src_ram[i] = pair_memfd(&v->p, v->p.size[i]);
		v->p.dst_ram[i] = pair_memfd(&v->p, v->p.size[i]);
		v->regions[i] = (struct region){ .index = i, .size = v->p.size[i] };
	}
	v->missing_fd = memfd_create("missing", MFD_CLOEXEC);
	pair_check(
		v->missing_fd >= 0 &&
		!ftruncate(v->missing_fd, (off_t)postcopy_file_bytes(v->regions, v->p.nregions)));
	pair_check(!page_set_init(&v->missing, v->regions, v->p.nregions, v->missing_fd,
				  sizeof(*v->figures), &tail));
	v->figures = tail;
	vmm_fill(v, 7);
	return vmm_arm(v);
}

static inline void vmm_start_destination(struct vmm *v, struct sockaddr_in *at)
{
	struct pair *p = &v->p;
	int listener = pair_listener(at);

	pair_spawn_destination(p, IPC_ROLE_POSTCOPY_DESTINATION);
	for (uint32_t i = 0; i < p->nregions; i++) {
		struct ipc_mapping m = { .region = i,
					 .start = (uintptr_t)v->map[i],
					 .end = (uintptr_t)v->map[i] + p->size[i] };

		pair_send(&p->dst, IPC_MAPPING, &m, -1);
	}
	pair_send(&p->dst, IPC_UFFD, NULL, v->uffd);
	pair_send(&p->dst, IPC_MISSING, NULL, v->missing_fd);
	pair_send(&p->dst, IPC_LISTEN, NULL, listener);
	close(listener);
	pair_send(&p->dst, IPC_START, NULL, -1);
	pair_expect(&p->dst, IPC_READY);
}

static inline void vmm_start_source(struct vmm *v, const struct sockaddr_in *at)
{
	struct pair *p = &v->p;
	struct ipc_config c = pair_config(p, IPC_ROLE_POSTCOPY_SOURCE);

	pair_spawn(&p->src);
	pair_send(&p->src, IPC_CONFIG, &c, -1);
	pair_send_regions(p, &p->src, true);
	for (uint32_t i = 0; i < p->streams; i++) {
		struct ipc_stream st = { .index = i };
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		pair_check(fd >= 0 && !connect(fd, (const struct sockaddr *)at, sizeof(*at)));
		pair_send(&p->src, IPC_STREAM, &st, fd);
		v->cut_fds[i] = fd;
	}
	pair_send(&p->src, IPC_START, NULL, -1);
}

/* Both sides, up to faults being served; also again. */
static inline void vmm_serve(struct vmm *v)
{
	struct sockaddr_in at;

	vmm_start_destination(v, &at);
	vmm_start_source(v, &at);
	pair_expect(&v->p.src, IPC_READY);
	pair_expect(&v->p.dst, IPC_CONNECTED);
	pair_send(&v->p.dst, IPC_SERVE, NULL, -1);
	pair_expect(&v->p.dst, IPC_SERVING);
}

/* The next message that is neither PROGRESS nor POSTCOPY must be this. */
static inline const union ipc_body *vmm_expect(struct pair_side *s, enum ipc_type type)
{
	do {
		pair_check(!pair_next(s));
	} while (s->last.head.type == IPC_POSTCOPY);
	if (s->last.head.type != (uint32_t)type) {
		fprintf(stderr, "expected %s, got %s %s\n", ipc_type_name(type),
			ipc_type_name(s->last.head.type),
			s->last.head.type == IPC_FAILED ? s->last.body.failure.message : "");
		abort();
	}
	return &s->last.body;
}

/* Reads a page as the guest, compares, writes its stamp. */
static inline void vmm_touch(struct vmm *v, uint32_t region, uint64_t page, uint64_t stamp)
{
	uint64_t *at = (uint64_t *)(v->map[region] + page * 4096), want[512];
	uint64_t *known = &v->stamps[region][page];
	off_t offset = (off_t)(page * 4096);

	pair_check(pread(v->p.src_ram[region], want, 4096, offset) == 4096);
	if (*known)
		want[0] = *known;
	if (memcmp(at, want, 4096)) {
		fprintf(stderr, "page %#lx of region %u is not what it was: %#lx, not %#lx\n",
			(unsigned long)page, region, (unsigned long)at[0], (unsigned long)want[0]);
		abort();
	}
	if (stamp)
		*(volatile uint64_t *)at = *known = stamp;
}

/* Each thread has pages of its own, so that it knows what must be in them. */
static inline void *vmm_live(void *arg)
{
	struct vmm_thread *t = arg;
	struct vmm *v = t->v;
	uint64_t x = 88172645463325252ull + t->index;

	while (!__atomic_load_n(&v->stop, __ATOMIC_RELAXED)) {
		uint32_t region = (uint32_t)(vmm_random(&x) % v->p.nregions);
		uint64_t pages = v->p.size[region] >> 12;
		uint64_t page = (x >> 20) % (pages / VMM_THREADS) * VMM_THREADS + t->index;

		vmm_touch(v, region, page, x >> 60 & 1 ? x | 1 : 0);
		__atomic_fetch_add(&t->touched, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static inline void vmm_run(struct vmm *v)
{
	__atomic_store_n(&v->stop, false, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < VMM_THREADS; i++) {
		v->threads[i] = (struct vmm_thread){ .v = v, .index = i };
		pair_check(!pthread_create(&v->threads[i].thread, NULL, vmm_live, &v->threads[i]));
	}
}

static inline void vmm_stop(struct vmm *v)
{
	__atomic_store_n(&v->stop, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < VMM_THREADS; i++)
		pthread_join(v->threads[i].thread, NULL);
}

/* Waits until the guest has touched so many pages more. */
static inline void vmm_let_it_touch(struct vmm *v, uint64_t pages)
{
	uint64_t sum, until = 0;

	do {
		sum = 0;
		for (unsigned int i = 0; i < VMM_THREADS; i++)
			sum += __atomic_load_n(&v->threads[i].touched, __ATOMIC_RELAXED);
		until = until ? until : sum + pages;
		sched_yield();
	} while (sum < until);
}

/* Every page, as the guest sees it. */
static inline void vmm_check_all(struct vmm *v)
{
	for (uint32_t i = 0; i < v->p.nregions; i++)
		for (uint64_t page = 0; page < v->p.size[i] >> 12; page++)
			vmm_touch(v, i, page, 0);
}

/* Both data planes have everything: they end. */
static inline void vmm_quit(struct vmm *v)
{
	pair_send(&v->p.src, IPC_QUIT, NULL, -1);
	pair_check(pair_wait(&v->p.src) == 0);
	pair_send(&v->p.dst, IPC_QUIT, NULL, -1);
	pair_check(pair_wait(&v->p.dst) == 0);
	for (uint32_t i = 0; i < v->p.streams; i++)
		fd_close(&v->cut_fds[i]);
}

static inline void vmm_release(struct vmm *v)
{
	close(v->uffd);
	for (uint32_t i = 0; i < v->p.nregions; i++) {
		munmap(v->map[i], v->p.size[i]);
		free(v->stamps[i]);
	}
	page_set_release(&v->missing);
	close(v->missing_fd);
	pair_close_ram(&v->p);
}

#endif
