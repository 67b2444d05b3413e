// SPDX-License-Identifier: MIT
/*
 * A hostile destination of a post-copy: what it says is missing, what it asks for, and how it
 * acknowledges, on all streams at once.
 *
 * Input: a byte of flags, then operations, each for one stream: whole frames made of a few bytes,
 * or bytes as they are. Whatever comes, what is sent back is well-formed and what RAM holds; no
 * page is pushed twice, or unless it is missing; every request before the first malformed one is
 * answered; and who acknowledges in order has got every missing page.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/codec/decode.h"
#include "dataplane/postcopy/postcopy_server.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

#define REGIONS	    2u
#define FILE_OFFSET (3ull * PAGE_BYTES)
#define STREAMS_MAX 3u
#define ASKED_MAX   4096u /* pages, of a whole input */
#define INPUT_MAX   4096u

enum flags {
	FLAG_SENDFILE = 1,
	FLAG_THREE_STREAMS = 2,
	FLAG_ZSTD = 4,
	FLAG_AUTO = 8,
};

enum operation {
	OP_REQUEST,
	OP_MISSING,
	OP_MISSING_END,
	OP_ACK,
	OP_BYTES,   /* as they are */
	OP_HEADER,  /* a frame's 32 bytes as they are */
	OP_FOREIGN, /* another frame without payload */
	OPERATIONS,
};

static const uint64_t sizes[REGIONS] = { CHUNK_BYTES + 5 * PAGE_BYTES, 16 * PAGE_BYTES };

/* Live as long as the process; nobody writes RAM. */
static struct region regions[REGIONS];
static uint8_t *ram[REGIONS];
static struct decoder decoder;

/* One stream, seen from the destination. */
struct side {
	int fd; /* ours; -1: the other end has closed */
	uint32_t index;
	uint8_t out[256 << 10]; /* what is said: enough for INPUT_MAX */
	size_t out_len, out_at;
	uint8_t *in; /* a frame as far as it has come */
	size_t have, need;
	bool ended; /* ROUND_END came */
};

struct runner {
	struct server_stream *t;
	pthread_t thread;
	int err;
};

static struct side sides[STREAMS_MAX];
static uint32_t streams;

struct model {
	struct page_set wanted; /* as named in frames that are well-formed */
	struct page_set pushed, answered;
	uint64_t named, asked, answers; /* pages */
	bool ended;		   /* MISSING_END was right, what follows is not read as such */
	bool unknown[STREAMS_MAX]; /* something was said that this does not follow */
};

static void fill(uint32_t i)
{
	for (uint64_t page = 0; page < region_pages(&regions[i]); page++) {
		uint8_t bytes[PAGE_BYTES] = { 0 };
		off_t at = (off_t)(FILE_OFFSET + page * PAGE_BYTES);

		if (page % 8 >= 6) /* a hole */
			continue;
		if (page % 8 < 5)
			for (uint32_t k = 0; k < PAGE_BYTES; k++)
				bytes[k] = page % 64 < 32 ? (uint8_t)(k % 7 + page)
							  : (uint8_t)((k * 2654435761u) >> 13);
		fuzz_check(pwrite(regions[i].fd, bytes, PAGE_BYTES, at) == PAGE_BYTES);
		memcpy(ram[i] + page * PAGE_BYTES, bytes, PAGE_BYTES);
	}
}

static void set_up(void)
{
	log_init("fuzz", LOG_LEVEL_ERROR);
	fuzz_check(!decoder_init(&decoder));
	for (uint32_t i = 0; i < STREAMS_MAX; i++)
		sides[i].in = malloc(WIRE_FRAME_SIZE + WIRE_PAYLOAD_MAX);
	for (uint32_t i = 0; i < REGIONS; i++) {
		regions[i] = (struct region){ .index = i,
					      .page_size = PAGE_BYTES,
					      .size = sizes[i],
					      .file_offset = FILE_OFFSET };
		regions[i].fd = memfd_create("fuzz-server", MFD_CLOEXEC);
		ram[i] = calloc(1, sizes[i]);
		fuzz_check(regions[i].fd >= 0 && ram[i]);
		fuzz_check(!ftruncate(regions[i].fd, (off_t)(FILE_OFFSET + sizes[i])));
		fill(i);
	}
}

/* --- what the destination says ---------------------------------------------------------------- */

static void say(struct side *s, const void *bytes, size_t n)
{
	fuzz_check(n <= sizeof(s->out) - s->out_len);
	memcpy(s->out + s->out_len, bytes, n);
	s->out_len += n;
}

