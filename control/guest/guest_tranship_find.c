// SPDX-License-Identifier: MIT
/*
 * VMMs that link libtranship, found by the sockets in their folder, or, where the process is known,
 * by the sockets on which it listens; see guest_tranship.h.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/guest/guest_tranship.h"
#include "control/guest/proc_maps.h"
#include "control/guest/tranship_link.h"
#include "lib/base/text.h"

#define LOOK_MS 1000 /* for each VMM of a list; one that is busy in a callback is left out */

struct found {
	char path[108];
	pid_t pid;
	bool busy;
	struct tranship_description d;
};

/* Calls fn for every VMM that answers until it returns non-zero, which is then returned. */
static int each_vmm(int (*fn)(const struct found *v, void *arg), void *arg)
{
	DIR *dir = opendir(TRANSHIP_SOCKET_DIR);
	struct dirent *e;
	int stop = 0;

	if (!dir)
		return 0;
	while (!stop && (e = readdir(dir))) {
		size_t len = strlen(e->d_name);
		struct tranship_link l;
		struct failure why = { 0 };
		struct found v = { 0 };
		int err, n;

		if (len < 6 || strcmp(e->d_name + len - 5, ".sock"))
			continue;
		n = snprintf(v.path, sizeof(v.path), "%s/%s", TRANSHIP_SOCKET_DIR, e->d_name);
		if (n >= (int)sizeof(v.path))
			continue;
		err = tranship_link_open(&l, v.path, &v.d, LOOK_MS, &why);
		v.pid = l.pid;
		v.busy = err == -EBUSY;
		if (!err)
			tranship_link_close(&l);
		if (!err || v.busy)
			stop = fn(&v, arg);
	}
	closedir(dir);
	return stop;
}

static bool state_movable(const struct tranship_description *d)
{
	return d->state == TRANSHIP_RUNNING || d->state == TRANSHIP_STOPPED;
}

static int add_to_list(const struct found *v, void *arg)
{
	char name[sizeof(v->d.name)];
	const char *state = v->d.flags & TRANSHIP_FLAG_RUNNING ? "running"
			    : v->d.state == TRANSHIP_WAITING   ? "inmigrate"
							       : "paused";
	bool migratable = !v->busy && state_movable(&v->d);
	const char *code = migratable ? "" : v->busy ? "vm-busy" : "vm-not-running";
	const char *reason = migratable ? ""
			     : v->busy	? "a session holds it"
					: "it has no guest that could be moved now";

	snprintf(name, sizeof(name), "%s", v->d.name);
	text_clean(name);
	json_array_append_new(arg,
			      json_pack("{s:s, s:i, s:s, s:I, s:s, s:b, s:s, s:s}", "name", name,
					"pid", (int)v->pid, "kind", "tranship", "ram_bytes",
					(json_int_t)v->d.ram_bytes, "state", state, "migratable",
					migratable, "reason", reason, "code", code));
	return 0;
}

json_t *guest_tranship_list(void)
{
	json_t *list = json_array();

	if (list)
		each_vmm(add_to_list, list);
	return list;
}

struct search {
	const char *name; /* or NULL: by pid */
	pid_t pid;
	unsigned int hits;
	char path[108];
};

static int look(const struct found *v, void *arg)
{
	struct search *s = arg;

	if (s->name ? strcmp(v->d.name, s->name) : v->pid != s->pid)
		return 0;
	s->hits++;
	snprintf(s->path, sizeof(s->path), "%s", v->path);
	return 0;
}

static int open_found(struct guest **out, const struct search *s, const char *what,
		      struct failure *f)
{
	if (!s->hits)
		return failure_set(f, -ENOENT, "vm-not-found", "`tranship list` shows the VMs.",
				   "there is no VM that is %s.", what);
	if (s->hits > 1)
		return failure_set(f, -EEXIST, "vm-ambiguous", "Give its socket: tranship:/path.",
				   "%u VMs with libtranship are %s", s->hits, what);
	return guest_tranship_open(out, s->path, f);
}

int guest_tranship_open_name(struct guest **out, const char *name, struct failure *f)
{
	struct search s = { .name = name };
	char what[160];

	each_vmm(look, &s);
	snprintf(what, sizeof(what), "named %.128s", name);
	return open_found(out, &s, what, f);
}

/* A socket of the process, wherever its path is; those of other kinds refuse to be connected. */
static int look_at_fd(int fd, const char *target, void *arg)
{
	struct search *s = arg;
	struct found v = { 0 };
	struct tranship_link l;
	struct failure why = { 0 };
	int err;

	if (strncmp(target, "socket:", 7) ||
	    proc_unix_socket_path(s->pid, fd, v.path, sizeof(v.path)))
		return 0;
	err = tranship_link_open(&l, v.path, &v.d, LOOK_MS, &why);
	v.pid = l.pid;
	if (!err)
		tranship_link_close(&l);
	/* one is enough: a connection that was accepted has its listener's path too */
	return !err || err == -EBUSY ? look(&v, s) + (int)s->hits : 0;
}

int guest_tranship_open_pid(struct guest **out, pid_t pid, struct failure *f)
{
	struct search s = { .pid = pid };
	char what[40];

	each_vmm(look, &s);
	if (!s.hits)
		proc_fds_each(pid, look_at_fd, &s);
	snprintf(what, sizeof(what), "process %d", pid);
	return open_found(out, &s, what, f);
}
