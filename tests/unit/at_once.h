/* SPDX-License-Identifier: MIT */
/*
 * The cases of a test program that mostly wait, several at a time. Each has a process of its own,
 * and so its own globals, children and scratch directory; what it says is told when it has ended.
 */
#ifndef TRANSHIP_TESTS_AT_ONCE_H
#define TRANSHIP_TESTS_AT_ONCE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Their waiting fills more than two processors; what they work together still fits on them. */
#define AT_ONCE 4

struct at_once {
	pid_t pid; /* 0: free */
	int log;
};

static inline void at_once_begin(struct at_once *a, const struct CMUnitTest *test)
{
	a->log = memfd_create("case", MFD_CLOEXEC);
	if (a->log < 0)
		abort();
	fflush(stdout);
	fflush(stderr);
	a->pid = fork();
	if (a->pid < 0)
		abort();
	if (!a->pid) {
		const struct CMUnitTest one[] = { *test };

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(a->log, STDOUT_FILENO);
		dup2(a->log, STDERR_FILENO);
		exit(cmocka_run_group_tests_name(test->name, one, NULL, NULL));
	}
}

/* Waits for one of them to end; 1 if it failed. */
static inline int at_once_end(struct at_once *running)
{
	char text[4096];
	off_t at = 0;
	int status;
	ssize_t n;
	pid_t pid = wait(&status);

	if (pid < 0)
		abort();
	while (running->pid != pid)
		running++;
	while ((n = pread(running->log, text, sizeof(text), at)) > 0) {
		fwrite(text, 1, (size_t)n, stdout);
		at += n;
	}
	if (!WIFEXITED(status))
		printf("[  FAILED  ] ended by signal %d\n", WTERMSIG(status));
	close(running->log);
	running->pid = 0;
	return status != 0;
}

/* As cmocka_run_group_tests, begun in their order. */
static inline int run_at_once(const struct CMUnitTest *tests, size_t n)
{
	struct at_once running[AT_ONCE] = { 0 };
	unsigned int failed = 0, under_way = 0;

	for (size_t i = 0; i < n || under_way;) {
		if (i < n && under_way < AT_ONCE) {
			struct at_once *a = running;

			while (a->pid)
				a++;
			at_once_begin(a, &tests[i++]);
			under_way++;
			continue;
		}
		failed += (unsigned int)at_once_end(running);
		under_way--;
	}
	printf("%zu cases, %u failed\n", n, failed);
	return failed ? 1 : 0;
}

#endif
