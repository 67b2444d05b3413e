// SPDX-License-Identifier: MIT
/* Every transition of the hand-over, both sides, with real QEMUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mman.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/guest/uffd.h"
#include "lib/base/clock.h"
#include "tests/unit/at_once.h"
#include "tests/unit/control/guest/check_ok.h"
#include "tests/unit/control/guest/qemu_fixture.h"
#include "tests/unit/control/guest/state_pipe.h"

#define RAM_BYTES (128u << 20)

static struct fixture a, b; /* source, destination */
static struct guest *src, *dst;
static char image[96];

static void add_disk(struct fixture *x)
{
	fixture_arg(x, "-drive");
	fixture_arg(x, "file=%s,format=raw,if=virtio", image);
}

static struct guest *opened(const struct fixture *x)
{
	struct guest *g = NULL;
	char vm[128];

	snprintf(vm, sizeof(vm), "qemu:%s", x->qmp);
	OK(guest_open(&g, vm, &f));
	return g;
}

static int start_source(void **state)
{
	(void)state;
	failure_clear(&f);
	fixture_init(&a, "src");
	fixture_shared_ram(&a);
	snprintf(image, sizeof(image), "%s/disk", a.dir);
	close(open(image, O_CREAT | O_RDWR, 0600));
	if (truncate(image, 16 << 20))
		return -1;
	add_disk(&a);
	fixture_start(&a);
	src = opened(&a);
	return 0;
}

static int start_both(void **state)
{
	start_source(state);
	fixture_init(&b, "dst");
	fixture_shared_ram(&b);
	add_disk(&b);
	fixture_arg(&b, "-incoming");
	fixture_arg(&b, "defer");
	fixture_start(&b);
	dst = opened(&b);
	return 0;
}

static int stop_all(void **state)
{
	(void)state;
	guest_free(src);
	guest_free(dst);
	src = dst = NULL;
	if (b.pid)
		fixture_stop(&b);
	fixture_stop(&a);
	return 0;
}

static void expect_state(struct guest *g, const char *word)
{
	OK(guest_qemu_status(guest_qemu_of(g), &f));
	assert_string_equal(g->desc.state, word);
}

static bool capability(struct guest *g, const char *name)
{
	bool on = false;
	json_t *list;
	const json_t *item;
	size_t i;

	OK(qmp_call(guest_qemu_of(g)->q, "query-migrate-capabilities", NULL, &list, &f));
	json_array_foreach (list, i, item)
		if (!strcmp(json_string_value(json_object_get(item, "capability")), name))
			on = json_is_true(json_object_get(item, "state"));
	json_decref(list);
	return on;
}

static json_int_t parameter(struct guest *g, const char *name)
{
	json_int_t value;
	json_t *all;

	OK(qmp_call(guest_qemu_of(g)->q, "query-migrate-parameters", NULL, &all, &f));
	value = json_integer_value(json_object_get(all, name));
	json_decref(all);
	return value;
}

static void expect_untouched(struct guest *g)
{
	assert_false(capability(g, "x-ignore-shared"));
	assert_false(capability(g, "pause-before-switchover"));
	assert_false(capability(g, "late-block-activate"));
	assert_int_equal(parameter(g, "downtime-limit"), 300);
	assert_true(parameter(g, "max-bandwidth") <= 128 << 20);
}

static void copy_ram(void)
{
	int from, to;
	void *p, *q;

	OK(src->ops->open_ram(src, 0, false, &from, &f));
	OK(dst->ops->open_ram(dst, 0, true, &to, &f));
	p = mmap(NULL, RAM_BYTES, PROT_READ, MAP_SHARED, from, 0);
	q = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
	assert_true(p != MAP_FAILED && q != MAP_FAILED);
	memcpy(q, p, RAM_BYTES);
	munmap(p, RAM_BYTES);
	munmap(q, RAM_BYTES);
	close(from);
	close(to);
}

static void paused(struct state_pipe *p)
{
	state_pipe_take(p);
	OK(src->ops->pause(src, p->vmm, &f));
	state_pipe_given(p);
	expect_state(src, "finish-migrate");
}

