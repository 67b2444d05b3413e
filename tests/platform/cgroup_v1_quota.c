// SPDX-License-Identifier: MIT
/*
 * What control/guest/throttle.c relies on in cgroup version 1: a group's quota is refused if it is
 * a larger part of a processor than its parent's, and its parent's if it is smaller than its own;
 * none is below 1 ms; and a thread begins its life in the group of the thread that made it.
 */
#include <mntent.h>
#include <pthread.h>
#include <sys/stat.h>

#include "tests/platform/common.h"

static char parent[256], child[300];

/* 0 or -errno. */
static int put(const char *group, const char *file, long value)
{
	char path[400], text[24];
	int fd, n, err = 0;

	snprintf(path, sizeof(path), "%s/%s", group, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = snprintf(text, sizeof(text), "%ld", value);
	if (write(fd, text, (size_t)n) < 0)
		err = -errno;
	close(fd);
	return err;
}

static bool find(char *point, size_t len)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	bool found = false;

	while (mounts && !found && (m = getmntent(mounts))) {
		found = !strcmp(m->mnt_type, "cgroup") && hasmntopt(m, "cpu");
		snprintf(point, len, "%s", m->mnt_dir);
	}
	if (mounts)
		endmntent(mounts);
	return found;
}

static void remove_groups(void)
{
	rmdir(child);
	rmdir(parent);
}

/* True if the thread that asks is in the child. */
static void *is_in_child(void *arg)
{
	char path[400], line[32];
	long self = syscall(SYS_gettid);
	FILE *tasks;

	snprintf(path, sizeof(path), "%s/tasks", child);
	tasks = fopen(path, "re");
	while (tasks && fgets(line, sizeof(line), tasks))
		if (atol(line) == self)
			*(bool *)arg = true;
	if (tasks)
		fclose(tasks);
	return NULL;
}

int main(void)
{
	bool inherited = false;
	char point[200];
	pthread_t made;
	int err;

	if (!find(point, sizeof(point)))
		skip("the cpu hierarchy of cgroup version 1 is not mounted");
	snprintf(parent, sizeof(parent), "%s/tranship-platform-%d", point, getpid());
	snprintf(child, sizeof(child), "%s/child", parent);
	if (mkdir(parent, 0755) || mkdir(child, 0755))
		skip("%s: %s", parent, strerror(errno));
	atexit(remove_groups);
	if (access(parent, F_OK) || put(parent, "cpu.cfs_period_us", 100000))
		skip("this kernel has no processor bandwidth");

	prove(!(err = put(parent, "cpu.cfs_quota_us", 50000)), "%s", strerror(-err));
	prove((err = put(child, "cpu.cfs_quota_us", 60000)) == -EINVAL, "%d", err);
	prove(!(err = put(child, "cpu.cfs_quota_us", 40000)), "%s", strerror(-err));
	prove((err = put(parent, "cpu.cfs_quota_us", 30000)) == -EINVAL, "%d", err);
	/* it is the part that counts, and the child's period alone changes it */
	prove((err = put(child, "cpu.cfs_period_us", 50000)) == -EINVAL, "%d", err);
	prove((err = put(child, "cpu.cfs_quota_us", 999)) == -EINVAL, "%d", err);
	prove(!(err = put(child, "cpu.cfs_quota_us", -1)), "%s", strerror(-err));
	prove(!(err = put(parent, "cpu.cfs_quota_us", 30000)), "%s", strerror(-err));

	prove(!(err = put(child, "tasks", syscall(SYS_gettid))), "%s", strerror(-err));
	pthread_create(&made, NULL, is_in_child, &inherited);
	pthread_join(made, NULL);
	prove(!(err = put(point, "tasks", syscall(SYS_gettid))), "%s", strerror(-err));
	prove(inherited, "the thread is elsewhere");
	printf("quotas are nested, threads inherit their group\n");
	return 0;
}
