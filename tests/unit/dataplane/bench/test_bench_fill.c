// SPDX-License-Identifier: MIT
/* What a bench sends is what it says: zeros, text that compresses, random bytes, a file's. */
#include "dataplane/bench/bench_fill.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#define SIZE (1u << 20)

static uint8_t a[SIZE + 8], b[SIZE + 8];

/* zstd's share of the size, per cent. */
static unsigned int compressed(const uint8_t *from)
{
	size_t room = ZSTD_compressBound(SIZE), n;
	void *to = malloc(room);

	n = ZSTD_compress(to, room, from, SIZE, 1);
	free(to);
	assert_false(ZSTD_isError(n));
	return (unsigned int)(n * 100 / SIZE);
}

static void test_kinds(void **state)
{
	(void)state;
	memset(a, 1, sizeof(a));
	assert_int_equal(bench_fill(a, SIZE, IPC_BENCH_ZERO, 3, -1), 0);
	for (size_t i = 0; i < SIZE; i++)
		assert_int_equal(a[i], 0);
	assert_int_equal(a[SIZE], 1); /* not a byte beyond */
	assert_int_equal(bench_fill(a, SIZE, IPC_BENCH_TEXT, 3, -1), 0);
	assert_in_range(compressed(a), 15, 50);
	for (size_t i = 0; i < SIZE; i++)
		assert_true(a[i] >= ' ' || a[i] == '\n');
	assert_int_equal(bench_fill(a, SIZE, IPC_BENCH_RANDOM, 3, -1), 0);
	assert_in_range(compressed(a), 99, 101);
	assert_int_equal(a[SIZE], 1);
}

static void test_the_seed_decides(void **state)
{
	(void)state;
	for (int kind = IPC_BENCH_TEXT; kind <= IPC_BENCH_RANDOM; kind++) {
		bench_fill(a, SIZE, (enum ipc_bench_data)kind, 0, -1);
		bench_fill(b, SIZE, (enum ipc_bench_data)kind, 0, -1);
		assert_memory_equal(a, b, SIZE);
		bench_fill(b, SIZE, (enum ipc_bench_data)kind, 1, -1);
		assert_memory_not_equal(a, b, 4096);
	}
}

static void test_file(void **state)
{
	int fd = memfd_create("test", 0);

	(void)state;
	assert_int_equal(bench_fill(a, SIZE, IPC_BENCH_FILE, 0, fd), -ENODATA);
	assert_int_equal(write(fd, "0123456789", 10), 10);
	assert_int_equal(bench_fill(a, SIZE, IPC_BENCH_FILE, 0, fd), 0);
	for (size_t i = 0; i < SIZE; i++)
		assert_int_equal(a[i], '0' + (int)(i % 10));
	close(fd);
	assert_int_equal(bench_fill(a, SIZE, IPC_BENCH_FILE, 0, fd), -EBADF);
}

static void test_odd_lengths(void **state)
{
	(void)state;
	for (size_t len = 0; len < 20; len++)
		for (int kind = IPC_BENCH_ZERO; kind <= IPC_BENCH_RANDOM; kind++) {
			memset(a, 0x55, 32);
			assert_int_equal(bench_fill(a, len, (enum ipc_bench_data)kind, 1, -1), 0);
			for (size_t i = len; i < 32; i++)
				assert_int_equal(a[i], 0x55);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_the_seed_decides),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_odd_lengths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
