// SPDX-License-Identifier: MIT
/*
 * The policy in worlds of a few numbers: a link, processors, what the data compresses to. What it
 * gets across is compared with the best that one setting for the whole time could.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dataplane/codec/compress_policy.h"
#include "lib/base/clock.h"

#define RAW_COST    0.7e-9 /* processor seconds a byte on the wire, both hosts on one machine */
#define EXPAND_COST 1.0e-9

struct content {
	const char *name;
	double ratio[COMPRESS_RUNGS], speed[COMPRESS_RUNGS];
};

static const struct content contents[] = {
	{ "text", { 5.1, 5.4, 6.4, 6.6 }, { 450e6, 430e6, 117e6, 87e6 } },
	{ "words", { 2.6, 2.9, 3.2, 3.3 }, { 200e6, 150e6, 60e6, 40e6 } },
	{ "mixed", { 1.7, 1.75, 1.8, 1.8 }, { 500e6, 450e6, 150e6, 120e6 } },
	{ "noise", { 1, 1, 1, 1 }, { 4e9, 4e9, 4e9, 4e9 } },
};

struct world {
	const struct content *content;
	double link; /* bytes a second */
	double processors;
	uint32_t workers;
	bool receiver_expands_slowly; /* another host, of one slow processor */
};

static double least(double a, double b)
{
	return a < b ? a : b;
}

static int rung_of(int level)
{
	return level == 1 ? 0 : level == 3 ? 1 : level == 6 ? 2 : 3;
}

/* What a second brings under this choice: bytes of raw and of encoded data. */
static void flow(const struct world *w, const struct compress_choice *how, double *raw, double *in)
{
	double most = least(w->link, w->processors / RAW_COST), encoders, q, s;

	*raw = most;
	*in = 0;
	if (!how->on)
		return;
	q = w->content->ratio[rung_of(how->level)];
	s = w->content->speed[rung_of(how->level)];
	if (q <= 1)
		return; /* encoders pass it on */
	if (how->only) {
		double cost = 1 / s + EXPAND_COST + RAW_COST / q;

		*raw = 0;
		*in = least(least(w->workers * s, w->link * q), w->processors / cost);
	} else {
		/* what streams leave of the processors, and always a little */
		encoders = w->processors - most * RAW_COST;
		encoders = encoders < 0.15 ? 0.15 : least(encoders, w->workers);
		*in = least(encoders * s, w->link * q);
		*raw = least(w->link - *in / q,
			     (w->processors - *in * (1 / s + EXPAND_COST)) / RAW_COST);
		*raw = *raw < 0 ? 0 : *raw;
	}
	if (w->receiver_expands_slowly && *in > 0) {
		double fits = 400e6 / (*in + *raw);

		*in *= least(fits, 1);
		*raw *= least(fits, 1);
	}
}

static struct compress_sample epoch(const struct world *w, const struct compress_choice *how,
				    uint64_t ns)
{
	double seconds = (double)ns / 1e9, raw, in, busy, used, q, s;
	struct compress_sample x = { .ns = ns, .streams = 2, .workers = w->workers };

	q = w->content->ratio[rung_of(how->level)];
	s = w->content->speed[rung_of(how->level)];
	flow(w, how, &raw, &in);
	used = raw * RAW_COST + in * (1 / s + EXPAND_COST + RAW_COST / q);
	busy = in / s;
	x.raw = (uint64_t)(raw * seconds);
	x.in = x.shrunk = (uint64_t)(in * seconds);
	x.out = (uint64_t)(in / q * seconds);
	x.wire = (uint64_t)((raw + in / q) * seconds);
	x.tried = how->on ? (q > 1 ? x.in : x.raw / 2) : 0;
	x.cpu_ns = (uint64_t)(busy * seconds * 1e9);
	/* the link keeps encoders waiting if it is what is full */
	if (how->on && q > 1 && (raw + in / q > 0.98 * w->link || w->receiver_expands_slowly))
		x.waited_ns = (uint64_t)((w->workers - busy) * seconds * 1e9);
	/* streams without a processor seem to be blocked just as those that the link stops */
	x.blocked_ns = (uint64_t)((2 - least(2, (raw + in / q) * RAW_COST / 2)) * seconds * 1e9);
	x.sending_ns = 2 * ns;
	x.idle_ns = used < w->processors ? (uint64_t)((w->processors - used) * seconds * 1e9) : 0;
	return x;
}

