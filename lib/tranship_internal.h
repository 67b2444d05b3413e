/* SPDX-License-Identifier: MIT */
/*
 * Inside libtranship: the object, and what its files give each other.
 * tranship.c makes it, tranship_serve.c answers requests, tranship_track.c holds the userfaultfd.
 */
#ifndef TRANSHIP_INTERNAL_H
#define TRANSHIP_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <sys/types.h>

#include "lib/tranship.h"
#include "lib/tranship_proto.h"

struct region_entry {
	struct tranship_region_info info;
	int fd; /* owned */
};

struct tranship {
	/* Constant after tranship_start. */
	const struct tranship_ops *ops;
	void *opaque;
	bool direct_io;
	unsigned int cpus;
	char name[128], vmm[64], vmm_version[64], machine[64], cpu_model[256], accel[16];
	char socket_path[108];
	struct region_entry regions[TRANSHIP_REGIONS_MAX];
	uint32_t nregions;
	pthread_t thread;
	bool started;
	int listen_fd;
	int stop_fd; /* eventfd: the service thread ends */
	dev_t socket_device;
	ino_t socket_inode; /* ours: what another process bound since is not removed */

	/* The service thread's, which changes them under the lock; tranship_claim looks. */
	pthread_mutex_t lock;
	int conn_fd;  /* -1: nobody is connected */
	bool greeted; /* HELLO was answered on conn_fd */
	enum tranship_state state;
	bool was_running; /* when STOP came: what RESUME has to restore */

	/* The service thread's alone. */
	int busy_fd; /* who connected beside conn_fd and is told so; or -1 */
	int uffd;    /* -1: not armed */
};

/* One line to the VMM's log. */
void tranship_log(const struct tranship *t, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Answers one request that waits on conn_fd. 0, or -errno: the connection is over. */
int tranship_serve_request(struct tranship *t);
/* Tells whoever asks on busy_fd that the guest is taken, and who it is; closes it. */
void tranship_serve_busy(struct tranship *t);
/* The connection ended, with or without a word: the rules of tranship_serve.c. */
void tranship_serve_lost(struct tranship *t);

/* Registers every region for asynchronous write protection; scans do the rest. -errno. */
int tranship_track_arm(struct tranship *t);
/* Undoes it in windows that do not stall the guest; nothing if not armed. */
void tranship_track_disarm(struct tranship *t);

#endif
