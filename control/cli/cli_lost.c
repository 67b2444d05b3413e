// SPDX-License-Identifier: MIT
/*
 * What is known of a session when its daemon is gone.
 *
 * Theory of operation
 *   The last state that was seen proves nothing: between two looks the guest may have been paused,
 *   moved and started at the destination. The journal does: COMMITTED is durable there before the
 *   destination is told, so as long as it is not there, only the source may run the guest. A dead
 *   daemon writes nothing any more; that it is dead is known from its lock on the state directory.
 *
 *   Before PAUSED nobody stopped the guest: it runs. From PAUSED on the guard runs it on when the
 *   daemon dies, and the VM itself is asked whether that has happened.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "control/cli/cli_result.h"
#include "control/cli/cli_watch.h"
#include "lib/base/cleanup.h"

#define RUN_ON_MS 3000u

enum cli_lost cli_lost_rule(enum session_state journaled, bool was_running, bool runs)
{
	switch (journaled) {
	case SESSION_NEW:
	case SESSION_NEGOTIATED:
	case SESSION_COPYING:
		return LOST_AT_SOURCE;
	case SESSION_PAUSED:
	case SESSION_PREPARED:
		/* a guest that was stopped before is as it was; else it must be seen to run */
		return !was_running || runs ? LOST_AT_SOURCE : LOST_UNRESOLVED;
	case SESSION_FAILED:
		return LOST_AT_SOURCE;
	case SESSION_CANCELLED:
		return LOST_CANCELLED;
	case SESSION_DONE:
		return LOST_COMPLETED;
	case SESSION_COMMITTED:
	case SESSION_RUNNING:
	case SESSION_UNRESOLVED:
		break;
	}
	return LOST_UNRESOLVED;
}

/* True if no transhipd holds the state directory: what its journals say is final. */
static bool daemon_is_dead(const char *state_dir)
{
	char path[PATH_MAX + 8];
	AUTO_CLOSE int fd = -1;

	if (!*state_dir)
		return false;
	snprintf(path, sizeof(path), "%s/lock", state_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && !flock(fd, LOCK_SH | LOCK_NB);
}

static bool may_have_been_paused(enum session_state s)
{
	return s == SESSION_PAUSED || s == SESSION_PREPARED;
}

static bool has_ended(enum session_state s)
{
	return s == SESSION_DONE || s == SESSION_CANCELLED || s == SESSION_FAILED;
}

static enum cli_lost judge(const json_t *journal, enum session_state state)
{
	bool was_running = !json_is_false(json_object_get(journal, "was_running"));
	bool runs = false;

	if (may_have_been_paused(state) && was_running)
		runs = cli_guest_runs(
			(pid_t)json_integer_value(json_object_get(journal, "pid")),
			(uint64_t)json_integer_value(json_object_get(journal, "start_time")),
			RUN_ON_MS);
	return cli_lost_rule(state, was_running, runs);
}

/* Whether a session without a journal can be said never to have touched the guest. */
static bool never_began(const json_t *seen)
{
	return !seen || !strcmp(cli_text(seen, "state"), session_state_name(SESSION_NEW));
}

/* final: nobody works on the session any more. */
static enum cli_lost find_out(const char *state_dir, const char *id, bool final, bool began,
			      struct failure *why)
{
	char path[PATH_MAX + 128];
	enum session_state state;
	enum cli_lost lost;
	json_t *journal;

	snprintf(path, sizeof(path), "%s/sessions/%s.source.journal", state_dir, id);
	if (access(path, F_OK) && errno == ENOENT && final && !began)
		return LOST_AT_SOURCE;
	journal = journal_read(path, why);
	if (!journal)
		return LOST_UNRESOLVED;
	if (session_state_parse(cli_text(journal, "state"), &state)) {
		lost = LOST_UNRESOLVED;
		failure_set(why, 0, "unresolved", NULL, "Its journal names no state.");
	} else if (!final && !has_ended(state)) {
		lost = LOST_UNRESOLVED;
		failure_set(why, 0, "unresolved", NULL, "It lives, but does not answer.");
	} else {
		lost = judge(journal, state);
		failure_set(why, 0, "unresolved", NULL, "Its journal ends with %s.",
			    session_state_name(state));
	}
	json_decref(journal);
	return lost;
}

json_t *cli_lost_result(const struct cli_watch *w, const json_t *seen, bool forgotten)
{
	const char *id = *cli_text(seen, "id") ? cli_text(seen, "id") : w->id;
	const char *vm = *cli_text(seen, "vm") ? cli_text(seen, "vm") : w->vm;
	bool final = forgotten || daemon_is_dead(w->state_dir);
	struct failure why = { 0 }, f = { 0 };
	enum cli_lost lost = find_out(w->state_dir, id, final, !never_began(seen), &why);

	switch (lost) {
	case LOST_COMPLETED:
		return cli_result_new(id, vm, "completed", NULL);
	case LOST_CANCELLED:
		failure_set(&f, 0, "cancelled", NULL, "The migration was cancelled.");
		return cli_result_new(id, vm, "cancelled", &f);
	case LOST_AT_SOURCE:
		failure_set(&f, 0, "daemon-unreachable", "Start transhipd again; it cleans up.",
			    "transhipd ended during the migration; the VM runs on at the source.");
		return cli_result_new(id, vm, "failed", &f);
	case LOST_UNRESOLVED:
		break;
	}
	failure_set(&f, 0, "unresolved",
		    "Start transhipd again; `tranship status` then says where the VM is, and "
		    "`tranship resolve` decides.",
		    "transhipd is gone and where the VM runs is not known. %s", why.message);
	return cli_result_new(id, vm, "unresolved", &f);
}
