// SPDX-License-Identifier: MIT
/*
 * Whether a QEMU guest can be moved, as far as its own host can tell.
 *
 * What would lose guest memory silently (RAM that is not shared, writers that the tracker cannot
 * see, confidential guests) is an error that cannot be skipped: group "".
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/admission/preflight.h"
#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "control/guest/qemu_args.h"

#define SHARE_HINT                                                                                 \
	"start the VM with -object memory-backend-file,id=%s,size=%luM,mem-path=/dev/shm/FILE,"    \
	"share=on and -machine memory-backend=%s"

/* QEMU since 8.1 sends a shared block that is not a named file whole, x-ignore-shared or not. */
static bool sends_memfd(const struct guest_qemu *q)
{
	return q->version[0] > 8 || (q->version[0] == 8 && q->version[1] >= 1);
}

const char *guest_qemu_share_hint(const struct guest_region *r, char *hint, size_t size)
{
	/* The default backend's id has a dot, which -object would not take. */
	const char *id = strchr(r->id, '.') ? "ram0" : r->id;

	snprintf(hint, size, SHARE_HINT, id, (unsigned long)(r->size >> 20), id);
	return hint;
}

static void refuse_region(json_t *checks, const struct guest_region *r, const char *code,
			  const char *what)
{
	char hint[400];

	guest_qemu_share_hint(r, hint, sizeof(hint));
	check_add(checks, "ram", "", CHECK_ERROR, code, hint, "RAM region %s %s", r->id, what);
}

static bool covers(const struct guest_region *r)
{
	for (uint32_t i = 0; i < r->nmappings; i++)
		if (r->mappings[i].offset == 0 &&
		    r->mappings[i].end - r->mappings[i].start == r->size)
			return true;
	return false;
}

static void check_region(const struct guest_qemu *q, const struct guest_region *r, json_t *checks)
{
	if (r->backing == GUEST_BACKING_PRIVATE)
		refuse_region(checks, r, "ram-not-shared", "is private memory of QEMU");
	else if (!r->share)
		refuse_region(checks, r, "ram-not-shared", "is mapped privately (share=off)");
	else if (r->backing == GUEST_BACKING_MEMFD && sends_memfd(q))
		refuse_region(checks, r, "ram-memfd",
			      "is a memfd, which this QEMU would send whole in its own stream");
	else if (!r->nmappings || !covers(r))
		check_add(checks, "ram", "", CHECK_ERROR, "ram-unsupported",
			  "use memory-backend-file on tmpfs or hugetlbfs with share=on",
			  "RAM region %s has no file and mapping that could be told apart", r->id);
}

static void check_ram(struct guest_qemu *q, json_t *checks)
{
	const struct guest_description *d = &q->g.desc;
	size_t before = json_array_size(checks);

	if (!d->nregions)
		check_add(checks, "ram", "", CHECK_ERROR, "ram-unsupported", NULL,
			  "the VM has no memory backend");
	for (uint32_t i = 0; i < d->nregions; i++)
		check_region(q, &d->regions[i], checks);
	if (json_array_size(checks) == before)
		check_add(checks, "ram", "", CHECK_OK, NULL, NULL, "%u shared RAM regions, %lu MiB",
			  d->nregions, d->ram_bytes >> 20);
}

/* --- writers that no tracker sees ------------------------------------------------------------- */

struct writer_search {
	const struct guest_qemu *q;
	pid_t pid; /* the process that is looked at */
	pid_t found;
};

static int is_guest_ram(const struct proc_map *m, void *arg)
{
	const struct writer_search *s = arg;

	if (!m->shared || !m->write || !m->inode)
		return 0;
	for (uint32_t i = 0; i < s->q->g.desc.nregions; i++)
		if (m->inode == s->q->g.desc.regions[i].inode &&
		    m->device == s->q->map_devices[i] && s->q->g.desc.regions[i].nmappings)
			return 1;
	return 0;
}

