// SPDX-License-Identifier: MIT
/* Guests with libtranship through struct guest_ops, against a VMM in a process of its own. */
#include "tests/unit/lib/vmm_process.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "control/admission/preflight.h"
#include "control/guest/guest.h"
#include "control/guest/guest_tranship.h"
#include "dataplane/track/tracker.h"
#include "lib/base/clock.h"

static struct guest *g;

static struct guest *open_guest(const char *path)
{
	struct guest *opened = NULL;
	struct failure f = { 0 };

	/* the VMM notices the loss of the connection before in its own time */
	for (int i = 0; i < 1000; i++) {
		failure_clear(&f);
		if (guest_tranship_open(&opened, path, &f) != -EBUSY)
			break;
	}
	assert_string_equal(f.message, "");
	return opened;
}

static int setup_guest(void **state)
{
	(void)state;
	vmm_start(&vmm, folder, "source", false);
	g = open_guest(vmm.socket);
	return 0;
}

static int teardown_guest(void **state)
{
	(void)state;
	guest_free(g);
	g = NULL;
	vmm_stop(&vmm);
	return 0;
}

static void ok(int err, const struct failure *f)
{
	assert_string_equal(f->message, "");
	assert_int_equal(err, 0);
}

static void test_description(void **state)
{
	const struct guest_description *d = &g->desc;
	struct failure f = { 0 };
	struct stat st;

	(void)state;
	assert_string_equal(g->ops->kind, "tranship");
	assert_int_equal(g->pid, vmm.pid);
	assert_true(guest_alive(g));
	assert_string_equal(d->name, "unit");
	assert_string_equal(d->kind, "tranship");
	assert_string_equal(d->machine, "m-1");
	assert_string_equal(d->version, "1.0");
	assert_string_equal(d->state, "running");
	assert_true(d->running);
	assert_int_equal(d->ram_bytes, VMM_RAM_PAGES * 4096ull);
	assert_int_equal(d->nregions, 1);
	assert_string_equal(d->regions[0].id, "ram0");
	assert_int_equal(d->regions[0].backing, GUEST_BACKING_MEMFD);
	assert_int_equal(fstat(vmm.ram_fd, &st), 0);
	assert_int_equal(d->regions[0].inode, st.st_ino);
	assert_int_equal(d->regions[0].nmappings, 1);
	assert_int_equal(d->regions[0].mappings[0].start, vmm.ram_address);
	vmm.shared->running = false;
	ok(g->ops->describe(g, &f), &f);
	assert_string_equal(d->state, "paused");
	assert_false(d->running);
	assert_int_equal(d->nregions, 1);
	assert_true(g->ops->guard_fd(g) >= 0);
}

static void test_description_survives_the_way_to_the_peer(void **state)
{
	json_t *j = guest_description_to_json(&g->desc);
	struct guest_description d = { 0 };
	struct failure f = { 0 };

	(void)state;
	assert_non_null(j);
	ok(guest_description_from_json(&d, j, &f), &f);
	assert_string_equal(d.kind, "tranship");
	assert_int_equal(d.regions[0].size, g->desc.regions[0].size);
	guest_description_release(&d);
	json_decref(j);
}

static void test_ram_is_opened_for_its_use(void **state)
{
	struct failure f = { 0 };
	uint8_t byte = 0;
	int fd;

	(void)state;
	vmm_do(&vmm, VMM_WRITE, 3, 77);
	ok(g->ops->open_ram(g, 0, false, &fd, &f), &f);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(pread(fd, &byte, 1, 3 * 4096), 1);
	assert_int_equal(byte, 77);
	close(fd);
	ok(g->ops->open_ram(g, 0, true, &fd, &f), &f);
	assert_int_equal(pwrite(fd, "x", 1, 4 * 4096), 1);
	assert_int_equal(vmm.ram[4 * 4096], 'x');
	close(fd);
	assert_true(g->ops->open_ram(g, 1, true, &fd, &f) < 0);
	assert_true(failure_is_set(&f));
}

