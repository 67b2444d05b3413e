/* SPDX-License-Identifier: MIT */
/*
 * Post-copy at the destination: what its session does for it; see destination_postcopy.c.
 */
#ifndef TRANSHIP_CONTROL_DESTINATION_POSTCOPY_H
#define TRANSHIP_CONTROL_DESTINATION_POSTCOPY_H

#include <limits.h>

#include "control/session/dataplane_process.h"
#include "control/session/session.h"

struct destination;

/* Streams of a post-copy for so many of the pre-copy: one more, for faults. */
static inline uint32_t postcopy_streams(uint32_t streams)
{
	return streams < IPC_STREAMS_MAX ? streams + 1 : IPC_STREAMS_MAX;
}

struct destination_postcopy {
	struct dataplane dp; /* serves the faults */
	bool on;	     /* the VMM's accesses to RAM fault: it needs somebody who serves */
	bool handed_over;    /* which pages are missing is known */
	bool begun;	     /* the VMM was loaded, or is about to: faults must be served */
	bool connected;	     /* dp has all its streams */
	bool serving;	     /* dp was told to begin */
	bool complete;	     /* nothing is missing */
	bool early;	     /* that was so before the guest ran */
	bool lost;	     /* dp was, and no other has taken over yet */
	int uffd, missing_fd;
	int pidfd;    /* of a VM that is not open; -1 */
	int *ram;     /* a descriptor a region, of as many as the plan has; owned */
	json_t *plan; /* for the journal: "file", "regions"; what a restarted transhipd needs */
	json_t *residue;
	struct ipc_postcopy figures;
	uint64_t begun_ns; /* when the guest began to run here; 0: not known */
	double complete_ms;
	uint64_t cpu_ns, rss_bytes; /* of dp */
	uint64_t ended_cpu_ns;	    /* of those before it */
};

void destination_postcopy_init(struct destination *d);
void destination_postcopy_release(struct destination *d);

/* True while the guest depends on the source. */
static inline bool destination_postcopy_pending(const struct destination_postcopy *p)
{
	return p->on && !p->complete;
}

/*
 * The source asks for connections: makes the VMM's accesses fault if they do not yet, starts a data
 * plane that listens. *answer: as "data" of the answer to an offer. -errno with d->f; what was
 * begun is undone by destination_postcopy_end().
 */
int destination_postcopy_open(struct destination *d, json_t **answer);
/* Before the VMM loads: waits until what is missing is known and faults are served. */
int destination_postcopy_begin(struct destination *d);
/*
 * A message of dp. 0, also when it was lost and the guest runs: it waits then; -errno with d->f
 * when it does not run yet.
 */
int destination_postcopy_handle(struct destination *d);
/* The guest has begun to run here. */
void destination_postcopy_guest_runs(struct destination *d);
/*
 * Before the VMM loads: as if it had never been asked for. d goes on, and what the guest is missing
 * comes as before.
 */
void destination_postcopy_withdraw(struct destination *d);
/* Ends it: nothing faults any more, and, unless the set is still needed, its file goes. */
void destination_postcopy_end(struct destination *d);

void destination_postcopy_close_ram(struct destination_postcopy *p);

/* destination_postcopy_recover.c. Userfaultfd, RAM and the file, as the plan names them. */
int destination_postcopy_take_over(struct destination *d);
/*
 * After a crash, from PREPARED on: what the journal says. 1: the guest may depend on the source,
 * and d is ready for destination_serve() with d->g closed, for the VM's monitor may not answer
 * before its faults are served. 0: it does not (any more). -ESRCH: the VM has gone meanwhile.
 */
int destination_postcopy_recover(struct destination *d, const json_t *content);
/* Opens the VM of such a session, once it is served. -EBUSY with d->f: not now. */
int destination_postcopy_reach(struct destination *d);
/* After a crash, of a session that is thrown away: nothing faults any more. */
void destination_postcopy_undo(struct destination *d, const json_t *content);

/* Of the account; NULL if there is none. New reference. */
json_t *destination_postcopy_account(const struct destination *d);

#endif
