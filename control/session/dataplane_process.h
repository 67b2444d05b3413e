/* SPDX-License-Identifier: MIT */
/*
 * A data-plane process as its session sees it: start, talk over ipc.h, end. Used by one thread.
 */
#ifndef TRANSHIP_CONTROL_DATAPLANE_PROCESS_H
#define TRANSHIP_CONTROL_DATAPLANE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/config.h"
#include "dataplane/ipc.h"
#include "lib/base/failure.h"

struct dataplane {
	pid_t pid; /* 0: not started */
	int sock;
};

/* What may end a wait besides the message that is waited for. All descriptors may be -1. */
struct dataplane_wait {
	int cancel_fd;	      /* readable: -ECANCELED (cancelled) */
	int guest_fd;	      /* pidfd of the VMM; readable: -ESRCH (vm-gone) */
	uint64_t deadline_ns; /* on clock_ns(); 0: none; passed: -ETIMEDOUT */
	const char *late;     /* a sentence: the deadline is not the user's (timeout), but ours */
	/*
	 * How long nothing at all may be done: no byte, no page, no processor time. 0: for ever.
	 * Longer: -ETIMEDOUT (data-lost).
	 */
	unsigned int stall_ms;
	void (*progress)(void *arg, const struct ipc_stats *s); /* for IPC_PROGRESS; may be NULL */
	/*
	 * notice_fd is readable: takes what there is, and may change this wait, dataplane_expect's
	 * copy of it. NULL: notice_fd is not looked at.
	 */
	void (*noticed)(void *arg, struct dataplane_wait *w);
	int notice_fd;
	void *arg;
	bool skip_others; /* messages of other types are passed over, not refused */
};

#define DATAPLANE_NONE ((struct dataplane){ .pid = 0, .sock = -1 })

/* Starts the program as a child that dies with this process. -errno with f. */
int dataplane_start(struct dataplane *d, const struct config *c, struct failure *f);

/* Sends one message; dataplane-died with f if nobody is there. fd stays the caller's. */
int dataplane_send(struct dataplane *d, enum ipc_type type, const void *body, int fd,
		   struct failure *f);

/*
 * Waits for a message of type want. IPC_FAILED becomes its failure (-EREMOTEIO), the end of the
 * process -EPIPE (dataplane-died), any other message -EPROTO unless w->skip_others.
 */
int dataplane_expect(struct dataplane *d, enum ipc_type want, struct ipc_message *m,
		     const struct dataplane_wait *w, struct failure *f);

/*
 * Asks it to quit, and lets it: undoing its mapping of RAM takes 30 ms of processor a GiB, behind
 * what other sessions do. Nothing is heard of it any more; dataplane_stop() waits for it.
 */
void dataplane_dismiss(struct dataplane *d);
/* Asks it to quit, waits a second, kills it, reaps it. Safe when not started. */
void dataplane_stop(struct dataplane *d);
/* The same; true with why if it had failed by itself by then: said so, or ended. */
bool dataplane_stop_hear(struct dataplane *d, struct failure *why);

#endif
