/* SPDX-License-Identifier: MIT */
/*
 * The device state, held at the destination until the VMM is told to load it.
 *
 * Written by one thread until it is complete, then read by another; whoever hands it over orders
 * the two (the destination's lock). Memory is reserved at once and used as it fills.
 */
#ifndef TRANSHIP_DATAPLANE_STATE_HOLD_H
#define TRANSHIP_DATAPLANE_STATE_HOLD_H

#include <stddef.h>
#include <stdint.h>

struct state_hold {
	uint8_t *bytes; /* max bytes, owned */
	uint64_t max, used;
	uint64_t loaded; /* how much of it state_hold_write has written */
};

/* At most max bytes will be held. -ENOMEM. */
int state_hold_init(struct state_hold *s, uint64_t max);
void state_hold_release(struct state_hold *s);

/*
 * Room for the next len bytes, which count as held once this returns 0: fill all of them or give
 * up. -EFBIG if they do not fit.
 */
int state_hold_append(struct state_hold *s, size_t len, uint8_t **room);

/* Makes fd, a socket or a pipe, ready for state_hold_write and starts from the beginning. -errno.
 */
int state_hold_rewind(struct state_hold *s, int fd);
/*
 * Writes what fd takes now without blocking. 0: all of it is written; -EAGAIN: more when fd is
 * writable; -EPIPE, -errno: the reader is gone. SIGPIPE must be blocked or ignored.
 */
int state_hold_write(struct state_hold *s, int fd);

#endif
