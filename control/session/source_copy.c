// SPDX-License-Identifier: MIT
/*
 * The copying part of a migration at the source: data plane, streams, rounds.
 *
 * Theory of operation
 *   The data plane scans and sends when told; this file tells it, and asks the policy after every
 *   scan (source_policy.c). A scan always precedes the send of what it found (protect first, then
 *   read).
 *
 *   If a person wants the switch-over in the middle of a round, or changes goals so that it is to
 *   be post-copy, the round is cut: what is not on its way yet stays pending, and goes in the pause
 *   or after it. Only the first round goes on to its end, for it also says what was never
 *   populated.
 *
 *   DMA in flight (design, section 12): a page that a device is still writing when a scan reports
 *   and re-protects it is written again without a report. Stopping the guest drains its block I/O,
 *   so: (1) stop and cont once between arming and the first read, which ends every transfer that
 *   began before arming; (2) the data plane remembers what it reported since the last barrier, and
 *   a scan with BARRIER, taken while the guest is stopped, has all of it sent again. One such
 *   barrier is made before the switch-over, so that the set to send in the pause stays small; the
 *   pause itself is the last one. Only guests whose disks use direct or native I/O pay for this.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/session/arming.h"
#include "control/session/guest_memory.h"
#include "control/session/session_source.h"
#include "control/session/sockets.h"
#include "control/session/source_pause.h"
#include "control/session/source_throttle.h"
#include "dataplane/region.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"

#define CONNECT_MS	10000u
#define FINAL_SCANS_MAX 16
#define LOOKS_MAX	3
#define LOOK_MS		1000 /* costs two round trips of QMP, 0.3 ms each */
/*
 * How long a data plane may show no sign of life. A dead peer is noticed by its sockets sooner
 * (SOCKETS_DEAD_MS); this is for one that lives and does nothing. A scan says nothing until its
 * end, 3 ms per 512 MiB were measured.
 */
#define STALL_PAUSED_MS	 12000u
#define STALL_MS	 30000u
#define STALL_MS_PER_GIB 10u

static void on_progress(void *arg, const struct ipc_stats *stats)
{
	struct source *c = arg;
	struct session *s = c->s;
	struct session_progress *p = &s->progress;
	uint64_t now = clock_ns();

	SCOPED_LOCK(&s->lock);
	if (c->stats_ns && now > c->stats_ns)
		p->throughput = (double)(stats->wire_bytes - c->stats.wire_bytes) * 1e9 /
				(double)(now - c->stats_ns);
	p->pending_bytes = stats->pending_pages * PAGE_BYTES;
	p->sent_bytes = stats->sent_pages * PAGE_BYTES;
	p->wire_bytes = stats->wire_bytes;
	s->seq++;
	pthread_cond_broadcast(&s->changed);
	c->stats = *stats;
	c->stats_ns = now;
}

/*
 * 0: none. A pause, and what follows, is not cut short by a time limit: that would be longer. In a
 * dry run it is a goal to forecast with.
 */
static uint64_t deadline(const struct source *c)
{
	return c->o.goals.timeout_ms && !c->o.dry_run && !c->paused && !c->committed
		       ? c->s->started_ns + c->o.goals.timeout_ms * NSEC_PER_MSEC
		       : 0;
}

unsigned int source_patience(const struct source *c, unsigned int limit_ms)
{
	uint64_t end = deadline(c), now = clock_ns();
	/* rounded up: who has waited so long is past the deadline */
	uint64_t left = end <= now ? 1 : (end - now) / NSEC_PER_MSEC + 1;

	return !end || left > limit_ms ? limit_ms : (unsigned int)left;
}

bool source_is_late(const struct source *c)
{
	uint64_t end = deadline(c);

	return end && clock_ns() >= end;
}

int source_waited(struct source *c, int err, const char *what)
{
	if (err != -ETIMEDOUT || !source_is_late(c))
		return err;
	failure_clear(&c->f);
	return failure_set(&c->f, err, "timeout", "Allow more time with --timeout.",
			   "The time limit passed while %s.", what);
}

