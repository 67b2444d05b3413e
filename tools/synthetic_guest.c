// SPDX-License-Identifier: MIT
/* The synthetic guest's writers, its gate and its beat; see synthetic_guest.h. */
#include "tools/synthetic_guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define BEAT_NS NSEC_PER_MSEC
/* A writer that was held up catches up with this much, not more: a guest does not make up for lost
 * time either, and a burst would look like a higher rate. */
#define BACKLOG_NS  (10 * NSEC_PER_MSEC)
#define NAP_NS	    NSEC_PER_MSEC
#define BURST_PAGES 256 /* pages between two looks at the rate; 0.1 ms of work */
/* A page that took longer is looked at more closely: was it the scheduler? */
#define LONG_NS 200000

static bool params_valid(const struct synthetic_params *p, uint64_t pages)
{
	return pages && p->touched <= pages && p->working_set <= p->touched && p->threads &&
	       p->threads <= SYNTHETIC_THREADS_MAX && p->pattern < SYNTHETIC_PATTERNS &&
	       p->kinds.zero_percent <= 100 && p->kinds.compressible_percent <= 100 &&
	       p->kinds.zero_percent + p->kinds.compressible_percent <= 100;
}

static void place_writers(struct synthetic *g)
{
	for (uint32_t i = 0; i < g->p.threads; i++) {
		struct synthetic_writer *w = &g->writers[i];
		uint64_t first = g->p.working_set * i / g->p.threads;
		uint64_t last = g->p.working_set * (i + 1) / g->p.threads;

		w->g = g;
		w->first = first;
		synthetic_walk_init(&w->walk, g->p.pattern, last - first,
				    synthetic_mix(g->p.kinds.seed + i));
	}
}

int synthetic_init(struct synthetic *g, const struct synthetic_params *p, uint64_t *ram,
		   uint64_t pages, int ram_fd, uint32_t reasons)
{
	if (!params_valid(p, pages))
		return -EINVAL;
	memset(g, 0, sizeof(*g));
	g->versions = calloc(p->working_set + 1, sizeof(*g->versions));
	if (!g->versions)
		return -ENOMEM;
	g->p = *p;
	g->ram = ram;
	g->pages = pages;
	g->ram_fd = ram_fd;
	g->beat_log = -1;
	pthread_mutex_init(&g->gate.mutex, NULL);
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->gate.changed, NULL);
	g->gate.reasons = reasons;
	g->stopped_ns = clock_ns();
	place_writers(g);
	return 0;
}

/* ---- the gate ---------------------------------------------------------------------------- */

/* Waits until the guest runs; false when its threads are to end. */
static bool gate_enter(struct synthetic_gate *gate)
{
	SCOPED_LOCK(&gate->mutex);

	while (gate->reasons && !gate->ending)
		pthread_cond_wait(&gate->changed, &gate->mutex);
	if (gate->ending)
		return false;
	gate->inside++;
	return true;
}

static void gate_leave(struct synthetic_gate *gate)
{
	SCOPED_LOCK(&gate->mutex);

	if (!--gate->inside)
		pthread_cond_broadcast(&gate->changed);
}

void synthetic_pause(struct synthetic *g, uint32_t reason)
{
	SCOPED_LOCK(&g->gate.mutex);

	if (!g->gate.reasons)
		g->stopped_ns = clock_ns();
	g->gate.reasons |= reason;
	while (g->gate.inside)
		pthread_cond_wait(&g->gate.changed, &g->gate.mutex);
}

void synthetic_resume(struct synthetic *g, uint32_t reason)
{
	SCOPED_LOCK(&g->gate.mutex);

	if (!(g->gate.reasons & reason))
		return;
	g->gate.reasons &= ~reason;
	if (!g->gate.reasons) {
		g->paused_ns += clock_ns() - g->stopped_ns;
		pthread_cond_broadcast(&g->gate.changed);
	}
}

/* ---- writers ----------------------------------------------------------------------------- */

static long preemptions(void)
{
	struct rusage u;

	return getrusage(RUSAGE_THREAD, &u) ? 0 : u.ru_nivcsw;
}

static void keep_longest(_Atomic uint64_t *longest, uint64_t ns)
{
	if (ns > atomic_load_explicit(longest, memory_order_relaxed))
		atomic_store_explicit(longest, ns, memory_order_relaxed);
}

/* Writes until the rate is met, the burst is over or the gate closes; *due: of the next page. */
static void write_burst(struct synthetic_writer *w, uint64_t *due, uint64_t interval_ns)
{
	struct synthetic *g = w->g;
	uint64_t before = clock_ns(), written = 0;
	long switched = preemptions();

	for (; written < BURST_PAGES && *due <= before; written++, *due += interval_ns) {
		uint64_t page, after;
		uint32_t version;

		if (atomic_load_explicit(&g->gate.reasons, memory_order_relaxed))
			break;
		page = w->first + synthetic_walk_next(&w->walk);
		version = g->versions[page] + 1;
		version += !version; /* never 0 again, not even after 2^32 writes */
		synthetic_page_write(g->ram + page * SYNTHETIC_WORDS, &g->p.kinds, page, version);
		g->versions[page] = version;
		after = clock_ns();
		if (after - before > LONG_NS) {
			long now = preemptions();

			keep_longest(now != switched ? &w->preempted_ns : &w->stall_ns,
				     after - before);
			switched = now;
		} else {
			keep_longest(&w->stall_ns, after - before);
		}
		before = after;
	}
	atomic_fetch_add_explicit(&w->written, written, memory_order_relaxed);
}

