// SPDX-License-Identifier: MIT
/* Preflight of what the destination must have: processors, memory, disks; see preflight.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "control/admission/disk_identity.h"
#include "control/admission/launch_paths.h"
#include "control/admission/preflight_internal.h"
#include "lib/base/units.h"

/*
 * Beside guest RAM: QEMU and our data plane (64 MiB + 0.1 %), and page tables of both (8 bytes per
 * 4 KiB page each, 0.4 %).
 */
#define MEMORY_FIXED	(256ull << 20)
#define MEMORY_FRACTION 200

/* --- processors ------------------------------------------------------------------------------ */

/*
 * Features that a guest can use, as /proc/cpuinfo writes them. Its other words are about the host's
 * kernel, or emulated by KVM on any processor (x2apic, tsc_deadline_timer, hypervisor).
 */
static const char guest_features[] =
	" sse3 pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand"
	" fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm mpx avx512f avx512dq rdseed adx smap"
	" avx512ifma clflushopt clwb avx512pf avx512er avx512cd sha_ni avx512bw avx512vl avx512vbmi"
	" umip pku ospke waitpkg avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg"
	" avx512_vpopcntdq la57 rdpid cldemote movdiri movdir64b avx512_4vnniw avx512_4fmaps fsrm"
	" avx512_vp2intersect serialize tsxldtrk amx_bf16 amx_tile amx_int8 avx512_fp16 avx_vnni"
	" avx512_bf16 xsaveopt xsavec xgetbv1 xsaves lahf_lm abm sse4a misalignsse 3dnowprefetch "
	"xop"
	" fma4 tbm syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm 3dnowext 3dnow clzero wbnoinvd pcid"
	" vmx svm mmx sse sse2 fxsr ";

static bool is_feature(const char *name)
{
	char word[40];

	snprintf(word, sizeof(word), " %s ", name);
	return strstr(guest_features, word) != NULL;
}