/* In the middle of a wait, or at its begin. */
static void cut_if_wanted(struct source *c)
{
	struct failure ignored = { 0 }; /* that it has died is heard by the wait */
	enum policy_reason reason;

	if (!c->sending || c->cut)
		return;
	if (c->round == 1 && c->switch_asked) {
		session_event(c->s, "the switch-over waits for the end of the first full pass");
		source_show_reason(c, "asked for by the user: it waits for the first full pass");
		c->cut = true;
	}
	if (c->round == 1 || !source_leaves(c, &reason))
		return;
	c->cut = true;
	dataplane_send(&c->dp, IPC_CUT, NULL, -1, &ignored);
	session_event(c->s, "round %u is cut short: %s", c->round, policy_reason_text(reason));
	source_show_reason(c, policy_reason_text(reason));
}

/* A new time limit counts for the wait under way too. */
static void on_wish(void *arg, struct dataplane_wait *w)
{
	struct source *c = arg;

	source_take_wishes(c);
	cut_if_wanted(c);
	if (!c->pause_end_ns && (w->deadline_ns || !c->paused))
		w->deadline_ns = deadline(c);
}

void source_wait_init(struct source *c, struct dataplane_wait *w, bool limited)
{
	*w = (struct dataplane_wait){
		.cancel_fd = c->s->wake_fd,
		.guest_fd = c->g ? c->g->pidfd : -1,
		.deadline_ns = c->pause_end_ns ? c->pause_end_ns
			       : limited       ? deadline(c)
					       : 0,
		.stall_ms =
			(c->paused ? STALL_PAUSED_MS : STALL_MS) +
			(unsigned int)((c->g ? c->g->desc.ram_bytes : 0) >> 30) * STALL_MS_PER_GIB,
		.late = c->pause_end_ns ? "What is left was not sent and acknowledged in time."
					: NULL,
		.notice_fd = c->s->wish_fd,
		.noticed = on_wish,
		.progress = on_progress,
		.arg = c,
	};
}

/* --- start ----------------------------------------------------------------------------------- */

/* One record of a member; value is stolen and may be NULL: none. */
static int note(struct source *c, const char *member, json_t *value)
{
	json_t *fields;
	int err;

	if (!value)
		return 0;
	fields = json_pack("{s:o}", member, value);
	err = session_enter(c->s, SESSION_NEGOTIATED, fields, &c->f);
	json_decref(fields);
	return err;
}

/* Arms the tracker; before and after it the journal knows how to undo that. */
static int arm(struct source *c, struct ipc_tracker *m, int *fd)
{
	enum ipc_tracker_kind kind;
	json_t *residue = NULL;
	int err = note(c, "arming", arming_note(c->g));

	if (!err)
		err = c->g->ops->arm(c->g, &kind, fd, &residue, &c->f);
	if (err)
		return err;
	c->armed = true;
	m->kind = kind;
	err = fault_at("source.armed");
	if (err) {
		json_decref(residue);
		return err;
	}
	return note(c, "residue", residue);
}

/* What watches the guest's writes goes to the data plane. */
static int send_tracker(struct source *c)
{
	struct ipc_tracker m = { .kind = IPC_TRACKER_NONE,
				 .kvm = !strcmp(c->g->desc.accel, "kvm") };
	AUTO_CLOSE int fd = -1;
	int err = 0;

	if (c->was_running && !c->o.cold) {
		err = arm(c, &m, &fd);
		if (!err)
			err = guest_memory_send_mappings(&c->dp, &c->g->desc, &c->f);
	}
	if (err)
		return err;
	c->tracker = m.kind;
	return dataplane_send(&c->dp, IPC_TRACKER, &m, fd, &c->f);
}

static int connect_streams(struct source *c)
{
	for (uint32_t i = 0; i < c->o.streams; i++) {
		struct ipc_stream m = { .index = i };
		uint32_t at = i % c->to.count;
		AUTO_CLOSE int fd = -1;
		int err =
			sockets_connect(c->to.address[at], c->to.port[at],
					source_patience(c, CONNECT_MS), c->s->wake_fd, &fd, &c->f);

		if (!err) {
			sockets_congestion(fd, c->congestion, sizeof(c->congestion));
			err = dataplane_send(&c->dp, IPC_STREAM, &m, fd, &c->f);
		}
		if (err)
			return source_waited(c, err, "the data streams were being connected");
	}
	return 0;
}

