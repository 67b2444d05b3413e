// SPDX-License-Identifier: MIT
/*
 * A migration seen from the source: its stages in order, and how each is undone.
 *
 * Theory of operation
 *   stages[] is the life of a session. A stage that fails, or a cancel between two stages or in a
 *   wait, ends the list, and roll_back() undoes whatever the flags in struct source say was done:
 *   first the guest runs on (it is what hurts), then everything else.
 *
 *   The commit. Until COMMITTED is durably in our journal the source owns the guest. From then on
 *   only the destination may run it, with one exception: the destination's own state, asked for
 *   after an error, is FAILED or CANCELLED, which is durable there and says that it never will. An
 *   error answer alone says nothing (it may have been slow). If it cannot be reached, or does not
 *   know the session, nothing runs by itself: UNRESOLVED, and a person decides.
 *
 *   PAUSED is journaled before the pause, not in it. PREPARED is durable at the destination only:
 *   for the source it changes nothing, since both PAUSED and PREPARED end in the guest running here.
 */
#include "control/session_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control/host_internal.h"
#include "control/preflight.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define PROTOCOL_VERSION 1
#define PEER_CALL_MS	 40000u /* longer than the destination lets a request wait */
#define OFFER_MS	 60000u /* launches a VM; and OFFER_MS_PER_GIB */
#define OFFER_MS_PER_GIB 1500u	/* preallocated RAM is touched first: 1 s per GiB, and a margin */
#define ABORT_MS	 3000u	/* best effort: it also notices that its streams are gone */
#define COMMIT_RETRY_MS	 20000u /* how long an unreachable destination is asked again */
#define STREAMS_DEFAULT_MAX 4u

/* --- the peer -------------------------------------------------------------------------------- */

static int peer_call(struct source *c, const char *verb, const json_t *in, json_t **out,
		     unsigned int timeout_ms, struct failure *f)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/peer/sessions/%s/%s", c->s->id, verb);
	return client_call(c->peer, "POST", path, in, out, timeout_ms, "peer-unreachable", f);
}

static void peer_abort(struct source *c)
{
	json_t *in = json_pack("{s:s, s:s}", "code", c->f.code, "message", c->f.message);
	struct failure ignored = { 0 };

	client_set_interrupt(c->peer, -1);
	if (peer_call(c, "abort", in, NULL, ABORT_MS, &ignored))
		log_warn("%.8s: aborting at the destination: %s", c->s->id, ignored.message);
	json_decref(in);
	c->negotiated = false;
}

/* --- stages ---------------------------------------------------------------------------------- */

static int unsupported(struct source *c, const char *option, const char *value, const char *hint)
{
	return failure_set(&c->f, -EOPNOTSUPP, "unsupported-option", hint,
			   "%s %s is not available in this version.", option, value);
}

static int parse_tx(struct source *c, const char *tx)
{
	static const char *const names[] = { "auto", "sendfile", "uring", "send" };

	for (unsigned int i = 0; i < 4; i++) {
		if (strcmp(tx, names[i]))
			continue;
		c->o.tx = (enum ipc_tx)i;
		return 0;
	}
	return failure_set(&c->f, -EINVAL, "usage", NULL,
			   "--tx takes auto, sendfile, uring or send, not %s.", tx);
}

