// SPDX-License-Identifier: MIT
/*
 * What the journal keeps of a source's account, so that the result of a migration that outlives its
 * transhipd tells what happened, and its goals are still those that were tuned.
 *
 * Theory of operation
 *   Three parts, each written with the record of a state. "account", with PAUSED, which is written
 *   before the guest is stopped and may be long: all that there is until then. "handover", with
 *   COMMITTED, in the pause and short: what the pause has added, and the goals. "ran", with
 *   RUNNING: when the guest ran. A later transhipd takes over what it finds; what it does not find
 *   stays unknown (source_result.c).
 *
 *   Of post-copy the destination keeps the figures. What the source's data plane had sent is lost
 *   with a transhipd that is killed; one that ends orderly writes it down ("sent").
 */
#include "control/session/source_account.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "control/session/host_internal.h"
#include "lib/base/cleanup.h"
#include "lib/base/log.h"

/* --- counters -------------------------------------------------------------------------------- */

#define COUNTER(member)                                                                            \
	{                                                                                          \
#member, offsetof(struct ipc_stats, member)                                        \
	}

/* The sums; encode_changes and encode_level are narrower and go by themselves. */
static const struct {
	const char *name;
	size_t at;
} counters[] = {
	COUNTER(sent_pages),	  COUNTER(zero_bytes),	    COUNTER(hole_bytes),
	COUNTER(raw_bytes),	  COUNTER(same_bytes),	    COUNTER(deferred_bytes),
	COUNTER(zero_copy_bytes), COUNTER(zstd_in_bytes),   COUNTER(zstd_out_bytes),
	COUNTER(delta_in_bytes),  COUNTER(delta_out_bytes), COUNTER(encode_cpu_ns),
	COUNTER(wire_bytes),	  COUNTER(state_bytes),	    COUNTER(cpu_ns),
	COUNTER(rss_bytes),
};

static uint64_t number(const json_t *j, const char *member)
{
	json_int_t n = json_integer_value(json_object_get(j, member));

	return n > 0 ? (uint64_t)n : 0;
}

static json_t *stats_json(const struct ipc_stats *t)
{
	json_t *j = json_pack("{s:i, s:i}", "encode_changes", (int)t->encode_changes,
			      "encode_level", (int)t->encode_level);

	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		uint64_t n;

		memcpy(&n, (const char *)t + counters[i].at, sizeof(n));
		json_object_set_new(j, counters[i].name, json_integer((json_int_t)n));
	}
	return j;
}

static void stats_read(const json_t *j, struct ipc_stats *t)
{
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		uint64_t n = number(j, counters[i].name);

		memcpy((char *)t + counters[i].at, &n, sizeof(n));
	}
	t->encode_changes = (uint32_t)number(j, "encode_changes");
	t->encode_level = (uint32_t)number(j, "encode_level");
}

/* --- writing --------------------------------------------------------------------------------- */

json_t *source_account_before_pause(struct source *c)
{
	json_t *last = json_array_get(c->decisions, json_array_size(c->decisions) - 1);

	c->rounds_noted = json_array_size(c->rounds);
	return json_pack("{s:{s:o, s:o, s:I, s:i, s:s, s:i, s:i, s:i, s:s, s:O, s:O*}}", "account",
			 "started", journal_moment_json(c->s->started_ns), "copying",
			 journal_moment_json(c->copying_ns), "total_bytes",
			 (json_int_t)c->s->progress.total_bytes, "tx", (int)c->ready.tx,
			 "congestion", c->congestion, "streams", (int)c->o.streams, "tracker",
			 (int)c->tracker, "throttle_max", (int)c->throttle_max, "reason", c->reason,
			 "rounds", c->rounds, "decision", last);
}

