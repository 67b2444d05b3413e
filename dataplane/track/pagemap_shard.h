/* SPDX-License-Identifier: MIT */
/* One shard of a VMM's RAM in its page table; what each thread of tracker_pagemap.c works with. */
#ifndef TRANSHIP_DATAPLANE_PAGEMAP_SHARD_H
#define TRANSHIP_DATAPLANE_PAGEMAP_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/region.h"
#include "lib/base/bitmap.h"

#define PAGEMAP_BLOCK_BYTES (2ull << 20) /* what one page table spans */
#define PAGEMAP_GROUPS	    4		 /* see pagemap_shard.c */

struct pagemap_shard {
	const struct region *region;
	uint64_t start, end; /* virtual addresses in the VMM */
	uint64_t offset;     /* of start in the region */
};

/* One thread's; used by it alone. */
struct pagemap_scanner {
	int fd;			     /* /proc/PID/pagemap; not its own */
	uint64_t gap;		     /* written places no farther apart are protected in one call */
	struct bitmap *dirty;	     /* a bitmap a region, of the job under way; all scanners' */
	struct pagemap_range *found; /* of the read-only scan */
	struct pagemap_range *protected; /* of the protecting one */
	struct pagemap_group {
		uint64_t start, end;
	} groups[PAGEMAP_GROUPS]; /* of one block, to be protected */
	unsigned int ngroups;
	uint64_t pages; /* reported */
	int err;
};

/* kvm: as in struct tracker_pagemap_options. -ENOMEM; released in any case. */
int pagemap_scanner_init(struct pagemap_scanner *w, int fd, bool kvm);
void pagemap_scanner_release(struct pagemap_scanner *w);

/* Protects what the shard's file holds; the file's extents are to be read after it. 0 or -errno. */
int pagemap_shard_arm(struct pagemap_scanner *w, const struct pagemap_shard *s);
/*
 * Sets in w->dirty what was written since it was armed or collected, arms exactly that again, and
 * adds to w->pages. 0 or -errno.
 */
int pagemap_shard_collect(struct pagemap_scanner *w, const struct pagemap_shard *s);

#endif
