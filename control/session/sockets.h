/* SPDX-License-Identifier: MIT */
/*
 * The data streams' sockets. A peer that vanished without a word is noticed after about
 * SOCKETS_DEAD_MS (keep-alive and TCP_USER_TIMEOUT).
 */
#ifndef TRANSHIP_CONTROL_SOCKETS_H
#define TRANSHIP_CONTROL_SOCKETS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/failure.h"

#define SOCKETS_DEAD_MS 10000

/*
 * Connects to a numeric address. -errno with f (data-connect; cancelled when interrupt_fd, if not
 * -1, becomes readable). *fd is the caller's, blocking. A near peer (a first round trip below a
 * millisecond) is sent to with Reno, any other with the host's congestion control; see sockets.c.
 */
int sockets_connect(const char *address, uint16_t port, unsigned int timeout_ms, int interrupt_fd,
		    int *fd, struct failure *f);
/* Which congestion control fd's connection uses; "" if it has none. */
void sockets_congestion(int fd, char *name, size_t size);
/* Listens on address, on a port of lo..hi (0, 0: any); *port says which. */
int sockets_listen(const char *address, uint16_t lo, uint16_t hi, int *fd, uint16_t *port,
		   struct failure *f);

#endif
