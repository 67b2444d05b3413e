// SPDX-License-Identifier: MIT
/* Durations counted by size; see bench_histogram.h. */
#include "dataplane/bench/bench_histogram.h"

#include <string.h>

#define BITS BENCH_HISTOGRAM_BITS

static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	if (value < 2u << BITS)
		return (unsigned int)value;
	shift = 63u - (unsigned int)__builtin_clzll(value) - BITS;
	return (shift << BITS) + (unsigned int)(value >> shift);
}

/* The greatest value of the bucket. */
static uint64_t upper_end(unsigned int bucket)
{
	unsigned int shift;

	if (bucket < 2u << BITS)
		return bucket;
	shift = (bucket >> BITS) - 1;
	return (((uint64_t)(bucket - (shift << BITS)) + 1) << shift) - 1;
}

void bench_histogram_clear(struct bench_histogram *h)
{
	memset(h, 0, sizeof(*h));
}

void bench_histogram_add(struct bench_histogram *h, uint64_t value)
{
	if (!h->count || value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
	h->count++;
	h->buckets[bucket_of(value)]++;
}

void bench_histogram_join(struct bench_histogram *to, const struct bench_histogram *from)
{
	if (!from->count)
		return;
	if (!to->count || from->min < to->min)
		to->min = from->min;
	if (from->max > to->max)
		to->max = from->max;
	to->count += from->count;
	for (unsigned int i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
}

uint64_t bench_histogram_quantile(const struct bench_histogram *h, unsigned int per_mille)
{
	uint64_t rank = h->count / 1000 * per_mille + (h->count % 1000 * per_mille + 999) / 1000;
	uint64_t seen = 0;

	if (!rank)
		return h->min;
	for (unsigned int i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= rank)
			return upper_end(i) < h->max ? upper_end(i) : h->max;
	}
	return h->max;
}
