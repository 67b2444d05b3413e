// SPDX-License-Identifier: MIT
/*
 * The destination's data plane in a process of its own, in its real sandbox; the test is both
 * transhipd and the source, and a few that the source is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "dataplane/setup.h"
#include "dataplane/stream_auth.h"
#include "dataplane/wire.h"
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

static _Noreturn void child(int sock, int listener)
{
	struct setup s = { .sock = sock, .config = S.config, .nregions = 2, .pagemap_fd = -1,
			   .listen_fd = listener };
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

static void make_region(uint32_t i, uint64_t size)
{
	S.regions[i] = (struct region){ .index = i, .page_size = PAGE_BYTES, .size = size };
	S.regions[i].fd = memfd_create("test-destination", MFD_CLOEXEC);
	assert_true(S.regions[i].fd >= 0);
	assert_int_equal(ftruncate(S.regions[i].fd, (off_t)size), 0);
	assert_int_equal(region_map(&S.regions[i], true), 0);
}

static void start(unsigned int connect_ms)
{
	int sv[2], listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(S.address);

	memset(&S, 0, sizeof(S));
	S.streams[0] = S.streams[1] = -1;
	S.config = (struct ipc_config){ .role = IPC_ROLE_DESTINATION, .regions = 2,
					.streams = STREAMS, .state_max = STATE_MAX,
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

static void expect(enum ipc_type type)
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

static void expect_failure(const char *code)
{
	expect(IPC_FAILED);
	assert_string_equal(S.last.body.failure.code, code);
	assert_true(S.last.body.failure.message[0]);
}

static int dial(void)
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

static int join_stream(uint32_t index)
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

static void start_connected(void)
{
	start(WAIT_MS);
	expect(IPC_READY);
	assert_true(S.last.body.ready.rx_reason[0]);
	for (uint32_t i = 0; i < STREAMS; i++)
		S.streams[i] = join_stream(i);
	expect(IPC_CONNECTED);
}

/* Waits for the process; its exit status must be as given. */
static void stop(int status)
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

static void quit(void)
{
	assert_int_equal(ipc_send(S.sock, IPC_QUIT, NULL, -1), 0);
	stop(0);
}

static void put(int fd, const void *bytes, size_t len)
{
	assert_int_equal(io_write_full(fd, bytes, len), 0);
}

static void put_frame(int fd, struct wire_frame f)
{
	uint8_t bytes[WIRE_FRAME_SIZE];

	wire_put_frame(bytes, &f);
	put(fd, bytes, sizeof(bytes));
}

static struct wire_frame get_ack(int fd, enum wire_frame_type of)
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
static void put_pages(int fd, uint16_t region, uint64_t chunk, uint16_t page, uint16_t pages,
		      uint8_t value)
{
	static uint8_t payload[WIRE_RUN_SIZE + CHUNK_BYTES];
	struct wire_run r = { .page = page, .pages = pages,
			      .encoding = value ? WIRE_ENC_RAW : WIRE_ENC_ZERO,
			      .length = value ? pages * PAGE_BYTES : 0 };

	wire_put_run(payload, &r);
	memset(payload + WIRE_RUN_SIZE, value, r.length);
	put_frame(fd, (struct wire_frame){ .type = WIRE_PAGES, .region = region, .count = 1,
					   .offset = chunk * CHUNK_BYTES,
					   .length = WIRE_RUN_SIZE + r.length });
	put(fd, payload, WIRE_RUN_SIZE + r.length);
}

static void round_end(uint32_t number)
{
	for (uint32_t i = 0; i < STREAMS; i++)
		put_frame(S.streams[i], (struct wire_frame){ .type = WIRE_ROUND_END,
							     .number = number });
	for (uint32_t i = 0; i < STREAMS; i++)
		assert_int_equal(get_ack(S.streams[i], WIRE_ROUND_END).number, number);
}

