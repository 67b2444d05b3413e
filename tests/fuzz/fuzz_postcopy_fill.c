// SPDX-License-Identifier: MIT
/*
 * A hostile source on one stream of a post-copy's destination, whose VMM is a thread that touches
 * pages through a mapping with a userfaultfd.
 *
 * Input: a byte of flags, what is missing, what the VMM touches, then operations. Most make a whole
 * frame out of a few bytes and keep a model of what RAM must read as: of a missing page what came
 * first, of all others what was there. Others send bytes as they are. Whatever comes, pages that
 * are not missing stay as they were, the figures add up, and the VMM never sees a missing page as
 * it was before.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zstd.h>

#include "dataplane/destination/destination_internal.h"
#include "lib/base/kernel_abi.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

#define REGIONS	    2u
#define FILE_OFFSET (3ull * PAGE_BYTES)
#define STREAM_MAX  (6u << 20)
#define RUNS_MAX    40u
#define TOUCHES_MAX 8u

enum flags {
	FLAG_PUSHED = 1, /* stream 1, else the answers to faults */
	FLAG_STALE = 2,
	FLAG_EARLY = 4, /* pages come before SERVE */
	FLAG_NO_ZSTD = 8,
	FLAG_ALL_MISSING = 16,
};

enum operation {
	OP_PAGES,
	OP_ROUND_END,
	OP_BYE,
	OP_DAMAGE, /* a byte of what was put last, mostly of an encoded page */
	OP_BYTES,  /* as they are */
	OP_HEADER, /* a frame's 32 bytes as they are */
	OP_FOREIGN,
	OPERATIONS,
};

static const uint64_t sizes[REGIONS] = { CHUNK_BYTES + 5 * PAGE_BYTES, 16 * PAGE_BYTES };

/* All of it lives as long as the process; an input begins by emptying the files. */
static struct region regions[REGIONS];
static struct region_mapping mappings[REGIONS];
static uint8_t *model[REGIONS], *guest[REGIONS], *stream;
static size_t stream_len;
static int missing_fd, uffd;

struct touch {
	uint32_t region;
	uint64_t page, seen;
	bool served; /* by the data plane, and not since the watch has ended */
};

struct build {
	struct fuzz_input *in;
	struct page_set missing, first; /* what has not come yet; what was missing at first */
	struct touch touches[TOUCHES_MAX];
	uint32_t ntouches;
	uint64_t pages; /* of first */
	bool unknown;	/* something went that the model does not follow */
	bool unwatched; /* atomic */
};

/* --- the guest's RAM -------------------------------------------------------------------------- */

/* -1 where it cannot be had: then there is no VMM that faults. */
static int open_userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features =
					  UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void set_up(void)
{
	log_init("fuzz", LOG_LEVEL_ERROR);
	stream = malloc(STREAM_MAX);
	uffd = open_userfaultfd();
	for (uint32_t i = 0; i < REGIONS; i++) {
		struct region *r = &regions[i];

		*r = (struct region){ .index = i,
				      .page_size = PAGE_BYTES,
				      .size = sizes[i],
				      .file_offset = FILE_OFFSET };
		r->fd = memfd_create("fuzz-postcopy", MFD_CLOEXEC);
		fuzz_check(r->fd >= 0);
		fuzz_check(!ftruncate(r->fd, (off_t)(FILE_OFFSET + r->size + PAGE_BYTES)));
		fuzz_check(pwrite(r->fd, "before", 6, FILE_OFFSET - 6) == 6);
		fuzz_check(pwrite(r->fd, "behind", 6, (off_t)(FILE_OFFSET + r->size)) == 6);
		fuzz_check(!region_map(r, true));
		model[i] = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
		guest[i] =
			mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, FILE_OFFSET);
		fuzz_check(stream && model[i] != MAP_FAILED && guest[i] != MAP_FAILED);
		mappings[i] = (struct region_mapping){ (uintptr_t)guest[i],
						       (uintptr_t)guest[i] + r->size, 0 };
		r->mappings = &mappings[i];
		r->nmappings = uffd >= 0;
	}
	missing_fd = memfd_create("fuzz-missing", MFD_CLOEXEC);
	fuzz_check(missing_fd >= 0 &&
		   !ftruncate(missing_fd, (off_t)postcopy_file_bytes(regions, REGIONS)));
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

/* RAM as pre-copy left it: of some pages an older version, of others nothing. */
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

