// SPDX-License-Identifier: MIT
/*
 * Post-copy at the source; see source_postcopy.h and dataplane/postcopy/postcopy.h.
 *
 * Theory of operation
 *   When the policy says so, and before the pause, the destination is asked for connections of
 *   their own and a second data plane is started, connected and authenticated. In the pause the
 *   last scan's pages are named to the destination (HAND_OVER) in place of being sent. COMMITTED
 *   is the switch-over itself: from then on the guest here never runs again, and its RAM is kept
 *   (we hold the files) until the destination has everything.
 *
 *   Whatever is lost after that (the link, a data plane on either side, the other transhipd) has
 *   one cure: ask the destination for connections again and start another data plane, for as long
 *   as it takes, at first at once and then at growing distance; the guest waits for its pages
 *   meanwhile. The destination names what is missing. The VMM here may end meanwhile: its RAM does
 *   not (source_ram.c). Only when the destination says that its guest is gone the session ends,
 *   unresolved: what is here is the guest as it was at the switch-over, and whether it may run from
 *   there a person must decide.
 *
 *   A destination that is not heard of for UNREACHED_MS makes the session UNRESOLVED too, so that a
 *   person may decide. It is still asked, and with its first word the session is RUNNING again as
 *   if nothing had been: who was told that it is unresolved can follow it again.
 */
#include "control/session/source_postcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "control/session/host_internal.h"
#include "control/session/session_source.h"
#include "control/session/destination_postcopy.h"
#include "control/session/postcopy_figures.h"
#include "control/session/sockets.h"
#include "control/session/source_account.h"
#include "control/session/source_peer.h"
#include "dataplane/region.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"
#include "lib/base/text.h"

#define OPEN_MS	     15000u /* at the destination: a userfaultfd is made, a data plane started */
#define CONNECT_MS   4000u
#define READY_MS     8000u
#define LOOK_MS	     1000u  /* how often the destination is asked whether its guest lives */
#define AGAIN_MS     300    /* between attempts to connect again, */
#define AGAIN_MAX_MS 1000   /* later */
#define STEADY_MS    5000u  /* what was served for so long and is lost is connected again at once */
#define COMMIT_MS    40000u /* its VMM opens images, maybe over a network */
#define UNREACHED_MS 20000u /* then a person may decide; it is tried again all the same */
#define STOP_MS	     30000u /* it ends its VM, whose RAM may be large */
#define TELL_MS	     3000u  /* one that is not heard of is told all the same */
/* From the last acknowledgement to its word that it has everything: it disarms, 10 ms a GiB. */
#define SETTLE_MS	  10000u
#define SETTLE_MS_PER_GIB 50u

void source_postcopy_init(struct source *c)
{
	c->post = (struct source_postcopy){ .dp = DATAPLANE_NONE };
}

void source_postcopy_release(struct source *c)
{
	dataplane_stop(&c->post.dp);
	source_ram_release(&c->post.kept);
}

/* --- connecting ------------------------------------------------------------------------------- */

static int ask(struct source *c, uint8_t secret[IPC_SECRET_SIZE], struct failure *f)
{
	char hex[2 * IPC_SECRET_SIZE + 1];
	json_t *in, *answer = NULL;
	int err;

	if (getrandom(secret, IPC_SECRET_SIZE, 0) != IPC_SECRET_SIZE)
		return failure_set(f, -EIO, "internal", NULL, "no random numbers");
	text_hex(hex, secret, IPC_SECRET_SIZE);
	in = json_pack("{s:s}", "secret", hex);
	explicit_bzero(hex, sizeof(hex));
	err = source_peer_call(c, "postcopy", in, &answer, OPEN_MS, f);
	json_decref(in);
	if (!err && data_addresses_from_answer(&c->post.to, answer))
		err = failure_set(f, -EPROTO, "peer-failed", NULL,
				  "The destination's answer names no data address.");
	c->post.encodings = compression_accept(json_object_get(answer, "encodings"));
	json_decref(answer);
	return err;
}

