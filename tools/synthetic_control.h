/* SPDX-License-Identifier: MIT */
/*
 * The synthetic guest's control socket: a line in, a line of JSON out, one connection at a time.
 *
 *   stats            since the start and by phase: pages written, rate, longest stall, beats
 *   phase NAME       ends the phase that was and begins another (letters, digits, - and _)
 *   verify           checks every page; the guest stands still meanwhile
 *   pause, run       as its user; run also starts a guest that a move left paused here
 *   corrupt OFFSET   flips one byte of RAM behind the guest's back, so that verify has to find it
 *   stop             ends the process
 * Every answer has "event"; {"event":"error","message"} if it cannot be done.
 */
#ifndef TRANSHIP_TOOLS_SYNTHETIC_CONTROL_H
#define TRANSHIP_TOOLS_SYNTHETIC_CONTROL_H

#include <jansson.h>

#include "lib/tranship.h"
#include "tools/synthetic_guest.h"

#define SYNTHETIC_PHASES_MAX 32

struct synthetic_phase {
	char name[32];
	uint64_t start_ns, end_ns; /* end 0: it goes on */
	uint64_t paused_ns;	   /* of the guest in all, at its start; at its end: in it */
	uint64_t written;	   /* likewise */
	uint64_t stall_ns, preempted_ns, gap_ns;
};

struct synthetic_control {
	struct synthetic *g;
	struct tranship *t;
	const char *name;
	int listen_fd, stop_fd;
	char path[108];
	pthread_t thread;
	struct synthetic_phase phases[SYNTHETIC_PHASES_MAX];
	unsigned int nphases;
	pthread_mutex_t mutex; /* of phases and of printing */
};

/* Binds path and makes the control thread. stop ends the process by SIGTERM to itself. -errno. */
int synthetic_control_start(struct synthetic_control *c, struct synthetic *g, struct tranship *t,
			    const char *name, const char *path);
void synthetic_control_end(struct synthetic_control *c);

/* Carries out one command line and returns the answer (new reference, never NULL). */
json_t *synthetic_control_do(struct synthetic_control *c, const char *line);

/* One line of JSON on fd; steals j. */
void synthetic_print(int fd, json_t *j);

/* The other end: sends one command and prints the answer. 0; 1: the answer says bad or error. */
int synthetic_control_ask(const char *path, const char *command);

#endif
