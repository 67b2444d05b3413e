// SPDX-License-Identifier: MIT
/* libtranship against whoever connects: malformed packets, noise, other users. */
#include "tests/unit/lib/vmm_process.h"

#include <sys/stat.h>
#include <sys/un.h>

static int connect_raw(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	const struct timeval limit = { .tv_sec = 10 };

	assert_true(fd >= 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

/* Sends it on a connection of its own; true if the VMM closes without an answer. */
static bool closes_on(const void *packet, size_t len, int nfds, bool greet)
{
	struct tranship_packet p;
	int fd, fds[IO_FDS_MAX] = { 0, 0, 0 }, n, err;
	size_t size = sizeof(p);

	tranship_link_close(&tl);
	if (greet) {
		open_link();
		fd = tl.sock;
		tl.sock = -1;
		fcntl(fd, F_SETFL, 0);
	} else {
		fd = connect_raw(vmm.socket);
	}
	assert_int_equal(io_send_packet(fd, packet, len, fds, nfds), 0);
	err = io_recv_packet(fd, &p, &size, fds, &n, 0);
	close(fd);
	return err == -ECONNRESET;
}

static void test_malformed_packets_end_the_connection(void **state)
{
	struct tranship_packet p, good = { 0 };

	(void)state;
	tranship_request(&good.head, TRANSHIP_DESCRIBE, 1, 0);
	p = good;
	assert_true(closes_on(&p, 1, 0, true));
	assert_true(closes_on(&p, sizeof(p.head) - 1, 0, true));
	assert_true(closes_on(&p, sizeof(p.head) + 4, 0, true)); /* size says 0 */
	p.head.magic ^= 1;
	assert_true(closes_on(&p, sizeof(p.head), 0, true));
	p = good;
	p.head.version = 2;
	assert_true(closes_on(&p, sizeof(p.head), 0, true));
	p = good;
	p.head.type |= TRANSHIP_REPLY;
	assert_true(closes_on(&p, sizeof(p.head), 0, true));
	p = good;
	p.head.status = -1;
	assert_true(closes_on(&p, sizeof(p.head), 0, true));
	p = good;
	p.head.size = 8;
	assert_true(closes_on(&p, sizeof(p.head) + 8, 0, true)); /* DESCRIBE has no body */
	p = good;
	p.head.size = 0xffffffffu;
	assert_true(closes_on(&p, sizeof(p.head), 0, true));
	p = good;
	assert_true(closes_on(&p, sizeof(p.head), 1, true)); /* a descriptor too many */
	assert_true(closes_on(&p, sizeof(p.head), 3, true));
	tranship_request(&p.head, TRANSHIP_SAVE, 1, 0);
	assert_true(closes_on(&p, sizeof(p.head), 0, true)); /* and one too few */
	open_link();
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
	vmm_expect_none(&vmm);
}

static void test_hello_comes_first(void **state)
{
	struct tranship_packet p = { 0 };

	(void)state;
	tranship_request(&p.head, TRANSHIP_STOP, 1, 0);
	assert_true(closes_on(&p, sizeof(p.head), 0, false));
	vmm_expect_none(&vmm);
	open_link();
}

static void test_oversized_packet(void **state)
{
	uint8_t big[2 * TRANSHIP_PACKET_MAX] = { 0 };

	(void)state;
	tranship_request((struct tranship_head *)big, TRANSHIP_DESCRIBE, 1, 0);
	assert_true(closes_on(big, sizeof(big), 0, true));
	open_link();
}

static void test_unknown_request_is_answered(void **state)
{
	struct tranship_packet p = { 0 };
	int fds[IO_FDS_MAX], n;
	size_t len = sizeof(p);

	(void)state;
	fcntl(tl.sock, F_SETFL, 0);
	tranship_request(&p.head, TRANSHIP_TYPES + 5, 77, 16);
	assert_int_equal(io_send_packet(tl.sock, &p, sizeof(p.head) + 16, NULL, 0), 0);
	assert_int_equal(io_recv_packet(tl.sock, &p, &len, fds, &n, 0), 0);
	assert_int_equal(p.head.status, -EOPNOTSUPP);
	assert_int_equal(p.head.serial, 77);
	assert_int_equal(len, sizeof(p.head) + sizeof(struct tranship_text));
}

static void test_versions_without_overlap(void **state)
{
	static const struct tranship_hello hello = { 7, 9 };
	struct tranship_description d;
	struct failure f = { 0 };

	(void)state;
	assert_int_equal(tranship_link_call(&tl, TRANSHIP_HELLO, &hello, -1, &d, NULL, VMM_WAIT_MS,
					    "vmm-failed", &f),
			 -EPROTONOSUPPORT);
}

static void test_noise(void **state)
{
	struct tranship_packet p;
	unsigned int seed = 12345;

	(void)state;
	for (int round = 0; round < 300; round++) {
		uint8_t *bytes = (uint8_t *)&p;
		int fd = connect_raw(vmm.socket);
		size_t len = 1 + (size_t)rand_r(&seed) % sizeof(p);

		for (size_t i = 0; i < sizeof(p); i++)
			bytes[i] = (uint8_t)rand_r(&seed);
		/* half of them look right at first sight, but for what acts on the guest */
		if (round & 1) {
			tranship_request(&p.head, (uint16_t)(round % 3), 1,
					 (uint32_t)rand_r(&seed) % 64);
			len = len < sizeof(p.head) ? sizeof(p.head) : len;
		}
		io_send_packet(fd, &p, len, NULL, 0);
		close(fd);
	}
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
	vmm_expect_none(&vmm);
}

static void test_another_user_is_refused(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(chmod(vmm.socket, 0666), 0);
	assert_int_equal(chmod(folder, 0755), 0);
	tranship_link_close(&tl);
	pid = fork();
	if (!pid) {
		static const struct tranship_hello hello = { 1, 1 };
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		struct tranship_packet p;
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		snprintf(a.sun_path, sizeof(a.sun_path), "%s", vmm.socket);
		if (setuid(65534) || connect(fd, (struct sockaddr *)&a, sizeof(a)))
			_exit(1);
		tranship_request(&p.head, TRANSHIP_HELLO, 1, sizeof(hello));
		memcpy(&p.body, &hello, sizeof(hello));
		send(fd, &p, sizeof(p.head) + sizeof(hello), MSG_NOSIGNAL);
		/* the end, or a reset because it never read what we asked */
		_exit(recv(fd, &p, sizeof(p), 0) > 0 ? 2 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	open_link();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		AT_SOURCE(test_malformed_packets_end_the_connection),
		AT_SOURCE(test_hello_comes_first),
		AT_SOURCE(test_oversized_packet),
		AT_SOURCE(test_unknown_request_is_answered),
		AT_SOURCE(test_versions_without_overlap),
		AT_SOURCE(test_noise),
		AT_SOURCE(test_another_user_is_refused),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
