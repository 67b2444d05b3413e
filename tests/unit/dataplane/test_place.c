// SPDX-License-Identifier: MIT
/* Placing pages: every strategy against a model, and what happens to zeros and holes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "dataplane/place.h"

#define FILE_OFFSET   (3ull * PAGE_BYTES)
#define REGION_CHUNKS 3
/* Two whole chunks and one of five pages. */
#define REGION_SIZE   (2ull * CHUNK_BYTES + 5 * PAGE_BYTES)

struct fixture {
	struct region region;
	struct place place;
	struct rx_reader rx;
	struct placer placer;
	uint8_t *model; /* what the region must read as */
	int tx;
	uint64_t random;
	char why[96];

	/* a frame under way */
	uint8_t *frame;
	size_t frame_len;
	pthread_t sender;
};

static uint64_t next_random(struct fixture *x)
{
	x->random ^= x->random << 13;
	x->random ^= x->random >> 7;
	x->random ^= x->random << 17;
	return x->random >> 8;
}

static void open_fixture(struct fixture *x, enum place_kind kind, int fd, uint64_t size,
			 uint64_t file_offset)
{
	int sv[2];

	memset(x, 0, sizeof(*x));
	x->random = 88172645463325252ull;
	x->region = (struct region){ .page_size = PAGE_BYTES, .size = size,
				     .file_offset = file_offset, .fd = fd };
	assert_true(fd >= 0);
	assert_int_equal(region_map(&x->region, true), 0);
	assert_int_equal(place_init(&x->place, &x->region, 1, kind, x->why, sizeof(x->why)), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	x->tx = sv[0];
	assert_int_equal(rx_reader_init(&x->rx, sv[1]), 0);
	assert_int_equal(placer_init(&x->placer, &x->place, &x->rx), 0);
	x->model = calloc(1, size);
	x->frame = malloc(WIRE_PAYLOAD_MAX);
	assert_true(x->model && x->frame);
}

static int new_memfd(uint64_t size, unsigned int flags)
{
	int fd = memfd_create("test-place", flags);

	if (fd >= 0)
		assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void open_memfd(struct fixture *x, enum place_kind kind)
{
	/* something before and behind the region, which must not change */
	int fd = new_memfd(FILE_OFFSET + REGION_SIZE + PAGE_BYTES, MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, "before", 6, FILE_OFFSET - 6), 6);
	assert_int_equal(pwrite(fd, "behind", 6, FILE_OFFSET + REGION_SIZE), 6);
	open_fixture(x, kind, fd, REGION_SIZE, FILE_OFFSET);
}

static void close_fixture(struct fixture *x)
{
	placer_release(&x->placer);
	place_release(&x->place);
	close(x->rx.fd);
	rx_reader_release(&x->rx);
	if (x->tx >= 0)
		close(x->tx);
	region_release(&x->region);
	free(x->model);
	free(x->frame);
}

/* 4 KiB pages that the file holds. */
static uint64_t resident(const struct fixture *x)
{
	struct stat st;

	assert_int_equal(fstat(x->region.fd, &st), 0);
	return (uint64_t)st.st_blocks / 8;
}

static void assert_as_model(const struct fixture *x)
{
	static uint8_t buf[CHUNK_BYTES];

	for (uint64_t at = 0; at < x->region.size; at += sizeof(buf)) {
		size_t n = x->region.size - at < sizeof(buf) ? x->region.size - at : sizeof(buf);

		assert_int_equal(pread(x->region.fd, buf, n, (off_t)(x->region.file_offset + at)),
				 (ssize_t)n);
		if (memcmp(buf, x->model + at, n))
			fail_msg("the region differs from the model in [%#lx, %#lx)",
				 (unsigned long)at, (unsigned long)(at + n));
	}
}

/* What was there before the session: data, written zeros, holes. */
static void make_stale(struct fixture *x)
{
	for (uint64_t at = 0; at < x->region.size; at += PAGE_BYTES) {
		uint8_t *page = x->model + at;

		switch (next_random(x) % 4) {
		case 0:
			continue; /* a hole */
		case 1:
			break; /* zeros */
		default:
			page[next_random(x) % PAGE_BYTES] = 7;
		}
		assert_int_equal(pwrite(x->region.fd, page, PAGE_BYTES,
					(off_t)(x->region.file_offset + at)),
				 PAGE_BYTES);
	}
	assert_as_model(x);
}

/*
 * Builds in x->frame the payload of a frame that does to the region what it does to the model.
 * runs: page, pages and encoding; lengths are filled in here.
 */
static struct wire_frame build(struct fixture *x, uint64_t offset, struct wire_run *runs,
			       uint32_t count)
{
	struct wire_frame f = { .type = WIRE_PAGES, .count = count, .offset = offset };
	uint8_t *p = x->frame + (size_t)count * WIRE_RUN_SIZE;

	for (uint32_t i = 0; i < count; i++) {
		uint8_t *page = x->model + offset + (uint64_t)runs[i].page * PAGE_BYTES;
		size_t len = (size_t)runs[i].pages * PAGE_BYTES;

		runs[i].length = runs[i].encoding == WIRE_ENC_RAW ? (uint32_t)len : 0;
		wire_put_run(x->frame + (size_t)i * WIRE_RUN_SIZE, &runs[i]);
		if (runs[i].encoding != WIRE_ENC_RAW) {
			memset(page, 0, len);
			continue;
		}
		for (size_t b = 0; b < len; b += sizeof(uint64_t)) {
			uint64_t v = next_random(x);

			memcpy(page + b, &v, sizeof(v));
		}
		memcpy(p, page, len);
		p += len;
	}
	x->frame_len = (size_t)(p - x->frame);
	f.length = (uint32_t)x->frame_len;
	return f;
}

static void *send_frame(void *arg)
{
	struct fixture *x = arg;
	size_t done = 0;

	while (done < x->frame_len) {
		ssize_t n = send(x->tx, x->frame + done, x->frame_len - done, MSG_NOSIGNAL);

		if (n <= 0)
			break; /* the receiver will say so */
		done += (size_t)n;
	}
	return NULL;
}

static int place(struct fixture *x, const struct wire_frame *f)
{
	int err;

	assert_int_equal(pthread_create(&x->sender, NULL, send_frame, x), 0);
	err = place_pages(&x->placer, f);
	if (err)
		shutdown(x->rx.fd, SHUT_RDWR);
	pthread_join(x->sender, NULL);
	return err;
}

static struct wire_frame random_frame(struct fixture *x)
{
	struct wire_run runs[WIRE_RUNS_MAX];
	uint64_t chunk = next_random(x) % REGION_CHUNKS, offset = chunk * CHUNK_BYTES;
	uint32_t pages = x->region.size - offset < CHUNK_BYTES ?
				 (uint32_t)((x->region.size - offset) / PAGE_BYTES) :
				 CHUNK_PAGES;
	uint32_t longest = 1 + (uint32_t)(next_random(x) % (next_random(x) % 2 ? 4 : pages));
	uint32_t count = 0, at = (uint32_t)(next_random(x) % 3);

	while (at < pages || !count) {
		uint32_t n = 1 + (uint32_t)(next_random(x) % longest);

		if (at >= pages)
			at = 0;
		if (n > pages - at)
			n = pages - at;
		runs[count++] = (struct wire_run){ .page = (uint16_t)at, .pages = (uint16_t)n,
						   .encoding = (uint8_t)(next_random(x) % 3) };
		at += n;
		if (next_random(x) % 2)
			at += (uint32_t)(next_random(x) % longest);
	}
	return build(x, offset, runs, count);
}

static void random_frames(enum place_kind kind, bool stale)
{
	struct fixture x;
	char edge[6];

	open_memfd(&x, kind);
	if (stale)
		make_stale(&x);
	for (unsigned int i = 0; i < 60; i++) {
		struct wire_frame f = random_frame(&x);

		assert_int_equal(place(&x, &f), 0);
		assert_int_equal(rx_buffered(&x.rx), 0);
		assert_as_model(&x);
	}
	assert_int_equal(pread(x.region.fd, edge, 6, FILE_OFFSET - 6), 6);
	assert_memory_equal(edge, "before", 6);
	assert_int_equal(pread(x.region.fd, edge, 6, FILE_OFFSET + REGION_SIZE), 6);
	assert_memory_equal(edge, "behind", 6);
	close_fixture(&x);
}

static void test_random_frames(void **state)
{
	(void)state;
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_PWRITE; kind++) {
		random_frames(kind, false);
		random_frames(kind, true);
	}
}

