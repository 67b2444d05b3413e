// SPDX-License-Identifier: MIT
/*
 * The forecast of a dry run: the VM can be moved, and this is how it would go. One that cannot be
 * made is no reason to refuse, and neither is one that says that the move would be given up: the
 * VM may write less by then. But it is said.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/admission/preflight.h"
#include "control/policy/policy.h"
#include "control/session/predict.h"
#include "control/session/session_source.h"
#include "lib/base/cleanup.h"

#define WATCH_MS 2000u

/* auto is hybrid where post-copy can be had. */
static enum policy_mode mode_of(const struct source *c)
{
	enum policy_mode mode = POLICY_MODE_AUTO;

	policy_mode_parse(c->o.goals.mode, &mode);
	if (mode == POLICY_MODE_POSTCOPY || mode == POLICY_MODE_PRECOPY)
		return mode;
	return c->can.postcopy ? POLICY_MODE_HYBRID : POLICY_MODE_PRECOPY;
}

static const json_t *entry_of(const json_t *forecast, const char *mode)
{
	const json_t *entry;
	size_t i;

	json_array_foreach (json_object_get(forecast, "modes"), i, entry)
		if (!strcmp(json_string_value(json_object_get(entry, "mode")) ?: "", mode))
			return entry;
	return NULL;
}

static void warn(struct source *c, const char *reason, const char *because)
{
	bool may_postcopy = c->can.postcopy && mode_of(c) == POLICY_MODE_PRECOPY;
	bool late = !strcmp(reason, policy_reason_name(POLICY_TIMED_OUT));
	char hint[160];

	snprintf(hint, sizeof(hint),
		 "Allow %sa longer --max-downtime, more --bandwidth or --impact%s.",
		 late ? "more time with --timeout, " : "",
		 may_postcopy ? ", or post-copy: --mode auto" : "");
	SCOPED_LOCK(&c->s->lock);
	check_add(c->s->checks, "forecast", "", CHECK_WARNING, "not-converging", hint,
		  "As it is now the migration would be given up: %s.", because);
}

/* How the move that was asked for would end. */
static void judge(struct source *c)
{
	const char *mode = policy_mode_names[mode_of(c)];
	const json_t *entry = entry_of(c->forecast, mode);
	const json_t *end = json_object_get(entry, "end");
	const char *because = json_string_value(json_object_get(entry, "because"));
	const char *reason = json_string_value(json_object_get(entry, "reason"));

	if (!end)
		return;
	json_object_set_new(c->forecast, "mode", json_string(mode));
	json_object_set(c->forecast, "end", (json_t *)end);
	json_object_set(c->forecast, "because", json_object_get(entry, "because"));
	if (!strcmp(json_string_value(end) ?: "", policy_action_name(POLICY_GIVE_UP)))
		warn(c, reason ?: "", because ?: "");
}

int source_forecast(struct source *c)
{
	const json_t *request = c->s->request;
	struct failure why = { 0 };
	int err;

	if (!c->g->desc.running || c->o.cold)
		return 0;
	err = session_forecast(c->s, c->g, json_string_value(json_object_get(request, "dest")),
			       json_object_get(request, "options"), c->s->wake_fd, WATCH_MS,
			       &c->forecast, &why);
	if (!err)
		judge(c);
	if (err && session_cancelled(c->s))
		return failure_set(&c->f, -ECANCELED, "cancelled", NULL,
				   "The migration was cancelled.");
	if (err)
		session_event(c->s, "no forecast: %s", why.message);
	return 0;
}