static int take_options(struct source *c)
{
	const struct session *s = c->s;
	const char *transport = session_option_text(s, "transport", "auto");
	const char *disks = session_option_text(s, "disks", "none");
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct source_options *o = &c->o;

	o->max_downtime_ms = session_option_number(s, "max_downtime_ms", 300);
	o->timeout_ms = session_option_number(s, "timeout_ms", 0);
	o->bandwidth = session_option_number(s, "bandwidth", 0);
	o->streams = (uint32_t)session_option_number(s, "streams", 0);
	o->cold = session_option_bool(s, "cold");
	o->dry_run = session_option_bool(s, "dry_run");
	o->keep_src = session_option_bool(s, "keep_src");
	o->no_start = session_option_bool(s, "no_start");
	o->verify = session_option_bool(s, "verify");
	o->mode = session_option_text(s, "mode", "auto");
	o->encrypt = session_option_text(s, "encrypt", "on");
	o->compress = session_option_text(s, "compress", "auto");
	if (!o->streams)
		o->streams = cpus < 2 ? 1 : cpus > 2 * (long)STREAMS_DEFAULT_MAX
						    ? STREAMS_DEFAULT_MAX : (uint32_t)(cpus + 1) / 2;
	if (o->streams > IPC_STREAMS_MAX)
		return failure_set(&c->f, -EINVAL, "usage", NULL, "--streams takes 1 to %d.",
				   IPC_STREAMS_MAX);
	if (strcmp(o->mode, "auto") && strcmp(o->mode, "precopy"))
		return unsupported(c, "--mode", o->mode, "Use --mode precopy.");
	if (strcmp(transport, "auto") && strcmp(transport, "tcp"))
		return unsupported(c, "--transport", transport, "Use --transport tcp.");
	if (strcmp(o->compress, "auto") && strcmp(o->compress, "off"))
		return unsupported(c, "--compress", o->compress, "Use --compress off.");
	if (strcmp(disks, "none"))
		return unsupported(c, "--disks", disks, "Put the disks on storage both hosts see.");
	if (session_option_text(s, "location", NULL))
		return unsupported(c, "--location", "PATH", "Leave it out.");
	if (strcmp(o->encrypt, "off"))
		return failure_set(&c->f, -EOPNOTSUPP, "encryption-unavailable",
				   "On a trusted network give --encrypt off, and start both daemons "
				   "with --allow-plaintext.",
				   "Encrypted data streams are not available in this version.");
	if (!session_config(s)->allow_plaintext)
		return failure_set(&c->f, -EPERM, "plaintext-refused",
				   "Start transhipd with --allow-plaintext on both hosts.",
				   "This host's transhipd does not allow unencrypted streams.");
	return parse_tx(c, session_option_text(s, "tx", "auto"));
}

static int find_guest(struct source *c)
{
	const char *vm = json_string_value(json_object_get(c->s->request, "vm"));
	int err = take_options(c);

	if (!err)
		err = guest_open(&c->g, vm, &c->f);
	if (!err)
		err = session_claim_vm(c->s, c->g, &c->f);
	if (err)
		return err;
	c->was_running = c->g->desc.running;
	c->track_dma = c->g->desc.needs_dma_barrier;
	SCOPED_LOCK(&c->s->lock);
	c->s->progress.total_bytes = c->g->desc.ram_bytes;
	c->s->progress.pending_bytes = c->g->desc.ram_bytes;
	return 0;
}

static json_t *make_offer(struct source *c)
{
	char secret[2 * IPC_SECRET_SIZE + 1];
	json_t *options = json_object_get(c->s->request, "options");

	for (int i = 0; i < IPC_SECRET_SIZE; i++)
		snprintf(secret + 2 * i, 3, "%02x", c->secret[i]);
	return json_pack("{s:i, s:s, s:s, s:s, s:i, s:o, s:o?, s:b, s:b}", "version",
			 PROTOCOL_VERSION, "id", c->s->id, "secret", secret, "vm",
			 c->g->desc.name, "streams", (int)c->o.streams, "guest",
			 guest_description_to_json(&c->g->desc), "options",
			 options ? json_deep_copy(options) : NULL, "dry_run", c->o.dry_run,
			 "was_running", c->was_running);
}

static int take_answer(struct source *c, const json_t *answer)
{
	const json_t *data = json_object_get(answer, "data");
	const char *address = json_string_value(json_object_get(data, "address"));
	json_int_t port = json_integer_value(json_object_get(data, "port"));

	if (json_integer_value(json_object_get(answer, "version")) != PROTOCOL_VERSION)
		return failure_set(&c->f, -EPROTO, "peer-version",
				   "Use the same version of tranship on both hosts.",
				   "The destination speaks another version of the protocol.");
	if (c->o.dry_run || !data)
		return 0;
	if (!address || port < 1 || port > 65535)
		return failure_set(&c->f, -EPROTO, "peer-failed", NULL,
				   "The destination's answer names no data address.");
	snprintf(c->data_address, sizeof(c->data_address), "%s", address);
	c->data_port = (uint16_t)port;
	return 0;
}

