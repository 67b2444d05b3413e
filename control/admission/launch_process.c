// SPDX-License-Identifier: MIT
/*
 * Starting a planned VM, and undoing that; see launch.h.
 *
 * The VM must outlive transhipd: it is in a session of its own and gets no death signal. As long as
 * transhipd lives, a sleeping thread a VM waits for it, so that none is left as a zombie.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/admission/launch.h"
#include "control/guest/proc_maps.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/text.h"

#define CONNECT_EVERY_MS 5     /* until QEMU listens; it takes 50 to 200 ms to come so far */
#define KILL_WAIT_MS	 60000 /* the kernel frees RAM at about 10 GiB/s */
#define REAPER_STACK	 (256u << 10)
#define LOG_LINES_MAX	 4

/* The end of the file; bytes read. */
static size_t read_end(const char *path, char *buf, size_t size)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st))
		return 0;
	n = pread(fd, buf, size, st.st_size > (off_t)size ? st.st_size - (off_t)size : 0);
	return n > 0 ? (size_t)n : 0;
}

void launch_log_tail(const struct launch_plan *p, unsigned int lines, char *text, size_t len)
{
	char tail[4096], *from[LOG_LINES_MAX];
	size_t n = read_end(p->log_path, tail, sizeof(tail) - 1), used = 0;
	unsigned int found = 0;

	/* from the last line to the first of those that say something */
	for (size_t end = n; end > 0 && found < lines && found < LOG_LINES_MAX;) {
		size_t start = end;

		while (start > 0 && tail[start - 1] != '\n')
			start--;
		tail[end] = '\0';
		if (tail[start + strspn(tail + start, " \t\r")])
			from[found++] = tail + start;
		end = start ? start - 1 : 0;
	}
	text[0] = '\0';
	while (found-- && used < len)
		used += (size_t)snprintf(text + used, len - used, "%s%s", used ? "; " : "",
					 from[found]);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	text_clean(text);
}

static int failed(const struct launch_plan *p, int err, const char *what, struct failure *f)
{
	char line[240];

	launch_log_tail(p, 1, line, sizeof(line));
	return failure_set(f, err, "launch-failed",
			   "see what QEMU says about its command line at the destination, or start "
			   "it there yourself and use --incoming",
			   "QEMU %s%s%s", what, line[0] ? ": " : "", line);
}

