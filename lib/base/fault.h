/* SPDX-License-Identifier: MIT */
/*
 * Named places where a test makes this process die, stop, wait or fail, so that a crash can be had
 * exactly between two steps. Compiled in always: what is tested is what runs. Unset, a place costs
 * one test of a flag that never changes.
 *
 * TRANSHIP_FAULT="site:action[,site:action...]"; a site is hit once and then forgotten:
 *   kill      SIGKILL to this process
 *   stop      SIGSTOP to this process
 *   error     the place returns -EIO, as if the step there had failed
 *   sleep=N   the place takes N milliseconds longer
 * The sites are listed in docs/architecture.md.
 */
#ifndef TRANSHIP_BASE_FAULT_H
#define TRANSHIP_BASE_FAULT_H

#include <stdbool.h>

#define FAULT_ENVIRONMENT "TRANSHIP_FAULT"

extern bool fault_armed; /* written by fault_set alone */

/*
 * Replaces all faults by those of spec (NULL or "": none). -EINVAL, and none are set, if it is not
 * of the form above. Not while other threads may be at a site.
 */
int fault_set(const char *spec);

/* fault_at, once some fault is set. */
int fault_hit(const char *site);
/* The same for a site with a name of parts: "session.journal.paused.before". */
int fault_hit_parts(const char *const *parts);

/* 0, or -EIO if this place is to fail. */
static inline int fault_at(const char *site)
{
	return __builtin_expect(fault_armed, false) ? fault_hit(site) : 0;
}

/* The parts of the name as separate words; joined by dots. */
#define fault_at_parts(...)                                                                        \
	(__builtin_expect(fault_armed, false)                                                      \
		 ? fault_hit_parts((const char *const[]){ __VA_ARGS__, (const char *)0 })          \
		 : 0)

#endif