/* The checks of both sides; the offer makes the destination reserve what the VM needs. */
static int check_and_offer(struct source *c)
{
	const char *dest = json_string_value(json_object_get(c->s->request, "dest"));
	const char *skip = session_option_text(c->s, "skip_check", "");
	json_t *checks = json_array(), *offer = NULL, *answer = NULL;
	int err = c->g->ops->check(c->g, checks, &c->f);

	if (!err)
		err = checks_skip(checks, skip, &c->f);
	if (!err)
		err = client_new(&c->peer, dest, &c->f);
	if (!err && getrandom(c->secret, sizeof(c->secret), 0) != sizeof(c->secret))
		err = failure_set(&c->f, -EIO, "internal", NULL, "no random numbers");
	/* A refusal here is told without troubling the peer, but a dry run wants all of it. */
	if (!err && !c->o.dry_run)
		err = checks_verdict(checks, &c->f);
	if (!err) {
		client_set_interrupt(c->peer, c->s->wake_fd);
		offer = make_offer(c);
		err = client_call(c->peer, "POST", "/v1/peer/sessions", offer, &answer,
				  OFFER_MS + (unsigned int)(c->g->desc.ram_bytes >> 30) *
						     OFFER_MS_PER_GIB,
				  "peer-unreachable", &c->f);
		/* It may be at it, and would wait for streams. */
		c->negotiated = !c->o.dry_run && client_was_sent(c->peer);
	}
	if (!err) {
		json_array_extend(checks, json_object_get(answer, "checks"));
		err = take_answer(c, answer);
	}
	if (!err)
		err = checks_verdict(checks, &c->f);
	{
		SCOPED_LOCK(&c->s->lock);
		json_array_extend(c->s->checks, checks);
	}
	json_decref(checks);
	json_decref(offer);
	json_decref(answer);
	return err;
}

/* What a restarted transhipd needs to know; see session_source_recover(). */
static json_t *journal_identity(struct source *c)
{
	return json_pack("{s:O, s:i, s:I, s:b}", "request", c->s->request, "pid", (int)c->g->pid,
			 "start_time", (json_int_t)c->g->start_time, "was_running", c->was_running);
}

/* From here on the guest runs on if this process dies. */
static int guard(struct source *c)
{
	if (c->guard.pid)
		return 0;
	return guard_start(&c->guard, c->g, session_config(c->s), c->s->journal.path, &c->f);
}

static int start_copying(struct source *c)
{
	json_t *fields = journal_identity(c);
	int err = session_enter(c->s, SESSION_NEGOTIATED, fields, &c->f);

	json_decref(fields);
	/* Barriers stop the guest for a moment, long before the pause. */
	if (!err && c->track_dma)
		err = guard(c);
	if (!err)
		err = source_start_dataplane(c);
	if (!err)
		err = session_enter(c->s, SESSION_COPYING, NULL, &c->f);
	c->copying_ns = clock_ns();
	return err;
}

static int copy(struct source *c)
{
	/* A guest that does not run dirties nothing: everything goes in the pause. */
	return c->armed ? source_copy_rounds(c) : 0;
}

static int pause_guest(struct source *c)
{
	int pair[2], err = session_enter(c->s, SESSION_PAUSED, NULL, &c->f);

	if (!err)
		err = guard(c);
	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return failure_set(&c->f, -errno, "internal", NULL, "socketpair failed: %m");
	err = dataplane_send(&c->dp, IPC_STATE, NULL, pair[0], &c->f);
	close(pair[0]);
	c->downtime.begin = clock_ns();
	c->paused = true;
	if (!err)
		err = c->g->ops->pause(c->g, pair[1], &c->f);
	close(pair[1]);
	/* Most of a pause the guest still runs: QEMU says when it stopped. */
	if (c->g->stopped_ns > c->downtime.begin)
		c->downtime.begin = c->g->stopped_ns;
	c->downtime.pause = clock_ns() - c->downtime.begin;
	return err;
}

