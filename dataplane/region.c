// SPDX-License-Identifier: MIT
/*
 * A RAM region's mapping and extents; see region.h.
 *
 * Theory of operation
 *   Which pages exist is asked of the file, never of a page table: a page that the VMM has not
 *   mapped yet (filled by pwrite at an earlier move) is data all the same. The answer is only
 *   true for what was not written since; the caller arms its tracker first and reads extents
 *   after, so that a page populated meanwhile is reported as dirty.
 *
 *   Extents are read in parts, by several threads. SEEK_HOLE walks from where it is asked to the
 *   end of the extent, which may be the end of the region: asked once a part that would be
 *   quadratic. So a part is looked at by cachestat (Linux 6.5) as far as it is full, and by
 *   SEEK_DATA and SEEK_HOLE only from its first chunk with a hole on; then the walks beyond the
 *   parts' ends add up to no more than the region.
 *
 *   tmpfs and memfd report extents page by page. hugetlbfs answers SEEK_DATA as if everything
 *   were data (default_llseek), so it is not asked.
 */
#include "dataplane/region.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/kernel_abi.h"

/*
 * Room for size bytes at an address with a chunk's alignment: then a chunk has a page table to
 * itself, and dropping the chunk from the mapping frees it (Linux 6.14 and later; tried: with
 * mmap's own choice of address none is freed).
 */
static void *reserve_aligned(uint64_t size)
{
	uint8_t *p = mmap(NULL, size + CHUNK_BYTES, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t lead;

	if (p == MAP_FAILED)
		return NULL;
	lead = -(uintptr_t)p % CHUNK_BYTES;
	if (lead)
		munmap(p, lead);
	munmap(p + lead + size, CHUNK_BYTES - lead);
	return p + lead;
}

int region_map(struct region *r, bool writable)
{
	int prot = PROT_READ | (writable ? PROT_WRITE : 0);
	int flags = MAP_SHARED;
	void *at = NULL, *p;

	if (r->map)
		return -EEXIST;
	/*
	 * A mapping of hugetlb reserves pages for the holes in it. A reader must not: the VMM's
	 * own mapping has reserved what the guest may need.
	 */
	if (!writable)
		flags |= MAP_NORESERVE;
	if (!r->hugetlb) { /* whose mappings the kernel aligns as they must be */
		at = reserve_aligned(r->size);
		if (!at)
			return -ENOMEM;
		flags |= MAP_FIXED;
	}
	p = mmap(at, r->size, prot, flags, r->fd, (off_t)r->file_offset);
	if (p == MAP_FAILED) {
		int err = -errno;

		if (at)
			munmap(at, r->size);
		return err;
	}
	r->map = p;
	return 0;
}

void region_release(struct region *r)
{
	if (r->map)
		munmap(r->map, r->size);
	r->map = NULL;
	fd_close(&r->fd);
	free(r->mappings);
	r->mappings = NULL;
	r->nmappings = 0;
}

int region_first_data(const struct region *r, uint64_t from, uint64_t limit, uint64_t *at)
{
	off_t data;

	*at = from;
	if (r->hugetlb || from >= limit)
		return 0;
	data = lseek(r->fd, (off_t)(r->file_offset + from), SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		*at = limit;
	if (data < 0)
		return errno == ENXIO || errno == EINVAL ? 0 : -errno;
	*at = ((uint64_t)data - r->file_offset) & ~(uint64_t)(PAGE_BYTES - 1);
	if (*at > limit)
		*at = limit;
	return 0;
}

int region_next_data(const struct region *r, uint64_t from, uint64_t *start, uint64_t *end)
{
	uint64_t limit = r->file_offset + r->size;
	off_t data, hole;

	if (from >= r->size)
		return -ENXIO;
	if (r->hugetlb)
		goto all_data;
	data = lseek(r->fd, (off_t)(r->file_offset + from), SEEK_DATA);
	if (data < 0 && errno == EINVAL)
		goto all_data; /* a file system without extents */
	if (data < 0)
		return -errno; /* ENXIO: only a hole is left */
	if ((uint64_t)data >= limit)
		return -ENXIO;
	hole = lseek(r->fd, data, SEEK_HOLE);
	if (hole < 0 && errno == ENXIO) {
		/* punched between the two calls; what follows the punch is asked for next */
		hole = data + PAGE_BYTES;
	}
	if (hole < 0)
		return -errno;
	if ((uint64_t)hole > limit)
		hole = (off_t)limit;
	*start = ((uint64_t)data - r->file_offset) & ~(uint64_t)(PAGE_BYTES - 1);
	*end = ((uint64_t)hole - r->file_offset + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);
	if (*start < from)
		*start = from;
	if (*end <= *start)
		*end = *start + PAGE_BYTES; /* punched between the two calls: still progress */
	if (*end > r->size)
		*end = r->size;
	return 0;

all_data:
	*start = from;
	*end = r->size;
	return 0;
}

bool region_extents_divisible(const struct region *r)
{
	struct cachestat_area some = { 0, PAGE_BYTES };
	struct cachestat_pages found;

	return r->hugetlb || !syscall(SYS_cachestat_, r->fd, &some, &found, 0);
}

/* Whether the file holds all of [from, end), asked at the cost of looking at that and no more. */
static bool all_cached(const struct region *r, uint64_t from, uint64_t end)
{
	struct cachestat_area area = { r->file_offset + from, end - from };
	struct cachestat_pages found;

	return !syscall(SYS_cachestat_, r->fd, &area, &found, 0) &&
	       found.cache == (end - from) >> PAGE_SHIFT;
}

int region_extents_of(const struct region *r, uint64_t first, uint64_t limit, struct bitmap *data)
{
	uint64_t at = first << PAGE_SHIFT, stop = limit << PAGE_SHIFT, start, end;
	int err = 0;

	while (at < stop && !r->hugetlb) {
		end = stop - at < CHUNK_BYTES ? stop : at + CHUNK_BYTES;
		if (!all_cached(r, at, end))
			break;
		bitmap_set_range(data, at >> PAGE_SHIFT, (end - at) >> PAGE_SHIFT);
		at = end;
	}
	while (at < stop && !(err = region_next_data(r, at, &start, &end)) && start < stop) {
		at = end < stop ? end : stop;
		bitmap_set_range(data, start >> PAGE_SHIFT, (at - start) >> PAGE_SHIFT);
	}
	return err == -ENXIO ? 0 : err;
}

int region_extents(const struct region *r, struct bitmap *data)
{
	return region_extents_of(r, 0, region_pages(r), data);
}
