/* SPDX-License-Identifier: MIT */
/*
 * The handshake that opens a data stream: both sides prove that they know the session's secret.
 *
 *   source -> destination  HELLO     version, session, stream, nonce_s
 *   destination -> source  CHALLENGE nonce_d,
 *                                    HMAC(secret, "tranship v1 destination" | hello | nonce_d)
 *   source -> destination  PROOF     HMAC(secret, "tranship v1 source" | hello | nonce_d)
 *   destination -> source  READY
 *
 * HMAC is HMAC-SHA256. Nonces keep an observed handshake from being replayed. A destination reads
 * no more than these fixed sizes from a stream that has not proved itself.
 */
#ifndef TRANSHIP_DATAPLANE_STREAM_AUTH_H
#define TRANSHIP_DATAPLANE_STREAM_AUTH_H

#include <stdint.h>

#include "dataplane/ipc.h"
#include "lib/base/failure.h"

/* fd: blocking or not; deadline on clock_ns(). 0, -ETIMEDOUT, -EACCES (data-auth), -errno. */
int stream_auth_source(int fd, const struct ipc_config *c, uint32_t stream, uint64_t deadline_ns,
		       struct failure *f);
/* *stream: the index it claims, proved and below c->streams; whether it is free is the caller's. */
int stream_auth_destination(int fd, const struct ipc_config *c, uint32_t *stream,
			    uint64_t deadline_ns, struct failure *f);

#endif
