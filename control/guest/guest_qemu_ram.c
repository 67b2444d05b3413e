// SPDX-License-Identifier: MIT
/*
 * The RAM of a QEMU guest: which memory backends there are, which file is behind each, and where
 * QEMU maps it.
 *
 * Theory of operation
 *   QMP lists the backends and says what each was made of; /proc/PID/maps has the mappings. The two
 *   are joined by the file: a backend with a mem-path by that file's device and inode number (or by
 *   the name, if it was removed since), a memfd by its name and size. Several memfds of one size
 *   look alike; there QEMU itself is asked for the host address of a guest address in each ("info
 *   mtree", "gpa2hva"), because taking one for another would swap the guest's memory.
 *
 *   Files are identified by stat(2) through /proc/PID/map_files, since on some file systems (btrfs,
 *   overlayfs) the device in /proc/PID/maps is another one than stat(2) gives; the latter is kept
 *   beside it to recognise the same file in other processes' maps.
 *
 *   A backend whose file or mapping was not found has no mappings; check() refuses it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "control/guest/guest_qemu_internal.h"
#include "control/guest/proc_maps.h"
#include "lib/base/cleanup.h"

#define HUGETLBFS_MAGIC_ 0x958458f6
#define DELETED		 " (deleted)"

/* A shared file mapping of the VMM. */
struct vma {
	uint64_t start, end, offset;
	uint64_t map_device, inode;
	uint64_t device; /* stat(2)'s */
	bool regular, hugetlb;
	uint32_t page_size;
	bool used;  /* a region has it */
	char *path; /* owned */
};

struct vmas {
	struct vma *items;
	size_t count, size;
};

static void vmas_release(struct vmas *v)
{
	for (size_t i = 0; i < v->count; i++)
		free(v->items[i].path);
	free(v->items);
}

static int note_vma(const struct proc_map *m, void *arg)
{
	struct vmas *v = arg;
	struct vma *n;

	if (!m->shared || !m->inode || m->path[0] != '/')
		return 0;
	if (v->count == v->size) {
		size_t size = v->size ? v->size * 2 : 64;
		void *bigger = realloc(v->items, size * sizeof(*v->items));

		if (!bigger)
			return -ENOMEM;
		v->items = bigger;
		v->size = size;
	}
	n = &v->items[v->count];
	*n = (struct vma){ .start = m->start,
			   .end = m->end,
			   .offset = m->offset,
			   .map_device = m->device,
			   .inode = m->inode,
			   .path = strdup(m->path) };
	if (!n->path)
		return -ENOMEM;
	v->count++;
	return 0;
}

static int open_map_file(pid_t pid, uint64_t start, uint64_t end, int flags)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, start, end);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* What stat(2) and statfs(2) say; a mapping of which they say nothing stays not regular. */
static void identify(pid_t pid, struct vma *v)
{
	AUTO_CLOSE int fd = open_map_file(pid, v->start, v->end, O_PATH);
	struct statfs fs;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || fstatfs(fd, &fs))
		return;
	v->device = st.st_dev;
	v->regular = S_ISREG(st.st_mode);
	v->hugetlb = (uint32_t)fs.f_type == HUGETLBFS_MAGIC_;
	v->page_size = v->hugetlb ? (uint32_t)fs.f_bsize : 4096;
}

static int read_vmas(pid_t pid, struct vmas *v)
{
	int ret = proc_maps_each(pid, note_vma, v);

	for (size_t i = 0; !ret && i < v->count; i++) {
		struct vma *n = &v->items[i];

		/* Neighbours are often pieces of one file. */
		if (i && n->inode == n[-1].inode && n->map_device == n[-1].map_device) {
			n->device = n[-1].device;
			n->regular = n[-1].regular;
			n->hugetlb = n[-1].hugetlb;
			n->page_size = n[-1].page_size;
		} else {
			identify(pid, n);
		}
	}
	return ret;
}

/* --- the backends ----------------------------------------------------------------------------- */

/* What QOM says of one backend beside what goes into struct guest_region. */
struct backend {
	char type[64];
	char mem_path[PATH_MAX];
	bool hugetlb;
	uint64_t offset; /* of the region in its file (QEMU >= 8.2) */
};

static void take_text(struct qmp *q, const char *object, const char *property, char *buf,
		      size_t len)
{
	json_t *v = qemu_qom_get(q, object, property);

	snprintf(buf, len, "%s", json_is_string(v) ? json_string_value(v) : "");
	json_decref(v);
}

static bool take_bool(struct qmp *q, const char *object, const char *property)
{
	json_t *v = qemu_qom_get(q, object, property);
	bool value = json_is_true(v);

	json_decref(v);
	return value;
}

