// SPDX-License-Identifier: MIT
/* One side of a benchmark; see bench_side.h. */
#include "control/bench/bench_side.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/session/sockets.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define CONNECT_MS 10000u
/* Filling 16 GiB takes a while; the usual 256 MiB a tenth of a second. */
#define READY_MS	30000u
#define CANCELLED_EVERY 100

/* --- beginning -------------------------------------------------------------------------------- */

static int send_config(struct bench_side *s, const struct config *c, enum ipc_role role,
		       const uint8_t id[IPC_ID_SIZE], const uint8_t secret[IPC_SECRET_SIZE],
		       const char *far_congestion, struct failure *f)
{
	bool leads = role == IPC_ROLE_BENCH_SOURCE;
	const struct bench_options *o = s->o;
	const struct bench_cpus *cpus = leads ? &o->near : &o->far;
	struct ipc_config m = { .role = role,
				.streams = bench_options_streams(o),
				.tx = o->tx,
				.thp = c->thp,
				.compress = o->compress.kind,
				.level = o->compress.level,
				.connect_ms = CONNECT_MS,
				.log_level = c->verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN };
	struct ipc_bench b = { .memory = o->memory,
			       .forward = bench_options_forward(o),
			       .data = o->data,
			       .place = o->place,
			       .fresh = o->fresh,
			       .verify = o->verify,
			       .ncpus = cpus->count };
	AUTO_CLOSE int file = -1;
	int err;

	if (o->data == IPC_BENCH_FILE && leads) {
		file = open(o->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (file < 0)
			return failure_set(f, -EINVAL, "usage", NULL, "%.200s: %s.", o->file,
					   strerror(errno));
	} else if (o->data == IPC_BENCH_FILE) {
		b.data = IPC_BENCH_ZERO; /* this side only receives */
	}
	if (o->compress.kind != IPC_COMPRESS_OFF)
		m.encodings = IPC_ENCODING_ZSTD;
	memcpy(b.cpus, cpus->cpu, sizeof(b.cpus));
	memcpy(m.id, id, sizeof(m.id));
	memcpy(m.secret, secret, sizeof(m.secret));
	snprintf(b.far_congestion, sizeof(b.far_congestion), "%s", far_congestion);
	err = dataplane_start(&s->dp, c, f);
	if (!err)
		err = dataplane_send(&s->dp, IPC_CONFIG, &m, -1, f);
	explicit_bzero(m.secret, sizeof(m.secret));
	return err ? err : dataplane_send(&s->dp, IPC_BENCH, &b, file, f);
}

static int start(struct bench_side *s, int cancel_fd, struct failure *f)
{
	struct dataplane_wait w = { .cancel_fd = cancel_fd,
				    .guest_fd = -1,
				    .deadline_ns = clock_ns() + READY_MS * NSEC_PER_MSEC,
				    .late = "The data plane did not get ready in time.",
				    .skip_others = true };
	struct ipc_message m;
	int err = dataplane_send(&s->dp, IPC_START, NULL, -1, f);

	if (!err)
		err = dataplane_expect(&s->dp, IPC_READY, &m, &w, f);
	if (!err)
		s->ready = m.body.ready;
	return err;
}

static void socket_options(const struct bench_options *o, struct sockets_options *out)
{
	out->tos = o->tos;
	memcpy(out->congestion, o->congestion, sizeof(out->congestion));
}

/* A listener on each address; the far side of what it accepts is told in far. */
static int listen_all(struct bench_side *s, const struct config *c, int fds[IPC_LISTENERS_MAX],
		      char far[16], struct data_addresses *out, struct failure *f)
{
	struct sockets_options so;
	int err = data_addresses_listen(c, true, out, fds, f);

	socket_options(s->o, &so);
	for (uint32_t i = 0; !err && i < out->count; i++)
		err = sockets_listener_options(fds[i], &so, far, 16, f);
	if (!err)
		sockets_congestion(fds[0], s->congestion, sizeof(s->congestion));
	return err;
}

int bench_side_listen(struct bench_side *s, const struct config *c, const struct bench_options *o,
		      const uint8_t id[IPC_ID_SIZE], const uint8_t secret[IPC_SECRET_SIZE],
		      struct data_addresses *out, struct failure *f)
{
	int fds[IPC_LISTENERS_MAX], err;
	char far[16] = "";

	*s = (struct bench_side){ .o = o, .dp = DATAPLANE_NONE };
	err = listen_all(s, c, fds, far, out, f);
	if (!err)
		err = send_config(s, c, IPC_ROLE_BENCH_DESTINATION, id, secret, far, f);
	for (uint32_t i = 0; !err && i < out->count; i++)
		err = dataplane_send(&s->dp, IPC_LISTEN, NULL, fds[i], f);
	for (uint32_t i = 0; i < IPC_LISTENERS_MAX; i++)
		fd_close(&fds[i]);
	return err ? err : start(s, -1, f);
}

int bench_side_connect(struct bench_side *s, const struct config *c, const struct bench_options *o,
		       const uint8_t id[IPC_ID_SIZE], const uint8_t secret[IPC_SECRET_SIZE],
		       const struct data_addresses *to, int cancel_fd, struct failure *f)
{
	struct sockets_options so;
	int err;

	*s = (struct bench_side){ .o = o, .dp = DATAPLANE_NONE };
	socket_options(o, &so);
	err = send_config(s, c, IPC_ROLE_BENCH_SOURCE, id, secret, "", f);
	for (uint32_t i = 0; !err && i < bench_options_streams(o); i++) {
		struct ipc_stream m = { .index = i };
		uint32_t at = i % to->count;
		AUTO_CLOSE int fd = -1;

		err = sockets_connect_with(to->address[at], to->port[at], CONNECT_MS, cancel_fd,
					   &so, &fd, f);
		if (!err)
			err = dataplane_send(&s->dp, IPC_STREAM, &m, fd, f);
		if (!err && i == 0)
			sockets_congestion(fd, s->congestion, sizeof(s->congestion));
	}
	return err ? err : start(s, cancel_fd, f);
}

/* --- runs ------------------------------------------------------------------------------------- */

int bench_side_run(struct bench_side *s, uint64_t size, struct failure *f)
{
	const struct bench_options *o = s->o;
	struct ipc_bench_run m = { .number = ++s->runs,
				   .flags = o->latency ? IPC_BENCH_LATENCY : 0,
				   .size = size,
				   .time_ns = o->time_ms * NSEC_PER_MSEC,
				   .bytes = o->bytes,
				   .omit_ns = o->omit_ms * NSEC_PER_MSEC,
				   .interval_ns = o->interval_ms * NSEC_PER_MSEC,
				   .rate_limit = o->bandwidth };

	bench_account_clear(&s->account);
	s->running = true;
	return dataplane_send(&s->dp, IPC_BENCH_RUN, &m, -1, f);
}

int bench_side_stop(struct bench_side *s, struct failure *f)
{
	return s->running ? dataplane_send(&s->dp, IPC_BENCH_STOP, NULL, -1, f) : 0;
}

/* Beyond the most there can be, what a data plane says is not kept. */
static int keep_interval(struct bench_account *a, const struct ipc_bench_interval *i)
{
	if (a->nintervals > BENCH_INTERVALS_MAX)
		return 0;
	if (!(a->nintervals & (a->nintervals - 1))) {
		/* the room is the next power of two */
		size_t room = a->nintervals ? 2ul * a->nintervals : 1;
		void *p = realloc(a->intervals, room * sizeof(*a->intervals));

		if (!p)
			return -ENOMEM;
		a->intervals = p;
	}
	a->intervals[a->nintervals++] = *i;
	return 0;
}

static int told_end(struct bench_side *s, struct failure *f)
{
	struct dataplane_wait w = { .cancel_fd = -1, .guest_fd = -1 };
	struct ipc_message m;

	/* gives the words for it */
	return dataplane_expect(&s->dp, IPC_BENCH_DONE, &m, &w, f);
}

int bench_side_message(struct bench_side *s, const struct bench_wait *w, bool *done,
		       struct failure *f)
{
	struct ipc_message m;
	int fd, err = ipc_recv(s->dp.sock, &m, &fd, 0);

	fd_close(&fd);
	*done = false;
	if (err == -ETIMEDOUT)
		return 0;
	if (err) {
		err = told_end(s, f);
		return err ? err : -EPROTO;
	}
	switch (m.head.type) {
	case IPC_BENCH_INTERVAL:
		if (w && w->interval)
			w->interval(w->arg, &m.body.bench_interval);
		return keep_interval(&s->account, &m.body.bench_interval);
	case IPC_BENCH_DONE:
		s->account.done = m.body.bench_done;
		s->running = false;
		*done = true;
		return 0;
	case IPC_FAILED: {
		const struct failure *why = &m.body.failure;

		return failure_set(f, -EREMOTEIO,
				   failure_code_known(why->code) ? why->code : "internal",
				   why->hint, "%s", why->message);
	}
	default:
		return 0; /* CONNECTED */
	}
}

int bench_side_wait(struct bench_side *s, const struct bench_wait *w, struct failure *f)
{
	bool done = !s->running;
	int err = 0;

	while (!done && !err) {
		struct pollfd p[2] = { { .fd = s->dp.sock, .events = POLLIN },
				       { .fd = w->cancel_fd, .events = POLLIN } };

		if (w->cancelled && w->cancelled(w->arg))
			return -ECANCELED;
		if (w->deadline_ns && clock_ns() >= w->deadline_ns)
			return failure_set(f, -ETIMEDOUT, "data-lost",
					   "Look at the link between the hosts.",
					   "The benchmark does not come to its end.");
		/* a signal need not interrupt it: cancelled is asked often enough */
		if (poll(p, 2, CANCELLED_EVERY) < 0 && errno != EINTR)
			return failure_set(f, -errno, "internal", NULL, "poll failed: %m");
		if (p[0].revents)
			err = bench_side_message(s, w, &done, f);
	}
	return err;
}

void bench_side_end(struct bench_side *s)
{
	dataplane_stop(&s->dp);
	bench_account_clear(&s->account);
	s->running = false;
}

/* --- accounts --------------------------------------------------------------------------------- */

void bench_account_clear(struct bench_account *a)
{
	free(a->intervals);
	*a = (struct bench_account){ .nintervals = 0 };
}

static json_t *figures_to_json(const struct ipc_bench_figures *f)
{
	return json_pack("[I, I, I, I, I, I]", (json_int_t)f->ns, (json_int_t)f->bytes,
			 (json_int_t)f->wire_bytes, (json_int_t)f->zero_copy_bytes,
			 (json_int_t)f->cpu_ns, (json_int_t)f->retransmits);
}

json_t *bench_account_to_json(const struct bench_account *a)
{
	const struct ipc_bench_done *d = &a->done;
	const struct ipc_bench_latency *l = &d->latency;
	json_t *intervals = json_array();

	for (uint32_t i = 0; i < a->nintervals; i++) {
		const struct ipc_bench_interval *v = &a->intervals[i];

		json_array_append_new(intervals, json_pack("{s:I, s:I, s:o, s:o}", "start_ns",
							   (json_int_t)v->start_ns, "end_ns",
							   (json_int_t)v->end_ns, "tx",
							   figures_to_json(&v->tx), "rx",
							   figures_to_json(&v->rx)));
	}
	return json_pack("{s:o, s:o, s:[I, I, I, I, I, I], s:I, s:I, s:o}", "tx",
			 figures_to_json(&d->tx), "rx", figures_to_json(&d->rx), "latency",
			 (json_int_t)l->count, (json_int_t)l->min, (json_int_t)l->p50,
			 (json_int_t)l->p99, (json_int_t)l->p99_9, (json_int_t)l->max, "verified",
			 (json_int_t)d->verified, "mismatches", (json_int_t)d->mismatches,
			 "intervals", intervals);
}

/*
 * A number that can be: not negative, and so far from the largest there is that rows and directions
 * can be added up.
 */
static int take_number(const json_t *n, uint64_t *out)
{
	if (!json_is_integer(n) || json_integer_value(n) < 0 ||
	    json_integer_value(n) > INT64_MAX / (4 * BENCH_SIZES_MAX))
		return -EPROTO;
	*out = (uint64_t)json_integer_value(n);
	return 0;
}

/* An array of exactly count numbers. */
static int numbers(const json_t *j, uint64_t *out, size_t count)
{
	if (json_array_size(j) != count)
		return -EPROTO;
	for (size_t i = 0; i < count; i++)
		if (take_number(json_array_get(j, i), &out[i]))
			return -EPROTO;
	return 0;
}

static int number(const json_t *j, const char *member, uint64_t *out)
{
	return take_number(json_object_get(j, member), out);
}

static int figures_from_json(struct ipc_bench_figures *f, const json_t *j)
{
	uint64_t n[6];
	int err = numbers(j, n, 6);

	if (!err)
		*f = (struct ipc_bench_figures){ n[0], n[1], n[2], n[3], n[4], n[5] };
	return err;
}

static int interval_from_json(struct ipc_bench_interval *v, const json_t *j)
{
	int err = number(j, "start_ns", &v->start_ns);

	if (!err)
		err = number(j, "end_ns", &v->end_ns);
	if (!err)
		err = figures_from_json(&v->tx, json_object_get(j, "tx"));
	return err ? err : figures_from_json(&v->rx, json_object_get(j, "rx"));
}

int bench_account_from_json(struct bench_account *a, const json_t *j)
{
	struct ipc_bench_done *d = &a->done;
	const json_t *intervals = json_object_get(j, "intervals");
	uint64_t n[6];
	int err;

	bench_account_clear(a);
	err = figures_from_json(&d->tx, json_object_get(j, "tx"));
	if (!err)
		err = figures_from_json(&d->rx, json_object_get(j, "rx"));
	if (!err)
		err = numbers(json_object_get(j, "latency"), n, 6);
	if (!err)
		d->latency = (struct ipc_bench_latency){ n[0], n[1], n[2], n[3], n[4], n[5] };
	if (!err)
		err = number(j, "verified", &d->verified);
	if (!err)
		err = number(j, "mismatches", &d->mismatches);
	if (!err && !json_is_array(intervals))
		err = -EPROTO;
	for (size_t i = 0; !err && i < json_array_size(intervals); i++) {
		struct ipc_bench_interval v = { .index = (uint32_t)i };

		err = interval_from_json(&v, json_array_get(intervals, i));
		if (!err)
			err = keep_interval(a, &v);
	}
	if (err)
		bench_account_clear(a);
	return err;
}
