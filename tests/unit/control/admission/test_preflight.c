// SPDX-License-Identifier: MIT
/* The destination's checks on constructed descriptions, and what is read of this host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/admission/disk_identity.h"
#include "control/admission/preflight.h"

#define GIB (1ull << 30)

/* One VM on each side, which fit, and a host with room; a case changes one thing. */
static struct world {
	struct guest_description source, waiting;
	struct guest_region regions[2], waiting_regions[2];
	struct guest_disk disk;
	struct host_facts host;
	char *argv[2];
	bool incoming;
} w;

static void describe(struct guest_description *d, struct guest_region *regions)
{
	strcpy(d->kind, "qemu");
	strcpy(d->version, "7.2.22");
	strcpy(d->machine, "pc-q35-7.2");
	strcpy(d->accel, "tcg");
	d->cpus = 2;
	d->regions = regions;
	d->nregions = 1;
	strcpy(regions[0].id, "ram0");
	strcpy(regions[0].path, "/dev/shm/test_preflight.none");
	regions[0].size = GIB;
	regions[0].page_size = 4096;
	regions[0].share = true;
}

static void fresh(void)
{
	json_decref(w.source.extra);
	memset(&w, 0, sizeof(w));
	describe(&w.source, w.regions);
	describe(&w.waiting, w.waiting_regions);
	strcpy(w.waiting.state, "inmigrate");
	w.argv[0] = (char *)"/usr/bin/qemu-system-x86_64";
	w.source.argv = w.argv;
	w.source.disks = &w.disk;
	w.source.extra = json_object();
	w.host.mem_available = 8 * GIB;
	w.host.huge_free_2m = 4096;
	w.host.kvm = true;
	strcpy(w.host.cpu_vendor, "GenuineIntel");
	strcpy(w.host.cpu_flags, "fpu sse2 pni avx avx2 sse4_2");
	w.host.nqemus = 1;
	strcpy(w.host.qemus[0].binary, "/usr/bin/qemu-system-x86_64");
	strcpy(w.host.qemus[0].version, "7.2.22");
	strcpy(w.host.qemus[0].machines, "microvm pc pc-q35-7.2 pc-q35-7.1 q35");
}

static void source_cpu(const char *vendor, const char *flags)
{
	strcpy(w.source.accel, "kvm");
	strcpy(w.source.cpu_model, "host");
	json_object_set_new(w.source.extra, "cpu_vendor", json_string(vendor));
	json_object_set_new(w.source.extra, "cpu_flags", json_string(flags));
}

/* The check of that name with the worst level among those of its name, or NULL. */
static const json_t *find(const json_t *checks, const char *level, const char *code)
{
	const json_t *c;
	size_t i;

	json_array_foreach (checks, i, c)
		if (!strcmp(json_string_value(json_object_get(c, "level")), level) &&
		    !strcmp(json_string_value(json_object_get(c, "code")), code))
			return c;
	return NULL;
}

static unsigned int count(const json_t *checks, const char *level)
{
	unsigned int n = 0;
	const json_t *c;
	size_t i;

	json_array_foreach (checks, i, c)
		n += !strcmp(json_string_value(json_object_get(c, "level")), level);
	return n;
}

/* --- cases: what is changed, and the one complaint that must come of it ------------------------
 */

static void none(void)
{
}
static void no_memory(void)
{
	w.host.mem_available = GIB;
}
static void just_memory(void)
{
	w.host.mem_available = GIB + GIB / 200 + (256 << 20);
}
static void one_byte_short(void)
{
	w.host.mem_available = GIB + GIB / 200 + (256 << 20) - 1;
}
static void huge_size(void)
{
	w.regions[0].size = UINT64_MAX;
}
static void older(void)
{
	strcpy(w.host.qemus[0].version, "7.1.9");
}
static void micro(void)
{
	strcpy(w.host.qemus[0].version, "7.2.0");
}
static void newer(void)
{
	strcpy(w.host.qemus[0].version, "10.0.2");
}
static void unknown_version(void)
{
	w.host.qemus[0].version[0] = '\0';
}
static void no_machine(void)
{
	strcpy(w.host.qemus[0].machines, "pc-q35-7.20 xpc-q35-7.2");
}
static void machines_unknown(void)
{
	w.host.qemus[0].machines[0] = '\0';
}
static void no_binary(void)
{
	w.argv[0] = (char *)"/usr/bin/qemu-kvm";
}
static void same_name(void)
{
	w.argv[0] = (char *)"/opt/qemu/bin/qemu-system-x86_64";
}
static void no_argv(void)
{
	w.source.argv = NULL;
}

