/* SPDX-License-Identifier: MIT */
/* A benchmark's figures as they come: a table on standard output, or with --json notes. */
#ifndef TRANSHIP_CONTROL_CLI_BENCH_TABLE_H
#define TRANSHIP_CONTROL_CLI_BENCH_TABLE_H

#include "control/cli/cli.h"

struct cli_bench_view {
	struct cli *cli;
	bool head;	  /* was shown */
	size_t rows;	  /* shown */
	size_t intervals; /* shown of the row under way */
};

/* result: the object of docs/protocol.md, "A bench", as far as it has come. */
void cli_bench_show(struct cli_bench_view *v, const json_t *result);

/* What came of it, when it has ended; with --json the object alone. Returns the exit status. */
enum cli_exit cli_bench_finish(struct cli_bench_view *v, const json_t *result);

#endif
