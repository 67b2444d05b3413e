// SPDX-License-Identifier: MIT
/*
 * A source's beginning: what was asked for, the guest it is about, and what both hosts say of it.
 *
 * The offer carries the guest's description, the options and the session's secret; its answer the
 * other side's checks, where the streams are to go and which encodings they may use. Errors of the
 * options and of either side's checks are refusals (docs/tranship.1, EXIT STATUS).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "control/admission/preflight.h"
#include "control/session/host_internal.h"
#include "control/session/session_source.h"
#include "control/session/source_peer.h"
#include "control/session/source_settle.h"
#include "lib/base/cleanup.h"
#include "lib/base/text.h"

#define PROTOCOL_VERSION 1
#define OFFER_MS	 60000u /* launches a VM; and OFFER_MS_PER_GIB */
#define OFFER_MS_PER_GIB 1500u	/* preallocated RAM is touched first: 1 s per GiB, and a margin */
/* One a processor: 2 and 4 moved alike on two, 1 took 1.3 times as long. */
#define STREAMS_DEFAULT_MAX 4

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

/* 0 forgoes them, which to the data plane is what is too little for any. */
static void take_page_hashes(struct source *c)
{
	c->o.page_hashes = session_option_number(c->s, "page_hashes", UINT64_MAX);
	if (c->o.page_hashes == UINT64_MAX)
		c->o.page_hashes = 0;
	else if (!c->o.page_hashes)
		c->o.page_hashes = 1;
}

uint32_t source_streams_default(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < 1 ? 1 : cpus < STREAMS_DEFAULT_MAX ? (uint32_t)cpus : STREAMS_DEFAULT_MAX;
}

/* Types and ranges were checked when it was asked for (options.h); what the words mean is here. */
int source_take_options(struct source *c)
{
	const struct session *s = c->s;
	const char *transport = session_option_text(s, "transport", "auto");
	const char *disks = session_option_text(s, "disks", "none");
	struct source_options *o = &c->o;
	int err;

	o->encrypt = session_option_text(s, "encrypt", "on");
	o->compress = session_option_text(s, "compress", "auto");
	goals_init(&o->goals);
	err = goals_take(&o->goals, json_object_get(s->request, "options"), &c->f);
	if (err)
		return err;
	source_take_wishes(c);
	o->streams = (uint32_t)session_option_number(s, "streams", 0);
	o->cold = session_option_bool(s, "cold");
	o->dry_run = session_option_bool(s, "dry_run");
	o->keep_src = session_option_bool(s, "keep_src");
	o->no_start = session_option_bool(s, "no_start");
	o->verify = session_option_bool(s, "verify");
	if (!o->streams)
		o->streams = source_streams_default();
	if (strcmp(transport, "auto") && strcmp(transport, "tcp"))
		return unsupported(c, "--transport", transport, "Use --transport tcp.");
	if (strcmp(disks, "none"))
		return unsupported(c, "--disks", disks, "Put the disks on storage both hosts see.");
	if (session_option_text(s, "location", NULL))
		return unsupported(c, "--location", "PATH", "Leave it out.");
	if (strcmp(o->encrypt, "off"))
		return failure_set(
			&c->f, -EOPNOTSUPP, "encryption-unavailable",
			"On a trusted network give --encrypt off, and start both daemons "
			"with --allow-plaintext.",
			"Encrypted data streams are not available in this version.");
	if (!session_config(s)->allow_plaintext)
		return failure_set(&c->f, -EPERM, "plaintext-refused",
				   "Start transhipd with --allow-plaintext on both hosts.",
				   "This host's transhipd does not allow unencrypted streams.");
	if (compression_parse(&o->compression, o->compress, &c->f))
		return -EINVAL;
	take_page_hashes(c);
	return parse_tx(c, session_option_text(s, "tx", "auto"));
}

int source_find_guest(struct source *c)
{
	const char *vm = json_string_value(json_object_get(c->s->request, "vm"));
	int err = source_take_options(c);

	if (!err)
		err = session_claim_words(c->s, vm, &c->f);
	if (!err)
		err = guest_open(&c->g, vm, &c->f);
	if (!err)
		err = session_claim_vm(c->s, c->g, &c->f);
	if (err)
		return err;
	c->pid = c->g->pid;
	c->start_time = c->g->start_time;
	c->ram_files = source_ram_files(&c->g->desc);
	c->was_running = c->ran = c->g->desc.running;
	c->track_dma = c->g->desc.needs_dma_barrier;
	c->o.compression.delta_cache = session_option_number(
		c->s, "delta_cache", compression_default_cache(c->g->desc.ram_bytes));
	SCOPED_LOCK(&c->s->lock);
	c->s->progress.pending_known = true;
	c->s->progress.total_bytes = c->g->desc.ram_bytes;
	c->s->progress.pending_bytes = c->g->desc.ram_bytes;
	return 0;
}

