// SPDX-License-Identifier: MIT
/* Threads that compress chunks, and their queue; see encode_pool.h. */
#include "dataplane/codec/encode_pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/thread.h"

/* An encoder at work, one result ready, and contexts: what an encoder adds to the process. */
#define WORKER_BYTES (5ull << 20)
/* Of the process's limit of 64 MiB and 0.1 % of RAM. */
#define POOL_BYTES(ram) ((28ull << 20) + (ram) / 2048)

/* A weight of 110 against 1024: a tenth of a processor that others want too. */
#define NICE 10

struct worker {
	struct encode_pool *pool;
	unsigned int index;
	pthread_t thread;
	bool made;
	struct encoder encoder;
	struct chunk_plan plan;
	uint8_t *scratch;
};

struct encode_pool {
	struct encode_source source;
	const struct region *regions;
	uint64_t *first_chunk;	      /* one a region; owned */
	struct encode_memory *memory; /* one a chunk; owned */
	struct delta_cache *cache;
	uint32_t streams;
	unsigned int nworkers, nbuffers;
	struct worker *workers;
	struct encoded *buffers;
	bool stop; /* atomic as well as under lock */

	pthread_mutex_t lock;	/* what follows */
	pthread_cond_t changed; /* for encoders: something to do, or the end */
	struct encode_mode mode;
	uint32_t round; /* 0: none begun */
	bool exhausted; /* the cursor has come to its end */
	bool empty;	/* the chunk seen last had no data */
	unsigned int working;
	int error;
	struct encoded *free, *ready, **ready_end;
	const struct chunk_plan **offered; /* one a stream; owned */
	uint64_t offers, lent;		   /* a bit a stream: nobody has it yet; an encoder has */
	uint64_t waiting;		   /* a bit a stream */
	struct encode_totals totals;
};

unsigned int encode_pool_workers(uint64_t ram_bytes)
{
	uint64_t most = POOL_BYTES(ram_bytes) / WORKER_BYTES;
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : CPU_COUNT(&cpus);

	if (n < 3)
		return 1;
	return (uint64_t)n - 1 < most ? (unsigned int)n - 1 : (unsigned int)most;
}

/* --- waiting and waking; the lock is held ----------------------------------------------------- */

static void wake_stream(struct encode_pool *p, uint32_t stream)
{
	if (!(p->waiting & 1ull << stream))
		return;
	p->waiting &= ~(1ull << stream);
	p->source.wake(p->source.arg, stream);
}

static void wake_one(struct encode_pool *p)
{
	if (p->waiting)
		wake_stream(p, (uint32_t)__builtin_ctzll(p->waiting));
}

static void wake_all(struct encode_pool *p)
{
	while (p->waiting)
		wake_one(p);
}

static bool at_end(const struct encode_pool *p)
{
	return p->exhausted && !p->offers && !p->working && !p->ready;
}

static bool only(const struct encode_pool *p)
{
	return p->mode.on && p->mode.only;
}

static void push_ready(struct encode_pool *p, struct encoded *e)
{
	e->next = NULL;
	*p->ready_end = e;
	p->ready_end = &e->next;
}

static struct encoded *pop_ready(struct encode_pool *p)
{
	struct encoded *e = p->ready;

	p->ready = e->next;
	if (!p->ready)
		p->ready_end = &p->ready;
	return e;
}

static void push_free(struct encode_pool *p, struct encoded *e)
{
	e->next = p->free;
	p->free = e;
}

/* --- encoders --------------------------------------------------------------------------------- */

/* What an encoder was given to do. */
struct work {
	struct encode_how how;
	struct encoded *result;
	int stream; /* whose offer it is; -1: the cursor is to be asked */
};

static bool something_to_do(const struct encode_pool *p)
{
	return p->mode.on && p->round && !p->error && (p->offers || !p->exhausted);
}

/* Waits until there is a chunk to ask for and a buffer for it. False: the end. */
static bool begin_work(struct encode_pool *p, struct work *w)
{
	while (!p->stop) {
		bool wanted = something_to_do(p);
		uint64_t start;

		if (wanted && p->free)
			break;
		start = clock_ns();
		pthread_cond_wait(&p->changed, &p->lock);
		if (wanted)
			p->totals.waited_ns += clock_ns() - start;
	}
	if (p->stop)
		return false;
	w->result = p->free;
	p->free = w->result->next;
	p->working++;
	w->how = (struct encode_how){
		.level = p->mode.level, .cache = p->cache, .round = p->round, .stop = &p->stop
	};
	w->stream = p->offers ? __builtin_ctzll(p->offers) : -1;
	if (w->stream >= 0) {
		p->offers &= ~(1ull << w->stream);
		p->lent |= 1ull << w->stream;
	}
	return true;
}

