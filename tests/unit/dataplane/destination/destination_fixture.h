/* SPDX-License-Identifier: MIT */
/*
 * The destination's data plane in a process of its own, in its real sandbox, with the test in the
 * place of transhipd and of the source. Include after cmocka.h; each test program includes it once.
 */
#ifndef TRANSHIP_TESTS_DESTINATION_FIXTURE_H
#define TRANSHIP_TESTS_DESTINATION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/setup.h"
#include "dataplane/transport/stream_auth.h"
#include "dataplane/transport/wire.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/log.h"

#define STREAMS	    2
#define WAIT_MS	    20000
#define RAM_SIZE    (2ull * CHUNK_BYTES + 3 * PAGE_BYTES)
#define SECOND_SIZE (1ull * CHUNK_BYTES)
#define STATE_MAX   (1u << 20)
#define STRANGERS   16 /* destination_internal.h */

struct session {
	struct ipc_config config;
	struct region regions[2]; /* as the source sees them; fd and map shared with the child */
	pid_t pid;
	int sock;
	struct sockaddr_in address;
	int streams[STREAMS];
	struct ipc_message last;
	struct ipc_stats progress; /* of the last PROGRESS */
};

static struct session S;

static inline _Noreturn void child(int sock, int listener)
{
	struct setup s = { .sock = sock,
			   .config = S.config,
			   .nregions = 2,
			   .pagemap_fd = -1,
			   .listen_fds = { listener },
			   .nlisteners = 1 };
	struct failure f = { 0 };
	int err;

	signal(SIGPIPE, SIG_IGN);
	log_init("destination", LOG_LEVEL_ERROR);
	s.regions = calloc(2, sizeof(*s.regions));
	for (uint32_t i = 0; s.regions && i < 2; i++) {
		s.regions[i] = S.regions[i];
		s.regions[i].map = NULL;
	}
	err = s.regions ? destination_run(&s, &f) : -ENOMEM;
	if (err)
		ipc_send(sock, IPC_FAILED, &f, -1);
	_exit(err ? 1 : 0);
}

static inline void make_region(uint32_t i, uint64_t size)
{
	S.regions[i] = (struct region){ .index = i, .page_size = PAGE_BYTES, .size = size };
	S.regions[i].fd = memfd_create("test-destination", MFD_CLOEXEC);
	assert_true(S.regions[i].fd >= 0);
	assert_int_equal(ftruncate(S.regions[i].fd, (off_t)size), 0);
	assert_int_equal(region_map(&S.regions[i], true), 0);
}

static inline void start(unsigned int connect_ms)
{
	int sv[2], listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(S.address);

	memset(&S, 0, sizeof(S));
	S.streams[0] = S.streams[1] = -1;
	S.config = (struct ipc_config){ .role = IPC_ROLE_DESTINATION,
					.regions = 2,
					.streams = STREAMS,
					.state_max = STATE_MAX,
					.connect_ms = connect_ms };
	memset(S.config.id, 0x1d, sizeof(S.config.id));
	memset(S.config.secret, 0x5e, sizeof(S.config.secret));
	make_region(0, RAM_SIZE);
	make_region(1, SECOND_SIZE);
	S.address.sin_family = AF_INET;
	S.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&S.address, sizeof(S.address)), 0);
	assert_int_equal(listen(listener, 64), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&S.address, &len), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	S.pid = fork();
	assert_true(S.pid >= 0);
	if (!S.pid) {
		close(sv[0]);
		child(sv[1], listener);
	}
	close(sv[1]);
	close(listener);
	S.sock = sv[0];
}

static inline void expect(enum ipc_type type)
{
	int fd, err;

	do {
		err = ipc_recv(S.sock, &S.last, &fd, WAIT_MS);
	} while (!err && S.last.head.type == IPC_PROGRESS);
	if (!err && S.last.head.type == IPC_FAILED && type != IPC_FAILED)
		print_message("%s: %s\n", S.last.body.failure.code, S.last.body.failure.message);
	assert_int_equal(err, 0);
	assert_string_equal(ipc_type_name(S.last.head.type), ipc_type_name(type));
}

static inline void expect_failure(const char *code)
{
	expect(IPC_FAILED);
	assert_string_equal(S.last.body.failure.code, code);
	assert_true(S.last.body.failure.message[0]);
}

static inline int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&S.address, sizeof(S.address))) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static inline int join_stream(uint32_t index)
{
	struct failure f = { 0 };
	int fd = dial(), err;

	assert_true(fd >= 0);
	err = stream_auth_source(fd, &S.config, index, clock_ns() + WAIT_MS * NSEC_PER_MSEC, &f);
	if (err)
		print_message("%s\n", f.message);
	assert_int_equal(err, 0);
	return fd;
}

