/* SPDX-License-Identifier: MIT */
/*
 * A working-set curve: how many different bytes of memory a guest writes in a time t.
 *
 * It is what convergence depends on, more than the rate of writing: a round of length t leaves
 * curve(t) to be sent again, however often each page was written. It begins at 0, rises, and is
 * concave: pages written before count once. Known at some times only, from scans or from a
 * measurement.
 */
#ifndef TRANSHIP_CONTROL_POLICY_CURVE_H
#define TRANSHIP_CONTROL_POLICY_CURVE_H

#include <stdbool.h>
#include <stdint.h>

/* One point for each doubling of time, from 1 ms on. */
#define CURVE_POINTS 32

struct curve_point {
	uint64_t ns;	/* 0: none */
	uint64_t bytes; /* different bytes written in that time */
	uint64_t age;	/* curve.added when it came */
};

/* All zero: nothing is known. */
struct curve {
	struct curve_point at[CURVE_POINTS];
	uint64_t added;
};

/*
 * Adds a point, in place of an earlier one of about the same time. Points that many others came
 * after are forgotten: a guest changes its habits. A time of 0 is ignored.
 */
void curve_add(struct curve *c, uint64_t ns, uint64_t bytes);

/*
 * Bytes written in ns. Between points on the straight line, which is at most what a concave curve
 * has there; before the first on the line from 0, likewise; after the last on the line from 0
 * through it, which is at least what it has. 0 if nothing is known.
 */
double curve_bytes(const struct curve *c, double ns);

/*
 * The same, but after the last point on: as if each page of the set were written as often as any
 * other, so that from t to 2t as large a part of what is left is written as was from t/2 to t. An
 * estimate, where the line from 0 is a bound.
 */
double curve_estimate(const struct curve *c, double ns);

/* True if two points are known that lie at least a factor apart in time. */
bool curve_spans(const struct curve *c, double factor);

#endif
