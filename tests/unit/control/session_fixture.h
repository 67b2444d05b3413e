/* SPDX-License-Identifier: MIT */
/*
 * Two hosts in one scratch directory, a and b, for tests of sessions: daemons that are processes
 * (daemon_start) or hosts inside the test (host_start), synthetic guests, and what is asked of
 * them. Included once by a test program.
 *
 * The test is the subreaper of all it starts, so that what a killed daemon leaves behind is seen.
 */
#ifndef TRANSHIP_TESTS_SESSION_FIXTURE_H
#define TRANSHIP_TESTS_SESSION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/api.h"
#include "control/client.h"
#include "control/config.h"
#include "control/session/host.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"

enum side { A, B };

#define VMS_MAX 8

struct vm {
	char name[16];
	pid_t pid; /* 0: not started, or seen to have ended */
};

struct side_state {
	struct config config;
	pid_t daemon; /* 0: none */
	struct host *host;
	struct api *api;
	struct client *client;
	struct vm vms[VMS_MAX];
};

static char dir[64];
static char bin[4096]; /* where the built programs are */
static struct side_state sides[2];
static struct failure f; /* of the last call */

static const char side_letters[] = "ab";

static inline enum side other(enum side s)
{
	return s == A ? B : A;
}

static inline void nap_ms(unsigned int ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

/* --- processes ------------------------------------------------------------------------------- */

/* Runs BUILD/words[0]; its output goes to a log of the scratch directory, or comes in *out. */
static inline pid_t spawn(const char *const *words, const char *fault, int out)
{
	char program[4200], log[128], setting[256];
	char *env[] = { setting, NULL };
	pid_t pid;
	int fd;

	snprintf(program, sizeof(program), "%.4000s/%s", bin, words[0]);
	snprintf(log, sizeof(log), "%s/log", dir);
	snprintf(setting, sizeof(setting), FAULT_ENVIRONMENT "=%s", fault ? fault : "");
	pid = fork();
	if (pid)
		return pid;
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(out >= 0 ? out : fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	/* libcurl's sockets are inherited otherwise, and never seen to be closed */
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execve(program, (char *const *)words, env);
	_exit(127);
}

static inline int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline bool has_ended(pid_t pid)
{
	return waitpid(pid, NULL, WNOHANG) == pid;
}

/* --- the scratch directory ------------------------------------------------------------------- */

static inline void settings(enum side s)
{
	struct config *c = &sides[s].config;

	memset(c, 0, sizeof(*c));
	snprintf(c->socket, sizeof(c->socket), "%s/%c/sock", dir, side_letters[s]);
	snprintf(c->state_dir, sizeof(c->state_dir), "%s/%c/lib", dir, side_letters[s]);
	snprintf(c->data_address, sizeof(c->data_address), "127.0.0.1");
	snprintf(c->dataplane, sizeof(c->dataplane), "%.4000s/tranship-dataplane", bin);
	snprintf(c->guard, sizeof(c->guard), "%.4000s/tranship-guard", bin);
	c->allow_plaintext = true;
	c->sessions_max = 8;
	c->state_max = 64 << 20;
}

static inline void find_programs(void)
{
	const char *given = getenv("TRANSHIP_TEST_BIN");
	ssize_t n;
	char *p;

	if (given) {
		snprintf(bin, sizeof(bin), "%s", given);
		return;
	}
	n = readlink("/proc/self/exe", bin, sizeof(bin) - 1);
	assert_true(n > 0);
	bin[n] = '\0';
	p = strstr(bin, "/tests/unit/");
	assert_non_null(p);
	*p = '\0';
}

static inline int fixture_begin(void **unused)
{
	char path[128];

	(void)unused;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGPIPE, SIG_IGN);
	find_programs();
	memset(sides, 0, sizeof(sides));
	snprintf(dir, sizeof(dir), "/tmp/test_session.XXXXXX");
	assert_non_null(mkdtemp(dir));
	for (enum side s = A; s <= B; s++) {
		snprintf(path, sizeof(path), "%s/%c", dir, side_letters[s]);
		assert_int_equal(mkdir(path, 0700), 0);
		settings(s);
	}
	return 0;
}

/* --- hosts ----------------------------------------------------------------------------------- */

static inline struct client *client_of(enum side s)
{
	if (!sides[s].client)
		assert_int_equal(client_new(&sides[s].client, sides[s].config.socket, &f), 0);
	return sides[s].client;
}

/* The answer, or NULL and f. */
static inline json_t *call(enum side s, const char *method, const char *path, const json_t *in)
{
	json_t *out = NULL;

	failure_clear(&f);
	if (client_call(client_of(s), method, path, in, &out, 90000, "daemon-unreachable", &f))
		return NULL;
	return out;
}

static inline void host_start(enum side s)
{
	failure_clear(&f);
	if (host_new(&sides[s].host, &sides[s].config, &f) ||
	    api_new(&sides[s].api, sides[s].host, sides[s].config.socket, &f))
		fail_msg("host %c: %s", side_letters[s], f.message);
}

static inline void host_end(enum side s)
{
	client_free(sides[s].client);
	sides[s].client = NULL;
	if (!sides[s].host)
		return;
	host_stop(sides[s].host);
	api_free(sides[s].api);
	host_free(sides[s].host);
	sides[s].host = NULL;
	sides[s].api = NULL;
}

static inline bool answers(enum side s)
{
	json_t *j = call(s, "GET", "/v1/version", NULL);
	bool there = j;

	json_decref(j);
	return there;
}

/* It may die before it answers. */
static inline void daemon_spawn(enum side s, const char *fault)
{
	const struct config *c = &sides[s].config;
	const char *words[] = { "transhipd",	     c->verbose ? "--verbose" : "--allow-plaintext",
				"--allow-plaintext", "--socket",
				c->socket,	     "--state-dir",
				c->state_dir,	     "--data-address",
				c->data_address,     NULL };

	sides[s].daemon = spawn(words, fault, -1);
}

static inline void daemon_start(enum side s, const char *fault)
{
	daemon_spawn(s, fault);
	while (!answers(s)) {
		if (has_ended(sides[s].daemon))
			fail_msg("transhipd of %c ended", side_letters[s]);
		nap_ms(5);
	}
}

static inline void daemon_kill(enum side s, int signal)
{
	if (!sides[s].daemon)
		return;
	kill(sides[s].daemon, signal);
	if (signal != SIGKILL)
		kill(sides[s].daemon, SIGCONT);
	end_of(sides[s].daemon);
	sides[s].daemon = 0;
}

static inline bool is_stopped(pid_t pid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	if (file)
		fclose(file);
	return state == 'T';
}

static inline void await_stop(enum side s)
{
	uint64_t start = clock_ns();

	while (!is_stopped(sides[s].daemon)) {
		assert_true(clock_ms_since(start) < 30000);
		nap_ms(1);
	}
}

/* --- VMs ------------------------------------------------------------------------------------- */

static inline struct vm *vm_of(enum side s, const char *name)
{
	for (int i = 0; i < VMS_MAX; i++)
		if (sides[s].vms[i].pid && !strcmp(sides[s].vms[i].name, name))
			return &sides[s].vms[i];
	return NULL;
}

static inline void vm_path(enum side s, const char *name, const char *what, char path[128])
{
	snprintf(path, 128, "%s/%c/%s.%s", dir, side_letters[s], name, what);
}

/* "tranship:PATH", as the command line names it; the text lives until the next call of its side. */
static inline const char *vm_word(enum side s, const char *name)
{
	static char words[2][160];
	char path[128];

	vm_path(s, name, "sock", path);
	snprintf(words[s], sizeof(words[s]), "tranship:%s", path);
	return words[s];
}

/* Asks the guest itself; a new reference, or NULL. */
static inline json_t *vm_tell(enum side s, const char *name, const char *command)
{
	char path[128], answer[65536];
	const char *words[] = { "tranship-synthetic", "--ctl", path, command, NULL };
	size_t have = 0;
	int ends[2];
	ssize_t n;
	pid_t pid;

	vm_path(s, name, "ctl", path);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = spawn(words, NULL, ends[1]);
	close(ends[1]);
	while ((n = read(ends[0], answer + have, sizeof(answer) - have)) > 0)
		have += (size_t)n;
	close(ends[0]);
	end_of(pid);
	return json_loadb(answer, have, 0, NULL);
}

static inline bool vm_stat(enum side s, const char *name, const char *member)
{
	json_t *j = vm_tell(s, name, "stats");
	bool is = json_is_true(json_object_get(j, member));

	json_decref(j);
	return is;
}

static inline bool vm_runs(enum side s, const char *name)
{
	return vm_stat(s, name, "running");
}

static inline bool vm_is_right(enum side s, const char *name)
{
	json_t *j = vm_tell(s, name, "verify");
	bool ok = json_is_true(json_object_get(j, "ok"));

	json_decref(j);
	return ok;
}

static inline void vm_begin(enum side s, const char *name, bool incoming)
{
	char sock[128], beats[128], ram[128], backing[160];
	const char *words[] = { "tranship-synthetic",
				"--name",
				name,
				"--ram",
				"16MiB",
				"--socket",
				sock,
				"--beat-log",
				beats,
				"--backing",
				backing,
				"--zero",
				"20",
				incoming ? "--incoming" : "--dirty-rate",
				incoming ? NULL : "20",
				NULL };
	struct vm *vm = NULL;
	json_t *j;

	vm_path(s, name, "sock", sock);
	vm_path(s, name, "beats", beats);
	vm_path(s, name, "ram", ram);
	snprintf(backing, sizeof(backing), "file:%s", ram);
	unlink(beats);
	for (int i = 0; i < VMS_MAX && !vm; i++)
		vm = sides[s].vms[i].pid ? NULL : &sides[s].vms[i];
	if (!vm)
		abort();
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	vm->pid = spawn(words, NULL, -1);
	while (!(j = vm_tell(s, name, "stats"))) {
		if (has_ended(vm->pid))
			fail_msg("VM %s of %c ended", name, side_letters[s]);
		nap_ms(5);
	}
	json_decref(j);
}

static inline void vm_end(enum side s, const char *name)
{
	struct vm *vm = vm_of(s, name);

	assert_non_null(vm);
	kill(vm->pid, SIGKILL);
	end_of(vm->pid);
	vm->pid = 0;
}

/* True if it ended by itself. */
static inline bool vm_has_ended(enum side s, const char *name)
{
	struct vm *vm = vm_of(s, name);

	if (!vm || !has_ended(vm->pid))
		return !vm;
	vm->pid = 0;
	return true;
}

/* --- sessions -------------------------------------------------------------------------------- */

/* Options of a migration that moves plainly; the caller adds to it. */
static inline json_t *plain_options(enum side to, const char *incoming)
{
	return json_pack("{s:s, s:i, s:s}", "encrypt", "off", "streams", 2, "incoming",
			 vm_word(to, incoming));
}

/* Begins to move tranship:NAME; options is stolen. The session's id in id, or false and f. */
static inline bool begin_move(enum side from, enum side to, const char *name, json_t *options,
			      char id[40])
{
	char dest[160];
	json_t *in, *out;

	snprintf(dest, sizeof(dest), "unix:%s", sides[to].config.socket);
	in = json_pack("{s:s, s:s, s:o}", "vm", vm_word(from, name), "dest", dest, "options",
		       options);
	out = call(from, "POST", "/v1/sessions", in);
	json_decref(in);
	snprintf(id, 40, "%s", json_string_value(json_object_get(out, "id")) ?: "");
	json_decref(out);
	return id[0];
}

static inline json_t *session_of(enum side s, const char *id)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s", id);
	return call(s, "GET", path, NULL);
}