static void hugetlb(void)
{
	w.regions[0].hugetlb = w.waiting_regions[0].hugetlb = true;
	w.regions[0].page_size = w.waiting_regions[0].page_size = 2u << 20;
	w.host.mem_available = GIB; /* it needs none of that */
}
static void hugetlb_full(void)
{
	hugetlb();
	w.host.huge_free_2m = 511;
}
static void hugetlb_exact(void)
{
	hugetlb();
	w.host.huge_free_2m = 512;
}
static void hugetlb_1g(void)
{
	hugetlb();
	w.regions[0].page_size = 1u << 30;
}

static void no_kvm(void)
{
	source_cpu("GenuineIntel", "sse2");
	w.host.kvm = false;
}
static void cpu_same(void)
{
	source_cpu("GenuineIntel", "sse2 avx avx2 constant_tsc pti");
}
static void cpu_lacks(void)
{
	source_cpu("GenuineIntel", "sse2 avx512f");
}
/* avx512f is not there because avx is. */
static void cpu_lacks_prefix(void)
{
	source_cpu("GenuineIntel", "sse2 avx512f");
	strcpy(w.host.cpu_flags, "sse2 avx avx512fx");
}
static void cpu_vendor(void)
{
	source_cpu("AuthenticAMD", "sse2");
}
static void cpu_named(void)
{
	cpu_lacks();
	strcpy(w.source.cpu_model, "Skylake-Server");
}
static void cpu_unknown(void)
{
	cpu_same();
	json_object_clear(w.source.extra);
}
static void cpu_explicit(void)
{
	cpu_same();
	strcpy(w.source.cpu_model, "qemu64,+avx512f,-avx2");
}
static void cpu_explicit_on(void)
{
	cpu_same();
	strcpy(w.source.cpu_model, "qemu64,avx512f=on");
}
static void cpu_explicit_there(void)
{
	cpu_same();
	strcpy(w.source.cpu_model, "qemu64,+sse4.2,sse3=on,avx512f=off");
}
static void cpu_paravirtual(void)
{
	cpu_same();
	strcpy(w.source.cpu_model, "host,+x2apic,hv-time=on,kvm=off");
}

static void waits(void)
{
	w.incoming = true;
}
static void waits_running(void)
{
	waits();
	strcpy(w.waiting.state, "running");
}
static void waits_older(void)
{
	waits();
	strcpy(w.waiting.version, "7.1.0");
}
static void waits_newer(void)
{
	waits();
	strcpy(w.waiting.version, "8.2.0");
}
static void waits_machine(void)
{
	waits();
	strcpy(w.waiting.machine, "pc-q35-7.1");
}
static void waits_size(void)
{
	waits();
	w.waiting_regions[0].size = 2 * GIB;
}
static void waits_id(void)
{
	waits();
	strcpy(w.waiting_regions[0].id, "ram1");
}
static void waits_pages(void)
{
	waits();
	w.waiting_regions[0].page_size = 2u << 20;
}
static void waits_private(void)
{
	waits();
	w.waiting_regions[0].share = false;
}
static void waits_more(void)
{
	waits();
	w.waiting.nregions = 2;
	w.waiting_regions[1] = w.waiting_regions[0];
	strcpy(w.waiting_regions[1].id, "ram1");
}
static void waits_cpus(void)
{
	waits();
	w.waiting.cpus = 4;
}
static void waits_accel(void)
{
	waits();
	strcpy(w.waiting.accel, "kvm");
}
static void waits_model(void)
{
	waits();
	strcpy(w.waiting.cpu_model, "max");
}
static void waits_kind(void)
{
	waits();
	strcpy(w.waiting.kind, "tranship");
}
static void waits_prealloc(void)
{
	waits();
	w.waiting_regions[0].prealloc = true; /* it has its memory */
	w.host.mem_available = GIB / 2;
}
static void waits_hugetlb(void)
{
	waits();
	hugetlb_full();
}
static void memfd_moves_up(void)
{
	w.regions[0].backing = GUEST_BACKING_MEMFD;
	w.regions[0].path[0] = '\0';
	newer();
}

