// SPDX-License-Identifier: MIT
/*
 * transhipd: the control process of one host.
 *
 * Theory of operation
 *   main reads the settings, takes the state directory for itself (a lock, so that two daemons
 * never write one journal), recovers what an earlier one left (host_new), and only then answers on
 * its socket. From then on the API's threads and the sessions' threads work and main waits for a
 *   signal.
 *
 *   SIGTERM, SIGINT and SIGHUP end it: sessions led from here are cancelled while the API still
 *   answers, so that whoever watches them sees their end; after GRACE_MS or a second signal the
 * rest is left to host_free, which waits for what must not be interrupted (a session past COMMIT).
 *
 *   Signals are caught by a handler, not blocked: a mask would be inherited by QEMU and the data
 *   planes. SIGPIPE is ignored; launched programs get the default again from those who launch them.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/api.h"
#include "control/config.h"
#include "control/session/host.h"
#include "control/session/sockets.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fault.h"
#include "lib/base/io.h"
#include "lib/base/log.h"

#define EXIT_USAGE    1
#define EXIT_TROUBLE  2
#define GRACE_MS      15000
#define GRACE_STEP_MS 20
#define TOLD_MS	      3000 /* a source notices at once that its streams have ended, and asks */
/* Each session holds a few descriptors a RAM region, each connection one. */
#define FILES_WANTED 65536

static int signal_fd = -1;

static void on_signal(int number)
{
	int saved = errno;

	(void)number;
	io_event_signal(signal_fd);
	errno = saved;
}

static int set_up_signals(struct failure *f)
{
	static const int ends[] = { SIGTERM, SIGINT, SIGHUP };
	struct sigaction catch = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (signal_fd < 0)
		return failure_set(f, -errno, "internal", NULL, "No eventfd can be made: %m.");
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		sigaction(ends[i], &catch, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
	signal(SIGCHLD, SIG_DFL); /* an inherited SIG_IGN would lose our children's status */
	return 0;
}

/* Waits for a signal, at most timeout_ms (-1: for ever). True when one came. */
static bool wait_for_signal(int timeout_ms)
{
	struct pollfd p = { .fd = signal_fd, .events = POLLIN };

	while (poll(&p, 1, timeout_ms) < 0 && errno == EINTR && timeout_ms < 0)
		;
	return !io_event_clear(signal_fd);
}

/* Makes a directory and those above it, for root alone. One that exists is left as it is. */
static int make_dirs(const char *path)
{
	char part[PATH_MAX];
	size_t n = strlen(path);

	if (n >= sizeof(part))
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, 0700) && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static int make_places(const struct config *c, struct failure *f)
{
	char socket_dir[sizeof(c->socket)];
	const char *dir;
	int err;

	err = make_dirs(c->state_dir);
	if (err)
		return failure_set(f, err, "internal", "Choose another --state-dir.",
				   "Cannot make %.300s: %s.", c->state_dir, strerror(-err));
	snprintf(socket_dir, sizeof(socket_dir), "%s", c->socket);
	dir = dirname(socket_dir);
	err = make_dirs(dir);
	if (err)
		return failure_set(f, err, "internal", "Choose another --socket.",
				   "Cannot make %s: %s.", dir, strerror(-err));
	return 0;
}

/* *fd holds the lock until it is closed. */
static int lock_state(const struct config *c, int *fd, struct failure *f)
{
	char path[PATH_MAX + 8];

	snprintf(path, sizeof(path), "%s/lock", c->state_dir);
	*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*fd < 0)
		return failure_set(f, -errno, "internal", NULL, "Cannot open %.300s: %m.", path);
	if (!flock(*fd, LOCK_EX | LOCK_NB))
		return 0;
	return failure_set(f, -EBUSY, "busy", "Stop it, or choose another --state-dir.",
			   "Another transhipd uses %.300s.", c->state_dir);
}

static int check_helpers(const struct config *c, struct failure *f)
{
	if (access(c->dataplane, X_OK))
		return failure_set(f, -errno, "usage", "Name it with --dataplane.",
				   "The program %.300s cannot be run: %m.", c->dataplane);
	if (access(c->guard, X_OK))
		return failure_set(f, -errno, "usage", "Name it with --guard.",
				   "The program %.300s cannot be run: %m.", c->guard);
	return 0;
}

/* Without it no VM can be looked into, and the moves of all of them would fail. */
static int check_privilege(struct failure *f)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (!syscall(SYS_capget, &head, data) &&
	    data[CAP_TO_INDEX(CAP_SYS_PTRACE)].effective & CAP_TO_MASK(CAP_SYS_PTRACE))
		return 0;
	return failure_set(f, -EPERM, "usage", "Run it as root.",
			   "transhipd needs the privilege to trace processes (CAP_SYS_PTRACE).");
}

