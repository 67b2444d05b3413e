// SPDX-License-Identifier: MIT
/*
 * A guest of an unmodified QEMU: opening it, and its table of operations.
 *
 * Theory of operation
 *   Everything is asked over one QMP connection, held from open to free: QEMU serves one client a
 *   monitor, so while it is held nobody else can drive the VM through that socket, and the guard
 *   process (guard_main.c) inherits the very connection and needs no new one in an emergency. What
 *   QMP does not tell comes from /proc: where RAM is mapped, which file is behind it, who else maps
 *   it, what the command line said.
 *
 *   Nothing in the VM is changed by opening, describing and checking it. arm() leaves one
 *   userfaultfd in it (guest_qemu_track.c); pause() and incoming() change migration capabilities
 *   (guest_qemu_handover.c). Each is undone on every way out, free() included. What postcopy()
 *   leaves in it is not: its pages are still to come, whoever brings them (guest_qemu_postcopy.c).
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define FREE_LIMIT_MS  1000u
#define NO_SOCKET_HINT "start the VM with -qmp unix:PATH,server=on,wait=off"

static int guest_qemu_guard_fd(struct guest *g)
{
	return qmp_fd(guest_qemu_of(g)->q);
}

static void guest_qemu_free(struct guest *g)
{
	struct guest_qemu *q = guest_qemu_of(g);

	if (q->faults)
		fd_close(&q->uffd); /* the VMM's stays: what is missing would read as zeros */
	else if (q->uffd >= 0)
		guest_qemu_disarm(g);
	if (q->q && guest_alive(g)) {
		qmp_set_time_limit(q->q, FREE_LIMIT_MS);
		if (q->held_back && !q->loading)
			qmp_call(q->q, "cont", NULL, NULL, NULL); /* only sets autostart again */
		qemu_migration_restore(q);
	}
	json_decref(q->old_capabilities);
	json_decref(q->old_parameters);
	guest_description_release(&g->desc);
	free(q->map_devices);
	qmp_free(q->q);
	fd_close(&q->state_fd);
	fd_close(&g->pidfd);
	free(q);
}

static const struct guest_ops guest_qemu_ops = {
	.kind = "qemu",
	.describe = guest_qemu_describe,
	.check = guest_qemu_check,
	.open_ram = guest_qemu_open_ram,
	.unchanged = guest_qemu_unchanged,
	.arm = guest_qemu_arm,
	.disarm = guest_qemu_disarm,
	.postcopy = guest_qemu_postcopy,
	.stop = guest_qemu_stop,
	.cont = guest_qemu_cont,
	.pause = guest_qemu_pause,
	.save = guest_qemu_save,
	.resume = guest_qemu_resume,
	.throttle = guest_qemu_throttle,
	.quit = guest_qemu_quit,
	.incoming = guest_qemu_incoming,
	.load_begin = guest_qemu_load_begin,
	.load_wait = guest_qemu_load_wait,
	.start = guest_qemu_start,
	.guard_fd = guest_qemu_guard_fd,
	.free = guest_qemu_free,
};

/* --- opening ---------------------------------------------------------------------------------- */

/* Takes qmp, also on failure. */
static int open_on(struct guest **out, pid_t pid, struct qmp *qmp, const char *qmp_path,
		   struct failure *f)
{
	struct guest_qemu *q = calloc(1, sizeof(*q));
	int ret;

	if (!q) {
		qmp_free(qmp);
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	}
	q->g.ops = &guest_qemu_ops;
	q->g.pid = pid;
	q->q = qmp;
	q->uffd = -1;
	q->state_fd = -1;
	q->g.was_running = true; /* until stop or pause have looked */
	snprintf(q->qmp_path, sizeof(q->qmp_path), "%s", qmp_path);
	qmp_version(qmp, q->version);
	q->g.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	ret = q->g.pidfd < 0 ? -errno : proc_start_time(pid, &q->g.start_time);
	if (ret)
		failure_set(f, ret, "vm-gone", NULL, "process %d has ended", pid);
	else
		ret = guest_qemu_describe(&q->g, f);
	if (ret) {
		guest_free(&q->g);
		return ret;
	}
	*out = &q->g;
	return 0;
}

