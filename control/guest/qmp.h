/* SPDX-License-Identifier: MIT */
/*
 * Client of QEMU's machine protocol (QMP) over a unix socket: commands with time limits, answers
 * matched by id, events kept in a queue until somebody waits for them, descriptors passed along.
 *
 * Used by one thread at a time. Every call blocks for at most its time limit; there is no sleeping
 * and no asking again, so a command costs one round trip (0.3 ms against an idle QEMU 7.2, TCG).
 */
#ifndef TRANSHIP_CONTROL_QMP_H
#define TRANSHIP_CONTROL_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/failure.h"

#define QMP_MESSAGE_MAX (8u << 20) /* bytes of one message from QEMU; more is an error */
#define QMP_EVENTS_MAX	256	   /* kept unread; the oldest is dropped */

struct qmp;

/*
 * Connects to a socket path, waits greet_ms for the greeting and leaves negotiation mode. QEMU
 * serves one client a monitor: when another holds it, the connection is accepted by the kernel and
 * never greeted.
 * -ETIMEDOUT: qmp-busy. Others: qmp-failed.
 */
int qmp_connect(struct qmp **out, const char *path, unsigned int greet_ms, struct failure *f);
/* The same on a connected stream socket, which is taken also on failure. */
int qmp_new(struct qmp **out, int fd, unsigned int greet_ms, struct failure *f);
/* Closes the connection. NULL is allowed. */
void qmp_free(struct qmp *q);

/* The connection, which stays q's. */
int qmp_fd(const struct qmp *q);
/* QEMU's version as major, minor, micro, from the greeting. */
void qmp_version(const struct qmp *q, int version[3]);
/* The time limit of each following call; 5 s at first. */
void qmp_set_time_limit(struct qmp *q, unsigned int ms);
/* No following call waits beyond this moment of clock_ns(), whatever its own limit; 0: none. */
void qmp_set_deadline(struct qmp *q, uint64_t deadline_ns);

/*
 * One command. args (may be NULL) is taken, also on failure. *ret (ret may be NULL) is a new
 * reference to what "return" held. 0 or
 *   -EREMOTEIO   QEMU refused (qmp-failed); its words are in qmp_error()
 *   -ETIMEDOUT   no answer in time (qmp-failed); a late one will be ignored
 *   -ECONNRESET  QEMU is gone (vm-gone)
 *   -EBADMSG     what came is not QMP (qmp-failed); the connection is of no more use
 */
int qmp_call(struct qmp *q, const char *command, json_t *args, json_t **ret, struct failure *f);
/* As qmp_call, with a descriptor (stays the caller's) for getfd and its like. */
int qmp_call_fd(struct qmp *q, const char *command, json_t *args, int fd, json_t **ret,
		struct failure *f);
/* The description that came with the last refusal; "" if there was none. */
const char *qmp_error(const struct qmp *q);

/* True if the event with this data (an object, or NULL) is the one waited for. */
typedef bool qmp_match_fn(const json_t *data, void *arg);

/*
 * The oldest queued event of that name that match (NULL: any) accepts, or the first to come within
 * timeout_ms. It is removed from the queue; others stay. *data (may be NULL) is a new reference to
 * its data, or NULL. -ETIMEDOUT leaves f alone, since only the caller knows what it means.
 */
int qmp_wait_event(struct qmp *q, const char *name, qmp_match_fn *match, void *arg,
		   unsigned int timeout_ms, json_t **data, struct failure *f);
/* When the event that qmp_wait_event last returned happened, by QEMU's own stamp; clock_ns(). */
uint64_t qmp_event_time(const struct qmp *q);
/* Drops queued events of that name. */
void qmp_forget_events(struct qmp *q, const char *name);

#endif
