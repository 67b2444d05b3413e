// SPDX-License-Identifier: MIT
/*
 * libtranship's object: its making, its socket and the service thread; see tranship.h.
 *
 * Theory of operation
 *   The service thread polls the listening socket, the one connection and an eventfd that ends it.
 *   It alone touches the connection and the userfaultfd and calls the VMM's callbacks; what a
 *   request does is in tranship_serve.c. tranship_claim is the one other thread's look at its
 *   state: t->lock is held by the service thread while a request is handled, callbacks included.
 *
 *   A second connection waits in busy_fd for its HELLO and is then told that the guest is taken; a
 *   third displaces it. So a list of VMs never waits for a session's end.
 */
#include "lib/tranship.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/io.h"
#include "lib/tranship_internal.h"

_Static_assert(TRANSHIP_REGIONS_MAX == TRANSHIP_PROTO_REGIONS_MAX, "two words for one limit");

void tranship_log(const struct tranship *t, const char *fmt, ...)
{
	char line[400];
	va_list args;

	if (!t->ops->log)
		return;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	t->ops->log(t->opaque, line);
}

/* -EINVAL if it is missing though required, or does not fit. */
static int copy_word(char *to, size_t size, const char *from, bool required)
{
	if (!from)
		from = "";
	if ((required && !*from) || strlen(from) >= size)
		return -EINVAL;
	strcpy(to, from);
	return 0;
}

static int copy_words(struct tranship *t, const struct tranship_config *c)
{
	char path[256];
	int n;

	if (copy_word(t->name, sizeof(t->name), c->name, true) || strchr(t->name, '/') ||
	    t->name[0] == '.' || copy_word(t->vmm, sizeof(t->vmm), c->vmm, true) ||
	    copy_word(t->vmm_version, sizeof(t->vmm_version), c->vmm_version, true) ||
	    copy_word(t->machine, sizeof(t->machine), c->machine, true) ||
	    copy_word(t->cpu_model, sizeof(t->cpu_model), c->cpu_model, false) ||
	    copy_word(t->accel, sizeof(t->accel), c->accel ? c->accel : "none", true))
		return -EINVAL;
	if (c->socket_path)
		return copy_word(t->socket_path, sizeof(t->socket_path), c->socket_path, true);
	n = snprintf(path, sizeof(path), "%s/%s.sock", TRANSHIP_SOCKET_DIR, t->name);
	if (n >= (int)sizeof(path))
		return -EINVAL;
	return copy_word(t->socket_path, sizeof(t->socket_path), path, true);
}

int tranship_new(struct tranship **out, const struct tranship_config *c)
{
	struct tranship *t;
	int err;

	if (!c->ops || !c->ops->pause || !c->ops->resume || !c->ops->save_state || !c->ops->quit ||
	    (c->incoming && !c->ops->load_state))
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	err = copy_words(t, c);
	if (err) {
		free(t);
		return err;
	}
	t->ops = c->ops;
	t->opaque = c->opaque;
	t->direct_io = c->direct_io;
	t->cpus = c->cpus;
	t->state = c->incoming ? TRANSHIP_WAITING : TRANSHIP_RUNNING;
	t->listen_fd = t->stop_fd = t->conn_fd = t->busy_fd = t->uffd = -1;
	pthread_mutex_init(&t->lock, NULL);
	*out = t;
	return 0;
}

static int region_valid(const struct tranship *t, const struct tranship_region *r)
{
	uint64_t mask = (uint64_t)r->page_size - 1;
	struct stat st;

	if (!r->id || !*r->id || strlen(r->id) >= sizeof(t->regions[0].info.id) ||
	    r->page_size < 4096 || (r->page_size & mask) || !r->size || (r->size & mask) ||
	    (r->file_offset & mask) || !r->address || ((uintptr_t)r->address & mask))
		return -EINVAL;
	for (uint32_t i = 0; i < t->nregions; i++)
		if (!strcmp(t->regions[i].info.id, r->id))
			return -EEXIST;
	if (fstat(r->fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < r->size ||
	    (uint64_t)st.st_size - r->size < r->file_offset)
		return -EINVAL;
	/* ENOMEM: some of it is not mapped; nothing else happens on shared memory */
	return msync(r->address, r->size, MS_ASYNC) ? -EINVAL : 0;
}

int tranship_add_region(struct tranship *t, const struct tranship_region *r)
{
	struct region_entry *e = &t->regions[t->nregions];
	int err;

	if (t->started)
		return -EBUSY;
	if (t->nregions == TRANSHIP_REGIONS_MAX)
		return -ENOSPC;
	err = region_valid(t, r);
	if (err)
		return err;
	e->fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 3);
	if (e->fd < 0)
		return -errno;
	strcpy(e->info.id, r->id);
	e->info.size = r->size;
	e->info.file_offset = r->file_offset;
	e->info.address = (uintptr_t)r->address;
	e->info.page_size = r->page_size;
	t->nregions++;
	return 0;
}

