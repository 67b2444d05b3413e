// SPDX-License-Identifier: MIT
/* Reading a model: a table of members, each with its kind and bounds. */
#include "control/policy/model.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/units.h"

enum kind {
	SIZE,	/* "64GiB" or bytes */
	SPEED,	/* "300MiB", of a second; or bytes */
	RATE,	/* "400Gbit": bits per second, kept as bytes */
	GOAL,	/* "300ms", kept as ns in a uint64_t */
	LIMIT,	/* as RATE, in a uint64_t */
	MILLIS, /* a number of milliseconds, kept as ns */
	SHARE,	/* a number */
	COUNT,	/* a whole number, in a uint32_t */
	FLAG,	/* true or false */
};

struct member {
	const char *section, *name;
	enum kind kind;
	size_t offset; /* in struct model */
	double min, max;
	bool needed;
};

#define SIM(field)   offsetof(struct model, sim.field)
#define GOALS(field) offsetof(struct model, goals.field)
#define TIB	     1099511627776.0
#define RAM_MAX	     (1024 * TIB)
#define RATE_MAX     1e15

static const struct member members[] = {
	{ "guest", "ram", SIZE, SIM(ram_bytes), 1048576, RAM_MAX, true },
	{ "guest", "populated", SIZE, SIM(populated_bytes), 0, RAM_MAX, false },
	{ "guest", "zero_share", SHARE, SIM(zero_share), 0, 1, false },
	{ "link", "rate", RATE, SIM(link_rate), 1000, RATE_MAX, true },
	{ "link", "streams", COUNT, SIM(streams), 1, 64, false },
	{ "link", "stream_rate", RATE, SIM(stream_rate), 1000, RATE_MAX, false },
	{ "link", "wire_ratio", SHARE, SIM(wire_ratio), 0.001, 2, false },
	{ "link", "round_ms", MILLIS, SIM(round_ns), 0, 1e6, false },
	{ "hosts", "first_rate", SPEED, SIM(first_rate), 1000, RATE_MAX, false },
	{ "hosts", "again_rate", SPEED, SIM(again_rate), 1000, RATE_MAX, false },
	{ "hosts", "scan_ms_per_gib", MILLIS, SIM(scan_ns_per_gib), 0, 1e6, false },
	{ "hosts", "protect_ms_per_gib", MILLIS, SIM(protect_ns_per_gib), 0, 1e6, false },
	{ "hosts", "arm_ms_per_gib", MILLIS, SIM(arm_ns_per_gib), 0, 1e6, false },
	{ "hosts", "scan_threads", COUNT, SIM(scan_threads), 1, 4096, false },
	{ "hosts", "setup_ms", MILLIS, SIM(setup_ns), 0, 1e9, false },
	{ "hosts", "pause_ms", MILLIS, SIM(pause_ns), 0, 1e6, false },
	{ "hosts", "pause_scans", COUNT, SIM(pause_scans), 1, 16, false },
	{ "hosts", "throttle", FLAG, SIM(can.throttle), 0, 0, false },
	{ "hosts", "throttle_effect", SHARE, SIM(throttle_effect), 0, 1, false },
	{ "hosts", "postcopy", FLAG, SIM(can.postcopy), 0, 0, false },
	{ "hosts", "push_share", SHARE, SIM(push_share), 0.01, 1, false },
	{ "hosts", "defer", FLAG, SIM(defers), 0, 0, false },
	{ "goals", "max_downtime", GOAL, GOALS(max_downtime_ns), 1e6, 1e15, false },
	{ "goals", "timeout", GOAL, GOALS(timeout_ns), 1e6, 1e18, false },
	{ "goals", "bandwidth", LIMIT, GOALS(bandwidth), 1000, RATE_MAX, false },
	{ "goals", "impact", COUNT, GOALS(impact), 0, 100, false },
};
#define MEMBERS (sizeof(members) / sizeof(members[0]))

static const char *const sections[] = { "guest", "link", "hosts", "goals", NULL };

const char *model_member(unsigned int i, char *buf, size_t size)
{
	if (i >= MEMBERS)
		return NULL;
	snprintf(buf, size, "%s.%s", members[i].section, members[i].name);
	return buf;
}

/* --- values ----------------------------------------------------------------------------------- */