int source_start_dataplane(struct source *c)
{
	struct ipc_config m = { .role = IPC_ROLE_SOURCE,
				.regions = c->g->desc.nregions,
				.streams = c->o.streams,
				.tx = c->o.tx,
				.rate_limit = c->o.goals.bandwidth,
				.track_dma = c->track_dma,
				.encodings = c->o.compression.encodings,
				.compress = c->o.compression.kind,
				.level = c->o.compression.level,
				.delta_cache = c->o.compression.delta_cache,
				.page_hashes = c->o.page_hashes,
				.connect_ms = CONNECT_MS,
				.log_level = session_config(c->s)->verbose ? LOG_LEVEL_DEBUG
									   : LOG_LEVEL_INFO };
	struct dataplane_wait w;
	struct ipc_message answer;
	int err;

	memcpy(m.id, c->s->raw_id, sizeof(m.id));
	memcpy(m.secret, c->secret, sizeof(m.secret));
	err = dataplane_start(&c->dp, session_config(c->s), &c->f);
	if (!err)
		err = dataplane_send(&c->dp, IPC_CONFIG, &m, -1, &c->f);
	explicit_bzero(m.secret, sizeof(m.secret));
	if (!err)
		err = guest_memory_send_regions(&c->dp, c->g, &c->f);
	if (!err)
		err = send_tracker(c);
	if (!err)
		err = connect_streams(c);
	if (!err)
		err = dataplane_send(&c->dp, IPC_START, NULL, -1, &c->f);
	if (err)
		return err;
	source_wait_init(c, &w, true);
	err = dataplane_expect(&c->dp, IPC_READY, &answer, &w, &c->f);
	err = source_waited(c, err, "the data streams were being set up");
	if (!err) {
		c->ready = answer.body.ready;
		session_event(c->s, "%u streams, %s, congestion control %s", c->o.streams,
			      c->ready.tx_reason, c->congestion);
	}
	return err;
}

/* --- rounds ---------------------------------------------------------------------------------- */

int source_scan(struct source *c, uint32_t flags)
{
	struct ipc_scan m = { .flags = flags };
	struct ipc_message answer;
	struct dataplane_wait w;
	int err = dataplane_send(&c->dp, IPC_SCAN, &m, -1, &c->f);

	if (err)
		return err;
	source_wait_init(c, &w, !c->paused);
	err = dataplane_expect(&c->dp, IPC_SCANNED, &answer, &w, &c->f);
	if (err)
		return err;
	c->scanned = answer.body.scanned;
	SCOPED_LOCK(&c->s->lock);
	c->s->progress.pending_bytes = c->scanned.pending_pages * PAGE_BYTES;
	if (c->scanned.since_ns)
		c->s->progress.dirty_rate = (double)(c->scanned.dirty_pages * PAGE_BYTES) * 1e9 /
					    (double)c->scanned.since_ns;
	return 0;
}

int source_send_begin(struct source *c)
{
	struct ipc_send m = { .round = c->round + 1, .flags = c->paused ? 0 : IPC_SEND_DEFER };

	source_policy_sending(c);
	c->round++;
	c->sending = !c->paused;
	c->cut = false;
	{
		SCOPED_LOCK(&c->s->lock);
		c->s->progress.round = c->round;
	}
	return dataplane_send(&c->dp, IPC_SEND, &m, -1, &c->f);
}

static json_t *round_json(const struct ipc_sent *sent)
{
	json_t *j = json_pack("{s:i, s:I, s:I, s:f}", "n", (int)sent->round, "pages",
			      (json_int_t)sent->pages, "wire_bytes", (json_int_t)sent->wire_bytes,
			      "ms", (double)sent->ns / 1e6);

	if (sent->flags & IPC_SENT_CUT)
		json_object_set_new(j, "cut", json_true());
	return j;
}

int source_send_end(struct source *c)
{
	struct ipc_message answer;
	struct dataplane_wait w;
	const struct ipc_sent *sent = &answer.body.sent;
	int err;

	source_wait_init(c, &w, !c->paused);
	/* heard during a scan; a round that the policy wants before post-copy is not meant */
	if (c->switch_asked)
		cut_if_wanted(c);
	err = dataplane_expect(&c->dp, IPC_SENT, &answer, &w, &c->f);
	c->sending = false;
	if (err)
		return err;
	on_progress(c, &sent->total);
	json_array_append_new(c->rounds, round_json(sent));
	source_policy_sent(c, sent);
	return 0;
}

int source_send(struct source *c)
{
	int err = source_send_begin(c);

	return err ? err : source_send_end(c);
}

/*
 * Runs the guest on whatever happened meanwhile; the first error counts. While it is stopped
 * c->paused holds, so that a failure to run it on is made good by the rolling back.
 */
