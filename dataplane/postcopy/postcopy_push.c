// SPDX-License-Identifier: MIT
/* Post-copy at the source: what is pushed, and in which order; see postcopy_server.h. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "dataplane/postcopy/postcopy_server.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"
#include "lib/base/log.h"

/* Around a fault, in this order: itself, what follows (guests go upwards), one before. */
static const int8_t around[] = { 0, 1, 2, 3, -1 };

/* The queue of a near link is what it carries in this time; looked at so often. */
#define QUEUE_NS (700 * 1000ull)
#define RATE_NS	 (10 * NSEC_PER_MSEC)

/*
 * With room for less than two, TCP sends one and waits for its timer, 40 ms. Those of loopback are
 * 64 KiB; of others these are no bound.
 */
#define SEGMENTS_LEAST 4u

/* While a push waits for the bandwidth limit it looks whether it is to end. */
#define PACE_MAX_NS (20 * NSEC_PER_MSEC)

/* --- what is missing -------------------------------------------------------------------------- */

static int take_missing(struct server_stream *t, const struct wire_frame *f)
{
	struct server *v = t->v;
	const struct region *r = &v->s->regions[f->region];
	uint64_t chunk = f->offset >> CHUNK_SHIFT;

	for (uint32_t i = 0; i < f->count; i++, chunk++) {
		uint64_t *words = page_set_chunk(&v->wanted, f->region, chunk);
		uint8_t in[WIRE_MISSING_SIZE];
		int err = server_read(t, in, sizeof(in));

		if (!err)
			err = wire_get_missing(words, in, r, chunk << CHUNK_SHIFT);
		if (err)
			return err;
		page_set_note(&v->wanted, f->region, chunk);
	}
	return 0;
}

/* Chunks by how much of them is missing, most first; equal ones as they lie. */
static int make_order(struct server *v)
{
	uint64_t chunks = page_set_chunks(&v->wanted), pages = 0, at = 0;
	uint64_t first[CHUNK_PAGES + 1] = { 0 };

	for (uint64_t i = page_set_next(&v->wanted, 0); i < chunks;
	     i = page_set_next(&v->wanted, i + 1)) {
		uint32_t n = page_mask_count(v->wanted.words + i * PAGE_SET_WORDS);

		first[n]++;
		pages += n;
		v->order_count += n > 0;
	}
	v->order = malloc((v->order_count + 1) * sizeof(*v->order));
	if (!v->order)
		return -ENOMEM;
	for (uint32_t n = CHUNK_PAGES; n > 0; n--) {
		uint64_t count = first[n];

		first[n] = at;
		at += count;
	}
	for (uint64_t i = page_set_next(&v->wanted, 0); i < chunks;
	     i = page_set_next(&v->wanted, i + 1)) {
		uint32_t n = page_mask_count(v->wanted.words + i * PAGE_SET_WORDS);

		if (n)
			v->order[first[n]++] = (uint32_t)i;
	}
	__atomic_store_n(&v->wanted_pages, pages, __ATOMIC_RELAXED);
	return 0;
}

/* Stream 1's thread takes what is missing; then all push. */
static int learn(struct server_stream *t)
{
	struct server *v = t->v;

	for (;;) {
		uint8_t head[WIRE_FRAME_SIZE];
		struct wire_frame f;
		int err = server_read(t, head, sizeof(head));

		if (!err)
			err = wire_get_frame(&f, head, v->s->regions, v->s->nregions);
		if (!err && f.type == WIRE_MISSING)
			err = take_missing(t, &f);
		else if (!err && f.type != WIRE_MISSING_END)
			err = -EBADMSG;
		if (err)
			return err;
		if (f.type != WIRE_MISSING_END)
			continue;
		err = make_order(v);
		if (!err && v->wanted_pages != f.extent)
			err = -EBADMSG;
		if (err)
			return err;
		log_info("post-copy: %llu pages in %llu chunks are to be sent",
			 (unsigned long long)v->wanted_pages, (unsigned long long)v->order_count);
		server_compress_begin(v);
		SCOPED_LOCK(&v->lock);
		__atomic_store_n(&v->state, SERVER_PUSHING, __ATOMIC_RELEASE);
		pthread_cond_broadcast(&v->changed);
		return 0;
	}
}

/* --- the order -------------------------------------------------------------------------------- */

void server_note_fault(struct server *v, uint64_t number)
{
	uint32_t at = 0;
	SCOPED_LOCK(&v->lock);

	while (at < v->nrecent && v->recent[at] != number)
		at++;
	if (at == v->nrecent && at < RECENT_MAX)
		v->nrecent++;
	else if (at == RECENT_MAX)
		at--;
	memmove(v->recent + 1, v->recent, at * sizeof(*v->recent));
	v->recent[0] = number;
}

/* Under lock: takes a chunk that nobody has. */
static bool take(struct server *v, uint64_t number)
{
	if (number >= page_set_chunks(&v->wanted) || v->taken[number] ||
	    !page_mask_count(v->wanted.words + number * PAGE_SET_WORDS))
		return false;
	v->taken[number] = 1;
	return true;
}

