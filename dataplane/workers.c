// SPDX-License-Identifier: MIT
/* Threads for one job at a time; see workers.h. All fields but threads[] are under lock. */
#include "dataplane/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/base/cleanup.h"
#include "lib/base/thread.h"

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t posted, finished;
	void (*fn)(void *arg, unsigned int i); /* NULL: end */
	void *arg;
	uint64_t sequence;  /* of jobs */
	unsigned int busy;  /* threads at the present job */
	unsigned int made;  /* threads that exist */
	unsigned int count; /* threads wanted besides the caller */
	struct worker {
		struct workers *all;
		unsigned int index;
		pthread_t thread;
	} threads[];
};

static void *worker_main(void *arg)
{
	struct worker *self = arg;
	struct workers *w = self->all;
	uint64_t done = 0;

	thread_name("worker", self->index);
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (w->sequence == done)
			pthread_cond_wait(&w->posted, &w->lock);
		done = w->sequence;
		if (!w->fn)
			break;
		pthread_mutex_unlock(&w->lock);
		w->fn(w->arg, self->index);
		pthread_mutex_lock(&w->lock);
		if (--w->busy == 0)
			pthread_cond_signal(&w->finished);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void post(struct workers *w, void (*fn)(void *arg, unsigned int i), void *arg)
{
	SCOPED_LOCK(&w->lock);
	w->fn = fn;
	w->arg = arg;
	w->busy = w->made;
	w->sequence++;
	pthread_cond_broadcast(&w->posted);
}

static void make_threads(struct workers *w)
{
	while (w->made < w->count) {
		struct worker *t = &w->threads[w->made];

		t->all = w;
		t->index = w->made + 1;
		if (pthread_create(&t->thread, NULL, worker_main, t)) {
			w->count = w->made; /* fewer threads are slower and no worse */
			return;
		}
		w->made++;
	}
}

void workers_run(struct workers *w, void (*fn)(void *arg, unsigned int i), void *arg)
{
	make_threads(w);
	post(w, fn, arg);
	fn(arg, 0);
	pthread_mutex_lock(&w->lock);
	while (w->busy)
		pthread_cond_wait(&w->finished, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

int workers_new(struct workers **out, unsigned int count)
{
	struct workers *w;

	if (!count)
		return -EINVAL;
	w = calloc(1, sizeof(*w) + (count - 1) * sizeof(w->threads[0]));
	if (!w)
		return -ENOMEM;
	w->count = count - 1;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->posted, NULL);
	pthread_cond_init(&w->finished, NULL);
	*out = w;
	return 0;
}

void workers_free(struct workers *w)
{
	if (!w)
		return;
	post(w, NULL, NULL);
	for (unsigned int i = 0; i < w->made; i++)
		pthread_join(w->threads[i].thread, NULL);
	pthread_cond_destroy(&w->posted);
	pthread_cond_destroy(&w->finished);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
