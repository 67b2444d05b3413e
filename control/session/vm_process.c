// SPDX-License-Identifier: MIT
/* A VM as a process that was written down; see vm_process.h. */
#include "control/session/vm_process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>

#include "control/guest/proc_maps.h"
#include "lib/base/cleanup.h"

#define TERM_MS 3000
#define KILL_MS 30000 /* terabytes are unmapped */

/* A descriptor of exactly this process, or -1. */
static int pin(pid_t pid, uint64_t start_time)
{
	AUTO_CLOSE int pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
	uint64_t now;

	/* in this order: what has this start time after it was pinned is what was pinned */
	if (pidfd < 0 || proc_start_time(pid, &now) || now != start_time)
		return -1;
	return fd_take(&pidfd);
}

static bool has_ended(int pidfd, int timeout_ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, timeout_ms) > 0;
}

bool vm_process_lives(pid_t pid, uint64_t start_time)
{
	AUTO_CLOSE int pidfd = pin(pid, start_time);

	return pidfd >= 0 && !has_ended(pidfd, 0);
}

static int gone(pid_t pid, struct failure *f)
{
	failure_clear(f);
	return failure_set(f, -ESRCH, "vm-gone", NULL, "The VM (process %d) has ended.", pid);
}

int vm_process_open(struct guest **out, pid_t pid, uint64_t start_time, struct failure *f)
{
	char vm[32];
	int err;

	*out = NULL;
	if (!vm_process_lives(pid, start_time))
		return gone(pid, f);
	snprintf(vm, sizeof(vm), "pid:%d", pid);
	err = guest_open(out, vm, f);
	if (!err && (*out)->start_time == start_time)
		return 0;
	guest_free(*out);
	*out = NULL;
	if (!err || !vm_process_lives(pid, start_time))
		return gone(pid, f);
	return err == -ESRCH ? -EBUSY : err;
}

int vm_process_kill(pid_t pid, uint64_t start_time)
{
	AUTO_CLOSE int pidfd = pin(pid, start_time);

	if (pidfd < 0)
		return 0;
	pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	return has_ended(pidfd, KILL_MS) ? 0 : -ETIMEDOUT;
}

int vm_process_end(pid_t pid, uint64_t start_time)
{
	AUTO_CLOSE int pidfd = pin(pid, start_time);

	if (pidfd < 0)
		return 0;
	pidfd_send_signal(pidfd, SIGTERM, NULL, 0);
	if (has_ended(pidfd, TERM_MS))
		return 0;
	pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	return has_ended(pidfd, KILL_MS) ? 0 : -ETIMEDOUT;
}
