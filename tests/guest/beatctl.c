// SPDX-License-Identifier: MIT
/*
 * The host's side of the bare-metal guest: listens to heartbeats and sends commands.
 *
 *   beatctl listen [--seconds N] [--started FILE] [--trace FILE] SOCKET...
 *   beatctl ready [--timeout S] SOCKET           waits until the guest obeys commands
 *   beatctl command [--timeout S] SOCKET WORDS   prints the answer; exit 0 unless it is E or V bad
 *   beatctl qmp [--timeout S] SOCKET JSON        one QMP command; prints its return or error line
 *
 * Theory of operation (listen)
 *   Each SOCKET is the heartbeat port of one QEMU that may run the guest; none needs to exist yet,
 *   and each is connected to again whenever it goes. A beat's time is CLOCK_MONOTONIC when its line
 *   ended here; reading pauses 100 us after each batch, since QEMU writes byte by byte, so a time
 *   is good to about 0.1 ms. All beats are one sequence in order of arrival. A hand-over is a beat
 *   from another socket than the one before; its downtime is the time between the two. A line cut
 *   in two by the hand-over is joined. On SIGINT, SIGTERM or after N seconds one JSON object is
 *   printed; "repeated" or "missing" sequence numbers mean that two copies ran, or that one was
 *   lost.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOCKETS_MAX  8
#define SWITCHES_MAX 256
#define CONNECT_NS   1000000000ull

struct side {
	const char *path;
	int fd;		/* -1: not connected */
	char line[256]; /* what came since the last newline */
	size_t used;
	bool fresh; /* nothing whole came on this connection yet */
	uint64_t beats;
};

struct hand_over {
	unsigned int from, to;
	uint64_t at_ns, gap_ns, step;
};

struct listener {
	struct side sides[SOCKETS_MAX];
	unsigned int nsides;
	uint64_t first_ns, last_ns, last_sequence;
	int last_side; /* -1: no beat yet */
	uint64_t beats, missing, repeated, longest_ns, longest_at_ns;
	struct hand_over switches[SWITCHES_MAX];
	unsigned int nswitches;
	FILE *trace;
	const char *started;
};

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
	(void)sig;
	stopping = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void nap_us(long us)
{
	nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL);
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		fprintf(stderr, "beatctl: path too long: %s\n", path);
		exit(2);
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void touch(const char *path)
{
	FILE *f = path ? fopen(path, "w") : NULL;

	if (f)
		fclose(f);
}

static void on_beat(struct listener *l, unsigned int side, uint64_t sequence, uint64_t guest_us)
{
	uint64_t now = now_ns(), gap = now - l->last_ns;

	if (l->trace)
		fprintf(l->trace, "%lu %u %lu %lu\n", now, side, sequence, guest_us);
	l->beats++;
	l->sides[side].beats++;
	if (l->last_side < 0) {
		touch(l->started);
		l->first_ns = now;
	} else {
		if (gap > l->longest_ns) {
			l->longest_ns = gap;
			l->longest_at_ns = l->last_ns - l->first_ns;
		}
		if (sequence <= l->last_sequence)
			l->repeated++;
		else
			l->missing += sequence - l->last_sequence - 1;
		if (l->last_side != (int)side && l->nswitches < SWITCHES_MAX)
			l->switches[l->nswitches++] =
				(struct hand_over){ (unsigned int)l->last_side, side,
						    l->last_ns - l->first_ns, gap,
						    sequence - l->last_sequence };
	}
	l->last_ns = now;
	l->last_side = (int)side;
	l->last_sequence = sequence;
}

static bool parse_beat(const char *line, uint64_t *sequence, uint64_t *us)
{
	int end = 0;

	return sscanf(line, "B %lu %lu%n", sequence, us, &end) == 2 && !line[end];
}

static void on_line(struct listener *l, unsigned int index)
{
	struct side *s = &l->sides[index], *before;
	uint64_t sequence, us;
	char joined[2 * sizeof(s->line)];

	if (parse_beat(s->line, &sequence, &us)) {
		on_beat(l, index, sequence, us);
	} else if (s->fresh && l->last_side >= 0 && l->last_side != (int)index) {
		before = &l->sides[l->last_side];
		snprintf(joined, sizeof(joined), "%.*s%s", (int)before->used, before->line,
			 s->line);
		if (parse_beat(joined, &sequence, &us))
			on_beat(l, index, sequence, us);
		before->used = 0;
	}
	s->fresh = false;
}

