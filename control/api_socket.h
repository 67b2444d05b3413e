/* SPDX-License-Identifier: MIT */
/* The API's listening unix socket: its mode, stale and foreign names, removal. */
#ifndef TRANSHIP_CONTROL_API_SOCKET_H
#define TRANSHIP_CONTROL_API_SOCKET_H

#include <sys/types.h>

#include "lib/base/failure.h"

struct api_socket {
	char path[108];
	dev_t device; /* of the name, to remove no one else's */
	ino_t inode;
};

/*
 * Listens on path with mode 0600. A socket there that nobody serves is replaced. -EADDRINUSE (busy)
 * if somebody does, -EEXIST if it is something else. *fd is the caller's.
 */
int api_socket_listen(struct api_socket *s, const char *path, int *fd, struct failure *f);
/* Unlinks the name if it still is ours. */
void api_socket_remove(const struct api_socket *s);

#endif