static void assert_bytes(uint32_t region, uint64_t page, uint64_t pages, uint8_t value)
{
	const uint8_t *p = S.regions[region].map + page * PAGE_BYTES;

	for (uint64_t i = 0; i < pages * PAGE_BYTES; i++)
		if (p[i] != value)
			fail_msg("region %u, page %lu: %u instead of %u", region,
				 (unsigned long)(page + i / PAGE_BYTES), p[i], value);
}

static void test_rounds(void **state)
{
	(void)state;
	start_connected();
	memset(S.regions[1].map, 9, SECOND_SIZE); /* not empty before */
	put_pages(S.streams[0], 0, 0, 0, 512, 1);
	put_pages(S.streams[1], 0, 1, 100, 1, 2);
	put_pages(S.streams[0], 0, 2, 0, 3, 3);
	put_frame(S.streams[1], (struct wire_frame){ .type = WIRE_HOLES, .region = 1,
						     .extent = 10 * PAGE_BYTES });
	round_end(1);
	/* acknowledged means in place */
	assert_bytes(0, 0, 512, 1);
	assert_bytes(0, 512, 100, 0);
	assert_bytes(0, 612, 1, 2);
	assert_bytes(0, 1024, 3, 3);
	assert_bytes(1, 0, 10, 0);
	assert_bytes(1, 10, 502, 9);
	for (uint8_t n = 2; n < 40; n++) {
		put_pages(S.streams[n & 1], 0, 0, 7, 5, n);
		put_pages(S.streams[(n + 1) & 1], 1, 0, 7, 5, n & 2 ? n : 0);
		round_end(n);
		assert_bytes(0, 7, 5, n);
		assert_bytes(1, 7, 5, n & 2 ? n : 0);
	}
	quit();
}

static void put_state(int fd, const uint8_t *bytes, uint32_t len)
{
	put_frame(fd, (struct wire_frame){ .type = WIRE_STATE, .length = len });
	put(fd, bytes, len);
}

/* PROGRESS comes while something moves, and the last one tells all of it. */
static void test_progress(void **state)
{
	const uint64_t pages = 40 * 17 + 100;
	const struct ipc_stats *p = &S.progress;

	(void)state;
	start_connected();
	for (unsigned int i = 0; i < 40; i++) {
		put_pages(S.streams[0], 0, 0, 0, 16, 1);
		put_pages(S.streams[1], 1, 0, 0, 1, 0);
	}
	put_frame(S.streams[1], (struct wire_frame){ .type = WIRE_HOLES, .extent = 100 * PAGE_BYTES,
						     .region = 1 });
	put_state(S.streams[0], (const uint8_t *)"state", 5);
	round_end(1);
	do {
		int fd;

		assert_int_equal(ipc_recv(S.sock, &S.last, &fd, WAIT_MS), 0);
		assert_int_equal(S.last.head.type, IPC_PROGRESS);
		S.progress = S.last.body.stats;
		assert_true(p->sent_pages <= pages);
	} while (p->sent_pages < pages);
	assert_int_equal(p->raw_bytes, 40 * 16 * PAGE_BYTES);
	assert_int_equal(p->zero_bytes, 40 * PAGE_BYTES);
	assert_int_equal(p->hole_bytes, 100 * PAGE_BYTES);
	assert_int_equal(p->state_bytes, 5);
	/* frames: 80 of pages, holes, state, two round ends */
	assert_int_equal(p->wire_bytes, 84 * WIRE_FRAME_SIZE + 80 * WIRE_RUN_SIZE + p->raw_bytes + 5);
	assert_true(p->cpu_ns > 0 && p->rss_bytes > 0);
	assert_true(p->rss_bytes < 64u << 20);
	quit();
}

/* Sends a state of len bytes in unequal pieces, and its end. */
static void send_state(const uint8_t *bytes, uint32_t len)
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

static uint8_t *some_state(uint32_t len)
{
	uint8_t *p = malloc(len);

	assert_non_null(p);
	for (uint32_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 31 + (i >> 8));
	return p;
}

