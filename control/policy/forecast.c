// SPDX-License-Identifier: MIT
/* A forecast: each mode five times, as expected and at the corners of what is uncertain. */
#include "control/policy/forecast.h"

#include <math.h>
#include <string.h>

#define GIB	   1073741824.0
#define PAGE_SIZE  4096.0
#define RUNS	   5
#define BITMAPS	   5	 /* of a bit a page, at the source */
#define TABLE_PART 512.0 /* of what is mapped: a page table's entries of 8 bytes for 4 KiB */

struct range {
	double low, expected, high;
};

static void widen(struct range *r, double value, bool first)
{
	if (first)
		*r = (struct range){ value, value, value };
	r->low = fmin(r->low, value);
	r->high = fmax(r->high, value);
}

static json_t *range_json(const struct range *r)
{
	return json_pack("{s:f, s:f, s:f}", "low", r->low, "expected", r->expected, "high",
			 r->high);
}

static struct simulator_model varied(const struct simulator_model *m, double path, double dirty)
{
	struct simulator_model v = *m;

	v.link_rate *= path;
	v.first_rate *= path;
	v.again_rate *= path;
	v.stream_rate *= path;
	v.dirty_scale *= dirty;
	return v;
}

/* Of each run's end a word, the first the expected one. */
static void add_end(json_t *ends, const struct simulator_result *r)
{
	const char *end = policy_action_name(r->end);
	size_t i;
	json_t *known;

	json_array_foreach (ends, i, known)
		if (!strcmp(json_string_value(known), end))
			return;
	json_array_append_new(ends, json_string(end));
}

static json_t *mode_json(const struct model *m, enum policy_mode mode)
{
	static const double lo = 1 - FORECAST_SPREAD, hi = 1 + FORECAST_SPREAD;
	const double path[RUNS] = { 1, lo, lo, hi, hi }, dirty[RUNS] = { 1, lo, hi, lo, hi };
	struct range rounds, total, downtime, wire, postcopy;
	struct simulator_result expected, r;
	struct policy_goals goals = m->goals;
	json_t *ends = json_array();

	goals.mode = mode;
	for (int i = 0; i < RUNS; i++) {
		struct simulator_model v = varied(&m->sim, path[i], dirty[i]);

		simulate(&v, &goals, &r);
		if (!i)
			expected = r;
		add_end(ends, &r);
		widen(&rounds, r.rounds, !i);
		widen(&total, r.total_ns / 1e6, !i);
		widen(&wire, r.wire_bytes, !i);
		/* a pause that was not made is not a short one */
		if (r.downtime_ns > 0 || !i)
			widen(&downtime, r.downtime_ns / 1e6, !i || downtime.high <= 0);
		widen(&postcopy, r.postcopy_ns / 1e6, !i);
	}
	downtime.expected = expected.downtime_ns / 1e6;
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:f, s:f}",
			 "mode", policy_mode_names[mode], "end", policy_action_name(expected.end),
			 "reason", policy_reason_name(expected.reason), "because",
			 policy_reason_text(expected.reason), "ends", ends, "rounds",
			 range_json(&rounds), "total_ms", range_json(&total), "downtime_ms",
			 range_json(&downtime), "wire_bytes", range_json(&wire), "postcopy_ms",
			 range_json(&postcopy), "throttle_percent", (int)expected.throttle,
			 "dirty_rate_bytes_per_s", expected.dirty_rate, "pending_bytes",
			 expected.pending_bytes);
}

/* What no policy can do anything about. */
static json_t *costs_json(const struct simulator_model *m)
{
	double threads = m->scan_threads ? m->scan_threads : 1;
	double scan = m->ram_bytes / GIB * m->scan_ns_per_gib / threads / 1e6;

	return json_pack("{s:f, s:f, s:f, s:I, s:I, s:I}", "scan_ms", scan, "arm_ms",
			 m->populated_bytes / GIB * m->arm_ns_per_gib / 1e6, "floor_ms",
			 m->pause_ns / 1e6 + m->pause_scans * scan, "bitmap_bytes",
			 (json_int_t)(m->ram_bytes / PAGE_SIZE / 8), "source_memory_bytes",
			 (json_int_t)(BITMAPS * m->ram_bytes / PAGE_SIZE / 8), "page_table_bytes",
			 (json_int_t)(m->populated_bytes / TABLE_PART));
}

static json_t *goals_json(const struct policy_goals *g)
{
	return json_pack("{s:f, s:f, s:I, s:i}", "max_downtime_ms",
			 (double)g->max_downtime_ns / 1e6, "timeout_ms",
			 (double)g->timeout_ns / 1e6, "bandwidth", (json_int_t)g->bandwidth,
			 "impact", (int)g->impact);
}

json_t *forecast(const struct model *m)
{
	json_t *modes = json_array();

	json_array_append_new(modes, mode_json(m, POLICY_MODE_PRECOPY));
	if (m->sim.can.postcopy) {
		json_array_append_new(modes, mode_json(m, POLICY_MODE_HYBRID));
		json_array_append_new(modes, mode_json(m, POLICY_MODE_POSTCOPY));
	}
	return json_pack("{s:s, s:I, s:f, s:o, s:o, s:o}", "name", m->name, "ram_bytes",
			 (json_int_t)m->sim.ram_bytes, "spread", FORECAST_SPREAD, "goals",
			 goals_json(&m->goals), "costs", costs_json(&m->sim), "modes", modes);
}
