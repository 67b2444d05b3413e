// SPDX-License-Identifier: MIT
/*
 * The switch-over to post-copy at a pre-copy's source: what is pending is said instead of sent.
 *
 * All rounds were acknowledged on all streams before, so no page is on its way any more: what is
 * not named is up to date at the destination, what is named will be sent once (postcopy.h).
 */
#include <string.h>

#include "dataplane/postcopy/postcopy.h"
#include "dataplane/source/source.h"

/* The scheduler's bitmaps have the words of a set, but for a region's last chunk. */
static void fill(const struct scheduler *s, struct page_set *set)
{
	for (uint32_t i = 0; i < s->nregions; i++)
		memcpy(page_set_chunk(set, i, 0), s->pending[i].words,
		       (region_pages(&s->regions[i]) + 63) / 64 * sizeof(uint64_t));
}

int stream_hand_over(struct stream *s)
{
	struct source *src = s->source;
	struct page_set set;
	uint64_t pages = 0;
	int err;

	if (s->index)
		return 0;
	err = page_set_init(&set, src->setup->regions, src->setup->nregions, -1, 0, NULL);
	if (err)
		return err;
	fill(&src->scheduler, &set);
	s->awaited[WIRE_MISSING_END] = true;
	err = postcopy_send_set(s->fd, &set, &src->stopping, &pages);
	page_set_release(&set);
	while (!err && s->awaited[WIRE_MISSING_END])
		err = stream_wait(s, UINT64_MAX);
	return err;
}
