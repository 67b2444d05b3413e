/* SPDX-License-Identifier: MIT */
/* Scope-bound release of descriptors, heap memory and locks. Nothing else uses the attribute. */
#ifndef TRANSHIP_BASE_CLEANUP_H
#define TRANSHIP_BASE_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_heap(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_unlock(pthread_mutex_t **lock)
{
	if (*lock)
		pthread_mutex_unlock(*lock);
}

/* An int descriptor, closed when it leaves scope unless it was taken with fd_take(). */
#define AUTO_CLOSE __attribute__((cleanup(cleanup_fd)))
/* A heap pointer, freed when it leaves scope unless it was taken with ptr_take(). */
#define AUTO_FREE __attribute__((cleanup(cleanup_heap)))

#define SCOPED_PASTE2(a, b) a##b
#define SCOPED_PASTE(a, b)  SCOPED_PASTE2(a, b)
/* Holds a mutex to the end of the enclosing scope. */
#define SCOPED_LOCK(mutex)                                                                         \
	pthread_mutex_t *SCOPED_PASTE(scoped_lock_, __LINE__)                                      \
		__attribute__((cleanup(cleanup_unlock), unused)) =                                 \
			(pthread_mutex_lock(mutex), (mutex))

static inline int fd_take(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define ptr_take(pp)                                                                               \
	({                                                                                         \
		__typeof__(*(pp)) taken_ = *(pp);                                                  \
		*(pp) = NULL;                                                                      \
		taken_;                                                                            \
	})

/* Closes and forgets; -1 is allowed. */
static inline void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

#endif
