/* SPDX-License-Identifier: MIT */
/*
 * The relay of device state: from the stream that the VMM writes to STATE frames on stream 0.
 *
 * Theory of operation
 *   Stream 0's thread owns the relay and the stream; nobody else writes there, so frames need no
 *   lock. The thread looks at the relay whenever it waits (idle, for an acknowledgement, for
 *   bandwidth) and between frames of a round, so state flows at any time and waits at most for
 *   the frame under way. It is not held back by the bandwidth limit, only charged to it: the guest
 *   is paused while it flows.
 *
 *   The main thread hands over the descriptor and the wish to end through state_relay_offer and
 *   state_relay_finish, which take a lock that the owner takes only when it was told to look.
 */
#ifndef TRANSHIP_DATAPLANE_STATE_RELAY_H
#define TRANSHIP_DATAPLANE_STATE_RELAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/transport/wire.h"

struct state_relay {
	pthread_mutex_t lock;
	int offered_fd;	    /* under lock; -1 if none */
	bool finish_wanted; /* under lock */

	/* The owner's. */
	int fd;		/* -1: nothing to read */
	bool finish;	/* STATE_END is to follow when fd has ended */
	uint64_t bytes; /* of this state, atomic for readers */
	uint8_t *frame; /* header and payload of one STATE frame; owned */
};

/* -ENOMEM. */
int state_relay_init(struct state_relay *r);
void state_relay_release(struct state_relay *r);

/* Main thread. Takes fd. -EBUSY if a state is being relayed. Wake the owner after these. */
int state_relay_offer(struct state_relay *r, int fd);
void state_relay_finish(struct state_relay *r);

/* Owner: takes over what was offered. */
void state_relay_collect(struct state_relay *r);

/*
 * Owner: reads what is there (does not block if poll said so, or if nothing was said) and encodes
 * one frame. *len is the frame's length in r->frame: 0 if there is nothing to send now. A frame of
 * type STATE_END is made once, when the state has ended and finish was wanted; *ended tells.
 */
int state_relay_frame(struct state_relay *r, size_t *len, bool *ended);

#endif
