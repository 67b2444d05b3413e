// SPDX-License-Identifier: MIT
/* Requests to a session's thread: answers find their asker, whoever gives up, whatever ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "control/session/session.h"
#include "lib/base/clock.h"

static struct session s;

static int begin(void **unused)
{
	pthread_condattr_t attr;

	(void)unused;
	memset(&s, 0, sizeof(s));
	pthread_mutex_init(&s.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s.changed, &attr);
	pthread_condattr_destroy(&attr);
	s.wake_fd = eventfd(0, EFD_NONBLOCK);
	s.attended = true;
	return 0;
}

static int end(void **unused)
{
	(void)unused;
	close(s.wake_fd);
	pthread_mutex_destroy(&s.lock);
	pthread_cond_destroy(&s.changed);
	return 0;
}

static void nap(unsigned int ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

/* The session's thread: answers n requests with their kind as text; LOAD takes a while. */
static void *serve(void *arg)
{
	for (int left = *(int *)arg; left;) {
		struct pollfd p = { .fd = s.wake_fd, .events = POLLIN };
		enum session_ask what;
		struct failure f = { 0 };
		char word[8];

		poll(&p, 1, 1000);
		session_drain_wake(&s);
		what = session_asked(&s);
		if (what == ASK_NONE)
			continue;
		if (what == ASK_LOAD)
			nap(150);
		snprintf(word, sizeof(word), "%d", what);
		failure_set(&f, -EBUSY, "session-state", NULL, "no");
		session_answer(&s, what == ASK_GIVE_UP ? -EBUSY : 0, &f,
			       what == ASK_GIVE_UP ? NULL : json_string(word));
		left--;
	}
	session_leave(&s);
	return NULL;
}

struct asker {
	enum session_ask what;
	unsigned int ms;
	int err;
	json_t *out;
	struct failure f;
	pthread_t thread;
};

static void *ask(void *arg)
{
	struct asker *a = arg;

	a->err = session_ask(&s, a->what, a->ms, &a->out, &a->f);
	return NULL;
}

static void is_answered(struct asker *a)
{
	assert_int_equal(a->err, 0);
	assert_int_equal(atoi(json_string_value(a->out)), a->what);
	json_decref(a->out);
}

static void an_answer_comes(void **unused)
{
	struct asker a = { .what = ASK_COMMIT, .ms = 5000 },
		     b = { .what = ASK_GIVE_UP, .ms = 5000 };
	pthread_t thread;
	int n = 2;

	(void)unused;
	pthread_create(&thread, NULL, serve, &n);
	ask(&a);
	is_answered(&a);
	ask(&b);
	assert_int_equal(b.err, -EBUSY);
	assert_string_equal(b.f.code, "session-state");
	assert_null(b.out);
	pthread_join(thread, NULL);
}

/* Many at once: each gets its own answer. */
static void answers_find_their_askers(void **unused)
{
	struct asker askers[32];
	pthread_t thread;
	int n = 32;

	(void)unused;
	for (int round = 0; round < 20; round++) {
		pthread_create(&thread, NULL, serve, &n);
		for (int i = 0; i < n; i++) {
			askers[i] = (struct asker){ .what = i % 2 ? ASK_COMMIT : ASK_FINISH,
						    .ms = 20000 };
			pthread_create(&askers[i].thread, NULL, ask, &askers[i]);
		}
		for (int i = 0; i < n; i++) {
			pthread_join(askers[i].thread, NULL);
			is_answered(&askers[i]);
		}
		pthread_join(thread, NULL);
		s.attended = true;
	}
}

/* It was not begun: it will not be. */
static void what_nobody_takes_is_withdrawn(void **unused)
{
	struct asker a = { .what = ASK_COMMIT, .ms = 20 };

	(void)unused;
	ask(&a);
	assert_int_equal(a.err, -ETIMEDOUT);
	assert_string_equal(a.f.code, "session-state");
	assert_int_equal(session_asked(&s), ASK_NONE);
}

/* It was begun: its answer goes to nobody, above all not to the next. */
static void a_late_answer_is_thrown_away(void **unused)
{
	struct asker a = { .what = ASK_LOAD, .ms = 60 }, b = { .what = ASK_FINISH, .ms = 5000 };
	pthread_t thread;
	int n = 2;

	(void)unused;
	pthread_create(&thread, NULL, serve, &n);
	ask(&a);
	assert_int_equal(a.err, -ETIMEDOUT);
	ask(&b);
	is_answered(&b);
	pthread_join(thread, NULL);
}

static void waiting_for_ones_turn_ends_in_time(void **unused)
{
	struct asker a = { .what = ASK_LOAD, .ms = 5000 }, b = { .what = ASK_FINISH, .ms = 30 };
	pthread_t thread;
	int n = 1;

	(void)unused;
	pthread_create(&thread, NULL, serve, &n);
	pthread_create(&a.thread, NULL, ask, &a);
	nap(50);
	ask(&b);
	assert_int_equal(b.err, -ETIMEDOUT);
	pthread_join(a.thread, NULL);
	is_answered(&a);
	pthread_join(thread, NULL);
}

/* The thread ends under its askers: one that waits for an answer, one that waits for its turn. */
static void nobody_attends_any_more(void **unused)
{
	struct asker a = { .what = ASK_COMMIT, .ms = 20000 },
		     b = { .what = ASK_FINISH, .ms = 20000 };

	(void)unused;
	pthread_create(&a.thread, NULL, ask, &a);
	while (session_asked(&s) == ASK_NONE)
		nap(1);
	pthread_create(&b.thread, NULL, ask, &b);
	nap(20);
	session_leave(&s);
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
	assert_int_equal(a.err, -ESHUTDOWN);
	assert_int_equal(b.err, -ESHUTDOWN);
	assert_false(failure_is_set(&a.f) || failure_is_set(&b.f));
	ask(&a);
	assert_int_equal(a.err, -ESHUTDOWN);
}

static void an_answer_to_nobody_is_dropped(void **unused)
{
	(void)unused;
	session_answer(&s, 0, NULL, json_object());
	assert_int_equal(session_asked(&s), ASK_NONE);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		CASE(an_answer_comes),
		CASE(answers_find_their_askers),
		CASE(what_nobody_takes_is_withdrawn),
		CASE(a_late_answer_is_thrown_away),
		CASE(waiting_for_ones_turn_ends_in_time),
		CASE(nobody_attends_any_more),
		CASE(an_answer_to_nobody_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
