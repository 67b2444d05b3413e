// SPDX-License-Identifier: MIT
/*
 * Processor bandwidth by cgroup version 1: the "cpu" hierarchy, threads one by one in `tasks`.
 *
 * A group's quota may not be a larger part of a processor than that of any group above it (the
 * kernel refuses it with EINVAL), and that of a group above may not be made smaller than those
 * below it: throttle.c writes them in an order in which both hold. A new group has no quota.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/guest/throttle_cgroup.h"

#define CONTROLLER "cpu"
#define SHARES_MIN 2u
#define SHARES_MAX 262144u
#define V1_MAGIC   0x27e0ebu /* CGROUP_SUPER_MAGIC */

static int v1_group_of(pid_t pid, pid_t tid, char group[PATH_MAX], size_t *mount, char *why,
		       size_t len)
{
	char path[PATH_MAX];
	int err = cgroup_path_of(pid, tid, CONTROLLER, path);

	if (err == -ENOENT)
		snprintf(why, len, "version 1 has no cpu hierarchy");
	else if (err)
		snprintf(why, len, "its group of version 1 cannot be seen");
	if (err)
		return err;
	err = cgroup_mounted(CONTROLLER, path, group, mount);
	if (err)
		snprintf(why, len, "the cpu hierarchy of version 1 is not mounted here");
	return err;
}

static int v1_usable(const char *group, char *why, size_t len)
{
	if (!access(group, W_OK))
		return 0;
	snprintf(why, len, "%.200s: %s", group, strerror(errno));
	return -errno;
}

static int v1_make(const char *group)
{
	return mkdir(group, 0755) ? -errno : 0;
}

static bool v1_lends(const char *group)
{
	(void)group;
	return false;
}

static int v1_lend(const char *group)
{
	(void)group;
	return 0;
}

static void v1_take_back(const char *group)
{
	(void)group;
}

static int v1_set_weight(const char *group, unsigned int weight)
{
	char text[16];

	weight = weight < SHARES_MIN ? SHARES_MIN : weight > SHARES_MAX ? SHARES_MAX : weight;
	snprintf(text, sizeof(text), "%u", weight);
	return cgroup_write(group, "cpu.shares", text);
}

static int v1_set_limit(const char *group, uint64_t quota, uint64_t period)
{
	char text[24];
	int err;

	if (!quota)
		return cgroup_write(group, "cpu.cfs_quota_us", "-1");
	snprintf(text, sizeof(text), "%" PRIu64, period);
	err = cgroup_write(group, "cpu.cfs_period_us", text);
	snprintf(text, sizeof(text), "%" PRIu64, quota);
	return err ? err : cgroup_write(group, "cpu.cfs_quota_us", text);
}

static double v1_limit(const char *group)
{
	char quota[24], period[24];

	/* The topmost group has no such file. */
	if (cgroup_read(group, "cpu.cfs_quota_us", quota, sizeof(quota)) ||
	    cgroup_read(group, "cpu.cfs_period_us", period, sizeof(period)) || atof(quota) <= 0 ||
	    atof(period) <= 0)
		return 0;
	return atof(quota) / atof(period);
}

const struct cgroup_ops cgroup_v1 = {
	.name = "v1",
	.threads = "tasks",
	.magic = V1_MAGIC,
	.group_of = v1_group_of,
	.usable = v1_usable,
	.make = v1_make,
	.lends = v1_lends,
	.lend = v1_lend,
	.take_back = v1_take_back,
	.set_weight = v1_set_weight,
	.set_limit = v1_set_limit,
	.limit = v1_limit,
};
