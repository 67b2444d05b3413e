// SPDX-License-Identifier: MIT
/*
 * Orders of visiting pages; see synthetic_pattern.h.
 *
 * Zipf by rejection-inversion (Hörmann and Derflinger, "Rejection-inversion to generate variates
 * from monotone discrete distributions", ACM TOMACS 6.3, 1996): no table, a few logarithms a draw.
 * Ranks are scattered over the pages by a hash, so that hot pages do not lie side by side; that two
 * ranks may share a page changes nothing that matters here.
 */
#include "tools/synthetic_pattern.h"

#include <math.h>

#include "tools/synthetic_pages.h"

#define E SYNTHETIC_ZIPF_EXPONENT

/* The integral of x^-E, and its inverse; exact for x near 0 too. */
static double zipf_integral(double x)
{
	double l = log(x), t = (1 - E) * l;

	return (fabs(t) > 1e-8 ? expm1(t) / t : 1 + t / 2) * l;
}

static double zipf_integral_inverse(double x)
{
	double t = x * (1 - E);

	if (t < -1)
		t = -1;
	return exp((fabs(t) > 1e-8 ? log1p(t) / t : 1 - t / 2) * x);
}

static double zipf_h(double x)
{
	return exp(-E * log(x));
}

static uint64_t next_random(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return synthetic_mix(*state);
}

static uint64_t zipf_rank(struct synthetic_walk *w)
{
	for (;;) {
		double unit = (double)(next_random(&w->state) >> 11) * 0x1p-53;
		double u = w->zipf.h_n + unit * (w->zipf.h_x1 - w->zipf.h_n);
		double x = zipf_integral_inverse(u), k = floor(x + 0.5);

		if (k < 1)
			k = 1;
		if (k > (double)w->pages)
			k = (double)w->pages;
		if (k - x <= w->zipf.s || u >= zipf_integral(k + 0.5) - zipf_h(k))
			return (uint64_t)k - 1;
	}
}

void synthetic_walk_init(struct synthetic_walk *w, enum synthetic_pattern pattern, uint64_t pages,
			 uint64_t seed)
{
	w->pattern = pattern;
	w->pages = pages;
	w->state = pattern == SYNTHETIC_SEQ ? 0 : seed;
	w->zipf.h_x1 = zipf_integral(1.5) - 1;
	w->zipf.h_n = zipf_integral((double)pages + 0.5);
	w->zipf.s = 2 - zipf_integral_inverse(zipf_integral(2.5) - zipf_h(2));
}

/* x scaled to 0 .. n-1 without a division. */
static uint64_t scale(uint64_t x, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)x * n) >> 64);
}

uint64_t synthetic_walk_next(struct synthetic_walk *w)
{
	switch (w->pattern) {
	case SYNTHETIC_RAND:
		return scale(next_random(&w->state), w->pages);
	case SYNTHETIC_ZIPF:
		return scale(synthetic_mix(zipf_rank(w)), w->pages);
	default:
		w->state = w->state < w->pages ? w->state : 0;
		return w->state++;
	}
}
