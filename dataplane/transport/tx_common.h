/* SPDX-License-Identifier: MIT */
/* What the transmission back ends share. Internal to them. */
#ifndef TRANSHIP_DATAPLANE_TX_COMMON_H
#define TRANSHIP_DATAPLANE_TX_COMMON_H

#include <stdbool.h>
#include <sys/uio.h>

#include "dataplane/transport/tx.h"
#include "dataplane/transport/wire.h"

#define TX_SLICES_MAX WIRE_RUNS_MAX
/* Header and slices of one frame, gathered; below the kernel's limit of 1024. */
#define TX_IOVS_MAX (1 + TX_SLICES_MAX)

/* The slice's own data, or what our mapping has. */
static inline struct iovec tx_iov_of_slice(const struct region *r, const struct tx_slice *s)
{
	return (struct iovec){ .iov_base = s->data ? (void *)s->data : r->map + s->offset,
			       .iov_len = s->length };
}

/* Drops n sent bytes from the front of the vector *iov of *count. */
void tx_iov_advance(struct iovec **iov, unsigned int *count, size_t n);

/*
 * Sends all of the vector by sendmsg, which copies; the vector is used up. Guest pages that turn
 * out to have been punched meanwhile (EFAULT through a guarded mapping) are sent as the zeros that
 * they now are. Counts wire_bytes. r may be NULL if no part is guest memory.
 */
int tx_send_iov(struct tx *t, const struct region *r, struct iovec *iov, unsigned int count,
		int flags);

/*
 * What a send that failed with err (-errno; 0: fell short) calls for: 0, to try again, after
 * waiting for room in a full socket (-EAGAIN), or a little while the kernel has no memory (-ENOMEM,
 * -ENOBUFS), which is given up after a second; or the error that it is. Who sends something sets
 * no_memory to 0.
 */
int tx_retryable(struct tx *t, int err);

/* As tx_send_iov for a range of r, through pread: for what cannot be sent from the mapping. */
int tx_send_copy(struct tx *t, const struct region *r, uint64_t offset, uint64_t length, int flags);

/*
 * -EFAULT came for some part of the vector (TCP copies several at once, and a fault in any of them
 * fails all when nothing was taken before): sends the first part alone, of guest memory its first
 * page by tx_send_copy, and advances. -EFAULT if there is no guest memory in the vector.
 */
int tx_send_faulted(struct tx *t, const struct region *r, struct iovec **iov, unsigned int *count,
		    int flags);

/*
 * Tries ops on a private pair of sockets of fd's family: a frame with a header and some memory of
 * each kind of region must arrive whole. Loopback may be down in this network namespace; a unix
 * pair is used then.
 */
int tx_probe(const struct tx_ops *ops, int fd, const struct region *regions, uint32_t nregions,
	     char *why, size_t len);

/* Waits until the peer's host has acknowledged every byte of the socket. */
int tx_drain_socket(int fd);

#endif
