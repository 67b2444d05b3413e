/* SPDX-License-Identifier: MIT */
/*
 * libtranship: what a virtual machine monitor links so that transhipd can move its guests.
 *
 *	struct tranship *t;
 *	const struct tranship_config config = {
 *		.name = "web1", .vmm = "myvmm", .vmm_version = "1.2", .machine = "myvmm-1",
 *		.ops = &my_ops, .opaque = vm,
 *	};
 *
 *	tranship_new(&t, &config);
 *	tranship_add_region(t, &(struct tranship_region){ .id = "ram0", .fd = memfd, .size = size,
 *							   .page_size = 4096, .address = ram });
 *	tranship_start(t);		(the VMM can be found and moved from here on)
 *	...
 *	tranship_free(t);
 *
 * Threads. tranship_start makes one thread, the service thread. All callbacks run on it, one at a
 * time, with every signal blocked; they may block, and no other request is answered meanwhile. The
 * VMM's callbacks must therefore be safe against its other threads. No callback may call
 * tranship_free. The functions below may be called from any thread but not beside each other for
 * one struct tranship; a callback may call none of them, nor wait for a thread that calls one.
 *
 * Who stops the guest. Between the callbacks pause and resume the guest must not run, whatever the
 * VMM's own user asks for: its memory and state are being taken elsewhere. If transhipd is lost in
 * that time, libtranship resumes the guest by itself, unless its state had been saved whole: then
 * the guest may run at the destination already, and stays paused here until transhipd, or a person
 * through it, decides. A guest that was loaded never starts by itself. See tranship_claim.
 *
 * Memory. Every byte of guest RAM must be in a region, mapped shared (MAP_SHARED) from a memfd or a
 * file on tmpfs or hugetlbfs, once, at the address given. Nobody else may write it: no second
 * mapping, no vhost-user back end, no write(2) to the descriptor, no device assignment. A VMM that
 * does direct I/O (O_DIRECT, io_uring with fixed buffers) into guest RAM sets .direct_io, and its
 * pause callback returns only when none is in flight. The library registers the mappings with a
 * userfaultfd of its own while they are tracked (Linux 6.7 or later); the VMM must not have
 * registered them for write protection with another.
 *
 * Errors. Every int function returns 0 or -errno.
 */
#ifndef TRANSHIP_H
#define TRANSHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tranship;

/*
 * What the VMM does for libtranship. opaque is the one of the configuration. Each returns 0 or
 * -errno; a failure is reported to transhipd, which ends the session with the guest where it was.
 */
struct tranship_ops {
	/*
	 * Stops the virtual processors and every device's work, and drains block I/O. When it
	 * returns 0 nothing writes guest RAM any longer. On failure the guest must run. Required.
	 */
	int (*pause)(void *opaque);

	/*
	 * Runs the guest: after pause, or, at a destination, after load_state; then it also
	 * announces the guest to its networks (gratuitous ARP). Required.
	 */
	int (*resume)(void *opaque);

	/*
	 * Writes the device state (all but guest RAM) to fd, a pipe or stream socket. Called
	 * between pause and resume; may be called again after a resume. fd is libtranship's and is
	 * closed by it afterwards. A write may fail with EPIPE when the session dies; SIGPIPE is
	 * blocked. Must not write guest RAM. Required.
	 */
	int (*save_state)(void *opaque, int fd);

	/*
	 * Reads the device state from fd until its end and takes it on; guest RAM is complete by
	 * then. The guest stays paused. May be called again, after a failure and after a success
	 * that was not followed by resume: the later state replaces the earlier. Unset: this VMM
	 * cannot be a destination.
	 */
	int (*load_state)(void *opaque, int fd);

	/*
	 * The guest lives elsewhere now: end the VMM soon after returning. transhipd waits for the
	 * process to end. Must not run the guest. Required.
	 */
	void (*quit)(void *opaque);

	/*
	 * Whether the virtual processors run, as the VMM's own user left them. A guest that its
	 * user had paused is moved paused. Not asked between pause and resume. Unset: they run.
	 */
	bool (*running)(void *opaque);

	/* One line for the VMM's log, without newline. Unset: dropped. */
	void (*log)(void *opaque, const char *line);
};

struct tranship_config {
	const char *name;	 /* of the guest; required; no '/'; at most 100 bytes */
	const char *socket_path; /* NULL: /run/tranship/vmm/NAME.sock, where transhipd looks */
	const char *vmm;	 /* the VMM's name; required */
	const char *vmm_version; /* required */
	const char *machine;	 /* equal on both sides or the guest is refused; required */
	const char *cpu_model;	 /* what the guest sees; NULL or "" if that does not matter */
	const char *accel;	 /* "kvm", "tcg"; NULL: "none" */
	unsigned int cpus;	 /* virtual processors; 0: unknown */
	bool incoming;		 /* waits for a guest to come instead of running one; nobody
				  * writes its RAM before load_state: what is there counts */
	bool direct_io;		 /* see Memory above */
	const struct tranship_ops *ops; /* required; must outlive the object */
	void *opaque;
};

struct tranship_region {
	const char *id;	      /* unique; equal on both sides; at most 127 bytes */
	int fd;		      /* the file; duplicated by libtranship */
	uint64_t size;	      /* bytes; a multiple of page_size */
	uint64_t file_offset; /* of the region's first byte in the file; a multiple of page_size */
	uint32_t page_size;   /* of the backing, bytes: 4096, 2 MiB, 1 GiB */
	void *address;	      /* of the mapping of the whole region; a multiple of page_size */
};

#define TRANSHIP_REGIONS_MAX 256

/*
 * Makes an object that nobody can see yet. Strings are copied. -EINVAL: something required is
 * missing or too long; -ENOMEM. Does not block.
 */
int tranship_new(struct tranship **out, const struct tranship_config *config);

/*
 * Adds one region; before tranship_start. -EINVAL: not aligned, not a mapping's address, or the
 * file is too short; -EEXIST: the id is taken; -ENOSPC: too many; -EBUSY: already started.
 */
int tranship_add_region(struct tranship *t, const struct tranship_region *region);

/*
 * Binds the socket (mode 0600; a stale one is replaced) and starts the service thread. From here on
 * callbacks may come. -EINVAL: no region; -EADDRINUSE: another process answers there; other errors
 * of socket, bind and pthread_create. The object can be freed, or started again, after a failure.
 */
int tranship_start(struct tranship *t);

/*
 * The VMM's user wants to run a guest that libtranship holds paused and that no session holds any
 * longer: one that arrived with --no-start, or whose source was kept. From here on the VMM owns it
 * and may run it (no callback is called). That it runs nowhere else is the user's to know. 0, also
 * when the guest was the VMM's already; -EBUSY: transhipd is connected; -EPROTO: no guest is here.
 */
int tranship_claim(struct tranship *t);

/* The path on which it listens; valid as long as the object. */
const char *tranship_socket_path(const struct tranship *t);

/*
 * Ends the service thread (waits for a callback that runs), stops tracking, removes the socket and
 * releases everything. A guest that transhipd had paused stays paused. NULL is allowed.
 */
void tranship_free(struct tranship *t);

#ifdef __cplusplus
}
#endif

#endif
