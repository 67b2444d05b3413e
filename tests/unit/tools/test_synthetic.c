// SPDX-License-Identifier: MIT
/* The synthetic guest: its pages, its writers, its state, and that its check can fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/io.h"

/* The tool's parts are in no archive. */
#include "tools/synthetic_check.c"
#include "tools/synthetic_guest.c"
#include "tools/synthetic_pages.c"
#include "tools/synthetic_pattern.c"
#include "tools/synthetic_state.c"

#define PAGES	2048ull
#define TOUCHED 1500ull
#define WORKING 1000ull

struct machine {
	struct synthetic g;
	int fd;
	uint8_t *ram;
};

static const struct synthetic_params defaults = {
	.kinds = { .seed = 42, .zero_percent = 20, .compressible_percent = 30 },
	.touched = TOUCHED,
	.working_set = WORKING,
	.rate = SYNTHETIC_RATE_MAX,
	.pattern = SYNTHETIC_RAND,
	.threads = 3,
};

static void machine_init(struct machine *m, const struct synthetic_params *p)
{
	m->fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(m->fd, PAGES * SYNTHETIC_PAGE), 0);
	m->ram = mmap(NULL, PAGES * SYNTHETIC_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	assert_ptr_not_equal(m->ram, MAP_FAILED);
	assert_int_equal(
		synthetic_init(&m->g, p, (uint64_t *)m->ram, PAGES, m->fd, SYNTHETIC_PAUSE_MOVE),
		0);
}

static void machine_release(struct machine *m)
{
	synthetic_release(&m->g);
	munmap(m->ram, PAGES * SYNTHETIC_PAGE);
	close(m->fd);
}

/* Returns when at least that many pages were written since. */
static void let_it_write(struct synthetic *g, uint64_t pages)
{
	uint64_t until = synthetic_written(g) + pages;

	while (synthetic_written(g) < until)
		sched_yield();
}

static void assert_good(struct synthetic *g)
{
	struct synthetic_check c;

	assert_int_equal(synthetic_check_all(g, 2, &c), 0);
	assert_int_equal(c.bad, 0);
	assert_int_equal(c.checked, PAGES);
}

static void test_pages_are_a_function_of_their_number_and_version(void **state)
{
	const struct synthetic_kinds plain = { .seed = 7 };
	uint64_t a[SYNTHETIC_WORDS], b[SYNTHETIC_WORDS];

	(void)state;
	synthetic_page_write(a, &plain, 5, 9);
	synthetic_page_write(b, &plain, 5, 9);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(synthetic_page_check(a, &plain, 5, 9), -1);
	assert_int_equal(synthetic_page_claims(a, 5), 9);
	assert_int_equal(synthetic_page_claims(a, 6), 0);
	assert_true(synthetic_page_check(a, &plain, 5, 10) >= 0);
	assert_true(synthetic_page_check(a, &plain, 6, 9) >= 0);
	assert_true(synthetic_page_check(a, &(struct synthetic_kinds){ .seed = 8 }, 5, 9) >= 0);
	((uint8_t *)a)[4095] ^= 1;
	assert_int_equal(synthetic_page_check(a, &plain, 5, 9), 4095);
	synthetic_page_write(a, &plain, 5, 0);
	assert_int_equal(
		synthetic_page_check(a, &(struct synthetic_kinds){ .zero_percent = 100 }, 5, 3),
		-1);
}

static void test_shares_of_kinds(void **state)
{
	uint64_t page[SYNTHETIC_WORDS];
	unsigned int zero = 0, compressible = 0;

	(void)state;
	for (uint64_t n = 0; n < 10000; n++) {
		synthetic_page_write(page, &defaults.kinds, n, 1);
		if (!page[2])
			zero++;
		else if (page[2] >> 8 == page[3] >> 8)
			compressible++;
	}
	assert_in_range(zero, 1800, 2200);
	assert_in_range(compressible, 2800, 3200);
}

