// SPDX-License-Identifier: MIT
/*
 * Changing one's mind: new goals for a migration that runs, and its switch-over now.
 *
 * Theory of operation
 *   host_tune and host_switch check what is asked, leave it in the session's visible part and make
 *   wish_fd readable. The session's thread takes it over in source_take_wishes: in the middle of
 *   every wait for its data plane (source_wait_init) and before every decision. The data plane
 *   learns of a new limit at once, in the middle of a round; the policy at its next decision, which
 *   is not far away if it would let the guest leave: then the round is cut (source_copy.c).
 *
 *   What is asked for last counts until source_turns_back has found that nothing is new: from then
 *   on the switch-over goes its way, and everything but the bandwidth is refused.
 *
 *   They are separate from cancel's wake_fd, because most waits end when that becomes readable.
 *   What was asked for before the session knew its own options counts after them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "control/session/host_internal.h"
#include "control/session/session_source.h"
#include "control/session/source_account.h"
#include "control/session/source_throttle.h"
#include "lib/base/cleanup.h"
#include "lib/base/io.h"
#include "lib/base/units.h"

/* --- the API's threads ----------------------------------------------------------------------- */

/* Under lock. */
static void wish(struct session *s)
{
	if (s->wish_fd >= 0)
		io_event_signal(s->wish_fd);
}

/* Under lock. */
static int may_change(const struct session *s, struct failure *f)
{
	if (s->side == SESSION_DESTINATION && !s->terminal)
		return failure_set(f, -EBUSY, "session-state", "Ask at the source.",
				   "Session %.8s is led by the source.", s->id);
	if (s->side != SESSION_SOURCE)
		return failure_set(f, -EBUSY, "session-state", NULL,
				   "Session %.8s is no migration that leaves this host.", s->id);
	if (s->terminal)
		return failure_set(f, -EBUSY, "session-state", NULL,
				   "Session %.8s is %s: nothing about it can be changed any more.",
				   s->id, session_state_name(s->state));
	return 0;
}

/* Under lock. The destination has the guest, or nearly: in post-copy memory still goes there. */
static bool has_switched(const struct session *s)
{
	return s->decided || s->state >= SESSION_COMMITTED;
}

static int only_goals(const json_t *in, struct failure *f)
{
	const char *member;
	const json_t *value;

	if (!json_object_size(in))
		return failure_set(f, -EINVAL, "usage", NULL, "Nothing was given to be changed.");
	json_object_foreach ((json_t *)in, member, value)
		if (!goals_has(member))
			return failure_set(f, -EINVAL, "usage", NULL,
					   "%.40s cannot be changed while a migration runs.",
					   member);
	return 0;
}

/* Under lock: what is too late, or cannot be had. */
static int may_tune(const struct session *s, const json_t *in, struct failure *f)
{
	const char *mode = json_string_value(json_object_get(in, "mode"));
	bool bandwidth_only = json_object_size(in) == 1 && json_object_get(in, "bandwidth");
	int err = may_change(s, f);

	if (err)
		return err;
	if ((has_switched(s) || s->switching) && !bandwidth_only)
		return failure_set(f, -EBUSY, "session-state", NULL,
				   "Session %.8s %s over: only its bandwidth can be changed now.",
				   s->id, has_switched(s) ? "has switched" : "is switching");
	if (mode && !strcmp(mode, "postcopy") && *s->no_postcopy)
		return failure_set(f, -EOPNOTSUPP, "unsupported-option", "Use --mode precopy.",
				   "This VM cannot be moved by post-copy: %s.", s->no_postcopy);
	return 0;
}

/* Under lock: *goals as they will be. */
static int tune(struct session *s, const json_t *in, struct goals *goals, struct failure *f)
{
	int err = may_tune(s, in, f);

	if (err)
		return err;
	*goals = s->goals;
	if (!goals->mode)
		goals_init(goals);
	err = goals_take(goals, s->tuned, f);
	if (!err)
		err = goals_take(goals, in, f);
	if (err)
		return err;
	if (!s->tuned)
		s->tuned = json_object();
	if (json_object_update(s->tuned, (json_t *)in))
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	wish(s);
	return 0;
}

