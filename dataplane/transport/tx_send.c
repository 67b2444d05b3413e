// SPDX-License-Identifier: MIT
/* Transmission by sendmsg from our mapping: the kernel copies. Works everywhere. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "dataplane/transport/tx_common.h"

static int send_probe(int fd, const struct region *regions, uint32_t nregions, char *why,
		      size_t len)
{
	return tx_probe(&tx_send_ops, fd, regions, nregions, why, len);
}

static int send_new(struct tx **out, int fd, const struct region *regions, uint32_t nregions)
{
	struct tx *t = calloc(1, sizeof(*t));

	(void)regions;
	(void)nregions;
	if (!t)
		return -ENOMEM;
	*t = (struct tx){ .ops = &tx_send_ops, .fd = fd };
	*out = t;
	return 0;
}

static int send_frame(struct tx *t, const void *head, size_t head_len, const struct region *r,
		      const struct tx_slice *slices, uint32_t count, bool more)
{
	struct iovec iov[TX_IOVS_MAX];
	uint64_t guest = 0;
	int err;

	if (count > TX_SLICES_MAX)
		return -EINVAL;
	iov[0] = (struct iovec){ .iov_base = (void *)head, .iov_len = head_len };
	for (uint32_t i = 0; i < count; i++) {
		iov[1 + i] = tx_iov_of_slice(r, &slices[i]);
		guest += slices[i].length;
	}
	err = tx_send_iov(t, r, iov, 1 + count, more ? MSG_MORE : 0);
	if (!err)
		t->counters.copied_bytes += guest;
	return err;
}

static int send_drain(struct tx *t)
{
	(void)t;
	return 0; /* what was accepted was copied */
}

static void send_free(struct tx *t)
{
	free(t);
}

const struct tx_ops tx_send_ops = {
	.name = "send",
	.kind = IPC_TX_SEND,
	.probe = send_probe,
	.new = send_new,
	.frame = send_frame,
	.drain = send_drain,
	.free = send_free,
};