/* A kernel without MADV_POPULATE_WRITE. */
static void test_without_populate(void **state)
{
	struct wire_run whole = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct wire_frame f;
	struct fixture x;

	(void)state;
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_MAP; kind++) {
		open_memfd(&x, kind);
		x.place.can_populate = false;
		f = build(&x, CHUNK_BYTES, &whole, 1);
		assert_int_equal(place(&x, &f), 0);
		assert_as_model(&x);
		close_fixture(&x);
	}
}

/* Many small frames come with one read; what is read ahead belongs to the next frame. */
static void test_frames_read_ahead(void **state)
{
	struct wire_run runs[] = { { 1, 2, WIRE_ENC_RAW, 0 }, { 4, 1, WIRE_ENC_ZERO, 0 },
				   { 9, 1, WIRE_ENC_RAW, 0 } };
	struct wire_run large = { 16, 64, WIRE_ENC_RAW, 0 };
	struct wire_frame small_frames[8], f;
	struct fixture x;

	(void)state;
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_PWRITE; kind++) {
		open_memfd(&x, kind);
		make_stale(&x);
		for (unsigned int i = 0; i < 8; i++) {
			small_frames[i] = build(&x, (i & 1) * (uint64_t)CHUNK_BYTES, runs, 3);
			send_frame(&x);
		}
		for (unsigned int i = 0; i < 8; i++) {
			x.rx.ahead = 60000;
			assert_int_equal(place_pages(&x.placer, &small_frames[i]), 0);
		}
		assert_as_model(&x);
		/* the head of a large frame in the buffer, the rest still to come */
		f = build(&x, 0, runs, 3);
		send_frame(&x);
		small_frames[0] = build(&x, CHUNK_BYTES, &large, 1);
		assert_int_equal(pthread_create(&x.sender, NULL, send_frame, &x), 0);
		assert_int_equal(place_pages(&x.placer, &f), 0);
		x.rx.ahead = 0;
		assert_int_equal(place_pages(&x.placer, &small_frames[0]), 0);
		pthread_join(x.sender, NULL);
		assert_int_equal(rx_buffered(&x.rx), 0);
		assert_as_model(&x);
		close_fixture(&x);
	}
}

