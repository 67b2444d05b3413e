// SPDX-License-Identifier: MIT
/*
 * The handshake of a data stream against a hostile peer, either side.
 *
 * Randomness is fixed here, so that a right answer can be given where the input asks for one: the
 * success path is reached too, and only then may a stream be believed.
 *
 * Input: a byte of flags, a byte that says how often the answer comes in pieces, then the peer's
 * bytes.
 */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/transport/stream_auth.h"
#include "dataplane/transport/wire.h"
#include "lib/base/clock.h"
#include "tests/fuzz/fuzz.h"

enum flags {
	FLAG_SOURCE = 1,      /* we are the source; else the destination */
	FLAG_RIGHT_HELLO = 2, /* the peer's first message is made right, then its bytes are added */
	FLAG_RIGHT_PROOF = 4, /* the peer knows the secret */
	FLAG_CUT = 8,	      /* ... and leaves before its last byte */
};

#define NONCE 0x5a

/* In the place of GnuTLS's: the nonce that this side will choose is known. */
int gnutls_rnd(gnutls_rnd_level_t level, void *data, size_t len)
{
	(void)level;
	memset(data, NONCE, len);
	return 0;
}

static const struct ipc_config config = { .streams = 3, .id = { 1, 2, 3 }, .secret = { 4, 5, 6 } };

static void prove(const char *label, const uint8_t *hello, const uint8_t *nonce, uint8_t *proof)
{
	uint8_t text[64 + WIRE_HELLO_SIZE + WIRE_NONCE_SIZE];
	size_t len = strlen(label);

	memcpy(text, label, len);
	memcpy(text + len, hello, WIRE_HELLO_SIZE);
	memcpy(text + len + WIRE_HELLO_SIZE, nonce, WIRE_NONCE_SIZE);
	len += WIRE_HELLO_SIZE + WIRE_NONCE_SIZE;
	fuzz_check(gnutls_hmac_fast(GNUTLS_MAC_SHA256, config.secret, sizeof(config.secret), text,
				    len, proof) >= 0);
}

static void make_hello(uint8_t hello[WIRE_HELLO_SIZE], uint32_t stream)
{
	struct wire_hello h = { .version = WIRE_VERSION, .stream = (uint16_t)stream, .streams = 3 };

	memcpy(h.id, config.id, sizeof(h.id));
	memset(h.nonce, NONCE, sizeof(h.nonce));
	wire_put_hello(hello, &h);
}

/* What the peer says: a right beginning as far as asked for, then the input's bytes. */
static size_t peer_says(uint8_t *out, uint8_t flags, struct fuzz_input *in, bool *right)
{
	static const uint8_t ready[WIRE_READY_SIZE] = { 'R', 'E', 'A', 'D', 'Y', 0, 0, 1 };
	uint8_t nonce[WIRE_NONCE_SIZE], hello[WIRE_HELLO_SIZE];
	size_t n = 0, rest = 256;
	const uint8_t *more;

	memset(nonce, NONCE, sizeof(nonce));
	*right = false;
	if (flags & FLAG_SOURCE && flags & FLAG_RIGHT_PROOF) {
		make_hello(hello, 1);
		memcpy(out, nonce, sizeof(nonce));
		prove("tranship v1 destination", hello, nonce, out + WIRE_NONCE_SIZE);
		memcpy(out + WIRE_CHALLENGE_SIZE, ready, sizeof(ready));
		n = WIRE_CHALLENGE_SIZE + sizeof(ready);
		*right = true;
	} else if (!(flags & FLAG_SOURCE) && flags & FLAG_RIGHT_HELLO) {
		make_hello(out, fuzz_u8(in) % 3);
		n = WIRE_HELLO_SIZE;
		if (flags & FLAG_RIGHT_PROOF) {
			prove("tranship v1 source", out, nonce, out + n);
			n += WIRE_PROOF_SIZE;
			*right = true;
		}
	}
	if (n && flags & FLAG_CUT) {
		*right = false;
		return n - 1;
	}
	more = fuzz_bytes(in, &rest);
	memcpy(out + n, more, rest);
	return n + rest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint8_t flags = fuzz_u8(&in), said[1024];
	uint64_t deadline = clock_ns() + 10 * NSEC_PER_SEC;
	struct failure f = { 0 };
	uint32_t stream = 0;
	bool right;
	size_t len;
	int sv[2], err;

	len = peer_says(said, flags, &in, &right);
	fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	fuzz_check(send(sv[0], said, len, MSG_NOSIGNAL) == (ssize_t)len);
	shutdown(sv[0], SHUT_WR);
	if (flags & FLAG_SOURCE)
		err = stream_auth_source(sv[1], &config, 1, deadline, &f);
	else
		err = stream_auth_destination(sv[1], &config, &stream, deadline, &f);
	fuzz_check(!!err == failure_is_set(&f));
	/* a proof cannot be guessed: who was believed knew the secret, and the other way round */
	fuzz_check(!err == right);
	fuzz_check(err || stream < config.streams);
	close(sv[0]);
	close(sv[1]);
	return 0;
}
