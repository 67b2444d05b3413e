// SPDX-License-Identifier: MIT
/* The switch-over: what the last scan found is said to the destination, exactly, and not sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "dataplane/source/scheduler.h"
#include "dataplane/transport/wire.h"
#include "tests/unit/dataplane/postcopy/vmm.h"

/* This process is the source's VMM: its mapping is tracked. */
static uint8_t *track(struct pair *p, uint32_t i, int uffd)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	uint8_t *map = mmap(NULL, p->size[i], PROT_READ | PROT_WRITE, MAP_SHARED, p->src_ram[i], 0);

	pair_check(map != MAP_FAILED);
	reg.range.start = (uintptr_t)map;
	reg.range.len = p->size[i];
	pair_check(!ioctl(uffd, UFFDIO_REGISTER, &reg));
	p->mapping[i] = (struct ipc_mapping){ .region = i,
					      .start = (uintptr_t)map,
					      .end = (uintptr_t)map + p->size[i] };
	return map;
}

static void test_what_is_pending_is_named(void **state)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
					      UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct pair p = PAIR_INIT(3, IPC_TX_AUTO);
	struct region regions[2] = { 0 };
	struct page_set named;
	uint64_t x = 3, wrote = 0, wire;
	uint8_t *map[2];
	int fd, uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	(void)state;
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) {
		print_message("no asynchronous write protection: %s\n", strerror(errno));
		skip();
	}
	p.nregions = 2;
	p.size[0] = 8u << 20;
	p.size[1] = (4u << 20) + 5 * 4096; /* a last chunk that is none */
	for (uint32_t i = 0; i < 2; i++) {
		p.src_ram[i] = pair_memfd(&p, p.size[i]);
		pair_fill(p.src_ram[i], p.size[i], 5);
		map[i] = track(&p, i, uffd);
		regions[i] = (struct region){ .index = i, .size = p.size[i] };
	}
	p.tracker_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	pair_round(&p, 1);

	fd = memfd_create("missing", MFD_CLOEXEC);
	pair_check(!ftruncate(fd, (off_t)postcopy_file_bytes(regions, 2)));
	assert_int_equal(page_set_init(&named, regions, 2, fd, 0, NULL), 0);
	pair_send(&p.dst, IPC_MISSING, NULL, fd);
	for (int i = 0; i < 700; i++) {
		uint32_t r = (uint32_t)(vmm_random(&x) & 1);

		map[r][(x >> 20) % p.size[r]]++;
	}
	map[1][p.size[1] - 1]++;
	wrote = pair_scan(&p, IPC_SCAN_BARRIER).pending_pages;
	pair_send(&p.src, IPC_HAND_OVER, NULL, -1);
	assert_int_equal(pair_expect(&p.src, IPC_HANDED_OVER)->count.bytes, wrote);
	assert_int_equal(pair_expect(&p.dst, IPC_HANDED_OVER)->count.bytes, wrote);
	assert_true(wrote > 500);
	assert_int_equal(page_set_count(&named), wrote);

	/* what differs is what was named, and it was not sent */
	for (uint32_t i = 0; i < 2; i++) {
		for (uint64_t page = 0; page < p.size[i] >> 12; page++) {
			uint8_t a[4096], b[4096];
			bool is_named = page_set_has(page_set_chunk(&named, i, page / CHUNK_PAGES),
						     (uint32_t)(page % CHUNK_PAGES));

			pair_check(pread(p.src_ram[i], a, 4096, (off_t)(page << 12)) == 4096);
			pair_check(pread(p.dst_ram[i], b, 4096, (off_t)(page << 12)) == 4096);
			assert_int_equal(is_named, memcmp(a, b, 4096) != 0);
		}
	}
	/* and the session could still go on as a pre-copy */
	wire = pair_round(&p, 2).pages;
	assert_int_equal(wire, wrote);
	assert_int_equal(pair_verify(&p).mismatches, 0);
	pair_quit(&p);
	page_set_release(&named);
	close(fd);
	close(uffd);
	close(p.tracker_fd);
	munmap(map[0], p.size[0]);
	munmap(map[1], p.size[1]);
}

static void test_sets(void **state)
{
	struct region r[2] = { { .index = 0, .size = 3 * CHUNK_BYTES - 4096 },
			       { .index = 1, .size = 4096 } };
	uint64_t mask[PAGE_SET_WORDS], out[PAGE_SET_WORDS], chunk;
	struct page_set s;
	uint32_t count;

	(void)state;
	assert_int_equal(page_set_init(&s, r, 2, -1, 0, NULL), 0);
	assert_int_equal(page_set_chunks(&s), 4);
	assert_int_equal(page_set_region(&s, 2, &chunk), 0);
	assert_int_equal(chunk, 2);
	assert_int_equal(page_set_region(&s, 3, &chunk), 1);
	assert_int_equal(chunk, 0);
	page_mask_fill(mask, 60, 10);
	assert_int_equal(page_mask_count(mask), 10);
	assert_int_equal(page_set_next(&s, 0), page_set_chunks(&s));
	assert_int_equal(page_set_put(&s, 0, 1, mask), 10);
	assert_int_equal(page_set_put(&s, 0, 1, mask), 0);
	assert_int_equal(page_set_next(&s, 0), 1);
	assert_int_equal(page_set_next(&s, 2), page_set_chunks(&s));
	page_mask_fill(mask, 65, 100);
	page_set_add(page_set_chunk(&s, 0, 1), mask, out);
	assert_int_equal(page_mask_count(out), 95);
	assert_int_equal(page_mask_run(out, 0, &count), 70);
	assert_int_equal(count, 95);
	assert_int_equal(page_mask_run(out, 165, &count), CHUNK_PAGES);
	assert_int_equal(page_set_count(&s), 105);
	assert_int_equal(page_set_remove(page_set_chunk(&s, 0, 1), mask), 100);
	page_mask_fill(mask, 0, CHUNK_PAGES);
	page_set_keep(page_set_chunk(&s, 0, 1), mask);
	assert_int_equal(page_mask_run(mask, 0, &count), 60);
	assert_int_equal(count, 5);
	assert_int_equal(page_mask_run(mask, 63, &count), 63);
	assert_int_equal(count, 2);
	page_set_release(&s);
}

