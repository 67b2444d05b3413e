/* SPDX-License-Identifier: MIT */
/* Slowing the guest's processors down during a migration, and ending it; source_throttle.c. */
#ifndef TRANSHIP_CONTROL_SOURCE_THROTTLE_H
#define TRANSHIP_CONTROL_SOURCE_THROTTLE_H

#include "control/session/session_source.h"

/*
 * Finds out whether the guest can be throttled (c->can.throttle) and changes nothing. If it cannot
 * and --impact would allow it, an event says why.
 */
void source_throttle_init(struct source *c);

/*
 * From now on the guest's processors are slowed by percent (0 .. 99), c->throttle. The first time
 * the journal learns what is made. Not being able to is no failure of the migration: then
 * c->can.throttle is false, c->throttle 0 and the guest at full speed, and an event says why.
 */
void source_throttle(struct source *c, uint32_t percent);

/*
 * Full speed at once, by a write or two: before the guest is paused, for a processor that waits for
 * its quota stops late. The groups stay until source_unthrottle().
 */
void source_throttle_lift(struct source *c);

/* Everything as it was. Idempotent; on every way out, before the session is finished. */
void source_unthrottle(struct source *c);

#endif