static void on_bytes(struct listener *l, unsigned int index, const char *bytes, size_t n)
{
	struct side *s = &l->sides[index];

	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\n') {
			s->line[s->used] = 0;
			s->used = 0;
			on_line(l, index);
		} else if (s->used < sizeof(s->line) - 1) {
			s->line[s->used++] = bytes[i];
		}
	}
}

/* One wait and whatever came. Tries to connect what is not; an unconnected side is polled for. */
static void listen_once(struct listener *l)
{
	struct pollfd polled[SOCKETS_MAX];
	bool all = true, any = false;
	char bytes[4096];

	for (unsigned int i = 0; i < l->nsides; i++) {
		struct side *s = &l->sides[i];

		if (s->fd < 0 && (s->fd = connect_to(s->path)) >= 0) {
			s->used = 0;
			s->fresh = true;
		}
		all = all && s->fd >= 0;
		polled[i] = (struct pollfd){ .fd = s->fd, .events = POLLIN };
	}
	if (poll(polled, l->nsides, all ? 100 : 2) <= 0)
		return;
	for (unsigned int i = 0; i < l->nsides; i++) {
		ssize_t n;

		if (!polled[i].revents)
			continue;
		n = recv(l->sides[i].fd, bytes, sizeof(bytes), 0);
		if (n > 0) {
			any = true;
			on_bytes(l, i, bytes, (size_t)n);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			close(l->sides[i].fd);
			l->sides[i].fd = -1;
		}
	}
	if (any)
		nap_us(100);
}

static void report(const struct listener *l)
{
	printf("{\"beats\":%lu,\"seconds\":%.3f,\"longest_gap_ms\":%.3f,"
	       "\"longest_gap_at_ms\":%.3f,\"missing\":%lu,\"repeated\":%lu,\"last_sequence\":%lu,"
	       "\"last_side\":%d,\"sides\":[",
	       l->beats, l->last_side < 0 ? 0 : (double)(l->last_ns - l->first_ns) / 1e9,
	       (double)l->longest_ns / 1e6, (double)l->longest_at_ns / 1e6, l->missing, l->repeated,
	       l->last_sequence, l->last_side);
	for (unsigned int i = 0; i < l->nsides; i++)
		printf("%s%lu", i ? "," : "", l->sides[i].beats);
	printf("],\"switches\":[");
	for (unsigned int i = 0; i < l->nswitches; i++)
		printf("%s{\"from\":%u,\"to\":%u,\"at_ms\":%.3f,\"downtime_ms\":%.3f,\"step\":%ld}",
		       i ? "," : "", l->switches[i].from, l->switches[i].to,
		       (double)l->switches[i].at_ns / 1e6, (double)l->switches[i].gap_ns / 1e6,
		       (long)l->switches[i].step);
	printf("]}\n");
}

static int run_listen(struct listener *l, double seconds)
{
	uint64_t end = seconds > 0 ? now_ns() + (uint64_t)(seconds * 1e9) : UINT64_MAX;
	struct sigaction stop = { .sa_handler = on_signal };

	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	/* Times should be the guest's, not of a scheduler that is busy with the migration. */
	sched_setscheduler(0, SCHED_RR, &(struct sched_param){ .sched_priority = 1 });
	l->last_side = -1;
	while (!stopping && now_ns() < end)
		listen_once(l);
	report(l);
	return l->beats ? 0 : 1;
}

/* Connects, however long it takes until end. */
static int connect_until(const char *path, uint64_t end)
{
	int fd;

	while ((fd = connect_to(path)) < 0 && now_ns() < end)
		nap_us(5000);
	if (fd < 0)
		fprintf(stderr, "beatctl: %s: %s\n", path, strerror(errno));
	return fd;
}

/* Reads one line; false when it did not come by end. */
static bool read_line(int fd, char *line, size_t size, uint64_t end)
{
	size_t used = 0;

	while (now_ns() < end) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		char c;
		ssize_t n;

		if (poll(&p, 1, 10) <= 0)
			continue;
		n = recv(fd, &c, 1, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return false;
		if (n < 0)
			continue;
		if (c == '\n') {
			line[used] = 0;
			return true;
		}
		if (used < size - 1)
			line[used++] = c;
	}
	return false;
}

static bool send_line(int fd, const char *words)
{
	char line[4096];
	int n = snprintf(line, sizeof(line), "%s\n", words);

	return n < (int)sizeof(line) && send(fd, line, (size_t)n, MSG_NOSIGNAL) == n;
}

