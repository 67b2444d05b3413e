// SPDX-License-Identifier: MIT
/*
 * Describing a QEMU guest: version, machine, processors, state, disks, and in desc.extra what only
 * this kind's checks and the destination's launch understand:
 *
 *   "qmp_path"         the socket that was connected to, as the VM sees it
 *   "blocked_reasons"  [..] QEMU's own reasons against migration
 *   "migration"        status of a migration in QEMU, "" if there was none
 *   "devices"          [{"id","type"}] every device with an id or without (QOM's peripheral lists)
 *   "objects"          [{"id","type"}] of /objects
 *   "hotplugged"       [id] devices and objects with an id that the command line does not name
 *   "passthrough"      [path] of device files open in QEMU that write RAM unseen (VFIO, vDPA ...)
 *   "block_drivers"    [..] drivers of the block nodes
 *   "confidential"     bool
 *   "nested"           bool: the processors offer virtualisation to the guest
 *   "tpm"              [..] types of TPM backends
 *   "cpu_vendor", "cpu_flags"  of this host
 *   "seccomp"          mode of the process, 0 if unconfined; "uid" its user
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/admission/disk_identity.h"
#include "control/admission/preflight.h"
#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "control/guest/qemu_args.h"
#include "lib/base/cleanup.h"

json_t *qemu_qom_get(struct qmp *q, const char *path, const char *property)
{
	json_t *value = NULL;

	if (qmp_call(q, "qom-get", json_pack("{s:s, s:s}", "path", path, "property", property),
		     &value, NULL))
		return NULL;
	return value;
}

char *qemu_human(struct qmp *q, const char *command)
{
	json_t *answer = NULL;
	char *text = NULL;

	if (qmp_call(q, "human-monitor-command", json_pack("{s:s}", "command-line", command),
		     &answer, NULL))
		return NULL;
	if (json_is_string(answer))
		text = strdup(json_string_value(answer));
	json_decref(answer);
	return text;
}

/* What a query gives, or NULL where this QEMU has no such command. */
static json_t *query(struct guest_qemu *q, const char *command)
{
	json_t *answer = NULL;

	qmp_call(q->q, command, NULL, &answer, NULL);
	return answer;
}

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

int guest_qemu_status(struct guest_qemu *q, struct failure *f)
{
	struct guest_description *d = &q->g.desc;
	json_t *answer = NULL;
	int ret = qmp_call(q->q, "query-status", NULL, &answer, f);

	if (ret)
		return ret;
	d->running = json_is_true(json_object_get(answer, "running"));
	snprintf(d->state, sizeof(d->state), "%s", text_of(answer, "status"));
	json_decref(answer);
	return 0;
}

static void describe_machine(struct guest_qemu *q)
{
	struct guest_description *d = &q->g.desc;
	static const char suffix[] = "-machine";
	json_t *type = qemu_qom_get(q->q, "/machine", "type"), *v;
	const char *cpu = qemu_args_last(d->argv, "-cpu");
	size_t len;

	/* The QOM type is the versioned machine, whatever alias was given. */
	snprintf(d->machine, sizeof(d->machine), "%s", json_string_value(type) ?: "");
	json_decref(type);
	len = strlen(d->machine);
	if (len >= sizeof(suffix) && !strcmp(d->machine + len - (sizeof(suffix) - 1), suffix))
		d->machine[len - (sizeof(suffix) - 1)] = '\0';
	snprintf(d->cpu_model, sizeof(d->cpu_model), "%s", cpu ? cpu : "");
	v = query(q, "query-kvm");
	strcpy(d->accel, json_is_true(json_object_get(v, "enabled")) ? "kvm" : "tcg");
	json_decref(v);
}

/* --- disks ------------------------------------------------------------------------------------ */

/* "json:{"driver":"qcow2","file":{"driver":"file","filename":"/x"}}" -> "/x" */
static void path_of_json(const char *text, char *buf, size_t len)
{
	json_t *o = json_loads(text, 0, NULL);
	const json_t *at = o;

	buf[0] = '\0';
	for (int depth = 0; at && depth < 16; depth++) {
		const char *name = json_string_value(json_object_get(at, "filename"));

		if (name)
			snprintf(buf, len, "%s", name);
		at = json_object_get(at, "file");
	}
	json_decref(o);
}

