/* SPDX-License-Identifier: MIT */
/*
 * A VMM of the tests: a child process that links libtranship, holds RAM and does what the test
 * says; and the connection to it. Included by the tests that need one.
 */
#ifndef TRANSHIP_TESTS_VMM_PROCESS_H
#define TRANSHIP_TESTS_VMM_PROCESS_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "control/guest/tranship_link.h"
#include "lib/base/io.h"
#include "lib/tranship.h"

#define VMM_RAM_PAGES 4096u
#define VMM_WAIT_MS   10000

/* What the child's callbacks answer and count; in memory that both processes share. */
struct vmm_shared {
	int pause_err, resume_err, save_err, load_err;
	bool running;
	int on_quit;	   /* 0: stays, 1: ends as a VMM would, 2: dies on the spot */
	uint8_t state[64]; /* the device state */
};

/* What the test asks the child's main thread to do with its RAM. */
enum vmm_word { VMM_WRITE = 1, VMM_READ_INTO, VMM_CLAIM };

struct vmm_command {
	enum vmm_word word;
	uint32_t page;
	uint8_t value;
};

struct vmm {
	pid_t pid;
	int commands; /* to the child; it answers each with an int */
	int events;   /* from its callbacks: a letter each: P R S L Q */
	int ram_fd;
	uint8_t *ram;	      /* this process' view of it */
	uint64_t ram_address; /* in the child */
	struct vmm_shared *shared;
	char socket[80];
};

struct vmm_child {
	struct vmm *v;
	struct tranship *t;
	int events, commands;
	uint8_t *ram;
};

static void vmm_event(struct vmm_child *c, char letter)
{
	if (write(c->events, &letter, 1) != 1)
		_exit(3);
}

static int vmm_pause(void *opaque)
{
	struct vmm_child *c = opaque;

	if (c->v->shared->pause_err)
		return c->v->shared->pause_err;
	c->v->shared->running = false;
	vmm_event(c, 'P');
	return 0;
}

static int vmm_resume(void *opaque)
{
	struct vmm_child *c = opaque;

	if (c->v->shared->resume_err)
		return c->v->shared->resume_err;
	c->v->shared->running = true;
	vmm_event(c, 'R');
	return 0;
}

static int vmm_save(void *opaque, int fd)
{
	struct vmm_child *c = opaque;
	int err = io_write_full(fd, c->v->shared->state, sizeof(c->v->shared->state));

	if (c->v->shared->save_err)
		return c->v->shared->save_err;
	if (!err)
		vmm_event(c, 'S');
	return err;
}

static int vmm_load(void *opaque, int fd)
{
	struct vmm_child *c = opaque;
	uint8_t beyond;
	int err = io_read_full(fd, c->v->shared->state, sizeof(c->v->shared->state));

	if (c->v->shared->load_err)
		return c->v->shared->load_err;
	if (err || io_read_full(fd, &beyond, 1) != -ECONNRESET)
		return err ? err : -EBADMSG;
	vmm_event(c, 'L');
	return 0;
}

static void vmm_quit(void *opaque)
{
	struct vmm_child *c = opaque;

	vmm_event(c, 'Q');
	if (c->v->shared->on_quit == 1)
		shutdown(c->commands, SHUT_RDWR); /* the main thread ends */
	if (c->v->shared->on_quit == 2)
		_exit(0);
}

static bool vmm_running(void *opaque)
{
	return ((struct vmm_child *)opaque)->v->shared->running;
}

static const struct tranship_ops vmm_ops = {
	.pause = vmm_pause,
	.resume = vmm_resume,
	.save_state = vmm_save,
	.load_state = vmm_load,
	.quit = vmm_quit,
	.running = vmm_running,
};

static int vmm_obey(struct vmm_child *c, const struct vmm_command *m)
{
	uint8_t *page = c->ram + (size_t)m->page * 4096;
	int zero, err;

	switch (m->word) {
	case VMM_WRITE:
		*(volatile uint8_t *)page = m->value;
		return 0;
	case VMM_READ_INTO: /* the kernel writes guest RAM, as for a disk read */
		zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		err = zero < 0 ? -errno : io_read_full(zero, page, 4096);
		if (zero >= 0)
			close(zero);
		return err;
	case VMM_CLAIM:
		return tranship_claim(c->t);
	}
	return -EINVAL;
}

