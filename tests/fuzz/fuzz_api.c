// SPDX-License-Identifier: MIT
/*
 * The API's socket: bytes as they come, up to the handler of a route, which is a fake host's.
 *
 * Input: a byte that chooses a request to begin with (so that small inputs reach a route), a byte
 * (1: the rest is that request's body, with its length announced), then bytes. Whatever comes, the
 * server closes or answers, an id that reaches a handler is one, and what it gets is an object.
 */
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "control/api.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/control/fake_host.h"

static const char *const beginnings[] = {
	"",
	"GET /v1/version",
	"GET /v1/sessions/" FAKE_ID "?since=3&wait=0",
	"POST /v1/sessions",
	"POST /v1/sessions/" FAKE_ID "/cancel",
	"POST /v1/sessions/" FAKE_ID "/resolve",
	"POST /v1/dirty-rate",
	"POST /v1/peer/sessions",
	"POST /v1/peer/sessions/" FAKE_ID "/abort",
	"GET /v1/sessions/",
};
#define BEGINNINGS (sizeof(beginnings) / sizeof(beginnings[0]))

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static struct api *api;

static void stop(void)
{
	api_free(api);
}

static void start(void)
{
	struct failure f = { 0 };

	log_init("fuzz", LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	fake_reset();
	snprintf(fake.config.state_dir, sizeof(fake.config.state_dir), "/nonexistent");
	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/fuzz-api-%d.sock",
		 (int)getpid());
	fuzz_check(!api_new(&api, &fake, address.sun_path, &f));
	atexit(stop);
}

static size_t compose(char *out, size_t room, struct fuzz_input *in)
{
	const char *begin = beginnings[fuzz_u8(in) % BEGINNINGS];
	bool whole = fuzz_u8(in) & 1;
	int n;

	if (whole)
		n = snprintf(out, room,
			     "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
			     "Content-Length: %zu\r\n\r\n",
			     *begin ? begin : "POST /v1/sessions", in->left);
	else
		n = snprintf(out, room, "%s", begin);
	if (in->left > room - (size_t)n)
		in->left = room - (size_t)n;
	memcpy(out + n, in->p, in->left);
	return (size_t)n + in->left;
}

static void check_call(void)
{
	SCOPED_LOCK(&fake.lock);
	fuzz_check(strspn(fake.id, "0123456789abcdef") == strlen(fake.id));
	fuzz_check(strlen(fake.id) <= 32);
	fuzz_check(!fake.in || json_is_object(fake.in));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char text[16384], answer[4096];
	struct fuzz_input in = { data, size };
	const struct timeval limit = { .tv_sec = 20 };
	size_t len, sent = 0;
	ssize_t n;
	int fd;

	if (!api)
		start();
	fake_reset();
	len = compose(text, sizeof(text), &in);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fuzz_check(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address)));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	while (sent < len) {
		n = send(fd, text + sent, len - sent, MSG_NOSIGNAL);
		if (n <= 0)
			break;
		sent += (size_t)n;
	}
	shutdown(fd, SHUT_WR);
	do {
		n = recv(fd, answer, sizeof(answer), 0);
	} while (n > 0);
	/* the end or a reset, not the time limit: nothing hangs */
	fuzz_check(!n || errno != EAGAIN);
	close(fd);
	check_call();
	return 0;
}
