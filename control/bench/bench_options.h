/* SPDX-License-Identifier: MIT */
/*
 * What a transport benchmark is to do, as the command line and the API give it: the members of
 * docs/protocol.md, "A bench". Read by both sides, of which the second believes nothing.
 */
#ifndef TRANSHIP_CONTROL_BENCH_OPTIONS_H
#define TRANSHIP_CONTROL_BENCH_OPTIONS_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/session/compression.h"
#include "control/session/options.h"
#include "dataplane/ipc.h"
#include "lib/base/failure.h"

#define BENCH_SIZES_MAX	    16
#define BENCH_INTERVALS_MAX 10000

struct bench_cpus {
	uint32_t count;
	uint16_t cpu[IPC_CPUS_MAX];
};

struct bench_options {
	uint32_t streams; /* of a direction */
	bool reverse, bidir, latency, reuse, verify;
	enum ipc_tx tx;
	enum ipc_bench_place place;
	bool fresh;
	struct compression compress; /* kind and level */
	enum ipc_bench_data data;
	char file[PATH_MAX];
	uint64_t sizes[BENCH_SIZES_MAX]; /* bytes; 0: a header alone */
	uint32_t nsizes;
	uint64_t time_ms, omit_ms, interval_ms; /* 0: none */
	uint64_t bytes, bandwidth;		/* 0: no limit; bandwidth in bytes per second */
	uint64_t memory;			/* bytes on each side */
	int tos;				/* -1: as it is */
	char congestion[16];			/* "": as a migration */
	struct bench_cpus near, far;		/* of the side that leads, and of the other */
};

/* The members and their types. */
extern const struct option_rule bench_option_rules[];

/*
 * j: an object, checked by these. -EINVAL (usage), -EOPNOTSUPP (unsupported-option,
 * encryption-unavailable) with f.
 */
int bench_options_read(struct bench_options *o, const json_t *j, struct failure *f);

/* Streams of both directions, and those that carry data from the side that connects. */
uint32_t bench_options_streams(const struct bench_options *o);
uint32_t bench_options_forward(const struct bench_options *o);

/* Each -EINVAL if the text is not of the form; used for the command line too. */
int bench_parse_sizes(const char *text, uint64_t sizes[BENCH_SIZES_MAX], uint32_t *count);
/* "0,2-3"; or with both: "0,2-3/1", of which the second half is the other side's. */
int bench_parse_cpus(const char *text, struct bench_cpus *near, struct bench_cpus *far);
/* 0 .. 255 (the whole byte, also 0x..), or a DSCP by name: cs0 .. cs7, af11 .. af43, ef, le. */
int bench_parse_tos(const char *text, int *tos);

const char *bench_data_name(enum ipc_bench_data data);
const char *bench_tx_name(uint32_t tx);
/* As --compress has it; into buf. */
const char *bench_compress_name(const struct bench_options *o, char buf[16]);

#endif
