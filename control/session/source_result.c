// SPDX-License-Identifier: MIT
/* The account of a migration: the result object of the command-line contract. */
#include "control/session/session_source.h"

#include <string.h>

#include "lib/base/clock.h"

/* Of pre-copy and post-copy together. */
static struct ipc_stats totals(const struct source *c)
{
	struct ipc_stats t = c->stats;

	source_postcopy_add_stats(c, &t);
	return t;
}

static json_t *ram_json(const struct source *c, const struct ipc_stats *t)
{
	json_int_t total = (json_int_t)c->s->progress.total_bytes;

	return json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"total_bytes", total, "same_bytes", (json_int_t)t->same_bytes, "deferred_bytes",
		(json_int_t)t->deferred_bytes, "zero_bytes", (json_int_t)t->zero_bytes,
		"hole_bytes", (json_int_t)t->hole_bytes, "raw_bytes", (json_int_t)t->raw_bytes,
		"zstd_in_bytes", (json_int_t)t->zstd_in_bytes, "zstd_out_bytes",
		(json_int_t)t->zstd_out_bytes, "delta_in_bytes", (json_int_t)t->delta_in_bytes,
		"delta_out_bytes", (json_int_t)t->delta_out_bytes, "wire_bytes",
		(json_int_t)t->wire_bytes, "zero_copy_bytes", (json_int_t)t->zero_copy_bytes,
		"state_bytes", (json_int_t)c->state_bytes, "verified_chunks",
		(json_int_t)c->verified.chunks);
}

/* A part of the pause that was not come to has no length. */
static json_t *part_json(uint64_t ns)
{
	return ns ? json_real((double)ns / 1e6) : json_null();
}

static json_t *downtime_json(const struct source_downtime *d)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "pause_ms", part_json(d->pause), "final_copy_ms",
			 part_json(d->final_copy), "state_ms", part_json(d->state), "resume_ms",
			 part_json(d->resume));
}

/* How it went, which --mode auto leaves open. */
static const char *mode_of(const struct source *c)
{
	if (session_option_bool(c->s, "cold") || (c->pid && !c->was_running))
		return "cold";
	if (!c->post.on)
		return "precopy";
	return !strcmp(c->o.goals.mode, "postcopy") ? "postcopy" : "hybrid";
}

static void forget_counters(json_t *ram)
{
	const char *member;
	json_t *value;

	json_object_foreach (ram, member, value)
		json_object_set_new(ram, member, json_null());
}

/*
 * What a session did not come to is null, not what it would have been. One that was recovered knows
 * what its journal tells: if that has no account, only how far it came.
 */
static void forget_unknown(const struct source *c, uint64_t end, json_t *result)
{
	const bool streams = c->copying_ns, journaled = c->s->recovered;
	const bool began = streams || (journaled && c->s->state > SESSION_NEGOTIATED);
	const struct {
		const char *member;
		bool known;
	} members[] = {
		{ "mode", began || c->post.on },
		{ "transport", streams },
		{ "tx", streams },
		{ "congestion", streams && c->congestion[0] },
		{ "encrypt", streams },
		{ "streams", streams },
		{ "tracker", streams },
		{ "setup_ms", streams },
		{ "total_ms", !journaled || (c->account_known && end) },
		{ "downtime_ms", c->downtime.begin && c->downtime.end },
		{ "reason", c->reason[0] },
	};
	static const char *const costs[] = { "cpu_ms", "rss_bytes" };

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (!members[i].known)
			json_object_set_new(result, members[i].member, json_null());
	if (journaled && !c->account_known)
		forget_counters(json_object_get(result, "ram"));
	else if (!c->s->progress.total_bytes)
		json_object_set_new(json_object_get(result, "ram"), "total_bytes", json_null());
	for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
		json_t *cost = json_object_get(result, costs[i]);

		if (!streams)
			json_object_set_new(cost, "source", json_null());
		if (!json_object_get(c->peer_account, costs[i]))
			json_object_set_new(cost, "destination", json_null());
	}
}

json_t *source_result(const struct source *c, const char *status)
{
	static const char *const tx_names[] = { "auto", "sendfile", "uring", "send" };
	static const char *const tracker_names[] = { "none", "pagemap" };
	const struct source_downtime *d = &c->downtime;
	uint64_t now = clock_ns(), start = c->s->started_ns;
	uint64_t end = c->post.on ? c->post.end_ns : d->end;
	double downtime = d->begin && d->end ? (double)(d->end - d->begin) / 1e6 : 0;
	double dst_cpu = json_number_value(json_object_get(c->peer_account, "cpu_ms"));
	struct ipc_stats total = totals(c);
	uint64_t rss =
		c->stats.rss_bytes > c->post.rss_bytes ? c->stats.rss_bytes : c->post.rss_bytes;
	json_int_t dst_rss = json_integer_value(json_object_get(c->peer_account, "rss_bytes"));
	json_t *j = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:f, s:f, s:f, s:o, s:O, "
		"s:O, s:o, s:s, s:{s:i, s:i, s:f}, s:[], s:{s:f, s:f}, s:{s:I, s:I}, s:f, s:s}",
		"id", c->s->id, "vm", c->s->vm, "status", status, "mode", mode_of(c), "transport",
		"tcp", "tx", tx_names[c->ready.tx % 4], "congestion", c->congestion, "encrypt",
		"off", "streams", (int)c->o.streams, "tracker", tracker_names[c->tracker % 2],
		"total_ms", (double)((end ? end : now) - start) / 1e6, "setup_ms",
		c->copying_ns ? (double)(c->copying_ns - start) / 1e6 : 0.0, "downtime_ms",
		downtime, "downtime", downtime_json(d), "rounds", c->rounds, "decisions",
		c->decisions, "ram", ram_json(c, &total), "compress",
		c->o.compress ? c->o.compress : "auto", "encode", "level", (int)total.encode_level,
		"changes", (int)total.encode_changes, "cpu_ms", (double)total.encode_cpu_ns / 1e6,
		"disks", "cpu_ms", "source", (double)total.cpu_ns / 1e6, "destination", dst_cpu,
		"rss_bytes", "source", (json_int_t)rss, "destination", dst_rss,
		"throttle_max_percent", (double)c->throttle_max, "reason", c->reason);

	json_object_set_new(j, "postcopy", source_postcopy_json(c) ?: json_null());
	json_object_set_new(j, "addresses", data_addresses_names(&c->to));
	forget_unknown(c, end, j);
	if (c->o.dry_run)
		json_object_set_new(j, "dry_run", json_true());
	if (c->s->recovered)
		json_object_set_new(j, "restarted", json_true());
	if (c->forecast)
		json_object_set(j, "forecast", c->forecast);
	if (failure_is_set(&c->f))
		json_object_set_new(j, "error",
				    json_pack("{s:s, s:s, s:s}", "code", c->f.code, "message",
					      c->f.message, "hint", c->f.hint));
	return j;
}
