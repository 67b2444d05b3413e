// SPDX-License-Identifier: MIT
/* QEMU guests: found, described, checked, tracked; with real QEMUs as users start them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include "control/admission/disk_identity.h"
#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "lib/base/clock.h"
#include "tests/unit/control/guest/check_ok.h"
#include "tests/unit/control/guest/first_error.h"
#include "tests/unit/control/guest/qemu_fixture.h"

static struct fixture a, b;
static struct guest *g;

static int release(void **state)
{
	(void)state;
	guest_free(g);
	g = NULL;
	if (a.pid)
		fixture_stop(&a);
	if (b.pid)
		fixture_stop(&b);
	failure_clear(&f);
	return 0;
}

static void start_shared(struct fixture *x, const char *tag)
{
	fixture_init(x, tag);
	fixture_shared_ram(x);
	fixture_start(x);
}

/* --- finding ---------------------------------------------------------------------------------- */

static void found_by_every_word(void **state)
{
	char vm[160];

	(void)state;
	start_shared(&a, "find");
	OK(guest_open(&g, a.name, &f));
	assert_int_equal(g->pid, a.pid);
	assert_string_equal(g->desc.name, a.name);
	guest_free(g);
	snprintf(vm, sizeof(vm), "pid:%d", a.pid);
	OK(guest_open(&g, vm, &f));
	guest_free(g);
	snprintf(vm, sizeof(vm), "qemu:%s", a.qmp);
	OK(guest_open(&g, vm, &f));
	assert_int_equal(g->pid, a.pid);
	assert_true(guest_alive(g));
}

static void not_found(void **state)
{
	char vm[32];

	(void)state;
	check_failed(guest_open(&g, "no-such-vm", &f), -ENOENT, "vm-not-found");
	check_failed(guest_open(&g, "qemu:/nonexistent.sock", &f), -ENOENT, "vm-not-found");
	check_failed(guest_open(&g, "pid:x", &f), -EINVAL, "usage");
	check_failed(guest_open(&g, "pid:-4", &f), -EINVAL, "usage");
	check_failed(guest_open(&g, "pid:99999999999999999999", &f), -EINVAL, "usage");
	check_failed(guest_open(&g, "", &f), -EINVAL, "usage");
	snprintf(vm, sizeof(vm), "pid:%d", getpid());
	assert_true(guest_open(&g, vm, &f) < 0);
	assert_string_equal(f.code, "vm-not-found");
	assert_non_null(strstr(f.message, "no VM that is process"));
}

static void equal_names_are_ambiguous(void **state)
{
	(void)state;
	fixture_init(&a, "twin");
	fixture_shared_ram(&a);
	fixture_start(&a);
	fixture_init(&b, "twin2");
	fixture_shared_ram(&b);
	fixture_arg(&b, "-name");
	fixture_arg(&b, "%s", a.name); /* the short form, and the last one counts */
	fixture_start(&b);
	check_failed(guest_open(&g, a.name, &f), -EEXIST, "vm-ambiguous");
}

/* guest_locate finds a by these words. */
__attribute__((format(printf, 1, 2))) static void assert_located(const char *fmt, ...)
{
	uint64_t start_time, right;
	char words[256];
	va_list args;
	pid_t pid;

	va_start(args, fmt);
	vsnprintf(words, sizeof(words), fmt, args);
	va_end(args);
	if (guest_locate(words, &pid, &start_time))
		fail_msg("%s is not located", words);
	assert_int_equal(pid, a.pid);
	OK(proc_start_time(a.pid, &right));
	assert_int_equal(start_time, right);
}

static void the_next_socket_when_one_is_busy(void **state)
{
	struct qmp *holder;
	char other[128];

	(void)state;
	fixture_init(&a, "two");
	fixture_shared_ram(&a);
	snprintf(other, sizeof(other), "%s/other,,sock", a.dir); /* a path with a comma */
	fixture_arg(&a, "-chardev");
	fixture_arg(&a, "socket,id=m1,path=%s,server=on,wait=off", other);
	fixture_arg(&a, "-mon");
	fixture_arg(&a, "chardev=m1,mode=control,pretty=on");
	fixture_start(&a);
	OK(qmp_connect(&holder, a.qmp, 2000, &f));
	OK(guest_open(&g, a.name, &f));
	assert_non_null(strstr(guest_qemu_of(g)->qmp_path, "/other,sock"));
	/* Both are held now. */
	struct guest *third;
	check_failed(guest_qemu_open_bounded(&third, a.pid, 100, 0, &f), -ETIMEDOUT, "qmp-busy");
	/* which it is can be told all the same */
	assert_located("%s", a.name);
	assert_located("pid:%d", a.pid);
	assert_located("qemu:%s", a.qmp);
	assert_located("qemu:%s/../%s/./qmp.sock", a.dir, strrchr(a.dir, '/') + 1);
	assert_located("qemu:%s/other,sock", a.dir);
	qmp_free(holder);
}

