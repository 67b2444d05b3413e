// SPDX-License-Identifier: MIT
/* Compression in a bench; see bench_compress.h. */
#include "dataplane/bench/bench_compress.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/bench/bench.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

/* As in source_send.c: a part of a raw message on a slow link. */
#define PARTS_PER_SECOND 200u
#define PART_MIN	 (64u * 1024)

/* While a stream waits for encoders the policy may come to think that it should not. */
#define WAIT_NS (20 * NSEC_PER_MSEC)

/* --- the policy ------------------------------------------------------------------------------- */

static uint64_t load(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void read_counters(struct bench *b, struct compress_counters *c)
{
	compress_counters_begin(c, b->compress.uptime_fd);
	for (uint32_t i = 0; i < b->s->config.streams; i++) {
		const struct bench_stream *st = &b->streams[i];

		if (!st->encode)
			continue;
		c->raw += load(&st->encode->raw);
		c->in += load(&st->encode->in);
		c->wire += load(&st->counts.wire_bytes);
		c->sending_ns += load(&st->encode->sending_ns);
		c->blocked_ns += load(&st->encode->blocked_ns);
		compress_counters_encoders(c, st->encode->pool);
	}
}

/* The lock is held. */
static void set_mode(struct bench *b)
{
	struct encode_mode mode = compress_epochs_mode(&b->compress.epochs);

	for (uint32_t i = 0; i < b->s->config.streams; i++)
		if (b->streams[i].encode)
			encode_pool_set(b->streams[i].encode->pool, &mode);
}

void bench_compress_begin(struct bench *b, uint64_t limit)
{
	struct bench_compress *c = &b->compress;
	struct compress_counters now;

	if (!c->senders)
		return;
	SCOPED_LOCK(&c->epochs.lock);
	compress_policy_init(&c->epochs.policy, limit);
	__atomic_store_n(&c->epochs.link_rate, 0, __ATOMIC_RELAXED);
	read_counters(b, &now);
	compress_epochs_begin(&c->epochs, &now);
	set_mode(b);
}

static void tick(struct bench *b)
{
	struct bench_compress *c = &b->compress;
	struct compress_counters now;

	if (!compress_epochs_over(&c->epochs))
		return;
	read_counters(b, &now);
	if (compress_epochs_step(&c->epochs, &now, c->senders, c->senders * c->workers))
		set_mode(b);
	pthread_mutex_unlock(&c->epochs.lock);
}

/* --- chunks of a lap -------------------------------------------------------------------------- */

/* 1: the lap's next chunk, in the window; 0: there is none. */
static int next_chunk(struct bench_stream *st, uint64_t *chunk)
{
	struct bench_encode *e = st->encode;
	SCOPED_LOCK(&e->lock);

	/* both under the lock: no chunk before the last one that was taken is left out */
	if (e->over || e->chunk == st->bench->window >> CHUNK_SHIFT)
		return 0;
	e->over = !bench_tx_may_send(st, CHUNK_BYTES);
	if (e->over)
		return 0;
	*chunk = e->chunk++;
	return 1;
}

/* The chunk's messages, a run each. */
static int next_plan(void *arg, struct chunk_plan *plan, uint8_t *scratch)
{
	struct bench_stream *st = arg;
	uint32_t pages = (uint32_t)(st->bench->run.size >> PAGE_SHIFT);
	uint64_t chunk;

	(void)scratch;
	if (!next_chunk(st, &chunk))
		return 0;
	*plan = (struct chunk_plan){ .region = &st->region, .first_page = chunk * CHUNK_PAGES };
	for (uint32_t at = 0; at < CHUNK_PAGES; at += pages)
		plan_add(plan, at, pages, WIRE_ENC_RAW);
	return 1;
}

static void wake(void *arg, uint32_t stream)
{
	(void)stream;
	bench_wake(arg);
}

/* --- sending ---------------------------------------------------------------------------------- */

/*
 * What p has of the message of `pages` pages from `first` on; *at: its next run. Encoded runs lie
 * in one message, raw ones may go on in the next.
 */
static void cut_message(const struct chunk_plan *p, uint32_t *at, uint32_t first, uint32_t pages,
			struct chunk_plan *out)
{
	uint32_t end = first + pages;

	out->region = p->region;
	out->first_page = p->first_page;
	out->same = 0;
	out->count = 0;
	while (*at < p->count && p->runs[*at].page < end) {
		const struct plan_run *run = &p->runs[*at];
		uint32_t run_end = run->page + run->pages;
		uint32_t from = run->page > first ? run->page : first;
		uint32_t to = run_end < end ? run_end : end;

		if (run->data)
			plan_add_data(out, run->page, run->pages, (enum wire_encoding)run->encoding,
				      run->data, run->length);
		else
			plan_add(out, from, to - from, WIRE_ENC_RAW);
		if (run_end > end)
			break;
		++*at;
	}
}

static int send_frame(struct bench_stream *st)
{
	struct bench_encode *e = st->encode;
	const struct plan_frame *f = &e->frame;
	uint64_t cpu = clock_of(CLOCK_THREAD_CPUTIME_ID), start = clock_ns(), passed;
	int err = bench_tx_pace(st, f->head_len + f->payload);

	if (!err)
		err = bench_tx_put(st, f->head, f->head_len, f->slice, f->slices, true);
	if (err)
		return err;
	bench_add(&st->counts.bytes, f->pages << PAGE_SHIFT);
	bench_add(&e->raw, f->in[WIRE_ENC_RAW]);
	bench_add(&e->in, f->in[WIRE_ENC_ZSTD]);
	passed = clock_ns() - start;
	cpu = clock_of(CLOCK_THREAD_CPUTIME_ID) - cpu;
	bench_add(&e->sending_ns, passed);
	bench_add(&e->blocked_ns, passed > cpu ? passed - cpu : 0);
	return 0;
}

static int send_encoded(struct bench_stream *st, struct encoded *x)
{
	struct bench_encode *e = st->encode;
	uint32_t pages = (uint32_t)(st->bench->run.size >> PAGE_SHIFT), at = 0;
	int err = 0;

	for (uint32_t first = 0; !err && first < CHUNK_PAGES; first += pages) {
		struct plan_cursor cursor = { 0 };

		cut_message(&x->plan, &at, first, pages, &e->message);
		while (!err && plan_next_frame(&e->message, &cursor, CHUNK_BYTES, &e->frame))
			err = send_frame(st);
	}
	encode_pool_give_back(e->pool, x);
	return err;
}

/* What encoders have ready, all there is. */
static int send_ready(struct bench_stream *st)
{
	struct encoded *x;
	int err = 0;

	while (!err && encode_pool_take(st->encode->pool, &x))
		err = send_encoded(st, x);
	return err;
}

static uint64_t part_max(struct bench *b)
{
	uint64_t rate = load(&b->compress.epochs.link_rate), limit = token_bucket_rate(&b->bucket);
	uint64_t part;

	if (limit && (!rate || limit < rate))
		rate = limit;
	part = rate / PARTS_PER_SECOND;
	if (!rate || part > CHUNK_BYTES)
		return CHUNK_BYTES;
	return part < PART_MIN ? PART_MIN : part;
}

/* The stream's own chunk, in its plan. */
static bool take_chunk(struct bench_stream *st)
{
	bool found = next_plan(st, &st->encode->plan, NULL);

	if (!found)
		encode_pool_exhausted(st->encode->pool);
	return found;
}

static int send_raw_chunk(struct bench_stream *st)
{
	struct bench_encode *e = st->encode;
	uint32_t pages = (uint32_t)(st->bench->run.size >> PAGE_SHIFT), at = 0;
	uint64_t most = part_max(st->bench), since = 0;
	int err = 0;

	for (uint32_t first = 0; !err && first < CHUNK_PAGES; first += pages) {
		struct plan_cursor cursor = { 0 };

		cut_message(&e->plan, &at, first, pages, &e->raw_message);
		while (!err && plan_next_frame(&e->raw_message, &cursor, most, &e->frame)) {
			since += e->frame.payload;
			err = send_frame(st);
			if (!err && since >= most) {
				err = send_ready(st);
				since = 0;
			}
		}
	}
	return err;
}

static int send_lap(struct bench_stream *st)
{
	struct bench_encode *e = st->encode;
	int err = 0;

	encode_pool_begin_round(e->pool, ++e->lap);
	while (!err) {
		struct encoded *x;

		tick(st->bench);
		if (bench_stopping(st->bench))
			return -ECANCELED;
		switch (err = encode_pool_next(e->pool, 0, &x)) {
		case ENCODE_READY:
			err = send_encoded(st, x);
			break;
		case ENCODE_RAW:
			err = take_chunk(st) ? send_raw_chunk(st) : 0;
			break;
		case ENCODE_LOOK:
			if (take_chunk(st))
				encode_pool_offer(e->pool, 0, &e->plan);
			err = 0;
			break;
		case ENCODE_BACK:
			err = send_raw_chunk(st);
			break;
		case ENCODE_WAIT:
			err = bench_tx_wait(st, WAIT_NS);
			break;
		case ENCODE_END:
			return 0;
		}
	}
	return err;
}

int bench_encode_run(struct bench_stream *st)
{
	const struct ipc_bench *c = &st->bench->s->bench;
	struct bench_encode *e = st->encode;
	bool over = false;
	int err = 0;

	while (!err && !over) {
		uint64_t sent;

		pthread_mutex_lock(&e->lock);
		e->chunk = 0;
		e->over = false;
		pthread_mutex_unlock(&e->lock);
		st->unverified = 0;
		err = send_lap(st);
		pthread_mutex_lock(&e->lock);
		sent = e->chunk;
		over = e->over;
		pthread_mutex_unlock(&e->lock);
		if (!err && sent && (c->verify || c->fresh))
			err = bench_tx_end_lap(st, c->verify ? sent << CHUNK_SHIFT : 0);
	}
	return err;
}

/* --- beginning and end ------------------------------------------------------------------------ */

void bench_compress_init(struct bench *b)
{
	const struct ipc_config *config = &b->s->config;
	uint32_t forward = b->s->bench.forward;
	struct bench_compress *c = &b->compress;
	unsigned int workers;

	if (config->compress == IPC_COMPRESS_OFF)
		return;
	c->senders = config->role == IPC_ROLE_BENCH_SOURCE ? forward : config->streams - forward;
	if (!c->senders)
		return;
	workers = encode_pool_workers(b->s->bench.memory);
	c->workers = workers > c->senders ? workers / c->senders : 1;
	if (config->compress == IPC_COMPRESS_ZSTD)
		c->epochs.fixed_level = (int)config->level;
	c->uptime_fd = compress_counters_open();
}

void bench_compress_release(struct bench *b)
{
	fd_close(&b->compress.uptime_fd);
}

int bench_encode_init(struct bench_stream *st)
{
	const struct encode_source source = {
		.next = next_plan, .wake = wake, .arg = st, .scratch_size = PAGE_BYTES
	};
	const struct bench_compress *c = &st->bench->compress;
	struct bench_encode *e;

	if (!c->senders)
		return 0;
	e = st->encode = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	pthread_mutex_init(&e->lock, NULL);
	return encode_pool_new(&e->pool, &source, &st->region, 1, 1, c->workers, NULL);
}

void bench_encode_release(struct bench_stream *st)
{
	if (!st->encode)
		return;
	encode_pool_free(st->encode->pool);
	pthread_mutex_destroy(&st->encode->lock);
	free(st->encode);
	st->encode = NULL;
}

int bench_encode_start(struct bench_stream *st)
{
	return st->encode ? encode_pool_start(st->encode->pool) : 0;
}

void bench_encode_stop(struct bench_stream *st)
{
	if (st->encode)
		encode_pool_stop(st->encode->pool);
}

uint64_t bench_encode_cpu_ns(struct bench_stream *st)
{
	struct encode_totals t;

	if (!st->encode)
		return 0;
	encode_pool_totals(st->encode->pool, &t);
	return t.cpu_ns;
}
