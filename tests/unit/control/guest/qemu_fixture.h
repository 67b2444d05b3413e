/* SPDX-License-Identifier: MIT */
/* A real QEMU for tests: no disk, SeaBIOS idling; ended and cleaned up by fixture_stop(). */
#ifndef TRANSHIP_TEST_QEMU_FIXTURE_H
#define TRANSHIP_TEST_QEMU_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIXTURE_ARGS_MAX 64

struct fixture {
	pid_t pid;
	char dir[64]; /* scratch: sockets, logs, images */
	char qmp[96]; /* the first monitor */
	char ram[96]; /* the RAM file, on tmpfs */
	char name[32];
	int netns;	    /* > 0: QEMU lives in this network namespace */
	const char *hidden; /* not NULL: QEMU sees a tmpfs of its own on this directory */
	char *argv[FIXTURE_ARGS_MAX + 1]; /* owned words */
	int argc;
};

static inline const char *fixture_binary(void)
{
	const char *b = getenv("TRANSHIP_TEST_QEMU");

	return b ? b : "qemu-system-x86_64";
}

__attribute__((format(printf, 2, 3))) static inline void fixture_arg(struct fixture *x,
								     const char *fmt, ...)
{
	va_list args;

	if (x->argc >= FIXTURE_ARGS_MAX)
		abort();
	va_start(args, fmt);
	if (vasprintf(&x->argv[x->argc++], fmt, args) < 0)
		abort();
	va_end(args);
}

/* Names, paths and the options that every VM here has; more may follow before fixture_start(). */
static inline void fixture_init(struct fixture *x, const char *tag)
{
	memset(x, 0, sizeof(*x));
	snprintf(x->dir, sizeof(x->dir), "/tmp/tranship-test-%s-XXXXXX", tag);
	if (!mkdtemp(x->dir))
		abort();
	snprintf(x->name, sizeof(x->name), "t-%s-%d", tag, getpid());
	snprintf(x->qmp, sizeof(x->qmp), "%s/qmp.sock", x->dir);
	snprintf(x->ram, sizeof(x->ram), "/dev/shm/tranship-test-%s-%d", tag, getpid());
	fixture_arg(x, "%s", fixture_binary());
	fixture_arg(x, "-name");
	fixture_arg(x, "guest=%s,debug-threads=on", x->name);
	fixture_arg(x, "-nodefaults");
	fixture_arg(x, "-display");
	fixture_arg(x, "none");
	fixture_arg(x, "-vga");
	fixture_arg(x, "std");
	fixture_arg(x, "-accel");
	fixture_arg(x, "%s", getenv("TRANSHIP_TEST_ACCEL") ?: "tcg");
	fixture_arg(x, "-qmp");
	fixture_arg(x, "unix:%s,server=on,wait=off", x->qmp);
}

/* 128 MiB in the named file. */
static inline void fixture_shared_ram(struct fixture *x)
{
	fixture_arg(x, "-machine");
	fixture_arg(x, "q35,memory-backend=ram0");
	fixture_arg(x, "-m");
	fixture_arg(x, "128M");
	fixture_arg(x, "-object");
	fixture_arg(x, "memory-backend-file,id=ram0,size=128M,mem-path=%s,share=on", x->ram);
}

/* In the child: its network namespace, and mounts in which x->hidden is another directory. */
static inline int fixture_enter(const struct fixture *x)
{
	if (x->netns > 0 && setns(x->netns, CLONE_NEWNET))
		return -1;
	if (!x->hidden)
		return 0;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	return mount("tmpfs", x->hidden, "tmpfs", 0, NULL);
}

/*
 * True once the monitor greets, which the main loop does: everything on the command line is there.
 * The socket's name comes with bind(), a moment before listen().
 */
static inline bool fixture_greets(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char c;
	bool yes;

	strcpy(to.sun_path, path);
	yes = !connect(fd, (struct sockaddr *)&to, sizeof(to)) && read(fd, &c, 1) == 1;
	close(fd);
	return yes;
}

static inline void fixture_start(struct fixture *x)
{
	int watch = inotify_init1(IN_CLOEXEC), tries = 0;
	char log[128], events[4096];

	x->argv[x->argc] = NULL;
	inotify_add_watch(watch, x->dir, IN_CREATE | IN_ATTRIB);
	snprintf(log, sizeof(log), "%s/log", x->dir);
	x->pid = fork();
	if (x->pid == 0) {
		int out = open(log, O_CREAT | O_WRONLY | O_TRUNC, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out, 1);
		dup2(out, 2);
		if (fixture_enter(x))
			_exit(126);
		execvp(x->argv[0], x->argv);
		_exit(127);
	}
	while (!fixture_greets(x->qmp) && tries++ < 200) {
		struct pollfd p = { .fd = watch, .events = POLLIN };

		if (poll(&p, 1, 50) > 0 && read(watch, events, sizeof(events)) < 0)
			abort();
	}
	close(watch);
	if (tries > 200) {
		fprintf(stderr, "QEMU did not start, see %s\n", log);
		abort();
	}
}

/* Ends the VM if it still lives and removes its files; its words too. */
static inline void fixture_stop(struct fixture *x)
{
	char command[160];

	if (x->pid > 0) {
		kill(x->pid, SIGKILL);
		waitpid(x->pid, NULL, 0);
	}
	for (int i = 0; i < x->argc; i++)
		free(x->argv[i]);
	unlink(x->ram);
	snprintf(command, sizeof(command), "rm -rf '%s'", x->dir);
	if (system(command))
		fprintf(stderr, "%s stays\n", x->dir);
	memset(x, 0, sizeof(*x));
}

#endif
