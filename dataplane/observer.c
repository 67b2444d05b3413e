// SPDX-License-Identifier: MIT
/*
 * The observer's data plane: scans on demand, for dirty-rate and predict; maps and sends nothing.
 *
 * With IPC_SCAN_PERIODS it tells how many pages were written in each of several times at once: the
 * pages of one scan are added to those of the second level, of every two scans; when these are
 * complete they are counted and added to the third, and so on. A scan costs two additions of
 * bitmaps on average, however many levels there are.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataplane/sandbox.h"
#include "dataplane/setup.h"
#include "dataplane/source/scheduler.h"
#include "dataplane/track/tracker.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define SAMPLES 2048u /* pages that are looked at: 1 or 2 us each */

struct sampled {
	uint32_t region;
	uint64_t page;
};

struct observer {
	struct setup *setup;
	struct tracker *tracker;
	struct scheduler scheduler;
	uint64_t last_scan_ns; /* 0: none yet */
	uint64_t scans;	       /* with periods, after the first */
	/* Of each level and region; a level's are made when it is first needed. */
	struct bitmap *levels[IPC_PERIODS_MAX];
	/* Which of the pages that were looked at hold data, in the order of a pass. */
	struct sampled data[SAMPLES];
	uint32_t ndata;
};

/* --- periods --------------------------------------------------------------------------------- */

static int make_level(struct observer *o, int level)
{
	uint32_t n = o->setup->nregions;
	int err = 0;

	o->levels[level] = calloc(n, sizeof(struct bitmap));
	if (!o->levels[level])
		return -ENOMEM;
	for (uint32_t i = 0; i < n && !err; i++)
		err = bitmap_init(&o->levels[level][i], region_pages(&o->setup->regions[i]));
	return err;
}

static int add_to_level(struct observer *o, int level, const struct bitmap *pages)
{
	int err = o->levels[level] ? 0 : make_level(o, level);

	for (uint32_t i = 0; i < o->setup->nregions && !err; i++)
		bitmap_or(&o->levels[level][i], &pages[i]);
	return err;
}

static void clear_level(struct observer *o, int level)
{
	for (uint32_t i = 0; i < o->setup->nregions; i++)
		bitmap_clear_all(&o->levels[level][i]);
}

/* Before the scan's bitmaps are taken over, and so cleared. */
static int add_periods(struct observer *o, struct ipc_scanned *answer)
{
	const struct bitmap *pages = scheduler_scanned(&o->scheduler);

	o->scans++;
	answer->period_pages[0] = answer->dirty_pages;
	for (int level = 1; level < IPC_PERIODS_MAX; level++) {
		int err = add_to_level(o, level, pages);

		if (level > 1)
			clear_level(o, level - 1); /* it was complete, and is in this one now */
		if (err || o->scans % (1ull << level))
			return err;
		pages = o->levels[level];
		for (uint32_t i = 0; i < o->setup->nregions; i++)
			answer->period_pages[level] += bitmap_count(&pages[i]);
	}
	clear_level(o, IPC_PERIODS_MAX - 1);
	return 0;
}

static void release_levels(struct observer *o)
{
	for (int level = 0; level < IPC_PERIODS_MAX; level++) {
		for (uint32_t i = 0; o->levels[level] && i < o->setup->nregions; i++)
			bitmap_release(&o->levels[level][i]);
		free(o->levels[level]);
	}
}

/* --- what the files hold --------------------------------------------------------------------- */

static bool is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE_BYTES - 1);
}

/* Pages at even distances; a hole is no page, and is not looked into. */
static void sample(struct observer *o, uint32_t region, uint32_t samples, struct ipc_scanned *out)
{
	const struct region *r = &o->setup->regions[region];

	uint64_t pages = region_pages(r);
	static uint8_t page[PAGE_BYTES];

	for (uint32_t i = 0; i < samples; i++) {
		uint64_t number = pages * i / samples;
		off_t at = (off_t)(r->file_offset + number * PAGE_BYTES);

		if ((!r->hugetlb && lseek(r->fd, at, SEEK_DATA) != at) ||
		    pread(r->fd, page, sizeof(page), at) != sizeof(page))
			continue;
		out->sampled_pages++;
		if (is_zero(page))
			out->sampled_zero_pages++;
		else
			o->data[o->ndata++] = (struct sampled){ region, number };
	}
}

