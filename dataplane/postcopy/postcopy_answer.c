// SPDX-License-Identifier: MIT
/* Post-copy at the source: pages of a chunk, and the answers to faults; see postcopy_server.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "dataplane/postcopy/postcopy_server.h"
#include "lib/base/clock.h"

#define REQUESTS_AT_ONCE 64u

/* --- streams ---------------------------------------------------------------------------------- */

int server_read(const struct server_stream *t, void *out, size_t len)
{
	uint8_t *p = out;

	while (len) {
		ssize_t n = recv(t->fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ECONNRESET;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* What the pages of mask are: enum page_kind, a byte a page. */
static int look(struct server *v, const struct region *r, uint64_t chunk, const uint64_t *mask,
		uint8_t *kinds, uint8_t *scratch)
{
	uint32_t count, first = page_mask_run(mask, 0, &count);
	int err = 0;

	memset(kinds, PAGE_NOT_SENT, CHUNK_PAGES);
	while (!err && first < CHUNK_PAGES) {
		err = page_reader_classify(&v->reader, r, chunk * CHUNK_PAGES + first, count,
					   kinds + first, scratch);
		first = page_mask_run(mask, first + count, &count);
	}
	return err;
}

int server_plan_pages(struct server *v, uint32_t region, uint64_t chunk,
		      const uint64_t mask[PAGE_SET_WORDS], struct chunk_plan *plan,
		      uint8_t *scratch)
{
	const struct region *r = &v->s->regions[region];
	uint64_t left = region_pages(r) - chunk * CHUNK_PAGES;
	struct scheduler_chunk c = { .region = r,
				     .first_page = chunk * CHUNK_PAGES,
				     .pages = left < CHUNK_PAGES ? (uint32_t)left : CHUNK_PAGES };
	uint8_t kinds[CHUNK_PAGES];
	int err = look(v, r, chunk, mask, kinds, scratch);

	if (!err)
		plan_from_kinds(plan, &c, kinds, NULL);
	return err;
}

static void add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static void count_frame(struct push_counts *n, const struct plan_frame *f)
{
	add(&n->pages, f->pages);
	add(&n->raw, f->in[WIRE_ENC_RAW]);
	add(&n->zero, f->in[WIRE_ENC_ZERO]);
	add(&n->hole, f->in[WIRE_ENC_HOLE]);
	add(&n->zstd_in, f->in[WIRE_ENC_ZSTD]);
	add(&n->zstd_out, f->out[WIRE_ENC_ZSTD]);
}

int server_send_frames(struct server_stream *t, const struct chunk_plan *p, bool more)
{
	struct plan_cursor at = { 0 };
	int err = 0;

	while (!err && plan_next_frame(p, &at, CHUNK_BYTES, &t->frame)) {
		const struct plan_frame *f = &t->frame;

		err = t->tx->ops->frame(t->tx, f->head, f->head_len, p->region, f->slice, f->slices,
					more);
		count_frame(&t->counts, f);
	}
	__atomic_store_n(&t->wire_bytes, t->tx->counters.wire_bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&t->zero_copy_bytes, t->tx->counters.zero_copy_bytes, __ATOMIC_RELAXED);
	return err;
}

int server_send_pages(struct server_stream *t, uint32_t region, uint64_t chunk,
		      const uint64_t mask[PAGE_SET_WORDS], bool more)
{
	int err = server_plan_pages(t->v, region, chunk, mask, &t->plan, t->scratch);

	return err ? err : server_send_frames(t, &t->plan, more);
}

/* --- faults ----------------------------------------------------------------------------------- */

static int answer(struct server_stream *t, const struct wire_frame *f, bool more)
{
	struct server *v = t->v;
	uint64_t mask[PAGE_SET_WORDS], ignored[PAGE_SET_WORDS], chunk = f->offset >> CHUNK_SHIFT;
	uint64_t number = v->wanted.first_chunk[f->region] + chunk;
	uint64_t *sent = v->sent.words + number * PAGE_SET_WORDS;

	page_mask_fill(mask, (uint32_t)(f->offset % CHUNK_BYTES / PAGE_BYTES),
		       (uint32_t)(f->extent / PAGE_BYTES));
	__atomic_add_fetch(&v->requests, 1, __ATOMIC_RELAXED);
	if (f->extent == PAGE_BYTES) {
		page_set_add(sent, mask, ignored);
	} else {
		/* of a huge page what is on its way comes soon enough */
		if (__atomic_load_n(&v->state, __ATOMIC_ACQUIRE) == SERVER_PUSHING)
			page_set_keep(v->wanted.words + number * PAGE_SET_WORDS, mask);
		page_set_add(sent, mask, mask);
	}
	token_bucket_reserve(&v->bucket, f->extent, clock_ns()); /* charged, not held back */
	server_note_fault(v, number);
	return server_send_pages(t, f->region, chunk, mask, more);
}

static int answer_all(struct server_stream *t, const uint8_t *bytes, size_t count)
{
	const struct setup *s = t->v->s;
	int err = 0;

	for (size_t i = 0; !err && i < count; i++) {
		struct wire_frame f;

		err = wire_get_frame(&f, bytes + i * WIRE_FRAME_SIZE, s->regions, s->nregions);
		if (!err && f.type != WIRE_REQUEST)
			err = -EBADMSG;
		if (!err)
			err = answer(t, &f, i + 1 < count);
	}
	return err;
}

int server_serve_faults(struct server_stream *t)
{
	uint8_t bytes[REQUESTS_AT_ONCE * WIRE_FRAME_SIZE];
	size_t have = 0;

	for (;;) {
		ssize_t n = recv(t->fd, bytes + have, sizeof(bytes) - have, 0);
		size_t whole;
		int err;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ECONNRESET;
		have += (size_t)n;
		whole = have / WIRE_FRAME_SIZE;
		err = answer_all(t, bytes, whole);
		if (err)
			return err;
		have -= whole * WIRE_FRAME_SIZE;
		memmove(bytes, bytes + whole * WIRE_FRAME_SIZE, have);
	}
}
