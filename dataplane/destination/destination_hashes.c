// SPDX-License-Identifier: MIT
/*
 * What the destination's RAM holds already, said in hashes of pages when the source asks.
 *
 * Theory of operation
 *   A VM that waited here before, an interrupted move, a RAM file that was copied here ahead: much
 *   of what the source would send may be there. Before its first round the source asks chunk by
 *   chunk, compares, and leaves out what is equal (source_compare.c).
 *
 *   The answer is about what is in the file at this moment. Nothing but the streams of this session
 *   changes it until the guest is loaded: the VMM that waits does not write RAM (QEMU in incoming
 *   mode leaves RAM alone, a VMM with libtranship promises it), the session has claimed it, and the
 *   source sends nothing of a chunk between its question and its comparison.
 *
 *   Nothing is made by looking: RAM is read with pread, and zeros are not hashed: of those the
 *   source sends no content anyway. What the file does not hold is answered by the range, so that
 *   an empty destination is asked about once.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "dataplane/destination/destination_internal.h"
#include "dataplane/source/page_reader.h"
#include "dataplane/zero.h"

uint64_t destination_held(const struct destination *d)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < d->s->nregions; i++) {
		struct stat st;

		if (!fstat(d->s->regions[i].fd, &st))
			bytes += (uint64_t)st.st_blocks * 512;
	}
	return bytes;
}

/* True if the chunk at offset holds nothing: says so, and how far that goes. */
static bool nothing_there(const struct region *r, struct wire_frame *answer)
{
	uint64_t data;

	if (region_first_data(r, answer->offset, r->size, &data))
		return false;
	if (data < answer->offset + CHUNK_BYTES && data < r->size)
		return false;
	answer->extent = data - answer->offset;
	return true;
}

/* Hashes of the pages of [offset, offset + length), little-endian. */
static int hash_pages(struct stream *st, const struct region *r, uint64_t offset, uint64_t length,
		      uint8_t *out)
{
	uint8_t *scratch = st->placer.scratch;

	for (uint64_t done = 0; done < length; done += PLACE_SCRATCH_SIZE) {
		size_t len = length - done < PLACE_SCRATCH_SIZE ? (size_t)(length - done)
								: PLACE_SCRATCH_SIZE;
		int err = destination_stopping(st->d)
				  ? -ECANCELED
				  : page_reader_copy(r, offset + done, scratch, len);

		if (err)
			return err;
		for (size_t at = 0; at < len; at += PAGE_BYTES, out += WIRE_HASH_SIZE) {
			uint64_t hash = zero_page(scratch + at)
						? PAGE_HASH_NONE
						: page_hash(&st->d->hash, scratch + at);

			hash = htole64(hash);
			memcpy(out, &hash, sizeof(hash));
		}
	}
	return 0;
}

int stream_take_hashes(struct stream *st, const struct wire_frame *f)
{
	const struct region *r = &st->d->s->regions[f->region];
	struct wire_frame answer = { .type = WIRE_HASHED,
				     .region = f->region,
				     .offset = f->offset };
	uint64_t left = r->size - f->offset, length = left < CHUNK_BYTES ? left : CHUNK_BYTES;
	uint8_t bytes[WIRE_FRAME_SIZE + WIRE_HASHED_MAX];
	int err = 0;

	if (!nothing_there(r, &answer)) {
		answer.count = (uint32_t)(length >> PAGE_SHIFT);
		answer.length = answer.count * WIRE_HASH_SIZE;
		err = hash_pages(st, r, f->offset, length, bytes + WIRE_FRAME_SIZE);
	}
	if (err)
		return err;
	wire_put_frame(bytes, &answer);
	return stream_answer(st, bytes, WIRE_FRAME_SIZE + answer.length);
}
