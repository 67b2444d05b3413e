// SPDX-License-Identifier: MIT
/*
 * The pagemap tracker over this process's own memory. The oracle is a shadow copy that takes only
 * what was reported: at the end it must equal the memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "control/guest/uffd.h"
#include "dataplane/track/tracker.h"
#include "lib/base/cleanup.h"
#include "lib/base/kernel_abi.h"

#include <sys/syscall.h>

#define BLOCK	       (2u << 20)
#define MADV_PAGEOUT_  21
#define MADV_COLLAPSE_ 25

/* One region, its mapping in this process under a userfaultfd, and its tracker. */
struct fixture {
	struct region region;
	struct region_mapping mappings[2];
	uint8_t *map;
	int uffd;
	struct tracker *t;
	struct bitmap dirty;
	bool kvm;
	struct failure f;
};

static uint8_t *map_aligned(int fd, uint64_t size, uint64_t offset)
{
	uint8_t *room = mmap(NULL, size + BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t at = ((uintptr_t)room + BLOCK - 1) & ~(uintptr_t)(BLOCK - 1);

	return mmap((void *)at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		    (off_t)offset);
}

static void init_memory(struct fixture *x, uint64_t size, uint64_t file_offset)
{
	memset(x, 0, sizeof(*x));
	if (uffd_probe(&x->f)) {
		print_message("skip: %s\n", x->f.message);
		skip();
	}
	x->region = (struct region){ .page_size = PAGE_BYTES,
				     .size = size,
				     .file_offset = file_offset,
				     .mappings = x->mappings,
				     .nmappings = 1 };
	x->region.fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(x->region.fd, (off_t)(size + file_offset)), 0);
	x->map = map_aligned(x->region.fd, size, file_offset);
	assert_ptr_not_equal(x->map, MAP_FAILED);
	x->mappings[0] = (struct region_mapping){ (uintptr_t)x->map, (uintptr_t)x->map + size, 0 };
	assert_int_equal(bitmap_init(&x->dirty, size >> PAGE_SHIFT), 0);
}

static void init_userfaultfd(struct fixture *x)
{
	x->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	assert_int_equal(uffd_api(x->uffd, UFFD_TRACK_FEATURES, &x->f), 0);
	assert_int_equal(uffd_register_wp(x->uffd, x->mappings[0].start, x->mappings[0].end, &x->f),
			 0);
}

static void init(struct fixture *x, uint64_t size, uint64_t file_offset)
{
	init_memory(x, size, file_offset);
	init_userfaultfd(x);
}

static void start(struct fixture *x, unsigned int threads)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (tracker_pagemap_new(
		    &x->t, &x->region, 1, pagemap,
		    &(struct tracker_pagemap_options){ .threads = threads, .kvm = x->kvm },
		    &x->f) ||
	    x->t->ops->start(x->t, &x->f))
		fail_msg("%s", x->f.message);
}

static uint64_t collect(struct fixture *x)
{
	uint64_t pages;

	bitmap_clear_all(&x->dirty);
	if (x->t->ops->collect(x->t, &x->dirty, &pages, &x->f))
		fail_msg("%s", x->f.message);
	return pages;
}

static void release(struct fixture *x)
{
	x->t->ops->free(x->t);
	close(x->uffd);
	munmap(x->map, x->region.size);
	bitmap_release(&x->dirty);
	close(x->region.fd);
}

static void check_dirty(struct fixture *x, const uint64_t *pages, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (!bitmap_test(&x->dirty, pages[i]))
			fail_msg("page %llu is not reported", (unsigned long long)pages[i]);
	assert_int_equal(bitmap_count(&x->dirty), count);
}

static void touch(struct fixture *x, uint64_t page)
{
	x->map[page * PAGE_BYTES]++;
}

