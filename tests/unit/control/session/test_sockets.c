// SPDX-License-Identifier: MIT
/* Sockets of the data streams: ports, refusals, an address that does not answer, an interrupt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/session/sockets.h"
#include "lib/base/clock.h"

static struct failure f;

static int listen_at(uint16_t lo, uint16_t hi, int *fd, uint16_t *port)
{
	failure_clear(&f);
	return sockets_listen("127.0.0.1", lo, hi, fd, port, &f);
}

static int connect_to(uint16_t port, unsigned int ms, int interrupt, int *fd)
{
	failure_clear(&f);
	return sockets_connect("127.0.0.1", port, ms, interrupt, fd, &f);
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

/* Both ends notice a dead peer, and wait for nothing. */
static void assert_watchful(int fd)
{
	assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), SOCKETS_DEAD_MS);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_true(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
			    option(fd, IPPROTO_TCP, TCP_KEEPINTVL) *
				    option(fd, IPPROTO_TCP, TCP_KEEPCNT) <=
		    SOCKETS_DEAD_MS / 1000);
}

static void connects(void **state)
{
	int listener, fd, accepted;
	uint16_t port;

	(void)state;
	assert_int_equal(listen_at(0, 0, &listener, &port), 0);
	assert_true(port > 0);
	assert_int_equal(connect_to(port, 1000, -1, &fd), 0);
	accepted = accept(listener, NULL, NULL);
	assert_true(accepted >= 0);
	assert_watchful(fd);
	assert_watchful(accepted);
	assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(listener, F_GETFD) & FD_CLOEXEC);
	close(fd);
	close(accepted);
	close(listener);
}

static void refused(void **state)
{
	int listener, fd = -7;
	uint16_t port;

	(void)state;
	assert_int_equal(listen_at(0, 0, &listener, &port), 0);
	close(listener);
	assert_int_equal(connect_to(port, 1000, -1, &fd), -ECONNREFUSED);
	assert_string_equal(f.code, "data-connect");
	assert_true(f.hint[0]);
	assert_int_equal(fd, -7);
}

/* A listener whose queue is full answers nothing: the nearest to a host that is not there. */
static int full_listener(uint16_t *port, int fillers[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*port = ntohs(a.sin_port);
	for (int i = 0; i < 2; i++) {
		fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fillers[i], (struct sockaddr *)&a, sizeof(a));
	}
	return fd;
}

static void no_answer_ends_in_time(void **state)
{
	int fillers[2], fd, listener;
	uint64_t start;
	uint16_t port;

	(void)state;
	listener = full_listener(&port, fillers);
	start = clock_ns();
	assert_int_equal(connect_to(port, 200, -1, &fd), -ETIMEDOUT);
	assert_string_equal(f.code, "data-connect");
	assert_true(clock_ms_since(start) >= 190);
	close(fillers[0]);
	close(fillers[1]);
	close(listener);
}

static void *interrupt(void *arg)
{
	const struct timespec t = { .tv_nsec = 50 * 1000000 };

	nanosleep(&t, NULL);
	eventfd_write(*(int *)arg, 1);
	return NULL;
}

static void an_interrupt_ends_it(void **state)
{
	int fillers[2], fd, listener, event = eventfd(0, 0);
	pthread_t thread;
	uint16_t port;

	(void)state;
	listener = full_listener(&port, fillers);
	assert_int_equal(pthread_create(&thread, NULL, interrupt, &event), 0);
	assert_int_equal(connect_to(port, 60000, event, &fd), -ECANCELED);
	assert_string_equal(f.code, "cancelled");
	pthread_join(thread, NULL);
	/* it stays readable: the next is not even begun to be waited for */
	assert_int_equal(connect_to(port, 60000, event, &fd), -ECANCELED);
	close(event);
	close(fillers[0]);
	close(fillers[1]);
	close(listener);
}

static void addresses_must_be_numeric(void **state)
{
	uint16_t port;
	int fd;

	(void)state;
	failure_clear(&f);
	assert_true(sockets_connect("localhost", 1, 100, -1, &fd, &f) < 0);
	assert_string_equal(f.code, "data-connect");
	failure_clear(&f);
	assert_true(sockets_listen("no such host", 0, 0, &fd, &port, &f) < 0);
	assert_string_equal(f.code, "data-connect");
	failure_clear(&f);
	/* of documentation only: no host has it */
	assert_true(sockets_listen("192.0.2.1", 0, 0, &fd, &port, &f) < 0);
	assert_string_equal(f.code, "data-connect");
}

/* A free port with a free one behind it, found by trying. */
static uint16_t two_free_ports(void)
{
	uint16_t port, next;
	int fd, second;

	for (;;) {
		assert_int_equal(listen_at(0, 0, &fd, &port), 0);
		close(fd);
		if (port == UINT16_MAX ||
		    listen_at((uint16_t)(port + 1), (uint16_t)(port + 1), &second, &next))
			continue;
		close(second);
		return port;
	}
}

static void a_range_of_ports(void **state)
{
	uint16_t lo = two_free_ports(), hi = (uint16_t)(lo + 1), port;
	int first, second, third;

	(void)state;
	assert_int_equal(listen_at(lo, hi, &first, &port), 0);
	assert_int_equal(port, lo);
	assert_int_equal(listen_at(lo, hi, &second, &port), 0);
	assert_int_equal(port, hi);
	assert_int_equal(listen_at(lo, hi, &third, &port), -EADDRINUSE);
	assert_string_equal(f.code, "data-connect");
	assert_non_null(strstr(f.hint, "--data-ports"));
	close(first);
	assert_int_equal(listen_at(lo, hi, &third, &port), 0);
	assert_int_equal(port, lo);
	close(second);
	close(third);
}

/* The end of the range is the end of numbers. */
static void the_last_port(void **state)
{
	int first, second;
	uint16_t port;

	(void)state;
	if (listen_at(UINT16_MAX, UINT16_MAX, &first, &port))
		skip();
	assert_int_equal(port, UINT16_MAX);
	assert_int_equal(listen_at(UINT16_MAX, UINT16_MAX, &second, &port), -EADDRINUSE);
	close(first);
}

static void six(void **state)
{
	int listener, fd;
	uint16_t port;

	(void)state;
	failure_clear(&f);
	if (sockets_listen("::1", 0, 0, &listener, &port, &f))
		skip();
	assert_int_equal(sockets_connect("::1", port, 1000, -1, &fd, &f), 0);
	close(fd);
	close(listener);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connects),
		cmocka_unit_test(refused),
		cmocka_unit_test(no_answer_ends_in_time),
		cmocka_unit_test(an_interrupt_ends_it),
		cmocka_unit_test(addresses_must_be_numeric),
		cmocka_unit_test(a_range_of_ports),
		cmocka_unit_test(the_last_port),
		cmocka_unit_test(six),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
