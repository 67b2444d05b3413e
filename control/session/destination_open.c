// SPDX-License-Identifier: MIT
/*
 * What a destination does with an offer: checks, a waiting VM, a receiving data plane, an answer.
 *
 * The offer comes from the peer and is believed only as far as it was checked: its shape here, the
 * VM's description in guest_description_from_json(), its command line in launch.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/admission/preflight.h"
#include "control/session/compression.h"
#include "control/session/guest_memory.h"
#include "control/session/host_internal.h"
#include "control/session/options.h"
#include "control/session/session_destination.h"
#include "control/session/data_addresses.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/log.h"

#define PROTOCOL_VERSION 1
#define OPEN_MS		 45000u /* checks, launching a VM, starting a data plane; and per GiB */
#define OPEN_MS_PER_GIB	 1200u	/* of preallocated RAM, which is touched first */
#define READY_MS	 10000u
/* How long the streams may take: the source connects them as soon as it has our answer. */
#define CONNECT_MS 8000u

static bool is_hex(const char *text, size_t digits)
{
	return text && strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

static int check_shape(const json_t *in, struct failure *f)
{
	json_int_t version = json_integer_value(json_object_get(in, "version"));
	json_int_t streams = json_integer_value(json_object_get(in, "streams"));
	const json_t *dry_run = json_object_get(in, "dry_run");

	if (version != PROTOCOL_VERSION)
		return failure_set(f, -EPROTO, "peer-version",
				   "Use the same version of tranship on both hosts.",
				   "This host speaks version %d of the protocol, the source %d.",
				   PROTOCOL_VERSION, (int)version);
	if (!is_hex(json_string_value(json_object_get(in, "id")), 2 * IPC_ID_SIZE) ||
	    !is_hex(json_string_value(json_object_get(in, "secret")), 2 * IPC_SECRET_SIZE) ||
	    streams < 1 || streams > IPC_STREAMS_MAX ||
	    !json_is_object(json_object_get(in, "guest")) || (dry_run && !json_is_boolean(dry_run)))
		return failure_set(f, -EINVAL, "usage", NULL, "The offer is malformed.");
	return options_check(migration_options, json_object_get(in, "options"), f);
}

static const char *incoming_of(const json_t *offer)
{
	return json_string_value(json_object_get(json_object_get(offer, "options"), "incoming"));
}

/* What is said of it is read at the source: it says of which host. */
static int open_waiting(struct guest **waiting, const char *incoming, struct failure *f)
{
	struct failure why = { 0 };
	int err = guest_open(waiting, incoming, &why);

	return err ? failure_set(f, err, why.code, why.hint, "At the destination: %s", why.message)
		   : 0;
}

/*
 * Checks an offer against this host; the waiting VM, if there is one, is opened into *waiting.
 * 0 even if a check is an error; -errno with f if it cannot be checked.
 */
static int run_checks(const struct config *c, const json_t *offer, uint64_t promised,
		      struct guest_description *source, struct guest **waiting, json_t *checks,
		      struct failure *f)
{
	const json_t *options = json_object_get(offer, "options");
	const char *skip = json_string_value(json_object_get(options, "skip_check"));
	const char *incoming = incoming_of(offer);
	struct host_facts facts;
	int err;

	if (!c->allow_plaintext)
		return failure_set(
			f, -EPERM, "plaintext-refused",
			"Start transhipd with --allow-plaintext on both hosts.",
			"The destination's transhipd does not allow unencrypted streams.");
	err = guest_description_from_json(source, json_object_get(offer, "guest"), f);
	if (!err && incoming && *incoming)
		err = open_waiting(waiting, incoming, f);
	if (err)
		return err;
	if (!*waiting && strcmp(source->kind, "qemu"))
		return failure_set(f, -EOPNOTSUPP, "launch-refused",
				   "Start it at the destination and name it with --incoming.",
				   "Only QEMU VMs can be launched at the destination.");
	host_facts_read(&facts, c);
	facts.mem_available -= promised < facts.mem_available ? promised : facts.mem_available;
	preflight_destination(checks, source, *waiting ? &(*waiting)->desc : NULL, &facts);
	if (!*waiting)
		preflight_launch(checks, source, c,
				 json_string_value(json_object_get(offer, "id")));
	return skip ? checks_skip(checks, skip, f) : 0;
}

/* --- the VM ---------------------------------------------------------------------------------- */

static int journal_vm(struct destination *d)
{
	json_t *fields = json_object();
	int err;

	if (d->g) {
		json_object_set_new(fields, "pid", json_integer(d->g->pid));
		json_object_set_new(fields, "start_time",
				    json_integer((json_int_t)d->g->start_time));
		json_object_set_new(fields, "launched", json_boolean(d->launched));
	} else {
		json_t *created = json_array(), *request = json_deep_copy(d->s->request);

		for (char **p = d->plan.created; p && *p; p++)
			json_array_append_new(created, json_string(*p));
		json_object_del(request, "secret");
		json_object_set_new(fields, "created", created);
		json_object_set_new(fields, "request", request);
	}
	err = session_enter(d->s, SESSION_NEGOTIATED, fields, &d->f);
	json_decref(fields);
	return err;
}

static int launch(struct destination *d, const struct guest_description *source)
{
	int err = launch_plan(&d->plan, source, session_config(d->s), d->s->id, &d->f);

	if (!err)
		err = journal_vm(d);
	if (!err)
		err = launch_start(&d->plan, &d->launched, &d->f);
	if (!err)
		err = fault_at("destination.launched");
	if (!err)
		err = guest_qemu_open_socket(&d->g, d->plan.qmp_path, &d->f);
	return err;
}

/* The region of the waiting VM with this id, or -1. */
int destination_region_of(const struct guest_description *desc, const struct guest_region *wanted)
{
	for (uint32_t i = 0; i < desc->nregions; i++)
		if (!strcmp(desc->regions[i].id, wanted->id) &&
		    desc->regions[i].size == wanted->size)
			return (int)i;
	return -1;
}

static int make_vm_ready(struct destination *d, const struct guest_description *source,
			 struct guest *waiting)
{
	int err = 0;

	if (waiting) {
		err = journal_vm(d);
		d->g = waiting;
	} else {
		err = launch(d, source);
	}
	if (err)
		return err;
	d->pid = d->g->pid;
	d->start_time = d->g->start_time;
	err = session_claim_vm(d->s, d->g, &d->f);
	if (!err)
		err = journal_vm(d);
	if (!err)
		err = d->g->ops->incoming(d->g, &d->f);
	for (uint32_t i = 0; !err && i < source->nregions; i++)
		if (destination_region_of(&d->g->desc, &source->regions[i]) < 0)
			err = failure_set(
				&d->f, -EINVAL, "ram-layout",
				"Give both VMs the same memory backends.",
				"The VM at the destination has no RAM region %s of %" PRIu64
				" bytes.",
				source->regions[i].id, source->regions[i].size);
	if (!err && d->g->desc.nregions != source->nregions)
		err = failure_set(&d->f, -EINVAL, "ram-layout",
				  "Give both VMs the same memory backends.",
				  "The VM at the destination has %u RAM regions, the source %u.",
				  d->g->desc.nregions, source->nregions);
	return err;
}

/* --- the data plane -------------------------------------------------------------------------- */

static int send_regions(struct destination *d, const struct guest_description *source)
{
	for (uint32_t i = 0; i < source->nregions; i++) {
		int at = destination_region_of(&d->g->desc, &source->regions[i]);
		int err = guest_memory_send_region(&d->dp, d->g, (uint32_t)at, i, true, &d->f);

		if (err)
			return err;
	}
	return 0;
}

static int start_dataplane(struct destination *d, const struct guest_description *source,
			   struct data_addresses *at)
{
	const struct config *c = session_config(d->s);
	const char *secret = json_string_value(json_object_get(d->s->request, "secret"));
	struct ipc_config m = { .role = IPC_ROLE_DESTINATION,
				.regions = source->nregions,
				.thp = c->thp,
				.encodings = compression_accept(
					json_object_get(d->s->request, "encodings")),
				.state_max = c->state_max,
				.connect_ms = CONNECT_MS,
				.log_level = c->verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO };
	struct dataplane_wait w = { .cancel_fd = d->s->wake_fd, /* given up, or the end */
				    .guest_fd = d->g->pidfd,
				    .deadline_ns = clock_ns() + READY_MS * NSEC_PER_MSEC,
				    .late = "The data plane did not get ready in time." };
	struct ipc_message answer;
	int fds[IPC_LISTENERS_MAX], err;

	m.streams = (uint32_t)json_integer_value(json_object_get(d->s->request, "streams"));
	memcpy(m.id, d->s->raw_id, sizeof(m.id));
	for (int i = 0; i < IPC_SECRET_SIZE; i++)
		sscanf(secret + 2 * i, "%2hhx", &m.secret[i]);
	err = data_addresses_listen(c, true, at, fds, &d->f);
	if (!err)
		err = dataplane_start(&d->dp, c, &d->f);
	if (!err)
		err = dataplane_send(&d->dp, IPC_CONFIG, &m, -1, &d->f);
	explicit_bzero(m.secret, sizeof(m.secret));
	if (!err)
		err = send_regions(d, source);
	for (uint32_t i = 0; !err && i < at->count; i++)
		err = dataplane_send(&d->dp, IPC_LISTEN, NULL, fds[i], &d->f);
	for (uint32_t i = 0; i < IPC_LISTENERS_MAX; i++)
		fd_close(&fds[i]);
	if (!err)
		err = dataplane_send(&d->dp, IPC_START, NULL, -1, &d->f);
	if (!err)
		err = dataplane_expect(&d->dp, IPC_READY, &answer, &w, &d->f);
	if (!err)
		snprintf(d->rx_reason, sizeof(d->rx_reason), "%s", answer.body.ready.rx_reason);
	return err;
}

static uint64_t ram_needed(const struct guest_description *source)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < source->nregions; i++)
		if (!source->regions[i].hugetlb)
			sum += source->regions[i].size;
	return sum;
}

