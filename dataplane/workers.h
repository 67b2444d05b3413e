/* SPDX-License-Identifier: MIT */
/* A few threads that sleep until they are given one job, together with the caller. */
#ifndef TRANSHIP_DATAPLANE_WORKERS_H
#define TRANSHIP_DATAPLANE_WORKERS_H

struct workers;

/*
 * For jobs on up to count threads, the caller's among them. No thread is made before the first
 * workers_run(): a process may confine itself in between. -ENOMEM.
 */
int workers_new(struct workers **out, unsigned int count);
/* NULL is allowed. Not during workers_run(). */
void workers_free(struct workers *w);

/*
 * Calls fn(arg, i) once for each i below the number of threads there are, which is at least 1 and
 * at most count, i = 0 on the calling thread; returns when all have returned. What the caller wrote
 * before is seen by fn, and what fn wrote by the caller after. One call at a time.
 */
void workers_run(struct workers *w, void (*fn)(void *arg, unsigned int i), void *arg);

#endif
