// SPDX-License-Identifier: MIT
/* Guests by the words of the command line, whatever their VMM; and the list of all. See guest.h. */
#include "control/guest/guest.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/admission/preflight.h"
#include "control/guest/guest_qemu_internal.h"
#include "control/guest/guest_tranship.h"
#include "control/guest/proc_maps.h"
#include "control/guest/qemu_args.h"
#include "lib/base/text.h"
#include "lib/base/units.h"

/* A VM that is held by another manager costs the list no more than this. */
#define LIST_GREET_MS	 200u
#define LIST_TOTAL_MS	 500u
#define LIST_THREADS_MAX 16u

/* --- opening ---------------------------------------------------------------------------------- */

static int open_pid(struct guest **out, const char *text, struct failure *f)
{
	char *end, **argv;
	long pid;
	size_t argc;
	bool qemu;

	errno = 0;
	pid = strtol(text, &end, 10);
	if (errno || end == text || *end || pid <= 0 || pid > INT32_MAX)
		return failure_set(f, -EINVAL, "usage", "Write pid:NUMBER.",
				   "pid:%s is no process number", text);
	if (proc_cmdline((pid_t)pid, &argv, &argc))
		return failure_set(f, -ESRCH, "vm-not-found", "`tranship list` shows the VMs.",
				   "there is no process %ld", pid);
	qemu = qemu_is_process((pid_t)pid, argv);
	free(argv);
	return qemu ? guest_qemu_open_pid(out, (pid_t)pid, f)
		    : guest_tranship_open_pid(out, (pid_t)pid, f);
}

/* The only QEMU of that name on this host: its pid, 0 if there is none, -EEXIST if several. */
static pid_t pid_of_name(const char *name)
{
	struct qemu_process *list = NULL;
	size_t count = 0;
	pid_t pid = 0;

	if (qemu_processes(&list, &count))
		return 0;
	for (size_t i = 0; i < count; i++)
		if (!list[i].foreign && !strcmp(list[i].name, name))
			pid = pid ? -EEXIST : list[i].pid;
	qemu_processes_free(list, count);
	return pid;
}

static int open_name(struct guest **out, const char *name, struct failure *f)
{
	pid_t pid = pid_of_name(name);
	int err;

	if (pid < 0)
		return failure_set(f, pid, "vm-ambiguous",
				   "Give its process as pid:N or its socket as qemu:PATH.",
				   "more than one VM is named %s", name);
	if (pid)
		return guest_qemu_open_pid(out, pid, f);
	err = guest_tranship_open_name(out, name, f);
	if (err == -ENOENT && f && !strcmp(f->code, "vm-not-found")) {
		failure_clear(f);
		failure_set(f, err, "vm-not-found", "`tranship list` shows the VMs.",
			    "There is no VM named %s on this host.", name);
	}
	return err;
}

int guest_open(struct guest **out, const char *vm, struct failure *f)
{
	*out = NULL;
	if (!vm || !vm[0])
		return failure_set(f, -EINVAL, "usage", NULL, "no VM was named");
	if (!strncmp(vm, "qemu:", 5))
		return guest_qemu_open_socket(out, vm + 5, f);
	if (!strncmp(vm, "tranship:", 9))
		return guest_tranship_open(out, vm + 9, f);
	if (!strncmp(vm, "pid:", 4))
		return open_pid(out, vm + 4, f);
	return open_name(out, vm, f);
}

int guest_locate(const char *vm, pid_t *pid, uint64_t *start_time)
{
	char *end;
	long number;

	if (!vm || !strncmp(vm, "tranship:", 9))
		return -ENOENT;
	if (!strncmp(vm, "qemu:", 5)) {
		*pid = qemu_of_socket(vm + 5);
	} else if (!strncmp(vm, "pid:", 4)) {
		number = strtol(vm + 4, &end, 10);
		*pid = *end || number > INT32_MAX ? 0 : (pid_t)number;
	} else {
		*pid = pid_of_name(vm);
	}
	return *pid > 0 && !proc_start_time(*pid, start_time) ? 0 : -ENOENT;
}

