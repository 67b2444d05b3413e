// SPDX-License-Identifier: MIT
/*
 * The listening data plane of a bench, in a process of its own and in its real sandbox, with the
 * test in the place of transhipd and of the side that connects: what it believes, what it answers,
 * how it ends. And both sides as real ones: everything that arrives is what was sent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "dataplane/setup.h"
#include "dataplane/transport/stream_auth.h"
#include "dataplane/transport/wire.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "lib/base/log.h"

#define WAIT_MS 20000
#define WINDOW	(2u * CHUNK_BYTES)

struct side {
	pid_t pid;
	int sock;
};

static struct ipc_config config;
static struct ipc_bench bench;
static uint32_t tx;
static enum ipc_compress compress;
static uint32_t level;
static struct side listening, connecting;
static struct sockaddr_in address;
static struct region window = { .page_size = PAGE_BYTES, .size = WINDOW };
static uint8_t chunk[CHUNK_BYTES];

static _Noreturn void child(int sock)
{
	struct failure f = { 0 };
	struct setup s;
	int err;

	signal(SIGPIPE, SIG_IGN);
	log_init("bench", LOG_LEVEL_ERROR);
	err = setup_receive(&s, sock, &f);
	if (!err)
		err = bench_run(&s, &f);
	if (err)
		ipc_send(sock, IPC_FAILED, &f, -1);
	_exit(err ? 1 : 0);
}

/* A side that has its CONFIG and BENCH. */
static void start(struct side *s, enum ipc_role role)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (!s->pid) {
		close(sv[0]);
		child(sv[1]);
	}
	close(sv[1]);
	s->sock = sv[0];
	config.role = role;
	assert_int_equal(ipc_send(s->sock, IPC_CONFIG, &config, -1), 0);
	assert_int_equal(ipc_send(s->sock, IPC_BENCH, &bench, -1), 0);
}

static struct ipc_message expect(struct side *s, enum ipc_type type)
{
	struct ipc_message m;
	int fd, err;

	do {
		err = ipc_recv(s->sock, &m, &fd, WAIT_MS);
	} while (!err && m.head.type != type &&
		 (m.head.type == IPC_BENCH_INTERVAL || m.head.type == IPC_CONNECTED));
	assert_int_equal(err, 0);
	if (m.head.type == IPC_FAILED && type != IPC_FAILED)
		print_message("%s: %s\n", m.body.failure.code, m.body.failure.message);
	assert_string_equal(ipc_type_name(m.head.type), ipc_type_name(type));
	return m;
}