/* Has the state loaded through fd[1] and reads it from fd[0]. */
static void load_through(int fd[2], const uint8_t *wanted, uint32_t len)
{
	uint8_t *got = malloc(len + 1);
	size_t n = 0;
	ssize_t r;

	assert_non_null(got);
	assert_int_equal(ipc_send(S.sock, IPC_LOAD, NULL, fd[1]), 0);
	close(fd[1]);
	while ((r = read(fd[0], got + n, len + 1 - n)) > 0)
		n += (size_t)r;
	assert_int_equal(r, 0); /* it closes its end */
	close(fd[0]);
	assert_int_equal(n, len);
	assert_memory_equal(got, wanted, len);
	free(got);
	expect(IPC_LOADED);
	assert_int_equal(S.last.body.count.bytes, len);
}

static void test_device_state(void **state)
{
	uint8_t *bytes = some_state(700000);
	int fd[2];

	(void)state;
	start_connected();
	send_state(bytes, 700000);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	load_through(fd, bytes, 700000);
	assert_int_equal(pipe(fd), 0); /* and again, another way */
	load_through(fd, bytes, 700000);
	/* pages may still come */
	put_pages(S.streams[1], 0, 1, 0, 512, 4);
	round_end(3);
	assert_bytes(0, 512, 512, 4);
	quit();
	free(bytes);
}

static void test_state_at_its_limit(void **state)
{
	uint8_t *bytes = some_state(STATE_MAX + 1);

	(void)state;
	start_connected();
	send_state(bytes, STATE_MAX);
	quit();
	start_connected();
	for (uint32_t at = 0; at < STATE_MAX; at += WIRE_STATE_MAX)
		put_state(S.streams[0], bytes + at, WIRE_STATE_MAX);
	put_state(S.streams[0], bytes, 1);
	expect_failure("state-failed");
	stop(1);
	free(bytes);
}