static void test_exact(void **state)
{
	/* neighbours, block ends, more than one block's groups, far away */
	static const uint64_t pages[] = { 0,   1,   5,	 100,  200,  300, 400,
					  500, 511, 512, 1023, 4000, 8191 };
	const uint64_t count = sizeof(pages) / sizeof(pages[0]);
	struct fixture x;

	(void)state;
	init(&x, 8192 * PAGE_BYTES, 3 * PAGE_BYTES);
	memset(x.map, 1, 4096 * PAGE_BYTES);
	start(&x, 1);
	assert_int_equal(collect(&x), 0); /* what was before start is not reported */
	for (uint64_t i = 0; i < count; i++)
		touch(&x, pages[i]);
	assert_int_equal(collect(&x), count);
	check_dirty(&x, pages, count);
	assert_int_equal(collect(&x), 0);
	/* reading, of data and of a hole, is no write; a page that reading created may be reported
	 */
	assert_int_equal(*(volatile uint8_t *)(x.map + 700 * PAGE_BYTES), 1);
	assert_int_equal(collect(&x), 0);
	/* the bitmap is added to */
	bitmap_set_range(&x.dirty, 77, 1);
	touch(&x, 78);
	{
		uint64_t n;

		assert_int_equal(x.t->ops->collect(x.t, &x.dirty, &n, &x.f), 0);
		assert_int_equal(n, 1);
		assert_int_equal(bitmap_count_range(&x.dirty, 77, 2), 2);
	}
	release(&x);
}

static uint64_t peek(struct fixture *x, uint64_t first, uint64_t *bits)
{
	uint64_t n = 0;

	memset(bits, 0, CHUNK_PAGES / 8);
	assert_int_equal(x->t->ops->peek(x->t, &x->region, first, CHUNK_PAGES, bits), 0);
	for (uint32_t w = 0; w < CHUNK_PAGES / 64; w++)
		n += (uint64_t)__builtin_popcountll(bits[w]);
	return n;
}

/* What was written is seen before it is collected, and is collected all the same. */
static void test_peek(void **state)
{
	static const uint64_t pages[] = { 0, 1, 300, 511, 513, 1023, 1024 };
	uint64_t bits[CHUNK_PAGES / 64];
	struct fixture x;

	(void)state;
	init(&x, 4096 * PAGE_BYTES, 5 * PAGE_BYTES);
	for (uint64_t page = 0; page < 2048; page++)
		touch(&x, page);
	start(&x, 1);
	assert_int_equal(peek(&x, 0, bits), 0);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		touch(&x, pages[i]);
	assert_int_equal(peek(&x, 0, bits), 4);
	assert_true(bits[0] == 3 && bits[300 / 64] == 1ull << 300 % 64 && bits[7] == 1ull << 63);
	assert_int_equal(peek(&x, 512, bits), 2);
	assert_true(bits[0] == 2 && bits[7] == 1ull << 63);
	/* never touched: not written, whatever the file holds */
	assert_int_equal(peek(&x, 2048, bits), 0);
	assert_int_equal(pwrite(x.region.fd, "x", 1, (2048 + 5) * PAGE_BYTES), 1);
	assert_int_equal(peek(&x, 2048, bits), 0);
	collect(&x);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		assert_true(bitmap_test(&x.dirty, pages[i]));
	assert_int_equal(peek(&x, 0, bits), 0);
	assert_int_equal(peek(&x, 512, bits), 0);
	/* as scattered as can be */
	for (uint64_t page = 0; page < CHUNK_PAGES; page += 2)
		touch(&x, page);
	assert_int_equal(peek(&x, 0, bits), CHUNK_PAGES / 2);
	for (uint32_t w = 0; w < CHUNK_PAGES / 64; w++)
		assert_true(bits[w] == 0x5555555555555555ull);
	release(&x);
}

static void test_holes_stay_free(void **state)
{
	struct fixture x;
	struct bitmap data;
	uint64_t page = 300000;

	(void)state;
	init(&x, 4ull << 30, 0);
	touch(&x, 7);
	start(&x, 1);
	assert_int_equal(collect(&x), 0);
	touch(&x, page); /* in a block that was never touched */
	assert_int_equal(collect(&x), 1);
	check_dirty(&x, &page, 1);
	assert_int_equal(collect(&x), 0);
	touch(&x, page + 1);
	page++;
	assert_int_equal(collect(&x), 1);
	check_dirty(&x, &page, 1);
	/* none of it made pages exist */
	assert_int_equal(bitmap_init(&data, region_pages(&x.region)), 0);
	assert_int_equal(region_extents(&x.region, &data), 0);
	assert_int_equal(bitmap_count(&data), 3);
	bitmap_release(&data);
	release(&x);
}