static void moves(void **state)
{
	struct state_pipe out, in;

	(void)state;
	OK(dst->ops->incoming(dst, &f));
	paused(&out);
	copy_ram();
	OK(src->ops->save(src, &f));
	state_pipe_end(&out);
	/* RAM is not in it, or it would be hundreds of times this. */
	assert_in_range(out.len, 1000, 4u << 20);
	state_pipe_give(&in, out.buf, out.len);
	OK(dst->ops->load_begin(dst, in.vmm, &f));
	state_pipe_given(&in);
	OK(dst->ops->load_wait(dst, &f));
	state_pipe_end(&in);
	free(out.buf);
	/* It was started without -S and still waits for us. */
	expect_state(dst, "paused");
	OK(dst->ops->start(dst, &f));
	expect_state(dst, "running");
	expect_untouched(dst);
	OK(src->ops->quit(src, &f));
	assert_false(guest_alive(src));
	assert_true(guest_alive(dst));
	/* And the arrived guest can be moved on. */
	state_pipe_take(&out);
	OK(dst->ops->pause(dst, out.vmm, &f));
	state_pipe_given(&out);
	OK(dst->ops->resume(dst, &f));
	state_pipe_end(&out);
	free(out.buf);
	expect_state(dst, "running");
}

static void resumes_before_saving(void **state)
{
	struct state_pipe out;

	(void)state;
	for (int i = 0; i < 5; i++) {
		paused(&out);
		assert_true(capability(src, "x-ignore-shared"));
		OK(src->ops->resume(src, &f));
		state_pipe_end(&out);
		free(out.buf);
		expect_state(src, "running");
		expect_untouched(src);
	}
}

static void resumes_after_saving(void **state)
{
	struct state_pipe out;

	(void)state;
	for (int i = 0; i < 3; i++) {
		paused(&out);
		OK(src->ops->save(src, &f));
		state_pipe_end(&out);
		free(out.buf);
		expect_state(src, "postmigrate");
		OK(src->ops->resume(src, &f));
		expect_state(src, "running");
		expect_untouched(src);
	}
}

static void resumes_what_runs(void **state)
{
	(void)state;
	OK(src->ops->resume(src, &f));
	expect_state(src, "running");
}

/* A transhipd that is gone has left it paused; another one opens it anew. */
static void another_resumes(void **state)
{
	struct state_pipe out;

	(void)state;
	paused(&out);
	/* As a dead process: nothing is put back. */
	json_decref(guest_qemu_of(src)->old_capabilities);
	json_decref(guest_qemu_of(src)->old_parameters);
	guest_qemu_of(src)->old_capabilities = guest_qemu_of(src)->old_parameters = NULL;
	guest_free(src);
	src = opened(&a);
	assert_string_equal(src->desc.state, "finish-migrate");
	assert_false(src->desc.running);
	OK(src->ops->resume(src, &f));
	expect_state(src, "running");
	assert_false(capability(src, "x-ignore-shared"));
	state_pipe_end(&out);
	free(out.buf);
}

static void the_stream_breaks(void **state)
{
	struct state_pipe out;

	(void)state;
	/* While it waits at pre-switchover: QEMU notices when it writes. */
	paused(&out);
	state_pipe_break(&out);
	assert_true(src->ops->save(src, &f) < 0);
	assert_string_equal(f.code, "state-failed");
	failure_clear(&f);
	OK(src->ops->resume(src, &f));
	expect_state(src, "running");
	state_pipe_end(&out);
	free(out.buf);
	/* Before it begins. */
	state_pipe_take(&out);
	state_pipe_break(&out);
	assert_true(src->ops->pause(src, out.vmm, &f) < 0);
	assert_string_equal(f.code, "state-failed");
	state_pipe_end(&out);
	free(out.buf);
	OK(src->ops->resume(src, &f));
	expect_state(src, "running");
	expect_untouched(src);
	/* And the next try succeeds. */
	resumes_after_saving(state);
}

static void *read_up_to_the_pause(void *arg)
{
	struct state_pipe *p = arg;
	struct pollfd fds = { .fd = p->ours, .events = POLLIN };
	static char sink[65536];

	while (p->len == 0 && poll(&fds, 1, 20000) > 0 && read(p->ours, sink, sizeof(sink)) > 0)
		;
	return NULL;
}