static int stopped(struct source *c, int (*inside)(struct source *))
{
	uint64_t start = clock_ns();
	struct failure later = { 0 };
	int err, cont;

	c->paused = true;
	err = c->g->ops->stop(c->g, &c->f);
	source_pause_barrier(c);
	if (!err && inside)
		err = source_pause_ended(c, inside(c));
	source_pause_ends(c);
	cont = c->g->ops->cont(c->g, &later);
	if (!cont)
		c->paused = false;
	else if (!err)
		c->f = later;
	session_event(c->s, "block I/O drained, the guest stopped for %.1f ms",
		      clock_ms_since(start));
	return err ? err : cont;
}

static int scan_barrier(struct source *c)
{
	return source_scan(c, IPC_SCAN_BARRIER);
}

int source_barrier_round(struct source *c)
{
	int err = stopped(c, scan_barrier);

	return err ? err : source_send(c);
}

/*
 * What a scan of all RAM takes, which a pause has two of: before anything is sent it is known
 * whether that fits. If it seems not to, it is looked again: another process may have been in the
 * way.
 */
static int look(struct source *c)
{
	int err = 0;

	for (int i = 0; !err && i < LOOKS_MAX; i++) {
		err = source_scan(c, 0);
		if (!err && source_policy_looked(c))
			break;
	}
	return err;
}

/* The full pass. What was in flight when the tracker was armed ends before anything is read. */
static int first_round(struct source *c)
{
	/* So no page is suspect yet, which is what BARRIER says. */
	int err = source_scan(c, IPC_SCAN_FIRST | IPC_SCAN_BARRIER);

	if (!err && c->armed)
		err = look(c);
	if (!err && source_decide(c).action == POLICY_GIVE_UP)
		err = source_gave_up(c);
	if (!err && c->track_dma)
		err = stopped(c, NULL);
	return err ? err : source_send(c);
}

int source_check_unchanged(struct source *c)
{
	c->unchanged_ns = clock_ns();
	return c->g->ops->unchanged ? c->g->ops->unchanged(c->g, &c->f) : 0;
}

/* So that a long copy does not go on in vain. What decides is the look before the pause. */
static int look_now_and_then(struct source *c)
{
	return clock_ms_since(c->unchanged_ns) > LOOK_MS ? source_check_unchanged(c) : 0;
}

/* Until the policy says anything but to go on. */
static int more_rounds(struct source *c)
{
	int err = 0;

	while (!err) {
		struct policy_decision d;

		err = look_now_and_then(c);
		if (!err)
			err = source_scan(c, 0);
		if (err)
			break;
		source_take_wishes(c);
		d = source_decide(c);
		if (d.action == POLICY_GIVE_UP)
			return source_gave_up(c);
		if (d.action == POLICY_ROUND) {
			source_throttle(c, d.throttle);
			err = source_send(c);
		} else if (!c->drained) {
			c->drained = true;
			/* who wants it now waits for no round either: all of it stays pending */
			err = c->switch_asked ? stopped(c, scan_barrier) : source_barrier_round(c);
		} else {
			return 0;
		}
	}
	return err;
}

/* A time limit mostly passes within a round: why it was not enough is told all the same. */
static int explained(struct source *c, int err)
{
	return err == -ETIMEDOUT && !strcmp(c->f.code, "timeout") ? source_timed_out(c) : err;
}

int source_copy_rounds(struct source *c)
{
	int err = first_round(c);

	c->drained = !c->track_dma;
	return explained(c, err ? err : more_rounds(c));
}

int source_copy_more(struct source *c)
{
	{
		SCOPED_LOCK(&c->s->lock);
		c->s->switching = false;
	}
	return explained(c, more_rounds(c));
}

int source_final_begin(struct source *c)
{
	/* A guest that was never tracked has not been read yet. */
	uint32_t first = c->armed ? 0 : IPC_SCAN_FIRST;
	int err = source_scan(c, IPC_SCAN_BARRIER | first);

	return err ? err : source_send_begin(c);
}

int source_final_settle(struct source *c)
{
	if (!c->armed)
		return 0;
	for (int i = 0; i < FINAL_SCANS_MAX; i++) {
		int err = source_scan(c, IPC_SCAN_BARRIER);

		if (err || !c->scanned.pending_pages)
			return err;
		err = source_send(c);
		if (err)
			return err;
	}
	return failure_set(&c->f, -EBUSY, "outside-writer",
			   "Find the process that writes the VM's RAM while the VM is stopped.",
			   "The RAM keeps changing although the VM is stopped.");
}
