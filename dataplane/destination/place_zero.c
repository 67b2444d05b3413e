// SPDX-License-Identifier: MIT
/*
 * Making RAM read as zeros, and hashing it, without populating what is not there; see place.h.
 *
 * Theory of operation
 *   What the file holds is read into a scratch buffer that stays in the cache, and looked at page
 *   by page. Where it begins is asked with region_first_data; if that cannot tell, it is read.
 *
 *   hugetlb pages are never punched but zeroed through the mapping: a page of a shared hugetlb
 *   mapping that is punched goes back to the pool with its reservation (tried on Linux 6.18:
 *   HugePages_Free rises, HugePages_Rsvd does not), and the guest gets SIGBUS at its next touch
 *   if somebody else took it meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "dataplane/destination/place.h"
#include "dataplane/zero.h"

/* A run of pages to be emptied that may still grow. */
struct pending {
	uint64_t offset, length;
};

int place_read(const struct region *r, uint64_t offset, uint8_t *out, size_t len)
{
	while (len) {
		ssize_t n = pread(r->fd, out, len, (off_t)(r->file_offset + offset));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO; /* the file was cut */
		out += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int empty(struct placer *p, const struct region *r, struct pending *e)
{
	int n = 0;

	if (!e->length)
		return 0;
	if (r->hugetlb) {
		/* populated: it was read as not zero */
		memset(r->map + e->offset, 0, e->length);
	} else {
		do {
			n = fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      (off_t)(r->file_offset + e->offset), (off_t)e->length);
		} while (n && errno == EINTR);
		place_forget(p->place, r, e->offset, e->length);
	}
	e->length = 0;
	return n ? -errno : 0;
}

/* One frame may name a whole region. */
static bool stopped(const struct placer *p)
{
	return p->place->stop && __atomic_load_n(p->place->stop, __ATOMIC_RELAXED);
}

int place_zero(struct placer *p, const struct region *r, uint64_t offset, uint64_t length)
{
	uint64_t at = offset, limit = offset + length;
	struct pending dirty = { 0 };

	for (region_first_data(r, at, limit, &at); at < limit;
	     region_first_data(r, at, limit, &at)) {
		size_t len = limit - at < PLACE_SCRATCH_SIZE ? limit - at : PLACE_SCRATCH_SIZE;
		int err = stopped(p) ? -ECANCELED : place_read(r, at, p->scratch, len);

		for (size_t i = 0; !err && i < len; i += PAGE_BYTES) {
			if (zero_page(p->scratch + i))
				continue;
			if (dirty.offset + dirty.length != at + i) {
				err = empty(p, r, &dirty);
				dirty.offset = at + i;
			}
			dirty.length += PAGE_BYTES;
		}
		if (err)
			return err;
		at += len;
	}
	return empty(p, r, &dirty);
}

int place_hash(struct placer *p, const struct region *r, uint64_t offset, uint64_t length,
	       uint64_t *hash)
{
	uint64_t limit = offset + length;
	/* A chunk without data is hashed from the scratch buffer, cleared once. */
	uint64_t data = limit;
	bool hole;

	region_first_data(r, offset, limit, &data);
	hole = data == limit;
	if (hole)
		memset(p->scratch, 0, PLACE_SCRATCH_SIZE);
	XXH3_64bits_reset(p->hash_state);
	for (uint64_t at = offset; at < limit; at += PLACE_SCRATCH_SIZE) {
		size_t len = limit - at < PLACE_SCRATCH_SIZE ? limit - at : PLACE_SCRATCH_SIZE;
		int err = hole ? 0 : place_read(r, at, p->scratch, len);

		if (err)
			return err;
		XXH3_64bits_update(p->hash_state, p->scratch, len);
	}
	*hash = XXH3_64bits_digest(p->hash_state);
	return 0;
}
