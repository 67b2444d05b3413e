// SPDX-License-Identifier: MIT
/* The synthetic guest's control socket; see synthetic_control.h. */
#include "tools/synthetic_control.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"

#define LINE_MAX_BYTES 256
#define ANSWER_MAX     65536
#define ASK_MS	       600000 /* verify of a large guest takes its time */

void synthetic_print(int fd, json_t *j)
{
	AUTO_FREE char *text = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(j);
	if (!text)
		return;
	text[len] = '\n'; /* one write: lines of several threads do not mix */
	io_write_full(fd, text, len + 1);
}

static json_t *error(const char *message)
{
	return json_pack("{s:s, s:s}", "event", "error", "message", message);
}

/* ---- stats and phases -------------------------------------------------------------------- */

static uint64_t paused_ns(struct synthetic *g, bool *running)
{
	SCOPED_LOCK(&g->gate.mutex);

	*running = !g->gate.reasons;
	return g->paused_ns + (*running ? 0 : clock_ns() - g->stopped_ns);
}

/* The longest since the last call; forgets it. */
static void take_longest(struct synthetic *g, struct synthetic_phase *p)
{
	uint64_t ns;

	for (uint32_t i = 0; i < SYNTHETIC_THREADS_MAX; i++) {
		ns = atomic_exchange(&g->writers[i].stall_ns, 0);
		p->stall_ns = ns > p->stall_ns ? ns : p->stall_ns;
		ns = atomic_exchange(&g->writers[i].preempted_ns, 0);
		p->preempted_ns = ns > p->preempted_ns ? ns : p->preempted_ns;
	}
	ns = atomic_exchange(&g->longest_gap_ns, 0);
	p->gap_ns = ns > p->gap_ns ? ns : p->gap_ns;
}

/* By this process: what came with a guest's state is not this phase's work. */
static uint64_t written_here(const struct synthetic *g)
{
	return synthetic_written(g) - g->written_before;
}

/* p as it is now: paused_ns and written become those of the phase. */
static struct synthetic_phase phase_now(struct synthetic *g, struct synthetic_phase *p)
{
	struct synthetic_phase now;
	bool running;

	take_longest(g, p);
	now = *p;
	now.end_ns = clock_ns();
	now.paused_ns = paused_ns(g, &running) - p->paused_ns;
	now.written = written_here(g) - p->written;
	return now;
}

static void phase_begin(struct synthetic_control *c, const char *name)
{
	struct synthetic_phase *p = &c->phases[c->nphases++];
	bool running;

	memset(p, 0, sizeof(*p));
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->start_ns = clock_ns();
	p->paused_ns = paused_ns(c->g, &running);
	p->written = written_here(c->g);
}

static json_t *phase_json(const struct synthetic_phase *p)
{
	double seconds = (double)(p->end_ns - p->start_ns) / 1e9;
	double ran = seconds - (double)p->paused_ns / 1e9;
	double rate = ran > 0 ? (double)p->written / ran : 0;

	return json_pack("{s:s, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:f}", "phase", p->name,
			 "seconds", seconds, "paused_ms", (double)p->paused_ns / 1e6,
			 "pages_written", (json_int_t)p->written, "pages_per_s", rate, "mib_per_s",
			 rate * SYNTHETIC_PAGE / 1048576, "longest_stall_us",
			 (double)p->stall_ns / 1e3, "longest_preempted_us",
			 (double)p->preempted_ns / 1e3, "longest_beat_gap_us",
			 (double)p->gap_ns / 1e3);
}

static json_t *do_stats(struct synthetic_control *c)
{
	struct synthetic *g = c->g;
	json_t *phases = json_array(), *j;
	SCOPED_LOCK(&g->lock);
	bool running;

	paused_ns(g, &running);
	for (unsigned int i = 0; i < c->nphases; i++) {
		struct synthetic_phase p = c->phases[i];

		if (i + 1 == c->nphases)
			p = phase_now(g, &c->phases[i]);
		json_array_append_new(phases, phase_json(&p));
	}
	j = json_pack("{s:s, s:s, s:i, s:b, s:I, s:I, s:I, s:I, s:I, s:o}", "event", "stats",
		      "name", c->name, "pid", (int)getpid(), "running", running, "ram_bytes",
		      (json_int_t)(g->pages * SYNTHETIC_PAGE), "working_set_bytes",
		      (json_int_t)(g->p.working_set * SYNTHETIC_PAGE), "pages_written",
		      (json_int_t)synthetic_written(g), "beats", (json_int_t)g->beats,
		      "last_beat_ns", (json_int_t)g->last_beat_ns, "phases", phases);
	if (j && g->arrival_gap_ns)
		json_object_set_new(j, "downtime_ms", json_real((double)g->arrival_gap_ns / 1e6));
	return j ? j : error("out of memory");
}

