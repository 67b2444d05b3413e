// SPDX-License-Identifier: MIT
/*
 * Post-copy at the destination; see destination_postcopy.h and dataplane/postcopy/postcopy.h.
 *
 * Theory of operation
 *   Before its pause the source asks for connections (POST .../postcopy). The VMM that waits gets a
 *   userfaultfd, a file for the set of missing pages is made, and a second data plane listens. At
 *   load the set has come (HANDED_OVER of the first data plane), the second is told to serve, and
 *   only then the VMM loads: its loader reads RAM. From there on nothing here waits for the VMM
 *   while nobody serves its faults, for its main loop may be waiting for one.
 *
 *   When the serving data plane ends before all is there, the guest waits. The source notices too,
 *   and asks for connections again: another data plane is started with the same file and the same
 *   userfaultfd. Before PREPARED there is no such patience: the session fails and the source runs
 *   its guest on.
 *
 *   What a restarted transhipd needs is in the journal: the file, where RAM is mapped, the number
 *   of the userfaultfd in the VMM. RAM is opened through /proc/PID/map_files, because the VMM's
 *   monitor may not answer before its faults are served.
 */
#include "control/session/destination_postcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/session/arming.h"
#include "control/session/compression.h"
#include "control/session/data_addresses.h"
#include "control/session/host_internal.h"
#include "control/session/postcopy_figures.h"
#include "control/session/session_destination.h"
#include "control/session/vm_process.h"
#include "dataplane/postcopy/postcopy.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"

#define READY_MS   10000u
#define CONNECT_MS 8000u
#define SERVING_MS 15000u
#define REACH_MS   300 /* between attempts to speak to a VM that was found in the journal */

void destination_postcopy_init(struct destination *d)
{
	d->post = (struct destination_postcopy){
		.dp = DATAPLANE_NONE, .uffd = -1, .missing_fd = -1, .pidfd = -1
	};
}

static const json_t *regions_of(const struct destination_postcopy *p)
{
	return json_object_get(p->plan, "regions");
}

static uint64_t member(const json_t *j, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(j, name));
}

void destination_postcopy_close_ram(struct destination_postcopy *p)
{
	size_t n = json_array_size(regions_of(p));

	for (size_t i = 0; p->ram && i < n; i++)
		fd_close(&p->ram[i]);
	free(p->ram);
	p->ram = NULL;
}

void destination_postcopy_release(struct destination *d)
{
	struct destination_postcopy *p = &d->post;

	dataplane_stop(&p->dp);
	destination_postcopy_close_ram(p);
	fd_close(&p->uffd);
	fd_close(&p->missing_fd);
	fd_close(&p->pidfd);
	json_decref(p->plan);
	json_decref(p->residue);
	p->plan = p->residue = NULL;
}

/* --- the VM and the file ---------------------------------------------------------------------- */

/* One of the VM's regions, in the source's order, as the plan has it. */
static json_t *region_json(const struct guest_region *r)
{
	json_t *mappings = json_array();

	for (uint32_t k = 0; k < r->nmappings; k++)
		json_array_append_new(mappings,
				      json_pack("[I, I, I]", (json_int_t)r->mappings[k].start,
						(json_int_t)r->mappings[k].end,
						(json_int_t)r->mappings[k].offset));
	return json_pack("{s:I, s:I, s:I, s:b, s:o}", "size", (json_int_t)r->size, "file_offset",
			 (json_int_t)r->file_offset, "page_size", (json_int_t)r->page_size,
			 "hugetlb", r->hugetlb, "mappings", mappings);
}

static int make_plan(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	struct guest_description source = { 0 };
	json_t *regions = json_array();
	char path[PATH_MAX];
	int err = guest_description_from_json(&source, json_object_get(d->s->request, "guest"),
					      &d->f);

	p->ram = err ? NULL : calloc(source.nregions + 1ul, sizeof(*p->ram));
	for (uint32_t i = 0; p->ram && i < source.nregions; i++)
		p->ram[i] = -1;
	for (uint32_t i = 0; !err && i < source.nregions; i++) {
		int at = destination_region_of(&d->g->desc, &source.regions[i]);

		json_array_append_new(regions, region_json(&d->g->desc.regions[at]));
		err = d->g->ops->open_ram(d->g, (uint32_t)at, true, &p->ram[i], &d->f);
	}
	guest_description_release(&source);
	snprintf(path, sizeof(path), "%.4000s/postcopy/%.32s", session_config(d->s)->state_dir,
		 d->s->id);
	p->plan = json_pack("{s:s, s:o}", "file", path, "regions", regions);
	return err;
}

