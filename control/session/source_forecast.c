// SPDX-License-Identifier: MIT
/*
 * The forecast of a dry run: the VM can be moved, and this is how it would go. One that cannot be
 * made is no reason to refuse.
 */
#include <errno.h>
#include <string.h>

#include "control/session/predict.h"
#include "control/session/session_source.h"

#define WATCH_MS 2000u

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
	if (err && session_cancelled(c->s))
		return failure_set(&c->f, -ECANCELED, "cancelled", NULL,
				   "The migration was cancelled.");
	if (err)
		session_event(c->s, "no forecast: %s", why.message);
	return 0;
}