static void *writer_thread(void *arg)
{
	struct synthetic_writer *w = arg;
	struct synthetic *g = w->g;
	uint64_t interval = 0, due = clock_ns(), now;

	if (g->p.rate != SYNTHETIC_RATE_MAX)
		interval =
			(uint64_t)((double)SYNTHETIC_PAGE * g->p.threads * 1e9 / (double)g->p.rate);
	while (gate_enter(&g->gate)) {
		now = clock_ns();
		if (due + BACKLOG_NS < now)
			due = now - BACKLOG_NS;
		write_burst(w, &due, interval);
		gate_leave(&g->gate);
		now = clock_ns();
		if (due > now) {
			uint64_t wait = due - now > NAP_NS ? due - now : NAP_NS;
			struct timespec t = { (time_t)(wait / NSEC_PER_SEC),
					      (long)(wait % NSEC_PER_SEC) };

			nanosleep(&t, NULL);
		}
	}
	return NULL;
}

/* ---- the beat ---------------------------------------------------------------------------- */

static void beat(struct synthetic *g)
{
	uint64_t now = clock_ns(), last = g->last_beat_ns;
	char line[64];
	int n;

	if (g->source_beat_ns && !g->arrival_gap_ns)
		g->arrival_gap_ns = now - g->source_beat_ns;
	if (last)
		keep_longest(&g->longest_gap_ns, now - last);
	g->last_beat_ns = now;
	g->beats++;
	if (g->beat_log < 0)
		return;
	n = snprintf(line, sizeof(line), "%llu %llu\n", (unsigned long long)g->beats,
		     (unsigned long long)now);
	if (write(g->beat_log, line, (size_t)n) != n)
		g->beat_log = -1; /* a full disk is not the guest's end */
}

static void *beat_thread(void *arg)
{
	static const struct timespec pace = { .tv_nsec = BEAT_NS };
	struct synthetic *g = arg;

	while (gate_enter(&g->gate)) {
		beat(g);
		gate_leave(&g->gate);
		nanosleep(&pace, NULL);
	}
	return NULL;
}

/* ---- life -------------------------------------------------------------------------------- */

static void end_threads(struct synthetic *g)
{
	pthread_mutex_lock(&g->gate.mutex);
	g->gate.ending = true;
	pthread_cond_broadcast(&g->gate.changed);
	pthread_mutex_unlock(&g->gate.mutex);
	for (uint32_t i = 0; i < g->running_writers; i++)
		pthread_join(g->writers[i].thread, NULL);
	if (g->has_beat)
		pthread_join(g->beat_thread, NULL);
	g->running_writers = 0;
	g->has_beat = false;
	g->gate.ending = false;
}

int synthetic_start_threads(struct synthetic *g)
{
	bool writes = g->p.rate && g->p.working_set >= g->p.threads;
	int err = 0;

	end_threads(g);
	for (uint32_t i = 0; writes && !err && i < g->p.threads; i++) {
		err = -pthread_create(&g->writers[i].thread, NULL, writer_thread, &g->writers[i]);
		g->running_writers += !err;
	}
	if (!err)
		err = -pthread_create(&g->beat_thread, NULL, beat_thread, g);
	g->has_beat = !err;
	if (err)
		end_threads(g);
	return err;
}

void synthetic_release(struct synthetic *g)
{
	end_threads(g);
	pthread_cond_destroy(&g->gate.changed);
	pthread_mutex_destroy(&g->gate.mutex);
	pthread_mutex_destroy(&g->lock);
	free(g->versions);
	g->versions = NULL;
}

uint64_t synthetic_written(const struct synthetic *g)
{
	uint64_t pages = g->written_before;

	for (uint32_t i = 0; i < g->p.threads; i++)
		pages += atomic_load_explicit(&g->writers[i].written, memory_order_relaxed);
	return pages;
}

int synthetic_adopt(struct synthetic *g, const struct synthetic_params *p, uint32_t *versions,
		    const uint64_t *walks)
{
	if (!params_valid(p, g->pages))
		return -EBADMSG;
	end_threads(g);
	free(g->versions);
	g->versions = versions;
	g->p = *p;
	memset(g->writers, 0, sizeof(g->writers));
	place_writers(g);
	for (uint32_t i = 0; i < p->threads; i++)
		g->writers[i].walk.state = walks[i];
	return synthetic_start_threads(g);
}
