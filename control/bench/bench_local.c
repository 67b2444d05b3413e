// SPDX-License-Identifier: MIT
/* The other side of a benchmark in this process: two data planes over the loopback. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/bench/bench_lead.h"
#include "lib/base/clock.h"

#define RESULT_MS 15000u

struct bench_local {
	const struct config *config;
	struct bench_options o;
	struct bench_side side;
};

int bench_local_new(struct bench_local **out, const struct config *c)
{
	struct bench_local *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->config = c;
	l->side.dp = DATAPLANE_NONE;
	*out = l;
	return 0;
}

void bench_local_free(struct bench_local *l)
{
	free(l);
}

static int local_open(void *far, const struct bench_opening *opening, struct bench_answer *out,
		      struct failure *f)
{
	struct bench_local *l = far;
	int err;

	*out = (struct bench_answer){ .to.count = 0 };
	l->o = *opening->o;
	err = bench_side_listen(&l->side, l->config, &l->o, opening->id, opening->secret, &out->to,
				f);
	if (err)
		return err;
	snprintf(out->tx, sizeof(out->tx), "%s", bench_tx_name(l->side.ready.tx));
	snprintf(out->tx_reason, sizeof(out->tx_reason), "%s", l->side.ready.tx_reason);
	snprintf(out->rx_reason, sizeof(out->rx_reason), "%s", l->side.ready.rx_reason);
	snprintf(out->congestion, sizeof(out->congestion), "%s", l->side.congestion);
	return 0;
}

static int local_run(void *far, struct failure *f)
{
	struct bench_local *l = far;

	return bench_side_run(&l->side, l->o.sizes[l->side.runs], f);
}

static int local_stop(void *far, struct failure *f)
{
	struct bench_local *l = far;

	return bench_side_stop(&l->side, f);
}

static int local_result(void *far, struct bench_account *out, struct failure *f)
{
	struct bench_local *l = far;
	struct bench_wait w = { .cancel_fd = -1,
				.deadline_ns = clock_ns() + RESULT_MS * NSEC_PER_MSEC };
	int err = bench_side_wait(&l->side, &w, f);

	if (err)
		return err;
	*out = l->side.account;
	l->side.account = (struct bench_account){ .nintervals = 0 };
	return 0;
}

static void local_close(void *far)
{
	struct bench_local *l = far;

	bench_side_end(&l->side);
}

const struct bench_far_ops bench_local_ops = {
	.open = local_open,
	.run = local_run,
	.stop = local_stop,
	.result = local_result,
	.close = local_close,
};
