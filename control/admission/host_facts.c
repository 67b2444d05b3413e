// SPDX-License-Identifier: MIT
/*
 * What this host has; see preflight.h.
 *
 * Memory is what the kernel says is available, or less if our own memory cgroup allows less: guest
 * pages that the data plane writes are charged to it.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/admission/preflight.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define QEMU_ANSWER_MS 5000

/* The text of a small file, "" if it cannot be read. */
static void read_text(const char *path, char *out, size_t len)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t have = 0;
	ssize_t n;

	while (fd >= 0 && have < len - 1 && (n = read(fd, out + have, len - 1 - have)) > 0)
		have += (size_t)n;
	out[have] = '\0';
}

static uint64_t read_number(const char *path, uint64_t fallback)
{
	char text[64];

	read_text(path, text, sizeof(text));
	return isdigit((unsigned char)text[0]) ? strtoull(text, NULL, 10) : fallback;
}

/* The number after a key at the beginning of a line ("MemAvailable:", "inactive_file"). */
static uint64_t number_of(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *at = text; (at = strstr(at, key)); at += len)
		if (at == text || at[-1] == '\n')
			return strtoull(at + len, NULL, 10);
	return 0;
}

/* --- memory ---------------------------------------------------------------------------------- */

/* What one memory cgroup still allows; page cache that can go counts as free. */
static uint64_t cgroup_room(const char *dir, bool v2)
{
	char path[PATH_MAX], stat[16384];
	uint64_t limit, used, cache;

	snprintf(path, sizeof(path), "%.4000s/%s", dir,
		 v2 ? "memory.max" : "memory.limit_in_bytes");
	limit = read_number(path, UINT64_MAX); /* "max": none */
	if (limit == UINT64_MAX)
		return UINT64_MAX;
	snprintf(path, sizeof(path), "%.4000s/%s", dir,
		 v2 ? "memory.current" : "memory.usage_in_bytes");
	used = read_number(path, 0);
	snprintf(path, sizeof(path), "%.4000s/memory.stat", dir);
	read_text(path, stat, sizeof(stat));
	cache = number_of(stat, v2 ? "inactive_file " : "total_inactive_file ");
	used -= cache < used ? cache : used;
	return used < limit ? limit - used : 0;
}

/* The least that our cgroup and those above it allow. */
static uint64_t cgroup_available(void)
{
	char text[8192], dir[PATH_MAX];
	uint64_t least = UINT64_MAX;
	char *save = NULL;

	read_text("/proc/self/cgroup", text, sizeof(text));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		bool v2 = !strncmp(line, "0::", 3);
		char *v1 = v2 ? NULL : strstr(line, ":memory:");
		const char *root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";

		if (!v2 && !v1)
			continue;
		snprintf(dir, sizeof(dir), "%s%s", root, v2 ? line + 3 : v1 + 8);
		while (strlen(dir) > strlen(root)) {
			uint64_t room = cgroup_room(dir, v2);

			least = room < least ? room : least;
			*strrchr(dir, '/') = '\0';
		}
	}
	return least;
}

static void read_memory(struct host_facts *h)
{
	static const char huge[] = "/sys/kernel/mm/hugepages/hugepages-%ukB/%s";
	uint64_t *const out[] = { &h->huge_free_2m, &h->huge_free_1g };
	const unsigned int kib[] = { 2048, 1048576 };
	char text[8192];
	uint64_t group;

	read_text("/proc/meminfo", text, sizeof(text));
	h->mem_available = number_of(text, "MemAvailable:") * 1024;
	group = cgroup_available();
	if (group < h->mem_available)
		h->mem_available = group;
	for (int i = 0; i < 2; i++) {
		char path[128];
		uint64_t free_pages, reserved;

		snprintf(path, sizeof(path), huge, kib[i], "free_hugepages");
		free_pages = read_number(path, 0);
		snprintf(path, sizeof(path), huge, kib[i], "resv_hugepages");
		reserved = read_number(path, 0);
		*out[i] = reserved < free_pages ? free_pages - reserved : 0;
	}
}

/* --- processors ------------------------------------------------------------------------------ */

/* The value of the first line "key : value" of /proc/cpuinfo. */
static void cpuinfo_value(const char *text, const char *key, char *out, size_t len)
{
	const char *at = strstr(text, key);
	size_t n;

	out[0] = '\0';
	if (!at || !(at = strchr(at, ':')))
		return;
	at += 1 + (at[1] == ' ');
	n = strcspn(at, "\n");
	snprintf(out, len, "%.*s", (int)(n < len ? n : len - 1), at);
}

static void read_cpu(char *vendor, size_t vendor_len, char *flags, size_t flags_len)
{
	char text[16384];

	read_text("/proc/cpuinfo", text, sizeof(text));
	cpuinfo_value(text, "vendor_id", vendor, vendor_len);
	cpuinfo_value(text, "\nflags", flags, flags_len);
}

void host_cpu_describe(json_t *extra)
{
	char vendor[16], flags[8192];

	read_cpu(vendor, sizeof(vendor), flags, sizeof(flags));
	json_object_set_new(extra, "cpu_vendor", json_string(vendor));
	json_object_set_new(extra, "cpu_flags", json_string(flags));
}

