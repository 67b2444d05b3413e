/* SPDX-License-Identifier: MIT */
/*
 * RAM in memfds, a model of what it must read as, and a stream made of few bytes of input: what the
 * targets that stand for a hostile source share. Included once by a target.
 */
#ifndef TRANSHIP_TESTS_FUZZ_RAM_H
#define TRANSHIP_TESTS_FUZZ_RAM_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zstd.h>

#include "dataplane/destination/destination_internal.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

#define REGIONS	    2u
#define FILE_OFFSET (3ull * PAGE_BYTES)
#define STREAM_MAX  (6u << 20)
#define RUNS_MAX    40u

static const uint64_t sizes[REGIONS] = { CHUNK_BYTES + 5 * PAGE_BYTES, 16 * PAGE_BYTES };

/* All of it lives as long as the process; an input begins by emptying the files. */
static struct region regions[REGIONS];
static uint8_t *model[REGIONS], *stream;
static size_t stream_len;

/* --- RAM -------------------------------------------------------------------------------------- */

static inline void set_up_ram(void)
{
	log_init("fuzz", LOG_LEVEL_ERROR);
	stream = malloc(STREAM_MAX);
	for (uint32_t i = 0; i < REGIONS; i++) {
		struct region *r = &regions[i];

		*r = (struct region){ .index = i,
				      .page_size = PAGE_BYTES,
				      .size = sizes[i],
				      .file_offset = FILE_OFFSET };
		r->fd = memfd_create("fuzz-ram", MFD_CLOEXEC);
		fuzz_check(r->fd >= 0);
		fuzz_check(!ftruncate(r->fd, (off_t)(FILE_OFFSET + r->size + PAGE_BYTES)));
		fuzz_check(pwrite(r->fd, "before", 6, FILE_OFFSET - 6) == 6);
		fuzz_check(pwrite(r->fd, "behind", 6, (off_t)(FILE_OFFSET + r->size)) == 6);
		fuzz_check(!region_map(r, true));
		model[i] = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
		fuzz_check(stream && model[i] != MAP_FAILED);
	}
}

/* Some zeros, some repetition, some noise. */
static inline void pattern(uint8_t *to, size_t len, uint8_t seed)
{
	uint64_t v = seed * 0x9E3779B97F4A7C15ull + 1;

	for (size_t i = 0; i < len; i += sizeof(v)) {
		if (!(seed & 1))
			v = v * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(to + i, &v, sizeof(v));
	}
}

/* Before an input: empty, or with what an earlier guest left, or pre-copy of some pages. */
static inline void prepare_ram(bool stale)
{
	for (uint32_t i = 0; i < REGIONS; i++) {
		const struct region *r = &regions[i];

		fuzz_check(!fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      FILE_OFFSET, (off_t)r->size));
		madvise(model[i], r->size, MADV_DONTNEED);
		for (uint64_t at = 0; stale && at < 40 * PAGE_BYTES && at < r->size;
		     at += 3ull * PAGE_BYTES) {
			pattern(model[i] + at, PAGE_BYTES, (uint8_t)(at >> PAGE_SHIFT));
			fuzz_check(pwrite(r->fd, model[i] + at, PAGE_BYTES,
					  (off_t)(FILE_OFFSET + at)) == PAGE_BYTES);
		}
	}
}

/* RAM is as the model says, but for the pages of a set (or NULL). */
static inline void compare_ram(const struct page_set *but_for)
{
	static uint8_t buf[64 << 10];

	for (uint32_t i = 0; i < REGIONS; i++)
		for (uint64_t at = 0; at < sizes[i]; at += sizeof(buf)) {
			size_t n = sizes[i] - at < sizeof(buf) ? sizes[i] - at : sizeof(buf);

			fuzz_check(pread(regions[i].fd, buf, n, (off_t)(FILE_OFFSET + at)) ==
				   (ssize_t)n);
			for (size_t k = 0; k < n; k += PAGE_BYTES) {
				uint64_t page = (at + k) >> PAGE_SHIFT;

				if (!but_for ||
				    !page_set_has(page_set_chunk(but_for, i, page / CHUNK_PAGES),
						  page % CHUNK_PAGES))
					fuzz_check(!memcmp(buf + k, model[i] + at + k, PAGE_BYTES));
			}
		}
}

/* Nothing before and behind the regions has changed. */
static inline void check_surroundings(void)
{
	for (uint32_t i = 0; i < REGIONS; i++) {
		char word[6];

		fuzz_check(pread(regions[i].fd, word, 6, FILE_OFFSET - 6) == 6);
		fuzz_check(!memcmp(word, "before", 6));
		fuzz_check(pread(regions[i].fd, word, 6, (off_t)(FILE_OFFSET + sizes[i])) == 6);
		fuzz_check(!memcmp(word, "behind", 6));
	}
}

/* --- the stream ------------------------------------------------------------------------------- */

static inline void put(const void *bytes, size_t n)
{
	if (n > STREAM_MAX - stream_len)
		n = STREAM_MAX - stream_len;
	memcpy(stream + stream_len, bytes, n);
	stream_len += n;
}

static inline void put_frame(const struct wire_frame *f)
{
	uint8_t bytes[WIRE_FRAME_SIZE];

	wire_put_frame(bytes, f);
	put(bytes, sizeof(bytes));
}

