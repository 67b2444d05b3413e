/* SPDX-License-Identifier: MIT */
/* A guest's RAM, handed to a data plane: its regions, their files, and where they are mapped. */
#ifndef TRANSHIP_CONTROL_SESSION_GUEST_MEMORY_H
#define TRANSHIP_CONTROL_SESSION_GUEST_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "control/guest/guest.h"
#include "control/session/dataplane_process.h"

/*
 * Sends region number at of g's description under the number index, which both sides agree on, with
 * its file. -errno with f: of opening the file, or dataplane-died.
 */
int guest_memory_send_region(struct dataplane *dp, struct guest *g, uint32_t at, uint32_t index,
			     bool writable, struct failure *f);

/* All regions under their own numbers, read-only. */
int guest_memory_send_regions(struct dataplane *dp, struct guest *g, struct failure *f);

/* Where the VMM maps each region: what a tracker scans. */
int guest_memory_send_mappings(struct dataplane *dp, const struct guest_description *d,
			       struct failure *f);

#endif
