/* SPDX-License-Identifier: MIT */
/*
 * How received pages reach the guest's RAM, and how that RAM is read back.
 *
 * Theory of operation
 *   struct place is shared by all streams of a session; struct placer belongs to one stream's
 *   thread. A placer takes the payload of a PAGES frame from its stream and puts it in place by
 *   one of the strategies in place_ops (place.c gives their measurements):
 *
 *     map     receive into our own mapping, whose pages are populated just ahead: with a huge page
 *             where a whole chunk is new (place_huge.c)
 *     pwrite  receive into the reader's cache-hot buffer, then pwrite into the RAM file
 *
 *   Zeros and holes (place_zero.c): the destination's RAM is never believed to be empty. What the
 *   file holds is read; pages that are not zero are punched, pages that are stay as they are (a
 *   guest that preallocated keeps its memory), and what the file does not hold is not touched.
 *
 *   Encoded runs (place_encoded.c) are expanded one by one in a buffer that stays in the cache and
 *   written from there.
 *
 *   RAM is read with pread, never through a mapping: a hole reads as zeros without becoming a page.
 *   On tmpfs only the kernel writes through the mapping, so that memory running out is an error
 *   of a system call (EFAULT, ENOSPC), not a SIGBUS.
 */
#ifndef TRANSHIP_DATAPLANE_PLACE_H
#define TRANSHIP_DATAPLANE_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "dataplane/codec/decode.h"
#include "dataplane/destination/rx_reader.h"
#include "dataplane/region.h"
#include "dataplane/transport/wire.h"

enum place_kind { PLACE_AUTO, PLACE_MAP, PLACE_PWRITE };

/* What one stream has placed; one writer, others read it atomically. Bytes of guest memory. */
struct place_counters {
	uint64_t pages; /* 4 KiB pages described, all encodings */
	uint64_t raw_bytes, zero_bytes, hole_bytes;
	uint64_t zstd_in_bytes, zstd_out_bytes;	  /* of guest memory; of the stream */
	uint64_t delta_in_bytes, delta_out_bytes; /* likewise */
};

/* Huge pages under one region; place_huge.c. All atomic. */
struct place_huge {
	bool off;
	uint32_t failures; /* in a row */
	uint32_t pause;	   /* chunks that are not tried */
	uint64_t chunks;   /* that got one */
};

struct place {
	const struct region *regions; /* mapped writable, the caller's, must outlive this */
	uint32_t nregions;
	enum place_kind wanted;
	bool can_populate;	 /* MADV_POPULATE_WRITE, Linux >= 5.14 */
	uint32_t encodings;	 /* IPC_ENCODING_*: agreed on; set before placer_init */
	const bool *stop;	 /* atomic; set: long work gives up with -ECANCELED; may be NULL */
	uint8_t **chunk_state;	 /* per region, per chunk: enum chunk_state in place.c */
	struct place_huge *huge; /* per region */
	uint64_t mapped_chunks;	 /* atomic: chunks whose page table our mapping holds */
	uint64_t mapped_max;	 /* how many it may; see place.c */
};

/* A part of a region, in bytes, page-aligned. */
struct place_extent {
	uint64_t offset, length;
};

struct placer {
	struct place *place;
	struct rx_reader *rx;
	struct place_counters counters;
	uint8_t *scratch;	/* PLACE_SCRATCH_SIZE bytes for reading RAM back */
	void *hash_state;	/* XXH3_state_t */
	struct decoder decoder; /* if place->encodings */
	struct wire_run runs[WIRE_RUNS_MAX];
	struct place_extent extents[WIRE_RUNS_MAX];
	struct iovec iov[WIRE_RUNS_MAX];
};

#define PLACE_SCRATCH_SIZE (64u * 1024)

struct place_ops {
	const char *name;
	/*
	 * Takes `bytes` of payload from the placer's reader and places them in the count extents
	 * of r, which rise, do not overlap, lie in one chunk and add up to bytes.
	 */
	int (*raw)(struct placer *p, const struct region *r, const struct place_extent *extents,
		   uint32_t count, size_t bytes);
};

/*
 * Prepares the regions, which must be mapped writable. wanted PLACE_AUTO chooses by kind of
 * memory and size of frame; others force one strategy where it is possible (hugetlb takes no
 * pwrite). huge: new memory may get transparent huge pages. why gets the choice and the reason.
 * -ENOMEM.
 */
int place_init(struct place *pl, const struct region *regions, uint32_t nregions,
	       enum place_kind wanted, bool huge, char *why, size_t len);
void place_release(struct place *pl);

/* rx is the caller's and must outlive the placer. -ENOMEM. */
int placer_init(struct placer *p, struct place *pl, struct rx_reader *rx);
void placer_release(struct placer *p);

/*
 * Takes the payload of the PAGES frame f (checked by wire_get_frame) and puts every page in place.
 * 0; -EBADMSG (malformed); -EPROTONOSUPPORT (an encoding that this session did not agree on);
 * -EILSEQ (a DELTA does not fit what is here); -ECONNRESET; -EFAULT, -ENOMEM, -ENOSPC (no memory
 * for the page); -errno.
 */
int place_pages(struct placer *p, const struct wire_frame *f);

/*
 * What place_encoded.c uses of place.c. The data runs first .. end-1 of p->runs (of all encodings
 * that carry pages, or RAW alone) as p->extents, joined where they touch; base: of the chunk.
 */
uint32_t place_join(struct placer *p, uint32_t first, uint32_t end, uint64_t base, bool raw_only,
		    size_t *bytes);
/*
 * Prepares p->extents for being filled with bytes in all, if that is worth it; settle, after it has
 * been done. hugetlb: all of it is populated then.
 */
int place_prepare(struct placer *p, const struct region *r, uint32_t count, size_t bytes);
void place_settle(struct placer *p, const struct region *r, size_t bytes);
/* Receives bytes of raw pages into p->extents. */
int place_raw(struct placer *p, const struct region *r, uint32_t count, size_t bytes);
/* Writes data to RAM of r, which for hugetlb has been populated. */
int place_write(const struct region *r, uint64_t offset, const uint8_t *data, size_t len);

/* place_encoded.c: the runs of a checked frame, some of which are encoded, in their order. */
int place_encoded(struct placer *p, const struct region *r, uint32_t nruns, uint64_t base);

/* place_zero.c: reads RAM without populating it, holes as zeros. */
int place_read(const struct region *r, uint64_t offset, uint8_t *out, size_t len);

/* Makes [offset, offset + length) of r read as zeros, as described above. -errno. */
int place_zero(struct placer *p, const struct region *r, uint64_t offset, uint64_t length);
/* place_zero for the HOLES frame f, and counts it. */
int place_holes(struct placer *p, const struct wire_frame *f);

/*
 * XXH3-64 of [offset, offset + length) of r, which lies in one chunk; holes count as zeros and
 * stay holes. -errno.
 */
int place_hash(struct placer *p, const struct region *r, uint64_t offset, uint64_t length,
	       uint64_t *hash);

/* place_huge.c: whether the region's file and mapping allow huge pages at all. */
bool place_huge_possible(const struct region *r);
/*
 * Puts a huge page under the chunk at this offset, of which the file holds nothing: all of it is
 * then mapped and zero. False: it is as before, or has its first page.
 */
bool place_huge_chunk(struct place *pl, const struct region *r, uint64_t chunk);

/* Our mapping lost what it had of [offset, offset + length): it was punched. */
void place_forget(struct place *pl, const struct region *r, uint64_t offset, uint64_t length);

#endif