static void take_disk_path(struct guest_qemu *q, struct guest_disk *disk, const char *file)
{
	struct stat st;
	char link[64];

	if (!strncmp(file, "json:", 5))
		path_of_json(file + 5, disk->path, sizeof(disk->path));
	else if (!strncmp(file, "file:", 5))
		snprintf(disk->path, sizeof(disk->path), "%s", file + 5);
	else
		snprintf(disk->path, sizeof(disk->path), "%s", file);
	AUTO_CLOSE int fd = disk->path[0] ? proc_open_path(q->g.pid, disk->path, O_PATH) : -1;
	if (fd < 0 || fstat(fd, &st))
		return;
	disk->device = st.st_dev;
	disk->inode = st.st_ino;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd); /* in the VM's mount namespace */
	if (disk_identity_read(link, disk->identity, sizeof(disk->identity)))
		disk->identity[0] = '\0';
}

static struct guest_disk *add_disk(struct guest_description *d)
{
	void *bigger = realloc(d->disks, (d->ndisks + 1) * sizeof(*d->disks));

	if (!bigger)
		return NULL;
	d->disks = bigger;
	memset(&d->disks[d->ndisks], 0, sizeof(*d->disks));
	return &d->disks[d->ndisks++];
}

/* The images below the top one; the destination must see them as well. */
static int add_backing(struct guest_qemu *q, const char *top, const json_t *image)
{
	for (int depth = 1; image && depth < 64; depth++) {
		struct guest_disk *disk = add_disk(&q->g.desc);

		if (!disk)
			return -ENOMEM;
		snprintf(disk->id, sizeof(disk->id), "%.100s/backing%d", top, depth);
		snprintf(disk->format, sizeof(disk->format), "%s", text_of(image, "format"));
		disk->read_only = true;
		take_disk_path(q, disk, text_of(image, "filename"));
		image = json_object_get(image, "backing-image");
	}
	return 0;
}

static int describe_disk(struct guest_qemu *q, const json_t *device)
{
	const json_t *inserted = json_object_get(device, "inserted");
	const json_t *image = json_object_get(inserted, "image");
	const char *id = text_of(device, "device");
	struct guest_disk *disk;
	char name[128];

	if (!inserted)
		return 0;
	if (!id[0])
		id = text_of(device, "qdev");
	if (!id[0])
		id = text_of(inserted, "node-name");
	snprintf(name, sizeof(name), "%s", id);
	disk = add_disk(&q->g.desc);
	if (!disk)
		return -ENOMEM;
	strcpy(disk->id, name);
	snprintf(disk->format, sizeof(disk->format), "%s", text_of(inserted, "drv"));
	disk->read_only = json_is_true(json_object_get(inserted, "ro"));
	disk->direct = json_is_true(json_object_get(json_object_get(inserted, "cache"), "direct"));
	take_disk_path(q, disk, text_of(inserted, "file"));
	return add_backing(q, name, json_object_get(image, "backing-image"));
}

/* aio= is not told by QMP. native implies direct I/O; io_uring may register guest RAM. */
static bool has_kernel_aio(char *const *argv)
{
	static const char *const options[] = { "-drive", "-blockdev" };
	char text[32];

	for (unsigned int i = 0; i < 2; i++) {
		const char *value;
		size_t at = 1;

		while ((value = qemu_args_next(argv, &at, options[i])))
			if (qemu_opt_get(value, "aio", NULL, text, sizeof(text)) &&
			    strcmp(text, "threads"))
				return true;
	}
	return false;
}

/* Devices whose commands carry guest pages into the kernel by reference, in any cache mode. */
static bool does_passthrough_io(const json_t *devices)
{
	static const char *const types[] = { "scsi-block", "scsi-generic", "usb-host" };
	const json_t *device;
	size_t i;

	json_array_foreach (devices, i, device)
		for (size_t k = 0; k < sizeof(types) / sizeof(types[0]); k++)
			if (!strcmp(text_of(device, "type"), types[k]))
				return true;
	return false;
}

/* Direct I/O anywhere in the graph: a node below may be opened otherwise than the one above. */
static bool note_nodes(struct guest_qemu *q, json_t *drivers)
{
	json_t *nodes = NULL;
	const json_t *node;
	bool direct = false;
	size_t i;

	if (qmp_call(q->q, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &nodes, NULL))
		nodes = query(q, "query-named-block-nodes");
	json_array_foreach (nodes, i, node) {
		direct |= json_is_true(json_object_get(json_object_get(node, "cache"), "direct"));
		json_array_append(drivers, json_object_get(node, "drv"));
	}
	json_decref(nodes);
	return direct;
}

