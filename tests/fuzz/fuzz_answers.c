// SPDX-License-Identifier: MIT
/*
 * A hostile destination on one data stream of the source: it is asked what it holds and answers
 * anything.
 *
 * The stream under test asks for hashes of chunks, and then for acknowledgements, as a session's
 * does; a thread is the destination. Input: a byte an answer says how it is made, most right
 * or nearly; an answer of bytes as they are has its length and the bytes behind. When the input is
 * used up the destination closes. A page may be taken for equal only if its right hash was given.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/source/source.h"
#include "lib/base/io.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

#define CHUNKS 640u /* many stretches; of each chunk one page exists */

enum how {
	HOW_EQUAL,
	HOW_OTHER,   /* well formed, other pages */
	HOW_NOTHING, /* holds nothing, as far as the next byte says */
	HOW_TWICE,   /* the answer, and again */
	HOW_ZEROS,
	HOW_BYTES, /* as they are */
	HOW_CLOSE,
	HOWS,
};

static struct region ram = { .page_size = PAGE_BYTES, .size = (uint64_t)CHUNKS * CHUNK_BYTES };
static struct page_reader reader;

struct destination {
	struct source *src;
	struct fuzz_input *in;
	int fd;
	bool given[CHUNKS]; /* the right hash of the chunk's page was */
};