static uint64_t take_number(struct qmp *q, const char *object, const char *property)
{
	json_t *v = qemu_qom_get(q, object, property);
	uint64_t value = json_is_integer(v) ? (uint64_t)json_integer_value(v) : 0;

	json_decref(v);
	return value;
}

static void read_backend(struct guest_qemu *q, const char *id, struct guest_region *r,
			 struct backend *b)
{
	char object[160];

	snprintf(object, sizeof(object), "/objects/%s", id);
	snprintf(r->id, sizeof(r->id), "%s", id);
	take_text(q->q, object, "type", b->type, sizeof(b->type));
	r->size = take_number(q->q, object, "size");
	r->share = take_bool(q->q, object, "share");
	r->prealloc = take_bool(q->q, object, "prealloc");
	r->page_size = 4096;
	if (!strcmp(b->type, "memory-backend-file")) {
		r->backing = GUEST_BACKING_FILE;
		take_text(q->q, object, "mem-path", b->mem_path, sizeof(b->mem_path));
		b->offset = take_number(q->q, object, "offset");
	} else if (!strcmp(b->type, "memory-backend-memfd")) {
		r->backing = GUEST_BACKING_MEMFD;
		b->hugetlb = take_bool(q->q, object, "hugetlb");
	} else {
		/* memory-backend-ram,share=on and -shm are unnamed shared memory, as a memfd is. */
		r->backing = r->share ? GUEST_BACKING_MEMFD : GUEST_BACKING_PRIVATE;
	}
}

/* --- joining ---------------------------------------------------------------------------------- */

/* "/dev/hugepages/qemu_back_mem.ram0.abcdef (deleted)" for mem-path=/dev/hugepages and id ram0. */
static bool is_in_directory(const struct vma *v, const char *dir, const char *id)
{
	size_t len = strlen(dir), id_len = strlen(id);
	const char *p;

	while (len && dir[len - 1] == '/')
		len--;
	if (strncmp(v->path, dir, len) || strncmp(v->path + len, "/qemu_back_mem.", 15))
		return false;
	p = v->path + len + 15;
	if (!strncmp(p, "_objects_", 9))
		p += 9;
	return !strncmp(p, id, id_len) && p[id_len] == '.';
}

static bool is_removed_file(const struct vma *v, const char *path)
{
	size_t len = strlen(path);

	return !strncmp(v->path, path, len) && !strcmp(v->path + len, DELETED);
}

static struct vma *find_named(pid_t pid, struct vmas *all, const struct guest_region *r,
			      const struct backend *b)
{
	AUTO_CLOSE int fd = proc_open_path(pid, b->mem_path, O_PATH);
	struct stat st = { 0 };
	bool here = fd >= 0 && !fstat(fd, &st);

	for (size_t i = 0; i < all->count; i++) {
		struct vma *v = &all->items[i];

		if (here && S_ISREG(st.st_mode) && v->inode == st.st_ino && v->device == st.st_dev)
			return v;
		if (here && S_ISDIR(st.st_mode) && is_in_directory(v, b->mem_path, r->id))
			return v;
	}
	for (size_t i = 0; i < all->count; i++)
		if (is_removed_file(&all->items[i], b->mem_path))
			return &all->items[i];
	return NULL;
}

static bool is_unnamed(const struct vma *v, const struct guest_region *r, const struct backend *b)
{
	bool memfd = !strncmp(v->path, "/memfd:memory-backend-memfd", 27);
	bool zero = !strcmp(v->path, "/dev/zero" DELETED);

	if (v->used || v->end - v->start != r->size || v->hugetlb != b->hugetlb)
		return false;
	return strcmp(b->type, "memory-backend-memfd") ? zero : memfd;
}

/* A guest address inside the backend, from "info mtree -f": "  GPA-END (prio 0, ram): ID @OFF". */
static bool guest_address(const char *mtree, const char *id, uint64_t *gpa, uint64_t *offset)
{
	size_t len = strlen(id);

	for (const char *line = mtree; line; line = strchr(line, '\n')) {
		const char *name;

		line += *line == '\n';
		name = strstr(line, ", ram): ");
		if (!name || name > line + strcspn(line, "\n"))
			continue;
		name += 8;
		if (strncmp(name, id, len) || !strchr(" \r\n", name[len]))
			continue;
		*gpa = strtoull(line, NULL, 16);
		*offset = strncmp(name + len, " @", 2) ? 0 : strtoull(name + len + 2, NULL, 16);
		return true;
	}
	return false;
}

