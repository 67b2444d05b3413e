// SPDX-License-Identifier: MIT
/* The API's server and client against each other over a real socket, and hostile requests. */
#include "control/api.h"
#include "control/client.h"
#include "control/failure_class.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "lib/base/io.h"
#include "tests/unit/control/fake_host.h"

static char dir[64], path[100];
static struct api *api;
static struct client *client;

static int setup(void **state)
{
	struct failure f = { 0 };

	(void)state;
	fake_reset();
	snprintf(dir, sizeof(dir), "/tmp/test_client_api.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(fake.config.state_dir, sizeof(fake.config.state_dir), "%s/state", dir);
	return api_new(&api, &fake, path, &f) || client_new(&client, path, &f) ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	client_free(client);
	api_free(api);
	api = NULL;
	unlink(path);
	return rmdir(dir);
}

static int call(const char *method, const char *url, const json_t *in, json_t **out,
		struct failure *f)
{
	failure_clear(f);
	return client_call(client, method, url, in, out, 5000, "daemon-unreachable", f);
}

/* Sends raw bytes on a new connection and reads until the server closes, or a whole answer came. */
static int raw(const char *bytes, size_t n, char *answer, size_t room)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 5 };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), status = 0;
	size_t used = 0;
	ssize_t got;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	for (size_t at = 0; at < n;) {
		ssize_t put = send(fd, bytes + at, n - at, MSG_NOSIGNAL);

		if (put < 0)
			break; /* the server had enough of it */
		at += (size_t)put;
	}
	answer[0] = '\0';
	while (used < room - 1 && !strstr(answer, "}") &&
	       (got = recv(fd, answer + used, room - 1 - used, 0)) > 0) {
		used += (size_t)got;
		answer[used] = '\0';
	}
	close(fd);
	sscanf(answer, "HTTP/1.1 %d", &status);
	return status;
}

static int raw_text(const char *text, char *answer, size_t room)
{
	return raw(text, strlen(text), answer, room);
}

static void test_every_route_reaches_its_function(void **state)
{
	static const struct {
		const char *method, *url, *call;
		bool id;
	} cases[] = {
		{ "GET", "/v1/vms", "vms", false },
		{ "POST", "/v1/dirty-rate", "dirty_rate", false },
		{ "GET", "/v1/sessions", "list", false },
		{ "POST", "/v1/sessions", "migrate", false },
		{ "GET", "/v1/sessions/" FAKE_ID, "status", true },
		{ "POST", "/v1/sessions/" FAKE_ID "/cancel", "cancel", true },
		{ "POST", "/v1/sessions/" FAKE_ID "/tune", "tune", true },
		{ "POST", "/v1/sessions/" FAKE_ID "/switch", "switch", true },
		{ "POST", "/v1/peer/sessions", "offer", false },
		{ "GET", "/v1/peer/sessions/" FAKE_ID, "peer_status", true },
		{ "POST", "/v1/peer/sessions/" FAKE_ID "/load", "load", true },
		{ "POST", "/v1/peer/sessions/" FAKE_ID "/commit", "commit", true },
		{ "POST", "/v1/peer/sessions/" FAKE_ID "/abort", "abort", true },
		{ "POST", "/v1/peer/sessions/" FAKE_ID "/finish", "finish", true },
		{ "POST", "/v1/bench", "bench", false },
		{ "POST", "/v1/peer/bench", "bench_offer", false },
		{ "POST", "/v1/peer/bench/" FAKE_ID "/run", "bench_run", true },
		{ "POST", "/v1/peer/bench/" FAKE_ID "/stop", "bench_stop", true },
		{ "POST", "/v1/peer/bench/" FAKE_ID "/result", "bench_result", true },
		{ "POST", "/v1/peer/bench/" FAKE_ID "/finish", "bench_finish", true },
	};

	(void)state;
	fake.answer = json_pack("{s:s}", "hello", "world");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *in = json_pack("{s:i}", "n", (int)i), *out = NULL;
		struct failure f;

		assert_int_equal(call(cases[i].method, cases[i].url,
				      strcmp(cases[i].method, "GET") ? in : NULL, &out, &f),
				 0);
		assert_string_equal(fake.call, cases[i].call);
		assert_string_equal(fake.id, cases[i].id ? FAKE_ID : "");
		assert_true(json_equal(out, fake.answer));
		if (!strcmp(fake.call, "migrate") || !strcmp(fake.call, "offer") ||
		    !strcmp(fake.call, "abort") || !strcmp(fake.call, "dirty_rate"))
			assert_true(json_equal(fake.in, in));
		json_decref(in);
		json_decref(out);
	}
}

