// SPDX-License-Identifier: MIT
/* The destination's data plane among strangers, malformed frames and losses, and told to quit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/dataplane/destination/destination_fixture.h"

static void test_loss(void **state)
{
	(void)state;
	start_connected();
	close(S.streams[1]);
	S.streams[1] = -1;
	expect_failure("data-lost");
	stop(1);

	start_connected(); /* in the middle of a payload */
	put_frame(S.streams[0], (struct wire_frame){ .type = WIRE_PAGES,
						     .count = 1,
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
	{ "hashes that nobody asked for",
	  0,
	  { { .type = WIRE_HASHED, .region = 1, .extent = PAGE_BYTES } },
	  { 0 } },
	{ "missing pages that nobody asked for",
	  0,
	  { { .type = WIRE_MISSING, .region = 1, .count = 1, .length = WIRE_MISSING_SIZE } },
	  { 0 } },
	{ "the end of missing pages", 0, { { .type = WIRE_MISSING_END } }, { 0 } },
	{ "a request", 0, { { .type = WIRE_REQUEST, .region = 1, .extent = PAGE_BYTES } }, { 0 } },
	{ "hashes of no chunk", 1, { { .type = WIRE_HASHES, .offset = 4096 } }, { 0 } },
	{ "hashes from outside", 0, { { .type = WIRE_HASHES, .offset = 1ull << 40 } }, { 0 } },
	{ "no such region", 1, { { .type = WIRE_HOLES, .region = 2, .extent = 4096 } }, { 0 } },
	{ "holes outside", 0, { { .type = WIRE_HOLES, .extent = 1ull << 40 } }, { 0 } },
	{ "state on stream 1", 1, { { .type = WIRE_STATE, .length = 8 } }, { 0 } },
	{ "state end on stream 1", 1, { { .type = WIRE_STATE_END } }, { 0 } },
	{ "state total",
	  0,
	  { { .type = WIRE_STATE, .length = 8 }, { .type = WIRE_STATE_END, .extent = 9 } },
	  { 0 } },
	{ "state after its end",
	  0,
	  { { .type = WIRE_STATE, .length = 8 },
	    { .type = WIRE_STATE_END, .extent = 8 },
	    { .type = WIRE_STATE, .length = 8 } },
	  { 0 } },
	{ "state end twice",
	  0,
	  { { .type = WIRE_STATE, .length = 8 },
	    { .type = WIRE_STATE_END, .extent = 8 },
	    { .type = WIRE_STATE_END, .extent = 8 } },
	  { 0 } },
	{ "verify end twice",
	  1,
	  { { .type = WIRE_VERIFY_END }, { .type = WIRE_VERIFY_END } },
	  { 0 } },
	{ "more after bye", 1, { { .type = WIRE_BYE }, { .type = WIRE_BYE } }, { 0 } },
	{ "run outside the chunk",
	  0,
	  { { .type = WIRE_PAGES, .count = 1, .length = 12 } },
	  { 0xff, 0x01, 0x02, 0x00, WIRE_ENC_ZERO } },
	{ "overlapping runs",
	  0,
	  { { .type = WIRE_PAGES, .count = 2, .length = 24 } },
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
		if (S.last.head.type != IPC_FAILED ||
		    strcmp(S.last.body.failure.code, "data-protocol"))
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
	put_frame(S.streams[0],
		  (struct wire_frame){ .type = WIRE_PAGES, .count = 1, .length = sizeof(payload) });
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
	assert_int_equal(
		stream_auth_source(liar, &wrong, 0, clock_ns() + WAIT_MS * NSEC_PER_MSEC, &f),
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
			put_frame(S.streams[0],
				  (struct wire_frame){ .type = WIRE_PAGES,
						       .count = 1,
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_encoding_not_agreed_on),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_crowd_of_strangers),
		cmocka_unit_test(test_streams_that_do_not_come),
		cmocka_unit_test(test_quit_while_receiving),
		cmocka_unit_test(test_quit_before_streams_came),
		cmocka_unit_test(test_quit_while_loading),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
