// SPDX-License-Identifier: MIT
/* The observer's data plane: scans on demand, for dirty-rate; maps and sends nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/sandbox.h"
#include "dataplane/setup.h"
#include "dataplane/source/scheduler.h"
#include "dataplane/track/tracker.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

struct observer {
	struct setup *setup;
	struct tracker *tracker;
	struct scheduler scheduler;
	uint64_t last_scan_ns; /* 0: none yet */
};

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
	if (err)
		return err;
	scheduler_merge(&o->scheduler, false);
	answer.union_pages = o->scheduler.seen_pages;
	answer.since_ns = o->last_scan_ns ? start - o->last_scan_ns : 0;
	answer.scan_ns = clock_ns() - start;
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
	scheduler_release(&o.scheduler);
	return err;
}