static void say_frame(struct side *s, const struct wire_frame *f)
{
	uint8_t head[WIRE_FRAME_SIZE];

	wire_put_frame(head, f);
	say(s, head, sizeof(head));
}

static void say_request(struct fuzz_input *in, struct model *m)
{
	struct wire_frame f = { .type = WIRE_REQUEST, .region = fuzz_u8(in) & 1 };
	uint64_t pages = region_pages(&regions[f.region]), page = fuzz_u16(in) % pages, left;
	uint8_t count = fuzz_u8(in);

	left = CHUNK_PAGES - page % CHUNK_PAGES;
	if (left > pages - page)
		left = pages - page;
	count = count == 255 ? (uint8_t)left : 1 + count % 16;
	if (count > left)
		count = (uint8_t)left;
	if (!count || m->asked + count > ASKED_MAX)
		return;
	f.offset = page << PAGE_SHIFT;
	f.extent = (uint64_t)count << PAGE_SHIFT;
	m->asked += count;
	/* what is asked for by huge pages is answered as far as it is not on its way */
	if (!m->unknown[0] && count == 1)
		m->answers++;
	say_frame(&sides[0], &f);
}

static void say_missing(struct fuzz_input *in, struct model *m)
{
	uint32_t region = fuzz_u8(in) & 1, chunks = (uint32_t)region_chunks(&regions[region]);
	uint32_t first = fuzz_u8(in) % chunks;
	struct wire_frame f = { .type = WIRE_MISSING,
				.region = (uint16_t)region,
				.offset = (uint64_t)first << CHUNK_SHIFT,
				.count = chunks - first };

	f.length = f.count * WIRE_MISSING_SIZE;
	say_frame(&sides[1], &f);
	for (uint64_t chunk = first; chunk < chunks; chunk++) {
		uint64_t words[PAGE_SET_WORDS] = { 0 }, *known, left;
		uint8_t bits[WIRE_MISSING_SIZE], from = fuzz_u8(in), count = fuzz_u8(in);
		uint64_t pattern = fuzz_u8(in) * 0x0101010101010101ull;

		left = region_pages(&regions[region]) - chunk * CHUNK_PAGES;
		for (uint32_t i = from * 2u; i < from * 2u + count && i < CHUNK_PAGES; i++)
			if (pattern >> (i % 64) & 1)
				words[i / 64] |= 1ull << (i % 64);
		wire_put_missing(bits, words);
		say(&sides[1], bits, sizeof(bits));
		known = page_set_chunk(&m->wanted, region, chunk);
		for (uint32_t i = 0; i < CHUNK_PAGES; i++)
			if (page_set_has(words, i) && i >= left)
				m->unknown[1] = true; /* beyond the region: refused */
		/* the server takes a chunk that is named again as it is named last */
		if (!m->unknown[1] && !m->ended) {
			memcpy(known, words, sizeof(words));
			page_set_note(&m->wanted, region, chunk);
		}
	}
}

static void say_missing_end(struct fuzz_input *in, struct model *m)
{
	struct wire_frame f = { .type = WIRE_MISSING_END, .extent = page_set_count(&m->wanted) };

	if (fuzz_u8(in) == 1) {
		f.extent++;
		m->unknown[1] = true;
	}
	say_frame(&sides[1], &f);
	m->ended = true;
}

static void say_bytes(struct fuzz_input *in, struct model *m, struct side *s, size_t n)
{
	const uint8_t *bytes = fuzz_bytes(in, &n);

	say(s, bytes, n);
	m->unknown[s->index] = true;
}

static void say_something(struct fuzz_input *in, struct model *m)
{
	uint8_t what = fuzz_u8(in);
	struct side *s = &sides[what / 64 % streams];
	enum operation op = what % 64 % OPERATIONS;

	switch (op) {
	case OP_REQUEST:
		say_request(in, m);
		break;
	case OP_MISSING:
		say_missing(in, m);
		break;
	case OP_MISSING_END:
		say_missing_end(in, m);
		break;
	case OP_ACK:
		m->unknown[s->index] |= !s->index || (s->index == 1 && !m->ended);
		say_frame(s, &(struct wire_frame){
				     .type = WIRE_ACK, .of = WIRE_ROUND_END, .number = 1 });
		break;
	case OP_FOREIGN:
		say_frame(s, &(struct wire_frame){ .type = fuzz_u8(in) % WIRE_TYPES,
						   .of = WIRE_HELD,
						   .extent = PAGE_BYTES });
		m->unknown[s->index] = true;
		break;
	default:
		say_bytes(in, m, s, op == OP_HEADER ? WIRE_FRAME_SIZE : fuzz_u8(in));
	}
}

/* --- what it gets ----------------------------------------------------------------------------- */

