// SPDX-License-Identifier: MIT
/*
 * How PAGEMAP_SCAN ends: walk_end may lag behind the last range reported, and never behind the
 * start; EPERM where tracking was lost; and nothing, as if all were clean, where nothing is mapped
 * any more. An ended process gives ESRCH on some kernels and reads as clean on others.
 */
#include <signal.h>
#include <sys/wait.h>

#include "tests/platform/common.h"

#define MANY 8192ul

static void check_walk_end(struct tracked *t)
{
	static struct pagemap_range found[MANY];
	uint64_t lo = (uintptr_t)t->map, at = lo, end = lo + t->size, last = lo;
	long ranges = 0, lagged = 0;

	for (uint64_t page = 0; page < MANY; page += 2)
		t->map[page * PAGE] = 1;
	while (at < end) {
		struct pagemap_scan q = {
			.size = sizeof(q),
			.flags = PAGEMAP_SCAN_CHECK_WPASYNC,
			.start = at,
			.end = end,
			.vec = (uintptr_t)found,
			.vec_len = 1500,
			.category_mask = PAGEMAP_IS_WRITTEN,
			.return_mask = PAGEMAP_IS_WRITTEN,
		};
		long n = ioctl(t->pagemap, PAGEMAP_SCAN_IOCTL, &q);

		prove(n >= 0, "%s", strerror(errno));
		prove(q.walk_end > at && q.walk_end <= end, "progress");
		at = q.walk_end;
		if (n) {
			prove(found[0].start >= last, "in order");
			last = found[n - 1].end;
		}
		if (last > at) {
			lagged++;
			at = last;
		}
		ranges += n;
	}
	prove(ranges == MANY / 2, "%ld ranges", ranges);
	printf("%ld ranges in several calls, each once; walk_end lagged %ld times\n", ranges,
	       lagged);
}

static void check_lost(struct tracked *t)
{
	struct uffdio_range part = { (uintptr_t)t->map + HUGE, HUGE };
	struct tracked again = { .map = t->map, .size = t->size };
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	struct uffdio_register reg = { .range = { (uintptr_t)t->map, HUGE },
				       .mode = UFFDIO_REGISTER_MODE_WP };

	again.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	prove(again.uffd >= 0 && !ioctl(again.uffd, UFFDIO_API, &api), "a second userfaultfd");
	prove(ioctl(again.uffd, UFFDIO_REGISTER, &reg) == -1 && errno == EBUSY, "is kept out");
	close(again.uffd);
	puts("a second userfaultfd over the same memory: EBUSY");

	prove(!ioctl(t->uffd, UFFDIO_UNREGISTER, &part), "%s", strerror(errno));
	prove(tracked_scan(t, 0, 4 * 512, false, NULL) == -EPERM, "reading");
	prove(tracked_scan(t, 0, 4 * 512, true, NULL) == -EPERM, "protecting");
	puts("a scan over memory that is registered no more: EPERM");
}

static void check_unmapped(struct tracked *t)
{
	char path[64];
	int status;
	pid_t pid;
	long n;

	munmap(t->map, t->size);
	n = tracked_scan(t, 0, 512, false, NULL);
	prove(n == 0, "unmapped: %ld", n);

	tracked_map(t, memfd_of(HUGE), HUGE);
	pid = fork();
	if (pid == 0) {
		t->map[0] = 1;
		for (;;)
			pause();
	}
	close(t->pagemap);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	t->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	prove(t->pagemap >= 0, "%s", strerror(errno));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	n = tracked_scan(t, 0, 512, false, NULL);
	prove(n == 0 || n == -ESRCH, "ended: %ld", n);
	printf("unmapped memory: no error and no page; an ended process: %s\n",
	       n ? "ESRCH" : "the same");
}

int main(void)
{
	struct tracked t;

	tracked_map(&t, memfd_of(MANY * PAGE), MANY * PAGE);
	tracked_register(&t);
	prove(tracked_arm_all(&t) == 0, "armed");
	check_walk_end(&t);
	check_lost(&t);
	check_unmapped(&t);
	return 0;
}
