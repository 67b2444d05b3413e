// SPDX-License-Identifier: MIT
/* The handshake of a data stream: both ends against each other, and each against impostors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/transport/stream_auth.h"
#include "dataplane/transport/wire.h"
#include "lib/base/clock.h"

/* Long enough never to be met by accident; short enough to be waited for on purpose. */
#define PATIENCE_MS 20000
#define HASTE_MS    30

struct peer {
	struct ipc_config config;
	uint32_t stream;
	int fd;
	uint64_t deadline_ns;
	int err;
	struct failure failure;
	pthread_t thread;
};

static uint64_t in_ms(unsigned int ms)
{
	return clock_ns() + ms * NSEC_PER_MSEC;
}

static struct ipc_config config(void)
{
	struct ipc_config c = { .streams = 4 };

	memset(c.id, 0x11, sizeof(c.id));
	memset(c.secret, 0x22, sizeof(c.secret));
	return c;
}

static void *run_source(void *arg)
{
	struct peer *p = arg;

	p->err = stream_auth_source(p->fd, &p->config, p->stream, p->deadline_ns, &p->failure);
	return NULL;
}

static void *run_destination(void *arg)
{
	struct peer *p = arg;

	p->stream = UINT32_MAX;
	p->err =
		stream_auth_destination(p->fd, &p->config, &p->stream, p->deadline_ns, &p->failure);
	return NULL;
}

/* A peer on its own thread at one end of a new pair; returns the other end. */
static int begin(struct peer *p, void *(*run)(void *), unsigned int ms)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	p->config = config();
	p->fd = sv[0];
	p->deadline_ns = in_ms(ms);
	assert_int_equal(pthread_create(&p->thread, NULL, run, p), 0);
	return sv[1];
}

static void finish(struct peer *p, int err, const char *code)
{
	pthread_join(p->thread, NULL);
	close(p->fd);
	assert_int_equal(p->err, err);
	assert_string_equal(p->failure.code, code);
	if (err)
		assert_true(p->failure.message[0] && failure_code_known(p->failure.code));
}

static void put(int fd, const void *bytes, size_t len)
{
	assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void get(int fd, void *bytes, size_t len)
{
	assert_int_equal(recv(fd, bytes, len, MSG_WAITALL), (ssize_t)len);
}

static void hello_of(const struct ipc_config *c, uint32_t stream, uint8_t out[WIRE_HELLO_SIZE])
{
	struct wire_hello h = { .version = WIRE_VERSION,
				.stream = (uint16_t)stream,
				.streams = (uint16_t)c->streams };

	memcpy(h.id, c->id, sizeof(h.id));
	memset(h.nonce, 0x33, sizeof(h.nonce));
	wire_put_hello(out, &h);
}

/* Both real ends; nonblocking or not; the configurations may differ. */
static void both(const struct ipc_config *src, const struct ipc_config *dst, uint32_t stream,
		 bool nonblocking, int src_err, int dst_err)
{
	struct peer s = { .config = *src, .stream = stream, .deadline_ns = in_ms(PATIENCE_MS) };
	struct peer d = { .config = *dst, .deadline_ns = in_ms(PATIENCE_MS) };
	char byte = 'x';
	int sv[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | (nonblocking ? SOCK_NONBLOCK : 0), 0, sv), 0);
	s.fd = sv[0];
	d.fd = sv[1];
	assert_int_equal(pthread_create(&s.thread, NULL, run_source, &s), 0);
	run_destination(&d);
	if (d.err)
		shutdown(d.fd, SHUT_RDWR);
	pthread_join(s.thread, NULL);
	assert_int_equal(s.err, src_err);
	assert_int_equal(d.err, dst_err);
	if (!dst_err) {
		assert_int_equal(d.stream, stream);
		put(s.fd, &byte, 1); /* what follows the handshake is untouched */
		byte = 0;
		assert_int_equal(recv(d.fd, &byte, 1, MSG_DONTWAIT), 1);
		assert_int_equal(byte, 'x');
		assert_int_equal(recv(s.fd, &byte, 1, MSG_DONTWAIT), -1);
	}
	close(s.fd);
	close(d.fd);
}

static void test_good(void **state)
{
	struct ipc_config c = config();

	(void)state;
	for (uint32_t stream = 0; stream < c.streams; stream++)
		both(&c, &c, stream, stream & 1, 0, 0);
}

