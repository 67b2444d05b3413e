// SPDX-License-Identifier: MIT
/* A guest's RAM as messages to a data plane. */
#include "control/session/guest_memory.h"

#include "lib/base/cleanup.h"

int guest_memory_send_region(struct dataplane *dp, struct guest *g, uint32_t at, uint32_t index,
			     bool writable, struct failure *f)
{
	const struct guest_region *r = &g->desc.regions[at];
	struct ipc_region m = { .index = index,
				.page_size = r->page_size,
				.size = r->size,
				.file_offset = r->file_offset,
				.hugetlb = r->hugetlb };
	AUTO_CLOSE int fd = -1;
	int err = g->ops->open_ram(g, at, writable, &fd, f);

	return err ? err : dataplane_send(dp, IPC_REGION, &m, fd, f);
}

int guest_memory_send_regions(struct dataplane *dp, struct guest *g, struct failure *f)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < g->desc.nregions; i++)
		err = guest_memory_send_region(dp, g, i, i, false, f);
	return err;
}

int guest_memory_send_mappings(struct dataplane *dp, const struct guest_description *d,
			       struct failure *f)
{
	for (uint32_t i = 0; i < d->nregions; i++) {
		const struct guest_region *r = &d->regions[i];

		for (uint32_t k = 0; k < r->nmappings; k++) {
			struct ipc_mapping m = { .region = i,
						 .start = r->mappings[k].start,
						 .end = r->mappings[k].end,
						 .region_offset = r->mappings[k].offset };
			int err = dataplane_send(dp, IPC_MAPPING, &m, -1, f);

			if (err)
				return err;
		}
	}
	return 0;
}
