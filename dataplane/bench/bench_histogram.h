/* SPDX-License-Identifier: MIT */
/*
 * Durations counted by size, in fixed memory however many there are: percentiles to within 0.8 %,
 * least and greatest exactly.
 *
 * A bucket covers 1/128 of a power of two (as HdrHistogram); below 256 ns each nanosecond has its
 * own.
 */
#ifndef TRANSHIP_DATAPLANE_BENCH_HISTOGRAM_H
#define TRANSHIP_DATAPLANE_BENCH_HISTOGRAM_H

#include <stdint.h>

#define BENCH_HISTOGRAM_BITS	7
#define BENCH_HISTOGRAM_BUCKETS ((65u - BENCH_HISTOGRAM_BITS) << BENCH_HISTOGRAM_BITS)

struct bench_histogram {
	uint64_t count, min, max;
	uint64_t buckets[BENCH_HISTOGRAM_BUCKETS];
};

void bench_histogram_clear(struct bench_histogram *h);
void bench_histogram_add(struct bench_histogram *h, uint64_t value);
/* to += from. */
void bench_histogram_join(struct bench_histogram *to, const struct bench_histogram *from);

/*
 * The smallest value such that at least per_mille thousandths of all are not above it (the nearest
 * rank), as its bucket's upper end; never above max. 0 if nothing was added.
 */
uint64_t bench_histogram_quantile(const struct bench_histogram *h, unsigned int per_mille);

#endif
