// SPDX-License-Identifier: MIT
/*
 * Judging -machine, -cpu, -object and what describes the board; RAM files get their new place here.
 *
 * A RAM file is never shared with what is there: "<directory>/<name>.<session>", made by QEMU. The
 * session that an earlier move added to the name is taken off first, so that names do not grow.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/admission/launch_paths.h"
#include "control/admission/launch_rules.h"
#include "lib/base/cleanup.h"

const struct launch_rule launch_plain_rules[] = { { "*", NULL, NULL }, { NULL, NULL, NULL } };

const struct launch_rule launch_name_rules[] = {
	{ "guest|process", launch_value_any, NULL },
	{ "debug-threads", NULL, NULL },
	{ NULL, NULL, NULL },
};

const struct launch_rule launch_machine_rules[] = {
	{ "type|memory-backend|kernel-irqchip|vmport|smm|acpi|hpet|pit|pic|rtc|sata|smbus|i8042|"
	  "usb",
	  NULL, NULL },
	{ "accel", launch_value_one_of, "tcg|kvm|kvm:tcg|tcg:kvm" },
	{ "graphics|dump-guest-core|mem-merge|max-ram-below-4g|max-fw-size|hmat|spcr|fd-bootchk",
	  NULL, NULL },
	{ "default-bus-bypass-iommu*|default_bus_bypass_iommu|suppress-vmdesc|pcie|x-south-bridge",
	  NULL, NULL },
	{ "smbios-entry-point-type|x-oem-id|x-oem-table-id|bus-lock-ratelimit|aux-ram-share", NULL,
	  NULL },
	{ "pflash0|pflash1|ioapic2|isa-serial|option-roms|x-option-roms|auto-kernel-cmdline", NULL,
	  NULL },
	{ "gic-version|its|virtualization|secure|highmem*|ras|mte|enforce-config-section", NULL,
	  NULL },
	{ "smp.*|memory.size|memory.slots|memory.max-size|boot.order|boot.once|boot.menu", NULL,
	  NULL },
	{ "append", launch_value_any, NULL },
	{ "kernel|initrd|dtb|firmware", launch_value_readable, NULL },
	{ "nvdimm|cxl|igd-passthru", launch_value_one_of, "off|no|false" },
	{ "confidential-guest-support|memory-encryption", launch_value_refused,
	  "makes a confidential guest, which cannot be moved from outside" },
	{ NULL, NULL, NULL },
};

const struct launch_rule launch_accel_rules[] = {
	{ "accel", launch_value_one_of, "tcg|kvm" },
	{ "thread|tb-size|one-insn-per-tb|split-wx|kernel-irqchip|kvm-shadow-mem|dirty-ring-size",
	  NULL, NULL },
	{ "notify-vmexit|notify-window|honor-guest-pat|eager-split-size", NULL, NULL },
	{ NULL, NULL, NULL },
};

const struct launch_rule launch_smbios_rules[] = {
	{ "file|path", launch_value_readable, NULL },
	{ "*", launch_value_any, NULL },
	{ NULL, NULL, NULL },
};

const struct launch_rule launch_fw_cfg_rules[] = {
	{ "name|string", launch_value_any, NULL },
	{ "file", launch_value_readable, NULL },
	{ NULL, NULL, NULL },
};

const struct launch_rule launch_boot_rules[] = {
	{ "order|once|menu|splash-time|reboot-timeout|strict", NULL, NULL },
	{ "splash", launch_value_readable, NULL },
	{ NULL, NULL, NULL },
};

const struct launch_rule launch_run_with_rules[] = {
	{ "async-teardown|exit-with-parent", launch_value_one_of, "off|no|false" },
	{ "user", NULL, NULL },
	{ NULL, NULL, NULL },
};

int launch_machine(struct launch_context *c, struct launch_props *p)
{
	if (!launch_props_get(p, "type"))
		return 0;
	c->machine_typed = true;
	return launch_props_set(p, "type", c->source->machine) ? launch_no_memory(c) : 0;
}

int launch_cpu(struct launch_context *c, char **value)
{
	for (const char *s = *value; *s; s++)
		if (!isprint((unsigned char)*s) || *s == '/')
			return launch_refuse(c, NULL, "a CPU model has no such characters");
	return 0;
}

/* driver.property=value; the other notation (driver=,property=,value=) is not needed. */
int launch_global(struct launch_context *c, char **value)
{
	const char *equals = strchr(*value, '=');
	const char *dot = strchr(*value, '.');

	if (!equals || !dot || dot > equals)
		return launch_refuse(c, NULL, "it must be of the form driver.property=value");
	if (strchr(*value, '/') || strchr(*value, ','))
		return launch_refuse(c, NULL, "its value must not be a path or a list");
	return 0;
}