static void watch(bool begin)
{
	for (uint32_t i = 0; uffd >= 0 && i < REGIONS; i++) {
		struct uffdio_register reg = { .range = { mappings[i].start, regions[i].size },
					       .mode = UFFDIO_REGISTER_MODE_MISSING |
						       UFFDIO_REGISTER_MODE_MINOR };

		if (begin)
			fuzz_check(!ioctl(uffd, UFFDIO_REGISTER, &reg));
		else
			fuzz_check(!ioctl(uffd, UFFDIO_UNREGISTER, &reg.range));
	}
}

/* The VMM: reads a word of each page that the input names. */
static void *touch_pages(void *arg)
{
	struct build *b = arg;

	for (uint32_t i = 0; i < b->ntouches; i++) {
		struct touch *t = &b->touches[i];

		t->seen = *(volatile uint64_t *)(guest[t->region] + t->page * PAGE_BYTES);
		t->served = !__atomic_load_n(&b->unwatched, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* --- what is missing -------------------------------------------------------------------------- */

static void choose_missing(struct build *b, bool all)
{
	uint8_t runs = fuzz_u8(b->in) % 16;

	fuzz_check(!page_set_init(&b->missing, regions, REGIONS, -1, 0, NULL));
	fuzz_check(!page_set_init(&b->first, regions, REGIONS, -1, 0, NULL));
	for (uint32_t i = 0; i < runs || all; i++) {
		uint32_t region = all ? i : fuzz_u8(b->in) & 1;
		uint64_t pages = region_pages(&regions[region]);
		uint64_t first = all ? 0 : fuzz_u16(b->in) % pages;
		uint64_t count = all ? pages : 1u + fuzz_u8(b->in) % 64u;

		for (uint64_t at = first; at < first + count && at < pages; at++) {
			uint64_t mask[PAGE_SET_WORDS];

			page_mask_fill(mask, at % CHUNK_PAGES, 1);
			page_set_put(&b->first, region, at / CHUNK_PAGES, mask);
		}
		if (all && i + 1 == REGIONS)
			break;
	}
	memcpy(b->missing.words, b->first.words, page_set_bytes(regions, REGIONS));
	fuzz_check(pwrite(missing_fd, b->first.words, page_set_bytes(regions, REGIONS), 0) ==
		   (ssize_t)page_set_bytes(regions, REGIONS));
	b->pages = page_set_count(&b->first);
}

static void choose_touches(struct build *b)
{
	b->ntouches = uffd < 0 ? 0 : fuzz_u8(b->in) % (TOUCHES_MAX + 1);
	for (uint32_t i = 0; i < b->ntouches; i++) {
		b->touches[i].region = fuzz_u8(b->in) & 1;
		b->touches[i].page = fuzz_u16(b->in) % region_pages(&regions[b->touches[i].region]);
	}
}

/* --- the stream ------------------------------------------------------------------------------- */

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

/* A run's pages as they are to be, and their payload. Returns its length. */
static uint32_t run_payload(uint8_t *pages, uint8_t *to, const struct wire_run *run, uint8_t seed)
{
	size_t len = run->pages * (size_t)PAGE_BYTES, n;
	static ZSTD_CCtx *zstd;

	memset(pages, 0, len);
	if (run->encoding == WIRE_ENC_ZERO || run->encoding == WIRE_ENC_HOLE)
		return 0;
	pattern(pages, len, seed);
	if (run->encoding == WIRE_ENC_RAW) {
		memcpy(to, pages, len);
		return (uint32_t)len;
	}
	if (!zstd)
		zstd = ZSTD_createCCtx();
	ZSTD_CCtx_reset(zstd, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, run->encoding == WIRE_ENC_DELTA);
	n = ZSTD_compress2(zstd, to, len, pages, len);
	return ZSTD_isError(n) ? 0 : (uint32_t)n;
}

/* Each page that has not come before is as it comes now. */
static void follow(struct build *b, const struct region *r, uint64_t first, uint32_t count,
		   const uint8_t *pages)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t at = first + i;
		uint64_t *word = &page_set_chunk(&b->missing, r->index,
						 at / CHUNK_PAGES)[at % CHUNK_PAGES / 64];

		if (!(*word >> (at % 64) & 1))
			continue;
		*word &= ~(1ull << (at % 64));
		memcpy(model[r->index] + at * PAGE_BYTES, pages + (size_t)i * PAGE_BYTES,
		       PAGE_BYTES);
	}
}

static void put_pages(struct build *b)
{
	static uint8_t payload[2 * WIRE_PAYLOAD_MAX], content[CHUNK_BYTES];
	uint8_t where = fuzz_u8(b->in), runs = fuzz_u8(b->in) % RUNS_MAX;
	const struct region *r = &regions[where & 1];
	struct wire_frame f = { .type = WIRE_PAGES, .region = (uint16_t)r->index };
	uint8_t heads[RUNS_MAX * WIRE_RUN_SIZE];
	uint32_t page = 0, pages, len = 0;
	uint64_t left;

	f.offset = where & 2 && r->size > CHUNK_BYTES ? CHUNK_BYTES : 0;
	left = (r->size - f.offset) >> PAGE_SHIFT;
	pages = left < CHUNK_PAGES ? (uint32_t)left : CHUNK_PAGES;
	for (; f.count < runs; f.count++) {
		/* DELTA has no place here */
		struct wire_run run = { .encoding = fuzz_u8(b->in) % 21 / 5 };
		uint32_t count;

		page += fuzz_u8(b->in) % 32;
		count = fuzz_u8(b->in);
		count = count == 255 ? pages : 1 + count % 32;
		if (page >= pages)
			break;
		run.page = (uint16_t)page;
		run.pages = (uint16_t)(count < pages - page ? count : pages - page);
		run.length = run_payload(content, payload + len, &run, fuzz_u8(b->in));
		follow(b, r, (f.offset >> PAGE_SHIFT) + page, run.pages, content);
		wire_put_run(heads + f.count * WIRE_RUN_SIZE, &run);
		page += run.pages;
		len += run.length;
	}
	f.length = f.count * WIRE_RUN_SIZE + len;
	put_frame(&f);
	put(heads, f.count * WIRE_RUN_SIZE);
	put(payload, len);
}

static void put_bytes(struct build *b, size_t n)
{
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
	case OP_ROUND_END:
		put_frame(&(struct wire_frame){ .type = WIRE_ROUND_END, .number = fuzz_u8(b->in) });
		break;
	case OP_BYE:
		put_frame(&(struct wire_frame){ .type = WIRE_BYE });
		break;
	case OP_DAMAGE:
		damage(b);
		break;
	case OP_FOREIGN: /* without payload; what has one comes by OP_HEADER */
		put_frame(&(struct wire_frame){ .type = fuzz_u8(b->in) % WIRE_TYPES,
						.extent = PAGE_BYTES });
		b->unknown = true;
		break;
	default:
		put_bytes(b, op == OP_HEADER ? WIRE_FRAME_SIZE : fuzz_u8(b->in));
	}
}

