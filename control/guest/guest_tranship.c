// SPDX-License-Identifier: MIT
/*
 * A guest whose VMM links libtranship: struct guest_ops over lib/tranship_proto.h.
 *
 * Theory of operation
 *   The VMM holds its own userfaultfd (arm asks for it) and decides by itself what becomes of a
 *   paused guest when this connection ends; so there is nothing of ours to leave behind in it, and
 *   no residue for the journal. The data plane reads /proc/PID/pagemap as for QEMU.
 *
 *   pause keeps a duplicate of the state descriptor until save hands it over, because only then may
 *   the VMM write to it. load_begin asks and load_wait collects the answer: the VMM reads the state
 *   while the caller's data plane writes it.
 *
 *   A VMM may be another user's process: sizes, page sizes and addresses that it claims are checked
 *   against the file it hands over, and, before a move, its mappings (guest_tranship_check.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include <unistd.h>

#include "control/guest/guest.h"
#include "control/guest/guest_tranship.h"
#include "control/guest/proc_maps.h"
#include "control/guest/tranship_link.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define GREET_MS   5000 /* a VMM whose service thread is in a callback answers later */
#define REQUEST_MS 10000
#define STOP_MS	   30000 /* drains block I/O */
#define STATE_MS   60000 /* saves or loads the device state */
#define QUIT_MS	   30000

struct guest_tranship {
	struct guest base;
	struct tranship_link link;
	int state_fd; /* a copy of what is saved to, from pause to the end of save; or -1 */
};

static struct guest_tranship *from_guest(struct guest *g)
{
	return (struct guest_tranship *)g;
}

/* QEMU's words where it has one, so that they read alike in a list. */
static const char *state_word(const struct tranship_description *d)
{
	switch (d->state) {
	case TRANSHIP_RUNNING:
		return d->flags & TRANSHIP_FLAG_RUNNING ? "running" : "paused";
	case TRANSHIP_SAVED:
		return "postmigrate";
	case TRANSHIP_WAITING:
		return "inmigrate";
	case TRANSHIP_BROKEN:
		return "load-failed";
	default:
		return "paused";
	}
}

/* ---- description ------------------------------------------------------------------------- */

static int bad_region(const struct guest_tranship *t, const struct tranship_region_info *i,
		      const char *what, struct failure *f)
{
	return failure_set(f, -EINVAL, "ram-unsupported", "The VMM registers it wrongly.",
			   "RAM region %s of the VMM at %s: %s", i->id, t->link.path, what);
}

/* What the VMM said of a region against the file that it handed over. */
static int check_region(const struct guest_tranship *t, const struct tranship_region_info *i,
			int fd, struct failure *f)
{
	uint64_t mask = (uint64_t)i->page_size - 1;
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) || fstatfs(fd, &fs) || !S_ISREG(st.st_mode))
		return bad_region(t, i, "it is not in a file", f);
	if (i->page_size < 4096 || (i->page_size & mask) || !i->size || (i->size & mask) ||
	    (i->file_offset & mask) || (i->address & mask) || i->address + i->size < i->address)
		return bad_region(t, i, "size, offset or address is not aligned", f);
	if ((uint64_t)st.st_size < i->size || (uint64_t)st.st_size - i->size < i->file_offset)
		return bad_region(t, i, "it reaches beyond the end of its file", f);
	if (i->page_size != (fs.f_type == HUGETLBFS_MAGIC ? (uint32_t)fs.f_bsize : 4096))
		return bad_region(t, i, "its page size is not that of the file", f);
	return 0;
}

/* The path by which others reach the same file, or "". */
static void file_path(int fd, const struct stat *st, char *path, size_t len)
{
	char link[64];
	struct stat now;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, len - 1);
	path[n > 0 ? n : 0] = '\0';
	if (path[0] != '/' || stat(path, &now) || now.st_ino != st->st_ino ||
	    now.st_dev != st->st_dev)
		path[0] = '\0';
}

