// SPDX-License-Identifier: MIT
/*
 * tranship-synthetic: a guest without a VMM, for tests and measurements of moving RAM.
 * It links libtranship as a VMM would, and can be the source and the destination of a move.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/units.h"
#include "lib/tranship.h"
#include "lib/tranship_proto.h"
#include "tools/synthetic_control.h"
#include "tools/synthetic_guest.h"

static const char usage[] =
	"tranship-synthetic --name N --ram SIZE [options]   a guest\n"
	"tranship-synthetic --ctl NAME|PATH COMMAND [ARG]   stats, verify, phase NAME, pause,\n"
	"                                                   run, corrupt OFFSET, stop\n"
	"  --backing memfd|hugetlb|file:PATH  where RAM is (memfd)\n"
	"  --touched SIZE         how much of RAM is filled at the start (all)\n"
	"  --working-set SIZE     how much of it is rewritten (all that is touched)\n"
	"  --dirty-rate N|max     MiB a second (0)\n"
	"  --pattern seq|rand|zipf\n"
	"  --zero PCT             share of pages that are zero (0)\n"
	"  --compressible PCT     share of pages that compress about 5:1 (0)\n"
	"  --seed N               everything follows from it (1)\n"
	"  --threads N            writers (1)\n"
	"  --socket PATH          of libtranship (/run/tranship/vmm/NAME.sock)\n"
	"  --control PATH         of commands (the socket's path with .ctl for .sock)\n"
	"  --incoming             waits for a guest to come; takes all but --ram from it\n"
	"  --beat-log PATH        a line a ms of life: number, CLOCK_MONOTONIC nanoseconds\n"
	"SIGUSR1 prints the stats, SIGUSR2 verifies, SIGTERM and SIGINT stop.\n";

struct options {
	const char *name, *backing, *socket, *control, *beat_log, *ctl;
	uint64_t ram, touched, working_set;
	bool has_touched, has_working_set, incoming;
	struct synthetic_params p;
};

struct program {
	struct options o;
	struct synthetic g;
	struct synthetic_control control;
	struct tranship *t;
	int ram_fd;
	uint32_t page_size;
	void *ram;
	char created[4096]; /* the RAM file, to be removed at the end; or "" */
};

/* ---- options ----------------------------------------------------------------------------- */

static int parse_number(const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	return errno || end == text || *end || *text == '-' || *out > max ? -EINVAL : 0;
}

static int parse_rate(const char *text, uint64_t *rate)
{
	char *end;
	double mib;

	if (!strcmp(text, "max")) {
		*rate = SYNTHETIC_RATE_MAX;
		return 0;
	}
	mib = strtod(text, &end);
	if (end == text || *end || !(mib >= 0 && mib <= 1e9))
		return -EINVAL;
	*rate = (uint64_t)(mib * 1048576);
	return 0;
}

static int parse_pattern(const char *text, uint32_t *pattern)
{
	static const char *const names[] = { "seq", "rand", "zipf" };

	for (uint32_t i = 0; i < SYNTHETIC_PATTERNS; i++)
		if (!strcmp(text, names[i])) {
			*pattern = i;
			return 0;
		}
	return -EINVAL;
}

enum {
	OPT_NAME = 1,
	OPT_RAM,
	OPT_BACKING,
	OPT_TOUCHED,
	OPT_WORKING_SET,
	OPT_RATE,
	OPT_PATTERN,
	OPT_ZERO,
	OPT_COMPRESSIBLE,
	OPT_SEED,
	OPT_THREADS,
	OPT_SOCKET,
	OPT_CONTROL,
	OPT_INCOMING,
	OPT_BEAT_LOG,
	OPT_CTL,
	OPT_HELP
};

