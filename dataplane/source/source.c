// SPDX-License-Identifier: MIT
/*
 * The source's data plane: serves transhipd, scans, and leads the streams through their jobs.
 *
 * Theory of operation
 *   See source.h for the threads. The main thread waits for transhipd's messages and for the
 *   streams' reports. transhipd gives the order of a copy (ipc.h); a scan or a job that comes
 *   while another runs is its mistake and ends the session.
 *
 *   Order that must hold, all of it in on_scan: the tracker re-arms (protects) first, then what it
 *   reported may be read, by the round that follows. A first scan arms, then reads the files'
 *   extents.
 *
 *   QUIT is obeyed at any time: idle streams say BYE, busy ones are shut down under their threads.
 *   So is the end of the socket, which means that transhipd died.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "dataplane/sandbox.h"
#include "dataplane/self_usage.h"
#include "dataplane/source/source.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/log.h"

#define PROGRESS_NS (100 * NSEC_PER_MSEC)
/* After a scan: what is written again sooner is written all the time, and little. */
#define DEFER_AFTER_NS (3 * NSEC_PER_MSEC)
/* How long the farewell may take before the sockets are shut down. */
#define BYE_NS (2 * NSEC_PER_SEC)

/* The main thread's own. */
struct serving {
	struct source *src;
	bool busy;	   /* a job runs */
	bool state_ending; /* STATE_END was asked for */
	bool sent;	   /* the first round has begun */
	uint64_t job_start_ns, next_progress_ns, bye_deadline_ns;
	struct ipc_stats at_start; /* of the job */
	uint64_t last_scan_ns;	   /* 0: no scan yet */
	bool quit;
};

static void collect_stats(struct source *src, struct ipc_stats *t)
{
	*t = (struct ipc_stats){ 0 };
	for (uint32_t i = 0; i < src->setup->config.streams; i++) {
		const struct stream_counts *c = &src->streams[i].counts;

		t->sent_pages += __atomic_load_n(&c->pages, __ATOMIC_RELAXED);
		t->zero_bytes += __atomic_load_n(&c->zero_bytes, __ATOMIC_RELAXED);
		t->hole_bytes += __atomic_load_n(&c->hole_bytes, __ATOMIC_RELAXED);
		t->raw_bytes += __atomic_load_n(&c->raw_bytes, __ATOMIC_RELAXED);
		t->same_bytes += __atomic_load_n(&c->same_bytes, __ATOMIC_RELAXED);
		t->zero_copy_bytes += __atomic_load_n(&c->zero_copy_bytes, __ATOMIC_RELAXED);
		t->zstd_in_bytes += __atomic_load_n(&c->zstd_in_bytes, __ATOMIC_RELAXED);
		t->zstd_out_bytes += __atomic_load_n(&c->zstd_out_bytes, __ATOMIC_RELAXED);
		t->delta_in_bytes += __atomic_load_n(&c->delta_in_bytes, __ATOMIC_RELAXED);
		t->delta_out_bytes += __atomic_load_n(&c->delta_out_bytes, __ATOMIC_RELAXED);
		t->wire_bytes += __atomic_load_n(&c->wire_bytes, __ATOMIC_RELAXED);
	}
	source_compress_stats(src, t);
	t->deferred_bytes = __atomic_load_n(&src->deferred_pages, __ATOMIC_RELAXED) << PAGE_SHIFT;
	t->pending_pages = scheduler_pending(&src->scheduler);
	t->state_bytes = __atomic_load_n(&src->relay.bytes, __ATOMIC_RELAXED);
	self_usage_read(src->usage_fd, &t->cpu_ns, &t->rss_bytes);
}

static int wrong_time(const struct ipc_message *m, struct failure *f)
{
	return failure_set(f, -EPROTO, "internal", NULL,
			   "the source's data plane was given %s at the wrong time",
			   ipc_type_name(m->head.type));
}

static void begin_job(struct serving *v, enum source_job job, uint32_t round)
{
	collect_stats(v->src, &v->at_start);
	v->busy = true;
	v->job_start_ns = clock_ns();
	v->next_progress_ns = v->job_start_ns + PROGRESS_NS;
	streams_give(v->src, job, round);
}

static int find_discards(struct source *src, bool barrier, struct failure *f)
{
	uint64_t start = clock_ns(), vanished;
	int err = scheduler_recheck(&src->scheduler, barrier, &vanished);

	if (err)
		return failure_set(f, err, "internal", NULL,
				   "the extents of the guest's RAM cannot be read: %s",
				   strerror(-err));
	if (vanished)
		log_debug("the guest gave back %llu pages; found in %.2f ms",
			  (unsigned long long)vanished, clock_ms_since(start));
	return 0;
}

