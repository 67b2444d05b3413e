// SPDX-License-Identifier: MIT
/* Rings that can send on sockets and do nothing else; see uring.h. */
#include "dataplane/uring.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* liburing 2.3 declares wrappers for these two and its shared library does not export them. */
static int ring_register(const struct io_uring *ring, unsigned int op, const void *arg,
			 unsigned int count)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, op, arg, count) < 0 ? -errno : 0;
}

int uring_new_sender(struct io_uring *ring, unsigned int entries)
{
	struct io_uring_restriction only[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SENDMSG },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SENDMSG_ZC },
	};
	struct io_uring_params params = { .flags = IORING_SETUP_R_DISABLED };
	int err = io_uring_queue_init_params(entries, ring, &params);

	if (err)
		return err;
	err = ring_register(ring, IORING_REGISTER_RESTRICTIONS, only,
			    sizeof(only) / sizeof(only[0]));
	if (!err)
		err = ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (err) {
		io_uring_queue_exit(ring);
		return err;
	}
	return 0;
}
