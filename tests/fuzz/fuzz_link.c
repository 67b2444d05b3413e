// SPDX-License-Identifier: MIT
/*
 * transhipd's end of the connection to a VMM that links libtranship: a VMM may be another user's
 * process and answer anything.
 *
 * Input: answers: a byte with the number of descriptors (2 bits), 4: magic, type and serial are
 * right, 8: size is that of the type, 16: with a status; a byte of length, that many bytes of body.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/guest/tranship_link.h"
#include "lib/base/io.h"
#include "tests/fuzz/fuzz.h"

static void send_answer(int sock, struct fuzz_input *in, uint16_t type, uint32_t serial)
{
	uint8_t how = fuzz_u8(in);
	struct tranship_packet p = { 0 };
	size_t len = fuzz_u8(in), size;
	const uint8_t *bytes;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), fds[3] = { fd, fd, fd };

	fuzz_check(fd >= 0);
	bytes = fuzz_bytes(in, &len);
	if (how & 4) {
		memcpy(&p.body, bytes, len);
		tranship_request(&p.head, type | TRANSHIP_REPLY, serial, (uint32_t)len);
		if (how & 16)
			p.head.status = -EPROTO;
		if (how & 8)
			p.head.size = how & 16 ? (uint32_t)sizeof(p.body.text)
					       : (uint32_t)tranship_reply_size(type);
		size = sizeof(p.head) + p.head.size;
	} else {
		memcpy(&p, bytes, len);
		size = len;
	}
	io_send_packet(sock, &p, size, fds, how & 3);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t types[] = { TRANSHIP_HELLO, TRANSHIP_REGION, TRANSHIP_ARM,
					  TRANSHIP_STOP };
	struct fuzz_input in = { data, size };
	struct tranship_link l = { .path = "fuzz" };
	int sv[2];

	fuzz_check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	l.sock = sv[1];
	for (unsigned int i = 0; in.left && i < 16; i++) {
		union tranship_body out, request = { 0 };
		uint16_t type = types[i % 4];
		struct failure f = { 0 };
		int fd = -1, err;

		err = tranship_link_ask(&l, type, &request, -1, &f);
		fuzz_check(!err);
		send_answer(sv[0], &in, type, l.serial);
		/* no time: what is not there yet does not come */
		err = tranship_link_wait(&l, type, &out, tranship_reply_fds(type) ? &fd : NULL, 0,
					 "vmm-failed", &f);
		fuzz_check(!err || failure_is_set(&f));
		fuzz_check((fd >= 0) == (!err && tranship_reply_fds(type)));
		for (const char *c = f.message; *c; c++)
			fuzz_check((unsigned char)*c >= ' ');
		if (fd >= 0)
			close(fd);
	}
	tranship_link_close(&l);
	close(sv[0]);
	return 0;
}
