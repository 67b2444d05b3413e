// SPDX-License-Identifier: MIT
/*
 * Checks before a move; see preflight.h.
 *
 * Each check_* below judges one thing and always says something, so that --dry-run shows what was
 * looked at. An error that the user may know better about belongs to a group of --skip-check; what
 * would lose the guest has none.
 */
#include "control/admission/preflight.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/admission/launch.h"
#include "control/admission/preflight_internal.h"
#include "lib/base/text.h"

static const char *const level_names[] = { "ok", "warning", "error" };

void check_add(json_t *checks, const char *name, const char *group, enum check_level level,
	       const char *code, const char *hint, const char *fmt, ...)
{
	char message[400];
	va_list args;
	json_t *check;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (fmt[0] != '%')
		text_sentence(message);
	check = json_object();
	json_object_set_new(check, "check", json_string(name));
	json_object_set_new(check, "group", json_string(group));
	json_object_set_new(check, "level", json_string(level_names[level]));
	json_object_set_new(check, "code", json_string(code ? code : ""));
	/* Names of a peer may hold what is not UTF-8; a check must not vanish for it. */
	json_object_set_new(check, "message", json_string(message) ?: json_string("(unprintable)"));
	json_object_set_new(check, "hint", json_string(hint ? hint : "") ?: json_string(""));
	json_array_append_new(checks, check);
}

static bool is_group(const char *word, size_t len)
{
	static const char *const groups[] = {
		"cpu", "memory", "disk", "version", "devices", "all"
	};

	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		if (strlen(groups[i]) == len && !strncmp(groups[i], word, len))
			return true;
	return false;
}

static bool is_skipped(const char *list, const char *group)
{
	size_t want = strlen(group);

	while (want && *list) {
		size_t len = strcspn(list, ",");

		if ((len == want && !strncmp(list, group, len)) ||
		    (len == 3 && !strncmp(list, "all", 3)))
			return true;
		list += len + (list[len] == ',');
	}
	return false;
}

static const char *text_of(const json_t *check, const char *key)
{
	const char *text = json_string_value(json_object_get(check, key));

	return text ? text : "";
}

int checks_skip(json_t *checks, const char *skip_list, struct failure *f)
{
	const char *word = skip_list ? skip_list : "";
	json_t *check;
	size_t i;

	while (*word) {
		size_t len = strcspn(word, ",");

		if (!is_group(word, len))
			return failure_set(
				f, -EINVAL, "usage",
				"the groups are cpu, memory, disk, version, devices and all",
				"--skip-check does not know '%.*s'", (int)(len < 40 ? len : 40),
				word);
		word += len + (word[len] == ',');
	}
	json_array_foreach (checks, i, check)
		if (!strcmp(text_of(check, "level"), "error") &&
		    is_skipped(skip_list ? skip_list : "", text_of(check, "group")))
			json_object_set_new(check, "level", json_string("warning"));
	return 0;
}

int checks_verdict(const json_t *checks, struct failure *f)
{
	json_t *check;
	size_t i;

	json_array_foreach (checks, i, check)
		if (!strcmp(text_of(check, "level"), "error"))
			return failure_set(f, -EPERM, text_of(check, "code"),
					   text_of(check, "hint"), "%s", text_of(check, "message"));
	return 0;
}

