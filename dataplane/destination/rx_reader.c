// SPDX-License-Identifier: MIT
/* Reading a data stream; see rx_reader.h. */
#include "dataplane/destination/rx_reader.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

int rx_reader_init(struct rx_reader *r, int fd)
{
	void *p = mmap(NULL, RX_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	memset(r, 0, sizeof(*r));
	r->fd = fd;
	if (p == MAP_FAILED)
		return -ENOMEM;
	r->buffer = p;
	return 0;
}

void rx_reader_release(struct rx_reader *r)
{
	if (r->buffer)
		munmap(r->buffer, RX_BUFFER_SIZE);
	r->buffer = NULL;
}

static void count_bytes(struct rx_reader *r, size_t n)
{
	__atomic_store_n(&r->bytes, r->bytes + n, __ATOMIC_RELAXED);
}

/* At least len bytes into the buffer, behind what is there; there is room. */
static int fill(struct rx_reader *r, size_t len)
{
	size_t room = RX_BUFFER_SIZE - r->end;
	size_t most = len + r->ahead < room ? len + r->ahead : room;

	while (len) {
		/* with nothing to read ahead the kernel may as well wait for all of it */
		ssize_t n = recv(r->fd, r->buffer + r->end, most, most == len ? MSG_WAITALL : 0);

		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		r->end += (size_t)n;
		most -= (size_t)n;
		len -= (size_t)n < len ? (size_t)n : len;
		count_bytes(r, (size_t)n);
	}
	return 0;
}

int rx_take(struct rx_reader *r, size_t len, const uint8_t **data)
{
	assert(len <= RX_BUFFER_SIZE);
	if (rx_buffered(r) < len) {
		int err;

		if (r->begin) {
			memmove(r->buffer, r->buffer + r->begin, rx_buffered(r));
			r->end -= r->begin;
			r->begin = 0;
		}
		err = fill(r, len - rx_buffered(r));
		if (err)
			return err;
	}
	*data = r->buffer + r->begin;
	r->begin += len;
	if (r->begin == r->end)
		r->begin = r->end = 0; /* the bytes stay where *data points */
	return 0;
}

int rx_scatter(struct rx_reader *r, struct iovec *iov, unsigned int count)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };

	assert(!rx_buffered(r));
	while (msg.msg_iovlen) {
		ssize_t n = recvmsg(r->fd, &msg, MSG_WAITALL);

		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		count_bytes(r, (size_t)n);
		while (msg.msg_iovlen && (size_t)n >= msg.msg_iov->iov_len) {
			n -= (ssize_t)msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + n;
			msg.msg_iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

int rx_end(struct rx_reader *r)
{
	uint8_t byte;
	ssize_t n;

	if (rx_buffered(r))
		return -EBADMSG;
	do {
		n = recv(r->fd, &byte, sizeof(byte), 0);
	} while (n < 0 && errno == EINTR);
	/* a reset after the last frame is an end like any other */
	return n > 0 ? -EBADMSG : 0;
}