/* Bytes of the file for what is missing. */
static uint64_t file_bytes(const struct destination_postcopy *p)
{
	size_t n = json_array_size(regions_of(p));
	AUTO_FREE struct region *regions = calloc(n + 1, sizeof(*regions));

	for (size_t i = 0; regions && i < n; i++)
		regions[i].size = member(json_array_get(regions_of(p), i), "size");
	return regions ? postcopy_file_bytes(regions, (uint32_t)n) : 0;
}

/* All of it is allocated here: a data plane that writes into a hole of a full disk dies of it. */
static int make_file(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	const char *path = json_string_value(json_object_get(p->plan, "file"));
	char dir[PATH_MAX];
	int err;

	snprintf(dir, sizeof(dir), "%.4000s/postcopy", session_config(d->s)->state_dir);
	if (mkdir(dir, 0700) && errno != EEXIST)
		return failure_set(&d->f, -errno, "internal", NULL, "%s: %m", dir);
	p->missing_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	err = p->missing_fd < 0 ? errno : posix_fallocate(p->missing_fd, 0, (off_t)file_bytes(p));
	if (err == ENOSPC || err == EDQUOT)
		return failure_set(&d->f, -err, "state-dir-full",
				   "Make room in the destination's state directory: post-copy "
				   "needs 32 MiB there for a TiB of RAM.",
				   "The destination has no room for the %llu bytes of %s: %s.",
				   (unsigned long long)file_bytes(p), path, strerror(err));
	return err ? failure_set(&d->f, -err, "internal", NULL, "%s: %s", path, strerror(err)) : 0;
}

static int note(struct destination *d, const char *name, json_t *value)
{
	json_t *fields = json_pack("{s:O}", name, value);
	int err = session_enter(d->s, d->s->state, fields, &d->f);

	json_decref(fields);
	return err;
}

/* From here on whatever the VMM touches waits for somebody. */
static int watch(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	json_t *before = arming_note(d->g);
	int err = before ? note(d, "arming", before) : 0;

	json_decref(before);
	if (!err)
		err = make_plan(d);
	if (!err)
		err = note(d, "postcopy", p->plan);
	if (!err)
		err = make_file(d);
	if (!err)
		err = d->g->ops->postcopy(d->g, &p->uffd, &p->residue, &d->f);
	p->on |= !err;
	if (!err) {
		SCOPED_LOCK(&d->s->lock);
		d->s->postcopy = true;
	}
	if (!err && p->residue)
		err = note(d, "residue", p->residue);
	if (!err)
		err = dataplane_send(&d->dp, IPC_MISSING, NULL, p->missing_fd, &d->f);
	return err;
}

/* --- the data plane --------------------------------------------------------------------------- */

static int send_region(struct destination *d, uint32_t i, const json_t *r)
{
	struct ipc_region m = { .index = i,
				.page_size = (uint32_t)member(r, "page_size"),
				.size = member(r, "size"),
				.file_offset = member(r, "file_offset"),
				.hugetlb = json_is_true(json_object_get(r, "hugetlb")) };
	int err = dataplane_send(&d->post.dp, IPC_REGION, &m, d->post.ram[i], &d->f);
	const json_t *mapping;
	size_t k;

	json_array_foreach (json_object_get(r, "mappings"), k, mapping) {
		struct ipc_mapping at = {
			.region = i,
			.start = (uint64_t)json_integer_value(json_array_get(mapping, 0)),
			.end = (uint64_t)json_integer_value(json_array_get(mapping, 1)),
			.region_offset = (uint64_t)json_integer_value(json_array_get(mapping, 2)),
		};

		if (!err)
			err = dataplane_send(&d->post.dp, IPC_MAPPING, &at, -1, &d->f);
	}
	return err;
}

/* What may come beside plain pages: there are no versions of them any more. */
static uint32_t encodings_of(const struct destination *d)
{
	return compression_accept(json_object_get(d->s->request, "encodings")) & IPC_ENCODING_ZSTD;
}

