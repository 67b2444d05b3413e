// SPDX-License-Identifier: MIT
/*
 * Transmission by io_uring: one SENDMSG_ZC a frame, from our mapping by reference.
 *
 * Theory of operation
 *   A frame is one operation over header and slices with MSG_WAITALL, and its completion is
 *   awaited before the next is submitted: two sends of one socket in flight have no order between
 *   them. The notification, which comes when the peer's host has acknowledged the bytes, is not
 *   awaited; until it comes the operation's slot (header, vector) belongs to the kernel. Guest
 *   pages need no keeping: one that changes meanwhile is dirty again.
 *
 *   The kernel reports with the notification whether it copied after all (loopback and veth do).
 *   After COPIED_MAX in a row the stream goes on with SENDMSG, which copies without pinning pages
 *   and without notifications. Frames with little guest memory are always sent so.
 *
 *   Rings are made before the sandbox and restricted to these two operations (uring.h). The ring
 *   is made while the process may lock memory, so pinned pages are not charged to a limit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "dataplane/tx_common.h"
#include "dataplane/uring.h"
#include "lib/base/log.h"

#define SLOTS	      16 /* with whole chunks: 32 MiB not acknowledged, 10 ms at 25 Gbit/s */
#define HEAD_MAX      (WIRE_FRAME_SIZE + WIRE_RUNS_MAX * WIRE_RUN_SIZE)
#define ZERO_COPY_MIN (16u * 1024) /* below, pinning and notifying cost more than a copy */
#define COPIED_MAX    4

struct slot {
	uint8_t head[HEAD_MAX];
	struct iovec iov[TX_IOVS_MAX];
	struct msghdr msg;
	unsigned int notifications; /* still to come */
};

struct tx_uring {
	struct tx base;
	struct io_uring ring;
	bool zero_copy;
	unsigned int copied_in_row;
	unsigned int next;
	struct slot slots[SLOTS];
};

static struct tx_uring *of(struct tx *t)
{
	return (struct tx_uring *)t;
}

static int uring_probe(int fd, const struct region *regions, uint32_t nregions, char *why,
		       size_t len)
{
	return tx_probe(&tx_uring_ops, fd, regions, nregions, why, len);
}

static int uring_new(struct tx **out, int fd, const struct region *regions, uint32_t nregions)
{
	struct tx_uring *t = calloc(1, sizeof(*t));
	int err;

	(void)regions;
	(void)nregions;
	if (!t)
		return -ENOMEM;
	t->base = (struct tx){ .ops = &tx_uring_ops, .fd = fd };
	t->zero_copy = true;
	/* A completion and a notification each, for every slot. */
	err = uring_new_sender(&t->ring, 2 * SLOTS);
	if (err) {
		free(t);
		return err;
	}
	*out = &t->base;
	return 0;
}

static void on_notification(struct tx_uring *t, struct slot *s, const struct io_uring_cqe *cqe)
{
	s->notifications--;
	if (!((uint32_t)cqe->res & IORING_NOTIF_USAGE_ZC_COPIED)) {
		t->copied_in_row = 0;
		return;
	}
	if (++t->copied_in_row == COPIED_MAX && t->zero_copy) {
		t->zero_copy = false;
		log_info("zero-copy sends are being copied on this path: plain sends from now on");
	}
}

/* Takes one completion. True if it is that of the send in flight; *res is then its result. */
static int reap(struct tx_uring *t, bool *done, int *res)
{
	struct io_uring_cqe *cqe;
	struct slot *s;
	int err;

	do {
		err = io_uring_wait_cqe(&t->ring, &cqe);
	} while (err == -EINTR);
	if (err)
		return err;
	s = io_uring_cqe_get_data(cqe);
	if (cqe->flags & IORING_CQE_F_NOTIF) {
		on_notification(t, s, cqe);
		*done = false;
	} else {
		s->notifications += !!(cqe->flags & IORING_CQE_F_MORE);
		*done = true;
		*res = cqe->res;
	}
	io_uring_cqe_seen(&t->ring, cqe);
	return 0;
}

/* Notifications that are already there. */
static int reap_ready(struct tx_uring *t)
{
	struct io_uring_cqe *cqe;
	bool done;
	int res, err = 0;

	while (!err && !io_uring_peek_cqe(&t->ring, &cqe))
		err = reap(t, &done, &res);
	return err;
}

