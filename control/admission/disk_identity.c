// SPDX-License-Identifier: MIT
/* Whether two hosts see the same storage under a path; see disk_identity.h. */
#include "control/admission/disk_identity.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "lib/base/cleanup.h"

/* File systems whose files several hosts can see at once, by statfs(2)'s f_type. */
static const struct {
	uint64_t magic;
	const char *name;
} shared_filesystems[] = {
	{ 0x6969, "nfs" },	  { 0x517b, "smb" },	    { 0xff534d42, "cifs" },
	{ 0xfe534d42, "smb2" },	  { 0x00c36400, "ceph" },   { 0x01161970, "gfs2" },
	{ 0x7461636f, "ocfs2" },  { 0x0bd00bd0, "lustre" }, { 0x47504653, "gpfs" },
	{ 0x65735546, "fuse" },	  { 0x5346414f, "afs" },    { 0xa501fcf5, "vxfs" },
	{ 0x19830326, "beegfs" }, { 0x01021997, "9p" },
};

static bool can_be_shared(uint64_t fs)
{
	for (size_t i = 0; i < sizeof(shared_filesystems) / sizeof(shared_filesystems[0]); i++)
		if (shared_filesystems[i].magic == fs)
			return true;
	return false;
}

/* The first line of a small file, blanks replaced: the text form is blank-separated. */
static int read_word(const char *path, char *out, size_t len)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, len - 1);
	if (n < 0)
		return -errno;
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	for (char *c = out; *c; c++)
		if (!isgraph((unsigned char)*c))
			*c = '_';
	return out[0] ? 0 : -ENODATA;
}

/* A block device's own name, from whichever driver says it. */
static void read_wwid(uint64_t rdev, char *out, size_t len)
{
	static const char *const places[] = { "wwid", "device/wwid", "dm/uuid", "device/serial" };
	char path[128];

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(rdev), minor(rdev),
			 places[i]);
		if (!read_word(path, out, len))
			return;
	}
	out[0] = '\0';
}

static int look_at_block(const char *path, struct disk_identity *id)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, BLKGETSIZE64, &id->size))
		return -errno;
	read_wwid(id->device, id->wwid, sizeof(id->wwid));
	return 0;
}

int disk_identity_look(const char *path, struct disk_identity *id)
{
	struct statfs fs;
	struct stat st;
	int rc;

	memset(id, 0, sizeof(*id));
	rc = read_word("/proc/sys/kernel/random/boot_id", id->boot, sizeof(id->boot));
	if (rc)
		return rc;
	if (stat(path, &st))
		return -errno;
	if (S_ISBLK(st.st_mode)) {
		id->block = true;
		id->device = st.st_rdev;
		return look_at_block(path, id);
	}
	if (!S_ISREG(st.st_mode))
		return -ENOTSUP;
	if (statfs(path, &fs))
		return -errno;
	id->fs = (uint64_t)(unsigned int)fs.f_type;
	id->device = st.st_dev;
	id->inode = st.st_ino;
	id->size = (uint64_t)st.st_size;
	return 0;
}

int disk_identity_read(const char *path, char *text, size_t len)
{
	struct disk_identity id;
	int rc = disk_identity_look(path, &id);
	int n;

	if (rc)
		return rc;
	n = snprintf(text, len,
		     "boot=%s kind=%s fs=%" PRIx64 " dev=%" PRIx64 " ino=%" PRIu64 " size=%" PRIu64
		     " wwid=%s",
		     id.boot, id.block ? "block" : "file", id.fs, id.device, id.inode, id.size,
		     id.wwid);
	return n < 0 || (size_t)n >= len ? -ENOSPC : 0;
}

int disk_identity_parse(const char *text, struct disk_identity *id)
{
	char kind[8];
	int end = -1;

	memset(id, 0, sizeof(*id));
	if (sscanf(text,
		   "boot=%39s kind=%7s fs=%" SCNx64 " dev=%" SCNx64 " ino=%" SCNu64 " size=%" SCNu64
		   " wwid=%n%95s",
		   id->boot, kind, &id->fs, &id->device, &id->inode, &id->size, &end,
		   id->wwid) < 6 ||
	    end < 0)
		return -EINVAL;
	id->block = !strcmp(kind, "block");
	return id->block || !strcmp(kind, "file") ? 0 : -EINVAL;
}

static bool differ(char *why, size_t len, const char *text)
{
	snprintf(why, len, "%s", text);
	return false;
}

bool disk_identity_same(const struct disk_identity *a, const struct disk_identity *b,
			bool fixed_size, char *why, size_t len)
{
	if (a->block != b->block)
		return differ(why, len, "one is a file and the other a block device");
	if (!strcmp(a->boot, b->boot)) {
		if (a->device == b->device && a->inode == b->inode)
			return true;
		return differ(why, len, "it is another file at the destination");
	}
	if (fixed_size && a->size != b->size)
		return differ(why, len, "its size differs at the destination");
	if (a->block) {
		if (!a->wwid[0] || strcmp(a->wwid, b->wwid))
			return differ(why, len, "the device's WWID is unknown or differs");
		return true;
	}
	if (!can_be_shared(a->fs) || a->fs != b->fs)
		return differ(why, len, "it is on a file system that hosts do not share");
	if (a->inode != b->inode)
		return differ(why, len, "it is another file at the destination");
	return true;
}