/*
 * Where arriving guests go. An address may come later than its daemon (a link that is not up yet):
 * that it is not there is only said.
 */
static int check_places(const struct config *c, struct failure *f)
{
	struct stat st;

	if (c->ram_dir[0] && (stat(c->ram_dir, &st) || !S_ISDIR(st.st_mode)))
		return failure_set(f, -ENOTDIR, "usage", "Make it, or choose another --ram-dir.",
				   "%.300s, where RAM files are to go, is no directory.",
				   c->ram_dir);
	for (unsigned int i = 0; i < c->ndata_addresses; i++) {
		struct failure why = { 0 };
		AUTO_CLOSE int fd = -1;
		uint16_t port;

		if (sockets_listen(c->data_addresses[i], 0, 0, &fd, &port, &why))
			log_warn("VMs cannot arrive at --data-address %s now: %s",
				 c->data_addresses[i], why.message);
	}
	return 0;
}

static void raise_limits(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= FILES_WANTED)
		return;
	r.rlim_cur = r.rlim_max < FILES_WANTED ? r.rlim_max : FILES_WANTED;
	setrlimit(RLIMIT_NOFILE, &r);
}

/*
 * Cancels what is led from here (once) and counts what of it is still under way; an arriving
 * session is led by its source, which is told when host_free ends it.
 */
static unsigned int wind_down(struct host *h, bool cancel)
{
	struct failure f = { 0 };
	json_t *list = NULL, *s, *ignored = NULL;
	unsigned int live = 0;
	size_t i;

	if (host_list(h, &list, &f))
		return 0;
	json_array_foreach (list, i, s) {
		const char *side = json_string_value(json_object_get(s, "side"));
		const char *id = json_string_value(json_object_get(s, "id"));

		if (!side || !id || !strcmp(side, "destination") ||
		    json_is_true(json_object_get(s, "terminal")))
			continue;
		live++;
		failure_clear(&f);
		if (cancel && host_cancel(h, id, &ignored, &f))
			log_info("%.8s: %s", id, f.message);
		json_decref(ignored);
		ignored = NULL;
	}
	json_decref(list);
	return live;
}

static void serve(struct host *h)
{
	uint64_t start;

	wait_for_signal(-1);
	log_info("ending");
	start = clock_ns();
	for (bool cancel = true; wind_down(h, cancel); cancel = false)
		if (wait_for_signal(GRACE_STEP_MS) || clock_ms_since(start) > GRACE_MS)
			break;
	/* Calls that wait for a session return, and the peers still hear why. */
	host_stop(h);
	start = clock_ns();
	while (host_untold(h))
		if (wait_for_signal(GRACE_STEP_MS) || clock_ms_since(start) > TOLD_MS)
			break;
}

static int run(const struct config *c, struct failure *f)
{
	AUTO_CLOSE int lock = -1;
	struct host *h = NULL;
	struct api *api = NULL;
	int err;

	err = check_helpers(c, f);
	if (!err)
		err = check_privilege(f);
	if (!err)
		err = check_places(c, f);
	if (!err)
		err = set_up_signals(f);
	if (!err)
		err = make_places(c, f);
	if (!err)
		err = lock_state(c, &lock, f);
	if (!err)
		err = host_new(&h, c, f);
	if (!err)
		err = api_new(&api, h, c->socket, f);
	if (!err) {
		log_info("tranship %s is ready on %s", TRANSHIP_VERSION, c->socket);
		serve(h);
	}
	api_free(api);
	if (h)
		host_free(h);
	return err;
}

int main(int argc, char **argv)
{
	/* some hundred KiB of paths */
	static struct config c;
	struct failure f = { 0 };
	int err;

	umask(077);
	log_init("transhipd", LOG_LEVEL_INFO);
	err = config_load(&c, argc, argv, &f);
	if (err == 1)
		return 0;
	if (err) {
		fprintf(stderr, "transhipd: %s\n%s%s%s", f.message, *f.hint ? "  " : "", f.hint,
			*f.hint ? "\n" : "");
		return EXIT_USAGE;
	}
	if (c.verbose)
		log_init("transhipd", LOG_LEVEL_DEBUG);
	if (fault_set(getenv(FAULT_ENVIRONMENT))) {
		fprintf(stderr, "transhipd: %s is malformed\n", FAULT_ENVIRONMENT);
		return EXIT_USAGE;
	}
	raise_limits();
	err = run(&c, &f);
	if (err) {
		log_error("%s: %s %s", f.code, f.message, f.hint);
		return EXIT_TROUBLE;
	}
	log_info("ended");
	return 0;
}
