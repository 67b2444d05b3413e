/* SPDX-License-Identifier: MIT */
/* What the journal keeps of a source's account; source_account.c has the theory. */
#ifndef TRANSHIP_CONTROL_SOURCE_ACCOUNT_H
#define TRANSHIP_CONTROL_SOURCE_ACCOUNT_H

#include <jansson.h>

#include "control/session/session_source.h"

/* Fields for the records of PAUSED, COMMITTED and RUNNING; new references, the last may be NULL. */
json_t *source_account_before_pause(struct source *c);
json_t *source_account_committed(const struct source *c);
json_t *source_account_ran(const struct source *c);

/* Records of their own: goals that were tuned after COMMITTED; what was sent, as transhipd ends. */
void source_account_goals(struct source *c);
void source_account_leaving(struct source *c);

/* After a crash: content is the merged journal. c->account_known: whether it was there. */
void source_account_restore(struct source *c, const json_t *content);

#endif
