// SPDX-License-Identifier: MIT
/* Post-copy's two data planes against a peer that says what it must not: it ends them, no more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dataplane/transport/stream_auth.h"
#include "dataplane/transport/wire.h"
#include "tests/unit/dataplane/postcopy/vmm.h"

#define STREAMS 2u

static struct vmm v;
static int streams[STREAMS];

static void prepare(void)
{
	v = (struct vmm){ .p = PAIR_INIT(STREAMS, IPC_TX_SEND) };
	v.p.size[0] = (4u << 20) + 5 * PAGE_BYTES;
	if (!vmm_init(&v, STREAMS))
		skip();
}

static void put(int fd, const struct wire_frame *f, const void *payload, size_t most)
{
	size_t length = f->length < most ? f->length : most;
	uint8_t head[WIRE_FRAME_SIZE];

	wire_put_frame(head, f);
	/* the other end may have had enough already */
	if (send(fd, head, sizeof(head), MSG_NOSIGNAL) == sizeof(head) && length)
		(void)!send(fd, payload, length, MSG_NOSIGNAL);
}

static void expect_protocol_failure(struct pair_side *s)
{
	assert_string_equal(vmm_expect(s, IPC_FAILED)->failure.code, "data-protocol");
	assert_int_equal(pair_wait(s), 1);
	for (uint32_t i = 0; i < STREAMS; i++)
		close(streams[i]);
}

/* --- the destination, told by a hostile source ------------------------------------------------ */

static void be_the_source(bool serve, bool refuse_encodings)
{
	struct ipc_config c;
	struct sockaddr_in at;
	struct failure f = { 0 };

	prepare();
	v.p.encodings_refused = refuse_encodings;
	c = pair_config(&v.p, IPC_ROLE_POSTCOPY_SOURCE);
	vmm_start_destination(&v, &at);
	for (uint32_t i = 0; i < STREAMS; i++) {
		streams[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		pair_check(!connect(streams[i], (struct sockaddr *)&at, sizeof(at)));
		assert_int_equal(
			stream_auth_source(streams[i], &c, i, clock_ns() + 10 * NSEC_PER_SEC, &f),
			0);
	}
	pair_expect(&v.p.dst, IPC_CONNECTED);
	if (!serve)
		return;
	pair_send(&v.p.dst, IPC_SERVE, NULL, -1);
	pair_expect(&v.p.dst, IPC_SERVING);
}

static const struct {
	const char *what;
	uint32_t stream;
	bool early;    /* before SERVE */
	bool refusing; /* all encodings */
	struct wire_frame f;
	uint8_t payload[WIRE_RUN_SIZE + 100]; /* of f.length bytes */
} at_destination[] = {
	{ "pages before they were asked for",
	  1,
	  true,
	  false,
	  { .type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE },
	  { 0, 0, 1, 0, WIRE_ENC_ZERO } },
	{ "compressed pages that were not agreed on",
	  1,
	  false,
	  true,
	  { .type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE + 100 },
	  { 0, 0, 1, 0, WIRE_ENC_ZSTD, 0, 0, 0, 100 } },
	{ "compressed pages that do not expand",
	  1,
	  false,
	  false,
	  { .type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE + 100 },
	  { 0, 0, 1, 0, WIRE_ENC_ZSTD, 0, 0, 0, 100 } },
	{ "changes of pages",
	  1,
	  false,
	  false,
	  { .type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE + 100 },
	  { 0, 0, 1, 0, WIRE_ENC_DELTA, 0, 0, 0, 100 } },
	{ "an overlong run",
	  1,
	  false,
	  false,
	  { .type = WIRE_PAGES, .offset = 2 * CHUNK_BYTES, .count = 1, .length = WIRE_RUN_SIZE },
	  { 0, 0, 6, 0, WIRE_ENC_ZERO } },
	{ "a request", 0, false, false, { .type = WIRE_REQUEST, .extent = PAGE_BYTES }, { 0 } },
	{ "a set", 0, false, false, { .type = WIRE_MISSING_END }, { 0 } },
	{ "holes", 1, false, false, { .type = WIRE_HOLES, .extent = PAGE_BYTES }, { 0 } },
	{ "state", 0, false, false, { .type = WIRE_STATE, .length = 8 }, { 0 } },
	{ "nothing known", 1, false, false, { .type = 99 }, { 0 } },
};

static void test_destination(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(at_destination) / sizeof(at_destination[0]); i++) {
		const struct wire_frame *f = &at_destination[i].f;

		print_message("%s\n", at_destination[i].what);
		be_the_source(!at_destination[i].early, at_destination[i].refusing);
		put(streams[at_destination[i].stream], f, at_destination[i].payload,
		    sizeof(at_destination[i].payload));
		expect_protocol_failure(&v.p.dst);
		vmm_release(&v);
	}
}