int host_tune(struct host *h, const char *id, const json_t *in, json_t **out, struct failure *f)
{
	struct session *s = host_session_get(h, id, -1, f);
	struct goals goals;
	int err;

	if (!s)
		return -ENOENT;
	err = only_goals(in, f);
	if (!err) {
		SCOPED_LOCK(&s->lock);
		err = tune(s, in, &goals, f);
	}
	if (!err)
		*out = json_pack("{s:s, s:o}", "id", s->id, "goals", goals_json(&goals));
	host_session_put(s);
	return err;
}

int host_switch(struct host *h, const char *id, json_t **out, struct failure *f)
{
	struct session *s = host_session_get(h, id, -1, f);
	int err;

	if (!s)
		return -ENOENT;
	{
		SCOPED_LOCK(&s->lock);
		err = may_change(s, f);
		if (!err && (has_switched(s) || s->switching || s->state >= SESSION_PAUSED))
			err = failure_set(f, -EBUSY, "session-state", NULL,
					  "Session %.8s is switching over already.", s->id);
		s->switch_asked |= !err;
		if (!err)
			wish(s);
	}
	if (!err)
		*out = json_pack("{s:s}", "id", s->id);
	host_session_put(s);
	return err;
}

/* --- the session's thread -------------------------------------------------------------------- */

/* Of both data planes. That one has died is not heard from here, but by whoever waits for it. */
static void set_limit(struct source *c, uint64_t rate)
{
	struct ipc_limit m = { .rate_limit = rate };
	struct failure ignored = { 0 };

	if (c->dp.sock >= 0)
		dataplane_send(&c->dp, IPC_LIMIT, &m, -1, &ignored);
	if (c->post.dp.sock >= 0)
		dataplane_send(&c->post.dp, IPC_LIMIT, &m, -1, &ignored);
}

static void tell(struct source *c, const struct goals *old, const struct goals *new)
{
	char was[32], is[32];

	if (new->bandwidth != old->bandwidth)
		session_event(
			c->s, "tuned: bandwidth %s, was %s",
			new->bandwidth ? units_format_rate((double)new->bandwidth, is, sizeof(is))
				       : "unlimited",
			old->bandwidth ? units_format_rate((double)old->bandwidth, was, sizeof(was))
				       : "unlimited");
	if (new->max_downtime_ms != old->max_downtime_ms)
		session_event(c->s, "tuned: max-downtime %" PRIu64 " ms, was %" PRIu64 " ms",
			      new->max_downtime_ms, old->max_downtime_ms);
	if (new->timeout_ms != old->timeout_ms)
		session_event(c->s, "tuned: timeout %" PRIu64 " ms, was %" PRIu64 " ms (0: none)",
			      new->timeout_ms, old->timeout_ms);
	if (new->impact != old->impact)
		session_event(c->s, "tuned: impact %u %%, was %u %%", new->impact, old->impact);
	if (strcmp(new->mode, old->mode))
		session_event(c->s, "tuned: mode %s, was %s", new->mode, old->mode);
}

void source_take_wishes(struct source *c)
{
	const struct goals old = c->o.goals;
	struct session *s = c->s;
	struct failure ignored = { 0 };
	bool switch_asked;
	json_t *tuned;

	/* if nothing is new, the goals are still written down for all to see */
	io_event_clear(s->wish_fd);
	{
		SCOPED_LOCK(&s->lock);
		tuned = s->tuned;
		s->tuned = NULL;
		switch_asked = s->switch_asked;
		goals_take(&c->o.goals, tuned, &ignored); /* was tried when it was asked for */
		s->goals = c->o.goals;
	}
	tell(c, &old, &c->o.goals);
	if (c->o.goals.bandwidth != old.bandwidth)
		set_limit(c, c->o.goals.bandwidth);
	if (tuned)
		source_account_goals(c);
	json_decref(tuned);
	/* More than is allowed is ended now; less than could be is the policy's to use. */
	if (c->throttle > c->o.goals.impact)
		source_throttle(c, c->o.goals.impact);
	if (switch_asked && !c->switch_asked)
		session_event(s, "a switch-over was asked for by the user");
	c->switch_asked = switch_asked;
}

bool source_turns_back(struct source *c)
{
	const struct goals *now = &c->o.goals, *then = &c->decided_by;
	struct session *s = c->s;

	for (;;) {
		source_take_wishes(c);
		SCOPED_LOCK(&s->lock);
		if (s->tuned)
			continue;
		/* a guest that does not run is moved without any decision */
		if (c->ndecisions && (strcmp(now->mode, then->mode) ||
				      now->max_downtime_ms != then->max_downtime_ms))
			return true;
		s->switching = true;
		return false;
	}
}