static void test_version(void **state)
{
	struct failure f;
	json_t *out;

	(void)state;
	assert_int_equal(call("GET", "/v1/version", NULL, &out, &f), 0);
	assert_string_equal(json_string_value(json_object_get(out, "version")), TRANSHIP_VERSION);
	assert_string_equal(json_string_value(json_object_get(out, "state_dir")),
			    fake.config.state_dir);
	assert_int_equal(json_integer_value(json_object_get(out, "pid")), getpid());
	json_decref(out);
}

static void test_resolve(void **state)
{
	json_t *in = json_pack("{s:s}", "action", "run-here");
	struct failure f;

	(void)state;
	assert_int_equal(call("POST", "/v1/sessions/001122/resolve", in, NULL, &f), 0);
	assert_string_equal(fake.id, "001122");
	assert_string_equal(fake.action, "run-here");
	json_decref(in);
	assert_int_equal(call("POST", "/v1/sessions/001122/resolve", NULL, NULL, &f), -EREMOTEIO);
	assert_string_equal(f.code, "usage");
}

static void test_absent_body_and_answer_are_objects(void **state)
{
	struct failure f;
	json_t *out;

	(void)state;
	assert_int_equal(call("POST", "/v1/sessions", NULL, &out, &f), 0);
	assert_true(json_is_object(fake.in));
	assert_int_equal(json_object_size(out), 0);
	json_decref(out);
}

/* Each code crosses the socket whole and has the status of its class. */
static void test_failures_cross_over(void **state)
{
	static const struct {
		const char *code;
		int status;
	} statuses[] = {
		{ "usage", 400 },	   { "vm-not-found", 404 }, { "session-not-found", 404 },
		{ "vm-busy", 409 },	   { "busy", 409 },	    { "session-state", 409 },
		{ "ram-not-shared", 422 }, { "memory", 422 },	    { "unsupported-option", 422 },
		{ "internal", 500 },	   { "journal", 500 },	    { "peer-unreachable", 500 },
	};
	char answer[2048];

	(void)state;
	for (const struct failure_code *c = failure_codes; c->code; c++) {
		struct failure f;
		json_t *out;

		failure_clear(&fake.failure);
		failure_set(&fake.failure, -EIO, c->code, "do \"this\"", "a %s\nsentence", c->code);
		assert_int_equal(call("POST", "/v1/sessions", NULL, &out, &f), -EREMOTEIO);
		assert_null(out);
		assert_string_equal(f.code, c->code);
		assert_string_equal(f.hint, "Do \"this\"");
		assert_null(strchr(f.message, '\n')); /* nothing that moves a terminal's cursor */
		assert_true(client_was_sent(client));
	}
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		failure_clear(&fake.failure);
		failure_set(&fake.failure, -EIO, statuses[i].code, NULL, "x");
		assert_int_equal(
			raw_text("GET /v1/vms HTTP/1.1\r\nHost: x\r\n\r\n", answer, sizeof(answer)),
			statuses[i].status);
	}
}

static void test_failure_that_is_not_utf8(void **state)
{
	struct failure f;

	(void)state;
	failure_set(&fake.failure, -EIO, "vm-busy", NULL, "name \xff\xfe");
	assert_int_equal(call("GET", "/v1/vms", NULL, NULL, &f), -EREMOTEIO);
	assert_string_equal(f.code, "vm-busy");
	assert_string_equal(f.message, "Name ??");
}

