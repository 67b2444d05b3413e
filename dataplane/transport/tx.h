/* SPDX-License-Identifier: MIT */
/*
 * Transmission of guest pages behind one interface: one struct tx per stream, used by that
 * stream's thread only.
 *
 * The caller hands over one frame at a time: header bytes it prepared, and slices of a RAM region.
 * A back end may send slices by reference (sendfile: the page cache pages themselves) or copied;
 * either is safe here because a page that the guest writes meanwhile is dirty again and goes again.
 * Slices that carry data of their own (snapshots, compressed pages) have been copied when frame
 * returns, so that the buffer can be used again at once.
 */
#ifndef TRANSHIP_DATAPLANE_TX_H
#define TRANSHIP_DATAPLANE_TX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataplane/ipc.h"
#include "dataplane/region.h"

struct tx;

struct tx_slice {
	uint64_t offset; /* bytes in the region */
	uint64_t length;
	const void *data; /* NULL; or the bytes to send instead of the region's, always copied */
};

struct tx_counters {
	uint64_t wire_bytes;	  /* accepted by the socket */
	uint64_t zero_copy_bytes; /* of them, by reference */
	uint64_t copied_bytes;	  /* of slices, copied into the socket */
};

struct tx_ops {
	const char *name;
	enum ipc_tx kind;
	/* 0 if this back end works for these regions on a socket like fd (tried for real). */
	int (*probe)(int fd, const struct region *regions, uint32_t nregions, char *why,
		     size_t len);
	/* fd stays the caller's and must outlive the tx. -errno. */
	int (*new)(struct tx **out, int fd, const struct region *regions, uint32_t nregions);
	/*
	 * Sends head (head_len bytes, copied before return) and then count slices of r. more:
	 * further frames follow at once, so a partly filled segment may be held back, or a few
	 * frames as a whole; without it, returns when the socket has accepted everything so far.
	 * -errno, which may be an earlier frame's; -EPIPE or -ECONNRESET: the peer is gone.
	 */
	int (*frame)(struct tx *t, const void *head, size_t head_len, const struct region *r,
		     const struct tx_slice *slices, uint32_t count, bool more);
	/* Returns when nothing sent refers to guest pages or buffers of ours any longer. -errno. */
	int (*drain)(struct tx *t);
	void (*free)(struct tx *t);
};

/* Embedded first in each back end's own struct. */
struct tx {
	const struct tx_ops *ops;
	int fd;
	struct tx_counters counters;
	unsigned int no_memory; /* times in a row that the kernel had none to send with */
};

extern const struct tx_ops tx_sendfile_ops, tx_uring_ops, tx_send_ops;

/*
 * The back end for `wanted` (IPC_TX_AUTO: the first that probes well, in the order of
 * docs/architecture.md), with the reason in why. NULL, with the reason, if a forced one does not
 * work here.
 */
const struct tx_ops *tx_choose(enum ipc_tx wanted, int fd, const struct region *regions,
			       uint32_t nregions, char *why, size_t len);

#endif
