/* SPDX-License-Identifier: MIT */
/*
 * A region, a placer and the stream that feeds it, with a model of what the region must read as.
 * Include after cmocka.h; each test program includes it once.
 */
#ifndef TRANSHIP_TESTS_PLACE_FIXTURE_H
#define TRANSHIP_TESTS_PLACE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/destination/place.h"

#define FILE_OFFSET   (3ull * PAGE_BYTES)
#define REGION_CHUNKS 3
/* Two whole chunks and one of five pages. */
#define REGION_SIZE (2ull * CHUNK_BYTES + 5 * PAGE_BYTES)

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

static inline uint64_t next_random(struct fixture *x)
{
	x->random ^= x->random << 13;
	x->random ^= x->random >> 7;
	x->random ^= x->random << 17;
	return x->random >> 8;
}

static inline void open_fixture(struct fixture *x, enum place_kind kind, int fd, uint64_t size,
				uint64_t file_offset)
{
	int sv[2];

	memset(x, 0, sizeof(*x));
	x->random = 88172645463325252ull;
	x->region = (struct region){
		.page_size = PAGE_BYTES, .size = size, .file_offset = file_offset, .fd = fd
	};
	assert_true(fd >= 0);
	assert_int_equal(region_map(&x->region, true), 0);
	assert_int_equal(place_init(&x->place, &x->region, 1, kind, true, x->why, sizeof(x->why)),
			 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	x->tx = sv[0];
	assert_int_equal(rx_reader_init(&x->rx, sv[1]), 0);
	assert_int_equal(placer_init(&x->placer, &x->place, &x->rx), 0);
	x->model = calloc(1, size);
	x->frame = malloc(WIRE_PAYLOAD_MAX);
	assert_true(x->model && x->frame);
}

static inline int new_memfd(uint64_t size, unsigned int flags)
{
	int fd = memfd_create("test-place", flags);

	if (fd >= 0)
		assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static inline void open_memfd(struct fixture *x, enum place_kind kind)
{
	/* something before and behind the region, which must not change */
	int fd = new_memfd(FILE_OFFSET + REGION_SIZE + PAGE_BYTES, MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, "before", 6, FILE_OFFSET - 6), 6);
	assert_int_equal(pwrite(fd, "behind", 6, FILE_OFFSET + REGION_SIZE), 6);
	open_fixture(x, kind, fd, REGION_SIZE, FILE_OFFSET);
}

static inline void close_fixture(struct fixture *x)
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
static inline uint64_t resident(const struct fixture *x)
{
	struct stat st;

	assert_int_equal(fstat(x->region.fd, &st), 0);
	return (uint64_t)st.st_blocks / 8;
}

static inline void assert_as_model(const struct fixture *x)
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
static inline void make_stale(struct fixture *x)
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
		assert_int_equal(
			pwrite(x->region.fd, page, PAGE_BYTES, (off_t)(x->region.file_offset + at)),
			PAGE_BYTES);
	}
	assert_as_model(x);
}

/*
 * Builds in x->frame the payload of a frame that does to the region what it does to the model.
 * runs: page, pages and encoding; lengths are filled in here.
 */
static inline struct wire_frame build(struct fixture *x, uint64_t offset, struct wire_run *runs,
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

static inline void *send_frame(void *arg)
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

static inline int place(struct fixture *x, const struct wire_frame *f)
{
	int err;

	assert_int_equal(pthread_create(&x->sender, NULL, send_frame, x), 0);
	err = place_pages(&x->placer, f);
	if (err)
		shutdown(x->rx.fd, SHUT_RDWR);
	pthread_join(x->sender, NULL);
	return err;
}

static inline struct wire_frame random_frame(struct fixture *x)
{
	struct wire_run runs[WIRE_RUNS_MAX];
	uint64_t chunk = next_random(x) % REGION_CHUNKS, offset = chunk * CHUNK_BYTES;
	uint32_t pages = x->region.size - offset < CHUNK_BYTES
				 ? (uint32_t)((x->region.size - offset) / PAGE_BYTES)
				 : CHUNK_PAGES;
	uint32_t longest = 1 + (uint32_t)(next_random(x) % (next_random(x) % 2 ? 4 : pages));
	uint32_t count = 0, at = (uint32_t)(next_random(x) % 3);

	while (at < pages || !count) {
		uint32_t n = 1 + (uint32_t)(next_random(x) % longest);

		if (at >= pages)
			at = 0;
		if (n > pages - at)
			n = pages - at;
		runs[count++] = (struct wire_run){ .page = (uint16_t)at,
						   .pages = (uint16_t)n,
						   .encoding = (uint8_t)(next_random(x) % 3) };
		at += n;
		if (next_random(x) % 2)
			at += (uint32_t)(next_random(x) % longest);
	}
	return build(x, offset, runs, count);
}

#endif