static int vmm_child_start(struct vmm_child *c, bool incoming)
{
	const struct tranship_config config = {
		.name = "unit",
		.socket_path = c->v->socket,
		.vmm = "test",
		.vmm_version = "1.0",
		.machine = "m-1",
		.cpus = 1,
		.incoming = incoming,
		.ops = &vmm_ops,
		.opaque = c,
	};
	const struct tranship_region region = { .id = "ram0",
						.fd = c->v->ram_fd,
						.size = VMM_RAM_PAGES * 4096ull,
						.page_size = 4096,
						.address = c->ram };
	int err = tranship_new(&c->t, &config);

	if (!err)
		err = tranship_add_region(c->t, &region);
	return err ? err : tranship_start(c->t);
}

__attribute__((noreturn)) static void vmm_child_main(struct vmm_child *c, bool incoming)
{
	struct vmm_command m;
	int32_t status;
	uint64_t address;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	c->ram = mmap(NULL, VMM_RAM_PAGES * 4096ul, PROT_READ | PROT_WRITE, MAP_SHARED,
		      c->v->ram_fd, 0);
	address = (uintptr_t)c->ram;
	status = c->ram == MAP_FAILED ? -errno : vmm_child_start(c, incoming);
	if (io_write_full(c->commands, &status, sizeof(status)) ||
	    io_write_full(c->commands, &address, sizeof(address)))
		_exit(2);
	while (!io_read_full(c->commands, &m, sizeof(m))) {
		status = vmm_obey(c, &m);
		if (io_write_full(c->commands, &status, sizeof(status)))
			break;
	}
	tranship_free(c->t);
	_exit(0);
}

static inline void vmm_start(struct vmm *v, const char *folder, const char *name, bool incoming)
{
	int commands[2], events[2];
	int32_t status;

	memset(v, 0, sizeof(*v));
	snprintf(v->socket, sizeof(v->socket), "%s/%s.sock", folder, name);
	v->shared = mmap(NULL, sizeof(*v->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(v->shared, MAP_FAILED);
	v->shared->running = !incoming;
	v->ram_fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(v->ram_fd, VMM_RAM_PAGES * 4096l), 0);
	v->ram = mmap(NULL, VMM_RAM_PAGES * 4096ul, PROT_READ, MAP_SHARED, v->ram_fd, 0);
	assert_ptr_not_equal(v->ram, MAP_FAILED);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, commands), 0);
	assert_int_equal(pipe2(events, O_CLOEXEC), 0);
	v->pid = fork();
	assert_true(v->pid >= 0);
	if (!v->pid) {
		struct vmm_child c = { .v = v, .events = events[1], .commands = commands[1] };

		close(commands[0]);
		vmm_child_main(&c, incoming);
	}
	close(commands[1]);
	close(events[1]);
	v->commands = commands[0];
	v->events = events[0];
	assert_int_equal(io_read_full(v->commands, &status, sizeof(status)), 0);
	assert_int_equal(status, 0);
	assert_int_equal(io_read_full(v->commands, &v->ram_address, sizeof(v->ram_address)), 0);
}

static inline int vmm_do(struct vmm *v, enum vmm_word word, uint32_t page, uint8_t value)
{
	const struct vmm_command m = { .word = word, .page = page, .value = value };
	int32_t status;

	assert_int_equal(io_write_full(v->commands, &m, sizeof(m)), 0);
	assert_int_equal(io_read_full(v->commands, &status, sizeof(status)), 0);
	return status;
}

/* The next callback that the child got; fails the test if none comes. */
static inline void vmm_expect(struct vmm *v, char letter)
{
	struct pollfd p = { .fd = v->events, .events = POLLIN };
	char got;

	assert_int_equal(poll(&p, 1, VMM_WAIT_MS), 1);
	assert_int_equal(read(v->events, &got, 1), 1);
	assert_int_equal(got, letter);
}