static int send_regions(struct source *c, struct failure *f)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < c->post.kept.count; i++)
		err = dataplane_send(&c->post.dp, IPC_REGION, &c->post.kept.regions[i],
				     c->post.kept.fds[i], f);
	return err;
}

/* To the first address from the at-th on, round about, that is not known to be dead. */
static int connect_to(struct source *c, uint32_t at, uint32_t *dead, int *fd, struct failure *f)
{
	const struct data_addresses *to = &c->post.to;
	int err = -EHOSTUNREACH;

	for (uint32_t k = 0; k < to->count; k++, at++) {
		uint32_t i = at % to->count;

		if (*dead >> i & 1)
			continue;
		failure_clear(f);
		err = sockets_connect(to->address[i], to->port[i], CONNECT_MS,
				      c->committed ? -1 : c->s->wake_fd, fd, f);
		if (!err || err == -ECANCELED)
			return err;
		*dead |= 1u << i;
	}
	return err;
}

/* Faults to the first address, the rest take turns; who waits is served by what is left. */
static int connect_streams(struct source *c, uint32_t n, struct failure *f)
{
	uint32_t dead = 0;
	int err = 0;

	for (uint32_t i = 0; !err && i < n; i++) {
		struct ipc_stream m = { .index = i };
		AUTO_CLOSE int fd = -1;

		err = connect_to(c, i, &dead, &fd, f);
		if (!err)
			err = dataplane_send(&c->post.dp, IPC_STREAM, &m, fd, f);
	}
	return err;
}

static int start(struct source *c, const uint8_t *secret, struct failure *f)
{
	const struct config *config = session_config(c->s);
	struct ipc_config m = { .role = IPC_ROLE_POSTCOPY_SOURCE,
				.regions = c->post.kept.count,
				.streams = postcopy_streams(c->o.streams),
				.tx = c->o.tx,
				.rate_limit = c->o.goals.bandwidth,
				.connect_ms = CONNECT_MS,
				.log_level = config->verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO };
	struct dataplane_wait w = { .cancel_fd = c->committed ? -1 : c->s->wake_fd,
				    .guest_fd = -1,
				    .deadline_ns = clock_ns() + READY_MS * NSEC_PER_MSEC,
				    .late = "The post-copy data plane did not get ready in time.",
				    .skip_others = true };
	struct ipc_message answer;
	int err;

	if (c->post.encodings & IPC_ENCODING_ZSTD) {
		m.encodings = IPC_ENCODING_ZSTD;
		m.compress = c->o.compression.kind;
		m.level = c->o.compression.level;
	}
	memcpy(m.id, c->s->raw_id, sizeof(m.id));
	memcpy(m.secret, secret, sizeof(m.secret));
	err = dataplane_start(&c->post.dp, config, f);
	if (!err)
		err = dataplane_send(&c->post.dp, IPC_CONFIG, &m, -1, f);
	explicit_bzero(m.secret, sizeof(m.secret));
	if (!err)
		err = send_regions(c, f);
	if (!err)
		err = connect_streams(c, m.streams, f);
	if (!err)
		err = dataplane_send(&c->post.dp, IPC_START, NULL, -1, f);
	return err ? err : dataplane_expect(&c->post.dp, IPC_READY, &answer, &w, f);
}

int source_postcopy_establish(struct source *c, struct failure *f)
{
	uint8_t secret[IPC_SECRET_SIZE];
	int err = ask(c, secret, f);

	if (!err)
		err = start(c, secret, f);
	explicit_bzero(secret, sizeof(secret));
	if (err)
		dataplane_stop(&c->post.dp);
	return err;
}

/* --- serving ---------------------------------------------------------------------------------- */

