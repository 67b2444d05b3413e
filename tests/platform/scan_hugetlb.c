// SPDX-License-Identifier: MIT
/*
 * hugetlbfs of 2 MiB pages: a written page is reported whole; one never touched is neither written
 * nor protected by a scan, and comes up written when it is touched; SEEK_DATA knows no holes, and
 * sendfile is refused. The tracker, made for all this, reports exactly what was written.
 */
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "dataplane/track/tracker.h"
#include "tests/platform/common.h"

#define PAGES_FILE "/proc/sys/vm/nr_hugepages"
#define COUNT	   4

static long reserved_before = -1;

static long read_reserved(void)
{
	FILE *f = fopen(PAGES_FILE, "r");
	long n = -1;

	if (!f || fscanf(f, "%ld", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

static bool write_reserved(long n)
{
	FILE *f = fopen(PAGES_FILE, "w");
	bool ok = f && fprintf(f, "%ld\n", n) > 0;

	return f && fclose(f) == 0 && ok;
}

static void restore(void)
{
	if (reserved_before >= 0)
		write_reserved(reserved_before);
}

static void reserve(void)
{
	reserved_before = read_reserved();
	if (reserved_before < 0)
		skip("no huge pages here");
	atexit(restore);
	if (!write_reserved(reserved_before + COUNT) || read_reserved() < reserved_before + COUNT)
		skip("no %d huge pages could be reserved", COUNT);
}

static void use_tracker(struct tracked *t)
{
	struct region_mapping m = { (uintptr_t)t->map, (uintptr_t)t->map + t->size, 0 };
	struct region r = { .page_size = HUGE,
			    .size = t->size,
			    .hugetlb = true,
			    .fd = t->fd,
			    .mappings = &m,
			    .nmappings = 1 };
	struct failure f = { 0 };
	struct bitmap dirty;
	struct tracker *tracker;
	uint64_t pages;

	prove(!bitmap_init(&dirty, t->size / PAGE), "bitmap");
	prove(!tracker_pagemap_new(&tracker, &r, 1, dup(t->pagemap),
				   &(struct tracker_pagemap_options){ .threads = 1 }, &f),
	      "%s", f.message);
	prove(!tracker->ops->start(tracker, &f), "%s", f.message);
	prove(!tracker->ops->collect(tracker, &dirty, &pages, &f) && !pages, "%d pages",
	      (int)pages);
	t->map[HUGE + 7 * PAGE]++;
	t->map[2 * HUGE]++; /* not there before */
	prove(!tracker->ops->collect(tracker, &dirty, &pages, &f) && pages == 1024, "%d pages",
	      (int)pages);
	prove(bitmap_count_range(&dirty, 512, 1024) == 1024, "these two");
	prove(!tracker->ops->collect(tracker, &dirty, &pages, &f) && !pages, "%d pages",
	      (int)pages);
	puts("the tracker reports what was written, once");
	tracker->ops->free(tracker);
	bitmap_release(&dirty);
}

int main(void)
{
	uint8_t seen[COUNT * 512] = { 0 };
	struct tracked t;
	off_t at = 0;
	int fd, socks[2];

	reserve();
	fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	if (fd < 0 || ftruncate(fd, COUNT * (off_t)HUGE))
		skip("no hugetlb memfd: %s", strerror(errno));
	tracked_map(&t, fd, COUNT * HUGE);
	t.map[0] = 1;
	t.map[HUGE] = 1;
	tracked_register(&t);
	prove(tracked_arm_all(&t) == 0, "armed");
	prove(tracked_scan(&t, 0, COUNT * 512, true, NULL) == 0, "nothing is written");
	prove(!(tracked_categories(&t, 2 * 512) & (PAGEMAP_IS_WRITTEN | PAGEMAP_IS_SWAPPED)),
	      "an untouched page is neither written nor protected");

	t.map[HUGE + 5 * PAGE] = 2;
	t.map[3 * HUGE] = 2; /* did not exist when it was protected */
	prove(tracked_scan(&t, 0, COUNT * 512, true, seen) == 2 * 512, "two huge pages");
	prove(seen[512] && seen[3 * 512] && !seen[0] && !seen[2 * 512], "these two");
	prove(tracked_scan(&t, 0, COUNT * 512, true, NULL) == 0, "protected again");
	puts("written huge pages, mapped before or not, are reported and protected again");

	prove(lseek(fd, 2 * (off_t)HUGE, SEEK_DATA) == 2 * (off_t)HUGE, "a hole is data");
	prove(lseek(fd, 0, SEEK_HOLE) == COUNT * (off_t)HUGE, "no hole is found");
	puts("SEEK_DATA takes all of the file for data");

	prove(!socketpair(AF_UNIX, SOCK_STREAM, 0, socks), "socketpair");
	prove(sendfile(socks[0], fd, &at, PAGE) == -1 && errno == EINVAL, "sendfile");
	prove(pwrite(fd, "x", 1, 0) == -1 && errno == EINVAL, "pwrite");
	puts("sendfile and pwrite give EINVAL");
	use_tracker(&t);
	munmap(t.map, t.size);
	return 0;
}
