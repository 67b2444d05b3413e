// SPDX-License-Identifier: MIT
/* The API's routes: which request is whose, and its words taken apart for host.h. */
#include "control/api_routes.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define WAIT_MS_MAX   60000u
#define SLICE_MS      200u
#define ID_DIGITS_MIN 6u /* an unambiguous beginning is enough for a person */

/* --- handlers --------------------------------------------------------------------------------- */

static int get_version(struct api_call *c, json_t **out, struct failure *f)
{
	(void)f;
	*out = json_pack("{s:s, s:i, s:i, s:s}", "version", TRANSHIP_VERSION, "api", 1, "pid",
			 (int)getpid(), "state_dir", host_config(c->host)->state_dir);
	return 0;
}

static int get_vms(struct api_call *c, json_t **out, struct failure *f)
{
	return host_vms(c->host, out, f);
}

static int client_fd(struct api_call *c)
{
	const union MHD_ConnectionInfo *of =
		MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	return of ? of->connect_fd : -1;
}

static int post_dirty_rate(struct api_call *c, json_t **out, struct failure *f)
{
	return host_dirty_rate(c->host, c->in, client_fd(c), out, f);
}

static int post_predict(struct api_call *c, json_t **out, struct failure *f)
{
	return host_predict(c->host, c->in, client_fd(c), out, f);
}

static int get_sessions(struct api_call *c, json_t **out, struct failure *f)
{
	return host_list(c->host, out, f);
}

static int post_sessions(struct api_call *c, json_t **out, struct failure *f)
{
	return host_migrate(c->host, c->in, out, f);
}

/* A decimal number of the query; absent: 0. */
static int query_number(struct api_call *c, const char *name, uint64_t *value, struct failure *f)
{
	const char *text = MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, name);

	*value = 0;
	for (const char *p = text; p && *p; p++) {
		if (*p < '0' || *p > '9' || p - text > 18)
			return failure_set(f, -EINVAL, "usage", NULL, "%s=%.40s is no number.",
					   name, text);
		*value = *value * 10 + (uint64_t)(*p - '0');
	}
	return 0;
}

static bool status_is_news(const json_t *status, uint64_t since)
{
	return json_is_true(json_object_get(status, "terminal")) ||
	       (uint64_t)json_integer_value(json_object_get(status, "seq")) > since;
}

static int get_session(struct api_call *c, json_t **out, struct failure *f)
{
	uint64_t since, wait_ms, end_ns;
	int err;

	err = query_number(c, "since", &since, f);
	if (!err)
		err = query_number(c, "wait", &wait_ms, f);
	if (err)
		return err;
	if (wait_ms > WAIT_MS_MAX)
		wait_ms = WAIT_MS_MAX;
	end_ns = clock_ns() + wait_ms * NSEC_PER_MSEC;
	for (;;) {
		uint64_t now = clock_ns(), left = now < end_ns ? (end_ns - now) / NSEC_PER_MSEC : 0;
		unsigned int slice = left < SLICE_MS ? (unsigned int)left : SLICE_MS;

		err = host_status(c->host, c->id, since, slice, out, f);
		if (err || left <= slice || atomic_load(c->ending) || status_is_news(*out, since))
			return err;
		json_decref(*out);
		*out = NULL;
	}
}

static int post_cancel(struct api_call *c, json_t **out, struct failure *f)
{
	return host_cancel(c->host, c->id, out, f);
}

static int post_resolve(struct api_call *c, json_t **out, struct failure *f)
{
	const char *action = json_string_value(json_object_get(c->in, "action"));

	if (!action)
		return failure_set(f, -EINVAL, "usage", NULL, "A resolve needs the member action.");
	return host_resolve(c->host, c->id, action, out, f);
}

static int post_tune(struct api_call *c, json_t **out, struct failure *f)
{
	return host_tune(c->host, c->id, c->in, out, f);
}

static int post_switch(struct api_call *c, json_t **out, struct failure *f)
{
	return host_switch(c->host, c->id, out, f);
}

static int post_offer(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_offer(c->host, c->in, out, f);
}

static int get_peer(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_status(c->host, c->id, out, f);
}

static int post_load(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_load(c->host, c->id, c->in, out, f);
}

static int post_postcopy(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_postcopy(c->host, c->id, c->in, out, f);
}

static int post_commit(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_commit(c->host, c->id, out, f);
}

static int post_abort(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_abort(c->host, c->id, c->in, out, f);
}

static int post_finish(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_finish(c->host, c->id, out, f);
}

static int post_bench(struct api_call *c, json_t **out, struct failure *f)
{
	return host_bench(c->host, c->in, out, f);
}