/* The first of the VM's sockets that greets. */
static int connect_any(struct qmp **qmp, pid_t pid, char *const *argv, unsigned int greet_ms,
		       char path[PATH_MAX], struct failure *f)
{
	char(*paths)[PATH_MAX] = malloc(QEMU_SOCKETS_MAX * sizeof(*paths));
	struct failure first = { 0 };
	unsigned int count;
	int ret;

	if (!paths)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	count = qemu_sockets(pid, argv, paths, QEMU_SOCKETS_MAX);
	ret = failure_set(&first, -ENOENT, "qmp-failed", NO_SOCKET_HINT,
			  "the VM (pid %d) has no QMP unix socket on its command line", pid);
	for (unsigned int i = 0; i < count; i++) {
		struct failure why = { 0 };
		int err = qemu_connect(qmp, pid, paths[i], greet_ms, &why);

		if (!err) {
			strcpy(path, paths[i]);
			ret = 0;
			break;
		}
		/* That it is busy says more than that another socket is not there. */
		if (i == 0 || err == -ETIMEDOUT) {
			first = why;
			ret = err;
		}
	}
	free(paths);
	if (ret)
		failure_set(f, ret, first.code, first.hint, "%s", first.message);
	return ret;
}

int guest_qemu_open_bounded(struct guest **out, pid_t pid, unsigned int greet_ms,
			    unsigned int total_ms, struct failure *f)
{
	AUTO_FREE char **argv = NULL;
	uint64_t start = clock_ns();
	char path[PATH_MAX];
	struct qmp *qmp;
	size_t argc;
	int ret = proc_cmdline(pid, &argv, &argc);

	*out = NULL;
	if (ret || !qemu_is_process(pid, argv))
		return failure_set(f, -ESRCH, "vm-not-found", NULL, "process %d is no QEMU", pid);
	ret = connect_any(&qmp, pid, argv, greet_ms, path, f);
	if (ret)
		return ret;
	if (total_ms)
		qmp_set_deadline(qmp, start + total_ms * NSEC_PER_MSEC);
	return open_on(out, pid, qmp, path, f);
}

int guest_qemu_open_pid(struct guest **out, pid_t pid, struct failure *f)
{
	return guest_qemu_open_bounded(out, pid, QEMU_GREET_MS, 0, f);
}

/* Which QEMU listens on this connection's other end. */
static pid_t owner_of(int fd, const char *qmp_path)
{
	struct qemu_process *list = NULL;
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	size_t count = 0;
	pid_t pid = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) || qemu_processes(&list, &count))
		return 0;
	for (size_t i = 0; i < count && !pid; i++)
		if (list[i].pid == cred.pid)
			pid = cred.pid;
	/* The listener came from a manager: whose command line names this path? */
	for (size_t i = 0; i < count && !pid; i++) {
		char(*paths)[PATH_MAX] = malloc(QEMU_SOCKETS_MAX * sizeof(*paths));
		unsigned int n =
			paths ? qemu_sockets(list[i].pid, list[i].argv, paths, QEMU_SOCKETS_MAX)
			      : 0;

		for (unsigned int k = 0; k < n; k++)
			if (!strcmp(paths[k], qmp_path))
				pid = list[i].pid;
		free(paths);
	}
	qemu_processes_free(list, count);
	return pid;
}

int guest_qemu_open_socket(struct guest **out, const char *qmp_path, struct failure *f)
{
	struct qmp *qmp;
	int ret = qemu_connect(&qmp, 0, qmp_path, QEMU_GREET_MS, f);
	pid_t pid;

	*out = NULL;
	if (ret == -ENOENT || ret == -ECONNREFUSED) {
		if (f)
			failure_clear(f);
		return failure_set(f, ret, "vm-not-found", NULL, "no VM listens on %s.", qmp_path);
	}
	if (ret)
		return ret;
	pid = owner_of(qmp_fd(qmp), qmp_path);
	if (pid)
		return open_on(out, pid, qmp, qmp_path, f);
	qmp_free(qmp);
	return failure_set(f, -ESRCH, "vm-not-found", NULL,
			   "%s answers, but its QEMU process was not found on this host", qmp_path);
}
