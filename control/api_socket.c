// SPDX-License-Identifier: MIT
/* The API's listening unix socket. */
#include "control/api_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

#define BACKLOG 128

static struct sockaddr_un address_of(const struct api_socket *s)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	_Static_assert(sizeof(a.sun_path) == sizeof(s->path), "a socket's path fits");
	memcpy(a.sun_path, s->path, sizeof(a.sun_path));
	return a;
}

/* Removes a socket that nobody serves. */
static int remove_stale(const struct api_socket *s)
{
	struct sockaddr_un a = address_of(s);
	AUTO_CLOSE int fd = -1;
	struct stat st;

	if (lstat(s->path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	/* non-blocking: a server whose queue is full is still a server (EAGAIN) */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)&a, sizeof(a)) || errno == EAGAIN)
		return -EADDRINUSE;
	if (errno != ECONNREFUSED)
		return -errno;
	return unlink(s->path) && errno != ENOENT ? -errno : 0;
}

static int bind_and_listen(struct api_socket *s, int *out)
{
	struct sockaddr_un a = address_of(s);
	AUTO_CLOSE int fd = -1;
	struct stat st;
	int err;

	err = remove_stale(s);
	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* the name is made with the mode of the socket's inode: never open to others, not briefly
	 */
	if (fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	if (listen(fd, BACKLOG) || stat(s->path, &st)) {
		err = -errno;
		unlink(s->path);
		return err;
	}
	s->device = st.st_dev;
	s->inode = st.st_ino;
	*out = fd_take(&fd);
	return 0;
}

int api_socket_listen(struct api_socket *s, const char *path, int *fd, struct failure *f)
{
	int err = -ENAMETOOLONG;

	memset(s, 0, sizeof(*s));
	if (strlen(path) < sizeof(s->path)) {
		strcpy(s->path, path);
		err = bind_and_listen(s, fd);
	}
	if (err == -EADDRINUSE)
		return failure_set(f, err, "busy", "Stop it, or choose another --socket.",
				   "Another transhipd answers on %s.", path);
	if (err)
		return failure_set(f, err, "internal", "Check the directory of --socket.",
				   "Cannot listen on %s: %s.", path,
				   err == -EEXIST ? "it exists and is not a socket"
						  : strerror(-err));
	return 0;
}

void api_socket_remove(const struct api_socket *s)
{
	struct stat st;

	if (!lstat(s->path, &st) && st.st_dev == s->device && st.st_ino == s->inode)
		unlink(s->path);
}