/* Under lock. */
static bool next_chunk(struct server *v, uint64_t *number)
{
	while (v->nrecent) {
		for (size_t i = 0; i < sizeof(around); i++) {
			*number = v->recent[0] + (uint64_t)(int64_t)around[i];
			if (take(v, *number))
				return true;
		}
		memmove(v->recent, v->recent + 1, --v->nrecent * sizeof(*v->recent));
	}
	while (v->cursor < v->order_count) {
		*number = v->order[v->cursor++];
		if (take(v, *number))
			return true;
	}
	return false;
}

/* What nobody has been given yet: the missing pages of a chunk, with encoders some of them. */
static bool next_part(struct server *v, uint64_t *number, uint64_t mask[PAGE_SET_WORDS])
{
	uint32_t most = v->compress.pool ? PART_PAGES : CHUNK_PAGES, count, at;
	SCOPED_LOCK(&v->lock);

	if (!page_mask_count(v->open_pages)) {
		if (!next_chunk(v, &v->open))
			return false;
		memcpy(v->open_pages, v->wanted.words + v->open * PAGE_SET_WORDS,
		       sizeof(v->open_pages));
	}
	*number = v->open;
	memset(mask, 0, PAGE_SET_WORDS * sizeof(*mask));
	for (at = page_mask_run(v->open_pages, 0, &count); most && at < CHUNK_PAGES;
	     at = page_mask_run(v->open_pages, at + count, &count)) {
		uint64_t run[PAGE_SET_WORDS];

		count = count < most ? count : most;
		most -= count;
		page_mask_fill(run, at, count);
		for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
			mask[i] |= run[i];
	}
	for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
		v->open_pages[i] &= ~mask[i];
	return true;
}

int server_next_plan(struct server *v, struct chunk_plan *plan, uint8_t *scratch)
{
	uint64_t mask[PAGE_SET_WORDS], gone[PAGE_SET_WORDS], number, chunk;

	while (next_part(v, &number, mask)) {
		uint32_t region = page_set_region(&v->wanted, number, &chunk);
		int err;

		memcpy(gone, mask, sizeof(gone));
		page_set_keep(v->sent.words + number * PAGE_SET_WORDS, gone);
		for (uint32_t i = 0; i < PAGE_SET_WORDS; i++)
			mask[i] &= ~gone[i];
		if (!page_mask_count(mask))
			continue;
		err = server_plan_pages(v, region, chunk, mask, plan, scratch);
		return err ? err : 1;
	}
	return 0;
}

/* --- pushing ---------------------------------------------------------------------------------- */

static int pace(struct server *v, uint64_t bytes)
{
	uint64_t reservation, wait;

	if (!token_bucket_rate(&v->bucket))
		return 0;
	reservation = token_bucket_reserve(&v->bucket, bytes, clock_ns());
	while ((wait = token_bucket_wait_ns(&v->bucket, reservation, clock_ns()))) {
		struct timespec nap = { .tv_nsec =
						(long)(wait < PACE_MAX_NS ? wait : PACE_MAX_NS) };

		if (server_stopping(v))
			return -ECANCELED;
		nanosleep(&nap, NULL);
	}
	return 0;
}

/* Of a run the pages of mine; an encoded one goes as a whole, or not. */
static void add_rest(struct chunk_plan *rest, const struct plan_run *run, const uint64_t *mine)
{
	uint32_t end = run->page + (uint32_t)run->pages, count;
	uint32_t at = page_mask_run(mine, run->page, &count);

	if (at < end && run->data) {
		plan_add_data(rest, run->page, run->pages, (enum wire_encoding)run->encoding,
			      run->data, run->length);
		return;
	}
	for (; at < end; at = page_mask_run(mine, at + count, &count)) {
		count = count < end - at ? count : end - at;
		plan_add(rest, at, count, (enum wire_encoding)run->encoding);
	}
}

/*
 * Marks the plan's pages as sent. What of it is to be sent: all, or, in t->rest, what nobody has
 * asked for meanwhile.
 */
static const struct chunk_plan *claim(struct server_stream *t, const struct chunk_plan *p)
{
	struct server *v = t->v;
	uint64_t mask[PAGE_SET_WORDS] = { 0 }, mine[PAGE_SET_WORDS];
	uint64_t *sent = page_set_chunk(&v->sent, p->region->index, p->first_page / CHUNK_PAGES);

	for (uint32_t i = 0; i < p->count; i++)
		for (uint32_t k = p->runs[i].page; k < p->runs[i].page + p->runs[i].pages; k++)
			mask[k / 64] |= 1ull << (k % 64);
	page_set_add(sent, mask, mine);
	if (!memcmp(mask, mine, sizeof(mask)))
		return p;
	t->rest.region = p->region;
	t->rest.first_page = p->first_page;
	t->rest.same = t->rest.count = 0;
	for (uint32_t i = 0; i < p->count; i++)
		add_rest(&t->rest, &p->runs[i], mine);
	return &t->rest;
}