/*
 * When the parts of a scan ended: to arm or to collect; to take over what was found. What is left
 * is looking for discards.
 */
struct scan_times {
	uint64_t tracked_ns, merged_ns;
};

/* Arms or collects; *pages: what was reported. Nothing reads the bitmaps meanwhile. */
static int scan(struct source *src, uint32_t flags, uint64_t *pages, struct scan_times *t,
		struct failure *f)
{
	bool barrier = flags & IPC_SCAN_BARRIER;
	int err = 0;

	*pages = 0;
	if (flags & IPC_SCAN_FIRST) {
		if (src->tracker)
			err = src->tracker->ops->start(src->tracker, f);
		if (err)
			return err;
		t->tracked_ns = clock_ns();
		err = scheduler_first(&src->scheduler, barrier);
		t->merged_ns = clock_ns();
		if (err)
			failure_set(f, err, "internal", NULL,
				    "the extents of the guest's RAM cannot be read: %s",
				    strerror(-err));
		return err;
	}
	if (src->tracker)
		err = src->tracker->ops->collect(src->tracker, scheduler_scanned(&src->scheduler),
						 pages, f);
	if (err)
		return err;
	t->tracked_ns = clock_ns();
	scheduler_merge(&src->scheduler, barrier);
	t->merged_ns = clock_ns();
	return find_discards(src, barrier, f);
}

static int on_scan(struct serving *v, const struct ipc_message *m, struct failure *f)
{
	struct source *src = v->src;
	uint64_t start = clock_ns();
	struct ipc_scanned answer = { 0 };
	struct scan_times t;
	uint32_t flags = m->body.scan.flags;
	int err;

	if (v->busy || !v->last_scan_ns != !!(flags & IPC_SCAN_FIRST))
		return wrong_time(m, f);
	err = scan(src, flags, &answer.dirty_pages, &t, f);
	if (err)
		return err;
	answer.pending_pages = scheduler_pending(&src->scheduler);
	answer.pending_chunks = bitmap_count(&src->scheduler.dirty_chunks);
	answer.union_pages = src->scheduler.seen_pages;
	answer.since_ns = v->last_scan_ns ? start - v->last_scan_ns : 0;
	answer.scan_ns = clock_ns() - start;
	v->last_scan_ns = start;
	log_debug("scan: %llu pages in %.2f ms (tracker %.2f, bitmaps and extents %.2f), %llu "
		  "pending",
		  (unsigned long long)answer.dirty_pages, (double)answer.scan_ns / 1e6,
		  (double)(t.tracked_ns - start) / 1e6, (double)(t.merged_ns - t.tracked_ns) / 1e6,
		  (unsigned long long)answer.pending_pages);
	return ipc_send(src->setup->sock, IPC_SCANNED, &answer, -1);
}

static int begin_round(struct serving *v, uint32_t round)
{
	/* in the pause nothing is written: no order is better than another */
	int err = scheduler_begin_round(&v->src->scheduler, v->src->defer_from_ns);

	if (err)
		return err;
	source_compress_begin_round(v->src, round);
	begin_job(v, JOB_ROUND, round);
	return 0;
}

static int on_send(struct serving *v, const struct ipc_message *m, struct failure *f)
{
	struct source *src = v->src;
	bool first = !v->sent;
	int err;

	if (v->busy || !v->last_scan_ns)
		return wrong_time(m, f);
	v->sent = true;
	src->defer_from_ns = 0;
	if (m->body.send.flags & IPC_SEND_DEFER && src->tracker && src->tracker->ops->peek)
		src->defer_from_ns = v->last_scan_ns + DEFER_AFTER_NS;
	if (!first || !source_may_compare(src))
		return begin_round(v, m->body.send.round);
	err = source_compare_begin(src);
	src->chunk_cursor = 0;
	if (!err)
		begin_job(v, JOB_COMPARE, m->body.send.round);
	return err;
}

static int on_verify(struct serving *v, const struct ipc_message *m, struct failure *f)
{
	if (v->busy)
		return wrong_time(m, f);
	v->src->chunk_cursor = 0;
	v->src->verified = (struct ipc_verified){ 0 };
	begin_job(v, JOB_VERIFY, 0);
	return 0;
}

static void on_quit(struct serving *v)
{
	v->quit = true;
	if (v->busy)
		return;
	begin_job(v, JOB_BYE, 0);
	v->bye_deadline_ns = clock_ns() + BYE_NS;
}

/* It may have come too late; see ipc.h. */
static void on_cut(struct serving *v)
{
	if (!v->busy || v->src->job != JOB_ROUND || !scheduler_cut(&v->src->scheduler))
		return;
	log_debug("round %u is cut %.1f ms after its start", v->src->round,
		  clock_ms_since(v->job_start_ns));
	streams_wake(v->src);
}