/* A large guest of which little is missing: what is done in its pause touches that alone. */
#define LARGE (16ull << 40)
static const uint64_t few[] = { 0,
				63 * CHUNK_PAGES + 5,
				64 * CHUNK_PAGES,
				700000ull * CHUNK_PAGES,
				700001ull * CHUNK_PAGES + 511,
				(LARGE >> PAGE_SHIFT) - 1 };
#define FEW (sizeof(few) / sizeof(few[0]))

static void test_keeping_and_counting_a_large_set(void **state)
{
	struct region r = { .size = LARGE };
	int fd = memfd_create("missing", MFD_CLOEXEC);
	struct page_set s;
	struct stat st;

	(void)state;
	pair_check(fd >= 0 && !ftruncate(fd, (off_t)page_set_bytes(&r, 1)));
	assert_int_equal(page_set_init(&s, &r, 1, fd, 0, NULL), 0);
	for (size_t i = 0; i < FEW; i++) {
		uint64_t mask[PAGE_SET_WORDS];

		page_mask_fill(mask, few[i] % CHUNK_PAGES, 1);
		assert_int_equal(page_set_put(&s, 0, few[i] / CHUNK_PAGES, mask), 1);
	}
	assert_int_equal(page_set_count(&s), FEW);
	/* of a file in memory what is looked at is allocated: all would be 512 MiB */
	pair_check(!fstat(fd, &st));
	assert_in_range(st.st_blocks * 512, FEW * sizeof(uint64_t), 2u << 20);
	page_set_release(&s);
	close(fd);
}

static uint64_t faults(void)
{
	struct rusage u;

	pair_check(!getrusage(RUSAGE_THREAD, &u));
	return (uint64_t)u.ru_minflt;
}

static void test_naming_what_a_large_guest_has_pending(void **state)
{
	struct region r = { .size = LARGE, .fd = memfd_create("large", MFD_CLOEXEC) };
	uint64_t pages = 0, before, touched;
	struct scheduler s;
	size_t seen = 0;
	int ends[2];

	(void)state;
	pair_check(r.fd >= 0 && !ftruncate(r.fd, (off_t)LARGE));
	pair_check(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	assert_int_equal(scheduler_init(&s, &r, 1, false), 0);
	for (size_t i = 0; i < FEW; i++)
		bitmap_set_range(&scheduler_scanned(&s)[0], few[i], 1);
	scheduler_merge(&s, false);
	bitmap_count(&s.dirty_chunks);
	before = faults();
	assert_int_equal(postcopy_name_pending(ends[0], &s, NULL, &pages), 0);
	touched = faults() - before;
	assert_int_equal(pages, FEW);
	/* all of the bitmap would be 256 even of the largest pages that it can have here */
	assert_in_range(touched, 0, 100);
	close(ends[0]);
	for (;;) {
		uint8_t head[WIRE_FRAME_SIZE], bits[WIRE_MISSING_SIZE];
		struct wire_frame f;

		pair_check(recv(ends[1], head, sizeof(head), MSG_WAITALL) == sizeof(head));
		assert_int_equal(wire_get_frame(&f, head, &r, 1), 0);
		if (f.type == WIRE_MISSING_END)
			break;
		for (uint32_t i = 0; i < f.count; i++, f.offset += CHUNK_BYTES) {
			uint64_t words[PAGE_SET_WORDS];
			uint32_t count, at;

			pair_check(recv(ends[1], bits, sizeof(bits), MSG_WAITALL) == sizeof(bits));
			assert_int_equal(wire_get_missing(words, bits, &r, f.offset), 0);
			at = page_mask_run(words, 0, &count);
			assert_int_equal(count, 1);
			assert_int_equal((f.offset >> PAGE_SHIFT) + at, few[seen++]);
		}
	}
	assert_int_equal(seen, FEW);
	scheduler_release(&s);
	close(ends[1]);
	close(r.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sets),
		cmocka_unit_test(test_keeping_and_counting_a_large_set),
		cmocka_unit_test(test_naming_what_a_large_guest_has_pending),
		cmocka_unit_test(test_what_is_pending_is_named),
	};

	signal(SIGPIPE, SIG_IGN);
	log_init("test", LOG_LEVEL_WARN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
