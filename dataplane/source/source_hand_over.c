// SPDX-License-Identifier: MIT
/*
 * The switch-over to post-copy at a pre-copy's source: what is pending is said instead of sent.
 *
 * All rounds were acknowledged on all streams before, so no page is on its way any more: what is
 * not named is up to date at the destination, what is named will be sent once (postcopy.h).
 */
#include "dataplane/postcopy/postcopy.h"
#include "dataplane/source/source.h"

int stream_hand_over(struct stream *s)
{
	struct source *src = s->source;
	uint64_t pages = 0;
	int err;

	if (s->index)
		return 0;
	s->awaited[WIRE_MISSING_END] = true;
	err = postcopy_name_pending(s->fd, &src->scheduler, &src->stopping, &pages);
	while (!err && s->awaited[WIRE_MISSING_END])
		err = stream_wait(s, UINT64_MAX);
	return err;
}