static int on_message(struct serving *v, const struct ipc_message *m, int *fd, struct failure *f)
{
	struct source *src = v->src;
	int err;

	switch (m->head.type) {
	case IPC_LIMIT:
		token_bucket_set_rate(&src->bucket, m->body.limit.rate_limit, clock_ns());
		source_compress_link_changed(src);
		streams_wake(src);
		return 0;
	case IPC_SCAN:
		return on_scan(v, m, f);
	case IPC_SEND:
		return on_send(v, m, f);
	case IPC_CUT:
		on_cut(v);
		return 0;
	case IPC_STATE:
		err = state_relay_offer(&src->relay, *fd);
		if (err)
			return wrong_time(m, f);
		fd_take(fd);
		streams_wake(src);
		return 0;
	case IPC_STATE_END:
		if (v->state_ending)
			return wrong_time(m, f);
		v->state_ending = true;
		state_relay_finish(&src->relay);
		streams_wake(src);
		return 0;
	case IPC_VERIFY:
		return on_verify(v, m, f);
	case IPC_HAND_OVER:
		/* what was never populated is said by a first round */
		if (v->busy || !v->sent)
			return wrong_time(m, f);
		begin_job(v, JOB_HAND_OVER, 0);
		return 0;
	case IPC_QUIT:
		on_quit(v);
		return 0;
	default:
		return wrong_time(m, f);
	}
}

static int end_job(struct serving *v)
{
	struct source *src = v->src;
	struct ipc_ready ready = { .tx = src->tx_ops->kind, .tracker = src->setup->tracker };
	struct ipc_sent sent = { .round = src->round, .ns = clock_ns() - v->job_start_ns };
	struct ipc_count count;

	switch (src->job) {
	case JOB_HANDSHAKE:
		snprintf(ready.tx_reason, sizeof(ready.tx_reason), "%s", src->tx_reason);
		return ipc_send(src->setup->sock, IPC_READY, &ready, -1);
	case JOB_COMPARE:
		log_info("compared with what the destination has in %.1f ms",
			 clock_ms_since(v->job_start_ns));
		return begin_round(v, src->round);
	case JOB_ROUND:
		source_compare_end(src);
		sent.flags = scheduler_end_round(&src->scheduler) ? IPC_SENT_CUT : 0;
		collect_stats(src, &sent.total);
		sent.pages = sent.total.sent_pages - v->at_start.sent_pages;
		sent.wire_bytes = sent.total.wire_bytes - v->at_start.wire_bytes;
		return ipc_send(src->setup->sock, IPC_SENT, &sent, -1);
	case JOB_VERIFY:
		return ipc_send(src->setup->sock, IPC_VERIFIED, &src->verified, -1);
	case JOB_HAND_OVER:
		count.bytes = scheduler_pending(&src->scheduler);
		return ipc_send(src->setup->sock, IPC_HANDED_OVER, &count, -1);
	default:
		return 0;
	}
}

/* What the streams reported. */
static int on_event(struct serving *v, struct failure *f)
{
	struct source *src = v->src;
	int err = io_event_clear(src->event_fd);

	if (err)
		return err == -EAGAIN ? 0 : err;
	pthread_mutex_lock(&src->lock);
	err = src->failed;
	if (err)
		*f = src->failure;
	pthread_mutex_unlock(&src->lock);
	if (err)
		return err;
	if (v->busy && !__atomic_load_n(&src->jobs_left, __ATOMIC_ACQUIRE)) {
		v->busy = false;
		err = end_job(v);
	}
	if (!err && __atomic_exchange_n(&src->state_done, false, __ATOMIC_ACQ_REL)) {
		struct ipc_count bytes = { src->relay.bytes };

		v->state_ending = false;
		err = ipc_send(src->setup->sock, IPC_STATE_DONE, &bytes, -1);
	}
	return err;
}

static int send_progress(struct serving *v)
{
	struct ipc_stats t;

	collect_stats(v->src, &t);
	v->next_progress_ns = clock_ns() + PROGRESS_NS;
	return ipc_send(v->src->setup->sock, IPC_PROGRESS, &t, -1);
}

static bool shows_progress(const struct serving *v)
{
	return v->state_ending || (v->busy && v->src->job != JOB_HANDSHAKE);
}

/* Milliseconds until something is due, -1 if nothing is. */
static int patience(const struct serving *v, uint64_t now)
{
	uint64_t due = v->quit ? v->bye_deadline_ns : v->next_progress_ns;

	if (!v->quit && !shows_progress(v))
		return -1;
	return due <= now ? 0 : (int)((due - now) / NSEC_PER_MSEC) + 1;
}

