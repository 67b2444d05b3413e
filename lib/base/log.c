// SPDX-License-Identifier: MIT
/* One write(2) a line, so that lines of several threads and processes do not mix. */
#include "lib/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char log_who[64] = "tranship";
static enum log_level log_max = LOG_LEVEL_INFO;

void log_init(const char *who, enum log_level level)
{
	snprintf(log_who, sizeof(log_who), "%s", who);
	log_max = level;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	char line[1024];
	int saved = errno;
	struct timespec now;
	va_list args;
	size_t n;

	if (level > log_max)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	n = (size_t)snprintf(line, sizeof(line) - 2, "%lld.%03ld %s: %s: ", (long long)now.tv_sec,
			     now.tv_nsec / 1000000, log_who, names[level]);
	va_start(args, fmt);
	errno = saved;
	n += (size_t)vsnprintf(line + n, sizeof(line) - 1 - n, fmt, args);
	va_end(args);
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0) {
		/* nowhere left to say so */
	}
	errno = saved;
}
