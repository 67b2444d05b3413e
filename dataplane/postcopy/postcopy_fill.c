// SPDX-License-Identifier: MIT
/*
 * Post-copy at the destination: pages that come, into the file; see postcopy.h for the order.
 *
 * A frame is filled in parts of what the reader's buffer takes: a part is claimed when its bytes
 * are there, so that a page that is asked for meanwhile comes on stream 0 and wins.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "dataplane/destination/destination_internal.h"
#include "dataplane/postcopy/postcopy.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"

#define PART_PAGES (RX_BUFFER_SIZE / PAGE_BYTES)

/* A frame on its way into its chunk. */
struct filling {
	struct postcopy *p;
	struct stream *st;
	const struct region *r;
	uint64_t chunk;
	uint64_t *claimed, *missing, *requested; /* words of the chunk */
	uint64_t hidden[PAGE_SET_WORDS];	 /* in place, and not yet mapped by us */
	uint64_t late;				 /* pages */
};

static bool any(const uint64_t *mask)
{
	uint64_t bits = 0;

	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
		bits |= mask[i];
	return bits;
}

/* A unit of huge pages can be seen when all of it is there. */
static int show_huge(struct filling *f, const uint64_t *mine)
{
	uint64_t unit[PAGE_SET_WORDS];
	int err;

	page_mask_fill(unit, 0, CHUNK_PAGES);
	page_set_keep(f->missing, unit);
	if (any(unit) || !any(mine))
		return 0;
	page_mask_fill(unit, 0, CHUNK_PAGES);
	err = postcopy_release_pages(f->p, f->r, f->chunk, unit);
	postcopy_note_served(f->p, f->r, f->chunk, unit);
	return err;
}

static int show(struct filling *f)
{
	int err = postcopy_release_pages(f->p, f->r, f->chunk, f->hidden);

	memset(f->hidden, 0, sizeof(f->hidden));
	return err;
}

/*
 * At a frame's end. When nothing is missing in the chunk any more, all of it is shown in few calls:
 * scattered pages would be one each, and what came before the switch a fault each.
 */
static int show_all(struct filling *f)
{
	bool missing = false;

	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
		missing |= __atomic_load_n(&f->missing[i], __ATOMIC_ACQUIRE) != 0;
	return missing || f->r->page_size > PAGE_BYTES
		       ? show(f)
		       : postcopy_release_chunk(f->p, f->r, f->chunk);
}

/* Before they are counted as not missing: who finds nothing missing finds all counted. */
static void count_placed(const struct filling *f, uint64_t n)
{
	struct place_counters *c = &f->st->placer.counters;
	struct postcopy_figures *g = f->p->figures;

	__atomic_add_fetch(f->st->index ? &g->push_pages : &g->demand_pages, n, __ATOMIC_RELAXED);
	__atomic_store_n(&g->placed_ns, clock_ns(), __ATOMIC_RELAXED);
	__atomic_store_n(&c->pages, c->pages + n, __ATOMIC_RELAXED);
}

/* Pages that are in place now: not missing any more, and seen at once by who waits. */
static int mark(struct filling *f, const uint64_t *mine, bool punched)
{
	uint64_t waited[PAGE_SET_WORDS];
	uint64_t n = page_mask_count(mine);
	int err;

	count_placed(f, n);
	page_set_remove(f->missing, mine);
	if (n && !__atomic_sub_fetch(&f->p->left, n, __ATOMIC_ACQ_REL))
		destination_notify(f->p->d);
	if (f->r->page_size > PAGE_BYTES)
		return show_huge(f, mine);
	memcpy(waited, mine, sizeof(waited));
	page_set_keep(f->requested, waited);
	/* what was punched stays so unless somebody wants it */
	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
		f->hidden[i] |= punched ? waited[i] : mine[i];
	if (!any(waited))
		return 0;
	err = show(f);
	postcopy_note_served(f->p, f->r, f->chunk, waited);
	return err;
}

/* Claims pages [first, first + count): mine. What is not missing any more is nobody's to write. */
static void claim(struct filling *f, uint32_t first, uint32_t count, uint64_t *mine)
{
	uint64_t mask[PAGE_SET_WORDS];

	page_mask_fill(mask, first, count);
	page_set_add(f->claimed, mask, mine);
	page_set_keep(f->missing, mine);
	f->late += count - page_mask_count(mine);
}

static uint64_t offset_of(const struct filling *f, uint32_t page)
{
	return (f->chunk << CHUNK_SHIFT) + (uint64_t)page * PAGE_BYTES;
}