/* One message or report. transhipd being gone is a reason to quit, not a failure. */
static int serve_once(struct serving *v, struct failure *f)
{
	struct setup *set = v->src->setup;
	struct pollfd p[2] = { { .fd = set->sock, .events = POLLIN },
			       { .fd = v->src->event_fd, .events = POLLIN } };
	int err = 0;

	if (poll(p, 2, patience(v, clock_ns())) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[1].revents)
		err = on_event(v, f);
	if (!err && p[0].revents) {
		AUTO_CLOSE int fd = -1;
		struct ipc_message m;

		err = ipc_recv(set->sock, &m, &fd, 0);
		if (!err)
			err = on_message(v, &m, &fd, f);
		else if (err == -EBADMSG)
			failure_set(f, err, "internal", NULL, "transhipd sent a malformed message");
	}
	if (!err && !v->quit && shows_progress(v) && clock_ns() >= v->next_progress_ns)
		err = send_progress(v);
	return err;
}

static int serve(struct source *src, struct failure *f)
{
	struct serving v = { .src = src };
	int err = source_compress_start(src, f);

	if (!err)
		err = streams_start(src, f);
	if (!err)
		begin_job(&v, JOB_HANDSHAKE, 0);
	while (!err) {
		if (v.quit && (!v.busy || src->job != JOB_BYE || clock_ns() >= v.bye_deadline_ns))
			return 0;
		err = serve_once(&v, f);
	}
	if (v.quit)
		return 0; /* a stream that breaks while it says goodbye */
	if ((err == -ECONNRESET || err == -EPIPE) && !failure_is_set(f)) {
		log_info("transhipd is gone");
		return -ECANCELED;
	}
	return err;
}

/* Everything that needs privileges. */
static int prepare(struct source *src, struct failure *f)
{
	struct setup *set = src->setup;
	int err;

	src->usage_fd = self_usage_open();
	src->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (src->event_fd < 0)
		return failure_set(f, -errno, "internal", NULL, "no eventfd");
	err = state_relay_init(&src->relay);
	if (!err)
		err = scheduler_init(&src->scheduler, set->regions, set->nregions,
				     set->config.track_dma);
	if (err)
		return failure_set(f, err, "internal", NULL, "no memory for the bitmaps");
	err = page_hash_init(&src->hash, set->config.secret, set->config.id);
	if (!err)
		err = known_pages_init(
			&src->known, set->regions, set->nregions,
			set->config.page_hashes
				? set->config.page_hashes
				: known_pages_default_max(set->regions, set->nregions));
	if (err)
		return failure_set(f, err, "internal", NULL, "no hashes of pages: %s",
				   strerror(-err));
	err = page_reader_init(&src->reader, set->regions, set->nregions, f);
	if (err)
		return err;
	src->tx_ops = tx_choose((enum ipc_tx)set->config.tx, set->stream_fds[0], set->regions,
				set->nregions, src->tx_reason, sizeof(src->tx_reason));
	if (!src->tx_ops)
		return failure_set(f, -EOPNOTSUPP, "unsupported-option", "use --tx auto",
				   "this way of sending does not work here: %s", src->tx_reason);
	err = source_compress_init(src, f);
	return err ? err : streams_init(src, f);
}

static void release(struct source *src)
{
	source_compress_stop(src); /* it wakes streams */
	streams_stop(src);
	source_compress_release(src);
	if (src->tracker)
		src->tracker->ops->free(src->tracker);
	streams_release(src);
	page_reader_release(&src->reader);
	known_pages_release(&src->known);
	source_compare_end(src);
	scheduler_release(&src->scheduler);
	state_relay_release(&src->relay);
	token_bucket_release(&src->bucket);
	pthread_mutex_destroy(&src->lock);
	fd_close(&src->event_fd);
	fd_close(&src->usage_fd);
}

int source_run(struct setup *s, struct failure *f)
{
	struct source src = { .setup = s, .event_fd = -1, .usage_fd = -1 };
	int err;

	src.relay = (struct state_relay){ .fd = -1, .offered_fd = -1 };
	src.reader.uffd = -1;
	pthread_mutex_init(&src.lock, NULL);
	token_bucket_init(&src.bucket, s->config.rate_limit, clock_ns());
	err = prepare(&src, f);
	if (!err)
		err = sandbox_enter(IPC_ROLE_SOURCE, 0, f);
	/* After the sandbox: its scan threads, if any, inherit it. */
	if (!err && s->tracker == IPC_TRACKER_PAGEMAP) {
		struct tracker_pagemap_options how = { .threads = s->config.scan_threads,
						       .kvm = s->tracker_kvm };

		err = tracker_pagemap_new(&src.tracker, s->regions, s->nregions, s->pagemap_fd,
					  &how, f);
		if (!err)
			s->pagemap_fd = -1;
	}
	if (!err)
		err = serve(&src, f);
	release(&src);
	return err;
}
