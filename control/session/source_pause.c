// SPDX-License-Identifier: MIT
/*
 * How long a guest stands still, at most, for a move that does not succeed.
 *
 * Theory of operation
 *   A switch-over is begun when its pause is predicted to keep --max-downtime. What breaks that
 *   afterwards is a destination that hangs, or a link that carries nothing: sockets say so after
 *   8 s, a data plane that shows no sign of life is waited for for 12 s, and a transhipd that has
 *   been asked to load for 20 s. None of that is needed: until COMMITTED the guest may run on here
 *   at any moment. So every wait in the pause ends GRACE_MS after what was promised, and the guest
 *   runs on.
 *
 *   That does not touch who owns the guest. A destination that was asked to load may become
 *   PREPARED later, and then waits: it runs only on COMMIT, which this session will never send. It
 *   is told that the session is over, until it has heard it (owes_abort), also by a transhipd that
 *   was started again.
 *
 *   A grace is needed since the promise is a prediction: a host that is short of processors or a
 *   load that takes longer than thought would else turn a pause that is a little too long into the
 *   same pause for nothing. 3 s are less than what TCP connections and disks' time-outs in a guest
 *   stand (30 s is usual), and some hundred times what a load takes.
 *
 *   This process may hang itself (stopped, or at a disk that does not answer). The guard knows of
 *   the end, and HANG_MS after it makes an end of this process; see there why that is safe.
 *
 *   If nothing was promised (the user asked for the switch-over, whatever pause that means; a guest
 *   that is stopped while it is copied, by --cold), the copy takes what it takes, as long as
 *   something moves, and the limit counts from its end. A guest that its user had stopped is not
 *   kept from anything.
 */
#include "control/session/source_pause.h"

#include <errno.h>

#include "lib/base/clock.h"

#define GRACE_MS 3000u
/* How much later this process is taken for one that hangs itself; see guard_main.c. */
#define HANG_MS	  4000u
#define ASKED_MS  40000u /* a VMM that is asked to stop drains its disks, for 30 s at most */
#define SCANS_MAX 4	 /* times as long as the last one a barrier's scan may take */

/* clock_ns() at which one that begins then has lasted long enough. */
static uint64_t end_of(const struct source *c, uint64_t since_ns)
{
	return since_ns + (c->o.goals.max_downtime_ms + GRACE_MS) * NSEC_PER_MSEC;
}

/* The policy says that what is to be done in this pause keeps the goal. */
static bool is_promised(const struct source *c)
{
	if (source_postcopy_decided(c))
		return true;
	return c->ndecisions && !c->switch_asked &&
	       c->last.predicted_ns <= c->o.goals.max_downtime_ms * NSEC_PER_MSEC;
}

static void set(struct source *c, uint64_t end_ns)
{
	c->pause_end_ns = end_ns;
	if (c->g)
		c->g->save_by_ns = end_ns;
	/* which is there for every pause that stops a guest that ran */
	guard_limit(&c->guard, end_ns ? end_ns + HANG_MS * NSEC_PER_MSEC : 0);
}

void source_pause_asked(struct source *c)
{
	guard_limit(&c->guard, clock_ns() + ASKED_MS * NSEC_PER_MSEC);
}

void source_pause_begins(struct source *c, uint64_t since_ns)
{
	c->pause_since_ns = since_ns;
	set(c, c->ran && is_promised(c) ? end_of(c, since_ns) : 0);
}

void source_pause_barrier(struct source *c)
{
	c->pause_since_ns = clock_ns();
	if (!c->switch_asked)
		set(c, end_of(c, c->pause_since_ns) + SCANS_MAX * c->scanned.scan_ns);
}

void source_pause_copied(struct source *c)
{
	if (c->ran && !c->pause_end_ns)
		set(c, end_of(c, clock_ns()));
}

void source_pause_ends(struct source *c)
{
	set(c, 0);
}

unsigned int source_pause_patience(const struct source *c, unsigned int limit_ms)
{
	uint64_t now = clock_ns(), end = c->pause_end_ns;
	/* rounded up: who has waited so long is past the end */
	uint64_t left = end <= now ? 1 : (end - now) / NSEC_PER_MSEC + 1;

	return !end || left > limit_ms ? limit_ms : (unsigned int)left;
}

int source_pause_ended(struct source *c, int err)
{
	struct failure why = c->f;

	if (err != -ETIMEDOUT || !c->pause_end_ns || clock_ns() < c->pause_end_ns)
		return err;
	failure_clear(&c->f);
	return failure_set(&c->f, err, "pause-limit",
			   "See why the destination did not answer; then move it again.",
			   "The guest was run on here after %.1f s, for its pause became too long: "
			   "%.250s",
			   clock_ms_since(c->pause_since_ns) / 1e3, why.message);
}