static void test_wrong_secret(void **state)
{
	struct ipc_config a = config(), b = config();

	(void)state;
	b.secret[IPC_SECRET_SIZE - 1] ^= 1;
	/* the destination proves itself first, so it is the source that notices and leaves */
	struct peer s = { .config = a, .deadline_ns = in_ms(PATIENCE_MS) }, d = { .config = b };
	int sv[2];

	d.deadline_ns = s.deadline_ns;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	s.fd = sv[0];
	d.fd = sv[1];
	assert_int_equal(pthread_create(&d.thread, NULL, run_destination, &d), 0);
	run_source(&s);
	assert_int_equal(s.err, -EACCES);
	assert_string_equal(s.failure.code, "data-auth");
	close(s.fd);
	finish(&d, -ECONNRESET, "data-auth");
}

static void test_wrong_session(void **state)
{
	struct ipc_config a = config(), b = config();

	(void)state;
	b.id[0] ^= 1;
	both(&a, &b, 0, false, -ECONNRESET, -EACCES);
	b = config();
	b.streams = 5;
	both(&a, &b, 0, false, -ECONNRESET, -EACCES);
}

/* A source that knows everything but the secret. */
static void test_destination_refuses_a_wrong_proof(void **state)
{
	uint8_t hello[WIRE_HELLO_SIZE], challenge[WIRE_CHALLENGE_SIZE],
		proof[WIRE_PROOF_SIZE] = { 0 };
	struct peer d = { 0 };
	int fd = begin(&d, run_destination, PATIENCE_MS);
	struct ipc_config c = config();

	(void)state;
	hello_of(&c, 1, hello);
	put(fd, hello, sizeof(hello));
	get(fd, challenge, sizeof(challenge));
	put(fd, proof, sizeof(proof));
	finish(&d, -EACCES, "data-auth");
	assert_int_equal(d.stream, UINT32_MAX);
	close(fd);
}

/* The destination's own proof sent back as the source's. */
static void test_destination_refuses_its_reflection(void **state)
{
	uint8_t hello[WIRE_HELLO_SIZE], challenge[WIRE_CHALLENGE_SIZE];
	struct peer d = { 0 };
	int fd = begin(&d, run_destination, PATIENCE_MS);
	struct ipc_config c = config();

	(void)state;
	hello_of(&c, 1, hello);
	put(fd, hello, sizeof(hello));
	get(fd, challenge, sizeof(challenge));
	put(fd, challenge + WIRE_NONCE_SIZE, WIRE_PROOF_SIZE);
	finish(&d, -EACCES, "data-auth");
	close(fd);
}

/* Carries one message from one end to the other, and keeps a copy. */
static void relay(int from, int to, void *copy, size_t len)
{
	get(from, copy, len);
	put(to, copy, len);
}

/* A whole good handshake is observed; replaying the source's part of it must fail. */
static void test_destination_refuses_a_replay(void **state)
{
	uint8_t hello[WIRE_HELLO_SIZE], challenge[WIRE_CHALLENGE_SIZE], again[WIRE_CHALLENGE_SIZE];
	uint8_t proof[WIRE_PROOF_SIZE], ready[WIRE_READY_SIZE];
	struct peer s = { .stream = 2 }, d = { 0 };
	int sfd = begin(&s, run_source, PATIENCE_MS), dfd = begin(&d, run_destination, PATIENCE_MS);

	(void)state;
	relay(sfd, dfd, hello, sizeof(hello));
	relay(dfd, sfd, challenge, sizeof(challenge));
	relay(sfd, dfd, proof, sizeof(proof));
	relay(dfd, sfd, ready, sizeof(ready));
	finish(&s, 0, "");
	finish(&d, 0, "");
	assert_int_equal(d.stream, 2);
	close(sfd);
	close(dfd);

	dfd = begin(&d, run_destination, PATIENCE_MS);
	put(dfd, hello, sizeof(hello));
	get(dfd, again, sizeof(again));
	assert_memory_not_equal(again, challenge, sizeof(again));
	put(dfd, proof, sizeof(proof));
	finish(&d, -EACCES, "data-auth");
	close(dfd);

	/* and the destination's part to a source */
	memset(&s.failure, 0, sizeof(s.failure));
	sfd = begin(&s, run_source, PATIENCE_MS);
	get(sfd, hello, sizeof(hello));
	put(sfd, challenge, sizeof(challenge));
	finish(&s, -EACCES, "data-auth");
	close(sfd);
}

/* Any single bit of the hello that is changed on the way spoils the proofs. */
static void test_hello_is_covered(void **state)
{
	uint8_t hello[WIRE_HELLO_SIZE], challenge[WIRE_CHALLENGE_SIZE];
	struct peer s = { .stream = 0 }, d = { 0 };
	int sfd = begin(&s, run_source, PATIENCE_MS), dfd = begin(&d, run_destination, PATIENCE_MS);

	(void)state;
	get(sfd, hello, sizeof(hello));
	hello[24] = 3; /* another stream */
	put(dfd, hello, sizeof(hello));
	relay(dfd, sfd, challenge, sizeof(challenge));
	finish(&s, -EACCES, "data-auth");
	close(sfd);
	close(dfd);
	finish(&d, -ECONNRESET, "data-auth");
}