int guest_qemu_describe_disks(struct guest_qemu *q, struct failure *f)
{
	struct guest_description *d = &q->g.desc;
	json_t *list = NULL, *drivers = json_array();
	const json_t *device;
	bool aio = has_kernel_aio(d->argv);
	int ret = qmp_call(q->q, "query-block", NULL, &list, f);
	size_t i;

	json_array_foreach (list, i, device)
		if (!ret)
			ret = describe_disk(q, device);
	for (uint32_t k = 0; k < d->ndisks; k++)
		d->disks[k].direct |= aio && !d->disks[k].read_only;
	d->needs_dma_barrier = note_nodes(q, drivers) || aio ||
			       does_passthrough_io(json_object_get(d->extra, "devices"));
	json_object_set_new(d->extra, "block_drivers", drivers);
	json_decref(list);
	return ret ? failure_set(f, ret, "qmp-failed", NULL, "the VM's disks cannot be read") : 0;
}

/* --- extra ------------------------------------------------------------------------------------ */

/* The children of a QOM path: appends {"id","type"}; id is "" for device[N]. */
static int note_children(struct guest_qemu *q, const char *path, bool named, json_t *out,
			 struct failure *f)
{
	json_t *list = NULL;
	const json_t *item;
	size_t i;
	int ret = qmp_call(q->q, "qom-list", json_pack("{s:s}", "path", path), &list, f);

	if (ret)
		return ret;
	json_array_foreach (list, i, item) {
		const char *type = text_of(item, "type");
		size_t len = strlen(type);

		if (strncmp(type, "child<", 6) || type[len - 1] != '>')
			continue;
		json_array_append_new(out, json_pack("{s:s, s:s%}", "id",
						     named ? text_of(item, "name") : "", "type",
						     type + 6, len - 7));
	}
	json_decref(list);
	return 0;
}

static int note_devices(struct guest_qemu *q, json_t *out, struct failure *f)
{
	int ret = note_children(q, "/machine/peripheral", true, out, f);

	return ret ? ret : note_children(q, "/machine/peripheral-anon", false, out, f);
}

static bool named_on_command_line(char *const *argv, const char *option, const char *id)
{
	char text[256];
	const char *value;
	size_t at = 1;

	while ((value = qemu_args_next(argv, &at, option)))
		if (qemu_opt_get(value, "id", NULL, text, sizeof(text)) && !strcmp(text, id))
			return true;
	return false;
}

/* pc.ram and its like are made by QEMU itself, from -m. */
static bool is_hotplugged(char *const *argv, const json_t *item, const char *option)
{
	const char *id = text_of(item, "id");

	if (!id[0] || named_on_command_line(argv, option, id))
		return false;
	return strcmp(option, "-object") || strncmp(text_of(item, "type"), "memory-backend-", 15) ||
	       !strchr(id, '.');
}

static void note_hotplugged(struct guest_description *d)
{
	json_t *out = json_array();
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(d->extra, "devices"), i, item)
		if (is_hotplugged(d->argv, item, "-device"))
			json_array_append(out, json_object_get(item, "id"));
	json_array_foreach (json_object_get(d->extra, "objects"), i, item)
		if (is_hotplugged(d->argv, item, "-object"))
			json_array_append(out, json_object_get(item, "id"));
	json_object_set_new(d->extra, "hotplugged", out);
}

static int note_passthrough(int fd, const char *target, void *arg)
{
	static const char *const paths[] = { "/dev/vfio/", "/dev/vhost-vdpa", "/dev/iommu",
					     "/dev/sev", "/dev/vduse/" };
	json_t *out = arg;

	(void)fd;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (!strncmp(target, paths[i], strlen(paths[i])))
			json_array_append_new(out, json_string(target));
	return 0;
}

static bool is_confidential(struct guest_qemu *q)
{
	json_t *sev = query(q, "query-sev");
	json_t *link = qemu_qom_get(q->q, "/machine", "confidential-guest-support");
	bool yes = json_is_true(json_object_get(sev, "enabled")) ||
		   (json_is_string(link) && json_string_length(link) > 0);

	json_decref(sev);
	json_decref(link);
	return yes;
}

/* Whether the guest could run guests of its own; QEMU does not tell whether it does. */
static bool offers_nesting(struct guest_qemu *q, const json_t *cpus)
{
	const char *path = text_of(json_array_get(cpus, 0), "qom-path");
	bool yes = false;

	for (unsigned int i = 0; i < 2 && path[0]; i++) {
		json_t *v = qemu_qom_get(q->q, path, i ? "svm" : "vmx");

		yes |= json_is_true(v);
		json_decref(v);
	}
	return yes;
}

