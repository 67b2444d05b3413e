// SPDX-License-Identifier: MIT
/*
 * What an earlier transhipd left in its journals, taken up at the start; and old journals, removed.
 *
 * Theory of operation
 *   Runs before the API answers, alone with the state directory. Each session that did not come to
 *   its end is listed with its VM claimed, and its thread recovers it (session_source_recover,
 *   session_destination_recover). So is a source's session that has ended but still owes its
 *   destination the word that it is over.
 *
 *   Migrations that ended are listed with their results, the newest ENDED_LISTED of them if they
 *   are younger than KEPT_MS: who started one and went away, or restarts transhipd, finds them as
 *   before. They have no thread and are what an ended session is: a thing to look at.
 *
 *   Ended journals are kept for whoever asks: the newest JOURNALS_KEPT of them, and those of
 *   destinations for KEPT_MS in any case, because a source that was unreachable for days asks what
 *   became of its session, and "not known" leaves it unresolved. A journal without a record was
 *   never acknowledged: nothing was done.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/session/host_internal.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define JOURNALS_KEPT 256
#define ENDED_LISTED  100
#define KEPT_MS	      (7ull * 24 * 3600 * 1000)

/* One journal as it was found. */
struct found {
	const char *path;
	char id[SESSION_ID_TEXT];
	enum session_side side;
	enum session_state state;
	json_t *content;
};

static bool parse_name(const char *path, struct found *j)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char expected[64];

	if (sscanf(name, "%32[0-9a-f]", j->id) != 1 || strlen(j->id) != 2 * IPC_ID_SIZE)
		return false;
	for (j->side = SESSION_SOURCE; j->side <= SESSION_OBSERVER; j->side++) {
		snprintf(expected, sizeof(expected), "%s.%s.journal", j->id,
			 session_side_name(j->side));
		if (!strcmp(name, expected))
			return true;
	}
	return false;
}

static bool has_ended(enum session_state state)
{
	return state == SESSION_DONE || state == SESSION_CANCELLED || state == SESSION_FAILED;
}

static uint64_t age_ms(const struct found *j)
{
	uint64_t now = clock_of(CLOCK_REALTIME) / NSEC_PER_MSEC;
	json_int_t then = json_integer_value(json_object_get(j->content, "time"));

	return then > 0 && (uint64_t)then < now ? now - (uint64_t)then : 0;
}

static bool owes_abort(const struct found *j)
{
	return has_ended(j->state) && json_is_true(json_object_get(j->content, "abort_owed")) &&
	       age_ms(j) < KEPT_MS;
}

/* Of ended journals, newest first, the number-th. */
static void keep_or_remove(const struct found *j, unsigned int number)
{
	if (number <= JOURNALS_KEPT || (j->side == SESSION_DESTINATION && age_ms(j) < KEPT_MS))
		return;
	if (unlink(j->path))
		log_warn("%s: %m", j->path);
}

/* At once, before anybody else can ask for the VM. */
static void claim(struct session *s, const json_t *content)
{
	const json_t *of =
		s->side == SESSION_OBSERVER ? json_object_get(content, "arming") : content;
	json_int_t pid = json_integer_value(json_object_get(of, "pid"));

	if (pid > 0)
		snprintf(s->vm_key, sizeof(s->vm_key), "%d/%" PRIu64, (int)pid,
			 (uint64_t)json_integer_value(json_object_get(of, "start_time")));
}

static void read_failure(struct session *s, const json_t *content)
{
	const json_t *error = json_object_get(content, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));

	if (code && message)
		failure_set(&s->failure, -EREMOTEIO, code,
			    json_string_value(json_object_get(error, "hint")), "%s", message);
}

/* What its last record tells of an ended session. */
static void read_end(struct session *s, const json_t *content)
{
	json_t *result = json_object_get(content, "result");

	s->terminal = true;
	if (json_is_object(result))
		s->result = json_incref(result);
	read_failure(s, content);
}

static void take_up(struct host *h, struct found *j)
{
	struct session *s = session_new(h, j->side, j->id, json_object_get(j->content, "request"));
	struct failure f = { 0 };

	log_warn("session %.8s (%s) was %s when transhipd ended; recovering it", j->id,
		 session_side_name(j->side), session_state_name(j->state));
	if (!s) {
		log_error("%s: out of memory", j->path);
		return;
	}
	s->recovered = json_incref(j->content);
	s->state = j->state;
	s->opened = true;
	s->recallable = j->side == SESSION_DESTINATION && j->state == SESSION_COMMITTED &&
			!json_is_object(json_object_get(j->content, "postcopy"));
	s->ran = json_is_true(json_object_get(j->content, "ran"));
	if (has_ended(j->state))
		read_end(s, j->content);
	else if (j->state == SESSION_UNRESOLVED) /* what a person may do is known at once */
		read_failure(s, j->content);
	claim(s, j->content);
	s->journaled = !journal_open(&s->journal, j->path, NULL, &f);
	if (!s->journaled)
		log_error("%s: %s", j->path, f.message);
	failure_clear(&f);
	if (session_start(s, &f))
		log_error("%s: %s", j->path, f.message);
}

/* They come newest first, and so they are listed. */
static void list_ended(struct host *h, const struct found *j)
{
	struct session *s = session_new(h, j->side, j->id, json_object_get(j->content, "request"));
	struct session **at = &h->sessions;

	if (!s) {
		log_error("%s: out of memory", j->path);
		return;
	}
	s->state = j->state;
	s->opened = true;
	s->postcopy_complete = j->state == SESSION_DONE;
	read_end(s, j->content);
	while (*at)
		at = &(*at)->next;
	*at = s;
}

static bool is_listed(const struct found *j, unsigned int number)
{
	return number <= ENDED_LISTED && age_ms(j) < KEPT_MS &&
	       (j->side == SESSION_SOURCE || j->side == SESSION_DESTINATION);
}

/* ended: how many ended ones were met so far, this one included. */
static void judge(struct host *h, struct found *j, unsigned int *ended)
{
	const char *state = json_string_value(json_object_get(j->content, "state"));

	if (!json_object_size(j->content)) {
		unlink(j->path);
		return;
	}
	if (!state || session_state_parse(state, &j->state)) {
		log_error("%s: not a session's journal", j->path);
		return;
	}
	if (!has_ended(j->state) || owes_abort(j)) {
		take_up(h, j);
		return;
	}
	keep_or_remove(j, ++*ended);
	if (is_listed(j, *ended))
		list_ended(h, j);
}

int host_recover(struct host *h, struct failure *f)
{
	unsigned int ended = 0;
	char **paths = NULL;
	size_t count = 0;
	int err = journal_list(h->config.state_dir, &paths, &count);

	if (err)
		return failure_set(f, err, "journal", "Check the state directory.",
				   "The journals under %s cannot be read: %s.", h->config.state_dir,
				   strerror(-err));
	for (size_t i = 0; i < count; i++) {
		struct found j = { .path = paths[i] };
		struct failure why = { 0 };

		if (parse_name(paths[i], &j))
			j.content = journal_read(paths[i], &why);
		else
			failure_set(&why, -EINVAL, "journal", NULL, "not a session's journal");
		if (j.content)
			judge(h, &j, &ended);
		else
			log_error("%s: %s", paths[i], why.message);
		json_decref(j.content);
		free(paths[i]);
	}
	free(paths);
	return 0;
}
