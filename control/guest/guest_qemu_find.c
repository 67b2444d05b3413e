// SPDX-License-Identifier: MIT
/*
 * Finding QEMU processes and the QMP sockets on their command lines.
 *
 * Theory of operation
 *   A QEMU is told by the name of its program or, where that was changed, by the form of its
 *   command line. Its sockets are paths in its own mount namespace: they are opened through
 *   /proc/PID/root and connected to through the descriptor, which also lifts the 108 bytes of
 *   sun_path. A path on a command line may have been taken over by another QEMU since; the
 *   listener's credentials (SO_PEERCRED) tell, and such a socket is passed over.
 *
 *   Several hosts may live on one machine, each a network namespace with its own transhipd. There a
 *   VM belongs to the transhipd of its own network namespace, if there is one: to the others it is
 *   foreign. VMs in a namespace without a transhipd (containers) belong to everybody who sees them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "control/guest/qemu_args.h"
#include "lib/base/cleanup.h"

#define NAMESPACES_MAX 64

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_qemu_name(const char *name)
{
	return !strncmp(name, "qemu-system-", 12) || !strcmp(name, "qemu-kvm");
}

/* A renamed emulator: "kvm -machine ... -qmp ...". A wrapper (sudo ...) names QEMU behind it. */
static bool has_qemu_form(char *const *argv)
{
	static const char *const machine[] = { "-machine", "-M", "-m", "-smp", "-cpu" };
	static const char *const monitor[] = { "-qmp", "-mon", "-qmp-pretty", "-chardev" };
	bool a = false, b = false;

	if (!argv[0] || !argv[1] || argv[1][0] != '-')
		return false;
	for (size_t i = 1; argv[i]; i++)
		if (is_qemu_name(base_name(argv[i])))
			return false;
	for (size_t i = 0; i < sizeof(machine) / sizeof(machine[0]); i++)
		a |= qemu_args_last(argv, machine[i]) != NULL;
	for (size_t i = 0; i < sizeof(monitor) / sizeof(monitor[0]); i++)
		b |= qemu_args_last(argv, monitor[i]) != NULL;
	return a && b;
}

bool qemu_is_process(pid_t pid, char *const *argv)
{
	char name[NAME_MAX + 1];

	proc_exe_name(pid, name, sizeof(name));
	return is_qemu_name(name) || is_qemu_name(base_name(argv[0])) || has_qemu_form(argv);
}

void qemu_vm_name(char *const *argv, char *buf, size_t len)
{
	const char *value = qemu_args_last(argv, "-name");

	buf[0] = '\0';
	if (value)
		qemu_opt_get(value, "guest", "guest", buf, len);
}

/* --- which host a VM belongs to --------------------------------------------------------------- */

struct namespaces {
	uint64_t own;
	uint64_t taken[NAMESPACES_MAX]; /* of other transhipds */
	unsigned int ntaken;
};

static uint64_t net_namespace(const char *pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%s/ns/net", pid);
	return stat(path, &st) ? 0 : st.st_ino;
}

static int note_transhipd(pid_t pid, void *arg)
{
	struct namespaces *ns = arg;
	char name[NAME_MAX + 1], text[16];
	uint64_t id;

	proc_exe_name(pid, name, sizeof(name));
	if (strcmp(name, "transhipd") || ns->ntaken == NAMESPACES_MAX)
		return 0;
	snprintf(text, sizeof(text), "%d", pid);
	id = net_namespace(text);
	if (id && id != ns->own)
		ns->taken[ns->ntaken++] = id;
	return 0;
}

static bool is_foreign(const struct namespaces *ns, pid_t pid)
{
	char text[16];
	uint64_t id;

	snprintf(text, sizeof(text), "%d", pid);
	id = net_namespace(text);
	for (unsigned int i = 0; i < ns->ntaken; i++)
		if (ns->taken[i] == id)
			return true;
	return false;
}

/* --- processes -------------------------------------------------------------------------------- */

struct process_list {
	struct qemu_process *items;
	size_t count, size;
	struct namespaces ns;
};

static int note_qemu(pid_t pid, void *arg)
{
	struct process_list *l = arg;
	struct qemu_process *p;
	char **argv;
	size_t argc;

	if (proc_cmdline(pid, &argv, &argc))
		return 0;
	if (!qemu_is_process(pid, argv)) {
		free(argv);
		return 0;
	}
	if (l->count == l->size) {
		size_t size = l->size ? l->size * 2 : 16;
		void *bigger = realloc(l->items, size * sizeof(*l->items));

		if (!bigger) {
			free(argv);
			return -ENOMEM;
		}
		l->items = bigger;
		l->size = size;
	}
	p = &l->items[l->count++];
	*p = (struct qemu_process){ .pid = pid, .argv = argv, .foreign = is_foreign(&l->ns, pid) };
	qemu_vm_name(argv, p->name, sizeof(p->name));
	return 0;
}

int qemu_processes(struct qemu_process **out, size_t *count)
{
	struct process_list l = { .ns.own = net_namespace("self") };
	int ret = proc_each(note_transhipd, &l.ns);

	if (!ret)
		ret = proc_each(note_qemu, &l);
	if (ret) {
		qemu_processes_free(l.items, l.count);
		return ret;
	}
	*out = l.items;
	*count = l.count;
	return 0;
}

void qemu_processes_free(struct qemu_process *p, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(p[i].argv);
	free(p);
}

/* --- sockets ---------------------------------------------------------------------------------- */

