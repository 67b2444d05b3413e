/* SPDX-License-Identifier: MIT */
/* Monotonic time in nanoseconds; CLOCK_MONOTONIC is one clock for every process of a host. */
#ifndef TRANSHIP_BASE_CLOCK_H
#define TRANSHIP_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC  1000000000ull
#define NSEC_PER_MSEC 1000000ull

static inline uint64_t clock_of(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_ns(void)
{
	return clock_of(CLOCK_MONOTONIC);
}

/* Processor time of the calling thread. */
static inline uint64_t clock_thread_ns(void)
{
	return clock_of(CLOCK_THREAD_CPUTIME_ID);
}

static inline double clock_ms_since(uint64_t start_ns)
{
	return (double)(clock_ns() - start_ns) / 1e6;
}

#endif