static void on_progress(void *arg, const struct ipc_stats *stats)
{
	struct source *c = arg;
	struct session_progress *p = &c->s->progress;
	uint64_t now = clock_ns();
	SCOPED_LOCK(&c->s->lock);

	if (c->post.stats_ns && now > c->post.stats_ns)
		p->throughput = (double)(stats->wire_bytes - c->post.stats.wire_bytes) * 1e9 /
				(double)(now - c->post.stats_ns);
	c->post.stats_ns = now;
	if (stats->rss_bytes > c->post.rss_bytes)
		c->post.rss_bytes = stats->rss_bytes;
	p->pending_known = true;
	p->pending_bytes = stats->pending_pages * PAGE_BYTES;
	p->sent_bytes = (c->stats.sent_pages + stats->sent_pages) * PAGE_BYTES;
	p->wire_bytes = c->stats.wire_bytes + c->post.ended.wire_bytes + stats->wire_bytes;
	c->s->seq++;
	pthread_cond_broadcast(&c->s->changed);
	c->post.stats = *stats;
}

static void say(struct source *c, const char *reason)
{
	SCOPED_LOCK(&c->s->lock);
	snprintf(c->s->progress.reason, sizeof(c->s->progress.reason), "%s", reason);
	c->s->seq++;
	pthread_cond_broadcast(&c->s->changed);
}

static void add_stats(struct ipc_stats *to, const struct ipc_stats *from)
{
	to->sent_pages += from->sent_pages;
	to->zero_bytes += from->zero_bytes;
	to->hole_bytes += from->hole_bytes;
	to->raw_bytes += from->raw_bytes;
	to->zero_copy_bytes += from->zero_copy_bytes;
	to->zstd_in_bytes += from->zstd_in_bytes;
	to->zstd_out_bytes += from->zstd_out_bytes;
	to->encode_cpu_ns += from->encode_cpu_ns;
	to->encode_changes += from->encode_changes;
	if (from->wire_bytes)
		to->encode_level = from->encode_level;
	to->wire_bytes += from->wire_bytes;
	to->cpu_ns += from->cpu_ns;
}

/* What a data plane says last is the account of all that it has sent. */
static void stop_serving(struct source *c)
{
	struct dataplane *dp = &c->post.dp;
	AUTO_CLOSE int sock = dp->sock >= 0 ? fcntl(dp->sock, F_DUPFD_CLOEXEC, 0) : -1;
	struct ipc_message m;
	int fd;

	dataplane_stop(dp);
	while (sock >= 0 && !ipc_recv(sock, &m, &fd, 0)) {
		fd_close(&fd);
		if (m.head.type == IPC_PROGRESS)
			c->post.stats = m.body.stats;
	}
	add_stats(&c->post.ended, &c->post.stats);
	c->post.stats = (struct ipc_stats){ 0 };
	c->post.stats_ns = 0;
	SCOPED_LOCK(&c->s->lock);
	c->s->progress.throughput = 0;
}

/* The guest runs there: of what pre-copy showed, this is no more. */
static void show_served(struct source *c)
{
	struct session_progress *p = &c->s->progress;
	SCOPED_LOCK(&c->s->lock);

	p->postcopy = true;
	p->dirty_rate = p->predicted_downtime_ms = p->throughput = 0;
}

static void lost(struct source *c, const struct failure *why)
{
	stop_serving(c);
	if (c->post.lost)
		return;
	c->post.lost = true;
	session_event(c->s, "post-copy stands still, the guest waits for pages: %s (%s)",
		      why->message, why->code);
	say(c, "connecting again: the guest waits for pages that are still here");
}

/*
 * 0: it serves, or may be asked again; c->post.heard: it answered; 1: it has all. With c->f:
 * -ESRCH: its guest is gone; -EREMOTEIO: it never ran there and never will.
 */
