// SPDX-License-Identifier: MIT
/* Which paths a VM launched for a peer may touch; see launch_paths.h. */
#include "control/admission/launch_paths.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

/*
 * Where a file made or written by a guest would be believed by the host. Not a complete list, and
 * none could be: config.vm_dirs is.
 */
static const char *const system_dirs[] = {
	"/bin",
	"/boot",
	"/etc",
	"/lib",
	"/lib32",
	"/lib64",
	"/opt",
	"/proc",
	"/root",
	"/sbin",
	"/sys",
	"/usr",
	"/var/spool",
	"/var/cache",
	"/run/systemd",
	"/run/udev",
	"/run/dbus",
	"/run/sudo",
	"/run/user",
	"/run/sysctl.d",
	"/run/modprobe.d",
	"/run/modules-load.d",
	"/run/tmpfiles.d",
	"/run/sysusers.d",
	"/run/binfmt.d",
	"/run/NetworkManager",
	"/run/polkit-1",
	"/run/docker",
	"/run/containerd",
};

static bool below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	while (len > 1 && dir[len - 1] == '/')
		len--;
	return !strncmp(path, dir, len) && (path[len] == '/' || path[len] == '\0' || len == 1);
}

static int say(const char **why, const char *text, int rc)
{
	*why = text;
	return rc;
}

static int check_form(const char *path, const char **why)
{
	const char *at = path;

	if (path[0] != '/')
		return say(why,
			   "a path must be absolute, since the directory it was relative to is "
			   "the source's",
			   -EINVAL);
	if (strlen(path) >= PATH_MAX)
		return say(why, "the path is too long", -ENAMETOOLONG);
	while (*at) {
		size_t len;

		at += strspn(at, "/");
		len = strcspn(at, "/");
		if ((len == 1 && at[0] == '.') || (len == 2 && at[0] == '.' && at[1] == '.'))
			return say(why, "a path must not contain '.' or '..' elements", -EINVAL);
		at += len;
	}
	return 0;
}

static int check_place(const struct config *c, const char *resolved, const char **why)
{
	for (unsigned int i = 0; c && i < c->nvm_dirs; i++)
		if (below(resolved, c->vm_dirs[i]))
			return 0;
	if (c && c->nvm_dirs)
		return say(why, "it is outside the directories configured for VMs", -EACCES);
	for (size_t i = 0; i < sizeof(system_dirs) / sizeof(system_dirs[0]); i++)
		if (below(resolved, system_dirs[i]))
			return say(why, "it is in one of the system's own directories", -EACCES);
	return 0;
}

/* What is at path, where it really is, and that it is not a view of the kernel or of descriptors.
 */
static int resolve(const char *path, char resolved[PATH_MAX], struct stat *st, const char **why)
{
	struct statfs fs;
	int rc = check_form(path, why);

	if (rc)
		return rc;
	if (!realpath(path, resolved) || stat(resolved, st))
		return say(why,
			   errno == ENOENT ? "it does not exist here" : "it cannot be reached here",
			   -errno);
	if (statfs(resolved, &fs))
		return say(why, "it cannot be reached here", -errno);
	if (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC ||
	    fs.f_type == DEBUGFS_MAGIC || fs.f_type == TRACEFS_MAGIC ||
	    fs.f_type == SECURITYFS_MAGIC || fs.f_type == CGROUP2_SUPER_MAGIC)
		return say(why, "it is part of the kernel's interface", -EACCES);
	return 0;
}

