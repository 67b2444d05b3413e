/* SPDX-License-Identifier: MIT */
/*
 * What throttle.c needs of cgroups, for each of their two versions: throttle_cgroup_v1.c and
 * throttle_cgroup_v2.c; throttle_cgroup.c has what both use. Groups are directories here.
 */
#ifndef TRANSHIP_CONTROL_THROTTLE_CGROUP_H
#define TRANSHIP_CONTROL_THROTTLE_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup_ops {
	const char *name;    /* "v1", "v2": in the journal too */
	const char *threads; /* the file that lists and takes thread numbers */
	uint32_t magic;	     /* of its file system, statfs(2) */

	/*
	 * The group in which the thread's processor time is counted, and how much of its path is
	 * the mount. -ESRCH: it has ended; others: it cannot be found, why says so.
	 */
	int (*group_of)(pid_t pid, pid_t tid, char group[PATH_MAX], size_t *mount, char *why,
			size_t len);
	/* 0 if threads in groups below that one can be limited; else why. */
	int (*usable)(const char *group, char *why, size_t len);

	int (*make)(const char *group); /* a new one, for threads of the parent's */
	/*
	 * Lets limits be set on groups below; lends: whether that changes the group, undone by
	 * take_back (which leaves it if the group has others below it).
	 */
	bool (*lends)(const char *group);
	int (*lend)(const char *group);
	void (*take_back)(const char *group);

	/* A share of processor time against the group's siblings, as a thread of this weight. */
	int (*set_weight)(const char *group, unsigned int weight);
	/* quota of each period, microseconds; quota 0: no limit. */
	int (*set_limit)(const char *group, uint64_t quota, uint64_t period);
	/* In processors; 0: none of its own. */
	double (*limit)(const char *group);
};

extern const struct cgroup_ops cgroup_v1, cgroup_v2;

/*
 * The thread's path in a hierarchy, as /proc/PID/task/TID/cgroup has it: of the version 1
 * controller of that name, or of version 2 (NULL). -ESRCH, -ENOENT: there is no such hierarchy;
 * -ESTALE: the group has been removed; -EXDEV: it lies outside of what this process may see.
 */
int cgroup_path_of(pid_t pid, pid_t tid, const char *controller, char path[PATH_MAX]);

/*
 * Where a path of that hierarchy is mounted: the directory, and the length of the mount's own part.
 * -ENOENT: it is not mounted, or not that part of it.
 */
int cgroup_mounted(const char *controller, const char *path, char dir[PATH_MAX], size_t *mount);

/* Small files of a group. 0 or -errno; a file that does not fit is cut off. */
int cgroup_write(const char *group, const char *file, const char *text);
int cgroup_read(const char *group, const char *file, char *buf, size_t len);
/* True if text, words between blanks, has the word. */
bool cgroup_has_word(const char *text, const char *word);
/* Calls fn with each group directly below until it returns non-zero, which is then returned. */
int cgroup_each_below(const char *group, int (*fn)(const char *below, void *arg), void *arg);

#endif
