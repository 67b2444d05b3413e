// SPDX-License-Identifier: MIT
/*
 * What a peer says about a benchmark. Options that are accepted are within their bounds and read
 * the same again. An account that is accepted is the same after it was written and read, and rows,
 * intervals and sums of it are numbers, none negative. An answer has whole addresses and plain
 * texts.
 *
 * Input: a character that says which ('o', 'a', anything else: the answer), then JSON.
 */
#include <math.h>

#include "control/bench/bench_lead.h"
#include "tests/fuzz/fuzz.h"

/* --- options ---------------------------------------------------------------------------------- */

static void check_cpus(const struct bench_cpus *c)
{
	fuzz_check(c->count <= IPC_CPUS_MAX);
	for (uint32_t i = 0; i < c->count; i++)
		fuzz_check(c->cpu[i] < 1024);
}

static void check_options(const struct bench_options *o)
{
	const uint64_t hours_24 = 24ull * 3600 * 1000;

	fuzz_check(bench_options_streams(o) >= 1 && bench_options_streams(o) <= IPC_STREAMS_MAX);
	fuzz_check(bench_options_forward(o) <= bench_options_streams(o));
	fuzz_check(o->nsizes >= 1 && o->nsizes <= BENCH_SIZES_MAX);
	for (uint32_t i = 0; i < o->nsizes; i++) {
		fuzz_check(o->sizes[i] ? o->sizes[i] >= 4096 && o->sizes[i] <= 2 << 20
				       : o->latency);
		fuzz_check(!(o->sizes[i] & (o->sizes[i] - 1)));
	}
	fuzz_check(o->time_ms || o->bytes);
	fuzz_check(o->time_ms <= hours_24 && o->omit_ms <= hours_24 && o->interval_ms <= hours_24);
	fuzz_check(o->bytes <= INT64_MAX && o->bandwidth <= INT64_MAX);
	fuzz_check(o->memory && o->memory <= IPC_BENCH_MEMORY_MAX);
	fuzz_check(o->tx <= IPC_TX_SEND && o->place <= IPC_BENCH_PLACE_PWRITE);
	fuzz_check(o->data <= IPC_BENCH_FILE && (o->data == IPC_BENCH_FILE) == !!o->file[0]);
	fuzz_check(memchr(o->file, '\0', sizeof(o->file)));
	fuzz_check(memchr(o->congestion, '\0', sizeof(o->congestion)));
	fuzz_check(o->tos >= -1 && o->tos <= 255);
	fuzz_check(o->compress.kind <= IPC_COMPRESS_ZSTD && o->compress.level <= 22);
	fuzz_check((o->compress.kind == IPC_COMPRESS_ZSTD) == (o->compress.level > 0));
	fuzz_check(o->compress.kind == IPC_COMPRESS_OFF || !o->latency);
	check_cpus(&o->near);
	check_cpus(&o->far);
}

static void fuzz_options(const json_t *j)
{
	static struct bench_options o, again;
	struct failure f = { 0 };

	if (bench_options_read(&o, j, &f)) {
		fuzz_check(failure_is_set(&f) && failure_code_known(f.code));
		return;
	}
	check_options(&o);
	fuzz_check(!bench_options_read(&again, j, &f) && !memcmp(&o, &again, sizeof(o)));
}

/* --- accounts --------------------------------------------------------------------------------- */

/* Every number in it, at any depth. */
static void check_numbers(const json_t *j)
{
	const char *member;
	json_t *value;
	size_t i;

	if (json_is_number(j))
		fuzz_check(isfinite(json_number_value(j)) && json_number_value(j) >= 0);
	json_object_foreach ((json_t *)j, member, value)
		check_numbers(value);
	json_array_foreach (j, i, value)
		check_numbers(value);
}

/* As the far side of all the rows that there can be, either way. */
static void check_rows(const struct bench_account *a)
{
	struct bench_options o = { .streams = 1, .bidir = true, .verify = true };
	struct bench_totals totals = { 0 };
	json_t *rows = json_array(), *all = json_object();

	for (int i = 0; i < BENCH_SIZES_MAX; i++)
		bench_result_rows(rows, &totals, &o, 4096, a, a);
	o = (struct bench_options){ .streams = 1, .latency = true };
	bench_result_rows(rows, &totals, &o, 0, a, a);
	bench_result_totals(all, &totals);
	fuzz_check(json_array_size(rows) == 2 * BENCH_SIZES_MAX + 1);
	check_numbers(rows);
	check_numbers(all);
	json_decref(rows);
	json_decref(all);
}

static void fuzz_account(const json_t *j)
{
	struct bench_account a = { .nintervals = 0 }, b = { .nintervals = 0 };
	json_t *out, *again;

	if (!bench_account_from_json(&a, j)) {
		check_rows(&a);
		out = bench_account_to_json(&a);
		fuzz_check(!bench_account_from_json(&b, out));
		again = bench_account_to_json(&b);
		fuzz_check(json_equal(out, again));
		json_decref(out);
		json_decref(again);
		bench_account_clear(&b);
	} else {
		fuzz_check(!a.intervals && !a.nintervals);
	}
	bench_account_clear(&a);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void check_text(const char *text, size_t size)
{
	fuzz_check(memchr(text, '\0', size));
	for (; *text; text++)
		fuzz_check(*text >= ' ' && *text <= '~');
}

static void fuzz_answer(const json_t *j)
{
	struct bench_answer a;

	if (bench_answer_from_json(&a, j))
		return;
	fuzz_check(a.to.count >= 1 && a.to.count <= IPC_LISTENERS_MAX);
	for (uint32_t i = 0; i < a.to.count; i++)
		fuzz_check(a.to.port[i] && memchr(a.to.address[i], '\0', sizeof(a.to.address[i])));
	check_text(a.tx, sizeof(a.tx));
	check_text(a.tx_reason, sizeof(a.tx_reason));
	check_text(a.rx_reason, sizeof(a.rx_reason));
	check_text(a.congestion, sizeof(a.congestion));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *j = size ? json_loadb((const char *)data + 1, size - 1, 0, NULL) : NULL;

	if (size && data[0] == 'o')
		fuzz_options(j);
	else if (size && data[0] == 'a')
		fuzz_account(j);
	else
		fuzz_answer(j);
	json_decref(j);
	return 0;
}
