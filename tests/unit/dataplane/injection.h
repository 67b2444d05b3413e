/* SPDX-License-Identifier: MIT */
/*
 * Short transfers and errors where the data plane moves bytes, without touching it: the system
 * calls and the two functions of liburing by which it does so, defined anew. Included by one test
 * program each, which links them in the library's place.
 *
 * A thread is meddled with while its injecting.what is set; every so many calls, drawn from a seed.
 * No path within one machine leaves a zero-copy send uncopied; by_reference makes it look so, which
 * keeps a ring at sending so.
 */
#ifndef TRANSHIP_TESTS_INJECTION_H
#define TRANSHIP_TESTS_INJECTION_H

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "dataplane/transport/uring_abi.h"

enum injection { INJECT_NOTHING, INJECT_SHORT, INJECT_EAGAIN, INJECT_ENOMEM, INJECT_EINTR };

struct injecting {
	enum injection what;
	uint64_t seed, every; /* one call in so many */
	uint64_t done;
	bool by_reference; /* a ring's notifications never say that the kernel copied */
};

static __thread struct injecting injecting;

static inline uint64_t injection_random(void)
{
	injecting.seed = injecting.seed * 6364136223846793005ull + 1442695040888963407ull;
	return injecting.seed >> 33;
}

static inline bool injection_due(void)
{
	if (injecting.what == INJECT_NOTHING || injection_random() % injecting.every)
		return false;
	injecting.done++;
	return true;
}

static inline int injection_errno(void)
{
	return injecting.what == INJECT_EAGAIN	 ? EAGAIN
	       : injecting.what == INJECT_ENOMEM ? ENOMEM
						 : EINTR;
}

/* True: the call fails with errno. Otherwise *len may have become less. */
static inline bool injection_fails(size_t *len)
{
	if (!injection_due())
		return false;
	if (injecting.what == INJECT_SHORT) {
		if (*len > 1)
			*len = 1 + injection_random() % (*len - 1);
		return false;
	}
	errno = injection_errno();
	return true;
}

/* msg with a vector of at most len bytes, in room for its parts. */
static inline struct msghdr injection_cut(const struct msghdr *msg, struct iovec *room, size_t len)
{
	struct msghdr cut = *msg;
	size_t n = 0;

	for (; n < msg->msg_iovlen && len; n++) {
		room[n] = msg->msg_iov[n];
		if (room[n].iov_len > len)
			room[n].iov_len = len;
		len -= room[n].iov_len;
	}
	cut.msg_iov = room;
	cut.msg_iovlen = n;
	return cut;
}

static inline size_t injection_length(const struct msghdr *msg)
{
	size_t len = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		len += msg->msg_iov[i].iov_len;
	return len;
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct iovec room[1024];
	size_t all = injection_length(msg), len = all;
	struct msghdr cut = *msg;

	if (injection_fails(&len))
		return -1;
	if (len < all)
		cut = injection_cut(msg, room, len);
	return syscall(SYS_sendmsg, fd, &cut, flags);
}

ssize_t sendfile(int out, int in, off_t *at, size_t len)
{
	return injection_fails(&len) ? -1 : syscall(SYS_sendfile, out, in, at, len);
}

ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t len, unsigned int flags)
{
	return injection_fails(&len) ? -1 : syscall(SYS_splice, in, in_at, out, out_at, len, flags);
}

/* Receiving blocks: only short or interrupted. */
static inline bool injection_of_receiving(void)
{
	return injecting.what == INJECT_SHORT || injecting.what == INJECT_EINTR;
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	if (injection_of_receiving() && injection_fails(&len))
		return -1;
	return syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL);
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct iovec room[1024];
	size_t all = injection_length(msg), len = all;
	struct msghdr cut = *msg;

	if (injection_of_receiving() && injection_fails(&len))
		return -1;
	if (len < all)
		cut = injection_cut(msg, room, len);
	return syscall(SYS_recvmsg, fd, &cut, flags);
}

/*
 * A ring's operation is spoilt before it is submitted: by a descriptor that is none, whose -EBADF
 * becomes the error wanted before anybody sees the completion; or, the last of its chain, by a
 * shorter vector (one in the middle that fell short without MSG_WAITALL would not break the chain).
 */
static inline void injection_of_ring(struct io_uring *ring)
{
	static __thread struct iovec room[1024];
	static __thread struct msghdr cut;
	unsigned int n = ring->sq.sqe_tail - ring->sq.sqe_head;
	struct io_uring_sqe *sqe;
	size_t len;

	if (!n || !injection_due())
		return;
	if (injecting.what != INJECT_SHORT) {
		unsigned int at = ring->sq.sqe_head + (unsigned int)(injection_random() % n);

		ring->sq.sqes[at & *ring->sq.kring_mask].fd = -1;
		return;
	}
	sqe = &ring->sq.sqes[(ring->sq.sqe_tail - 1) & *ring->sq.kring_mask];
	if (sqe->opcode == IORING_OP_SEND_ZC) {
		sqe->len = 1 + (unsigned int)(injection_random() % sqe->len);
		return;
	}
	len = injection_length((const struct msghdr *)(uintptr_t)sqe->addr);
	cut = injection_cut((const struct msghdr *)(uintptr_t)sqe->addr, room,
			    1 + injection_random() % len);
	sqe->addr = (uintptr_t)&cut;
}

static inline void injection_into_completions(struct io_uring *ring)
{
	unsigned int tail = __atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE);

	for (unsigned int i = *ring->cq.khead; i != tail; i++) {
		struct io_uring_cqe *cqe = &ring->cq.cqes[i & *ring->cq.kring_mask];

		if (cqe->res == -EBADF)
			cqe->res = -injection_errno();
		if (injecting.by_reference && cqe->flags & IORING_CQE_F_NOTIF)
			cqe->res = 0;
	}
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait)
{
	static int (*real)(struct io_uring *, unsigned int);
	int n;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");
	injection_of_ring(ring);
	n = real(ring, wait);
	injection_into_completions(ring);
	return n;
}

int __io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int submit,
		       unsigned int wait, sigset_t *mask)
{
	static int (*real)(struct io_uring *, struct io_uring_cqe **, unsigned int, unsigned int,
			   sigset_t *);
	int err;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "__io_uring_get_cqe");
	err = real(ring, cqe, submit, wait, mask);
	injection_into_completions(ring);
	return err;
}

#endif
