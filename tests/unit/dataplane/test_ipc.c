// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/ipc.h"
#include "lib/base/io.h"

static int sv[2];

static int setup(void **state)
{
	(void)state;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv);
}

static int teardown(void **state)
{
	(void)state;
	close(sv[0]);
	close(sv[1]);
	return 0;
}

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_every_type_goes_over(void **state)
{
	static const uint32_t first[] = { IPC_CONFIG, IPC_READY, IPC_HAND_OVER, IPC_HANDED_OVER };
	static const uint32_t last[] = { IPC_QUIT, IPC_FAILED, IPC_CUT, IPC_COMPLETE };
	union ipc_body body;

	(void)state;
	memset(&body, 'a', sizeof(body));
	for (int k = 0; k < 4; k++) {
		for (uint32_t type = first[k]; type <= last[k]; type++) {
			struct ipc_message m;
			struct stat a, b;
			int fd = -1;

			assert_true(ipc_body_size(type) >= 0);
			assert_true((size_t)ipc_body_size(type) <= sizeof(body));
			assert_string_not_equal(ipc_type_name(type), "unknown");
			fd = ipc_carries_fd(type) ? 2 : -1;
			assert_int_equal(ipc_send(sv[0], type, &body, fd), 0);
			assert_int_equal(ipc_recv(sv[1], &m, &fd, 1000), 0);
			assert_int_equal(m.head.type, type);
			assert_int_equal(fd >= 0, ipc_carries_fd(type));
			if (type != IPC_FAILED && type != IPC_READY)
				assert_memory_equal(&m.body, &body, ipc_body_size(type));
			if (fd < 0)
				continue;
			assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
			assert_int_equal(fstat(fd, &a) | fstat(2, &b), 0);
			assert_int_equal(a.st_ino, b.st_ino);
			close(fd);
		}
	}
}

static void test_strings_are_terminated(void **state)
{
	union ipc_body body;
	struct ipc_message m;
	int fd;

	(void)state;
	memset(&body, 'a', sizeof(body));
	assert_int_equal(ipc_send(sv[0], IPC_FAILED, &body, -1), 0);
	assert_int_equal(ipc_recv(sv[1], &m, &fd, 1000), 0);
	assert_int_equal(strlen(m.body.failure.code), sizeof(m.body.failure.code) - 1);
	assert_int_equal(strlen(m.body.failure.message), sizeof(m.body.failure.message) - 1);
	assert_int_equal(strlen(m.body.failure.hint), sizeof(m.body.failure.hint) - 1);
	assert_int_equal(ipc_send(sv[0], IPC_READY, &body, -1), 0);
	assert_int_equal(ipc_recv(sv[1], &m, &fd, 1000), 0);
	assert_int_equal(strlen(m.body.ready.tx_reason), sizeof(m.body.ready.tx_reason) - 1);
	assert_int_equal(strlen(m.body.ready.rx_reason), sizeof(m.body.ready.rx_reason) - 1);
}

/* Sends len bytes of a message with a head as given; what ipc_recv makes of it. */
static int recv_raw(uint32_t type, uint32_t size, size_t len, int nfds)
{
	struct ipc_message m = { .head = { type, size } };
	int fds[3] = { 0, 1, 2 }, fd, err;

	assert_int_equal(io_send_packet(sv[0], &m, len, fds, nfds), 0);
	err = ipc_recv(sv[1], &m, &fd, 1000);
	if (!err && fd >= 0)
		close(fd);
	if (err)
		assert_int_equal(fd, -1);
	return err;
}

static void test_malformed_is_refused(void **state)
{
	const size_t head = sizeof(struct ipc_head);
	int before = open_descriptors();

	(void)state;
	assert_int_equal(recv_raw(IPC_QUIT, 0, head, 0), 0);
	assert_int_equal(recv_raw(IPC_QUIT, 0, head - 1, 0), -EBADMSG);
	assert_int_equal(recv_raw(IPC_QUIT, 4, head + 4, 0), -EBADMSG);
	assert_int_equal(recv_raw(IPC_QUIT, 0, head + 4, 0), -EBADMSG);
	assert_int_equal(recv_raw(IPC_QUIT, 0, head, 1), -EBADMSG);
	assert_int_equal(recv_raw(0, 0, head, 0), -EBADMSG);
	assert_int_equal(recv_raw(63, 0, head, 0), -EBADMSG);
	assert_int_equal(recv_raw(UINT32_MAX, UINT32_MAX, head, 0), -EBADMSG);
	assert_int_equal(recv_raw(IPC_SCAN, UINT32_MAX - 4, head + 8, 0), -EBADMSG);
	assert_int_equal(recv_raw(IPC_LISTEN, 0, head, 0), -EBADMSG);
	assert_int_equal(recv_raw(IPC_LISTEN, 0, head, 2), -EBADMSG);
	assert_int_equal(recv_raw(IPC_LISTEN, 0, head, 1), 0);
	assert_int_equal(recv_raw(IPC_TRACKER, 8, head + 8, 0), 0);
	assert_int_equal(recv_raw(IPC_TRACKER, 8, head + 8, 1), 0);
	assert_int_equal(open_descriptors(), before);
}

static void test_oversized_is_refused(void **state)
{
	static char big[sizeof(struct ipc_message) + 100];
	struct ipc_message m;
	int fd, fds[1] = { 2 }, before = open_descriptors();

	(void)state;
	assert_int_equal(io_send_packet(sv[0], big, sizeof(big), fds, 1), 0);
	assert_int_equal(ipc_recv(sv[1], &m, &fd, 1000), -EBADMSG);
	assert_int_equal(open_descriptors(), before);
}

static void test_end_and_time_limit(void **state)
{
	struct ipc_message m;
	int fd;

	(void)state;
	assert_int_equal(ipc_recv(sv[1], &m, &fd, 0), -ETIMEDOUT);
	assert_int_equal(shutdown(sv[0], SHUT_WR), 0);
	assert_int_equal(ipc_recv(sv[1], &m, &fd, -1), -ECONNRESET);
	assert_int_equal(shutdown(sv[1], SHUT_RDWR), 0);
	assert_int_equal(ipc_send(sv[0], IPC_QUIT, NULL, -1), -EPIPE);
	assert_int_equal(ipc_send(sv[0], IPC_SCAN, NULL, -1), -EINVAL);
	assert_int_equal(ipc_send(sv[0], (enum ipc_type)60, NULL, -1), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_type_goes_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_strings_are_terminated, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_oversized_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end_and_time_limit, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
