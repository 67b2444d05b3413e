// SPDX-License-Identifier: MIT
/*
 * Slowing down threads by cgroup processor bandwidth; see throttle.h.
 *
 * Theory of operation
 *   A thread's own group stays the one that its manager put it in: a group of ours is made below
 *   that, so whatever limit holds there, or above, still holds. Below each such group G:
 *
 *	G/tranship-OWNER		the share of all our threads in G together
 *	G/tranship-OWNER/TID		the share of one thread
 *
 *   Full speed is what a thread could have: one processor, or what the quotas of G and above it
 *   leave if that is less; of all together, as many processors as they are, or likewise. Each
 *   group gets its share of its full speed. So one busy processor of eight is slowed as well as
 *   eight busy ones, and never below the share that was asked for. Quotas are read anew at each
 *   change.
 *
 *   Against its siblings in G a group counts as much as the threads in it did before (weight, by
 *   their nice values): a group of default weight would count as one thread.
 *
 *   Periods are 10 ms. Tried with one busy thread (Linux 6.18, HZ=250, of 50 %): 100 ms stalls it
 *   for 52 ms at a time, 20 ms for 20, 10 ms for 12; with 5 ms it got 42 % and with 2 ms 34 %,
 *   because the time is counted in ticks. The kernel takes no quota below 1 ms, so that periods
 *   grow below 10 %.
 *
 *   Version 1 refuses a child's quota above its parent's, at any moment: quotas are lowered from
 *   the inside out and raised from the outside in. For the same reason a manager cannot lower its
 *   own quota below ours while a guest is throttled (version 2 has no such rule).
 *
 *   Threads that ours have made meanwhile are put back into G whenever a share is set: nothing but
 *   virtual processors is slowed. The end, and the undoing of what a crash left, are one function:
 *   every thread in the groups goes to G, then they are removed.
 *
 *   What it takes (Linux 6.18, version 1): beginning 0.3 ms for 4 threads, 3 to 50 for 64, 20 to
 *   240 for 256; lifting 0.1, 1 and 5; a busy thread among them stood still for less than
 *   20 ms meanwhile, which is what it takes to be scheduled there.
 *
 *   Not throttled: threads of real-time or deadline scheduling, which quotas do not hold.
 */
#include "control/guest/throttle.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "control/guest/throttle_cgroup.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define PREFIX	      "tranship-"
#define PERIOD_US     10000u
#define PERIOD_MAX_US 1000000u
#define QUOTA_MIN_US  1000u /* the kernel's */
#define REMOVE_MS     1000u /* threads that are just ending keep a group for so long at most */
#define LIST_MAX      65536
#define WEIGHT_IDLE   3u /* of SCHED_IDLE, in the kernel's units */
#define HINT_CONTROLLER                                                                            \
	"Hand the cpu controller down to the VM's control group (systemd: CPUAccounting=yes)."

struct throttle_thread {
	pid_t tid;
	unsigned int group; /* index into groups */
	unsigned int weight;
};

/* A group of the manager's with some of the threads in it. */
struct throttle_group {
	char *parent;	    /* owned */
	size_t mount;	    /* how much of parent is the mount */
	unsigned int count; /* of our threads */
	bool lends;	    /* taking it over changes the parent */
	double granted;	    /* processors, to all of them together */
};

struct throttle {
	const struct cgroup_ops *ops;
	pid_t pid;
	char name[96]; /* of the groups */
	struct throttle_thread *threads;
	size_t nthreads;
	struct throttle_group *groups;
	size_t ngroups;
	unsigned int share;
	bool begun;
};

static const struct cgroup_ops *const versions[] = { &cgroup_v2, &cgroup_v1 };

/* --- finding out ------------------------------------------------------------------------------ */

/* Of the kernel's sched_prio_to_weight: a factor of 1.25 a step, 1024 at 0. */
static unsigned int weight_of(pid_t tid)
{
	static const unsigned int weights[] = {
		88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916,
		9548,  7620,  6100,  4904,  3906,  3121,  2501,	 1991,	1586,  1277,
		1024,  820,   655,   526,   423,   335,	  272,	 215,	172,   137,
		110,   87,    70,    56,    45,	   36,	  29,	 23,	18,    15,
	};
	int nice;

	if (sched_getscheduler(tid) == SCHED_IDLE)
		return WEIGHT_IDLE;
	errno = 0;
	nice = getpriority(PRIO_PROCESS, (id_t)tid);
	return errno || nice < -20 || nice > 19 ? 1024 : weights[nice + 20];
}

