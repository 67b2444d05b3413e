/* SPDX-License-Identifier: MIT */
/*
 * A note made before a VM is armed, so that a crash between making a userfaultfd inside it and
 * writing down its number leaves nothing behind: an abandoned one makes the VM slower for ever and
 * keeps it from being tracked again.
 */
#ifndef TRANSHIP_CONTROL_ARMING_H
#define TRANSHIP_CONTROL_ARMING_H

#include <jansson.h>

#include "control/guest/guest.h"

/* For the journal; NULL if arming this kind of VM leaves nothing in it. A new reference. */
json_t *arming_note(const struct guest *g);

/*
 * Undoes an arming of which the journal knows no more than the note: every userfaultfd that was not
 * there before is taken for ours. Logs, never fails. NULL is allowed.
 */
void arming_undo(const json_t *note);

#endif
