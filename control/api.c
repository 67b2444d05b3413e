// SPDX-License-Identifier: MIT
/*
 * The API's HTTP server: libmicrohttpd, a thread per connection; what it serves is in api_routes.c.
 *
 * Theory of operation
 *   A request is collected whole (at most BODY_MAX), parsed as one JSON object, handed to the
 *   function of its route, and answered with JSON. A handler may block for as long as host.h says;
 *   only its own connection waits. Long polls are cut into slices so that api_free need not wait
 *   for them.
 *
 *   The socket is root's alone (mode 0600 from before it has a name), and everything that arrives
 *   on it is checked nevertheless: sizes, methods, ids (they become file names further down),
 *   numbers. A connection that says nothing for IDLE_S seconds is closed.
 *
 *   End: the name is unlinked, no connection is accepted any more, requests under way get DRAIN_MS
 *   to be answered, then the rest is cut off.
 *
 * Locks: api->lock guards `active`; nothing else is taken under it.
 */
#include "control/api.h"

#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/api_routes.h"
#include "control/api_socket.h"
#include "control/failure_class.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define BODY_MAX	(8u << 20)
#define CONNECTIONS_MAX 64u
#define CONNECTION_MEM	(64u << 10) /* libmicrohttpd's buffer: the most a head and URL can be */
#define IDLE_S		60u
#define DRAIN_MS	3000u

struct api {
	struct host *host;
	struct MHD_Daemon *daemon;
	struct api_socket socket;
	atomic_bool ending;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned int active; /* requests between their first line and their answer */
};

/* One request while it is being collected. */
struct request {
	struct api *api;
	char *body;
	size_t used, room;
};

/* --- answers ---------------------------------------------------------------------------------- */

static unsigned int status_of(const struct failure *f)
{
	switch (failure_class_of(f->code)) {
	case FAILURE_USAGE:
		return MHD_HTTP_BAD_REQUEST;
	case FAILURE_NOT_FOUND:
		return MHD_HTTP_NOT_FOUND;
	case FAILURE_CONFLICT:
	case FAILURE_CANCELLED:
	case FAILURE_UNRESOLVED:
		return MHD_HTTP_CONFLICT;
	case FAILURE_REFUSED:
		return MHD_HTTP_UNPROCESSABLE_CONTENT;
	case FAILURE_BROKEN:
		break;
	}
	return MHD_HTTP_INTERNAL_SERVER_ERROR;
}

/* Queues the text, which is freed here or by libmicrohttpd. */
static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned int status,
				   char *text)
{
	struct MHD_Response *r;
	enum MHD_Result queued;

	if (!text)
		return MHD_NO;
	r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!r) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	queued = MHD_queue_response(connection, status, r);
	MHD_destroy_response(r);
	return queued;
}

/* json_pack's %s refuses text that is not UTF-8, and a VM's name may be anything. */
static json_t *lenient_string(const char *text)
{
	json_t *s = json_string(text);
	char copy[sizeof(((struct failure *)NULL)->message)];

	if (s)
		return s;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(copy);
}

static enum MHD_Result answer_failure(struct MHD_Connection *connection, unsigned int status,
				      const struct failure *f)
{
	json_t *answer =
		json_pack("{s:{s:o, s:o, s:o}}", "error", "code", lenient_string(f->code),
			  "message", lenient_string(f->message), "hint", lenient_string(f->hint));
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;

	json_decref(answer);
	return answer_text(connection, status, text);
}

static enum MHD_Result answer_result(struct MHD_Connection *connection, int err, json_t *out,
				     struct failure *f)
{
	enum MHD_Result queued;

	if (err) {
		/* a handler that failed without saying why is a defect, but the caller must know */
		failure_set(f, err, "internal", NULL, "The request failed: %s.", strerror(-err));
		json_decref(out);
		return answer_failure(connection, status_of(f), f);
	}
	queued = answer_text(connection, MHD_HTTP_OK,
			     out ? json_dumps(out, JSON_COMPACT) : strdup("{}"));
	json_decref(out);
	return queued;
}

/* --- requests --------------------------------------------------------------------------------- */

static json_t *parse_body(const struct request *r, struct failure *f)
{
	json_error_t where;
	json_t *in;

	if (!r->used)
		return json_object();
	in = json_loadb(r->body, r->used, JSON_REJECT_DUPLICATES, &where);
	if (json_is_object(in))
		return in;
	failure_set(f, -EINVAL, "usage", NULL, "The body is not a JSON object: %s.",
		    in ? "another type" : where.text);
	json_decref(in);
	return NULL;
}