static void test_walks(void **state)
{
	static unsigned int hits[1000];
	struct synthetic_walk w, again;
	unsigned int hot = 0;

	(void)state;
	synthetic_walk_init(&w, SYNTHETIC_SEQ, 3, 1);
	for (uint64_t i = 0; i < 10; i++)
		assert_int_equal(synthetic_walk_next(&w), i % 3);
	for (int pattern = SYNTHETIC_RAND; pattern < SYNTHETIC_PATTERNS; pattern++) {
		memset(hits, 0, sizeof(hits));
		synthetic_walk_init(&w, pattern, 1000, 99);
		for (int i = 0; i < 100000; i++) {
			uint64_t page = synthetic_walk_next(&w);

			assert_true(page < 1000);
			hits[page]++;
		}
		again = w;
		again.state = w.state;
		assert_int_equal(synthetic_walk_next(&w), synthetic_walk_next(&again));
		hot = 0;
		for (int i = 0; i < 1000; i++)
			hot = hits[i] > hot ? hits[i] : hot;
		/* uniform: 100 each; Zipf: the first rank has 1/H(1000) = 13 % */
		if (pattern == SYNTHETIC_RAND)
			assert_in_range(hot, 100, 200);
		else
			assert_in_range(hot, 11000, 17000);
	}
	synthetic_walk_init(&w, SYNTHETIC_ZIPF, 1, 5);
	assert_int_equal(synthetic_walk_next(&w), 0);
}

static void test_parameters_are_checked(void **state)
{
	struct synthetic_params p = defaults;
	uint64_t ram[1];
	struct synthetic g;

	(void)state;
	p.touched = PAGES + 1;
	assert_int_equal(synthetic_init(&g, &p, ram, PAGES, -1, 0), -EINVAL);
	p = defaults;
	p.working_set = TOUCHED + 1;
	assert_int_equal(synthetic_init(&g, &p, ram, PAGES, -1, 0), -EINVAL);
	p = defaults;
	p.threads = 0;
	assert_int_equal(synthetic_init(&g, &p, ram, PAGES, -1, 0), -EINVAL);
	p = defaults;
	p.kinds.zero_percent = 71;
	assert_int_equal(synthetic_init(&g, &p, ram, PAGES, -1, 0), -EINVAL);
}

static void test_writers_keep_the_table_true(void **state)
{
	struct machine m;
	uint64_t before;

	(void)state;
	for (uint32_t pattern = 0; pattern < SYNTHETIC_PATTERNS; pattern++) {
		struct synthetic_params p = defaults;

		p.pattern = pattern;
		machine_init(&m, &p);
		assert_int_equal(synthetic_fill(&m.g, 2), 0);
		assert_int_equal(synthetic_start_threads(&m.g), 0);
		assert_good(&m.g);
		assert_int_equal(synthetic_written(&m.g), 0); /* paused */
		synthetic_resume(&m.g, SYNTHETIC_PAUSE_MOVE);
		for (int i = 0; i < 5; i++) {
			let_it_write(&m.g, 2000);
			assert_good(&m.g); /* in the middle of the run */
		}
		synthetic_pause(&m.g, SYNTHETIC_PAUSE_MOVE);
		before = synthetic_written(&m.g);
		assert_good(&m.g);
		assert_int_equal(synthetic_written(&m.g), before);
		machine_release(&m);
	}
}

