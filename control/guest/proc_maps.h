/* SPDX-License-Identifier: MIT */
/*
 * What /proc tells of another process: its mappings, its command line, its files, and paths as it
 * sees them. None of it stops the process; /proc/PID/smaps, which walks page tables under the mmap
 * lock, is never read.
 */
#ifndef TRANSHIP_CONTROL_PROC_MAPS_H
#define TRANSHIP_CONTROL_PROC_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_map {
	uint64_t start, end;
	uint64_t offset; /* bytes in the file */
	uint64_t device; /* as the kernel names the file system here: not always st_dev */
	uint64_t inode;	 /* 0: anonymous */
	bool write, shared;
	const char *path; /* "" or as the kernel prints it, with " (deleted)" if it is so */
};

/* One line of /proc/PID/maps, without its newline; path points into line. -EINVAL. */
int proc_map_parse(const char *line, struct proc_map *m);

/*
 * Calls fn for each mapping in order of address until it returns non-zero, which is then returned.
 * m and its path are valid during the call. -errno if the file cannot be read.
 */
int proc_maps_each(pid_t pid, int (*fn)(const struct proc_map *m, void *arg), void *arg);

/* When the process began, in clock ticks since boot (stat field 22). -ESRCH if there is none. */
int proc_start_time(pid_t pid, uint64_t *ticks);

/*
 * The command line: a NULL-terminated array in one allocation (free() it), *argc words. -ESRCH for
 * a process that has none (a zombie, a kernel thread).
 */
int proc_cmdline(pid_t pid, char ***argv, size_t *argc);

/* The file name of its program, without " (deleted)"; "" if it cannot be read. */
void proc_exe_name(pid_t pid, char *buf, size_t len);

/* A number of /proc/PID/status ("Seccomp", "PPid", "Uid"); -1 if it is not there. */
long proc_status_number(pid_t pid, const char *field);

/* Calls fn with each process id until it returns non-zero, which is then returned. */
int proc_each(int (*fn)(pid_t pid, void *arg), void *arg);

/* Calls fn with each descriptor and what its link says until fn returns non-zero. */
int proc_fds_each(pid_t pid, int (*fn)(int fd, const char *target, void *arg), void *arg);

/*
 * Opens a path as that process would: from its root (symbolic links stay inside it), or from its
 * working directory. flags as for open(2). Descriptor or -errno.
 */
int proc_open_path(pid_t pid, const char *path, int flags);

/* The path that the unix socket behind descriptor fd is bound to; -ENOENT if there is none. */
int proc_unix_socket_path(pid_t pid, int fd, char *buf, size_t len);

#endif
