// SPDX-License-Identifier: MIT
// timeout: 90
/*
 * Throttling in real cgroups: the groups of a manager are made by the test itself, with threads of
 * a process of its own in them, of whichever version has the cpu controller here.
 *
 * As process 1 of a virtual machine (tests/e2e/71-throttle-v2.sh) it mounts version 2 first, and
 * ends the machine afterwards: so both versions are tested wherever one of them runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/guest/throttle.h"
#include "control/guest/throttle_cgroup.h"
#include "lib/base/clock.h"

#define OWNER	  "00112233445566778899aabbccddeeff"
#define OURS	  "tranship-" OWNER
#define THREADS	  4
#define ALL	  THREADS /* of the threads that are throttled: without a number */
#define MEASURE_S 0.6

static char base[PATH_MAX]; /* the test's group, in which it makes the others */
static const struct cgroup_ops *ops;
static bool lent;	    /* version 2: the topmost group hands cpu on for us */
static char no_groups[600]; /* why there are none */
static struct failure f;

/* --- the process that is throttled ------------------------------------------------------------ */

/* Shared with it. Threads 0 .. THREADS-1 stand for virtual processors, the next is another. */
struct vmm {
	pid_t pid;
	_Atomic pid_t tids[THREADS + 1];
	_Atomic bool spin[THREADS + 1], end[THREADS + 1], breed[THREADS + 1];
	_Atomic uint64_t cpu_ns[THREADS + 1];
	_Atomic pid_t child; /* the thread that thread 0 has made */
};

static struct vmm *vmm;

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *child_thread(void *arg)
{
	atomic_store(&vmm->child, (pid_t)syscall(SYS_gettid));
	while (!atomic_load(&vmm->end[(uintptr_t)arg]))
		usleep(1000);
	return NULL;
}

static void *vmm_thread(void *arg)
{
	uintptr_t i = (uintptr_t)arg;
	pthread_t child;

	atomic_store(&vmm->tids[i], (pid_t)syscall(SYS_gettid));
	while (!atomic_load(&vmm->end[i])) {
		if (!atomic_load(&vmm->spin[i]))
			usleep(1000);
		if (atomic_exchange(&vmm->breed[i], false))
			pthread_create(&child, NULL, child_thread, arg);
		for (volatile int n = 0; atomic_load(&vmm->spin[i]) && n < 20000;)
			n++;
		atomic_store(&vmm->cpu_ns[i], cpu_ns());
	}
	return NULL;
}

static void vmm_main(void)
{
	pthread_t t;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uintptr_t i = 0; i <= THREADS; i++)
		pthread_create(&t, NULL, vmm_thread, (void *)i);
	for (;;)
		pause();
}

static void start_vmm(void)
{
	pid_t pid;

	memset(vmm, 0, sizeof(*vmm));
	pid = fork();
	if (!pid)
		vmm_main();
	vmm->pid = pid;
	for (int i = 0; i <= THREADS; i++)
		while (!atomic_load(&vmm->tids[i]))
			usleep(500);
}

static void end_vmm(void)
{
	if (!vmm->pid)
		return;
	kill(vmm->pid, SIGKILL);
	waitpid(vmm->pid, NULL, 0);
	vmm->pid = 0;
}

static void end_thread(int i)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d", vmm->pid, vmm->tids[i]);
	atomic_store(&vmm->end[i], true);
	while (!access(path, F_OK))
		usleep(500);
}

/* --- groups ----------------------------------------------------------------------------------- */

/* Paths live until the end of their test. */
static char *texts[256];
static size_t ntexts;

static const char *at(const char *group, const char *name)
{
	char *text = NULL;

	assert_true(ntexts < sizeof(texts) / sizeof(texts[0]));
	assert_true(asprintf(&text, "%s/%s", group, name) > 0);
	texts[ntexts++] = text;
	return text;
}

static void forget_texts(void)
{
	while (ntexts)
		free(texts[--ntexts]);
}

static const char *of_thread(const char *group, int i)
{
	char name[80];

	snprintf(name, sizeof(name), OURS "/%d", vmm->tids[i]);
	return at(group, name);
}

