/* SPDX-License-Identifier: MIT */
/* Names of threads, as ps -L, top -H and perf show them. */
#ifndef TRANSHIP_LIB_BASE_THREAD_H
#define TRANSHIP_LIB_BASE_THREAD_H

#include <pthread.h>
#include <stdio.h>

/* Names the calling thread WHAT-NUMBER, cut to the kernel's 15 characters. */
static inline void thread_name(const char *what, unsigned int number)
{
	char name[16];

	snprintf(name, sizeof(name), "%s-%u", what, number);
	pthread_setname_np(pthread_self(), name);
}

#endif