static void note_tpm(struct guest_qemu *q, json_t *extra)
{
	json_t *tpms = query(q, "query-tpm"), *out = json_array();
	const json_t *tpm;
	size_t i;

	json_array_foreach (tpms, i, tpm)
		json_array_append_new(
			out, json_string(text_of(json_object_get(tpm, "options"), "type")));
	json_object_set_new(extra, "tpm", out);
	json_decref(tpms);
}

static void describe_extra(struct guest_qemu *q, const json_t *cpus)
{
	struct guest_description *d = &q->g.desc;
	json_t *extra = json_object(), *devices = json_array(), *objects = json_array();
	json_t *passthrough = json_array(), *migrate = query(q, "query-migrate"), *reasons;

	d->extra = extra;
	reasons = json_object_get(migrate, "blocked-reasons");
	json_object_set_new(extra, "qmp_path", json_string(q->qmp_path));
	json_object_set_new(extra, "migration", json_string(text_of(migrate, "status")));
	json_object_set_new(extra, "blocked_reasons",
			    reasons ? json_incref(reasons) : json_array());
	json_decref(migrate);
	note_devices(q, devices, NULL);
	note_children(q, "/objects", true, objects, NULL);
	json_object_set_new(extra, "devices", devices);
	json_object_set_new(extra, "objects", objects);
	note_hotplugged(d);
	proc_fds_each(q->g.pid, note_passthrough, passthrough);
	json_object_set_new(extra, "passthrough", passthrough);
	json_object_set_new(extra, "confidential", json_boolean(is_confidential(q)));
	json_object_set_new(extra, "nested", json_boolean(offers_nesting(q, cpus)));
	note_tpm(q, extra);
	json_object_set_new(extra, "seccomp",
			    json_integer(proc_status_number(q->g.pid, "Seccomp")));
	host_cpu_describe(extra);
	json_object_set_new(extra, "uid", json_integer(proc_status_number(q->g.pid, "Uid")));
}

/* Which of list are not in other, one for one, the first of them; NULL: none. */
static const json_t *surplus(const json_t *list, const json_t *other)
{
	json_t *rest = json_copy((json_t *)other);
	const json_t *item, *found = NULL;
	size_t i;

	json_array_foreach (list, i, item) {
		size_t k = 0, n = json_array_size(rest);

		while (k < n && !json_equal(json_array_get(rest, k), item))
			k++;
		if (k == n) {
			found = item;
			break;
		}
		json_array_remove(rest, k);
	}
	json_decref(rest);
	return found;
}

int guest_qemu_unchanged(struct guest *g, struct failure *f)
{
	const json_t *was = json_object_get(g->desc.extra, "devices"), *changed;
	json_t *is = json_array();
	int ret = note_devices(guest_qemu_of(g), is, f);
	const char *how = "was plugged in";

	changed = ret ? NULL : surplus(is, was);
	if (!ret && !changed) {
		how = "was removed";
		changed = surplus(was, is);
	}
	if (changed)
		ret = failure_set(f, -ESTALE, "vm-changed",
				  "Move it again as it is now; --incoming takes a VM that has the "
				  "same devices.",
				  "Device %s (%s) %s while the VM was being moved.",
				  *text_of(changed, "id") ? text_of(changed, "id") : "without id",
				  text_of(changed, "type"), how);
	json_decref(is);
	return ret;
}

int guest_qemu_describe(struct guest *g, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	struct guest_description *d = &g->desc;
	json_t *cpus;
	size_t argc;
	int ret;

	guest_description_release(d);
	memset(d, 0, sizeof(*d));
	strcpy(d->kind, "qemu");
	snprintf(d->version, sizeof(d->version), "%d.%d.%d", q->version[0], q->version[1],
		 q->version[2]);
	ret = proc_cmdline(g->pid, &d->argv, &argc);
	if (ret)
		return failure_set(f, ret, "vm-gone", NULL, "process %d has ended", g->pid);
	qemu_vm_name(d->argv, d->name, sizeof(d->name));
	ret = guest_qemu_status(q, f);
	if (ret)
		return ret;
	describe_machine(q);
	cpus = query(q, "query-cpus-fast");
	d->cpus = (uint32_t)json_array_size(cpus);
	describe_extra(q, cpus);
	json_decref(cpus);
	ret = guest_qemu_describe_ram(q, f);
	return ret ? ret : guest_qemu_describe_disks(q, f);
}
