// SPDX-License-Identifier: MIT
/*
 * The strategies that bring received pages into RAM, and the choice between them; see place.h.
 *
 * Theory of operation
 *   A PAGES frame is one chunk. Its zero and hole runs go to place_zero.c; its raw runs, joined
 *   where they touch, become extents that one strategy fills from the stream. A frame with encoded
 *   runs goes to place_encoded.c.
 *
 *   Which strategy. docs/receive.md has the measurements; in short, two loopback streams on two
 *   processors, GB/s over all, medians:
 *
 *                                          map, populated ahead    pwrite
 *     new pages, memory new to the host            0.6              0.36
 *     new pages, memory used before                1.6              1.5
 *     resident, not in our page table              2.7              2.5
 *     resident and mapped by us                    3.8              2.5
 *
 *   tmpfs takes the inode's lock for a whole pwrite, page allocation included, so that streams
 *   wait for each other; page faults take none. So pages are received into the mapping. Small
 *   frames are the exception: they come many to a read into the reader's buffer and are written
 *   from there (a fault costs more than a pwrite of one page, and so does a receive of its own).
 *   pwrite is also the way where MADV_POPULATE_WRITE is missing.
 *
 *   Page tables: our mapping of a chunk costs a page of page table, 0.2 % of RAM if all of it
 *   stays mapped. Only the first MAPPED_CHUNKS_MAX chunks stay; later ones are dropped from the
 *   mapping when they are in place (their pages stay in the file).
 *
 *   chunk_state is a hint and no more: a chunk that is not as it says costs a fault. It is read
 *   and written with relaxed atomics by whichever stream carries the chunk in this round.
 */
#include "dataplane/destination/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "lib/base/kernel_abi.h"

/* 32 MiB of page tables: what stays mapped of the first 16 GiB. */
#define MAPPED_CHUNKS_MAX 8192u

/* Frames up to this many bytes of raw pages are written from the reader's buffer. */
#define SMALL_FRAME (64u * 1024)

/* A chunk with less data than this gets no huge page, which would be memory for nothing. */
#define HUGE_RAW_MIN (CHUNK_BYTES / 4 * 3)

/* An extent below this is left to the fault that the receive takes: a call costs more. */
#define POPULATE_MIN (16u * PAGE_BYTES)

enum chunk_state {
	CHUNK_UNMAPPED = 0,
	CHUNK_PARTLY, /* has a page table, some of its pages are in it */
	CHUNK_MAPPED, /* all of its pages were in our page table */
};

static uint8_t *state_of(struct place *pl, const struct region *r, uint64_t offset)
{
	return &pl->chunk_state[r->index][offset >> CHUNK_SHIFT];
}

void place_forget(struct place *pl, const struct region *r, uint64_t offset, uint64_t length)
{
	uint64_t last = (offset + length - 1) >> CHUNK_SHIFT;

	for (uint64_t c = offset >> CHUNK_SHIFT; c <= last; c++) {
		uint8_t *s = &pl->chunk_state[r->index][c];

		if (__atomic_load_n(s, __ATOMIC_RELAXED) == CHUNK_MAPPED)
			__atomic_store_n(s, CHUNK_PARTLY, __ATOMIC_RELAXED);
	}
}

static int populate(const struct region *r, uint64_t offset, uint64_t length)
{
	int n;

	do {
		n = madvise(r->map + offset, length, MADV_POPULATE_WRITE);
	} while (n && errno == EINTR);
	return n ? -errno : 0;
}

/* Bytes of the chunk at offset: all but the last of a region have CHUNK_BYTES. */
static uint64_t chunk_bytes(const struct region *r, uint64_t offset)
{
	uint64_t start = offset & ~(uint64_t)(CHUNK_BYTES - 1);

	return r->size - start < CHUNK_BYTES ? r->size - start : CHUNK_BYTES;
}

/*
 * Whether a frame with so many bytes of data is worth a huge page: nothing of its chunk is here,
 * and the chunk is a whole one.
 */
static bool deserves_huge(const struct region *r, uint64_t chunk, size_t bytes)
{
	uint64_t data;

	return bytes >= HUGE_RAW_MIN && chunk_bytes(r, chunk) == CHUNK_BYTES &&
	       !region_first_data(r, chunk, chunk + CHUNK_BYTES, &data) &&
	       data == chunk + CHUNK_BYTES;
}