void guest_free(struct guest *g)
{
	if (g)
		g->ops->free(g);
}

bool guest_alive(const struct guest *g)
{
	struct pollfd p = { .fd = g->pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 0;
}

void guest_disarm_residue(const json_t *residue)
{
	const char *kind = json_string_value(json_object_get(residue, "kind"));

	if (kind && !strcmp(kind, "qemu"))
		guest_qemu_disarm_residue(residue);
}

/* --- the list --------------------------------------------------------------------------------- */

static json_t *list_item(const char *name, pid_t pid, uint64_t ram_bytes, const char *state,
			 const struct failure *f)
{
	char shown[128];

	snprintf(shown, sizeof(shown), "%s", name);
	text_clean(shown);
	return json_pack("{s:s, s:i, s:s, s:I, s:s, s:b, s:s, s:s}", "name", shown, "pid", (int)pid,
			 "kind", "qemu", "ram_bytes", (json_int_t)ram_bytes, "state", state,
			 "migratable", !failure_is_set(f), "reason", f->message, "code", f->code);
}

/* What the command line says of a VM that cannot be asked: -m 4096, -m 4G, -m size=4G,slots=2. */
static uint64_t ram_of_command_line(char *const *argv)
{
	const char *value = qemu_args_last(argv, "-m");
	uint64_t bytes = 128ull << 20;
	char size[32];

	if (value && qemu_opt_get(value, "size", "size", size, sizeof(size)) &&
	    !units_parse_size(size, &bytes) && size[strspn(size, "0123456789")] == '\0')
		bytes <<= 20;
	return bytes;
}

static json_t *look_at(const struct qemu_process *p)
{
	struct failure f = { 0 };
	json_t *checks, *item;
	struct guest *g;

	if (guest_qemu_open_bounded(&g, p->pid, LIST_GREET_MS, LIST_TOTAL_MS, &f))
		return list_item(p->name, p->pid, ram_of_command_line(p->argv), "unknown", &f);
	checks = json_array();
	if (!g->ops->check(g, checks, &f))
		checks_verdict(checks, &f);
	item = list_item(g->desc.name, p->pid, g->desc.ram_bytes, g->desc.state, &f);
	json_decref(checks);
	guest_free(g);
	return item;
}

struct list_work {
	struct qemu_process *processes;
	json_t **items;
	size_t count;
	atomic_size_t next;
};

static void *list_worker(void *arg)
{
	struct list_work *w = arg;
	size_t i;

	while ((i = atomic_fetch_add(&w->next, 1)) < w->count)
		if (!w->processes[i].foreign)
			w->items[i] = look_at(&w->processes[i]);
	return NULL;
}

/* Several at once, because each busy one costs its time limit. */
static void look_at_all(struct list_work *w)
{
	pthread_t threads[LIST_THREADS_MAX];
	unsigned int started = 0;

	while (started < LIST_THREADS_MAX && started + 1 < w->count &&
	       !pthread_create(&threads[started], NULL, list_worker, w))
		started++;
	list_worker(w);
	while (started)
		pthread_join(threads[--started], NULL);
}

json_t *guest_list(void)
{
	struct list_work w = { 0 };
	json_t *list = json_array(), *others;

	if (!qemu_processes(&w.processes, &w.count)) {
		w.items = calloc(w.count + 1, sizeof(*w.items));
		if (w.items)
			look_at_all(&w);
		for (size_t i = 0; w.items && i < w.count; i++)
			if (w.items[i])
				json_array_append_new(list, w.items[i]);
		qemu_processes_free(w.processes, w.count);
		free(w.items);
	}
	others = guest_tranship_list();
	json_array_extend(list, others);
	json_decref(others);
	return list;
}
