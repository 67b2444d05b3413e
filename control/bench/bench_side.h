/* SPDX-License-Identifier: MIT */
/*
 * One side of a benchmark: its sockets and its data plane. The side that leads connects, the other
 * listens. Used by one thread.
 */
#ifndef TRANSHIP_CONTROL_BENCH_SIDE_H
#define TRANSHIP_CONTROL_BENCH_SIDE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/bench/bench_options.h"
#include "control/config.h"
#include "control/session/data_addresses.h"
#include "control/session/dataplane_process.h"

/* What a side says of a run. */
struct bench_account {
	struct ipc_bench_done done;
	struct ipc_bench_interval *intervals; /* owned */
	uint32_t nintervals;
};

struct bench_side {
	const struct bench_options *o;
	struct dataplane dp;
	uint32_t runs; /* begun */
	bool running;
	struct ipc_ready ready;
	char congestion[16]; /* of what it sends */
	struct bench_account account;
};

/* Who wants to know about a wait; all may be absent. */
struct bench_wait {
	int cancel_fd; /* readable, or 100 ms later: cancelled is asked; -1 */
	bool (*cancelled)(void *arg);
	void (*interval)(void *arg, const struct ipc_bench_interval *i);
	void *arg;
	uint64_t deadline_ns; /* clock_ns(); 0: none */
};

/* config's data_addresses and ports; o must outlive the side. -errno with f. */
int bench_side_listen(struct bench_side *s, const struct config *c, const struct bench_options *o,
		      const uint8_t id[IPC_ID_SIZE], const uint8_t secret[IPC_SECRET_SIZE],
		      struct data_addresses *out, struct failure *f);
/* Stream i goes to the i-th address, round about. Returns when all are authenticated. */
int bench_side_connect(struct bench_side *s, const struct config *c, const struct bench_options *o,
		       const uint8_t id[IPC_ID_SIZE], const uint8_t secret[IPC_SECRET_SIZE],
		       const struct data_addresses *to, int cancel_fd, struct failure *f);
/* Begins the next run, of messages of size bytes. */
int bench_side_run(struct bench_side *s, uint64_t size, struct failure *f);
/* What it sends of the run ends early. */
int bench_side_stop(struct bench_side *s, struct failure *f);
/*
 * Waits for the run's end: s->account then has it. -ECANCELED (without f) when w->cancelled says
 * so, to be called again; -errno with f.
 */
int bench_side_wait(struct bench_side *s, const struct bench_wait *w, struct failure *f);
/* One message of its data plane, for who polls himself; *done when it was the run's end. */
int bench_side_message(struct bench_side *s, const struct bench_wait *w, bool *done,
		       struct failure *f);
/* Ends the data plane. Safe when nothing was started. */
void bench_side_end(struct bench_side *s);

void bench_account_clear(struct bench_account *a);
/*
 * Over the API; from: -EPROTO if it is not of the form, or a number is so large that it cannot be
 * added up with others. to_json: new reference.
 */
json_t *bench_account_to_json(const struct bench_account *a);
int bench_account_from_json(struct bench_account *a, const json_t *j);

#endif
