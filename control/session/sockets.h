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

/* How a data stream's packets are sent, where it is not as for a migration. NULL: as for one. */
struct sockets_options {
	int tos;	     /* IP_TOS or IPV6_TCLASS, 0 .. 255; -1: as it is */
	char congestion[16]; /* "": near peers are sent to with Reno, others as the host has it */
};

/*
 * Connects to a numeric address. -errno with f (data-connect; cancelled when interrupt_fd, if not
 * -1, becomes readable). *fd is the caller's, blocking. A near peer (a first round trip below a
 * millisecond) is sent to with Reno, any other with the host's congestion control; see sockets.c.
 */
int sockets_connect(const char *address, uint16_t port, unsigned int timeout_ms, int interrupt_fd,
		    int *fd, struct failure *f);
/* With options; unsupported-option if the host does not have this congestion control. */
int sockets_connect_with(const char *address, uint16_t port, unsigned int timeout_ms,
			 int interrupt_fd, const struct sockets_options *o, int *fd,
			 struct failure *f);
/* Which congestion control fd's connection uses; "" if it has none. */
void sockets_congestion(int fd, char *name, size_t size);
/* Listens on address, on a port of lo..hi (0, 0: any); *port says which. */
int sockets_listen(const char *address, uint16_t lo, uint16_t hi, int *fd, uint16_t *port,
		   struct failure *f);
/*
 * Makes connections that will be accepted send with these options. far (at least 16 bytes) gets
 * what those are to go over to whose peer is not near, or "".
 */
int sockets_listener_options(int fd, const struct sockets_options *o, char *far, size_t size,
			     struct failure *f);

#endif