static int final_copy(struct source *c)
{
	uint64_t start = clock_ns();
	int err = source_copy_final(c);

	c->downtime.final_copy = clock_ns() - start;
	return err;
}

static int device_state(struct source *c)
{
	uint64_t start = clock_ns();
	struct ipc_message answer;
	struct dataplane_wait w;
	int err = c->g->ops->save(c->g, &c->f);

	if (!err)
		err = dataplane_send(&c->dp, IPC_STATE_END, NULL, -1, &c->f);
	source_wait_init(c, &w, false);
	if (!err)
		err = dataplane_expect(&c->dp, IPC_STATE_DONE, &answer, &w, &c->f);
	if (!err)
		c->state_bytes = answer.body.count.bytes;
	/* Saving may have written RAM; what it wrote goes too. */
	if (!err && c->armed)
		err = source_copy_final(c);
	c->downtime.state = clock_ns() - start;
	return err;
}

static int verify(struct source *c)
{
	struct ipc_message answer;
	struct dataplane_wait w;
	const struct ipc_verified *v = &answer.body.verified;
	int err;

	if (!c->o.verify)
		return 0;
	err = dataplane_send(&c->dp, IPC_VERIFY, NULL, -1, &c->f);
	source_wait_init(c, &w, false);
	if (!err)
		err = dataplane_expect(&c->dp, IPC_VERIFIED, &answer, &w, &c->f);
	if (err)
		return err;
	c->verified = *v;
	if (v->mismatches)
		return failure_set(&c->f, -EIO, "verify-mismatch",
				   "Report this with both daemons' logs.",
				   "%" PRIu64 " of %" PRIu64 " chunks differ at the destination, the "
				   "first in region %u at %#" PRIx64 ".",
				   v->mismatches, v->chunks, v->first_region, v->first_offset);
	session_event(c->s, "verified %" PRIu64 " chunks", v->chunks);
	return 0;
}

static int load(struct source *c)
{
	uint64_t start = clock_ns();
	int err = peer_call(c, "load", NULL, &c->peer_account, PEER_CALL_MS, &c->f);

	c->downtime.state += clock_ns() - start;
	if (!err)
		session_set_state(c->s, SESSION_PREPARED);
	return err;
}

/* The destination's state of the session; -ENODATA if it has answered and knows none. */
static int peer_state(struct source *c, enum session_state *state)
{
	struct failure ignored = { 0 };
	json_t *answer = NULL;
	const char *name;
	char path[128];
	int err;

	snprintf(path, sizeof(path), "/v1/peer/sessions/%s", c->s->id);
	err = client_call(c->peer, "GET", path, NULL, &answer, PEER_CALL_MS, "peer-unreachable",
			  &ignored);
	if (err)
		return err == -EREMOTEIO ? -ENODATA : err;
	name = json_string_value(json_object_get(answer, "state"));
	err = name && !session_state_parse(name, state) ? 0 : -ENODATA;
	json_decref(answer);
	return err;
}

/*
 * Asks until it is known who runs the guest. 0: the destination does, *ran_ns: for how long already.
 * -EREMOTEIO: it never will. -EHOSTUNREACH: not known.
 */
static int ask_commit(struct source *c, uint64_t *ran_ns, struct failure *f)
{
	uint64_t deadline = clock_ns() + COMMIT_RETRY_MS * NSEC_PER_MSEC;
	const struct timespec nap = { .tv_nsec = 100 * 1000000 };
	json_t *answer = NULL;

	*ran_ns = 0;
	for (;;) {
		enum session_state state = SESSION_NEW;

		failure_clear(f);
		if (!peer_call(c, "commit", NULL, &answer, PEER_CALL_MS, f)) {
			*ran_ns = (uint64_t)(json_number_value(json_object_get(answer, "run_ms")) * 1e6);
			json_decref(answer);
			return 0;
		}
		if (!peer_state(c, &state)) {
			if (state == SESSION_RUNNING || state == SESSION_DONE)
				return 0;
			if (state == SESSION_FAILED || state == SESSION_CANCELLED)
				return -EREMOTEIO;
		}
		if (clock_ns() >= deadline || host_ending(c->s->host))
			return -EHOSTUNREACH;
		nanosleep(&nap, NULL);
	}
}