/* Bytes of data that get across in so many seconds; fixed: one choice, or NULL: the policy's. */
static double get_across(struct compress_policy *p, const struct world *w,
			 const struct compress_choice *fixed, double seconds)
{
	double bytes = 0;

	for (double t = 0; t < seconds;) {
		uint64_t ns = compress_policy_epoch_ns(p);
		struct compress_choice how = fixed ? *fixed : compress_policy_choice(p);
		struct compress_sample x = epoch(w, &how, ns);

		bytes += (double)(x.raw + x.in);
		t += (double)ns / 1e9;
		if (!fixed)
			compress_policy_step(p, &x);
	}
	return bytes;
}

static double best_fixed(const struct world *w, double seconds)
{
	static const struct compress_choice choices[] = {
		{ .level = 1 },
		{ .on = true, .only = true, .level = 1 },
		{ .on = true, .only = true, .level = 3 },
	};
	double best = 0;

	for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
		struct compress_policy p;
		double bytes;

		compress_policy_init(&p, 0);
		bytes = get_across(&p, w, &choices[i], seconds);
		best = bytes > best ? bytes : best;
	}
	return best;
}

static const double links[] = { 12e6, 25e6, 125e6, 625e6, 1.25e9, 3e9, 1e12 };

/* Shares below what is wanted are told; returns how many. */
static int compare(const struct world *w, bool told)
{
	static const struct {
		double seconds, known,
			unknown; /* least share of the best, by whether it was told */
	} wanted[] = { { 1, 0.88, 0.80 }, { 5, 0.92, 0.92 }, { 25, 0.92, 0.92 } };
	int worse = 0;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		double seconds = wanted[i].seconds, share;
		struct compress_policy p;

		compress_policy_init(&p, told && w->link < 1e11 ? (uint64_t)w->link : 0);
		share = get_across(&p, w, NULL, seconds) / best_fixed(w, seconds);
		if (share >= (told ? wanted[i].known : wanted[i].unknown))
			continue;
		worse++;
		print_message("%s, %.0f MB/s%s, %.1f processors, %.0f s: %.2f (state %d, rung %u, "
			      "%u changes)\n",
			      w->content->name, w->link / 1e6, told ? " as told" : "",
			      w->processors, seconds, share, (int)p.state, p.rung, p.changes);
	}
	return worse;
}

static void test_as_good_as_the_best(void **state)
{
	static const struct {
		double processors;
		uint32_t workers;
	} hosts[] = { { 2, 1 }, { 4, 3 }, { 8, 7 }, { 64, 11 }, { 0.8, 1 } };
	int worse = 0;

	(void)state;
	for (size_t c = 0; c < sizeof(contents) / sizeof(contents[0]); c++)
		for (size_t l = 0; l < sizeof(links) / sizeof(links[0]); l++)
			for (size_t h = 0; h < sizeof(hosts) / sizeof(hosts[0]); h++) {
				struct world w = { .content = &contents[c],
						   .link = links[l],
						   .processors = hosts[h].processors,
						   .workers = hosts[h].workers };

				worse += compare(&w, true) + compare(&w, false);
			}
	assert_int_equal(worse, 0);
}

static struct compress_policy settled(const struct world *w, double seconds)
{
	struct compress_policy p;

	compress_policy_init(&p, 0);
	get_across(&p, w, NULL, seconds);
	return p;
}

static void test_where_it_settles(void **state)
{
	struct world w = { .content = &contents[0], .link = 12e6, .processors = 2, .workers = 1 };
	struct compress_policy p = settled(&w, 20);

	(void)state;
	/* a slow link, idle processors: hard, and nothing raw beside it */
	assert_int_equal(p.state, COMPRESS_ON);
	assert_true(p.rung >= 2);
	assert_true(compress_policy_choice(&p).only);
	assert_true(p.changes < 30);
	/* no limit, no idle processor: a trial every few seconds and no more */
	w.link = 1e12;
	p = settled(&w, 20);
	assert_int_equal(p.state, COMPRESS_RAW);
	assert_true(p.changes < 10);
	/* noise: a trial every eight seconds */
	w = (struct world){ .content = &contents[3], .link = 25e6, .processors = 2, .workers = 1 };
	p = settled(&w, 20);
	assert_int_equal(compress_policy_choice(&p).on, false);
	assert_true(p.changes < 30);
}

