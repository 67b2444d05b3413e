// SPDX-License-Identifier: MIT
/*
 * tranship predict VM DEST, and the forecast of a dry run.
 *
 * Theory of operation
 *   The guest is watched (dirty_rate.c) and then left alone while the path is probed with the
 *   benchmark's engine, twice for PROBE_MS: into memory that is new at the destination, as the
 *   first round finds it, and into memory that is there, as later ones do. What comes of both is a
 *   model, and the simulator does the rest.
 *
 *   Not measured: what compression would save (the forecast is of plain pages), and the pause's
 *   fixed part, which is taken for what it is elsewhere.
 */
#include "control/session/predict.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/guest/throttle.h"
#include "control/policy/forecast.h"
#include "control/session/bench_probe.h"
#include "control/session/dirty_rate.h"
#include "control/session/goals.h"
#include "control/session/observe.h"
#include "control/session/options.h"
#include "control/session/session_source.h"
#include "dataplane/region.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define SECONDS_MAX 3600
#define PROBE_MS    500
#define INTERVAL_MS 50
#define OMIT_MS	    100 /* until connections have gathered speed */
#define PROBES_MAX  4
#define STARVED	    10 /* resident memory is never so many times as fast as new: 2 to 5 */
/* With --bandwidth: what a probe of PROBE_MS needs for its messages, bytes per second. */
#define LIMIT_MIN     65536
#define LIMIT_REACHED 0.85 /* of it: the limit was what counted; the bucket gives 0.95 and more */
#define LIMIT_PASSED  16.0 /* so much that nothing but the limit counts */
/* A scan of a large VM is shared among threads; ours is as long as it was measured. */
#define SCAN_THREADS 1
/*
 * Checks, launching the VM at the destination, arming: 70 to 500 ms by how busy the hosts are, and
 * so much of what the first probe took to begin and to end, which is starting processes and
 * asking each other much the same.
 */
#define SETUP_SHARE 0.55

/* Bytes a second, 0: no limit. One that is very low is still probed with a few messages. */
static json_int_t limit_of(const json_t *options)
{
	json_int_t limit = json_integer_value(json_object_get(options, "bandwidth"));

	return limit > 0 && limit < LIMIT_MIN ? LIMIT_MIN : limit;
}

/* Of messages that do not take long each. */
static const char *size_for(json_int_t limit)
{
	if (limit && limit < 4 << 20)
		return "4KiB";
	return limit && limit < 256 << 20 ? "64KiB" : "2MiB";
}

