// SPDX-License-Identifier: MIT
/*
 * Pre-copy policy.
 *
 * Theory of operation
 *   Each round moves what the scan before it found, while the guest dirties more; with a dirty rate
 *   d below the transfer rate r the pending set shrinks by d/r a round. The pause can begin as soon
 *   as pending/r + overhead <= max_downtime. But rounds are cheap and the pause is not: while a
 *   further round still makes the pause markedly shorter, another round is run; a pending set that
 *   moves in less than WORTHLESS_NS is not worth one.
 *
 *   When the set has stopped shrinking, the first scan that fits the limit is taken (its minima are
 *   used: the set fluctuates). If none fits and it has not shrunk by PROGRESS for STALLED_ROUNDS
 *   rounds, pre-copy alone cannot keep what was asked, and it says so rather than go on for ever or
 *   break the limit.
 */
#include "control/session/policy.h"

#include <stdbool.h>
#include <stdio.h>

#define WORTHLESS_NS   4000000u /* 4 ms: less than half of what stop, state and load take */
#define SHRINK_FACTOR  0.75	/* another round must promise at least this much */
#define ROUNDS_ENOUGH  30u	/* fits, and this many rounds were tried: go */
#define STALLED_ROUNDS 12u	/* without progress and without fitting */
#define PROGRESS       0.8	/* of the smallest set so far, within STALLED_ROUNDS: 2 % a round */

void policy_note(struct policy_history *h, uint64_t pending_bytes)
{
	if (!h->best_pending || (double)pending_bytes < PROGRESS * (double)h->best_pending) {
		h->best_pending = pending_bytes;
		h->rounds_since_best = 0;
	} else {
		h->rounds_since_best++;
	}
}

static uint64_t transfer_ns(uint64_t bytes, double rate)
{
	return rate > 0 ? (uint64_t)((double)bytes / rate * 1e9) : UINT64_MAX / 4;
}

static struct policy_decision decide(enum policy_action action, uint64_t predicted,
				     const char *reason)
{
	struct policy_decision d = { .action = action, .predicted_ns = predicted };

	snprintf(d.reason, sizeof(d.reason), "%s", reason);
	return d;
}

struct policy_decision policy_decide(const struct policy_input *in)
{
	uint64_t copy_ns = transfer_ns(in->pending_bytes, in->rate);
	uint64_t predicted = copy_ns + in->overhead_ns;
	bool fits = predicted <= in->max_downtime_ns;
	double ratio = in->rate > 0 ? in->dirty_rate / in->rate : 0;

	if (!in->round || (in->rate <= 0 && in->pending_bytes))
		return decide(POLICY_ROUND, predicted, "nothing has been measured yet");
	if (!in->pending_bytes)
		return decide(POLICY_SWITCH_OVER, predicted, "nothing is left to send");
	if (fits && copy_ns <= WORTHLESS_NS)
		return decide(POLICY_SWITCH_OVER, predicted, "what is left moves in milliseconds");
	if (fits && in->round >= ROUNDS_ENOUGH)
		return decide(POLICY_SWITCH_OVER, predicted, "enough rounds, and it fits");
	if (fits && in->history.best_pending &&
	    (double)in->pending_bytes > SHRINK_FACTOR * (double)in->history.best_pending &&
	    ratio > 0.1)
		return decide(POLICY_SWITCH_OVER, predicted, "further rounds gain little");
	if (!fits && in->history.rounds_since_best >= STALLED_ROUNDS)
		return decide(POLICY_GIVE_UP, predicted, "the set to send has stopped shrinking");
	return decide(POLICY_ROUND, predicted,
		      fits ? "another round shortens the pause" : "the pause would be too long");
}
