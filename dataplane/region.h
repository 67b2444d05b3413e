/* SPDX-License-Identifier: MIT */
/*
 * A RAM region of the guest as the data plane sees it: a file, where the VMM maps it, and our own
 * mapping. Also the unit of scheduling (chunk) and the reading of a file's extents.
 */
#ifndef TRANSHIP_DATAPLANE_REGION_H
#define TRANSHIP_DATAPLANE_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/bitmap.h"
#include "lib/base/failure.h"

#define PAGE_SHIFT  12
#define PAGE_BYTES  4096u
#define CHUNK_SHIFT 21
#define CHUNK_BYTES (1u << CHUNK_SHIFT)
#define CHUNK_PAGES (CHUNK_BYTES / PAGE_BYTES) /* 512 */

/* One VMA of the VMM over a region. */
struct region_mapping {
	uint64_t start, end; /* in the VMM's address space */
	uint64_t offset;     /* of start, in bytes from the region's beginning */
};

struct region {
	uint32_t index;
	uint32_t page_size;   /* of the backing, bytes */
	uint64_t size;	      /* bytes */
	uint64_t file_offset; /* of the region's first byte in fd */
	bool hugetlb;
	int fd;				 /* owned */
	uint8_t *map;			 /* our own MAP_SHARED mapping of size bytes, or NULL */
	struct region_mapping *mappings; /* source only; sorted by start; owned */
	uint32_t nmappings;
};

static inline uint64_t region_pages(const struct region *r)
{
	return r->size >> PAGE_SHIFT;
}

static inline uint64_t region_chunks(const struct region *r)
{
	return (r->size + CHUNK_BYTES - 1) >> CHUNK_SHIFT;
}

/* Maps the region into this process (PROT_READ, and PROT_WRITE if writable). -errno. */
int region_map(struct region *r, bool writable);
void region_release(struct region *r);

/*
 * Sets in *data one bit for every page of the region that the file holds (SEEK_DATA/SEEK_HOLE);
 * what was never populated stays clear and is never touched. hugetlb has no extents: all bits.
 */
int region_extents(const struct region *r, struct bitmap *data);
/*
 * The same for the pages from first to before limit only; data still has a bit for every page. To
 * be used part by part only if region_extents_divisible(); else that is quadratic.
 */
int region_extents_of(const struct region *r, uint64_t first, uint64_t limit, struct bitmap *data);
bool region_extents_divisible(const struct region *r);

/*
 * *at: the first page at or after from that the file holds, or limit if there is none before it
 * (bytes in the region, page-aligned). Cheaper than an extent: SEEK_HOLE walks to an extent's end,
 * 7 ms a GiB, which asked once a chunk is quadratic. What cannot be told counts as data: *at is
 * from, and -errno says why (0 where the file system knows no extents).
 */
int region_first_data(const struct region *r, uint64_t from, uint64_t limit, uint64_t *at);

/*
 * The next populated extent at or after from (bytes in the region, page-aligned): *start, *end.
 * -ENXIO when nothing more is populated.
 */
int region_next_data(const struct region *r, uint64_t from, uint64_t *start, uint64_t *end);

#endif