int launch_readable(struct launch_context *c, char **value)
{
	return launch_value_readable(c, c->option, *value, NULL);
}

int launch_plain(struct launch_context *c, char **value)
{
	return launch_value_plain(c, c->option, *value, NULL);
}

int launch_firmware_dir(struct launch_context *c, char **value)
{
	struct stat st;

	if ((*value)[0] != '/' || strstr(*value, "/..") || stat(*value, &st) ||
	    !S_ISDIR(st.st_mode) || !(st.st_mode & S_IROTH))
		return launch_refuse(
			c, NULL,
			"it must be an absolute path of a directory that every user may "
			"read here");
	return 0;
}

/* "/objects/ram0" and "ram0" are one backend. */
static bool same_backend(const char *a, const char *b)
{
	static const char prefix[] = "/objects/";

	if (!strncmp(a, prefix, sizeof(prefix) - 1))
		a += sizeof(prefix) - 1;
	if (!strncmp(b, prefix, sizeof(prefix) - 1))
		b += sizeof(prefix) - 1;
	return !strcmp(a, b);
}

static int find_region(struct launch_context *c, const struct launch_props *p,
		       const struct guest_region **region)
{
	const char *id = launch_props_get(p, "id");
	const char *path = launch_props_get(p, "mem-path");

	for (uint32_t i = 0; i < c->source->nregions; i++) {
		const struct guest_region *r = &c->source->regions[i];

		if (!(id && same_backend(r->id, id)) &&
		    !(path && r->path[0] && !strcmp(r->path, path)))
			continue;
		c->region_seen[i] = true;
		*region = r;
		return 0;
	}
	return launch_refuse(c, NULL, "the VM has no such RAM any more");
}

/* The length of name without the ".<session>" that an earlier move added. */
static size_t without_session(const char *name, const char *session_id)
{
	size_t len = strlen(name), id = strlen(session_id);

	if (len <= id + 1 || name[len - id - 1] != '.')
		return len;
	for (const char *s = name + len - id; *s; s++)
		if (!isxdigit((unsigned char)*s) || isupper((unsigned char)*s))
			return len;
	return len - id - 1;
}

/* Two backends whose files have one name in two directories may meet in config.ram_dir. */
static int compose_ram_path(struct launch_context *c, const char *dir, const char *name, char *path,
			    size_t len)
{
	int keep = (int)without_session(name, c->session_id);

	for (unsigned int i = 0; i < c->source->nregions + 1; i++) {
		char number[16] = "";
		int n;

		if (i)
			snprintf(number, sizeof(number), "-%u", i);
		n = snprintf(path, len, "%s/%.*s%s.%s", dir, keep, name, number, c->session_id);
		if (n < 0 || (size_t)n >= len)
			return -ENAMETOOLONG;
		if (!launch_words_have(&c->created, path))
			return 0;
	}
	return -EEXIST;
}

static int place_ram(struct launch_context *c, const struct guest_region *r, const char *old,
		     char *path, size_t len)
{
	AUTO_FREE char *old_dir = NULL;
	const char *slash = strrchr(old, '/');
	const char *why, *dir;
	struct stat st;

	if (old[0] != '/' || !slash[1])
		return launch_refuse(c, NULL, "mem-path must be an absolute path of a file");
	if ((!stat(old, &st) && S_ISDIR(st.st_mode)) || (r->path[0] && strcmp(r->path, old)))
		return launch_refuse(c, "start the VM with mem-path naming a file, not a directory",
				     "mem-path is a directory, so its RAM file has no name");
	old_dir = strndup(old, slash == old ? 1 : (size_t)(slash - old));
	if (!old_dir)
		return launch_no_memory(c);
	/* One of the other kind (tmpfs, hugetlbfs) is for other VMs; a wrong one is a mistake. */
	dir = c->config->ram_dir;
	if (!dir[0] || (launch_path_ram_dir(dir, r->hugetlb, r->page_size, &why) &&
			launch_path_holds_ram(dir)))
		dir = old_dir;
	if (launch_path_ram_dir(dir, r->hugetlb, r->page_size, &why))
		return launch_refuse(c,
				     "mount one at that directory here, or set ram-dir in "
				     "transhipd's configuration",
				     "its RAM cannot be in %s: %s", dir, why);
	if (compose_ram_path(c, dir, slash + 1, path, len))
		return launch_refuse(c, NULL, "no name can be made for its RAM file");
	if (launch_path_new(NULL, path, &why))
		return launch_refuse(c, NULL, "its RAM file %s: %s", path, why);
	return launch_words_add(&c->created, path) ? launch_no_memory(c) : 0;
}