static bool is_fair(pid_t tid)
{
	int policy = sched_getscheduler(tid);

	return policy < 0 || policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE;
}

static void forget_groups(struct throttle *t)
{
	while (t->ngroups)
		free(t->groups[--t->ngroups].parent);
}

/* Index of the group with that path, a new one if there is none yet; -ENOMEM. */
static int group_index(struct throttle *t, const char *parent, size_t mount)
{
	unsigned int i = 0;

	while (i < t->ngroups && strcmp(t->groups[i].parent, parent))
		i++;
	if (i < t->ngroups)
		return (int)i;
	t->groups[i] = (struct throttle_group){ .parent = strdup(parent),
						.mount = mount,
						.lends = t->ops->lends(parent),
						.granted = INFINITY };
	if (!t->groups[i].parent)
		return -ENOMEM;
	t->ngroups++;
	return (int)i;
}

/* -ESRCH: it has ended. */
static int add_thread(struct throttle *t, pid_t tid, char *why, size_t len)
{
	struct throttle_thread *th = &t->threads[t->nthreads];
	char group[PATH_MAX];
	size_t mount = 0;
	int err = t->ops->group_of(t->pid, tid, group, &mount, why, len), index;

	if (err)
		return err;
	if (!is_fair(tid)) {
		snprintf(why, len, "thread %d has real-time priority, which no quota holds", tid);
		return -ENOTSUP;
	}
	if (strlen(group) + strlen(t->name) + 32 > PATH_MAX)
		return -ENAMETOOLONG;
	err = t->ops->usable(group, why, len);
	if (err)
		return err;
	index = group_index(t, group, mount);
	if (index < 0)
		return index;
	*th = (struct throttle_thread){ .tid = tid,
					.weight = weight_of(tid),
					.group = (unsigned int)index };
	t->groups[index].count++;
	t->nthreads++;
	return 0;
}

/* All threads in one version's groups. */
static int plan(struct throttle *t, const struct cgroup_ops *ops, const pid_t *threads,
		size_t count, char *why, size_t len)
{
	t->ops = ops;
	t->nthreads = 0;
	forget_groups(t);
	for (size_t i = 0; i < count; i++) {
		int err = add_thread(t, threads[i], why, len);

		if (err && err != -ESRCH)
			return err;
	}
	return t->nthreads ? 0 : -ESRCH;
}

static int unavailable(struct failure *f, const char *hint, const char *why)
{
	return failure_set(f, -EOPNOTSUPP, "throttle-unavailable", hint,
			   "The VM's processors cannot be slowed down: %s.", why);
}

/* The first version that will do; else what each lacks. */
static int choose(struct throttle *t, const pid_t *threads, size_t count, struct failure *f)
{
	char whys[2][320] = { "", "" }, both[660];

	for (int i = 0; i < 2; i++) {
		int err = plan(t, versions[i], threads, count, whys[i], sizeof(whys[i]));

		if (!err)
			return 0;
		if (err == -ESRCH)
			return failure_set(f, err, "vm-gone", NULL,
					   "The VM's processor threads have ended.");
	}
	snprintf(both, sizeof(both), "cgroup %s; %s", whys[0], whys[1]);
	return unavailable(f, HINT_CONTROLLER, both);
}

int throttle_new(struct throttle **out, pid_t pid, const pid_t *threads, size_t count,
		 const char *owner, struct failure *f)
{
	struct throttle *t = calloc(1, sizeof(*t));
	int err;

	*out = NULL;
	if (t && count) {
		t->threads = calloc(count, sizeof(*t->threads));
		t->groups = calloc(count, sizeof(*t->groups));
	}
	if (!t || (count && (!t->threads || !t->groups))) {
		err = failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	} else {
		t->pid = pid;
		t->share = THROTTLE_SHARE_MAX;
		snprintf(t->name, sizeof(t->name), PREFIX "%s", owner);
		err = choose(t, threads, count, f);
	}
	if (err)
		throttle_free(t);
	else
		*out = t;
	return err;
}

json_t *throttle_residue(const struct throttle *t)
{
	json_t *groups = json_array();

	for (size_t i = 0; i < t->ngroups; i++)
		json_array_append_new(groups, json_pack("{s:s, s:b}", "parent", t->groups[i].parent,
							"lends", t->groups[i].lends));
	return json_pack("{s:s, s:s, s:o}", "cgroup", t->ops->name, "name", t->name, "groups",
			 groups);
}

