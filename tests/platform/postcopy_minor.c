// SPDX-License-Identifier: MIT
/*
 * What post-copy rests on: in a shared mapping registered for MISSING and MINOR, pages that were
 * zapped from the page table by MADV_DONTNEED fault again although the file holds them (so stale
 * pages need not be punched), a hole cannot be continued before it is filled, and one CONTINUE maps
 * a whole run and says where it stopped.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "tests/platform/common.h"

#define PAGES 64u

struct toucher {
	volatile uint8_t *at;
	uint8_t value;
	pthread_t thread;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	t->value = *t->at;
	return NULL;
}

static void begin(struct toucher *t, uint8_t *at)
{
	t->at = at;
	prove(!pthread_create(&t->thread, NULL, touch, t), "thread");
}

static struct uffd_msg next_fault(int uffd)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg m = { 0 };

	prove(poll(&p, 1, 5000) == 1, "no fault was raised");
	prove(read(uffd, &m, sizeof(m)) == sizeof(m), "%s", strerror(errno));
	return m;
}

static long resume(int uffd, uint8_t *at, uint64_t length)
{
	struct uffdio_continue c = { .range = { (uintptr_t)at, length } };

	return ioctl(uffd, UFFDIO_CONTINUE, &c) ? (c.mapped > 0 ? (long)c.mapped : -errno)
						: (long)c.mapped;
}

static void prove_all(int fd, uint64_t page, uint8_t *map, int uffd, bool huge)
{
	uint64_t size = PAGES * page;
	struct toucher t;
	struct uffd_msg m;

	if (huge)
		size = 2 * page;
	/* stale content, mapped by its user; then zapped */
	prove(!madvise(map, size, MADV_DONTNEED), "%s", strerror(errno));
	begin(&t, map + page);
	m = next_fault(uffd);
	prove(m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, "flags %#llx",
	      (unsigned long long)m.arg.pagefault.flags);
	prove((m.arg.pagefault.address & ~(page - 1)) == (uintptr_t)map + page, "address");
	if (huge) {
		uint8_t *other = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		other[page] = 7;
		munmap(other, size);
	} else {
		prove(pwrite(fd, "\7", 1, (off_t)page) == 1, "%s", strerror(errno));
	}
	prove(resume(uffd, map + page, page) == (long)page, "CONTINUE");
	pthread_join(t.thread, NULL);
	prove(t.value == 7, "read %u, not what was filled in", t.value);
	prove(resume(uffd, map + page, page) == -EEXIST, "mapped twice");
	if (huge)
		return;

	/* one call over a run; what is mapped already ends it, and it says where */
	prove(resume(uffd, map + 2 * page, 8 * page) == (long)(8 * page), "a run");
	prove(resume(uffd, map + 16 * page, 4 * page) == (long)(4 * page), "a run");
	prove(resume(uffd, map + 12 * page, 8 * page) == (long)(4 * page), "up to the mapped one");

	/* a page that was given back */
	prove(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(3 * page),
			 (off_t)page),
	      "%s", strerror(errno));
	begin(&t, map + 3 * page);
	m = next_fault(uffd);
	prove(!(m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR), "a hole is MISSING");
	prove(resume(uffd, map + 3 * page, page) == -EFAULT, "CONTINUE of a hole");
	prove(pwrite(fd, "\0", 1, (off_t)(3 * page)) == 1, "%s", strerror(errno));
	prove(resume(uffd, map + 3 * page, page) == (long)page, "CONTINUE once it is filled");
	pthread_join(t.thread, NULL);
	prove(t.value == 0, "zeros");

	/* a fault that was read is not raised again, until it is woken */
	prove(!madvise(map, size, MADV_DONTNEED), "%s", strerror(errno));
	begin(&t, map + page);
	next_fault(uffd);
	struct pollfd p = { .fd = uffd, .events = POLLIN };

	prove(poll(&p, 1, 50) == 0, "raised twice");
	struct uffdio_range all = { (uintptr_t)map, size };

	prove(!ioctl(uffd, UFFDIO_WAKE, &all), "%s", strerror(errno));
	next_fault(uffd);
	resume(uffd, map + page, page);
	pthread_join(t.thread, NULL);
}

static int arm(uint8_t *map, uint64_t size, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = { .range = { (uintptr_t)map, size },
				       .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_MINOR };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		skip("userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_API, &api))
		skip("no minor faults: %s", strerror(errno));
	prove(!ioctl(uffd, UFFDIO_REGISTER, &reg), "%s", strerror(errno));
	return uffd;
}

int main(void)
{
	uint64_t size = PAGES * PAGE;
	int fd = memfd_of(size), uffd;
	uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	memset(map, 1, size);
	uffd = arm(map, size, UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM);
	prove_all(fd, PAGE, map, uffd, false);
	fd = memfd_create("proof", MFD_CLOEXEC | MFD_HUGETLB);
	if (fd < 0 || ftruncate(fd, 2 * HUGE))
		return 0;
	map = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		puts("no huge pages: their part was not proved");
		return 0;
	}
	memset(map, 1, 2 * HUGE);
	uffd = arm(map, 2 * HUGE, UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS);
	prove_all(fd, HUGE, map, uffd, true);
	puts("huge pages too");
	return 0;
}