static void test_empty_state(void **state)
{
	int fd[2];

	(void)state;
	start_connected();
	send_state(NULL, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	load_through(fd, (const uint8_t *)"", 0);
	quit();
}

/* The VMM that should load is gone. */
static void test_load_into_nothing(void **state)
{
	uint8_t *bytes = some_state(1000);
	int fd[2];

	(void)state;
	start_connected();
	send_state(bytes, 1000);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	close(fd[0]);
	assert_int_equal(ipc_send(S.sock, IPC_LOAD, NULL, fd[1]), 0);
	close(fd[1]);
	expect_failure("state-failed");
	stop(1);
	free(bytes);
}

static void test_load_before_the_state_is_complete(void **state)
{
	int fd[2];

	(void)state;
	start_connected();
	put_state(S.streams[0], (const uint8_t *)"abc", 3);
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(ipc_send(S.sock, IPC_LOAD, NULL, fd[1]), 0);
	close(fd[0]);
	close(fd[1]);
	expect_failure("internal");
	stop(1);
}

/* Hashes of all chunks of a region from its present content, one spoilt if wanted. */
static void put_hashes(int fd, uint32_t region, uint64_t spoilt)
{
	const struct region *r = &S.regions[region];
	uint64_t hashes[8];
	uint32_t n = 0;

	for (uint64_t at = 0; at < r->size; at += CHUNK_BYTES, n++) {
		uint64_t len = r->size - at < CHUNK_BYTES ? r->size - at : CHUNK_BYTES;
		uint64_t h = XXH3_64bits(r->map + at, len);

		hashes[n] = htole64(n == spoilt ? h ^ 1 : h);
	}
	put_frame(fd, (struct wire_frame){ .type = WIRE_VERIFY, .region = (uint16_t)region,
					   .count = n, .length = n * WIRE_HASH_SIZE });
	put(fd, hashes, n * WIRE_HASH_SIZE);
}

static void verify(uint64_t spoilt0, uint64_t spoilt1, struct wire_frame acks[STREAMS])
{
	put_hashes(S.streams[0], 1, spoilt1);
	put_hashes(S.streams[1], 0, spoilt0);
	for (uint32_t i = 0; i < STREAMS; i++)
		put_frame(S.streams[i], (struct wire_frame){ .type = WIRE_VERIFY_END });
	for (uint32_t i = 0; i < STREAMS; i++)
		acks[i] = get_ack(S.streams[i], WIRE_VERIFY_END);
	expect(IPC_VERIFIED);
	assert_int_equal(S.last.body.verified.chunks, 4);
}

static void test_verify(void **state)
{
	const struct ipc_verified *v = &S.last.body.verified;
	struct wire_frame acks[STREAMS];

	(void)state;
	start_connected();
	put_pages(S.streams[0], 0, 2, 0, 3, 8); /* chunk 1 stays a hole */
	put_pages(S.streams[0], 0, 0, 0, 512, 7);
	round_end(1);
	for (unsigned int i = 0; i < 3; i++) {
		verify(UINT64_MAX, UINT64_MAX, acks);
		assert_int_equal(v->mismatches, 0);
		assert_true(!acks[0].extent && !acks[1].extent);
	}
	verify(2, 0, acks);
	assert_int_equal(v->mismatches, 2);
	assert_int_equal(v->first_region, 0);
	assert_int_equal(v->first_offset, 2ull * CHUNK_BYTES);
	assert_int_equal(acks[0].extent, 1);
	assert_int_equal(acks[0].region, 1);
	assert_int_equal(acks[1].extent, 1);
	assert_int_equal(acks[1].offset, 2ull * CHUNK_BYTES);
	quit();
}

static void test_bye_is_a_clean_end(void **state)
{
	uint8_t *bytes = some_state(100);
	int fd[2];

	(void)state;
	start_connected();
	send_state(bytes, 100);
	for (uint32_t i = 0; i < STREAMS; i++) {
		char byte;

		put_frame(S.streams[i], (struct wire_frame){ .type = WIRE_BYE });
		shutdown(S.streams[i], SHUT_WR);
		assert_int_equal(recv(S.streams[i], &byte, 1, 0), 0); /* closed there as well */
	}
	/* what it holds outlives the streams */
	assert_int_equal(pipe(fd), 0);
	load_through(fd, bytes, 100);
	quit();
	free(bytes);
}

static void test_loss(void **state)
{
	(void)state;
	start_connected();
	close(S.streams[1]);
	S.streams[1] = -1;
	expect_failure("data-lost");
	stop(1);

	start_connected(); /* in the middle of a payload */
	put_frame(S.streams[0], (struct wire_frame){ .type = WIRE_PAGES, .count = 1,
						     .length = WIRE_RUN_SIZE + PAGE_BYTES });
	shutdown(S.streams[0], SHUT_WR);
	expect_failure("data-lost");
	stop(1);
}

static const struct {
	const char *what;
	uint32_t stream;
	struct wire_frame frames[3];
	uint8_t payload[24]; /* behind the first frame, as long as it says */
} malformed[] = {
	{ "unknown type", 0, { { .type = 77 } }, { 0 } },
	{ "type zero", 0, { { .type = 0 } }, { 0 } },
	{ "an answer as a question", 0, { { .type = WIRE_ACK, .of = WIRE_ROUND_END } }, { 0 } },
	{ "no such region", 1, { { .type = WIRE_HOLES, .region = 2, .extent = 4096 } }, { 0 } },
	{ "holes outside", 0, { { .type = WIRE_HOLES, .extent = 1ull << 40 } }, { 0 } },
	{ "state on stream 1", 1, { { .type = WIRE_STATE, .length = 8 } }, { 0 } },
	{ "state end on stream 1", 1, { { .type = WIRE_STATE_END } }, { 0 } },
	{ "state total", 0, { { .type = WIRE_STATE, .length = 8 },
			      { .type = WIRE_STATE_END, .extent = 9 } }, { 0 } },
	{ "state after its end", 0, { { .type = WIRE_STATE, .length = 8 },
				      { .type = WIRE_STATE_END, .extent = 8 },
				      { .type = WIRE_STATE, .length = 8 } }, { 0 } },
	{ "state end twice", 0, { { .type = WIRE_STATE, .length = 8 },
				  { .type = WIRE_STATE_END, .extent = 8 },
				  { .type = WIRE_STATE_END, .extent = 8 } }, { 0 } },
	{ "verify end twice", 1, { { .type = WIRE_VERIFY_END }, { .type = WIRE_VERIFY_END } }, { 0 } },
	{ "more after bye", 1, { { .type = WIRE_BYE }, { .type = WIRE_BYE } }, { 0 } },
	{ "run outside the chunk", 0, { { .type = WIRE_PAGES, .count = 1, .length = 12 } },
	  { 0xff, 0x01, 0x02, 0x00, WIRE_ENC_ZERO } },
	{ "overlapping runs", 0, { { .type = WIRE_PAGES, .count = 2, .length = 24 } },
	  { 0, 0, 2, 0, WIRE_ENC_ZERO, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, WIRE_ENC_ZERO } },
};

static void test_malformed(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		int fd;

		start_connected();
		fd = S.streams[malformed[i].stream];
		put_frame(fd, malformed[i].frames[0]);
		put(fd, malformed[i].payload, malformed[i].frames[0].length);
		for (unsigned int n = 1; n < 3 && malformed[i].frames[n].type; n++)
			put_frame(fd, malformed[i].frames[n]);
		/* a state that was right first is reported, or overtaken by the failure */
		do {
			int none;

			assert_int_equal(ipc_recv(S.sock, &S.last, &none, WAIT_MS), 0);
		} while (S.last.head.type == IPC_PROGRESS || S.last.head.type == IPC_STATE_DONE);
		if (S.last.head.type != IPC_FAILED || strcmp(S.last.body.failure.code, "data-protocol"))
			fail_msg("%s: %s", malformed[i].what, S.last.body.failure.code);
		stop(1);
	}
}

