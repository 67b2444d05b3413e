/* SPDX-License-Identifier: MIT */
/*
 * Checks before a move. A check is an object in an array:
 *   {"check": "memory", "group": "memory", "level": "ok"|"warning"|"error",
 *    "code": "memory", "message": "...", "hint": "..."}
 * group is one of the words of --skip-check: cpu, memory, disk, version, devices. A check whose
 * group is skipped is turned from error into warning; group "" cannot be skipped (moving would lose
 * the guest: RAM that is not shared, outside writers, confidential guests).
 */
#ifndef TRANSHIP_CONTROL_PREFLIGHT_H
#define TRANSHIP_CONTROL_PREFLIGHT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/config.h"
#include "control/guest/guest.h"

enum check_level { CHECK_OK, CHECK_WARNING, CHECK_ERROR };

/* Appends one check to the array. code and hint may be NULL for CHECK_OK. */
void check_add(json_t *checks, const char *name, const char *group, enum check_level level,
	       const char *code, const char *hint, const char *fmt, ...)
	__attribute__((format(printf, 7, 8)));

/*
 * Turns errors of the skipped groups (comma-separated, "all") into warnings. -EINVAL with f (usage)
 * if a word is unknown.
 */
int checks_skip(json_t *checks, const char *skip_list, struct failure *f);

/* Fills f from the first error and returns -EPERM; 0 if there is none. */
int checks_verdict(const json_t *checks, struct failure *f);

/* A QEMU binary of the configuration, as it describes itself. */
struct host_qemu {
	char binary[256];    /* path as configured; longer ones are not looked at */
	char version[64];    /* "7.2.22"; "" if it does not run */
	char machines[8192]; /* machine types, blank-separated; "" if unknown */
};

/* What this host has, for the checks of an arriving VM. */
struct host_facts {
	uint64_t mem_available;		     /* bytes, less what was promised to other sessions */
	uint64_t huge_free_2m, huge_free_1g; /* pages that no one has reserved */
	char cpu_vendor[16];
	char cpu_flags[8192];			     /* /proc/cpuinfo's, blank-separated */
	struct host_qemu qemus[CONFIG_BINARIES_MAX]; /* that may be launched */
	unsigned int nqemus;
	char ram_dir[PATH_MAX]; /* the configuration's */
	bool kvm;		/* /dev/kvm can be opened */
};

/*
 * Reads them. Missing facts are zero or "". Runs each configured QEMU (-version, -machine help)
 * the first time, or when its file has changed; at most 5 s each. Thread-safe.
 */
void host_facts_read(struct host_facts *h, const struct config *c);

/*
 * The processor's vendor and flags as the source must tell them: sets "cpu_vendor" and "cpu_flags"
 * in a description's extra object. Without them a host CPU model can only be warned about.
 */
void host_cpu_describe(json_t *extra);

/* -1, 0, 1: a's major and minor version is older, the same, newer. "" counts as the oldest. */
int version_compare(const char *a, const char *b);

/*
 * The destination's checks of an arriving guest: memory, cpu, version, machine type, disks (the
 * same storage, disk_identity.h), and, if incoming is not NULL (a VM that already waits), that its
 * description fits: regions of the same ids and sizes, page sizes, machine type. source: what the
 * source said; pure but for the disks and RAM directories it looks at (stat).
 */
void preflight_destination(json_t *checks, const struct guest_description *source,
			   const struct guest_description *incoming, const struct host_facts *h);

/*
 * Whether a VM without a waiting one can be launched here: the whole plan is made and thrown away.
 * An error here cannot be skipped. session_id as for launch_plan().
 */
void preflight_launch(json_t *checks, const struct guest_description *source,
		      const struct config *c, const char *session_id);

#endif
