// SPDX-License-Identifier: MIT
/*
 * RAM that outlives its VMM: found again by the mapping of a process that lives, or by the path,
 * and never another file of that path.
 */
#include "control/session/source_ram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/guest/proc_maps.h"
#include "control/session/source_postcopy.h"
#include "lib/base/cleanup.h"

#define SIZE (1u << 20)

static int ram = -1; /* the file of the VM's only region */

static int open_ram(struct guest *g, uint32_t i, bool writable, int *fd, struct failure *f)
{
	(void)g;
	(void)i;
	(void)writable;
	(void)f;
	*fd = dup(ram);
	return *fd < 0 ? -errno : 0;
}

static const struct guest_ops ops = { .kind = "test", .open_ram = open_ram };

struct vm {
	pid_t pid;
	uint64_t start_time;
	struct guest_mapping mapping;
	struct guest_region region;
	struct guest g;
	struct source_ram ram;
	char path[64];
};

/* A process that maps the file and waits to be killed. */
static void begin(struct vm *vm, bool named)
{
	void *at;

	memset(vm, 0, sizeof(*vm));
	snprintf(vm->path, sizeof(vm->path), "/tmp/test_source_ram.XXXXXX");
	ram = named ? mkstemp(vm->path) : memfd_create("ram", MFD_CLOEXEC);
	assert_true(ram >= 0);
	assert_int_equal(ftruncate(ram, SIZE), 0);
	assert_int_equal(pwrite(ram, "page", 4, 4096), 4);
	at = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, ram, 0);
	assert_ptr_not_equal(at, MAP_FAILED);
	vm->pid = fork();
	if (!vm->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	munmap(at, SIZE);
	assert_int_equal(proc_start_time(vm->pid, &vm->start_time), 0);
	vm->mapping = (struct guest_mapping){ .start = (uintptr_t)at, .end = (uintptr_t)at + SIZE };
	vm->region =
		(struct guest_region){ .size = SIZE,
				       .page_size = 4096,
				       .backing = named ? GUEST_BACKING_FILE : GUEST_BACKING_MEMFD,
				       .mappings = &vm->mapping,
				       .nmappings = 1 };
	if (named)
		snprintf(vm->region.path, sizeof(vm->region.path), "%s", vm->path);
	vm->g = (struct guest){ .ops = &ops, .desc = { .regions = &vm->region, .nregions = 1 } };
	assert_int_equal(source_ram_open(&vm->ram, &vm->g, NULL), 0);
	assert_int_equal(vm->ram.bytes, SIZE);
}

static void die(struct vm *vm)
{
	kill(vm->pid, SIGKILL);
	assert_int_equal(waitpid(vm->pid, NULL, 0), vm->pid);
}

/* As transhipd finds it at its start: the journal's note, and no descriptor. */
static int restart(struct vm *vm, struct failure *f)
{
	json_t *note = json_incref(vm->ram.note);

	source_ram_release(&vm->ram);
	fd_close(&ram);
	vm->ram.note = note;
	return source_ram_reopen(&vm->ram, vm->pid, vm->start_time, f);
}

static void assert_page(const struct source_ram *r)
{
	char text[5] = "";

	assert_int_equal(r->count, 1);
	assert_int_equal(r->regions[0].size, SIZE);
	assert_int_equal(r->regions[0].page_size, 4096);
	assert_int_equal(pread(r->fds[0], text, 4, 4096), 4);
	assert_string_equal(text, "page");
}

static void end(struct vm *vm, bool named)
{
	source_ram_release(&vm->ram);
	fd_close(&ram);
	if (named)
		unlink(vm->path);
}

static void it_outlives_its_process(void **state)
{
	struct vm vm;

	(void)state;
	begin(&vm, false);
	fd_close(&ram);
	die(&vm);
	/* what is open is not opened again */
	assert_int_equal(source_ram_reopen(&vm.ram, vm.pid, vm.start_time, NULL), 0);
	assert_page(&vm.ram);
	end(&vm, false);
}

static void it_is_found_in_a_process_that_lives(void **state)
{
	struct failure f = { 0 };
	struct vm vm;

	(void)state;
	begin(&vm, false);
	assert_int_equal(restart(&vm, &f), 0);
	assert_page(&vm.ram);
	die(&vm);
	end(&vm, false);
}

static void a_named_file_is_found_without_one(void **state)
{
	struct failure f = { 0 };
	struct vm vm;

	(void)state;
	begin(&vm, true);
	die(&vm);
	assert_int_equal(restart(&vm, &f), 0);
	assert_page(&vm.ram);
	end(&vm, true);
}

static void another_file_of_that_path_is_not_it(void **state)
{
	struct failure f = { 0 };
	char old[80];
	struct vm vm;
	int other;

	(void)state;
	begin(&vm, true);
	die(&vm);
	/* the first is still there, so that its inode is not used again */
	snprintf(old, sizeof(old), "%s.old", vm.path);
	assert_int_equal(rename(vm.path, old), 0);
	other = open(vm.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(other >= 0);
	assert_int_equal(restart(&vm, &f), -ENODATA);
	assert_string_equal(f.code, "vm-gone");
	assert_int_equal(vm.ram.count, 0);
	close(other);
	unlink(old);
	end(&vm, true);
}

static void a_memfd_without_its_process_is_lost(void **state)
{
	struct failure f = { 0 };
	struct vm vm;

	(void)state;
	begin(&vm, false);
	die(&vm);
	assert_int_equal(restart(&vm, &f), -ENODATA);
	assert_string_equal(f.code, "vm-gone");
	end(&vm, false);
}

static void nothing_was_written_down(void **state)
{
	struct failure f = { 0 };
	struct source_ram r = { 0 };

	(void)state;
	assert_int_equal(source_ram_reopen(&r, getpid(), 0, &f), -ENODATA);
	assert_string_equal(f.code, "journal");
}

/* Disarming takes 10 ms a GiB: who has a TiB is waited for longer than that. */
static void all_of_a_large_vm_is_waited_for(void **state)
{
	(void)state;
	assert_true(source_postcopy_settle_ms(0) >= 5000);
	assert_true(source_postcopy_settle_ms(1ull << 40) >= 2 * 10 * 1024 + 5000);
	assert_true(source_postcopy_settle_ms(24ull << 40) >= 2 * 24 * 10 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_outlives_its_process),
		cmocka_unit_test(it_is_found_in_a_process_that_lives),
		cmocka_unit_test(a_named_file_is_found_without_one),
		cmocka_unit_test(another_file_of_that_path_is_not_it),
		cmocka_unit_test(a_memfd_without_its_process_is_lost),
		cmocka_unit_test(nothing_was_written_down),
		cmocka_unit_test(all_of_a_large_vm_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