static const char *form_of(enum kind kind)
{
	static const char *const forms[] = {
		[SIZE] = "a size as \"64GiB\", or bytes",
		[SPEED] = "a size a second as \"300MiB\", or bytes",
		[RATE] = "a rate as \"400Gbit\"",
		[GOAL] = "a time as \"300ms\" or \"1h\"",
		[LIMIT] = "a rate as \"10Gbit\"",
		[MILLIS] = "a number of milliseconds",
		[SHARE] = "a number",
		[COUNT] = "a whole number",
		[FLAG] = "true or false",
	};

	return forms[kind];
}

static int parse_text(enum kind kind, const char *text, double *value)
{
	uint64_t n = 0;
	int err;

	if (kind == SIZE || kind == SPEED)
		err = units_parse_size(text, &n);
	else if (kind == RATE || kind == LIMIT)
		err = units_parse_rate(text, &n);
	else if (kind == GOAL)
		err = units_parse_time(text, &n);
	else
		err = -EINVAL;
	*value = (double)n * (kind == GOAL ? 1e6 : 1);
	return err;
}

/* In base units; -EINVAL if it is not of the kind's form. */
static int parse(enum kind kind, const json_t *j, double *value)
{
	if (kind == FLAG) {
		*value = json_is_true(j);
		return json_is_boolean(j) ? 0 : -EINVAL;
	}
	if (json_is_string(j))
		return parse_text(kind, json_string_value(j), value);
	if (!json_is_number(j) || kind == RATE || kind == LIMIT || kind == GOAL ||
	    (kind == COUNT && !json_is_integer(j)))
		return -EINVAL;
	*value = json_number_value(j) * (kind == MILLIS ? 1e6 : 1);
	return isfinite(*value) ? 0 : -EINVAL;
}

static int wrong(struct failure *f, const char *section, const char *name, const char *what,
		 enum kind kind)
{
	char hint[120];

	snprintf(hint, sizeof(hint), "Make it %s; tranship(1), MODELS, lists the members.",
		 form_of(kind));
	return failure_set(f, -EINVAL, "usage", hint, "The model's %s.%s %s.", section, name, what);
}

static void store(struct model *m, const struct member *at, double value)
{
	char *to = (char *)m + at->offset;

	switch (at->kind) {
	case FLAG:
		*(bool *)to = value > 0;
		break;
	case COUNT:
		*(uint32_t *)to = (uint32_t)value;
		break;
	case GOAL:
	case LIMIT:
		*(uint64_t *)to = (uint64_t)value;
		break;
	default:
		*(double *)to = value;
	}
}

/* Bounds are told in the units of the file. */
static int out_of_bounds(struct failure *f, const struct member *at)
{
	double unit = at->kind == MILLIS || at->kind == GOAL ? 1e6 : 1;
	char what[120];

	if (at->kind == MILLIS)
		snprintf(what, sizeof(what), "is not from %g to %g", at->min, at->max);
	else
		snprintf(what, sizeof(what), "is not from %g to %g%s", at->min / unit,
			 at->max / unit,
			 unit > 1				 ? " ms"
			 : at->kind == RATE || at->kind == LIMIT ? " bytes a second"
			 : at->kind == SIZE || at->kind == SPEED ? " bytes"
								 : "");
	return wrong(f, at->section, at->name, what, at->kind);
}

static int read_member(struct model *m, const struct member *at, const json_t *section,
		       struct failure *f)
{
	const json_t *j = json_object_get(section, at->name);
	double value, scale = at->kind == MILLIS ? 1e6 : 1;

	if (!j)
		return at->needed ? wrong(f, at->section, at->name, "is missing", at->kind) : 0;
	if (parse(at->kind, j, &value))
		return wrong(f, at->section, at->name, "is not of its form", at->kind);
	if (at->kind != FLAG && (value < at->min * scale || value > at->max * scale))
		return out_of_bounds(f, at);
	store(m, at, value);
	return 0;
}

/* --- writes ----------------------------------------------------------------------------------- */

static int wrong_write(struct failure *f, size_t i, const char *what)
{
	return failure_set(f, -EINVAL, "usage",
			   "A class of writes is {\"bytes\": \"4GiB\", \"per_second\": \"1GiB\", "
			   "\"order\": \"random\" or \"sequential\"}; at most 32.",
			   "The model's guest.writes[%zu] %s.", i, what);
}