json_t *source_account_committed(const struct source *c)
{
	const struct source_downtime *d = &c->downtime;
	json_t *rounds = json_array();

	for (size_t i = c->rounds_noted; i < json_array_size(c->rounds); i++)
		json_array_append(rounds, json_array_get(c->rounds, i));
	return json_pack("{s:b, s:o, s:{s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o}}", "postcopy",
			 c->post.on, "goals", goals_json(&c->o.goals), "handover", "begin",
			 journal_moment_json(d->begin), "pause_ns", (json_int_t)d->pause,
			 "final_copy_ns", (json_int_t)d->final_copy, "state_ns",
			 (json_int_t)d->state, "state_bytes", (json_int_t)c->state_bytes,
			 "verified_chunks", (json_int_t)c->verified.chunks, "rounds", rounds,
			 "stats", stats_json(&c->stats));
}

json_t *source_account_ran(const struct source *c)
{
	if (!c->downtime.end)
		return NULL;
	return json_pack("{s:{s:o, s:I}}", "ran", "end", journal_moment_json(c->downtime.end),
			 "resume_ns", (json_int_t)c->downtime.resume);
}

static void note(struct source *c, const char *member, json_t *value)
{
	json_t *fields = json_pack("{s:o}", member, value);
	struct failure why = { 0 };

	if (session_enter(c->s, c->s->state, fields, &why))
		log_warn("%.8s: %s", c->s->id, why.message);
	json_decref(fields);
}

void source_account_goals(struct source *c)
{
	if (c->committed)
		note(c, "goals", goals_json(&c->o.goals));
}

void source_account_leaving(struct source *c)
{
	struct ipc_stats sent = { 0 };

	source_postcopy_add_stats(c, &sent);
	note(c, "sent", stats_json(&sent));
}

/* --- taking over ----------------------------------------------------------------------------- */

static void restore_visible(struct source *c, const json_t *account, const json_t *goals)
{
	uint64_t started = journal_moment(account, "started");
	struct failure ignored = { 0 };
	SCOPED_LOCK(&c->s->lock);

	if (started)
		c->s->started_ns = started;
	c->s->progress.total_bytes = number(account, "total_bytes");
	c->s->progress.round = c->round;
	goals_take(&c->o.goals, goals, &ignored);
	if (c->o.goals.mode)
		c->s->goals = c->o.goals;
	snprintf(c->s->progress.reason, sizeof(c->s->progress.reason), "%s", c->reason);
}

static void restore_handover(struct source *c, const json_t *content)
{
	const json_t *h = json_object_get(content, "handover");
	const json_t *ran = json_object_get(content, "ran");

	c->downtime = (struct source_downtime){ .begin = journal_moment(h, "begin"),
						.end = journal_moment(ran, "end"),
						.pause = number(h, "pause_ns"),
						.final_copy = number(h, "final_copy_ns"),
						.state = number(h, "state_ns"),
						.resume = number(ran, "resume_ns") };
	c->state_bytes = number(h, "state_bytes");
	c->verified.chunks = number(h, "verified_chunks");
	json_array_extend(c->rounds, json_object_get(h, "rounds"));
	stats_read(json_object_get(h, "stats"), &c->stats);
	stats_read(json_object_get(content, "sent"), &c->post.ended);
}

void source_account_restore(struct source *c, const json_t *content)
{
	const json_t *account = json_object_get(content, "account");
	json_t *decision = json_object_get(account, "decision");

	/* before that nothing was moved: it is rolled back, and its rounds are nobody's */
	c->account_known = account && json_object_get(content, "handover");
	if (!c->account_known)
		return;
	c->copying_ns = journal_moment(account, "copying");
	c->ready.tx = (uint32_t)number(account, "tx");
	c->o.streams = (uint32_t)number(account, "streams");
	c->tracker = (enum ipc_tracker_kind)number(account, "tracker");
	c->throttle_max = (uint32_t)number(account, "throttle_max");
	snprintf(c->congestion, sizeof(c->congestion), "%s",
		 json_string_value(json_object_get(account, "congestion")) ?: "");
	snprintf(c->reason, sizeof(c->reason), "%s",
		 json_string_value(json_object_get(account, "reason")) ?: "");
	json_array_extend(c->rounds, json_object_get(account, "rounds"));
	if (decision)
		json_array_append(c->decisions, decision);
	restore_handover(c, content);
	c->round = (uint32_t)json_array_size(c->rounds);
	restore_visible(c, account, json_object_get(content, "goals"));
}