static const char *verdict(struct failure *f)
{
	json_t *checks = json_array();

	failure_clear(f);
	assert_int_equal(g->ops->check(g, checks, f), 0);
	checks_verdict(checks, f);
	json_decref(checks);
	return f->code;
}

static void test_checks(void **state)
{
	struct failure f;
	void *second;

	(void)state;
	assert_string_equal(verdict(&f), "");
	/* this process maps it writable: an outside writer, once it is another's guest */
	second = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vmm.ram_fd, 4096 * 9);
	assert_ptr_not_equal(second, MAP_FAILED);
	pid_t child = fork();

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	assert_string_equal(verdict(&f), "outside-writer");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	munmap(second, 4096);
	assert_string_equal(verdict(&f), "");
}

static void test_stop_and_cont(void **state)
{
	struct failure f = { 0 };

	(void)state;
	ok(g->ops->stop(g, &f), &f);
	vmm_expect(&vmm, 'P');
	ok(g->ops->cont(g, &f), &f);
	vmm_expect(&vmm, 'R');
	vmm.shared->pause_err = -EIO;
	assert_int_equal(g->ops->stop(g, &f), -EIO);
	assert_string_equal(f.code, "vmm-failed");
}

/* It does not say which threads its processors are: that is said, and nothing is done. */
static void test_not_throttled(void **state)
{
	struct throttle *t;
	struct failure f = { 0 };

	(void)state;
	assert_int_equal(g->ops->throttle(g, "x", &t, &f), -EOPNOTSUPP);
	assert_null(t);
	assert_string_equal(f.code, "throttle-unavailable");
}