static json_t *do_phase(struct synthetic_control *c, const char *name)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	struct synthetic_phase *last = &c->phases[c->nphases - 1];

	if (!*name || name[strspn(name, allowed)] || strlen(name) >= sizeof(last->name))
		return error("phase needs a name of letters, digits, - and _");
	if (c->nphases == SYNTHETIC_PHASES_MAX)
		return error("too many phases");
	pthread_mutex_lock(&c->g->lock);
	*last = phase_now(c->g, last);
	phase_begin(c, name);
	pthread_mutex_unlock(&c->g->lock);
	return json_pack("{s:s, s:s}", "event", "phase", "phase", name);
}

/* ---- the other commands ------------------------------------------------------------------ */

static unsigned int processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (unsigned int)n : 1;
}

static json_t *do_verify(struct synthetic_control *c)
{
	struct synthetic_check check;
	json_t *list = json_array();
	uint64_t start = clock_ns();
	int err = synthetic_check_all(c->g, processors(), &check);

	if (err) {
		json_decref(list);
		return error(strerror(-err));
	}
	for (uint64_t i = 0; i < check.bad && i < SYNTHETIC_BAD_MAX; i++)
		json_array_append_new(list,
				      json_pack("{s:I, s:I, s:I, s:i}", "page",
						(json_int_t)check.list[i].page, "expected_version",
						(json_int_t)check.list[i].expected, "found_version",
						(json_int_t)check.list[i].found, "offset",
						check.list[i].offset));
	return json_pack("{s:s, s:s, s:b, s:I, s:I, s:o, s:f}", "event", "verify", "name", c->name,
			 "ok", !check.bad, "pages_checked", (json_int_t)check.checked, "bad_pages",
			 (json_int_t)check.bad, "first_bad", list, "ms", clock_ms_since(start));
}

static json_t *do_run(struct synthetic_control *c)
{
	int err = c->t ? tranship_claim(c->t) : 0;

	if (err == -EBUSY)
		return error("a session holds the guest");
	if (err)
		return error("no guest is here");
	synthetic_resume(c->g, SYNTHETIC_PAUSE_MOVE);
	synthetic_resume(c->g, SYNTHETIC_PAUSE_USER);
	return json_pack("{s:s}", "event", "running");
}

static json_t *do_corrupt(struct synthetic_control *c, const char *arg)
{
	char *end;
	uint64_t offset = strtoull(arg, &end, 0);

	if (end == arg || *end || offset >= c->g->pages * SYNTHETIC_PAGE)
		return error("corrupt needs an offset in RAM");
	synthetic_pause(c->g, SYNTHETIC_PAUSE_CHECK);
	((uint8_t *)c->g->ram)[offset] ^= 0x40;
	synthetic_resume(c->g, SYNTHETIC_PAUSE_CHECK);
	return json_pack("{s:s, s:I}", "event", "corrupted", "page",
			 (json_int_t)(offset / SYNTHETIC_PAGE));
}

json_t *synthetic_control_do(struct synthetic_control *c, const char *line)
{
	char word[LINE_MAX_BYTES] = "", arg[LINE_MAX_BYTES] = "";
	json_t *j = NULL;
	SCOPED_LOCK(&c->mutex);

	sscanf(line, "%255s %255s", word, arg);
	if (!strcmp(word, "stats")) {
		j = do_stats(c);
	} else if (!strcmp(word, "phase")) {
		j = do_phase(c, arg);
	} else if (!strcmp(word, "verify")) {
		j = do_verify(c);
	} else if (!strcmp(word, "pause")) {
		synthetic_pause(c->g, SYNTHETIC_PAUSE_USER);
		j = json_pack("{s:s}", "event", "paused");
	} else if (!strcmp(word, "run")) {
		j = do_run(c);
	} else if (!strcmp(word, "corrupt")) {
		j = do_corrupt(c, arg);
	} else if (!strcmp(word, "stop")) {
		kill(getpid(), SIGTERM);
		j = json_pack("{s:s}", "event", "stopping");
	}
	return j ? j : error("no such command");
}

