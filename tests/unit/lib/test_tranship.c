// SPDX-License-Identifier: MIT
/* libtranship in a process of its own: the table of states, loss of the connection, the object. */
#include "tests/unit/lib/vmm_process.h"

#include <sys/un.h>

/* ---- states ------------------------------------------------------------------------------ */

static void test_states_of_a_source(void **state)
{
	(void)state;
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
	assert_int_equal(ask(TRANSHIP_RESUME), 0);
	assert_int_equal(ask(TRANSHIP_START), 0);
	assert_int_equal(save(), -EPROTO);
	assert_int_equal(ask(TRANSHIP_INCOMING), -EPROTO);
	assert_int_equal(load(1), -EPROTO);
	vmm_expect_none(&vmm);

	assert_int_equal(ask(TRANSHIP_STOP), 0);
	vmm_expect(&vmm, 'P');
	assert_int_equal(state_now(), TRANSHIP_STOPPED);
	assert_int_equal(ask(TRANSHIP_STOP), 0);
	assert_int_equal(ask(TRANSHIP_START), -EPROTO);
	assert_int_equal(load(1), -EPROTO);
	vmm_expect_none(&vmm);

	assert_int_equal(save(), 0);
	vmm_expect(&vmm, 'S');
	assert_int_equal(state_now(), TRANSHIP_SAVED);
	assert_int_equal(save(), -EPROTO);
	assert_int_equal(ask(TRANSHIP_START), -EPROTO);
	assert_int_equal(ask(TRANSHIP_ARM), -EPROTO);
	assert_int_equal(ask(TRANSHIP_RESUME), 0);
	vmm_expect(&vmm, 'R');
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
}

static void test_states_of_a_destination(void **state)
{
	(void)state;
	assert_int_equal(state_now(), TRANSHIP_WAITING);
	assert_int_equal(ask(TRANSHIP_STOP), -EPROTO);
	assert_int_equal(ask(TRANSHIP_RESUME), -EPROTO);
	assert_int_equal(ask(TRANSHIP_START), -EPROTO);
	assert_int_equal(ask(TRANSHIP_ARM), -EPROTO);
	assert_int_equal(ask(TRANSHIP_INCOMING), 0);
	assert_int_equal(vmm_do(&vmm, VMM_CLAIM, 0, 0), -EBUSY);
	assert_int_equal(load(7), 0);
	vmm_expect(&vmm, 'L');
	assert_int_equal(state_now(), TRANSHIP_LOADED);
	assert_int_equal(ask(TRANSHIP_RESUME), -EPROTO);
	assert_int_equal(load(9), 0);
	vmm_expect(&vmm, 'L');
	assert_int_equal(vmm.shared->state[63], 9);
	assert_int_equal(ask(TRANSHIP_START), 0);
	vmm_expect(&vmm, 'R');
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
	assert_int_equal(ask(TRANSHIP_START), 0);
	assert_int_equal(load(7), -EPROTO);
	vmm_expect_none(&vmm);
}

static void test_callbacks_that_fail(void **state)
{
	(void)state;
	vmm.shared->pause_err = -EIO;
	assert_int_equal(ask(TRANSHIP_STOP), -EIO);
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
	vmm.shared->pause_err = 0;
	assert_int_equal(ask(TRANSHIP_STOP), 0);
	vmm_expect(&vmm, 'P');
	vmm.shared->save_err = -ENOSPC;
	assert_int_equal(save(), -ENOSPC);
	assert_int_equal(state_now(), TRANSHIP_STOPPED);
	vmm.shared->resume_err = -EAGAIN;
	assert_int_equal(ask(TRANSHIP_RESUME), -EAGAIN);
	assert_int_equal(state_now(), TRANSHIP_STOPPED);
	vmm.shared->resume_err = 0;
	assert_int_equal(ask(TRANSHIP_RESUME), 0);
	vmm_expect(&vmm, 'R');
}

static void test_load_that_fails(void **state)
{
	(void)state;
	vmm.shared->load_err = -EINVAL;
	assert_int_equal(load(1), -EINVAL);
	assert_int_equal(state_now(), TRANSHIP_BROKEN);
	assert_int_equal(ask(TRANSHIP_START), -EPROTO);
	vmm.shared->load_err = 0;
	assert_int_equal(load(2), 0);
	vmm_expect(&vmm, 'L');
	assert_int_equal(state_now(), TRANSHIP_LOADED);
}