/* --- the end ---------------------------------------------------------------------------------- */

struct removal {
	const struct cgroup_ops *ops;
	const char *parent; /* where threads go */
};

static int move_thread(const struct cgroup_ops *ops, long tid, const char *to)
{
	char text[24];

	snprintf(text, sizeof(text), "%ld", tid);
	return cgroup_write(to, ops->threads, text);
}

/* The threads in a group but keep (0: none) go into another. */
static void empty_into(const struct cgroup_ops *ops, const char *group, const char *to, pid_t keep)
{
	AUTO_FREE char *list = malloc(LIST_MAX);
	char *at = list, *end;
	long tid;

	if (!list || cgroup_read(group, ops->threads, list, LIST_MAX))
		return;
	for (; (tid = strtol(at, &end, 10)) > 0; at = end) {
		if (tid != keep)
			move_thread(ops, tid, to);
	}
}

/* -EBUSY for as long as a thread that is ending has not left it. */
static int remove_one(const struct cgroup_ops *ops, const char *group, const char *to)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	uint64_t start = clock_ns();

	for (;;) {
		empty_into(ops, group, to, 0);
		if (!rmdir(group) || errno == ENOENT)
			return 0;
		if (errno != EBUSY || clock_ms_since(start) >= REMOVE_MS)
			return -errno;
		nanosleep(&nap, NULL);
	}
}

static int remove_below(const char *group, void *arg)
{
	const struct removal *r = arg;
	int err = remove_one(r->ops, group, r->parent);

	if (err)
		log_warn("%s: the group is left: %s", group, strerror(-err));
	return 0;
}

static void remove_group(const struct cgroup_ops *ops, const char *parent, const char *name,
			 bool lends)
{
	struct removal r = { .ops = ops, .parent = parent };
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", parent, name) >= (int)sizeof(path))
		return;
	if (!access(path, F_OK)) {
		cgroup_each_below(path, remove_below, &r);
		remove_below(path, &r);
	}
	if (lends)
		ops->take_back(parent);
}

void throttle_end(struct throttle *t)
{
	if (!t->begun)
		return;
	for (size_t i = 0; i < t->ngroups; i++)
		remove_group(t->ops, t->groups[i].parent, t->name, t->groups[i].lends);
	t->begun = false;
	t->share = THROTTLE_SHARE_MAX;
}

void throttle_free(struct throttle *t)
{
	if (!t)
		return;
	throttle_end(t);
	if (t->groups)
		forget_groups(t);
	free(t->threads);
	free(t->groups);
	free(t);
}

void throttle_undo(const json_t *residue)
{
	const char *version = json_string_value(json_object_get(residue, "cgroup"));
	const char *name = json_string_value(json_object_get(residue, "name"));
	const struct cgroup_ops *ops = NULL;
	const json_t *group;
	size_t i;

	for (size_t v = 0; version && v < sizeof(versions) / sizeof(versions[0]); v++)
		if (!strcmp(versions[v]->name, version))
			ops = versions[v];
	if (!ops || !name || strncmp(name, PREFIX, sizeof(PREFIX) - 1) || strchr(name, '/'))
		return;
	json_array_foreach (json_object_get(residue, "groups"), i, group) {
		const char *parent = json_string_value(json_object_get(group, "parent"));
		struct statfs fs;

		if (!parent || statfs(parent, &fs) || (uint32_t)fs.f_type != ops->magic)
			continue; /* gone, and all below it */
		remove_group(ops, parent, name, json_is_true(json_object_get(group, "lends")));
	}
}

/* --- the beginning ---------------------------------------------------------------------------- */

/* Ours in a manager's group, and one thread's in that. That they fit was seen by add_thread(). */
static void group_path(const struct throttle *t, const struct throttle_group *g,
		       char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s", g->parent, t->name) >= PATH_MAX)
		path[0] = '\0';
}

static void thread_path(const struct throttle *t, const struct throttle_thread *th,
			char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s/%d", t->groups[th->group].parent, t->name, th->tid) >=
	    PATH_MAX)
		path[0] = '\0';
}

