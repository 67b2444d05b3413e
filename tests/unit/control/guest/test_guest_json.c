// SPDX-License-Identifier: MIT
/* A guest's description to JSON and back, and what a hostile peer could send in its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/guest/guest.h"

static char *words[] = { "qemu-system-x86_64", "-name", "guest=a", "", NULL };

static void fill(struct guest_description *d, struct guest_region *regions, struct guest_disk *disk)
{
	memset(d, 0, sizeof(*d));
	memset(regions, 0, 2 * sizeof(*regions));
	memset(disk, 0, sizeof(*disk));
	strcpy(d->name, "vm1");
	strcpy(d->kind, "qemu");
	strcpy(d->version, "7.2.22");
	strcpy(d->machine, "pc-q35-7.2");
	strcpy(d->cpu_model, "host,+x");
	strcpy(d->accel, "kvm");
	strcpy(d->state, "running");
	d->cpus = 4;
	d->running = true;
	d->needs_dma_barrier = true;
	strcpy(regions[0].id, "ram0");
	regions[0].size = 1ull << 40;
	regions[0].page_size = 1u << 30;
	regions[0].backing = GUEST_BACKING_FILE;
	regions[0].hugetlb = regions[0].share = true;
	strcpy(regions[0].path, "/dev/hugepages/a");
	regions[0].inode = 1234567890123;
	regions[0].device = 77;
	strcpy(regions[1].id, "ram1");
	regions[1].size = 4096;
	regions[1].page_size = 4096;
	regions[1].backing = GUEST_BACKING_MEMFD;
	regions[1].prealloc = true;
	regions[1].file_offset = 8192;
	d->ram_bytes = regions[0].size + regions[1].size;
	strcpy(disk->id, "virtio0");
	strcpy(disk->path, "/images/\xff\xe4.img"); /* bytes, not UTF-8 */
	strcpy(disk->format, "qcow2");
	strcpy(disk->identity, "boot file 1 2 3");
	disk->direct = true;
	d->regions = regions;
	d->nregions = 2;
	d->disks = disk;
	d->ndisks = 1;
	d->argv = words;
	d->extra = json_pack("{s:s}", "qmp_path", "/run/q");
}

static json_t *sample(void)
{
	struct guest_region regions[2];
	struct guest_description d;
	struct guest_disk disk;
	json_t *j;

	fill(&d, regions, &disk);
	j = guest_description_to_json(&d);
	json_decref(d.extra);
	assert_non_null(j);
	return j;
}

static void there_and_back(void **state)
{
	struct guest_description d;
	struct failure f = { 0 };
	json_t *j = sample();

	(void)state;
	assert_int_equal(guest_description_from_json(&d, j, &f), 0);
	json_decref(j);
	assert_string_equal(d.name, "vm1");
	assert_string_equal(d.machine, "pc-q35-7.2");
	assert_string_equal(d.cpu_model, "host,+x");
	assert_true(d.cpus == 4 && d.running && d.needs_dma_barrier && d.nregions == 2);
	assert_true(d.regions[0].size == 1ull << 40 && d.regions[0].page_size == 1u << 30);
	assert_true(d.regions[0].hugetlb && d.regions[0].share && !d.regions[0].prealloc);
	assert_true(d.regions[0].inode == 1234567890123 && d.regions[0].device == 77);
	assert_int_equal(d.regions[1].backing, GUEST_BACKING_MEMFD);
	assert_true(d.regions[1].file_offset == 8192 && d.regions[1].prealloc);
	assert_string_equal(d.regions[1].path, "");
	assert_string_equal(d.disks[0].path, "/images/\u00ff\u00e4.img");
	assert_string_equal(d.disks[0].identity, "boot file 1 2 3");
	assert_true(d.disks[0].direct && !d.disks[0].read_only);
	for (int i = 0; words[i]; i++)
		assert_string_equal(d.argv[i], words[i]);
	assert_null(d.argv[4]);
	assert_string_equal(json_string_value(json_object_get(d.extra, "qmp_path")), "/run/q");
	guest_description_release(&d);
	guest_description_release(&d); /* twice is harmless */
}

/* Takes j. */
static void refused(json_t *j, const char *what)
{
	struct guest_description d;
	struct failure f = { 0 };

	assert_int_equal(guest_description_from_json(&d, j, &f), -EINVAL);
	assert_string_equal(f.code, "usage");
	if (!strstr(f.message, what))
		fail_msg("\"%s\" does not name %s", f.message, what);
	assert_null(d.regions);
	assert_null(d.argv);
	json_decref(j);
}

static json_t *with(const char *key, json_t *value)
{
	json_t *j = sample();

	json_object_set_new(j, key, value);
	return j;
}

static json_t *with_region(const char *key, json_t *value)
{
	json_t *j = sample();

	json_object_set_new(json_array_get(json_object_get(j, "regions"), 0), key, value);
	return j;
}

static json_t *long_text(size_t len)
{
	char *text = malloc(len);
	json_t *j;

	memset(text, 'a', len);
	j = json_stringn(text, len);
	free(text);
	return j;
}

static json_t *many(size_t n, json_t *item)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append(a, item);
	json_decref(item);
	return a;
}

static void every_member_is_needed(void **state)
{
	json_t *j = sample();
	const char *key;
	json_t *value;

	(void)state;
	json_object_foreach (j, key, value) {
		json_t *copy = json_copy(j);

		json_object_del(copy, key);
		refused(copy, key);
	}
	json_decref(j);
	refused(json_array(), "name");
	refused(json_object(), "name");
}

static void hostile_values(void **state)
{
	json_t *huge = with_region("size", json_integer(1ll << 62));
	json_t *region = json_incref(json_array_get(json_object_get(huge, "regions"), 0));

	(void)state;
	json_decref(huge);
	refused(with("name", long_text(128)), "name");
	refused(with("name", json_stringn("a\0b", 3)), "name");
	refused(with("name", json_integer(1)), "name");
	refused(with("cpus", json_integer(-1)), "cpus");
	refused(with("cpus", json_integer(1ll << 40)), "cpus");
	refused(with("running", json_integer(1)), "running");
	refused(with("ram_bytes", json_integer(1)), "ram_bytes");
	refused(with("ram_bytes", json_real(1e30)), "ram_bytes");
	refused(with("regions", json_object()), "regions");
	refused(with("regions", many(257, json_object())), "regions");
	refused(with("regions", many(1, json_integer(3))), "id");
	refused(with("disks", many(1025, json_object())), "disks");
	refused(with("disks", many(1, json_null())), "id");
	refused(with("argv", many(8193, json_string("x"))), "argv");
	refused(with("argv", many(3, long_text(1u << 20))), "argv");
	refused(with("argv", many(1, json_integer(1))), "argv");
	refused(with("argv", many(1, json_stringn("\0", 1))), "argv");
	refused(with("extra", json_array()), "extra");
	refused(with_region("size", json_integer(0)), "size");
	refused(with_region("size", json_integer(4097)), "size");
	refused(with_region("size", json_integer(INT64_MAX)), "size");
	refused(with_region("page_size", json_integer(0)), "page_size");
	refused(with_region("page_size", json_integer(3 << 12)), "page_size");
	refused(with_region("page_size", json_integer(1ll << 40)), "page_size");
	refused(with_region("backing", json_string("magic")), "backing");
	refused(with_region("path", long_text(PATH_MAX)), "path");
	/* Sizes whose sum does not fit. */
	refused(with("regions", many(256, region)), "ram_bytes");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(every_member_is_needed),
		cmocka_unit_test(hostile_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