/* Written, then gone from the page table while the file still has it. */
static void test_zapped(void **state)
{
	static const uint64_t written[] = { 3, 600, 601 };
	struct fixture x;

	(void)state;
	init(&x, 16 * BLOCK, 0);
	memset(x.map, 1, 4 * BLOCK);
	start(&x, 1);
	for (int i = 0; i < 3; i++)
		touch(&x, written[i]);
	assert_int_equal(madvise(x.map, 4 * BLOCK, MADV_PAGEOUT_), 0);
	assert_int_equal(madvise(x.map, 4 * BLOCK, MADV_DONTNEED), 0);
	assert_int_equal(collect(&x), 3);
	check_dirty(&x, written, 3);
	assert_int_equal(collect(&x), 0);
	/* filled by others, as at a destination that becomes a source: old news, and trackable */
	release(&x);

	init(&x, 16 * BLOCK, 0);
	for (uint64_t i = 0; i < 1024; i++)
		assert_int_equal(pwrite(x.region.fd, "x", 1, (off_t)(i * PAGE_BYTES)), 1);
	start(&x, 1);
	assert_int_equal(collect(&x), 0);
	touch(&x, 600);
	assert_int_equal(collect(&x), 1);
	check_dirty(&x, &written[1], 1);
	release(&x);
}

static void test_two_mappings(void **state)
{
	static const uint64_t pages[] = { 1, 2, 513 };
	struct fixture x;
	uint8_t *second;

	(void)state;
	init(&x, 2 * BLOCK, 0);
	memset(x.map, 1, 2 * BLOCK);
	second = map_aligned(x.region.fd, BLOCK, BLOCK);
	assert_int_equal(
		uffd_register_wp(x.uffd, (uintptr_t)second, (uintptr_t)second + BLOCK, &x.f), 0);
	x.mappings[1] =
		(struct region_mapping){ (uintptr_t)second, (uintptr_t)second + BLOCK, BLOCK };
	x.region.nmappings = 2;
	start(&x, 2);
	collect(&x);
	touch(&x, 1);
	touch(&x, 2);
	second[PAGE_BYTES]++; /* page 513 by the second mapping alone */
	assert_int_equal(collect(&x), 3);
	check_dirty(&x, pages, 3);
	release(&x);
	munmap(second, BLOCK);
}

static void test_lost(void **state)
{
	struct fixture x;
	uint64_t pages;

	(void)state;
	init(&x, 4 * BLOCK, 0);
	memset(x.map, 1, 4 * BLOCK);
	start(&x, 1);
	assert_int_equal(uffd_unregister_windows(x.uffd, x.mappings[0].start + BLOCK,
						 x.mappings[0].start + 2 * BLOCK),
			 0);
	assert_int_equal(x.t->ops->collect(x.t, &x.dirty, &pages, &x.f), -EPERM);
	assert_string_equal(x.f.code, "tracker-lost");
	release(&x);

	init(&x, 4 * BLOCK, 0);
	memset(x.map, 1, 4 * BLOCK);
	start(&x, 1);
	munmap(x.map, 4 * BLOCK); /* reads as clean */
	assert_int_equal(x.t->ops->collect(x.t, &x.dirty, &pages, &x.f), -EOWNERDEAD);
	assert_string_equal(x.f.code, "tracker-lost");
	release(&x);
}