static bool has_flag(const char *flags, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = flags; (at = strstr(at, name)); at += len)
		if ((at == flags || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
			return true;
	return false;
}

/* Appends the source's features that the destination lacks to missing, blank-separated. */
static void features_missing(const char *source, const char *here, char *missing, size_t len)
{
	size_t used = 0;

	missing[0] = '\0';
	while (*source) {
		size_t n = strcspn(source, " ");
		char name[32];

		if (n && n < sizeof(name)) {
			memcpy(name, source, n);
			name[n] = '\0';
			if (is_feature(name) && !has_flag(here, name) && used + n + 2 < len)
				used += (size_t)snprintf(missing + used, len - used, "%s%s",
							 used ? " " : "", name);
		}
		source += n;
		source += strspn(source, " ");
	}
}

/* QEMU's name of a feature as /proc/cpuinfo writes it. */
static void cpuinfo_name(const char *qemu, size_t len, char *out, size_t room)
{
	static const struct {
		const char *qemu, *cpuinfo;
	} others[] = {
		{ "sse3", "pni" },
		{ "sse4.1", "sse4_1" },
		{ "sse4-1", "sse4_1" },
		{ "sse4.2", "sse4_2" },
		{ "sse4-2", "sse4_2" },
		{ "sha-ni", "sha_ni" },
		{ "avx512vbmi2", "avx512_vbmi2" },
		{ "avx512vnni", "avx512_vnni" },
		{ "avx512bitalg", "avx512_bitalg" },
		{ "avx512-vpopcntdq", "avx512_vpopcntdq" },
	};

	if (len >= room)
		len = room - 1;
	memcpy(out, qemu, len);
	out[len] = '\0';
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (!strcmp(out, others[i].qemu)) {
			snprintf(out, room, "%s", others[i].cpuinfo);
			return;
		}
	for (char *c = out; *c; c++)
		if (*c == '-')
			*c = '_';
}

/* The features that the model's text switches on and the destination lacks. */
static void explicit_missing(const char *model, const char *here, char *missing, size_t len)
{
	char wanted[1024] = "";
	size_t used = 0;

	model += strcspn(model, ",");
	while (*model) {
		const char *word = model + 1;
		size_t n = strcspn(word, ","), name = strcspn(word, "=,");
		bool on =
			word[0] == '+' || (n > name && (!strncmp(word + name, "=on", n - name) ||
							!strncmp(word + name, "=true", n - name)));
		char text[40];

		model = word + n;
		if (!on)
			continue;
		cpuinfo_name(word + (word[0] == '+'), name - (word[0] == '+'), text, sizeof(text));
		if (used + strlen(text) + 2 < sizeof(wanted))
			used += (size_t)snprintf(wanted + used, sizeof(wanted) - used, "%s ", text);
	}
	features_missing(wanted, here, missing, len);
}

static bool passes_host(const char *model)
{
	size_t len = strcspn(model, ",");

	return (len == 4 && !strncmp(model, "host", 4)) || (len == 3 && !strncmp(model, "max", 3));
}

static void check_features(json_t *checks, const struct guest_description *source,
			   const struct host_facts *h)
{
	const char *vendor = json_string_value(json_object_get(source->extra, "cpu_vendor"));
	const char *flags = json_string_value(json_object_get(source->extra, "cpu_flags"));
	bool host = passes_host(source->cpu_model);
	char missing[200];

	explicit_missing(source->cpu_model, h->cpu_flags, missing, sizeof(missing));
	if (missing[0]) {
		check_add(checks, "cpu", "cpu", CHECK_ERROR, "cpu-model",
			  "start the VM without them", "the destination's processor lacks %s",
			  missing);
		return;
	}
	if (!vendor || !flags) {
		check_add(checks, "cpu", "cpu", CHECK_WARNING, "cpu-model", NULL,
			  "the source did not say what its processor has");
		return;
	}
	features_missing(flags, h->cpu_flags, missing, sizeof(missing));
	if (strcmp(vendor, h->cpu_vendor))
		check_add(checks, "cpu", "cpu", host ? CHECK_ERROR : CHECK_WARNING, "cpu-model",
			  host ? "start the VM with a named CPU model that both hosts have" : NULL,
			  "the processors are of different makers: %.16s and %.16s", vendor,
			  h->cpu_vendor);
	else if (missing[0])
		check_add(checks, "cpu", "cpu", host ? CHECK_ERROR : CHECK_WARNING, "cpu-model",
			  host ? "start the VM with a named CPU model that both hosts have"
			       : "see that the VM's CPU model does not use them",
			  "the destination's processor lacks %s", missing);
	else
		check_add(checks, "cpu", "cpu", CHECK_OK, NULL, NULL,
			  "the destination's processor has all that the source's has");
}

void preflight_cpu(json_t *checks, const struct guest_description *source,
		   const struct host_facts *h)
{
	if (strcmp(source->accel, "kvm"))
		check_add(checks, "cpu", "cpu", CHECK_OK, NULL, NULL,
			  "processors are emulated, the same on any host");
	else if (!h->kvm)
		check_add(checks, "cpu", "cpu", CHECK_ERROR, "cpu-model",
			  "load the kvm module at the destination",
			  "the VM runs on KVM, which the destination has not");
	else
		check_features(checks, source, h);
}

/* --- memory ---------------------------------------------------------------------------------- */

/* What the waiting VM's region already holds: it is in use and needs no more. */
static uint64_t already_there(const struct guest_description *incoming,
			      const struct guest_region *r)
{
	struct stat st;
	uint64_t bytes;

	for (uint32_t i = 0; incoming && i < incoming->nregions; i++) {
		const struct guest_region *w = &incoming->regions[i];

		if (strcmp(w->id, r->id))
			continue;
		if (w->prealloc)
			return r->size;
		if (!w->path[0] || stat(w->path, &st))
			return 0;
		bytes = (uint64_t)st.st_blocks * 512;
		return bytes < r->size ? bytes : r->size;
	}
	return 0;
}

static void check_memory(json_t *checks, uint64_t needed, const struct host_facts *h)
{
	char a[32], b[32];
	uint64_t margin = MEMORY_FIXED + needed / MEMORY_FRACTION;
	bool fits = needed + margin >= needed && needed + margin <= h->mem_available;

	units_format_size(needed + margin, a, sizeof(a));
	units_format_size(h->mem_available, b, sizeof(b));
	check_add(checks, "memory", "memory", fits ? CHECK_OK : CHECK_ERROR, fits ? NULL : "memory",
		  fits ? NULL : "free memory at the destination",
		  "%s of memory needed at the destination, %s available", a, b);
}

static void check_huge(json_t *checks, uint64_t needed, uint64_t page, uint64_t free_pages)
{
	uint64_t pages = needed / page;
	bool fits = pages <= free_pages;
	char size[32];

	if (!needed)
		return;
	units_format_size(page, size, sizeof(size));
	check_add(checks, "huge pages", "memory", fits ? CHECK_OK : CHECK_ERROR,
		  fits ? NULL : "memory", fits ? NULL : "raise vm.nr_hugepages at the destination",
		  "%" PRIu64 " huge pages of %s needed at the destination, %" PRIu64 " free", pages,
		  size, free_pages);
}

/* A tmpfs has a size of its own, half of memory if nothing was said: it can be full before it. */
static void check_ram_dir(json_t *checks, const char *dir, uint64_t needed)
{
	struct statvfs fs;
	uint64_t free_bytes;
	char a[32], b[32];

	if (statvfs(dir, &fs) || !fs.f_blocks) /* not there: launching says so; 0: no limit */
		return;
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (needed <= free_bytes)
		return;
	units_format_size(needed, a, sizeof(a));
	units_format_size(free_bytes, b, sizeof(b));
	check_add(checks, "memory", "memory", CHECK_ERROR, "memory",
		  "mount it with a larger size= at the destination",
		  "%s needed in %.200s at the destination, %s free", a, dir, b);
}

static void directory_of(const struct guest_region *r, const struct host_facts *h, char *dir,
			 size_t len)
{
	const char *slash = strrchr(r->path, '/'), *why;

	if (h->ram_dir[0] && !launch_path_ram_dir(h->ram_dir, r->hugetlb, r->page_size, &why))
		snprintf(dir, len, "%s", h->ram_dir);
	else
		snprintf(dir, len, "%.*s", slash && slash > r->path ? (int)(slash - r->path) : 1,
			 r->path[0] ? r->path : "/");
}

/* Regions whose files come into one directory are counted together. */
static void check_ram_dirs(json_t *checks, const struct guest_description *source,
			   const struct host_facts *h)
{
	char dir[PATH_MAX], other[PATH_MAX];

	for (uint32_t i = 0; i < source->nregions; i++) {
		uint64_t needed = 0;
		bool first = true;

		if (source->regions[i].backing != GUEST_BACKING_FILE || source->regions[i].hugetlb)
			continue;
		directory_of(&source->regions[i], h, dir, sizeof(dir));
		for (uint32_t k = 0; k < source->nregions; k++) {
			if (source->regions[k].backing != GUEST_BACKING_FILE ||
			    source->regions[k].hugetlb)
				continue;
			directory_of(&source->regions[k], h, other, sizeof(other));
			if (strcmp(dir, other))
				continue;
			needed += source->regions[k].size;
			first = first && k >= i;
		}
		if (first)
			check_ram_dir(checks, dir, needed);
	}
}

void preflight_memory(json_t *checks, const struct guest_description *source,
		      const struct guest_description *incoming, const struct host_facts *h)
{
	uint64_t small = 0, huge_2m = 0, huge_1g = 0;

	for (uint32_t i = 0; i < source->nregions; i++) {
		const struct guest_region *r = &source->regions[i];

		if (!r->hugetlb)
			small += r->size - already_there(incoming, r);
		else if (r->page_size == 2u << 20)
			huge_2m += r->size;
		else if (r->page_size == 1u << 30)
			huge_1g += r->size;
	}
	check_memory(checks, small, h);
	/* hugetlb is reserved when it is mapped: a waiting VM has its pages. */
	if (incoming)
		return;
	check_huge(checks, huge_2m, 2ull << 20, h->huge_free_2m);
	check_huge(checks, huge_1g, 1ull << 30, h->huge_free_1g);
	check_ram_dirs(checks, source, h);
}

/* --- disks ----------------------------------------------------------------------------------- */

/* Half a sentence on why the disk is not the same here; false if it is. */
static bool disk_differs(const struct guest_disk *d, char *why, size_t len)
{
	struct disk_identity here, there;
	struct stat st;
	int rc = disk_identity_look(d->path, &here);

	if (rc) {
		snprintf(why, len, "%s",
			 rc == -ENOENT ? "it does not exist at the destination" : strerror(-rc));
		return true;
	}
	if (!disk_identity_parse(d->identity, &there))
		return !disk_identity_same(&there, &here, !strcmp(d->format, "raw"), why, len);
	/* Only numbers of one kernel: equal on another host, they would prove nothing. */
	if (!stat(d->path, &st) && d->inode && st.st_dev == d->device && st.st_ino == d->inode)
		return false;
	snprintf(why, len, "it is another file at the destination");
	return true;
}

void preflight_disks(json_t *checks, const struct guest_description *source)
{
	for (uint32_t i = 0; i < source->ndisks; i++) {
		const struct guest_disk *d = &source->disks[i];
		char why[160];

		if (!d->path[0])
			continue;
		if (d->path[0] != '/')
			check_add(checks, "disk", "disk", CHECK_ERROR, "disk-not-shared",
				  "give disks by absolute paths",
				  "disk %s (%.200s) is not an absolute path", d->id, d->path);
		else if (!disk_differs(d, why, sizeof(why)))
			check_add(checks, "disk", "disk", CHECK_OK, NULL, NULL,
				  "disk %s (%.200s) is the same on both hosts", d->id, d->path);
		else
			check_add(checks, "disk", "disk",
				  d->read_only ? CHECK_WARNING : CHECK_ERROR, "disk-not-shared",
				  "put it on storage that both hosts see, under the same path",
				  "disk %s (%.200s) is not shared: %s", d->id, d->path, why);
	}
}
