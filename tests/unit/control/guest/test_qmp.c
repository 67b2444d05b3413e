// SPDX-License-Identifier: MIT
/* The QMP client against a real QEMU, and against a peer that says what no QEMU would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "control/guest/qmp.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"
#include "tests/unit/control/guest/qemu_fixture.h"

#define GREETING                                                                                   \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 3, \"minor\": 2, \"major\": 9}, "          \
	"\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"

/* --- a real QEMU ------------------------------------------------------------------------------ */

static int start_qemu(void **state)
{
	static struct fixture x;

	fixture_init(&x, "qmp");
	fixture_shared_ram(&x);
	fixture_start(&x);
	*state = &x;
	return 0;
}

static int stop_qemu(void **state)
{
	fixture_stop(*state);
	return 0;
}

static struct qmp *connect_ok(const struct fixture *x)
{
	struct failure f = { 0 };
	struct qmp *q;

	assert_int_equal(qmp_connect(&q, x->qmp, 5000, &f), 0);
	return q;
}

static void asks_and_is_refused(void **state)
{
	struct qmp *q = connect_ok(*state);
	struct failure f = { 0 };
	json_t *answer;
	int version[3];

	qmp_version(q, version);
	assert_true(version[0] >= 7);
	assert_int_equal(qmp_call(q, "query-status", NULL, &answer, &f), 0);
	assert_string_equal(json_string_value(json_object_get(answer, "status")), "running");
	json_decref(answer);
	assert_int_equal(qmp_call(q, "no-such-command", NULL, &answer, &f), -EREMOTEIO);
	assert_null(answer);
	assert_string_equal(f.code, "qmp-failed");
	assert_non_null(strstr(qmp_error(q), "no-such-command"));
	failure_clear(&f);
	/* The connection is as good as before. */
	assert_int_equal(qmp_call(q, "query-name", NULL, NULL, &f), 0);
	assert_string_equal(qmp_error(q), "");
	qmp_free(q);
}

static void second_client_is_not_greeted(void **state)
{
	const struct fixture *x = *state;
	struct qmp *holder = connect_ok(x), *q;
	struct failure f = { 0 };
	uint64_t start = clock_ns();

	assert_int_equal(qmp_connect(&q, x->qmp, 100, &f), -ETIMEDOUT);
	assert_true(clock_ms_since(start) >= 99);
	assert_string_equal(f.code, "qmp-busy");
	assert_null(q);
	qmp_free(holder);
	/* And it is served once the holder has gone. */
	q = connect_ok(x);
	qmp_free(q);
}

static bool is_status(const json_t *data, void *arg)
{
	return !strcmp(json_string_value(json_object_get(data, "status")) ?: "", arg);
}

static void events_wait_in_the_queue(void **state)
{
	struct qmp *q = connect_ok(*state);
	struct failure f = { 0 };
	json_t *data = NULL;

	assert_int_equal(qmp_call(q, "stop", NULL, NULL, &f), 0);
	assert_int_equal(qmp_call(q, "cont", NULL, NULL, &f), 0);
	/* In any order, each once. */
	assert_int_equal(qmp_wait_event(q, "RESUME", NULL, NULL, 2000, &data, &f), 0);
	assert_int_equal(qmp_wait_event(q, "STOP", NULL, NULL, 2000, NULL, &f), 0);
	assert_int_equal(qmp_wait_event(q, "STOP", NULL, NULL, 0, NULL, &f), -ETIMEDOUT);
	assert_false(failure_is_set(&f));
	assert_int_equal(qmp_call(q, "stop", NULL, NULL, &f), 0);
	qmp_forget_events(q, "STOP");
	assert_int_equal(qmp_wait_event(q, "STOP", NULL, NULL, 0, NULL, &f), -ETIMEDOUT);
	assert_int_equal(qmp_call(q, "cont", NULL, NULL, &f), 0);
	qmp_free(q);
}

