// SPDX-License-Identifier: MIT
/*
 * A hostile source on one data stream of the destination, with its RAM in a memfd.
 *
 * Input: a byte of flags, then operations. Most make a whole frame out of a few bytes, so that
 * small inputs reach far, and keep a model of what RAM must read as; others send bytes as they are.
 * A stream that is accepted to its end must have made RAM equal to the model (unless bytes went
 * that the model does not know), and nothing before and behind the region may have changed.
 */
#include <pthread.h>
#include <sys/eventfd.h>
#include <xxhash.h>

#include "tests/fuzz/fuzz_ram.h"

#define STATE_MAX (64u << 10)

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

struct build {
	struct fuzz_input *in;
	bool unknown;	 /* something went that the model does not follow */
	bool wrong_hash; /* a VERIFY that must find a difference */
	uint64_t state_bytes;
};

static uint8_t encoding_of(uint8_t byte)
{
	return byte % 5;
}

/* The model is brought to what the run makes of RAM. */
static uint32_t run_payload(void *arg, const struct region *r, uint64_t first,
			    const struct wire_run *run, uint8_t *to, uint8_t seed)
{
	uint8_t *ram = model[r->index] + first * PAGE_BYTES;
	size_t len = run->pages * (size_t)PAGE_BYTES;
	static uint8_t before[CHUNK_BYTES];

	(void)arg;
	if (run->encoding == WIRE_ENC_ZERO || run->encoding == WIRE_ENC_HOLE) {
		memset(ram, 0, len);
		return 0;
	}
	memcpy(before, ram, len);
	if (run->encoding == WIRE_ENC_DELTA)
		ram[seed * 16 % len] ^= 0x55;
	else
		pattern(ram, len, seed);
	return encode(to, ram, len, run->encoding, 1,
		      run->encoding == WIRE_ENC_DELTA ? before : NULL);
}

static const struct run_ops run_ops = { encoding_of, run_payload };

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

static void put_operation(struct build *b)
{
	enum operation op = fuzz_u8(b->in) % OPERATIONS;

	switch (op) {
	case OP_PAGES:
		put_pages(b->in, &run_ops, b);
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
		b->unknown |= damage(b->in);
		break;
	case OP_HELD:
		put_frame(&(struct wire_frame){ .type = WIRE_HELD });
		break;
	case OP_HASHES:
		put_frame(
			&(struct wire_frame){ .type = WIRE_HASHES, .region = fuzz_u8(b->in) & 1 });
		break;
	default:
		put_input(b->in, op == OP_HEADER ? WIRE_FRAME_SIZE : fuzz_u8(b->in));
		b->unknown = true;
	}
}

static int receive(uint8_t flags, struct ipc_verified *verified)
{
	struct setup s = { .regions = regions, .nregions = REGIONS };
	struct destination d = { .s = &s };
	struct stream streams[2] = { { .d = &d }, { .d = &d, .index = 1 } };
	struct stream *st = &streams[!!(flags & FLAG_SECOND)];
	struct failure f = { 0 };
	struct peer peer = { .fds = { -1, -1 } };
	pthread_t thread;
	char why[96];
	int sv[2], err;

	s.config.streams = flags & FLAG_TWO_STREAMS ? 2 : 1;
	d.streams = streams;
	d.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pthread_mutex_init(&d.lock, NULL);
	fuzz_check(d.event_fd >= 0 && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	peer.fds[0] = sv[0];
	fuzz_check(!place_init(&d.place, regions, REGIONS, PLACE_AUTO, flags & FLAG_THP, why,
			       sizeof(why)));
	d.place.encodings = (flags & FLAG_NO_ZSTD ? 0 : IPC_ENCODING_ZSTD) |
			    (flags & FLAG_NO_DELTA ? 0 : IPC_ENCODING_DELTA);
	fuzz_check(!page_hash_init(&d.hash, s.config.secret, s.config.id));
	fuzz_check(!state_hold_init(&d.state, STATE_MAX) && !rx_reader_init(&st->rx, -1));
	fuzz_check(!placer_init(&st->placer, &d.place, &st->rx));
	fuzz_check(!pthread_create(&thread, NULL, source, &peer));
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
		set_up_ram();
	prepare_ram(flags & FLAG_STALE);
	stream_len = 0;
	while (in.left && stream_len < STREAM_MAX - 2 * WIRE_PAYLOAD_MAX)
		put_operation(&b);
	if (!receive(flags, &verified) && !b.unknown) {
		compare_ram(NULL);
		fuzz_check(b.wrong_hash || !verified.mismatches);
	}
	check_surroundings();
	return 0;
}