/* Brings what is about to be received into our page table, where that is cheaper than faults. */
static int map_prepare(struct place *pl, const struct region *r, const struct place_extent *e,
		       uint32_t count, size_t bytes)
{
	uint64_t chunk = e[0].offset & ~(uint64_t)(CHUNK_BYTES - 1);
	uint8_t *s = state_of(pl, r, chunk), was = __atomic_load_n(s, __ATOMIC_RELAXED);

	if (was == CHUNK_MAPPED || !pl->can_populate)
		return 0;
	if (was == CHUNK_UNMAPPED && deserves_huge(r, chunk, bytes) &&
	    place_huge_chunk(pl, r, chunk)) {
		/* without a page table: not counted among those that may stay mapped */
		__atomic_store_n(s, CHUNK_MAPPED, __ATOMIC_RELAXED);
		return 0;
	}
	for (uint32_t i = 0; i < count; i++) {
		int err = e[i].length >= POPULATE_MIN ? populate(r, e[i].offset, e[i].length) : 0;

		if (err)
			return err;
	}
	return 0;
}

/* Remembers what map_prepare and the receive mapped, or drops it if too much is mapped. */
static void map_settle(struct place *pl, const struct region *r, const struct place_extent *e)
{
	uint64_t chunk = e[0].offset & ~(uint64_t)(CHUNK_BYTES - 1), size = chunk_bytes(r, chunk);
	uint8_t *s = state_of(pl, r, chunk);
	uint8_t was = __atomic_load_n(s, __ATOMIC_RELAXED);
	uint8_t is = e[0].length == size ? CHUNK_MAPPED : CHUNK_PARTLY;

	if (is <= was)
		return;
	if (was == CHUNK_UNMAPPED && !r->hugetlb) {
		if (__atomic_fetch_add(&pl->mapped_chunks, 1, __ATOMIC_RELAXED) >= pl->mapped_max) {
			__atomic_fetch_sub(&pl->mapped_chunks, 1, __ATOMIC_RELAXED);
			/* its failure would only cost page table */
			madvise(r->map + chunk, size, MADV_DONTNEED);
			return;
		}
	}
	__atomic_store_n(s, is, __ATOMIC_RELAXED);
}

/* From the reader's buffer through the mapping; the page must be populated: memcpy cannot fail. */
static int copy_through_map(struct placer *p, const struct region *r, struct place_extent e,
			    size_t *taken)
{
	const uint8_t *data;
	size_t n = rx_buffered(p->rx);
	int err;

	if (n > e.length)
		n = e.length;
	*taken = n;
	if (!n)
		return 0;
	err = rx_take(p->rx, n, &data);
	if (!err)
		memcpy(r->map + e.offset, data, n);
	return err;
}

static int pwrite_all(const struct region *r, uint64_t offset, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = pwrite(r->fd, data, len, (off_t)(r->file_offset + offset));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* From the reader's buffer by pwrite: what is in it already, or whole extents with refill. */
static int pwrite_extent(struct placer *p, const struct region *r, struct place_extent e)
{
	while (e.length) {
		size_t n = e.length < RX_BUFFER_SIZE ? e.length : RX_BUFFER_SIZE;
		const uint8_t *data;
		int err = rx_take(p->rx, n, &data);

		if (!err)
			err = pwrite_all(r, e.offset, data, n);
		if (err)
			return err;
		e.offset += n;
		e.length -= n;
	}
	return 0;
}

static int pwrite_raw(struct placer *p, const struct region *r, const struct place_extent *extents,
		      uint32_t count, size_t bytes)
{
	(void)bytes;
	for (uint32_t i = 0; i < count; i++) {
		int err = pwrite_extent(p, r, extents[i]);

		if (err)
			return err;
	}
	return 0;
}

/*
 * Places what the reader holds already and leaves in p->iov what is to be received directly.
 * Returns the number of iovecs, or -errno.
 */
static int map_drain(struct placer *p, const struct region *r, const struct place_extent *extents,
		     uint32_t count)
{
	int left = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct place_extent e = extents[i];
		size_t taken = 0;
		int err;

		if (r->hugetlb) {
			err = copy_through_map(p, r, e, &taken);
		} else {
			taken = rx_buffered(p->rx) < e.length ? rx_buffered(p->rx) : e.length;
			err = pwrite_extent(p, r, (struct place_extent){ e.offset, taken });
		}
		if (err)
			return err;
		if (taken < e.length)
			p->iov[left++] = (struct iovec){ .iov_base = r->map + e.offset + taken,
							 .iov_len = e.length - taken };
	}
	return left;
}