static bool exists(const char *group)
{
	return !access(group, F_OK);
}

static void write_in(const char *group, const char *file, const char *text)
{
	int err = cgroup_write(group, file, text);

	if (err)
		fail_msg("%s > %s/%s: %s", text, group, file, strerror(-err));
}

static void move_into(const char *group, const char *file, pid_t id)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", id);
	write_in(group, file, text);
}

static bool holds(const char *group, pid_t tid)
{
	char list[4096], name[16], *line, *rest = list;

	snprintf(name, sizeof(name), "%d", tid);
	assert_int_equal(cgroup_read(group, ops->threads, list, sizeof(list)), 0);
	while ((line = strsep(&rest, "\n")))
		if (!strcmp(line, name))
			return true;
	return false;
}

static bool is_v2(void)
{
	return ops == &cgroup_v2;
}

/* A manager's group, with cpu to hand down where that has to be said. */
static const char *make(const char *parent, const char *name)
{
	const char *group = at(parent, name);

	assert_int_equal(mkdir(group, 0755), 0);
	return group;
}

static void quota(const char *group, double processors)
{
	int err = ops->set_limit(group, (uint64_t)(processors * 100000), 100000);

	if (err)
		fail_msg("quota of %s: %s", group, strerror(-err));
}

static void remove_tree(const char *group);

static int remove_each(const char *below, void *arg)
{
	(void)arg;
	remove_tree(below);
	return 0;
}

static void remove_tree(const char *group)
{
	uint64_t start = clock_ns();

	cgroup_each_below(group, remove_each, NULL);
	while (rmdir(group) && errno == EBUSY && clock_ms_since(start) < 5000)
		usleep(1000);
}

/* The VMM is in the group as a manager puts it: the whole process. */
static void put_vmm(const char *group)
{
	move_into(group, "cgroup.procs", vmm->pid);
}

/* --- what is throttled ------------------------------------------------------------------------ */

static struct throttle *throttle_of(int count)
{
	pid_t tids[THREADS];
	struct throttle *t;

	for (int i = 0; i < count; i++)
		tids[i] = vmm->tids[i];
	failure_clear(&f);
	if (throttle_new(&t, vmm->pid, tids, (size_t)count, OWNER, &f))
		fail_msg("throttle_new: %s", f.message);
	return t;
}

static void begin(struct throttle *t)
{
	if (throttle_begin(t, &f))
		fail_msg("throttle_begin: %s", f.message);
}

static void set(struct throttle *t, unsigned int share)
{
	if (throttle_set(t, share, &f))
		fail_msg("throttle_set %u: %s", share, f.message);
}

/* The share of one processor that a thread gets. */
static double share_of(int i)
{
	uint64_t wall = clock_ns(), was = atomic_load(&vmm->cpu_ns[i]), now;

	atomic_store(&vmm->spin[i], true);
	while (clock_ms_since(wall) < MEASURE_S * 1000)
		usleep(5000);
	now = atomic_load(&vmm->cpu_ns[i]);
	wall = clock_ns() - wall;
	atomic_store(&vmm->spin[i], false);
	return (double)(now - was) / (double)wall;
}

/* In processors, exactly as the kernel shows it: 0 is none. */
static void has_limit(const char *group, double processors)
{
	double is = ops->limit(group);

	if (is < processors - 0.0015 || is > processors + 0.0015)
		fail_msg("%s has %.4f processors, not %.4f", group, is, processors);
}

/* --- fixture ---------------------------------------------------------------------------------- */

/*
 * Of version 2: cpu is handed down from groups without processes only, so the test's group lies
 * directly below the topmost one, which may have some; that of a container may not.
 */
static int make_v2_base(const char *top, char why[280])
{
	char type[32] = "";

	lent = cgroup_v2.lends(top);
	if ((!lent || !cgroup_v2.lend(top)) && !cgroup_v2.lend(base) &&
	    !cgroup_read(base, "cgroup.type", type, sizeof(type)) && !strcmp(type, "domain\n"))
		return 0;
	rmdir(base);
	if (lent)
		cgroup_v2.take_back(top);
	snprintf(why, 280, "%.160s does not hand cpu down", top);
	return -EBUSY;
}