/* One send of the slot's vector; the bytes sent or -errno. */
static int send_once(struct tx_uring *t, struct slot *s, bool zero_copy, int flags)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&t->ring);
	unsigned int send_flags = (unsigned int)flags | MSG_NOSIGNAL | MSG_WAITALL;
	bool done = false;
	int res = 0, err;

	if (!sqe)
		return -EBUSY;
	if (zero_copy) {
		io_uring_prep_sendmsg_zc(sqe, t->base.fd, &s->msg, send_flags);
		sqe->ioprio |= IORING_SEND_ZC_REPORT_USAGE;
	} else {
		io_uring_prep_sendmsg(sqe, t->base.fd, &s->msg, send_flags);
	}
	io_uring_sqe_set_data(sqe, s);
	do {
		err = io_uring_submit_and_wait(&t->ring, 1);
	} while (err == -EINTR);
	if (err < 0)
		return err;
	while (!done) {
		err = reap(t, &done, &res);
		if (err)
			return err;
	}
	return res;
}

static int take_slot(struct tx_uring *t, struct slot **out)
{
	struct slot *s = &t->slots[t->next++ % SLOTS];
	bool done;
	int res, err = reap_ready(t);

	while (!err && s->notifications)
		err = reap(t, &done, &res);
	*out = s;
	return err;
}

static int send_slot(struct tx_uring *t, struct slot *s, const struct region *r, unsigned int count,
		     bool zero_copy, int flags, uint64_t guest)
{
	struct iovec *iov = s->iov;

	while (count) {
		int n;

		s->msg = (struct msghdr){ .msg_iov = iov, .msg_iovlen = count };
		n = send_once(t, s, zero_copy, flags);
		if (n >= 0) {
			t->base.counters.wire_bytes += (uint64_t)n;
			tx_iov_advance(&iov, &count, (size_t)n);
		} else if (n == -EFAULT) {
			int err = tx_send_faulted(&t->base, r, &iov, &count, flags);

			if (err)
				return err;
		} else if (zero_copy && (n == -EOPNOTSUPP || n == -EINVAL)) {
			/* Not on this kind of socket (unix, TLS), or a kernel before 6.2. */
			t->zero_copy = zero_copy = false;
		} else if (zero_copy && n == -ENOMEM) {
			zero_copy = false; /* no room to pin: this one is copied */
		} else if (n != -EINTR && n != -EAGAIN) {
			return n;
		}
	}
	if (zero_copy)
		t->base.counters.zero_copy_bytes += guest;
	else
		t->base.counters.copied_bytes += guest;
	return 0;
}

static int uring_frame(struct tx *base, const void *head, size_t head_len, const struct region *r,
		       const struct tx_slice *slices, uint32_t count, bool more)
{
	struct tx_uring *t = of(base);
	bool zero_copy, own_data = false;
	uint64_t guest = 0;
	struct slot *s;
	int err;

	if (count > TX_SLICES_MAX || (count && head_len > HEAD_MAX))
		return -EINVAL;
	err = take_slot(t, &s);
	if (err)
		return err;
	for (uint32_t i = 0; i < count; i++) {
		s->iov[1 + i] = tx_iov_of_slice(r, &slices[i]);
		guest += slices[i].length;
		own_data |= slices[i].data != NULL;
	}
	/* the kernel would go on reading the caller's buffer after our return */
	zero_copy = t->zero_copy && guest >= ZERO_COPY_MIN && !own_data;
	if (zero_copy)
		head = memcpy(s->head, head, head_len);
	s->iov[0] = (struct iovec){ .iov_base = (void *)head, .iov_len = head_len };
	return send_slot(t, s, r, 1 + count, zero_copy, more ? MSG_MORE : 0, guest);
}

static int uring_drain(struct tx *base)
{
	struct tx_uring *t = of(base);

	for (unsigned int i = 0; i < SLOTS; i++) {
		while (t->slots[i].notifications) {
			bool done;
			int res, err = reap(t, &done, &res);

			if (err)
				return err;
		}
	}
	return 0;
}

/* The kernel drops what it still refers to with the ring; the slots stay until then. */
static void uring_free(struct tx *base)
{
	struct tx_uring *t = of(base);

	io_uring_queue_exit(&t->ring);
	free(t);
}

const struct tx_ops tx_uring_ops = {
	.name = "uring",
	.kind = IPC_TX_URING,
	.probe = uring_probe,
	.new = uring_new,
	.frame = uring_frame,
	.drain = uring_drain,
	.free = uring_free,
};
