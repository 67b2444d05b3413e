// SPDX-License-Identifier: MIT
/* What this process has used so far; see self_usage.h. */
#include "dataplane/self_usage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"

int self_usage_open(void)
{
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

void self_usage_read(int fd, uint64_t *cpu_ns, uint64_t *rss_bytes)
{
	static const char key[] = "\nRssAnon:";
	unsigned long long kib;
	char text[4096];
	const char *line;
	ssize_t n;

	*cpu_ns = clock_of(CLOCK_PROCESS_CPUTIME_ID);
	*rss_bytes = 0;
	n = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : 0;
	if (n <= 0)
		return;
	text[n] = '\0';
	line = strstr(text, key);
	if (line && sscanf(line + strlen(key), "%llu kB", &kib) == 1)
		*rss_bytes = kib << 10;
}
