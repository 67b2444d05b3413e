// SPDX-License-Identifier: MIT
/*
 * Frames with compressed runs: expanded and placed in the order of their payloads; see place.h.
 *
 * Theory of operation
 *   The chunk's pages are prepared as for a frame of raw ones (huge page, populated ahead), for all
 *   that the frame brings together. Then its runs are taken in order: raw runs that follow each
 *   other by the strategy that fits them, an encoded run through the reader's buffer, where it has
 *   to lie in one piece, and the decoder's.
 *
 *   A DELTA's base is what RAM holds of its pages now. All that was sent of them before is in
 *   place (wire.h, order), so it is what the source sent last; the checksum in the frame says so.
 */
#include "dataplane/destination/place.h"

static int expand(struct placer *p, const struct region *r, const struct wire_run *run,
		  uint64_t base)
{
	uint64_t offset = base + (uint64_t)run->page * PAGE_BYTES;
	size_t len = (size_t)run->pages * PAGE_BYTES;
	struct decoder *d = &p->decoder;
	const uint8_t *data;
	int err = rx_take(p->rx, run->length, &data);

	if (err)
		return err;
	if (run->encoding == WIRE_ENC_ZSTD) {
		err = decode_zstd(d, data, run->length, d->out, len);
	} else {
		err = place_read(r, offset, d->present, len);
		if (!err)
			err = decode_delta(d, data, run->length, d->present, d->out, len);
	}
	return err ? err : place_write(r, offset, d->out, len);
}

/* Raw runs from first on, up to the next encoded one. */
static int take_raw(struct placer *p, const struct region *r, uint32_t first, uint32_t nruns,
		    uint64_t base, uint32_t *end)
{
	uint32_t extents;
	size_t bytes;

	for (*end = first; *end < nruns; ++*end)
		if (p->runs[*end].length && p->runs[*end].encoding != WIRE_ENC_RAW)
			break;
	extents = place_join(p, first, *end, base, true, &bytes);
	return extents ? place_raw(p, r, extents, bytes) : 0;
}

int place_encoded(struct placer *p, const struct region *r, uint32_t nruns, uint64_t base)
{
	size_t bytes;
	uint32_t at = 0, extents = place_join(p, 0, nruns, base, false, &bytes);
	int err = place_prepare(p, r, extents, bytes);

	if (!err)
		place_settle(p, r, bytes);
	while (!err && at < nruns) {
		err = take_raw(p, r, at, nruns, base, &at);
		if (!err && at < nruns)
			err = expand(p, r, &p->runs[at++], base);
	}
	return err;
}