/* Up to n bytes of the input as they are. */
static inline void put_input(struct fuzz_input *in, size_t n)
{
	const uint8_t *bytes = fuzz_bytes(in, &n);

	put(bytes, n);
}

/* A byte of what was put last, mostly of an encoded page. False: the input changes none. */
static inline bool damage(struct fuzz_input *in)
{
	size_t back = 1 + fuzz_u16(in) % 2048;
	uint8_t flip = fuzz_u8(in);

	if (back > stream_len || !flip)
		return false;
	stream[stream_len - back] ^= flip;
	return true;
}

/* Pages as RAW, ZSTD or (after a prefix or none) DELTA. Returns the payload's length. */
static inline uint32_t encode(uint8_t *to, const uint8_t *pages, size_t len, uint8_t encoding,
			      int level, const uint8_t *prefix)
{
	static ZSTD_CCtx *zstd;
	size_t n;

	if (encoding == WIRE_ENC_RAW) {
		memcpy(to, pages, len);
		return (uint32_t)len;
	}
	if (!zstd)
		zstd = ZSTD_createCCtx();
	ZSTD_CCtx_reset(zstd, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, encoding == WIRE_ENC_DELTA);
	if (prefix)
		ZSTD_CCtx_refPrefix(zstd, prefix, len);
	n = ZSTD_compress2(zstd, to, len, pages, len);
	return ZSTD_isError(n) ? 0 : (uint32_t)n;
}

static inline uint32_t pages_of_chunk(const struct region *r, uint64_t offset)
{
	uint64_t left = (r->size - offset) >> PAGE_SHIFT;

	return left < CHUNK_PAGES ? (uint32_t)left : CHUNK_PAGES;
}

/* Of a run of a region's pages from the first on: its payload, and what the model makes of it. */
struct run_ops {
	uint8_t (*encoding)(uint8_t byte);
	uint32_t (*payload)(void *arg, const struct region *r, uint64_t first,
			    const struct wire_run *run, uint8_t *to, uint8_t seed);
};

/* A whole PAGES frame. */
static inline void put_pages(struct fuzz_input *in, const struct run_ops *ops, void *arg)
{
	static uint8_t payload[2 * WIRE_PAYLOAD_MAX];
	uint8_t where = fuzz_u8(in), runs = fuzz_u8(in) % RUNS_MAX;
	const struct region *r = &regions[where & 1];
	struct wire_frame f = { .type = WIRE_PAGES, .region = (uint16_t)r->index };
	uint32_t page = 0, pages, len = 0;
	uint8_t heads[RUNS_MAX * WIRE_RUN_SIZE];

	f.offset = where & 2 && r->size > CHUNK_BYTES ? CHUNK_BYTES : 0;
	pages = pages_of_chunk(r, f.offset);
	for (; f.count < runs; f.count++) {
		struct wire_run run = { .encoding = ops->encoding(fuzz_u8(in)) };
		uint32_t count;

		page += fuzz_u8(in) % 32;
		count = fuzz_u8(in);
		count = count == 255 ? pages : 1 + count % 32;
		if (page >= pages)
			break;
		run.page = (uint16_t)page;
		run.pages = (uint16_t)(count < pages - page ? count : pages - page);
		run.length = ops->payload(arg, r, (f.offset >> PAGE_SHIFT) + page, &run,
					  payload + len, fuzz_u8(in));
		wire_put_run(heads + f.count * WIRE_RUN_SIZE, &run);
		page += run.pages;
		len += run.length;
	}
	f.length = f.count * WIRE_RUN_SIZE + len;
	put_frame(&f);
	put(heads, f.count * WIRE_RUN_SIZE);
	put(payload, len);
}

/* --- the other end ---------------------------------------------------------------------------- */

struct peer {
	int fds[2]; /* of the streams, -1: none */
	uint32_t index;
};

/* Sends the stream on one and drops what is answered on all, until the other end closes them. */
static inline void *source(void *arg)
{
	const struct peer *me = arg;
	struct pollfd p[2] = { { .fd = me->fds[0] }, { .fd = me->fds[1] } };
	size_t at = 0;

	while (p[0].fd >= 0 || p[1].fd >= 0) {
		uint8_t answers[4096];

		for (uint32_t i = 0; i < 2; i++)
			p[i].events = POLLIN;
		if (at < stream_len)
			p[me->index].events |= POLLOUT;
		else
			shutdown(me->fds[me->index], SHUT_WR);
		poll(p, 2, -1);
		if (p[me->index].revents & POLLOUT && at < stream_len) {
			ssize_t n = send(me->fds[me->index], stream + at, stream_len - at,
					 MSG_DONTWAIT | MSG_NOSIGNAL);

			if (n < 0 && errno != EAGAIN)
				at = stream_len;
			at += n > 0 ? (size_t)n : 0;
		}
		for (uint32_t i = 0; i < 2; i++)
			if (p[i].fd >= 0 && p[i].revents & (POLLIN | POLLHUP) &&
			    recv(p[i].fd, answers, sizeof(answers), MSG_DONTWAIT) <= 0)
				p[i].fd = -1;
	}
	return NULL;
}

#endif
