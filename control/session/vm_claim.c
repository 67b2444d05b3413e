// SPDX-License-Identifier: MIT
/*
 * One session a VM, whatever it is called: the claim is on its process.
 *
 * Theory of operation
 *   A session that works on a VM holds its monitor, so whoever opens the VM beside it waits for a
 *   greeting that does not come, and learns only that somebody is there. So the process is found
 *   and claimed before the VM is opened, where its words tell which it is; where they do not (a VMM
 *   that links libtranship says itself that it is held), and once more when it is open, the open VM
 *   is claimed. A claim ends with its session, but not while that is UNRESOLVED.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "control/guest/proc_maps.h"
#include "control/session/host_internal.h"
#include "lib/base/cleanup.h"
#include "lib/base/text.h"

struct key {
	char text[sizeof(((struct session *)NULL)->vm_key)];
};

static struct key key_of(pid_t pid, uint64_t start_time)
{
	struct key k;

	snprintf(k.text, sizeof(k.text), "%d/%" PRIu64, (int)pid, start_time);
	return k;
}

/* Under h->lock: the session that has claimed it, other than s. */
static struct session *holder(struct host *h, const struct session *s, const struct key *k)
{
	for (struct session *o = h->sessions; o; o = o->next) {
		if (o == s)
			continue;
		SCOPED_LOCK(&o->lock);
		if ((!o->terminal || o->state == SESSION_UNRESOLVED) && !strcmp(o->vm_key, k->text))
			return o;
	}
	return NULL;
}

static int held(const struct session *o, struct failure *f)
{
	return failure_set(f, -EBUSY, "vm-busy",
			   "Wait for it, or cancel it with `tranship cancel`.",
			   "Session %.8s already works on this VM.", o->id);
}

static int claim(struct session *s, const struct key *k, const char *name, struct failure *f)
{
	const struct session *o;

	SCOPED_LOCK(&s->host->lock);
	o = holder(s->host, s, k);
	if (o)
		return held(o, f);
	SCOPED_LOCK(&s->lock);
	snprintf(s->vm_key, sizeof(s->vm_key), "%s", k->text);
	if (name) {
		snprintf(s->vm, sizeof(s->vm), "%s", name);
		text_clean(s->vm);
	}
	return 0;
}

int session_claim_vm(struct session *s, const struct guest *g, struct failure *f)
{
	const struct key k = key_of(g->pid, g->start_time);

	return claim(s, &k, g->desc.name, f);
}

int session_claim_words(struct session *s, const char *vm, struct failure *f)
{
	uint64_t start_time;
	struct key k;
	pid_t pid;

	if (guest_locate(vm, &pid, &start_time))
		return 0;
	k = key_of(pid, start_time);
	return claim(s, &k, NULL, f);
}

int host_vm_is_free(struct host *h, const char *vm, struct failure *f)
{
	uint64_t start_time;
	const struct session *o;
	struct key k;
	pid_t pid;

	if (guest_locate(vm, &pid, &start_time))
		return 0;
	k = key_of(pid, start_time);
	SCOPED_LOCK(&h->lock);
	o = holder(h, NULL, &k);
	return o ? held(o, f) : 0;
}

/* What a list says of a VM that a session works on: who asked it was kept waiting. */
static void mark(json_t *vm, const struct session *o)
{
	char reason[80];

	snprintf(reason, sizeof(reason), "Session %.8s works on this VM.", o->id);
	json_object_set_new(vm, "migratable", json_false());
	json_object_set_new(vm, "code", json_string("vm-busy"));
	json_object_set_new(vm, "reason", json_string(reason));
}

void host_mark_claimed(struct host *h, json_t *vms)
{
	json_t *vm;
	size_t i;

	json_array_foreach (vms, i, vm) {
		pid_t pid = (pid_t)json_integer_value(json_object_get(vm, "pid"));
		const struct session *o;
		uint64_t start_time;
		struct key k;

		if (proc_start_time(pid, &start_time))
			continue;
		k = key_of(pid, start_time);
		SCOPED_LOCK(&h->lock);
		o = holder(h, NULL, &k);
		if (o)
			mark(vm, o);
	}
}
