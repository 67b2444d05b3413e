// SPDX-License-Identifier: MIT
/*
 * Choice of a transmission back end, and what the back ends share; see tx.h.
 *
 * Order of the automatic choice: sendfile, send, uring. Whole chunks from memory that is there, to
 * a receiver that copies them (tranship bench --local), processor seconds of the sender per GB:
 * sendfile 0.06, send 0.18. On a network card the difference is larger, for there nothing reads the
 * page but the card. uring is last because it copies wherever the card cannot do without, as
 * loopback and veth do, and then is send with more system calls.
 */
#include "dataplane/transport/tx.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "dataplane/source/page_reader.h"
#include "dataplane/transport/tx_common.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"

/* Naps of a millisecond until a lack of memory is not a passing one. */
#define NO_MEMORY_TRIES 1000

void tx_iov_advance(struct iovec **iov, unsigned int *count, size_t n)
{
	while (*count && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		++*iov;
		--*count;
	}
	if (n) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

int tx_send_copy(struct tx *t, const struct region *r, uint64_t offset, uint64_t length, int flags)
{
	uint8_t buf[4 * PAGE_BYTES];

	while (length) {
		size_t n = length < sizeof(buf) ? length : sizeof(buf);
		struct iovec iov = { buf, n };
		int err = page_reader_copy(r, offset, buf, n);

		if (!err)
			err = tx_send_iov(t, NULL, &iov, 1, n < length ? flags | MSG_MORE : flags);
		if (err)
			return err;
		offset += n;
		length -= n;
	}
	return 0;
}

int tx_send_faulted(struct tx *t, const struct region *r, struct iovec **iov, unsigned int *count,
		    int flags)
{
	uintptr_t at = (uintptr_t)(*iov)->iov_base, base = r && r->map ? (uintptr_t)r->map : 0;
	bool guest = base && at >= base && at < base + r->size;
	struct iovec front = **iov;

	if (guest) {
		uint64_t left = PAGE_BYTES - (at - base) % PAGE_BYTES;

		if (front.iov_len > left)
			front.iov_len = left;
	} else if (!base || *count == 1) {
		return -EFAULT;
	}
	if (*count > 1 || front.iov_len < (*iov)->iov_len)
		flags |= MSG_MORE;
	tx_iov_advance(iov, count, front.iov_len);
	return guest ? tx_send_copy(t, r, at - base, front.iov_len, flags)
		     : tx_send_iov(t, NULL, &front, 1, flags);
}

int tx_retryable(struct tx *t, int err)
{
	const struct timespec nap = { .tv_nsec = NSEC_PER_MSEC };
	struct pollfd p = { .fd = t->fd, .events = POLLOUT };

	switch (err) {
	case 0:
	case -EINTR:
		return 0;
	case -EAGAIN:
		return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
	case -ENOMEM:
	case -ENOBUFS:
		if (++t->no_memory > NO_MEMORY_TRIES)
			return err;
		nanosleep(&nap, NULL);
		return 0;
	default:
		return err;
	}
}

int tx_send_iov(struct tx *t, const struct region *r, struct iovec *iov, unsigned int count,
		int flags)
{
	while (count) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };
		ssize_t n = sendmsg(t->fd, &msg, MSG_NOSIGNAL | flags);
		int err = 0;

		if (n >= 0) {
			t->counters.wire_bytes += (uint64_t)n;
			t->no_memory = 0;
			tx_iov_advance(&iov, &count, (size_t)n);
		} else if (errno == EFAULT) {
			err = tx_send_faulted(t, r, &iov, &count, flags);
		} else {
			err = tx_retryable(t, -errno);
		}
		if (err)
			return err;
	}
	return 0;
}

int tx_drain_socket(int fd)
{
	const struct timespec nap = { .tv_nsec = 200000 };
	int left;

	while (!ioctl(fd, SIOCOUTQ, &left)) {
		struct pollfd p = { .fd = fd };

		if (!left)
			return 0;
		if (poll(&p, 1, 0) < 0 && errno != EINTR)
			return -errno;
		if (p.revents & (POLLERR | POLLHUP | POLLNVAL))
			return -EPIPE;
		nanosleep(&nap, NULL);
	}
	return -errno;
}