static void take_page(struct model *m, const struct side *s, uint32_t region, uint64_t page)
{
	uint64_t *words, bit = 1ull << (page % 64);
	bool once = s->index > 0;

	words = page_set_chunk(once ? &m->pushed : &m->answered, region, page / CHUNK_PAGES) +
		page % CHUNK_PAGES / 64;
	fuzz_check(!once || !(*words & bit));
	*words |= bit;
	if (once && !m->unknown[1])
		fuzz_check(page_set_has(page_set_chunk(&m->wanted, region, page / CHUNK_PAGES),
					page % CHUNK_PAGES));
}

static void take_run(const struct wire_run *run, const uint8_t *payload, const uint8_t *is)
{
	static const uint8_t zeros[CHUNK_BYTES];
	size_t len = run->pages * (size_t)PAGE_BYTES;

	switch (run->encoding) {
	case WIRE_ENC_RAW:
		fuzz_check(!memcmp(payload, is, len));
		break;
	case WIRE_ENC_ZERO:
	case WIRE_ENC_HOLE:
		fuzz_check(!memcmp(zeros, is, len));
		break;
	case WIRE_ENC_ZSTD:
		fuzz_check(!decode_zstd(&decoder, payload, run->length, decoder.out, len));
		fuzz_check(!memcmp(decoder.out, is, len));
		break;
	default:
		fuzz_check(!"an encoding that has no place here");
	}
}

static void take_pages(struct model *m, const struct side *s, const struct wire_frame *f)
{
	static struct wire_run runs[WIRE_RUNS_MAX];
	const uint8_t *payload = s->in + WIRE_FRAME_SIZE;
	const struct region *r = &regions[f->region];

	fuzz_check(!wire_get_runs(runs, payload, (size_t)f->count * WIRE_RUN_SIZE, f, r));
	payload += (size_t)f->count * WIRE_RUN_SIZE;
	for (uint32_t i = 0; i < f->count; i++) {
		uint64_t first = (f->offset >> PAGE_SHIFT) + runs[i].page;

		fuzz_check(s->index || runs[i].encoding != WIRE_ENC_ZSTD);
		take_run(&runs[i], payload, ram[f->region] + first * PAGE_BYTES);
		for (uint32_t k = 0; k < runs[i].pages; k++)
			take_page(m, s, f->region, first + k);
		payload += runs[i].length;
	}
}

/* How much more of the frame there is; a whole one is dealt with. */
static void take_bytes(struct model *m, struct side *s)
{
	struct wire_frame f;

	if (s->have < s->need)
		return;
	fuzz_check(!wire_get_frame(&f, s->in, regions, REGIONS));
	fuzz_check(!s->ended);
	s->need = WIRE_FRAME_SIZE + f.length;
	if (s->have < s->need)
		return;
	if (f.type == WIRE_ROUND_END) {
		fuzz_check(s->index && f.number == 1);
		s->ended = true;
	} else {
		fuzz_check(f.type == WIRE_PAGES);
		take_pages(m, s, &f);
	}
	s->have = 0;
	s->need = WIRE_FRAME_SIZE;
}

/* Says and takes on all streams, until they are closed. */
static void converse(struct model *m)
{
	for (;;) {
		struct pollfd p[STREAMS_MAX];
		bool open = false;

		for (uint32_t i = 0; i < streams; i++) {
			struct side *s = &sides[i];

			p[i] = (struct pollfd){ .fd = s->fd, .events = POLLIN };
			open |= s->fd >= 0;
			if (s->fd >= 0 && s->out_at < s->out_len)
				p[i].events |= POLLOUT;
			else if (s->fd >= 0)
				shutdown(s->fd, SHUT_WR);
		}
		if (!open)
			return;
		poll(p, streams, -1);
		for (uint32_t i = 0; i < streams; i++) {
			struct side *s = &sides[i];
			ssize_t n;

			if (s->fd >= 0 && p[i].revents & POLLOUT) {
				n = send(s->fd, s->out + s->out_at, s->out_len - s->out_at,
					 MSG_DONTWAIT | MSG_NOSIGNAL);
				if (n < 0 && errno != EAGAIN)
					s->out_at = s->out_len;
				s->out_at += n > 0 ? (size_t)n : 0;
			}
			if (s->fd < 0 || !(p[i].revents & (POLLIN | POLLHUP | POLLERR)))
				continue;
			n = recv(s->fd, s->in + s->have, s->need - s->have, MSG_DONTWAIT);
			if (n < 0 && (errno == EAGAIN || errno == ECONNRESET))
				continue; /* told once that something was not read; then the end */
			if (n <= 0) {
				close(s->fd);
				s->fd = -1;
				continue;
			}
			s->have += (size_t)n;
			take_bytes(m, s);
		}
	}
}