static int look(struct source *c)
{
	struct source_peer_state there;
	enum session_state state;
	int err = source_peer_state(c, &there);

	c->post.heard = !err || err == -ENODATA;
	if (err)
		return 0; /* not now; its guest may run all the same */
	c->post.heard_ns = clock_ns();
	c->post.deserted = there.deserted;
	if (there.complete)
		return 1;
	state = there.state;
	if (state == SESSION_RUNNING || state == SESSION_COMMITTED || state == SESSION_PREPARED)
		return 0;
	failure_clear(&c->f);
	if (there.never_ran)
		return failure_set(&c->f, -EREMOTEIO, "peer-failed", NULL,
				   "The session is %s at the destination: the VM never ran there.",
				   session_state_name(state));
	return failure_set(
		&c->f, -ESRCH, "unresolved",
		"What is here is the guest as it was at the switch-over; its disks may be newer. "
		"`tranship resolve ID --run-here` runs it on from there, `--give-up` ends it.",
		"The VM was lost at the destination before all of its RAM had come: the session "
		"is %s there.",
		session_state_name(state));
}

/* Waits for a while, or until transhipd ends. */
static void rest(struct source *c, int ms)
{
	struct pollfd p = { .fd = c->s->wake_fd, .events = POLLIN };

	if (poll(&p, 1, ms) > 0)
		session_drain_wake(c->s);
}

uint64_t source_postcopy_settle_ms(uint64_t ram_bytes)
{
	return SETTLE_MS + (ram_bytes >> 30) * SETTLE_MS_PER_GIB;
}

/*
 * All was acknowledged: it will say that it has everything; not one that was lost on its way there
 * and whose guest may be waiting: who takes over wakes it, and that needs a connection.
 */
static int await_complete(struct source *c)
{
	uint64_t begin = clock_ns();
	double limit = (double)source_postcopy_settle_ms(c->post.kept.bytes);
	int found = look(c);

	while (!found && !c->post.deserted && clock_ms_since(begin) < limit &&
	       !host_ending(c->s->host)) {
		rest(c, 5);
		found = look(c);
	}
	return found;
}

/* Its limit may be tuned. */
static void on_wish(void *arg, struct dataplane_wait *w)
{
	(void)w;
	source_take_wishes(arg);
}

/* A while with a data plane that serves: as look(); -EAGAIN: it was lost. */
static int attend(struct source *c)
{
	struct dataplane_wait w = { .cancel_fd = c->s->wake_fd,
				    .guest_fd = -1,
				    .deadline_ns = clock_ns() + LOOK_MS * NSEC_PER_MSEC,
				    .late = "",
				    .progress = on_progress,
				    .noticed = on_wish,
				    .notice_fd = c->s->wish_fd,
				    .arg = c,
				    .skip_others = true };
	struct ipc_message m;
	struct failure why = { 0 };
	int err = dataplane_expect(&c->post.dp, IPC_COMPLETE, &m, &w, &why), found;

	if (err == -ECANCELED)
		session_drain_wake(c->s);
	if (err == -ETIMEDOUT || err == -ECANCELED)
		return look(c);
	found = err ? look(c) : await_complete(c);
	if (found)
		return found;
	if (!err)
		failure_set(&why, -EPROTO, "peer-failed", NULL, "%s",
			    c->post.deserted ? "nobody serves at the destination any more"
					     : "the destination does not have everything");
	lost(c, &why);
	return -EAGAIN;
}

/* The first attempt at once, unless one that has just succeeded came to nothing. */
static void await_turn(struct source *c)
{
	struct source_postcopy *p = &c->post;

	if (p->served_ns && clock_ms_since(p->served_ns) >= STEADY_MS)
		p->again_ms = p->attempts = 0;
	p->served_ns = 0;
	if (p->again_ms)
		rest(c, (int)p->again_ms);
	p->again_ms = !p->again_ms		       ? AGAIN_MS
		      : p->again_ms * 2 < AGAIN_MAX_MS ? p->again_ms * 2
						       : AGAIN_MAX_MS;
}

