// SPDX-License-Identifier: MIT
/*
 * Transmission by io_uring: guest pages from our mapping by reference, frames in a pipeline.
 *
 * Theory of operation
 *   A frame takes a slot, which holds its header and its vector, and is one operation with
 *   MSG_WAITALL. Slots go round: [oldest, submitted) are the kernel's, [submitted, next) wait.
 *
 *   Order. Two sends of one socket in flight have no order between them, so at most one chain is
 *   in flight: whatever waits is submitted together as linked operations when the chain before has
 *   completed. An operation that fails or falls short (MSG_WAITALL) breaks its chain; the rest of
 *   it comes back as cancelled, waits again, and goes after what was left of the broken one. While
 *   the socket has room a frame is sent within its own io_uring_enter; when it has none, the
 *   caller prepares the next frames meanwhile, up to SLOTS of them, and they leave together.
 *
 *   Ownership. A zero-copy operation refers to its memory until its notification, which comes when
 *   the peer's host has acknowledged the bytes; the slot is not used again before. Guest pages
 *   need no keeping: one that changes meanwhile is dirty again. Slices with data of their own are
 *   copied into the slot's part of the registered buffer if they fit and are then sent from there
 *   without the kernel looking pages up (SEND_ZC, fixed buffer); else they are sent copied, and
 *   frame() waits until that was done, as it does for a last frame (`more` false).
 *
 *   Copied after all. The kernel says so with the notification (loopback and veth always do: their
 *   receiver must not keep the sender's pages). After COPIED_MAX in a row the stream goes on with
 *   SENDMSG, which copies without pinning and without notifications; every PROBE_EVERY large frames
 *   one is tried again, for paths change. Bytes count as zero-copy only by their notification.
 *   Frames with little memory are always copied.
 *
 *   Rings are made before the sandbox, restricted, and enabled by the stream's thread (uring.h).
 *   The ring is made while the process may lock memory, so pinned pages are not charged to a limit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "dataplane/transport/tx_common.h"
#include "dataplane/transport/uring.h"
#include "lib/base/log.h"

#define SLOTS	      16 /* with whole chunks: 32 MiB not acknowledged, 10 ms at 25 Gbit/s */
#define HEAD_MAX      (WIRE_FRAME_SIZE + WIRE_RUNS_MAX * WIRE_RUN_SIZE)
#define OWN_MAX	      (64u * 1024) /* of slices' own data in a slot; 1.1 MiB a stream in all */
#define SLOT_BUFFER   (HEAD_MAX + OWN_MAX)
#define ZERO_COPY_MIN (16u * 1024) /* below, pinning and notifying cost more than a copy */
#define COPIED_MAX    4
#define PROBE_EVERY   1024 /* 2 GiB of whole chunks */

struct slot {
	uint8_t *buffer; /* SLOT_BUFFER bytes */
	struct iovec iov[TX_IOVS_MAX];
	struct msghdr msg;
	const struct region *region;
	struct iovec *at; /* what is left to send: count parts from here */
	unsigned int count;
	uint64_t slices; /* bytes of them */
	int flags;	 /* MSG_MORE */
	bool zero_copy;	 /* sent so; fixed: from the registered buffer */
	bool fixed;
	bool copied;		/* a notification said so, or some of it failed to go */
	unsigned int attempt;	/* of the operations of this slot, counted on for ever */
	uint64_t notifications; /* still to come: a bit an attempt, modulo 64 */
};

struct tx_uring {
	struct tx base;
	struct io_uring ring;
	bool enabled;
	uint8_t *buffer; /* all slots' */
	bool registered;
	bool zero_copy;
	unsigned int copied_in_row, plain_in_row;
	uint64_t notified, notified_copied;
	unsigned int oldest, submitted, next; /* modulo SLOTS; see above */
	unsigned int outstanding;	      /* completions of the chain in flight still to come */
	bool broken;			      /* the rest of it comes back cancelled */
	int broken_by;			      /* 0: fell short */
	struct slot slots[SLOTS];
};

static struct tx_uring *of(struct tx *t)
{
	return (struct tx_uring *)t;
}

static struct slot *slot(struct tx_uring *t, unsigned int i)
{
	return &t->slots[i % SLOTS];
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
	t->buffer = mmap(NULL, (size_t)SLOTS * SLOT_BUFFER, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->buffer == MAP_FAILED) {
		free(t);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < SLOTS; i++)
		t->slots[i].buffer = t->buffer + (size_t)i * SLOT_BUFFER;
	/* A completion and a notification each, for every slot. */
	err = uring_new_sender(&t->ring, 2 * SLOTS, t->buffer, (size_t)SLOTS * SLOT_BUFFER,
			       &t->registered);
	if (err) {
		munmap(t->buffer, (size_t)SLOTS * SLOT_BUFFER);
		free(t);
		return err;
	}
	*out = &t->base;
	return 0;
}

/* All of the slot has left and nothing refers to it. */
static void count_slices(struct tx_uring *t, struct slot *s)
{
	if (s->count || s->notifications)
		return;
	if (s->zero_copy && !s->copied)
		t->base.counters.zero_copy_bytes += s->slices;
	else
		t->base.counters.copied_bytes += s->slices;
	s->slices = 0;
}