static void not_located(void **state)
{
	static const char *const words[] = {
		"",	  "no-such-vm", "qemu:", "qemu:/dev/null", "tranship:",	  "pid:",
		"pid:1x", "pid:-1",	"pid:0", "pid:3/",	   "pid:4194305", "qemu:/nowhere"
	};
	uint64_t start_time;
	pid_t pid;

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		assert_int_equal(guest_locate(words[i], &pid, &start_time), -ENOENT);
	assert_int_equal(guest_locate(NULL, &pid, &start_time), -ENOENT);
}

static const json_t *listed(const json_t *list, const char *name)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item)
		if (!strcmp(json_string_value(json_object_get(item, "name")), name))
			return item;
	return NULL;
}

static void a_list_does_not_wait_for_the_busy(void **state)
{
	const json_t *item;
	json_t *list;
	uint64_t start;

	(void)state;
	start_shared(&a, "busy");
	start_shared(&b, "free");
	OK(guest_open(&g, a.name, &f));
	start = clock_ns();
	list = guest_list();
	assert_true(clock_ms_since(start) >= 199); /* it tried */
	item = listed(list, a.name);
	assert_non_null(item);
	assert_int_equal(json_integer_value(json_object_get(item, "pid")), a.pid);
	assert_int_equal(json_integer_value(json_object_get(item, "ram_bytes")), 128 << 20);
	assert_true(json_is_false(json_object_get(item, "migratable")));
	assert_string_equal(json_string_value(json_object_get(item, "code")), "qmp-busy");
	item = listed(list, b.name);
	assert_string_equal(json_string_value(json_object_get(item, "state")), "running");
	assert_string_equal(json_string_value(json_object_get(item, "code")), "");
	assert_true(json_is_true(json_object_get(item, "migratable")));
	json_decref(list);
}

/* QEMU in a mount namespace in which one of its sockets is hidden from ours. */
static void in_another_mount_namespace(void **state)
{
	char hidden[96], path[128];
	struct qmp *q;
	int fd;

	(void)state;
	if (geteuid() != 0) {
		print_message("needs root: another mount namespace\n");
		skip();
	}
	fixture_init(&a, "ns");
	fixture_shared_ram(&a);
	snprintf(hidden, sizeof(hidden), "%s/hidden", a.dir);
	assert_int_equal(mkdir(hidden, 0700), 0);
	fixture_arg(&a, "-qmp");
	fixture_arg(&a, "unix:%s/q,server=on,wait=off", hidden);
	a.hidden = hidden;
	fixture_start(&a);
	snprintf(path, sizeof(path), "%s/q", hidden);
	assert_int_equal(access(path, F_OK), -1);
	OK(qemu_connect(&q, a.pid, path, 2000, &f));
	qmp_free(q);
	OK(guest_open(&g, a.name, &f));
	assert_int_equal(g->pid, a.pid);
	OK(g->ops->open_ram(g, 0, false, &fd, &f));
	close(fd);
}

/* A process named transhipd in a network namespace of its own. */
static pid_t start_other_host(int *netns)
{
	char program[128], command[256], path[64], c;
	int ends[2];
	pid_t pid;

	snprintf(program, sizeof(program), "%s/transhipd", a.dir);
	snprintf(command, sizeof(command), "cp /bin/sleep %s", program);
	assert_int_equal(system(command), 0);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNET))
			_exit(1);
		execl(program, program, "600", NULL);
		_exit(1);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &c, 1), 0); /* closed by exec */
	close(ends[0]);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	*netns = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(*netns >= 0);
	return pid;
}

