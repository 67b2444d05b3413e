// SPDX-License-Identifier: MIT
/*
 * Making a QEMU's guest writes trackable from outside, and undoing it.
 *
 * Theory of operation
 *   A userfaultfd is made inside QEMU (uffd.h) and every mapping of every RAM region registered for
 *   asynchronous write protection. The descriptor inside QEMU stays open for the session and ours
 *   beside it; the data plane only gets /proc/PID/pagemap, since PAGEMAP_SCAN does the rest.
 *
 *   The caller gets what is needed to undo it from nothing, for its journal: the process (pid and
 *   start time), the number inside it, the ranges, and QEMU's migration capabilities as they are
 *   now, because pause() will change them and a later migration by QEMU itself with x-ignore-shared
 *   left on would lose the guest's memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "control/guest/uffd.h"
#include "lib/base/cleanup.h"
#include "lib/base/kernel_abi.h"
#include "lib/base/log.h"

#define RESIDUE_GREET_MS 300u

json_t *guest_qemu_residue(struct guest_qemu *q)
{
	const struct guest_description *d = &q->g.desc;
	json_t *migration = qemu_migration_get(q->q);
	json_t *ranges = json_array();

	for (uint32_t i = 0; i < d->nregions; i++)
		for (uint32_t k = 0; k < d->regions[i].nmappings; k++)
			json_array_append_new(ranges,
					      json_pack("[I, I, b]",
							(json_int_t)d->regions[i].mappings[k].start,
							(json_int_t)d->regions[i].mappings[k].end,
							d->regions[i].hugetlb));
	return json_pack("{s:s, s:i, s:I, s:i, s:s, s:o, s:o*}", "kind", "qemu", "pid", q->g.pid,
			 "start_time", (json_int_t)q->g.start_time, "userfaultfd", q->remote_uffd,
			 "qmp_path", q->qmp_path, "ranges", ranges, "migration", migration);
}

static void unregister(int fd, uint64_t start, uint64_t end, bool hugetlb)
{
	if (hugetlb)
		uffd_unregister(fd, start, end);
	else
		uffd_unregister_windows(fd, start, end);
}

static int register_all(struct guest_qemu *q, struct failure *f)
{
	const struct guest_description *d = &q->g.desc;
	int ret = uffd_api(q->uffd, UFFD_TRACK_FEATURES, f);

	for (uint32_t i = 0; !ret && i < d->nregions; i++)
		for (uint32_t k = 0; !ret && k < d->regions[i].nmappings; k++)
			ret = uffd_register_wp(q->uffd, d->regions[i].mappings[k].start,
					       d->regions[i].mappings[k].end, f);
	return ret;
}

int guest_qemu_arm(struct guest *g, enum ipc_tracker_kind *kind, int *fd, json_t **residue,
		   struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	char path[64];
	int ret;

	*fd = -1;
	if (residue)
		*residue = NULL;
	if (q->uffd >= 0)
		return failure_set(f, -EBUSY, "internal", NULL, "the VM is tracked already");
	snprintf(path, sizeof(path), "/proc/%d/pagemap", g->pid);
	AUTO_CLOSE int pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		return failure_set(f, -errno, "tracker-unavailable", NULL, "cannot open %s: %m",
				   path);
	ret = uffd_inside(g->pid, false, &q->uffd, &q->remote_uffd, f);
	if (ret) {
		q->uffd = -1;
		return ret;
	}
	ret = register_all(q, f);
	if (ret) {
		guest_qemu_disarm(g);
		return ret;
	}
	if (residue)
		*residue = guest_qemu_residue(q);
	*kind = IPC_TRACKER_PAGEMAP;
	*fd = fd_take(&pagemap);
	return 0;
}

void guest_qemu_disarm(struct guest *g)
{
	struct guest_qemu *q = guest_qemu_of(g);
	const struct guest_description *d = &g->desc;
	struct failure f = { 0 };

	if (q->uffd < 0)
		return;
	if (guest_alive(g)) {
		for (uint32_t i = 0; i < d->nregions; i++)
			for (uint32_t k = 0; k < d->regions[i].nmappings; k++)
				unregister(q->uffd, d->regions[i].mappings[k].start,
					   d->regions[i].mappings[k].end, d->regions[i].hugetlb);
		if (uffd_close_inside(g->pid, q->remote_uffd, q->uffd, &f) && guest_alive(g))
			log_warn("pid %d: the userfaultfd inside stays open: %s", g->pid,
				 f.message);
	}
	fd_close(&q->uffd);
	q->faults = false;
}

int guest_qemu_tracker_probe(char *why, size_t len)
{
	struct failure f = { 0 };
	int ret = uffd_probe(&f);

	snprintf(why, len, "%s", f.message);
	return ret;
}

/* --- after a crash ---------------------------------------------------------------------------- */

static void restore_migration(pid_t pid, const json_t *residue)
{
	const char *path = json_string_value(json_object_get(residue, "qmp_path"));
	struct failure f = { 0 };
	struct qmp *q;

	if (!path)
		return;
	/* A session that recovers holds the connection itself and restores through resume(). */
	if (qemu_connect(&q, pid, path, RESIDUE_GREET_MS, &f)) {
		log_debug("pid %d: migration capabilities: %s", pid, f.message);
		return;
	}
	qemu_migration_set(q, json_object_get(residue, "migration"));
	qmp_free(q);
}

static void close_residue(pid_t pid, const json_t *residue)
{
	int number = (int)json_integer_value(json_object_get(residue, "userfaultfd"));
	struct failure f = { 0 };
	const json_t *range;
	AUTO_CLOSE int fd = -1;
	size_t i;

	if (uffd_adopt(pid, number, &fd, &f)) {
		log_info("pid %d: no userfaultfd of ours inside: %s", pid, f.message);
		return;
	}
	json_array_foreach (json_object_get(residue, "ranges"), i, range)
		unregister(fd, (uint64_t)json_integer_value(json_array_get(range, 0)),
			   (uint64_t)json_integer_value(json_array_get(range, 1)),
			   json_is_true(json_array_get(range, 2)));
	if (uffd_close_inside(pid, number, fd, &f))
		log_warn("pid %d: the userfaultfd inside stays open: %s", pid, f.message);
	else
		log_info("pid %d: tracking left by an earlier transhipd was undone", pid);
}

void guest_qemu_disarm_residue(const json_t *residue)
{
	pid_t pid = (pid_t)json_integer_value(json_object_get(residue, "pid"));
	uint64_t start_time;

	if (proc_start_time(pid, &start_time) ||
	    start_time != (uint64_t)json_integer_value(json_object_get(residue, "start_time")))
		return; /* gone, and everything with it */
	close_residue(pid, residue);
	restore_migration(pid, residue);
}