int version_compare(const char *a, const char *b)
{
	unsigned int va[2] = { 0, 0 }, vb[2] = { 0, 0 };

	sscanf(a, "%9u.%9u", &va[0], &va[1]);
	sscanf(b, "%9u.%9u", &vb[0], &vb[1]);
	for (int i = 0; i < 2; i++)
		if (va[i] != vb[i])
			return va[i] < vb[i] ? -1 : 1;
	return 0;
}

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; (at = strstr(at, word)); at++)
		if (len && (at == list || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
			return true;
	return false;
}

/* The binary that would be launched, as launch_binary() chooses it: same path, else same name. */
static const struct host_qemu *find_qemu(const struct host_facts *h, const char *word)
{
	const char *slash = strrchr(word, '/');
	const char *name = slash ? slash + 1 : word;

	for (unsigned int i = 0; i < h->nqemus; i++)
		if (!strcmp(h->qemus[i].binary, word))
			return &h->qemus[i];
	for (unsigned int i = 0; i < h->nqemus; i++) {
		const char *base = strrchr(h->qemus[i].binary, '/');

		if (base && !strcmp(base + 1, name))
			return &h->qemus[i];
	}
	return NULL;
}

static void check_versions(json_t *checks, const char *source, const char *here)
{
	int order = version_compare(here, source);

	if (!here[0] || !source[0])
		check_add(checks, "version", "version", CHECK_ERROR, "qemu-version",
			  "see whether the QEMU at the destination runs",
			  "a QEMU version is not known (source %s, destination %s)",
			  source[0] ? source : "?", here[0] ? here : "?");
	else if (order < 0)
		check_add(
			checks, "version", "version", CHECK_ERROR, "qemu-version",
			"install the source's version of QEMU, or a newer one, at the destination",
			"the destination's QEMU %s is older than the source's %s", here, source);
	else if (order > 0)
		check_add(checks, "version", "version", CHECK_WARNING, "qemu-version", NULL,
			  "the destination's QEMU %s is newer than the source's %s: the VM may not "
			  "be "
			  "able to move back",
			  here, source);
	else
		check_add(checks, "version", "version", CHECK_OK, NULL, NULL, "QEMU %s and %s",
			  source, here);
}

static void check_binary(json_t *checks, const struct guest_description *source,
			 const struct host_facts *h)
{
	const char *word = source->argv && source->argv[0] ? source->argv[0] : "";
	const struct host_qemu *q = find_qemu(h, word);

	if (!q) {
		check_add(
			checks, "binary", "version", CHECK_ERROR, "launch-refused",
			"add it to qemu-binary in transhipd's configuration at the destination, or "
			"use --incoming",
			"the VM runs %.200s, which the destination may not launch",
			word[0] ? word : "an unknown binary");
		return;
	}
	check_versions(checks, source->version, q->version);
	if (!q->machines[0])
		return;
	if (has_word(q->machines, source->machine))
		check_add(checks, "machine", "version", CHECK_OK, NULL, NULL, "machine type %s",
			  source->machine);
	else
		check_add(checks, "machine", "version", CHECK_ERROR, "machine-type",
			  "install a QEMU that has it, or start the VM with an older machine type",
			  "the destination's QEMU %s has no machine type %s", q->version,
			  source->machine[0] ? source->machine : "(unknown)");
}

static const struct guest_region *region_by_id(const struct guest_description *d, const char *id)
{
	for (uint32_t i = 0; i < d->nregions; i++)
		if (!strcmp(d->regions[i].id, id))
			return &d->regions[i];
	return NULL;
}

/* Of one region in both VMs: half a sentence, or NULL if they fit. */
static const char *region_misfit(const struct guest_region *a, const struct guest_region *b)
{
	if (!b)
		return "is not in the VM at the destination";
	if (a->size != b->size)
		return "has another size in the VM at the destination";
	if (a->page_size != b->page_size || a->hugetlb != b->hugetlb)
		return "has pages of another size in the VM at the destination";
	return NULL;
}

static void check_layout(json_t *checks, const struct guest_description *source,
			 const struct guest_description *incoming)
{
	size_t before = json_array_size(checks);

	for (uint32_t i = 0; i < source->nregions; i++) {
		const struct guest_region *a = &source->regions[i];
		const struct guest_region *b = region_by_id(incoming, a->id);
		const char *misfit = region_misfit(a, b);

		if (misfit)
			check_add(checks, "ram", "", CHECK_ERROR, "ram-layout",
				  "start it with the same memory backends as the source's",
				  "RAM region %s %s", a->id, misfit);
		else if (b->backing == GUEST_BACKING_PRIVATE || !b->share)
			check_add(checks, "ram", "", CHECK_ERROR, "ram-not-shared",
				  "start it with memory-backend-file and share=on",
				  "RAM region %s is not shared in the VM at the destination",
				  a->id);
	}
	for (uint32_t i = 0; i < incoming->nregions; i++)
		if (!region_by_id(source, incoming->regions[i].id))
			check_add(checks, "ram", "", CHECK_ERROR, "ram-layout",
				  "start it with the same memory backends as the source's",
				  "RAM region %s is only in the VM at the destination",
				  incoming->regions[i].id);
	if (json_array_size(checks) == before)
		check_add(checks, "ram", "", CHECK_OK, NULL, NULL,
			  "the same %u RAM regions on both sides", source->nregions);
}

static void check_waiting(json_t *checks, const struct guest_description *source,
			  const struct guest_description *incoming)
{
	if (strcmp(incoming->kind, source->kind))
		check_add(checks, "incoming", "", CHECK_ERROR, "incoming-not-waiting", NULL,
			  "the VM at the destination is of another kind (%s, not %s)",
			  incoming->kind, source->kind);
	else if (!strcmp(source->kind, "qemu") && strcmp(incoming->state, "inmigrate"))
		check_add(checks, "incoming", "", CHECK_ERROR, "incoming-not-waiting",
			  "start it anew with -incoming defer -S",
			  "the VM at the destination is in state %s, not inmigrate",
			  incoming->state);
	if (!strcmp(source->kind, "qemu"))
		check_versions(checks, source->version, incoming->version);
	/* Another machine is another set of devices: its state cannot be loaded, nor half loaded.
	 */
	if (strcmp(source->machine, incoming->machine))
		check_add(checks, "machine", "", CHECK_ERROR, "machine-type",
			  "start it with the source's versioned machine type",
			  "the machine types differ: %s and %s", source->machine,
			  incoming->machine);
	else
		check_add(checks, "machine", "", CHECK_OK, NULL, NULL,
			  "machine type %s on both sides", source->machine);
	if (source->cpus != incoming->cpus)
		check_add(checks, "cpus", "", CHECK_ERROR, "cpu-model",
			  "start it with the source's number of processors",
			  "the VM has %u processors and the one at the destination %u",
			  source->cpus, incoming->cpus);
	if (strcmp(source->accel, incoming->accel))
		check_add(checks, "accel", "cpu", CHECK_ERROR, "cpu-model",
			  "start it with the source's accelerator",
			  "the VM runs on %s and the one at the destination on %s", source->accel,
			  incoming->accel);
	else if (strcmp(source->cpu_model, incoming->cpu_model))
		check_add(checks, "cpu", "cpu", CHECK_WARNING, "cpu-model", NULL,
			  "the CPU models were given differently: '%s' and '%s'", source->cpu_model,
			  incoming->cpu_model);
	check_layout(checks, source, incoming);
}

/* A memfd may come (its pages go by our streams); it is only its next move that needs a name. */
static void check_memfd(json_t *checks, const struct guest_description *source, const char *here)
{
	if (version_compare(source->version, "8.1") >= 0 || version_compare(here, "8.1") < 0)
		return;
	for (uint32_t i = 0; i < source->nregions; i++)
		if (source->regions[i].backing == GUEST_BACKING_MEMFD) {
			check_add(checks, "ram", "", CHECK_WARNING, "ram-memfd",
				  "use memory-backend-file when the VM is next started",
				  "the RAM is a memfd: once it runs on QEMU %s it cannot move on",
				  here);
			return;
		}
}

void preflight_destination(json_t *checks, const struct guest_description *source,
			   const struct guest_description *incoming, const struct host_facts *h)
{
	const char *word = source->argv && source->argv[0] ? source->argv[0] : "";
	const struct host_qemu *q = incoming ? NULL : find_qemu(h, word);
	bool qemu = !strcmp(source->kind, "qemu");

	if (incoming)
		check_waiting(checks, source, incoming);
	else if (qemu)
		check_binary(checks, source, h);
	if (qemu && (incoming || q))
		check_memfd(checks, source, incoming ? incoming->version : q->version);
	if (qemu)
		preflight_cpu(checks, source, h);
	preflight_memory(checks, source, incoming, h);
	preflight_disks(checks, source);
}

void preflight_launch(json_t *checks, const struct guest_description *source,
		      const struct config *c, const char *session_id)
{
	struct failure f = { 0 };
	struct launch_plan plan;

	if (launch_plan(&plan, source, c, session_id, &f))
		check_add(checks, "launch", "", CHECK_ERROR, f.code, f.hint, "%s", f.message);
	else
		check_add(checks, "launch", "", CHECK_OK, NULL, NULL,
			  "the destination can launch the VM from its command line");
	launch_plan_release(&plan);
}