static void test_zero_punches_what_is_not_zero(void **state)
{
	struct wire_run zero = { 0, 100, WIRE_ENC_ZERO, 0 };
	struct wire_frame f;
	struct fixture x;
	uint64_t before;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	memset(x.model, 5, 200 * PAGE_BYTES);
	assert_int_equal(pwrite(x.region.fd, x.model, 200 * PAGE_BYTES, FILE_OFFSET),
			 200 * PAGE_BYTES);
	before = resident(&x);
	f = build(&x, 0, &zero, 1);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(resident(&x), before - 100);
	assert_as_model(&x);
	close_fixture(&x);
}

/* A guest that preallocated keeps its memory; one that did not gets none. */
static void test_zero_leaves_zeros_and_holes(void **state)
{
	struct wire_run runs[] = { { 0, 256, WIRE_ENC_ZERO, 0 }, { 256, 256, WIRE_ENC_HOLE, 0 } };
	struct wire_frame f;
	struct fixture x;
	uint64_t before;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	assert_int_equal(fallocate(x.region.fd, 0, FILE_OFFSET, CHUNK_BYTES), 0);
	/* single pages that are not zero between those that are */
	for (unsigned int page = 3; page < CHUNK_PAGES; page += 64)
		assert_int_equal(pwrite(x.region.fd, "x", 1,
					(off_t)(FILE_OFFSET + (page + 1) * PAGE_BYTES - 1)),
				 1);
	before = resident(&x);
	f = build(&x, 0, runs, 2);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(resident(&x), before - 8);
	assert_as_model(&x);
	/* the second chunk is a hole and stays one */
	f = build(&x, CHUNK_BYTES, runs, 2);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(resident(&x), before - 8);
	close_fixture(&x);
}

