// SPDX-License-Identifier: MIT
/*
 * QEMU's migration capabilities and parameters: set for a hand-over, and put back.
 *
 * Theory of operation
 *   x-ignore-shared keeps RAM out of QEMU's own stream; pause-before-switchover stops the guest and
 *   waits for us; late-block-activate keeps the destination from taking the image locks before it
 *   runs, so that the source can take them back; events tell the steps. Capabilities that would
 *   change the stream's form are turned off, whoever turned them on. The private blocks (VGA, ROMs)
 *   still go through QEMU's stream: unlimited bandwidth and two seconds of downtime limit let it
 *   switch over even while the guest paints its screen.
 *
 *   What was changed is put back on every way out; a migration by QEMU itself with x-ignore-shared
 *   left on would lose the guest's memory.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/guest/guest_qemu_internal.h"
#include "lib/base/log.h"

#define BANDWIDTH_UNLIMITED (1ll << 40) /* bytes/s; 0 means something else in each version */
#define DOWNTIME_LIMIT_MS   2000

static const struct wanted {
	const char *name;
	bool on;
} wanted[] = {
	{ "events", true },
	{ "x-ignore-shared", true },
	{ "pause-before-switchover", true },
	{ "late-block-activate", true },
	{ "xbzrle", false },
	{ "rdma-pin-all", false },
	{ "auto-converge", false },
	{ "compress", false },
	{ "postcopy-ram", false },
	{ "postcopy-preempt", false },
	{ "x-colo", false },
	{ "release-ram", false },
	{ "block", false },
	{ "return-path", false },
	{ "multifd", false },
	{ "background-snapshot", false },
	{ "zero-copy-send", false },
	{ "switchover-ack", false },
	{ "dirty-limit", false },
	{ "mapped-ram", false },
};

#define NWANTED (sizeof(wanted) / sizeof(wanted[0]))

static const char *const parameter_names[] = { "max-bandwidth", "downtime-limit", "tls-creds" };

#define NPARAMETERS (sizeof(parameter_names) / sizeof(parameter_names[0]))

static const struct wanted *wanted_of(const char *name)
{
	for (size_t i = 0; name && i < NWANTED; i++)
		if (!strcmp(wanted[i].name, name))
			return &wanted[i];
	return NULL;
}

/* Splits QEMU's list into what must be set and what that was before. x-ignore-shared is needed. */
static int plan_capabilities(const json_t *list, json_t *set, json_t *old, struct failure *f)
{
	bool possible = false;
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		const char *name = json_string_value(json_object_get(item, "capability"));
		bool is_on = json_is_true(json_object_get(item, "state"));
		const struct wanted *w = wanted_of(name);

		if (!w)
			continue;
		possible |= !strcmp(name, "x-ignore-shared");
		if (w->on == is_on)
			continue;
		json_array_append_new(set,
				      json_pack("{s:s, s:b}", "capability", name, "state", w->on));
		json_array_append_new(old,
				      json_pack("{s:s, s:b}", "capability", name, "state", is_on));
	}
	return possible ? 0
			: failure_set(f, -EOPNOTSUPP, "qemu-version", "QEMU 4.0 or newer is needed",
				      "this QEMU cannot leave shared RAM out of its stream");
}

static int set_capabilities(struct qmp *q, json_t *list, struct failure *f)
{
	return qmp_call(q, "migrate-set-capabilities", json_pack("{s:O}", "capabilities", list),
			NULL, f);
}

static int prepare_capabilities(struct guest_qemu *q, struct failure *f)
{
	json_t *list = NULL, *set = json_array(), *old = json_array();
	int ret = qmp_call(q->q, "query-migrate-capabilities", NULL, &list, f);

	if (!ret)
		ret = plan_capabilities(list, set, old, f);
	if (!ret && json_array_size(set))
		ret = set_capabilities(q->q, set, f);
	if (!ret)
		q->old_capabilities = json_incref(old);
	json_decref(list);
	json_decref(set);
	json_decref(old);
	return ret;
}

/* The parameters that a hand-over changes, as they are. */
static json_t *take_parameters(const json_t *all)
{
	json_t *old = json_object();

	for (size_t i = 0; i < NPARAMETERS; i++)
		json_object_set(old, parameter_names[i], json_object_get(all, parameter_names[i]));
	return old;
}

static int prepare_parameters(struct guest_qemu *q, struct failure *f)
{
	json_t *all = NULL, *set;
	int ret = qmp_call(q->q, "query-migrate-parameters", NULL, &all, f);

	if (ret)
		return ret;
	q->old_parameters = take_parameters(all);
	json_decref(all);
	set = json_pack("{s:I, s:i}", "max-bandwidth", (json_int_t)BANDWIDTH_UNLIMITED,
			"downtime-limit", DOWNTIME_LIMIT_MS);
	if (json_string_length(json_object_get(q->old_parameters, "tls-creds")))
		json_object_set_new(set, "tls-creds", json_string(""));
	return qmp_call(q->q, "migrate-set-parameters", set, NULL, f);
}

int qemu_migration_prepare(struct guest_qemu *q, struct failure *f)
{
	int ret = 0;

	if (!q->old_capabilities)
		ret = prepare_capabilities(q, f);
	if (!ret && !q->old_parameters)
		ret = prepare_parameters(q, f);
	if (ret)
		qemu_migration_restore(q);
	return ret;
}

static void set_back(struct qmp *q, json_t *capabilities, json_t *parameters)
{
	struct failure f = { 0 };
	int ret = 0;

	if (json_array_size(capabilities))
		ret = set_capabilities(q, capabilities, &f);
	if (ret != -ECONNRESET && json_object_size(parameters))
		ret = qmp_call(q, "migrate-set-parameters", json_incref(parameters), NULL, &f);
	if (failure_is_set(&f) && ret != -ECONNRESET)
		log_warn("migration capabilities or parameters stay changed: %s", f.message);
}

void qemu_migration_restore(struct guest_qemu *q)
{
	set_back(q->q, q->old_capabilities, q->old_parameters);
	json_decref(q->old_capabilities);
	json_decref(q->old_parameters);
	q->old_capabilities = NULL;
	q->old_parameters = NULL;
}

json_t *qemu_migration_get(struct qmp *q)
{
	json_t *list = NULL, *all = NULL, *capabilities = json_array();
	const json_t *item;
	size_t i;

	if (qmp_call(q, "query-migrate-capabilities", NULL, &list, NULL) ||
	    qmp_call(q, "query-migrate-parameters", NULL, &all, NULL)) {
		json_decref(list);
		json_decref(capabilities);
		return NULL;
	}
	json_array_foreach (list, i, item)
		if (wanted_of(json_string_value(json_object_get(item, "capability"))))
			json_array_append(capabilities, (json_t *)item);
	json_decref(list);
	item = json_pack("{s:o, s:o}", "capabilities", capabilities, "parameters",
			 take_parameters(all));
	json_decref(all);
	return (json_t *)item;
}

void qemu_migration_set(struct qmp *q, const json_t *old)
{
	static const char *const dangerous[] = { "x-ignore-shared", "pause-before-switchover",
						 "late-block-activate" };
	json_t *capabilities = json_array();

	if (old) {
		json_decref(capabilities);
		set_back(q, json_object_get(old, "capabilities"),
			 json_object_get(old, "parameters"));
		return;
	}
	for (size_t i = 0; i < sizeof(dangerous) / sizeof(dangerous[0]); i++)
		json_array_append_new(capabilities, json_pack("{s:s, s:b}", "capability",
							      dangerous[i], "state", 0));
	set_back(q, capabilities, NULL);
	json_decref(capabilities);
}
