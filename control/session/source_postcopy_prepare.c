// SPDX-License-Identifier: MIT
/*
 * Post-copy at the source up to the switch-over; see source_postcopy.h, and source_postcopy.c for
 * the theory.
 *
 * Until the pause nothing has been given up: a preparation that fails is withdrawn at both sides,
 * and the migration goes on with rounds, unless post-copy was asked for by name.
 */
#include "control/session/source_postcopy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/session/destination_postcopy.h"
#include "control/session/session_source.h"
#include "control/session/source_peer.h"
#include "dataplane/region.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define WITHDRAW_MS 15000u /* at the destination a VMM's RAM is disarmed */

bool source_postcopy_decided(const struct source *c)
{
	return c->post.on;
}

/* To who asks for it from now on. */
static void say_why_not(struct source *c, const char *why)
{
	SCOPED_LOCK(&c->s->lock);
	snprintf(c->s->no_postcopy, sizeof(c->s->no_postcopy), "%s", why);
}

int source_postcopy_allow(struct source *c, const json_t *answer)
{
	const char *why = NULL;

	if (!json_is_true(json_object_get(answer, "postcopy")))
		why = "the destination's transhipd or VMM cannot";
	else if (c->o.verify)
		why = "--verify compares all RAM in the pause";
	else if (c->o.cold || !c->was_running)
		why = "the VM does not run";
	for (uint32_t i = 0; i < c->g->desc.nregions; i++)
		if (c->g->desc.regions[i].page_size > CHUNK_BYTES)
			why = "its huge pages are too large";
	c->can.postcopy = !why;
	if (why)
		say_why_not(c, why);
	/* what was asked for until then was not known to be impossible */
	source_take_wishes(c);
	if (!why || strcmp(c->o.goals.mode, "postcopy"))
		return 0;
	return failure_set(&c->f, -EOPNOTSUPP, "unsupported-option", "Use --mode precopy.",
			   "This VM cannot be moved by post-copy: %s.", why);
}

/* What finds RAM again after a restart, whatever becomes of the VMM; before the pause. */
static int note_ram(struct source *c)
{
	json_t *fields = json_pack("{s:O}", "postcopy_ram", c->post.kept.note);
	int err = session_enter(c->s, c->s->state, fields, &c->f);

	json_decref(fields);
	return err;
}

static int prepare(struct source *c)
{
	uint64_t begin = clock_ns();
	int err = source_ram_open(&c->post.kept, c->g, &c->f);

	if (!err)
		err = note_ram(c);
	if (!err)
		err = source_postcopy_establish(c, &c->f);
	if (!err)
		session_event(c->s, "post-copy is ready: %u streams, in %.1f ms",
			      postcopy_streams(c->o.streams), clock_ms_since(begin));
	return err;
}

/* Of a preparation that failed nothing is left, here and there, and c->f is clear. */
static int withdraw(struct source *c)
{
	json_t *in = json_pack("{s:b}", "withdraw", 1);
	struct failure why = c->f, later = { 0 };
	int err = source_peer_call(c, "postcopy", in, NULL, WITHDRAW_MS, &later);

	json_decref(in);
	if (err) {
		log_warn("%.8s: withdrawing post-copy: %s", c->s->id, later.message);
		return err;
	}
	session_event(c->s, "post-copy cannot be had, it goes on without: %s (%s)", why.message,
		      why.code);
	failure_clear(&c->f);
	source_ram_release(&c->post.kept);
	c->post.on = c->can.postcopy = false;
	return 0;
}

/* Only who asked for post-copy by its name cannot do without. */
static bool may_withdraw(const struct source *c, int err)
{
	return strcmp(c->o.goals.mode, "postcopy") && err != -ECANCELED &&
	       !session_cancelled(c->s) && guest_alive(c->g);
}

int source_postcopy_prepare(struct source *c)
{
	struct failure why;
	int err;

	if (!c->ndecisions || c->last.action != POLICY_POSTCOPY)
		return 0;
	c->post.on = true;
	err = prepare(c);
	if (!err || err == -ECANCELED)
		return err;
	if (may_withdraw(c, err) && !withdraw(c)) {
		say_why_not(c, "it could not be prepared");
		return source_copy_more(c);
	}
	why = c->f;
	failure_clear(&c->f);
	return failure_set(&c->f, err, strcmp(why.code, "internal") ? why.code : "peer-failed",
			   why.hint[0] ? why.hint : "Use --mode precopy.",
			   "Post-copy could not be prepared: %s", why.message);
}

int source_postcopy_hand_over(struct source *c)
{
	struct ipc_message answer;
	struct dataplane_wait w;
	int err = source_scan(c, IPC_SCAN_BARRIER);

	if (!err)
		err = dataplane_send(&c->dp, IPC_HAND_OVER, NULL, -1, &c->f);
	source_wait_init(c, &w, false);
	if (!err)
		err = dataplane_expect(&c->dp, IPC_HANDED_OVER, &answer, &w, &c->f);
	if (!err)
		session_event(c->s, "%.1f MiB are left for post-copy",
			      (double)answer.body.count.bytes / 256);
	return err;
}
