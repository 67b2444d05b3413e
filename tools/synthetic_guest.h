/* SPDX-License-Identifier: MIT */
/*
 * The synthetic guest: RAM that threads write at a set rate, and a table of what must be in it.
 *
 * Theory of operation
 *   RAM is `pages` pages of which the first `touched` are filled at the start (version 1) and the
 *   first `working_set` rewritten by the writers, each of which owns an equal part of them: a
 *   writer makes a page's next version and then notes it in versions[], so that whenever all
 *   writers stand still the table says exactly what RAM must hold.
 *
 *   They stand still while any reason to pause is set (a move, the user, a check): gate.paused is
 *   looked at before every page, and pause returns when no writer is inside the gate.
 *
 *   The guest's device state is its parameters, each writer's place and the table: a destination
 *   takes all of it from the source, goes on where the source stopped, and can check every page.
 *
 *   A beat thread is part of the guest too: it notes the time (CLOCK_MONOTONIC, one clock for all
 *   processes of a host) once a millisecond while the guest runs. The gap around a move is the
 *   downtime as the guest knows it.
 *
 * Threads: writers and the beat; synthetic_* functions come from libtranship's service thread and
 * from the control thread. lock guards load against check; the gate has its own mutex. lock before
 * gate.mutex.
 */
#ifndef TRANSHIP_TOOLS_SYNTHETIC_GUEST_H
#define TRANSHIP_TOOLS_SYNTHETIC_GUEST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/synthetic_pages.h"
#include "tools/synthetic_pattern.h"

#define SYNTHETIC_THREADS_MAX 64
#define SYNTHETIC_BAD_MAX     16	 /* bad pages that are listed */
#define SYNTHETIC_RATE_MAX    UINT64_MAX /* as fast as they can */

/* Why the guest stands still; several may apply. */
#define SYNTHETIC_PAUSE_MOVE  1u
#define SYNTHETIC_PAUSE_USER  2u
#define SYNTHETIC_PAUSE_CHECK 4u

struct synthetic_params {
	struct synthetic_kinds kinds;
	uint64_t touched;     /* pages */
	uint64_t working_set; /* pages, <= touched */
	uint64_t rate;	      /* bytes a second over all writers; SYNTHETIC_RATE_MAX: no limit */
	uint32_t pattern;     /* enum synthetic_pattern */
	uint32_t threads;     /* writers, 1 .. SYNTHETIC_THREADS_MAX */
};

struct synthetic_gate {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	_Atomic uint32_t reasons; /* changed under mutex; 0: the guest runs */
	uint32_t inside;
	bool ending;
};

struct synthetic;

struct synthetic_writer {
	struct synthetic *g;
	pthread_t thread;
	uint64_t first; /* page of its part */
	struct synthetic_walk walk;
	_Atomic uint64_t written;      /* pages */
	_Atomic uint64_t stall_ns;     /* longest time one page took, while it was not preempted */
	_Atomic uint64_t preempted_ns; /* and while it was: the host's scheduler, not us */
};

struct synthetic {
	struct synthetic_params p;
	uint64_t *ram;
	uint64_t pages;
	int ram_fd;
	uint32_t *versions; /* working_set of them */
	struct synthetic_gate gate;
	struct synthetic_writer writers[SYNTHETIC_THREADS_MAX];
	uint32_t running_writers; /* threads that exist */
	pthread_t beat_thread;
	bool has_beat;
	int beat_log; /* a line a beat: number, nanoseconds; or -1 */
	_Atomic uint64_t beats, last_beat_ns, longest_gap_ns;
	_Atomic uint64_t arrival_gap_ns; /* last beat at the source to first here; 0: none yet */
	uint64_t source_beat_ns;	 /* last beat of the source */
	uint64_t written_before;	 /* pages, by those before this process */
	uint64_t stopped_ns;		 /* when the gate closed last, under gate.mutex */
	uint64_t paused_ns;		 /* time the gate was closed in all, under gate.mutex */
	pthread_mutex_t lock;
};

struct synthetic_bad {
	uint64_t page;
	uint32_t expected, found; /* versions; found 0: unknown */
	int offset;		  /* first byte that differs, in the page */
};

struct synthetic_check {
	uint64_t checked, bad;
	struct synthetic_bad list[SYNTHETIC_BAD_MAX]; /* in order of page */
};

/*
 * Over ram (pages of it, MAP_SHARED of ram_fd), which stays the caller's. The guest stands still
 * for `reasons`. -EINVAL if the parameters do not fit; -ENOMEM.
 */
int synthetic_init(struct synthetic *g, const struct synthetic_params *p, uint64_t *ram,
		   uint64_t pages, int ram_fd, uint32_t reasons);
/* Version 1 everywhere; the guest must stand still. threads: how many fill. */
int synthetic_fill(struct synthetic *g, unsigned int threads);
/* Makes writers and the beat; they run when no reason to pause is left. */
int synthetic_start_threads(struct synthetic *g);
/* Ends them, releases everything. */
void synthetic_release(struct synthetic *g);

/* Adds a reason; returns when no page is being written. */
void synthetic_pause(struct synthetic *g, uint32_t reason);
void synthetic_resume(struct synthetic *g, uint32_t reason);

/* Device state; the guest stands still for a move. -errno; -EBADMSG: not a state for this RAM. */
int synthetic_save(struct synthetic *g, int fd);
int synthetic_load(struct synthetic *g, int fd);

/* Compares every page with what it must hold, with the guest standing still. -errno. */
int synthetic_check_all(struct synthetic *g, unsigned int threads, struct synthetic_check *out);

/*
 * Becomes the guest with these parameters, versions (working_set of them, malloced; taken on
 * success) and states of its writers' walks; the guest stands still. For synthetic_load.
 */
int synthetic_adopt(struct synthetic *g, const struct synthetic_params *p, uint32_t *versions,
		    const uint64_t *walks);

/* Pages written in this guest's life, over all moves. */
uint64_t synthetic_written(const struct synthetic *g);

#endif