static int end_of(struct side *s)
{
	int status;

	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	s->pid = 0;
	close(s->sock);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void quit(struct side *s)
{
	ipc_send(s->sock, IPC_QUIT, NULL, -1);
	assert_int_equal(end_of(s), 0);
}

/* The listening side, ready. */
static void listen_with(uint32_t streams, uint32_t forward)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(address);

	config = (struct ipc_config){ .streams = streams,
				      .tx = tx,
				      .compress = compress,
				      .level = level,
				      .encodings = compress ? IPC_ENCODING_ZSTD : 0,
				      .connect_ms = WAIT_MS };
	memset(config.id, 0x1d, sizeof(config.id));
	memset(config.secret, 0x5e, sizeof(config.secret));
	bench.forward = forward;
	bench.memory = (uint64_t)WINDOW * streams;
	start(&listening, IPC_ROLE_BENCH_DESTINATION);
	address = (struct sockaddr_in){ .sin_family = AF_INET,
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	assert_int_equal(ipc_send(listening.sock, IPC_LISTEN, NULL, fd), 0);
	close(fd);
	assert_int_equal(ipc_send(listening.sock, IPC_START, NULL, -1), 0);
	expect(&listening, IPC_READY);
}

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* A stream of ours that has proved itself. */
static int join(uint32_t index)
{
	struct failure f = { 0 };
	int fd = dial();

	if (stream_auth_source(fd, &config, index, clock_ns() + WAIT_MS * NSEC_PER_MSEC, &f))
		fail_msg("%s", f.message);
	return fd;
}

static void put(int fd, const struct wire_frame *f)
{
	uint8_t bytes[WIRE_FRAME_SIZE];

	wire_put_frame(bytes, f);
	assert_int_equal(io_write_full(fd, bytes, sizeof(bytes)), 0);
}

static struct wire_frame get(int fd)
{
	uint8_t bytes[WIRE_FRAME_SIZE];
	struct wire_frame f;

	assert_int_equal(io_read_full(fd, bytes, sizeof(bytes)), 0);
	assert_int_equal(wire_get_frame(&f, bytes, &window, 1), 0);
	return f;
}

static void put_chunk(int fd)
{
	struct wire_run run = { .pages = CHUNK_PAGES, .length = CHUNK_BYTES };
	uint8_t bytes[WIRE_RUN_SIZE];

	put(fd, &(struct wire_frame){
			.type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE + CHUNK_BYTES });
	wire_put_run(bytes, &run);
	assert_int_equal(io_write_full(fd, bytes, sizeof(bytes)), 0);
	assert_int_equal(io_write_full(fd, chunk, sizeof(chunk)), 0);
}

/* Asks whether chunk 0 has this content; how many chunks differ. */
static uint64_t ask_verify(int fd)
{
	uint64_t hash = htole64(XXH3_64bits(chunk, sizeof(chunk)));
	struct wire_frame ack;

	put(fd, &(struct wire_frame){ .type = WIRE_VERIFY, .count = 1, .length = WIRE_HASH_SIZE });
	assert_int_equal(io_write_full(fd, &hash, sizeof(hash)), 0);
	put(fd, &(struct wire_frame){ .type = WIRE_VERIFY_END });
	ack = get(fd);
	assert_int_equal(ack.of, WIRE_VERIFY_END);
	return ack.extent;
}

static void begin(struct side *s, const struct ipc_bench_run *run)
{
	assert_int_equal(ipc_send(s->sock, IPC_BENCH_RUN, run, -1), 0);
}

/* --- what it believes ------------------------------------------------------------------------- */

static void test_strangers_are_dropped(void **state)
{
	struct ipc_config other;
	struct failure f = { 0 };
	int garbage, wrong, silent, fd;

	(void)state;
	listen_with(1, 1);
	garbage = dial();
	memset(chunk, 0x11, sizeof(chunk));
	/* before any proof; it may be closed before all of it has gone */
	assert_true(send(garbage, chunk, 4096, 0) > 0);
	silent = dial();
	other = config;
	other.secret[0] ^= 1;
	wrong = dial();
	assert_int_equal(
		stream_auth_source(wrong, &other, 0, clock_ns() + WAIT_MS * NSEC_PER_MSEC, &f),
		-EACCES);
	fd = join(0);
	expect(&listening, IPC_CONNECTED);
	/* nobody else is let in, and those who were are let go */
	assert_int_not_equal(io_read_full(silent, chunk, 1), 0);
	put(fd, &(struct wire_frame){ .type = WIRE_BYE });
	close(fd);
	assert_int_equal(end_of(&listening), 0);
	close(garbage);
	close(wrong);
	close(silent);
}

static void test_what_is_malformed_ends_it(void **state)
{
	static const struct wire_frame bad[] = {
		{ .type = WIRE_STATE, .length = 1 },
		{ .type = WIRE_ACK, .of = WIRE_ROUND_END },
		{ .type = WIRE_PAGES, .count = 1, .length = 12, .offset = WINDOW },
		{ .type = WIRE_VERIFY, .count = 3, .length = 24 },
		{ .type = WIRE_ROUND_END, .number = 2 },
		{ .type = 77 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct ipc_message m;
		int fd;

		listen_with(1, 1);
		fd = join(0);
		expect(&listening, IPC_CONNECTED);
		put(fd, &bad[i]);
		m = expect(&listening, IPC_FAILED);
		assert_string_equal(m.body.failure.code, "data-protocol");
		assert_int_equal(end_of(&listening), 1);
		close(fd);
	}
}

/* What was not agreed on is not taken, however well formed. */
static void test_compressed_without_leave(void **state)
{
	struct wire_run run = { .pages = 1, .encoding = WIRE_ENC_ZSTD, .length = 16 };
	uint8_t bytes[WIRE_RUN_SIZE + 16] = { 0 };
	struct ipc_message m;
	int fd;

	(void)state;
	listen_with(1, 1);
	fd = join(0);
	expect(&listening, IPC_CONNECTED);
	put(fd, &(struct wire_frame){ .type = WIRE_PAGES, .count = 1, .length = sizeof(bytes) });
	wire_put_run(bytes, &run);
	assert_int_equal(io_write_full(fd, bytes, sizeof(bytes)), 0);
	m = expect(&listening, IPC_FAILED);
	assert_string_equal(m.body.failure.code, "data-protocol");
	assert_int_equal(end_of(&listening), 1);
	close(fd);
}

static void test_a_run_that_makes_no_sense(void **state)
{
	static const struct ipc_bench_run bad[] = {
		{ .number = 2, .size = 4096, .time_ns = 1 },
		{ .number = 1, .size = 4097, .time_ns = 1 },
		{ .number = 1, .size = 2 * CHUNK_BYTES, .time_ns = 1 },
		{ .number = 1, .size = 0, .time_ns = 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fd;

		listen_with(1, 1);
		fd = join(0);
		expect(&listening, IPC_CONNECTED);
		begin(&listening, &bad[i]);
		expect(&listening, IPC_FAILED);
		assert_int_equal(end_of(&listening), 1);
		close(fd);
	}
}

/* --- what it answers -------------------------------------------------------------------------- */

static void test_a_row_is_counted(void **state)
{
	struct ipc_bench_run run = { .number = 1, .size = CHUNK_BYTES, .time_ns = 1 };
	struct ipc_message m;
	struct wire_frame ack;
	int fd;

	(void)state;
	listen_with(1, 1);
	fd = join(0);
	/* at once: its own threads may not have said yet that the stream is there */
	begin(&listening, &run);
	expect(&listening, IPC_CONNECTED);
	put_chunk(fd);
	put(fd, &(struct wire_frame){ .type = WIRE_ROUND_END, .number = 0x80000007 });
	ack = get(fd);
	assert_int_equal(ack.of, WIRE_ROUND_END);
	assert_int_equal(ack.number, 0x80000007);
	put_chunk(fd);
	put(fd, &(struct wire_frame){ .type = WIRE_ROUND_END, .number = 1 });
	assert_int_equal(get(fd).number, 1);
	m = expect(&listening, IPC_BENCH_DONE);
	assert_int_equal(m.body.bench_done.number, 1);
	assert_int_equal(m.body.bench_done.rx.bytes, 2 * CHUNK_BYTES);
	assert_true(m.body.bench_done.rx.cpu_ns > 0);
	assert_int_equal(m.body.bench_done.tx.bytes, 0);
	quit(&listening);
	close(fd);
}

static void test_verifying_sees_what_differs(void **state)
{
	int fd;

	(void)state;
	bench.verify = 1;
	listen_with(1, 1);
	fd = join(0);
	expect(&listening, IPC_CONNECTED);
	for (size_t i = 0; i < sizeof(chunk); i++)
		chunk[i] = (uint8_t)(i * 31 >> 3);
	put_chunk(fd);
	assert_int_equal(ask_verify(fd), 0);
	/* what was equal once has to come again */
	assert_int_equal(ask_verify(fd), 1);
	put_chunk(fd);
	chunk[CHUNK_BYTES - 1] ^= 1;
	assert_int_equal(ask_verify(fd), 1);
	put_chunk(fd);
	assert_int_equal(ask_verify(fd), 0);
	quit(&listening);
	close(fd);
	bench.verify = 0;
}

/* --- how it ends ------------------------------------------------------------------------------ */

static void test_lost_in_a_row(void **state)
{
	struct ipc_bench_run run = { .number = 1, .size = 4096, .interval_ns = 1000000 };
	struct ipc_message m;
	int fd;

	(void)state;
	listen_with(1, 1);
	fd = join(0);
	expect(&listening, IPC_CONNECTED);
	begin(&listening, &run);
	expect(&listening, IPC_BENCH_INTERVAL); /* it has begun */
	put_chunk(fd);
	close(fd);
	m = expect(&listening, IPC_FAILED);
	assert_string_equal(m.body.failure.code, "data-lost");
	assert_int_equal(end_of(&listening), 1);
}

/* Between two rows the peer may go without a word, whichever way the streams carry. */
static void test_left_alone(void **state)
{
	(void)state;
	for (uint32_t forward = 0; forward <= 2; forward++) {
		int fds[2];

		listen_with(2, forward);
		fds[0] = join(0);
		fds[1] = join(1);
		expect(&listening, IPC_CONNECTED);
		close(fds[0]);
		close(fds[1]);
		assert_int_equal(end_of(&listening), 0);
	}
}

static void test_nobody_comes(void **state)
{
	struct ipc_message m;

	(void)state;
	listen_with(1, 1);
	quit(&listening);
	config.connect_ms = 50;
	start(&listening, IPC_ROLE_BENCH_DESTINATION);
	{
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_int_equal(listen(fd, 1), 0);
		assert_int_equal(ipc_send(listening.sock, IPC_LISTEN, NULL, fd), 0);
		close(fd);
	}
	assert_int_equal(ipc_send(listening.sock, IPC_START, NULL, -1), 0);
	expect(&listening, IPC_READY);
	m = expect(&listening, IPC_FAILED);
	assert_string_equal(m.body.failure.code, "data-connect");
	assert_int_equal(end_of(&listening), 1);
}

/* --- both sides ------------------------------------------------------------------------------- */

static void connect_side(void)
{
	start(&connecting, IPC_ROLE_BENCH_SOURCE);
	for (uint32_t i = 0; i < config.streams; i++) {
		struct ipc_stream m = { .index = i };
		int fd = dial();

		assert_int_equal(ipc_send(connecting.sock, IPC_STREAM, &m, fd), 0);
		close(fd);
	}
	assert_int_equal(ipc_send(connecting.sock, IPC_START, NULL, -1), 0);
	expect(&connecting, IPC_READY);
}

static void want_sent(const struct ipc_bench_done *from, const struct ipc_bench_done *to,
		      uint64_t bytes)
{
	assert_int_equal(from->tx.bytes, bytes);
	assert_int_equal(to->rx.bytes, bytes);
	assert_true(from->tx.ns > 0);
	assert_true(from->tx.wire_bytes > bytes);
	assert_int_equal(from->verified, bytes / CHUNK_BYTES);
	assert_int_equal(from->mismatches, 0);
}

/* Every way of sending and of placing, both directions at once, sizes on the same streams. */
static void test_all_ways(void **state)
{
	const uint64_t bytes = 6ull * CHUNK_BYTES;

	(void)state;
	bench.verify = 1;
	bench.data = IPC_BENCH_RANDOM;
	for (uint32_t way = 0; way < 3 * 3 * 2; way++) {
		static const uint64_t sizes[] = { PAGE_BYTES, CHUNK_BYTES, 64 << 10 };

		tx = 1 + way % 3;
		bench.place = way / 3 % 3;
		bench.fresh = way / 9;
		listen_with(2, 1);
		connect_side();
		for (uint32_t i = 0; i < 3; i++) {
			struct ipc_bench_run run = { .number = i + 1,
						     .size = sizes[i],
						     .bytes = bytes };
			struct ipc_message here, there;

			begin(&listening, &run);
			begin(&connecting, &run);
			here = expect(&connecting, IPC_BENCH_DONE);
			there = expect(&listening, IPC_BENCH_DONE);
			want_sent(&here.body.bench_done, &there.body.bench_done, bytes);
			assert_int_equal(there.body.bench_done.tx.bytes, bytes);
			assert_int_equal(there.body.bench_done.mismatches, 0);
		}
		quit(&connecting);
		/* its streams said goodbye */
		assert_int_equal(end_of(&listening), 0);
	}
	bench = (struct ipc_bench){ .memory = 0 };
	tx = IPC_TX_AUTO;
}

/* --- compressed ------------------------------------------------------------------------------- */

static void compress_by(enum ipc_compress kind, uint32_t zstd, enum ipc_bench_data data)
{
	compress = kind;
	level = zstd;
	bench = (struct ipc_bench){ .verify = 1, .data = data };
}

static void compress_no_more(void)
{
	compress_by(IPC_COMPRESS_OFF, 0, IPC_BENCH_ZERO);
	bench.verify = 0;
	tx = IPC_TX_AUTO;
}

/* Both sides' accounts of a run. */
static void run_both(const struct ipc_bench_run *run, struct ipc_bench_done *here,
		     struct ipc_bench_done *there)
{
	begin(&listening, run);
	begin(&connecting, run);
	*here = expect(&connecting, IPC_BENCH_DONE).body.bench_done;
	*there = expect(&listening, IPC_BENCH_DONE).body.bench_done;
}

static void want_compressed(const struct ipc_bench_done *from, const struct ipc_bench_done *to,
			    uint64_t bytes)
{
	assert_int_equal(from->tx.bytes, bytes);
	assert_int_equal(to->rx.bytes, bytes);
	/* text makes a third of it; of single pages less */
	assert_in_range(from->tx.wire_bytes, bytes / 5, bytes / 2);
	/* the rest are hashes, ends and handshakes */
	assert_in_range(to->rx.wire_bytes, from->tx.wire_bytes - 4096, from->tx.wire_bytes + 4096);
	assert_int_equal(from->tx.zero_copy_bytes, 0);
	assert_int_equal(from->verified, bytes / CHUNK_BYTES);
	assert_int_equal(from->mismatches, 0);
}

/* Laps through a window of two chunks, every way of sending and placing, both directions. */
static void test_compressed_all_ways(void **state)
{
	const uint64_t bytes = 6ull * CHUNK_BYTES;

	(void)state;
	for (uint32_t way = 0; way < 3 * 3 * 2; way++) {
		static const uint64_t sizes[] = { PAGE_BYTES, CHUNK_BYTES, 64 << 10 };
		struct ipc_bench_run run = { .size = sizes[way % 3], .bytes = bytes };

		compress_by(IPC_COMPRESS_ZSTD, 1, IPC_BENCH_TEXT);
		tx = 1 + way / 3 % 3;
		bench.place = way % 3;
		bench.fresh = way / 9;
		listen_with(2, 1);
		connect_side();
		for (run.number = 1; run.number <= 2; run.number++) {
			struct ipc_bench_done here, there;

			run_both(&run, &here, &there);
			want_compressed(&here, &there, bytes);
			want_compressed(&there, &here, bytes);
		}
		quit(&connecting);
		assert_int_equal(end_of(&listening), 0);
	}
	compress_no_more();
}

/* New memory each lap, without comparing: laps end all the same. */
static void test_compressed_into_new_memory(void **state)
{
	struct ipc_bench_run run = { .number = 1, .size = 64 << 10, .bytes = 10ull * CHUNK_BYTES };
	struct ipc_bench_done here, there;

	(void)state;
	compress_by(IPC_COMPRESS_ZSTD, 1, IPC_BENCH_TEXT);
	bench.verify = 0;
	bench.fresh = 1;
	listen_with(1, 1);
	connect_side();
	run_both(&run, &here, &there);
	assert_int_equal(there.rx.bytes, run.bytes);
	assert_int_equal(here.verified, 0);
	quit(&connecting);
	assert_int_equal(end_of(&listening), 0);
	compress_no_more();
}

/* What does not compress goes by reference. */
static void test_random_stays_raw(void **state)
{
	struct ipc_bench_run run = { .number = 1,
				     .size = CHUNK_BYTES,
				     .bytes = 8ull * CHUNK_BYTES };
	struct ipc_bench_done here, there;

	(void)state;
	compress_by(IPC_COMPRESS_ZSTD, 3, IPC_BENCH_RANDOM);
	tx = IPC_TX_SENDFILE;
	listen_with(1, 1);
	connect_side();
	run_both(&run, &here, &there);
	want_sent(&here, &there, run.bytes);
	assert_int_equal(here.tx.zero_copy_bytes, run.bytes);
	quit(&connecting);
	assert_int_equal(end_of(&listening), 0);
	compress_no_more();
}

/* Encoders' processor time is the sender's: level 9 costs many times what sending does. */
static void test_encoders_are_counted(void **state)
{
	struct ipc_bench_run run = { .number = 1,
				     .size = CHUNK_BYTES,
				     .bytes = 4ull * CHUNK_BYTES };
	struct ipc_bench_done raw, hard, there;

	(void)state;
	compress_by(IPC_COMPRESS_OFF, 0, IPC_BENCH_TEXT);
	listen_with(1, 1);
	connect_side();
	run_both(&run, &raw, &there);
	quit(&connecting);
	assert_int_equal(end_of(&listening), 0);
	compress_by(IPC_COMPRESS_ZSTD, 9, IPC_BENCH_TEXT);
	listen_with(1, 1);
	connect_side();
	run_both(&run, &hard, &there);
	assert_true(hard.tx.cpu_ns > 3 * raw.tx.cpu_ns);
	quit(&connecting);
	assert_int_equal(end_of(&listening), 0);
	compress_no_more();
}

/* On a slow link auto compresses; a run that is stopped ends with what it has sent. */
static void test_auto_on_a_slow_link(void **state)
{
	struct ipc_bench_run run = {
		.number = 1, .size = CHUNK_BYTES, .bytes = 32ull << 20, .rate_limit = 20000000
	};
	struct ipc_bench_done here, there;

	(void)state;
	compress_by(IPC_COMPRESS_AUTO, 0, IPC_BENCH_TEXT);
	listen_with(2, 2);
	connect_side();
	run_both(&run, &here, &there);
	assert_int_equal(here.tx.bytes, run.bytes);
	assert_int_equal(there.rx.bytes, run.bytes);
	assert_int_equal(here.mismatches, 0);
	assert_true(here.tx.wire_bytes < run.bytes * 9 / 10);
	run = (struct ipc_bench_run){
		.number = 2, .size = 64 << 10, .interval_ns = 1000000, .rate_limit = 1000000
	};
	begin(&listening, &run);
	begin(&connecting, &run);
	expect(&connecting, IPC_BENCH_INTERVAL);
	assert_int_equal(ipc_send(connecting.sock, IPC_BENCH_STOP, NULL, -1), 0);
	here = expect(&connecting, IPC_BENCH_DONE).body.bench_done;
	there = expect(&listening, IPC_BENCH_DONE).body.bench_done;
	assert_int_equal(here.tx.bytes, there.rx.bytes);
	assert_int_equal(here.mismatches, 0);
	quit(&connecting);
	assert_int_equal(end_of(&listening), 0);
	compress_no_more();
}

static void test_stop_and_latency(void **state)
{
	struct ipc_bench_run run = { .number = 1, .size = CHUNK_BYTES, .interval_ns = 1000000 };
	struct ipc_message m;

	(void)state;
	listen_with(1, 1);
	connect_side();
	begin(&listening, &run);
	begin(&connecting, &run);
	expect(&connecting, IPC_BENCH_INTERVAL);
	assert_int_equal(ipc_send(connecting.sock, IPC_BENCH_STOP, NULL, -1), 0);
	m = expect(&connecting, IPC_BENCH_DONE);
	assert_true(m.body.bench_done.tx.bytes > 0);
	expect(&listening, IPC_BENCH_DONE);
	run = (struct ipc_bench_run){ .number = 2,
				      .flags = 1, /* IPC_BENCH_LATENCY */
				      .size = PAGE_BYTES,
				      .bytes = 100 * PAGE_BYTES };
	begin(&listening, &run);
	begin(&connecting, &run);
	m = expect(&connecting, IPC_BENCH_DONE);
	assert_int_equal(m.body.bench_done.latency.count, 100);
	assert_true(m.body.bench_done.latency.min > 0);
	assert_true(m.body.bench_done.latency.p50 <= m.body.bench_done.latency.max);
	m = expect(&listening, IPC_BENCH_DONE);
	assert_int_equal(m.body.bench_done.rx.bytes, 100 * PAGE_BYTES);
	quit(&connecting);
	assert_int_equal(end_of(&listening), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strangers_are_dropped),
		cmocka_unit_test(test_what_is_malformed_ends_it),
		cmocka_unit_test(test_a_run_that_makes_no_sense),
		cmocka_unit_test(test_a_row_is_counted),
		cmocka_unit_test(test_verifying_sees_what_differs),
		cmocka_unit_test(test_lost_in_a_row),
		cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_nobody_comes),
		cmocka_unit_test(test_all_ways),
		cmocka_unit_test(test_compressed_without_leave),
		cmocka_unit_test(test_compressed_all_ways),
		cmocka_unit_test(test_compressed_into_new_memory),
		cmocka_unit_test(test_random_stays_raw),
		cmocka_unit_test(test_encoders_are_counted),
		cmocka_unit_test(test_auto_on_a_slow_link),
		cmocka_unit_test(test_stop_and_latency),
	};

	signal(SIGPIPE, SIG_IGN);
	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