static void test_check_finds_exactly_what_is_wrong(void **state)
{
	struct synthetic_check c;
	struct machine m;
	uint64_t page = 0, stale;
	uint8_t old[SYNTHETIC_PAGE];

	(void)state;
	machine_init(&m, &defaults);
	assert_int_equal(synthetic_fill(&m.g, 2), 0);
	assert_good(&m.g);

	m.ram[777 * SYNTHETIC_PAGE + 123] ^= 1;
	assert_int_equal(synthetic_check_all(&m.g, 2, &c), 0);
	assert_int_equal(c.bad, 1);
	assert_int_equal(c.list[0].page, 777);
	assert_int_equal(c.list[0].offset, 123);
	m.ram[777 * SYNTHETIC_PAGE + 123] ^= 1;

	m.ram[(PAGES - 1) * SYNTHETIC_PAGE + 4095] = 9; /* never touched by the guest */
	assert_int_equal(synthetic_check_all(&m.g, 2, &c), 0);
	assert_int_equal(c.bad, 1);
	assert_int_equal(c.list[0].page, PAGES - 1);
	assert_int_equal(c.list[0].offset, 4095);
	m.ram[(PAGES - 1) * SYNTHETIC_PAGE + 4095] = 0;

	/* an older version of a page, as a lost update would leave it */
	while (((uint64_t *)m.ram)[page * SYNTHETIC_WORDS] != page || !page)
		page++;
	stale = page;
	memcpy(old, m.ram + stale * SYNTHETIC_PAGE, sizeof(old));
	synthetic_start_threads(&m.g);
	while (m.g.versions[stale] < 2) {
		synthetic_resume(&m.g, SYNTHETIC_PAUSE_MOVE);
		let_it_write(&m.g, 100);
		synthetic_pause(&m.g, SYNTHETIC_PAUSE_MOVE);
	}
	memcpy(m.ram + stale * SYNTHETIC_PAGE, old, sizeof(old));
	assert_int_equal(synthetic_check_all(&m.g, 2, &c), 0);
	assert_int_equal(c.bad, 1);
	assert_int_equal(c.list[0].page, stale);
	assert_int_equal(c.list[0].found, 1);
	assert_int_equal(c.list[0].expected, m.g.versions[stale]);

	/* all of it: the list holds the lowest pages, in order */
	memset(m.ram, 0xee, TOUCHED * SYNTHETIC_PAGE);
	assert_int_equal(synthetic_check_all(&m.g, 2, &c), 0);
	assert_int_equal(c.bad, TOUCHED);
	for (uint64_t i = 0; i < SYNTHETIC_BAD_MAX; i++)
		assert_int_equal(c.list[i].page, i);
	machine_release(&m);
}

/* The state of `from` as bytes; the caller frees. */
static uint8_t *save_to_memory(struct synthetic *from, size_t *len)
{
	int fd = memfd_create("state", MFD_CLOEXEC);
	uint8_t *bytes;

	assert_int_equal(synthetic_save(from, fd), 0);
	*len = (size_t)lseek(fd, 0, SEEK_CUR);
	bytes = malloc(*len + 1);
	assert_non_null(bytes);
	assert_int_equal(pread(fd, bytes, *len, 0), *len);
	close(fd);
	return bytes;
}

static int load_from_memory(struct synthetic *to, const uint8_t *bytes, size_t len)
{
	int fd = memfd_create("state", MFD_CLOEXEC), err;

	assert_int_equal(io_write_full(fd, bytes, len), 0);
	lseek(fd, 0, SEEK_SET);
	err = synthetic_load(to, fd);
	close(fd);
	return err;
}

static void test_a_destination_goes_on_where_the_source_stopped(void **state)
{
	const struct synthetic_params empty = { .threads = 1 };
	struct machine source, destination;
	uint64_t written;
	uint8_t *bytes;
	size_t len;

	(void)state;
	machine_init(&source, &defaults);
	machine_init(&destination, &empty);
	assert_int_equal(synthetic_fill(&source.g, 2), 0);
	assert_int_equal(synthetic_start_threads(&source.g), 0);
	synthetic_resume(&source.g, SYNTHETIC_PAUSE_MOVE);
	for (int move = 0; move < 4; move++) {
		struct machine *from = move & 1 ? &destination : &source;
		struct machine *to = move & 1 ? &source : &destination;

		let_it_write(&from->g, 3000);
		synthetic_pause(&from->g, SYNTHETIC_PAUSE_MOVE);
		bytes = save_to_memory(&from->g, &len);
		memcpy(to->ram, from->ram, PAGES * SYNTHETIC_PAGE);
		assert_int_equal(load_from_memory(&to->g, bytes, len), 0);
		free(bytes);
		written = synthetic_written(&from->g);
		assert_int_equal(synthetic_written(&to->g), written);
		assert_memory_equal(to->g.versions, from->g.versions, WORKING * 4);
		assert_good(&to->g);
		synthetic_resume(&to->g, SYNTHETIC_PAUSE_MOVE);
		let_it_write(&to->g, 1000);
		assert_good(&to->g);
	}
	machine_release(&source);
	machine_release(&destination);
}