static int open_checked(struct destination *d, const struct guest_description *source,
			struct guest *waiting, json_t *checks)
{
	struct data_addresses at;
	uint32_t accepted;
	int err = make_vm_ready(d, source, waiting);

	if (!err)
		err = start_dataplane(d, source, &at);
	if (!err)
		err = session_enter(d->s, SESSION_COPYING, NULL, &d->f);
	if (err)
		return err;
	accepted = compression_accept(json_object_get(d->s->request, "encodings"));
	SCOPED_LOCK(&d->s->lock);
	d->s->answer =
		json_pack("{s:i, s:O, s:{s:s, s:i, s:o}, s:s, s:b}", "version", PROTOCOL_VERSION,
			  "checks", checks, "data", "address", session_config(d->s)->data_address,
			  "port", (int)at.port[0], "encodings", compression_names(accepted), "rx",
			  d->rx_reason, "postcopy", !strcmp(d->g->ops->kind, "qemu"));
	json_object_set_new(json_object_get(d->s->answer, "data"), "addresses",
			    data_addresses_json(&at));
	return 0;
}

int destination_open(struct destination *d)
{
	struct guest_description source = { 0 };
	struct guest *waiting = NULL;
	json_t *checks = json_array();
	int err = session_claim_words(d->s, incoming_of(d->s->request), &d->f);

	if (!err)
		err = run_checks(session_config(d->s), d->s->request,
				 session_promised_elsewhere(d->s), &source, &waiting, checks,
				 &d->f);

	d->was_running = json_is_true(json_object_get(d->s->request, "was_running"));
	{
		SCOPED_LOCK(&d->s->lock);
		json_array_extend(d->s->checks, checks);
		d->s->progress.total_bytes = source.ram_bytes;
		d->promised = ram_needed(&source);
		d->s->promised_bytes = d->promised;
	}
	if (!err)
		err = checks_verdict(checks, &d->f);
	if (!err) {
		err = open_checked(d, &source, waiting, checks);
		waiting = d->g == waiting ? NULL : waiting;
	}
	guest_free(waiting);
	guest_description_release(&source);
	json_decref(checks);
	return err;
}

