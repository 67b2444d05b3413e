/* SPDX-License-Identifier: MIT */
/* How long a guest stands still, at most, for a move that does not succeed; see source_pause.c. */
#ifndef TRANSHIP_CONTROL_SOURCE_PAUSE_H
#define TRANSHIP_CONTROL_SOURCE_PAUSE_H

#include "control/session/session_source.h"

/* The VMM is about to be asked to stop the guest. */
void source_pause_asked(struct source *c);
/* The guest stands still since then (clock_ns()), for a switch-over. */
void source_pause_begins(struct source *c, uint64_t since_ns);
/* A barrier: now. It ends with source_pause_ends. */
void source_pause_barrier(struct source *c);
/* All of the guest is sent, and what follows depends on its size no more. */
void source_pause_copied(struct source *c);
/* It runs, or only the destination may run it. */
void source_pause_ends(struct source *c);
/* limit_ms, or what is left of the pause if that is less. At least 1. */
unsigned int source_pause_patience(const struct source *c, unsigned int limit_ms);
/* err, of a step in the pause; c->f says so if it was the pause that had lasted long enough. */
int source_pause_ended(struct source *c, int err);

#endif
