/* SPDX-License-Identifier: MIT */
/*
 * Dirty tracking behind one interface.
 *
 * A tracker reports, into a bitmap per region (one bit a 4 KiB page), which pages the guest or its
 * VMM has written since the collection before, and re-arms exactly those. What is reported must be
 * read only after the call has returned: a write after that is reported by the next call.
 */
#ifndef TRANSHIP_DATAPLANE_TRACKER_H
#define TRANSHIP_DATAPLANE_TRACKER_H

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/region.h"
#include "lib/base/failure.h"

struct tracker;

struct tracker_ops {
	const char *name;
	/* Smallest unit reported, bytes, for this region: its page size at least. */
	uint32_t (*granule)(const struct tracker *t, const struct region *r);
	/*
	 * Arms every mapping of every region; what was written before is forgotten (the caller
	 * takes it from the file's extents afterwards). 0 or -errno with f filled
	 * (tracker-unavailable).
	 */
	int (*start)(struct tracker *t, struct failure *f);
	/*
	 * Adds to dirty[i] the pages of regions[i] written since the last start or collect, and
	 * re-arms them. dirty[] has one initialised bitmap per region. *pages: how many 4 KiB pages
	 * were reported. 0 or -errno with f filled (tracker-lost, vm-gone: nothing after it can be
	 * trusted).
	 */
	int (*collect)(struct tracker *t, struct bitmap *dirty, uint64_t *pages, struct failure *f);
	/*
	 * Sets in bits those of `count` pages of r from first on that the next collect will report
	 * already, as far as it is cheap to know; changes nothing. From any thread while no start
	 * or collect runs. NULL: never known. 0 or -errno.
	 */
	int (*peek)(const struct tracker *t, const struct region *r, uint64_t first, uint32_t count,
		    uint64_t *bits);
	void (*free)(struct tracker *t);
};

/* Embedded first in each back end's own struct. */
struct tracker {
	const struct tracker_ops *ops;
	const struct region *regions;
	uint32_t nregions;
};

struct tracker_pagemap_options {
	unsigned int threads; /* how many scan at once; 0: chosen */
	bool kvm; /* KVM mirrors the page tables, and loses what a protecting call spans */
};

/*
 * pagemap: PAGEMAP_SCAN over /proc/PID/pagemap of a VMM whose mappings transhipd has registered for
 * asynchronous write protection. Takes pagemap_fd on success. Regions must outlive the tracker.
 */
int tracker_pagemap_new(struct tracker **out, const struct region *regions, uint32_t nregions,
			int pagemap_fd, const struct tracker_pagemap_options *o, struct failure *f);

/* none: reports everything at the first collect after start and nothing later; a stopped VM. */
int tracker_none_new(struct tracker **out, const struct region *regions, uint32_t nregions);

#endif
