// SPDX-License-Identifier: MIT
/*
 * Which threads of a QEMU are its virtual processors, for throttle.h.
 *
 * Theory of operation
 *   QEMU gives thread numbers as it sees them itself, which are others than ours if it runs in a
 *   PID namespace of its own; and it is not to be believed, since slowing down some other process'
 *   threads is what a hostile one would ask for. So its numbers are looked up among those that the
 *   threads of this very process have in their innermost namespace; what is not there is left
 *   alone.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/guest/guest_qemu_internal.h"
#include "lib/base/cleanup.h"

#define THREADS_MAX 4096u

/* The thread's number in its innermost PID namespace, or -1. */
static long innermost(pid_t pid, pid_t tid)
{
	char path[64], line[256];
	long number = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	file = fopen(path, "re");
	while (file && number < 0 && fgets(line, sizeof(line), file)) {
		const char *last;

		if (strncmp(line, "NSpid:", 6))
			continue;
		line[strcspn(line, "\n")] = '\0';
		last = strrchr(line, '\t');
		number = last ? atol(last + 1) : -1;
	}
	if (file)
		fclose(file);
	return number;
}

static bool is_processor(const json_t *cpus, long number)
{
	const json_t *cpu;
	size_t i;

	json_array_foreach ((json_t *)cpus, i, cpu)
		if (json_integer_value(json_object_get(cpu, "thread-id")) == number)
			return true;
	return false;
}

/* The threads of pid that are in cpus, as we number them; each once. */
static size_t find_threads(pid_t pid, const json_t *cpus, pid_t *threads)
{
	struct dirent *e;
	size_t n = 0;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && n < THREADS_MAX && (e = readdir(dir))) {
		pid_t tid = isdigit((unsigned char)e->d_name[0]) ? (pid_t)atol(e->d_name) : 0;
		long number = tid > 0 ? innermost(pid, tid) : -1;

		if (number > 0 && is_processor(cpus, number))
			threads[n++] = tid;
	}
	if (dir)
		closedir(dir);
	return n;
}

int guest_qemu_throttle(struct guest *g, const char *owner, struct throttle **out,
			struct failure *f)
{
	AUTO_FREE pid_t *threads = calloc(THREADS_MAX, sizeof(*threads));
	json_t *cpus = NULL;
	size_t count;
	int err;

	*out = NULL;
	if (!threads)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	err = qmp_call(guest_qemu_of(g)->q, "query-cpus-fast", NULL, &cpus, f);
	if (err)
		return err;
	count = find_threads(g->pid, cpus, threads);
	json_decref(cpus);
	if (!count)
		return failure_set(
			f, -EOPNOTSUPP, "throttle-unavailable", NULL,
			"The VM's processors cannot be slowed down: QEMU names no thread "
			"of its own as one of them.");
	return throttle_new(out, g->pid, threads, count, owner, f);
}
