/* SPDX-License-Identifier: MIT */
/*
 * Whether two hosts see the same storage under a path, decided without reading or writing it.
 *
 * Theory of operation
 *   Each host says what it sees (disk_identity_read): the kernel's boot id, the kind of file, the
 *   file system's type, device, inode, size and, for block devices, the name the hardware gives
 *   itself (WWID, device-mapper uuid). Two such texts are compared by disk_identity_same:
 *
 *   - one kernel (two daemons on one machine, containers): the same device and inode, exactly;
 *   - two kernels, file: a file system that hosts share (NFS, Ceph, GFS2 ...), the same type at
 *     both, the same inode. Device numbers are each host's own. A local file system is never
 *     shared: freshly made ones give equal inodes to different files;
 *   - two kernels, block device: the same WWID and size.
 *
 *   Contents are not compared: the guest writes them while we would look.
 */
#ifndef TRANSHIP_CONTROL_DISK_IDENTITY_H
#define TRANSHIP_CONTROL_DISK_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_IDENTITY_SIZE 256

struct disk_identity {
	char boot[40]; /* /proc/sys/kernel/random/boot_id */
	bool block;
	uint64_t fs;	 /* statfs f_type; 0 for block devices */
	uint64_t device; /* st_dev, or st_rdev of a block device */
	uint64_t inode;	 /* 0 for block devices */
	uint64_t size;	 /* bytes */
	char wwid[96];	 /* "" if it has none */
};

/* Looks at path (follows links). -errno; -ENOTSUP if it is neither a file nor a block device. */
int disk_identity_look(const char *path, struct disk_identity *id);

/* The text form of disk_identity_look(); len should be DISK_IDENTITY_SIZE. -errno, -ENOSPC. */
int disk_identity_read(const char *path, char *text, size_t len);
/* And back. -EINVAL if it is not of the form. */
int disk_identity_parse(const char *text, struct disk_identity *id);

/*
 * True if both are the same storage. fixed_size: the size cannot change while a VM runs (raw).
 * why, of len bytes, gets half a sentence when false.
 */
bool disk_identity_same(const struct disk_identity *a, const struct disk_identity *b,
			bool fixed_size, char *why, size_t len);

#endif