static int commit(struct source *c)
{
	uint64_t start = clock_ns(), ran = 0;
	struct failure why = { 0 };
	int err;

	if (session_cancelled(c->s))
		return failure_set(&c->f, -ECANCELED, "cancelled", NULL,
				   "The migration was cancelled.");
	client_set_interrupt(c->peer, -1);
	err = session_enter(c->s, SESSION_COMMITTED, NULL, &c->f);
	if (err)
		return err;
	err = ask_commit(c, &ran, &why);
	c->downtime.end = clock_ns();
	if (ran < c->downtime.end - start)
		c->downtime.end -= ran;
	c->downtime.resume = c->downtime.end - start;
	if (!err)
		return 0;
	if (err == -EREMOTEIO) {
		/* That is durable there. */
		c->f = why;
		c->negotiated = false;
		return err;
	}
	return failure_set(&c->f, -EHOSTUNREACH, "unresolved",
			   "When the destination is back this resolves itself; else look whether the "
			   "VM runs there, then `tranship resolve ID --give-up` if it does, "
			   "`--run-here` if it never will.",
			   "The destination did not answer the commit: %s", why.message);
}

/* The RAM files of a VM that has moved away, and only those. */
static void unlink_ram(const struct guest_description *d)
{
	for (uint32_t i = 0; i < d->nregions; i++) {
		const struct guest_region *r = &d->regions[i];
		struct stat st;

		if (r->backing != GUEST_BACKING_FILE || stat(r->path, &st) ||
		    (uint64_t)st.st_ino != r->inode || (uint64_t)st.st_dev != r->device)
			continue;
		if (unlink(r->path))
			log_warn("%s: %m", r->path);
	}
}

static int release_source(struct source *c)
{
	struct failure ignored = { 0 };
	json_t *answer = NULL;

	session_enter(c->s, SESSION_RUNNING, NULL, &ignored);
	guard_stop(&c->guard);
	dataplane_stop(&c->dp);
	if (c->o.keep_src) {
		c->g->ops->disarm(c->g);
	} else if (c->g->ops->quit(c->g, &ignored)) {
		log_warn("%.8s: the source's VMM did not end: %s", c->s->id, ignored.message);
	} else {
		unlink_ram(&c->g->desc);
	}
	failure_clear(&ignored);
	if (peer_call(c, "finish", NULL, &answer, PEER_CALL_MS, &ignored))
		log_warn("%.8s: finish at the destination: %s", c->s->id, ignored.message);
	if (answer) {
		json_decref(c->peer_account);
		c->peer_account = answer;
	}
	return 0;
}

static const struct stage {
	const char *name;
	int (*run)(struct source *c);
	bool refuses; /* a failure here is a refusal: nothing was begun */
} stages[] = {
	{ "find", find_guest, true },	 { "check", check_and_offer, true },
	{ "start", start_copying, false }, { "copy", copy, false },
	{ "pause", pause_guest, false },  { "final copy", final_copy, false },
	{ "device state", device_state, false }, { "verify", verify, false },
	{ "load", load, false },	  { "commit", commit, false },
	{ "release", release_source, false },
};

/* --- ends ------------------------------------------------------------------------------------ */

