// SPDX-License-Identifier: MIT
/*
 * Throttling as a migration uses it; see source_throttle.h and control/guest/throttle.h.
 *
 * The record is made before anything is: a transhipd that is started after a crash undoes it first
 * (session_source_recover), whatever else is open.
 */
#include "control/session/source_throttle.h"

#include <errno.h>

#include "lib/base/cleanup.h"
#include "lib/base/fault.h"

/* In force from now on, for all to see. */
static void note(struct source *c, uint32_t percent)
{
	c->throttle = percent;
	if (percent > c->throttle_max)
		c->throttle_max = percent;
	SCOPED_LOCK(&c->s->lock);
	c->s->progress.throttle_percent = percent;
}

/* It goes on without. */
static void forgo(struct source *c, const struct failure *why)
{
	if (c->o.goals.impact)
		session_event(c->s, "not throttled: %s", why->message);
	source_unthrottle(c);
	throttle_free(c->brake);
	c->brake = NULL;
	c->can.throttle = false;
}

void source_throttle_init(struct source *c)
{
	struct failure why = { 0 };

	c->can.throttle = !c->g->ops->throttle(c->g, c->s->id, &c->brake, &why);
	if (!c->can.throttle)
		forgo(c, &why);
}

static int begin(struct source *c, struct failure *why)
{
	json_t *fields = json_pack("{s:o}", "throttle", throttle_residue(c->brake));
	int err = fields ? session_enter(c->s, c->s->state, fields, why) : -ENOMEM;

	json_decref(fields);
	if (!err)
		err = throttle_begin(c->brake, why);
	c->braked = !err;
	if (!err)
		err = fault_at("source.throttled");
	return err;
}

void source_throttle(struct source *c, uint32_t percent)
{
	struct failure why = { 0 };
	int err = 0;

	if (!c->brake || percent == c->throttle)
		return;
	if (!c->braked)
		err = begin(c, &why);
	if (!err)
		err = throttle_set(c->brake, THROTTLE_SHARE_MAX - percent, &why);
	if (err) {
		forgo(c, &why);
		return;
	}
	session_event(c->s, "throttled: the guest's processors are slowed by %u %%", percent);
	note(c, percent);
}

void source_throttle_lift(struct source *c)
{
	struct failure why = { 0 };

	if (!c->throttle || !c->braked)
		return;
	if (throttle_set(c->brake, THROTTLE_SHARE_MAX, &why))
		forgo(c, &why);
	note(c, 0);
}

void source_unthrottle(struct source *c)
{
	if (c->brake && c->braked)
		throttle_end(c->brake);
	c->braked = false;
	note(c, 0);
}
