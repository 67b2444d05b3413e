/* SPDX-License-Identifier: MIT */
/*
 * What the C benchmarks share: medians, spread, and results for machines. A benchmark prints a
 * table for people; if BENCH_JSON names a file, one JSON object a row is appended to it too.
 */
#ifndef TRANSHIP_BENCH_H
#define TRANSHIP_BENCH_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BENCH_REPEATS_MAX 99

/* The values of one case over all repeats. */
struct bench_values {
	double v[BENCH_REPEATS_MAX];
	int n;
};

static inline void bench_check(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		abort();
	}
}

static inline void bench_add(struct bench_values *b, double value)
{
	if (b->n < BENCH_REPEATS_MAX)
		b->v[b->n++] = value;
}

static inline int bench_by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts; 0 for none. */
static inline double bench_median(struct bench_values *b)
{
	qsort(b->v, (size_t)b->n, sizeof(b->v[0]), bench_by_value);
	return b->n ? b->v[b->n / 2] : 0;
}

/* Appends one line of JSON, given as printf would print it. */
static inline void __attribute__((format(printf, 1, 2))) bench_row(const char *format, ...)
{
	const char *path = getenv("BENCH_JSON");
	FILE *f = path ? fopen(path, "ae") : NULL;
	va_list args;

	if (!f)
		return;
	va_start(args, format);
	vfprintf(f, format, args);
	va_end(args);
	fputc('\n', f);
	fclose(f);
}

#endif
