// SPDX-License-Identifier: MIT
/*
 * The HTTP client of the API, on libcurl over a unix socket.
 *
 * Theory of operation
 *   One easy handle keeps one connection alive: a call is one write and one read (22 us round trip
 * over api.c, median of 2000, two processors of a virtual machine; 170 us with a connection each).
 * "Expect: 100-continue" is switched off: it would cost a second of waiting for large bodies. No
 * proxy, no redirect, no signal, no other protocol.
 *
 *   When a kept connection turns out to be closed, libcurl sends the request again on a new one,
 *   but only if not a byte of an answer came. The server closes idle connections, so that is the
 *   normal case; if the server died after it had carried the request out, the second one meets a
 *   new server, which knows sessions by their ids and states and answers accordingly.
 *
 *   client_was_sent is conservative: true as soon as a byte of the request was handed to a socket.
 */
#include "control/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "lib/base/cleanup.h"
#include "lib/base/text.h"

#define ANSWER_MAX     (64u << 20)
#define CONNECT_MS_MAX 5000
/* libcurl rounds what has passed up, sometimes: a transfer may end so much before its time. */
#define EARLY_MS 1

struct client {
	CURL *curl;
	struct curl_slist *headers;
	char *path;   /* of the socket */
	char *answer; /* grows; kept between calls */
	size_t used, room;
	bool sent; /* a byte of the present request has left */
	bool too_large;
	int interrupt_fd; /* -1: none */
};

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void)
{
	curl_global_init(CURL_GLOBAL_NOTHING);
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct client *c = arg;

	n *= size;
	if (n > ANSWER_MAX - c->used) {
		c->too_large = true;
		return 0;
	}
	if (c->used + n + 1 > c->room) {
		size_t room = (c->used + n + 1) * 2;
		char *grown = realloc(c->answer, room);

		if (!grown)
			return 0;
		c->answer = grown;
		c->room = room;
	}
	memcpy(c->answer + c->used, data, n);
	c->used += n;
	return n;
}

static int on_debug(CURL *curl, curl_infotype type, char *data, size_t n, void *arg)
{
	struct client *c = arg;

	(void)curl;
	(void)data;
	if (n && (type == CURLINFO_HEADER_OUT || type == CURLINFO_DATA_OUT))
		c->sent = true;
	return 0;
}

/* The options that hold for every call. */
static int set_up(struct client *c)
{
	CURL *e = c->curl;
	CURLcode rc = CURLE_OK;

	c->headers = curl_slist_append(NULL, "Expect:");
	if (!c->headers || !curl_slist_append(c->headers, "Content-Type: application/json"))
		return -ENOMEM;
#define SET(option, value)                                                                         \
	do {                                                                                       \
		if (rc == CURLE_OK)                                                                \
			rc = curl_easy_setopt(e, option, value);                                   \
	} while (0)
	SET(CURLOPT_UNIX_SOCKET_PATH, c->path);
	SET(CURLOPT_HTTPHEADER, c->headers);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_PROTOCOLS_STR, "http");
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, c);
	SET(CURLOPT_VERBOSE, 1L); /* wanted by on_debug; nothing is printed */
	SET(CURLOPT_DEBUGFUNCTION, on_debug);
	SET(CURLOPT_DEBUGDATA, c);
#undef SET
	return rc == CURLE_OK ? 0 : -EIO;
}

static int parse_dest(const char *dest, const char **path, struct failure *f)
{
	static const char forms[] = "A destination is unix:/path/to/transhipd.sock.";

	if (!strncmp(dest, "unix:", 5))
		dest += 5;
	else if (!strncmp(dest, "ssh://", 6))
		return failure_set(f, -EOPNOTSUPP, "unsupported-option", forms,
				   "ssh:// destinations are not available in this version.");
	else if (*dest && *dest != '/' && !strchr(dest, '/'))
		return failure_set(f, -EOPNOTSUPP, "unsupported-option", forms,
				   "%.100s: destinations over the network are not available in "
				   "this version.",
				   dest);
	if (*dest != '/')
		return failure_set(f, -EINVAL, "usage", forms,
				   "'%.100s' is neither unix:/path nor an absolute path.", dest);
	if (strlen(dest) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return failure_set(f, -EINVAL, "usage", forms,
				   "The socket's path is longer than the %zu bytes there may be.",
				   sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
	*path = dest;
	return 0;
}

int client_new(struct client **out, const char *dest, struct failure *f)
{
	const char *path = NULL;
	struct client *c;
	int err;

	*out = NULL;
	err = parse_dest(dest, &path, f);
	if (err)
		return err;
	pthread_once(&global_once, global_init);
	c = calloc(1, sizeof(*c));
	if (!c)
		return failure_set(f, -ENOMEM, "internal", NULL, "Out of memory.");
	c->interrupt_fd = -1;
	c->path = strdup(path);
	c->curl = curl_easy_init();
	err = c->path && c->curl ? set_up(c) : -ENOMEM;
	if (err) {
		client_free(c);
		return failure_set(f, err, "internal", NULL,
				   "The HTTP client cannot be set up: %s.", strerror(-err));
	}
	*out = c;
	return 0;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	curl_easy_cleanup(c->curl);
	curl_slist_free_all(c->headers);
	free(c->path);
	free(c->answer);
	free(c);
}

bool client_was_sent(const struct client *c)
{
	return c->sent;
}

void client_set_interrupt(struct client *c, int fd)
{
	c->interrupt_fd = fd;
	curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, fd < 0 ? 1L : 0L);
}

/* libcurl calls this at least once a second, also while nothing moves. */
static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t e)
{
	struct pollfd p = { .fd = ((struct client *)arg)->interrupt_fd, .events = POLLIN };

	(void)a, (void)b, (void)d, (void)e;
	return poll(&p, 1, 0) > 0;
}

