// SPDX-License-Identifier: MIT
/* The tracker of a stopped VM: everything that exists once, and nothing after. */
#include <errno.h>
#include <stdlib.h>

#include "dataplane/track/tracker.h"

struct tracker_none {
	struct tracker base;
	bool reported;
};

static uint32_t none_granule(const struct tracker *t, const struct region *r)
{
	(void)t;
	return r->page_size;
}

static int none_start(struct tracker *t, struct failure *f)
{
	(void)f;
	((struct tracker_none *)t)->reported = false;
	return 0;
}

static int none_collect(struct tracker *t, struct bitmap *dirty, uint64_t *pages, struct failure *f)
{
	struct tracker_none *n = (struct tracker_none *)t;

	*pages = 0;
	if (n->reported)
		return 0;
	for (uint32_t i = 0; i < t->nregions; i++) {
		uint64_t before = bitmap_count(&dirty[i]);
		int err = region_extents(&t->regions[i], &dirty[i]);

		if (err)
			return failure_set(f, err, "internal", NULL,
					   "the extents of RAM region %u cannot be read", i);
		*pages += bitmap_count(&dirty[i]) - before;
	}
	n->reported = true;
	return 0;
}

static void none_free(struct tracker *t)
{
	free(t);
}

static const struct tracker_ops none_ops = {
	.name = "none",
	.granule = none_granule,
	.start = none_start,
	.collect = none_collect,
	.free = none_free,
};

int tracker_none_new(struct tracker **out, const struct region *regions, uint32_t nregions)
{
	struct tracker_none *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->base = (struct tracker){ .ops = &none_ops, .regions = regions, .nregions = nregions };
	*out = &n->base;
	return 0;
}