static void descriptors_are_passed(void **state)
{
	struct qmp *q = connect_ok(*state);
	struct failure f = { 0 };
	int ends[2];
	char c;

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(
		qmp_call_fd(q, "getfd", json_pack("{s:s}", "fdname", "end"), ends[1], NULL, &f), 0);
	close(ends[1]);
	/* QEMU holds the writing end now: no end of file until it lets go. */
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(read(ends[0], &c, 1), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(qmp_call(q, "closefd", json_pack("{s:s}", "fdname", "end"), NULL, &f), 0);
	assert_int_equal(read(ends[0], &c, 1), 0);
	close(ends[0]);
	qmp_free(q);
}

static void the_end_of_qemu_is_told(void **state)
{
	const struct fixture *x = *state;
	struct qmp *q = connect_ok(x);
	struct failure f = { 0 };

	kill(x->pid, SIGKILL);
	assert_int_equal(qmp_wait_event(q, "NEVER", NULL, NULL, 5000, NULL, &f), -ECONNRESET);
	assert_string_equal(f.code, "vm-gone");
	failure_clear(&f);
	assert_int_equal(qmp_call(q, "query-status", NULL, NULL, &f), -ECONNRESET);
	assert_string_equal(f.code, "vm-gone");
	qmp_free(q);
}

static void nobody_listens(void **state)
{
	struct failure f = { 0 };
	struct qmp *q;

	(void)state;
	assert_int_equal(qmp_connect(&q, "/nonexistent/qmp.sock", 100, &f), -ENOENT);
	assert_string_equal(f.code, "qmp-failed");
}

/* --- a peer that says what it likes ----------------------------------------------------------- */

struct peer {
	int fd;
	const char *first;  /* said at once */
	const char *second; /* said after the first command */
	const char *third;  /* said after the second */
	pthread_t thread;
	char heard[512];
};

static void *peer_run(void *arg)
{
	struct peer *p = arg;
	const char *say[] = { p->first, p->second, p->third };
	size_t len = 0;

	for (int i = 0; i < 3; i++) {
		if (i) {
			ssize_t n = read(p->fd, p->heard + len, sizeof(p->heard) - 1 - len);

			if (n <= 0)
				break;
			len += (size_t)n;
		}
		if (say[i])
			io_write_full(p->fd, say[i], strlen(say[i]));
	}
	return NULL;
}

static int connect_peer(struct peer *p, struct qmp **q, struct failure *f)
{
	int pair[2], ret;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	p->fd = pair[0];
	pthread_create(&p->thread, NULL, peer_run, p);
	ret = qmp_new(q, pair[1], 1000, f);
	if (*q)
		qmp_set_time_limit(*q, 200);
	return ret;
}

static void end_peer(struct peer *p, struct qmp *q)
{
	qmp_free(q);
	pthread_join(p->thread, NULL);
	close(p->fd);
}

static void messages_in_any_shape(void **state)
{
	/* Many lines, two on one line, braces inside strings, an event between. */
	struct peer p = {
		.first = "{\n    \"QMP\": {\n        \"version\": {\"qemu\": {\"micro\": 1, "
			 "\"minor\": 2,"
			 "\n \"major\": 9}}}\n}\n",
		.second = "{\"event\": \"A\", \"data\": {\"x\": \"}]{\\\"\"}}{\"return\": {}, "
			  "\"id\": 1}",
		.third = "{\"id\": 2,\r\n\"return\": \"{[\\\\\"}\n{\"event\": \"B\"}\n",
	};
	struct failure f = { 0 };
	struct qmp *q;
	json_t *value;
	int version[3];

	(void)state;
	assert_int_equal(connect_peer(&p, &q, &f), 0);
	qmp_version(q, version);
	assert_int_equal(version[1], 2);
	assert_int_equal(qmp_call(q, "x", json_pack("{s:s}", "a", "b"), &value, &f), 0);
	assert_string_equal(json_string_value(value), "{[\\");
	json_decref(value);
	assert_int_equal(qmp_wait_event(q, "B", NULL, NULL, 1000, &value, &f), 0);
	assert_null(value);
	assert_int_equal(qmp_wait_event(q, "A", NULL, NULL, 0, &value, &f), 0);
	assert_string_equal(json_string_value(json_object_get(value, "x")), "}]{\"");
	json_decref(value);
	assert_non_null(
		strstr(p.heard, "{\"execute\":\"x\",\"arguments\":{\"a\":\"b\"},\"id\":2}\n"));
	end_peer(&p, q);
}

static void late_and_foreign_answers_are_dropped(void **state)
{
	struct peer p = {
		.first = GREETING,
		.second = "{\"return\": {}, \"id\": 1}\n",
		.third = NULL,
	};
	struct failure f = { 0 };
	struct qmp *q;
	json_t *value;

	(void)state;
	assert_int_equal(connect_peer(&p, &q, &f), 0);
	assert_int_equal(qmp_call(q, "slow", NULL, &value, &f), -ETIMEDOUT);
	assert_string_equal(f.code, "qmp-failed");
	failure_clear(&f);
	pthread_join(p.thread, NULL);
	/* The answer to "slow" comes late, one without an id, then the one waited for. */
	p.first = "{\"return\": 2, \"id\": 2}\n{\"error\": {\"class\": \"X\", \"desc\": \"y\"}}\n"
		  "{\"return\": 3, \"id\": 3}\n";
	p.second = p.third = NULL;
	io_write_full(p.fd, p.first, strlen(p.first));
	assert_int_equal(qmp_call(q, "quick", NULL, &value, &f), 0);
	assert_int_equal(json_integer_value(value), 3);
	json_decref(value);
	qmp_free(q);
	close(p.fd);
}

static void refuse_peer(const char *says, const char *code, int err)
{
	struct peer p = { .first = says };
	struct failure f = { 0 };
	struct qmp *q;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	io_write_full(pair[0], p.first, strlen(p.first));
	shutdown(pair[0], SHUT_WR);
	assert_int_equal(qmp_new(&q, pair[1], 1000, &f), err);
	assert_null(q);
	assert_string_equal(f.code, code);
	close(pair[0]);
}

static void hostile_greetings(void **state)
{
	(void)state;
	refuse_peer("", "vm-gone", -ECONNRESET);
	refuse_peer("RFB 003.008\n", "qmp-failed", -EBADMSG);
	refuse_peer("}", "qmp-failed", -EBADMSG);
	refuse_peer("[1, 2]", "qmp-failed", -EBADMSG);
	refuse_peer("{\"QMP\": {]}", "qmp-failed", -EBADMSG);
	refuse_peer("{\"QMP\": \"no version\"}", "qmp-failed", -EBADMSG);
	refuse_peer("{\"QMP\": nonsense}", "qmp-failed", -EBADMSG);
	refuse_peer("{\"QMP\": {\"version\"", "vm-gone", -ECONNRESET);
}

static void *flood(void *arg)
{
	static char block[65536];
	int fd = *(int *)arg;

	memset(block, ' ', sizeof(block));
	if (!io_write_full(fd, "{\"event\": \"", 11))
		while (send(fd, block, sizeof(block), MSG_NOSIGNAL) > 0)
			;
	return NULL;
}

static void a_message_without_end_is_cut_off(void **state)
{
	struct failure f = { 0 };
	pthread_t thread;
	struct qmp *q;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pthread_create(&thread, NULL, flood, &pair[0]);
	assert_int_equal(qmp_new(&q, pair[1], 20000, &f), -EBADMSG);
	assert_string_equal(f.code, "qmp-failed");
	pthread_join(thread, NULL);
	close(pair[0]);
}

static void the_queue_of_events_is_bounded(void **state)
{
	struct peer p = { .first = GREETING, .second = "{\"return\": {}, \"id\": 1}\n" };
	struct failure f = { 0 };
	struct qmp *q;
	json_t *data;
	static char text[64 * QMP_EVENTS_MAX];
	size_t len = 0;

	(void)state;
	assert_int_equal(connect_peer(&p, &q, &f), 0);
	for (int i = 0; i < QMP_EVENTS_MAX + 44; i++)
		len += (size_t)sprintf(text + len, "{\"event\":\"E\",\"data\":{\"n\":%d}}", i);
	len += (size_t)sprintf(text + len, "{\"event\": \"LAST\"}\n");
	assert_int_equal(io_write_full(p.fd, text, len), 0);
	assert_int_equal(qmp_wait_event(q, "LAST", NULL, NULL, 1000, NULL, &f), 0);
	assert_int_equal(qmp_wait_event(q, "E", NULL, NULL, 0, &data, &f), 0);
	assert_int_equal(json_integer_value(json_object_get(data, "n")), 45);
	json_decref(data);
	qmp_set_deadline(q, clock_ns());
	assert_int_equal(qmp_wait_event(q, "E", is_status, "x", 60000, NULL, &f), -ETIMEDOUT);
	shutdown(p.fd, SHUT_RDWR);
	end_peer(&p, q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(asks_and_is_refused, start_qemu, stop_qemu),
		cmocka_unit_test_setup_teardown(second_client_is_not_greeted, start_qemu,
						stop_qemu),
		cmocka_unit_test_setup_teardown(events_wait_in_the_queue, start_qemu, stop_qemu),
		cmocka_unit_test_setup_teardown(descriptors_are_passed, start_qemu, stop_qemu),
		cmocka_unit_test_setup_teardown(the_end_of_qemu_is_told, start_qemu, stop_qemu),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(messages_in_any_shape),
		cmocka_unit_test(late_and_foreign_answers_are_dropped),
		cmocka_unit_test(hostile_greetings),
		cmocka_unit_test(a_message_without_end_is_cut_off),
		cmocka_unit_test(the_queue_of_events_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
