/* SPDX-License-Identifier: MIT */
/*
 * What a data plane may still do after its start: move bytes between descriptors it holds.
 *
 * sandbox_enter sets no-new-privs, drops all capabilities and supplementary groups, makes the
 * process undumpable, bounds its resources (RLIMIT_NOFILE at what is open plus `accepts`, no core,
 * no new files), and installs a seccomp allow-list. Not allowed, among all else: open, socket,
 * connect, bind, execve, ptrace, io_uring_setup, mappings that can be executed. Threads made later
 * inherit it; none may exist before.
 */
#ifndef TRANSHIP_DATAPLANE_SANDBOX_H
#define TRANSHIP_DATAPLANE_SANDBOX_H

#include <stdbool.h>

#include "dataplane/ipc.h"
#include "lib/base/failure.h"

/* accepts: connections that will be accepted after this. -errno with f (internal). */
int sandbox_enter(enum ipc_role role, unsigned int accepts, struct failure *f);

#endif