/* The two last folders of the path, where they are missing; bind reports what cannot be made. */
static void make_folders(const char *path)
{
	char folder[108], *slash[2];

	snprintf(folder, sizeof(folder), "%s", path);
	slash[0] = strrchr(folder, '/');
	if (!slash[0] || slash[0] == folder)
		return;
	*slash[0] = '\0';
	slash[1] = strrchr(folder, '/');
	if (slash[1] && slash[1] != folder) {
		*slash[1] = '\0';
		mkdir(folder, 0755);
		*slash[1] = '/';
	}
	mkdir(folder, 0755);
}

/* Removes the socket of a process that has died; -EADDRINUSE if one answers. */
static int clear_stale(const struct sockaddr_un *a)
{
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (lstat(a->sun_path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	/* EAGAIN: its queue is full, so it lives; EPROTOTYPE: somebody of another kind */
	if (!connect(fd, (const struct sockaddr *)a, sizeof(*a)) || errno != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(a->sun_path) && errno != ENOENT ? -errno : 0;
}

static int bind_socket(struct tranship *t)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	int err;

	strcpy(a.sun_path, t->socket_path);
	make_folders(a.sun_path);
	err = clear_stale(&a);
	if (err)
		return err;
	t->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (t->listen_fd < 0)
		return -errno;
	/* Nobody can connect before listen, so the mode is right before it matters. */
	if (bind(t->listen_fd, (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	if (!lstat(a.sun_path, &st)) {
		t->socket_device = st.st_dev;
		t->socket_inode = st.st_ino;
	}
	if (chmod(a.sun_path, 0600) || listen(t->listen_fd, 8))
		return -errno;
	return 0;
}

static void unbind_socket(struct tranship *t)
{
	struct stat st;

	fd_close(&t->listen_fd);
	if (t->socket_inode && !lstat(t->socket_path, &st) && st.st_ino == t->socket_inode &&
	    st.st_dev == t->socket_device)
		unlink(t->socket_path);
	t->socket_inode = 0;
}

/* Root, or the VMM's own user. */
static bool peer_trusted(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

static void take_connection(struct tranship *t)
{
	int fd = accept4(t->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (!peer_trusted(fd)) {
		tranship_log(t, "refused a connection of another user");
		close(fd);
		return;
	}
	if (t->conn_fd >= 0) {
		fd_close(&t->busy_fd);
		t->busy_fd = fd;
		return;
	}
	pthread_mutex_lock(&t->lock);
	t->conn_fd = fd;
	t->greeted = false;
	pthread_mutex_unlock(&t->lock);
}

static void serve_connection(struct tranship *t)
{
	SCOPED_LOCK(&t->lock);

	if (tranship_serve_request(t)) {
		fd_close(&t->conn_fd);
		tranship_serve_lost(t);
	}
}

static void *service_thread(void *arg)
{
	struct tranship *t = arg;

	for (;;) {
		struct pollfd p[] = { { .fd = t->stop_fd, .events = POLLIN },
				      { .fd = t->listen_fd, .events = POLLIN },
				      { .fd = t->conn_fd, .events = POLLIN },
				      { .fd = t->busy_fd, .events = POLLIN } };

		if (poll(p, 4, -1) < 0)
			continue;
		if (p[0].revents)
			break;
		/* The connection first: whoever waits may be let in when it has ended. */
		if (p[2].revents)
			serve_connection(t);
		if (p[3].revents)
			tranship_serve_busy(t);
		if (p[1].revents)
			take_connection(t);
	}
	return NULL;
}

static int start_thread(struct tranship *t)
{
	sigset_t all, before;
	int err;

	/* SIGPIPE of a broken state stream above all; signals are the VMM's business anyway */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = -pthread_create(&t->thread, NULL, service_thread, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!err)
		pthread_setname_np(t->thread, "tranship");
	return err;
}

int tranship_start(struct tranship *t)
{
	int err;

	if (t->started)
		return -EBUSY;
	if (!t->nregions)
		return -EINVAL;
	t->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = t->stop_fd < 0 ? -errno : bind_socket(t);
	if (!err)
		err = start_thread(t);
	if (err) {
		unbind_socket(t);
		fd_close(&t->stop_fd);
		return err;
	}
	t->started = true;
	return 0;
}

int tranship_claim(struct tranship *t)
{
	SCOPED_LOCK(&t->lock);

	if (t->conn_fd >= 0)
		return -EBUSY;
	if (t->state == TRANSHIP_WAITING || t->state == TRANSHIP_BROKEN)
		return -EPROTO;
	t->state = TRANSHIP_RUNNING;
	return 0;
}

const char *tranship_socket_path(const struct tranship *t)
{
	return t->socket_path;
}

void tranship_free(struct tranship *t)
{
	if (!t)
		return;
	if (t->started) {
		io_event_signal(t->stop_fd);
		pthread_join(t->thread, NULL);
	}
	unbind_socket(t);
	tranship_track_disarm(t);
	fd_close(&t->conn_fd);
	fd_close(&t->busy_fd);
	fd_close(&t->stop_fd);
	for (uint32_t i = 0; i < t->nregions; i++)
		close(t->regions[i].fd);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
