/* SPDX-License-Identifier: MIT */
/*
 * A virtual machine as transhipd handles it, whatever its VMM: struct guest with an ops table.
 * Implementations: guest_qemu.c (an unmodified QEMU over QMP), guest_tranship.c (a VMM that links
 * libtranship, the synthetic guest among them).
 *
 * A guest is used by one thread at a time (its session's). Calls block; each has its own time limit
 * and fails with -ETIMEDOUT and a failure rather than wait for ever.
 */
#ifndef TRANSHIP_CONTROL_GUEST_H
#define TRANSHIP_CONTROL_GUEST_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/guest/throttle.h"
#include "dataplane/ipc.h"
#include "lib/base/failure.h"

enum guest_backing { GUEST_BACKING_FILE, GUEST_BACKING_MEMFD, GUEST_BACKING_PRIVATE };

struct guest_mapping {
	uint64_t start, end; /* in the VMM's address space */
	uint64_t offset;     /* bytes from the region's beginning */
};

/* One RAM backend. */
struct guest_region {
	char id[128];	    /* the backend's id at the VMM: equal on both sides */
	uint64_t size;	    /* bytes */
	uint32_t page_size; /* of the backing, bytes */
	enum guest_backing backing;
	bool hugetlb;
	bool share;
	bool prealloc;
	char path[PATH_MAX]; /* of a named file; "" for a memfd */
	uint64_t file_offset;
	uint64_t inode; /* of the file, and its device */
	uint64_t device;
	struct guest_mapping *mappings; /* owned; sorted by start */
	uint32_t nmappings;
};

struct guest_disk {
	char id[128];
	char path[PATH_MAX]; /* of the file or device behind it; "" if it has none */
	char format[32];
	bool read_only;
	bool direct;		/* direct I/O, io_uring or native AIO: DMA into guest RAM */
	uint64_t device, inode; /* of path at this host, 0 if unknown */
	char identity[256];	/* disk_identity_read() of path at the VM's host; "" if unknown */
};

struct guest_description {
	char name[128];
	char kind[16];	     /* "qemu", "tranship" */
	char version[64];    /* of the VMM: "7.2.22" */
	char machine[64];    /* versioned machine type: "pc-q35-7.2" */
	char cpu_model[256]; /* as on the command line: "host,+x" or "" */
	char accel[16];	     /* "kvm" or "tcg" */
	uint32_t cpus;
	bool running;
	char state[32]; /* the VMM's word: "running", "paused", "inmigrate" ... */
	uint64_t ram_bytes;
	struct guest_region *regions; /* owned; in the order of index */
	uint32_t nregions;
	struct guest_disk *disks; /* owned */
	uint32_t ndisks;
	bool needs_dma_barrier; /* some disk or device can DMA past the tracker */
	char **argv;		/* owned, NULL-terminated, one allocation: its command line */
	json_t *extra;		/* owned object: what only this kind's preflight understands */
};

struct guest;

struct guest_ops {
	const char *kind;

	/* Fills g->desc anew. */
	int (*describe)(struct guest *g, struct failure *f);

	/*
	 * Whether this guest can be moved at all, as far as this host can tell: appends to checks
	 * (an array; see preflight.h). 0 even if some check is an error; -errno if it cannot ask.
	 */
	int (*check)(struct guest *g, json_t *checks, struct failure *f);

	/* A new descriptor of region i's file. The source opens read-only. */
	int (*open_ram)(struct guest *g, uint32_t i, bool writable, int *fd, struct failure *f);

	/*
	 * 0 if the VM has the devices and the RAM that describe found; -ESTALE (vm-changed) if not.
	 * Cheap, and the guest runs on meanwhile. NULL: they cannot change.
	 */
	int (*unchanged)(struct guest *g, struct failure *f);

	/*
	 * Makes the guest's writes trackable from outside: for QEMU, injects a userfaultfd and
	 * registers every mapping. *kind says which tracker the data plane must use and *fd, if
	 * not -1, goes with it (caller's). *residue (may be NULL) gets a JSON object for the
	 * journal, enough for disarm_residue to undo this after a crash.
	 */
	int (*arm)(struct guest *g, enum ipc_tracker_kind *kind, int *fd, json_t **residue,
		   struct failure *f);
	/* Undoes arm without stalling the guest; safe to call twice or when the VMM is gone. */
	void (*disarm)(struct guest *g);

	/*
	 * Destination, waiting: from now on every access to RAM faults and waits for whoever holds
	 * *fd, a userfaultfd (the caller's), until disarm. -EOPNOTSUPP (unsupported-option) where
	 * that cannot be had. *residue: as of arm; uffd_adopt() takes over what it says.
	 * free() leaves it as it is: what is missing would read as zeros.
	 */
	int (*postcopy)(struct guest *g, int *fd, json_t **residue, struct failure *f);

