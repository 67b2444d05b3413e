/* SPDX-License-Identifier: MIT */
/*
 * Guests whose VMM links libtranship: how they are found. VMMs listen in /run/tranship/vmm, one
 * NAME.sock each (lib/tranship_proto.h); guest_tranship_open() in guest.h takes any other path too.
 *
 * guest_ops.guard_fd() of this kind gives transhipd's own connection: the guard inherits it, so the
 * VMM sees no loss while the guard lives, and sends tranship_request_resume() on it.
 */
#ifndef TRANSHIP_CONTROL_GUEST_TRANSHIP_H
#define TRANSHIP_CONTROL_GUEST_TRANSHIP_H

#include <jansson.h>
#include <sys/types.h>

#include "control/guest/guest.h"

/*
 * What each VMM in the socket directory says of itself, in the form of guest_list(); those that do
 * not answer are left out. A VMM that another connection holds is listed too. New reference.
 */
json_t *guest_tranship_list(void);

/*
 * Opens the VMM of that guest name, or of that pid. Failures: vm-not-found, vm-ambiguous, vm-busy
 * (another connection holds it), and those of guest_tranship_open().
 */
int guest_tranship_open_name(struct guest **out, const char *name, struct failure *f);
int guest_tranship_open_pid(struct guest **out, pid_t pid, struct failure *f);

/* guest_ops.check of this kind. */
int guest_tranship_check(struct guest *g, json_t *checks, struct failure *f);

#endif
