// SPDX-License-Identifier: MIT
/*
 * Processor bandwidth by cgroup version 2, in threaded groups.
 *
 * Threads of one process may be in different groups if these are "threaded" and lie below the one
 * in which the process is; that one then is their domain, and stays it for everything but what is
 * counted by thread. The manager's group is made a domain by our group below it alone and is an
 * ordinary one again when that is removed; a threaded group of a manager (libvirt's vcpuN) takes
 * ours as it is. The one thing changed in the manager's group itself is that it hands its "cpu"
 * controller on (cgroup.subtree_control), if it does not yet: lend and take_back.
 *
 * The controller must have been handed down to the manager's group. If it has not been, this does
 * not do it: that would change how all its siblings share the processors.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/guest/throttle_cgroup.h"

#define WEIGHT_OF_THREAD 1024u /* of nice 0 */
#define WEIGHT_DEFAULT	 100u
#define WEIGHT_MAX	 10000u
#define V2_MAGIC	 0x63677270u /* CGROUP2_SUPER_MAGIC */

static int v2_group_of(pid_t pid, pid_t tid, char group[PATH_MAX], size_t *mount, char *why,
		       size_t len)
{
	char path[PATH_MAX];
	int err = cgroup_path_of(pid, tid, NULL, path);

	if (err == -ENOENT)
		snprintf(why, len, "version 2 is not there");
	else if (err)
		snprintf(why, len, "its group of version 2 cannot be seen");
	if (err)
		return err;
	err = cgroup_mounted(NULL, path, group, mount);
	if (err)
		snprintf(why, len, "version 2 is not mounted here");
	return err;
}

static bool hands_on_cpu(const char *group)
{
	char text[256];

	return !cgroup_read(group, "cgroup.subtree_control", text, sizeof(text)) &&
	       cgroup_has_word(text, "cpu");
}

static int v2_usable(const char *group, char *why, size_t len)
{
	char text[256];
	int err = cgroup_read(group, "cgroup.controllers", text, sizeof(text));

	if (!err && !cgroup_has_word(text, "cpu")) {
		snprintf(why, len, "version 2 has no cpu controller in %.200s", group);
		return -ENOTSUP;
	}
	if (!err && access(group, W_OK))
		err = -errno;
	if (err)
		snprintf(why, len, "%.200s: %s", group, strerror(-err));
	return err;
}

static int v2_make(const char *group)
{
	int err = mkdir(group, 0755) ? -errno : 0;

	if (err)
		return err;
	err = cgroup_write(group, "cgroup.type", "threaded");
	if (err)
		rmdir(group);
	return err;
}

static bool v2_lends(const char *group)
{
	return !hands_on_cpu(group);
}

static int v2_lend(const char *group)
{
	return cgroup_write(group, "cgroup.subtree_control", "+cpu");
}

static int is_one(const char *below, void *arg)
{
	(void)below;
	(void)arg;
	return 1;
}

static void v2_take_back(const char *group)
{
	if (!cgroup_each_below(group, is_one, NULL))
		cgroup_write(group, "cgroup.subtree_control", "-cpu");
}

static int v2_set_weight(const char *group, unsigned int weight)
{
	uint64_t value = (uint64_t)weight * WEIGHT_DEFAULT / WEIGHT_OF_THREAD;
	char text[16];

	value = value < 1 ? 1 : value > WEIGHT_MAX ? WEIGHT_MAX : value;
	snprintf(text, sizeof(text), "%" PRIu64, value);
	return cgroup_write(group, "cpu.weight", text);
}

static int v2_set_limit(const char *group, uint64_t quota, uint64_t period)
{
	char text[64];

	snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64, quota, period);
	return cgroup_write(group, "cpu.max", quota ? text : "max");
}

static double v2_limit(const char *group)
{
	double quota, period;
	char text[64];

	/* "max 100000", or "50000 100000"; the topmost group has no such file. */
	if (cgroup_read(group, "cpu.max", text, sizeof(text)) ||
	    sscanf(text, "%lf %lf", &quota, &period) != 2 || quota <= 0 || period <= 0)
		return 0;
	return quota / period;
}

const struct cgroup_ops cgroup_v2 = {
	.name = "v2",
	.threads = "cgroup.threads",
	.magic = V2_MAGIC,
	.group_of = v2_group_of,
	.usable = v2_usable,
	.make = v2_make,
	.lends = v2_lends,
	.lend = v2_lend,
	.take_back = v2_take_back,
	.set_weight = v2_set_weight,
	.set_limit = v2_set_limit,
	.limit = v2_limit,
};