static const struct {
	const char *name;
	void (*change)(void);
	const char *error, *warning; /* codes, NULL: none at all */
} cases[] = {
#define CASE(f, error, warning)                                                                    \
	{                                                                                          \
#f, f, error, warning                                                              \
	}
	CASE(none, NULL, NULL),
	CASE(no_memory, "memory", NULL),
	CASE(just_memory, NULL, NULL),
	CASE(one_byte_short, "memory", NULL),
	CASE(huge_size, "memory", NULL),
	CASE(older, "qemu-version", NULL),
	CASE(micro, NULL, NULL),
	CASE(newer, NULL, "qemu-version"),
	CASE(unknown_version, "qemu-version", NULL),
	CASE(no_machine, "machine-type", NULL),
	CASE(machines_unknown, NULL, NULL),
	CASE(no_binary, "launch-refused", NULL),
	CASE(same_name, NULL, NULL),
	CASE(no_argv, "launch-refused", NULL),
	CASE(hugetlb, NULL, NULL),
	CASE(hugetlb_full, "memory", NULL),
	CASE(hugetlb_exact, NULL, NULL),
	CASE(hugetlb_1g, "memory", NULL),
	CASE(no_kvm, "cpu-model", NULL),
	CASE(cpu_same, NULL, NULL),
	CASE(cpu_lacks, "cpu-model", NULL),
	CASE(cpu_lacks_prefix, "cpu-model", NULL),
	CASE(cpu_vendor, "cpu-model", NULL),
	CASE(cpu_named, NULL, "cpu-model"),
	CASE(cpu_unknown, NULL, "cpu-model"),
	CASE(cpu_explicit, "cpu-model", NULL),
	CASE(cpu_explicit_on, "cpu-model", NULL),
	CASE(cpu_explicit_there, NULL, NULL),
	CASE(cpu_paravirtual, NULL, NULL),
	CASE(waits, NULL, NULL),
	CASE(waits_running, "incoming-not-waiting", NULL),
	CASE(waits_older, "qemu-version", NULL),
	CASE(waits_newer, NULL, "qemu-version"),
	CASE(waits_machine, "machine-type", NULL),
	CASE(waits_size, "ram-layout", NULL),
	CASE(waits_id, "ram-layout", NULL),
	CASE(waits_pages, "ram-layout", NULL),
	CASE(waits_private, "ram-not-shared", NULL),
	CASE(waits_more, "ram-layout", NULL),
	CASE(waits_cpus, "cpu-model", NULL),
	CASE(waits_accel, "cpu-model", NULL),
	CASE(waits_model, NULL, "cpu-model"),
	CASE(waits_kind, "incoming-not-waiting", NULL),
	CASE(waits_prealloc, NULL, NULL),
	CASE(waits_hugetlb, NULL, NULL),
	CASE(memfd_moves_up, NULL, "ram-memfd"),
};

static json_t *run(void)
{
	json_t *checks = json_array();

	preflight_destination(checks, &w.source, w.incoming ? &w.waiting : NULL, &w.host);
	return checks;
}

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *checks;
		bool good;

		fresh();
		cases[i].change();
		checks = run();
		good = (cases[i].error ? find(checks, "error", cases[i].error) != NULL
				       : !count(checks, "error")) &&
		       (cases[i].warning ? find(checks, "warning", cases[i].warning) != NULL
					 : !count(checks, "warning"));
		if (!good) {
			json_dumpf(checks, stderr, JSON_INDENT(1));
			fail_msg("case %s", cases[i].name);
		}
		json_decref(checks);
	}
	fresh();
}

/* Every complaint has a documented code, a group of --skip-check or none, and ends in the verdict.
 */
static void test_form(void **state)
{
	static const char *const groups[] = { "", "cpu", "memory", "disk", "version", "devices" };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct failure f = { 0 };
		const json_t *c;
		json_t *checks;
		size_t k;

		fresh();
		cases[i].change();
		checks = run();
		json_array_foreach (checks, k, c) {
			const char *code = json_string_value(json_object_get(c, "code"));
			const char *group = json_string_value(json_object_get(c, "group"));
			bool known = false;

			for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++)
				known |= !strcmp(group, groups[g]);
			assert_true(known);
			assert_true(!code[0] || failure_code_known(code));
			assert_true(json_string_length(json_object_get(c, "message")) > 0);
		}
		assert_int_equal(checks_verdict(checks, &f), cases[i].error ? -EPERM : 0);
		if (cases[i].error)
			assert_true(failure_is_set(&f));
		json_decref(checks);
	}
	fresh();
}