/* The host address where QEMU maps the beginning of the backend, or 0. */
static uint64_t ask_address(struct qmp *q, const char *id)
{
	AUTO_FREE char *mtree = qemu_human(q, "info mtree -f");
	uint64_t gpa, offset, hva = 0;
	char command[64];

	if (!mtree || !guest_address(mtree, id, &gpa, &offset))
		return 0;
	snprintf(command, sizeof(command), "gpa2hva 0x%lx", gpa);
	AUTO_FREE char *answer = qemu_human(q, command);
	const char *is = answer ? strstr(answer, ") is 0x") : NULL;
	if (is)
		hva = strtoull(is + 5, NULL, 16);
	return hva > offset ? hva - offset : 0;
}

static struct vma *find_unnamed(struct guest_qemu *q, struct vmas *all,
				const struct guest_region *r, const struct backend *b)
{
	struct vma *found = NULL;
	unsigned int alike = 0;
	uint64_t address;

	for (size_t i = 0; i < all->count; i++) {
		if (!is_unnamed(&all->items[i], r, b))
			continue;
		found = &all->items[i];
		alike++;
	}
	if (alike < 2)
		return found;
	address = ask_address(q->q, r->id);
	for (size_t i = 0; i < all->count; i++)
		if (is_unnamed(&all->items[i], r, b) && all->items[i].start == address)
			return &all->items[i];
	return NULL;
}

/* Every mapping of the file, clipped to the region. */
static int take_mappings(struct vmas *all, const struct vma *of, struct guest_region *r)
{
	r->mappings = calloc(all->count, sizeof(*r->mappings));
	if (!r->mappings)
		return -ENOMEM;
	for (size_t i = 0; i < all->count; i++) {
		struct vma *v = &all->items[i];
		uint64_t begin = v->offset, end = v->offset + (v->end - v->start);
		struct guest_mapping *m = &r->mappings[r->nmappings];

		if (v->inode != of->inode || v->map_device != of->map_device)
			continue;
		if (begin < r->file_offset)
			begin = r->file_offset;
		if (end > r->file_offset + r->size)
			end = r->file_offset + r->size;
		if (begin >= end)
			continue;
		v->used = true;
		m->start = v->start + (begin - v->offset);
		m->end = m->start + (end - begin);
		m->offset = begin - r->file_offset;
		r->nmappings++;
	}
	return 0;
}

/* The absolute path as the VM sees it, if the file is still there under it. */
static void take_path(pid_t pid, const struct vma *v, const char *mem_path, struct guest_region *r)
{
	AUTO_CLOSE int fd = proc_open_path(pid, mem_path, O_PATH);
	char link[64], cwd[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) || st.st_ino != v->inode || st.st_dev != v->device)
		return;
	if (mem_path[0] == '/') {
		snprintf(r->path, sizeof(r->path), "%s", mem_path);
		return;
	}
	snprintf(link, sizeof(link), "/proc/%d/cwd", pid);
	n = readlink(link, cwd, sizeof(cwd) - 1);
	if (n < 0 || (size_t)n + 1 + strlen(mem_path) >= sizeof(r->path))
		return;
	cwd[n] = '\0';
	strcpy(r->path, cwd);
	strcat(r->path, "/");
	strcat(r->path, mem_path);
}

