// SPDX-License-Identifier: MIT
/*
 * The hand-over as QEMU goes through it, at the source and at the destination.
 *
 * Theory of operation
 *   Source                                          QEMU's migration status, run state
 *     pause     getfd, migrate fd:                    active -> pre-switchover, finish-migrate
 *     save      migrate-continue                      device -> completed,      postmigrate
 *     resume    before completed: migrate_cancel      cancelled,                running
 *               after it: cont                        completed,                running
 *               the stream failed: cont if needed     failed,                   running
 *   Destination (-incoming defer)
 *     incoming  stop: autostart off                   none,                     inmigrate
 *     load      getfd, migrate-incoming fd:           active -> completed,      paused
 *     start     cont, announce-self                   completed,                running
 *
 *   Steps are waited for by QEMU's MIGRATION events, never by asking again. Private blocks (VGA,
 *   ROMs) are sent while the guest still runs; it stops at pre-switchover, with block I/O drained.
 *   QEMU runs the guest on by itself when a migration is cancelled or fails; resume() makes sure.
 *
 *   After completed the source has given up its image locks; with late-block-activate the
 *   destination does not take them before start(). So load_wait() looks whether somebody else holds
 *   them, while the move can still be taken back: after COMMIT it would be too late.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "control/guest/qemu_args.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define PAUSE_LIMIT_MS	10000u
#define SAVE_LIMIT_MS	10000u
#define CALL_LIMIT_MS	5000u
#define CONT_LIMIT_MS	30000u /* images are opened for writing, maybe over a network */
#define CANCEL_LIMIT_MS 10000u
#define LOAD_LIMIT_MS	60000u
#define QUIT_LIMIT_MS	10000
#define TERM_LIMIT_MS	3000
#define FINISH_ASK_MS	1u
#define KILL_LIMIT_MS	30000 /* terabytes are unmapped */
#define STATE_FD_NAME	"tranship-state"

/* QEMU's OFD locks on an image: one byte a permission, and one a permission that it denies. */
#define LOCK_PERMISSIONS 100
#define LOCK_DENIALS	 200
#define LOCK_BYTES	 4

int guest_qemu_stop(struct guest *g, struct failure *f)
{
	int ret = guest_qemu_status(guest_qemu_of(g), f);

	if (ret)
		return ret;
	g->was_running = g->desc.running;
	return g->was_running ? qmp_call(guest_qemu_of(g)->q, "stop", NULL, NULL, f) : 0;
}

int guest_qemu_cont(struct guest *g, struct failure *f)
{
	if (!g->was_running)
		return 0;
	return qmp_call(guest_qemu_of(g)->q, "cont", NULL, NULL, f);
}

/* --- events ----------------------------------------------------------------------------------- */

static const char *status_of(const json_t *data)
{
	return json_string_value(json_object_get(data, "status")) ?: "";
}

static bool is_end(const char *status)
{
	return !strcmp(status, "completed") || !strcmp(status, "failed") ||
	       !strcmp(status, "cancelled");
}

static bool match_end(const json_t *data, void *arg)
{
	(void)arg;
	return is_end(status_of(data));
}

/* The status in arg, or one after which it cannot come any more. */
static bool match_status_or_end(const json_t *data, void *arg)
{
	return !strcmp(status_of(data), arg) || is_end(status_of(data));
}

/* The status and, if it failed, QEMU's reason; "" where this QEMU keeps none. */
static int migration_status(struct guest_qemu *q, char status[32], char *reason, size_t len,
			    struct failure *f)
{
	json_t *answer = NULL;
	int ret = qmp_call(q->q, "query-migrate", NULL, &answer, f);

	snprintf(status, 32, "%s", status_of(answer));
	if (reason)
		snprintf(reason, len, "%s",
			 json_string_value(json_object_get(answer, "error-desc")) ?: "");
	json_decref(answer);
	return ret;
}

/*
 * Waits until the migration is at that status. -EIO (state-failed) if it ended otherwise,
 * -ECONNRESET if QEMU did.
 */