static void test_encoding_not_agreed_on(void **state)
{
	struct wire_run r = { .pages = 1, .encoding = WIRE_ENC_ZSTD, .length = 5 };
	uint8_t payload[WIRE_RUN_SIZE + 5] = { 0 };

	(void)state;
	start_connected();
	wire_put_run(payload, &r);
	put_frame(S.streams[0], (struct wire_frame){ .type = WIRE_PAGES, .count = 1,
						     .length = sizeof(payload) });
	put(S.streams[0], payload, sizeof(payload));
	expect_failure("data-protocol");
	stop(1);
}

/* True once the other side has closed the connection. */
static bool is_dropped(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char bytes[256];
	ssize_t n;

	do {
		if (poll(&p, 1, WAIT_MS) != 1)
			return false;
		n = recv(fd, bytes, sizeof(bytes), 0);
	} while (n > 0);
	return n == 0 || errno == ECONNRESET;
}

/* Whoever else finds the port costs the session nothing. */
static void test_strangers(void **state)
{
	struct ipc_config wrong;
	struct failure f = { 0 };
	int silent[3], garbage, liar, late;
	char noise[5000];

	(void)state;
	start(WAIT_MS);
	expect(IPC_READY);
	for (int i = 0; i < 3; i++)
		silent[i] = dial();
	memset(noise, 'n', sizeof(noise));
	garbage = dial();
	put(garbage, noise, sizeof(noise));
	assert_true(is_dropped(garbage));
	wrong = S.config;
	wrong.secret[0] ^= 1;
	liar = dial();
	assert_int_equal(stream_auth_source(liar, &wrong, 0, clock_ns() + WAIT_MS * NSEC_PER_MSEC, &f),
			 -EACCES);
	close(liar);
	S.streams[0] = join_stream(0);
	/* the same stream once more: the first one keeps it */
	late = join_stream(0);
	assert_true(is_dropped(late));
	S.streams[1] = join_stream(1);
	expect(IPC_CONNECTED);
	for (int i = 0; i < 3; i++) {
		assert_true(is_dropped(silent[i]));
		close(silent[i]);
	}
	assert_int_equal(dial(), -ECONNREFUSED);
	put_pages(S.streams[0], 0, 0, 0, 512, 1);
	round_end(1);
	assert_bytes(0, 0, 512, 1);
	close(garbage);
	close(late);
	quit();
}