static int describe_region(struct guest_qemu *q, struct vmas *all, const char *id, uint32_t i)
{
	struct guest_region *r = &q->g.desc.regions[i];
	struct backend b = { 0 };
	struct vma *v;
	int ret;

	read_backend(q, id, r, &b);
	r->file_offset = b.offset;
	if (!r->share)
		return 0;
	v = b.mem_path[0] ? find_named(q->g.pid, all, r, &b) : find_unnamed(q, all, r, &b);
	if (!v || !v->regular)
		return 0;
	ret = take_mappings(all, v, r);
	if (ret)
		return ret;
	r->page_size = v->page_size;
	r->hugetlb = v->hugetlb;
	r->inode = v->inode;
	r->device = v->device;
	q->map_devices[i] = v->map_device;
	if (b.mem_path[0])
		take_path(q->g.pid, v, b.mem_path, r);
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/*
 * The ids of all backends, sorted: their order is the regions' index and the same on both sides.
 * They point into list.
 */
static int sorted_ids(const json_t *list, const char ***out, uint32_t *count)
{
	size_t n = json_array_size(list);
	const char **ids = calloc(n + 1, sizeof(*ids));

	if (!ids)
		return -ENOMEM;
	*count = 0;
	for (size_t i = 0; i < n; i++) {
		const char *id = json_string_value(json_object_get(json_array_get(list, i), "id"));

		if (id && strlen(id) < sizeof(((struct guest_region *)0)->id))
			ids[(*count)++] = id;
	}
	*out = ids;
	if (*count != n)
		return -EINVAL;
	qsort(ids, n, sizeof(*ids), compare_ids);
	return 0;
}

int guest_qemu_describe_ram(struct guest_qemu *q, struct failure *f)
{
	AUTO_FREE const char **ids = NULL;
	struct guest_description *d = &q->g.desc;
	struct vmas all = { 0 };
	json_t *list = NULL;
	uint32_t count = 0;
	int ret = qmp_call(q->q, "query-memdev", NULL, &list, f);

	if (ret)
		return ret;
	ret = sorted_ids(list, &ids, &count);
	if (!ret && count > IPC_REGIONS_MAX)
		ret = -E2BIG;
	if (!ret)
		ret = read_vmas(q->g.pid, &all);
	free(q->map_devices);
	q->map_devices = calloc(count + 1, sizeof(*q->map_devices));
	d->regions = calloc(count + 1, sizeof(*d->regions));
	if (!ret && (!d->regions || !q->map_devices))
		ret = -ENOMEM;
	for (uint32_t i = 0; !ret && i < count; i++) {
		d->nregions = i + 1;
		ret = describe_region(q, &all, ids[i], i);
		d->ram_bytes += d->regions[i].size;
	}
	vmas_release(&all);
	json_decref(list);
	if (ret)
		failure_set(f, ret,
			    ret == -EINVAL || ret == -E2BIG ? "ram-unsupported" : "internal", NULL,
			    "the VM's memory backends cannot be read: %s", strerror(-ret));
	return ret;
}

/* --- opening ---------------------------------------------------------------------------------- */

static bool same_file(int fd, const struct guest_region *r)
{
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && st.st_ino == r->inode && st.st_dev == r->device;
}

struct fd_search {
	pid_t pid;
	const struct guest_region *r;
	int flags, found;
};

/* QEMU keeps the descriptors of its backends open: the way in without CAP_CHECKPOINT_RESTORE. */
static int try_fd(int number, const char *target, void *arg)
{
	struct fd_search *s = arg;
	char path[64];
	struct stat st;

	if (target[0] != '/')
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", s->pid, number);
	if (stat(path, &st) || st.st_ino != s->r->inode || st.st_dev != s->r->device)
		return 0;
	s->found = open(path, s->flags | O_CLOEXEC);
	return s->found >= 0;
}

struct bounds_search {
	uint64_t inode, device, start, end;
};

static int match_bounds(const struct proc_map *m, void *arg)
{
	struct bounds_search *s = arg;

	if (m->inode != s->inode || m->device != s->device)
		return 0;
	s->start = m->start;
	s->end = m->end;
	return 1;
}

/* map_files entries bear the whole mapping's bounds, which a clipped guest_mapping may not have. */
static int vma_bounds(pid_t pid, const struct guest_region *r, uint64_t map_device, uint64_t *start,
		      uint64_t *end)
{
	struct bounds_search s = { .inode = r->inode, .device = map_device };
	int ret = proc_maps_each(pid, match_bounds, &s);

	*start = s.start;
	*end = s.end;
	return ret == 1 ? 0 : -ENOENT;
}

int guest_qemu_open_ram(struct guest *g, uint32_t i, bool writable, int *fd, struct failure *f)
{
	struct guest_qemu *q = guest_qemu_of(g);
	const struct guest_region *r = &g->desc.regions[i];
	int flags = writable ? O_RDWR : O_RDONLY;
	struct fd_search s = { .pid = g->pid, .r = r, .flags = flags, .found = -1 };
	uint64_t start, end;
	char hint[400];

	*fd = -1;
	if (r->backing == GUEST_BACKING_PRIVATE)
		return failure_set(f, -EOPNOTSUPP, "ram-not-shared",
				   guest_qemu_share_hint(r, hint, sizeof(hint)),
				   "RAM region %s is private memory of QEMU", r->id);
	if (!r->nmappings)
		return failure_set(f, -EOPNOTSUPP, "ram-unsupported", NULL,
				   "the file behind RAM region %s is not known", r->id);
	if (!vma_bounds(g->pid, r, q->map_devices[i], &start, &end))
		*fd = open_map_file(g->pid, start, end, flags);
	if (same_file(*fd, r))
		return 0;
	fd_close(fd);
	if (proc_fds_each(g->pid, try_fd, &s) > 0)
		*fd = s.found;
	else if (r->path[0])
		*fd = proc_open_path(g->pid, r->path, flags);
	if (same_file(*fd, r))
		return 0;
	fd_close(fd);
	return failure_set(f, -ENOENT, "ram-unsupported", NULL,
			   "the file behind RAM region %s cannot be opened", r->id);
}