static void test_wrong_version(void **state)
{
	uint8_t hello[WIRE_HELLO_SIZE];
	struct peer d = { 0 };
	int fd = begin(&d, run_destination, PATIENCE_MS);
	struct ipc_config c = config();

	(void)state;
	hello_of(&c, 0, hello);
	hello[4] = WIRE_VERSION + 1;
	put(fd, hello, sizeof(hello));
	finish(&d, -EACCES, "data-auth");
	assert_non_null(strstr(d.failure.message, "version"));
	close(fd);
}

static void test_garbage(void **state)
{
	uint8_t garbage[4096];
	struct peer d = { 0 }, s = { 0 };
	int fd = begin(&d, run_destination, PATIENCE_MS), waiting = -1;

	(void)state;
	memset(garbage, 'G', sizeof(garbage));
	put(fd, garbage, sizeof(garbage));
	pthread_join(d.thread, NULL);
	assert_int_equal(d.err, -EACCES);
	assert_string_equal(d.failure.code, "data-auth");
	/* no more than a hello was read of it */
	assert_int_equal(ioctl(d.fd, FIONREAD, &waiting), 0);
	assert_int_equal(waiting, (int)(sizeof(garbage) - WIRE_HELLO_SIZE));
	close(d.fd);
	close(fd);

	fd = begin(&s, run_source, PATIENCE_MS);
	put(fd, garbage, sizeof(garbage));
	finish(&s, -EACCES, "data-auth");
	close(fd);
}

static void test_proof_is_read_to_its_size(void **state)
{
	uint8_t hello[WIRE_HELLO_SIZE], challenge[WIRE_CHALLENGE_SIZE], more[WIRE_PROOF_SIZE + 100];
	struct peer d = { 0 };
	int fd = begin(&d, run_destination, PATIENCE_MS), waiting = -1;
	struct ipc_config c = config();

	(void)state;
	memset(more, 0, sizeof(more));
	hello_of(&c, 0, hello);
	put(fd, hello, sizeof(hello));
	get(fd, challenge, sizeof(challenge));
	put(fd, more, sizeof(more));
	pthread_join(d.thread, NULL);
	assert_int_equal(d.err, -EACCES);
	assert_int_equal(ioctl(d.fd, FIONREAD, &waiting), 0);
	assert_int_equal(waiting, 100);
	close(d.fd);
	close(fd);
}

/* Silence after each number of bytes ends at the deadline, not before. */
static void test_silent_source(void **state)
{
	static const size_t sent[] = { 0, 1, WIRE_HELLO_SIZE - 1, WIRE_HELLO_SIZE };
	struct ipc_config c = config();

	(void)state;
	for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++) {
		uint8_t hello[WIRE_HELLO_SIZE];
		struct peer d = { 0 };
		int fd = begin(&d, run_destination, HASTE_MS);

		hello_of(&c, 0, hello);
		if (sent[i])
			put(fd, hello, sent[i]);
		finish(&d, -ETIMEDOUT, "data-connect");
		assert_true(clock_ns() >= d.deadline_ns);
		close(fd);
	}
}

static void test_silent_destination(void **state)
{
	struct peer s = { 0 };
	int fd = begin(&s, run_source, HASTE_MS);

	(void)state;
	finish(&s, -ETIMEDOUT, "data-connect");
	assert_true(clock_ns() >= s.deadline_ns);
	close(fd);
}

static void test_closed_early(void **state)
{
	struct peer d = { 0 }, s = { 0 };
	uint8_t hello[WIRE_HELLO_SIZE];

	(void)state;
	close(begin(&d, run_destination, PATIENCE_MS));
	finish(&d, -ECONNRESET, "data-auth");
	int fd = begin(&s, run_source, PATIENCE_MS);

	get(fd, hello, sizeof(hello));
	close(fd);
	finish(&s, -ECONNRESET, "data-auth");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_wrong_secret),
		cmocka_unit_test(test_wrong_session),
		cmocka_unit_test(test_destination_refuses_a_wrong_proof),
		cmocka_unit_test(test_destination_refuses_its_reflection),
		cmocka_unit_test(test_destination_refuses_a_replay),
		cmocka_unit_test(test_hello_is_covered),
		cmocka_unit_test(test_wrong_version),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_proof_is_read_to_its_size),
		cmocka_unit_test(test_silent_source),
		cmocka_unit_test(test_silent_destination),
		cmocka_unit_test(test_closed_early),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