/* More silent connections than there is room for: the old ones go, the streams come through. */
static void test_crowd_of_strangers(void **state)
{
	int silent[STRANGERS + STREAMS + 4];

	(void)state;
	start(WAIT_MS);
	expect(IPC_READY);
	for (size_t i = 0; i < sizeof(silent) / sizeof(silent[0]); i++)
		silent[i] = dial();
	for (uint32_t i = 0; i < STREAMS; i++)
		S.streams[i] = join_stream(i);
	expect(IPC_CONNECTED);
	for (size_t i = 0; i < sizeof(silent) / sizeof(silent[0]); i++) {
		assert_true(is_dropped(silent[i]));
		close(silent[i]);
	}
	quit();
}

static void test_streams_that_do_not_come(void **state)
{
	uint64_t begin = clock_ns();

	(void)state;
	start(60);
	expect(IPC_READY);
	S.streams[0] = join_stream(0);
	expect_failure("data-connect");
	assert_true(clock_ns() - begin >= 60 * NSEC_PER_MSEC);
	stop(1);
}

/* Threads sit in receives: before a frame, in its descriptors, in a payload. */
static void test_quit_while_receiving(void **state)
{
	struct wire_run r = { .pages = 512, .length = CHUNK_BYTES };
	uint8_t run[WIRE_RUN_SIZE];

	(void)state;
	for (unsigned int how = 0; how < 4; how++) {
		start_connected();
		if (how >= 1)
			put_frame(S.streams[0], (struct wire_frame){
							.type = WIRE_PAGES, .count = 1,
							.length = WIRE_RUN_SIZE + CHUNK_BYTES });
		if (how >= 2) {
			wire_put_run(run, &r);
			put(S.streams[0], run, sizeof(run));
			put(S.streams[0], run, sizeof(run)); /* some payload */
		}
		if (how == 3) { /* transhipd dies */
			shutdown(S.sock, SHUT_RDWR);
			stop(0);
		} else {
			quit();
		}
	}
}

static void test_quit_before_streams_came(void **state)
{
	int silent;

	(void)state;
	start(WAIT_MS);
	expect(IPC_READY);
	silent = dial();
	quit();
	close(silent);
}

/* The VMM does not read: the load waits, QUIT does not. */
static void test_quit_while_loading(void **state)
{
	uint8_t *bytes = some_state(STATE_MAX);
	struct pollfd p;
	int fd[2];

	(void)state;
	start_connected();
	send_state(bytes, STATE_MAX);
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(ipc_send(S.sock, IPC_LOAD, NULL, fd[1]), 0);
	close(fd[1]);
	p = (struct pollfd){ .fd = fd[0], .events = POLLIN };
	assert_int_equal(poll(&p, 1, WAIT_MS), 1); /* it has begun */
	quit();
	close(fd[0]);
	free(bytes);
}

static void test_messages_not_for_a_destination(void **state)
{
	struct ipc_limit limit = { .rate_limit = 1 };
	struct ipc_send order = { .round = 1 };

	(void)state;
	start_connected();
	assert_int_equal(ipc_send(S.sock, IPC_LIMIT, &limit, -1), 0); /* harmless */
	assert_int_equal(ipc_send(S.sock, IPC_SEND, &order, -1), 0);
	expect_failure("internal");
	stop(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_progress),
		cmocka_unit_test(test_device_state),
		cmocka_unit_test(test_state_at_its_limit),
		cmocka_unit_test(test_empty_state),
		cmocka_unit_test(test_load_into_nothing),
		cmocka_unit_test(test_load_before_the_state_is_complete),
		cmocka_unit_test(test_verify),
		cmocka_unit_test(test_bye_is_a_clean_end),
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_encoding_not_agreed_on),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_crowd_of_strangers),
		cmocka_unit_test(test_streams_that_do_not_come),
		cmocka_unit_test(test_quit_while_receiving),
		cmocka_unit_test(test_quit_before_streams_came),
		cmocka_unit_test(test_quit_while_loading),
		cmocka_unit_test(test_messages_not_for_a_destination),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