/* user_data: the slot's index, and which of its operations it was. */
static struct slot *slot_of(struct tx_uring *t, const struct io_uring_cqe *cqe, uint64_t *attempt)
{
	*attempt = 1ull << (cqe->user_data / SLOTS % 64);
	return &t->slots[cqe->user_data % SLOTS];
}

static void on_notification(struct tx_uring *t, const struct io_uring_cqe *cqe)
{
	uint64_t attempt;
	struct slot *s = slot_of(t, cqe, &attempt);

	/* An operation that was cancelled with its chain may give one that it had not announced. */
	if (!(s->notifications & attempt))
		return;
	s->notifications &= ~attempt;
	t->notified++;
	if ((uint32_t)cqe->res & IORING_NOTIF_USAGE_ZC_COPIED) {
		t->notified_copied++;
		s->copied = true;
		if (++t->copied_in_row == COPIED_MAX && t->zero_copy) {
			t->zero_copy = false;
			log_info("zero-copy sends are being copied on this path: plain sends from "
				 "now on");
		}
	} else if (!s->copied) { /* what failed was not copied either, and proves nothing */
		if (!t->zero_copy)
			log_info("zero-copy sends work on this path now");
		t->zero_copy = true;
		t->copied_in_row = 0;
	}
	count_slices(t, s);
}

static void prepare(struct tx_uring *t, struct slot *s)
{
	unsigned int flags = (unsigned int)s->flags | MSG_NOSIGNAL | MSG_WAITALL;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&t->ring); /* entries > SLOTS */

	if (s->notifications >> ((s->attempt + 1) % 64) & 1)
		s->zero_copy = false; /* 64 of one frame under way: it goes on copied */
	s->msg = (struct msghdr){ .msg_iov = s->at, .msg_iovlen = s->count };
	if (s->zero_copy && s->fixed) {
		io_uring_prep_send_zc(sqe, t->base.fd, s->at->iov_base, s->at->iov_len, (int)flags,
				      0);
		sqe->ioprio |= IORING_RECVSEND_FIXED_BUF | IORING_SEND_ZC_REPORT_USAGE;
	} else if (s->zero_copy) {
		io_uring_prep_sendmsg_zc(sqe, t->base.fd, &s->msg, flags);
		sqe->ioprio |= IORING_SEND_ZC_REPORT_USAGE;
	} else {
		io_uring_prep_sendmsg(sqe, t->base.fd, &s->msg, flags);
	}
	sqe->user_data = ++s->attempt % 64 * SLOTS + (uint64_t)(s - t->slots);
	if (t->submitted + 1 != t->next)
		sqe->flags |= IOSQE_IO_LINK;
	t->submitted++;
}

/* The oldest slot has left; its memory may still be referred to. */
static void retire(struct tx_uring *t, struct slot *s)
{
	count_slices(t, s);
	t->oldest++;
}

/* The chain has come back, broken: what broke it is treated, and the rest waits to go again. */
static int mend(struct tx_uring *t)
{
	struct slot *s = slot(t, t->oldest);
	int by = t->broken_by, err = 0;

	t->broken = false;
	if (by == -EFAULT) {
		err = tx_send_faulted(&t->base, s->region, &s->at, &s->count, s->flags);
	} else if (s->zero_copy && (by == -EOPNOTSUPP || by == -EINVAL)) {
		/* Not on this kind of socket (unix, TLS), or a kernel before 6.2. */
		t->zero_copy = s->zero_copy = false;
	} else if (s->zero_copy && by == -ENOMEM) {
		s->zero_copy = false; /* no room to pin: this one is copied */
	} else {
		err = tx_retryable(&t->base, by);
	}
	if (!err && !s->count)
		retire(t, s);
	t->submitted = t->oldest;
	return err;
}

static int on_completion(struct tx_uring *t, const struct io_uring_cqe *cqe)
{
	uint64_t attempt;
	struct slot *s = slot_of(t, cqe, &attempt);

	if (cqe->flags & IORING_CQE_F_MORE)
		s->notifications |= attempt;
	t->outstanding--;
	/* What was cancelled may report before what broke the chain. */
	if (cqe->res != -ECANCELED) {
		if (t->broken || s != slot(t, t->oldest))
			return -EIO; /* sent out of order: the stream is of no use any more */
		if (cqe->res >= 0) {
			t->base.counters.wire_bytes += (uint64_t)cqe->res;
			t->base.no_memory = 0;
			tx_iov_advance(&s->at, &s->count, (size_t)cqe->res);
		}
		s->copied |= cqe->res <= 0;
		t->broken = s->count;
		t->broken_by = cqe->res < 0 ? cqe->res : 0;
		if (!t->broken)
			retire(t, s);
	}
	return t->broken && !t->outstanding ? mend(t) : 0;
}