static void test_a_state_that_does_not_fit_is_refused(void **state)
{
	const struct synthetic_params empty = { .threads = 1 };
	struct machine source, destination;
	uint8_t *bytes, *copy;
	size_t len;

	(void)state;
	machine_init(&source, &defaults);
	machine_init(&destination, &empty);
	assert_int_equal(synthetic_fill(&source.g, 1), 0);
	source.g.versions[17] = 300; /* two bytes each */
	bytes = save_to_memory(&source.g, &len);
	assert_int_equal(len, sizeof(struct state_head) + 3 * 8 + WORKING * 2);
	copy = malloc(len + 1);
	for (size_t cut = 0; cut < len; cut += 97)
		assert_true(load_from_memory(&destination.g, bytes, cut) < 0);
	memcpy(copy, bytes, len);
	copy[len] = 0;
	assert_int_equal(load_from_memory(&destination.g, copy, len + 1), -EBADMSG);
	/* whatever bit of the state is wrong: refused, or a state that is one, never harm */
	for (size_t at = 0; at < sizeof(struct state_head); at++) {
		memcpy(copy, bytes, len);
		copy[at] ^= 0xff;
		load_from_memory(&destination.g, copy, len);
	}
	memcpy(copy, bytes, len);
	copy[len - 1] ^= 1;
	assert_int_equal(load_from_memory(&destination.g, copy, len), -EBADMSG);
	assert_int_equal(load_from_memory(&destination.g, bytes, len), 0);
	assert_int_equal(destination.g.versions[17], 300);
	free(copy);
	free(bytes);
	machine_release(&source);
	machine_release(&destination);
}

static void test_reasons_to_pause_add_up(void **state)
{
	struct synthetic_params p = defaults;
	struct machine m;
	uint64_t written;

	(void)state;
	machine_init(&m, &p);
	assert_int_equal(synthetic_fill(&m.g, 1), 0);
	assert_int_equal(synthetic_start_threads(&m.g), 0);
	synthetic_pause(&m.g, SYNTHETIC_PAUSE_USER);
	synthetic_resume(&m.g, SYNTHETIC_PAUSE_MOVE);
	synthetic_resume(&m.g, SYNTHETIC_PAUSE_MOVE);
	assert_good(&m.g);
	assert_int_equal(m.g.gate.reasons, SYNTHETIC_PAUSE_USER);
	written = synthetic_written(&m.g);
	assert_int_equal(written, 0);
	synthetic_resume(&m.g, SYNTHETIC_PAUSE_USER);
	let_it_write(&m.g, 10);
	machine_release(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_are_a_function_of_their_number_and_version),
		cmocka_unit_test(test_shares_of_kinds),
		cmocka_unit_test(test_walks),
		cmocka_unit_test(test_parameters_are_checked),
		cmocka_unit_test(test_writers_keep_the_table_true),
		cmocka_unit_test(test_check_finds_exactly_what_is_wrong),
		cmocka_unit_test(test_a_destination_goes_on_where_the_source_stopped),
		cmocka_unit_test(test_a_state_that_does_not_fit_is_refused),
		cmocka_unit_test(test_reasons_to_pause_add_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