static const struct option option_table[] = {
	{ "name", required_argument, NULL, OPT_NAME },
	{ "ram", required_argument, NULL, OPT_RAM },
	{ "backing", required_argument, NULL, OPT_BACKING },
	{ "touched", required_argument, NULL, OPT_TOUCHED },
	{ "working-set", required_argument, NULL, OPT_WORKING_SET },
	{ "dirty-rate", required_argument, NULL, OPT_RATE },
	{ "pattern", required_argument, NULL, OPT_PATTERN },
	{ "zero", required_argument, NULL, OPT_ZERO },
	{ "compressible", required_argument, NULL, OPT_COMPRESSIBLE },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "control", required_argument, NULL, OPT_CONTROL },
	{ "incoming", no_argument, NULL, OPT_INCOMING },
	{ "beat-log", required_argument, NULL, OPT_BEAT_LOG },
	{ "ctl", required_argument, NULL, OPT_CTL },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static int take_option(struct options *o, int option, const char *arg)
{
	uint64_t n = 0;
	int err = 0;

	switch (option) {
	case OPT_NAME:
		o->name = arg;
		break;
	case OPT_RAM:
		return units_parse_size(arg, &o->ram);
	case OPT_BACKING:
		o->backing = arg;
		break;
	case OPT_TOUCHED:
		o->has_touched = true;
		return units_parse_size(arg, &o->touched);
	case OPT_WORKING_SET:
		o->has_working_set = true;
		return units_parse_size(arg, &o->working_set);
	case OPT_RATE:
		return parse_rate(arg, &o->p.rate);
	case OPT_PATTERN:
		return parse_pattern(arg, &o->p.pattern);
	case OPT_ZERO:
		err = parse_number(arg, 100, &n);
		o->p.kinds.zero_percent = (uint32_t)n;
		break;
	case OPT_COMPRESSIBLE:
		err = parse_number(arg, 100, &n);
		o->p.kinds.compressible_percent = (uint32_t)n;
		break;
	case OPT_SEED:
		return parse_number(arg, UINT64_MAX, &o->p.kinds.seed);
	case OPT_THREADS:
		err = parse_number(arg, SYNTHETIC_THREADS_MAX, &n);
		o->p.threads = (uint32_t)n;
		break;
	case OPT_SOCKET:
		o->socket = arg;
		break;
	case OPT_CONTROL:
		o->control = arg;
		break;
	case OPT_INCOMING:
		o->incoming = true;
		break;
	case OPT_BEAT_LOG:
		o->beat_log = arg;
		break;
	case OPT_CTL:
		o->ctl = arg;
		break;
	default:
		return -EINVAL;
	}
	return err;
}

/* 0; 1: help was printed; -EINVAL: said why. */
static int parse_options(struct options *o, int argc, char **argv)
{
	int option;

	memset(o, 0, sizeof(*o));
	o->backing = "memfd";
	o->p.kinds.seed = 1;
	o->p.threads = 1;
	while ((option = getopt_long(argc, argv, "+", option_table, NULL)) != -1) {
		if (option == OPT_HELP) {
			fputs(usage, stdout);
			return 1;
		}
		if (option == '?' || take_option(o, option, optarg)) {
			fprintf(stderr, "tranship-synthetic: %s: not understood; see --help\n",
				argv[optind - 1]);
			return -EINVAL;
		}
	}
	if (o->ctl)
		return 0;
	if (!o->name || o->ram < SYNTHETIC_PAGE || optind < argc) {
		fputs("tranship-synthetic: --name and --ram are needed; see --help\n", stderr);
		return -EINVAL;
	}
	o->p.touched = (o->has_touched ? o->touched : o->ram) / SYNTHETIC_PAGE;
	o->p.working_set = o->has_working_set ? o->working_set / SYNTHETIC_PAGE : o->p.touched;
	if (o->incoming)
		o->p.touched = o->p.working_set = 0;
	return 0;
}

/* ---- RAM --------------------------------------------------------------------------------- */

static int open_file(struct program *m, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd >= 0)
		snprintf(m->created, sizeof(m->created), "%s", path);
	else if (errno == EEXIST) /* left from before, or made by whoever starts us */
		fd = open(path, O_RDWR | O_TRUNC | O_CLOEXEC);
	return fd;
}