static void test_resume_from_everywhere(void **state)
{
	struct failure f = { 0 };
	uint8_t got[64];
	int pipe_fd[2];

	(void)state;
	assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
	ok(g->ops->resume(g, &f), &f); /* it runs */
	ok(g->ops->pause(g, pipe_fd[1], &f), &f);
	vmm_expect(&vmm, 'P');
	ok(g->ops->resume(g, &f), &f); /* before save */
	vmm_expect(&vmm, 'R');
	ok(g->ops->pause(g, pipe_fd[1], &f), &f);
	vmm_expect(&vmm, 'P');
	ok(g->ops->save(g, &f), &f);
	vmm_expect(&vmm, 'S');
	assert_int_equal(io_read_full(pipe_fd[0], got, sizeof(got)), 0);
	ok(g->ops->resume(g, &f), &f); /* after it */
	vmm_expect(&vmm, 'R');
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

static void test_save_that_fails(void **state)
{
	struct failure f = { 0 };
	int pipe_fd[2];

	(void)state;
	assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
	close(pipe_fd[0]); /* the data plane is dead */
	ok(g->ops->pause(g, pipe_fd[1], &f), &f);
	close(pipe_fd[1]);
	assert_int_equal(g->ops->save(g, &f), -EPIPE);
	assert_string_equal(f.code, "state-failed");
	assert_true(guest_alive(g));
	failure_clear(&f);
	ok(g->ops->resume(g, &f), &f);
}

/* The data plane lives and reads nothing: save ends in time, and resume gets through. */
static void test_save_to_nobody_who_reads(void **state)
{
	static const char rubbish[4096];
	struct failure f = { 0 };
	uint64_t start = clock_ns();
	int ends[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	while (send(ends[1], rubbish, sizeof(rubbish), MSG_DONTWAIT) > 0)
		;
	while (send(ends[1], rubbish, 1, MSG_DONTWAIT) > 0)
		;
	ok(g->ops->pause(g, ends[1], &f), &f);
	close(ends[1]);
	g->save_by_ns = clock_ns() + 50 * NSEC_PER_MSEC;
	assert_int_equal(g->ops->save(g, &f), -ETIMEDOUT);
	assert_string_equal(f.code, "state-failed");
	failure_clear(&f);
	ok(g->ops->resume(g, &f), &f);
	assert_true(vmm.shared->running);
	assert_true(clock_ms_since(start) < 15000); /* the limits are 60 s and 30 s */
	close(ends[0]);
}

static void test_state_moves_between_two_vmms(void **state)
{
	struct failure f = { 0 };
	struct vmm there;
	struct guest *to;
	int pipe_fd[2];

	(void)state;
	for (unsigned int i = 0; i < sizeof(vmm.shared->state); i++)
		vmm.shared->state[i] = (uint8_t)(i * 7);
	vmm_start(&there, folder, "destination", true);
	to = open_guest(there.socket);
	assert_string_equal(to->desc.state, "inmigrate");
	assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
	assert_true(g->ops->incoming(g, &f) < 0);
	assert_string_equal(f.code, "incoming-not-waiting");
	failure_clear(&f);
	ok(to->ops->incoming(to, &f), &f);
	ok(g->ops->pause(g, pipe_fd[1], &f), &f);
	close(pipe_fd[1]);
	ok(to->ops->load_begin(to, pipe_fd[0], &f), &f);
	close(pipe_fd[0]);
	ok(g->ops->save(g, &f), &f); /* its end is the end of the state */
	ok(to->ops->load_wait(to, &f), &f);
	vmm_expect(&there, 'L');
	vmm_expect_none(&there);
	assert_memory_equal(there.shared->state, vmm.shared->state, sizeof(vmm.shared->state));
	ok(to->ops->start(to, &f), &f);
	vmm_expect(&there, 'R');
	ok(to->ops->describe(to, &f), &f);
	assert_true(to->desc.running);
	guest_free(to);
	vmm_stop(&there);
}

static void test_tracking_through_the_data_planes_tracker(void **state)
{
	enum ipc_tracker_kind kind;
	struct region_mapping mapping = { .start = vmm.ram_address,
					  .end = vmm.ram_address + VMM_RAM_PAGES * 4096ull };
	struct region r = { .page_size = 4096,
			    .size = VMM_RAM_PAGES * 4096ull,
			    .fd = vmm.ram_fd,
			    .mappings = &mapping,
			    .nmappings = 1 };
	json_t *residue = json_true();
	struct failure f = { 0 };
	struct bitmap dirty;
	struct tracker *t;
	uint64_t pages;
	int fd;

	(void)state;
	assert_int_equal(bitmap_init(&dirty, VMM_RAM_PAGES), 0);
	ok(g->ops->arm(g, &kind, &fd, &residue, &f), &f);
	assert_int_equal(kind, IPC_TRACKER_PAGEMAP);
	assert_null(residue);
	ok(tracker_pagemap_new(&t, &r, 1, fd, &(struct tracker_pagemap_options){ .threads = 1 },
			       &f),
	   &f);
	ok(t->ops->start(t, &f), &f);
	vmm_do(&vmm, VMM_WRITE, 17, 1);
	vmm_do(&vmm, VMM_READ_INTO, 4000, 1);
	ok(t->ops->collect(t, &dirty, &pages, &f), &f);
	assert_int_equal(pages, 2);
	assert_true(bitmap_test(&dirty, 17));
	assert_true(bitmap_test(&dirty, 4000));
	t->ops->free(t);
	g->ops->disarm(g);
	g->ops->disarm(g);
	bitmap_release(&dirty);
}

static void quit_with(int how)
{
	struct failure f = { 0 };

	vmm.shared->on_quit = how;
	ok(g->ops->quit(g, &f), &f);
	vmm_expect(&vmm, 'Q');
	assert_false(guest_alive(g));
	assert_true(g->ops->stop(g, &f) < 0);
	assert_string_equal(f.code, "vm-gone");
	g->ops->disarm(g); /* safe when it is gone */
	failure_clear(&f);
	ok(g->ops->quit(g, &f), &f); /* and so is this */
}

static void test_quit(void **state)
{
	(void)state;
	quit_with(1);
}

static void test_quit_by_sudden_death(void **state)
{
	(void)state;
	quit_with(2);
}

static void test_a_process_is_found_wherever_its_socket_is(void **state)
{
	struct guest *found = NULL;
	struct failure f = { 0 };

	(void)state;
	assert_int_equal(guest_tranship_open_pid(&found, vmm.pid, &f), -EBUSY); /* by g */
	assert_string_equal(f.code, "vm-busy");
	guest_free(g);
	for (int i = 0; i < 1000; i++) {
		failure_clear(&f);
		if (guest_tranship_open_pid(&found, vmm.pid, &f) != -EBUSY)
			break;
	}
	assert_string_equal(f.message, "");
	assert_int_equal(found->pid, vmm.pid);
	g = found;
	assert_true(guest_tranship_open_pid(&found, getpid(), &f) < 0);
	assert_string_equal(f.code, "vm-not-found");
}

static void test_no_vmm(void **state)
{
	struct guest *none = NULL;
	struct failure f = { 0 };

	(void)state;
	assert_true(guest_tranship_open(&none, "/nowhere/at/all.sock", &f) < 0);
	assert_string_equal(f.code, "vm-not-found");
	assert_null(none);
}

/* A runtime directory of our own, so that the VMMs of this machine stay out of it. */
static bool private_run(void)
{
	return !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("none", "/run", "tmpfs", 0, NULL);
}

static void test_discovery(void **state)
{
	struct guest *found = NULL;
	struct failure f = { 0 };
	struct vmm there;
	json_t *list, *item;

	(void)state;
	if (geteuid() || !private_run())
		skip();
	list = guest_tranship_list();
	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
	vmm_start(&there, "/run/tranship/vmm", "unit", false);
	list = guest_tranship_list();
	assert_int_equal(json_array_size(list), 1);
	item = json_array_get(list, 0);
	assert_string_equal(json_string_value(json_object_get(item, "name")), "unit");
	assert_string_equal(json_string_value(json_object_get(item, "state")), "running");
	assert_true(json_is_true(json_object_get(item, "migratable")));
	json_decref(list);
	assert_true(guest_tranship_open_name(&found, "other", &f) < 0);
	assert_string_equal(f.code, "vm-not-found");
	failure_clear(&f);
	ok(guest_tranship_open_name(&found, "unit", &f), &f);
	list = guest_tranship_list(); /* a session holds it now */
	item = json_array_get(list, 0);
	assert_string_equal(json_string_value(json_object_get(item, "code")), "vm-busy");
	json_decref(list);
	assert_true(guest_tranship_open_pid(&found, there.pid, &f) == -EBUSY);
	assert_string_equal(f.code, "vm-busy");
	guest_free(found);
	vmm_stop(&there);
}

#define WITH_GUEST(t) cmocka_unit_test_setup_teardown(t, setup_guest, teardown_guest)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_GUEST(test_description),
		WITH_GUEST(test_description_survives_the_way_to_the_peer),
		WITH_GUEST(test_ram_is_opened_for_its_use),
		WITH_GUEST(test_checks),
		WITH_GUEST(test_stop_and_cont),
		WITH_GUEST(test_not_throttled),
		WITH_GUEST(test_resume_from_everywhere),
		WITH_GUEST(test_save_that_fails),
		WITH_GUEST(test_save_to_nobody_who_reads),
		WITH_GUEST(test_state_moves_between_two_vmms),
		WITH_GUEST(test_tracking_through_the_data_planes_tracker),
		WITH_GUEST(test_a_process_is_found_wherever_its_socket_is),
		WITH_GUEST(test_quit),
		WITH_GUEST(test_quit_by_sudden_death),
		cmocka_unit_test(test_no_vmm),
		cmocka_unit_test(test_discovery),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
