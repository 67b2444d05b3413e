// SPDX-License-Identifier: MIT
/* A session that only looks at a VM, led by the thread of the API call; see observe.h. */
#include "control/session/observe.h"

#include <errno.h>
#include <sys/epoll.h>

#include "control/guest/guest.h"
#include "control/session/arming.h"
#include "control/session/host_internal.h"
#include "lib/base/cleanup.h"

/*
 * *fd: readable when the session is cancelled or the client has gone. A closed connection is told
 * by EPOLLHUP, which needs not be asked for.
 */
static int watch(struct session *s, int client_fd, int *fd, struct failure *f)
{
	struct epoll_event wake = { .events = EPOLLIN }, gone = { .events = 0 };

	*fd = epoll_create1(EPOLL_CLOEXEC);
	if (*fd < 0 || epoll_ctl(*fd, EPOLL_CTL_ADD, s->wake_fd, &wake) ||
	    (client_fd >= 0 && epoll_ctl(*fd, EPOLL_CTL_ADD, client_fd, &gone)))
		return failure_set(f, -errno, "internal", NULL, "epoll failed: %m");
	return 0;
}

static int observe(struct session *s, int client_fd, observe_fn *fn, json_t **out,
		   struct failure *f)
{
	const char *vm = json_string_value(json_object_get(s->request, "vm"));
	AUTO_CLOSE int stop_fd = -1;
	struct guest *g = NULL;
	int err = watch(s, client_fd, &stop_fd, f);

	if (!err)
		err = session_claim_words(s, vm, f);
	if (!err)
		err = guest_open(&g, vm, f);
	if (!err)
		err = session_claim_vm(s, g, f);
	if (!err)
		err = fn(s, g, stop_fd, out, f);
	if (err == -ECANCELED) {
		failure_clear(f);
		failure_set(f, err, "cancelled", NULL, "The measurement was stopped.");
	}
	guest_free(g);
	return err;
}

int host_observe(struct host *h, const json_t *in, int client_fd, observe_fn *fn, json_t **out,
		 struct failure *f)
{
	char id[SESSION_ID_TEXT];
	struct session *s;
	int err = session_begin(h, SESSION_OBSERVER, in, id, &s, f);

	if (err)
		return err;
	err = observe(s, client_fd, fn, out, f);
	session_finish(s,
		       !err		   ? SESSION_DONE
		       : err == -ECANCELED ? SESSION_CANCELLED
					   : SESSION_FAILED,
		       NULL, NULL, f);
	host_session_put(s);
	return err;
}

void session_observer_recover(struct session *s, const json_t *content)
{
	const json_t *residue = json_object_get(content, "residue");

	if (residue)
		guest_disarm_residue(residue);
	else
		arming_undo(json_object_get(content, "arming"));
	session_finish(s, SESSION_FAILED, NULL, NULL, NULL);
}
