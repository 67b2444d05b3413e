// SPDX-License-Identifier: MIT
/*
 * A stream's share of the comparison: hashes of chunks, which the destination compares with its
 * own. The guest must not run meanwhile. Chunks are hashed from copies made by pread, which reads
 * holes as zeros and populates nothing.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "dataplane/source/source.h"
#include "lib/base/cleanup.h"

/* Chunks in one VERIFY frame: small enough to share the work, 32 MiB of guest in 256 bytes. */
#define BATCH 16

static int hash_chunk(const struct region *r, uint64_t chunk, uint8_t *buf, uint8_t *out)
{
	uint64_t offset = chunk << CHUNK_SHIFT;
	size_t len = r->size - offset < CHUNK_BYTES ? (size_t)(r->size - offset) : CHUNK_BYTES;
	int err = page_reader_copy(r, offset, buf, len);
	uint64_t hash;

	if (err)
		return err;
	hash = htole64(XXH3_64bits(buf, len));
	memcpy(out, &hash, sizeof(hash));
	return 0;
}

bool source_take_chunks(struct source *src, uint64_t max, const struct region **r, uint64_t *first,
			uint64_t *count)
{
	const struct scheduler *sch = &src->scheduler;
	uint64_t total = sch->first_chunk[sch->nregions];
	uint64_t at = __atomic_load_n(&src->chunk_cursor, __ATOMIC_RELAXED), end;
	uint32_t i;

	do {
		if (at >= total)
			return false;
		for (i = 0; sch->first_chunk[i + 1] <= at; i++)
			;
		end = sch->first_chunk[i + 1] - at > max ? at + max : sch->first_chunk[i + 1];
	} while (!__atomic_compare_exchange_n(&src->chunk_cursor, &at, end, false, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	*r = &sch->regions[i];
	*first = at - sch->first_chunk[i];
	*count = end - at;
	return true;
}

static int send_batch(struct stream *s, const struct region *r, uint64_t first, uint64_t count,
		      uint8_t *buf)
{
	uint8_t head[WIRE_FRAME_SIZE + BATCH * WIRE_HASH_SIZE];
	struct wire_frame f = {
		.type = WIRE_VERIFY,
		.region = (uint16_t)r->index,
		.length = (uint32_t)count * WIRE_HASH_SIZE,
		.count = (uint32_t)count,
		.offset = first << CHUNK_SHIFT,
	};
	int err = 0;

	wire_put_frame(head, &f);
	for (uint64_t i = 0; !err && i < count; i++)
		err = source_stopping(s->source)
			      ? -ECANCELED
			      : hash_chunk(r, first + i, buf,
					   head + WIRE_FRAME_SIZE + i * WIRE_HASH_SIZE);
	if (!err)
		err = stream_relay(s);
	if (!err)
		err = stream_frame(s, head, WIRE_FRAME_SIZE + f.length, NULL, NULL, 0, false);
	return err;
}

void source_add_verified(struct source *src, const struct wire_frame *ack)
{
	struct ipc_verified *v = &src->verified;
	SCOPED_LOCK(&src->lock);
	bool earlier = ack->region < v->first_region ||
		       (ack->region == v->first_region && ack->offset < v->first_offset);

	if (ack->extent && (!v->mismatches || earlier)) {
		v->first_region = ack->region;
		v->first_offset = ack->offset;
	}
	v->mismatches += ack->extent;
}

int stream_verify(struct stream *s)
{
	struct wire_frame end = { .type = WIRE_VERIFY_END };
	AUTO_FREE uint8_t *buf = aligned_alloc(PAGE_BYTES, CHUNK_BYTES);
	const struct region *r;
	uint64_t first, count, chunks = 0;
	int err = buf ? 0 : -ENOMEM;

	while (!err && source_take_chunks(s->source, BATCH, &r, &first, &count)) {
		err = send_batch(s, r, first, count, buf);
		chunks += count;
	}
	if (!err)
		err = stream_barrier(s, &end);
	if (!err) {
		SCOPED_LOCK(&s->source->lock);

		s->source->verified.chunks += chunks;
	}
	return err;
}
