/* SPDX-License-Identifier: MIT */
/* Where data streams reach a host: its addresses, a listener on each, and both in JSON. */
#ifndef TRANSHIP_CONTROL_DATA_ADDRESSES_H
#define TRANSHIP_CONTROL_DATA_ADDRESSES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/config.h"
#include "dataplane/ipc.h"
#include "lib/base/failure.h"

/* Stream i goes to the i-th, round about. */
struct data_addresses {
	uint32_t count;
	char address[IPC_LISTENERS_MAX][64];
	uint16_t port[IPC_LISTENERS_MAX];
};

/*
 * Listens on each of the host's addresses, a port of its range each. all: one that cannot be had is
 * a failure; else that none can. fds gets out->count descriptors, the caller's also on failure, and
 * -1 behind them. -errno with f.
 */
int data_addresses_listen(const struct config *c, bool all, struct data_addresses *out,
			  int fds[IPC_LISTENERS_MAX], struct failure *f);

/* [{"address","port"}], new reference. from: 1 to IPC_LISTENERS_MAX of them, else -EPROTO. */
json_t *data_addresses_json(const struct data_addresses *a);
int data_addresses_from_json(struct data_addresses *a, const json_t *list);
/*
 * Of an answer's object: "addresses", or, of a peer that has or knows only one, "address" and
 * "port". -EPROTO.
 */
int data_addresses_from_answer(struct data_addresses *a, const json_t *data);
/* The addresses alone, for a result. New reference. */
json_t *data_addresses_names(const struct data_addresses *a);

#endif