/* --- both ------------------------------------------------------------------------------------- */

static void *serve_stream(void *arg)
{
	struct runner *r = arg;
	struct server *v = r->t->v;

	r->err = r->t->index ? server_push(r->t) : server_serve_faults(r->t);
	/* the others wait for what stream 1 was to say */
	if (r->t->index == 1 && r->err) {
		pthread_mutex_lock(&v->lock);
		__atomic_store_n(&v->stopping, true, __ATOMIC_RELAXED);
		pthread_cond_broadcast(&v->changed);
		pthread_mutex_unlock(&v->lock);
	}
	shutdown(r->t->fd, SHUT_RDWR);
	return NULL;
}

static void check(const struct model *m, const struct runner *r)
{
	uint64_t answered = 0;

	for (uint32_t i = 0; i < REGIONS; i++)
		for (uint64_t page = 0; page < region_pages(&regions[i]); page++) {
			uint32_t at = page % CHUNK_PAGES;
			uint64_t chunk = page / CHUNK_PAGES;
			bool came = page_set_has(page_set_chunk(&m->answered, i, chunk), at) ||
				    page_set_has(page_set_chunk(&m->pushed, i, chunk), at);
			bool all = !m->unknown[1] && !r[1].err && (streams < 3 || !r[2].err);

			answered += page_set_has(page_set_chunk(&m->answered, i, chunk), at);
			if (all && page_set_has(page_set_chunk(&m->wanted, i, chunk), at))
				fuzz_check(came);
		}
	/* its stream ended, if by nothing else by our end of it */
	fuzz_check(r[0].err);
	fuzz_check(m->unknown[0] || r[0].err != -EBADMSG);
	fuzz_check(!m->answers || answered);
}

static void run(struct model *m, uint8_t flags)
{
	struct setup s = { .regions = regions, .nregions = REGIONS };
	struct runner runners[STREAMS_MAX];
	struct failure f = { 0 };
	struct server v;
	int sv[2];

	s.config = (struct ipc_config){ .role = IPC_ROLE_POSTCOPY_SOURCE,
					.streams = streams,
					.tx = flags & FLAG_SENDFILE ? IPC_TX_SENDFILE : IPC_TX_SEND,
					.encodings = IPC_ENCODING_ZSTD,
					.compress = flags & FLAG_ZSTD	? IPC_COMPRESS_ZSTD
						    : flags & FLAG_AUTO ? IPC_COMPRESS_AUTO
									: IPC_COMPRESS_OFF,
					.level = flags & FLAG_ZSTD ? 1 : 0 };
	for (uint32_t i = 0; i < streams; i++) {
		fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
		sides[i].fd = sv[0];
		s.stream_fds[i] = sv[1];
	}
	fuzz_check(!server_init(&v, &s, &f));
	fuzz_check(!v.compress.pool || !encode_pool_start(v.compress.pool));
	for (uint32_t i = 0; i < streams; i++) {
		runners[i] = (struct runner){ .t = &v.streams[i] };
		fuzz_check(!pthread_create(&runners[i].thread, NULL, serve_stream, &runners[i]));
	}
	converse(m);
	for (uint32_t i = 0; i < streams; i++)
		pthread_join(runners[i].thread, NULL);
	encode_pool_stop(v.compress.pool);
	check(m, runners);
	server_release(&v);
	for (uint32_t i = 0; i < streams; i++)
		close(s.stream_fds[i]);
	for (uint32_t i = 0; i < REGIONS; i++) {
		munmap(regions[i].map, regions[i].size);
		regions[i].map = NULL;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint8_t flags = fuzz_u8(&in);
	struct model m = { 0 };
	struct page_set *sets[] = { &m.wanted, &m.pushed, &m.answered };

	if (!ram[0])
		set_up();
	if (in.left > INPUT_MAX)
		in.left = INPUT_MAX;
	streams = flags & FLAG_THREE_STREAMS ? 3 : 2;
	for (uint32_t i = 0; i < 3; i++)
		fuzz_check(!page_set_init(sets[i], regions, REGIONS, -1, 0, NULL));
	for (uint32_t i = 0; i < STREAMS_MAX; i++) {
		struct side *s = &sides[i];

		s->index = i;
		s->out_len = s->out_at = s->have = 0;
		s->need = WIRE_FRAME_SIZE;
		s->ended = false;
	}
	while (in.left)
		say_something(&in, &m);
	run(&m, flags);
	for (uint32_t i = 0; i < 3; i++)
		page_set_release(sets[i]);
	return 0;
}
