// SPDX-License-Identifier: MIT
/* The relay of device state; see state_relay.h. */
#include "dataplane/source/state_relay.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

int state_relay_init(struct state_relay *r)
{
	*r = (struct state_relay){ .offered_fd = -1, .fd = -1 };
	pthread_mutex_init(&r->lock, NULL);
	r->frame = malloc(WIRE_FRAME_SIZE + WIRE_STATE_MAX);
	return r->frame ? 0 : -ENOMEM;
}

void state_relay_release(struct state_relay *r)
{
	fd_close(&r->offered_fd);
	fd_close(&r->fd);
	free(r->frame);
	r->frame = NULL;
	pthread_mutex_destroy(&r->lock);
}

int state_relay_offer(struct state_relay *r, int fd)
{
	SCOPED_LOCK(&r->lock);

	if (r->offered_fd >= 0 || r->finish_wanted)
		return -EBUSY;
	r->offered_fd = fd;
	return 0;
}

void state_relay_finish(struct state_relay *r)
{
	SCOPED_LOCK(&r->lock);

	r->finish_wanted = true;
}

void state_relay_collect(struct state_relay *r)
{
	SCOPED_LOCK(&r->lock);

	if (r->offered_fd >= 0 && r->fd < 0) {
		r->fd = fd_take(&r->offered_fd);
		__atomic_store_n(&r->bytes, 0, __ATOMIC_RELAXED);
	}
	if (r->finish_wanted) {
		r->finish = true;
		r->finish_wanted = false;
	}
}

static void encode_state(struct state_relay *r, size_t n)
{
	struct wire_frame f = { .type = WIRE_STATE, .length = (uint32_t)n };

	wire_put_frame(r->frame, &f);
	__atomic_store_n(&r->bytes, r->bytes + n, __ATOMIC_RELAXED);
}

int state_relay_frame(struct state_relay *r, size_t *len, bool *ended)
{
	struct pollfd p = { .fd = r->fd, .events = POLLIN };
	ssize_t n;

	*len = 0;
	*ended = false;
	if (r->fd >= 0 && poll(&p, 1, 0) > 0) {
		do {
			n = read(r->fd, r->frame + WIRE_FRAME_SIZE, WIRE_STATE_MAX);
		} while (n < 0 && errno == EINTR);
		if (n < 0 && errno != ECONNRESET)
			return -errno;
		if (n > 0) {
			encode_state(r, (size_t)n);
			*len = WIRE_FRAME_SIZE + (size_t)n;
			return 0;
		}
		fd_close(&r->fd);
	}
	if (r->fd < 0 && r->finish) {
		struct wire_frame f = { .type = WIRE_STATE_END, .extent = r->bytes };

		wire_put_frame(r->frame, &f);
		r->finish = false;
		*ended = true;
		*len = WIRE_FRAME_SIZE;
	}
	return 0;
}