/* The guest runs here again, the destination is clean, nothing of ours is left in the VMM. */
static int roll_back(struct source *c)
{
	struct failure why = { 0 };
	int err = 0;

	if (c->paused)
		err = c->g->ops->resume(c->g, &why);
	if (!err)
		guard_stop(&c->guard);
	dataplane_stop(&c->dp);
	if (c->negotiated)
		peer_abort(c);
	if (c->armed)
		c->g->ops->disarm(c->g);
	if (!err)
		return 0;
	log_error("%.8s: the guest could not be run on: %s", c->s->id, why.message);
	if (!guest_alive(c->g)) {
		guard_stop(&c->guard);
		return 0; /* nothing left to decide: the failure says that the VM is gone */
	}
	failure_clear(&c->f);
	return failure_set(&c->f, err, "unresolved",
			   "Look at the VM, then `tranship resolve ID --run-here`.",
			   "The guest is stopped at the source and could not be run on: %s",
			   why.message);
}

static void end_unsuccessfully(struct source *c, const struct stage *at)
{
	bool cancelled = !strcmp(c->f.code, "cancelled");
	bool refused = at->refuses && !cancelled && strncmp(c->f.code, "peer-", 5);
	enum session_state state = cancelled ? SESSION_CANCELLED : SESSION_FAILED;
	const char *status = cancelled ? "cancelled" : refused ? "refused" : "failed";

	if (!strcmp(c->f.code, "unresolved")) {
		guard_stop(&c->guard);
		dataplane_stop(&c->dp);
		if (c->armed)
			c->g->ops->disarm(c->g);
		state = SESSION_UNRESOLVED;
		status = "unresolved";
	} else if (roll_back(c)) {
		state = SESSION_UNRESOLVED;
		status = "unresolved";
	}
	session_finish(c->s, state, source_result(c, status), &c->f);
}

static void source_init(struct source *c, struct session *s)
{
	*c = (struct source){ .s = s, .dp = DATAPLANE_NONE, .guard = GUARD_NONE,
			      .rounds = json_array() };
}

static void source_release(struct source *c)
{
	explicit_bzero(c->secret, sizeof(c->secret));
	guest_free(c->g);
	client_free(c->peer);
	json_decref(c->rounds);
	json_decref(c->peer_account);
}

void session_source_run(struct session *s)
{
	const struct stage *at = stages, *end = stages + sizeof(stages) / sizeof(stages[0]);
	struct source c;
	int err = 0;

	source_init(&c, s);
	for (; at < end; at++) {
		if (s->state < SESSION_COMMITTED && session_cancelled(s))
			err = failure_set(&c.f, -ECANCELED, "cancelled", NULL,
					  "The migration was cancelled.");
		log_debug("%.8s: %s", s->id, at->name);
		if (!err)
			err = at->run(&c);
		if (err || (c.o.dry_run && at->run == check_and_offer))
			break;
	}
	if (err && !failure_is_set(&c.f))
		failure_set(&c.f, err, "internal", NULL, "stage %s failed: %s", at->name,
			    strerror(-err));
	if (err)
		end_unsuccessfully(&c, at);
	else
		session_finish(s, SESSION_DONE, source_result(&c, "completed"), NULL);
	source_release(&c);
}

/* --- after a crash --------------------------------------------------------------------------- */

/* The VM of the journal, if it still lives. Its guard may hold the connection for a moment. */
static int reopen_guest(struct source *c, const json_t *content)
{
	json_int_t pid = json_integer_value(json_object_get(content, "pid"));
	json_int_t start = json_integer_value(json_object_get(content, "start_time"));
	uint64_t deadline = clock_ns() + 5 * NSEC_PER_SEC;
	char vm[32];
	int err;

	snprintf(vm, sizeof(vm), "pid:%d", (int)pid);
	do {
		failure_clear(&c->f);
		err = guest_open(&c->g, vm, &c->f);
	} while (err && (!strcmp(c->f.code, "qmp-busy") || !strcmp(c->f.code, "vm-busy")) &&
		 clock_ns() < deadline);
	if (!err && c->g->start_time != (uint64_t)start) {
		guest_free(c->g);
		c->g = NULL;
		err = failure_set(&c->f, -ESRCH, "vm-gone", NULL, "The VM has ended meanwhile.");
	}
	return err;
}