static json_t *probe_options(const json_t *options, const char *rx)
{
	json_int_t streams = json_integer_value(json_object_get(options, "streams"));
	json_int_t limit = limit_of(options);
	const json_t *encrypt = json_object_get(options, "encrypt");
	json_t *j;

	if (!streams)
		streams = source_streams_default();
	j = json_pack("{s:s, s:I, s:i, s:i, s:s, s:i}", "rx", rx, "streams", streams, "time_ms",
		      PROBE_MS, "omit_ms", OMIT_MS, "memory", "128MiB", "interval_ms", INTERVAL_MS);
	if (encrypt)
		json_object_set(j, "encrypt", (json_t *)encrypt);
	if (limit) {
		json_object_set_new(j, "bandwidth", json_integer(limit));
		json_object_set_new(j, "size", json_string(size_for(limit)));
	}
	return j;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/*
 * The median of the intervals, for one in which somebody else had the machine counts for nothing;
 * or the whole, if it is more: on a busy machine many intervals end before their messages do.
 */
static double typical_rate(const json_t *result)
{
	const json_t *row = json_array_get(json_object_get(result, "rows"), 0);
	const json_t *intervals = json_object_get(row, "intervals");
	double whole = json_number_value(json_object_get(row, "gbytes_per_s")) * 1e9;
	double rates[PROBE_MS / INTERVAL_MS + 1];
	size_t n = 0, i;
	json_t *interval;

	json_array_foreach ((json_t *)intervals, i, interval)
		if (n < sizeof(rates) / sizeof(rates[0]))
			rates[n++] =
				json_number_value(json_object_get(interval, "gbytes_per_s")) * 1e9;
	qsort(rates, n, sizeof(rates[0]), by_size);
	return n && rates[n / 2] > whole ? rates[n / 2] : whole;
}

/* *rate: bytes of memory a second. *extra_ns: what it took besides moving them. */
static int probe(struct session *s, const char *dest, const json_t *options, const char *rx,
		 double *rate, double *extra_ns, struct failure *f)
{
	json_t *wanted = probe_options(options, rx), *result = NULL;
	uint64_t start = clock_ns();
	int err = session_bench_probe(s, dest, wanted, &result, f);

	*extra_ns = (double)(clock_ns() - start) - (PROBE_MS + OMIT_MS) * (double)NSEC_PER_MSEC;
	*rate = typical_rate(result);
	if (!err && *rate <= 0)
		err = failure_set(f, -EIO, "peer-failed", NULL,
				  "Nothing came across while the path was probed.");
	json_decref(result);
	json_decref(wanted);
	return err;
}

/*
 * Both ways of placing. Memory that is new costs several times what is there already; if it seems
 * to cost tens of times, the probe got no processor, and is made again.
 */
static int probe_path(struct session *s, const char *dest, const json_t *options,
		      struct simulator_model *sim, struct failure *f)
{
	double rate = 0, extra_ns = 0;
	int err = probe(s, dest, options, "resident", &sim->again_rate, &extra_ns, f);

	sim->setup_ns = SETUP_SHARE * fmax(0, extra_ns);
	for (int i = 0; i < PROBES_MAX && !err; i++) {
		err = probe(s, dest, options, "new", &rate, &extra_ns, f);
		if (rate > sim->first_rate)
			sim->first_rate = rate;
		if (sim->first_rate * STARVED > sim->again_rate)
			break;
	}
	return err;
}

/*
 * A path that carried the limit may carry any more, which nobody has tried: what is uncertain of
 * the hosts and the link must not widen a forecast that the limit decides.
 */
static void pass_limit(struct simulator_model *sim, double limit)
{
	double *rates[] = { &sim->link_rate, &sim->first_rate, &sim->again_rate };

	for (size_t i = 0; limit > 0 && i < sizeof(rates) / sizeof(rates[0]); i++)
		if (*rates[i] >= LIMIT_REACHED * limit)
			*rates[i] = LIMIT_PASSED * limit;
}

static bool can_throttle(struct session *s, struct guest *g)
{
	struct failure ignored = { 0 };
	struct throttle *brake = NULL;
	bool can = !g->ops->throttle(g, s->id, &brake, &ignored);

	throttle_free(brake);
	return can;
}

/* As the destination will say if it is the same there; see source_postcopy.c. */
static bool can_postcopy(const struct guest *g)
{
	for (uint32_t i = 0; i < g->desc.nregions; i++)
		if (g->desc.regions[i].page_size > CHUNK_BYTES)
			return false;
	return !strcmp(g->ops->kind, "qemu");
}

static void describe(struct model *m, const struct guest *g, const struct dirty_measure *d)
{
	struct simulator_model *sim = &m->sim;

	memset(m, 0, sizeof(*m));
	simulator_defaults(sim);
	snprintf(m->name, sizeof(m->name), "%s", g->desc.name);
	sim->ram_bytes = (double)g->desc.ram_bytes;
	sim->populated_bytes = (double)d->populated;
	sim->zero_share = d->zero_share;
	sim->curve = d->curve;
	memcpy(sim->places, d->places, sizeof(sim->places));
	sim->scan_ns_per_gib = d->scan_ns_per_gib;
	sim->protect_ns_per_gib = d->protect_ns_per_gib;
	sim->arm_ns_per_gib = d->arm_ns_per_gib;
	sim->scan_threads = SCAN_THREADS;
}

static void take_goals(struct model *m, const struct goals *g)
{
	m->goals = (struct policy_goals){
		.max_downtime_ns = g->max_downtime_ms * NSEC_PER_MSEC,
		.timeout_ns = g->timeout_ms * NSEC_PER_MSEC,
		.bandwidth = g->bandwidth,
		.impact = g->impact,
	};
}

static json_t *measured_json(const struct model *m, const struct dirty_measure *d)
{
	json_t *curve = json_array();

	for (int i = 0; i < CURVE_POINTS; i++)
		if (d->curve.at[i].ns)
			json_array_append_new(curve,
					      json_pack("{s:f, s:I}", "ms",
							(double)d->curve.at[i].ns / 1e6, "bytes",
							(json_int_t)d->curve.at[i].bytes));
	return json_pack("{s:f, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:o}",
			 "dirty_rate_bytes_per_s", d->rate, "working_set_bytes",
			 (json_int_t)d->working_set, "populated_bytes", (json_int_t)d->populated,
			 "zero_share", d->zero_share, "path_bytes_per_s", m->sim.link_rate,
			 "new_bytes_per_s", m->sim.first_rate, "again_bytes_per_s",
			 m->sim.again_rate, "scan_ms_per_gib", d->scan_ns_per_gib / 1e6,
			 "protect_ms_per_gib", d->protect_ns_per_gib / 1e6, "curve", curve);
}

int session_forecast(struct session *s, struct guest *g, const char *dest, const json_t *options,
		     int stop_fd, unsigned int ms, json_t **out, struct failure *f)
{
	AUTO_FREE struct model *m = calloc(1, sizeof(*m));
	struct dirty_measure d;
	struct goals goals;
	json_t *measured;
	int err;

	if (!m)
		return failure_set(f, -ENOMEM, "internal", NULL, "out of memory");
	goals_init(&goals);
	err = goals_take(&goals, options, f);
	if (!err)
		err = dirty_measure(s, g, stop_fd, ms, &d, f);
	if (err)
		return err;
	describe(m, g, &d);
	take_goals(m, &goals);
	err = probe_path(s, dest, options, &m->sim, f);
	if (err)
		return err;
	m->sim.link_rate =
		m->sim.first_rate > m->sim.again_rate ? m->sim.first_rate : m->sim.again_rate;
	m->sim.can = (struct policy_abilities){ .throttle = can_throttle(s, g),
						.postcopy = can_postcopy(g) };
	m->sim.defers = true;
	measured = measured_json(m, &d);
	pass_limit(&m->sim, (double)limit_of(options));
	*out = forecast(m);
	if (!*out)
		json_decref(measured);
	if (!*out)
		return failure_set(f, -EINVAL, "internal", NULL,
				   "The forecast cannot be put into words.");
	json_object_set_new(*out, "measured", measured);
	return 0;
}

/* --- the API's thread ------------------------------------------------------------------------ */

static int predict(struct session *s, struct guest *g, int stop_fd, json_t **out, struct failure *f)
{
	const json_t *in = s->request;
	json_int_t seconds = json_integer_value(json_object_get(in, "seconds"));

	return session_forecast(s, g, json_string_value(json_object_get(in, "dest")),
				json_object_get(in, "options"), stop_fd,
				(unsigned int)seconds * 1000, out, f);
}

int host_predict(struct host *h, const json_t *in, int client_fd, json_t **out, struct failure *f)
{
	static const char *const members[] = { "vm", "dest", "seconds", "options", NULL };
	json_int_t seconds = json_integer_value(json_object_get(in, "seconds"));
	int err;

	if (!json_is_string(json_object_get(in, "vm")) ||
	    !json_is_string(json_object_get(in, "dest")) || seconds < 1 || seconds > SECONDS_MAX)
		return failure_set(f, -EINVAL, "usage", NULL,
				   "A forecast needs a vm, a dest and 1 to %d seconds.",
				   SECONDS_MAX);
	err = request_check(in, members, f);
	if (!err)
		err = options_check(migration_options, json_object_get(in, "options"), f);
	if (err)
		return err;
	return host_observe(h, in, client_fd, predict, out, f);
}
