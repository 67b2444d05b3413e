// SPDX-License-Identifier: MIT
/* The held device state; see state_hold.h. */
#include "dataplane/destination/state_hold.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int state_hold_init(struct state_hold *s, uint64_t max)
{
	void *p;

	memset(s, 0, sizeof(*s));
	p = mmap(NULL, max ? max : 1, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	s->bytes = p;
	s->max = max;
	return 0;
}

void state_hold_release(struct state_hold *s)
{
	if (s->bytes)
		munmap(s->bytes, s->max ? s->max : 1);
	s->bytes = NULL;
}

int state_hold_append(struct state_hold *s, size_t len, uint8_t **room)
{
	if (len > s->max - s->used)
		return -EFBIG;
	*room = s->bytes + s->used;
	s->used += len;
	return 0;
}

int state_hold_rewind(struct state_hold *s, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	s->loaded = 0;
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	return 0;
}

int state_hold_write(struct state_hold *s, int fd)
{
	while (s->loaded < s->used) {
		ssize_t n = write(fd, s->bytes + s->loaded, s->used - s->loaded);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
		s->loaded += (uint64_t)n;
	}
	return 0;
}
