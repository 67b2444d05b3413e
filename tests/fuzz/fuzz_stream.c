// SPDX-License-Identifier: MIT
/*
 * A hostile source on one data stream of the destination, with its RAM in a memfd.
 *
 * Input: a byte of flags, then operations. Most make a whole frame out of a few bytes, so that
 * small inputs reach far, and keep a model of what RAM must read as; others send bytes as they are.
 * A stream that is accepted to its end must have made RAM equal to the model (unless bytes went
 * that the model does not know), and nothing before and behind the region may have changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "dataplane/destination/destination_internal.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

#define REGIONS	    2u
#define FILE_OFFSET (3ull * PAGE_BYTES)
#define STREAM_MAX  (6u << 20)
#define STATE_MAX   (64u << 10)

enum flags {
	FLAG_STALE = 1,
	FLAG_SECOND = 2,
	FLAG_TWO_STREAMS = 4,
	FLAG_THP = 8,
	FLAG_NO_ZSTD = 16, /* was not agreed on */
	FLAG_NO_DELTA = 32,
};

enum operation {
	OP_PAGES,
	OP_HOLES,
	OP_ROUND_END,
	OP_STATE,
	OP_STATE_END,
	OP_VERIFY,
	OP_VERIFY_END,
	OP_BYE,
	OP_BYTES,  /* as they are */
	OP_HEADER, /* a frame's 32 bytes as they are */
	OP_HELD,
	OP_HASHES,
	OP_DAMAGE, /* a byte of what was put last, mostly of an encoded page */
	OPERATIONS,
};

static const uint64_t sizes[REGIONS] = { CHUNK_BYTES + 5 * PAGE_BYTES, 16 * PAGE_BYTES };

/* All of it lives as long as the process; an input begins by emptying the files. */
static struct region regions[REGIONS];
static uint8_t *model[REGIONS];
static uint8_t *stream;
static size_t stream_len;

struct build {
	struct fuzz_input *in;
	bool unknown;	 /* something went that the model does not follow */
	bool wrong_hash; /* a VERIFY that must find a difference */
	uint64_t state_bytes;
};