/* More runs than fit any buffer, each counted once. */
static void test_many_runs(void **state)
{
	struct fixture x;
	uint64_t pages = 40000;

	(void)state;
	init(&x, pages * PAGE_BYTES, 0);
	memset(x.map, 1, pages * PAGE_BYTES);
	start(&x, 1);
	for (int i = 0; i < 3; i++) {
		for (uint64_t p = (uint64_t)i; p < pages; p += 5)
			touch(&x, p);
		assert_int_equal(collect(&x), pages / 5);
		assert_int_equal(bitmap_count(&x.dirty), pages / 5);
		for (uint64_t p = (uint64_t)i; p < pages; p += 5)
			assert_true(bitmap_test(&x.dirty, p));
	}
	release(&x);
}

static void test_refused(void **state)
{
	struct region_mapping m = { 0x200000, 0x400000, 0 };
	struct region r = {
		.page_size = PAGE_BYTES, .size = BLOCK, .fd = -1, .mappings = &m, .nmappings = 1
	};
	struct failure f = { 0 };
	struct tracker *t;

	(void)state;
	m.offset = PAGE_BYTES; /* reaches past the region */
	assert_int_equal(tracker_pagemap_new(&t, &r, 1, -1,
					     &(struct tracker_pagemap_options){ .threads = 1 }, &f),
			 -EINVAL);
	m = (struct region_mapping){ 0x200000, 0x200000, 0 };
	assert_int_equal(tracker_pagemap_new(&t, &r, 1, -1,
					     &(struct tracker_pagemap_options){ .threads = 1 }, &f),
			 -EINVAL);
	m = (struct region_mapping){ 0x200800, 0x300800, 0 };
	assert_int_equal(tracker_pagemap_new(&t, &r, 1, -1,
					     &(struct tracker_pagemap_options){ .threads = 1 }, &f),
			 -EINVAL);
	m = (struct region_mapping){ 0x200000, 0x300000, ~0ull & ~0xfffull };
	assert_int_equal(tracker_pagemap_new(&t, &r, 1, -1,
					     &(struct tracker_pagemap_options){ .threads = 1 }, &f),
			 -EINVAL);
	m = (struct region_mapping){ 0x200000, 0x400000, 0 };
	r.index = 1;
	assert_int_equal(tracker_pagemap_new(&t, &r, 1, -1,
					     &(struct tracker_pagemap_options){ .threads = 1 }, &f),
			 -EINVAL);
	r = (struct region){ .page_size = 1u << 30, .size = 1u << 30, .hugetlb = true, .fd = -1 };
	failure_clear(&f);
	assert_int_equal(tracker_pagemap_new(&t, &r, 1, -1,
					     &(struct tracker_pagemap_options){ .threads = 1 }, &f),
			 -EOPNOTSUPP);
	assert_string_equal(f.code, "tracker-unavailable");
}

struct writer {
	struct fixture *x;
	pthread_t thread;
	atomic_bool stop;
	_Atomic uint64_t writes;
	uint64_t pages;
	unsigned int seed;
};

static void *write_forever(void *arg)
{
	struct writer *w = arg;
	unsigned int seed = w->seed;

	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		uint64_t page = (uint64_t)rand_r(&seed) % w->pages;

		/* atomic: the main thread copies the page meanwhile, as transmission does */
		__atomic_fetch_add((uint32_t *)(w->x->map + page * PAGE_BYTES), 1,
				   __ATOMIC_RELAXED);
		atomic_fetch_add_explicit(&w->writes, 1, memory_order_relaxed);
	}
	return NULL;
}

#define WRITERS 3

static void writers_begin(struct writer w[WRITERS], struct fixture *x, uint64_t pages)
{
	for (unsigned int i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){ .x = x, .seed = i + 1 };
		w[i].pages = i ? pages : 2000; /* one hits a small set often */
		assert_int_equal(pthread_create(&w[i].thread, NULL, write_forever, &w[i]), 0);
	}
}

static void writers_end(struct writer w[WRITERS])
{
	for (int i = 0; i < WRITERS; i++)
		atomic_store(&w[i].stop, true);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(w[i].thread, NULL);
}

static bool written_enough(struct writer w[WRITERS])
{
	for (int i = 0; i < WRITERS; i++)
		if (w[i].writes < 20000)
			return false;
	return true;
}

