// SPDX-License-Identifier: MIT
/*
 * Both ends of the handshake that opens a data stream; see stream_auth.h.
 *
 * Theory of operation
 *   Four messages of fixed size. Every send and receive is non-blocking and waits in poll until
 *   the caller's deadline, so that a silent peer costs no more than that, whatever mode the
 *   descriptor is in. A receive never asks for more than what is left of its message: what a
 *   stream sends after the handshake stays in the socket.
 *
 *   The destination proves itself first, over both nonces, so that a source does not give a proof
 *   to somebody who does not know the secret; the labels keep one side's proof from being
 *   reflected as the other's. The proofs cover the whole hello: version, session, stream, number
 *   of streams. Proofs are compared in constant time.
 */
#include "dataplane/transport/stream_auth.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "dataplane/transport/wire.h"
#include "lib/base/clock.h"

#define LABEL_SOURCE	  "tranship v1 source"
#define LABEL_DESTINATION "tranship v1 destination"
#define LABEL_MAX	  sizeof(LABEL_DESTINATION)

static const uint8_t ready_message[WIRE_READY_SIZE] = {
	'R', 'E', 'A', 'D', 'Y', 0, 0, WIRE_VERSION
};

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = events };
		uint64_t now = clock_ns();
		uint64_t left_ms;
		int n;

		if (now >= deadline_ns)
			return -ETIMEDOUT;
		left_ms = (deadline_ns - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
		n = poll(&p, 1, left_ms > 60000 ? 60000 : (int)left_ms);
		if (n > 0)
			return 0; /* errors and hang-ups too: the call that follows reports them */
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

static bool try_again(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

static int send_all(int fd, const uint8_t *p, size_t len, uint64_t deadline_ns)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		int err;

		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		if (!try_again(n))
			return n < 0 ? -errno : -EIO;
		err = wait_for(fd, POLLOUT, deadline_ns);
		if (err)
			return err;
	}
	return 0;
}

static int recv_all(int fd, uint8_t *p, size_t len, uint64_t deadline_ns)
{
	while (len) {
		ssize_t n = recv(fd, p, len, MSG_DONTWAIT);
		int err;

		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		if (n == 0)
			return -ECONNRESET;
		if (!try_again(n))
			return -errno;
		err = wait_for(fd, POLLIN, deadline_ns);
		if (err)
			return err;
	}
	return 0;
}

/* HMAC(secret, label | hello | nonce of the destination). */
static int prove(const struct ipc_config *c, const char *label,
		 const uint8_t hello[WIRE_HELLO_SIZE], const uint8_t nonce_d[WIRE_NONCE_SIZE],
		 uint8_t proof[WIRE_PROOF_SIZE])
{
	uint8_t text[LABEL_MAX + WIRE_HELLO_SIZE + WIRE_NONCE_SIZE];
	size_t len = strlen(label);

	memcpy(text, label, len);
	memcpy(text + len, hello, WIRE_HELLO_SIZE);
	len += WIRE_HELLO_SIZE;
	memcpy(text + len, nonce_d, WIRE_NONCE_SIZE);
	len += WIRE_NONCE_SIZE;
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, c->secret, sizeof(c->secret), text, len, proof) < 0)
		return -EIO;
	return 0;
}

/* -EACCES unless proof is what prove() gives. */
static int check_proof(const struct ipc_config *c, const char *label,
		       const uint8_t hello[WIRE_HELLO_SIZE], const uint8_t nonce_d[WIRE_NONCE_SIZE],
		       const uint8_t proof[WIRE_PROOF_SIZE])
{
	uint8_t wanted[WIRE_PROOF_SIZE];
	int err = prove(c, label, hello, nonce_d, wanted);

	if (!err && gnutls_memcmp(wanted, proof, sizeof(wanted)))
		err = -EACCES;
	gnutls_memset(wanted, 0, sizeof(wanted));
	return err;
}