static int post_bench_offer(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_bench(c->host, c->in, out, f);
}

static int post_bench_run(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_bench_run(c->host, c->id, out, f);
}

static int post_bench_stop(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_bench_stop(c->host, c->id, out, f);
}

static int post_bench_result(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_bench_result(c->host, c->id, out, f);
}

static int post_bench_finish(struct api_call *c, json_t **out, struct failure *f)
{
	return host_peer_bench_finish(c->host, c->id, out, f);
}

/* --- routes ----------------------------------------------------------------------------------- */

static const struct api_route routes[] = {
	{ "GET", "/v1/version", 0, get_version },
	{ "GET", "/v1/vms", 0, get_vms },
	{ "POST", "/v1/dirty-rate", 0, post_dirty_rate },
	{ "POST", "/v1/predict", 0, post_predict },
	{ "GET", "/v1/sessions", 0, get_sessions },
	{ "POST", "/v1/sessions", 0, post_sessions },
	{ "GET", "/v1/sessions/*", ID_DIGITS_MIN, get_session },
	{ "POST", "/v1/sessions/*/cancel", ID_DIGITS_MIN, post_cancel },
	{ "POST", "/v1/sessions/*/resolve", ID_DIGITS_MIN, post_resolve },
	{ "POST", "/v1/sessions/*/tune", ID_DIGITS_MIN, post_tune },
	{ "POST", "/v1/sessions/*/switch", ID_DIGITS_MIN, post_switch },
	{ "POST", "/v1/peer/sessions", 0, post_offer },
	{ "GET", "/v1/peer/sessions/*", API_ID_DIGITS, get_peer },
	{ "POST", "/v1/peer/sessions/*/load", API_ID_DIGITS, post_load },
	{ "POST", "/v1/peer/sessions/*/postcopy", API_ID_DIGITS, post_postcopy },
	{ "POST", "/v1/peer/sessions/*/commit", API_ID_DIGITS, post_commit },
	{ "POST", "/v1/peer/sessions/*/abort", API_ID_DIGITS, post_abort },
	{ "POST", "/v1/peer/sessions/*/finish", API_ID_DIGITS, post_finish },
	{ "POST", "/v1/bench", 0, post_bench },
	{ "POST", "/v1/peer/bench", 0, post_bench_offer },
	{ "POST", "/v1/peer/bench/*/run", API_ID_DIGITS, post_bench_run },
	{ "POST", "/v1/peer/bench/*/stop", API_ID_DIGITS, post_bench_stop },
	{ "POST", "/v1/peer/bench/*/result", API_ID_DIGITS, post_bench_result },
	{ "POST", "/v1/peer/bench/*/finish", API_ID_DIGITS, post_bench_finish },
};

/* True if url has the form of pattern; *id and *len are the part at '*', NULL if there is none. */
static bool path_matches(const char *pattern, const char *url, const char **id, size_t *len)
{
	const char *star = strchr(pattern, '*');
	size_t before;

	*id = NULL;
	*len = 0;
	if (!star)
		return !strcmp(pattern, url);
	before = (size_t)(star - pattern);
	if (strncmp(pattern, url, before))
		return false;
	*id = url + before;
	*len = strcspn(*id, "/");
	return !strcmp(star + 1, *id + *len);
}

static int take_id(struct api_call *c, const char *id, size_t len, unsigned int min,
		   struct failure *f)
{
	if (!id)
		return 0;
	if (len < min || len > API_ID_DIGITS || strspn(id, "0123456789abcdef") < len)
		return failure_set(f, -EINVAL, "usage", "`tranship status` lists the sessions.",
				   "A session id is %u hexadecimal digits.", API_ID_DIGITS);
	memcpy(c->id, id, len);
	c->id[len] = '\0';
	return 0;
}

const struct api_route *api_route_find(const char *method, const char *url, struct api_call *c,
				       unsigned int *status, struct failure *f)
{
	bool known = false;

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		const struct api_route *r = &routes[i];
		const char *id;
		size_t len;

		if (!path_matches(r->path, url, &id, &len))
			continue;
		known = true;
		if (strcmp(r->method, method))
			continue;
		if (!take_id(c, id, len, r->id_min, f))
			return r;
		*status = MHD_HTTP_BAD_REQUEST;
		return NULL;
	}
	*status = known ? MHD_HTTP_METHOD_NOT_ALLOWED : MHD_HTTP_NOT_FOUND;
	failure_set(f, -EINVAL, "usage", "docs/protocol.md lists the routes.",
		    known ? "%.16s is not a method of %.100s." : "There is no route %.16s %.100s.",
		    method, url);
	return NULL;
}