/* The link stalls: nobody reads, nobody hangs up, and QEMU sits in write() with its big lock. */
static void the_stream_stalls(void **state)
{
	struct state_pipe out = { 0 };
	int pair[2], small = 4096;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	out.ours = pair[0];
	pthread_create(&out.thread, NULL, read_up_to_the_pause, &out);
	OK(src->ops->pause(src, pair[1], &f));
	close(pair[1]);
	pthread_cancel(out.thread);
	pthread_join(out.thread, NULL);
	qmp_set_deadline(guest_qemu_of(src)->q, clock_ns() + 300 * NSEC_PER_MSEC);
	assert_true(src->ops->save(src, &f) < 0);
	qmp_set_deadline(guest_qemu_of(src)->q, 0);
	failure_clear(&f);
	OK(src->ops->resume(src, &f));
	expect_state(src, "running");
	expect_untouched(src);
	close(pair[0]);
}

/* QEMU before 8.2 leaves it in postmigrate, which is as still as paused. */
static void expect_still(void)
{
	expect_state(src, strcmp(src->desc.state, "postmigrate") ? "paused" : "postmigrate");
	assert_false(src->desc.running);
	expect_untouched(src);
}

/* What the VM's user does beside us. */
static int by_its_user(const char *command)
{
	return qmp_call(guest_qemu_of(src)->q, command, NULL, NULL, &f);
}

static void a_paused_guest_stays_paused(void **state)
{
	struct state_pipe out;

	(void)state;
	OK(by_its_user("stop"));
	paused(&out);
	OK(src->ops->resume(src, &f));
	state_pipe_end(&out);
	free(out.buf);
	expect_still();
	OK(by_its_user("cont"));
	expect_state(src, "running");
	OK(by_its_user("stop"));
	paused(&out);
	OK(src->ops->save(src, &f));
	state_pipe_end(&out);
	free(out.buf);
	OK(src->ops->resume(src, &f));
	expect_still();
	OK(by_its_user("cont"));
	expect_state(src, "running");
}

/* Stopped by its user, it is not run on by a barrier; one that runs is. */
static void a_barrier_leaves_it_as_it_was(void **state)
{
	(void)state;
	OK(by_its_user("stop"));
	OK(src->ops->stop(src, &f));
	assert_false(src->was_running);
	OK(src->ops->cont(src, &f));
	expect_state(src, "paused");
	OK(by_its_user("cont"));
	OK(src->ops->stop(src, &f));
	assert_true(src->was_running);
	expect_state(src, "paused");
	OK(src->ops->cont(src, &f));
	expect_state(src, "running");
}

static void the_source_dies(void **state)
{
	struct state_pipe out;
	uint64_t start;

	(void)state;
	paused(&out);
	kill(a.pid, SIGKILL);
	start = clock_ns();
	assert_int_equal(src->ops->save(src, &f), -ECONNRESET);
	assert_string_equal(f.code, "vm-gone");
	failure_clear(&f);
	assert_true(src->ops->resume(src, &f) < 0);
	assert_string_equal(f.code, "vm-gone");
	failure_clear(&f);
	assert_int_equal(src->ops->quit(src, &f), 0);
	assert_true(clock_ms_since(start) < 5000);
	state_pipe_end(&out);
	free(out.buf);
}

static void refuses_what_does_not_wait(void **state)
{
	(void)state;
	assert_int_equal(src->ops->incoming(src, &f), -EBUSY);
	assert_string_equal(f.code, "incoming-not-waiting");
	expect_untouched(src);
}

/* A mapping of it waits at what is missing. */
static bool watched(pid_t pid)
{
	char path[64], *line = NULL;
	bool found = false;
	size_t room = 0;
	FILE *smaps;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	smaps = fopen(path, "re");
	assert_non_null(smaps);
	while (!found && getline(&line, &room, smaps) > 0)
		found = !strncmp(line, "VmFlags:", 8) && strstr(line, " um");
	free(line);
	fclose(smaps);
	return found;
}

static void an_unused_destination_is_as_before(void **state)
{
	(void)state;
	OK(dst->ops->incoming(dst, &f));
	assert_true(capability(dst, "x-ignore-shared"));
	guest_free(dst);
	dst = opened(&b);
	expect_state(dst, "inmigrate");
	expect_untouched(dst);
	OK(dst->ops->incoming(dst, &f)); /* and can be used again */
	assert_false(dst->desc.running);
}