static void test_holes_over_the_region(void **state)
{
	struct wire_frame f = { .type = WIRE_HOLES, .offset = 2 * PAGE_BYTES,
				.extent = REGION_SIZE - 3 * PAGE_BYTES };
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	make_stale(&x);
	assert_int_equal(place_holes(&x.placer, &f), 0);
	memset(x.model + f.offset, 0, f.extent);
	assert_as_model(&x);
	assert_int_equal(x.placer.counters.hole_bytes, f.extent);
	close_fixture(&x);
}

/* After a punch the mapping has nothing there; what comes next must still arrive. */
static void test_raw_after_punch(void **state)
{
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct wire_run zero = { 100, 200, WIRE_ENC_ZERO, 0 };
	struct fixture x;

	(void)state;
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_PWRITE; kind++) {
		open_memfd(&x, kind);
		for (unsigned int i = 0; i < 3; i++) {
			struct wire_frame f = build(&x, 0, &raw, 1);

			assert_int_equal(place(&x, &f), 0);
			assert_as_model(&x);
			f = build(&x, 0, &zero, 1);
			assert_int_equal(place(&x, &f), 0);
			assert_as_model(&x);
		}
		close_fixture(&x);
	}
}

static void test_page_tables_are_bounded(void **state)
{
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	unsigned char in_core[CHUNK_PAGES];
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_MAP);
	/* a chunk's page table is its own, so that dropping the chunk frees it */
	assert_int_equal((uintptr_t)x.region.map % CHUNK_BYTES, 0);
	x.place.mapped_max = 1;
	for (unsigned int i = 0; i < 4; i++) {
		struct wire_frame f = build(&x, (i & 1) * (uint64_t)CHUNK_BYTES, &raw, 1);

		assert_int_equal(place(&x, &f), 0);
		assert_as_model(&x);
	}
	assert_int_equal(x.place.mapped_chunks, 1);
	/* dropped from the mapping only: the pages are in the file */
	assert_int_equal(mincore(x.region.map + CHUNK_BYTES, CHUNK_BYTES, in_core), 0);
	for (unsigned int i = 0; i < CHUNK_PAGES; i++)
		assert_true(in_core[i] & 1);
	close_fixture(&x);
}

static void test_counters(void **state)
{
	struct wire_run runs[] = { { 0, 3, WIRE_ENC_RAW, 0 }, { 5, 4, WIRE_ENC_ZERO, 0 },
				   { 9, 2, WIRE_ENC_HOLE, 0 }, { 11, 1, WIRE_ENC_RAW, 0 } };
	struct wire_frame f;
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	f = build(&x, 0, runs, 4);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(x.placer.counters.pages, 10);
	assert_int_equal(x.placer.counters.raw_bytes, 4 * PAGE_BYTES);
	assert_int_equal(x.placer.counters.zero_bytes, 4 * PAGE_BYTES);
	assert_int_equal(x.placer.counters.hole_bytes, 2 * PAGE_BYTES);
	assert_int_equal(x.rx.bytes, x.frame_len);
	close_fixture(&x);
}