struct socket_list {
	pid_t pid;
	char *const *argv;
	char (*paths)[PATH_MAX];
	unsigned int count, max;
};

static void add_path(struct socket_list *l, const char *path)
{
	if (l->count == l->max || !path[0])
		return;
	for (unsigned int i = 0; i < l->count; i++)
		if (!strcmp(l->paths[i], path))
			return;
	snprintf(l->paths[l->count++], PATH_MAX, "%s", path);
}

/* -chardev socket,id=ID,path=PATH,server=on; libvirt passes the listening socket as fd=N. */
static void add_chardev(struct socket_list *l, const char *id)
{
	char text[PATH_MAX];
	const char *value;
	size_t at = 1;

	while ((value = qemu_args_next(l->argv, &at, "-chardev"))) {
		if (!qemu_opt_get(value, "backend", "backend", text, sizeof(text)) ||
		    strcmp(text, "socket") ||
		    !qemu_opt_get(value, "id", NULL, text, sizeof(text)) || strcmp(text, id))
			continue;
		if (!qemu_opt_get(value, "server", NULL, text, sizeof(text)) ||
		    !strcmp(text, "off"))
			continue;
		if (qemu_opt_get(value, "path", NULL, text, sizeof(text)))
			add_path(l, text);
		else if (qemu_opt_get(value, "fd", NULL, text, sizeof(text)) &&
			 !proc_unix_socket_path(l->pid, atoi(text), text, sizeof(text)))
			add_path(l, text);
	}
}

/* -qmp unix:PATH,server=on or chardev:ID */
static void add_qmp(struct socket_list *l, const char *value)
{
	char text[PATH_MAX];

	if (!strncmp(value, "chardev:", 8)) {
		add_chardev(l, value + 8);
	} else if (!strncmp(value, "unix:", 5)) {
		if (qemu_opt_get(value + 5, "server", NULL, text, sizeof(text)) &&
		    strcmp(text, "off") &&
		    qemu_opt_get(value + 5, "path", "path", text, sizeof(text)))
			add_path(l, text);
	}
}

unsigned int qemu_sockets(pid_t pid, char *const *argv, char paths[][PATH_MAX], unsigned int max)
{
	struct socket_list l = { .pid = pid, .argv = argv, .paths = paths, .max = max };
	static const char *const shorthands[] = { "-qmp", "-qmp-pretty" };
	char text[256];
	const char *value;
	size_t at;

	for (unsigned int i = 0; i < 2; i++)
		for (at = 1; (value = qemu_args_next(argv, &at, shorthands[i]));)
			add_qmp(&l, value);
	for (at = 1; (value = qemu_args_next(argv, &at, "-mon"));)
		if (qemu_opt_get(value, "mode", NULL, text, sizeof(text)) &&
		    !strcmp(text, "control") &&
		    qemu_opt_get(value, "chardev", "chardev", text, sizeof(text)))
			add_chardev(&l, text);
	return l.count;
}

/* True if the path, as process pid sees it, is this file. */
static bool path_is(pid_t pid, const char *path, const struct stat *file)
{
	AUTO_CLOSE int at = proc_open_path(pid, path, O_PATH);
	struct stat st;

	return at >= 0 && !fstat(at, &st) && st.st_dev == file->st_dev && st.st_ino == file->st_ino;
}

static bool has_socket(const struct qemu_process *p, const struct stat *file)
{
	char(*paths)[PATH_MAX] = malloc(QEMU_SOCKETS_MAX * sizeof(*paths));
	unsigned int n = paths ? qemu_sockets(p->pid, p->argv, paths, QEMU_SOCKETS_MAX) : 0;
	bool has = false;

	for (unsigned int i = 0; i < n && !has; i++)
		has = path_is(p->pid, paths[i], file);
	free(paths);
	return has;
}

pid_t qemu_of_socket(const char *path)
{
	struct qemu_process *list = NULL;
	struct stat file;
	size_t count = 0;
	pid_t pid = 0;

	if (stat(path, &file) || !S_ISSOCK(file.st_mode) || qemu_processes(&list, &count))
		return 0;
	for (size_t i = 0; i < count && !pid; i++)
		if (has_socket(&list[i], &file))
			pid = list[i].pid;
	qemu_processes_free(list, count);
	return pid;
}

/* The process that listens, or 0 if it cannot be known. */
static pid_t listener_of(int fd)
{
	socklen_t len = sizeof(struct ucred);
	struct ucred cred;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) ? 0 : cred.pid;
}

static bool taken_over(pid_t listener, pid_t pid)
{
	char **argv;
	size_t argc;
	bool other;

	if (!listener || listener == pid || proc_cmdline(listener, &argv, &argc))
		return false;
	other = qemu_is_process(listener, argv);
	free(argv);
	return other;
}

int qemu_connect(struct qmp **out, pid_t pid, const char *path, unsigned int greet_ms,
		 struct failure *f)
{
	AUTO_CLOSE int at = proc_open_path(pid ? pid : getpid(), path, O_PATH);
	char link[64];
	int ret;

	*out = NULL;
	if (at < 0)
		return failure_set(f, at, "qmp-failed", NULL, "cannot open the QMP socket %s: %s",
				   path, strerror(-at));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", at);
	ret = qmp_connect(out, link, greet_ms, f);
	if (ret || !pid || !taken_over(listener_of(qmp_fd(*out)), pid))
		return ret;
	qmp_free(*out);
	*out = NULL;
	return failure_set(f, -ENOENT, "qmp-failed", NULL,
			   "the QMP socket %s belongs to another VM by now", path);
}
