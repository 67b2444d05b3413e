// SPDX-License-Identifier: MIT
/* Figures of a post-copy: told to a peer, believed from one, read from the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control/session/postcopy_figures.h"
#include "dataplane/postcopy/postcopy.h"

static void test_there_and_back(void **state)
{
	const struct ipc_postcopy was = { .missing_pages = 12,
					  .faults = 3,
					  .local_faults = 4,
					  .p50_ns = 5000,
					  .p99_ns = 60000,
					  .max_ns = 700000,
					  .demand_pages = 8,
					  .push_pages = 9,
					  .late_pages = 1,
					  .interruptions = 2,
					  .interrupted_ns = 30000000000 };
	json_t *j = postcopy_figures_to_peer(&was);
	struct ipc_postcopy is;

	(void)state;
	postcopy_figures_from_peer(j, &is);
	assert_memory_equal(&was, &is, sizeof(is));
	json_decref(j);
}

static void test_a_peer_says_anything(void **state)
{
	json_t *j = json_loads("{\"faults\":-1,\"p50_us\":1e300,\"missing_bytes\":\"all\","
			       "\"max_us\":null,\"push_bytes\":9223372036854775807}",
			       0, NULL);
	struct ipc_postcopy is;

	(void)state;
	assert_non_null(j);
	postcopy_figures_from_peer(j, &is);
	assert_int_equal(is.faults, 0);
	assert_int_equal(is.p50_ns, 0);
	assert_int_equal(is.missing_pages, 0);
	assert_int_equal(is.max_ns, 0);
	assert_true(is.push_pages <= INT64_MAX / PAGE_BYTES + 1);
	postcopy_figures_from_peer(NULL, &is);
	assert_int_equal(is.push_pages, 0);
	json_decref(j);
}

/* Two regions, the second not a whole number of chunks: as the data plane left it. */
static void test_of_the_file(void **state)
{
	static struct region regions[2] = { { .index = 0, .size = 8 << 20 },
					    { .index = 1, .size = (2 << 20) + PAGE_BYTES } };
	json_t *plan = json_pack("[{s:i}, {s:i}]", "size", (int)regions[0].size, "size",
				 (int)regions[1].size);
	int fd = memfd_create("missing", MFD_CLOEXEC);
	struct ipc_postcopy g;
	struct page_set set;
	void *tail;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)postcopy_file_bytes(regions, 2)), 0);
	assert_int_equal(
		page_set_init(&set, regions, 2, fd, sizeof(struct postcopy_figures), &tail), 0);
	page_mask_fill(page_set_chunk(&set, 0, 1), 3, 7);
	page_mask_fill(page_set_chunk(&set, 1, 1), 0, 1);
	((struct postcopy_figures *)tail)->faults = 77;
	((struct postcopy_figures *)tail)->interruptions = 2;
	bench_histogram_add(&((struct postcopy_figures *)tail)->latency, 5000);
	assert_int_equal(postcopy_figures_of_file(fd, plan, &g), 0);
	assert_int_equal(g.missing_pages, 8);
	assert_int_equal(g.faults, 77);
	assert_int_equal(g.interruptions, 2);
	assert_int_equal(g.max_ns, 5000);
	page_set_release(&set);
	/* cut off by somebody */
	assert_int_equal(ftruncate(fd, PAGE_BYTES), 0);
	assert_int_equal(postcopy_figures_of_file(fd, plan, &g), -EINVAL);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(postcopy_figures_of_file(fd, plan, &g), -EINVAL);
	close(fd);
	json_decref(plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_a_peer_says_anything),
		cmocka_unit_test(test_of_the_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
