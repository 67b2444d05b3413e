// SPDX-License-Identifier: MIT
/*
 * Who may write to a tracked page and be seen: another thread, the kernel on the process's behalf
 * (read(2) into it, as KVM and vhost do), another process by process_vm_writev; with a userfaultfd
 * of the unprivileged kind too. Not seen: pwrite on the file, a write through another mapping.
 */
#include <pthread.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "tests/platform/common.h"

static void *write_third(void *arg)
{
	((struct tracked *)arg)->map[3 * PAGE] = 1;
	return NULL;
}

static void check(struct tracked *t, uint64_t page, bool seen, const char *who)
{
	uint8_t pages[16] = { 0 };
	long n = tracked_scan(t, 0, 16, true, pages);

	prove(n == (seen ? 1 : 0) && pages[page] == seen, "%s: %ld pages", who, n);
	prove(tracked_scan(t, 0, 16, true, NULL) == 0, "reported twice");
	printf("%s: %s\n", who, seen ? "reported" : "not reported");
}

static void write_from_another_process(struct tracked *t)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct iovec here = { "x", 1 }, there = { t->map + 5 * PAGE, 1 };

		_exit(process_vm_writev(getppid(), &here, 1, &there, 1, 0) == 1 ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	prove(status == 0, "process_vm_writev");
}

static void try_all(struct tracked *t)
{
	pthread_t thread;
	uint8_t *other;
	int fds[2];

	prove(tracked_arm_all(t) == 0 && tracked_scan(t, 0, 16, true, NULL) == 0, "armed");
	prove(!pthread_create(&thread, NULL, write_third, t), "thread");
	pthread_join(thread, NULL);
	check(t, 3, true, "another thread");

	prove(!pipe(fds) && write(fds[1], "x", 1) == 1, "pipe");
	prove(read(fds[0], t->map + 4 * PAGE, 1) == 1, "read");
	close(fds[0]);
	close(fds[1]);
	check(t, 4, true, "read(2) into the page");

	write_from_another_process(t);
	check(t, 5, true, "process_vm_writev");

	prove(*(volatile uint8_t *)(t->map + 6 * PAGE) == 1, "content");
	check(t, 6, false, "reading");

	prove(pwrite(t->fd, "y", 1, 7 * PAGE) == 1 && t->map[7 * PAGE] == 'y', "pwrite");
	check(t, 7, false, "pwrite on the file");

	other = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, 0);
	other[8 * PAGE] = 2;
	check(t, 8, false, "another mapping of the file");
	munmap(other, 16 * PAGE);
}

int main(void)
{
	struct tracked t;

	tracked_map(&t, memfd_of(HUGE), HUGE);
	memset(t.map, 1, 16 * PAGE);
	tracked_register(&t);
	try_all(&t);

	close(t.uffd);
	close(t.pagemap);
	puts("with UFFD_USER_MODE_ONLY:");
	tracked_flags = UFFD_USER_MODE_ONLY;
	memset(t.map, 1, 16 * PAGE);
	tracked_register(&t);
	try_all(&t);
	return 0;
}