static void look(struct observer *o, struct ipc_scanned *out)
{
	const struct setup *s = o->setup;
	uint64_t all = 0;

	for (uint32_t i = 0; i < s->nregions; i++)
		all += region_pages(&s->regions[i]);
	for (uint32_t i = 0; i < s->nregions; i++) {
		const struct region *r = &s->regions[i];
		uint64_t pages = region_pages(r), held = scheduler_blocks(r) * 512 / PAGE_BYTES;

		out->populated_pages += r->hugetlb || held > pages ? pages : held;
		sample(o, i, (uint32_t)(SAMPLES * pages / all), out);
	}
}

/* Where in a pass that lies what was written. */
static void place(const struct observer *o, struct ipc_scanned *out)
{
	for (uint32_t i = 0; i < o->ndata; i++) {
		const struct bitmap *seen = &o->scheduler.seen[o->data[i].region];

		out->written_places[i * IPC_PLACES / o->ndata] +=
			bitmap_test(seen, o->data[i].page);
	}
}

/* --- serving --------------------------------------------------------------------------------- */

static int on_scan(struct observer *o, uint32_t flags, struct failure *f)
{
	const struct tracker_ops *ops = o->tracker->ops;
	struct ipc_scanned answer = { 0 };
	uint64_t start = clock_ns();
	int err;

	if (!o->last_scan_ns != !!(flags & IPC_SCAN_FIRST))
		return failure_set(f, -EPROTO, "internal", NULL,
				   "the observer was given a scan at the wrong time");
	if (flags & IPC_SCAN_FIRST)
		err = ops->start(o->tracker, f);
	else
		err = ops->collect(o->tracker, scheduler_scanned(&o->scheduler),
				   &answer.dirty_pages, f);
	if (!err && flags & IPC_SCAN_PERIODS && !(flags & IPC_SCAN_FIRST))
		err = add_periods(o, &answer);
	if (err)
		return err;
	scheduler_merge(&o->scheduler, false);
	/* the walk may be long: it is no part of the scan */
	answer.scan_ns = clock_ns() - start;
	if (flags & IPC_SCAN_PERIODS && flags & IPC_SCAN_FIRST)
		look(o, &answer);
	place(o, &answer);
	answer.union_pages = o->scheduler.seen_pages;
	answer.since_ns = o->last_scan_ns ? start - o->last_scan_ns : 0;
	o->last_scan_ns = start;
	return ipc_send(o->setup->sock, IPC_SCANNED, &answer, -1);
}

static int serve(struct observer *o, struct failure *f)
{
	struct ipc_ready ready = { .tracker = o->setup->tracker };
	int err = ipc_send(o->setup->sock, IPC_READY, &ready, -1);

	while (!err) {
		AUTO_CLOSE int fd = -1;
		struct ipc_message m;

		err = ipc_recv(o->setup->sock, &m, &fd, -1);
		if (err)
			break;
		if (m.head.type == IPC_QUIT)
			return 0;
		if (m.head.type != IPC_SCAN)
			return failure_set(f, -EPROTO, "internal", NULL, "an observer cannot %s",
					   ipc_type_name(m.head.type));
		err = on_scan(o, m.body.scan.flags, f);
	}
	/* transhipd is gone: nobody is left to be told. */
	return err == -ECONNRESET || err == -EPIPE ? -ECANCELED : err;
}

int observer_run(struct setup *s, struct failure *f)
{
	struct observer o = { .setup = s };
	int err = scheduler_init(&o.scheduler, s->regions, s->nregions, false);

	if (err)
		return failure_set(f, err, "internal", NULL, "no memory for the bitmaps");
	err = sandbox_enter(IPC_ROLE_OBSERVER, 0, f);
	if (!err && s->tracker == IPC_TRACKER_PAGEMAP) {
		struct tracker_pagemap_options how = { .threads = s->config.scan_threads,
						       .kvm = s->tracker_kvm };

		err = tracker_pagemap_new(&o.tracker, s->regions, s->nregions, s->pagemap_fd, &how,
					  f);
		if (!err)
			s->pagemap_fd = -1;
	} else if (!err) {
		err = tracker_none_new(&o.tracker, s->regions, s->nregions);
	}
	if (!err)
		err = serve(&o, f);
	if (o.tracker)
		o.tracker->ops->free(o.tracker);
	release_levels(&o);
	scheduler_release(&o.scheduler);
	return err;
}