static int look_for_writer(pid_t pid, void *arg)
{
	struct writer_search *s = arg;
	char name[64];

	if (pid == s->q->g.pid || pid == getpid() || proc_maps_each(pid, is_guest_ram, s) != 1)
		return 0;
	/* Of an arriving session that has just ended; while one lives its VM is not moved on. */
	proc_exe_name(pid, name, sizeof(name));
	if (!strcmp(name, "tranship-dataplane"))
		return 0;
	s->found = pid;
	return 1;
}

static void check_writers(struct guest_qemu *q, json_t *checks)
{
	struct writer_search s = { .q = q };
	char name[64];

	if (proc_each(look_for_writer, &s) != 1)
		return;
	proc_exe_name(s.found, name, sizeof(name));
	check_add(checks, "writers", "", CHECK_ERROR, "outside-writer",
		  "end that process or detach the device that it serves",
		  "process %d (%s) maps the VM's RAM writable: what it writes cannot be seen",
		  s.found, name[0] ? name : "unknown");
}

/* --- devices ---------------------------------------------------------------------------------- */

struct device_rule {
	const char *prefix; /* of the QOM type */
	const char *group, *code, *what;
};

static const struct device_rule device_rules[] = {
	{ "vfio-", "", "device-passthrough", "is a passed-through device" },
	{ "vhost-user-", "", "device-passthrough", "is served by another process" },
	{ "vhost-vdpa-", "", "device-passthrough", "is served by vDPA hardware" },
	{ "nvdimm", "", "ram-unsupported", "is persistent memory" },
	{ "virtio-pmem", "", "ram-unsupported", "is persistent memory" },
	{ "virtio-mem", "", "ram-unsupported", "changes the RAM's layout while it runs" },
	{ "ivshmem", "", "outside-writer", "is memory that other VMs write" },
	{ "sgx-", "", "confidential", "is encrypted memory" },
};

/* Block drivers that map guest RAM for DMA once and for all. */
static const char *const pinning_drivers[] = { "nvme",
					       "nvme-io_uring",
					       "io_uring",
					       "virtio-blk-vfio-pci",
					       "virtio-blk-vhost-user",
					       "virtio-blk-vhost-vdpa" };

static void check_types(const json_t *list, json_t *checks)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		const char *type = json_string_value(json_object_get(item, "type")) ?: "";
		const char *id = json_string_value(json_object_get(item, "id")) ?: "";

		for (size_t k = 0; k < sizeof(device_rules) / sizeof(device_rules[0]); k++) {
			const struct device_rule *r = &device_rules[k];

			if (!strncmp(type, r->prefix, strlen(r->prefix)))
				check_add(checks, "devices", r->group, CHECK_ERROR, r->code,
					  "detach it before the move", "device %s (%s) %s",
					  id[0] ? id : "without id", type, r->what);
		}
	}
}

/* vhost-user and vDPA network back ends are told by no QMP command; the device is a virtio-net. */
static void check_netdevs(char *const *argv, json_t *checks)
{
	char type[64];
	const char *value;
	size_t at = 1;

	while ((value = qemu_args_next(argv, &at, "-netdev")))
		if (qemu_opt_get(value, "type", "type", type, sizeof(type)) &&
		    (!strcmp(type, "vhost-user") || !strcmp(type, "vhost-vdpa")))
			check_add(checks, "devices", "", CHECK_ERROR, "device-passthrough",
				  "use a tap device with vhost=on",
				  "a network back end of type %s writes the VM's RAM unseen", type);
}

static void check_texts(const json_t *list, json_t *checks, const char *group, const char *code,
			const char *hint, const char *before, const char *after)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item)
		check_add(checks, "devices", group, CHECK_ERROR, code, hint, "%s%s%s", before,
			  json_string_value(item) ?: "", after);
}

static void check_drivers(const json_t *drivers, json_t *checks)
{
	const json_t *item;
	size_t i;

	json_array_foreach (drivers, i, item)
		for (size_t k = 0; k < sizeof(pinning_drivers) / sizeof(pinning_drivers[0]); k++)
			if (!strcmp(json_string_value(item) ?: "", pinning_drivers[k]))
				check_add(checks, "devices", "", CHECK_ERROR, "device-passthrough",
					  "attach the disk through the kernel's block layer",
					  "block driver %s keeps the VM's RAM mapped for DMA",
					  pinning_drivers[k]);
}