static int fill_region(struct guest_region *r, const struct tranship_region_info *i, int fd)
{
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) || fstatfs(fd, &fs))
		return -errno;
	snprintf(r->id, sizeof(r->id), "%s", i->id);
	r->size = i->size;
	r->page_size = i->page_size;
	r->file_offset = i->file_offset;
	r->hugetlb = fs.f_type == HUGETLBFS_MAGIC;
	r->share = true;
	r->inode = st.st_ino;
	r->device = st.st_dev;
	file_path(fd, &st, r->path, sizeof(r->path));
	r->backing = r->path[0] ? GUEST_BACKING_FILE : GUEST_BACKING_MEMFD;
	r->mappings = calloc(1, sizeof(*r->mappings));
	if (!r->mappings)
		return -ENOMEM;
	r->mappings[0] = (struct guest_mapping){ .start = i->address, .end = i->address + i->size };
	r->nmappings = 1;
	return 0;
}

static int ask_region(struct guest_tranship *t, uint32_t index, struct tranship_region_info *info,
		      int *fd, struct failure *f)
{
	const struct tranship_index body = { .index = index };
	int err = tranship_link_call(&t->link, TRANSHIP_REGION, &body, -1, info, fd, REQUEST_MS,
				     "vmm-failed", f);

	if (err)
		return err;
	info->id[sizeof(info->id) - 1] = '\0';
	err = check_region(t, info, *fd, f);
	if (err)
		fd_close(fd);
	return err;
}

static int describe_regions(struct guest_tranship *t, uint32_t count, struct failure *f)
{
	struct guest_description *d = &t->base.desc;
	int err = 0;

	d->regions = calloc(count, sizeof(*d->regions));
	if (!d->regions)
		return -ENOMEM;
	for (uint32_t i = 0; !err && i < count; i++) {
		struct tranship_region_info info;
		AUTO_CLOSE int fd = -1;

		err = ask_region(t, i, &info, &fd, f);
		if (!err)
			err = fill_region(&d->regions[i], &info, fd);
		if (err)
			break;
		d->nregions++;
		d->ram_bytes += info.size;
	}
	return err;
}

static int fill_description(struct guest_tranship *t, const struct tranship_description *from,
			    struct failure *f)
{
	struct guest_description *d = &t->base.desc;
	int err;

	guest_description_release(d);
	memset(d, 0, sizeof(*d));
	snprintf(d->name, sizeof(d->name), "%s", from->name);
	snprintf(d->kind, sizeof(d->kind), "tranship");
	snprintf(d->version, sizeof(d->version), "%s", from->vmm_version);
	snprintf(d->machine, sizeof(d->machine), "%s", from->machine);
	snprintf(d->cpu_model, sizeof(d->cpu_model), "%s", from->cpu_model);
	snprintf(d->accel, sizeof(d->accel), "%s", from->accel);
	snprintf(d->state, sizeof(d->state), "%s", state_word(from));
	d->cpus = from->cpus;
	d->running = from->flags & TRANSHIP_FLAG_RUNNING;
	d->needs_dma_barrier = from->flags & TRANSHIP_FLAG_DMA;
	d->argv = calloc(1, sizeof(*d->argv));
	d->extra = json_pack("{s:s}", "vmm", from->vmm);
	err = d->argv && d->extra ? describe_regions(t, from->regions, f) : -ENOMEM;
	return err ? failure_set(f, err, "internal", NULL, "the VM at %s cannot be described: %s",
				 t->link.path, strerror(-err))
		   : 0;
}

static int tranship_describe(struct guest *g, struct failure *f)
{
	struct guest_tranship *t = from_guest(g);
	struct tranship_description d;
	int err = tranship_link_call(&t->link, TRANSHIP_DESCRIBE, NULL, -1, &d, NULL, REQUEST_MS,
				     "vmm-failed", f);

	return err ? err : fill_description(t, &d, f);
}

/* ---- source and destination -------------------------------------------------------------- */