/* Words for what went wrong; err goes through. */
static int fail(struct failure *f, int err, const char *peer, uint32_t stream, const char *what)
{
	if (err == -ETIMEDOUT)
		return failure_set(f, err, "data-connect",
				   "Look for a firewall between the hosts, or an overloaded host.",
				   "the %s did not answer the handshake of data stream %u in time",
				   peer, stream);
	if (err == -EACCES || err == -ECONNRESET || err == -EPIPE)
		return failure_set(f, err, "data-auth",
				   "Something other than the session's peer may be at the address.",
				   "data stream %u: the %s %s", stream, peer,
				   err == -EACCES ? what : "closed it during the handshake");
	return failure_set(f, err, "data-connect", NULL, "data stream %u: %s", stream,
			   strerror(-err));
}

int stream_auth_source(int fd, const struct ipc_config *c, uint32_t stream, uint64_t deadline_ns,
		       struct failure *f)
{
	uint8_t hello[WIRE_HELLO_SIZE], challenge[WIRE_CHALLENGE_SIZE], proof[WIRE_PROOF_SIZE];
	const uint8_t *nonce_d = challenge, *proof_d = challenge + WIRE_NONCE_SIZE;
	uint8_t ready[WIRE_READY_SIZE];
	struct wire_hello h = {
		.version = WIRE_VERSION,
		.stream = (uint16_t)stream,
		.streams = (uint16_t)c->streams,
	};
	int err;

	memcpy(h.id, c->id, sizeof(h.id));
	if (gnutls_rnd(GNUTLS_RND_NONCE, h.nonce, sizeof(h.nonce)) < 0)
		return fail(f, -EIO, "destination", stream, "");
	wire_put_hello(hello, &h);
	err = send_all(fd, hello, sizeof(hello), deadline_ns);
	if (!err)
		err = recv_all(fd, challenge, sizeof(challenge), deadline_ns);
	if (!err)
		err = check_proof(c, LABEL_DESTINATION, hello, nonce_d, proof_d);
	if (!err)
		err = prove(c, LABEL_SOURCE, hello, nonce_d, proof);
	if (!err)
		err = send_all(fd, proof, sizeof(proof), deadline_ns);
	if (!err)
		err = recv_all(fd, ready, sizeof(ready), deadline_ns);
	if (!err && memcmp(ready, ready_message, sizeof(ready)))
		err = -EACCES;
	if (err)
		return fail(f, err, "destination", stream, "does not know the session's secret");
	return 0;
}

/* Reads and checks the hello against this session. -EACCES with words in *what. */
static int take_hello(int fd, const struct ipc_config *c, uint8_t hello[WIRE_HELLO_SIZE],
		      struct wire_hello *h, uint64_t deadline_ns, const char **what)
{
	int err = recv_all(fd, hello, WIRE_HELLO_SIZE, deadline_ns);

	if (err)
		return err;
	err = wire_get_hello(h, hello);
	if (err) {
		*what = err == -EPROTONOSUPPORT ? "speaks another version"
						: "is not a tranship source";
		return -EACCES;
	}
	if (memcmp(h->id, c->id, sizeof(h->id)) || h->streams != c->streams) {
		*what = "belongs to another session";
		return -EACCES;
	}
	return 0;
}

int stream_auth_destination(int fd, const struct ipc_config *c, uint32_t *stream,
			    uint64_t deadline_ns, struct failure *f)
{
	uint8_t hello[WIRE_HELLO_SIZE], challenge[WIRE_CHALLENGE_SIZE], proof[WIRE_PROOF_SIZE];
	uint8_t *nonce_d = challenge, *proof_d = challenge + WIRE_NONCE_SIZE;
	const char *what = "does not know the session's secret";
	struct wire_hello h = { 0 };
	int err;

	err = take_hello(fd, c, hello, &h, deadline_ns, &what);
	if (!err && gnutls_rnd(GNUTLS_RND_NONCE, nonce_d, WIRE_NONCE_SIZE) < 0)
		err = -EIO;
	if (!err)
		err = prove(c, LABEL_DESTINATION, hello, nonce_d, proof_d);
	if (!err)
		err = send_all(fd, challenge, sizeof(challenge), deadline_ns);
	if (!err)
		err = recv_all(fd, proof, sizeof(proof), deadline_ns);
	if (!err)
		err = check_proof(c, LABEL_SOURCE, hello, nonce_d, proof);
	if (!err)
		err = send_all(fd, ready_message, sizeof(ready_message), deadline_ns);
	if (err)
		return fail(f, err, "source", h.stream, what);
	*stream = h.stream;
	return 0;
}