static int await_status(struct guest_qemu *q, const char *wanted, unsigned int limit_ms,
			struct failure *f)
{
	char status[32], now[32], reason[256] = "";
	json_t *data = NULL;
	int ret = qmp_wait_event(q->q, "MIGRATION", match_status_or_end, (void *)wanted, limit_ms,
				 &data, f);

	if (!ret) {
		snprintf(status, sizeof(status), "%s", status_of(data));
		json_decref(data);
	} else if (ret == -ETIMEDOUT) {
		ret = migration_status(q, status, NULL, 0, f);
	}
	if (ret)
		return ret;
	if (!strcmp(status, wanted))
		return 0;
	if (!is_end(status))
		return failure_set(f, -ETIMEDOUT, "state-failed", NULL,
				   "QEMU's migration stays %s and does not become %s", status,
				   wanted);
	/* At the destination older QEMUs exit as soon as they have said that it failed. */
	if (migration_status(q, now, reason, sizeof(reason), NULL) == -ECONNRESET)
		return failure_set(f, -ECONNRESET, "vm-gone", NULL, "QEMU's migration is %s",
				   status);
	return failure_set(f, -EIO, "state-failed", NULL, "QEMU's migration is %s%s%s", status,
			   reason[0] ? ": " : "", reason);
}

static int give_state_fd(struct guest_qemu *q, int fd, struct failure *f)
{
	return qmp_call_fd(q->q, "getfd", json_pack("{s:s}", "fdname", STATE_FD_NAME), fd, NULL, f);
}

/* --- source ----------------------------------------------------------------------------------- */

int guest_qemu_pause(struct guest *g, int state_fd, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	int ret = guest_qemu_status(q, f);

	if (ret)
		return ret;
	g->was_running = g->desc.running;
	ret = qemu_migration_prepare(q, f);
	if (!ret)
		ret = give_state_fd(q, state_fd, f);
	if (ret)
		return ret;
	fd_close(&q->state_fd);
	q->state_fd = fcntl(state_fd, F_DUPFD_CLOEXEC, 0);
	qmp_forget_events(q->q, "MIGRATION");
	qmp_forget_events(q->q, "STOP");
	ret = qmp_call(q->q, "migrate", json_pack("{s:s}", "uri", "fd:" STATE_FD_NAME), NULL, f);
	if (ret)
		return ret;
	ret = await_status(q, "pre-switchover", PAUSE_LIMIT_MS, f);
	if (!ret && !qmp_wait_event(q->q, "STOP", NULL, NULL, 0, NULL, NULL))
		g->stopped_ns = qmp_event_time(q->q);
	return ret;
}

int guest_qemu_save(struct guest *g, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	int ret;

	qmp_set_deadline(q->q, g->save_by_ns);
	ret = qmp_call(q->q, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"),
		       NULL, f);
	if (!ret)
		ret = await_status(q, "completed", SAVE_LIMIT_MS, f);
	qmp_set_deadline(q->q, 0);
	if (!ret)
		fd_close(&q->state_fd);
	return ret;
}

/* Ends a migration that is under way; nothing to do if none is. */
static int cancel_migration(struct guest_qemu *q, struct failure *f)
{
	char status[32];
	int ret = migration_status(q, status, NULL, 0, f);

	if (ret || !status[0] || !strcmp(status, "none") || is_end(status))
		return ret;
	qmp_forget_events(q->q, "MIGRATION");
	ret = qmp_call(q->q, "migrate_cancel", NULL, NULL, f);
	if (!ret)
		ret = qmp_wait_event(q->q, "MIGRATION", match_end, NULL, CANCEL_LIMIT_MS, NULL, f);
	if (ret == -ETIMEDOUT)
		/* Without the events capability nobody tells; then it says so itself. */
		ret = migration_status(q, status, NULL, 0, f);
	return ret;
}

static int cont(struct guest_qemu *q, struct failure *f)
{
	struct failure why = { 0 };
	int ret;

	qmp_set_time_limit(q->q, CONT_LIMIT_MS);
	ret = qmp_call(q->q, "cont", NULL, NULL, &why);
	qmp_set_time_limit(q->q, CALL_LIMIT_MS);
	if (!ret)
		return 0;
	return failure_set(f, ret, strstr(qmp_error(q->q), " lock") ? "disk-locked" : why.code,
			   why.hint, "%s", why.message);
}

