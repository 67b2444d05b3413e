// SPDX-License-Identifier: MIT
/*
 * What a scan says of pages that leave the page table.
 *
 *   written, then swapped out or MADV_DONTNEEDed: gone from the page table and still in the file.
 *   Kernels differ in whether they call such an entry written; none calls it protected, and the
 *   file says that it holds the page. That is what the tracker goes by.
 *
 *   protected and punched (balloon, discard): NOT reported. A hole that appears is found only by
 *   asking the file again, which the pause must do.
 */
#include "tests/platform/common.h"

static bool in_file(struct tracked *t, uint64_t page)
{
	return lseek(t->fd, (off_t)(page * PAGE), SEEK_DATA) == (off_t)(page * PAGE);
}

static bool is_none(uint64_t categories)
{
	return !(categories & (PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED));
}

static bool is_protected(uint64_t categories)
{
	return !is_none(categories) && !(categories & PAGEMAP_IS_WRITTEN);
}

static void check_kept(struct tracked *t, const char *what)
{
	uint64_t written = tracked_categories(t, 0), untouched = tracked_categories(t, 1);

	prove(in_file(t, 0) && in_file(t, 1), "%s: the file holds both", what);
	/* still mapped is allowed: the kernel may not have followed the advice */
	prove(is_none(written) || written & PAGEMAP_IS_WRITTEN, "%s: a written page looks clean",
	      what);
	prove(is_protected(untouched), "%s: a protected page lost its protection", what);
	printf("%s: the written page is %s, the other protected\n", what,
	       !is_none(written)	      ? "mapped and written"
	       : written & PAGEMAP_IS_WRITTEN ? "none, called written"
					      : "none, called nothing");
	prove(t->map[0] == 2 && t->map[PAGE] == 1, "%s: content", what);
}

static void prepare(struct tracked *t)
{
	memset(t->map, 1, 8 * PAGE);
	prove(tracked_arm_all(t) == 0, "armed");
	t->map[0] = 2;
}

int main(void)
{
	struct tracked t;

	tracked_map(&t, memfd_of(2 * HUGE), 2 * HUGE);
	tracked_register(&t);

	prepare(&t);
	prove(!madvise(t.map, 8 * PAGE, MADV_PAGEOUT), "%s", strerror(errno));
	check_kept(&t, "MADV_PAGEOUT");
	prepare(&t);
	prove(!madvise(t.map, 8 * PAGE, MADV_DONTNEED), "%s", strerror(errno));
	check_kept(&t, "MADV_DONTNEED");

	prepare(&t);
	prove(!fallocate(t.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * PAGE), "punch");
	prove(!madvise(t.map + 2 * PAGE, 2 * PAGE, MADV_REMOVE), "%s", strerror(errno));
	for (uint64_t page = 0; page < 4; page++) {
		uint64_t c = tracked_categories(&t, page);

		prove(!in_file(&t, page), "page %llu is punched", (unsigned long long)page);
		prove(page == 0 || !(c & PAGEMAP_IS_PRESENT), "page %llu is unmapped",
		      (unsigned long long)page);
		printf("punched page %llu (%s before, by %s): %s\n", (unsigned long long)page,
		       page ? "protected" : "written", page < 2 ? "fallocate" : "MADV_REMOVE",
		       is_protected(c) ? "not reported" : "none");
	}
	/* and the next write to a punched page is a write like any other */
	prove(tracked_scan(&t, 0, 8, true, NULL) >= 0, "scan");
	t.map[PAGE] = 3;
	prove(tracked_categories(&t, 1) & PAGEMAP_IS_WRITTEN, "a write after the punch is seen");
	return 0;
}
