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
#include "control/guest.h"

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

/* What this host has, for the checks of an arriving VM. */
struct host_facts {
	uint64_t mem_available;	/* bytes, less what was promised to other sessions */
	uint64_t huge_free_2m, huge_free_1g; /* pages */
	char cpu_vendor[16];
	char cpu_flags[8192];	/* /proc/cpuinfo's, blank-separated */
	char qemu_version[64];	/* of the binary that would be launched, or of the waiting VM */
	char qemu_binary[PATH_MAX];
	bool kvm;		/* /dev/kvm can be opened */
};

/* Reads them. Missing facts are zero or "". */
void host_facts_read(struct host_facts *h, const struct config *c);

/*
 * The destination's checks of an arriving guest: memory, cpu, version, machine type, disks (seen
 * here with the same device and inode number or content), and, if incoming is not NULL (a VM that
 * already waits), that its description fits: regions of the same ids and sizes, page sizes,
 * machine type. source: what the source said; pure but for the disks it looks at (stat).
 */
void preflight_destination(json_t *checks, const struct guest_description *source,
			   const struct guest_description *incoming, const struct host_facts *h);

#endif
