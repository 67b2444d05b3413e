// SPDX-License-Identifier: MIT
/*
 * dirty-rate: how fast a VM writes its memory, and how much of it.
 *
 * An observing data plane scans once a second over the period; nothing is sent. The rate counts a
 * page once a second however often it was written, as a round of a migration of that length would
 * see it; the working set counts it once over the whole period. The tracker is disarmed afterwards,
 * whatever happens: nothing remains in the VM. When whoever asked has gone (a Ctrl-C), it stops.
 *
 * A forecast needs more: how many different pages are written in each of several times. For it the
 * scans come closer together and the data plane adds them up by doublings (dataplane/observer.c).
 * Each makes the guest's hot pages fault once more, so they are not closer than FINE_MS, and take
 * at most a tenth of the time.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/guest/guest.h"
#include "control/session/arming.h"
#include "control/session/dataplane_process.h"
#include "control/session/dirty_rate.h"
#include "control/session/guest_memory.h"
#include "control/session/observe.h"
#include "control/session/options.h"
#include "dataplane/region.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define SECONDS_MAX 3600
#define SAMPLE_MS   1000
#define ANSWER_MS   30000u
#define FINE_MS	    50u
#define FINE_SHARE  10 /* a scan takes at most this part of the time between two */
#define FINE_FACTOR 4  /* of dirty pages between two scans, to tell what each costs */
#define GIB	    1073741824.0