static enum MHD_Result dispatch(struct request *r, struct MHD_Connection *connection,
				const char *url, const char *method)
{
	struct api_call c = { .host = r->api->host,
			      .ending = &r->api->ending,
			      .connection = connection };
	const struct api_route *route;
	struct failure f = { 0 };
	unsigned int status = 0;
	json_t *in, *out = NULL;
	enum MHD_Result queued;
	int err;

	route = api_route_find(method, url, &c, &status, &f);
	if (!route)
		return answer_failure(connection, status, &f);
	in = parse_body(r, &f);
	if (!in)
		return answer_failure(connection, MHD_HTTP_BAD_REQUEST, &f);
	c.in = in;
	err = route->handle(&c, &out, &f);
	queued = answer_result(connection, err, out, &f);
	json_decref(in);
	return queued;
}

/* The body's announced length, when it is too large to be collected. */
static bool announced_too_large(struct MHD_Connection *connection)
{
	const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
						       MHD_HTTP_HEADER_CONTENT_LENGTH);

	return text && strtoull(text, NULL, 10) > BODY_MAX;
}

static int collect(struct request *r, const char *data, size_t n)
{
	if (n > BODY_MAX - r->used)
		return -EFBIG;
	if (r->used + n > r->room) {
		size_t room = (r->used + n) * 2;
		char *grown = realloc(r->body, room);

		if (!grown)
			return -ENOMEM;
		r->body = grown;
		r->room = room;
	}
	memcpy(r->body + r->used, data, n);
	r->used += n;
	return 0;
}

static struct request *request_begin(struct api *a)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->api = a;
	SCOPED_LOCK(&a->lock);
	a->active++;
	return r;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_size, void **state)
{
	struct request *r = *state;

	(void)version;
	if (!r) {
		struct failure f = { 0 };

		*state = request_begin(arg);
		if (!*state)
			return MHD_NO;
		if (!announced_too_large(connection))
			return MHD_YES;
		failure_set(&f, -EFBIG, "usage", NULL, "A request has at most %u bytes.", BODY_MAX);
		return answer_failure(connection, MHD_HTTP_CONTENT_TOO_LARGE, &f);
	}
	if (*upload_size) {
		/* larger than it may be and not announced: nothing but the end is left to say */
		if (collect(r, upload, *upload_size))
			return MHD_NO;
		*upload_size = 0;
		return MHD_YES;
	}
	return dispatch(r, connection, url, method);
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **state,
			 enum MHD_RequestTerminationCode why)
{
	struct request *r = *state;
	struct api *a = arg;

	(void)connection;
	(void)why;
	if (!r)
		return;
	free(r->body);
	free(r);
	*state = NULL;
	SCOPED_LOCK(&a->lock);
	if (!--a->active)
		pthread_cond_broadcast(&a->idle);
}

static void on_log(void *arg, const char *format, va_list args)
{
	char text[512];

	(void)arg;
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	log_debug("api: %s", text);
}

/* --- life ------------------------------------------------------------------------------------- */

static void api_release(struct api *a)
{
	pthread_cond_destroy(&a->idle);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* clang-format off */
static struct MHD_Daemon *start_daemon(struct api *a, int fd)
{
	return MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
					MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG,
				0, NULL, NULL, on_request, a,
				MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
				MHD_OPTION_LISTEN_SOCKET, fd,
				MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
				MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEM,
				MHD_OPTION_NOTIFY_COMPLETED, on_completed, a, MHD_OPTION_END);
}
/* clang-format on */

int api_new(struct api **out, struct host *h, const char *socket_path, struct failure *f)
{
	struct api *a = calloc(1, sizeof(*a));
	pthread_condattr_t attr;
	int fd = -1, err;

	*out = NULL;
	if (!a)
		return failure_set(f, -ENOMEM, "internal", NULL, "Out of memory.");
	err = api_socket_listen(&a->socket, socket_path, &fd, f);
	if (err) {
		free(a);
		return err;
	}
	a->host = h;
	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->idle, &attr);
	pthread_condattr_destroy(&attr);
	a->daemon = start_daemon(a, fd);
	if (!a->daemon) {
		api_socket_remove(&a->socket);
		close(fd);
		api_release(a);
		return failure_set(f, -EIO, "internal", NULL, "The HTTP server cannot be started.");
	}
	*out = a;
	return 0;
}

/* Waits until every request under way is answered, or DRAIN_MS. */
static void drain(struct api *a)
{
	uint64_t end_ns = clock_ns() + DRAIN_MS * NSEC_PER_MSEC;
	struct timespec until = { .tv_sec = (time_t)(end_ns / NSEC_PER_SEC),
				  .tv_nsec = (long)(end_ns % NSEC_PER_SEC) };

	SCOPED_LOCK(&a->lock);
	while (a->active)
		if (pthread_cond_timedwait(&a->idle, &a->lock, &until))
			break;
}

void api_free(struct api *a)
{
	MHD_socket fd;

	if (!a)
		return;
	a->ending = true;
	api_socket_remove(&a->socket);
	fd = MHD_quiesce_daemon(a->daemon);
	drain(a);
	MHD_stop_daemon(a->daemon);
	if (fd != MHD_INVALID_SOCKET)
		close(fd);
	api_release(a);
}