static void vms_of_another_host_on_this_machine(void **state)
{
	json_t *list;
	pid_t other;
	char vm[32];

	(void)state;
	if (geteuid() != 0) {
		print_message("needs root: another network namespace\n");
		skip();
	}
	fixture_init(&a, "foreign");
	fixture_shared_ram(&a);
	other = start_other_host(&a.netns);
	fixture_start(&a);
	list = guest_list();
	assert_null(listed(list, a.name));
	json_decref(list);
	check_failed(guest_open(&g, a.name, &f), -ENOENT, "vm-not-found");
	/* Its number names it beyond doubt. */
	snprintf(vm, sizeof(vm), "pid:%d", a.pid);
	OK(guest_open(&g, vm, &f));
	guest_free(g);
	/* Without a transhipd there it is a container of ours. */
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	OK(guest_open(&g, a.name, &f));
	close(a.netns);
}

/* --- describing and checking ------------------------------------------------------------------ */

static void add_image(const char *options)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/disk", a.dir);
	close(open(path, O_CREAT | O_RDWR, 0600));
	assert_int_equal(truncate(path, 1 << 20), 0);
	fixture_arg(&a, "-drive");
	fixture_arg(&a, "file=%s,format=raw,if=virtio,id=d0%s", path, options);
}

static void disks(void **state)
{
	char path[128];
	struct disk_identity identity;
	struct stat st;

	(void)state;
	fixture_init(&a, "disk");
	fixture_shared_ram(&a);
	add_image("");
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	snprintf(path, sizeof(path), "%s/disk", a.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(g->desc.ndisks, 1);
	assert_string_equal(g->desc.disks[0].path, path);
	assert_string_equal(g->desc.disks[0].format, "raw");
	assert_true(g->desc.disks[0].inode == st.st_ino && g->desc.disks[0].device == st.st_dev);
	assert_int_equal(disk_identity_parse(g->desc.disks[0].identity, &identity), 0);
	assert_true(identity.inode == st.st_ino && identity.device == st.st_dev);
	assert_false(g->desc.disks[0].direct || g->desc.disks[0].read_only);
	assert_false(g->desc.needs_dma_barrier);
}

static void direct_disks_need_the_barrier(void **state)
{
	(void)state;
	fixture_init(&a, "direct");
	fixture_shared_ram(&a);
	add_image(",cache=none");
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	assert_true(g->desc.disks[0].direct);
	assert_true(g->desc.needs_dma_barrier);
}

static void a_writer_outside_is_refused(void **state)
{
	int fd, ends[2];
	pid_t child;
	char c;

	(void)state;
	start_shared(&a, "writer");
	OK(guest_open(&g, a.name, &f));
	OK(g->ops->open_ram(g, 0, true, &fd, &f));
	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (p == MAP_FAILED || write(ends[1], "m", 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(ends[0], &c, 1), 1);
	assert_string_equal(first_error_of(g), "outside-writer");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_string_equal(first_error_of(g), "");
	close(fd);
	close(ends[0]);
	close(ends[1]);
}

static void devices_that_block(void **state)
{
	(void)state;
	fixture_init(&a, "dev");
	fixture_shared_ram(&a);
	fixture_arg(&a, "-object");
	fixture_arg(&a, "memory-backend-ram,id=iv,size=1M,share=on");
	fixture_arg(&a, "-device");
	fixture_arg(&a, "ivshmem-plain,memdev=iv,id=shared");
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	json_t *checks = json_array();
	bool blocks = false, outside = false;
	const json_t *item;
	size_t i;
	OK(g->ops->check(g, checks, &f));
	json_array_foreach (checks, i, item) {
		const char *code = json_string_value(json_object_get(item, "code"));

		outside |= !strcmp(code, "outside-writer");
		blocks |= !strcmp(code, "device-blocks");
	}
	assert_true(outside);
	assert_true(blocks); /* QEMU's own reason */
	json_decref(checks);
}

static void states_that_cannot_move(void **state)
{
	(void)state;
	fixture_init(&a, "state");
	fixture_shared_ram(&a);
	fixture_arg(&a, "-incoming");
	fixture_arg(&a, "defer");
	fixture_start(&a);
	OK(guest_open(&g, a.name, &f));
	assert_string_equal(first_error_of(g), "vm-not-running");
}

/* --- tracking --------------------------------------------------------------------------------- */

static int is_userfaultfd(const char *pid_fd)
{
	char target[128];
	ssize_t n = readlink(pid_fd, target, sizeof(target) - 1);

	if (n < 0)
		return 0;
	target[n] = '\0';
	return strstr(target, "userfaultfd") != NULL;
}

static int userfaultfds(void)
{
	char path[64];
	int count = 0;

	for (int fd = 0; fd < 256; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", a.pid, fd);
		count += is_userfaultfd(path);
	}
	return count;
}

static void armed_and_disarmed(void **state)
{
	enum ipc_tracker_kind kind;
	json_t *residue;
	int fd;

	(void)state;
	start_shared(&a, "arm");
	OK(guest_open(&g, a.name, &f));
	for (int i = 0; i < 3; i++) {
		OK(g->ops->arm(g, &kind, &fd, &residue, &f));
		assert_int_equal(kind, IPC_TRACKER_PAGEMAP);
		assert_true(fd >= 0);
		assert_int_equal(userfaultfds(), 1);
		assert_int_equal(g->ops->arm(g, &kind, &fd, NULL, &f), -EBUSY);
		g->ops->disarm(g);
		g->ops->disarm(g);
		assert_int_equal(userfaultfds(), 0);
		json_decref(residue);
		close(fd);
	}
	OK(guest_qemu_status(guest_qemu_of(g), &f));
	assert_true(g->desc.running);
	/* free() leaves nothing either. */
	OK(g->ops->arm(g, &kind, &fd, NULL, &f));
	close(fd);
	guest_free(g);
	g = NULL;
	assert_int_equal(userfaultfds(), 0);
}

/* A transhipd that armed the VM, changed its capabilities and is gone. */
static void residue_is_undone(void **state)
{
	enum ipc_tracker_kind kind;
	json_t *residue, *list;
	const json_t *item;
	int fd, status;
	char *text;
	pid_t child;
	size_t i;

	(void)state;
	start_shared(&a, "residue");
	OK(guest_open(&g, a.name, &f));
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		if (g->ops->arm(g, &kind, &fd, &residue, NULL) ||
		    qemu_migration_prepare(guest_qemu_of(g), NULL))
			_exit(1);
		text = json_dumps(residue, 0);
		_exit(write(ends[1], text, strlen(text) + 1) < 0);
	}
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	guest_qemu_of(g)->uffd = -1;
	guest_free(g);
	g = NULL;
	assert_int_equal(userfaultfds(), 1);
	text = calloc(1, 65536);
	assert_true(read(ends[0], text, 65535) > 0);
	residue = json_loads(text, 0, NULL);
	free(text);
	/* Of another process by now: nothing is touched. */
	json_t *other = json_deep_copy(residue);
	json_object_set_new(other, "start_time", json_integer(1));
	guest_disarm_residue(other);
	assert_int_equal(userfaultfds(), 1);
	json_decref(other);
	guest_disarm_residue(residue);
	json_decref(residue);
	assert_int_equal(userfaultfds(), 0);
	OK(guest_open(&g, a.name, &f));
	assert_true(g->desc.running);
	OK(qmp_call(guest_qemu_of(g)->q, "query-migrate-capabilities", NULL, &list, &f));
	json_array_foreach (list, i, item)
		if (!strcmp(json_string_value(json_object_get(item, "capability")),
			    "x-ignore-shared"))
			assert_true(json_is_false(json_object_get(item, "state")));
	json_decref(list);
	guest_disarm_residue(NULL);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_located),
		cmocka_unit_test_teardown(found_by_every_word, release),
		cmocka_unit_test_teardown(not_found, release),
		cmocka_unit_test_teardown(equal_names_are_ambiguous, release),
		cmocka_unit_test_teardown(the_next_socket_when_one_is_busy, release),
		cmocka_unit_test_teardown(a_list_does_not_wait_for_the_busy, release),
		cmocka_unit_test_teardown(in_another_mount_namespace, release),
		cmocka_unit_test_teardown(vms_of_another_host_on_this_machine, release),
		cmocka_unit_test_teardown(disks, release),
		cmocka_unit_test_teardown(direct_disks_need_the_barrier, release),
		cmocka_unit_test_teardown(a_writer_outside_is_refused, release),
		cmocka_unit_test_teardown(devices_that_block, release),
		cmocka_unit_test_teardown(states_that_cannot_move, release),
		cmocka_unit_test_teardown(armed_and_disarmed, release),
		cmocka_unit_test_teardown(residue_is_undone, release),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