static int expect_running(struct guest_qemu *q, struct failure *f)
{
	int ret = guest_qemu_status(q, f);

	if (!ret && !q->g.desc.running)
		ret = failure_set(f, -EIO, "qmp-failed", NULL, "the VM does not run on: it is %s",
				  q->g.desc.state);
	return ret;
}

/*
 * QEMU reports the end of a migration a moment before it has put the guest back: cont is refused in
 * finish-migrate. After a cancel the end of that moment is told by RESUME. After completed (on its
 * way to postmigrate) nothing tells it, so QEMU is asked again; without that one resume in thirty
 * on a busy host missed it.
 */
static int run_on(struct guest_qemu *q, struct failure *f)
{
	uint64_t deadline = clock_ns() + CANCEL_LIMIT_MS * NSEC_PER_MSEC;
	int ret;

	for (;;) {
		ret = guest_qemu_status(q, f);
		if (ret || q->g.desc.running)
			return ret;
		if (strcmp(q->g.desc.state, "finish-migrate") || clock_ns() > deadline)
			break;
		ret = qmp_wait_event(q->q, "RESUME", NULL, NULL, FINISH_ASK_MS, NULL, f);
		if (ret && ret != -ETIMEDOUT)
			return ret;
	}
	ret = cont(q, f);
	return ret ? ret : expect_running(q, f);
}

/*
 * A guest that was paused before: QEMU puts it back by itself (since 8.2) or leaves it in
 * postmigrate, from which only cont leads on. Running it for a moment to come to "paused" is not
 * ours to do: somebody may count on its disks and memory standing still.
 */
static int stay_paused(struct guest_qemu *q, struct failure *f)
{
	int ret = guest_qemu_status(q, f);

	if (!ret && !strcmp(q->g.desc.state, "postmigrate"))
		log_info("pid %d: the VM, paused before, is left in state postmigrate", q->g.pid);
	return ret;
}

int guest_qemu_resume(struct guest *g, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	int ret;

	/*
	 * QEMU writes the device state while it holds its big lock: if nobody reads it (a stalled
	 * link), QMP does not answer until that write fails.
	 */
	if (q->state_fd >= 0)
		shutdown(q->state_fd, SHUT_RDWR);
	fd_close(&q->state_fd);
	qmp_forget_events(q->q, "RESUME");
	ret = cancel_migration(q, f);
	if (!ret)
		ret = g->was_running ? run_on(q, f) : stay_paused(q, f);
	if (ret)
		return ret;
	if (q->old_capabilities)
		qemu_migration_restore(q);
	else
		qemu_migration_set(q->q, NULL); /* paused by a transhipd that is gone */
	return 0;
}

static bool has_ended(const struct guest *g, int timeout_ms)
{
	struct pollfd p = { .fd = g->pidfd, .events = POLLIN };

	return poll(&p, 1, timeout_ms) > 0;
}

int guest_qemu_quit(struct guest *g, struct failure *f)
{
	struct failure why = { 0 };
	int ret = qmp_call(guest_qemu_of(g)->q, "quit", NULL, NULL, &why);

	if ((!ret || ret == -ECONNRESET) && has_ended(g, QUIT_LIMIT_MS))
		return 0;
	log_warn("pid %d does not quit (%s): sending signals", g->pid, why.message);
	syscall(SYS_pidfd_send_signal, g->pidfd, SIGTERM, NULL, 0);
	if (has_ended(g, TERM_LIMIT_MS))
		return 0;
	syscall(SYS_pidfd_send_signal, g->pidfd, SIGKILL, NULL, 0);
	if (has_ended(g, KILL_LIMIT_MS))
		return 0;
	return failure_set(f, -ETIMEDOUT, "qmp-failed", NULL, "process %d cannot be ended", g->pid);
}

/* --- destination ------------------------------------------------------------------------------ */

