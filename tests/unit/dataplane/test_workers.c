// SPDX-License-Identifier: MIT
/* Every thread takes part in every job, and what one side wrote the other sees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>

#include "dataplane/workers.h"

#define COUNT 6

struct job {
	uint64_t input;		/* written by the caller */
	uint64_t output[COUNT]; /* written by the threads */
	pthread_t who[COUNT];
};

static void work(void *arg, unsigned int i)
{
	struct job *j = arg;

	j->output[i] = j->input * (i + 1);
	j->who[i] = pthread_self();
}

static void test_runs(void **state)
{
	struct workers *w;
	struct job j = { 0 };

	(void)state;
	assert_int_equal(workers_new(&w, COUNT), 0);
	for (uint64_t round = 1; round < 500; round++) {
		j.input = round;
		workers_run(w, work, &j);
		for (unsigned int i = 0; i < COUNT; i++) {
			assert_int_equal(j.output[i], round * (i + 1));
			for (unsigned int k = 0; k < i; k++)
				assert_false(pthread_equal(j.who[i], j.who[k]));
		}
		assert_true(pthread_equal(j.who[0], pthread_self()));
	}
	workers_free(w);
}

static void test_few(void **state)
{
	struct workers *w;
	struct job j = { .input = 3 };

	(void)state;
	assert_int_equal(workers_new(&w, 0), -EINVAL);
	assert_int_equal(workers_new(&w, 1), 0);
	workers_run(w, work, &j);
	assert_int_equal(j.output[0], 3);
	assert_int_equal(j.output[1], 0);
	workers_free(w);
	/* never run: no thread was made */
	assert_int_equal(workers_new(&w, COUNT), 0);
	workers_free(w);
	workers_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_few),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
