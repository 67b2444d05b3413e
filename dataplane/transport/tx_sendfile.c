// SPDX-License-Identifier: MIT
/*
 * Transmission by reference: the RAM file's page-cache pages go to the socket themselves.
 *
 * Theory of operation
 *   Headers, and slices with data of their own, are gathered into one sendmsg, which copies; the
 *   guest memory that follows goes by reference, if there is enough of it in one go: single pages
 *   with gaps between them as well as whole chunks. The socket is corked from the first frame that
 *   says `more` to the next that does not, so that headers and payloads leave in full segments.
 *
 *   By reference is through a pipe: vmsplice takes the pages out of our mapping, wherever in it
 *   they are, splice gives them to the socket. sendfile is the same with a pipe of 16 pages inside
 *   the kernel and a look-up in the page cache for each page; it remains for hosts that grant no
 *   larger pipe, except for hugetlbfs, which has no sendfile (EINVAL). Loopback, 512 MiB,
 *   processor seconds of the sender per GB, medians of 5: pipe of 256 pages 0.05, of 64 0.07, of 16
 *   0.10, sendfile 0.10, splice from the file through 256 pages 0.07, send 0.17.
 *
 *   A page that was punched since it was looked at is not there to be taken (EFAULT, see
 *   page_reader.h): it is copied, as the zeros that it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/transport/tx_common.h"
#include "lib/base/cleanup.h"
#include "lib/base/log.h"

/*
 * Less than this in one go is copied, for each call costs more than it saves: with a call for every
 * slice of 64 KiB the sender took 0.17 processor seconds per GB by reference and 0.18 by copy.
 * Where one call takes as many slices as a pipe has room for, their length hardly matters: of 4 KiB
 * 0.12 and 0.19, 8 KiB 0.09 and 0.20, 64 KiB 0.06 and 0.15, 2 MiB 0.05 and 0.13 (bench/tx,
 * loopback, medians of 5).
 */
#define BY_REFERENCE_MIN (64u * 1024)

/* As large as an unprivileged pipe can be: 256 pages a call. */
#define PIPE_BYTES (1u << 20)
/* A smaller one is no better than sendfile's own. */
#define PIPE_BYTES_MIN (128 << 10)

struct tx_sendfile {
	struct tx base;
	int pipe[2];
	bool piped; /* the pipe is large enough to be worth it */
	bool corked;
};

static struct tx_sendfile *of(struct tx *t)
{
	return (struct tx_sendfile *)t;
}

static int sendfile_probe(int fd, const struct region *regions, uint32_t nregions, char *why,
			  size_t len)
{
	return tx_probe(&tx_sendfile_ops, fd, regions, nregions, why, len);
}

static void sendfile_free(struct tx *t)
{
	fd_close(&of(t)->pipe[0]);
	fd_close(&of(t)->pipe[1]);
	free(t);
}

static int sendfile_new(struct tx **out, int fd, const struct region *regions, uint32_t nregions)
{
	struct tx_sendfile *t = calloc(1, sizeof(*t));

	(void)regions;
	(void)nregions;
	if (!t)
		return -ENOMEM;
	t->base = (struct tx){ .ops = &tx_sendfile_ops, .fd = fd };
	if (pipe2(t->pipe, O_CLOEXEC)) {
		int err = -errno;

		free(t);
		return err;
	}
	/* Refused when the host's pipe-user-pages-soft is used up. */
	t->piped = fcntl(t->pipe[0], F_SETPIPE_SZ, PIPE_BYTES) >= 0 ||
		   fcntl(t->pipe[0], F_GETPIPE_SZ) >= PIPE_BYTES_MIN;
	*out = &t->base;
	return 0;
}

static void cork(struct tx_sendfile *t, bool on)
{
	int value = on;

	if (t->corked == on)
		return;
	t->corked = on;
	/* Not TCP: nothing to cork. */
	if (setsockopt(t->base.fd, IPPROTO_TCP, TCP_CORK, &value, sizeof(value)))
		return;
}

static int by_sendfile(struct tx *t, const struct region *r, uint64_t offset, uint64_t left)
{
	off_t at = (off_t)(r->file_offset + offset);

	while (left) {
		ssize_t n = sendfile(t->fd, r->fd, &at, left);

		if (n == 0)
			return -EIO; /* the VMM has cut its own RAM */
		if (n < 0) {
			int err = tx_retryable(t, -errno);

			if (err)
				return err;
			continue;
		}
		left -= (uint64_t)n;
		t->no_memory = 0;
		t->counters.wire_bytes += (uint64_t)n;
		t->counters.zero_copy_bytes += (uint64_t)n;
	}
	return 0;
}