static void set_up(void)
{
	log_init("fuzz", LOG_LEVEL_ERROR);
	stream = malloc(STREAM_MAX);
	for (uint32_t i = 0; i < REGIONS; i++) {
		struct region *r = &regions[i];

		*r = (struct region){ .index = i,
				      .page_size = PAGE_BYTES,
				      .size = sizes[i],
				      .file_offset = FILE_OFFSET };
		r->fd = memfd_create("fuzz-stream", MFD_CLOEXEC);
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

static void put(const void *bytes, size_t n)
{
	if (n > STREAM_MAX - stream_len)
		n = STREAM_MAX - stream_len;
	memcpy(stream + stream_len, bytes, n);
	stream_len += n;
}

static void put_frame(const struct wire_frame *f)
{
	uint8_t bytes[WIRE_FRAME_SIZE];

	wire_put_frame(bytes, f);
	put(bytes, sizeof(bytes));
}

/* Some zeros, some repetition, some noise. */
static void pattern(uint8_t *to, size_t len, uint8_t seed)
{
	uint64_t v = seed * 0x9E3779B97F4A7C15ull + 1;

	for (size_t i = 0; i < len; i += sizeof(v)) {
		if (!(seed & 1))
			v = v * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(to + i, &v, sizeof(v));
	}
}

/* The payload of a run, with the model brought to what it makes of RAM. Returns its length. */
static uint32_t run_payload(uint8_t *to, uint8_t *ram, const struct wire_run *run, uint8_t seed)
{
	static uint8_t before[CHUNK_BYTES];
	size_t len = run->pages * PAGE_BYTES, n;
	static ZSTD_CCtx *zstd;

	if (run->encoding == WIRE_ENC_ZERO || run->encoding == WIRE_ENC_HOLE) {
		memset(ram, 0, len);
		return 0;
	}
	memcpy(before, ram, len);
	if (run->encoding == WIRE_ENC_DELTA)
		ram[seed * 16 % len] ^= 0x55;
	else
		pattern(ram, len, seed);
	if (run->encoding == WIRE_ENC_RAW) {
		memcpy(to, ram, len);
		return (uint32_t)len;
	}
	if (!zstd)
		zstd = ZSTD_createCCtx();
	ZSTD_CCtx_reset(zstd, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, 1);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, run->encoding == WIRE_ENC_DELTA);
	if (run->encoding == WIRE_ENC_DELTA)
		ZSTD_CCtx_refPrefix(zstd, before, len);
	n = ZSTD_compress2(zstd, to, len, ram, len);
	return ZSTD_isError(n) ? 0 : (uint32_t)n;
}

static uint32_t pages_of_chunk(const struct region *r, uint64_t offset)
{
	uint64_t left = (r->size - offset) >> PAGE_SHIFT;

	return left < CHUNK_PAGES ? (uint32_t)left : CHUNK_PAGES;
}

static void put_pages(struct build *b)
{
	static uint8_t payload[2 * WIRE_PAYLOAD_MAX];
	uint8_t where = fuzz_u8(b->in), runs = fuzz_u8(b->in) % 40;
	const struct region *r = &regions[where & 1];
	struct wire_frame f = { .type = WIRE_PAGES, .region = (uint16_t)r->index };
	uint32_t page = 0, pages, len = 0;
	uint8_t heads[40 * WIRE_RUN_SIZE];

	f.offset = where & 2 && r->size > CHUNK_BYTES ? CHUNK_BYTES : 0;
	pages = pages_of_chunk(r, f.offset);
	for (; f.count < runs; f.count++) {
		struct wire_run run = { .encoding = fuzz_u8(b->in) % 5 };
		uint32_t count;

		page += fuzz_u8(b->in) % 32;
		count = fuzz_u8(b->in);
		count = count == 255 ? pages : 1 + count % 32;
		if (page >= pages)
			break;
		run.page = (uint16_t)page;
		run.pages = (uint16_t)(count < pages - page ? count : pages - page);
		run.length =
			run_payload(payload + len, model[r->index] + f.offset + page * PAGE_BYTES,
				    &run, fuzz_u8(b->in));
		wire_put_run(heads + f.count * WIRE_RUN_SIZE, &run);
		page += run.pages;
		len += run.length;
	}
	f.length = f.count * WIRE_RUN_SIZE + len;
	put_frame(&f);
	put(heads, f.count * WIRE_RUN_SIZE);
	put(payload, len);
}

static void put_holes(struct build *b)
{
	const struct region *r = &regions[fuzz_u8(b->in) & 1];
	uint64_t pages = region_pages(r), first = fuzz_u16(b->in) % pages;
	uint64_t count = 1 + fuzz_u16(b->in) % (pages - first);
	struct wire_frame f = { .type = WIRE_HOLES,
				.region = (uint16_t)r->index,
				.offset = first * PAGE_BYTES,
				.extent = count * PAGE_BYTES };

	put_frame(&f);
	memset(model[r->index] + f.offset, 0, f.extent);
}

static void put_verify(struct build *b)
{
	uint8_t what = fuzz_u8(b->in);
	const struct region *r = &regions[what & 1];
	uint64_t hashes[2], chunks = region_chunks(r);
	struct wire_frame f = { .type = WIRE_VERIFY, .region = (uint16_t)r->index };

	f.count = (uint32_t)chunks;
	f.length = f.count * WIRE_HASH_SIZE;
	for (uint64_t i = 0; i < chunks; i++) {
		uint64_t at = i * CHUNK_BYTES;

		hashes[i] = XXH3_64bits(model[r->index] + at,
					pages_of_chunk(r, at) * (size_t)PAGE_BYTES);
	}
	if (what & 2) {
		hashes[0]++;
		b->wrong_hash = true;
	}
	put_frame(&f);
	put(hashes, f.length);
}

static void put_state(struct build *b, enum operation op)
{
	static uint8_t state[256];
	struct wire_frame f = { .type = WIRE_STATE };

	if (op == OP_STATE_END) {
		f.type = WIRE_STATE_END;
		f.extent = b->state_bytes + (fuzz_u8(b->in) == 1);
		put_frame(&f);
		return;
	}
	f.length = 1 + fuzz_u8(b->in);
	b->state_bytes += f.length;
	put_frame(&f);
	put(state, f.length);
}

static void put_bytes(struct build *b, enum operation op)
{
	size_t n = op == OP_HEADER ? WIRE_FRAME_SIZE : fuzz_u8(b->in);
	const uint8_t *bytes = fuzz_bytes(b->in, &n);

	put(bytes, n);
	b->unknown = true;
}

static void damage(struct build *b)
{
	size_t back = 1 + fuzz_u16(b->in) % 2048;
	uint8_t flip = fuzz_u8(b->in);

	if (back > stream_len || !flip)
		return;
	stream[stream_len - back] ^= flip;
	b->unknown = true;
}

static void put_operation(struct build *b)
{
	enum operation op = fuzz_u8(b->in) % OPERATIONS;

	switch (op) {
	case OP_PAGES:
		put_pages(b);
		break;
	case OP_HOLES:
		put_holes(b);
		break;
	case OP_ROUND_END:
		put_frame(&(struct wire_frame){ .type = WIRE_ROUND_END, .number = fuzz_u8(b->in) });
		break;
	case OP_STATE:
	case OP_STATE_END:
		put_state(b, op);
		break;
	case OP_VERIFY:
		put_verify(b);
		break;
	case OP_VERIFY_END:
		put_frame(&(struct wire_frame){ .type = WIRE_VERIFY_END });
		break;
	case OP_BYE:
		put_frame(&(struct wire_frame){ .type = WIRE_BYE });
		break;
	case OP_DAMAGE:
		damage(b);
		break;
	case OP_HELD:
		put_frame(&(struct wire_frame){ .type = WIRE_HELD });
		break;
	case OP_HASHES:
		put_frame(
			&(struct wire_frame){ .type = WIRE_HASHES, .region = fuzz_u8(b->in) & 1 });
		break;
	default:
		put_bytes(b, op);
	}
}

/* Sends the stream and drops what is answered, until the other end closes. */
static void *source(void *arg)
{
	int fd = *(int *)arg;
	size_t at = 0;
	bool open = true;

	while (open) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint8_t answers[4096];

		if (at < stream_len)
			p.events |= POLLOUT;
		else
			shutdown(fd, SHUT_WR);
		poll(&p, 1, -1);
		if (p.revents & POLLOUT && at < stream_len) {
			ssize_t n =
				send(fd, stream + at, stream_len - at, MSG_DONTWAIT | MSG_NOSIGNAL);

			if (n < 0 && errno != EAGAIN)
				break;
			at += n > 0 ? (size_t)n : 0;
		}
		if (p.revents & (POLLIN | POLLHUP))
			open = recv(fd, answers, sizeof(answers), MSG_DONTWAIT) > 0;
	}
	return NULL;
}

