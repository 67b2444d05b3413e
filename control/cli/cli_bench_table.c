// SPDX-License-Identifier: MIT
/* A benchmark's figures as they come; see cli_bench_table.h. */
#include "control/cli/cli_bench_table.h"

#include <string.h>

#include "lib/base/units.h"

static double number(const json_t *j, const char *member)
{
	return json_number_value(json_object_get(j, member));
}

/* 4 KiB, 2 MiB: sizes of messages are powers of two. */
static const char *size_text(const json_t *row, char *buf, size_t len)
{
	double size = number(row, "size");

	if (size >= 1048576)
		snprintf(buf, len, "%.0f MiB", size / 1048576);
	else if (size > 0)
		snprintf(buf, len, "%.0f KiB", size / 1024);
	else
		snprintf(buf, len, "header");
	return buf;
}

static bool is_compressed(const json_t *r)
{
	const char *compress = cli_text(r, "compress");

	return *compress && strcmp(compress, "off");
}

static void print_head(FILE *to, const json_t *r)
{
	bool latency =
		!strcmp(cli_text(json_array_get(json_object_get(r, "rows"), 0), "kind"), "latency");
	bool compressed = is_compressed(r);
	char memory[32], reason[97], dest[128];

	fprintf(to, "%s: %.0f stream%s, %s %s, tx %s, data %s, memory %s%s, encryption %s%s%s\n",
		cli_clean(cli_text(r, "dest"), dest, sizeof(dest)), number(r, "streams"),
		number(r, "streams") == 1 ? "" : "s", cli_text(r, "transport"),
		cli_text(r, "congestion"), cli_text(r, "tx"), cli_text(r, "data"),
		units_format_size((uint64_t)number(r, "memory_bytes"), memory, sizeof(memory)),
		json_is_true(json_object_get(r, "fresh_memory")) ? " always new" : "",
		cli_text(r, "encrypt"), compressed ? ", compression " : "",
		compressed ? cli_text(r, "compress") : "");
	fprintf(to, "rx %s\n\n", cli_clean(cli_text(r, "rx"), reason, sizeof(reason)));
	if (latency)
		fprintf(to, "%8s  %-9s %10s %10s %10s %10s %10s %10s  us\n", "SIZE", "DIRECTION",
			"MESSAGES", "MIN", "P50", "P99", "P99.9", "MAX");
	else
		fprintf(to, "%8s  %-9s %8s %8s %9s %9s %10s %8s%s\n", "SIZE", "DIRECTION", "GB/s",
			"Gbit/s", "TX s/GB", "RX s/GB", "ZERO-COPY", "RETRANS",
			compressed ? "     WIRE" : "");
}

/* Seconds of processor time a GB, or that they are not known. */
static void print_cpu(FILE *to, const json_t *j, const char *member)
{
	const json_t *value = json_object_get(j, member);

	if (json_is_number(value))
		fprintf(to, " %9.3f", json_number_value(value));
	else
		fprintf(to, " %9s", "-");
}

static void print_figures(FILE *to, const json_t *j, bool compressed)
{
	fprintf(to, " %8.3f %8.2f", number(j, "gbytes_per_s"), number(j, "gbit_per_s"));
	print_cpu(to, j, "tx_cpu_s_per_gb");
	print_cpu(to, j, "rx_cpu_s_per_gb");
	fprintf(to, " %8.0f %% %8.0f", 100 * number(j, "zero_copy_share"),
		number(j, "retransmits"));
	if (compressed)
		fprintf(to, " %6.1f %%", 100 * number(j, "compress_ratio"));
	fputc('\n', to);
}

static void print_row(FILE *to, const json_t *row, bool compressed)
{
	const json_t *l = json_object_get(row, "latency_us");
	char size[32];

	fprintf(to, "%8s  %-9s", size_text(row, size, sizeof(size)), cli_text(row, "direction"));
	if (json_is_object(l))
		fprintf(to, " %10.0f %10.1f %10.1f %10.1f %10.1f %10.1f\n", number(l, "count"),
			number(l, "min"), number(l, "p50"), number(l, "p99"), number(l, "p99_9"),
			number(l, "max"));
	else
		print_figures(to, row, compressed);
	if (json_object_get(row, "verified_chunks"))
		fprintf(to, "%8s  verified: %.0f chunks of 2 MiB, %.0f unequal\n", "",
			number(row, "verified_chunks"), number(row, "mismatched_chunks"));
}

static void print_interval(FILE *to, const json_t *j, bool compressed)
{
	char span[32];

	snprintf(span, sizeof(span), "%.1f-%.1f s", number(j, "start_s"), number(j, "end_s"));
	fprintf(to, "%17s  ", span);
	print_figures(to, j, compressed);
}

static void show_intervals(struct cli_bench_view *v, const json_t *result)
{
	const json_t *running = json_object_get(result, "running");
	const json_t *list = json_object_get(running, "intervals");

	for (; v->intervals < json_array_size(list); v->intervals++) {
		json_t *j = json_array_get(list, v->intervals);

		if (v->cli->json) {
			json_t *note = json_pack("{s:O, s:O}", "size",
						 json_object_get(running, "size"), "interval", j);

			cli_note_json(v->cli, note);
			json_decref(note);
		} else {
			print_interval(v->cli->out, j, is_compressed(result));
		}
	}
}

static void show_rows(struct cli_bench_view *v, const json_t *result)
{
	const json_t *rows = json_object_get(result, "rows");

	for (; v->rows < json_array_size(rows); v->rows++) {
		v->intervals = 0;
		if (!v->cli->json)
			print_row(v->cli->out, json_array_get(rows, v->rows),
				  is_compressed(result));
	}
}

void cli_bench_show(struct cli_bench_view *v, const json_t *result)
{
	const json_t *running = json_object_get(result, "running");
	bool some = json_array_size(json_object_get(result, "rows")) ||
		    json_array_size(json_object_get(running, "intervals"));

	if (!v->cli->json && !v->head && some) {
		v->head = true;
		print_head(v->cli->out, result);
	}
	show_rows(v, result);
	show_intervals(v, result);
	fflush(v->cli->out);
}

enum cli_exit cli_bench_finish(struct cli_bench_view *v, const json_t *result)
{
	const json_t *error = json_object_get(result, "error");
	struct failure f = { 0 };

	cli_bench_show(v, result);
	if (v->cli->json)
		cli_print_json(v->cli, result);
	if (!*cli_text(error, "code"))
		return CLI_DONE;
	failure_set(&f, 0, cli_text(error, "code"), cli_text(error, "hint"), "%s",
		    cli_text(error, "message"));
	if (!v->cli->json)
		cli_print_failure(v->cli, &f);
	return cli_exit_of(&f);
}