static void add_totals(struct encode_pool *p, const struct encode_result *r, uint64_t cpu_ns)
{
	struct encode_result *sum = &p->totals.sum;

	sum->data += r->data;
	sum->tried += r->tried;
	sum->zstd_in += r->zstd_in;
	sum->zstd_out += r->zstd_out;
	sum->delta_in += r->delta_in;
	sum->delta_out += r->delta_out;
	p->totals.cpu_ns += cpu_ns;
}

/* found: 1: the result is ready; 0: the cursor had nothing; or the error. */
static void end_work(struct encode_pool *p, const struct work *w, int found)
{
	struct encoded *e = w->result;

	p->working--;
	if (w->stream >= 0) {
		p->lent &= ~(1ull << w->stream);
		wake_stream(p, (uint32_t)w->stream);
	}
	if (found > 0 && e->plan.count + e->plan.same) {
		push_ready(p, e);
	} else {
		push_free(p, e);
		if (!found)
			p->exhausted = true;
		if (found < 0 && !p->error)
			p->error = found;
	}
	if (p->error || at_end(p) || (p->empty && only(p)))
		wake_all(p);
	else if (p->ready)
		wake_one(p);
}

static struct encode_memory *memory_of(struct encode_pool *p, const struct chunk_plan *plan)
{
	return &p->memory[p->first_chunk[plan->region->index] + plan->first_page / CHUNK_PAGES];
}