static void compare(void)
{
	static uint8_t buf[64 << 10];

	for (uint32_t i = 0; i < REGIONS; i++) {
		const struct region *r = &regions[i];

		for (uint64_t at = 0; at < r->size; at += sizeof(buf)) {
			size_t n = r->size - at < sizeof(buf) ? r->size - at : sizeof(buf);

			fuzz_check(pread(r->fd, buf, n, (off_t)(FILE_OFFSET + at)) == (ssize_t)n);
			fuzz_check(!memcmp(buf, model[i] + at, n));
		}
	}
}

static void check_surroundings(void)
{
	for (uint32_t i = 0; i < REGIONS; i++) {
		char word[6];

		fuzz_check(pread(regions[i].fd, word, 6, FILE_OFFSET - 6) == 6);
		fuzz_check(!memcmp(word, "before", 6));
		fuzz_check(pread(regions[i].fd, word, 6, (off_t)(FILE_OFFSET + sizes[i])) == 6);
		fuzz_check(!memcmp(word, "behind", 6));
	}
}

/* RAM as the session finds it: empty, or with what an earlier guest left. */
static void prepare_ram(bool stale)
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

static int receive(uint8_t flags, struct ipc_verified *verified)
{
	struct setup s = { .regions = regions, .nregions = REGIONS };
	struct destination d = { .s = &s };
	struct stream streams[2] = { { .d = &d }, { .d = &d, .index = 1 } };
	struct stream *st = &streams[!!(flags & FLAG_SECOND)];
	struct failure f = { 0 };
	pthread_t thread;
	char why[96];
	int sv[2], err;

	s.config.streams = flags & FLAG_TWO_STREAMS ? 2 : 1;
	d.streams = streams;
	d.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pthread_mutex_init(&d.lock, NULL);
	fuzz_check(d.event_fd >= 0 && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	fuzz_check(!place_init(&d.place, regions, REGIONS, PLACE_AUTO, flags & FLAG_THP, why,
			       sizeof(why)));
	d.place.encodings = (flags & FLAG_NO_ZSTD ? 0 : IPC_ENCODING_ZSTD) |
			    (flags & FLAG_NO_DELTA ? 0 : IPC_ENCODING_DELTA);
	fuzz_check(!page_hash_init(&d.hash, s.config.secret, s.config.id));
	fuzz_check(!state_hold_init(&d.state, STATE_MAX) && !rx_reader_init(&st->rx, -1));
	fuzz_check(!placer_init(&st->placer, &d.place, &st->rx));
	fuzz_check(!pthread_create(&thread, NULL, source, &sv[0]));
	err = stream_receive(st, sv[1], &f);
	close(sv[1]);
	pthread_join(thread, NULL);
	fuzz_check(!!err == failure_is_set(&f));
	fuzz_check(d.state.used <= STATE_MAX);
	*verified = d.verify_result;
	close(sv[0]);
	close(d.event_fd);
	placer_release(&st->placer);
	rx_reader_release(&st->rx);
	state_hold_release(&d.state);
	place_release(&d.place);
	pthread_mutex_destroy(&d.lock);
	return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct build b = { .in = &in };
	uint8_t flags = fuzz_u8(&in);
	struct ipc_verified verified;

	if (!stream)
		set_up();
	prepare_ram(flags & FLAG_STALE);
	stream_len = 0;
	while (in.left && stream_len < STREAM_MAX - 2 * WIRE_PAYLOAD_MAX)
		put_operation(&b);
	if (!receive(flags, &verified) && !b.unknown) {
		compare();
		fuzz_check(b.wrong_hash || !verified.mismatches);
	}
	check_surroundings();
	return 0;
}