static void connect_again(struct source *c)
{
	struct failure why = { 0 };

	await_turn(c);
	if (source_postcopy_establish(c, &why)) {
		lost(c, &why);
		/* the first, and then at growing distance */
		c->post.attempts++;
		if (!(c->post.attempts & (c->post.attempts - 1)))
			log_info("%.8s: post-copy, attempt %u: %s", c->s->id, c->post.attempts,
				 why.message);
		return;
	}
	c->post.served_ns = clock_ns();
	if (c->post.lost)
		session_event(c->s, "post-copy goes on");
	c->post.lost = false;
	say(c, c->reason);
}

static int finished(struct source *c)
{
	c->post.complete = true;
	c->post.end_ns = clock_ns();
	stop_serving(c);
	session_event(c->s, "post-copy is complete");
	return 0;
}

/* It is tried again all the same. */
static int unreached(struct source *c)
{
	dataplane_stop(&c->post.dp);
	c->unsettled = true;
	failure_clear(&c->f);
	return failure_set(
		&c->f, -EHOSTUNREACH, "unresolved",
		"It is tried again, and goes on when the destination is back. If it never will be: "
		"make sure that the guest cannot run there, then `tranship resolve ID --run-here` "
		"runs it on here as it was at the switch-over; its disks may be newer.",
		"The destination does not answer, and its guest needs pages that are here.");
}

/* A person's decision comes too late, if there is one. */
static void answer_too_late(struct source *c)
{
	struct failure f = { 0 };

	failure_set(&f, -EBUSY, "session-state", NULL,
		    "The destination has answered: the guest runs there and is served again.");
	session_answer(c->s, -EBUSY, &f, NULL);
}

/* It was UNRESOLVED, and its destination has answered. */
static void revive(struct source *c)
{
	session_revive(c->s, SESSION_RUNNING);
	c->post.revived = true;
	failure_clear(&c->f);
	session_event(c->s, "the destination answers again");
	say(c, "connecting again: the guest waits for pages that are still here");
	answer_too_late(c);
}

int source_postcopy_serve(struct source *c)
{
	struct failure ignored = { 0 };

	if (!c->post.on)
		return 0;
	show_served(c);
	if (c->s->state == SESSION_COMMITTED) {
		json_t *ran = source_account_ran(c);

		session_enter(c->s, SESSION_RUNNING, ran, &ignored);
		json_decref(ran);
	}
	guard_stop(&c->guard);
	/* The first data plane stays: undoing its mapping would take processors from this. */
	c->post.heard_ns = clock_ns();
	fault_at("source.serving");
	while (!host_ending(c->s->host)) {
		int found;

		if (c->post.dp.sock < 0) {
			connect_again(c);
			found = c->post.dp.sock < 0 ? look(c) : 0;
		} else {
			found = attend(c);
		}
		if (found == 1)
			return finished(c);
		if (found < 0 && found != -EAGAIN) {
			dataplane_stop(&c->post.dp);
			c->unsettled = true;
			return found;
		}
		if (clock_ms_since(c->post.heard_ns) > UNREACHED_MS)
			return unreached(c);
		if (session_asked(c->s) != ASK_NONE)
			answer_too_late(c);
	}
	c->post.leaving = true;
	source_account_leaving(c);
	return 0;
}

/* One attempt to have the guest run there; as source_peer_commit, which needs its faults served. */
static int commit_once(struct source *c, uint64_t *ran_ns, struct failure *why)
{
	int err;

	if (c->post.dp.sock < 0)
		connect_again(c);
	failure_clear(why);
	err = source_peer_commit(c, COMMIT_MS, ran_ns, why);
	/* nobody serves there, or it is not reached: from the beginning */
	if (err == -EHOSTUNREACH)
		lost(c, why);
	return err;
}

int source_postcopy_commit(struct source *c, uint64_t *ran_ns, struct failure *why)
{
	uint64_t begin = clock_ns();
	int err;

	do {
		err = commit_once(c, ran_ns, why);
		if (!err || err == -EREMOTEIO || err == -EBUSY)
			return err;
		rest(c, AGAIN_MS);
	} while (!host_ending(c->s->host) &&
		 clock_ms_since(begin) < (err == -EINPROGRESS ? COMMIT_MS : UNREACHED_MS));
	return -EHOSTUNREACH;
}