static void copy_page(struct fixture *x, uint32_t *shadow, uint64_t page)
{
	shadow[page] = __atomic_load_n((uint32_t *)(x->map + page * PAGE_BYTES), __ATOMIC_RELAXED);
}

static void copy_reported(struct fixture *x, uint32_t *shadow)
{
	uint64_t first, count, limit = region_pages(&x->region);

	for (uint64_t at = 0; bitmap_next_run(&x->dirty, at, limit, &first, &count);
	     at = first + count)
		for (uint64_t p = first; p < first + count; p++)
			copy_page(x, shadow, p);
}

static void assert_same(struct fixture *x, const uint32_t *shadow)
{
	for (uint64_t p = 0; p < region_pages(&x->region); p++)
		if (shadow[p] != *(uint32_t *)(x->map + p * PAGE_BYTES))
			fail_msg("page %llu was written and not reported", (unsigned long long)p);
}

static void test_nothing_lost(void **state)
{
	struct fixture x;
	struct writer w[WRITERS];
	uint64_t pages = 16384;
	uint32_t *shadow = calloc(pages, sizeof(*shadow));

	(void)state;
	init(&x, pages * PAGE_BYTES, 0);
	/* the last quarter begins unpopulated */
	memset(x.map, 0, pages / 4 * 3 * PAGE_BYTES);
	start(&x, 2);
	writers_begin(w, &x, pages);
	for (int round = 0; round < 150 || !written_enough(w); round++) {
		collect(&x);
		copy_reported(&x, shadow);
	}
	writers_end(w);
	collect(&x);
	copy_reported(&x, shadow);
	assert_int_equal(collect(&x), 0);
	assert_same(&x, shadow);
	free(shadow);
	release(&x);
}

static void test_none(void **state)
{
	struct region r = { .page_size = PAGE_BYTES, .size = 10 * PAGE_BYTES };
	struct tracker *t;
	struct bitmap dirty;
	struct failure f = { 0 };
	uint64_t pages;

	(void)state;
	r.fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(r.fd, (off_t)r.size), 0);
	assert_int_equal(pwrite(r.fd, "x", 1, 4 * PAGE_BYTES), 1);
	assert_int_equal(bitmap_init(&dirty, 10), 0);
	assert_int_equal(tracker_none_new(&t, &r, 1), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(t->ops->start(t, &f), 0);
		bitmap_clear_all(&dirty);
		assert_int_equal(t->ops->collect(t, &dirty, &pages, &f), 0);
		assert_int_equal(pages, 1);
		assert_true(bitmap_test(&dirty, 4));
		assert_int_equal(t->ops->collect(t, &dirty, &pages, &f), 0);
		assert_int_equal(pages, 0);
	}
	t->ops->free(t);
	bitmap_release(&dirty);
	close(r.fd);
}

/* Fills count blocks from block first on and puts a huge page under each, through map. */
static void fill_huge(uint8_t *map, unsigned int first, unsigned int count)
{
	for (unsigned int i = first; i < first + count; i++) {
		memset(map + (size_t)i * BLOCK, 1, BLOCK);
		if (madvise(map + (size_t)i * BLOCK, BLOCK, MADV_COLLAPSE_)) {
			print_message("skip: no huge pages: %s\n", strerror(errno));
			skip();
		}
	}
}

static bool mapped_huge(struct fixture *x, uint64_t page)
{
	AUTO_CLOSE int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct pagemap_range found;
	struct pagemap_scan q = {
		.size = sizeof(q),
		.start = (uintptr_t)x->map + page * PAGE_BYTES,
		.end = (uintptr_t)x->map + (page + 1) * PAGE_BYTES,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.category_mask = PAGEMAP_IS_HUGE,
		.return_mask = PAGEMAP_IS_HUGE,
	};

	return ioctl(pagemap, PAGEMAP_SCAN_IOCTL, &q) == 1;
}

