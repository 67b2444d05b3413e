/* SPDX-License-Identifier: MIT */
/* What a source still has to settle when its stages are over, or after a crash; source_settle.c. */
#ifndef TRANSHIP_CONTROL_SOURCE_SETTLE_H
#define TRANSHIP_CONTROL_SOURCE_SETTLE_H

#include "control/session/session_source.h"

/* Of a session of which the destination has not said what became of it. */
#define SOURCE_UNRESOLVED_HINT                                                                     \
	"When the destination is back this resolves itself. Else look whether the VM runs there: " \
	"if it does, `tranship resolve ID --give-up`; if not, end its QEMU there first (or make "  \
	"sure that host stays down), then `tranship resolve ID --run-here`."

/*
 * Runs on until nothing is left to settle (c->unsettled, c->owes_abort), or transhipd ends. The
 * session is finished already; c->g is not open.
 */
void source_linger(struct source *c);

/* UNRESOLVED, with c->f and what a restarted transhipd must know of it; c->unsettled holds. */
void source_finish_unresolved(struct source *c);

/* The RAM files of a VM that has moved away, as source_ram_files() wrote them down. */
json_t *source_ram_files(const struct guest_description *d);
void source_unlink_ram(const json_t *files);

/* Ends the VM here, or keeps it (--keep-src), and tells the destination. c->g is open. */
void source_release_guest(struct source *c);
/* Tells the destination that it is alone; keeps its account. */
void source_say_finish(struct source *c);

#endif