static void test_hash_is_of_the_content(void **state)
{
	struct fixture x;
	uint64_t before, hash;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	make_stale(&x);
	before = resident(&x);
	for (uint64_t at = 0; at < REGION_SIZE; at += CHUNK_BYTES) {
		size_t len = REGION_SIZE - at < CHUNK_BYTES ? REGION_SIZE - at : CHUNK_BYTES;

		assert_int_equal(place_hash(&x.placer, &x.region, at, len, &hash), 0);
		assert_int_equal(hash, XXH3_64bits(x.model + at, len));
	}
	assert_int_equal(resident(&x), before);
	close_fixture(&x);

	open_memfd(&x, PLACE_AUTO); /* all hole, after the scratch was used for something else */
	before = resident(&x);
	memset(x.placer.scratch, 0xff, PLACE_SCRATCH_SIZE);
	assert_int_equal(place_hash(&x.placer, &x.region, CHUNK_BYTES, CHUNK_BYTES, &hash), 0);
	assert_int_equal(hash, XXH3_64bits(x.model, CHUNK_BYTES));
	assert_int_equal(resident(&x), before);
	close_fixture(&x);
}

static void test_malformed_frames_change_nothing(void **state)
{
	struct wire_run runs[] = { { 0, 4, WIRE_ENC_ZERO, 0 }, { 4, 4, WIRE_ENC_RAW, 0 } };
	struct wire_frame f;
	struct fixture x;
	uint8_t *kept;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	make_stale(&x);
	kept = malloc(REGION_SIZE);
	assert_non_null(kept);
	memcpy(kept, x.model, REGION_SIZE);
	f = build(&x, 0, runs, 2);
	x.frame[WIRE_RUN_SIZE] = 3; /* the second run now begins inside the first */
	assert_int_equal(place(&x, &f), -EBADMSG);
	memcpy(x.model, kept, REGION_SIZE);
	assert_as_model(&x);
	free(kept);
	close_fixture(&x);
}

static void test_encoding_not_agreed_on(void **state)
{
	struct wire_run run = { 0, 4, WIRE_ENC_ZSTD, 100 };
	struct wire_frame f = { .type = WIRE_PAGES, .count = 1, .length = WIRE_RUN_SIZE + 100 };
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	wire_put_run(x.frame, &run);
	memset(x.frame + WIRE_RUN_SIZE, 0, 100);
	x.frame_len = f.length;
	assert_int_equal(place(&x, &f), -EPROTONOSUPPORT);
	close_fixture(&x);
}

/* Sends what there is of the frame, then ends the stream. */
static void *send_and_end(void *arg)
{
	struct fixture *x = arg;

	send_frame(x);
	shutdown(x->tx, SHUT_WR);
	return NULL;
}

static void test_truncated_payload(void **state)
{
	static const size_t cut[] = { 1, 5000, CHUNK_BYTES, CHUNK_BYTES + 1 };
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct fixture x;

	(void)state;
	for (enum place_kind kind = PLACE_MAP; kind <= PLACE_PWRITE; kind++) {
		for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
			struct wire_frame f;

			open_memfd(&x, kind);
			f = build(&x, 0, &raw, 1);
			x.frame_len -= cut[i];
			assert_int_equal(pthread_create(&x.sender, NULL, send_and_end, &x), 0);
			assert_int_equal(place_pages(&x.placer, &f), -ECONNRESET);
			pthread_join(x.sender, NULL);
			close_fixture(&x);
		}
	}
}

/* Memory that runs out is an error, whatever the strategy, and never a signal. */
static void test_file_system_full(void **state)
{
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct wire_run tiny = { 0, 8, WIRE_ENC_RAW, 0 };
	char dir[] = "/tmp/test-place-XXXXXX", path[64];
	struct fixture x;

	(void)state;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		skip();
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/ram", dir);
	for (enum place_kind kind = PLACE_AUTO; kind <= PLACE_PWRITE; kind++) {
		struct wire_frame f;
		int fd, err;

		assert_int_equal(mount("none", dir, "tmpfs", 0, "size=1m"), 0);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_int_equal(umount2(dir, MNT_DETACH), 0);
		assert_true(fd >= 0 && !ftruncate(fd, 8 << 20));
		open_fixture(&x, kind, fd, 8 << 20, 0);
		f = build(&x, CHUNK_BYTES, &tiny, 1);
		assert_int_equal(place(&x, &f), 0);
		f = build(&x, 0, &raw, 1);
		err = place(&x, &f);
		assert_true(err == -ENOSPC || err == -ENOMEM || err == -EFAULT);
		close_fixture(&x);
	}
	rmdir(dir);
}