static void test_skip(void **state)
{
	struct failure f = { 0 };
	json_t *checks = json_array();

	(void)state;
	check_add(checks, "a", "cpu", CHECK_ERROR, "cpu-model", NULL, "a");
	check_add(checks, "b", "memory", CHECK_ERROR, "memory", "do %d", "b");
	check_add(checks, "c", "", CHECK_ERROR, "ram-not-shared", NULL, "c");
	assert_int_equal(checks_skip(checks, NULL, &f), 0);
	assert_int_equal(checks_skip(checks, "", &f), 0);
	assert_int_equal(count(checks, "error"), 3);
	assert_int_equal(checks_skip(checks, "disk,cpu", &f), 0);
	assert_int_equal(count(checks, "error"), 2);
	assert_non_null(find(checks, "warning", "cpu-model"));
	assert_int_equal(checks_verdict(checks, &f), -EPERM);
	assert_string_equal(f.code, "memory");
	assert_string_equal(f.hint, "Do %d");
	/* What has no group is never skipped. */
	assert_int_equal(checks_skip(checks, "all", &f), 0);
	assert_int_equal(count(checks, "error"), 1);
	failure_clear(&f);
	assert_int_equal(checks_verdict(checks, &f), -EPERM);
	assert_string_equal(f.code, "ram-not-shared");
	for (size_t i = 0; i < 5; i++) {
		static const char *const bad[] = { "ram", "cpu,", "cpu,,disk", "CPU", "al" };

		failure_clear(&f);
		/* A comma at the end is nothing. */
		assert_int_equal(checks_skip(checks, bad[i], &f), i == 1 ? 0 : -EINVAL);
		if (i != 1)
			assert_string_equal(f.code, "usage");
	}
	json_decref(checks);
}

static void test_unprintable(void **state)
{
	json_t *checks = json_array();

	(void)state;
	check_add(checks, "disk", "disk", CHECK_ERROR, "disk-not-shared", "\xff", "\xff");
	assert_int_equal(count(checks, "error"), 1);
	assert_true(json_is_string(json_object_get(json_array_get(checks, 0), "message")));
	assert_true(json_is_string(json_object_get(json_array_get(checks, 0), "hint")));
	json_decref(checks);
}

static void test_versions(void **state)
{
	static const struct {
		const char *a, *b;
		int order;
	} v[] = { { "7.2.22", "7.2.0", 0 },	{ "7.2", "7.10", -1 }, { "10.0.0", "9.2", 1 },
		  { "8.1.0", "8.1", 0 },	{ "", "7.2", -1 },     { "x", "", 0 },
		  { "99999999999.1", "1.0", 1 } };

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		assert_int_equal(version_compare(v[i].a, v[i].b), v[i].order);
		assert_int_equal(version_compare(v[i].b, v[i].a), -v[i].order);
	}
}

/* --- disks ------------------------------------------------------------------------------------ */

static void test_disk_here(void **state)
{
	char path[] = "/tmp/test_preflight.XXXXXX", moved[64];
	int fd = mkstemp(path);
	json_t *checks;
	struct stat st;

	(void)state;
	assert_int_equal(ftruncate(fd, 4096), 0);
	fresh();
	w.source.ndisks = 1;
	strcpy(w.disk.path, path);
	strcpy(w.disk.format, "raw");
	assert_int_equal(disk_identity_read(path, w.disk.identity, sizeof(w.disk.identity)), 0);
	checks = run();
	assert_int_equal(count(checks, "error"), 0);
	json_decref(checks);
	/* Without an identity: by device and inode. */
	w.disk.identity[0] = '\0';
	assert_int_equal(fstat(fd, &st), 0);
	w.disk.device = st.st_dev;
	w.disk.inode = st.st_ino;
	checks = run();
	assert_int_equal(count(checks, "error"), 0);
	json_decref(checks);
	w.disk.inode++;
	checks = run();
	assert_non_null(find(checks, "error", "disk-not-shared"));
	json_decref(checks);
	/* Another file under that name. */
	w.disk.inode--;
	assert_int_equal(disk_identity_read(path, w.disk.identity, sizeof(w.disk.identity)), 0);
	snprintf(moved, sizeof(moved), "%s.moved", path);
	assert_int_equal(rename(path, moved), 0);
	close(open(path, O_CREAT | O_RDWR, 0600));
	truncate(path, 4096);
	checks = run();
	assert_non_null(find(checks, "error", "disk-not-shared"));
	json_decref(checks);
	/* One that the guest only reads: a warning. */
	w.disk.read_only = true;
	checks = run();
	assert_non_null(find(checks, "warning", "disk-not-shared"));
	assert_int_equal(count(checks, "error"), 0);
	json_decref(checks);
	w.disk.read_only = false;
	unlink(path);
	checks = run();
	assert_non_null(find(checks, "error", "disk-not-shared"));
	json_decref(checks);
	strcpy(w.disk.path, "nbd://somewhere");
	checks = run();
	assert_non_null(find(checks, "error", "disk-not-shared"));
	json_decref(checks);
	unlink(moved);
	close(fd);
	fresh();
}

