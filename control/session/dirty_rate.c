// SPDX-License-Identifier: MIT
/*
 * dirty-rate: how fast a VM writes its memory, and how much of it.
 *
 * An observing data plane scans once a second over the period; nothing is sent. The rate counts a
 * page once a second however often it was written, as a round of a migration of that length would
 * see it; the working set counts it once over the whole period. The tracker is disarmed afterwards,
 * whatever happens: nothing remains in the VM. When whoever asked has gone (a Ctrl-C), it stops.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "control/guest/guest.h"
#include "control/session/arming.h"
#include "control/session/dataplane_process.h"
#include "control/session/guest_memory.h"
#include "control/session/host_internal.h"
#include "control/session/session_source.h"
#include "dataplane/region.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define SAMPLE_MS 1000
#define ANSWER_MS 30000u

struct observation {
	struct session *s; /* the claim on the VM */
	int stop_fd;	   /* readable: cancelled, transhipd ends, or nobody waits any more */
	struct guest *g;
	struct dataplane dp;
	json_t *samples;
	uint64_t pages, working_set, ns;
};

static int send_setup(struct observation *o, struct failure *f)
{
	const struct guest_description *d = &o->g->desc;
	struct ipc_config m = { .role = IPC_ROLE_OBSERVER,
				.regions = d->nregions,
				.log_level = LOG_LEVEL_INFO };
	int err = dataplane_send(&o->dp, IPC_CONFIG, &m, -1, f);

	if (!err)
		err = guest_memory_send_regions(&o->dp, o->g, f);
	return err ? err : guest_memory_send_mappings(&o->dp, d, f);
}

static int ask(struct observation *o, enum ipc_type type, const void *body, int fd,
	       enum ipc_type want, struct ipc_message *answer, struct failure *f)
{
	struct dataplane_wait w = { .cancel_fd = o->stop_fd,
				    .guest_fd = o->g->pidfd,
				    .deadline_ns = clock_ns() + ANSWER_MS * NSEC_PER_MSEC,
				    .late = "The data plane did not answer in time." };
	int err = dataplane_send(&o->dp, type, body, fd, f);

	return err ? err : dataplane_expect(&o->dp, want, answer, &w, f);
}

static int scan(struct observation *o, uint32_t flags, struct ipc_scanned *out, struct failure *f)
{
	struct ipc_scan m = { .flags = flags | IPC_SCAN_OBSERVE };
	struct ipc_message answer;
	int err = ask(o, IPC_SCAN, &m, -1, IPC_SCANNED, &answer, f);

	if (!err)
		*out = answer.body.scanned;
	return err;
}

static int observe(struct observation *o, unsigned int seconds, struct failure *f)
{
	struct ipc_scanned scanned;
	int err = scan(o, IPC_SCAN_FIRST, &scanned, f);

	for (unsigned int i = 0; !err && i < seconds; i++) {
		struct dataplane_wait w = { .cancel_fd = o->stop_fd,
					    .guest_fd = o->g->pidfd,
					    .deadline_ns = clock_ns() + SAMPLE_MS * NSEC_PER_MSEC };
		struct ipc_message none;
		struct failure slept = { 0 };

		/* Nothing is due: what ends this wait early is a failure. */
		err = dataplane_expect(&o->dp, IPC_SCANNED, &none, &w, &slept);
		if (err != -ETIMEDOUT) {
			*f = slept;
			return err ? err : -EPROTO;
		}
		err = scan(o, 0, &scanned, f);
		if (err)
			break;
		o->pages += scanned.dirty_pages;
		o->ns += scanned.since_ns;
		o->working_set = scanned.union_pages;
		json_array_append_new(o->samples,
				      json_real((double)scanned.dirty_pages * PAGE_BYTES * 1e9 /
						(double)scanned.since_ns / 1048576));
	}
	return err;
}

/* One record; value is stolen and may be NULL: none. */
static int note(struct observation *o, const char *member, json_t *value, struct failure *f)
{
	json_t *fields;
	int err;

	if (!value)
		return 0;
	fields = json_pack("{s:O, s:o}", "request", o->s->request, member, value);
	err = session_enter(o->s, SESSION_NEW, fields, f);
	json_decref(fields);
	return err;
}

