// SPDX-License-Identifier: MIT
/*
 * Recognition of zero pages: each variant, from the cache and from memory.
 *
 *   zero [MiB [REPEATS]]     memory to walk, default 512 MiB, 11 times; medians and the range
 *
 * "zero" pages are read whole; "last byte" pages too, and are not zero; of "first byte" pages
 * zero_page reads a line. GB/s of pages looked at, and ns a page.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dataplane/region.h"
#include "dataplane/zero.h"
#include "lib/base/clock.h"

#define REPEATS_MAX 99
#define CACHE_BYTES (256u * 1024) /* stays in a second-level cache */
#define VARIANTS    8		  /* at most; zero_page comes last */

enum content { CONTENT_ZERO, CONTENT_LAST, CONTENT_FIRST, CONTENT_COUNT };
static const char *const content_names[] = { "zero", "last byte", "first byte" };

struct look {
	const char *name;
	bool (*page)(const void *page);
};

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void fill(uint8_t *memory, size_t size, enum content content)
{
	for (size_t at = 0; at < size; at += PAGE_BYTES) {
		memory[at] = content == CONTENT_FIRST;
		memory[at + PAGE_BYTES - 1] = content == CONTENT_LAST;
	}
}

/* ns a page of one walk over `size` bytes, as often as makes `total` bytes. */
static double walk(const struct look *l, const uint8_t *memory, size_t size, size_t total)
{
	uint64_t start = clock_ns(), zeros = 0;

	for (size_t done = 0; done < total; done += size)
		for (size_t at = 0; at < size; at += PAGE_BYTES)
			zeros += l->page(memory + at);
	if (zeros != (total / PAGE_BYTES) && zeros != 0)
		abort();
	return (double)(clock_ns() - start) / (double)(total / PAGE_BYTES);
}

static void measure(const struct look *looks, unsigned int n, uint8_t *memory, size_t size,
		    size_t total, enum content content, int repeats, const char *where)
{
	static double ns[VARIANTS][REPEATS_MAX];

	fill(memory, size, content);
	/* One walk to warm up, then repeats outermost: what the machine does falls on all alike. */
	for (int i = -1; i < repeats; i++)
		for (unsigned int k = 0; k < n; k++)
			ns[k][i < 0 ? 0 : i] = walk(&looks[k], memory, size, total);
	for (unsigned int k = 0; k < n; k++) {
		qsort(ns[k], (size_t)repeats, sizeof(ns[k][0]), by_value);
		printf("%-7s %-11s %-10s %9.1f %9.1f  %.1f-%.1f\n", where, content_names[content],
		       looks[k].name, ns[k][repeats / 2], PAGE_BYTES / ns[k][repeats / 2], ns[k][0],
		       ns[k][repeats - 1]);
	}
}

int main(int argc, char **argv)
{
	size_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 512) << 20;
	int repeats = argc > 2 ? atoi(argv[2]) : 11;
	struct look looks[VARIANTS];
	unsigned int n = 0;
	uint8_t *memory;

	if (size < CACHE_BYTES || repeats < 1 || repeats > REPEATS_MAX)
		return 1;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	memset(memory, 0, size);
	for (unsigned int i = 0; i < zero_variants_count && n < VARIANTS - 1; i++)
		if (zero_variants[i].usable())
			looks[n++] = (struct look){ zero_variants[i].name, zero_variants[i].page };
	looks[n++] = (struct look){ "zero_page", zero_page };
	printf("zero_page uses %s\n", zero_variant_chosen()->name);
	printf("%-7s %-11s %-10s %9s %9s  %s\n", "from", "pages", "variant", "ns/page", "GB/s",
	       "ns range");
	for (enum content c = 0; c < CONTENT_COUNT; c++) {
		measure(looks, n, memory, CACHE_BYTES, size, c, repeats, "cache");
		measure(looks, n, memory, size, size, c, repeats, "memory");
	}
	munmap(memory, size);
	return 0;
}
