/* SPDX-License-Identifier: MIT */
/*
 * RAM that a destination in post-copy may still need: kept whatever ends the VMM, and found again
 * after a restart of transhipd.
 */
#ifndef TRANSHIP_CONTROL_SOURCE_RAM_H
#define TRANSHIP_CONTROL_SOURCE_RAM_H

#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/guest/guest.h"
#include "dataplane/ipc.h"

struct source_ram {
	struct ipc_region *regions; /* owned */
	int *fds;		    /* one a region: RAM outlives its VMM as long as these; owned */
	uint32_t count;		    /* of both; 0: it is not open */
	uint64_t bytes;		    /* of all */
	json_t *note;		    /* for the journal: what opens it again; owned */
};

void source_ram_release(struct source_ram *r);
/* Opens all RAM of a VM and notes where it is. 0 if that was done already. */
int source_ram_open(struct source_ram *r, struct guest *g, struct failure *f);
/*
 * The same from r->note, without a word to the VMM: as it is mapped in the process, which may have
 * ended, or else by its path. -ENODATA (vm-gone): it is nowhere any more.
 */
int source_ram_reopen(struct source_ram *r, pid_t pid, uint64_t start_time, struct failure *f);

#endif
