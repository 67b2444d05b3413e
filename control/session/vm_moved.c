// SPDX-License-Identifier: MIT
/*
 * A VM that was moved away and kept (--keep-src) stands still, and nothing about its process says
 * that its guest runs elsewhere. The journal does: whoever asks for it is told where it went, and
 * not to let it run on, which would be the same guest twice.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/guest/proc_maps.h"
#include "control/session/host_internal.h"
#include "lib/base/text.h"

#define HINT_MOVED "End this one; it must not run on while the other does."
#define HINT_BACK  "It runs nowhere else: let it run on (QMP cont) first."

struct moved {
	enum session_state state; /* of the newest session that had this VM as its source */
	char dest[160];
	char id[SESSION_ID_TEXT];
};

static bool is_source(const char *path)
{
	static const char ending[] = ".source.journal";
	size_t n = strlen(path);

	return n > sizeof(ending) && !strcmp(path + n - sizeof(ending) + 1, ending);
}

/* True if the session is of that VM. */
static bool read_session(const char *path, pid_t pid, uint64_t start_time, struct moved *m)
{
	struct failure ignored = { 0 };
	json_t *content = journal_read(path, &ignored);
	const json_t *request = json_object_get(content, "request");
	const char *state = json_string_value(json_object_get(content, "state"));
	const char *slash = strrchr(path, '/');
	bool is = json_integer_value(json_object_get(content, "pid")) == pid &&
		  (uint64_t)json_integer_value(json_object_get(content, "start_time")) ==
			  start_time &&
		  state && !session_state_parse(state, &m->state);

	snprintf(m->dest, sizeof(m->dest), "%s",
		 json_string_value(json_object_get(request, "dest")) ?: "another host");
	snprintf(m->id, sizeof(m->id), "%.32s", slash ? slash + 1 : path);
	text_clean(m->dest);
	json_decref(content);
	return is;
}

static bool find_session(const struct host *h, pid_t pid, uint64_t start_time, struct moved *m)
{
	char **paths = NULL;
	size_t count = 0;
	bool found = false;

	if (journal_list(h->config.state_dir, &paths, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		found = found ||
			(is_source(paths[i]) && read_session(paths[i], pid, start_time, m));
		free(paths[i]);
	}
	free(paths);
	return found;
}

/* In the message that is `member` of a check or of a list's VM; the hint it needs, or NULL. */
static const char *say(json_t *of, const char *member, const struct moved *m)
{
	char text[300];

	if (m->state == SESSION_DONE)
		snprintf(text, sizeof(text),
			 "The VM has moved to %s (session %.8s) and was kept here.", m->dest,
			 m->id);
	else if (m->state == SESSION_FAILED || m->state == SESSION_CANCELLED)
		snprintf(text, sizeof(text),
			 "The VM was paused when session %.8s failed, and QEMU left it so.", m->id);
	else
		return NULL;
	json_object_set_new(of, member, json_string(text));
	return m->state == SESSION_DONE ? HINT_MOVED : HINT_BACK;
}

static bool stands_still(const json_t *of)
{
	const char *code = json_string_value(json_object_get(of, "code"));

	return code && !strcmp(code, "vm-not-running");
}

void host_explain_moved(struct host *h, const struct guest *g, json_t *checks)
{
	const char *hint;
	struct moved m;
	json_t *check;
	size_t i;

	json_array_foreach (checks, i, check) {
		if (!stands_still(check) || !find_session(h, g->pid, g->start_time, &m))
			continue;
		hint = say(check, "message", &m);
		if (hint)
			json_object_set_new(check, "hint", json_string(hint));
	}
}

void host_mark_moved(struct host *h, json_t *vms)
{
	struct moved m;
	json_t *vm;
	size_t i;

	json_array_foreach (vms, i, vm) {
		pid_t pid = (pid_t)json_integer_value(json_object_get(vm, "pid"));
		uint64_t start_time;

		if (stands_still(vm) && !proc_start_time(pid, &start_time) &&
		    find_session(h, pid, start_time, &m))
			say(vm, "reason", &m);
	}
}
