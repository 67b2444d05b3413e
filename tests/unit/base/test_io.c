// SPDX-License-Identifier: MIT
/* Whole reads and writes over short ones, descriptors over sockets without a leak, eventfds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/io.h"

#define BYTES (1u << 20)

static int open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void *write_all(void *arg)
{
	static uint8_t out[BYTES];

	for (uint32_t i = 0; i < BYTES; i++)
		out[i] = (uint8_t)(i * 7 + i / 251);
	return (void *)(intptr_t)io_write_full(*(int *)arg, out, BYTES);
}

static void test_full(void **state)
{
	static uint8_t in[BYTES];
	pthread_t writer;
	void *written;
	int fds[2];

	(void)state;
	/* a pipe takes 64 KiB at a time, so the writes are short */
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pthread_create(&writer, NULL, write_all, &fds[1]), 0);
	assert_int_equal(io_read_full(fds[0], in, BYTES), 0);
	pthread_join(writer, &written);
	assert_null(written);
	for (uint32_t i = 0; i < BYTES; i++)
		if (in[i] != (uint8_t)(i * 7 + i / 251))
			fail_msg("byte %u", i);

	assert_int_equal(write(fds[1], "abc", 3), 3);
	close(fds[1]);
	assert_int_equal(io_read_full(fds[0], in, 4), -ECONNRESET);
	assert_int_equal(io_read_full(fds[0], in, 0), 0);
	close(fds[0]);
	assert_int_equal(io_read_full(fds[0], in, 1), -EBADF);
	assert_int_equal(io_write_full(fds[1], in, 1), -EBADF);
}

static void test_packet(void **state)
{
	int socks[2], sent[IO_FDS_MAX], got[IO_FDS_MAX], n, before = open_descriptors();
	char buf[16];
	size_t len = sizeof(buf);

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
	for (int i = 0; i < IO_FDS_MAX; i++)
		sent[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(io_send_packet(socks[0], "hello", 5, sent, IO_FDS_MAX), 0);
	assert_int_equal(io_recv_packet(socks[1], buf, &len, got, &n, 0), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(n, IO_FDS_MAX);
	for (int i = 0; i < n; i++) {
		assert_true(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
		close(got[i]);
	}
	assert_int_equal(io_send_packet(socks[0], "x", 1, sent, IO_FDS_MAX + 1), -EINVAL);

	/* too long: refused, and its descriptors do not stay */
	n = open_descriptors();
	assert_int_equal(io_send_packet(socks[0], "0123456789abcdefg", 17, sent, 2), 0);
	len = sizeof(buf);
	assert_int_equal(io_recv_packet(socks[1], buf, &len, got, &n, 0), -EMSGSIZE);
	assert_int_equal(n, 0);
	/* an empty packet with a descriptor: no message, no leak */
	assert_int_equal(io_send_packet(socks[0], "", 0, sent, 1), 0);
	len = sizeof(buf);
	assert_int_equal(io_recv_packet(socks[1], buf, &len, got, &n, 0), -ECONNRESET);
	assert_int_equal(n, 0);

	len = sizeof(buf);
	assert_int_equal(io_recv_packet(socks[1], buf, &len, got, &n, MSG_DONTWAIT), -EAGAIN);
	close(socks[0]);
	len = sizeof(buf);
	assert_int_equal(io_recv_packet(socks[1], buf, &len, got, &n, 0), -ECONNRESET);
	assert_int_equal(io_send_packet(socks[1], "x", 1, NULL, 0), -EPIPE);
	close(socks[1]);
	for (int i = 0; i < IO_FDS_MAX; i++)
		close(sent[i]);
	assert_int_equal(open_descriptors(), before);
}

/* A peer that goes with packets unread: what it said before is still heard. */
static void test_last_words(void **state)
{
	int pair[2], fds[IO_FDS_MAX], nfds;
	char buf[16];
	size_t len = sizeof(buf);

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(io_send_packet(pair[0], "unread", 6, NULL, 0), 0);
	assert_int_equal(io_send_packet(pair[1], "why", 3, NULL, 0), 0);
	close(pair[1]);
	assert_int_equal(io_recv_packet(pair[0], buf, &len, fds, &nfds, 0), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(buf, "why", 3);
	len = sizeof(buf);
	assert_int_equal(io_recv_packet(pair[0], buf, &len, fds, &nfds, 0), -ECONNRESET);
	close(pair[0]);
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void test_event(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	(void)state;
	assert_false(readable(fd));
	assert_int_equal(io_event_clear(fd), -EAGAIN);
	io_event_signal(fd);
	io_event_signal(fd);
	assert_true(readable(fd));
	/* once for all signals */
	assert_int_equal(io_event_clear(fd), 0);
	assert_false(readable(fd));
	assert_int_equal(io_event_clear(fd), -EAGAIN);
	/* a counter that is full: nobody waits, and it stays readable */
	assert_int_equal(eventfd_write(fd, UINT64_MAX - 1), 0);
	io_event_signal(fd);
	assert_true(readable(fd));
	assert_int_equal(io_event_clear(fd), 0);
	close(fd);
	assert_int_equal(io_event_clear(fd), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_packet),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
