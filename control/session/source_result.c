// SPDX-License-Identifier: MIT
/* The account of a migration: the result object of the command-line contract. */
#include "control/session/session_source.h"

#include <string.h>

#include "lib/base/clock.h"

static json_t *ram_json(const struct source *c)
{
	const struct ipc_stats *t = &c->stats;
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

static json_t *downtime_json(const struct source_downtime *d)
{
	return json_pack("{s:f, s:f, s:f, s:f}", "pause_ms", (double)d->pause / 1e6,
			 "final_copy_ms", (double)d->final_copy / 1e6, "state_ms",
			 (double)d->state / 1e6, "resume_ms", (double)d->resume / 1e6);
}

/* How it went, which --mode auto leaves open. */
static const char *mode_of(const struct source *c)
{
	if (c->o.cold || (c->pid && !c->was_running))
		return "cold";
	if (!c->post.on)
		return "precopy";
	return !strcmp(c->o.goals.mode, "postcopy") ? "postcopy" : "hybrid";
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
		c->decisions, "ram", ram_json(c), "compress",
		c->o.compress ? c->o.compress : "auto", "encode", "level",
		(int)c->stats.encode_level, "changes", (int)c->stats.encode_changes, "cpu_ms",
		(double)c->stats.encode_cpu_ns / 1e6, "disks", "cpu_ms", "source",
		(double)c->stats.cpu_ns / 1e6, "destination", dst_cpu, "rss_bytes", "source",
		(json_int_t)c->stats.rss_bytes, "destination", dst_rss, "throttle_max_percent",
		(double)c->throttle_max, "reason", c->reason);

	json_object_set_new(j, "postcopy", source_postcopy_json(c) ?: json_null());
	json_object_set_new(j, "addresses", data_addresses_names(&c->to));
	if (c->o.dry_run)
		json_object_set_new(j, "dry_run", json_true());
	if (c->forecast)
		json_object_set(j, "forecast", c->forecast);
	if (failure_is_set(&c->f))
		json_object_set_new(j, "error",
				    json_pack("{s:s, s:s, s:s}", "code", c->f.code, "message",
					      c->f.message, "hint", c->f.hint));
	return j;
}