/* A tmpfs that is too small is found before the guest is copied into it. */
static void test_ram_dir(void **state)
{
	json_t *checks;

	(void)state;
	fresh();
	w.regions[0].size = 1ull << 60;
	w.host.mem_available = UINT64_MAX;
	strcpy(w.regions[0].path, "/dev/shm/x");
	checks = run();
	assert_non_null(find(checks, "error", "memory"));
	json_decref(checks);
	strcpy(w.regions[0].path, "/proc/x"); /* no limit of its own */
	checks = run();
	assert_int_equal(count(checks, "error"), 0);
	json_decref(checks);
	strcpy(w.host.ram_dir, "/dev/shm");
	checks = run();
	assert_non_null(find(checks, "error", "memory"));
	json_decref(checks);
	fresh();
}

/* The plan's refusal is a check, with nothing left behind. */
static void test_launch(void **state)
{
	static struct config c;
	json_t *checks = json_array();

	(void)state;
	fresh();
	strcpy(c.qemu_binaries[c.nqemu_binaries++], "/bin/true");
	preflight_launch(checks, &w.source, &c, "00112233445566778899aabbccddeeff");
	assert_non_null(find(checks, "error", "launch-refused"));
	assert_int_equal(checks_skip(checks, "all", NULL), 0);
	assert_int_equal(count(checks, "error"), 1);
	json_decref(checks);
	fresh();
}

static void test_facts(void **state)
{
	static struct config c;
	static struct host_facts h, again;
	json_t *extra = json_object();
	char script[] = "/tmp/test_preflight_qemu.XXXXXX";
	int fd = mkstemp(script);

	(void)state;
	dprintf(fd, "#!/bin/sh\ncase $1 in -version) echo 'QEMU emulator version 9.8.7 (x)';;\n"
		    "-machine) printf 'Supported machines are:\\nnone  empty machine\\nvirt-9.8  "
		    "a\\n';;"
		    "\nesac\n");
	fchmod(fd, 0755);
	close(fd);
	strcpy(c.qemu_binaries[c.nqemu_binaries++], "/nowhere/at/all");
	strcpy(c.qemu_binaries[c.nqemu_binaries++], script);
	host_facts_read(&h, &c);
	assert_true(h.mem_available > 0);
	assert_true(h.cpu_flags[0] && h.cpu_vendor[0]);
	assert_int_equal(h.nqemus, 1);
	assert_string_equal(h.qemus[0].version, "9.8.7");
	assert_string_equal(h.qemus[0].machines, "none virt-9.8");
	/* Asked once a file: when it changes, again. */
	fd = open(script, O_WRONLY | O_TRUNC);
	dprintf(fd, "#!/bin/sh\nexit 1\n");
	close(fd);
	host_facts_read(&again, &c);
	assert_int_equal(again.nqemus, 1);
	assert_string_equal(again.qemus[0].version, "");
	unlink(script);
	host_cpu_describe(extra);
	assert_string_equal(json_string_value(json_object_get(extra, "cpu_flags")), h.cpu_flags);
	json_decref(extra);
}

/* The real QEMU, where it is installed. */
static void test_real_qemu(void **state)
{
	static struct config c;
	static struct host_facts h;

	(void)state;
	strcpy(c.qemu_binaries[c.nqemu_binaries++], "/usr/bin/qemu-system-x86_64");
	if (access(c.qemu_binaries[0], X_OK))
		skip();
	host_facts_read(&h, &c);
	assert_true(version_compare(h.qemus[0].version, "1.0") > 0);
	assert_non_null(strstr(h.qemus[0].machines, "pc-q35-"));
	fresh();
	w.host = h;
	strcpy(w.source.version, h.qemus[0].version);
	strcpy(w.source.machine, "pc-q35-7.2");
	strcpy(w.regions[0].path, "");
	w.regions[0].size = 1 << 20;
	json_t *checks = run();
	assert_null(find(checks, "error", "machine-type"));
	assert_null(find(checks, "error", "qemu-version"));
	json_decref(checks);
	fresh();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),	 cmocka_unit_test(test_form),
		cmocka_unit_test(test_skip),	 cmocka_unit_test(test_unprintable),
		cmocka_unit_test(test_versions), cmocka_unit_test(test_disk_here),
		cmocka_unit_test(test_ram_dir),	 cmocka_unit_test(test_launch),
		cmocka_unit_test(test_facts),	 cmocka_unit_test(test_real_qemu),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	json_decref(w.source.extra);
	return failed;
}
