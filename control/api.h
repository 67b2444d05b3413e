/* SPDX-License-Identifier: MIT */
/*
 * The HTTP+JSON API on a unix socket (mode 0600, root's): routes only, no logic; see host.h for
 * what each does and docs/protocol.md for the routes.
 *
 *   GET  /v1/version                        POST /v1/peer/sessions                offer
 *   GET  /v1/vms                            GET  /v1/peer/sessions/ID             status
 *   POST /v1/dirty-rate                     POST /v1/peer/sessions/ID/load
 *   GET  /v1/sessions                       POST /v1/peer/sessions/ID/commit
 *   POST /v1/sessions        migrate        POST /v1/peer/sessions/ID/abort
 *   GET  /v1/sessions/ID?since=N&wait=MS    POST /v1/peer/sessions/ID/finish
 *   POST /v1/bench                          POST /v1/peer/bench                   offer
 *                                           POST /v1/peer/bench/ID/run, stop, result, finish
 *   POST /v1/sessions/ID/cancel
 *   POST /v1/sessions/ID/resolve {"action"}
 *
 * Errors: 400 usage, 404 not found, 409 state or busy, 422 refused by a check, 500 otherwise, with
 * {"error": {"code","message","hint"}}.
 */
#ifndef TRANSHIP_CONTROL_API_H
#define TRANSHIP_CONTROL_API_H

#include "control/session/host.h"

struct api;

/*
 * Binds the socket (a stale one is replaced, one that answers is an error: -EADDRINUSE) and serves
 * until api_free. A thread per connection, at most 64 connections, requests of at most 8 MiB.
 */
int api_new(struct api **out, struct host *h, const char *socket_path, struct failure *f);
void api_free(struct api *a);

#endif