int guest_qemu_incoming(struct guest *g, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	const char *from = qemu_args_last(g->desc.argv, "-incoming");
	char status[32];
	int ret = guest_qemu_status(q, f);

	if (!ret)
		ret = migration_status(q, status, NULL, 0, f);
	if (ret)
		return ret;
	if (strcmp(g->desc.state, "inmigrate") || !from || strcmp(from, "defer") ||
	    (status[0] && strcmp(status, "none")))
		return failure_set(f, -EBUSY, "incoming-not-waiting",
				   "start it anew with -incoming defer",
				   "the VM at the destination is %s%s%s and does not wait for a "
				   "migration",
				   g->desc.state, status[0] ? ", migration " : "", status);
	ret = qemu_migration_prepare(q, f);
	if (!ret)
		ret = qmp_call(q->q, "stop", NULL, NULL, f); /* in inmigrate: autostart off */
	if (!ret)
		q->held_back = !qemu_args_flag(g->desc.argv, "-S");
	return ret;
}

int guest_qemu_load_begin(struct guest *g, int state_fd, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	json_t *args = json_pack("{s:s}", "uri", "fd:" STATE_FD_NAME);
	int ret = give_state_fd(q, state_fd, f);

	if (ret) {
		json_decref(args);
		return ret;
	}
	/* Stay and tell why instead of exiting, where QEMU can. */
	if (q->version[0] > 9 || (q->version[0] == 9 && q->version[1] >= 1))
		json_object_set_new(args, "exit-on-error", json_false());
	qmp_forget_events(q->q, "MIGRATION");
	q->loading = true;
	return qmp_call(q->q, "migrate-incoming", args, NULL, f);
}

/* Somebody other than QEMU's own descriptor holds a lock that opening for writing would meet. */
static bool is_locked(pid_t pid, const struct guest_disk *disk, int *holder)
{
	AUTO_CLOSE int fd = proc_open_path(pid, disk->path, O_RDWR | O_NONBLOCK);
	static const int starts[] = { LOCK_PERMISSIONS, LOCK_DENIALS };

	for (unsigned int i = 0; fd >= 0 && i < 2; i++) {
		struct flock l = { .l_type = F_WRLCK,
				   .l_whence = SEEK_SET,
				   .l_start = starts[i],
				   .l_len = LOCK_BYTES };

		if (!fcntl(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK) {
			*holder = l.l_pid;
			return true;
		}
	}
	return false;
}

static int check_locks(struct guest_qemu *q, struct failure *f)
{
	const struct guest_description *d = &q->g.desc;

	for (uint32_t i = 0; i < d->ndisks; i++) {
		int holder = 0;

		if (!d->disks[i].read_only && d->disks[i].path[0] &&
		    is_locked(q->g.pid, &d->disks[i], &holder))
			return failure_set(
				f, -EBUSY, "disk-locked", "end the program that has the image open",
				"disk image %s is locked by somebody else", d->disks[i].path);
	}
	return 0;
}

int guest_qemu_load_wait(struct guest *g, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	struct failure why = { 0 };
	int ret = await_status(q, "completed", LOAD_LIMIT_MS, &why);

	if (!ret)
		return check_locks(q, f);
	if (ret ==
	    -ECONNRESET) /* older QEMUs exit when loading fails; their reason is in the log */
		return failure_set(f, ret, "state-failed",
				   "See the VM's log; its devices must be those of the source's.",
				   "QEMU at the destination ended while loading the device state");
	return failure_set(f, ret, strstr(why.message, "lock") ? "disk-locked" : why.code, why.hint,
			   "%s", why.message);
}

int guest_qemu_start(struct guest *g, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	struct failure ignored = { 0 };
	int ret;

	qmp_forget_events(q->q, "RESUME");
	ret = cont(q, f);
	if (ret)
		return ret;
	if (!qmp_wait_event(q->q, "RESUME", NULL, NULL, 0, NULL, NULL))
		g->resumed_ns = qmp_event_time(q->q);
	if (qmp_call(q->q, "announce-self",
		     json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 5,
			       "step", 100),
		     NULL, &ignored))
		log_warn("pid %d: %s", g->pid, ignored.message);
	if (q->old_capabilities)
		qemu_migration_restore(q);
	else
		qemu_migration_set(q->q, NULL); /* loaded by a transhipd that is gone */
	return expect_running(q, f);
}
