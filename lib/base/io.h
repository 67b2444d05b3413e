/* SPDX-License-Identifier: MIT */
/*
 * Whole reads and writes, descriptors over unix sockets, and eventfds that wake a thread. All that
 * return something return 0 or -errno.
 */
#ifndef TRANSHIP_BASE_IO_H
#define TRANSHIP_BASE_IO_H

#include <stddef.h>
#include <sys/types.h>

/* Reads exactly len bytes; -ECONNRESET if the stream ends before. */
int io_read_full(int fd, void *buf, size_t len);
int io_write_full(int fd, const void *buf, size_t len);

/*
 * An eventfd that is non-blocking. Signalling makes it readable until it is cleared, however often
 * it was signalled meanwhile; a signal handler may do that, if it keeps errno. Clearing gives
 * -EAGAIN if it was not signalled.
 */
void io_event_signal(int fd);
int io_event_clear(int fd);

/*
 * One SOCK_SEQPACKET packet with up to IO_FDS_MAX descriptors.
 * io_recv_packet: *len is the buffer's size on entry, the packet's on return; descriptors arrive
 * close-on-exec and belong to the caller. -ECONNRESET at the end of the stream, -EMSGSIZE if the
 * packet or its descriptors did not fit (received descriptors are then closed).
 */
#define IO_FDS_MAX 8
int io_send_packet(int sock, const void *buf, size_t len, const int *fds, int nfds);
int io_recv_packet(int sock, void *buf, size_t *len, int fds[IO_FDS_MAX], int *nfds, int flags);

#endif