static void test_paused_by_its_user(void **state)
{
	(void)state;
	vmm.shared->running = false;
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
	assert_int_equal(description.flags & TRANSHIP_FLAG_RUNNING, 0);
	assert_int_equal(ask(TRANSHIP_STOP), 0);
	assert_int_equal(ask(TRANSHIP_RESUME), 0);
	assert_int_equal(ask(TRANSHIP_STOP), 0);
	tranship_link_close(&tl);
	open_link();
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
	vmm_expect_none(&vmm);
}

static void test_quit_is_passed_on(void **state)
{
	(void)state;
	assert_int_equal(ask(TRANSHIP_QUIT), 0);
	vmm_expect(&vmm, 'Q');
}

/* ---- loss of the connection -------------------------------------------------------------- */

static void test_lost_in_the_pause_runs_on(void **state)
{
	(void)state;
	assert_int_equal(ask(TRANSHIP_STOP), 0);
	vmm_expect(&vmm, 'P');
	tranship_link_close(&tl);
	vmm_expect(&vmm, 'R');
	open_link();
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
}

static void test_lost_after_save_stays_paused(void **state)
{
	(void)state;
	assert_int_equal(ask(TRANSHIP_STOP), 0);
	vmm_expect(&vmm, 'P');
	assert_int_equal(save(), 0);
	vmm_expect(&vmm, 'S');
	tranship_link_close(&tl);
	open_link(); /* after this the loss has been dealt with */
	assert_int_equal(state_now(), TRANSHIP_SAVED);
	vmm_expect_none(&vmm);
	assert_int_equal(ask(TRANSHIP_RESUME), 0);
	vmm_expect(&vmm, 'R');
}

static void test_lost_after_load_stays_paused(void **state)
{
	(void)state;
	assert_int_equal(load(3), 0);
	vmm_expect(&vmm, 'L');
	tranship_link_close(&tl);
	open_link();
	assert_int_equal(state_now(), TRANSHIP_LOADED);
	vmm_expect_none(&vmm);
	assert_int_equal(ask(TRANSHIP_START), 0);
	vmm_expect(&vmm, 'R');
}

/* The guard's way: RESUME on a duplicate; even if it ends without reading any answer. */
static void test_guard_resumes_after_save(void **state)
{
	struct tranship_head resume, describe;
	int guard;

	(void)state;
	assert_int_equal(ask(TRANSHIP_STOP), 0);
	vmm_expect(&vmm, 'P');
	assert_int_equal(save(), 0);
	vmm_expect(&vmm, 'S');
	guard = dup(tl.sock);
	tranship_link_close(&tl);
	tranship_request(&describe, TRANSHIP_DESCRIBE, 9, 0);
	tranship_request_resume(&resume);
	for (int i = 0; i < 3; i++)
		assert_int_equal(io_send_packet(guard, &describe, sizeof(describe), NULL, 0), 0);
	assert_int_equal(io_send_packet(guard, &resume, sizeof(resume), NULL, 0), 0);
	close(guard);
	vmm_expect(&vmm, 'R');
	open_link();
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
}

static void test_claim(void **state)
{
	(void)state;
	assert_int_equal(ask(TRANSHIP_STOP), 0);
	vmm_expect(&vmm, 'P');
	assert_int_equal(save(), 0);
	assert_int_equal(vmm_do(&vmm, VMM_CLAIM, 0, 0), -EBUSY);
	tranship_link_close(&tl);
	for (int i = 0; i < 100000 && vmm_do(&vmm, VMM_CLAIM, 0, 0); i++)
		;
	open_link();
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
}

static void test_second_connection_is_told(void **state)
{
	struct tranship_description d = { 0 };
	struct tranship_link second;
	struct failure f = { 0 };

	(void)state;
	assert_int_equal(tranship_link_open(&second, vmm.socket, &d, VMM_WAIT_MS, &f), -EBUSY);
	assert_string_equal(f.code, "vm-busy");
	assert_string_equal(d.name, "unit");
	assert_int_equal(d.ram_bytes, VMM_RAM_PAGES * 4096ull);
	assert_int_equal(state_now(), TRANSHIP_RUNNING);
}

/* ---- the object -------------------------------------------------------------------------- */

