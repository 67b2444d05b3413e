/* SPDX-License-Identifier: MIT */
/* A TCP connection over the loopback within a test, with buffers of a size. */
#ifndef TRANSHIP_TESTS_TCP_PAIR_H
#define TRANSHIP_TESTS_TCP_PAIR_H

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* sv[0] sends and has a send buffer of buffer bytes; sv[1] receives. Both are the caller's. */
static inline void tcp_pair(int sv[2], int buffer)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* A window below a segment of the loopback makes TCP wait for its timer at each turn. */
	int window = buffer < 65536 ? 65536 : buffer;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(setsockopt(l, SOL_SOCKET, SO_RCVBUF, &window, sizeof(window)), 0);
	assert_int_equal(bind(l, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&a, &len), 0);
	sv[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)), 0);
	assert_int_equal(connect(sv[0], (struct sockaddr *)&a, len), 0);
	sv[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	assert_true(sv[1] >= 0);
	close(l);
}

#endif
