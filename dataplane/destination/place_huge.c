// SPDX-License-Identifier: MIT
/*
 * Transparent huge pages under chunks that arrive whole; see place.h.
 *
 * Theory of operation
 *   Most of what receiving costs is the first touch of each page: 2.2 us of fault, allocation and
 *   page table per 4 KiB page of tmpfs, against 0.15 us to copy it. A chunk of which nothing exists
 *   yet gets one page by a fault and the rest by MADV_COLLAPSE (Linux 6.1), which puts a huge page
 *   under all of it: 0.25 us per 4 KiB, clearing included (docs/receive.md). It works on any
 *   tmpfs or memfd, also one mounted huge=never, since it is asked for and not left to a policy;
 *   only shmem_enabled=deny forbids it.
 *
 *   Only a chunk that is mostly data gets one: what is a hole at the source becomes memory in it.
 *
 *   Huge pages can run out, or memory be so scattered that the kernel has to compact it first.
 *   Every failure, and every success that took longer than small pages would have, makes the next
 *   tries rarer; a quick success cancels that; a failure that is not about memory ends them.
 */
#include <errno.h>
#include <sys/mman.h>

#include "dataplane/destination/place.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"

/* Processor time. 512 small pages cost 1.1 ms: a huge page that costs more is not worth it. */
#define SLOW_NS (2 * NSEC_PER_MSEC)

/* After n failures in a row the next 2^n chunks, at most this many, are not tried. */
#define PAUSE_MAX_SHIFT 10

bool place_huge_possible(const struct region *r)
{
	return !r->hugetlb && !(r->file_offset % CHUNK_BYTES) &&
	       !((uintptr_t)r->map % CHUNK_BYTES) &&
	       /* an advice that the kernel does not know is refused even for nothing */
	       !madvise(r->map, 0, MADV_COLLAPSE);
}

static bool paused(struct place_huge *h)
{
	uint32_t left = __atomic_load_n(&h->pause, __ATOMIC_RELAXED);

	if (!left)
		return false;
	/* two streams may take one step for both: they only try again sooner or later */
	__atomic_store_n(&h->pause, left - 1, __ATOMIC_RELAXED);
	return true;
}

static void try_rarely(struct place_huge *h)
{
	uint32_t n = __atomic_load_n(&h->failures, __ATOMIC_RELAXED);

	if (n < PAUSE_MAX_SHIFT)
		__atomic_store_n(&h->failures, n + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&h->pause, 1u << n, __ATOMIC_RELAXED);
}

bool place_huge_chunk(struct place *pl, const struct region *r, uint64_t chunk)
{
	struct place_huge *h = &pl->huge[r->index];
	uint64_t start;

	if (__atomic_load_n(&h->off, __ATOMIC_RELAXED) || paused(h))
		return false;
	start = clock_thread_ns();
	/* The kernel makes a huge page of what is there, never of nothing. */
	if (madvise(r->map + chunk, PAGE_BYTES, MADV_POPULATE_WRITE))
		return false;
	if (madvise(r->map + chunk, CHUNK_BYTES, MADV_COLLAPSE)) {
		if (errno == ENOMEM || errno == EAGAIN || errno == EBUSY)
			try_rarely(h);
		else
			__atomic_store_n(&h->off, true, __ATOMIC_RELAXED);
		return false;
	}
	if (clock_thread_ns() - start > SLOW_NS)
		try_rarely(h);
	else
		__atomic_store_n(&h->failures, 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&h->chunks, 1, __ATOMIC_RELAXED);
	return true;
}