#define HUGE_BYTES (2ull << 20)
#define HUGE_2MB   (21u << 26) /* MFD_HUGE_2MB */

/* A hugetlb region of three pages, or a skip where the host has none to give. */
static void open_hugetlb(struct fixture *x)
{
	int fd = new_memfd(3 * HUGE_BYTES, MFD_CLOEXEC | MFD_HUGETLB | HUGE_2MB);
	void *probe;

	if (fd < 0)
		skip();
	probe = mmap(NULL, 3 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (probe == MAP_FAILED) {
		close(fd);
		print_message("no 2 MiB huge pages: set vm.nr_hugepages to 3 or more\n");
		skip();
	}
	munmap(probe, 3 * HUGE_BYTES);
	open_fixture(x, PLACE_AUTO, fd, 3 * HUGE_BYTES, 0);
	x->region.hugetlb = true;
	x->region.page_size = HUGE_BYTES;
}

static void test_hugetlb_frames(void **state)
{
	struct fixture x;

	(void)state;
	open_hugetlb(&x);
	for (unsigned int i = 0; i < 60; i++) {
		struct wire_frame f = random_frame(&x);

		assert_int_equal(place(&x, &f), 0);
		assert_as_model(&x);
	}
	close_fixture(&x);
}

/* A punched huge page loses its reservation: zeroed in place, and holes are not populated. */
static void test_hugetlb_zero(void **state)
{
	struct wire_run raw = { 0, CHUNK_PAGES, WIRE_ENC_RAW, 0 };
	struct wire_run zero = { 0, CHUNK_PAGES, WIRE_ENC_ZERO, 0 };
	struct wire_frame f;
	struct fixture x;
	uint64_t before;

	(void)state;
	open_hugetlb(&x);
	f = build(&x, 0, &zero, 1);
	assert_int_equal(place(&x, &f), 0);
	assert_int_equal(resident(&x), 0);
	f = build(&x, 0, &raw, 1);
	assert_int_equal(place(&x, &f), 0);
	before = resident(&x);
	assert_true(before > 0);
	f = build(&x, 0, &zero, 1);
	assert_int_equal(place(&x, &f), 0);
	assert_as_model(&x);
	assert_int_equal(resident(&x), before);
	close_fixture(&x);
}

static void test_reasons_are_given(void **state)
{
	struct fixture x;

	(void)state;
	open_memfd(&x, PLACE_AUTO);
	assert_non_null(strstr(x.why, x.place.can_populate ? "map:" : "pwrite:"));
	close_fixture(&x);
	open_memfd(&x, PLACE_PWRITE);
	assert_non_null(strstr(x.why, "pwrite: asked for"));
	close_fixture(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_frames),
		cmocka_unit_test(test_without_populate),
		cmocka_unit_test(test_frames_read_ahead),
		cmocka_unit_test(test_zero_punches_what_is_not_zero),
		cmocka_unit_test(test_zero_leaves_zeros_and_holes),
		cmocka_unit_test(test_holes_over_the_region),
		cmocka_unit_test(test_raw_after_punch),
		cmocka_unit_test(test_page_tables_are_bounded),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_hash_is_of_the_content),
		cmocka_unit_test(test_malformed_frames_change_nothing),
		cmocka_unit_test(test_encoding_not_agreed_on),
		cmocka_unit_test(test_truncated_payload),
		cmocka_unit_test(test_file_system_full),
		cmocka_unit_test(test_hugetlb_frames),
		cmocka_unit_test(test_hugetlb_zero),
		cmocka_unit_test(test_reasons_are_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