/* Everything that was asked before has been answered: answers come in order. */
static bool in_step(int fd, uint64_t end)
{
	char line[256];

	if (!send_line(fd, "stat"))
		return false;
	while (read_line(fd, line, sizeof(line), end))
		if (line[0] == 'S' && line[1] == ' ')
			return true;
	return false;
}

/*
 * A ping that came too early is lost with the port's reset, or what is left of it is answered as
 * something unknown: ask until a ping is answered, and then until nothing is under way.
 */
static int run_ready(const char *path, double timeout)
{
	uint64_t end = now_ns() + (uint64_t)(timeout * 1e9);
	char line[256];
	int fd = connect_until(path, end);

	while (fd >= 0 && now_ns() < end && send_line(fd, "ping")) {
		if (read_line(fd, line, sizeof(line), now_ns() + 300000000ull) &&
		    (line[0] == 'P' || line[0] == 'R') && in_step(fd, end)) {
			close(fd);
			return 0;
		}
	}
	fprintf(stderr, "beatctl: %s: the guest does not answer\n", path);
	return 1;
}

static int run_command(const char *path, const char *words, double timeout)
{
	uint64_t end = now_ns() + (uint64_t)(timeout * 1e9);
	char line[256];
	/* Whoever is given commands is there: a refused connection is an answer too. */
	int fd = connect_until(path, now_ns() + CONNECT_NS);

	if (fd < 0 || !send_line(fd, words))
		return 1;
	do {
		if (!read_line(fd, line, sizeof(line), end)) {
			fprintf(stderr, "beatctl: %s: no answer to %s\n", path, words);
			return 1;
		}
		/* An answer to an earlier ping is none to this. */
	} while (line[0] == 'R' || (line[0] == 'P' && strcmp(words, "ping")));
	close(fd);
	puts(line);
	return line[0] == 'E' || !strncmp(line, "V bad", 5);
}

/* A line that starts an object with that member: return and error answer, the rest are events. */
static bool qmp_answer(int fd, char *line, size_t size, uint64_t end)
{
	do {
		if (!read_line(fd, line, size, end))
			return false;
	} while (strncmp(line, "{\"return\"", 9) && strncmp(line, "{\"error\"", 8));
	return true;
}

static int run_qmp(const char *path, const char *json, double timeout)
{
	uint64_t end = now_ns() + (uint64_t)(timeout * 1e9);
	static char line[1 << 20];
	int fd = connect_until(path, now_ns() + CONNECT_NS);

	if (fd < 0 || !send_line(fd, "{\"execute\":\"qmp_capabilities\"}") ||
	    !qmp_answer(fd, line, sizeof(line), end) || !send_line(fd, json) ||
	    !qmp_answer(fd, line, sizeof(line), end)) {
		fprintf(stderr, "beatctl: %s: no answer to %s\n", path, json);
		return 1;
	}
	close(fd);
	line[strcspn(line, "\r")] = 0;
	puts(line);
	return line[2] == 'e';
}

static int usage(void)
{
	fprintf(stderr, "usage: beatctl listen [--seconds N] [--started FILE] [--trace FILE] "
			"SOCKET...\n       beatctl ready [--timeout S] SOCKET\n"
			"       beatctl command [--timeout S] SOCKET WORDS\n"
			"       beatctl qmp [--timeout S] SOCKET JSON\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seconds", required_argument, NULL, 's' },
						 { "timeout", required_argument, NULL, 't' },
						 { "started", required_argument, NULL, 'f' },
						 { "trace", required_argument, NULL, 'r' },
						 { NULL, 0, NULL, 0 } };
	static struct listener l;
	double seconds = 0, timeout = 30;
	const char *verb;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 's')
			seconds = atof(optarg);
		else if (c == 't')
			timeout = atof(optarg);
		else if (c == 'f')
			l.started = optarg;
		else if (c == 'r')
			l.trace = fopen(optarg, "w");
		else
			return usage();
	}
	if (argc - optind < 2)
		return usage();
	verb = argv[optind++];
	if (!strcmp(verb, "listen") && argc - optind <= SOCKETS_MAX) {
		while (optind < argc)
			l.sides[l.nsides++] = (struct side){ .path = argv[optind++], .fd = -1 };
		return run_listen(&l, seconds);
	}
	if (!strcmp(verb, "ready") && argc - optind == 1)
		return run_ready(argv[optind], timeout);
	if (!strcmp(verb, "command") && argc - optind == 2)
		return run_command(argv[optind], argv[optind + 1], timeout);
	if (!strcmp(verb, "qmp") && argc - optind == 2)
		return run_qmp(argv[optind], argv[optind + 1], timeout);
	return usage();
}
