/* SPDX-License-Identifier: MIT */
/*
 * Reading a data stream: small things through a buffer, large payloads straight to their place.
 *
 * The buffer is sized to stay in a core's cache, so that what is copied out of it costs little.
 * How far it reads ahead is the caller's choice: ahead of small frames many come with one system
 * call; ahead of large ones nothing, because what is in the buffer must be copied once more.
 */
#ifndef TRANSHIP_DATAPLANE_RX_READER_H
#define TRANSHIP_DATAPLANE_RX_READER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define RX_BUFFER_SIZE (256u * 1024)

struct rx_reader {
	int fd;		   /* a stream socket; the caller's */
	uint8_t *buffer;   /* RX_BUFFER_SIZE, owned */
	size_t begin, end; /* of what is in the buffer and not yet taken */
	size_t ahead;	   /* bytes that a read may take beyond what was asked for */
	uint64_t bytes;	   /* received so far; one writer, others read it atomically */
};

/* fd may be set later. -ENOMEM. */
int rx_reader_init(struct rx_reader *r, int fd);
void rx_reader_release(struct rx_reader *r);

static inline size_t rx_buffered(const struct rx_reader *r)
{
	return r->end - r->begin;
}

/*
 * The next len bytes (at most RX_BUFFER_SIZE), valid until the next call; blocks until they are
 * there. -ECONNRESET if the stream ends before; -errno.
 */
int rx_take(struct rx_reader *r, size_t len, const uint8_t **data);

/*
 * Receives exactly what the iovecs hold, without the buffer, which must be empty. The iovecs are
 * used up. At most IOV_MAX of them. -EFAULT if a page could not be had. Otherwise as rx_take.
 */
int rx_scatter(struct rx_reader *r, struct iovec *iov, unsigned int count);

/* 0 if the stream has ended and nothing is left; -EBADMSG if more came. Blocks until either. */
int rx_end(struct rx_reader *r);

#endif