static int start_dataplane(struct observation *o, struct ipc_tracker *tracker, int fd,
			   struct failure *f)
{
	struct ipc_message answer;
	int err = dataplane_start(&o->dp, session_config(o->s), f);

	if (!err)
		err = send_setup(o, f);
	if (!err)
		err = dataplane_send(&o->dp, IPC_TRACKER, tracker, fd, f);
	return err ? err : ask(o, IPC_START, NULL, -1, IPC_READY, &answer, f);
}

static int run(struct observation *o, unsigned int seconds, struct failure *f)
{
	struct ipc_tracker tracker = { .kind = IPC_TRACKER_NONE,
				       .kvm = !strcmp(o->g->desc.accel, "kvm") };
	enum ipc_tracker_kind kind = IPC_TRACKER_NONE;
	json_t *residue = NULL;
	AUTO_CLOSE int fd = -1;
	int err = note(o, "arming", arming_note(o->g), f);

	if (!err)
		err = o->g->ops->arm(o->g, &kind, &fd, &residue, f);
	if (err)
		return err;
	tracker.kind = kind;
	err = note(o, "residue", residue, f);
	if (!err)
		err = start_dataplane(o, &tracker, fd, f);
	if (!err)
		err = observe(o, seconds, f);
	dataplane_stop(&o->dp);
	o->g->ops->disarm(o->g);
	return err;
}

static json_t *report(const struct observation *o, unsigned int seconds)
{
	double rate = o->ns ? (double)o->pages * PAGE_BYTES * 1e9 / (double)o->ns : 0;

	return json_pack("{s:s, s:i, s:f, s:f, s:I, s:I, s:O}", "vm", o->s->vm, "seconds",
			 (int)seconds, "dirty_rate_bytes_per_s", rate, "dirty_rate_mib_s",
			 rate / 1048576, "working_set_bytes",
			 (json_int_t)(o->working_set * PAGE_BYTES), "ram_bytes",
			 (json_int_t)o->g->desc.ram_bytes, "samples_mib_s", o->samples);
}

/* A closed connection is told by EPOLLHUP, which needs not be asked for. */
static int watch(struct observation *o, int client_fd, struct failure *f)
{
	struct epoll_event wake = { .events = EPOLLIN }, gone = { .events = 0 };

	o->stop_fd = epoll_create1(EPOLL_CLOEXEC);
	if (o->stop_fd < 0 || epoll_ctl(o->stop_fd, EPOLL_CTL_ADD, o->s->wake_fd, &wake) ||
	    (client_fd >= 0 && epoll_ctl(o->stop_fd, EPOLL_CTL_ADD, client_fd, &gone)))
		return failure_set(f, -errno, "internal", NULL, "epoll failed: %m");
	return 0;
}

int session_observe(struct session *s, int client_fd, json_t **out, struct failure *f)
{
	json_int_t seconds = json_integer_value(json_object_get(s->request, "seconds"));
	const char *vm = json_string_value(json_object_get(s->request, "vm"));
	struct observation o = {
		.s = s, .stop_fd = -1, .dp = DATAPLANE_NONE, .samples = json_array()
	};
	int err = watch(&o, client_fd, f);

	if (!err)
		err = session_claim_words(s, vm, f);
	if (!err)
		err = guest_open(&o.g, vm, f);
	if (!err)
		err = session_claim_vm(s, o.g, f);
	if (!err && !o.g->desc.running)
		err = failure_set(f, -EINVAL, "vm-not-running", "Start it.",
				  "The VM %s does not run, so it writes nothing.", o.g->desc.name);
	if (!err)
		err = run(&o, (unsigned int)seconds, f);
	if (!err)
		*out = report(&o, (unsigned int)seconds);
	if (err == -ECANCELED) {
		failure_clear(f);
		failure_set(f, err, "cancelled", NULL, "The measurement was stopped.");
	}
	guest_free(o.g);
	json_decref(o.samples);
	fd_close(&o.stop_fd);
	return err;
}

void session_observer_recover(struct session *s, const json_t *content)
{
	const json_t *residue = json_object_get(content, "residue");

	if (residue)
		guest_disarm_residue(residue);
	else
		arming_undo(json_object_get(content, "arming"));
	session_finish(s, SESSION_FAILED, NULL, NULL, NULL);
}
