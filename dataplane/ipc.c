// SPDX-License-Identifier: MIT
/* Messages between transhipd and its data plane; see ipc.h. */
#include "dataplane/ipc.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/io.h"

enum fd_rule { FD_NONE, FD_ONE, FD_MAYBE };

struct type_info {
	uint32_t type;
	int size;
	enum fd_rule fd;
	const char *name;
};

static const struct type_info types[] = {
	{ IPC_CONFIG, sizeof(struct ipc_config), FD_NONE, "CONFIG" },
	{ IPC_REGION, sizeof(struct ipc_region), FD_ONE, "REGION" },
	{ IPC_MAPPING, sizeof(struct ipc_mapping), FD_NONE, "MAPPING" },
	{ IPC_TRACKER, sizeof(struct ipc_tracker), FD_MAYBE, "TRACKER" },
	{ IPC_STREAM, sizeof(struct ipc_stream), FD_ONE, "STREAM" },
	{ IPC_LISTEN, 0, FD_ONE, "LISTEN" },
	{ IPC_START, 0, FD_NONE, "START" },
	{ IPC_LIMIT, sizeof(struct ipc_limit), FD_NONE, "LIMIT" },
	{ IPC_SCAN, sizeof(struct ipc_scan), FD_NONE, "SCAN" },
	{ IPC_SEND, sizeof(struct ipc_send), FD_NONE, "SEND" },
	{ IPC_STATE, 0, FD_ONE, "STATE" },
	{ IPC_STATE_END, 0, FD_NONE, "STATE_END" },
	{ IPC_LOAD, 0, FD_ONE, "LOAD" },
	{ IPC_VERIFY, 0, FD_NONE, "VERIFY" },
	{ IPC_QUIT, 0, FD_NONE, "QUIT" },
	{ IPC_READY, sizeof(struct ipc_ready), FD_NONE, "READY" },
	{ IPC_CONNECTED, 0, FD_NONE, "CONNECTED" },
	{ IPC_SCANNED, sizeof(struct ipc_scanned), FD_NONE, "SCANNED" },
	{ IPC_SENT, sizeof(struct ipc_sent), FD_NONE, "SENT" },
	{ IPC_STATE_DONE, sizeof(struct ipc_count), FD_NONE, "STATE_DONE" },
	{ IPC_LOADED, sizeof(struct ipc_count), FD_NONE, "LOADED" },
	{ IPC_VERIFIED, sizeof(struct ipc_verified), FD_NONE, "VERIFIED" },
	{ IPC_PROGRESS, sizeof(struct ipc_stats), FD_NONE, "PROGRESS" },
	{ IPC_FAILED, sizeof(struct failure), FD_NONE, "FAILED" },
	{ IPC_BENCH, sizeof(struct ipc_bench), FD_MAYBE, "BENCH" },
	{ IPC_BENCH_RUN, sizeof(struct ipc_bench_run), FD_NONE, "BENCH_RUN" },
	{ IPC_BENCH_STOP, 0, FD_NONE, "BENCH_STOP" },
	{ IPC_BENCH_INTERVAL, sizeof(struct ipc_bench_interval), FD_NONE, "BENCH_INTERVAL" },
	{ IPC_BENCH_DONE, sizeof(struct ipc_bench_done), FD_NONE, "BENCH_DONE" },
	{ IPC_HAND_OVER, 0, FD_NONE, "HAND_OVER" },
	{ IPC_MISSING, 0, FD_ONE, "MISSING" },
	{ IPC_UFFD, 0, FD_ONE, "UFFD" },
	{ IPC_SERVE, 0, FD_NONE, "SERVE" },
	{ IPC_CUT, 0, FD_NONE, "CUT" },
	{ IPC_HANDED_OVER, sizeof(struct ipc_count), FD_NONE, "HANDED_OVER" },
	{ IPC_SERVING, 0, FD_NONE, "SERVING" },
	{ IPC_POSTCOPY, sizeof(struct ipc_postcopy), FD_NONE, "POSTCOPY" },
	{ IPC_COMPLETE, sizeof(struct ipc_postcopy), FD_NONE, "COMPLETE" },
};

static const struct type_info *info_of(uint32_t type)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].type == type)
			return &types[i];
	return NULL;
}

int ipc_body_size(uint32_t type)
{
	const struct type_info *t = info_of(type);

	return t ? t->size : -1;
}

bool ipc_carries_fd(uint32_t type)
{
	const struct type_info *t = info_of(type);

	return t && t->fd != FD_NONE;
}

const char *ipc_type_name(uint32_t type)
{
	const struct type_info *t = info_of(type);

	return t ? t->name : "unknown";
}

int ipc_send(int sock, enum ipc_type type, const void *body, int fd)
{
	struct ipc_message m;
	int size = ipc_body_size(type);

	if (size < 0 || (size > 0 && !body))
		return -EINVAL;
	m.head.type = type;
	m.head.size = (uint32_t)size;
	if (size)
		memcpy(&m.body, body, (size_t)size);
	return io_send_packet(sock, &m, sizeof(m.head) + (size_t)size, &fd, fd >= 0 ? 1 : 0);
}

static void terminate_strings(struct ipc_message *m)
{
	if (m->head.type == IPC_FAILED) {
		struct failure *f = &m->body.failure;

		f->code[sizeof(f->code) - 1] = '\0';
		f->message[sizeof(f->message) - 1] = '\0';
		f->hint[sizeof(f->hint) - 1] = '\0';
	} else if (m->head.type == IPC_READY) {
		struct ipc_ready *r = &m->body.ready;

		r->tx_reason[sizeof(r->tx_reason) - 1] = '\0';
		r->rx_reason[sizeof(r->rx_reason) - 1] = '\0';
	} else if (m->head.type == IPC_BENCH) {
		struct ipc_bench *b = &m->body.bench;

		b->far_congestion[sizeof(b->far_congestion) - 1] = '\0';
	}
}

static int wait_readable(int sock, int timeout_ms)
{
	uint64_t end = clock_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * NSEC_PER_MSEC;
	struct pollfd p = { .fd = sock, .events = POLLIN };
	int left = timeout_ms, n;

	while ((n = poll(&p, 1, left)) < 0 && errno == EINTR) {
		uint64_t now = clock_ns();

		if (timeout_ms >= 0)
			left = now >= end ? 0 : (int)((end - now) / NSEC_PER_MSEC);
	}
	if (n < 0)
		return -errno;
	return n ? 0 : -ETIMEDOUT;
}

static bool acceptable(const struct ipc_message *m, size_t len, int nfds)
{
	const struct type_info *t;

	if (len < sizeof(m->head) || len != sizeof(m->head) + m->head.size)
		return false;
	t = info_of(m->head.type);
	if (!t || m->head.size != (uint32_t)t->size || nfds > 1)
		return false;
	return t->fd == FD_MAYBE || nfds == (t->fd == FD_ONE);
}

int ipc_recv(int sock, struct ipc_message *m, int *fd, int timeout_ms)
{
	int fds[IO_FDS_MAX], nfds, err;
	size_t len = sizeof(*m);

	*fd = -1;
	err = wait_readable(sock, timeout_ms);
	if (err)
		return err;
	err = io_recv_packet(sock, m, &len, fds, &nfds, 0);
	if (err)
		return err == -EMSGSIZE ? -EBADMSG : err;
	if (!acceptable(m, len, nfds)) {
		while (nfds > 0)
			close(fds[--nfds]);
		return -EBADMSG;
	}
	if (nfds)
		*fd = fds[0];
	terminate_strings(m);
	return 0;
}
