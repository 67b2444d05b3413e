// SPDX-License-Identifier: MIT
/* Notes on a VM that is about to be armed; see arming.h. */
#include "control/session/arming.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/session/vm_process.h"

/* The numbers of a process' userfaultfds. */
static json_t *userfaultfds(pid_t pid)
{
	json_t *numbers = json_array();
	char dir[64], path[384], target[64];
	struct dirent *e;
	ssize_t n;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = '\0';
		if (!strcmp(target, "anon_inode:[userfaultfd]"))
			json_array_append_new(numbers, json_integer(atoi(e->d_name)));
	}
	if (d)
		closedir(d);
	return numbers;
}

static json_t *ranges(const struct guest_description *d)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < d->nregions; i++)
		for (uint32_t k = 0; k < d->regions[i].nmappings; k++)
			json_array_append_new(list,
					      json_pack("[I, I, b]",
							(json_int_t)d->regions[i].mappings[k].start,
							(json_int_t)d->regions[i].mappings[k].end,
							d->regions[i].hugetlb));
	return list;
}

json_t *arming_note(const struct guest *g)
{
	/* libtranship's userfaultfd goes with the connection */
	if (strcmp(g->ops->kind, "qemu"))
		return NULL;
	return json_pack("{s:s, s:i, s:I, s:o, s:o}", "kind", g->ops->kind, "pid", (int)g->pid,
			 "start_time", (json_int_t)g->start_time, "ranges", ranges(&g->desc),
			 "userfaultfds", userfaultfds(g->pid));
}

static bool contains(const json_t *numbers, json_int_t number)
{
	const json_t *each;
	size_t i;

	json_array_foreach ((json_t *)numbers, i, each)
		if (json_integer_value(each) == number)
			return true;
	return false;
}

void arming_undo(const json_t *note)
{
	pid_t pid = (pid_t)json_integer_value(json_object_get(note, "pid"));
	uint64_t start = (uint64_t)json_integer_value(json_object_get(note, "start_time"));
	json_t *now, *each;
	size_t i;

	if (!vm_process_lives(pid, start))
		return;
	now = userfaultfds(pid);
	json_array_foreach (now, i, each) {
		json_t *residue;

		if (contains(json_object_get(note, "userfaultfds"), json_integer_value(each)))
			continue;
		residue = json_copy((json_t *)note);
		json_object_set(residue, "userfaultfd", each);
		guest_disarm_residue(residue);
		json_decref(residue);
	}
	json_decref(now);
}