static void set_up(void)
{
	struct failure f = { 0 };

	log_init("fuzz", LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	ram.fd = memfd_create("fuzz-answers", MFD_CLOEXEC);
	fuzz_check(ram.fd >= 0 && !ftruncate(ram.fd, (off_t)ram.size));
	for (uint64_t c = 0; c < CHUNKS; c++) {
		uint64_t word = c + 1;

		fuzz_check(pwrite(ram.fd, &word, sizeof(word), (off_t)(c * CHUNK_BYTES)) ==
			   sizeof(word));
	}
	fuzz_check(!page_reader_init(&reader, &ram, 1, &f));
}

static uint64_t hash_of(const struct source *src, uint64_t chunk)
{
	_Alignas(64) uint8_t page[PAGE_BYTES] = { 0 };
	uint64_t word = chunk + 1;

	memcpy(page, &word, sizeof(word));
	return page_hash(&src->hash, page);
}

static bool send_frame(struct destination *d, const struct wire_frame *f, const void *payload)
{
	uint8_t head[WIRE_FRAME_SIZE];

	wire_put_frame(head, f);
	return !io_write_full(d->fd, head, sizeof(head)) &&
	       (!f->length || !io_write_full(d->fd, payload, f->length));
}

static void send_bytes(struct destination *d)
{
	size_t n = fuzz_u8(d->in);
	const uint8_t *bytes = fuzz_bytes(d->in, &n);

	if (io_write_full(d->fd, bytes, n))
		return; /* the source has closed already */
}

static bool answer_hashes(struct destination *d, const struct wire_frame *question, enum how how)
{
	uint64_t hashes[CHUNK_PAGES] = { 0 }, chunk = question->offset >> CHUNK_SHIFT;
	struct wire_frame f = { .type = WIRE_HASHED, .offset = question->offset };

	if (how == HOW_NOTHING) {
		f.extent = (1 + (uint64_t)fuzz_u8(d->in)) * PAGE_BYTES * 97;
		if (f.extent > ram.size - f.offset)
			f.extent = ram.size - f.offset;
		return send_frame(d, &f, NULL);
	}
	f.count = CHUNK_PAGES;
	f.length = sizeof(hashes);
	if (how == HOW_EQUAL || how == HOW_TWICE) {
		hashes[0] = hash_of(d->src, chunk);
		__atomic_store_n(&d->given[chunk], true, __ATOMIC_RELAXED);
	} else if (how == HOW_OTHER) {
		for (uint32_t i = 0; i < CHUNK_PAGES; i++)
			hashes[i] = i * 0x9E3779B97F4A7C15ull + chunk + 1;
	}
	return send_frame(d, &f, hashes) && (how != HOW_TWICE || send_frame(d, &f, hashes));
}

static bool answer(struct destination *d, const struct wire_frame *question, enum how how)
{
	struct wire_frame f = { .type = WIRE_ACK, .of = question->type };

	if (how == HOW_CLOSE)
		return false;
	if (how == HOW_BYTES) {
		/* what follows is the end: to be silent for ever is for a time limit to notice */
		send_bytes(d);
		return false;
	}
	if (question->type == WIRE_HASHES)
		return answer_hashes(d, question, how);
	f.number = question->number + (how == HOW_OTHER);
	if (question->type == WIRE_HELD || question->type == WIRE_VERIFY_END)
		f.extent = how == HOW_EQUAL ? ram.size : fuzz_u16(d->in);
	if (question->type == WIRE_VERIFY_END && f.extent)
		f.offset = fuzz_u8(d->in) * (uint64_t)CHUNK_BYTES;
	return send_frame(d, &f, NULL) && (how != HOW_TWICE || send_frame(d, &f, NULL));
}

static void *destination(void *arg)
{
	struct destination *d = arg;
	uint8_t head[WIRE_FRAME_SIZE];
	struct wire_frame f;

	while (d->in->left && !io_read_full(d->fd, head, sizeof(head))) {
		/* the source's own frames are well formed */
		fuzz_check(!wire_get_frame(&f, head, &ram, 1));
		if (!answer(d, &f, fuzz_u8(d->in) % HOWS))
			break;
	}
	shutdown(d->fd, SHUT_RDWR);
	return NULL;
}

static void check_same(const struct source *src, const struct destination *d)
{
	uint64_t first, count;

	for (uint64_t at = 0;
	     bitmap_next_run(&src->same[0], at, region_pages(&ram), &first, &count);
	     at = first + count) {
		fuzz_check(count == 1 && first % CHUNK_PAGES == 0);
		fuzz_check(__atomic_load_n(&d->given[first / CHUNK_PAGES], __ATOMIC_RELAXED));
	}
}

static void ask(struct source *src, struct stream *s, const struct destination *d)
{
	int err = stream_ask_held(s);

	if (!err && source_may_compare(src)) {
		fuzz_check(!source_compare_begin(src));
		err = stream_compare(s);
		fuzz_check(s->compare.count <= COMPARE_DEPTH);
		fuzz_check(s->compare.promising_count <= COMPARE_DEPTH);
		if (!err)
			check_same(src, d);
		source_compare_end(src);
	}
	for (uint32_t round = 1; !err && round < 4; round++)
		err = stream_barrier(
			s, &(struct wire_frame){ .type = WIRE_ROUND_END, .number = round });
	if (!err)
		stream_barrier(s, &(struct wire_frame){ .type = WIRE_VERIFY_END });
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct setup setup = { .regions = &ram, .nregions = 1, .config.streams = 1 };
	struct source src = { .setup = &setup };
	static struct stream s;
	static struct destination d;
	pthread_t thread;
	int sv[2];

	if (!reader.regions)
		set_up();
	memset(&s, 0, sizeof(s));
	memset(&d, 0, sizeof(d));
	s.source = &src;
	src.streams = &s;
	fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	s.fd = sv[0];
	d = (struct destination){ .src = &src, .in = &in, .fd = sv[1] };
	s.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	src.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	s.scratch = aligned_alloc(PAGE_BYTES, LOOK_SCRATCH);
	pthread_mutex_init(&src.lock, NULL);
	fuzz_check(s.wake_fd >= 0 && src.event_fd >= 0 && s.scratch);
	fuzz_check(!page_hash_init(&src.hash, setup.config.secret, setup.config.id));
	fuzz_check(!scheduler_init(&src.scheduler, &ram, 1, false));
	fuzz_check(!tx_send_ops.new(&s.tx, s.fd, &ram, 1));
	for (uint64_t c = 0; c < CHUNKS; c++)
		bitmap_set_range(&src.scheduler.pending[0], c * CHUNK_PAGES, 1);
	bitmap_set_range(&src.scheduler.dirty_chunks, 0, CHUNKS);
	fuzz_check(!pthread_create(&thread, NULL, destination, &d));
	ask(&src, &s, &d);
	shutdown(s.fd, SHUT_RDWR);
	pthread_join(thread, NULL);
	tx_send_ops.free(s.tx);
	scheduler_release(&src.scheduler);
	pthread_mutex_destroy(&src.lock);
	free(s.scratch);
	close(s.wake_fd);
	close(src.event_fd);
	close(sv[0]);
	close(sv[1]);
	return 0;
}
