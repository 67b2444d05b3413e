/* SPDX-License-Identifier: MIT */
/* What only looks at a VM: one call of the API, in its own thread; for dirty-rate and predict. */
#ifndef TRANSHIP_CONTROL_OBSERVE_H
#define TRANSHIP_CONTROL_OBSERVE_H

#include "control/session/host.h"
#include "control/session/session.h"

/*
 * The work itself. The session claims the VM; stop_fd readable: it is to end (-ECANCELED).
 * *out: the answer. -errno with f.
 */
typedef int observe_fn(struct session *s, struct guest *g, int stop_fd, json_t **out,
		       struct failure *f);

/*
 * Opens the request's "vm", claims it by a session of this request, and does fn. client_fd (-1:
 * none): when its other end is closed, nobody waits any more and fn is to end. -errno with f.
 */
int host_observe(struct host *h, const json_t *in, int client_fd, observe_fn *fn, json_t **out,
		 struct failure *f);

#endif
