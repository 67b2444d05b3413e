// SPDX-License-Identifier: MIT
/*
 * The QMP client against a QEMU that was taken over: greeting, answers, events, whatever comes.
 *
 * Input: a byte of flags (1: a right greeting and the answer to qmp_capabilities come first), then
 * what QEMU says. Everything is asked until the connection ends.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/guest/qmp.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

static const char greeting[] =
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "
	"\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n{\"return\": {}, \"id\": 1}\r\n";

static bool any(const json_t *data, void *arg)
{
	(void)arg;
	return !data || json_is_object(data) || !json_is_object(data);
}

static void talk(struct qmp *q)
{
	static const char *const commands[] = { "query-status", "query-migrate", "stop" };
	int version[3], err = 0;

	qmp_version(q, version);
	qmp_set_time_limit(q, 2000);
	for (unsigned int i = 0; i < 12 && err != -ECONNRESET && err != -EBADMSG; i++) {
		struct failure f = { 0 };
		json_t *out = NULL;

		if (i % 3 == 2)
			err = qmp_wait_event(q, "STOP", any, NULL, 2000, &out, &f);
		else
			err = qmp_call(q, commands[i % 3], json_pack("{s:i}", "n", (int)i), &out,
				       &f);
		fuzz_check(!err || err == -ETIMEDOUT || failure_is_set(&f));
		fuzz_check(!err || !out);
		fuzz_check(err != -EREMOTEIO || qmp_error(q)[0]);
		json_decref(out);
	}
	qmp_event_time(q);
	qmp_forget_events(q, "RESUME");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	bool greeted = fuzz_u8(&in) & 1;
	struct failure f = { 0 };
	struct qmp *q;
	int sv[2], err, large = 1 << 20;

	log_init("fuzz", LOG_LEVEL_ERROR);
	fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &large, sizeof(large));
	if (greeted)
		fuzz_check(send(sv[0], greeting, sizeof(greeting) - 1, 0) > 0);
	if (in.left)
		send(sv[0], in.p, in.left, MSG_DONTWAIT);
	shutdown(sv[0], SHUT_WR);
	err = qmp_new(&q, sv[1], 2000, &f);
	fuzz_check(!err || failure_is_set(&f));
	fuzz_check(!err || !greeted);
	if (!err) {
		talk(q);
		qmp_free(q);
	}
	close(sv[0]);
	return 0;
}