static int tranship_open_ram(struct guest *g, uint32_t i, bool writable, int *fd, struct failure *f)
{
	struct guest_tranship *t = from_guest(g);
	struct tranship_region_info info;
	AUTO_CLOSE int theirs = -1;
	char path[64];
	int err = ask_region(t, i, &info, &theirs, f);

	if (err)
		return err;
	/* Anew, for the access that this side may have and with a file position of its own. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", theirs);
	*fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	err = -errno;
	return failure_set(f, err, "ram-unsupported", NULL, "RAM region %s cannot be opened: %s",
			   info.id, strerror(-err));
}

static int simple(struct guest *g, uint16_t type, int timeout_ms, const char *code,
		  struct failure *f)
{
	return tranship_link_call(&from_guest(g)->link, type, NULL, -1, NULL, NULL, timeout_ms,
				  code, f);
}

static void tranship_disarm(struct guest *g)
{
	simple(g, TRANSHIP_DISARM, STOP_MS, "vmm-failed", NULL);
}

static int tranship_arm(struct guest *g, enum ipc_tracker_kind *kind, int *fd, json_t **residue,
			struct failure *f)
{
	struct guest_tranship *t = from_guest(g);
	struct tranship_armed armed;
	char path[64];
	int err;

	if (residue)
		*residue = NULL;
	err = tranship_link_call(&t->link, TRANSHIP_ARM, NULL, -1, &armed, NULL, REQUEST_MS,
				 "tracker-unavailable", f);
	if (err)
		return err;
	if (armed.tracker != TRANSHIP_TRACKER_PAGEMAP) {
		tranship_disarm(g);
		return failure_set(f, -EOPNOTSUPP, "tracker-unavailable", NULL,
				   "the VMM offers a tracker (%u) that is not known here",
				   armed.tracker);
	}
	snprintf(path, sizeof(path), "/proc/%d/pagemap", g->pid);
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd < 0) {
		err = -errno;
		tranship_disarm(g);
		return failure_set(f, err, "tracker-unavailable", NULL, "%s: %s", path,
				   strerror(-err));
	}
	*kind = IPC_TRACKER_PAGEMAP;
	return 0;
}

/* The VMM itself remembers what RESUME has to restore; we are told for the destination's sake. */
static int tranship_stop(struct guest *g, struct failure *f)
{
	struct tranship_description d;
	int err = tranship_link_call(&from_guest(g)->link, TRANSHIP_DESCRIBE, NULL, -1, &d, NULL,
				     STOP_MS, "vmm-failed", f);

	if (err)
		return err;
	if (d.state == TRANSHIP_RUNNING)
		g->was_running = d.flags & TRANSHIP_FLAG_RUNNING;
	return simple(g, TRANSHIP_STOP, STOP_MS, "vmm-failed", f);
}

static int tranship_resume(struct guest *g, struct failure *f)
{
	struct guest_tranship *t = from_guest(g);

	/* a VMM that is writing its state to somebody who does not read hears nothing */
	if (t->state_fd >= 0)
		shutdown(t->state_fd, SHUT_RDWR);
	fd_close(&t->state_fd);
	return simple(g, TRANSHIP_RESUME, STOP_MS, "vmm-failed", f);
}

static int tranship_pause(struct guest *g, int state_fd, struct failure *f)
{
	struct guest_tranship *t = from_guest(g);
	int err;

	fd_close(&t->state_fd);
	t->state_fd = fcntl(state_fd, F_DUPFD_CLOEXEC, 3);
	if (t->state_fd < 0) {
		err = -errno;
		return failure_set(f, err, "internal", NULL, "dup: %s", strerror(-err));
	}
	err = tranship_stop(g, f);
	if (err)
		fd_close(&t->state_fd);
	return err;
}

static int tranship_save(struct guest *g, struct failure *f)
{
	struct guest_tranship *t = from_guest(g);
	uint64_t now = clock_ns();
	uint64_t left = g->save_by_ns > now ? (g->save_by_ns - now) / NSEC_PER_MSEC + 1 : 1;
	int limit = g->save_by_ns && left < STATE_MS ? (int)left : STATE_MS, err;

	if (t->state_fd < 0)
		return failure_set(f, -EINVAL, "internal", NULL, "save without pause");
	err = tranship_link_call(&t->link, TRANSHIP_SAVE, NULL, t->state_fd, NULL, NULL, limit,
				 "state-failed", f);
	/* the reader's end comes with the last copy; after a failure see resume */
	if (!err)
		fd_close(&t->state_fd);
	return err;
}

static int tranship_quit(struct guest *g, struct failure *f)
{
	struct pollfd gone = { .fd = g->pidfd, .events = POLLIN };
	struct failure why = { 0 };
	int err = simple(g, TRANSHIP_QUIT, REQUEST_MS, "vmm-failed", &why);

	/* it may have ended before its answer was out, or before we asked */
	if (poll(&gone, 1, err && err != -ECONNRESET && err != -EPIPE ? 0 : QUIT_MS) > 0)
		return 0;
	if (err && err != -ECONNRESET && err != -EPIPE && f) {
		*f = failure_is_set(f) ? *f : why;
		return err;
	}
	return failure_set(f, -ETIMEDOUT, "vmm-failed", "End it by hand.",
			   "the VMM at %s (pid %d) did not end", from_guest(g)->link.path, g->pid);
}

static int tranship_incoming(struct guest *g, struct failure *f)
{
	return simple(g, TRANSHIP_INCOMING, REQUEST_MS, "incoming-not-waiting", f);
}

static int tranship_load_begin(struct guest *g, int state_fd, struct failure *f)
{
	return tranship_link_ask(&from_guest(g)->link, TRANSHIP_LOAD, NULL, state_fd, f);
}

static int tranship_load_wait(struct guest *g, struct failure *f)
{
	return tranship_link_wait(&from_guest(g)->link, TRANSHIP_LOAD, NULL, NULL, STATE_MS,
				  "state-failed", f);
}

static int tranship_start_guest(struct guest *g, struct failure *f)
{
	return simple(g, TRANSHIP_START, STOP_MS, "vmm-failed", f);
}

static int tranship_guard_fd(struct guest *g)
{
	return from_guest(g)->link.sock;
}

static void tranship_free_guest(struct guest *g)
{
	struct guest_tranship *t = from_guest(g);

	tranship_link_close(&t->link);
	fd_close(&t->state_fd);
	fd_close(&g->pidfd);
	guest_description_release(&g->desc);
	free(t);
}

/* Its protocol names no threads. */
static int tranship_throttle(struct guest *g, const char *owner, struct throttle **out,
			     struct failure *f)
{
	(void)g;
	(void)owner;
	*out = NULL;
	return failure_set(f, -EOPNOTSUPP, "throttle-unavailable", NULL,
			   "The VM's processors cannot be slowed down: a VMM with libtranship does "
			   "not say which threads they are.");
}

static int tranship_postcopy(struct guest *g, int *fd, json_t **residue, struct failure *f)
{
	(void)g;
	*fd = -1;
	*residue = NULL;
	return failure_set(f, -EOPNOTSUPP, "unsupported-option", "Use --mode precopy.",
			   "A VMM with libtranship cannot be post-copied in this version.");
}

static const struct guest_ops tranship_ops = {
	.kind = "tranship",
	.describe = tranship_describe,
	.check = guest_tranship_check,
	.open_ram = tranship_open_ram,
	.arm = tranship_arm,
	.disarm = tranship_disarm,
	.postcopy = tranship_postcopy,
	.stop = tranship_stop,
	.cont = tranship_resume,
	.pause = tranship_pause,
	.save = tranship_save,
	.resume = tranship_resume,
	.throttle = tranship_throttle,
	.quit = tranship_quit,
	.incoming = tranship_incoming,
	.load_begin = tranship_load_begin,
	.load_wait = tranship_load_wait,
	.start = tranship_start_guest,
	.guard_fd = tranship_guard_fd,
	.free = tranship_free_guest,
};

/* The process behind the socket, pinned so that its number cannot become another's. */
static int identify(struct guest_tranship *t, struct failure *f)
{
	struct guest *g = &t->base;
	int err = 0;

	g->pid = t->link.pid;
	g->pidfd = g->pid > 0 ? (int)syscall(SYS_pidfd_open, g->pid, 0) : -1;
	if (g->pidfd < 0)
		err = g->pid > 0 ? -errno : -ESRCH;
	if (!err)
		err = proc_start_time(g->pid, &g->start_time);
	return err ? failure_set(f, err, "vm-not-found", NULL,
				 "the process behind %s cannot be seen from here: %s", t->link.path,
				 strerror(-err))
		   : 0;
}

int guest_tranship_open(struct guest **out, const char *socket_path, struct failure *f)
{
	struct guest_tranship *t = calloc(1, sizeof(*t));
	struct tranship_description d;
	int err;

	if (!t)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	t->base.ops = &tranship_ops;
	t->base.pidfd = t->state_fd = -1;
	t->base.was_running = true;
	err = tranship_link_open(&t->link, socket_path, &d, GREET_MS, f);
	if (err) {
		free(t);
		return err;
	}
	err = identify(t, f);
	if (!err)
		err = fill_description(t, &d, f);
	if (err) {
		guest_free(&t->base);
		return err;
	}
	*out = &t->base;
	return 0;
}