static void check_devices(struct guest_qemu *q, json_t *checks)
{
	const json_t *x = q->g.desc.extra;
	size_t before = json_array_size(checks);

	check_types(json_object_get(x, "devices"), checks);
	check_netdevs(q->g.desc.argv, checks);
	check_drivers(json_object_get(x, "block_drivers"), checks);
	check_texts(json_object_get(x, "passthrough"), checks, "", "device-passthrough",
		    "detach the device before the move", "QEMU has ",
		    " open: RAM is written unseen");
	check_texts(json_object_get(x, "blocked_reasons"), checks, "devices", "device-blocks",
		    "detach the device before the move", "QEMU says: ", "");
	check_texts(json_object_get(x, "tpm"), checks, "devices", "device-blocks",
		    "a vTPM's state is not moved by this version", "the VM has a vTPM (",
		    ") whose state lives outside of QEMU");
	if (json_is_true(json_object_get(x, "nested")) && !strcmp(q->g.desc.accel, "kvm"))
		check_add(checks, "nested", "devices", CHECK_WARNING, "device-blocks",
			  "make sure that no nested guest runs",
			  "the VM may run guests of its own; QEMU cannot tell whether it does");
	if (json_array_size(checks) == before)
		check_add(checks, "devices", "devices", CHECK_OK, NULL, NULL,
			  "no device stands in the way");
}

/* --- state ------------------------------------------------------------------------------------ */

static void check_state(struct guest_qemu *q, json_t *checks)
{
	static const char *const busy[] = { "setup",	      "active",		 "device",
					    "pre-switchover", "postcopy-active", "cancelling",
					    "wait-unplug",    "postcopy-paused" };
	const char *state = q->g.desc.state;
	const char *migration =
		json_string_value(json_object_get(q->g.desc.extra, "migration")) ?: "";

	for (size_t i = 0; i < sizeof(busy) / sizeof(busy[0]); i++) {
		if (strcmp(migration, busy[i]))
			continue;
		check_add(checks, "state", "", CHECK_ERROR, "vm-busy",
			  "wait for it or cancel it there",
			  "QEMU is in a migration that somebody else began (%s)", migration);
		return;
	}
	/* prelaunch: started with -S, and never run */
	if (!strcmp(state, "running") || !strcmp(state, "paused") || !strcmp(state, "prelaunch"))
		check_add(checks, "state", "", CHECK_OK, NULL, NULL, "the VM is %s", state);
	else
		check_add(checks, "state", "", CHECK_ERROR, "vm-not-running",
			  strcmp(state, "postmigrate")
				  ? "bring it to running or paused first"
				  : "it was migrated by somebody: end it if it runs elsewhere, and "
				    "only else let it run on (QMP cont)",
			  "the VM is in state %s", state);
}

static void check_tracker(json_t *checks)
{
	char why[400];

	if (guest_qemu_tracker_probe(why, sizeof(why)))
		check_add(checks, "tracker", "", CHECK_ERROR, "tracker-unavailable",
			  "Linux 6.7 or newer is needed", "%s", why);
	else
		check_add(checks, "tracker", "", CHECK_OK, NULL, NULL,
			  "writes are tracked by PAGEMAP_SCAN");
}

int guest_qemu_check(struct guest *g, json_t *checks, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);

	if (!guest_alive(g))
		return failure_set(f, -ESRCH, "vm-gone", NULL, "the VM's process has ended");
	check_state(q, checks);
	if (json_is_true(json_object_get(g->desc.extra, "confidential")))
		check_add(checks, "confidential", "", CHECK_ERROR, "confidential", NULL,
			  "the VM's memory is encrypted against its host");
	check_ram(q, checks);
	check_writers(q, checks);
	check_devices(q, checks);
	check_tracker(checks);
	return 0;
}
