// SPDX-License-Identifier: MIT
/*
 * What the first touch of fresh guest RAM costs at the destination, by way of touching it.
 *
 *   first_touch [MIB [REPEATS]]     1024 MiB, 3 repeats; medians
 *
 * One thread fills a fresh memfd (or a file on a tmpfs with huge=always) from a buffer of 256 KiB
 * that stays in the cache, as received data does: seconds per GiB, and processor time per page of
 * 4 KiB. Run it with memory kept warm (bench/run does): memory that a hypervisor gives anew costs
 * several times more, whatever the way.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bench/bench.h"
#include "dataplane/region.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"

#define BUFFER (256u * 1024)

struct target {
	int fd;
	uint8_t *map;
	uint64_t size;
	int uffd;
	int pipe[2];
	uint8_t *buffer;
};

static void copy(const struct target *t, uint64_t at)
{
	for (uint64_t done = 0; done < CHUNK_BYTES; done += BUFFER)
		memcpy(t->map + at + done, t->buffer, BUFFER);
}

static void by_populate(struct target *t, uint64_t at)
{
	bench_check(!madvise(t->map + at, CHUNK_BYTES, MADV_POPULATE_WRITE), "populate");
	copy(t, at);
}

static void by_fault(struct target *t, uint64_t at)
{
	copy(t, at);
}

static void by_pwrite(struct target *t, uint64_t at)
{
	for (uint64_t done = 0; done < CHUNK_BYTES; done += BUFFER)
		bench_check(pwrite(t->fd, t->buffer, BUFFER, (off_t)(at + done)) == BUFFER,
			    "pwrite");
}

static void by_fallocate(struct target *t, uint64_t at)
{
	bench_check(!fallocate(t->fd, 0, (off_t)at, CHUNK_BYTES), "fallocate");
	by_pwrite(t, at);
}

static void by_splice(struct target *t, uint64_t at)
{
	off_t offset = (off_t)at;

	for (uint64_t done = 0; done < CHUNK_BYTES; done += BUFFER) {
		struct iovec iov = { .iov_base = t->buffer, .iov_len = BUFFER };

		bench_check(vmsplice(t->pipe[1], &iov, 1, 0) == BUFFER, "vmsplice");
		for (size_t left = BUFFER; left;) {
			ssize_t n = splice(t->pipe[0], NULL, t->fd, &offset, left, SPLICE_F_MOVE);

			bench_check(n > 0, "splice");
			left -= (size_t)n;
		}
	}
}

static void by_uffdio_copy(struct target *t, uint64_t at)
{
	for (uint64_t done = 0; done < CHUNK_BYTES; done += BUFFER) {
		struct uffdio_copy c = { .dst = (uintptr_t)t->map + at + done,
					 .src = (uintptr_t)t->buffer,
					 .len = BUFFER };

		bench_check(!ioctl(t->uffd, UFFDIO_COPY, &c), "UFFDIO_COPY");
	}
}

static void by_collapse(struct target *t, uint64_t at)
{
	*(volatile uint8_t *)(t->map + at) = 1;
	bench_check(!madvise(t->map + at, CHUNK_BYTES, MADV_COLLAPSE), "MADV_COLLAPSE");
	copy(t, at);
}

enum need { NEED_NOTHING, NEED_UFFD, NEED_HUGE };

static const struct way {
	const char *name;
	void (*chunk)(struct target *t, uint64_t at);
	enum need need;
	bool huge; /* may get transparent huge pages */
} ways[] = {
	{ "populate, copy", by_populate, NEED_NOTHING, false },
	{ "copy, faults", by_fault, NEED_NOTHING, false },
	{ "pwrite", by_pwrite, NEED_NOTHING, false },
	{ "splice", by_splice, NEED_NOTHING, false },
	{ "fallocate, pwrite", by_fallocate, NEED_NOTHING, false },
	{ "UFFDIO_COPY", by_uffdio_copy, NEED_UFFD, false },
	{ "collapse, copy", by_collapse, NEED_NOTHING, true },
	{ "huge=always, populate, copy", by_populate, NEED_HUGE, true },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static int huge_dir = -1;

/* A tmpfs that is mounted nowhere, seen by nobody else and gone with this process. */
static void make_huge_dir(void)
{
	int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);

	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "huge", "always", 0) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		fprintf(stderr, "no tmpfs with huge=always: %s\n", strerror(errno));
	else
		huge_dir = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	if (fs >= 0)
		close(fs);
}