/* ---- the socket -------------------------------------------------------------------------- */

/* Serves one connection until its end or until the process ends. */
static void serve(struct synthetic_control *c, int fd)
{
	char line[LINE_MAX_BYTES];
	size_t used = 0;

	for (;;) {
		struct pollfd p[] = { { .fd = fd, .events = POLLIN },
				      { .fd = c->stop_fd, .events = POLLIN } };
		char *end;
		ssize_t n;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		if (p[1].revents)
			return;
		n = read(fd, line + used, sizeof(line) - 1 - used);
		if (n <= 0)
			return;
		used += (size_t)n;
		line[used] = '\0';
		while ((end = strchr(line, '\n'))) {
			*end = '\0';
			synthetic_print(fd, synthetic_control_do(c, line));
			used -= (size_t)(end + 1 - line);
			memmove(line, end + 1, used + 1);
		}
		if (used == sizeof(line) - 1)
			return;
	}
}

static void *control_thread(void *arg)
{
	struct synthetic_control *c = arg;

	for (;;) {
		struct pollfd p[] = { { .fd = c->listen_fd, .events = POLLIN },
				      { .fd = c->stop_fd, .events = POLLIN } };
		AUTO_CLOSE int fd = -1;

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			return NULL;
		fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			serve(c, fd);
	}
}

static int bind_control(struct synthetic_control *c, const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	strcpy(a.sun_path, path);
	strcpy(c->path, path);
	unlink(path); /* libtranship's socket beside it has already shown that the name is ours */
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->listen_fd < 0 || bind(c->listen_fd, (struct sockaddr *)&a, sizeof(a)) ||
	    listen(c->listen_fd, 4))
		return -errno;
	return 0;
}

int synthetic_control_start(struct synthetic_control *c, struct synthetic *g, struct tranship *t,
			    const char *name, const char *path)
{
	int err = 0;

	memset(c, 0, sizeof(*c));
	c->g = g;
	c->t = t;
	c->name = name;
	c->listen_fd = c->stop_fd = -1;
	pthread_mutex_init(&c->mutex, NULL);
	phase_begin(c, "start");
	if (!path)
		return 0;
	c->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->stop_fd < 0)
		return -errno;
	err = bind_control(c, path);
	if (!err)
		err = -pthread_create(&c->thread, NULL, control_thread, c);
	if (err) {
		fd_close(&c->listen_fd);
		fd_close(&c->stop_fd);
	}
	return err;
}

void synthetic_control_end(struct synthetic_control *c)
{
	if (c->stop_fd >= 0) {
		io_event_signal(c->stop_fd);
		pthread_join(c->thread, NULL);
		unlink(c->path);
	}
	fd_close(&c->listen_fd);
	fd_close(&c->stop_fd);
	pthread_mutex_destroy(&c->mutex);
}

/* One line, without its newline. */
static int read_line(int fd, char *buf, size_t len)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t used = 0;

	while (used + 1 < len) {
		ssize_t n;

		if (poll(&p, 1, ASK_MS) <= 0)
			return -ETIMEDOUT;
		n = read(fd, buf + used, len - 1 - used);
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		used += (size_t)n;
		if (buf[used - 1] == '\n') {
			buf[used - 1] = '\0';
			return 0;
		}
	}
	return -EMSGSIZE;
}

int synthetic_control_ask(const char *path, const char *command)
{
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	AUTO_FREE char *answer = malloc(ANSWER_MAX);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	json_t *j;
	int bad, err;

	if (fd < 0 || !answer || strlen(path) >= sizeof(a.sun_path))
		return 1;
	strcpy(a.sun_path, path);
	err = connect(fd, (struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
	if (!err)
		err = io_write_full(fd, command, strlen(command));
	if (!err)
		err = io_write_full(fd, "\n", 1);
	if (!err)
		err = read_line(fd, answer, ANSWER_MAX);
	if (err) {
		fprintf(stderr, "tranship-synthetic: %s: %s\n", path, strerror(-err));
		return 1;
	}
	puts(answer);
	j = json_loads(answer, 0, NULL);
	bad = !j || json_is_false(json_object_get(j, "ok")) ||
	      !strcmp(json_string_value(json_object_get(j, "event")) ?: "", "error");
	json_decref(j);
	return bad;
}