static void test_regions_are_checked(void **state)
{
	static const struct tranship_ops ops = {
		.pause = vmm_pause, .resume = vmm_resume, .save_state = vmm_save, .quit = vmm_quit
	};
	char path[80];
	struct tranship_config c = { .name = "n",
				     .socket_path = path,
				     .vmm = "v",
				     .vmm_version = "1",
				     .machine = "m",
				     .ops = &ops };
	struct tranship_region r = {
		.id = "a", .fd = vmm.ram_fd, .size = 8192, .page_size = 4096, .address = vmm.ram
	};
	struct tranship *t;

	(void)state;
	snprintf(path, sizeof(path), "%s/regions.sock", folder);
	c.incoming = true;
	assert_int_equal(tranship_new(&t, &c), -EINVAL); /* no load_state */
	c.incoming = false;
	c.name = "a/b";
	assert_int_equal(tranship_new(&t, &c), -EINVAL);
	c.name = "n";
	assert_int_equal(tranship_new(&t, &c), 0);
	assert_int_equal(tranship_start(t), -EINVAL); /* no RAM */
	r.size = 4097;
	assert_int_equal(tranship_add_region(t, &r), -EINVAL);
	r.size = (VMM_RAM_PAGES + 1) * 4096ull;
	assert_int_equal(tranship_add_region(t, &r), -EINVAL);
	r.size = 8192;
	r.file_offset = VMM_RAM_PAGES * 4096ull;
	assert_int_equal(tranship_add_region(t, &r), -EINVAL);
	r.file_offset = UINT64_MAX - 4095;
	assert_int_equal(tranship_add_region(t, &r), -EINVAL);
	r.file_offset = 0;
	r.address = (void *)4096;
	assert_int_equal(tranship_add_region(t, &r), -EINVAL);
	r.address = vmm.ram;
	r.page_size = 12288;
	assert_int_equal(tranship_add_region(t, &r), -EINVAL);
	r.page_size = 4096;
	assert_int_equal(tranship_add_region(t, &r), 0);
	assert_int_equal(tranship_add_region(t, &r), -EEXIST);
	tranship_free(t);
	tranship_free(NULL);
}

static void test_socket_in_use_and_stale(void **state)
{
	struct tranship_config c = { .name = "n",
				     .socket_path = vmm.socket,
				     .vmm = "v",
				     .vmm_version = "1",
				     .machine = "m",
				     .ops = &vmm_ops };
	struct tranship_region r = {
		.id = "a", .fd = vmm.ram_fd, .size = 8192, .page_size = 4096, .address = vmm.ram
	};
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char stale[80];
	struct tranship *t;
	int fd;

	(void)state;
	assert_int_equal(tranship_new(&t, &c), 0);
	assert_int_equal(tranship_add_region(t, &r), 0);
	assert_int_equal(tranship_start(t), -EADDRINUSE);
	tranship_free(t);
	assert_int_equal(access(vmm.socket, F_OK), 0); /* the other's is still there */

	snprintf(stale, sizeof(stale), "%s/deeper/and/stale.sock", folder);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", stale);
	c.socket_path = stale;
	assert_int_equal(tranship_new(&t, &c), 0);
	assert_int_equal(tranship_add_region(t, &r), 0);
	assert_int_equal(tranship_start(t), 0); /* makes the folders */
	tranship_free(t);
	assert_int_equal(access(stale, F_OK), -1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(tranship_new(&t, &c), 0);
	assert_int_equal(tranship_add_region(t, &r), 0);
	assert_int_equal(tranship_start(t), 0);
	tranship_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		AT_SOURCE(test_states_of_a_source),
		AT_DESTINATION(test_states_of_a_destination),
		AT_SOURCE(test_callbacks_that_fail),
		AT_DESTINATION(test_load_that_fails),
		AT_SOURCE(test_paused_by_its_user),
		AT_SOURCE(test_quit_is_passed_on),
		AT_SOURCE(test_lost_in_the_pause_runs_on),
		AT_SOURCE(test_lost_after_save_stays_paused),
		AT_DESTINATION(test_lost_after_load_stays_paused),
		AT_SOURCE(test_guard_resumes_after_save),
		AT_SOURCE(test_claim),
		AT_SOURCE(test_second_connection_is_told),
		AT_SOURCE(test_regions_are_checked),
		AT_SOURCE(test_socket_in_use_and_stale),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