static int make_log(const struct launch_plan *p, int *fd)
{
	char dir[PATH_MAX];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", p->log_path);
	slash = strrchr(dir, '/');
	*slash = '\0';
	if (mkdir(dir, 0700) && errno != EEXIST)
		return -errno;
	*fd = open(p->log_path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
	return *fd < 0 ? -errno : 0;
}

/* Another session may have made one of the paths since the plan: QEMU would replace a socket. */
static int check_still_new(const struct launch_plan *p, struct failure *f)
{
	struct stat st;

	for (char **path = p->created; path && *path; path++)
		if (!lstat(*path, &st))
			return failure_set(f, -EEXIST, "launch-failed",
					   "remove it, or wait for what "
					   "uses it",
					   "%s exists already", *path);
	return 0;
}

static int spawn(const struct launch_plan *p, int log, pid_t *pid)
{
	/* Nothing of transhipd's environment is meant for a VM. */
	static char *const env[] = {
		(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"
			"/sbin:/bin",
		(char *)"HOME=/", (char *)"LC_ALL=C", NULL
	};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t all, none;
	int rc;

	sigfillset(&all);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	rc = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(&files, log, 1);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(&files, log, 2);
	if (!rc)
		rc = posix_spawn_file_actions_addclosefrom_np(&files, 3);
	if (!rc)
		rc = posix_spawn_file_actions_addchdir_np(&files, "/");
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF |
						POSIX_SPAWN_SETSIGMASK);
	if (!rc)
		rc = posix_spawn(pid, p->argv[0], &files, &attr, p->argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return -rc;
}

/* Polls one descriptor beside the VM's life. 1: fd is readable, 0: time is up, -ECHILD: VM ended.
 */
static int wait_beside(int pidfd, int fd, int timeout_ms)
{
	struct pollfd fds[2] = { { pidfd, POLLIN, 0 }, { fd, POLLIN, 0 } };
	int n = poll(fds, 2, timeout_ms);

	if (n < 0 && errno != EINTR)
		return -errno;
	if (n > 0 && fds[0].revents)
		return -ECHILD;
	return n > 0 && fds[1].revents;
}

static int until(uint64_t deadline_ns, int most_ms)
{
	uint64_t now = clock_ns();
	uint64_t ms =
		now < deadline_ns ? (deadline_ns - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC : 0;

	return ms < (uint64_t)most_ms ? (int)ms : most_ms;
}

/* A connected socket, or -errno; it never blocks. */
static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

/* Reads until the text has come. -EAGAIN: the connection ended, or time is up. */
static int read_until(int fd, int pidfd, const char *text, uint64_t deadline_ns)
{
	char answer[8192];
	size_t have = 0;

	while (have < sizeof(answer) && clock_ns() < deadline_ns) {
		int rc = wait_beside(pidfd, fd, until(deadline_ns, 1000));
		ssize_t n;

		if (rc < 0)
			return rc;
		if (!rc)
			continue;
		n = read(fd, answer + have, sizeof(answer) - have);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return -EAGAIN;
		have += n > 0 ? (size_t)n : 0;
		if (memmem(answer, have, text, strlen(text)))
			return 0;
	}
	return -EAGAIN;
}

/*
 * 0: QMP carries out commands. -EAGAIN: not listening yet, or the connection ended.
 * The greeting alone says nothing: a thread of its own gives it while the machine is still being
 * made, and may yet fail. Commands wait for the main loop.
 */
static int try_qmp(const struct launch_plan *p, int pidfd, uint64_t deadline_ns)
{
	static const char command[] = "{\"execute\":\"qmp_capabilities\"}\n";
	AUTO_CLOSE int fd = connect_to(p->qmp_path);
	int rc;

	if (fd < 0)
		return -EAGAIN;
	rc = read_until(fd, pidfd, "\"QMP\"", deadline_ns);
	if (rc)
		return rc;
	if (send(fd, command, sizeof(command) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(command) - 1)
		return -EAGAIN;
	return read_until(fd, pidfd, "\"return\"", deadline_ns);
}

static int wait_for_qmp(const struct launch_plan *p, int pidfd)
{
	uint64_t deadline = clock_ns() + p->start_ms * NSEC_PER_MSEC;

	while (clock_ns() < deadline) {
		int rc = try_qmp(p, pidfd, deadline);

		if (rc != -EAGAIN)
			return rc;
		rc = wait_beside(pidfd, -1, until(deadline, CONNECT_EVERY_MS));
		if (rc < 0)
			return rc;
	}
	return -ETIMEDOUT;
}

static void *reap(void *arg)
{
	pid_t pid = (pid_t)(intptr_t)arg;
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return NULL;
}

static int start_reaper(pid_t pid)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	/* Signals are for the threads that expect them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, REAPER_STACK);
	rc = pthread_create(&thread, &attr, reap, (void *)(intptr_t)pid);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -rc;
}

static void remove_files(const struct launch_plan *p)
{
	for (char **path = p->created; path && *path; path++)
		if (unlink(*path) && errno != ENOENT)
			log_warn("%s could not be removed: %s", *path, strerror(errno));
	if (p->log_path[0] && unlink(p->log_path) && errno != ENOENT)
		log_warn("%s could not be removed: %s", p->log_path, strerror(errno));
}

static const char *what_happened(int rc, const struct launch_plan *p, int status, char *buf,
				 size_t len)
{
	if (rc == -ETIMEDOUT)
		snprintf(buf, len, "did not answer on %.160s within %u s", p->qmp_path,
			 p->start_ms / 1000);
	else if (rc != -ECHILD)
		snprintf(buf, len, "could not be watched (%s)", strerror(-rc));
	else if (WIFSIGNALED(status))
		snprintf(buf, len, "was killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(buf, len, "ended with status %d", WEXITSTATUS(status));
	return buf;
}

/* From the running child on: waits, and leaves it to the reaper or undoes it. */
static int watch(const struct launch_plan *p, pid_t pid, struct failure *f)
{
	AUTO_CLOSE int pidfd = pidfd_open(pid, 0);
	char what[240];
	int rc = pidfd < 0 ? -errno : wait_for_qmp(p, pidfd);
	int status = 0;

	if (!rc)
		rc = start_reaper(pid);
	if (!rc)
		return 0;
	if (rc != -ECHILD)
		kill(pid, SIGKILL); /* our child, not waited for yet: the pid is its own */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	failed(p, rc, what_happened(rc, p, status, what, sizeof(what)), f);
	remove_files(p);
	return rc;
}

int launch_start(const struct launch_plan *p, pid_t *pid, struct failure *f)
{
	uint64_t start = clock_ns();
	AUTO_CLOSE int log = -1;
	int rc = check_still_new(p, f);

	*pid = 0;
	if (rc)
		return rc;
	rc = make_log(p, &log);
	if (rc)
		return failure_set(f, rc, "launch-failed", NULL, "%s: %s", p->log_path,
				   strerror(-rc));
	rc = spawn(p, log, pid);
	if (rc) {
		unlink(p->log_path);
		return failure_set(f, rc, "launch-failed", NULL, "%s: %s", p->argv[0],
				   strerror(-rc));
	}
	rc = watch(p, *pid, f);
	if (rc) {
		*pid = 0;
		return rc;
	}
	log_info("started %s as process %d in %.0f ms, log in %s", p->argv[0], *pid,
		 clock_ms_since(start), p->log_path);
	return 0;
}

/* False if a process listens on the socket, or may have the file open or mapped. */
static bool is_unused(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		return false;
	if (S_ISSOCK(st.st_mode)) {
		int fd = connect_to(path);

		if (fd >= 0)
			close(fd);
		return fd == -ECONNREFUSED;
	}
	AUTO_CLOSE int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	/* The kernel gives a write lease only on a file that is open nowhere else. */
	return S_ISREG(st.st_mode) && fd >= 0 && !fcntl(fd, F_SETLEASE, F_WRLCK);
}

static void remove_unused(const struct launch_plan *p)
{
	for (char **path = p->created; path && *path; path++)
		if (is_unused(*path) && unlink(*path))
			log_warn("%s could not be removed: %s", *path, strerror(errno));
	if (p->log_path[0])
		unlink(p->log_path);
}

/* True if pid runs exactly the plan's command line: pids are used again. */
static bool is_ours(const struct launch_plan *p, pid_t pid)
{
	AUTO_FREE char **argv = NULL;
	size_t argc, i = 0;

	if (proc_cmdline(pid, &argv, &argc))
		return false;
	while (argv[i] && p->argv[i] && !strcmp(argv[i], p->argv[i]))
		i++;
	return !argv[i] && !p->argv[i];
}

static bool names(char *const *argv, const char *path)
{
	for (; *argv; argv++)
		if (strstr(*argv, path))
			return true;
	return false;
}

/* A VM that waits as we start them, and names every file of the plan. */
static int look_for_vm(pid_t pid, void *arg)
{
	const struct launch_plan *p = arg;
	AUTO_FREE char **argv = NULL;
	size_t argc;

	if (proc_cmdline(pid, &argv, &argc) || argc < 4 || strcmp(argv[argc - 3], "-incoming") ||
	    strcmp(argv[argc - 2], "defer") || strcmp(argv[argc - 1], "-S"))
		return 0;
	for (char **path = p->created; *path; path++)
		if (!names(argv, *path))
			return 0;
	return pid;
}

/*
 * The VM of a journal that does not know its pid: transhipd died between starting it and writing
 * that down. 0 if there is none.
 */
static pid_t find_vm(const struct launch_plan *p)
{
	int found = p->created && *p->created ? proc_each(look_for_vm, (void *)p) : 0;

	return found > 0 ? found : 0;
}

void launch_undo(const struct launch_plan *p, pid_t pid)
{
	AUTO_CLOSE int pidfd = -1;

	if (pid <= 0 && p->argv)
		return;
	if (pid <= 0)
		pid = find_vm(p);
	if (pid <= 0) {
		remove_unused(p);
		return;
	}
	pidfd = pidfd_open(pid, 0);
	if (pidfd >= 0 && (!p->argv || is_ours(p, pid))) {
		struct pollfd end = { pidfd, POLLIN, 0 };

		if (pidfd_send_signal(pidfd, SIGKILL, NULL, 0) && errno != ESRCH)
			log_error("QEMU process %d could not be killed: %s", pid, strerror(errno));
		else if (poll(&end, 1, KILL_WAIT_MS) <= 0)
			log_error("QEMU process %d does not end", pid);
	}
	remove_files(p);
}
