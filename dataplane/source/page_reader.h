/* SPDX-License-Identifier: MIT */
/*
 * Looking at guest pages at the source without changing what the RAM file holds.
 *
 * Theory of operation
 *   To read a hole of a shared memory file through a mapping allocates a page in it: the VM would
 *   grow by being looked at. Asking the file before each touch costs more than the touch
 *   (SEEK_DATA 0.31 us, touch of a populated page 0.29 us, measured), and SEEK_HOLE walks to the
 *   end of the extent (7 ms per GiB).
 *
 *   So the mapping is guarded: private and read-only (the page cache's own pages, as nothing
 *   writes through it), registered with a userfaultfd for missing pages in the mode that raises
 *   SIGBUS. Touching a hole then allocates nothing; the signal (2.3 us a hole, measured) ends the
 *   walk, the page is a hole, and SEEK_DATA says where data goes on. System calls that read
 *   through the mapping get EFAULT.
 *
 *   Where that cannot be had (hugetlbfs, ordinary file systems, no userfaultfd) pages are looked
 *   at in a copy made by pread, which reads holes as zeros and allocates nothing either (0.61 us
 *   a page). region->map is then an ordinary mapping, to be used only for pages that were seen to
 *   hold data.
 */
#ifndef TRANSHIP_DATAPLANE_PAGE_READER_H
#define TRANSHIP_DATAPLANE_PAGE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataplane/region.h"
#include "lib/base/failure.h"

/* Pages that pread copies at once; a reader's scratch buffer holds as many. */
#define PAGE_READER_SCRATCH (64u * PAGE_BYTES)

enum page_kind {
	PAGE_NOT_SENT,
	PAGE_RAW,
	PAGE_ZERO,
	PAGE_HOLE,
	PAGE_SAME, /* not sent: the destination has it; classify does not say so */
};

struct page_reader {
	struct region *regions;
	uint32_t nregions;
	int uffd;      /* -1: nothing is guarded */
	bool *guarded; /* one a region; owned */
};

/*
 * Maps every region (sets its map) and installs the process's SIGBUS handler. Before the sandbox.
 * -errno with f (internal).
 */
int page_reader_init(struct page_reader *p, struct region *regions, uint32_t nregions,
		     struct failure *f);
/* Before the regions are released. */
void page_reader_release(struct page_reader *p);

/*
 * Fills kinds[0 .. count-1] for the pages of region r from first on. scratch: at least
 * PAGE_READER_SCRATCH bytes, 64-byte aligned, of the calling thread. 0 or -errno (-EIO: a page
 * that the file holds cannot be read).
 */
int page_reader_classify(const struct page_reader *p, const struct region *r, uint64_t first,
			 uint32_t count, uint8_t *kinds, uint8_t *scratch);

/* True if classify tells holes from zeros in this region. */
static inline bool page_reader_sees_holes(const struct page_reader *p, const struct region *r)
{
	return p->guarded[r - p->regions];
}

/* Copies length bytes at offset of r to buf, holes as zeros, allocating nothing. 0 or -errno. */
int page_reader_copy(const struct region *r, uint64_t offset, void *buf, size_t length);

#endif