/* What is missing of a guest that runs would read as zeros: a transhipd that ends lets it wait. */
static void faults_outlive_whoever_asked_for_them(void **state)
{
	json_t *residue = NULL;
	int fd, number;

	(void)state;
	OK(dst->ops->incoming(dst, &f));
	OK(dst->ops->postcopy(dst, &fd, &residue, &f));
	close(fd);
	guest_free(dst);
	dst = NULL;
	number = (int)json_integer_value(json_object_get(residue, "userfaultfd"));
	OK(uffd_adopt(b.pid, number, &fd, &f));
	close(fd);
	assert_true(watched(b.pid));
	guest_disarm_residue(residue);
	assert_false(watched(b.pid));
	assert_int_equal(uffd_adopt(b.pid, number, &fd, &f), -ENOENT);
	failure_clear(&f);
	json_decref(residue);
	dst = opened(&b);
}

static void rubbish_is_not_loaded(void **state)
{
	static char rubbish[4096] = "this is no device state";
	struct state_pipe in;
	int ret;

	(void)state;
	OK(dst->ops->incoming(dst, &f));
	state_pipe_give(&in, rubbish, sizeof(rubbish));
	OK(dst->ops->load_begin(dst, in.vmm, &f));
	state_pipe_given(&in);
	ret = dst->ops->load_wait(dst, &f);
	assert_true(ret < 0);
	assert_string_equal(f.code, "state-failed");
	state_pipe_end(&in);
}

static void a_locked_image_is_seen_in_time(void **state)
{
	struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1 };
	struct state_pipe out, in;
	int fd;

	(void)state;
	OK(dst->ops->incoming(dst, &f));
	paused(&out);
	copy_ram();
	OK(src->ops->save(src, &f));
	state_pipe_end(&out);
	/* The source has let go of the image; somebody else denies writing to it. */
	fd = open(image, O_RDWR | O_CLOEXEC);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &l), 0);
	state_pipe_give(&in, out.buf, out.len);
	OK(dst->ops->load_begin(dst, in.vmm, &f));
	state_pipe_given(&in);
	assert_int_equal(dst->ops->load_wait(dst, &f), -EBUSY);
	assert_string_equal(f.code, "disk-locked");
	assert_non_null(strstr(f.message, image));
	state_pipe_end(&in);
	free(out.buf);
	close(fd);
	/* The destination did not take the image: the source can have it back. */
	OK(src->ops->resume(src, &f));
	expect_state(src, "running");
}

static void barrier(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		OK(src->ops->stop(src, &f));
		OK(src->ops->cont(src, &f));
	}
	expect_state(src, "running");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(moves, start_both, stop_all),
		cmocka_unit_test_setup_teardown(resumes_before_saving, start_source, stop_all),
		cmocka_unit_test_setup_teardown(resumes_after_saving, start_source, stop_all),
		cmocka_unit_test_setup_teardown(resumes_what_runs, start_source, stop_all),
		cmocka_unit_test_setup_teardown(another_resumes, start_source, stop_all),
		cmocka_unit_test_setup_teardown(the_stream_breaks, start_source, stop_all),
		cmocka_unit_test_setup_teardown(the_stream_stalls, start_source, stop_all),
		cmocka_unit_test_setup_teardown(a_barrier_leaves_it_as_it_was, start_source,
						stop_all),
		cmocka_unit_test_setup_teardown(a_paused_guest_stays_paused, start_source,
						stop_all),
		cmocka_unit_test_setup_teardown(the_source_dies, start_source, stop_all),
		cmocka_unit_test_setup_teardown(refuses_what_does_not_wait, start_source, stop_all),
		cmocka_unit_test_setup_teardown(an_unused_destination_is_as_before, start_both,
						stop_all),
		cmocka_unit_test_setup_teardown(faults_outlive_whoever_asked_for_them, start_both,
						stop_all),
		cmocka_unit_test_setup_teardown(rubbish_is_not_loaded, start_both, stop_all),
		cmocka_unit_test_setup_teardown(a_locked_image_is_seen_in_time, start_both,
						stop_all),
		cmocka_unit_test_setup_teardown(barrier, start_source, stop_all),
	};

	return run_at_once(tests, sizeof(tests) / sizeof(tests[0]));
}
