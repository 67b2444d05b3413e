/* SPDX-License-Identifier: MIT */
/* Rings that can send on sockets and do nothing else. */
#ifndef TRANSHIP_DATAPLANE_URING_H
#define TRANSHIP_DATAPLANE_URING_H

#include "dataplane/uring_abi.h"

/*
 * A ring restricted by the kernel (IORING_REGISTER_RESTRICTIONS) to SENDMSG and SENDMSG_ZC without
 * flags, and to no registration at all: operations of a ring pass by seccomp, so the ring itself
 * must not be able to open or connect. Released with io_uring_queue_exit. -errno (-EPERM,
 * -ENOSYS: io_uring is disabled on this host).
 */
int uring_new_sender(struct io_uring *ring, unsigned int entries);

#endif
