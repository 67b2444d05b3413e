// SPDX-License-Identifier: MIT
/* A working-set curve: points by doublings of time, and straight lines between them. */
#include "control/policy/curve.h"

#include <math.h>

#define FIRST_NS     1000000u /* shorter times share the first place */
#define FORGOTTEN    24u      /* a point is dropped when so many others have come after it */
#define STILL_LINEAR 0.97     /* nothing tells how large the set is */

static unsigned int place_of(uint64_t ns)
{
	unsigned int place = 0;

	while (ns >= 2 * (uint64_t)FIRST_NS && place < CURVE_POINTS - 1) {
		ns /= 2;
		place++;
	}
	return place;
}

void curve_add(struct curve *c, uint64_t ns, uint64_t bytes)
{
	if (!ns)
		return;
	c->added++;
	for (unsigned int i = 0; i < CURVE_POINTS; i++)
		if (c->at[i].ns && c->added - c->at[i].age > FORGOTTEN)
			c->at[i] = (struct curve_point){ 0 };
	c->at[place_of(ns)] = (struct curve_point){ .ns = ns, .bytes = bytes, .age = c->added };
}

double curve_bytes(const struct curve *c, double ns)
{
	double t0 = 0, b0 = 0;
	bool known = false;

	for (unsigned int i = 0; i < CURVE_POINTS; i++) {
		double t1 = (double)c->at[i].ns, b1 = (double)c->at[i].bytes;

		if (!c->at[i].ns)
			continue;
		/* More time, no fewer bytes: a later point that says so is of calmer times. */
		b1 = fmax(b1, b0);
		if (ns <= t1)
			return b0 + (b1 - b0) * (ns - t0) / (t1 - t0);
		t0 = t1;
		b0 = b1;
		known = true;
	}
	return known ? b0 * ns / t0 : 0;
}

double curve_estimate(const struct curve *c, double ns)
{
	double last = 0, half, whole, left;

	for (unsigned int i = 0; i < CURVE_POINTS; i++)
		if (c->at[i].ns)
			last = (double)c->at[i].ns;
	whole = curve_bytes(c, last);
	half = curve_bytes(c, last / 2);
	if (ns <= last || half <= 0)
		return curve_bytes(c, ns);
	/* w (1 - x) and w (1 - x^2) are the halves: x is what is left after one of them */
	left = whole / half - 1;
	if (left >= STILL_LINEAR)
		return curve_bytes(c, ns);
	return half / (1 - left) * (1 - pow(left, ns / (last / 2)));
}

bool curve_spans(const struct curve *c, double factor)
{
	double first = 0, last = 0;

	for (unsigned int i = 0; i < CURVE_POINTS; i++) {
		if (!c->at[i].ns)
			continue;
		if (first <= 0)
			first = (double)c->at[i].ns;
		last = (double)c->at[i].ns;
	}
	return first > 0 && last >= factor * first;
}