/* A group for the test to make its own in. */
static int find_base(const struct cgroup_ops *version, char why[280])
{
	char group[PATH_MAX], name[32];
	size_t mount;
	int err = version->group_of(getpid(), getpid(), group, &mount, why, 280);

	if (!err && version == &cgroup_v2)
		group[mount] = '\0';
	if (!err)
		err = version->usable(group, why, 280);
	if (err)
		return err;
	snprintf(name, sizeof(name), "tranship-test-%d", getpid());
	snprintf(base, sizeof(base), "%.4000s/%s", group, name);
	if (mkdir(base, 0755)) {
		snprintf(why, 280, "%.160s: %s", base, strerror(errno));
		return -errno;
	}
	if (version == &cgroup_v2)
		err = make_v2_base(group, why);
	ops = err ? NULL : version;
	return err;
}

static int setup_all(void **unused)
{
	char why[2][280] = { "", "" };

	(void)unused;
	vmm = mmap(NULL, sizeof(*vmm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (vmm == MAP_FAILED)
		return -1;
	if (find_base(&cgroup_v2, why[0]) && find_base(&cgroup_v1, why[1]))
		snprintf(no_groups, sizeof(no_groups), "%s; %s", why[0], why[1]);
	else
		print_message("cgroup %s in %s\n", ops->name, base);
	return 0;
}

static int teardown_all(void **unused)
{
	char *slash = strrchr(base, '/');

	(void)unused;
	if (!ops)
		return 0;
	remove_tree(base);
	*slash = '\0';
	if (lent)
		ops->take_back(base);
	return 0;
}

static int setup(void **unused)
{
	(void)unused;
	if (!ops)
		return 0;
	mkdir(base, 0755);
	start_vmm();
	return 0;
}

static int teardown(void **unused)
{
	(void)unused;
	if (!ops)
		return 0;
	end_vmm();
	cgroup_each_below(base, remove_each, NULL);
	forget_texts();
	return 0;
}

#define NEED_GROUPS()                                                                              \
	do {                                                                                       \
		if (!ops) {                                                                        \
			print_message("no cgroup to test with: %s\n", no_groups);                  \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

/* --- cases ------------------------------------------------------------------------------------ */

static void limits_a_busy_thread(void **unused)
{
	const char *vm;
	struct throttle *t;
	double share;

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "vm");
	put_vmm(vm);
	t = throttle_of(2);
	assert_false(exists(at(vm, OURS)));
	begin(t);
	assert_true(holds(of_thread(vm, 0), vmm->tids[0]));
	assert_true(holds(of_thread(vm, 1), vmm->tids[1]));
	/* what is no virtual processor stays where it was */
	assert_true(holds(vm, vmm->pid));
	assert_true(holds(vm, vmm->tids[3]));
	has_limit(of_thread(vm, 0), 0);
	set(t, 30);
	has_limit(of_thread(vm, 0), 0.3);
	has_limit(of_thread(vm, 1), 0.3);
	has_limit(at(vm, OURS), 0.6);
	share = share_of(0);
	if (share > 0.45 || share <= 0)
		fail_msg("30 %% of a processor came to %.0f %%", share * 100);
	set(t, 100);
	has_limit(of_thread(vm, 0), 0);
	has_limit(at(vm, OURS), 0);
	throttle_free(t);
	assert_false(exists(at(vm, OURS)));
	for (int i = 0; i <= THREADS; i++)
		assert_true(holds(vm, vmm->tids[i]));
}

/* Up, down, and to the ends, in steps that a version 1 kernel would refuse in the wrong order. */
static void every_share(void **unused)
{
	static const unsigned int shares[] = { 99, 50, 10, 9, 1, 2, 10, 80, 5, 100, 1, 100, 60 };
	const char *vm;
	struct throttle *t;

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "vm");
	put_vmm(vm);
	quota(vm, 1.5);
	t = throttle_of(THREADS);
	begin(t);
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		const double part = shares[i] == 100 ? 0 : shares[i] / 100.0;

		set(t, shares[i]);
		has_limit(of_thread(vm, 2), part);
		has_limit(at(vm, OURS), 1.5 * part);
	}
	assert_int_equal(throttle_set(t, 0, &f), -EINVAL);
	assert_int_equal(throttle_set(t, 101, &f), -EINVAL);
	throttle_free(t);
	assert_false(exists(at(vm, OURS)));
}

/* As libvirt does: a group for each virtual processor, each with a quota, in one with another. */
static void within_a_managers_groups(void **unused)
{
	const char *vm, *emulator, *vcpu[2];
	char text[32];
	struct throttle *t;
	double share;

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "machine");
	put_vmm(vm);
	emulator = at(vm, "emulator");
	vcpu[0] = at(vm, "vcpu0");
	vcpu[1] = at(vm, "vcpu1");
	if (is_v2())
		write_in(vm, "cgroup.subtree_control", "+cpu");
	assert_int_equal(ops->make(emulator), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ops->make(vcpu[i]), 0);
		move_into(vcpu[i], ops->threads, vmm->tids[i]);
	}
	move_into(emulator, ops->threads, vmm->tids[THREADS]);
	quota(vm, 1.2);
	quota(vcpu[0], 0.4);
	t = throttle_of(2);
	begin(t);
	/* below the group in which it was, whose limit it stays under */
	assert_true(holds(of_thread(vcpu[0], 0), vmm->tids[0]));
	assert_true(holds(of_thread(vcpu[1], 1), vmm->tids[1]));
	assert_true(holds(emulator, vmm->tids[THREADS]));
	share = share_of(0);
	if (share > 0.55)
		fail_msg("out of the manager's quota of 40 %%: %.0f %%", share * 100);
	/* full speed is what the manager leaves */
	set(t, 50);
	has_limit(of_thread(vcpu[0], 0), 0.2);
	has_limit(of_thread(vcpu[1], 1), 0.5);
	has_limit(vcpu[0], 0.4);
	has_limit(vm, 1.2);
	share = share_of(0);
	if (share > 0.32)
		fail_msg("half of 40 %% came to %.0f %%", share * 100);
	/* the manager allows more: that counts from the next change on */
	quota(vcpu[0], 0.8);
	set(t, 49);
	has_limit(of_thread(vcpu[0], 0), 0.392);
	throttle_end(t);
	assert_true(holds(vcpu[0], vmm->tids[0]));
	assert_true(holds(vcpu[1], vmm->tids[1]));
	assert_true(holds(emulator, vmm->tids[THREADS]));
	assert_false(exists(at(vcpu[0], OURS)));
	has_limit(vcpu[0], 0.8);
	assert_true(exists(vcpu[0]) && exists(vcpu[1]) && exists(emulator));
	/* handed on only while it was needed */
	if (is_v2()) {
		assert_int_equal(cgroup_read(vcpu[0], "cgroup.subtree_control", text, sizeof(text)),
				 0);
		assert_false(cgroup_has_word(text, "cpu"));
	}
	throttle_free(t);
}