static void test_unreachable(void **state)
{
	struct failure f = { 0 };
	struct client *c;

	(void)state;
	assert_int_equal(client_new(&c, "unix:/nowhere/to/be/found", &f), 0);
	assert_int_equal(client_call(c, "GET", "/v1/vms", NULL, NULL, 1000, "peer-unreachable", &f),
			 -ENOENT);
	assert_string_equal(f.code, "peer-unreachable");
	assert_false(client_was_sent(c));
	client_free(c);
}

static void test_time_limit(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct failure f = { 0 };
	struct client *c;

	(void)state;
	/* it accepts (the queue does) and never answers */
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/dumb", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(client_new(&c, a.sun_path, &f), 0);
	assert_int_equal(client_call(c, "GET", "/v1/vms", NULL, NULL, 50, "peer-unreachable", &f),
			 -ETIMEDOUT);
	assert_string_equal(f.code, "peer-unreachable");
	assert_true(client_was_sent(c));
	client_free(c);
	close(fd);
	unlink(a.sun_path);
}

/* Answers one request with the given bytes and closes. */
static void *answer_once(void *arg)
{
	const char **work = arg;
	int fd = accept(atoi(work[0]), NULL, NULL);
	char request[4096];

	if (read(fd, request, sizeof(request)) > 0 && work[1])
		io_write_full(fd, work[1], strlen(work[1]));
	close(fd);
	return NULL;
}

static int call_impostor(const char *answer, struct failure *f)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), err;
	char number[16];
	const char *work[] = { number, answer };
	struct client *c;
	pthread_t thread;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/other", dir);
	snprintf(number, sizeof(number), "%d", fd);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 5), 0);
	failure_clear(f);
	assert_int_equal(client_new(&c, a.sun_path, f), 0);
	pthread_create(&thread, NULL, answer_once, work);
	err = client_call(c, "POST", "/v1/sessions", NULL, NULL, 5000, "peer-unreachable", f);
	pthread_join(thread, NULL);
	assert_true(client_was_sent(c));
	client_free(c);
	close(fd);
	unlink(a.sun_path);
	return err;
}

static void test_answers_that_are_none(void **state)
{
	struct failure f;

	(void)state;
	assert_int_equal(call_impostor(NULL, &f), -ECONNRESET);
	assert_string_equal(f.code, "peer-unreachable");
	assert_int_equal(call_impostor("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", &f),
			 -ECONNRESET);
	assert_string_equal(f.code, "peer-unreachable");
	assert_int_equal(call_impostor("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhey", &f),
			 -EPROTO);
	assert_string_equal(f.code, "peer-failed");
	assert_int_equal(call_impostor("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}", &f),
			 -EPROTO);
	assert_string_equal(f.code, "peer-failed");
	assert_int_equal(call_impostor("220 smtp ready\r\n", &f), -EPROTO);
	assert_string_equal(f.code, "peer-unreachable");
	/* a redirect is not followed */
	assert_int_equal(call_impostor("HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\n"
				       "Content-Length: 0\r\n\r\n",
				       &f),
			 -EPROTO);
}

static void test_destinations(void **state)
{
	static const struct {
		const char *dest;
		int err;
		const char *code;
	} cases[] = {
		{ "unix:/a/b", 0, "" },
		{ "/a/b", 0, "" },
		{ "", -EINVAL, "usage" },
		{ "unix:", -EINVAL, "usage" },
		{ "unix:a/b", -EINVAL, "usage" },
		{ "a/b", -EINVAL, "usage" },
		{ "./b", -EINVAL, "usage" },
		{ "ssh://root@host", -EOPNOTSUPP, "unsupported-option" },
		{ "host.example", -EOPNOTSUPP, "unsupported-option" },
		{ "host.example:7777", -EOPNOTSUPP, "unsupported-option" },
		{ "[::1]:7777", -EOPNOTSUPP, "unsupported-option" },
	};
	char longer[200];
	struct failure f = { 0 };
	struct client *c;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		failure_clear(&f);
		assert_int_equal(client_new(&c, cases[i].dest, &f), cases[i].err);
		assert_string_equal(f.code, cases[i].code);
		client_free(c);
	}
	memset(longer, '/', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	failure_clear(&f);
	assert_int_equal(client_new(&c, longer, &f), -EINVAL);
	assert_null(c);
}

