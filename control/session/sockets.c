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
#include "lib/base/log.h"

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

/*
 * Congestion control. Hosts choose theirs for the wide area. BBR paces every segment by a timer,
 * and CUBIC leaves slow start when round trips grow longer (HyStart), which between two busy hosts
 * of one network they do because the hosts are busy: the processors then set the rate, not the
 * path. There Reno neither paces nor looks at delays, and takes no more than its share. A 2 GiB VM
 * over veth, medians of 6 moves in turn, in brackets the source's processor seconds: BBR 1127 ms
 * (0.71), CUBIC 1139 (0.75), Reno 848 (0.50).
 *
 * So a connection begins as Reno, and keeps it if its first round trip was that of a near peer;
 * else it goes over to the host's. Not the reverse: what was BBR's once stays paced.
 */
#define NEAR_US	    1000u
#define NEAR_CHOICE "reno" /* in every kernel, and allowed to everybody */

void sockets_congestion(int fd, char *name, size_t size)
{
	socklen_t n = (socklen_t)size - 1;

	memset(name, 0, size);
	if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &n))
		name[0] = '\0';
}

static void set_congestion(int fd, const char *name)
{
	if (name[0] && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)))
		log_debug("congestion control stays as it is: %s: %s", name, strerror(errno));
}

static int set_options(int fd, const struct sockets_options *o, struct failure *f)
{
	int family = AF_INET, err = 0;
	socklen_t len = sizeof(family);

	if (o->congestion[0] && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, o->congestion,
					   (socklen_t)strlen(o->congestion)))
		return failure_set(f, -EOPNOTSUPP, "unsupported-option",
				   "net.ipv4.tcp_available_congestion_control lists what there is.",
				   "This host cannot use the congestion control %s: %s.",
				   o->congestion, strerror(errno));
	if (o->tos < 0)
		return 0;
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len);
	/* an IPv6 socket may carry IPv4 */
	if (setsockopt(fd, IPPROTO_IP, IP_TOS, &o->tos, sizeof(o->tos)) && family == AF_INET)
		err = -errno;
	if (family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &o->tos, sizeof(o->tos)))
		err = -errno;
	return err ? failure_set(f, err, "internal", NULL, "The type of service cannot be set: %s.",
				 strerror(-err))
		   : 0;
}

static bool is_near(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) && info.tcpi_rtt < NEAR_US;
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
	return sockets_connect_with(address, port, timeout_ms, interrupt_fd, NULL, fd, f);
}

int sockets_connect_with(const char *address, uint16_t port, unsigned int timeout_ms,
			 int interrupt_fd, const struct sockets_options *o, int *fd,
			 struct failure *f)
{
	bool by_distance = !o || !o->congestion[0];
	struct addrinfo *ai;
	AUTO_CLOSE int s = -1;
	char host_choice[16];
	int err = resolve(address, port, false, &ai, f);

	if (err)
		return err;
	s = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s < 0) {
		err = -errno;
	} else {
		notice_dead_peers(s);
		sockets_congestion(s, host_choice, sizeof(host_choice));
		if (by_distance)
			set_congestion(s, NEAR_CHOICE);
		err = o ? set_options(s, o, f) : 0;
		if (!err)
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
	if (by_distance && !is_near(s))
		set_congestion(s, host_choice);
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

int sockets_listener_options(int fd, const struct sockets_options *o, char *far, size_t size,
			     struct failure *f)
{
	memset(far, 0, size);
	if (!o->congestion[0]) {
		sockets_congestion(fd, far, size);
		set_congestion(fd, NEAR_CHOICE);
	}
	return set_options(fd, o, f);
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
