// SPDX-License-Identifier: MIT
/* What /proc tells: own mappings, hostile lines, paths in another root; and QEMU's options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/guest/proc_maps.h"
#include "control/guest/qemu_args.h"

static void lines(void **state)
{
	struct proc_map m;

	(void)state;
	assert_int_equal(proc_map_parse("7f2f97fff000-7f2f9ffff000 rw-s 00001000 00:1b 2      "
					"                    /dev/shm/a file (deleted)",
					&m),
			 0);
	assert_true(m.start == 0x7f2f97fff000 && m.end == 0x7f2f9ffff000 && m.offset == 0x1000);
	assert_true(m.device == makedev(0, 0x1b) && m.inode == 2 && m.write && m.shared);
	assert_string_equal(m.path, "/dev/shm/a file (deleted)");
	assert_int_equal(proc_map_parse("00400000-00401000 r--p 00000000 fe:01 99", &m), 0);
	assert_true(!m.write && !m.shared && m.inode == 99);
	assert_string_equal(m.path, "");
}

static void hostile_lines(void **state)
{
	static const char *const bad[] = {
		"",
		"-",
		"0-1",
		"zz-11 rw-s 0 0:0 0 ",
		"11-10 rw-s 0 00:00 0 x",
		"10-11 rw",
		"10-11 rw-s",
		"10-11 rw-s 0",
		"10-11 rw-s 0 00",
		"10-11 rw-s 0 00:0",
		"10-11 rw-s 0 00:00 ",
		"10-11 rw-s 0 00:00 x",
		"10-11  rw-s 0 00:00 1",
		"10-11 rw-s -1 00:00 1",
		"fffffffffffffffff-fffffffffffffffff1 rw-s 0 00:00 1",
		"10-11 rw-sx0 00:00 1",
	};
	struct proc_map m;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(proc_map_parse(bad[i], &m), -EINVAL);
}

struct search {
	uint64_t start, inode;
	struct proc_map found;
	int calls;
};

static int look(const struct proc_map *m, void *arg)
{
	struct search *s = arg;

	s->calls++;
	if (m->start != s->start)
		return 0;
	s->found = *m;
	return 7;
}

static void own_mappings(void **state)
{
	int fd = memfd_create("test-maps", MFD_CLOEXEC);
	struct search s = { 0 };
	struct stat st;
	void *p;

	(void)state;
	assert_int_equal(ftruncate(fd, 3 * 4096), 0);
	p = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 4096);
	fstat(fd, &st);
	s.start = (uint64_t)p;
	assert_int_equal(proc_maps_each(getpid(), look, &s), 7);
	assert_true(s.found.shared && !s.found.write && s.found.offset == 4096);
	assert_true(s.found.end - s.found.start == 8192 && s.found.inode == st.st_ino);
	munmap(p, 8192);
	s.calls = 0;
	assert_int_equal(proc_maps_each(getpid(), look, &s), 0);
	assert_true(s.calls > 5);
	close(fd);
	assert_int_equal(proc_maps_each(0x7ffffff0, look, &s), -ENOENT);
}

static int note_fd(int fd, const char *target, void *arg)
{
	return fd == *(int *)arg && !strcmp(target, "/dev/null");
}

static void facts_of_processes(void **state)
{
	uint64_t own, start;
	char name[64], **argv;
	size_t argc;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pid_t child;

	(void)state;
	assert_int_equal(proc_start_time(getpid(), &own), 0);
	assert_true(own > 0);
	assert_int_equal(proc_start_time(0x7ffffff0, &start), -ESRCH);
	proc_exe_name(getpid(), name, sizeof(name));
	assert_string_equal(name, "test_proc_maps");
	assert_int_equal(proc_cmdline(getpid(), &argv, &argc), 0);
	assert_non_null(strstr(argv[0], "test_proc_maps"));
	assert_true(argc >= 1 && argv[argc] == NULL);
	free(argv);
	assert_int_equal(proc_status_number(getpid(), "PPid"), getppid());
	assert_int_equal(proc_status_number(getpid(), "NoSuchField"), -1);
	assert_int_equal(proc_fds_each(getpid(), note_fd, &fd), 1);
	close(fd);
	assert_int_equal(proc_fds_each(getpid(), note_fd, &fd), 0);
	/* A zombie has no command line. */
	child = fork();
	if (child == 0)
		_exit(0);
	siginfo_t info;
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(proc_cmdline(child, &argv, &argc), -ESRCH);
	waitpid(child, NULL, 0);
}

static void sockets_by_descriptor(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char path[128];

	(void)state;
	snprintf(a.sun_path, sizeof(a.sun_path), "/tmp/test-proc-maps-%d with blank", getpid());
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(proc_unix_socket_path(getpid(), fd, path, sizeof(path)), 0);
	assert_string_equal(path, a.sun_path);
	assert_int_equal(proc_unix_socket_path(getpid(), 0x7fff, path, sizeof(path)), -ENOENT);
	unlink(a.sun_path);
	close(fd);
}

