/* SPDX-License-Identifier: MIT */
/*
 * HTTP+JSON client of a transhipd, used by the CLI (the local daemon) and by sessions (the peer).
 * One connection a struct client; not for several threads at once.
 */
#ifndef TRANSHIP_CONTROL_CLIENT_H
#define TRANSHIP_CONTROL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/base/failure.h"

struct client;

/*
 * dest: unix:/path, or a bare absolute path. Nothing is sent yet. -EINVAL with f (usage) if it is
 * not of a known form; -EOPNOTSUPP (unsupported-option) for forms that are not available yet.
 */
int client_new(struct client **out, const char *dest, struct failure *f);
void client_free(struct client *c);

/*
 * One request; in may be NULL (no body), out may be NULL. timeout_ms covers the whole exchange.
 * An error answer ({"error":{code,message,hint}}) becomes -EREMOTEIO and f as the peer gave it.
 * -ECONNREFUSED, -ENOENT, -ETIMEDOUT ...: `unreachable_code` (daemon-unreachable or
 * peer-unreachable) with f; client_was_sent() tells whether the request may have been carried out.
 */
int client_call(struct client *c, const char *method, const char *path, const json_t *in,
		json_t **out, unsigned int timeout_ms, const char *unreachable_code,
		struct failure *f);
/*
 * While fd (the caller's; -1: none, as at first) is readable, calls end with -ECANCELED and the
 * failure cancelled, within about a second.
 */
void client_set_interrupt(struct client *c, int fd);
/*
 * A failure as another transhipd words it, {code, message, hint}: shortened to fit, without control
 * characters. False, and f as it was, if it is not one.
 */
bool client_read_failure(const json_t *error, struct failure *f);
bool client_was_sent(const struct client *c);

#endif
