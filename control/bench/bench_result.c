// SPDX-License-Identifier: MIT
/* What a benchmark has measured, as JSON; see bench_result.h. */
#include "control/bench/bench_result.h"

static double per(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

void bench_result_figures(json_t *to, const struct ipc_bench_figures *tx,
			  const struct ipc_bench_figures *rx)
{
	/* bytes a nanosecond are GB a second; nanoseconds a byte are seconds a GB */
	double rate = per(tx->bytes, tx->ns);

	json_object_set_new(to, "seconds", json_real((double)tx->ns / 1e9));
	json_object_set_new(to, "bytes", json_integer((json_int_t)tx->bytes));
	json_object_set_new(to, "wire_bytes", json_integer((json_int_t)tx->wire_bytes));
	json_object_set_new(to, "compress_ratio", json_real(per(tx->wire_bytes, tx->bytes)));
	json_object_set_new(to, "gbytes_per_s", json_real(rate));
	json_object_set_new(to, "gbit_per_s", json_real(rate * 8));
	json_object_set_new(to, "tx_cpu_s_per_gb", json_real(per(tx->cpu_ns, tx->bytes)));
	json_object_set_new(to, "rx_cpu_s_per_gb",
			    rx ? json_real(per(rx->cpu_ns, rx->bytes)) : json_null());
	json_object_set_new(to, "zero_copy_share", json_real(per(tx->zero_copy_bytes, tx->bytes)));
	json_object_set_new(to, "retransmits", json_integer((json_int_t)tx->retransmits));
}

json_t *bench_result_interval(const struct ipc_bench_interval *tx,
			      const struct ipc_bench_interval *rx)
{
	json_t *j = json_pack("{s:f, s:f}", "start_s", (double)tx->start_ns / 1e9, "end_s",
			      (double)tx->end_ns / 1e9);

	bench_result_figures(j, &tx->tx, rx ? &rx->rx : NULL);
	return j;
}

static json_t *latency_json(const struct ipc_bench_latency *l)
{
	return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)l->count, "min",
			 (double)l->min / 1e3, "p50", (double)l->p50 / 1e3, "p99",
			 (double)l->p99 / 1e3, "p99_9", (double)l->p99_9 / 1e3, "max",
			 (double)l->max / 1e3);
}

static json_t *row(const struct bench_options *o, uint64_t size, bool reverse,
		   const struct bench_account *from, const struct bench_account *to)
{
	json_t *intervals = json_array();
	json_t *j =
		json_pack("{s:s, s:s, s:I}", "kind", o->latency ? "latency" : "throughput",
			  "direction", reverse ? "reverse" : "forward", "size", (json_int_t)size);

	bench_result_figures(j, &from->done.tx, &to->done.rx);
	json_object_set_new(j, "latency_us",
			    o->latency ? latency_json(&from->done.latency) : json_null());
	if (o->verify) {
		json_object_set_new(j, "verified_chunks",
				    json_integer((json_int_t)from->done.verified));
		json_object_set_new(j, "mismatched_chunks",
				    json_integer((json_int_t)from->done.mismatches));
	}
	for (uint32_t i = 0; i < from->nintervals; i++)
		json_array_append_new(
			intervals,
			bench_result_interval(&from->intervals[i],
					      i < to->nintervals ? &to->intervals[i] : NULL));
	json_object_set_new(j, "intervals", intervals);
	return j;
}

static void sum(struct ipc_bench_figures *to, const struct ipc_bench_figures *from)
{
	to->bytes += from->bytes;
	to->wire_bytes += from->wire_bytes;
	to->zero_copy_bytes += from->zero_copy_bytes;
	to->cpu_ns += from->cpu_ns;
	to->retransmits += from->retransmits;
}

void bench_result_rows(json_t *rows, struct bench_totals *totals, const struct bench_options *o,
		       uint64_t size, const struct bench_account *near,
		       const struct bench_account *far)
{
	uint64_t ns = 0;

	for (int reverse = 0; reverse <= 1; reverse++) {
		const struct bench_account *from = reverse ? far : near;
		const struct bench_account *to = reverse ? near : far;

		if (!o->bidir && o->reverse != (bool)reverse)
			continue;
		json_array_append_new(rows, row(o, size, reverse, from, to));
		sum(&totals->tx, &from->done.tx);
		sum(&totals->rx, &to->done.rx);
		/* both directions at once take the time of the longer */
		if (from->done.tx.ns > ns)
			ns = from->done.tx.ns;
		totals->rows++;
		totals->latency = from->done.latency;
	}
	totals->tx.ns += ns;
}

void bench_result_totals(json_t *to, const struct bench_totals *totals)
{
	bench_result_figures(to, &totals->tx, &totals->rx);
	/* percentiles of several rows say nothing together */
	json_object_set_new(to, "latency_us",
			    totals->rows == 1 && totals->latency.count
				    ? latency_json(&totals->latency)
				    : json_null());
}