static int map_raw(struct placer *p, const struct region *r, const struct place_extent *extents,
		   uint32_t count, size_t bytes)
{
	int err = place_prepare(p, r, count, bytes), left;

	if (err)
		return err;
	left = map_drain(p, r, extents, count);
	if (left <= 0)
		return left;
	err = rx_scatter(p->rx, p->iov, (unsigned int)left);
	if (!err)
		map_settle(p->place, r, extents);
	return err;
}

static const struct place_ops map_ops = { .name = "map", .raw = map_raw };
static const struct place_ops pwrite_ops = { .name = "pwrite", .raw = pwrite_raw };

static const struct place_ops *choose(const struct place *pl, const struct region *r, size_t bytes)
{
	if (r->hugetlb)
		return &map_ops;
	switch (pl->wanted) {
	case PLACE_MAP:
		return &map_ops;
	case PLACE_PWRITE:
		return &pwrite_ops;
	case PLACE_AUTO:
		break;
	}
	return pl->can_populate && bytes > SMALL_FRAME ? &map_ops : &pwrite_ops;
}

uint32_t place_join(struct placer *p, uint32_t first, uint32_t end, uint64_t base, bool raw_only,
		    size_t *bytes)
{
	uint32_t count = 0;

	*bytes = 0;
	for (uint32_t i = first; i < end; i++) {
		const struct wire_run *run = &p->runs[i];
		uint64_t offset = base + (uint64_t)run->page * PAGE_BYTES;
		uint64_t length = (uint64_t)run->pages * PAGE_BYTES;
		struct place_extent *last = count ? &p->extents[count - 1] : NULL;

		/* ZERO and HOLE have no payload, all others have some */
		if (!run->length || (raw_only && run->encoding != WIRE_ENC_RAW))
			continue;
		*bytes += length;
		if (last && last->offset + last->length == offset)
			last->length += length;
		else
			p->extents[count++] = (struct place_extent){ offset, length };
	}
	return count;
}

int place_prepare(struct placer *p, const struct region *r, uint32_t count, size_t bytes)
{
	const struct place_extent *e = p->extents;

	if (r->hugetlb) {
		/* all in one go: what is copied by us must not fault, a pool can be empty */
		uint64_t end = e[count - 1].offset + e[count - 1].length;

		return populate(r, e[0].offset, end - e[0].offset);
	}
	return choose(p->place, r, bytes) == &map_ops ? map_prepare(p->place, r, e, count, bytes)
						      : 0;
}

void place_settle(struct placer *p, const struct region *r, size_t bytes)
{
	if (choose(p->place, r, bytes) == &map_ops)
		map_settle(p->place, r, p->extents);
}

int place_raw(struct placer *p, const struct region *r, uint32_t count, size_t bytes)
{
	return choose(p->place, r, bytes)->raw(p, r, p->extents, count, bytes);
}

int place_write(const struct region *r, uint64_t offset, const uint8_t *data, size_t len)
{
	if (!r->hugetlb)
		return pwrite_all(r, offset, data, len);
	memcpy(r->map + offset, data, len);
	return 0;
}

static void add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static bool agreed_on(const struct place *pl, uint8_t encoding)
{
	return pl->encodings & (encoding == WIRE_ENC_ZSTD ? IPC_ENCODING_ZSTD : IPC_ENCODING_DELTA);
}

static void count_encoded(struct place_counters *c, const struct wire_run *run)
{
	bool zstd = run->encoding == WIRE_ENC_ZSTD;

	add(zstd ? &c->zstd_in_bytes : &c->delta_in_bytes, (uint64_t)run->pages * PAGE_BYTES);
	add(zstd ? &c->zstd_out_bytes : &c->delta_out_bytes, run->length);
}

/* Counts the runs, empties what is zero, and refuses what was not agreed on. */
static int place_empty_runs(struct placer *p, const struct region *r, uint32_t nruns, uint64_t base,
			    bool *encoded)
{
	*encoded = false;
	for (uint32_t i = 0; i < nruns; i++) {
		const struct wire_run *run = &p->runs[i];
		uint64_t length = (uint64_t)run->pages * PAGE_BYTES;
		int err = 0;

		switch (run->encoding) {
		case WIRE_ENC_RAW:
			add(&p->counters.raw_bytes, length);
			break;
		case WIRE_ENC_ZSTD:
		case WIRE_ENC_DELTA:
			if (!agreed_on(p->place, run->encoding))
				return -EPROTONOSUPPORT;
			count_encoded(&p->counters, run);
			*encoded = true;
			break;
		case WIRE_ENC_ZERO:
			add(&p->counters.zero_bytes, length);
			err = place_zero(p, r, base + (uint64_t)run->page * PAGE_BYTES, length);
			break;
		case WIRE_ENC_HOLE:
			add(&p->counters.hole_bytes, length);
			err = place_zero(p, r, base + (uint64_t)run->page * PAGE_BYTES, length);
			break;
		default:
			return -EPROTONOSUPPORT;
		}
		if (err)
			return err;
		add(&p->counters.pages, run->pages);
	}
	return 0;
}

