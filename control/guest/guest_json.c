// SPDX-License-Identifier: MIT
/*
 * A guest's description as JSON, for the peer and for --json, and back.
 *
 * The peer's text is not believed: strings are bounded, numbers checked for range, counts limited.
 * Addresses (mappings) stay on their host; everything else goes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/guest/guest.h"

#define DISKS_MAX     1024
#define ARGV_MAX      8192
#define ARGV_BYTES    (2u << 20)
#define CPUS_MAX      (1u << 20)
#define PAGE_SIZE_MAX (1u << 30)

static const char *const backing_names[] = {
	[GUEST_BACKING_FILE] = "file",
	[GUEST_BACKING_MEMFD] = "memfd",
	[GUEST_BACKING_PRIVATE] = "private",
};

#define NBACKINGS (sizeof(backing_names) / sizeof(backing_names[0]))

void guest_description_release(struct guest_description *d)
{
	for (uint32_t i = 0; i < d->nregions; i++)
		free(d->regions[i].mappings);
	free(d->regions);
	free(d->disks);
	free(d->argv);
	json_decref(d->extra);
	d->regions = NULL;
	d->disks = NULL;
	d->argv = NULL;
	d->extra = NULL;
	d->nregions = d->ndisks = 0;
}

/* --- out -------------------------------------------------------------------------------------- */

/*
 * Paths and command lines are bytes, JSON is UTF-8. What is not UTF-8 goes as Latin-1, so that
 * every byte stays visible; such a path will not be found at the other side, which then says so.
 */
static json_t *text(const char *bytes)
{
	json_t *s = json_string(bytes);
	char *wide, *p;

	if (s)
		return s;
	p = wide = malloc(2 * strlen(bytes) + 1);
	if (!wide)
		return NULL;
	for (; *bytes; bytes++) {
		unsigned char c = (unsigned char)*bytes;

		if (c >= 0x80)
			*p++ = (char)(0xc0 | c >> 6);
		*p++ = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
	}
	*p = '\0';
	s = json_string(wide);
	free(wide);
	return s;
}

static json_t *region_to_json(const struct guest_region *r)
{
	return json_pack("{s:o, s:I, s:i, s:s, s:b, s:b, s:b, s:o, s:I, s:I, s:I}", "id",
			 text(r->id), "size", (json_int_t)r->size, "page_size", (int)r->page_size,
			 "backing", backing_names[r->backing], "hugetlb", r->hugetlb, "share",
			 r->share, "prealloc", r->prealloc, "path", text(r->path), "file_offset",
			 (json_int_t)r->file_offset, "inode", (json_int_t)r->inode, "device",
			 (json_int_t)r->device);
}

static json_t *disk_to_json(const struct guest_disk *d)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:b, s:b, s:I, s:I}", "id", text(d->id), "path",
			 text(d->path), "format", text(d->format), "identity", text(d->identity),
			 "read_only", d->read_only, "direct", d->direct, "device",
			 (json_int_t)d->device, "inode", (json_int_t)d->inode);
}

json_t *guest_description_to_json(const struct guest_description *d)
{
	json_t *regions = json_array(), *disks = json_array(), *argv = json_array();

	for (uint32_t i = 0; i < d->nregions; i++)
		json_array_append_new(regions, region_to_json(&d->regions[i]));
	for (uint32_t i = 0; i < d->ndisks; i++)
		json_array_append_new(disks, disk_to_json(&d->disks[i]));
	for (char **word = d->argv; word && *word; word++)
		json_array_append_new(argv, text(*word));
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:b, s:o, s:I, s:o, s:o, s:b, s:o, "
			 "s:o}",
			 "name", text(d->name), "kind", text(d->kind), "version", text(d->version),
			 "machine", text(d->machine), "cpu_model", text(d->cpu_model), "accel",
			 text(d->accel), "cpus", (json_int_t)d->cpus, "running", d->running,
			 "state", text(d->state), "ram_bytes", (json_int_t)d->ram_bytes, "regions",
			 regions, "disks", disks, "needs_dma_barrier", d->needs_dma_barrier, "argv",
			 argv, "extra", d->extra ? json_incref(d->extra) : json_object());
}

/* --- and back --------------------------------------------------------------------------------- */

/* What is read, and whether everything so far was in order. */
struct reader {
	bool bad;
	const char *what; /* the member that was not */
};

static const json_t *member(struct reader *r, const json_t *o, const char *key, bool right)
{
	if (!right && !r->bad) {
		r->bad = true;
		r->what = key;
	}
	return json_object_get(o, key);
}

static void read_text(struct reader *r, const json_t *o, const char *key, char *buf, size_t size)
{
	const char *s = json_string_value(json_object_get(o, key));

	member(r, o, key,
	       s && strlen(s) < size && strlen(s) == json_string_length(json_object_get(o, key)));
	if (!r->bad)
		strcpy(buf, s);
}

static bool read_bool(struct reader *r, const json_t *o, const char *key)
{
	return json_is_true(member(r, o, key, json_is_boolean(json_object_get(o, key))));
}

static uint64_t read_number(struct reader *r, const json_t *o, const char *key, uint64_t max)
{
	const json_t *v = json_object_get(o, key);
	json_int_t n = json_integer_value(v);

	member(r, o, key, json_is_integer(v) && n >= 0 && (uint64_t)n <= max);
	return r->bad ? 0 : (uint64_t)n;
}

static const json_t *read_array(struct reader *r, const json_t *o, const char *key, size_t max)
{
	const json_t *a = json_object_get(o, key);

	return member(r, o, key, json_is_array(a) && json_array_size(a) <= max);
}