/* As the return value of next() in struct encode_source. */
static int encode_chunk(struct worker *w, const struct work *todo, struct encode_result *r)
{
	struct encode_pool *p = w->pool;
	const struct chunk_plan *plan = &w->plan;
	struct encode_memory none = { 0 };
	int err;

	if (todo->stream >= 0) {
		plan = p->offered[todo->stream];
	} else {
		int found = p->source.next(p->source.arg, &w->plan, w->scratch);

		if (found <= 0)
			return found;
	}
	err = encoder_run(&w->encoder, &todo->how, p->source.once ? &none : memory_of(p, plan),
			  plan, &todo->result->plan, todo->result->buffer, r);
	return err ? err : 1;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct encode_pool *p = w->pool;
	struct work todo;

	thread_name("encode", w->index);
	if (setpriority(PRIO_PROCESS, 0, NICE)) /* on Linux: of this thread */
		log_debug("encoders run at the priority of all: %m");
	pthread_mutex_lock(&p->lock);
	while (begin_work(p, &todo)) {
		struct encode_result r = { 0 };
		uint64_t start;
		int found;

		pthread_mutex_unlock(&p->lock);
		start = clock_of(CLOCK_THREAD_CPUTIME_ID);
		found = encode_chunk(w, &todo, &r);
		start = clock_of(CLOCK_THREAD_CPUTIME_ID) - start;
		pthread_mutex_lock(&p->lock);
		p->empty = !r.data;
		add_totals(p, &r, start);
		end_work(p, &todo, found);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* --- streams ---------------------------------------------------------------------------------- */

static bool take_ready(struct encode_pool *p, struct encoded **e)
{
	if (!p->ready)
		return false;
	*e = pop_ready(p);
	if (at_end(p))
		wake_all(p); /* nothing will come that could wake them */
	return true;
}

bool encode_pool_take(struct encode_pool *p, struct encoded **e)
{
	SCOPED_LOCK(&p->lock);

	return take_ready(p, e);
}

int encode_pool_next(struct encode_pool *p, uint32_t stream, struct encoded **e)
{
	uint64_t own = 1ull << stream;

	SCOPED_LOCK(&p->lock);

	if (p->error)
		return p->error;
	if (take_ready(p, e))
		return ENCODE_READY;
	if ((p->offers & own) && !p->mode.on) {
		p->offers &= ~own;
		return ENCODE_BACK;
	}
	if (!((p->offers | p->lent) & own)) {
		if (!p->exhausted && !only(p))
			return ENCODE_RAW;
		if (!p->exhausted && p->empty)
			return ENCODE_LOOK;
		if (at_end(p))
			return ENCODE_END;
	}
	p->waiting |= own;
	return ENCODE_WAIT;
}

void encode_pool_offer(struct encode_pool *p, uint32_t stream, const struct chunk_plan *plan)
{
	SCOPED_LOCK(&p->lock);

	p->offered[stream] = plan;
	p->offers |= 1ull << stream;
	p->empty = false;
	pthread_cond_signal(&p->changed);
}

void encode_pool_give_back(struct encode_pool *p, struct encoded *e)
{
	SCOPED_LOCK(&p->lock);

	push_free(p, e);
	pthread_cond_signal(&p->changed);
}

void encode_pool_exhausted(struct encode_pool *p)
{
	SCOPED_LOCK(&p->lock);

	p->exhausted = true;
	if (at_end(p))
		wake_all(p);
}

/* --- the main thread -------------------------------------------------------------------------- */

void encode_pool_begin_round(struct encode_pool *p, uint32_t round)
{
	SCOPED_LOCK(&p->lock);

	p->round = round;
	p->exhausted = false;
	p->empty = true;
	if (p->mode.on)
		pthread_cond_broadcast(&p->changed);
}

void encode_pool_set(struct encode_pool *p, const struct encode_mode *mode)
{
	SCOPED_LOCK(&p->lock);

	p->mode = *mode;
	if (mode->on)
		pthread_cond_broadcast(&p->changed);
	if (!mode->on || !mode->only)
		wake_all(p); /* they may take chunks themselves now */
}

void encode_pool_totals(struct encode_pool *p, struct encode_totals *t)
{
	SCOPED_LOCK(&p->lock);

	*t = p->totals;
}

static int worker_init(struct encode_pool *p, unsigned int i)
{
	struct worker *w = &p->workers[i];

	w->pool = p;
	w->index = i;
	w->scratch = aligned_alloc(PAGE_BYTES, p->source.scratch_size);
	return w->scratch ? encoder_init(&w->encoder) : -ENOMEM;
}

static int make_buffers(struct encode_pool *p)
{
	p->buffers = calloc(p->nbuffers, sizeof(*p->buffers));
	for (unsigned int i = 0; p->buffers && i < p->nbuffers; i++) {
		void *memory = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (memory == MAP_FAILED)
			return -ENOMEM;
		p->buffers[i].buffer = memory;
		push_free(p, &p->buffers[i]);
	}
	return p->buffers ? 0 : -ENOMEM;
}

static int number_chunks(struct encode_pool *p, uint32_t nregions)
{
	uint64_t chunks = 0;

	p->first_chunk = calloc(nregions + 1ul, sizeof(*p->first_chunk));
	for (uint32_t i = 0; p->first_chunk && i < nregions; i++) {
		p->first_chunk[i] = chunks;
		chunks += region_chunks(&p->regions[i]);
	}
	p->memory = calloc(chunks + 1, sizeof(*p->memory));
	return p->first_chunk && p->memory ? 0 : -ENOMEM;
}

int encode_pool_new(struct encode_pool **out, const struct encode_source *source,
		    const struct region *regions, uint32_t nregions, uint32_t streams,
		    unsigned int workers, struct delta_cache *cache)
{
	struct encode_pool *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->source = *source;
	p->regions = regions;
	p->cache = cache;
	p->streams = streams;
	p->nworkers = workers;
	/* one in the hands of each encoder and stream, and as many ready as there are encoders */
	p->nbuffers = 2 * workers + (streams < 4 ? streams : 4);
	p->ready_end = &p->ready;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	p->workers = calloc(workers, sizeof(*p->workers));
	p->offered = calloc(streams, sizeof(*p->offered));
	err = p->workers && p->offered ? make_buffers(p) : -ENOMEM;
	if (!err)
		err = number_chunks(p, nregions);
	for (unsigned int i = 0; !err && i < workers; i++)
		err = worker_init(p, i);
	if (err) {
		encode_pool_free(p);
		return err;
	}
	*out = p;
	return 0;
}

int encode_pool_start(struct encode_pool *p)
{
	for (unsigned int i = 0; i < p->nworkers; i++) {
		struct worker *w = &p->workers[i];
		int err = pthread_create(&w->thread, NULL, worker_main, w);

		if (err)
			return -err;
		w->made = true;
	}
	return 0;
}

void encode_pool_stop(struct encode_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	__atomic_store_n(&p->stop, true, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	for (unsigned int i = 0; i < p->nworkers; i++)
		if (p->workers[i].made)
			pthread_join(p->workers[i].thread, NULL);
}

void encode_pool_free(struct encode_pool *p)
{
	if (!p)
		return;
	for (unsigned int i = 0; p->workers && i < p->nworkers; i++) {
		encoder_release(&p->workers[i].encoder);
		free(p->workers[i].scratch);
	}
	for (unsigned int i = 0; p->buffers && i < p->nbuffers; i++)
		if (p->buffers[i].buffer)
			munmap(p->buffers[i].buffer, CHUNK_BYTES);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p->workers);
	free(p->offered);
	free(p->buffers);
	free(p->first_chunk);
	free(p->memory);
	free(p);
}
