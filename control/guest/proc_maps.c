// SPDX-License-Identifier: MIT
/* What /proc tells of another process; see proc_maps.h. */
#include "control/guest/proc_maps.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "lib/base/cleanup.h"

#define CMDLINE_MAX (4u << 20)

/* Reads a hexadecimal number and the character that must follow it. */
static bool take_hex(const char **p, char then, uint64_t *value)
{
	char *end;

	if (!isxdigit((unsigned char)**p))
		return false;
	errno = 0;
	*value = strtoull(*p, &end, 16);
	if (errno || *end != then)
		return false;
	*p = end + 1;
	return true;
}

int proc_map_parse(const char *line, struct proc_map *m)
{
	uint64_t dev_major, dev_minor;
	const char *p = line;
	char *end;

	if (!take_hex(&p, '-', &m->start) || !take_hex(&p, ' ', &m->end) || m->start >= m->end)
		return -EINVAL;
	if (strnlen(p, 5) < 5 || p[4] != ' ')
		return -EINVAL;
	m->write = p[1] == 'w';
	m->shared = p[3] == 's';
	p += 5;
	if (!take_hex(&p, ' ', &m->offset) || !take_hex(&p, ':', &dev_major) ||
	    !take_hex(&p, ' ', &dev_minor) || !isdigit((unsigned char)*p))
		return -EINVAL;
	m->device = makedev((unsigned int)dev_major, (unsigned int)dev_minor);
	m->inode = strtoull(p, &end, 10);
	m->path = end + strspn(end, " ");
	return 0;
}

int proc_maps_each(pid_t pid, int (*fn)(const struct proc_map *m, void *arg), void *arg)
{
	AUTO_FREE char *line = NULL;
	char path[64];
	size_t size = 0;
	ssize_t n;
	int ret = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	while (!ret && (n = getline(&line, &size, file)) > 0) {
		struct proc_map m;

		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		ret = proc_map_parse(line, &m);
		if (!ret)
			ret = fn(&m, arg);
	}
	if (!ret && ferror(file))
		ret = -EIO;
	fclose(file);
	return ret;
}

/* A small file of /proc as a string; 0 or -errno. */
static int read_small(pid_t pid, const char *name, char *buf, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

int proc_start_time(pid_t pid, uint64_t *ticks)
{
	char buf[1024], *p;
	int ret = read_small(pid, "stat", buf, sizeof(buf));

	if (ret)
		return ret;
	/* Field 2 is the name in parentheses and may hold anything; 3 is behind the last one. */
	p = strrchr(buf, ')');
	for (int field = 2; p && field < 22; field++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	if (!p)
		return -EINVAL;
	*ticks = strtoull(p, NULL, 10);
	return 0;
}

/* Splits len bytes of NUL-terminated words, which end with a NUL, into one allocation. */
static int split_words(const char *text, size_t len, char ***argv, size_t *argc)
{
	size_t n = 0;
	char **words, *copy;

	for (size_t i = 0; i < len; i++)
		n += text[i] == '\0';
	words = malloc((n + 1) * sizeof(*words) + len);
	if (!words)
		return -ENOMEM;
	copy = memcpy(words + n + 1, text, len);
	for (size_t i = 0; i < n; i++, copy += strlen(copy) + 1)
		words[i] = copy;
	words[n] = NULL;
	*argv = words;
	*argc = n;
	return 0;
}

int proc_cmdline(pid_t pid, char ***argv, size_t *argc)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0, size = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	for (;;) {
		ssize_t n;

		if (size - len < 4096) {
			char *bigger;

			size = size ? size * 2 : 16384;
			if (size > CMDLINE_MAX)
				return -E2BIG;
			bigger = realloc(text, size);
			if (!bigger)
				return -ENOMEM;
			text = bigger;
		}
		n = read(fd, text + len, size - len - 1);
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (!len)
		return -ESRCH;
	if (text[len - 1] != '\0')
		text[len++] = '\0';
	return split_words(text, len, argv, argc);
}

void proc_exe_name(pid_t pid, char *buf, size_t len)
{
	static const char deleted[] = " (deleted)";
	char link[64], target[PATH_MAX], *slash;
	size_t cut = sizeof(deleted) - 1;
	ssize_t n;

	buf[0] = '\0';
	snprintf(link, sizeof(link), "/proc/%d/exe", pid);
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	if ((size_t)n > cut && !strcmp(target + n - cut, deleted))
		target[(size_t)n - cut] = '\0';
	slash = strrchr(target, '/');
	snprintf(buf, len, "%s", slash ? slash + 1 : target);
}

long proc_status_number(pid_t pid, const char *field)
{
	char buf[8192], *p;
	size_t len = strlen(field);

	if (read_small(pid, "status", buf, sizeof(buf)))
		return -1;
	for (p = buf; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (!strncmp(p, field, len) && p[len] == ':')
			return strtol(p + len + 1, NULL, 10);
	}
	return -1;
}

int proc_each(int (*fn)(pid_t pid, void *arg), void *arg)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	int ret = 0;

	if (!dir)
		return -errno;
	while (!ret && (e = readdir(dir)))
		if (isdigit((unsigned char)e->d_name[0]))
			ret = fn((pid_t)strtol(e->d_name, NULL, 10), arg);
	closedir(dir);
	return ret;
}

int proc_fds_each(pid_t pid, int (*fn)(int fd, const char *target, void *arg), void *arg)
{
	char path[64], target[PATH_MAX];
	struct dirent *e;
	int ret = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (!ret && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		if (n < 0 || !isdigit((unsigned char)e->d_name[0]))
			continue;
		target[n] = '\0';
		ret = fn((int)strtol(e->d_name, NULL, 10), target, arg);
	}
	closedir(dir);
	return ret;
}

int proc_open_path(pid_t pid, const char *path, int flags)
{
	struct open_how how = { .flags = (unsigned int)(flags | O_CLOEXEC),
				.resolve = RESOLVE_IN_ROOT };
	char base[64];
	int fd;

	/* The link itself, /proc/PID/root or cwd, leads into the other mount namespace. */
	snprintf(base, sizeof(base), "/proc/%d/%s", pid, path[0] == '/' ? "root" : "cwd");
	AUTO_CLOSE int dir = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	if (path[0] == '/')
		fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
	else
		fd = openat(dir, path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /path" -> inode and path. */
static const char *unix_line_path(char *line, unsigned long *inode)
{
	char *p = line;

	for (int field = 0; field < 6; field++) {
		p += strcspn(p, " ");
		p += strspn(p, " ");
	}
	*inode = strtoul(p, &p, 10);
	return *p == ' ' ? p + 1 : "";
}

int proc_unix_socket_path(pid_t pid, int fd, char *buf, size_t len)
{
	AUTO_FREE char *line = NULL;
	unsigned long wanted, inode;
	char path[64], link[64];
	int ret = -ENOENT;
	size_t size = 0;
	ssize_t n;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return -errno;
	link[n] = '\0';
	if (sscanf(link, "socket:[%lu]", &wanted) != 1)
		return -ENOENT;
	snprintf(path, sizeof(path), "/proc/%d/net/unix", pid);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	while (ret && (n = getline(&line, &size, file)) > 0) {
		const char *found;

		line[strcspn(line, "\n")] = '\0';
		found = unix_line_path(line, &inode);
		if (inode == wanted && found[0] == '/' && strlen(found) < len) {
			strcpy(buf, found);
			ret = 0;
		}
	}
	fclose(file);
	return ret;
}