/* A group against its siblings counts as much as the threads in it. */
static void keeps_its_weight(void **unused)
{
	const char *vm, *file = is_v2() ? "cpu.weight" : "cpu.shares";
	const int of_one = is_v2() ? 100 : 1024;
	const struct sched_param none = { 0 };
	struct throttle *t;
	char text[32];

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "vm");
	put_vmm(vm);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(sched_setscheduler(vmm->tids[i], SCHED_OTHER, &none), 0);
		assert_int_equal(setpriority(PRIO_PROCESS, (id_t)vmm->tids[i], 0), 0);
	}
	t = throttle_of(THREADS);
	begin(t);
	assert_int_equal(cgroup_read(at(vm, OURS), file, text, sizeof(text)), 0);
	assert_int_equal(atoi(text), THREADS * of_one);
	assert_int_equal(cgroup_read(of_thread(vm, 1), file, text, sizeof(text)), 0);
	assert_int_equal(atoi(text), of_one);
	throttle_free(t);
}

static void threads_that_have_ended(void **unused)
{
	const char *vm;
	struct throttle *t;
	struct failure why = { 0 };
	pid_t gone = 0;

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "vm");
	put_vmm(vm);
	t = throttle_of(3);
	end_thread(0);
	begin(t);
	end_thread(1);
	set(t, 50);
	has_limit(of_thread(vm, 2), 0.5);
	set(t, 70);
	end_vmm();
	set(t, 20);
	throttle_free(t);
	assert_false(exists(at(vm, OURS)));
	gone = vmm->tids[0];
	assert_int_equal(throttle_new(&t, vmm->pid ? vmm->pid : gone, &gone, 1, OWNER, &why),
			 -ESRCH);
	assert_string_equal(why.code, "vm-gone");
}