	/*
	 * Stops the vCPUs and drains block I/O. And runs it on, unless stop found it stopped
	 * already (was_running): then it is its user's to run.
	 */
	int (*stop)(struct guest *g, struct failure *f);
	int (*cont)(struct guest *g, struct failure *f);

	/*
	 * Source, hand-over. pause: begins saving to state_fd (taken by the VMM, stays the
	 * caller's) and returns with the guest stopped, block I/O drained and RAM final apart from
	 * what saving itself writes. save: writes the device state; returns when it is complete.
	 * resume: back to what it was before pause, from any point after it, even after save.
	 */
	int (*pause)(struct guest *g, int state_fd, struct failure *f);
	int (*save)(struct guest *g, struct failure *f);
	int (*resume)(struct guest *g, struct failure *f);
	/*
	 * Finds out how the guest's processors can be slowed down and changes nothing: *out is the
	 * caller's, see throttle.h; owner as there. -EOPNOTSUPP (throttle-unavailable) if they
	 * cannot be.
	 */
	int (*throttle)(struct guest *g, const char *owner, struct throttle **out,
			struct failure *f);

	/* Ends the VMM (source, after the move) and waits until it is gone. */
	int (*quit)(struct guest *g, struct failure *f);

	/*
	 * Destination. incoming: the VMM waits for a migration and is made ready to take one
	 * without starting by itself. load: takes the device state from state_fd until its end
	 * (the caller's data plane writes the other end); returns when loaded, guest stopped.
	 * start: runs the guest and announces it to the network.
	 */
	int (*incoming)(struct guest *g, struct failure *f);
	int (*load_begin)(struct guest *g, int state_fd, struct failure *f);
	int (*load_wait)(struct guest *g, struct failure *f);
	int (*start)(struct guest *g, struct failure *f);

	/*
	 * The connection that the guard process uses to run the guest on if transhipd dies in the
	 * pause: a descriptor (stays the guest's) and the guard's word for this kind.
	 */
	int (*guard_fd)(struct guest *g);

	void (*free)(struct guest *g);
};

/* Embedded first in each implementation's struct. */
struct guest {
	const struct guest_ops *ops;
	pid_t pid;
	int pidfd;	     /* readable when the VMM has ended */
	uint64_t start_time; /* of pid, clock ticks since boot, /proc/PID/stat field 22 */
	bool was_running;    /* stop and pause note it; cont and resume bring it back to that */
	uint64_t save_by_ns; /* clock_ns() beyond which save does not wait; 0: as it sees fit */
	uint64_t stopped_ns; /* clock_ns() at which pause stopped the vCPUs; 0: not known */
	uint64_t resumed_ns; /* clock_ns() at which start ran them; 0: not known */
	struct guest_description desc;
};

/*
 * Finds and connects to a VM by the words of the command line: NAME, qemu:/path/to/qmp.sock,
 * tranship:/path/to.sock or pid:N; describes it. Caller frees with guest_free().
 * Failures: vm-not-found, vm-ambiguous, qmp-busy, qmp-failed.
 */
int guest_open(struct guest **out, const char *vm, struct failure *f);

/*
 * The process of the VM that these words name, without a word to its VMM, whose monitor may be
 * held. -ENOENT if that cannot be told so (there is none, there are several, libtranship).
 */
int guest_locate(const char *vm, pid_t *pid, uint64_t *start_time);

/* Releases everything; the VM itself is left as it is. NULL is allowed. */
void guest_free(struct guest *g);

/* True while the VMM process lives. */
bool guest_alive(const struct guest *g);

/*
 * All VMs of this host: an array of objects {"name","pid","kind","ram_bytes","state",
 * "migratable": bool, "reason": string, "code": string}. Never fails because of one VM.
 */
json_t *guest_list(void);

/* Undoes an arm that a dead transhipd left behind; residue as journaled. Logs, never fails. */
void guest_disarm_residue(const json_t *residue);

/* The description for the peer and for --json, without mappings; a new reference. And back. */
json_t *guest_description_to_json(const struct guest_description *d);
int guest_description_from_json(struct guest_description *d, const json_t *j, struct failure *f);
void guest_description_release(struct guest_description *d);

/* Implementations. */
int guest_qemu_open_socket(struct guest **out, const char *qmp_path, struct failure *f);
int guest_qemu_open_pid(struct guest **out, pid_t pid, struct failure *f);
int guest_tranship_open(struct guest **out, const char *socket_path, struct failure *f);

#endif
