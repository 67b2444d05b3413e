/* SPDX-License-Identifier: MIT */
/*
 * Both data planes of a session as real processes, with the test in the place of both transhipds:
 * RAM in memfds, streams over TCP on the loopback. Included by one test or benchmark each.
 */
#ifndef TRANSHIP_TESTS_PAIR_H
#define TRANSHIP_TESTS_PAIR_H

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/ipc.h"
#include "dataplane/region.h"
#include "lib/base/cleanup.h"
#include "lib/base/log.h"

#define PAIR_REGIONS_MAX 4
#define PAIR_TIMEOUT_MS	 60000

#define pair_check(what)                                                                           \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: %s (errno: %s)\n", __FILE__, __LINE__, #what,      \
				strerror(errno));                                                  \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct pair_side {
	pid_t pid;
	int sock;
	struct ipc_message last; /* of pair_expect */
	unsigned int progress;	 /* PROGRESS messages skipped */
};

struct pair {
	struct pair_side src, dst;
	uint32_t nregions;
	uint64_t size[PAIR_REGIONS_MAX];
	int src_ram[PAIR_REGIONS_MAX], dst_ram[PAIR_REGIONS_MAX]; /* -1: made by pair_start */
	unsigned int memfd_flags;				  /* MFD_HUGETLB ... */
	uint32_t page_size;					  /* 0: 4096 */
	uint32_t streams;
	enum ipc_tx tx;
	uint64_t rate;
	bool track_dma;
	uint32_t send_flags;	    /* of every round */
	enum ipc_compress compress; /* and what the destination accepts: all, unless refused */
	uint32_t level;
	uint64_t delta_cache;
	uint64_t page_hashes; /* as in struct ipc_config */
	bool encodings_refused;
	int tracker_fd;				      /* pagemap of the VMM; -1: tracker none */
	struct ipc_mapping mapping[PAIR_REGIONS_MAX]; /* with a tracker */
	struct ipc_ready ready;			      /* of the source */
};

#define PAIR_INIT(streams_, tx_)                                                                   \
	(struct pair)                                                                              \
	{                                                                                          \
		.nregions = 1, .size = { 64ull << 20 }, .src_ram = { -1, -1, -1, -1 },             \
		.dst_ram = { -1, -1, -1, -1 }, .streams = (streams_), .tx = (tx_),                 \
		.tracker_fd = -1                                                                   \
	}

static inline const char *pair_program(void)
{
	static char path[PATH_MAX + 32];
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *dir = self;

	pair_check(n > 0);
	self[n] = '\0';
	/* BUILD/tests/unit/dataplane/test_x or BUILD/bench/x: the program is in BUILD. */
	for (int up = 0; up < 5; up++) {
		dir = dirname(dir);
		snprintf(path, sizeof(path), "%s/tranship-dataplane", dir);
		if (!access(path, X_OK))
			return path;
	}
	fprintf(stderr, "tranship-dataplane is not built\n");
	exit(1);
}

static inline void pair_spawn(struct pair_side *s)
{
	const char *program = pair_program();
	int sv[2];

	pair_check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	s->pid = fork();
	pair_check(s->pid >= 0);
	if (!s->pid) {
		if (dup2(sv[1], 3) != 3)
			_exit(126);
		fcntl(3, F_SETFD, 0);
		execl(program, "tranship-dataplane", "3", NULL);
		_exit(127);
	}
	close(sv[1]);
	s->sock = sv[0];
}

static inline void pair_send(struct pair_side *s, enum ipc_type type, const void *body, int fd)
{
	int err = ipc_send(s->sock, type, body, fd);

	if (err)
		fprintf(stderr, "%s: %s\n", ipc_type_name(type), strerror(-err));
	pair_check(!err);
}

/* The next message that is not PROGRESS. */
static inline int pair_next(struct pair_side *s)
{
	int fd, err;

	do {
		err = ipc_recv(s->sock, &s->last, &fd, PAIR_TIMEOUT_MS);
		if (err)
			return err;
		s->progress += s->last.head.type == IPC_PROGRESS;
	} while (s->last.head.type == IPC_PROGRESS);
	return 0;
}

static inline const union ipc_body *pair_expect(struct pair_side *s, enum ipc_type type)
{
	int err = pair_next(s);

	if (err || s->last.head.type != (uint32_t)type) {
		fprintf(stderr, "expected %s, got %s%s%s %s\n", ipc_type_name(type),
			err ? strerror(-err) : ipc_type_name(s->last.head.type),
			!err && s->last.head.type == IPC_FAILED ? ": " : "",
			!err && s->last.head.type == IPC_FAILED ? s->last.body.failure.code : "",
			!err && s->last.head.type == IPC_FAILED ? s->last.body.failure.message
								: "");
		abort();
	}
	return &s->last.body;
}