/* Made by a virtual processor meanwhile, it would be slowed as well, and for ever in the way. */
static void threads_that_ours_have_made(void **unused)
{
	const char *vm;
	struct throttle *t;
	pid_t child;

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "vm");
	put_vmm(vm);
	t = throttle_of(1);
	begin(t);
	atomic_store(&vmm->breed[0], true);
	while (!(child = atomic_load(&vmm->child)))
		usleep(500);
	assert_true(holds(of_thread(vm, 0), child));
	set(t, 50);
	assert_true(holds(vm, child));
	assert_true(holds(of_thread(vm, 0), vmm->tids[0]));
	atomic_store(&vmm->child, 0);
	atomic_store(&vmm->breed[0], true);
	while (!(child = atomic_load(&vmm->child)))
		usleep(500);
	throttle_free(t);
	assert_true(holds(vm, child));
	assert_false(exists(at(vm, OURS)));
}

/* Its manager takes a group away, with what is below, as when the VM has ended. */
static void groups_that_have_vanished(void **unused)
{
	const char *vm;
	struct throttle *t;

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "vm");
	put_vmm(vm);
	t = throttle_of(2);
	begin(t);
	set(t, 50);
	end_vmm();
	remove_tree(vm);
	assert_false(exists(vm));
	set(t, 40);
	set(t, 90);
	set(t, 100);
	throttle_free(t);
	/* and before it was begun */
	start_vmm();
	vm = make(base, "vm");
	put_vmm(vm);
	t = throttle_of(2);
	move_into(base[0] == '/' && is_v2() ? make(base, "other") : base, "cgroup.procs", vmm->pid);
	remove_tree(vm);
	failure_clear(&f);
	assert_int_equal(throttle_begin(t, &f), -EOPNOTSUPP);
	assert_string_equal(f.code, "throttle-unavailable");
	throttle_free(t);
}

/* What a killed transhipd leaves, from its journal: only that, and as often as one likes. */
static void residue_is_removed(void **unused)
{
	const char *vm, *other, *name;
	json_t *residue, *read;
	struct throttle *t;
	char *text;
	pid_t daemon;
	int status;

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "vm");
	put_vmm(vm);
	t = throttle_of(2);
	residue = throttle_residue(t);
	text = json_dumps(residue, JSON_COMPACT);
	read = json_loads(text, 0, NULL);
	/* before anything was made there is nothing to undo */
	throttle_undo(read);
	throttle_undo(NULL);
	daemon = fork();
	if (!daemon) {
		begin(t);
		set(t, 20);
		raise(SIGKILL);
	}
	waitpid(daemon, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_true(holds(of_thread(vm, 0), vmm->tids[0]));
	/* another's, of another session that lives */
	other = at(vm, "tranship-ffeeddccbbaa99887766554433221100");
	assert_int_equal(ops->make(other), 0);
	throttle_undo(read);
	assert_false(exists(at(vm, OURS)));
	assert_true(exists(other));
	for (int i = 0; i <= THREADS; i++)
		assert_true(holds(vm, vmm->tids[i]));
	throttle_undo(read);
	rmdir(other);
	/* nothing else is believed of a journal */
	name = make(vm, "precious");
	json_object_set_new(read, "name", json_string("precious"));
	throttle_undo(read);
	json_object_set_new(read, "name", json_string("tranship-../precious"));
	throttle_undo(read);
	assert_true(exists(name));
	json_decref(read);
	json_decref(residue);
	free(text);
	throttle_free(t);
}