static int set_up(struct destination *d, const int *listeners, uint32_t nlisteners)
{
	const struct config *c = session_config(d->s);
	json_int_t streams = json_integer_value(json_object_get(d->s->request, "streams"));
	struct ipc_config m = { .role = IPC_ROLE_POSTCOPY_DESTINATION,
				.regions = (uint32_t)json_array_size(regions_of(&d->post)),
				.encodings = encodings_of(d),
				.state_max = 4096,
				.connect_ms = CONNECT_MS,
				.log_level = c->verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO };
	const json_t *r;
	size_t i;
	int err;

	m.streams = postcopy_streams((uint32_t)streams);
	memcpy(m.id, d->s->raw_id, sizeof(m.id));
	{
		SCOPED_LOCK(&d->s->lock);
		memcpy(m.secret, d->s->postcopy_secret, sizeof(m.secret));
	}
	err = dataplane_send(&d->post.dp, IPC_CONFIG, &m, -1, &d->f);
	explicit_bzero(m.secret, sizeof(m.secret));
	json_array_foreach (regions_of(&d->post), i, r)
		if (!err)
			err = send_region(d, (uint32_t)i, r);
	if (!err)
		err = dataplane_send(&d->post.dp, IPC_UFFD, NULL, d->post.uffd, &d->f);
	if (!err)
		err = dataplane_send(&d->post.dp, IPC_MISSING, NULL, d->post.missing_fd, &d->f);
	for (uint32_t k = 0; !err && k < nlisteners; k++)
		err = dataplane_send(&d->post.dp, IPC_LISTEN, NULL, listeners[k], &d->f);
	return err ? err : dataplane_send(&d->post.dp, IPC_START, NULL, -1, &d->f);
}

static void set_serving(struct destination *d, bool serving)
{
	d->post.serving = serving;
	SCOPED_LOCK(&d->s->lock);
	d->s->postcopy_served = serving;
}

static int start(struct destination *d, struct data_addresses *at)
{
	const struct config *c = session_config(d->s);
	struct destination_postcopy *p = &d->post;
	struct dataplane_wait w = { .cancel_fd = -1,
				    .guest_fd = -1,
				    .deadline_ns = clock_ns() + READY_MS * NSEC_PER_MSEC,
				    .late = "The post-copy data plane did not get ready in time." };
	struct ipc_message answer;
	int listeners[IPC_LISTENERS_MAX], err;

	dataplane_stop(&p->dp);
	p->ended_cpu_ns += p->cpu_ns;
	p->cpu_ns = 0;
	p->connected = false;
	set_serving(d, false);
	/* a guest that waits for its pages is served by what there is */
	err = data_addresses_listen(c, false, at, listeners, &d->f);
	if (!err)
		err = dataplane_start(&p->dp, c, &d->f);
	if (!err)
		err = set_up(d, listeners, at->count);
	for (uint32_t i = 0; i < IPC_LISTENERS_MAX; i++)
		fd_close(&listeners[i]);
	return err ? err : dataplane_expect(&p->dp, IPC_READY, &answer, &w, &d->f);
}

int destination_postcopy_open(struct destination *d, json_t **answer)
{
	struct data_addresses at;
	int err = d->post.on ? 0 : watch(d);

	/* after a crash, if it could not be had then */
	if (!err && d->post.uffd < 0)
		err = destination_postcopy_take_over(d);
	if (!err)
		err = fault_at("destination.postcopy");
	if (!err)
		err = start(d, &at);
	if (err)
		return err;
	*answer = json_pack("{s:s, s:i, s:o, s:o}", "address", at.address[0], "port",
			    (int)at.port[0], "addresses", data_addresses_json(&at), "encodings",
			    compression_names(encodings_of(d)));
	return 0;
}

/* --- serving ---------------------------------------------------------------------------------- */

/* From PREPARED on only the source, or a person, may end it. */
static bool patient(const struct destination *d)
{
	return d->s->state >= SESSION_PREPARED;
}

static int serve(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	int err = dataplane_send(&p->dp, IPC_SERVE, NULL, -1, &d->f);

	set_serving(d, !err);
	if (!err && p->lost)
		session_event(d->s, "post-copy goes on");
	p->lost &= err != 0;
	return err;
}

static void note_figures(struct destination *d, const struct ipc_postcopy *figures)
{
	d->post.figures = *figures;
	session_note_postcopy(d->s, figures, true);
}

static void note_complete(struct destination *d, const struct ipc_postcopy *figures)
{
	struct destination_postcopy *p = &d->post;
	struct failure ignored = { 0 };
	json_t *fields;

	note_figures(d, figures);
	p->complete = true;
	p->complete_ms = p->begun_ns ? clock_ms_since(p->begun_ns) : 0;
	session_event(d->s, "post-copy is complete: %llu faults, median %.3f ms, p99 %.3f ms",
		      (unsigned long long)figures->faults, (double)figures->p50_ns / 1e6,
		      (double)figures->p99_ns / 1e6);
	/* before anything is undone: who finds this undoes it */
	fields = json_pack("{s:b}", "postcopy_complete", 1);
	session_enter(d->s, d->s->state, fields, &ignored);
	json_decref(fields);
	destination_postcopy_end(d);
	SCOPED_LOCK(&d->s->lock);
	d->s->postcopy_complete = true;
}

