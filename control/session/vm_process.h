/* SPDX-License-Identifier: MIT */
/*
 * A VM as a process that was written down: its number and its start time (clock ticks since boot),
 * because numbers are used again. A zombie does not live.
 */
#ifndef TRANSHIP_CONTROL_VM_PROCESS_H
#define TRANSHIP_CONTROL_VM_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/guest/guest.h"

bool vm_process_lives(pid_t pid, uint64_t start_time);

/*
 * guest_open() of exactly this process. -ESRCH (f: vm-gone) only if it has ended for certain; any
 * other error means that it lives and cannot be spoken to now.
 */
int vm_process_open(struct guest **out, pid_t pid, uint64_t start_time, struct failure *f);

/* Ends it by signals and waits, up to about half a minute. 0 if it is gone; -ETIMEDOUT. */
int vm_process_end(pid_t pid, uint64_t start_time);
/* The same without a last word of it, in which it could still write its disks. */
int vm_process_kill(pid_t pid, uint64_t start_time);

#endif