struct observation {
	struct session *s; /* the claim on the VM */
	int stop_fd;	   /* readable: cancelled, transhipd ends, or nobody waits any more */
	struct guest *g;
	struct dataplane dp;
	json_t *samples;
	uint64_t pages, working_set, ns;
	struct dirty_measure *fine; /* NULL: as dirty-rate */
	unsigned int fine_ms;
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

static int sleep_until(struct observation *o, uint64_t deadline_ns, struct failure *f)
{
	struct dataplane_wait w = { .cancel_fd = o->stop_fd,
				    .guest_fd = o->g->pidfd,
				    .deadline_ns = deadline_ns };
	struct ipc_message none;
	struct failure slept = { 0 };
	/* Nothing is due: what ends this wait early is a failure. */
	int err = dataplane_expect(&o->dp, IPC_SCANNED, &none, &w, &slept);

	if (err == -ETIMEDOUT)
		return 0;
	*f = slept;
	return err ? err : -EPROTO;
}

static int observe(struct observation *o, unsigned int seconds, struct failure *f)
{
	struct ipc_scanned scanned;
	int err = scan(o, IPC_SCAN_FIRST, &scanned, f);

	for (unsigned int i = 0; !err && i < seconds; i++) {
		err = sleep_until(o, clock_ns() + SAMPLE_MS * NSEC_PER_MSEC, f);
		if (!err)
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

/* --- for a forecast -------------------------------------------------------------------------- */

/* Sums of the periods that were complete, a level each: level k has 2^k scans. */
struct periods {
	double pages[IPC_PERIODS_MAX];
	uint64_t count[IPC_PERIODS_MAX];
	uint64_t scans, ns;
	/* The scans that found least and most. */
	struct ipc_scanned least, most;
};

static void add_scan(struct periods *p, const struct ipc_scanned *s)
{
	p->scans++;
	p->ns += s->since_ns;
	for (int k = 0; k < IPC_PERIODS_MAX && p->scans % (1ull << k) == 0; k++) {
		p->pages[k] += (double)s->period_pages[k];
		p->count[k]++;
	}
	if (p->scans == 1 || s->dirty_pages < p->least.dirty_pages)
		p->least = *s;
	if (p->scans == 1 || s->dirty_pages > p->most.dirty_pages)
		p->most = *s;
}

static double gib_of(uint64_t pages)
{
	return (double)pages * PAGE_BYTES / GIB;
}

/* What the scans cost, of RAM and of what they found; as it is taken to be if they do not tell. */
static void weigh(const struct periods *p, double ram_gib, struct dirty_measure *out)
{
	double found = gib_of(p->most.dirty_pages) - gib_of(p->least.dirty_pages);
	double longer = (double)p->most.scan_ns - (double)p->least.scan_ns;

	if (p->most.dirty_pages > FINE_FACTOR * p->least.dirty_pages && longer > 0)
		out->protect_ns_per_gib = longer / found;
	else
		out->protect_ns_per_gib = 12e6; /* docs/very-large-vms.md */
	out->scan_ns_per_gib = (double)p->least.scan_ns / ram_gib;
}

static void conclude(const struct periods *p, struct dirty_measure *out)
{
	double period = p->scans ? (double)p->ns / (double)p->scans : 0;
	uint64_t second;

	for (int k = 0; k < IPC_PERIODS_MAX && p->count[k]; k++)
		curve_add(&out->curve, (uint64_t)(period * (double)(1ull << k)),
			  (uint64_t)(p->pages[k] / (double)p->count[k] * PAGE_BYTES));
	curve_add(&out->curve, p->ns, out->working_set);
	second = p->ns < NSEC_PER_SEC ? p->ns : NSEC_PER_SEC;
	out->rate = second ? curve_bytes(&out->curve, (double)second) * 1e9 / (double)second : 0;
}

_Static_assert(SIMULATOR_PLACES == IPC_PLACES, "a place is a place");

static void place(const struct ipc_scanned *s, struct dirty_measure *out)
{
	uint64_t all = 0;

	for (int i = 0; i < IPC_PLACES; i++)
		all += s->written_places[i];
	for (int i = 0; i < IPC_PLACES && all; i++)
		out->places[i] = (double)s->written_places[i] / (double)all;
}

static int observe_finely(struct observation *o, struct failure *f)
{
	uint64_t end = clock_ns() + o->fine_ms * NSEC_PER_MSEC, every, next;
	double ram_gib = (double)o->g->desc.ram_bytes / GIB;
	struct dirty_measure *out = o->fine;
	struct periods p = { 0 };
	struct ipc_scanned s;
	int err = scan(o, IPC_SCAN_FIRST | IPC_SCAN_PERIODS, &s, f);

	if (err)
		return err;
	out->populated = s.populated_pages * PAGE_BYTES;
	out->zero_share =
		s.sampled_pages ? (double)s.sampled_zero_pages / (double)s.sampled_pages : 0;
	out->arm_ns_per_gib = s.populated_pages ? (double)s.scan_ns / gib_of(s.populated_pages) : 0;
	every = FINE_MS * NSEC_PER_MSEC;
	for (next = clock_ns() + every; !err && next < end; next += every) {
		err = sleep_until(o, next, f);
		if (!err)
			err = scan(o, IPC_SCAN_PERIODS, &s, f);
		if (err)
			return err;
		add_scan(&p, &s);
		out->working_set = s.union_pages * PAGE_BYTES;
		if (p.scans == 1 && s.scan_ns * FINE_SHARE > every)
			every = s.scan_ns * FINE_SHARE;
	}
	if (!p.scans)
		return failure_set(f, -ETIMEDOUT, "tracker-unavailable", "Look for longer.",
				   "The VM could not be looked at twice in that time.");
	place(&s, out);
	weigh(&p, ram_gib, out);
	conclude(&p, out);
	return 0;
}

/* --- a measurement --------------------------------------------------------------------------- */

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
		err = o->fine ? observe_finely(o, f) : observe(o, seconds, f);
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

static int must_run(const struct guest *g, struct failure *f)
{
	return g->desc.running
		       ? 0
		       : failure_set(f, -EINVAL, "vm-not-running", "Start it.",
				     "The VM %s does not run, so it writes nothing.", g->desc.name);
}

int dirty_measure(struct session *s, struct guest *g, int stop_fd, unsigned int ms,
		  struct dirty_measure *out, struct failure *f)
{
	struct observation o = {
		.s = s, .stop_fd = stop_fd, .g = g, .dp = DATAPLANE_NONE, .fine = out, .fine_ms = ms
	};

	int err = must_run(g, f);

	memset(out, 0, sizeof(*out));
	return err ? err : run(&o, 0, f);
}

static int rate(struct session *s, struct guest *g, int stop_fd, json_t **out, struct failure *f)
{
	json_int_t seconds = json_integer_value(json_object_get(s->request, "seconds"));
	struct observation o = {
		.s = s, .stop_fd = stop_fd, .g = g, .dp = DATAPLANE_NONE, .samples = json_array()
	};
	int err = must_run(g, f);

	if (!err)
		err = run(&o, (unsigned int)seconds, f);
	if (!err)
		*out = report(&o, (unsigned int)seconds);
	json_decref(o.samples);
	return err;
}

int host_dirty_rate(struct host *h, const json_t *in, int client_fd, json_t **out,
		    struct failure *f)
{
	static const char *const members[] = { "vm", "seconds", NULL };
	json_int_t seconds = json_integer_value(json_object_get(in, "seconds"));

	if (!json_is_string(json_object_get(in, "vm")) || seconds < 1 || seconds > SECONDS_MAX)
		return failure_set(f, -EINVAL, "usage", NULL,
				   "A dirty-rate measurement needs a vm and 1 to %d seconds.",
				   SECONDS_MAX);
	if (request_check(in, members, f))
		return -EINVAL;
	return host_observe(h, in, client_fd, rate, out, f);
}
