// SPDX-License-Identifier: MIT
/*
 * The synthetic guest's device state, little-endian: struct state_head; the states of the writers'
 * walks, 8 bytes each; the versions of the working set, each as its distance from the smallest
 * in `width` bytes (0, 1, 2 or 4: versions lie close together, and a smaller state is nearer to
 * what a real guest's devices have).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/io.h"
#include "tools/synthetic_guest.h"

#define STATE_MAGIC   0x48544e5359534e54ull /* "TNSYSNTH" */
#define STATE_VERSION 1u
#define BLOCK	      (64u * 1024) /* entries encoded at a time */

struct state_head {
	uint64_t magic;
	uint32_t version;
	uint32_t user_paused;
	uint64_t pages;
	uint64_t seed;
	uint32_t zero_percent, compressible_percent;
	uint64_t touched, working_set, rate;
	uint32_t pattern, threads;
	uint64_t written, beats, last_beat_ns;
	uint32_t base, width;
	uint64_t digest; /* of the versions */
};

_Static_assert(sizeof(struct state_head) == 112, "state_head");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "state is little-endian");

static uint64_t digest(const uint32_t *versions, uint64_t count)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < count; i++)
		sum = sum * 0x100000001b3ull + versions[i];
	return sum;
}

static void describe(const struct synthetic *g, struct state_head *h)
{
	uint32_t low = UINT32_MAX, high = 0;

	for (uint64_t i = 0; i < g->p.working_set; i++) {
		low = g->versions[i] < low ? g->versions[i] : low;
		high = g->versions[i] > high ? g->versions[i] : high;
	}
	*h = (struct state_head){
		.magic = STATE_MAGIC,
		.version = STATE_VERSION,
		.user_paused = g->gate.reasons & SYNTHETIC_PAUSE_USER ? 1 : 0,
		.pages = g->pages,
		.seed = g->p.kinds.seed,
		.zero_percent = g->p.kinds.zero_percent,
		.compressible_percent = g->p.kinds.compressible_percent,
		.touched = g->p.touched,
		.working_set = g->p.working_set,
		.rate = g->p.rate,
		.pattern = g->p.pattern,
		.threads = g->p.threads,
		.written = synthetic_written(g),
		.beats = g->beats,
		.last_beat_ns = g->last_beat_ns,
		.base = high ? low : 0,
		.digest = digest(g->versions, g->p.working_set),
	};
	if (high > h->base)
		h->width = high - h->base < 0x100 ? 1 : high - h->base < 0x10000 ? 2 : 4;
}

static int save_versions(const struct synthetic *g, const struct state_head *h, int fd)
{
	AUTO_FREE uint8_t *block = malloc((size_t)BLOCK * 4);
	int err = block ? 0 : -ENOMEM;

	for (uint64_t at = 0; h->width && !err && at < h->working_set; at += BLOCK) {
		uint64_t count = h->working_set - at < BLOCK ? h->working_set - at : BLOCK;

		for (uint64_t i = 0; i < count; i++) {
			uint32_t distance = g->versions[at + i] - h->base;

			memcpy(block + i * h->width, &distance, h->width);
		}
		err = io_write_full(fd, block, count * h->width);
	}
	return err;
}

int synthetic_save(struct synthetic *g, int fd)
{
	struct state_head h;
	uint64_t walks[SYNTHETIC_THREADS_MAX];
	int err;

	describe(g, &h);
	for (uint32_t i = 0; i < h.threads; i++)
		walks[i] = g->writers[i].walk.state;
	err = io_write_full(fd, &h, sizeof(h));
	if (!err)
		err = io_write_full(fd, walks, h.threads * sizeof(*walks));
	return err ? err : save_versions(g, &h, fd);
}

static int load_versions(uint32_t *versions, const struct state_head *h, int fd)
{
	AUTO_FREE uint8_t *block = malloc((size_t)BLOCK * 4);
	int err = block ? 0 : -ENOMEM;

	for (uint64_t at = 0; !err && at < h->working_set; at += BLOCK) {
		uint64_t count = h->working_set - at < BLOCK ? h->working_set - at : BLOCK;

		if (h->width)
			err = io_read_full(fd, block, count * h->width);
		for (uint64_t i = 0; !err && i < count; i++) {
			uint32_t distance = 0;

			memcpy(&distance, block + i * h->width, h->width);
			versions[at + i] = h->base + distance;
		}
	}
	if (!err && digest(versions, h->working_set) != h->digest)
		err = -EBADMSG;
	return err;
}

static bool head_valid(const struct state_head *h, const struct synthetic *g)
{
	return h->magic == STATE_MAGIC && h->version == STATE_VERSION && h->pages == g->pages &&
	       h->working_set <= h->pages && h->threads && h->threads <= SYNTHETIC_THREADS_MAX &&
	       (h->width <= 2 || h->width == 4);
}

int synthetic_load(struct synthetic *g, int fd)
{
	struct synthetic_params p;
	struct state_head h;
	uint64_t walks[SYNTHETIC_THREADS_MAX];
	AUTO_FREE uint32_t *versions = NULL;
	uint8_t beyond;
	int err = io_read_full(fd, &h, sizeof(h));

	if (!err && !head_valid(&h, g))
		err = -EBADMSG;
	if (!err)
		err = io_read_full(fd, walks, h.threads * sizeof(*walks));
	if (err)
		return err;
	versions = calloc(h.working_set + 1, sizeof(*versions));
	if (!versions)
		return -ENOMEM;
	err = load_versions(versions, &h, fd);
	if (!err && io_read_full(fd, &beyond, 1) != -ECONNRESET)
		err = -EBADMSG; /* more than a state */
	if (err)
		return err;
	p = (struct synthetic_params){
		.kinds = { h.seed, h.zero_percent, h.compressible_percent },
		.touched = h.touched,
		.working_set = h.working_set,
		.rate = h.rate,
		.pattern = h.pattern,
		.threads = h.threads,
	};
	SCOPED_LOCK(&g->lock);
	err = synthetic_adopt(g, &p, versions, walks);
	if (err)
		return err;
	ptr_take(&versions);
	g->written_before = h.written;
	g->beats = h.beats;
	g->source_beat_ns = h.last_beat_ns;
	g->last_beat_ns = g->arrival_gap_ns = 0;
	if (h.user_paused)
		synthetic_pause(g, SYNTHETIC_PAUSE_USER);
	return 0;
}