/* The link changes, told of or not; the data changes. */
static void test_changes(void **state)
{
	struct world w = { .content = &contents[0], .link = 25e6, .processors = 2, .workers = 1 };

	(void)state;
	for (int told = 0; told < 2; told++)
		for (size_t from = 0; from < sizeof(links) / sizeof(links[0]); from++)
			for (size_t to = 0; to < sizeof(links) / sizeof(links[0]); to++) {
				struct compress_policy p;
				double share;

				w.link = links[from];
				p = settled(&w, 10);
				w.link = links[to];
				if (told)
					compress_policy_link_changed(&p, 0);
				share = get_across(&p, &w, NULL, 10) / best_fixed(&w, 10);
				if (share < 0.85)
					fail_msg("%.0f to %.0f MB/s%s: %.2f (state %d)",
						 links[from] / 1e6, links[to] / 1e6,
						 told ? "" : ", not told of", share, (int)p.state);
			}
	w.link = 25e6;
	for (size_t from = 0; from < 4; from++)
		for (size_t to = 0; to < 4; to++) {
			struct compress_policy p;
			double share;

			w.content = &contents[from];
			p = settled(&w, 30);
			w.content = &contents[to];
			share = get_across(&p, &w, NULL, 60) / best_fixed(&w, 60);
			if (share < 0.85)
				fail_msg("%s to %s: %.2f", contents[from].name, contents[to].name,
					 share);
		}
}

/* The other host is what is slow, and slower if it has to expand: seen in what gets across. */
static void test_slow_receiver(void **state)
{
	struct world w = { .content = &contents[0],
			   .link = 800e6,
			   .processors = 16,
			   .workers = 11,
			   .receiver_expands_slowly = true };
	struct compress_policy p;

	(void)state;
	compress_policy_init(&p, 0);
	assert_true(get_across(&p, &w, NULL, 20) > 0.85 * best_fixed(&w, 20));
	assert_int_equal(compress_policy_choice(&p).on, false);
}

/* A limit that is known to be slow is no reason to lose time. */
static void test_known_limit(void **state)
{
	struct compress_policy p;

	(void)state;
	compress_policy_init(&p, 25000000);
	assert_true(compress_policy_choice(&p).on);
	compress_policy_init(&p, 1250000000);
	assert_false(compress_policy_choice(&p).on);
	compress_policy_init(&p, 0);
	assert_false(compress_policy_choice(&p).on);
}

static void test_small_rounds(void **state)
{
	struct compress_policy p;

	(void)state;
	compress_policy_init(&p, 0);
	assert_true(compress_policy_round_is_small(&p, 100 << 10));
	assert_false(compress_policy_round_is_small(&p, 1 << 20));
	p.link_rate = 1e9;
	assert_true(compress_policy_round_is_small(&p, 3 << 20));
	assert_false(compress_policy_round_is_small(&p, 8 << 20));
	p.limit = 100000000; /* less than what it seemed to take */
	assert_false(compress_policy_round_is_small(&p, 3 << 20));
	p.limit = 0;
	p.link_rate = 1e10;
	assert_false(compress_policy_round_is_small(&p, 8 << 20));
	p.link_rate = 25e6;
	assert_false(compress_policy_round_is_small(&p, 1 << 20));
}

/* Epochs without data, or without anything, change nothing. */
static void test_nothing_to_go_by(void **state)
{
	struct compress_sample none = { .ns = 50000000, .streams = 2, .workers = 1 };
	struct compress_sample odd = { 0 };
	struct compress_policy p;

	(void)state;
	compress_policy_init(&p, 0);
	for (int i = 0; i < 100; i++) {
		compress_policy_step(&p, &none);
		compress_policy_step(&p, &odd);
	}
	assert_int_equal(p.changes, 0);
	none.idle_ns = COMPRESS_UNKNOWN;
	none.raw = 1ull << 40;
	none.blocked_ns = UINT64_MAX;
	for (int i = 0; i < 100; i++)
		compress_policy_step(&p, &none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_good_as_the_best),
		cmocka_unit_test(test_where_it_settles),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_slow_receiver),
		cmocka_unit_test(test_known_limit),
		cmocka_unit_test(test_small_rounds),
		cmocka_unit_test(test_nothing_to_go_by),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