static inline const char *text(const json_t *j, const char *member)
{
	return json_string_value(json_object_get(j, member)) ?: "";
}

/* Waits until it is terminal; the session object. */
static inline json_t *await_end(enum side s, const char *id)
{
	json_int_t seq = 0;
	char path[160];
	json_t *j;

	for (;;) {
		snprintf(path, sizeof(path), "/v1/sessions/%s?wait=20000&since=%lld", id,
			 (long long)seq);
		j = call(s, "GET", path, NULL);
		if (!j)
			fail_msg("session %s of %c: %s", id, side_letters[s], f.message);
		if (json_is_true(json_object_get(j, "terminal")))
			return j;
		seq = json_integer_value(json_object_get(j, "seq"));
		json_decref(j);
	}
}

static inline void await_state(enum side s, const char *id, const char *state)
{
	uint64_t start = clock_ns();

	for (;;) {
		json_t *j = session_of(s, id);
		bool there = !strcmp(text(j, "state"), state);
		/* what is unresolved may be settled later */
		bool over = json_is_true(json_object_get(j, "terminal")) &&
			    strcmp(text(j, "state"), "unresolved");

		if (!there && (over || clock_ms_since(start) > 30000))
			fail_msg("session %s of %c is %s, not %s: %s", id, side_letters[s],
				 text(j, "state"), state,
				 text(json_object_get(j, "error"), "message"));
		json_decref(j);
		if (there)
			return;
		nap_ms(5);
	}
}

