// SPDX-License-Identifier: MIT
/*
 * RAM that outlives its VMM; see source_ram.h.
 *
 * A file lives as long as somebody has it open: with these descriptors the VMM may end without that
 * a page is lost. Without them (transhipd was restarted) there are two ways to a file that the note
 * names: the mapping of a process that lives, which holds for a memfd too, and a path that still
 * leads to the same inode.
 */
#include "control/session/source_ram.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "control/session/vm_process.h"
#include "lib/base/cleanup.h"

static void close_all(struct source_ram *r)
{
	for (uint32_t i = 0; i < r->count; i++)
		fd_close(&r->fds[i]);
	free(r->fds);
	free(r->regions);
	r->fds = NULL;
	r->regions = NULL;
	r->count = 0;
	r->bytes = 0;
}

void source_ram_release(struct source_ram *r)
{
	close_all(r);
	json_decref(r->note);
	r->note = NULL;
}

static int make_room(struct source_ram *r, size_t n, struct failure *f)
{
	r->fds = calloc(n + 1, sizeof(*r->fds));
	r->regions = calloc(n + 1, sizeof(*r->regions));
	if (!r->fds || !r->regions) {
		close_all(r);
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	}
	r->count = (uint32_t)n;
	for (size_t i = 0; i < n; i++)
		r->fds[i] = -1;
	return 0;
}

/* --- from the VMM ----------------------------------------------------------------------------- */

static json_t *region_note(const struct guest_region *g, const struct stat *st)
{
	const struct guest_mapping none = { 0 }, *m = g->nmappings ? g->mappings : &none;

	return json_pack("{s:I, s:I, s:I, s:b, s:s, s:I, s:I, s:[I, I]}", "size",
			 (json_int_t)g->size, "file_offset", (json_int_t)g->file_offset,
			 "page_size", (json_int_t)g->page_size, "hugetlb", g->hugetlb, "path",
			 g->backing == GUEST_BACKING_FILE ? g->path : "", "inode",
			 (json_int_t)st->st_ino, "device", (json_int_t)st->st_dev, "mapping",
			 (json_int_t)m->start, (json_int_t)m->end);
}

int source_ram_open(struct source_ram *r, struct guest *g, struct failure *f)
{
	int err;

	if (r->count)
		return 0;
	err = make_room(r, g->desc.nregions, f);
	if (err)
		return err;
	json_decref(r->note);
	r->note = json_array();
	for (uint32_t i = 0; !err && i < r->count; i++) {
		const struct guest_region *from = &g->desc.regions[i];
		struct stat st = { 0 };

		r->regions[i] = (struct ipc_region){ .index = i,
						     .page_size = from->page_size,
						     .size = from->size,
						     .file_offset = from->file_offset,
						     .hugetlb = from->hugetlb };
		r->bytes += from->size;
		err = g->ops->open_ram(g, i, false, &r->fds[i], f);
		if (!err && fstat(r->fds[i], &st))
			err = failure_set(f, -errno, "internal", NULL, "fstat of RAM failed: %m");
		json_array_append_new(r->note, region_note(from, &st));
	}
	if (err)
		source_ram_release(r);
	return err;
}

/* --- from the note ---------------------------------------------------------------------------- */

static uint64_t number(const json_t *j, const char *member)
{
	return (uint64_t)json_integer_value(json_object_get(j, member));
}

/* A descriptor of the file that the note means, or -1. */
static int open_if_same(const char *path, const json_t *note)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || st.st_ino != number(note, "inode") ||
	    st.st_dev != number(note, "device"))
		return -1;
	return fd_take(&fd);
}

static int open_region(const json_t *note, pid_t pid, bool lives)
{
	const char *path = json_string_value(json_object_get(note, "path"));
	const json_t *mapping = json_object_get(note, "mapping");
	char mapped[96];
	int fd = -1;

	snprintf(mapped, sizeof(mapped), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid,
		 (uint64_t)json_integer_value(json_array_get(mapping, 0)),
		 (uint64_t)json_integer_value(json_array_get(mapping, 1)));
	if (lives)
		fd = open_if_same(mapped, note);
	if (fd < 0 && path && *path)
		fd = open_if_same(path, note);
	return fd;
}

int source_ram_reopen(struct source_ram *r, pid_t pid, uint64_t start_time, struct failure *f)
{
	bool lives = vm_process_lives(pid, start_time);
	const json_t *note;
	size_t i;
	int err;

	if (r->count)
		return 0;
	if (!json_array_size(r->note))
		return failure_set(f, -ENODATA, "journal", NULL,
				   "Where the VM's RAM is has not been written down.");
	err = make_room(r, json_array_size(r->note), f);
	json_array_foreach (r->note, i, note) {
		if (err)
			break;
		r->regions[i] = (struct ipc_region){
			.index = (uint32_t)i,
			.page_size = (uint32_t)number(note, "page_size"),
			.size = number(note, "size"),
			.file_offset = number(note, "file_offset"),
			.hugetlb = json_is_true(json_object_get(note, "hugetlb"))
		};
		r->bytes += r->regions[i].size;
		r->fds[i] = open_region(note, pid, lives);
		if (r->fds[i] >= 0)
			continue;
		err = lives ? failure_set(f, -EBUSY, "internal", NULL,
					  "The RAM of the VM (process %d) cannot be opened.", pid)
			    : failure_set(f, -ENODATA, "vm-gone", NULL,
					  "The VM (process %d) has ended, and its RAM with it.",
					  pid);
	}
	if (err)
		close_all(r);
	return err;
}