/* A process with another root and mount namespace, in which an absolute link leads on. */
static pid_t in_another_root(const char *dir, int ready)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", dir, "tmpfs", 0, NULL) || chroot(dir) || chdir("/") ||
	    mkdir("/run", 0700) || mkdir("/var", 0700) || symlink("/run", "/var/run") ||
	    close(open("/run/here", O_CREAT | O_WRONLY, 0600)) || chdir("/run"))
		_exit(1);
	if (write(ready, "r", 1) != 1)
		_exit(1);
	pause();
	_exit(0);
}

static void paths_of_another_root(void **state)
{
	char dir[] = "/tmp/test-proc-root-XXXXXX", c;
	int ends[2], fd;
	pid_t pid;

	(void)state;
	if (geteuid() != 0) {
		print_message("needs root: another mount namespace\n");
		skip();
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(pipe(ends), 0);
	pid = in_another_root(dir, ends[1]);
	close(ends[1]);
	assert_int_equal(read(ends[0], &c, 1), 1);
	fd = proc_open_path(pid, "/var/run/here", O_RDONLY);
	assert_true(fd >= 0);
	close(fd);
	fd = proc_open_path(pid, "here", O_RDONLY);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(proc_open_path(pid, "/etc/passwd", O_RDONLY), -ENOENT);
	/* Nothing leads out of that root. */
	assert_int_equal(proc_open_path(pid, "/../../../../etc/passwd", O_RDONLY), -ENOENT);
	assert_int_equal(proc_open_path(getpid(), "/var/run/here", O_RDONLY), -ENOENT);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(ends[0]);
	rmdir(dir);
}

static void options(void **state)
{
	char buf[64], small[4];

	(void)state;
	assert_true(
		qemu_opt_get("guest=a,,b=c,debug-threads=on", "guest", "guest", buf, sizeof(buf)));
	assert_string_equal(buf, "a,b=c");
	assert_true(qemu_opt_get("vm,,1,process=x", "guest", "guest", buf, sizeof(buf)));
	assert_string_equal(buf, "vm,1");
	assert_true(qemu_opt_get("/p/q,server,nowait", "server", NULL, buf, sizeof(buf)));
	assert_string_equal(buf, "on");
	assert_true(qemu_opt_get("/p/q,server,nowait", "path", "path", buf, sizeof(buf)));
	assert_string_equal(buf, "/p/q");
	assert_true(qemu_opt_get("a=1,a=2", "a", NULL, buf, sizeof(buf)));
	assert_string_equal(buf, "2");
	assert_false(qemu_opt_get("ab=1,xa=2", "a", NULL, buf, sizeof(buf)));
	assert_false(qemu_opt_get("x=,,a=1", "a", NULL, buf, sizeof(buf)));
	assert_true(qemu_opt_get("x=1,,,a=1", "a", NULL, buf, sizeof(buf)));
	assert_false(qemu_opt_get("", "a", "a", buf, sizeof(buf)));
	assert_true(qemu_opt_get("a=abcdefgh", "a", NULL, small, sizeof(small)));
	assert_string_equal(small, "abc");
	assert_true(qemu_opt_get("a=", "a", NULL, buf, sizeof(buf)));
	assert_string_equal(buf, "");
	assert_true(qemu_opt_get("{\"driver\": \"x\", \"ro\": true, \"n\": 5}", "ro", NULL, buf,
				 sizeof(buf)));
	assert_string_equal(buf, "on");
	assert_true(qemu_opt_get("{\"driver\": \"x\", \"n\": 5}", "n", NULL, buf, sizeof(buf)));
	assert_string_equal(buf, "5");
	assert_false(qemu_opt_get("{\"driver\": ", "driver", NULL, buf, sizeof(buf)));
}

static void command_lines(void **state)
{
	char *argv[] = { "qemu", "-device", "a,id=1", "--device", "b",
			 "-S",	 "-cpu",    "x",      "-cpu",	  NULL };
	size_t at = 1;

	(void)state;
	assert_string_equal(qemu_args_next(argv, &at, "-device"), "a,id=1");
	assert_string_equal(qemu_args_next(argv, &at, "-device"), "b");
	assert_null(qemu_args_next(argv, &at, "-device"));
	assert_string_equal(qemu_args_last(argv, "-cpu"), "x");
	assert_null(qemu_args_last(argv, "-incoming"));
	assert_true(qemu_args_flag(argv, "-S"));
	assert_false(qemu_args_flag(argv, "-s"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines),
		cmocka_unit_test(hostile_lines),
		cmocka_unit_test(own_mappings),
		cmocka_unit_test(facts_of_processes),
		cmocka_unit_test(sockets_by_descriptor),
		cmocka_unit_test(paths_of_another_root),
		cmocka_unit_test(options),
		cmocka_unit_test(command_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