/* --- both ends -------------------------------------------------------------------------------- */

struct peer {
	int fds[2]; /* of both streams */
	uint32_t index;
};

/* Sends the stream and drops what is asked and answered, until the other end closes both. */
static void *source(void *arg)
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

/* What the data plane says of it must be so. */
static void check_figures(const struct build *b, struct destination *d, bool early)
{
	const struct postcopy *p = &d->postcopy;
	uint64_t left = page_set_count(&p->missing);
	struct ipc_postcopy said;

	postcopy_report(&d->postcopy, &said);
	fuzz_check(early || said.missing_pages == left);
	fuzz_check(said.demand_pages + said.push_pages + left == b->pages);
	fuzz_check(said.faults <= b->ntouches);
	fuzz_check(postcopy_is_complete(p) == (!early && !left));
	for (uint64_t i = 0; i < page_set_bytes(regions, REGIONS) / sizeof(uint64_t); i++)
		fuzz_check(!(p->missing.words[i] & ~b->first.words[i]));
}

/*
 * Who faults while a range is being unregistered may be left waiting. For a page that is here the
 * data plane sees to it; for one that has not come nobody does.
 */
static void wake_in_vain(const struct build *b, const struct postcopy *p, bool early)
{
	for (uint32_t i = 0; i < b->ntouches; i++) {
		const struct touch *t = &b->touches[i];
		struct uffdio_range at = { .start =
						   mappings[t->region].start + t->page * PAGE_BYTES,
					   .len = PAGE_BYTES };
		const uint64_t *words =
			page_set_chunk(&p->missing, t->region, t->page / CHUNK_PAGES);

		if (early || page_set_has(words, t->page % CHUNK_PAGES))
			fuzz_check(!ioctl(uffd, UFFDIO_WAKE, &at));
	}
}