/* RAM, however it can be had; that it is lost is said, and the destination is still asked. */
static int find_ram(struct source *c)
{
	struct failure why = { 0 };
	int err = source_ram_reopen(&c->post.kept, c->pid, c->start_time, &why);

	if (!err)
		return 0;
	failure_clear(&c->f);
	if (err != -ENODATA)
		return failure_set(&c->f, err, "unresolved", "It is tried again.",
				   "The destination's guest needs pages that are here: %s",
				   why.message);
	return failure_set(&c->f, err, "unresolved",
			   "`tranship resolve ID --give-up` ends the VM there too.",
			   "What the destination's guest still needs is lost: %s", why.message);
}

int source_postcopy_go_on(struct source *c)
{
	struct failure why = { 0 };
	bool unresolved = c->s->state == SESSION_UNRESOLVED, known = c->s->state == SESSION_RUNNING;
	int err;

	if (!c->peer)
		return failure_set(&c->f, -EINVAL, "internal", NULL, "no destination is known");
	c->post.lost |= c->post.dp.sock < 0;
	err = look(c);
	if (err == 1)
		return finished(c);
	if (err < 0)
		return err;
	if (unresolved && !c->post.heard)
		return unreached(c);
	if (unresolved)
		c->post.again_ms = 0;
	err = find_ram(c);
	if (err)
		return err;
	if (!known)
		err = commit_once(c, NULL, &why);
	if (!known && err) {
		c->f = why;
		return err;
	}
	if (unresolved)
		revive(c);
	return source_postcopy_serve(c);
}

int source_postcopy_take_back(struct source *c, bool *owed, struct failure *f)
{
	json_t *in = json_pack("{s:s, s:s}", "code", "cancelled", "message",
			       "a person decided that the VM is not the destination's");
	struct failure why = { 0 };
	int err;

	*owed = false;
	if (!c->peer) {
		json_decref(in);
		return 0;
	}
	err = source_peer_call(c, "abort", in, NULL, c->post.heard ? STOP_MS : TELL_MS, &why);
	json_decref(in);
	if (!err || !strcmp(why.code, "session-not-found"))
		return 0;
	*owed = true;
	if (!c->post.heard && err != -EREMOTEIO)
		return 0; /* as the person says */
	return failure_set(f, -EBUSY, "unresolved", why.hint,
			   "The destination answers, and has not stopped its VM: %s", why.message);
}

void source_postcopy_add_stats(const struct source *c, struct ipc_stats *to)
{
	add_stats(to, &c->post.ended);
	add_stats(to, &c->post.stats);
}

json_t *source_postcopy_json(const struct source *c)
{
	const struct session_progress *p = &c->s->progress;
	json_t *there = json_object_get(c->peer_account, "postcopy");
	struct ipc_stats t = { 0 };
	json_t *j, *more;

	if (!c->post.on)
		return NULL;
	source_postcopy_add_stats(c, &t);
	/* before it is complete the destination's last word is what it said when it was asked */
	if (json_is_true(json_object_get(there, "complete")))
		j = json_deep_copy(there);
	else
		j = postcopy_figures_json(&p->faults);
	json_object_set_new(j, "complete", json_boolean(c->post.complete));
	if (!json_object_get(j, "complete_ms"))
		json_object_set_new(j, "complete_ms", json_null());
	more = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "zero_bytes", (json_int_t)t.zero_bytes,
			 "hole_bytes", (json_int_t)t.hole_bytes, "raw_bytes",
			 (json_int_t)t.raw_bytes, "zstd_in_bytes", (json_int_t)t.zstd_in_bytes,
			 "zstd_out_bytes", (json_int_t)t.zstd_out_bytes, "wire_bytes",
			 (json_int_t)t.wire_bytes);
	json_object_update(j, more);
	json_decref(more);
	return j;
}