static void the_vm_has_gone_and_its_residue_not(void **unused)
{
	json_t *residue;
	const char *vm;
	struct throttle *t;
	pid_t daemon;

	(void)unused;
	NEED_GROUPS();
	vm = make(base, "vm");
	put_vmm(vm);
	t = throttle_of(2);
	residue = throttle_residue(t);
	daemon = fork();
	if (!daemon) {
		begin(t);
		raise(SIGKILL);
	}
	waitpid(daemon, NULL, 0);
	end_vmm();
	assert_true(exists(at(vm, OURS)));
	throttle_undo(residue);
	assert_false(exists(at(vm, OURS)));
	json_decref(residue);
	throttle_free(t);
}

/* Version 1 counts real-time threads apart, and neither version holds them. */
static void real_time_is_refused(void **unused)
{
	const struct sched_param one = { .sched_priority = 1 };
	struct throttle *t;
	pid_t tid;

	(void)unused;
	NEED_GROUPS();
	tid = vmm->tids[0];
	if (sched_setscheduler(tid, SCHED_FIFO, &one)) {
		print_message("no real-time priority here: %s\n", strerror(errno));
		skip();
	}
	failure_clear(&f);
	assert_int_equal(throttle_new(&t, vmm->pid, &tid, 1, OWNER, &f), -EOPNOTSUPP);
	assert_string_equal(f.code, "throttle-unavailable");
	assert_non_null(strstr(f.message, "real-time"));
	assert_null(t);
}

/* In a mount namespace of its own, in which nothing of cgroups can be written. */
static int in_read_only(void)
{
	pid_t tid = vmm->tids[0];
	struct throttle *t = NULL;
	char point[PATH_MAX];
	size_t mount_len;
	char why[200], group[PATH_MAX];
	int err;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    ops->group_of(tid, tid, group, &mount_len, why, sizeof(why)))
		return 77;
	snprintf(point, sizeof(point), "%.*s", (int)mount_len, group);
	if (mount(NULL, point, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL))
		return 77;
	failure_clear(&f);
	err = throttle_new(&t, vmm->pid, &tid, 1, OWNER, &f);
	fprintf(stderr, "%d %s: %s\n", err, f.code, f.message);
	return err == -EOPNOTSUPP && !strcmp(f.code, "throttle-unavailable") &&
			       strstr(f.message, "Read-only file system")
		       ? 0
		       : 1;
}

static void read_only_is_said(void **unused)
{
	pid_t child;
	int status;

	(void)unused;
	NEED_GROUPS();
	child = fork();
	if (!child)
		_exit(in_read_only());
	waitpid(child, &status, 0);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- a machine of its own --------------------------------------------------------------------- */

/* Process 1: what the tests need, and no more. */
static void become_init(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
	    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL))
		perror("mount");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(limits_a_busy_thread),
		CASE(every_share),
		CASE(within_a_managers_groups),
		CASE(keeps_its_weight),
		CASE(threads_that_have_ended),
		CASE(threads_that_ours_have_made),
		CASE(groups_that_have_vanished),
		CASE(residue_is_removed),
		CASE(the_vm_has_gone_and_its_residue_not),
		CASE(real_time_is_refused),
		CASE(read_only_is_said),
	};
	bool init = getpid() == 1;
	int failed;

	if (init)
		become_init();
	failed = cmocka_run_group_tests(tests, setup_all, teardown_all);
	if (!init)
		return failed || ops ? failed : 77;
	printf("throttle: %d failed, cgroup %s\n", failed, ops ? ops->name : no_groups);
	fflush(stdout);
	reboot(RB_POWER_OFF);
	return 0;
}