/* Two connected sockets on the loopback of fd's family. */
static int inet_pair(int family, int pair[2])
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} a = { .any.sa_family = (sa_family_t)family };
	socklen_t len = family == AF_INET6 ? sizeof(a.v6) : sizeof(a.v4);
	AUTO_CLOSE int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	AUTO_CLOSE int out = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (family == AF_INET6)
		a.v6.sin6_addr = in6addr_loopback;
	else
		a.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (listener < 0 || out < 0 || bind(listener, &a.any, len) || listen(listener, 1) ||
	    getsockname(listener, &a.any, &len) || connect(out, &a.any, len))
		return -errno;
	pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (pair[1] < 0)
		return -errno;
	pair[0] = fd_take(&out);
	return 0;
}

static int pair_like(int fd, int pair[2])
{
	int family = AF_UNIX;
	socklen_t len = sizeof(family);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len))
		return -errno;
	if ((family == AF_INET || family == AF_INET6) && !inet_pair(family, pair))
		return 0;
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ? -errno : 0;
}

/*
 * Up to 32 KiB of r that may be looked at through the mapping: anywhere in a guarded or ordinary
 * file (sending a hole allocates nothing there), in hugetlb only where there is data.
 */
static bool probe_slice(const struct region *r, struct tx_slice *s)
{
	const uint64_t step = CHUNK_BYTES, tries = 32;
	uint64_t word;

	s->length = r->size < 8 * PAGE_BYTES ? r->size : 8 * PAGE_BYTES;
	s->offset = 0;
	if (!r->hugetlb)
		return true;
	for (uint64_t i = 0; i < tries && i * step < r->size; i++) {
		s->offset = i * step;
		if (!page_reader_copy(r, s->offset, &word, sizeof(word)) && word)
			return true;
	}
	return false;
}

static int probe_region(struct tx *t, int reader, const struct region *r)
{
	static const char head[] = "tranship probe";
	char got[sizeof(head) + 8 * PAGE_BYTES];
	struct tx_slice slice = { 0 };
	uint32_t count = r && probe_slice(r, &slice) ? 1 : 0;
	int err = t->ops->frame(t, head, sizeof(head), r, &slice, count, false);

	if (!err)
		err = io_read_full(reader, got, sizeof(head) + (count ? slice.length : 0));
	/* The guest runs: its bytes are not for comparing. */
	if (!err && memcmp(got, head, sizeof(head)))
		err = -EBADMSG;
	return err ? err : t->ops->drain(t);
}

int tx_probe(const struct tx_ops *ops, int fd, const struct region *regions, uint32_t nregions,
	     char *why, size_t len)
{
	int pair[2] = { -1, -1 }, err = pair_like(fd, pair);
	bool tried[2] = { false, false };
	struct tx *t = NULL;

	if (!err)
		err = ops->new (&t, pair[0], regions, nregions);
	if (!err)
		err = probe_region(t, pair[1], NULL);
	for (uint32_t i = 0; !err && i < nregions; i++) {
		if (tried[regions[i].hugetlb])
			continue;
		tried[regions[i].hugetlb] = true;
		err = probe_region(t, pair[1], &regions[i]);
	}
	if (err)
		snprintf(why, len, "%s: %s", ops->name, strerror(-err));
	else
		snprintf(why, len, "%s works", ops->name);
	if (t)
		ops->free(t);
	fd_close(&pair[0]);
	fd_close(&pair[1]);
	return err;
}

const struct tx_ops *tx_choose(enum ipc_tx wanted, int fd, const struct region *regions,
			       uint32_t nregions, char *why, size_t len)
{
	static const struct tx_ops *const order[] = { &tx_sendfile_ops, &tx_send_ops,
						      &tx_uring_ops };
	char tried[64] = "";

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		if (wanted != IPC_TX_AUTO && order[i]->kind != wanted)
			continue;
		if (!order[i]->probe(fd, regions, nregions, tried, sizeof(tried))) {
			snprintf(why, len, "%s", wanted == IPC_TX_AUTO ? tried : "asked for");
			return order[i];
		}
		snprintf(why, len, "%s", tried);
	}
	return NULL;
}
