/* SPDX-License-Identifier: MIT */
/* What this process has used so far, readable from inside the sandbox. */
#ifndef TRANSHIP_DATAPLANE_SELF_USAGE_H
#define TRANSHIP_DATAPLANE_SELF_USAGE_H

#include <stdint.h>

/* A descriptor to be kept for self_usage_read; before the sandbox. -errno. */
int self_usage_open(void);

/*
 * *cpu_ns: user and system time of all threads. *rss_bytes: private memory (RssAnon), which leaves
 * mapped guest RAM out; 0 if fd is negative or the kernel does not say.
 */
void self_usage_read(int fd, uint64_t *cpu_ns, uint64_t *rss_bytes);

#endif
