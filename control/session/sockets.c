// SPDX-License-Identifier: MIT
/* Connecting and listening of data streams; see sockets.h. */
#include "control/session/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

static int resolve(const char *address, uint16_t port, bool passive, struct addrinfo **ai,
		   struct failure *f)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV |
					      (passive ? AI_PASSIVE : 0) };
	char service[8];
	int err;

	snprintf(service, sizeof(service), "%u", port);
	err = getaddrinfo(address, service, &hints, ai);
	if (err)
		return failure_set(f, -EINVAL, "data-connect",
				   "Set --data-address to an IP address.",
				   "%s is not a numeric address: %s.", address, gai_strerror(err));
	return 0;
}

/* Inherited by accepted sockets when set on the listener. */
static void notice_dead_peers(int fd)
{
	int on = 1, idle = 3, interval = 2, count = 3, dead = SOCKETS_DEAD_MS;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead, sizeof(dead));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int finish_connect(int fd, unsigned int timeout_ms, int interrupt_fd)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLOUT },
			       { .fd = interrupt_fd, .events = POLLIN } };
	socklen_t len = sizeof(int);
	int err = 0, n;

	while ((n = poll(p, 2, (int)timeout_ms)) < 0 && errno == EINTR)
		;
	if (n == 0)
		return -ETIMEDOUT;
	if (n > 0 && p[1].revents)
		return -ECANCELED;
	if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
		return -errno;
	return -err;
}

int sockets_connect(const char *address, uint16_t port, unsigned int timeout_ms, int interrupt_fd,
		    int *fd, struct failure *f)
{
	struct addrinfo *ai;
	AUTO_CLOSE int s = -1;
	int err = resolve(address, port, false, &ai, f);

	if (err)
		return err;
	s = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s < 0) {
		err = -errno;
	} else {
		notice_dead_peers(s);
		err = connect(s, ai->ai_addr, ai->ai_addrlen) ? -errno : 0;
		if (err == -EINPROGRESS)
			err = finish_connect(s, timeout_ms, interrupt_fd);
	}
	freeaddrinfo(ai);
	if (err == -ECANCELED)
		return failure_set(f, err, "cancelled", NULL, "The migration was cancelled.");
	if (err)
		return failure_set(
			f, err, "data-connect",
			"Check the destination's --data-address and the firewall between "
			"the hosts.",
			"No data stream could be connected to %s port %u: %s.", address, port,
			strerror(-err));
	fcntl(s, F_SETFL, fcntl(s, F_GETFL) & ~O_NONBLOCK);
	*fd = fd_take(&s);
	return 0;
}

static int listen_on(const char *address, uint16_t port, int *fd, struct failure *f)
{
	struct addrinfo *ai;
	AUTO_CLOSE int s = -1;
	int on = 1, err = resolve(address, port, true, &ai, f);

	if (err)
		return err;
	s = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s >= 0) {
		notice_dead_peers(s);
		setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	}
	if (s < 0 || bind(s, ai->ai_addr, ai->ai_addrlen) || listen(s, 128))
		err = -errno;
	freeaddrinfo(ai);
	if (!err)
		*fd = fd_take(&s);
	return err;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len))
		return 0;
	return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
					     : ((struct sockaddr_in *)&a)->sin_port);
}

int sockets_listen(const char *address, uint16_t lo, uint16_t hi, int *fd, uint16_t *port,
		   struct failure *f)
{
	int err = -EADDRINUSE;

	for (uint32_t p = lo; p <= hi && err == -EADDRINUSE && !failure_is_set(f); p++)
		err = listen_on(address, (uint16_t)p, fd, f);
	if (err)
		return failure_set(f, err, "data-connect",
				   "Set --data-address to an address of this host and --data-ports "
				   "to a free range.",
				   "The destination cannot listen on %s ports %u-%u: %s.", address,
				   lo, hi, strerror(-err));
	*port = port_of(*fd);
	return 0;
}
