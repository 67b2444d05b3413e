// SPDX-License-Identifier: MIT
/* Counters for the compression policy; see compress_counters.h. */
#include "dataplane/codec/compress_counters.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

int compress_counters_open(void)
{
	int fd = open("/proc/uptime", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		log_info("how busy the processors are cannot be seen: %s", strerror(errno));
	return fd;
}

/* Idle time of all processors since the host's start. */
static uint64_t idle_ns(int uptime_fd)
{
	char text[64];
	double up, idle;
	ssize_t n = uptime_fd < 0 ? 0 : pread(uptime_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return COMPRESS_UNKNOWN;
	text[n] = '\0';
	return sscanf(text, "%lf %lf", &up, &idle) == 2 ? (uint64_t)(idle * 1e9) : COMPRESS_UNKNOWN;
}

void compress_counters_begin(struct compress_counters *c, int uptime_fd)
{
	*c = (struct compress_counters){ .ns = clock_ns(), .idle_ns = idle_ns(uptime_fd) };
}

void compress_counters_encoders(struct compress_counters *c, struct encode_pool *pool)
{
	struct encode_totals t;

	encode_pool_totals(pool, &t);
	c->encoders.sum.data += t.sum.data;
	c->encoders.sum.tried += t.sum.tried;
	c->encoders.sum.zstd_in += t.sum.zstd_in;
	c->encoders.sum.zstd_out += t.sum.zstd_out;
	c->encoders.sum.delta_in += t.sum.delta_in;
	c->encoders.sum.delta_out += t.sum.delta_out;
	c->encoders.cpu_ns += t.cpu_ns;
	c->encoders.waited_ns += t.waited_ns;
}

struct compress_sample compress_counters_between(const struct compress_counters *a,
						 const struct compress_counters *b,
						 uint32_t streams, uint32_t workers)
{
	const struct encode_result *x = &a->encoders.sum, *y = &b->encoders.sum;

	return (struct compress_sample){
		.ns = b->ns - a->ns,
		.raw = b->raw - a->raw,
		.in = b->in - a->in,
		.empty = b->empty - a->empty,
		.wire = b->wire - a->wire,
		.tried = y->tried + y->delta_in - x->tried - x->delta_in,
		.shrunk = y->zstd_in + y->delta_in - x->zstd_in - x->delta_in,
		.out = y->zstd_out + y->delta_out - x->zstd_out - x->delta_out,
		.cpu_ns = b->encoders.cpu_ns - a->encoders.cpu_ns,
		.waited_ns = b->encoders.waited_ns - a->encoders.waited_ns,
		.sending_ns = b->sending_ns - a->sending_ns,
		.blocked_ns = b->blocked_ns - a->blocked_ns,
		.idle_ns = a->idle_ns == COMPRESS_UNKNOWN || b->idle_ns == COMPRESS_UNKNOWN
				   ? COMPRESS_UNKNOWN
				   : b->idle_ns - a->idle_ns,
		.streams = streams,
		.workers = workers,
	};
}
