/* SPDX-License-Identifier: MIT */
/*
 * What a data plane was given before IPC_START, and the roles it can then play.
 *
 * dataplane_main.c receives CONFIG ... START into a struct setup and calls the role's run function
 * with it. The role finishes everything that needs privileges (mappings, rings, probes), calls
 * sandbox_enter(), and only then reads from the network or from other processes' memory maps.
 */
#ifndef TRANSHIP_DATAPLANE_SETUP_H
#define TRANSHIP_DATAPLANE_SETUP_H

#include "dataplane/ipc.h"
#include "dataplane/region.h"

struct setup {
	int sock; /* to transhipd */
	struct ipc_config config;
	struct region *regions; /* config.regions of them; owned */
	uint32_t nregions;
	enum ipc_tracker_kind tracker;
	int pagemap_fd;			   /* -1 if the tracker needs none */
	bool tracker_kvm;		   /* see tracker.h */
	int stream_fds[IPC_STREAMS_MAX];   /* source: connected sockets, -1 where unused */
	struct ipc_bench bench;		   /* bench */
	int bench_fd;			   /* bench: the file whose bytes are sent, or -1 */
	int listen_fds[IPC_LISTENERS_MAX]; /* destinations: nlisteners of them */
	uint32_t nlisteners;
	int missing_fd; /* destination: IPC_MISSING; -1: none yet */
	int uffd;	/* post-copy destination, or -1 */
};

/*
 * Receives CONFIG .. START from sock and checks every message: indices, counts, sizes, mappings
 * inside their region and rising, files that hold their region, the parts that the role needs.
 * -ECANCELED: QUIT came instead. -errno with f filled; setup_release after it in any case.
 */
int setup_receive(struct setup *s, int sock, struct failure *f);
/* Nobody else is let in. */
void setup_close_listeners(struct setup *s);
/* Releases regions and closes every descriptor but sock. */
void setup_release(struct setup *s);

/*
 * Each serves transhipd's messages until IPC_QUIT or the end of the socket and returns 0, or
 * returns -errno with f filled, which main sends as IPC_FAILED.
 */
int source_run(struct setup *s, struct failure *f);
int destination_run(struct setup *s, struct failure *f);
int observer_run(struct setup *s, struct failure *f);
int bench_run(struct setup *s, struct failure *f);
/* Its destination is destination_run. */
int postcopy_source_run(struct setup *s, struct failure *f);

#endif