static int make_ram(struct program *m)
{
	struct statfs fs;

	if (!strcmp(m->o.backing, "memfd"))
		m->ram_fd = memfd_create("synthetic-ram", MFD_CLOEXEC);
	else if (!strcmp(m->o.backing, "hugetlb"))
		m->ram_fd = memfd_create("synthetic-ram", MFD_CLOEXEC | MFD_HUGETLB);
	else if (!strncmp(m->o.backing, "file:", 5))
		m->ram_fd = open_file(m, m->o.backing + 5);
	else
		return -EINVAL;
	if (m->ram_fd < 0 || fstatfs(m->ram_fd, &fs))
		return -errno;
	m->page_size = fs.f_type == HUGETLBFS_MAGIC ? (uint32_t)fs.f_bsize : SYNTHETIC_PAGE;
	if (m->o.ram % m->page_size)
		return -EINVAL;
	if (ftruncate(m->ram_fd, (off_t)m->o.ram))
		return -errno;
	m->ram = mmap(NULL, m->o.ram, PROT_READ | PROT_WRITE, MAP_SHARED, m->ram_fd, 0);
	return m->ram == MAP_FAILED ? -errno : 0;
}

/* Removes the file that we made, if it is still there and ours. */
static void remove_ram(struct program *m)
{
	struct stat ours, now;

	if (m->created[0] && !fstat(m->ram_fd, &ours) && !stat(m->created, &now) &&
	    ours.st_ino == now.st_ino && ours.st_dev == now.st_dev)
		unlink(m->created);
}

/* ---- what libtranship asks for ----------------------------------------------------------- */

static void report(const char *event, uint64_t ns)
{
	synthetic_print(STDOUT_FILENO,
			json_pack("{s:s, s:I}", "event", event, "ns", (json_int_t)ns));
}

static int on_pause(void *opaque)
{
	struct program *m = opaque;

	synthetic_pause(&m->g, SYNTHETIC_PAUSE_MOVE);
	report("paused", clock_ns());
	return 0;
}

static int on_resume(void *opaque)
{
	struct program *m = opaque;

	synthetic_resume(&m->g, SYNTHETIC_PAUSE_MOVE);
	report("resumed", clock_ns());
	return 0;
}

static int on_save(void *opaque, int fd)
{
	struct program *m = opaque;
	int err = synthetic_save(&m->g, fd);

	if (!err)
		report("saved", clock_ns());
	return err;
}

static int on_load(void *opaque, int fd)
{
	struct program *m = opaque;
	int err = synthetic_load(&m->g, fd);

	if (!err)
		report("loaded", clock_ns());
	return err;
}

static void on_quit(void *opaque)
{
	(void)opaque;
	report("quit", clock_ns());
	kill(getpid(), SIGTERM);
}

static bool on_running(void *opaque)
{
	struct program *m = opaque;

	return !(m->g.gate.reasons & SYNTHETIC_PAUSE_USER);
}

static void on_log(void *opaque, const char *line)
{
	(void)opaque;
	synthetic_print(STDOUT_FILENO, json_pack("{s:s, s:s}", "event", "log", "message", line));
}

static int make_tranship(struct program *m)
{
	static const struct tranship_ops ops = {
		.pause = on_pause,
		.resume = on_resume,
		.save_state = on_save,
		.load_state = on_load,
		.quit = on_quit,
		.running = on_running,
		.log = on_log,
	};
	const struct tranship_config config = {
		.name = m->o.name,
		.socket_path = m->o.socket,
		.vmm = "synthetic",
		.vmm_version = TRANSHIP_VERSION,
		.machine = "synthetic-1",
		.cpus = m->o.p.threads,
		.incoming = m->o.incoming,
		.ops = &ops,
		.opaque = m,
	};
	const struct tranship_region region = {
		.id = "ram",
		.fd = m->ram_fd,
		.size = m->o.ram,
		.page_size = m->page_size,
		.address = m->ram,
	};
	int err = tranship_new(&m->t, &config);

	if (!err)
		err = tranship_add_region(m->t, &region);
	return err ? err : tranship_start(m->t);
}

/* ---- life -------------------------------------------------------------------------------- */