int launch_path_disk(const struct config *c, const char *path, const char **why)
{
	char resolved[PATH_MAX];
	struct stat st;
	int rc = resolve(path, resolved, &st, why);

	if (rc)
		return rc;
	if (S_ISBLK(st.st_mode)) {
		/* O_EXCL without O_CREAT: fails while the host itself uses the device. */
		AUTO_CLOSE int fd =
			open(resolved, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

		if (fd < 0 && errno == EBUSY)
			return say(why, "the block device is in use by this host itself", -EBUSY);
		/* By its name: /dev/mapper is a directory one configures, /dev/dm-3 is not. */
		return c->nvm_dirs ? check_place(c, path, why) : 0;
	}
	if (!S_ISREG(st.st_mode))
		return say(why, "a disk must be a file or a block device", -EINVAL);
	return check_place(c, resolved, why);
}

int launch_path_readable(const char *path, const char **why)
{
	char resolved[PATH_MAX];
	struct stat st;
	int rc = resolve(path, resolved, &st, why);

	if (rc)
		return rc;
	if (!S_ISREG(st.st_mode))
		return say(why, "it is not a file", -EINVAL);
	if (!(st.st_mode & S_IROTH))
		return say(why, "the guest would read it, and it is not readable by every user",
			   -EACCES);
	return 0;
}

/* The directory that path would be made in. */
static int resolve_parent(const char *path, char dir[PATH_MAX], struct stat *st, const char **why)
{
	AUTO_FREE char *parent = NULL;
	const char *slash;
	int rc = check_form(path, why);

	if (rc)
		return rc;
	slash = strrchr(path, '/');
	if (!slash[1])
		return say(why, "it names a directory", -EISDIR);
	parent = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!parent)
		return say(why, "out of memory", -ENOMEM);
	rc = resolve(parent, dir, st, why);
	if (rc)
		return say(why, "its directory does not exist here", rc);
	return S_ISDIR(st->st_mode) ? 0 : say(why, "its directory is not one", -ENOTDIR);
}

int launch_path_new(const struct config *c, const char *path, const char **why)
{
	char dir[PATH_MAX];
	struct stat st;
	int rc = resolve_parent(path, dir, &st, why);

	if (rc)
		return rc;
	/* lstat: a dangling link would make QEMU create what it points to. */
	if (!lstat(path, &st))
		return say(why, "it exists already, and QEMU would replace it", -EEXIST);
	return check_place(c, dir, why);
}

int launch_path_append(const struct config *c, const char *path, const char **why)
{
	char resolved[PATH_MAX];
	struct stat st;
	int rc = resolve(path, resolved, &st, why);

	if (rc)
		return rc;
	if (!S_ISREG(st.st_mode))
		return say(why, "it is not a file", -EINVAL);
	return check_place(c, resolved, why);
}

int launch_path_connect(const struct config *c, const char *path, const char **why)
{
	char resolved[PATH_MAX];
	struct stat st;
	int rc = resolve(path, resolved, &st, why);

	if (rc)
		return rc;
	if (!S_ISSOCK(st.st_mode) && !S_ISFIFO(st.st_mode))
		return say(why, "it is neither a socket nor a FIFO", -EINVAL);
	if (!c->nvm_dirs)
		return say(why, "QEMU would connect to another program's socket, as root", -EACCES);
	return check_place(c, resolved, why);
}

int launch_path_ram_dir(const char *dir, bool hugetlb, uint32_t page_size, const char **why)
{
	char resolved[PATH_MAX];
	struct statfs fs;
	struct stat st;
	int rc = resolve(dir, resolved, &st, why);

	if (rc)
		return rc;
	if (statfs(resolved, &fs))
		return say(why, "it cannot be reached here", -errno);
	if (hugetlb) {
		if (fs.f_type != HUGETLBFS_MAGIC)
			return say(why, "it is not on hugetlbfs here", -EINVAL);
		if ((uint64_t)fs.f_bsize != page_size)
			return say(why, "its huge pages are of another size here", -EINVAL);
		return 0;
	}
	if (fs.f_type != TMPFS_MAGIC)
		return say(why, "it is not on tmpfs here", -EINVAL);
	return 0;
}

bool launch_path_holds_ram(const char *dir)
{
	struct statfs fs;

	return !statfs(dir, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC);
}