static int make_group(struct throttle *t, struct throttle_group *g, const char *path)
{
	unsigned int weight = 0;
	int err;

	for (size_t i = 0; i < t->nthreads; i++)
		if (&t->groups[t->threads[i].group] == g)
			weight += t->threads[i].weight;
	err = t->ops->make(path);
	if (!err && g->lends)
		err = t->ops->lend(g->parent);
	if (!err)
		err = t->ops->lend(path);
	if (!err)
		err = t->ops->set_weight(path, weight);
	return err ? err : t->ops->set_limit(path, 0, PERIOD_US);
}

static int take_thread(struct throttle *t, struct throttle_thread *th, const char *path)
{
	int err = t->ops->make(path);

	if (!err)
		err = t->ops->set_weight(path, th->weight);
	if (!err)
		err = move_thread(t->ops, th->tid, path);
	return err == -ESRCH ? 0 : err;
}

int throttle_begin(struct throttle *t, struct failure *f)
{
	char path[PATH_MAX] = "", why[400];
	int err = 0;

	if (t->begun)
		return 0;
	t->begun = true;
	for (size_t i = 0; !err && i < t->ngroups; i++) {
		group_path(t, &t->groups[i], path);
		err = make_group(t, &t->groups[i], path);
	}
	for (size_t i = 0; !err && i < t->nthreads; i++) {
		thread_path(t, &t->threads[i], path);
		err = take_thread(t, &t->threads[i], path);
	}
	if (!err)
		return 0;
	snprintf(why, sizeof(why), "%.300s: %s", path, strerror(-err));
	throttle_end(t);
	return unavailable(f, NULL, why);
}

/* --- shares ----------------------------------------------------------------------------------- */

/* What the quotas of a manager's group and of those above it leave, in processors. */
static double full_speed(const struct throttle *t, const struct throttle_group *g)
{
	double full = g->count;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s", g->parent);
	while (strlen(path) >= g->mount) {
		double limit = t->ops->limit(path);
		char *slash = strrchr(path, '/');

		if (limit > 0 && limit < full)
			full = limit;
		if (!slash)
			break;
		*slash = '\0';
	}
	return full;
}

/* A group that is not there any more, its threads having ended, is limited enough. */
static int limit(const struct throttle *t, const char *path, double processors)
{
	uint64_t period = PERIOD_US, quota = 0;
	int err;

	if (t->share < THROTTLE_SHARE_MAX) {
		processors *= t->share / 100.0;
		if (processors * PERIOD_US < QUOTA_MIN_US)
			period = (uint64_t)(QUOTA_MIN_US / processors) + 1;
		if (period > PERIOD_MAX_US)
			period = PERIOD_MAX_US;
		quota = (uint64_t)(processors * (double)period);
		if (quota < QUOTA_MIN_US)
			quota = QUOTA_MIN_US;
	}
	err = t->ops->set_limit(path, quota, period);
	return err == -ENOENT || err == -ENODEV ? 0 : err;
}

static int limit_threads(const struct throttle *t, unsigned int group, double full)
{
	char path[PATH_MAX];
	int err = 0;

	for (size_t i = 0; !err && i < t->nthreads; i++) {
		const struct throttle_thread *th = &t->threads[i];

		if (th->group != group)
			continue;
		thread_path(t, th, path);
		if (t->share < THROTTLE_SHARE_MAX)
			empty_into(t->ops, path, t->groups[group].parent, th->tid);
		err = limit(t, path, full < 1 ? full : 1);
	}
	return err;
}

int throttle_set(struct throttle *t, unsigned int share, struct failure *f)
{
	char path[PATH_MAX];
	int err = 0;

	if (share < THROTTLE_SHARE_MIN || share > THROTTLE_SHARE_MAX || !t->begun)
		return failure_set(f, -EINVAL, "internal", NULL, "no share of processor time: %u",
				   share);
	t->share = share;
	for (unsigned int i = 0; !err && i < t->ngroups; i++) {
		struct throttle_group *g = &t->groups[i];
		double full = full_speed(t, g);
		double grant = share < THROTTLE_SHARE_MAX ? full * share / 100 : INFINITY;
		bool raised = grant > g->granted;

		group_path(t, g, path);
		if (raised)
			err = limit(t, path, full);
		if (!err)
			err = limit_threads(t, i, full);
		if (!err && !raised)
			err = limit(t, path, full);
		g->granted = grant;
	}
	return err ? unavailable(f, NULL, strerror(-err)) : 0;
}