int place_pages(struct placer *p, const struct wire_frame *f)
{
	const struct region *r = &p->place->regions[f->region];
	size_t descriptors = (size_t)f->count * WIRE_RUN_SIZE, bytes;
	const uint8_t *data;
	uint32_t extents;
	bool encoded;
	int err;

	err = rx_take(p->rx, descriptors, &data);
	if (!err)
		err = wire_get_runs(p->runs, data, descriptors, f, r);
	if (!err)
		err = place_empty_runs(p, r, f->count, f->offset, &encoded);
	if (err)
		return err;
	if (encoded)
		return place_encoded(p, r, f->count, f->offset);
	extents = place_join(p, 0, f->count, f->offset, true, &bytes);
	return extents ? place_raw(p, r, extents, bytes) : 0;
}

int place_holes(struct placer *p, const struct wire_frame *f)
{
	add(&p->counters.hole_bytes, f->extent);
	add(&p->counters.pages, f->extent >> PAGE_SHIFT);
	return place_zero(p, &p->place->regions[f->region], f->offset, f->extent);
}

static void explain(const struct place *pl, char *why, size_t len)
{
	bool hugetlb = false, paged = false;

	for (uint32_t i = 0; i < pl->nregions; i++)
		*(pl->regions[i].hugetlb ? &hugetlb : &paged) = true;
	if (!paged)
		snprintf(why, len, "map: hugetlb takes no pwrite");
	else if (pl->wanted != PLACE_AUTO)
		snprintf(why, len, "%s: asked for%s", pl->wanted == PLACE_MAP ? "map" : "pwrite",
			 hugetlb ? "; hugetlb by map" : "");
	else if (!pl->can_populate)
		snprintf(why, len, "pwrite: this kernel cannot populate ahead%s",
			 hugetlb ? "; hugetlb by map" : "");
	else
		snprintf(why, len,
			 "map: populated ahead, no file lock; pwrite up to %u KiB a frame",
			 SMALL_FRAME >> 10);
}

int place_init(struct place *pl, const struct region *regions, uint32_t nregions,
	       enum place_kind wanted, bool huge, char *why, size_t len)
{
	memset(pl, 0, sizeof(*pl));
	pl->regions = regions;
	pl->nregions = nregions;
	pl->wanted = wanted;
	pl->mapped_max = MAPPED_CHUNKS_MAX;
	/* an advice that the kernel does not know is refused even for nothing */
	pl->can_populate = nregions && !madvise(regions[0].map, 0, MADV_POPULATE_WRITE);
	pl->chunk_state = calloc(nregions ? nregions : 1, sizeof(*pl->chunk_state));
	pl->huge = calloc(nregions ? nregions : 1, sizeof(*pl->huge));
	if (!pl->chunk_state || !pl->huge) {
		place_release(pl);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < nregions; i++) {
		pl->huge[i].off = !huge || !place_huge_possible(&regions[i]);
		pl->chunk_state[i] = calloc(region_chunks(&regions[i]) + 1, 1);
		if (!pl->chunk_state[i]) {
			place_release(pl);
			return -ENOMEM;
		}
	}
	explain(pl, why, len);
	return 0;
}

void place_release(struct place *pl)
{
	for (uint32_t i = 0; pl->chunk_state && i < pl->nregions; i++)
		free(pl->chunk_state[i]);
	free(pl->chunk_state);
	pl->chunk_state = NULL;
	free(pl->huge);
	pl->huge = NULL;
}

int placer_init(struct placer *p, struct place *pl, struct rx_reader *rx)
{
	memset(p, 0, sizeof(*p));
	p->place = pl;
	p->rx = rx;
	p->scratch = aligned_alloc(PAGE_BYTES, PLACE_SCRATCH_SIZE);
	p->hash_state = XXH3_createState();
	if (!p->scratch || !p->hash_state || (pl->encodings && decoder_init(&p->decoder))) {
		placer_release(p);
		return -ENOMEM;
	}
	return 0;
}

void placer_release(struct placer *p)
{
	free(p->scratch);
	p->scratch = NULL;
	XXH3_freeState(p->hash_state);
	p->hash_state = NULL;
	decoder_release(&p->decoder);
}