/* --- QEMU ------------------------------------------------------------------------------------ */

static int spawn_reading(const char *binary, char *const *argv, pid_t *pid, int *out)
{
	static char *const env[] = { (char *)"LC_ALL=C", NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t all, none;
	int pipe_fds[2];
	int rc;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return -errno;
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, pipe_fds[1], 1);
	posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addclosefrom_np(&files, 3);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	rc = posix_spawn(pid, binary, &files, &attr, argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	close(pipe_fds[1]);
	if (rc)
		close(pipe_fds[0]);
	else
		*out = pipe_fds[0];
	return -rc;
}

/* What the binary prints, at most len - 1 bytes; "" if it fails or takes too long. */
static void run_qemu(const char *binary, const char *option, const char *value, char *text,
		     size_t len)
{
	char *const argv[] = { (char *)binary, (char *)option, (char *)value, NULL };
	uint64_t deadline = clock_ns() + QEMU_ANSWER_MS * NSEC_PER_MSEC;
	AUTO_CLOSE int out = -1;
	bool whole = false;
	size_t have = 0;
	int status = 0;
	pid_t pid;

	text[0] = '\0';
	if (spawn_reading(binary, argv, &pid, &out))
		return;
	while (clock_ns() < deadline && have < len - 1) {
		struct pollfd p = { out, POLLIN, 0 };
		ssize_t n;

		if (poll(&p, 1, 100) <= 0)
			continue;
		n = read(out, text + have, len - 1 - have);
		whole = n == 0;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	text[have] = '\0';
	if (!whole)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!whole || !WIFEXITED(status) || WEXITSTATUS(status)) {
		log_warn("%s %s did not answer", binary, option);
		text[0] = '\0';
	}
}

static void ask_qemu(struct host_qemu *q)
{
	static const char before[] = " version ";
	char text[32768];
	const char *at;
	char *save = NULL;
	size_t used = 0;

	run_qemu(q->binary, "-version", NULL, text, sizeof(text));
	at = strstr(text, before);
	if (at) {
		at += sizeof(before) - 1;
		snprintf(q->version, sizeof(q->version), "%.*s", (int)strspn(at, "0123456789."),
			 at);
	}
	run_qemu(q->binary, "-machine", "help", text, sizeof(text));
	/* One line a type, the name first; the heading ends with a colon. */
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		size_t n = strcspn(line, " ");

		if (line[strlen(line) - 1] == ':' || used + n + 2 > sizeof(q->machines))
			continue;
		used += (size_t)snprintf(q->machines + used, sizeof(q->machines) - used, "%s%.*s",
					 used ? " " : "", (int)n, line);
	}
}

/* What was asked before, by file: asking takes about 100 ms a binary. */
static struct {
	pthread_mutex_t lock;
	struct qemu_answer {
		struct host_qemu qemu;
		dev_t device;
		ino_t inode;
		struct timespec changed;
	} answers[CONFIG_BINARIES_MAX];
	unsigned int n;
} asked = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct qemu_answer *answer_for(const char *binary)
{
	for (unsigned int i = 0; i < asked.n; i++)
		if (!strcmp(asked.answers[i].qemu.binary, binary))
			return &asked.answers[i];
	/* The table is as long as the longest configuration; another one replaces its last. */
	if (asked.n < CONFIG_BINARIES_MAX)
		asked.n++;
	return &asked.answers[asked.n - 1];
}

static void read_qemu(struct host_qemu *q, const char *binary, const struct stat *st)
{
	struct qemu_answer *a;

	SCOPED_LOCK(&asked.lock);
	a = answer_for(binary);
	if (strcmp(a->qemu.binary, binary) || !a->qemu.version[0] || a->device != st->st_dev ||
	    a->inode != st->st_ino || a->changed.tv_sec != st->st_ctim.tv_sec ||
	    a->changed.tv_nsec != st->st_ctim.tv_nsec) {
		memset(a, 0, sizeof(*a));
		snprintf(a->qemu.binary, sizeof(a->qemu.binary), "%s", binary);
		a->device = st->st_dev;
		a->inode = st->st_ino;
		a->changed = st->st_ctim;
		ask_qemu(&a->qemu);
	}
	*q = a->qemu;
}

void host_facts_read(struct host_facts *h, const struct config *c)
{
	AUTO_CLOSE int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct stat st;

	memset(h, 0, sizeof(*h));
	h->kvm = kvm >= 0;
	read_memory(h);
	read_cpu(h->cpu_vendor, sizeof(h->cpu_vendor), h->cpu_flags, sizeof(h->cpu_flags));
	snprintf(h->ram_dir, sizeof(h->ram_dir), "%s", c->ram_dir);
	for (unsigned int i = 0; i < c->nqemu_binaries; i++) {
		const char *binary = c->qemu_binaries[i];

		if (strlen(binary) < sizeof(h->qemus[0].binary) && !stat(binary, &st) &&
		    !access(binary, X_OK))
			read_qemu(&h->qemus[h->nqemus++], binary, &st);
	}
}