/* No callback came so far. */
static inline void vmm_expect_none(struct vmm *v)
{
	struct pollfd p = { .fd = v->events, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 0), 0);
}

/* Ends it; its exit must be clean. */
static inline void vmm_stop(struct vmm *v)
{
	int status;

	close(v->commands);
	assert_int_equal(waitpid(v->pid, &status, 0), v->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	unlink(v->socket); /* of a VMM that died on the spot */
	close(v->events);
	close(v->ram_fd);
	munmap(v->ram, VMM_RAM_PAGES * 4096ul);
	munmap(v->shared, sizeof(*v->shared));
}

/* ---- the test's VMM and the connection to it ---------------------------------------------- */

static char folder[32];
static struct vmm vmm;
static struct tranship_link tl;
static struct tranship_description description;

static inline void open_link(void)
{
	struct failure f = { 0 };

	/* the VMM notices the loss of the connection before in its own time */
	for (int i = 0; i < 1000; i++) {
		failure_clear(&f);
		if (tranship_link_open(&tl, vmm.socket, &description, VMM_WAIT_MS, &f) != -EBUSY)
			break;
	}
	assert_string_equal(f.message, "");
}

static inline int ask(uint16_t type)
{
	struct failure f = { 0 };

	return tranship_link_call(&tl, type, NULL, -1, NULL, NULL, VMM_WAIT_MS, "vmm-failed", &f);
}

/* A request that carries the end of a pipe; what the VMM does with it is its answer's to tell. */
static inline int ask_with_pipe(uint16_t type, void *state, size_t len)
{
	struct failure f = { 0 };
	int ends[2];
	bool save = type == TRANSHIP_SAVE;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(tranship_link_ask(&tl, type, NULL, ends[save], &f), 0);
	close(ends[save]);
	if (save)
		io_read_full(ends[0], state, len);
	else
		io_write_full(ends[1], state, len);
	close(ends[!save]);
	return tranship_link_wait(&tl, type, NULL, NULL, VMM_WAIT_MS, "vmm-failed", &f);
}

static inline int save(void)
{
	uint8_t got[64];

	return ask_with_pipe(TRANSHIP_SAVE, got, sizeof(got));
}

static inline int load(uint8_t value)
{
	uint8_t state[64];

	memset(state, value, sizeof(state));
	return ask_with_pipe(TRANSHIP_LOAD, state, sizeof(state));
}

static inline uint32_t state_now(void)
{
	struct failure f = { 0 };

	assert_int_equal(tranship_link_call(&tl, TRANSHIP_DESCRIBE, NULL, -1, &description, NULL,
					    VMM_WAIT_MS, "vmm-failed", &f),
			 0);
	return description.state;
}

static inline int setup_source(void **state)
{
	(void)state;
	vmm_start(&vmm, folder, "source", false);
	open_link();
	return 0;
}

static inline int setup_destination(void **state)
{
	(void)state;
	vmm_start(&vmm, folder, "destination", true);
	open_link();
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	tranship_link_close(&tl);
	vmm_stop(&vmm);
	return 0;
}

static inline int make_folder(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN); /* a refused request closes its pipe */
	snprintf(folder, sizeof(folder), "/tmp/tranship-unit-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
	char path[96];

	(void)state;
	snprintf(path, sizeof(path), "%s/deeper/and", folder);
	rmdir(path);
	snprintf(path, sizeof(path), "%s/deeper", folder);
	rmdir(path);
	return rmdir(folder);
}

#define AT_SOURCE(t)	  cmocka_unit_test_setup_teardown(t, setup_source, teardown)
#define AT_DESTINATION(t) cmocka_unit_test_setup_teardown(t, setup_destination, teardown)

#define AT_SOURCE(t)	  cmocka_unit_test_setup_teardown(t, setup_source, teardown)
#define AT_DESTINATION(t) cmocka_unit_test_setup_teardown(t, setup_destination, teardown)

#endif