static int make_guest(struct program *m)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int err = synthetic_init(&m->g, &m->o.p, m->ram, m->o.ram / SYNTHETIC_PAGE, m->ram_fd,
				 SYNTHETIC_PAUSE_MOVE);

	if (err)
		return err;
	if (m->o.beat_log) {
		m->g.beat_log =
			open(m->o.beat_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (m->g.beat_log < 0)
			return -errno;
	}
	if (m->o.incoming)
		return 0;
	err = synthetic_fill(&m->g, cpus > 0 ? (unsigned int)cpus : 1);
	if (!err)
		err = synthetic_start_threads(&m->g);
	if (!err)
		synthetic_resume(&m->g, SYNTHETIC_PAUSE_MOVE);
	return err;
}

/* SOCKET.ctl for SOCKET.sock. */
static void control_path(const struct program *m, char *path, size_t len)
{
	const char *socket = tranship_socket_path(m->t);
	size_t n = strlen(socket);

	if (m->o.control)
		snprintf(path, len, "%s", m->o.control);
	else if (n > 5 && !strcmp(socket + n - 5, ".sock"))
		snprintf(path, len, "%.*s.ctl", (int)(n - 5), socket);
	else
		snprintf(path, len, "%s.ctl", socket);
}

static void serve_signals(struct program *m, const sigset_t *signals)
{
	for (;;) {
		int signal;

		if (sigwait(signals, &signal))
			continue;
		if (signal == SIGTERM || signal == SIGINT)
			return;
		synthetic_print(
			STDOUT_FILENO,
			synthetic_control_do(&m->control, signal == SIGUSR1 ? "stats" : "verify"));
	}
}

static int run(struct program *m, const sigset_t *signals)
{
	uint64_t start = clock_ns();
	char path[4096] = "";
	int err = make_ram(m);

	if (!err)
		err = make_guest(m);
	if (!err)
		err = make_tranship(m);
	if (!err) {
		control_path(m, path, sizeof(path));
		err = synthetic_control_start(&m->control, &m->g, m->t, m->o.name, path);
	}
	if (err) {
		fprintf(stderr, "tranship-synthetic: %s: %s\n", m->o.name, strerror(-err));
		return err;
	}
	synthetic_print(STDOUT_FILENO, json_pack("{s:s, s:s, s:i, s:s, s:s, s:f}", "event", "ready",
						 "name", m->o.name, "pid", (int)getpid(), "socket",
						 tranship_socket_path(m->t), "control", path, "ms",
						 clock_ms_since(start)));
	serve_signals(m, signals);
	synthetic_control_end(&m->control);
	return 0;
}

/* --ctl NAME or PATH, then the command's words. */
static int ask(const struct options *o, int argc, char **argv)
{
	char path[4096], command[200];
	int n = snprintf(command, sizeof(command), "%s%s%s", optind < argc ? argv[optind] : "",
			 optind + 1 < argc ? " " : "", optind + 1 < argc ? argv[optind + 1] : "");

	if (n <= 0 || n >= (int)sizeof(command) || optind + 2 < argc) {
		fputs("tranship-synthetic: --ctl needs one command; see --help\n", stderr);
		return 1;
	}
	if (strchr(o->ctl, '/'))
		snprintf(path, sizeof(path), "%s", o->ctl);
	else
		snprintf(path, sizeof(path), "%s/%s.ctl", TRANSHIP_SOCKET_DIR, o->ctl);
	return synthetic_control_ask(path, command);
}

int main(int argc, char **argv)
{
	static struct program m = { .ram_fd = -1 };
	sigset_t signals;
	int err;

	/* Blocked before any thread is made, so that sigwait alone gets them. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	err = parse_options(&m.o, argc, argv);
	if (err)
		return err < 0;
	if (m.o.ctl)
		return ask(&m.o, argc, argv);
	err = run(&m, &signals);
	tranship_free(m.t);
	if (m.g.versions)
		synthetic_release(&m.g);
	remove_ram(&m);
	return err ? 1 : 0;
}