static int read_class(struct simulator_class *c, const json_t *j, size_t i, struct failure *f)
{
	const char *order = json_string_value(json_object_get(j, "order")), *name;
	json_t *value;

	if (!json_is_object(j))
		return wrong_write(f, i, "is no object");
	json_object_foreach ((json_t *)j, name, value)
		if (strcmp(name, "bytes") && strcmp(name, "per_second") && strcmp(name, "order"))
			return wrong_write(f, i, "has a member that is not known");
	if (parse(SIZE, json_object_get(j, "bytes"), &c->bytes) || c->bytes < 4096 ||
	    c->bytes > RAM_MAX)
		return wrong_write(f, i, "has no bytes of its form");
	if (parse(SPEED, json_object_get(j, "per_second"), &c->rate) || c->rate < 0 ||
	    c->rate > RATE_MAX)
		return wrong_write(f, i, "has no per_second of its form");
	if (json_object_get(j, "order") &&
	    (!order || (strcmp(order, "random") && strcmp(order, "sequential"))))
		return wrong_write(f, i, "has an order that is neither random nor sequential");
	c->in_order = order && !strcmp(order, "sequential");
	return 0;
}

static int read_writes(struct model *m, const json_t *guest, struct failure *f)
{
	const json_t *list = json_object_get(guest, "writes");
	double sum = 0;
	size_t i;
	json_t *j;

	if (!list)
		return 0;
	if (!json_is_array(list) || json_array_size(list) > SIMULATOR_CLASSES_MAX)
		return wrong_write(f, json_array_size(list), "is not in a list of at most 32");
	json_array_foreach ((json_t *)list, i, j) {
		struct simulator_class *c = &m->sim.classes[m->sim.nclasses];
		int err = read_class(c, j, i, f);

		if (err)
			return err;
		sum += c->bytes;
		m->sim.nclasses++;
	}
	if (sum > m->sim.ram_bytes)
		return failure_set(f, -EINVAL, "usage",
				   "Give classes of different memory, and together at most ram.",
				   "The model's guest.writes have more bytes than guest.ram.");
	return 0;
}

/* --- the whole -------------------------------------------------------------------------------- */

static bool known(const char *section, const char *name)
{
	if (!strcmp(section, "guest") && !strcmp(name, "writes"))
		return true;
	for (size_t i = 0; i < MEMBERS; i++)
		if (!strcmp(members[i].section, section) && !strcmp(members[i].name, name))
			return true;
	return false;
}

static int check_names(const json_t *j, struct failure *f)
{
	static const char hint[] = "tranship(1), MODELS, lists the members.";
	const char *name, *inner;
	json_t *section, *value;

	json_object_foreach ((json_t *)j, name, section) {
		int i = 0;

		if (!strcmp(name, "name") && json_is_string(section))
			continue;
		while (sections[i] && strcmp(sections[i], name))
			i++;
		if (!sections[i] || !json_is_object(section))
			return failure_set(f, -EINVAL, "usage", hint, "The model's %.40s %s.", name,
					   sections[i] ? "is no object" : "is none of its members");
		json_object_foreach (section, inner, value)
			if (!known(name, inner))
				return failure_set(f, -EINVAL, "usage", hint,
						   "The model's %s.%.40s is none of its members.",
						   name, inner);
	}
	return 0;
}

int model_read(struct model *out, const json_t *j, struct failure *f)
{
	struct simulator_model *sim = &out->sim;
	int err;

	memset(out, 0, sizeof(*out));
	simulator_defaults(sim);
	sim->populated_bytes = -1;
	out->goals = (struct policy_goals){ .max_downtime_ns = 300000000, .impact = 30 };
	if (!json_is_object(j))
		return failure_set(f, -EINVAL, "usage", "tranship(1), MODELS, shows one.",
				   "The model is no JSON object.");
	err = check_names(j, f);
	for (size_t i = 0; !err && i < MEMBERS; i++)
		err = read_member(out, &members[i], json_object_get(j, members[i].section), f);
	if (err)
		return err;
	if (sim->populated_bytes < 0)
		sim->populated_bytes = sim->ram_bytes;
	if (sim->populated_bytes > sim->ram_bytes)
		return wrong(f, "guest", "populated", "is more than guest.ram", SIZE);
	snprintf(out->name, sizeof(out->name), "%s",
		 json_string_value(json_object_get(j, "name")) ?: "");
	return read_writes(out, json_object_get(j, "guest"), f);
}

int model_load(struct model *out, const char *path, struct failure *f)
{
	json_error_t where;
	json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
	int err;

	if (!j && where.line <= 0) /* the text names the file */
		return failure_set(f, -EINVAL, "usage", NULL, "The model: %s.", where.text);
	if (!j)
		return failure_set(f, -EINVAL, "usage",
				   "A model is a JSON object; tranship(1), MODELS, shows one.",
				   "%.200s, line %d: %s.", path, where.line, where.text);
	err = model_read(out, j, f);
	json_decref(j);
	return err;
}