int server_send_plan(struct server_stream *t, const struct chunk_plan *p)
{
	struct push_counts *n = &t->counts;
	uint64_t bytes = 0, cpu, start, passed;
	int err;

	for (uint32_t i = 0; i < p->count; i++)
		bytes += p->runs[i].length;
	err = pace(t->v, bytes);
	if (err)
		return err;
	/* only now: who asks for a huge page while this waits must not wait with it */
	p = claim(t, p);
	cpu = clock_of(CLOCK_THREAD_CPUTIME_ID);
	start = clock_ns();
	/* nothing of it is held back for what follows: somebody may wait for its last page */
	err = server_send_frames(t, p, false);
	passed = clock_ns() - start;
	cpu = clock_of(CLOCK_THREAD_CPUTIME_ID) - cpu;
	__atomic_store_n(&n->sending_ns, n->sending_ns + passed, __ATOMIC_RELAXED);
	__atomic_store_n(&n->blocked_ns, n->blocked_ns + (passed > cpu ? passed - cpu : 0),
			 __ATOMIC_RELAXED);
	return err;
}

/* Chunks as they are, one after the other. */
static int push_chunks(struct server_stream *t)
{
	int err;

	while ((err = server_next_plan(t->v, &t->plan, t->scratch)) > 0) {
		server_adapt_queue(t);
		err = server_stopping(t->v) ? -ECANCELED : server_send_plan(t, &t->plan);
		if (err)
			return err;
	}
	return err;
}

static int await_order(struct server *v)
{
	SCOPED_LOCK(&v->lock);

	while (__atomic_load_n(&v->state, __ATOMIC_RELAXED) != SERVER_PUSHING &&
	       !server_stopping(v))
		pthread_cond_wait(&v->changed, &v->lock);
	return server_stopping(v) ? -ECANCELED : 0;
}

/* The destination has everything that came on this stream. */
static int finish(struct server_stream *t)
{
	struct wire_frame end = { .type = WIRE_ROUND_END, .number = 1 }, ack;
	uint8_t head[WIRE_FRAME_SIZE];
	int err;

	wire_put_frame(head, &end);
	err = t->tx->ops->frame(t->tx, head, sizeof(head), NULL, NULL, 0, false);
	if (!err)
		err = server_read(t, head, sizeof(head));
	if (!err)
		err = wire_get_frame(&ack, head, t->v->s->regions, t->v->s->nregions);
	if (!err && (ack.type != WIRE_ACK || ack.of != WIRE_ROUND_END || ack.number != 1))
		err = -EBADMSG;
	return err;
}

/* --- bytes ahead of a fault ------------------------------------------------------------------- */

static void set_queue(struct server_stream *t, uint64_t bytes)
{
	/* the kernel doubles SO_SNDBUF, for its own book-keeping */
	int queue = (int)(bytes / 2), unsent = (int)(bytes / 2);

	t->queue = bytes;
	if (setsockopt(t->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent)))
		log_debug("no TCP_NOTSENT_LOWAT: %s", strerror(errno));
	if (t->near && setsockopt(t->fd, SOL_SOCKET, SO_SNDBUF, &queue, sizeof(queue)))
		log_debug("SO_SNDBUF: %s", strerror(errno));
}

/* Of one stream, so that all have that of PUSH_QUEUE, or at least what TCP can go on with. */
static uint64_t share(const struct server_stream *t, uint64_t of_all)
{
	uint64_t bytes = of_all / (t->v->s->config.streams - 1);

	return bytes > t->queue_least ? bytes : t->queue_least;
}

void server_bound_queue(struct server_stream *t)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	t->near = !getsockopt(t->fd, IPPROTO_TCP, TCP_INFO, &info, &len) && info.tcpi_rtt < NEAR_US;
	t->queue_least = SEGMENTS_LEAST * (uint64_t)info.tcpi_snd_mss;
	set_queue(t, share(t, t->near ? PUSH_QUEUE_MIN : PUSH_QUEUE));
}

/* What the link carries in QUEUE_NS, as it has turned out. */
void server_adapt_queue(struct server_stream *t)
{
	uint64_t now = clock_ns(), passed = now - t->rate_ns;
	uint64_t bytes = t->tx->counters.wire_bytes - t->rate_bytes, want;

	if (!t->near || passed < RATE_NS)
		return;
	want = bytes * QUEUE_NS / passed;
	if (want > share(t, PUSH_QUEUE))
		want = share(t, PUSH_QUEUE);
	if (want < share(t, PUSH_QUEUE_MIN))
		want = share(t, PUSH_QUEUE_MIN);
	if (t->rate_ns && (want * 4 > t->queue * 5 || want * 5 < t->queue * 4))
		set_queue(t, want);
	t->rate_ns = now;
	t->rate_bytes = t->tx->counters.wire_bytes;
}

int server_push(struct server_stream *t)
{
	struct server *v = t->v;
	int err = t->index == 1 ? learn(t) : await_order(v);

	if (!err)
		err = v->compress.pool ? server_push_beside_encoders(t) : push_chunks(t);
	return err ? err : finish(t);
}
