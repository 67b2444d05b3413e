/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the QEMU guest share: finding (guest_qemu_find.c), describing
 * (guest_qemu_describe.c, guest_qemu_ram.c), checking (guest_qemu_check.c), tracking
 * (guest_qemu_track.c) and the hand-over (guest_qemu_handover.c); guest_qemu.c joins them.
 */
#ifndef TRANSHIP_CONTROL_GUEST_QEMU_INTERNAL_H
#define TRANSHIP_CONTROL_GUEST_QEMU_INTERNAL_H

#include "control/guest/guest.h"
#include "control/guest/qmp.h"

#define QEMU_SOCKETS_MAX 16
#define QEMU_GREET_MS	 2000u /* a busy main loop may take this long to greet */

struct guest_qemu {
	struct guest g; /* first */
	struct qmp *q;
	char qmp_path[PATH_MAX]; /* as in the VM's mount namespace */
	int version[3];
	uint64_t *map_devices; /* of each region, as /proc/PID/maps names the device */

	/* Tracking: the userfaultfd inside the VMM. */
	int uffd;	 /* ours, -1: not armed */
	int remote_uffd; /* its number in the VMM */
	bool faults;	 /* post-copy's: only disarm() ends it */

	/* Hand-over. */
	int state_fd;		  /* a copy of what QEMU saves to, -1: not saving; see resume */
	bool held_back;		  /* incoming() turned autostart off */
	bool loading;		  /* load_begin() began */
	json_t *old_capabilities; /* what to set to restore them, or NULL: untouched */
	json_t *old_parameters;
};

static inline struct guest_qemu *guest_qemu_of(struct guest *g)
{
	return (struct guest_qemu *)g;
}

/* --- finding ---------------------------------------------------------------------------------- */

struct qemu_process {
	pid_t pid;
	char **argv;	/* owned */
	char name[128]; /* of the VM; "" if it has none */
	bool foreign;	/* another transhipd's host: see guest_qemu_find.c */
};

/* Every QEMU process of this machine; free with qemu_processes_free(). */
int qemu_processes(struct qemu_process **out, size_t *count);
void qemu_processes_free(struct qemu_process *p, size_t count);
/* True if this is a system emulator's process. */
bool qemu_is_process(pid_t pid, char *const *argv);
void qemu_vm_name(char *const *argv, char *buf, size_t len);
/* The QMP sockets on its command line, in their order; how many. */
unsigned int qemu_sockets(pid_t pid, char *const *argv, char paths[][PATH_MAX], unsigned int max);
/* The QEMU whose command line has the socket at this path (as we see it), or 0. */
pid_t qemu_of_socket(const char *path);
/* Connects to a socket path as process pid sees it (0: as we do). */
int qemu_connect(struct qmp **out, pid_t pid, const char *path, unsigned int greet_ms,
		 struct failure *f);

/* Opens by pid with bounds for each part: greeting and, in all, total_ms (0: none). */
int guest_qemu_open_bounded(struct guest **out, pid_t pid, unsigned int greet_ms,
			    unsigned int total_ms, struct failure *f);

/* --- describing ------------------------------------------------------------------------------- */

int guest_qemu_describe(struct guest *g, struct failure *f);
/* Fills g->desc.regions and map_devices. */
int guest_qemu_describe_ram(struct guest_qemu *q, struct failure *f);
/* Fills g->desc.disks and needs_dma_barrier. */
int guest_qemu_describe_disks(struct guest_qemu *q, struct failure *f);
/* Plugged in and removed since it was described; RAM is plugged in as a device. */
int guest_qemu_unchanged(struct guest *g, struct failure *f);
int guest_qemu_check(struct guest *g, json_t *checks, struct failure *f);
/* What to add to QEMU's command line, so that this region can be moved; into hint. */
const char *guest_qemu_share_hint(const struct guest_region *r, char *hint, size_t size);
int guest_qemu_open_ram(struct guest *g, uint32_t i, bool writable, int *fd, struct failure *f);

/* A property of a QOM object; NULL if it has none or QEMU refuses. New reference. */
json_t *qemu_qom_get(struct qmp *q, const char *path, const char *property);
/* The text of a monitor command for people, or NULL; free() it. */
char *qemu_human(struct qmp *q, const char *command);

/* --- tracking --------------------------------------------------------------------------------- */

int guest_qemu_arm(struct guest *g, enum ipc_tracker_kind *kind, int *fd, json_t **residue,
		   struct failure *f);
void guest_qemu_disarm(struct guest *g);
/* What a restarted transhipd needs to undo what guest_qemu_arm() or _postcopy() did. */
json_t *guest_qemu_residue(struct guest_qemu *q);
/* guest_qemu_postcopy.c */
int guest_qemu_postcopy(struct guest *g, int *fd, json_t **residue, struct failure *f);
/* guest_disarm_residue() of this kind. */
void guest_qemu_disarm_residue(const json_t *residue);
/* 0 if this kernel can track from outside; -errno and why. */
int guest_qemu_tracker_probe(char *why, size_t len);

/* --- throttling ----------------------------------------------------------------------------- */

int guest_qemu_throttle(struct guest *g, const char *owner, struct throttle **out,
			struct failure *f);

/* --- the hand-over ---------------------------------------------------------------------------- */

int guest_qemu_stop(struct guest *g, struct failure *f);
int guest_qemu_cont(struct guest *g, struct failure *f);
int guest_qemu_pause(struct guest *g, int state_fd, struct failure *f);
int guest_qemu_save(struct guest *g, struct failure *f);
int guest_qemu_resume(struct guest *g, struct failure *f);
int guest_qemu_quit(struct guest *g, struct failure *f);
int guest_qemu_incoming(struct guest *g, struct failure *f);
int guest_qemu_load_begin(struct guest *g, int state_fd, struct failure *f);
int guest_qemu_load_wait(struct guest *g, struct failure *f);
int guest_qemu_start(struct guest *g, struct failure *f);

/* QEMU's run state now, into desc.state and desc.running. */
int guest_qemu_status(struct guest_qemu *q, struct failure *f);

/*
 * Migration capabilities and parameters for a hand-over, and back to what they were. The values
 * before are kept in q; _get gives them for the journal: {"capabilities": [...],
 * "parameters": {...}} (new reference, NULL on failure).
 */
int qemu_migration_prepare(struct guest_qemu *q, struct failure *f);
void qemu_migration_restore(struct guest_qemu *q);
json_t *qemu_migration_get(struct qmp *q);
/* Sets them as qemu_migration_get() once gave; NULL: turns the dangerous ones off. */
void qemu_migration_set(struct qmp *q, const json_t *old);

#endif