static json_t *make_offer(struct source *c)
{
	char secret[2 * IPC_SECRET_SIZE + 1];
	json_t *options = json_object_get(c->s->request, "options");

	text_hex(secret, c->secret, sizeof(c->secret));
	return json_pack("{s:i, s:s, s:s, s:s, s:i, s:o, s:o?, s:o*, s:b, s:b}", "version",
			 PROTOCOL_VERSION, "id", c->s->id, "secret", secret, "vm", c->s->vm,
			 "streams", (int)c->o.streams, "guest",
			 guest_description_to_json(&c->g->desc), "options",
			 options ? json_deep_copy(options) : NULL, "encodings",
			 compression_offer(&c->o.compression), "dry_run", c->o.dry_run,
			 "was_running", c->was_running);
}

/* What would be refused is; an older peer says nothing of it. */
static int take_dry_answer(struct source *c, const json_t *answer)
{
	const json_t *encodings = json_object_get(answer, "encodings");
	bool said = json_object_get(answer, "postcopy");

	if (said && source_postcopy_allow(c, answer))
		return -EOPNOTSUPP;
	return encodings ? compression_settle(&c->o.compression, encodings, &c->f) : 0;
}

/* All of them; an older peer names one only. */
static int take_answer(struct source *c, const json_t *answer)
{
	const json_t *data = json_object_get(answer, "data");
	const char *address = json_string_value(json_object_get(data, "address"));
	json_int_t port = json_integer_value(json_object_get(data, "port"));

	if (json_integer_value(json_object_get(answer, "version")) != PROTOCOL_VERSION)
		return failure_set(&c->f, -EPROTO, "peer-version",
				   "Use the same version of tranship on both hosts.",
				   "The destination speaks another version of the protocol.");
	if (c->o.dry_run)
		return take_dry_answer(c, answer);
	if (!data)
		return 0;
	if (!address || port < 1 || port > 65535)
		return failure_set(&c->f, -EPROTO, "peer-failed", NULL,
				   "The destination's answer names no data address.");
	if (data_addresses_from_answer(&c->to, data))
		return failure_set(&c->f, -EPROTO, "peer-failed", NULL,
				   "The destination's data addresses are malformed.");
	if (source_postcopy_allow(c, answer))
		return -EOPNOTSUPP;
	return compression_settle(&c->o.compression, json_object_get(data, "encodings"), &c->f);
}

/* Its checks are added to ours. */
static int offer(struct source *c, json_t *checks)
{
	unsigned int limit_ms =
		OFFER_MS + (unsigned int)(c->g->desc.ram_bytes >> 30) * OFFER_MS_PER_GIB;
	json_t *words = make_offer(c), *answer = NULL;
	int err;

	if (!words)
		return failure_set(&c->f, -EINVAL, "internal", NULL,
				   "The VM's description cannot be put into words.");
	client_set_interrupt(c->peer, c->s->wake_fd);
	err = client_call(c->peer, "POST", "/v1/peer/sessions", words, &answer,
			  source_patience(c, limit_ms), "peer-unreachable", &c->f);
	err = source_waited(c, err, "the destination's transhipd made ready for the VM");
	/* It may be at it, and would wait for streams. */
	c->negotiated = !c->o.dry_run && client_was_sent(c->peer);
	if (!err) {
		json_array_extend(checks, json_object_get(answer, "checks"));
		err = take_answer(c, answer);
	}
	json_decref(words);
	json_decref(answer);
	return err;
}

int source_check_and_offer(struct source *c)
{
	const char *dest = json_string_value(json_object_get(c->s->request, "dest"));
	const char *skip = session_option_text(c->s, "skip_check", "");
	json_t *checks = json_array();
	int err = c->g->ops->check(c->g, checks, &c->f);

	if (!err)
		host_explain_moved(c->s->host, c->g, checks);
	if (!err)
		err = checks_skip(checks, skip, &c->f);
	if (!err)
		err = client_new(&c->peer, dest, &c->f);
	if (!err && getrandom(c->secret, sizeof(c->secret), 0) != sizeof(c->secret))
		err = failure_set(&c->f, -EIO, "internal", NULL, "no random numbers");
	/* A refusal here is told without troubling the peer, but a dry run wants all of it. */
	if (!err && !c->o.dry_run)
		err = checks_verdict(checks, &c->f);
	if (!err)
		err = offer(c, checks);
	if (!err)
		err = checks_verdict(checks, &c->f);
	{
		SCOPED_LOCK(&c->s->lock);
		json_array_extend(c->s->checks, checks);
	}
	json_decref(checks);
	return err;
}
