// SPDX-License-Identifier: MIT
/*
 * Messages between transhipd and a data plane: what transhipd takes from a data plane in foreign
 * hands, and what a data plane takes as its setup.
 *
 * Input: a byte of flags (1: the packets are read as a data plane's setup), then packets: a byte
 * with the number of descriptors (2 bits) and how to make the head (1: the type's own), a byte of
 * type, a byte of length, that many bytes of body.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/setup.h"
#include "lib/base/io.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

#define PACKETS_MAX 24 /* stay in the socket's queue (net.unix.max_dgram_qlen is more for pairs) */

static int descriptor = -1;

static bool terminated(const char *s, size_t size)
{
	return memchr(s, '\0', size);
}

static void check_message(const struct ipc_message *m, int fd)
{
	fuzz_check((int)m->head.size == ipc_body_size(m->head.type));
	fuzz_check(fd < 0 || ipc_carries_fd(m->head.type));
	fuzz_check(fd >= 0 || (m->head.type != IPC_REGION && m->head.type != IPC_LISTEN));
	fuzz_check(strcmp(ipc_type_name(m->head.type), "unknown"));
	if (m->head.type == IPC_FAILED) {
		const struct failure *f = &m->body.failure;

		fuzz_check(terminated(f->code, sizeof(f->code)));
		fuzz_check(terminated(f->message, sizeof(f->message)));
		fuzz_check(terminated(f->hint, sizeof(f->hint)));
	} else if (m->head.type == IPC_READY) {
		fuzz_check(terminated(m->body.ready.tx_reason, sizeof(m->body.ready.tx_reason)));
		fuzz_check(terminated(m->body.ready.rx_reason, sizeof(m->body.ready.rx_reason)));
	}
}

static void send_packet(int sock, struct fuzz_input *in)
{
	uint8_t how = fuzz_u8(in);
	struct ipc_message m = { .head.type = fuzz_u8(in) };
	size_t len = fuzz_u8(in), size;
	const uint8_t *body = fuzz_bytes(in, &len);
	int fds[3] = { descriptor, descriptor, descriptor };

	memcpy(&m.body, body, len < sizeof(m.body) ? len : sizeof(m.body));
	size = sizeof(m.head) + len;
	m.head.size = (uint32_t)len;
	if (how & 4 && ipc_body_size(m.head.type) >= 0) {
		m.head.size = (uint32_t)ipc_body_size(m.head.type);
		size = sizeof(m.head) + m.head.size;
	}
	io_send_packet(sock, &m, size > sizeof(m) ? sizeof(m) : size, fds, how & 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	bool as_setup = fuzz_u8(&in) & 1;
	int sv[2];

	if (descriptor < 0) {
		log_init("fuzz", LOG_LEVEL_ERROR);
		descriptor = memfd_create("fuzz-ipc", MFD_CLOEXEC);
		fuzz_check(descriptor >= 0 && !ftruncate(descriptor, 1 << 21));
	}
	fuzz_check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	for (int i = 0; in.left && i < PACKETS_MAX; i++)
		send_packet(sv[0], &in);
	close(sv[0]);
	if (as_setup) {
		struct failure f = { 0 };
		struct setup s;
		int err = setup_receive(&s, sv[1], &f);

		fuzz_check(!err || err == -ECANCELED || failure_is_set(&f));
		for (uint32_t i = 0; !err && i < s.nregions; i++)
			for (uint32_t k = 0; k < s.regions[i].nmappings; k++)
				fuzz_check(s.regions[i].mappings[k].end -
						   s.regions[i].mappings[k].start <=
					   s.regions[i].size - s.regions[i].mappings[k].offset);
		setup_release(&s);
	} else {
		struct ipc_message m;
		int fd, err;

		do {
			err = ipc_recv(sv[1], &m, &fd, 10000);
			if (!err)
				check_message(&m, fd);
			else
				fuzz_check(fd < 0);
			if (fd >= 0)
				close(fd);
		} while (!err || err == -EBADMSG);
		fuzz_check(err == -ECONNRESET);
	}
	close(sv[1]);
	return 0;
}
