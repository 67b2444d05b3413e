// SPDX-License-Identifier: MIT
/*
 * A transparent huge page of shmem is reported whole for one byte written; a protecting scan that
 * ends inside one splits it and must not lose what was written to it.
 */
#include "tests/platform/common.h"

int main(void)
{
	uint8_t seen[512] = { 0 };
	struct tracked t;
	long n;

	tracked_map(&t, tmpfs_file(4 * HUGE, "always"), 4 * HUGE);
	madvise(t.map, 4 * HUGE, MADV_HUGEPAGE);
	memset(t.map, 1, 2 * HUGE);
	tracked_register(&t);
	if (!(tracked_categories(&t, 0) & PAGEMAP_IS_HUGE))
		skip("no huge page was mapped");
	prove(tracked_scan(&t, 0, 1024, true, NULL) == 1024, "all is written at first");
	prove(tracked_scan(&t, 0, 1024, true, NULL) == 0, "then nothing");

	t.map[5 * PAGE] = 2;
	n = tracked_scan(&t, 0, 1024, false, NULL);
	prove(n == 512 || n == 1, "%ld pages", n);
	printf("one byte written to a protected huge page: %ld pages reported\n", n);

	/* the window ends inside: what is reported must be protected, the rest must not look clean
	 */
	n = tracked_scan(&t, 0, 8, true, seen);
	prove(n >= 0 && (n == 0 || seen[5]), "%ld", n);
	if (!seen[5]) {
		uint64_t c = tracked_categories(&t, 5);

		prove(c & PAGEMAP_IS_WRITTEN || !(c & (PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED)),
		      "a written page looks clean after the split");
	}
	printf("a protecting scan of its first 8 pages: page 5 %s\n",
	       seen[5] ? "reported" : "not reported, and not protected either");
	t.map[100 * PAGE] = 3;
	t.map[HUGE] = 3;
	memset(seen, 0, sizeof(seen));
	n = tracked_scan(&t, 0, 512, true, seen);
	prove(n >= 1 && seen[100], "%ld pages, the second write to it among them", n);
	prove(tracked_scan(&t, 512, 512, true, NULL) >= 1, "the neighbour");
	prove(tracked_scan(&t, 0, 1024, true, NULL) == 0, "nothing more");
	return 0;
}