static int object_ram_file(struct launch_context *c, struct launch_props *p)
{
	const char *old = launch_props_get(p, "mem-path");
	const struct guest_region *r;
	char path[PATH_MAX];
	int rc = find_region(c, p, &r);

	if (rc)
		return rc;
	if (!old)
		return launch_refuse(c, NULL, "it has no mem-path");
	if (!launch_props_on(p, "share"))
		return launch_refuse(c, "start the VM with share=on", "its RAM is not shared");
	rc = place_ram(c, r, old, path, sizeof(path));
	if (rc)
		return rc;
	return launch_props_set(p, "mem-path", path) ? launch_no_memory(c) : 0;
}

static int object_ram_memfd(struct launch_context *c, struct launch_props *p)
{
	const struct guest_region *r;

	return find_region(c, p, &r);
}

#define RAM_KEYS                                                                                   \
	"qom-type|id|size|share|prealloc|prealloc-threads|prealloc-context|host-nodes*|policy|"    \
	"merge|"
#define RAM_KEYS_MORE "dump|reserve|x-use-canonical-path-for-ramblock-id"

static const struct launch_rule ram_file_rules[] = {
	{ RAM_KEYS, NULL, NULL },
	{ RAM_KEYS_MORE "|align|discard-data", NULL, NULL },
	{ "mem-path", launch_value_any, NULL }, /* replaced */
	{ "readonly|pmem|rom", launch_value_one_of, "off|no|false|auto" },
	{ "offset", launch_value_one_of, "0" },
	{ NULL, NULL, NULL },
};

static const struct launch_rule ram_memfd_rules[] = {
	{ RAM_KEYS, NULL, NULL },
	{ RAM_KEYS_MORE "|hugetlb|hugetlbsize|seal", NULL, NULL },
	{ NULL, NULL, NULL },
};

static const struct launch_rule rng_random_rules[] = {
	{ "qom-type|id", NULL, NULL },
	{ "filename", launch_value_one_of, "/dev/urandom|/dev/random|/dev/hwrng" },
	{ NULL, NULL, NULL },
};

static const struct {
	const char *types;
	const struct launch_rule *rules;
	int (*check)(struct launch_context *c, struct launch_props *p);
	const char *refused;
} objects[] = {
	{ "memory-backend-file", ram_file_rules, object_ram_file, NULL },
	{ "memory-backend-memfd|memory-backend-shm", ram_memfd_rules, object_ram_memfd, NULL },
	{ "memory-backend-ram", ram_memfd_rules, NULL, NULL },
	{ "rng-random", rng_random_rules, NULL, NULL },
	{ "rng-builtin|rng-egd|iothread|main-loop|throttle-group|thread-context|can-bus",
	  launch_plain_rules, NULL, NULL },
	{ "cryptodev-backend-builtin", launch_plain_rules, NULL, NULL },
	{ "secret*|tls-*|authz-*", NULL, NULL, "secrets stay on their host" },
	{ "sev-*|tdx-*|*-guest", NULL, NULL, "confidential guests cannot be moved from outside" },
	{ "memory-backend-epc", NULL, NULL, "SGX memory cannot be moved from outside" },
	{ "filter-*|colo-*", NULL, NULL, "network filters write files or connect elsewhere" },
};

int launch_object(struct launch_context *c, struct launch_props *p)
{
	const char *type = launch_props_get(p, "qom-type");

	for (size_t i = 0; type && i < sizeof(objects) / sizeof(objects[0]); i++) {
		int rc;

		if (!launch_matches(objects[i].types, type))
			continue;
		if (objects[i].refused)
			return launch_refuse(c, NULL, "%s", objects[i].refused);
		rc = launch_check_props(c, p, objects[i].rules);
		return rc || !objects[i].check ? rc : objects[i].check(c, p);
	}
	return launch_refuse(c, NULL, "this type of object is not on the list of what is allowed");
}