/* Huge pages of shmem are tracked by small pages, also one that comes to be after the start. */
static void test_huge_pages(void **state)
{
	static const uint64_t pages[] = { 0, 5, 511, 512, 1300 }, later[] = { 6, 511, 1301, 1700 };
	struct fixture x;
	uint8_t *other;

	(void)state;
	init_memory(&x, 8 * BLOCK, 0);
	fill_huge(x.map, 0, 3);
	assert_true(mapped_huge(&x, 0));
	init_userfaultfd(&x);
	start(&x, 1);
	assert_int_equal(collect(&x), 0);
	for (size_t i = 0; i < 5; i++)
		touch(&x, pages[i]);
	assert_int_equal(collect(&x), 5);
	check_dirty(&x, pages, 5);

	/* block 5 held nothing when it was armed */
	other = map_aligned(x.region.fd, x.region.size, 0);
	fill_huge(other, 5, 1);
	touch(&x, 5 * 512 + 7);
	collect(&x);
	assert_true(bitmap_test(&x.dirty, 5 * 512 + 7));
	assert_false(mapped_huge(&x, 5 * 512));
	for (size_t i = 0; i < 4; i++)
		touch(&x, later[i]);
	touch(&x, 5 * 512 + 8);
	assert_int_equal(collect(&x), 5);
	assert_true(bitmap_test(&x.dirty, 5 * 512 + 8));
	assert_int_equal(collect(&x), 0);
	assert_int_equal(x.map[5 * BLOCK + 7 * PAGE_BYTES], 2);
	munmap(other, x.region.size);
	release(&x);
}

/*
 * The same on huge pages, of a region that does not begin with one: written to while they are armed
 * and thereby split, while they are collected, and while others are made under them.
 */
static void nothing_lost_on_huge_pages(uint64_t file_offset, bool kvm)
{
	const unsigned int blocks = 24;
	struct fixture x;
	struct writer w[WRITERS];
	uint64_t pages = blocks * 512ull - (file_offset >> PAGE_SHIFT);
	uint32_t *shadow = calloc(pages, sizeof(*shadow));
	uint8_t *other;
	unsigned int made = 0;

	init_memory(&x, pages * PAGE_BYTES, file_offset);
	other = map_aligned(x.region.fd, (uint64_t)blocks * BLOCK, 0);
	if (file_offset) { /* mapped so that the file's huge pages can be mapped whole */
		munmap(x.map, x.region.size);
		x.map = mmap(map_aligned(x.region.fd, (uint64_t)blocks * BLOCK, 0) + file_offset,
			     x.region.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			     x.region.fd, (off_t)file_offset);
		x.mappings[0] = (struct region_mapping){ (uintptr_t)x.map,
							 (uintptr_t)x.map + x.region.size, 0 };
	}
	fill_huge(other, 0, blocks / 4 * 3);
	memset(other, 0, (size_t)blocks / 4 * 3 * BLOCK);
	writers_begin(w, &x, pages);
	init_userfaultfd(&x);
	x.kvm = kvm;
	start(&x, 2);
	for (uint64_t p = 0; p < pages; p++)
		copy_page(&x, shadow, p);
	for (int round = 0; round < 150 || !written_enough(w); round++) {
		made += !madvise(other + (size_t)(round % (int)blocks) * BLOCK, BLOCK,
				 MADV_COLLAPSE_);
		collect(&x);
		copy_reported(&x, shadow);
	}
	writers_end(w);
	assert_true(made > 0);
	collect(&x);
	copy_reported(&x, shadow);
	collect(&x); /* what was a huge page under it may be reported once more */
	assert_int_equal(collect(&x), 0);
	assert_same(&x, shadow);
	munmap(other, (size_t)blocks * BLOCK);
	free(shadow);
	release(&x);
}

static void test_nothing_lost_on_huge_pages(void **state)
{
	(void)state;
	nothing_lost_on_huge_pages(0, false);
	nothing_lost_on_huge_pages(0, true);
	nothing_lost_on_huge_pages(37 * PAGE_BYTES, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_peek),
		cmocka_unit_test(test_holes_stay_free),
		cmocka_unit_test(test_zapped),
		cmocka_unit_test(test_two_mappings),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_nothing_lost),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_many_runs),
		cmocka_unit_test(test_huge_pages),
		cmocka_unit_test(test_nothing_lost_on_huge_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