static void test_hostile_requests(void **state)
{
	static const struct {
		const char *request;
		int status;
	} cases[] = {
		{ "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404 },
		{ "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404 },
		{ "GET /v1/sessions/ HTTP/1.1\r\nHost: x\r\n\r\n", 400 },
		{ "DELETE /v1/sessions/" FAKE_ID " HTTP/1.1\r\nHost: x\r\n\r\n", 405 },
		{ "GET /v1/sessions/" FAKE_ID "/cancel HTTP/1.1\r\nHost: x\r\n\r\n", 405 },
		{ "POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405 },
		{ "GET /v1/sessions/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404 },
		{ "GET /v1/sessions/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: x\r\n\r\n", 404 },
		{ "GET /v1/sessions/0011223344556677889900aabbccddEE HTTP/1.1\r\nHost: x\r\n\r\n",
		  400 },
		{ "GET /v1/sessions/" FAKE_ID "0 HTTP/1.1\r\nHost: x\r\n\r\n", 400 },
		{ "GET /v1/sessions/00112 HTTP/1.1\r\nHost: x\r\n\r\n", 400 },
		{ "GET /v1/peer/sessions/001122 HTTP/1.1\r\nHost: x\r\n\r\n", 400 },
		{ "GET /v1/sessions/" FAKE_ID "?since=-1 HTTP/1.1\r\nHost: x\r\n\r\n", 400 },
		{ "GET /v1/sessions/" FAKE_ID "?since=1e3 HTTP/1.1\r\nHost: x\r\n\r\n", 400 },
		{ "GET /v1/sessions/" FAKE_ID
		  "?wait=99999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n",
		  400 },
		{ "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{", 400 },
		{ "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]", 400 },
		{ "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull", 400 },
		{ "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n"
		  "{\"a\":1,\"a\":2}xx",
		  400 },
		{ "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
		  413 },
	};
	char answer[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int status = raw_text(cases[i].request, answer, sizeof(answer));

		if (status != cases[i].status || !strstr(answer, "\"error\":{\"code\":\"usage\""))
			fail_msg("%s\n-> %s", cases[i].request, answer);
		assert_int_equal(fake.calls, 0);
	}
}

static void test_nesting_that_would_eat_the_stack(void **state)
{
	size_t n = 1 << 20;
	char *text = malloc(n + 100), answer[4096];
	int head = sprintf(
		text, "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", n);

	(void)state;
	memset(text + head, '[', n);
	assert_int_equal(raw(text, (size_t)head + n, answer, sizeof(answer)), 400);
	free(text);
}

/* 8 MiB pass, one byte more does not, announced or not. */
static void test_large_requests(void **state)
{
	size_t room = (8u << 20) - 8;
	json_t *in = json_object(), *out;
	char *text = malloc(room + 64), answer[4096];
	struct failure f;

	(void)state;
	memset(text, 'x', room);
	text[room] = '\0';
	json_object_set_new(in, "k", json_string(text)); /* {"k":"..."}: 8 bytes around it */
	assert_int_equal(call("POST", "/v1/sessions", in, &out, &f), 0);
	json_decref(out);
	assert_int_equal(json_string_length(json_object_get(fake.in, "k")), room);
	text[room] = 'x';
	text[room + 1] = '\0';
	json_object_set_new(in, "k", json_string(text));
	fake.calls = 0;
	assert_true(call("POST", "/v1/sessions", in, &out, &f) < 0);
	assert_int_equal(fake.calls, 0);
	json_decref(in);
	free(text);

	size_t chunks = 9 << 20, head;
	char *big = malloc(chunks + 200);

	head = (size_t)sprintf(big,
			       "POST /v1/sessions HTTP/1.1\r\nHost: x\r\n"
			       "Transfer-Encoding: chunked\r\n\r\n%zx\r\n",
			       chunks);
	memset(big + head, ' ', chunks);
	assert_int_equal(raw(big, head + chunks, answer, sizeof(answer)), 0);
	assert_int_equal(fake.calls, 0);
	free(big);
	/* and it still answers */
	assert_int_equal(call("GET", "/v1/vms", NULL, NULL, &f), 0);
}

/* Clients that say half a line and nothing more take no one else's turn. */
static void test_slow_clients(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct failure f;
	int fds[30];

	(void)state;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	for (int i = 0; i < 30; i++) {
		fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&a, sizeof(a)), 0);
		assert_int_equal(send(fds[i], "POST /v1/se", 11, MSG_NOSIGNAL), 11);
	}
	for (int i = 0; i < 10; i++)
		assert_int_equal(call("GET", "/v1/vms", NULL, NULL, &f), 0);
	for (int i = 0; i < 30; i++)
		close(fds[i]);
}

/* --- long polls ------------------------------------------------------------------------------- */

static uint64_t news_at_poll, news_seq;

static int status_later(struct host *h, uint64_t since, unsigned int wait_ms, json_t **out,
			struct failure *f)
{
	bool news = h->polls >= news_at_poll;

	(void)f;
	(void)since;
	assert_true(wait_ms <= 1000);
	if (!news && wait_ms)
		usleep(wait_ms * 1000); /* as host_status does */
	*out = json_pack("{s:I, s:b, s:I}", "seq", (json_int_t)(news ? news_seq : 5), "terminal", 0,
			 "waited", (json_int_t)wait_ms);
	return 0;
}

static void test_long_poll_waits_for_news(void **state)
{
	uint64_t start;
	struct failure f;
	json_t *out;

	(void)state;
	fake.status = status_later;
	news_at_poll = 3;
	news_seq = 6;
	assert_int_equal(call("GET", "/v1/sessions/" FAKE_ID "?since=5&wait=4000", NULL, &out, &f),
			 0);
	assert_int_equal(json_integer_value(json_object_get(out, "seq")), 6);
	assert_int_equal(fake.polls, 3);
	json_decref(out);
	/* without news it ends when it was told to */
	news_at_poll = 1000;
	start = clock_ns();
	assert_int_equal(call("GET", "/v1/sessions/" FAKE_ID "?since=5&wait=300", NULL, &out, &f),
			 0);
	assert_int_equal(json_integer_value(json_object_get(out, "seq")), 5);
	assert_true(clock_ms_since(start) >= 299);
	json_decref(out);
	/* without a wait at once */
	fake.polls = 0;
	assert_int_equal(call("GET", "/v1/sessions/" FAKE_ID "?since=5", NULL, &out, &f), 0);
	assert_int_equal(json_integer_value(json_object_get(out, "waited")), 0);
	assert_int_equal(fake.polls, 1);
	json_decref(out);
}

static void *poll_long(void *arg)
{
	struct failure f = { 0 };
	struct client *c;
	json_t *out = NULL;

	if (client_new(&c, path, &f))
		return NULL;
	client_call(c, "GET", "/v1/sessions/" FAKE_ID "?since=5&wait=60000", NULL, &out, 60000,
		    "daemon-unreachable", &f);
	client_free(c);
	*(json_t **)arg = out;
	return NULL;
}

/* The end of the server answers a long poll rather than cut it off, and does not wait for it. */
static void test_end_during_a_long_poll(void **state)
{
	json_t *out = NULL;
	pthread_t thread;

	(void)state;
	fake.status = status_later;
	news_at_poll = 1000000;
	pthread_create(&thread, NULL, poll_long, &out);
	for (;;) {
		SCOPED_LOCK(&fake.lock);
		if (fake.polls)
			break;
	}
	api_free(api);
	api = NULL;
	pthread_join(thread, NULL);
	assert_int_equal(json_integer_value(json_object_get(out, "seq")), 5);
	json_decref(out);
	assert_int_equal(access(path, F_OK), -1);
}

/* --- the socket ------------------------------------------------------------------------------- */

static void test_socket_is_roots_alone(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_live_socket_is_refused(void **state)
{
	struct failure f = { 0 };
	struct api *second;

	(void)state;
	assert_int_equal(api_new(&second, &fake, path, &f), -EADDRINUSE);
	assert_null(second);
	assert_string_equal(f.code, "busy");
	assert_int_equal(call("GET", "/v1/vms", NULL, NULL, &f), 0);
}

static void test_stale_socket_is_replaced(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct failure f = { 0 };
	struct api *second;

	(void)state;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/stale", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(access(a.sun_path, F_OK), 0);
	assert_int_equal(api_new(&second, &fake, a.sun_path, &f), 0);
	api_free(second);
	assert_int_equal(access(a.sun_path, F_OK), -1);
}

static void test_a_file_is_not_replaced(void **state)
{
	struct failure f = { 0 };
	char other[120];
	struct api *second;
	FILE *file;

	(void)state;
	snprintf(other, sizeof(other), "%s/file", dir);
	file = fopen(other, "w");
	fclose(file);
	assert_int_equal(api_new(&second, &fake, other, &f), -EEXIST);
	assert_int_equal(unlink(other), 0);
	snprintf(other, sizeof(other), "%s/no/such/dir", dir);
	failure_clear(&f);
	assert_int_equal(api_new(&second, &fake, other, &f), -ENOENT);
}

static void test_someone_elses_socket_is_left(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	unlink(path);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	api_free(api);
	api = NULL;
	assert_int_equal(access(path, F_OK), 0);
	close(fd);
}

/* The client goes on by itself when the server was restarted between two calls. */
static void test_restart_between_calls(void **state)
{
	struct failure f;

	(void)state;
	assert_int_equal(call("GET", "/v1/vms", NULL, NULL, &f), 0);
	api_free(api);
	api = NULL;
	assert_int_equal(call("GET", "/v1/vms", NULL, NULL, &f), -ENOENT);
	assert_string_equal(f.code, "daemon-unreachable");
	assert_int_equal(api_new(&api, &fake, path, &f), 0);
	assert_int_equal(call("GET", "/v1/vms", NULL, NULL, &f), 0);
}

static void test_many_clients(void **state)
{
	struct client *many[100];
	struct failure f = { 0 };

	(void)state;
	/* more than there may be connections: the rest wait their turn, none is refused */
	for (int i = 0; i < 100; i++) {
		assert_int_equal(client_new(&many[i], path, &f), 0);
		if (i < 50)
			assert_int_equal(client_call(many[i], "GET", "/v1/vms", NULL, NULL, 5000,
						     "daemon-unreachable", &f),
					 0);
	}
	for (int i = 0; i < 50; i++)
		client_free(many[i]);
	for (int i = 50; i < 100; i++) {
		assert_int_equal(client_call(many[i], "GET", "/v1/vms", NULL, NULL, 5000,
					     "daemon-unreachable", &f),
				 0);
		client_free(many[i]);
	}
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_every_route_reaches_its_function),
		CASE(test_version),
		CASE(test_resolve),
		CASE(test_absent_body_and_answer_are_objects),
		CASE(test_failures_cross_over),
		CASE(test_failure_that_is_not_utf8),
		CASE(test_unreachable),
		CASE(test_time_limit),
		CASE(test_answers_that_are_none),
		CASE(test_destinations),
		CASE(test_hostile_requests),
		CASE(test_nesting_that_would_eat_the_stack),
		CASE(test_large_requests),
		CASE(test_slow_clients),
		CASE(test_long_poll_waits_for_news),
		CASE(test_end_during_a_long_poll),
		CASE(test_socket_is_roots_alone),
		CASE(test_live_socket_is_refused),
		CASE(test_stale_socket_is_replaced),
		CASE(test_a_file_is_not_replaced),
		CASE(test_someone_elses_socket_is_left),
		CASE(test_restart_between_calls),
		CASE(test_many_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