static void recover_rollback(struct source *c)
{
	struct failure why = { 0 };
	int err = 0;

	if (c->g && c->was_running && !c->g->desc.running)
		err = c->g->ops->resume(c->g, &why);
	if (c->peer)
		peer_abort(c);
	failure_clear(&c->f);
	if (err) {
		failure_set(&c->f, err, "unresolved",
			    "Look at the VM, then `tranship resolve ID --run-here`.",
			    "transhipd ended during the migration and the guest could not be run on: "
			    "%s", why.message);
		session_finish(c->s, SESSION_UNRESOLVED, source_result(c, "unresolved"), &c->f);
		return;
	}
	failure_set(&c->f, -EPIPE, "internal", "Start the migration again.",
		    "transhipd ended during the migration; the source runs on.");
	session_finish(c->s, SESSION_FAILED, source_result(c, "failed"), &c->f);
}

static void recover_forward(struct source *c)
{
	struct failure why = { 0 };
	int err = -EHOSTUNREACH;
	uint64_t ran;

	if (c->s->state == SESSION_RUNNING)
		err = 0;
	else if (c->peer)
		err = ask_commit(c, &ran, &why);

	if (!err) {
		if (c->g)
			release_source(c);
		session_finish(c->s, SESSION_DONE, source_result(c, "completed"), NULL);
		return;
	}
	failure_clear(&c->f);
	if (err == -EREMOTEIO && c->g && !c->g->ops->resume(c->g, &c->f)) {
		c->f = why;
		session_finish(c->s, SESSION_FAILED, source_result(c, "failed"), &c->f);
		return;
	}
	failure_clear(&c->f);
	failure_set(&c->f, -EHOSTUNREACH, "unresolved",
		    "Look whether the VM runs at the destination, then `tranship resolve ID`.",
		    "Only the destination may run the guest, and it does not answer: %s",
		    why.message);
	session_finish(c->s, SESSION_UNRESOLVED, source_result(c, "unresolved"), &c->f);
}

void session_source_recover(struct session *s, const json_t *content)
{
	const char *dest;
	struct source c;

	source_init(&c, s);
	c.o.keep_src = session_option_bool(s, "keep_src");
	dest = json_string_value(json_object_get(s->request, "dest"));
	if (dest)
		client_new(&c.peer, dest, &c.f);
	if (reopen_guest(&c, content))
		log_warn("%.8s: %s", s->id, c.f.message);
	failure_clear(&c.f);
	if (c.g)
		session_claim_vm(s, c.g, &c.f);
	failure_clear(&c.f);
	c.was_running = json_is_true(json_object_get(content, "was_running"));
	if (s->state >= SESSION_COMMITTED)
		recover_forward(&c);
	else
		recover_rollback(&c);
	guest_disarm_residue(json_object_get(content, "residue"));
	source_release(&c);
}

int session_source_resolve(struct session *s, bool run_here, struct failure *f)
{
	struct guest *g = NULL;
	uint64_t start_time = 0;
	int err, pid = 0;
	char vm[64];

	{
		SCOPED_LOCK(&s->lock);
		if (s->state != SESSION_UNRESOLVED)
			return failure_set(f, -EBUSY, "session-state", NULL,
					   "Session %.8s is %s: there is nothing to resolve.", s->id,
					   session_state_name(s->state));
		sscanf(s->vm_key, "%d/%" SCNu64, &pid, &start_time);
	}
	snprintf(vm, sizeof(vm), "pid:%d", pid);
	err = guest_open(&g, vm, f);
	if (!err && g->start_time != start_time)
		err = failure_set(f, -ESRCH, "vm-not-found", NULL, "The VM has ended meanwhile.");
	if (!err)
		err = run_here ? g->ops->resume(g, f) : g->ops->quit(g, f);
	if (!err && !run_here)
		unlink_ram(&g->desc);
	guest_free(g);
	/* A VM that is gone can only be given up. */
	if (err && !(strcmp(f->code, "vm-not-found") == 0 && !run_here))
		return err;
	failure_clear(f);
	session_finish(s, run_here ? SESSION_FAILED : SESSION_DONE, json_incref(s->result), NULL);
	return 0;
}
