// SPDX-License-Identifier: MIT
/* Figures of a post-copy; see postcopy_figures.h. */
#include "control/session/postcopy_figures.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/postcopy/postcopy.h"
#include "lib/base/cleanup.h"

json_t *postcopy_figures_json(const struct ipc_postcopy *g)
{
	return json_pack(
		"{s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:f}", "faults",
		(json_int_t)g->faults, "local_faults", (json_int_t)g->local_faults, "p50_us",
		(double)g->p50_ns / 1e3, "p99_us", (double)g->p99_ns / 1e3, "max_us",
		(double)g->max_ns / 1e3, "demand_bytes", (json_int_t)(g->demand_pages * PAGE_BYTES),
		"push_bytes", (json_int_t)(g->push_pages * PAGE_BYTES), "late_bytes",
		(json_int_t)(g->late_pages * PAGE_BYTES), "interruptions",
		(json_int_t)g->interruptions, "interrupted_ms", (double)g->interrupted_ns / 1e6);
}

json_t *postcopy_figures_to_peer(const struct ipc_postcopy *g)
{
	json_t *j = postcopy_figures_json(g);

	json_object_set_new(j, "missing_bytes",
			    json_integer((json_int_t)(g->missing_pages * PAGE_BYTES)));
	return j;
}

/* Of one that believes nothing: times scale. */
static uint64_t take(const json_t *j, const char *member, double scale)
{
	double value = json_number_value(json_object_get(j, member)) * scale;

	return value > 0 && value < (double)INT64_MAX ? (uint64_t)value : 0;
}

void postcopy_figures_from_peer(const json_t *j, struct ipc_postcopy *g)
{
	const double page = 1.0 / PAGE_BYTES;

	*g = (struct ipc_postcopy){
		.missing_pages = take(j, "missing_bytes", page),
		.faults = take(j, "faults", 1),
		.local_faults = take(j, "local_faults", 1),
		.p50_ns = take(j, "p50_us", 1e3),
		.p99_ns = take(j, "p99_us", 1e3),
		.max_ns = take(j, "max_us", 1e3),
		.demand_pages = take(j, "demand_bytes", page),
		.push_pages = take(j, "push_bytes", page),
		.late_pages = take(j, "late_bytes", page),
		.interruptions = take(j, "interruptions", 1),
		.interrupted_ns = take(j, "interrupted_ms", 1e6),
	};
}

/* Bytes of the set, which the figures follow. */
static uint64_t set_bytes(const json_t *regions)
{
	size_t n = json_array_size(regions);
	AUTO_FREE struct region *r = calloc(n + 1, sizeof(*r));

	for (size_t i = 0; r && i < n; i++)
		r[i].size = (uint64_t)json_integer_value(
			json_object_get(json_array_get(regions, i), "size"));
	return r ? page_set_bytes(r, (uint32_t)n) : 0;
}

static int count_missing(int fd, uint64_t bytes, uint64_t *pages)
{
	uint64_t words[4096];

	for (uint64_t at = 0; at < bytes;) {
		size_t want = bytes - at < sizeof(words) ? (size_t)(bytes - at) : sizeof(words);
		ssize_t n = pread(fd, words, want, (off_t)at);

		if (n <= 0 || n % (ssize_t)sizeof(words[0]))
			return n < 0 ? -errno : -EINVAL;
		for (size_t i = 0; i < (size_t)n / sizeof(words[0]); i++)
			*pages += (uint64_t)__builtin_popcountll(words[i]);
		at += (uint64_t)n;
	}
	return 0;
}

int postcopy_figures_of_file(int fd, const json_t *regions, struct ipc_postcopy *g)
{
	uint64_t bytes = set_bytes(regions), missing = 0;
	AUTO_FREE struct postcopy_figures *figures = calloc(1, sizeof(*figures));
	int err = figures && bytes ? count_missing(fd, bytes, &missing) : -ENOMEM;

	if (err)
		return err;
	if (pread(fd, figures, sizeof(*figures), (off_t)bytes) != (ssize_t)sizeof(*figures))
		return -EINVAL;
	postcopy_sum_figures(figures, g);
	g->missing_pages = missing;
	return 0;
}

void session_note_postcopy(struct session *s, const struct ipc_postcopy *g, bool left)
{
	struct session_progress *p = &s->progress;
	SCOPED_LOCK(&s->lock);

	p->postcopy = true;
	p->faults = *g;
	if (left) {
		p->pending_bytes = g->missing_pages * PAGE_BYTES;
		p->pending_known = true;
	}
	s->seq++;
	pthread_cond_broadcast(&s->changed);
}