static bool is_power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static void read_region(struct reader *r, const json_t *o, struct guest_region *to)
{
	char backing[16] = "";
	size_t b = 0;

	read_text(r, o, "id", to->id, sizeof(to->id));
	to->size = read_number(r, o, "size", INT64_MAX);
	to->page_size = (uint32_t)read_number(r, o, "page_size", PAGE_SIZE_MAX);
	to->hugetlb = read_bool(r, o, "hugetlb");
	to->share = read_bool(r, o, "share");
	to->prealloc = read_bool(r, o, "prealloc");
	read_text(r, o, "path", to->path, sizeof(to->path));
	to->file_offset = read_number(r, o, "file_offset", INT64_MAX);
	to->inode = read_number(r, o, "inode", INT64_MAX);
	to->device = read_number(r, o, "device", INT64_MAX);
	read_text(r, o, "backing", backing, sizeof(backing));
	while (b < NBACKINGS && strcmp(backing, backing_names[b]))
		b++;
	member(r, o, "backing", b < NBACKINGS);
	member(r, o, "page_size", to->page_size >= 4096 && is_power_of_two(to->page_size));
	member(r, o, "size", to->size && !(to->size & 4095));
	if (!r->bad)
		to->backing = (enum guest_backing)b;
}

static void read_disk(struct reader *r, const json_t *o, struct guest_disk *to)
{
	read_text(r, o, "id", to->id, sizeof(to->id));
	read_text(r, o, "path", to->path, sizeof(to->path));
	read_text(r, o, "format", to->format, sizeof(to->format));
	read_text(r, o, "identity", to->identity, sizeof(to->identity));
	to->read_only = read_bool(r, o, "read_only");
	to->direct = read_bool(r, o, "direct");
	to->device = read_number(r, o, "device", INT64_MAX);
	to->inode = read_number(r, o, "inode", INT64_MAX);
}

/* One allocation: the pointers, then the words. */
static int read_argv(struct reader *r, const json_t *o, struct guest_description *d)
{
	const json_t *words = read_array(r, o, "argv", ARGV_MAX);
	size_t n = r->bad ? 0 : json_array_size(words), bytes = 0;
	char *at;

	for (size_t i = 0; i < n; i++) {
		const json_t *w = json_array_get(words, i);
		size_t len = json_string_length(w);

		bytes += len + 1;
		member(r, o, "argv",
		       json_is_string(w) && strlen(json_string_value(w)) == len &&
			       bytes <= ARGV_BYTES);
		if (r->bad)
			return 0;
	}
	d->argv = malloc((n + 1) * sizeof(*d->argv) + bytes);
	if (!d->argv)
		return -ENOMEM;
	at = (char *)(d->argv + n + 1);
	for (size_t i = 0; i < n; i++) {
		d->argv[i] = at;
		at = stpcpy(at, json_string_value(json_array_get(words, i))) + 1;
	}
	d->argv[n] = NULL;
	return 0;
}

static int read_lists(struct reader *r, const json_t *o, struct guest_description *d)
{
	const json_t *regions = read_array(r, o, "regions", IPC_REGIONS_MAX);
	const json_t *disks = read_array(r, o, "disks", DISKS_MAX);

	if (r->bad)
		return 0;
	d->regions = calloc(json_array_size(regions) + 1, sizeof(*d->regions));
	d->disks = calloc(json_array_size(disks) + 1, sizeof(*d->disks));
	if (!d->regions || !d->disks)
		return -ENOMEM;
	d->nregions = (uint32_t)json_array_size(regions);
	d->ndisks = (uint32_t)json_array_size(disks);
	for (uint32_t i = 0; i < d->nregions; i++)
		read_region(r, json_array_get(regions, i), &d->regions[i]);
	for (uint32_t i = 0; i < d->ndisks; i++)
		read_disk(r, json_array_get(disks, i), &d->disks[i]);
	return read_argv(r, o, d);
}

int guest_description_from_json(struct guest_description *d, const json_t *j, struct failure *f)
{
	struct reader r = { .bad = false };
	uint64_t sum = 0;
	int ret;

	memset(d, 0, sizeof(*d));
	read_text(&r, j, "name", d->name, sizeof(d->name));
	read_text(&r, j, "kind", d->kind, sizeof(d->kind));
	read_text(&r, j, "version", d->version, sizeof(d->version));
	read_text(&r, j, "machine", d->machine, sizeof(d->machine));
	read_text(&r, j, "cpu_model", d->cpu_model, sizeof(d->cpu_model));
	read_text(&r, j, "accel", d->accel, sizeof(d->accel));
	read_text(&r, j, "state", d->state, sizeof(d->state));
	d->cpus = (uint32_t)read_number(&r, j, "cpus", CPUS_MAX);
	d->running = read_bool(&r, j, "running");
	d->ram_bytes = read_number(&r, j, "ram_bytes", INT64_MAX);
	d->needs_dma_barrier = read_bool(&r, j, "needs_dma_barrier");
	ret = read_lists(&r, j, d);
	for (uint32_t i = 0; i < d->nregions && !r.bad; i++)
		member(&r, j, "ram_bytes", !__builtin_add_overflow(sum, d->regions[i].size, &sum));
	member(&r, j, "ram_bytes", sum == d->ram_bytes);
	member(&r, j, "extra", json_is_object(json_object_get(j, "extra")));
	if (!ret && !r.bad) {
		d->extra = json_incref(json_object_get(j, "extra"));
		return 0;
	}
	guest_description_release(d);
	if (ret)
		return failure_set(f, ret, "internal", NULL, "out of memory");
	return failure_set(f, -EINVAL, "usage", NULL,
			   "the guest's description is malformed at \"%s\"", r.what);
}
