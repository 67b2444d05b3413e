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
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "lib/base/kernel_abi.h"
#include "tests/fuzz/fuzz_ram.h"

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

static struct region_mapping mappings[REGIONS];
static uint8_t *guest[REGIONS];
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
	set_up_ram();
	uffd = open_userfaultfd();
	for (uint32_t i = 0; i < REGIONS; i++) {
		struct region *r = &regions[i];

		guest[i] =
			mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, FILE_OFFSET);
		fuzz_check(guest[i] != MAP_FAILED);
		mappings[i] = (struct region_mapping){ (uintptr_t)guest[i],
						       (uintptr_t)guest[i] + r->size, 0 };
		r->mappings = &mappings[i];
		r->nmappings = uffd >= 0;
	}
	missing_fd = memfd_create("fuzz-missing", MFD_CLOEXEC);
	fuzz_check(missing_fd >= 0 &&
		   !ftruncate(missing_fd, (off_t)postcopy_file_bytes(regions, REGIONS)));
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

/* DELTA has no place here */
static uint8_t encoding_of(uint8_t byte)
{
	return byte % 21 / 5;
}

static uint32_t run_payload(void *arg, const struct region *r, uint64_t first,
			    const struct wire_run *run, uint8_t *to, uint8_t seed)
{
	static uint8_t pages[CHUNK_BYTES];
	size_t len = run->pages * (size_t)PAGE_BYTES;
	uint32_t length = 0;

	memset(pages, 0, len);
	if (run->encoding != WIRE_ENC_ZERO && run->encoding != WIRE_ENC_HOLE) {
		pattern(pages, len, seed);
		length = encode(to, pages, len, run->encoding, ZSTD_CLEVEL_DEFAULT, NULL);
	}
	follow(arg, r, first, run->pages, pages);
	return length;
}

static const struct run_ops run_ops = { encoding_of, run_payload };

static void put_operation(struct build *b)
{
	enum operation op = fuzz_u8(b->in) % OPERATIONS;

	switch (op) {
	case OP_PAGES:
		put_pages(b->in, &run_ops, b);
		break;
	case OP_ROUND_END:
		put_frame(&(struct wire_frame){ .type = WIRE_ROUND_END, .number = fuzz_u8(b->in) });
		break;
	case OP_BYE:
		put_frame(&(struct wire_frame){ .type = WIRE_BYE });
		break;
	case OP_DAMAGE:
		b->unknown |= damage(b->in);
		break;
	case OP_FOREIGN: /* without payload; what has one comes by OP_HEADER */
		put_frame(&(struct wire_frame){ .type = fuzz_u8(b->in) % WIRE_TYPES,
						.extent = PAGE_BYTES });
		b->unknown = true;
		break;
	default:
		put_input(b->in, op == OP_HEADER ? WIRE_FRAME_SIZE : fuzz_u8(b->in));
		b->unknown = true;
	}
}

/* --- both ends -------------------------------------------------------------------------------- */

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
	/* every page is as the model says, or at least what was never missing */
	compare_ram(!err && !b.unknown ? NULL : &b.first);
	check_touches(&b);
	check_surroundings();
	page_set_release(&b.missing);
	page_set_release(&b.first);
	return 0;
}
