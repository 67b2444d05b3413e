/* SPDX-License-Identifier: MIT */
/* The asking end of lib/tranship_proto.h: one connection to a VMM that links libtranship. */
#ifndef TRANSHIP_CONTROL_TRANSHIP_LINK_H
#define TRANSHIP_CONTROL_TRANSHIP_LINK_H

#include <sys/types.h>

#include "lib/base/failure.h"
#include "lib/tranship_proto.h"

struct tranship_link {
	int sock;
	pid_t pid;	 /* that listens */
	uint32_t serial; /* of the last request */
	char path[108];
};

/*
 * Connects and says HELLO; *d is checked and its strings are terminated. Failures: vm-not-found,
 * peer-version; vm-busy (-EBUSY): another connection holds the VMM, and *d is filled all the same.
 */
int tranship_link_open(struct tranship_link *l, const char *path, struct tranship_description *d,
		       int timeout_ms, struct failure *f);
void tranship_link_close(struct tranship_link *l);

/*
 * One request and its answer. body: tranship_request_size() bytes, or NULL; fd goes with it if it
 * is not -1 and stays the caller's. out: tranship_reply_size() bytes, or NULL; out_fd: the
 * descriptor of the answer (caller's), or NULL where the type has none. code: of f if the VMM says
 * no. -errno as the VMM gave it, -ETIMEDOUT, or -ECONNRESET with vm-gone.
 */
int tranship_link_call(struct tranship_link *l, uint16_t type, const void *body, int fd, void *out,
		       int *out_fd, int timeout_ms, const char *code, struct failure *f);

/* The two halves of it, for a request that takes long. */
int tranship_link_ask(struct tranship_link *l, uint16_t type, const void *body, int fd,
		      struct failure *f);
int tranship_link_wait(struct tranship_link *l, uint16_t type, void *out, int *out_fd,
		       int timeout_ms, const char *code, struct failure *f);

#endif
