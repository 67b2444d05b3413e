// SPDX-License-Identifier: MIT
/*
 * Post-copy at the destination after a crash of its transhipd; see destination_postcopy.c for the
 * theory: what another transhipd began is taken over, or undone, from what the journal says.
 */
#include "control/session/destination_postcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/guest/uffd.h"
#include "control/session/arming.h"
#include "control/session/postcopy_figures.h"
#include "control/session/session_destination.h"
#include "control/session/vm_process.h"
#include "lib/base/cleanup.h"
#include "lib/base/log.h"

/* RAM as the VM has it mapped: its monitor is not asked. */
static int open_ram(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	size_t n = json_array_size(json_object_get(p->plan, "regions")), i;
	const json_t *r;
	char path[96];

	destination_postcopy_close_ram(p);
	p->ram = calloc(n + 1, sizeof(*p->ram));
	if (!p->ram)
		return failure_set(&d->f, -ENOMEM, "internal", NULL, "out of memory");
	for (i = 0; i < n; i++)
		p->ram[i] = -1;
	json_array_foreach (json_object_get(p->plan, "regions"), i, r) {
		const json_t *first = json_array_get(json_object_get(r, "mappings"), 0);

		snprintf(path, sizeof(path), "/proc/%d/map_files/%llx-%llx", (int)d->pid,
			 (unsigned long long)json_integer_value(json_array_get(first, 0)),
			 (unsigned long long)json_integer_value(json_array_get(first, 1)));
		p->ram[i] = open(path, O_RDWR | O_CLOEXEC);
		if (p->ram[i] < 0)
			return failure_set(&d->f, -errno, "internal", NULL, "%s: %m", path);
	}
	return 0;
}

int destination_postcopy_take_over(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	const char *path = json_string_value(json_object_get(p->plan, "file"));
	int number = (int)json_integer_value(json_object_get(p->residue, "userfaultfd"));
	int err = open_ram(d);

	if (!err)
		err = uffd_adopt(d->pid, number, &p->uffd, &d->f);
	if (err)
		return err;
	fd_close(&p->missing_fd);
	fd_close(&p->pidfd);
	p->missing_fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	p->pidfd = (int)syscall(SYS_pidfd_open, d->pid, 0);
	if (p->missing_fd < 0 || p->pidfd < 0)
		return failure_set(&d->f, -errno, "internal", NULL, "%s: %m", path ? path : "");
	return 0;
}

/* Before anybody serves: what there is, and what it has cost. */
static void read_figures(struct destination *d)
{
	struct destination_postcopy *p = &d->post;
	const json_t *regions = json_object_get(p->plan, "regions"), *r;
	size_t i;

	{
		SCOPED_LOCK(&d->s->lock);
		d->s->progress.total_bytes = 0;
		json_array_foreach ((json_t *)regions, i, r)
			d->s->progress.total_bytes +=
				(uint64_t)json_integer_value(json_object_get(r, "size"));
	}
	if (p->missing_fd >= 0 && !postcopy_figures_of_file(p->missing_fd, regions, &p->figures))
		session_note_postcopy(d->s, &p->figures, true);
}

int destination_postcopy_recover(struct destination *d, const json_t *content)
{
	struct destination_postcopy *p = &d->post;
	json_t *plan = json_object_get(content, "postcopy");

	if (!json_is_object(plan))
		return 0;
	{
		SCOPED_LOCK(&d->s->lock);
		d->s->postcopy = true;
	}
	p->plan = json_incref(plan);
	p->residue = json_incref(json_object_get(content, "residue"));
	if (!vm_process_lives(d->pid, d->start_time))
		return -ESRCH;
	if (json_is_true(json_object_get(content, "postcopy_complete"))) {
		p->on = p->complete = true;
		destination_postcopy_end(d);
		SCOPED_LOCK(&d->s->lock);
		d->s->postcopy_complete = true;
		return 0;
	}
	p->on = p->handed_over = p->begun = p->lost = true;
	p->begun_ns = journal_moment(content, "runs_since");
	/* whatever cannot be taken over now may be when the source asks for connections */
	if (destination_postcopy_take_over(d))
		log_error("%.8s: post-copy cannot be taken over: %s", d->s->id, d->f.message);
	failure_clear(&d->f);
	read_figures(d);
	return 1;
}

int destination_postcopy_reach(struct destination *d)
{
	struct failure why = { 0 };

	if (d->g)
		return 0;
	if (!d->post.serving || vm_process_open(&d->g, d->pid, d->start_time, &why))
		return failure_set(&d->f, -EBUSY, "data-lost", NULL,
				   "The VM cannot be spoken to before its pages are served.");
	return 0;
}

void destination_postcopy_undo(struct destination *d, const json_t *content)
{
	const char *path =
		json_string_value(json_object_get(json_object_get(content, "postcopy"), "file"));
	const json_t *residue = json_object_get(content, "residue");

	/* a VM that was launched is ended, and all of it with it */
	if (path)
		unlink(path);
	if (!json_is_object(json_object_get(content, "arming")) || d->launched)
		return;
	if (json_is_object(residue))
		guest_disarm_residue(residue);
	else
		arming_undo(json_object_get(content, "arming"));
}