/* --- errors ----------------------------------------------------------------------------------- */

static int errno_of(struct client *c, CURLcode rc)
{
	long os = 0;

	curl_easy_getinfo(c->curl, CURLINFO_OS_ERRNO, &os);
	switch (rc) {
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_COULDNT_CONNECT:
		return os ? -(int)os : -ECONNREFUSED;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_ABORTED_BY_CALLBACK:
		return -ECANCELED;
	case CURLE_WRITE_ERROR:
		return c->too_large ? -EFBIG : -ENOMEM;
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_PARTIAL_FILE:
		return -ECONNRESET;
	default:
		return -EPROTO;
	}
}

static int fail_transfer(struct client *c, CURLcode rc, const char *code, struct failure *f)
{
	bool local = !strcmp(code, "daemon-unreachable");
	int err = errno_of(c, rc);

	switch (err) {
	case -ENOENT:
	case -ECONNREFUSED:
		return failure_set(
			f, err, code,
			local ? "Start transhipd, or name its socket with --socket."
			      : "Start transhipd at the destination, or correct the path.",
			"No transhipd answers at %s: %s.", c->path, strerror(-err));
	case -EACCES:
	case -EPERM:
		return failure_set(f, err, code, "The API is root's; run this as root.",
				   "The socket %s may not be used: %s.", c->path, strerror(-err));
	case -ECANCELED:
		return failure_set(f, err, "cancelled", NULL, "The migration was cancelled.");
	case -ETIMEDOUT:
		return failure_set(f, err, code, "Look at that transhipd's log.",
				   "The transhipd at %s did not answer in time.", c->path);
	default:
		return failure_set(f, err, code, "Look at that transhipd's log.",
				   "The connection to the transhipd at %s broke: %s.", c->path,
				   curl_easy_strerror(rc));
	}
}

/* What another process says is shown on terminals: no control characters. */
static void copy_text(char *to, size_t size, const json_t *from)
{
	snprintf(to, size, "%s", json_is_string(from) ? json_string_value(from) : "");
	text_clean(to); /* the last character may have been cut in two */
	for (char *p = to; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
}

bool client_read_failure(const json_t *error, struct failure *f)
{
	const json_t *code = json_object_get(error, "code");

	if (!json_is_string(code) || !json_string_length(code))
		return false;
	copy_text(f->code, sizeof(f->code), code);
	copy_text(f->message, sizeof(f->message), json_object_get(error, "message"));
	copy_text(f->hint, sizeof(f->hint), json_object_get(error, "hint"));
	return true;
}

static int fail_answer(struct client *c, long status, const json_t *answer, const char *unreachable,
		       struct failure *f)
{
	struct failure told = { 0 };

	if (!client_read_failure(json_object_get(answer, "error"), &told))
		return failure_set(
			f, -EPROTO,
			strcmp(unreachable, "peer-unreachable") ? "internal" : "peer-failed",
			"See whether it is a transhipd, and of which version.",
			"What answers at %s does not speak as a transhipd (HTTP status %ld).",
			c->path, status);
	if (f && !failure_is_set(f))
		*f = told;
	return -EREMOTEIO;
}

/* --- a call ----------------------------------------------------------------------------------- */

static CURLcode perform(struct client *c, const char *method, const char *path, const char *body,
			unsigned int timeout_ms)
{
	long limit = timeout_ms ? (long)timeout_ms + EARLY_MS : 0;
	AUTO_FREE char *url = NULL;
	CURL *e = c->curl;

	if (asprintf(&url, "http://transhipd%s", path) < 0)
		return CURLE_OUT_OF_MEMORY;
	if (strcmp(method, "GET") || body) {
		/* a POST without a body says so with a length of 0 */
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, body ? body : "");
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE, body ? (long)strlen(body) : 0L);
	} else {
		curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
	}
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, limit);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
			 limit && limit < CONNECT_MS_MAX ? limit : CONNECT_MS_MAX);
	curl_easy_setopt(e, CURLOPT_URL, url);
	curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(e, CURLOPT_XFERINFODATA, c);
	return curl_easy_perform(e);
}

int client_call(struct client *c, const char *method, const char *path, const json_t *in,
		json_t **out, unsigned int timeout_ms, const char *unreachable_code,
		struct failure *f)
{
	AUTO_FREE char *body = NULL;
	json_t *answer;
	long status = 0;
	CURLcode rc;
	int err = 0;

	if (out)
		*out = NULL;
	c->sent = c->too_large = false;
	c->used = 0;
	if (in) {
		body = json_dumps(in, JSON_COMPACT);
		if (!body)
			return failure_set(f, -ENOMEM, "internal", NULL,
					   "The request cannot be written as JSON.");
	}
	rc = perform(c, method, path, body, timeout_ms);
	if (rc != CURLE_OK)
		return fail_transfer(c, rc, unreachable_code, f);
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
	answer = json_loadb(c->answer ? c->answer : "", c->used, 0, NULL);
	if (status < 200 || status > 299 || !answer)
		err = fail_answer(c, status, answer, unreachable_code, f);
	if (!err && out)
		*out = json_incref(answer);
	json_decref(answer);
	return err;
}
