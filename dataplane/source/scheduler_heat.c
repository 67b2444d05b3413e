// SPDX-License-Identifier: MIT
/*
 * The order of a round: which chunks can wait.
 *
 * Theory of operation
 *   What was written again before its turn is left for the next round (source_look.c), which it
 *   has to go in anyway. A page written at rate r escapes being sent in vain with 1 - exp(-r t) at
 *   its turn t: nothing is lost by sending what is cold early, and the later the turn of what is
 *   hot, the more of it is saved. Nothing else changes: what the next scan reports is the same
 *   in every order.
 *
 *   A chunk's heat is what the last scan reported of it. Programs write their memory in
 *   neighbourhoods larger than 2 MiB, and as this minute as the last: in simulations of guests
 *   with a steady working set a longer memory (a half or a quarter of the heat before) sent as
 *   much, of guests that write in bursts it sent more. Where hot pages are scattered evenly over
 *   all chunks there is nothing to learn, and nothing to lose.
 *
 *   Before the first round next to nothing is known, and later something else may be hot: a chunk
 *   of which a part was written again already when its turn comes is postponed to the end of the
 *   round (source_look.c).
 *
 *   Counting sort, so that chunks of one heat stay as they lie. Two passes over the summary and
 *   one byte a chunk; of a round whose chunks are all alike, one.
 */
#include "dataplane/source/scheduler.h"

static bool next_run(const struct scheduler *s, uint64_t *at, uint64_t *first, uint64_t *end)
{
	uint64_t count;

	if (!bitmap_next_run(&s->dirty_chunks, *at, s->first_chunk[s->nregions], first, &count))
		return false;
	*at = *end = *first + count;
	return true;
}

/* Where each heat's chunks begin in the order. False: all are alike. */
static bool places(const struct scheduler *s, uint64_t place[HEAT_LEVELS])
{
	uint64_t at = 0, first, end, sum = 0;
	unsigned int levels = 0;

	while (next_run(s, &at, &first, &end))
		for (uint64_t c = first; c < end; c++)
			place[s->heat[c]]++;
	for (unsigned int h = 0; h < HEAT_LEVELS; h++) {
		uint64_t count = place[h];

		levels += count != 0;
		place[h] = sum;
		sum += count;
	}
	return levels > 1;
}

void scheduler_make_order(struct scheduler *s, bool coldest_first)
{
	uint64_t place[HEAT_LEVELS] = { 0 }, at = 0, first, end;
	bool sorted = coldest_first && places(s, place);

	while (next_run(s, &at, &first, &end)) {
		for (uint64_t c = first; c < end; c++) {
			uint64_t k = sorted ? place[s->heat[c]]++ : s->order_count;

			s->order[k] = (uint32_t)c;
			s->order_count++;
		}
	}
}