/* data: of pages from first on; those of mine are written. */
static int write_mine(struct filling *f, const uint64_t *mine, uint32_t first, const uint8_t *data)
{
	uint32_t count, at = page_mask_run(mine, 0, &count);
	int err = 0;

	while (!err && at < CHUNK_PAGES) {
		err = place_write(f->r, offset_of(f, at), data + (size_t)(at - first) * PAGE_BYTES,
				  (size_t)count * PAGE_BYTES);
		at = page_mask_run(mine, at + count, &count);
	}
	return err;
}

static int fill_raw(struct filling *f, uint32_t first, uint32_t count)
{
	while (count) {
		uint32_t n = count < PART_PAGES ? count : PART_PAGES;
		uint64_t mine[PAGE_SET_WORDS];
		const uint8_t *data;
		int err = rx_take(&f->st->rx, (size_t)n * PAGE_BYTES, &data);

		if (err)
			return err;
		claim(f, first, n, mine);
		err = write_mine(f, mine, first, data);
		if (!err)
			err = mark(f, mine, false);
		if (err)
			return err;
		first += n;
		count -= n;
	}
	return 0;
}

static int fill_zeros(struct filling *f, uint32_t first, uint32_t count)
{
	uint64_t mine[PAGE_SET_WORDS];
	uint32_t n, at;
	int err = 0;

	claim(f, first, count, mine);
	for (at = page_mask_run(mine, 0, &n); !err && at < CHUNK_PAGES;
	     at = page_mask_run(mine, at + n, &n))
		err = place_zero(&f->st->placer, f->r, offset_of(f, at), (uint64_t)n * PAGE_BYTES);
	return err ? err : mark(f, mine, true);
}

/* Expanded first: pages are claimed when they are there. */
static int fill_zstd(struct filling *f, const struct wire_run *run)
{
	struct decoder *d = &f->st->placer.decoder;
	uint64_t mine[PAGE_SET_WORDS];
	const uint8_t *data;
	int err = rx_take(&f->st->rx, run->length, &data);

	if (!err)
		err = decode_zstd(d, data, run->length, d->out, run->pages * (size_t)PAGE_BYTES);
	if (err)
		return err;
	claim(f, run->page, run->pages, mine);
	err = write_mine(f, mine, run->page, d->out);
	return err ? err : mark(f, mine, false);
}

static int fill_run(struct filling *f, const struct wire_run *run)
{
	switch (run->encoding) {
	case WIRE_ENC_RAW:
		return fill_raw(f, run->page, run->pages);
	case WIRE_ENC_ZERO:
	case WIRE_ENC_HOLE:
		return fill_zeros(f, run->page, run->pages);
	case WIRE_ENC_ZSTD:
		if (f->st->placer.place->encodings & IPC_ENCODING_ZSTD)
			return fill_zstd(f, run);
		return -EPROTONOSUPPORT;
	default:
		return -EPROTONOSUPPORT;
	}
}

int postcopy_take_pages(struct stream *st, const struct wire_frame *frame)
{
	struct postcopy *p = &st->d->postcopy;
	const struct region *r = &st->d->s->regions[frame->region];
	uint64_t chunk = frame->offset >> CHUNK_SHIFT;
	struct filling f = { .p = p, .st = st, .r = r, .chunk = chunk };
	struct wire_run *runs = st->placer.runs;
	const uint8_t *data;
	int err;

	if (!__atomic_load_n(&p->served, __ATOMIC_ACQUIRE))
		return -EBADMSG;
	f.claimed = page_set_chunk(&p->claimed, r->index, chunk);
	f.missing = page_set_chunk(&p->missing, r->index, chunk);
	f.requested = page_set_chunk(&p->requested, r->index, chunk);
	err = rx_take(&st->rx, (size_t)frame->count * WIRE_RUN_SIZE, &data);
	if (!err)
		err = wire_get_runs(runs, data, (size_t)frame->count * WIRE_RUN_SIZE, frame, r);
	/* written through our mapping: what a pool cannot give must not become a signal */
	if (!err && r->hugetlb &&
	    madvise(r->map + frame->offset, r->page_size, MADV_POPULATE_WRITE))
		err = -errno;
	for (uint32_t i = 0; !err && i < frame->count; i++)
		err = fill_run(&f, &runs[i]);
	if (!err)
		err = show_all(&f);
	__atomic_add_fetch(&p->figures->late_pages, f.late, __ATOMIC_RELAXED);
	return err;
}