/* The guest waits for what is missing until the source has connected again. */
static int lost(struct destination *d, const struct failure *why)
{
	struct destination_postcopy *p = &d->post;

	dataplane_stop(&p->dp);
	p->connected = false;
	set_serving(d, false);
	if (!patient(d)) {
		d->f = *why;
		return -EPIPE;
	}
	if (!p->lost)
		session_event(d->s, "post-copy stands still, the guest waits for pages: %s (%s)",
			      why->message, why->code);
	p->lost = true;
	return 0;
}

int destination_postcopy_handle(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	struct failure why = { 0 };
	struct ipc_message m;
	int fd, err = ipc_recv(p->dp.sock, &m, &fd, 0);

	fd_close(&fd);
	if (err == -ETIMEDOUT)
		return 0;
	if (err) {
		failure_set(&why, err, "dataplane-died", "See transhipd's log.",
			    "The post-copy data plane ended unexpectedly.");
		return lost(d, &why);
	}
	switch (m.head.type) {
	case IPC_CONNECTED:
		p->connected = true;
		err = p->begun && !p->serving ? serve(d) : 0;
		break;
	case IPC_POSTCOPY:
		note_figures(d, &m.body.postcopy);
		break;
	case IPC_PROGRESS:
		p->cpu_ns = m.body.stats.cpu_ns;
		if (m.body.stats.rss_bytes > p->rss_bytes)
			p->rss_bytes = m.body.stats.rss_bytes;
		break;
	case IPC_COMPLETE:
		/* before the guest runs there is nothing to end; it is said when it does */
		p->figures = m.body.postcopy;
		if (d->s->state == SESSION_RUNNING)
			note_complete(d, &m.body.postcopy);
		else
			p->early = true;
		break;
	case IPC_FAILED:
		return lost(d, &m.body.failure);
	default:
		break; /* SERVING */
	}
	if (!err)
		return 0;
	why = d->f;
	failure_clear(&d->f);
	return lost(d, &why);
}

void destination_postcopy_guest_runs(struct destination *d)
{
	struct destination_postcopy *p = &d->post;

	p->begun_ns = d->g && d->g->resumed_ns ? d->g->resumed_ns : clock_ns();
	if (p->early)
		note_complete(d, &p->figures);
}

int destination_postcopy_begin(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	struct dataplane_wait w = { .cancel_fd = d->s->wake_fd,
				    .guest_fd = d->g->pidfd,
				    .deadline_ns = clock_ns() + SERVING_MS * NSEC_PER_MSEC,
				    .late = "Post-copy did not begin in time.",
				    .skip_others = true };
	struct ipc_message m;
	int err = p->connected ? 0 : dataplane_expect(&p->dp, IPC_CONNECTED, &m, &w, &d->f);

	p->connected |= !err;
	if (!err && !p->handed_over)
		err = dataplane_expect(&d->dp, IPC_HANDED_OVER, &m, &w, &d->f);
	p->handed_over |= !err;
	p->begun = !err;
	if (!err)
		err = serve(d);
	return err ? err : dataplane_expect(&p->dp, IPC_SERVING, &m, &w, &d->f);
}

void destination_postcopy_end(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	const char *path = json_string_value(json_object_get(p->plan, "file"));

	/* nobody faults in vain between the two: unregistering wakes everybody */
	if (p->on && d->g && p->pidfd < 0)
		d->g->ops->disarm(d->g); /* it was armed through this very guest */
	else if (p->on && p->residue)
		guest_disarm_residue(p->residue);
	p->on = p->on && p->complete;
	dataplane_stop(&p->dp);
	fd_close(&p->uffd);
	fd_close(&p->missing_fd);
	destination_postcopy_close_ram(p);
	if (path)
		unlink(path);
}

void destination_postcopy_withdraw(struct destination *d)
{
	json_t *none = json_pack("{s:n, s:n, s:n}", "arming", "postcopy", "residue");
	struct failure ignored = { 0 };

	if (!d->post.plan)
		return;
	if (d->g)
		d->g->ops->disarm(d->g); /* also what was only half armed */
	destination_postcopy_end(d);
	destination_postcopy_release(d);
	destination_postcopy_init(d);
	/* who finds what was written before looks for what is not there any more, and is content */
	session_enter(d->s, d->s->state, none, &ignored);
	json_decref(none);
	SCOPED_LOCK(&d->s->lock);
	d->s->postcopy = d->s->postcopy_served = false;
}

json_t *destination_postcopy_account(const struct destination *d)
{
	const struct ipc_postcopy *g = &d->post.figures;
	json_t *j;

	if (!d->post.plan)
		return NULL;
	j = postcopy_figures_json(g);
	json_object_set_new(j, "complete_ms",
			    d->post.complete_ms > 0 ? json_real(d->post.complete_ms) : json_null());
	json_object_set_new(j, "complete", json_boolean(d->post.complete));
	return j;
}
