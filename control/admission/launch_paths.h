/* SPDX-License-Identifier: MIT */
/*
 * Which paths a VM launched for a peer may touch. Each returns 0 or -errno with *why (half a
 * sentence, static) set; nothing is opened, changed or created.
 *
 * All want an absolute path without "." and ".." elements. With config.vm_dirs, what the path
 * resolves to must be below one of them; without, the system's own directories are out of bounds.
 * The directories are the means for hosts whose peers are not each other's administrators: what is
 * checked here may change before QEMU opens it, if others may write there.
 */
#ifndef TRANSHIP_CONTROL_LAUNCH_PATHS_H
#define TRANSHIP_CONTROL_LAUNCH_PATHS_H

#include <stdbool.h>
#include <stdint.h>

#include "control/config.h"

/* A disk: a file or block device that is there; not one that the host itself has mounted. */
int launch_path_disk(const struct config *c, const char *path, const char **why);

/*
 * Something the guest gets to read (kernel, firmware, ROM): a file that every user may read, so
 * that a peer cannot have the host's secrets shown to it.
 */
int launch_path_readable(const char *path, const char **why);

/* Something QEMU makes (socket, file): nothing may be there, its directory must. c may be NULL. */
int launch_path_new(const struct config *c, const char *path, const char **why);

/* A file that QEMU goes on writing at its end: a plain file that is there. */
int launch_path_append(const struct config *c, const char *path, const char **why);

/* A socket or FIFO that QEMU connects to: only below config.vm_dirs, since root may connect
 * anywhere. */
int launch_path_connect(const struct config *c, const char *path, const char **why);

/* A directory that holds RAM files: tmpfs, or hugetlbfs of page_size if hugetlb. */
int launch_path_ram_dir(const char *dir, bool hugetlb, uint32_t page_size, const char **why);

/* True if dir is on a file system for RAM files: tmpfs, or hugetlbfs of any page size. */
bool launch_path_holds_ram(const char *dir);

#endif