/* Takes all completions that are there. */
static int reap(struct tx_uring *t)
{
	struct io_uring_cqe *cqe;
	int err = 0;

	while (!err && !io_uring_peek_cqe(&t->ring, &cqe)) {
		if (cqe->flags & IORING_CQE_F_NOTIF)
			on_notification(t, cqe);
		else
			err = on_completion(t, cqe);
		io_uring_cqe_seen(&t->ring, cqe);
	}
	return err;
}

/* Submits what waits if nothing is in flight, awaits so many completions, and takes them. */
static int turn(struct tx_uring *t, unsigned int wait)
{
	int n;

	if (!t->outstanding && t->submitted != t->next) {
		t->outstanding = t->next - t->submitted;
		while (t->submitted != t->next)
			prepare(t, slot(t, t->submitted));
	} else if (!wait) {
		return reap(t);
	}
	n = io_uring_submit_and_wait(&t->ring, wait);
	if (n < 0 && n != -EINTR && n != -EAGAIN && n != -EBUSY)
		return n;
	return reap(t);
}

/* Until everything has been accepted by the socket. */
static int flush(struct tx_uring *t)
{
	int err = 0;

	while (!err && t->oldest != t->next)
		err = turn(t, 1);
	return err;
}

/* The next slot, once it is free. */
static int take_slot(struct tx_uring *t, struct slot **out)
{
	struct slot *s = slot(t, t->next);
	int err = 0;

	if (!t->enabled) {
		err = uring_enable(&t->ring);
		t->enabled = !err;
	}
	if (!err)
		err = turn(t, 0);
	while (!err && (t->next - t->oldest == SLOTS || s->notifications))
		err = turn(t, 1);
	*out = s;
	return err;
}

/* Whether a frame with so many bytes in slices goes without a copy. */
static bool by_reference(struct tx_uring *t, uint64_t slices)
{
	if (slices < ZERO_COPY_MIN)
		return false;
	if (t->zero_copy)
		return true;
	if (++t->plain_in_row < PROBE_EVERY)
		return false;
	t->plain_in_row = 0;
	return true;
}

static uint8_t *append(uint8_t *to, const void *from, size_t len)
{
	return (uint8_t *)memcpy(to, from, len) + len;
}

/* Header and slices, all of them with data of their own, into the slot's registered memory. */
static void fill_fixed(struct slot *s, const void *head, size_t head_len,
		       const struct tx_slice *slices, uint32_t count)
{
	uint8_t *end = append(s->buffer, head, head_len);

	for (uint32_t i = 0; i < count; i++)
		end = append(end, slices[i].data, slices[i].length);
	s->iov[0] = (struct iovec){ s->buffer, (size_t)(end - s->buffer) };
	s->count = 1;
	s->fixed = true;
}

static void fill(struct slot *s, const void *head, size_t head_len, const struct region *r,
		 const struct tx_slice *slices, uint32_t count)
{
	s->iov[0] = (struct iovec){ (void *)head, head_len };
	for (uint32_t i = 0; i < count; i++)
		s->iov[1 + i] = tx_iov_of_slice(r, &slices[i]);
	s->count = 1 + count;
	s->fixed = false;
}

static int uring_frame(struct tx *base, const void *head, size_t head_len, const struct region *r,
		       const struct tx_slice *slices, uint32_t count, bool more)
{
	struct tx_uring *t = of(base);
	uint32_t own = 0; /* slices with data of their own */
	uint64_t bytes = 0;
	struct slot *s;
	int err;

	if (count > TX_SLICES_MAX || (count && head_len > HEAD_MAX))
		return -EINVAL;
	err = take_slot(t, &s);
	if (err)
		return err;
	for (uint32_t i = 0; i < count; i++) {
		own += slices[i].data != NULL;
		bytes += slices[i].length;
	}
	/* the kernel would go on reading the caller's memory after our return */
	s->zero_copy = !(own && (own < count || bytes > OWN_MAX || !t->registered)) &&
		       by_reference(t, bytes);
	if (s->zero_copy && own) {
		fill_fixed(s, head, head_len, slices, count);
		own = 0;
	} else {
		if (head_len <= HEAD_MAX)
			head = memcpy(s->buffer, head, head_len);
		fill(s, head, head_len, r, slices, count);
	}
	s->at = s->iov;
	s->region = r;
	s->slices = bytes;
	s->flags = more ? MSG_MORE : 0;
	s->copied = false;
	t->next++;
	if (!more || own || head_len > HEAD_MAX)
		return flush(t);
	return turn(t, 0);
}

static int uring_drain(struct tx *base)
{
	struct tx_uring *t = of(base);
	int err = flush(t);

	for (unsigned int i = 0; i < SLOTS; i++)
		while (!err && t->slots[i].notifications)
			err = turn(t, 1);
	return err;
}

/* The kernel drops what it still refers to with the ring; the slots stay until then. */
static void uring_free(struct tx *base)
{
	struct tx_uring *t = of(base);

	if (t->notified)
		log_debug("%llu of %llu zero-copy sends were copied",
			  (unsigned long long)t->notified_copied, (unsigned long long)t->notified);
	io_uring_queue_exit(&t->ring);
	munmap(t->buffer, (size_t)SLOTS * SLOT_BUFFER);
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