/* --- the API's side -------------------------------------------------------------------------- */

static int dry_run(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	struct guest_description source = { 0 };
	struct guest *waiting = NULL;
	json_t *checks = json_array();
	int err = host_vm_is_free(h, incoming_of(in), f);

	if (!err)
		err = run_checks(&h->config, in, 0, &source, &waiting, checks, f);
	if (!err)
		*out = json_pack(
			"{s:i, s:O, s:b, s:o}", "version", PROTOCOL_VERSION, "checks", checks,
			"postcopy", !strcmp(waiting ? waiting->ops->kind : source.kind, "qemu"),
			"encodings",
			compression_names(compression_accept(json_object_get(in, "encodings"))));
	guest_free(waiting);
	guest_description_release(&source);
	json_decref(checks);
	return err;
}

int host_peer_offer(struct host *h, const json_t *in, json_t **out, struct failure *f)
{
	const json_t *ram = json_object_get(json_object_get(in, "guest"), "ram_bytes");
	uint64_t gib = json_integer_value(ram) > 0 ? (uint64_t)json_integer_value(ram) >> 30 : 0;
	uint64_t deadline = clock_ns() + (OPEN_MS + gib * OPEN_MS_PER_GIB) * NSEC_PER_MSEC;
	struct session *s;
	int err = check_shape(in, f);

	if (err)
		return err;
	if (json_is_true(json_object_get(in, "dry_run")))
		return dry_run(h, in, out, f);
	s = host_session_open(h, SESSION_DESTINATION, json_string_value(json_object_get(in, "id")),
			      (json_t *)in, f);
	if (!s)
		return -EBUSY;
	pthread_mutex_lock(&s->lock);
	while (!s->opened && session_wait_changed(s, deadline))
		;
	if (s->answer && s->opened && !s->terminal) {
		*out = json_deep_copy(s->answer);
	} else if (s->terminal && failure_is_set(&s->failure)) {
		*f = s->failure;
		err = -EPERM;
	} else {
		/* Its data plane gives up when no stream comes, and the session with it. */
		err = failure_set(f, -ETIMEDOUT, "peer-failed", NULL,
				  "The destination did not get ready in time.");
	}
	pthread_mutex_unlock(&s->lock);
	host_session_put(s);
	return err;
}
