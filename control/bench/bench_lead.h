/* SPDX-License-Identifier: MIT */
/*
 * Leading a benchmark: its rows, one after another, on this side and on the other, and what they
 * come to. The other side is behind an interface: a data plane of this process (--local), or
 * another transhipd.
 */
#ifndef TRANSHIP_CONTROL_BENCH_LEAD_H
#define TRANSHIP_CONTROL_BENCH_LEAD_H

#include <jansson.h>
#include <stdbool.h>

#include "control/bench/bench_options.h"
#include "control/bench/bench_result.h"
#include "control/bench/bench_side.h"
#include "control/config.h"

/* One opening of the other side: its streams carry the rows sizes[0 .. nsizes). */
struct bench_opening {
	const struct bench_options *o;
	const json_t *options; /* as o was read from, with these sizes alone */
	uint8_t id[IPC_ID_SIZE], secret[IPC_SECRET_SIZE];
};

/* What the other side says to that. */
struct bench_answer {
	struct data_addresses to;
	char tx[16], tx_reason[96], rx_reason[96]; /* if it sends, if it receives */
	char congestion[16];
};

/* -EPROTO if it is not of the form. Texts become plain ones. */
int bench_answer_from_json(struct bench_answer *a, const json_t *j);

/* All return 0 or -errno with f. */
struct bench_far_ops {
	int (*open)(void *far, const struct bench_opening *o, struct bench_answer *out,
		    struct failure *f);
	/* The next row begins; does not wait. */
	int (*run)(void *far, struct failure *f);
	/* What it sends of the row ends early. */
	int (*stop)(void *far, struct failure *f);
	/* The row has ended here: waits until it has there. */
	int (*result)(void *far, struct bench_account *out, struct failure *f);
	/* After the streams have ended. Also after a failed open. */
	void (*close)(void *far);
};

struct bench_lead {
	const struct config *config;
	const json_t *options; /* what was asked for */
	const char *dest;      /* for the result */
	const struct bench_far_ops *far_ops;
	void *far;
	int cancel_fd; /* readable: cancelled is asked at once; -1: every 100 ms */
	bool (*cancelled)(void *arg);
	/* What is known so far, after each row and interval; borrowed. May be NULL. */
	void (*news)(void *arg, const json_t *result);
	void *arg;
};

/*
 * Runs all rows. *result: always the object of docs/protocol.md, "A bench" (new reference), with
 * what was measured until a failure. -ECANCELED with f (cancelled), -errno with f.
 */
int bench_lead(struct bench_lead *lead, json_t **result, struct failure *f);

/* The object of a benchmark that did not begin. f NULL: without an error. */
json_t *bench_result_empty(const char *dest, const char *status, const struct failure *f);

/* completed, refused, failed or cancelled: what a failure (NULL: none) makes of a benchmark. */
const char *bench_status(const struct failure *f);

/* bench_local.c: the other side in this process, for struct bench_lead. */
struct bench_local;
int bench_local_new(struct bench_local **out, const struct config *c);
void bench_local_free(struct bench_local *l);
extern const struct bench_far_ops bench_local_ops;

#endif
