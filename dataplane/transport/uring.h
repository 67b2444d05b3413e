/* SPDX-License-Identifier: MIT */
/*
 * Rings that can send on sockets and do nothing else.
 *
 * A ring is made in two steps, because a thread that has its completions to itself
 * (IORING_SETUP_DEFER_TASKRUN) must be the one that enables the ring, and in a data plane that
 * thread is made after the sandbox: uring_new_sender() before it, uring_enable() on the thread.
 * Operations of a ring pass by seccomp, so it is restricted by the kernel before it is enabled
 * (IORING_REGISTER_RESTRICTIONS): to SENDMSG, SENDMSG_ZC and SEND_ZC, to links between them, and to
 * no registration at all. In the sandbox only the enabling of a ring is left.
 */
#ifndef TRANSHIP_DATAPLANE_URING_H
#define TRANSHIP_DATAPLANE_URING_H

#include <stdbool.h>
#include <stddef.h>

#include "dataplane/transport/uring_abi.h"

/*
 * A ring that is not enabled. buffer: memory of ours that sends may name as buffer 0 without the
 * kernel looking it up each time, or NULL; *registered says whether it was taken (it is pinned, and
 * may be refused). Released with io_uring_queue_exit. -errno (-EPERM, -ENOSYS: io_uring is disabled
 * on this host).
 */
int uring_new_sender(struct io_uring *ring, unsigned int entries, void *buffer, size_t len,
		     bool *registered);

/* Enables the ring; only the calling thread may use it from now on. -errno. */
int uring_enable(struct io_uring *ring);

#endif