static bool open_target(struct target *t, const struct way *w)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	uint8_t *wide;

	if (w->need == NEED_HUGE)
		t->fd = huge_dir < 0 ? -1 : openat(huge_dir, ".", O_TMPFILE | O_RDWR, 0600);
	else
		t->fd = memfd_create("bench-touch", MFD_CLOEXEC);
	if (t->fd < 0)
		return false;
	bench_check(!ftruncate(t->fd, (off_t)t->size), "ftruncate");
	/* aligned to 2 MiB, or no huge page fits */
	wide = mmap(NULL, t->size + CHUNK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	t->map = (uint8_t *)(((uintptr_t)wide + CHUNK_BYTES - 1) & ~(uintptr_t)(CHUNK_BYTES - 1));
	bench_check(mmap(t->map, t->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, t->fd,
			 0) == t->map,
		    "mmap");
	munmap(wide, (size_t)(t->map - wide));
	munmap(t->map + t->size, CHUNK_BYTES - (size_t)(t->map - wide));
	if (!w->huge)
		madvise(t->map, t->size, MADV_NOHUGEPAGE);
	t->uffd = -1;
	if (w->need != NEED_UFFD)
		return true;
	t->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	reg.range.start = (uintptr_t)t->map;
	reg.range.len = t->size;
	return t->uffd >= 0 && !ioctl(t->uffd, UFFDIO_API, &api) &&
	       !ioctl(t->uffd, UFFDIO_REGISTER, &reg);
}

static void close_target(struct target *t)
{
	if (t->uffd >= 0)
		close(t->uffd);
	munmap(t->map, t->size);
	close(t->fd);
}

/* False if this machine does not have what the way needs. */
static bool measure(struct target *t, const struct way *w, double *seconds, double *cpu)
{
	uint64_t wall, used;

	if (!open_target(t, w))
		return false;
	wall = clock_ns();
	used = clock_of(CLOCK_THREAD_CPUTIME_ID);
	for (uint64_t at = 0; at < t->size; at += CHUNK_BYTES)
		w->chunk(t, at);
	*cpu = (double)(clock_of(CLOCK_THREAD_CPUTIME_ID) - used) / 1e9;
	*seconds = (double)(clock_ns() - wall) / 1e9;
	bench_check(!memcmp(t->map + t->size - BUFFER, t->buffer, BUFFER), "what was written");
	close_target(t);
	return true;
}

int main(int argc, char **argv)
{
	struct target t = { .size = (uint64_t)(argc > 1 ? atoi(argv[1]) : 1024) << 20 };
	int repeats = argc > 2 ? atoi(argv[2]) : 3;
	static struct bench_values wall[WAYS], used[WAYS];
	double gib = (double)t.size / (1 << 30);

	if (t.size < CHUNK_BYTES || repeats < 1 || repeats > BENCH_REPEATS_MAX)
		return 1;
	t.size -= t.size % CHUNK_BYTES;
	t.buffer = aligned_alloc(PAGE_BYTES, BUFFER);
	bench_check(t.buffer && !pipe2(t.pipe, O_CLOEXEC), "buffer");
	bench_check(fcntl(t.pipe[1], F_SETPIPE_SZ, BUFFER) >= (int)BUFFER, "pipe");
	for (uint32_t i = 0; i < BUFFER; i++)
		t.buffer[i] = (uint8_t)(i * 2654435761u >> 13);
	make_huge_dir();
	for (int i = -1; i < repeats; i++)
		for (size_t k = 0; k < WAYS; k++) {
			double seconds, cpu;

			if (measure(&t, &ways[k], &seconds, &cpu) && i >= 0) {
				bench_add(&wall[k], seconds / gib);
				bench_add(&used[k], cpu * 1e6 / ((double)t.size / PAGE_BYTES));
			}
		}
	printf("%-28s %8s %15s %12s\n", "first touch", "s/GiB", "range", "CPU us/page");
	for (size_t k = 0; k < WAYS; k++) {
		double s = bench_median(&wall[k]), us = bench_median(&used[k]);

		if (!wall[k].n) {
			printf("%-28s not possible here\n", ways[k].name);
			continue;
		}
		printf("%-28s %8.3f   %5.3f - %5.3f %12.2f\n", ways[k].name, s, wall[k].v[0],
		       wall[k].v[wall[k].n - 1], us);
		bench_row(
			"{\"bench\":\"first_touch\",\"way\":\"%s\",\"s_per_gib\":%.4f,\"min\":%.4f,"
			"\"max\":%.4f,\"cpu_us_per_page\":%.3f}",
			ways[k].name, s, wall[k].v[0], wall[k].v[wall[k].n - 1], us);
	}
	return 0;
}
