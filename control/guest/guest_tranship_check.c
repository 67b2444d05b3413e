// SPDX-License-Identifier: MIT
/*
 * Whether a guest whose VMM links libtranship can be moved: its state, and that every writer of its
 * RAM is one that the tracker sees. The tracker sees what goes through the one mapping that the VMM
 * named; so that mapping must be there, shared, and the only writable one on this host.
 */
#include <string.h>
#include <unistd.h>

#include "control/admission/preflight.h"
#include "control/guest/guest_tranship.h"
#include "control/guest/proc_maps.h"

struct search {
	const struct guest *g;
	const struct guest_region *r;
	uint64_t device;  /* of the region's file as the maps name it: not always st_dev */
	uint64_t covered; /* bytes of the region that the named mapping holds so far */
	bool elsewhere;	  /* the VMM has a second writable mapping of it */
	pid_t writer;	  /* another process that has one */
};

/* The device number, from the mapping at the region's address; 0 while it is not known. */
static int find_device(const struct proc_map *m, void *arg)
{
	struct search *s = arg;

	if (m->end <= s->r->mappings[0].start)
		return 0;
	if (m->start <= s->r->mappings[0].start && m->shared && m->inode == s->r->inode)
		s->device = m->device;
	return 1;
}

static bool maps_region(const struct proc_map *m, const struct search *s)
{
	return m->shared && m->inode == s->r->inode && m->device == s->device &&
	       m->offset < s->r->file_offset + s->r->size &&
	       m->offset + (m->end - m->start) > s->r->file_offset;
}

static int look_at_own(const struct proc_map *m, void *arg)
{
	struct search *s = arg;
	uint64_t start = s->r->mappings[0].start, end = s->r->mappings[0].end;

	if (!maps_region(m, s))
		return 0;
	/* In order of address, each where the one before ended and at its offset. */
	if (m->start <= start + s->covered && m->end > start + s->covered &&
	    s->covered < s->r->size && m->offset - s->r->file_offset == m->start - start)
		s->covered = (m->end < end ? m->end : end) - start;
	else if (m->write)
		s->elsewhere = true;
	return 0;
}

static int writes_region(const struct proc_map *m, void *arg)
{
	return m->write && maps_region(m, arg);
}

static int look_for_writer(pid_t pid, void *arg)
{
	struct search *s = arg;
	char name[64];

	if (pid == s->g->pid || pid == getpid() || proc_maps_each(pid, writes_region, s) != 1)
		return 0;
	/* Of an arriving session that has just ended; while one lives its VM is not moved on. */
	proc_exe_name(pid, name, sizeof(name));
	if (!strcmp(name, "tranship-dataplane"))
		return 0;
	s->writer = pid;
	return 1;
}

static int check_region(struct guest *g, const struct guest_region *r, json_t *checks,
			struct failure *f)
{
	struct search s = { .g = g, .r = r };
	int err = proc_maps_each(g->pid, find_device, &s);

	if (err >= 0 && s.device)
		err = proc_maps_each(g->pid, look_at_own, &s);
	if (err < 0)
		return failure_set(f, err, "vm-gone", NULL, "/proc/%d/maps: %s", g->pid,
				   strerror(-err));
	if (s.covered != r->size)
		check_add(checks, "ram", "", CHECK_ERROR, "ram-not-shared",
			  "The VMM must map its RAM shared, where it says.",
			  "RAM region %s is not mapped shared at the address that the VMM gave",
			  r->id);
	else if (s.elsewhere)
		check_add(checks, "writers", "", CHECK_ERROR, "outside-writer",
			  "The VMM must map its RAM once.",
			  "RAM region %s is mapped at a second address, whose writes nobody sees",
			  r->id);
	else if (proc_each(look_for_writer, &s) == 1)
		check_add(checks, "writers", "", CHECK_ERROR, "outside-writer",
			  "End that process or detach the device that it serves.",
			  "process %d maps RAM region %s writable: what it writes cannot be seen",
			  s.writer, r->id);
	else
		check_add(checks, "ram", "", CHECK_OK, NULL, NULL,
			  "RAM region %s is shared and has one writer", r->id);
	return 0;
}

int guest_tranship_check(struct guest *g, json_t *checks, struct failure *f)
{
	int err = 0;

	if (strcmp(g->desc.state, "running") && strcmp(g->desc.state, "paused"))
		check_add(checks, "state", "", CHECK_ERROR, "vm-not-running",
			  "Only a running or paused guest can be moved.", "the guest's state is %s",
			  g->desc.state);
	for (uint32_t i = 0; !err && i < g->desc.nregions; i++)
		err = check_region(g, &g->desc.regions[i], checks, f);
	return err;
}
