// SPDX-License-Identifier: MIT
/* Rings that can send on sockets and do nothing else; see uring.h. */
#include "dataplane/transport/uring.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* liburing 2.3 declares wrappers for these and its shared library does not export them. */
static int ring_register(const struct io_uring *ring, unsigned int op, const void *arg,
			 unsigned int count)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, op, arg, count) < 0 ? -errno : 0;
}

/*
 * With the completions' work left to the thread that waits for them where the kernel can
 * (DEFER_TASKRUN, 6.1): it is then never interrupted for it.
 */
static int new_disabled(struct io_uring *ring, unsigned int entries)
{
	static const unsigned int flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		0,
	};
	int err = 0;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct io_uring_params params = { .flags = IORING_SETUP_R_DISABLED | flags[i] };

		err = io_uring_queue_init_params(entries, ring, &params);
		if (err != -EINVAL)
			break;
	}
	return err;
}

int uring_new_sender(struct io_uring *ring, unsigned int entries, void *buffer, size_t len,
		     bool *registered)
{
	const struct iovec whole = { buffer, len };
	struct io_uring_restriction only[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SENDMSG },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SENDMSG_ZC },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SEND_ZC },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_IO_LINK },
	};
	int err = new_disabled(ring, entries);

	if (err)
		return err;
	*registered = buffer && !ring_register(ring, IORING_REGISTER_BUFFERS, &whole, 1);
	err = ring_register(ring, IORING_REGISTER_RESTRICTIONS, only,
			    sizeof(only) / sizeof(only[0]));
	if (err)
		io_uring_queue_exit(ring);
	return err;
}

int uring_enable(struct io_uring *ring)
{
	return ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}