/* --- what is left ---------------------------------------------------------------------------- */

/* The children of a process that are neither known VMs nor daemons. */
static inline unsigned int strangers(pid_t of)
{
	char path[64], line[4096] = "", *at = line, *end;
	unsigned int n = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", of, of);
	file = fopen(path, "r");
	if (!file || !fgets(line, sizeof(line), file))
		line[0] = '\0';
	if (file)
		fclose(file);
	for (;; at = end) {
		pid_t pid = (pid_t)strtol(at, &end, 10);
		bool known = false;

		if (end == at)
			return n;
		for (enum side s = A; s <= B; s++) {
			known |= sides[s].daemon == pid;
			for (int i = 0; i < VMS_MAX; i++)
				known |= sides[s].vms[i].pid == pid;
		}
		n += !known && !(of == getpid() && has_ended(pid));
	}
}

/* No data plane and no guard is left, of living daemons and of dead ones. */
static inline void assert_no_strangers(void)
{
	uint64_t start = clock_ns();
	unsigned int n;

	do {
		n = strangers(getpid());
		for (enum side s = A; s <= B; s++)
			n += sides[s].daemon ? strangers(sides[s].daemon) : 0;
		nap_ms(2);
	} while (n && clock_ms_since(start) < 10000);
	if (n)
		fail_msg("%u processes are left", n);
}

static inline void print_log(void)
{
	char path[128], text_[4096];
	size_t n;
	FILE *file;

	snprintf(path, sizeof(path), "%s/log", dir);
	file = fopen(path, "r");
	while (file && (n = fread(text_, 1, sizeof(text_), file)) > 0)
		fwrite(text_, 1, n, stderr);
	if (file)
		fclose(file);
}

static inline int fixture_end(void **unused)
{
	char command[128];

	(void)unused;
	fault_set(NULL);
	for (enum side s = A; s <= B; s++) {
		host_end(s);
		daemon_kill(s, SIGKILL);
		for (int i = 0; i < VMS_MAX; i++)
			if (sides[s].vms[i].pid)
				vm_end(s, sides[s].vms[i].name);
	}
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	if (getenv("TRANSHIP_TEST_LOG"))
		print_log();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

#endif
