// SPDX-License-Identifier: MIT
/*
 * libtranship against whoever connects to its socket, and the rule that matters most there: a guest
 * runs only when it may.
 *
 * Input: a byte (1: the VMM waits for a guest; 2: a callback fails, which the next bits choose),
 * then packets: a byte with the number of descriptors (2 bits) and how to make the head (4: right
 * magic, version and size), a byte of type, a byte of length, that many bytes. Between two packets
 * type 0 with the byte 0x80 set ends the connection and begins another.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/io.h"
#include "lib/tranship_internal.h"
#include "tests/fuzz/fuzz.h"

#define RAM (2u << 20)

static struct {
	bool runs, failing;
	unsigned int fail; /* which callback */
	unsigned int saved, loaded;
} vmm;

enum { FAIL_PAUSE = 1, FAIL_RESUME, FAIL_SAVE, FAIL_LOAD };

static int on_pause(void *opaque)
{
	(void)opaque;
	fuzz_check(vmm.runs);
	if (vmm.fail == FAIL_PAUSE)
		return -EIO;
	vmm.runs = false;
	return 0;
}

static int on_resume(void *opaque)
{
	(void)opaque;
	fuzz_check(!vmm.runs);
	if (vmm.fail == FAIL_RESUME)
		return -EIO;
	vmm.runs = true;
	return 0;
}

static int on_save(void *opaque, int fd)
{
	(void)opaque;
	fuzz_check(!vmm.runs && fd >= 0);
	vmm.saved++;
	return vmm.fail == FAIL_SAVE ? -EIO : 0;
}

static int on_load(void *opaque, int fd)
{
	(void)opaque;
	fuzz_check(!vmm.runs && fd >= 0);
	vmm.loaded++;
	return vmm.fail == FAIL_LOAD ? -EIO : 0;
}

static void on_quit(void *opaque)
{
	(void)opaque;
}

static const struct tranship_ops ops = {
	.pause = on_pause,
	.resume = on_resume,
	.save_state = on_save,
	.load_state = on_load,
	.quit = on_quit,
};

static struct tranship *make(bool incoming)
{
	static void *ram;
	static int fd = -1;
	const struct tranship_config config = {
		.name = "fuzz",
		.socket_path = "/nonexistent/fuzz.sock",
		.vmm = "fuzz",
		.vmm_version = "1",
		.machine = "fuzz-1",
		.incoming = incoming,
		.ops = &ops,
	};
	struct tranship *t;

	if (fd < 0) {
		fd = memfd_create("fuzz-vmm", MFD_CLOEXEC);
		fuzz_check(fd >= 0 && !ftruncate(fd, RAM));
		ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		fuzz_check(ram != MAP_FAILED);
	}
	fuzz_check(!tranship_new(&t, &config));
	fuzz_check(!tranship_add_region(
		t,
		&(struct tranship_region){
			.id = "ram0", .fd = fd, .size = RAM, .page_size = 4096, .address = ram }));
	return t;
}

/* What must hold between any two requests. */
static void check_state(const struct tranship *t)
{
	fuzz_check(t->state >= TRANSHIP_RUNNING && t->state <= TRANSHIP_BROKEN);
	fuzz_check(!vmm.runs || t->state == TRANSHIP_RUNNING);
	fuzz_check(t->uffd < 0 || t->state == TRANSHIP_RUNNING || t->state == TRANSHIP_STOPPED ||
		   t->state == TRANSHIP_SAVED);
}

static void lose(struct tranship *t)
{
	enum tranship_state before = t->state;

	fd_close(&t->conn_fd);
	t->greeted = false;
	tranship_serve_lost(t);
	check_state(t);
	fuzz_check(t->uffd < 0);
	if (before == TRANSHIP_STOPPED && vmm.fail != FAIL_RESUME)
		fuzz_check(t->state == TRANSHIP_RUNNING && vmm.runs);
	else
		fuzz_check(t->state == before);
}

static int connect_again(struct tranship *t)
{
	int sv[2];

	fuzz_check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	t->conn_fd = sv[1];
	return sv[0];
}

static void send_packet(int sock, struct fuzz_input *in, uint8_t how)
{
	struct tranship_packet p = { 0 };
	uint8_t type = fuzz_u8(in);
	size_t len = fuzz_u8(in);
	const uint8_t *bytes;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), fds[3] = { fd, fd, fd };

	fuzz_check(fd >= 0);
	if (how & 4) {
		int size = tranship_request_size(type);

		tranship_request(&p.head, type, 7, size > 0 ? (uint32_t)size : 0);
		len = fuzz_u8(in) % 16;
		bytes = fuzz_bytes(in, &len);
		memcpy(&p.body, bytes, len);
		io_send_packet(sock, &p, sizeof(p.head) + p.head.size, fds, how & 3);
	} else {
		bytes = fuzz_bytes(in, &len);
		memcpy(&p, bytes, len);
		io_send_packet(sock, &p, len, fds, how & 3);
	}
	close(fd);
}

/* Answers are well formed, whatever was asked. */
static void take_answer(int sock)
{
	struct tranship_packet p;
	int fds[IO_FDS_MAX], n;
	size_t len = sizeof(p);

	if (io_recv_packet(sock, &p, &len, fds, &n, MSG_DONTWAIT))
		return;
	fuzz_check(len >= sizeof(p.head) && p.head.size == len - sizeof(p.head));
	fuzz_check(p.head.magic == TRANSHIP_PROTO_MAGIC && p.head.type & TRANSHIP_REPLY);
	fuzz_check(n == 0 || (n == 1 && !p.head.status));
	while (n)
		close(fds[--n]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint8_t flags = fuzz_u8(&in);
	struct tranship *t = make(flags & 1);
	int peer = connect_again(t);

	memset(&vmm, 0, sizeof(vmm));
	vmm.runs = !(flags & 1);
	if (flags & 2)
		vmm.fail = 1 + (flags >> 2) % 4;
	while (in.left) {
		uint8_t how = fuzz_u8(&in);
		int err = -ECONNRESET;

		if (!(how & 0x80)) {
			send_packet(peer, &in, how);
			err = tranship_serve_request(t);
			take_answer(peer);
			check_state(t);
		}
		if (err) {
			close(peer);
			lose(t);
			peer = connect_again(t);
		}
	}
	close(peer);
	lose(t);
	tranship_free(t);
	return 0;
}