static int pipe_to_socket(struct tx *t, int pipe_fd, size_t left)
{
	while (left) {
		ssize_t n = splice(pipe_fd, NULL, t->fd, NULL, left, SPLICE_F_MOVE | SPLICE_F_MORE);

		if (n < 0) {
			int err = tx_retryable(t, -errno);

			if (err)
				return err;
			continue;
		}
		left -= (size_t)n;
		t->no_memory = 0;
		t->counters.wire_bytes += (uint64_t)n;
		t->counters.zero_copy_bytes += (uint64_t)n;
	}
	return 0;
}

/* Guest memory in as many parts as there are; the vector is used up. */
static int by_vmsplice(struct tx_sendfile *t, const struct region *r, struct iovec *iov,
		       unsigned int count)
{
	int err = 0;

	while (!err && count) {
		ssize_t n = vmsplice(t->pipe[1], iov, count, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EFAULT) {
			t->base.counters.copied_bytes += PAGE_BYTES;
			err = tx_send_faulted(&t->base, r, &iov, &count, MSG_MORE);
			continue;
		}
		if (n < 0)
			return -errno;
		err = pipe_to_socket(&t->base, t->pipe[0], (size_t)n);
		tx_iov_advance(&iov, &count, (size_t)n);
	}
	return err;
}

/* What is not sent yet of a frame, in its order: parts to copy, then guest memory. */
struct gathered {
	struct iovec iov[TX_IOVS_MAX];
	unsigned int copies, count; /* the first `copies` of `count` */
	uint64_t memory;	    /* bytes of the rest */
};

/* Too little to be worth a call of its own. */
static void copy_memory(struct tx_sendfile *t, struct gathered *g)
{
	t->base.counters.copied_bytes += g->memory;
	g->copies = g->count;
	g->memory = 0;
}

static int send_gathered(struct tx_sendfile *t, const struct region *r, struct gathered *g,
			 int flags)
{
	int err;

	if (g->memory < BY_REFERENCE_MIN)
		copy_memory(t, g);
	err = tx_send_iov(&t->base, r, g->iov, g->copies, g->memory ? MSG_MORE : flags);
	if (!err)
		err = by_vmsplice(t, r, g->iov + g->copies, g->count - g->copies);
	g->copies = g->count = 0;
	g->memory = 0;
	return err;
}

/* A slice behind what is gathered, which is sent if it cannot go together with it. */
static int add_slice(struct tx_sendfile *t, const struct region *r, struct gathered *g,
		     const struct tx_slice *s)
{
	bool memory = !s->data && (t->piped || r->hugetlb);
	int err = 0;

	if (!memory && g->memory >= BY_REFERENCE_MIN)
		err = send_gathered(t, r, g, MSG_MORE);
	else if (!memory)
		copy_memory(t, g);
	if (err)
		return err;
	if (!memory && !s->data && s->length >= BY_REFERENCE_MIN) {
		err = send_gathered(t, r, g, MSG_MORE);
		return err ? err : by_sendfile(&t->base, r, s->offset, s->length);
	}
	g->iov[g->count++] = tx_iov_of_slice(r, s);
	if (memory) {
		g->memory += s->length;
	} else {
		g->copies = g->count;
		t->base.counters.copied_bytes += s->length;
	}
	return 0;
}

static int sendfile_frame(struct tx *base, const void *head, size_t head_len,
			  const struct region *r, const struct tx_slice *slices, uint32_t count,
			  bool more)
{
	struct tx_sendfile *t = of(base);
	struct gathered g;
	int err = 0;

	if (count > TX_SLICES_MAX)
		return -EINVAL;
	if (more || count) /* uncorking is what pushes the end of a payload */
		cork(t, true);
	g.iov[0] = (struct iovec){ .iov_base = (void *)head, .iov_len = head_len };
	g.copies = g.count = 1;
	g.memory = 0;
	for (uint32_t i = 0; !err && i < count; i++)
		err = add_slice(t, r, &g, &slices[i]);
	if (!err)
		err = send_gathered(t, r, &g, more ? MSG_MORE : 0);
	if (!more)
		cork(t, false);
	return err;
}

static int sendfile_drain(struct tx *t)
{
	return tx_drain_socket(t->fd);
}

const struct tx_ops tx_sendfile_ops = {
	.name = "sendfile",
	.kind = IPC_TX_SENDFILE,
	.probe = sendfile_probe,
	.new = sendfile_new,
	.frame = sendfile_frame,
	.drain = sendfile_drain,
	.free = sendfile_free,
};