static inline void start_connected(void)
{
	start(WAIT_MS);
	expect(IPC_READY);
	assert_true(S.last.body.ready.rx_reason[0]);
	for (uint32_t i = 0; i < STREAMS; i++)
		S.streams[i] = join_stream(i);
	expect(IPC_CONNECTED);
}

/* Waits for the process; its exit status must be as given. */
static inline void stop(int status)
{
	int got;

	assert_int_equal(waitpid(S.pid, &got, 0), S.pid);
	assert_true(WIFEXITED(got));
	assert_int_equal(WEXITSTATUS(got), status);
	close(S.sock);
	for (uint32_t i = 0; i < STREAMS; i++)
		if (S.streams[i] >= 0)
			close(S.streams[i]);
	for (uint32_t i = 0; i < 2; i++)
		region_release(&S.regions[i]);
}

static inline void quit(void)
{
	assert_int_equal(ipc_send(S.sock, IPC_QUIT, NULL, -1), 0);
	stop(0);
}

static inline void put(int fd, const void *bytes, size_t len)
{
	assert_int_equal(io_write_full(fd, bytes, len), 0);
}

static inline void put_frame(int fd, struct wire_frame f)
{
	uint8_t bytes[WIRE_FRAME_SIZE];

	wire_put_frame(bytes, &f);
	put(fd, bytes, sizeof(bytes));
}

static inline struct wire_frame get_ack(int fd, enum wire_frame_type of)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint8_t bytes[WIRE_FRAME_SIZE];
	struct wire_frame f;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(io_read_full(fd, bytes, sizeof(bytes)), 0);
	assert_int_equal(wire_get_frame(&f, bytes, S.regions, 2), 0);
	assert_int_equal(f.type, WIRE_ACK);
	assert_int_equal(f.of, of);
	return f;
}

/* One run of pages of one byte value; value 0 is sent as ZERO. */
static inline void put_pages(int fd, uint16_t region, uint64_t chunk, uint16_t page, uint16_t pages,
			     uint8_t value)
{
	static uint8_t payload[WIRE_RUN_SIZE + CHUNK_BYTES];
	struct wire_run r = { .page = page,
			      .pages = pages,
			      .encoding = value ? WIRE_ENC_RAW : WIRE_ENC_ZERO,
			      .length = value ? pages * PAGE_BYTES : 0 };

	wire_put_run(payload, &r);
	memset(payload + WIRE_RUN_SIZE, value, r.length);
	put_frame(fd, (struct wire_frame){ .type = WIRE_PAGES,
					   .region = region,
					   .count = 1,
					   .offset = chunk * CHUNK_BYTES,
					   .length = WIRE_RUN_SIZE + r.length });
	put(fd, payload, WIRE_RUN_SIZE + r.length);
}

static inline void round_end(uint32_t number)
{
	for (uint32_t i = 0; i < STREAMS; i++)
		put_frame(S.streams[i],
			  (struct wire_frame){ .type = WIRE_ROUND_END, .number = number });
	for (uint32_t i = 0; i < STREAMS; i++)
		assert_int_equal(get_ack(S.streams[i], WIRE_ROUND_END).number, number);
}

static inline void assert_bytes(uint32_t region, uint64_t page, uint64_t pages, uint8_t value)
{
	const uint8_t *p = S.regions[region].map + page * PAGE_BYTES;

	for (uint64_t i = 0; i < pages * PAGE_BYTES; i++)
		if (p[i] != value)
			fail_msg("region %u, page %lu: %u instead of %u", region,
				 (unsigned long)(page + i / PAGE_BYTES), p[i], value);
}

static inline void put_state(int fd, const uint8_t *bytes, uint32_t len)
{
	put_frame(fd, (struct wire_frame){ .type = WIRE_STATE, .length = len });
	put(fd, bytes, len);
}

/* Sends a state of len bytes in unequal pieces, and its end. */
static inline void send_state(const uint8_t *bytes, uint32_t len)
{
	uint32_t at = 0, piece = 1;

	for (; at < len; at += piece) {
		piece = piece * 7 % 250001 + 1;
		if (piece > len - at)
			piece = len - at;
		put_state(S.streams[0], bytes + at, piece);
	}
	put_frame(S.streams[0], (struct wire_frame){ .type = WIRE_STATE_END, .extent = len });
	get_ack(S.streams[0], WIRE_STATE_END);
	expect(IPC_STATE_DONE);
	assert_int_equal(S.last.body.count.bytes, len);
}

static inline uint8_t *some_state(uint32_t len)
{
	uint8_t *p = malloc(len);

	assert_non_null(p);
	for (uint32_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 31 + (i >> 8));
	return p;
}

#endif
