// SPDX-License-Identifier: MIT
/* A run of a bench as the main thread sees it: its beginning, its intervals, its figures. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "dataplane/bench/bench.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

void bench_stream_done(struct bench_stream *st)
{
	__atomic_store_n(&st->done_ns, clock_ns(), __ATOMIC_RELAXED);
	__atomic_store_n(&st->run_done, st->run_seen, __ATOMIC_RELEASE);
	bench_notify(st->bench);
}

/* --- figures ---------------------------------------------------------------------------------- */

static uint64_t cpu_of(struct bench_stream *st)
{
	SCOPED_LOCK(&st->bench->lock);
	if (st->ended || !st->started)
		return st->cpu_ns;
	return clock_of(st->cpu_clock) - st->cpu_from;
}

static uint64_t retransmits_of(const struct bench_stream *st)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	/* not TCP in some tests */
	if (getsockopt(st->fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return 0;
	return info.tcpi_total_retrans;
}

/* What all streams have done since they came; ns is now. */
static void take_base(struct bench *b, struct bench_base *out)
{
	uint64_t now = clock_ns();

	*out = (struct bench_base){ .tx.ns = now, .rx.ns = now };
	for (uint32_t i = 0; i < b->s->config.streams; i++) {
		struct bench_stream *st = &b->streams[i];
		struct ipc_bench_figures *f = st->sends ? &out->tx : &out->rx;
		const struct bench_counts *c = &st->counts;

		f->bytes += __atomic_load_n(&c->bytes, __ATOMIC_RELAXED);
		f->wire_bytes += __atomic_load_n(&c->wire_bytes, __ATOMIC_RELAXED);
		f->zero_copy_bytes += __atomic_load_n(&c->zero_copy_bytes, __ATOMIC_RELAXED);
		f->cpu_ns += cpu_of(st) - __atomic_load_n(&c->aside_ns, __ATOMIC_RELAXED);
		if (st->sends) {
			f->cpu_ns += bench_encode_cpu_ns(st);
			f->retransmits += retransmits_of(st);
		}
		out->verified += __atomic_load_n(&st->verified, __ATOMIC_RELAXED);
		out->mismatches += __atomic_load_n(&st->mismatches, __ATOMIC_RELAXED);
	}
}

static struct ipc_bench_figures difference(const struct ipc_bench_figures *to,
					   const struct ipc_bench_figures *from)
{
	return (struct ipc_bench_figures){
		.ns = to->ns > from->ns ? to->ns - from->ns : 0,
		.bytes = to->bytes - from->bytes,
		.wire_bytes = to->wire_bytes - from->wire_bytes,
		.zero_copy_bytes = to->zero_copy_bytes - from->zero_copy_bytes,
		.cpu_ns = to->cpu_ns > from->cpu_ns ? to->cpu_ns - from->cpu_ns : 0,
		.retransmits = to->retransmits - from->retransmits,
	};
}

/* --- intervals -------------------------------------------------------------------------------- */

static int tell_interval(struct bench_measure *m, const struct bench_base *now)
{
	struct ipc_bench_interval out = { .number = m->bench->run.number, .index = m->interval++ };

	out.start_ns = m->interval_base.tx.ns - m->base.tx.ns;
	out.end_ns = now->tx.ns - m->base.tx.ns;
	out.tx = difference(&now->tx, &m->interval_base.tx);
	out.rx = difference(&now->rx, &m->interval_base.rx);
	m->interval_base = *now;
	return ipc_send(m->bench->s->sock, IPC_BENCH_INTERVAL, &out, -1);
}

static int end_interval(struct bench_measure *m)
{
	struct bench_base now;

	take_base(m->bench, &now);
	while (m->interval_at_ns <= now.tx.ns)
		m->interval_at_ns += m->bench->run.interval_ns;
	return tell_interval(m, &now);
}

/*
 * What is left of a run after its last whole interval, when it is more of one than not: the sides
 * come to an end a little before and a little after that interval would.
 */
static int end_last_interval(struct bench_measure *m, const struct bench_base *now)
{
	uint64_t from = m->interval_base.tx.ns;

	if (!m->counting || !m->bench->run.interval_ns || now->tx.ns <= from ||
	    now->tx.ns - from < m->bench->run.interval_ns / 2)
		return 0;
	return tell_interval(m, now);
}

/* --- the end ---------------------------------------------------------------------------------- */

static bool all_done(const struct bench *b)
{
	for (uint32_t i = 0; i < b->s->config.streams; i++)
		if (__atomic_load_n(&b->streams[i].run_done, __ATOMIC_ACQUIRE) != b->run.number)
			return false;
	return true;
}

/* When the last stream of a direction was done. */
static uint64_t last_done(const struct bench *b, bool sends)
{
	uint64_t last = 0;

	for (uint32_t i = 0; i < b->s->config.streams; i++) {
		uint64_t done = __atomic_load_n(&b->streams[i].done_ns, __ATOMIC_RELAXED);

		if (b->streams[i].sends == sends && done > last)
			last = done;
	}
	return last;
}

static void summarize_latency(struct bench *b, struct ipc_bench_latency *out)
{
	struct bench_histogram *h = b->latency;

	bench_histogram_clear(h);
	for (uint32_t i = 0; i < b->s->config.streams; i++)
		if (b->streams[i].sends)
			bench_histogram_join(h, b->streams[i].latency);
	*out = (struct ipc_bench_latency){
		.count = h->count,
		.min = h->min,
		.p50 = bench_histogram_quantile(h, 500),
		.p99 = bench_histogram_quantile(h, 990),
		.p99_9 = bench_histogram_quantile(h, 999),
		.max = h->max,
	};
}

static int finish(struct bench_measure *m)
{
	struct bench *b = m->bench;
	struct ipc_bench_done done = { .number = b->run.number };
	struct bench_base now;
	int err;

	take_base(b, &now);
	err = end_last_interval(m, &now);
	if (err)
		return err;
	now.tx.ns = last_done(b, true);
	now.rx.ns = last_done(b, false);
	if (m->counting) {
		done.tx = difference(&now.tx, &m->base.tx);
		done.rx = difference(&now.rx, &m->base.rx);
	}
	/* all of it, whatever was omitted: it must be right at any time */
	done.verified = now.verified - m->last.verified;
	done.mismatches = now.mismatches - m->last.mismatches;
	m->last = now;
	if (b->run.flags & IPC_BENCH_LATENCY)
		summarize_latency(b, &done.latency);
	m->running = false;
	return ipc_send(b->s->sock, IPC_BENCH_DONE, &done, -1);
}

/* --- meanwhile -------------------------------------------------------------------------------- */

static void begin_counting(struct bench_measure *m)
{
	m->counting = true;
	if (m->bench->run.omit_ns)
		take_base(m->bench, &m->base);
	else
		m->base = m->last;
	m->base.tx.ns = m->base.rx.ns = clock_ns();
	m->interval_base = m->base;
	m->interval = 0;
	m->interval_at_ns =
		m->bench->run.interval_ns ? m->base.tx.ns + m->bench->run.interval_ns : 0;
}

int bench_measure_begin(struct bench_measure *m, const struct ipc_bench_run *run, struct failure *f)
{
	struct bench *b = m->bench;
	uint64_t now = clock_ns();

	if (m->running || run->number != b->run_number + 1 || run->size > CHUNK_BYTES ||
	    run->size % PAGE_BYTES || run->size & (run->size - 1) ||
	    (!run->size && !(run->flags & IPC_BENCH_LATENCY)) || run->bytes > INT64_MAX)
		return failure_set(f, -EINVAL, "internal", NULL,
				   "the bench was given a run that makes no sense");
	b->run = *run;
	b->run_from_ns = now + run->omit_ns;
	b->run_until_ns = run->time_ns ? b->run_from_ns + run->time_ns : 0;
	b->budget = (int64_t)run->bytes;
	__atomic_store_n(&b->run_stop, false, __ATOMIC_RELAXED);
	token_bucket_set_rate(&b->bucket, run->rate_limit, now);
	bench_compress_begin(b, run->rate_limit);
	m->running = true;
	m->counting = false;
	if (!run->omit_ns)
		begin_counting(m);
	__atomic_store_n(&b->run_number, run->number, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < b->s->config.streams; i++)
		bench_wake(&b->streams[i]);
	return 0;
}

int bench_measure_go_on(struct bench_measure *m)
{
	uint64_t now = clock_ns();

	if (!m->running)
		return 0;
	if (all_done(m->bench))
		return finish(m);
	if (!m->counting && now >= m->bench->run_from_ns)
		begin_counting(m);
	if (m->counting && m->interval_at_ns && now >= m->interval_at_ns)
		return end_interval(m);
	return 0;
}

int bench_measure_timeout(const struct bench_measure *m)
{
	uint64_t now = clock_ns(), at = m->counting ? m->interval_at_ns : m->bench->run_from_ns;

	if (!m->running || !at)
		return -1;
	return at <= now ? 0 : (int)((at - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}
