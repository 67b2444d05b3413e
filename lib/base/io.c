// SPDX-License-Identifier: MIT
/* Whole reads and writes, descriptors over unix sockets, eventfds; see io.h. */
#include "lib/base/io.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

int io_read_full(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = read(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ECONNRESET;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int io_write_full(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

void io_event_signal(int fd)
{
	uint64_t one = 1;

	/* fails otherwise only when the counter is full, and then it is readable */
	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

int io_event_clear(int fd)
{
	uint64_t count;

	while (read(fd, &count, sizeof(count)) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int io_send_packet(int sock, const void *buf, size_t len, const int *fds, int nfds)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int) * IO_FDS_MAX)];
	} control;
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (nfds > IO_FDS_MAX)
		return -EINVAL;
	if (nfds > 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)nfds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)nfds);
	}
	do {
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static void take_fds(struct msghdr *msg, int fds[IO_FDS_MAX], int *nfds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		int count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (int i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + sizeof(int) * (size_t)i, sizeof(fd));
			if (*nfds < IO_FDS_MAX)
				fds[(*nfds)++] = fd;
			else
				close(fd);
		}
	}
}

int io_recv_packet(int sock, void *buf, size_t *len, int fds[IO_FDS_MAX], int *nfds, int flags)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int) * IO_FDS_MAX)];
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = *len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	bool reset = false;
	ssize_t n;

	*nfds = 0;
	for (;;) {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | flags);
		if (n >= 0 || (errno != EINTR && errno != ECONNRESET) || reset)
			break;
		/*
		 * A peer that closed with unread packets puts ECONNRESET in front of what it had
		 * sent before; once told, its last words can be read.
		 */
		reset = errno == ECONNRESET;
	}
	if (n < 0)
		return -errno;
	take_fds(&msg, fds, nfds);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		while (*nfds > 0)
			close(fds[--*nfds]);
		return -EMSGSIZE;
	}
	if (n == 0) {
		/* an empty packet looks like the end, and is no message of anybody's here */
		while (*nfds > 0)
			close(fds[--*nfds]);
		return -ECONNRESET;
	}
	*len = (size_t)n;
	return 0;
}
