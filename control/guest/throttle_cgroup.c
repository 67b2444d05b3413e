// SPDX-License-Identifier: MIT
/* Finding cgroups and their files, of either version; see throttle_cgroup.h. */
#include "control/guest/throttle_cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

/* --- where a thread is ------------------------------------------------------------------------ */

static bool has_controller(char *list, const char *controller)
{
	char *rest = list, *word;

	while ((word = strsep(&rest, ",")))
		if (!strcmp(word, controller))
			return true;
	return false;
}

/* "4:cpu,cpuacct:/machine/x": the path if the line is of that hierarchy, or NULL. */
static char *path_in_line(char *line, const char *controller)
{
	char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

	if (!path)
		return NULL;
	*list++ = '\0';
	*path++ = '\0';
	path[strcspn(path, "\n")] = '\0';
	if (controller)
		return has_controller(list, controller) ? path : NULL;
	return !strcmp(line, "0") && !*list ? path : NULL;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), len = strlen(end);

	return n >= len && !strcmp(text + n - len, end);
}

static int judge_path(const char *path)
{
	if (ends_with(path, " (deleted)"))
		return -ESTALE;
	if (path[0] != '/' || strstr(path, "/../") || ends_with(path, "/.."))
		return -EXDEV;
	return strlen(path) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int cgroup_path_of(pid_t pid, pid_t tid, const char *controller, char path[PATH_MAX])
{
	AUTO_FREE char *line = NULL;
	int err = -ENOENT;
	char name[64];
	size_t room = 0, lines = 0;
	FILE *file;

	snprintf(name, sizeof(name), "/proc/%d/task/%d/cgroup", pid, tid);
	file = fopen(name, "re");
	if (!file)
		return errno == ENOENT ? -ESRCH : -errno;
	while (err == -ENOENT && getline(&line, &room, file) > 0) {
		const char *found = path_in_line(line, controller);

		lines++;
		if (!found)
			continue;
		err = judge_path(found);
		if (!err)
			strcpy(path, found);
	}
	/* Of a thread that has ended just now. */
	if (!lines)
		err = -ESRCH;
	fclose(file);
	return err;
}

/* --- where that is mounted -------------------------------------------------------------------- */

/* Paths in mountinfo have octal escapes for blanks and backslashes. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; to++) {
		unsigned int byte;

		if (s[0] == '\\' && sscanf(s + 1, "%3o", &byte) == 1 && strlen(s) >= 4) {
			*to = (char)byte;
			s += 4;
		} else {
			*to = *s++;
		}
	}
	*to = '\0';
}

struct mount {
	char *root, *point, *type, *options;
};

/* "ID PARENT DEV ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE SUPER_OPTIONS" */
static bool parse_mount(char *line, struct mount *m)
{
	char *rest = strstr(line, " - "), *at = line;

	if (!rest)
		return false;
	*rest = '\0';
	rest += 3;
	for (int i = 0; i < 3; i++)
		strsep(&at, " ");
	m->root = strsep(&at, " ");
	m->point = strsep(&at, " ");
	m->type = strsep(&rest, " ");
	strsep(&rest, " ");
	m->options = strsep(&rest, " \n");
	if (!m->point || !m->options)
		return false;
	unescape(m->root);
	unescape(m->point);
	return true;
}

static bool is_hierarchy(const struct mount *m, const char *controller)
{
	if (!controller)
		return !strcmp(m->type, "cgroup2");
	return !strcmp(m->type, "cgroup") && has_controller(m->options, controller);
}

/* The part of path below root, or NULL. */
static const char *below(const char *root, const char *path)
{
	size_t n = strlen(root);

	if (!strcmp(root, "/"))
		return path;
	return !strncmp(path, root, n) && (path[n] == '/' || !path[n]) ? path + n : NULL;
}

int cgroup_mounted(const char *controller, const char *path, char dir[PATH_MAX], size_t *mount)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	AUTO_FREE char *line = NULL;
	int err = -ENOENT;
	size_t room = 0;
	struct mount m;

	if (!file)
		return -errno;
	while (err && getline(&line, &room, file) > 0) {
		const char *rest;

		if (!parse_mount(line, &m) || !is_hierarchy(&m, controller))
			continue;
		rest = below(m.root, path);
		if (!rest || snprintf(dir, PATH_MAX, "%s%s", m.point,
				      strcmp(rest, "/") ? rest : "") >= PATH_MAX)
			continue;
		*mount = strlen(m.point);
		/* Another mount may lie over this one. */
		err = access(dir, F_OK) ? -ENOENT : 0;
	}
	fclose(file);
	return err;
}

/* --- files ------------------------------------------------------------------------------------ */

static int open_file(const char *group, const char *file, int flags)
{
	char path[PATH_MAX];
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", group, file) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int cgroup_write(const char *group, const char *file, const char *text)
{
	AUTO_CLOSE int fd = open_file(group, file, O_WRONLY);

	if (fd < 0)
		return fd;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int cgroup_read(const char *group, const char *file, char *buf, size_t len)
{
	AUTO_CLOSE int fd = open_file(group, file, O_RDONLY);
	size_t have = 0;
	ssize_t n = 0;

	buf[0] = '\0';
	if (fd < 0)
		return fd;
	while (have < len - 1 && (n = read(fd, buf + have, len - 1 - have)) > 0)
		have += (size_t)n;
	buf[have] = '\0';
	return n < 0 ? -errno : 0;
}

bool cgroup_has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	while (*text) {
		size_t n = strcspn(text, " \n");

		if (n == len && !memcmp(text, word, n))
			return true;
		text += n + (text[n] != '\0');
	}
	return false;
}

int cgroup_each_below(const char *group, int (*fn)(const char *below, void *arg), void *arg)
{
	DIR *dir = opendir(group);
	struct dirent *e;
	int ret = 0;

	if (!dir)
		return -errno;
	while (!ret && (e = readdir(dir))) {
		char path[PATH_MAX];

		if (e->d_type != DT_DIR || e->d_name[0] == '.' ||
		    snprintf(path, sizeof(path), "%s/%s", group, e->d_name) >= (int)sizeof(path))
			continue;
		ret = fn(path, arg);
	}
	closedir(dir);
	return ret;
}