/* What is not missing belongs to the guest: a source that sends it all the same writes nothing. */
static void test_pages_that_are_there(void **state)
{
	struct wire_frame f = { .type = WIRE_PAGES,
				.offset = 2 * CHUNK_BYTES, /* of vmm_fill: nothing is missing */
				.count = 1,
				.length = WIRE_RUN_SIZE + PAGE_BYTES };
	struct wire_frame end = { .type = WIRE_ROUND_END, .number = 1 };
	uint8_t payload[WIRE_RUN_SIZE + PAGE_BYTES], ack[WIRE_FRAME_SIZE], before[4096];
	uint64_t *words;

	(void)state;
	be_the_source(false, false);
	words = page_set_chunk(&v.missing, 0, 2);
	words[0] = 0;
	pair_send(&v.p.dst, IPC_SERVE, NULL, -1);
	pair_expect(&v.p.dst, IPC_SERVING);
	pair_check(pread(v.p.dst_ram[0], before, 4096, 2 * CHUNK_BYTES) == 4096);
	memset(payload, 0xaa, sizeof(payload));
	wire_put_run(payload, &(struct wire_run){
				      .pages = 1, .encoding = WIRE_ENC_RAW, .length = PAGE_BYTES });
	put(streams[1], &f, payload, sizeof(payload));
	put(streams[1], &end, NULL, 0);
	/* before the acknowledgement comes the set, on the same stream */
	for (bool acked = false; !acked;) {
		struct wire_frame in;
		uint8_t skip_bytes[WIRE_MISSING_SIZE];

		pair_check(recv(streams[1], ack, sizeof(ack), MSG_WAITALL) == sizeof(ack));
		assert_int_equal(wire_get_frame(&in, ack, v.regions, 1), 0);
		acked = in.type == WIRE_ACK;
		for (uint32_t i = 0; i < in.length; i += WIRE_MISSING_SIZE)
			pair_check(recv(streams[1], skip_bytes, sizeof(skip_bytes), MSG_WAITALL) ==
				   sizeof(skip_bytes));
	}
	memset(payload, 0, sizeof(payload));
	pair_check(pread(v.p.dst_ram[0], payload, 4096, 2 * CHUNK_BYTES) == 4096);
	assert_memory_equal(payload, before, 4096);
	assert_int_equal(v.figures->late_pages, 1);
	pair_send(&v.p.dst, IPC_QUIT, NULL, -1);
	assert_int_equal(pair_wait(&v.p.dst), 0);
	for (uint32_t i = 0; i < STREAMS; i++)
		close(streams[i]);
	vmm_release(&v);
}

/* --- the source, told by a hostile destination ------------------------------------------------ */

static void be_the_destination(void)
{
	struct sockaddr_in at;
	struct failure f = { 0 };
	struct ipc_config c;
	int listener;

	prepare();
	c = pair_config(&v.p, IPC_ROLE_POSTCOPY_DESTINATION);
	listener = pair_listener(&at);
	vmm_start_source(&v, &at);
	for (uint32_t i = 0; i < STREAMS; i++) {
		int fd = accept(listener, NULL, NULL);
		uint32_t index;

		pair_check(fd >= 0);
		assert_int_equal(
			stream_auth_destination(fd, &c, &index, clock_ns() + 10 * NSEC_PER_SEC, &f),
			0);
		assert_true(index < STREAMS);
		streams[index] = fd;
		close(v.cut_fds[i]);
	}
	close(listener);
	pair_expect(&v.p.src, IPC_READY);
}

static const struct {
	const char *what;
	uint32_t stream;
	struct wire_frame f[2];
	uint8_t payload[WIRE_MISSING_SIZE]; /* of the first */
} at_source[] = {
	{ "a request that crosses chunks",
	  0,
	  { { .type = WIRE_REQUEST,
	      .offset = CHUNK_BYTES - PAGE_BYTES,
	      .extent = 2 * PAGE_BYTES } },
	  { 0 } },
	{ "a request from outside",
	  0,
	  { { .type = WIRE_REQUEST, .offset = 6ull << 20, .extent = PAGE_BYTES } },
	  { 0 } },
	{ "no such region",
	  0,
	  { { .type = WIRE_REQUEST, .region = 3, .extent = PAGE_BYTES } },
	  { 0 } },
	{ "an answer on the stream for faults",
	  0,
	  { { .type = WIRE_ACK, .of = WIRE_ROUND_END } },
	  { 0 } },
	{ "missing pages beyond the region",
	  1,
	  { { .type = WIRE_MISSING,
	      .offset = 2 * CHUNK_BYTES,
	      .count = 1,
	      .length = WIRE_MISSING_SIZE } },
	  { 0xff } },
	{ "another count than was named",
	  1,
	  { { .type = WIRE_MISSING, .count = 1, .length = WIRE_MISSING_SIZE },
	    { .type = WIRE_MISSING_END, .extent = 2 } },
	  { 1 } },
	{ "pages", 1, { { .type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE } }, { 0 } },
	{ "an acknowledgement of nothing",
	  1,
	  { { .type = WIRE_ACK, .of = WIRE_ROUND_END } },
	  { 0 } },
};

static void test_source(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(at_source) / sizeof(at_source[0]); i++) {
		const struct wire_frame *f = at_source[i].f;
		int fd;

		print_message("%s\n", at_source[i].what);
		be_the_destination();
		fd = streams[at_source[i].stream];
		put(fd, &f[0], at_source[i].payload, WIRE_MISSING_SIZE);
		if (f[1].type)
			put(fd, &f[1], NULL, 0);
		expect_protocol_failure(&v.p.src);
		vmm_release(&v);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_destination),
		cmocka_unit_test(test_pages_that_are_there),
		cmocka_unit_test(test_source),
	};

	signal(SIGPIPE, SIG_IGN);
	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
