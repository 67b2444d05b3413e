/* SPDX-License-Identifier: MIT */
/* What a benchmark has measured, as JSON: rows of a sweep, their intervals, and all together. */
#ifndef TRANSHIP_CONTROL_BENCH_RESULT_H
#define TRANSHIP_CONTROL_BENCH_RESULT_H

#include <jansson.h>

#include "control/bench/bench_options.h"
#include "control/bench/bench_side.h"

/* Sums over the rows, for the figures "in all". */
struct bench_totals {
	struct ipc_bench_figures tx, rx;
	uint64_t rows;
	struct ipc_bench_latency latency; /* of the last row */
};

/*
 * Adds the rows of one run, one a direction, to rows and to totals. near is the side that leads.
 * A direction's bytes, time, zero-copy share and retransmissions are its sender's.
 */
void bench_result_rows(json_t *rows, struct bench_totals *totals, const struct bench_options *o,
		       uint64_t size, const struct bench_account *near,
		       const struct bench_account *far);

/*
 * The members that a row, an interval and the whole have in common: seconds, bytes, wire_bytes,
 * compress_ratio, gbytes_per_s, gbit_per_s, tx_cpu_s_per_gb, rx_cpu_s_per_gb, zero_copy_share,
 * retransmits. rx NULL: not known (null).
 */
void bench_result_figures(json_t *to, const struct ipc_bench_figures *tx,
			  const struct ipc_bench_figures *rx);
void bench_result_totals(json_t *to, const struct bench_totals *totals);

/* {"start_s", "end_s", figures}; rx NULL: not known yet. */
json_t *bench_result_interval(const struct ipc_bench_interval *tx,
			      const struct ipc_bench_interval *rx);

#endif