static inline int pair_memfd(const struct pair *p, uint64_t size)
{
	int fd = memfd_create("pair-ram", MFD_CLOEXEC | p->memfd_flags);

	pair_check(fd >= 0 && !ftruncate(fd, (off_t)size));
	return fd;
}

static inline int pair_reopen_readonly(int fd)
{
	char path[64];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	pair_check(ro >= 0);
	return ro;
}

static inline void pair_send_regions(struct pair *p, struct pair_side *s, bool source)
{
	for (uint32_t i = 0; i < p->nregions; i++) {
		struct ipc_region r = { .index = i,
					.page_size = p->page_size ? p->page_size : 4096,
					.size = p->size[i],
					.hugetlb = !!(p->memfd_flags & MFD_HUGETLB) };
		int fd = source ? pair_reopen_readonly(p->src_ram[i]) : dup(p->dst_ram[i]);

		pair_send(s, IPC_REGION, &r, fd);
		close(fd);
	}
}

static inline struct ipc_config pair_config(const struct pair *p, enum ipc_role role)
{
	struct ipc_config c = { .role = role,
				.regions = p->nregions,
				.streams = p->streams,
				.tx = p->tx,
				.rate_limit = p->rate,
				.track_dma = p->track_dma,
				.encodings = IPC_ENCODING_ZSTD | IPC_ENCODING_DELTA,
				.page_hashes = p->page_hashes,
				.state_max = 64u << 20,
				.connect_ms = 10000,
				.log_level =
					getenv("PAIR_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN };

	if (role == IPC_ROLE_SOURCE || role == IPC_ROLE_POSTCOPY_SOURCE) {
		c.compress = p->compress;
		c.level = p->level;
		c.delta_cache = p->delta_cache;
	} else if (p->encodings_refused) {
		c.encodings = 0;
	}
	memset(c.id, 0x5a, sizeof(c.id));
	memset(c.secret, 0xa5, sizeof(c.secret));
	return c;
}

/* A listening socket on a port of the loopback, which is in *at. */
static inline int pair_listener(struct sockaddr_in *at)
{
	socklen_t len = sizeof(*at);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*at = (struct sockaddr_in){ .sin_family = AF_INET };
	at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	pair_check(listener >= 0 && !bind(listener, (struct sockaddr *)at, len) &&
		   !listen(listener, 64) && !getsockname(listener, (struct sockaddr *)at, &len));
	return listener;
}

/* A data plane of the destination that knows its part and its RAM. */
static inline void pair_spawn_destination(struct pair *p, enum ipc_role role)
{
	struct ipc_config c = pair_config(p, role);

	pair_spawn(&p->dst);
	pair_send(&p->dst, IPC_CONFIG, &c, -1);
	pair_send_regions(p, &p->dst, false);
}

static inline void pair_start_destination(struct pair *p, struct sockaddr_in *at)
{
	int listener = pair_listener(at);

	pair_spawn_destination(p, IPC_ROLE_DESTINATION);
	pair_send(&p->dst, IPC_LISTEN, NULL, listener);
	close(listener);
	pair_send(&p->dst, IPC_START, NULL, -1);
	pair_expect(&p->dst, IPC_READY);
}

static inline void pair_send_tracker(struct pair *p)
{
	struct ipc_tracker t = { .kind = p->tracker_fd >= 0 ? IPC_TRACKER_PAGEMAP
							    : IPC_TRACKER_NONE };

	for (uint32_t i = 0; p->tracker_fd >= 0 && i < p->nregions; i++)
		pair_send(&p->src, IPC_MAPPING, &p->mapping[i], -1);
	pair_send(&p->src, IPC_TRACKER, &t, p->tracker_fd);
}

static inline void pair_start_source(struct pair *p, const struct sockaddr_in *at)
{
	struct ipc_config c = pair_config(p, IPC_ROLE_SOURCE);

	pair_spawn(&p->src);
	pair_send(&p->src, IPC_CONFIG, &c, -1);
	pair_send_regions(p, &p->src, true);
	pair_send_tracker(p);
	for (uint32_t i = 0; i < p->streams; i++) {
		struct ipc_stream st = { .index = i };
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		pair_check(fd >= 0 && !connect(fd, (const struct sockaddr *)at, sizeof(*at)));
		pair_send(&p->src, IPC_STREAM, &st, fd);
		close(fd);
	}
	pair_send(&p->src, IPC_START, NULL, -1);
}

/* Up to both sides' readiness. */
static inline void pair_start(struct pair *p)
{
	struct sockaddr_in at;

	for (uint32_t i = 0; i < p->nregions; i++) {
		if (p->src_ram[i] < 0)
			p->src_ram[i] = pair_memfd(p, p->size[i]);
		if (p->dst_ram[i] < 0)
			p->dst_ram[i] = pair_memfd(p, p->size[i]);
	}
	pair_start_destination(p, &at);
	pair_start_source(p, &at);
	p->ready = pair_expect(&p->src, IPC_READY)->ready;
	pair_expect(&p->dst, IPC_CONNECTED);
}

static inline struct ipc_scanned pair_scan(struct pair *p, uint32_t flags)
{
	struct ipc_scan s = { .flags = flags };

	pair_send(&p->src, IPC_SCAN, &s, -1);
	return pair_expect(&p->src, IPC_SCANNED)->scanned;
}

static inline struct ipc_sent pair_round(struct pair *p, uint32_t n)
{
	struct ipc_send s = { .round = n, .flags = p->send_flags };

	pair_send(&p->src, IPC_SEND, &s, -1);
	return pair_expect(&p->src, IPC_SENT)->sent;
}

static inline struct ipc_verified pair_verify(struct pair *p)
{
	struct ipc_verified v;

	pair_send(&p->src, IPC_VERIFY, NULL, -1);
	v = pair_expect(&p->src, IPC_VERIFIED)->verified;
	pair_expect(&p->dst, IPC_VERIFIED);
	return v;
}

/* Exit status, or minus the signal. */
static inline int pair_wait(struct pair_side *s)
{
	int status;

	pair_check(waitpid(s->pid, &status, 0) == s->pid);
	close(s->sock);
	s->sock = -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Stops the process for good: it has stopped when this returns. */
static inline void pair_freeze(const struct pair_side *s)
{
	int status;

	pair_check(!kill(s->pid, SIGSTOP) && waitpid(s->pid, &status, WUNTRACED) == s->pid &&
		   WIFSTOPPED(status));
}

static inline void pair_close_ram(struct pair *p)
{
	for (uint32_t i = 0; i < p->nregions; i++) {
		fd_close(&p->src_ram[i]);
		fd_close(&p->dst_ram[i]);
	}
}

/* QUIT on both sides; both must exit with 0. */
static inline void pair_quit(struct pair *p)
{
	pair_send(&p->src, IPC_QUIT, NULL, -1);
	pair_check(pair_wait(&p->src) == 0);
	pair_send(&p->dst, IPC_QUIT, NULL, -1);
	pair_check(pair_wait(&p->dst) == 0);
	pair_close_ram(p);
}

/* A page's content from a seed; never all zeros. */
static inline void pair_page(uint64_t *page, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (unsigned int i = 0; i < 512; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		page[i] = x;
	}
}

/*
 * Fills a RAM file with what guests have: data, zeros that were written, holes, in runs of many
 * lengths, some pages with a single byte set at their end.
 */
static inline void pair_fill(int fd, uint64_t size, uint64_t seed)
{
	uint64_t page[512], x = seed | 1;

	for (uint64_t at = 0; at < size;) {
		uint64_t run, kind;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		kind = x >> 61;
		run = 1 + (x >> 40) % ((x >> 33) % 16 ? 9 : 700);
		for (uint64_t i = 0; i < run && at < size; i++, at += 4096) {
			if (kind == 0)
				continue; /* a hole */
			memset(page, 0, sizeof(page));
			if (kind == 2)
				((uint8_t *)page)[4095] = 1;
			else if (kind > 2)
				pair_page(page, at ^ seed);
			pair_check(pwrite(fd, page, 4096, (off_t)at) == 4096);
		}
	}
}

static inline const char *pair_describe(int fd, const uint8_t *page, uint64_t at)
{
	static const uint8_t zero[4096];

	if (lseek(fd, (off_t)at, SEEK_DATA) != (off_t)at)
		return "hole";
	return memcmp(page, zero, sizeof(zero)) ? "data" : "zero";
}

/* True if both files read the same. */
static inline bool pair_same(int a, int b, uint64_t size)
{
	static uint8_t x[1 << 20], y[1 << 20];

	for (uint64_t at = 0; at < size; at += sizeof(x)) {
		size_t n = size - at < sizeof(x) ? size - at : sizeof(x);

		pair_check(pread(a, x, n, (off_t)at) == (ssize_t)n);
		pair_check(pread(b, y, n, (off_t)at) == (ssize_t)n);
		if (memcmp(x, y, n)) {
			for (size_t i = 0; i < n; i += 4096)
				if (memcmp(x + i, y + i, 4096)) {
					fprintf(stderr, "first difference at page %#lx: %s, %s\n",
						(unsigned long)((at + i) >> 12),
						pair_describe(a, x + i, at + i),
						pair_describe(b, y + i, at + i));
					break;
				}
			return false;
		}
	}
	return true;
}

#endif