static int serve(struct build *b, struct destination *d, struct stream *st, bool early)
{
	struct peer peer = { .index = st->index };
	pthread_t thread, vmm;
	struct failure f = { 0 };
	int sv[2][2], err;

	for (uint32_t i = 0; i < 2; i++) {
		fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv[i]));
		peer.fds[i] = sv[i][0];
		d->streams[i].rx.fd = sv[i][1];
	}
	if (!early)
		fuzz_check(!postcopy_serve(&d->postcopy, &f));
	fuzz_check(!pthread_create(&vmm, NULL, touch_pages, b));
	fuzz_check(!pthread_create(&thread, NULL, source, &peer));
	err = stream_receive(st, st->rx.fd, &f);
	fuzz_check(!!err == failure_is_set(&f));
	__atomic_store_n(&b->unwatched, true, __ATOMIC_SEQ_CST);
	watch(false);
	wake_in_vain(b, &d->postcopy, early);
	pthread_join(vmm, NULL);
	__atomic_store_n(&d->stopping, true, __ATOMIC_RELAXED);
	postcopy_stop(&d->postcopy);
	for (uint32_t i = 0; i < 2; i++)
		close(sv[i][1]);
	pthread_join(thread, NULL);
	for (uint32_t i = 0; i < 2; i++)
		close(sv[i][0]);
	fuzz_check(!d->error);
	return err;
}

static int receive(struct build *b, uint8_t flags)
{
	struct setup s = { .regions = regions,
			   .nregions = REGIONS,
			   .config = { .role = IPC_ROLE_POSTCOPY_DESTINATION, .streams = 2 },
			   .missing_fd = missing_fd,
			   .uffd = uffd };
	struct destination d = { .s = &s };
	struct stream streams[2] = { { .d = &d }, { .d = &d, .index = 1 } };
	struct stream *st = &streams[flags & FLAG_PUSHED];
	char why[96];
	int err;

	d.streams = streams;
	d.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pthread_mutex_init(&d.lock, NULL);
	fuzz_check(d.event_fd >= 0);
	fuzz_check(!place_init(&d.place, regions, REGIONS, PLACE_AUTO, false, why, sizeof(why)));
	d.place.stop = &d.stopping;
	d.place.encodings = flags & FLAG_NO_ZSTD ? 0 : IPC_ENCODING_ZSTD;
	fuzz_check(!rx_reader_init(&st->rx, -1) && !placer_init(&st->placer, &d.place, &st->rx));
	fuzz_check(!postcopy_init(&d.postcopy, &d));
	memset(d.postcopy.figures, 0, sizeof(*d.postcopy.figures));
	watch(true);
	err = serve(b, &d, st, flags & FLAG_EARLY);
	check_figures(b, &d, flags & FLAG_EARLY);
	postcopy_release(&d.postcopy);
	placer_release(&st->placer);
	rx_reader_release(&st->rx);
	place_release(&d.place);
	close(d.event_fd);
	pthread_mutex_destroy(&d.lock);
	return err;
}

/* all: every page is as the model says; else those that were never missing. */
static void compare(const struct build *b, bool all)
{
	static uint8_t buf[64 << 10];

	for (uint32_t i = 0; i < REGIONS; i++)
		for (uint64_t at = 0; at < sizes[i]; at += sizeof(buf)) {
			size_t n = sizes[i] - at < sizeof(buf) ? sizes[i] - at : sizeof(buf);

			fuzz_check(pread(regions[i].fd, buf, n, (off_t)(FILE_OFFSET + at)) ==
				   (ssize_t)n);
			for (size_t k = 0; k < n; k += PAGE_BYTES) {
				uint64_t page = (at + k) >> PAGE_SHIFT;
				const uint64_t *words =
					page_set_chunk(&b->first, i, page / CHUNK_PAGES);

				if (all || !page_set_has(words, page % CHUNK_PAGES))
					fuzz_check(!memcmp(buf + k, model[i] + at + k, PAGE_BYTES));
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

static void check_touches(const struct build *b)
{
	for (uint32_t i = 0; i < b->ntouches; i++) {
		const struct touch *t = &b->touches[i];
		uint64_t want;

		memcpy(&want, model[t->region] + t->page * PAGE_BYTES, sizeof(want));
		fuzz_check(!t->served || b->unknown || t->seen == want);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct build b = { .in = &in };
	uint8_t flags = fuzz_u8(&in);
	int err;

	if (!stream)
		set_up();
	prepare_ram(flags & FLAG_STALE);
	choose_missing(&b, flags & FLAG_ALL_MISSING);
	choose_touches(&b);
	stream_len = 0;
	while (in.left && stream_len < STREAM_MAX - 2 * WIRE_PAYLOAD_MAX)
		put_operation(&b);
	err = receive(&b, flags);
	compare(&b, !err && !b.unknown);
	check_touches(&b);
	check_surroundings();
	page_set_release(&b.missing);
	page_set_release(&b.first);
	return 0;
}
