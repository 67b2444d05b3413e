// SPDX-License-Identifier: MIT
/* tranship list and dirty-rate; and the commands of the contract that this version lacks. */
#include <errno.h>
#include <string.h>

#include "control/cli/cli.h"
#include "lib/base/units.h"

#define LIST_MS		    60000u /* a VM whose manager holds its socket costs its time limit */
#define DIRTY_RATE_EXTRA_MS 60000u

static double number(const json_t *j, const char *member)
{
	return json_number_value(json_object_get(j, member));
}

/* --- list ------------------------------------------------------------------------------------- */

static int name_width(const json_t *vms)
{
	int width = 4;
	size_t i;
	json_t *vm;

	json_array_foreach ((json_t *)vms, i, vm) {
		int n = (int)strlen(cli_text(vm, "name"));

		if (n > width)
			width = n > 40 ? 40 : n;
	}
	return width;
}

static void print_vms(FILE *to, const json_t *vms)
{
	int width = name_width(vms);
	size_t i;
	json_t *vm;

	fprintf(to, "%-*s  %8s  %10s  %-12s  %s\n", width, "NAME", "PID", "RAM", "STATE",
		"MIGRATABLE");
	json_array_foreach ((json_t *)vms, i, vm) {
		bool can = json_is_true(json_object_get(vm, "migratable"));
		char name[41], ram[32], reason[300];

		cli_clean(cli_text(vm, "name"), name, sizeof(name));
		cli_clean(cli_text(vm, "reason"), reason, sizeof(reason));
		fprintf(to, "%-*s  %8.0f  %10s  %-12s  %s%s%s", width, name, number(vm, "pid"),
			units_format_size((uint64_t)number(vm, "ram_bytes"), ram, sizeof(ram)),
			cli_text(vm, "state"), can ? "yes" : "no", *reason ? ": " : "", reason);
		if (!can && *cli_text(vm, "code"))
			fprintf(to, " [%s]", cli_text(vm, "code"));
		fputc('\n', to);
	}
}

static enum cli_exit run_list(struct cli *cli, const struct cli_words *words, json_t *values)
{
	struct failure f = { 0 };
	json_t *vms = NULL, *whole;

	(void)words;
	(void)values;
	if (cli_call(cli, "GET", "/v1/vms", NULL, &vms, LIST_MS, &f))
		return cli_fail(cli, &f);
	if (cli->json) {
		whole = json_pack("{s:O}", "vms", vms);
		cli_print_json(cli, whole);
		json_decref(whole);
	} else {
		print_vms(cli->out, vms);
	}
	json_decref(vms);
	return CLI_DONE;
}

const struct cli_command cli_list = {
	.name = "list",
	.words = "",
	.help = "Show the VMs of this host, and whether each can be moved.",
	.run = run_list,
};

/* --- dirty-rate ------------------------------------------------------------------------------- */

#define SECONDS_DEFAULT 5

static const struct cli_option dirty_rate_options[] = {
	{ .name = "seconds",
	  .arg = "N",
	  .kind = CLI_SECONDS,
	  .member = "seconds",
	  .min = 1,
	  .max = 3600,
	  .help = "how long to look, 1 to 3600 [5]" },
	{ .name = NULL },
};

static void print_dirty_rate(FILE *to, const json_t *r)
{
	double ram = number(r, "ram_bytes"), set = number(r, "working_set_bytes");
	json_t *samples = json_object_get(r, "samples_mib_s"), *sample;
	char name[128], a[32], b[32];
	size_t i;

	fprintf(to, "%s writes %.1f MiB/s (over %.0f s)\n",
		cli_clean(cli_text(r, "vm"), name, sizeof(name)), number(r, "dirty_rate_mib_s"),
		number(r, "seconds"));
	fprintf(to, "  working set  %s of %s (%.1f %%): written at least once\n",
		units_format_size((uint64_t)set, a, sizeof(a)),
		units_format_size((uint64_t)ram, b, sizeof(b)), ram > 0 ? 100 * set / ram : 0);
	if (!json_array_size(samples))
		return;
	fprintf(to, "  each second ");
	json_array_foreach (samples, i, sample)
		fprintf(to, " %.1f", json_number_value(sample));
	fputs(" MiB/s\n", to);
}

static enum cli_exit run_dirty_rate(struct cli *cli, const struct cli_words *words, json_t *values)
{
	json_int_t seconds = json_integer_value(json_object_get(values, "seconds"));
	json_t *in, *out = NULL;
	struct failure f = { 0 };
	int err;

	if (!seconds)
		seconds = SECONDS_DEFAULT;
	in = json_pack("{s:o, s:I}", "vm", cli_absolute(words->word[0]), "seconds", seconds);
	err = cli_call(cli, "POST", "/v1/dirty-rate", in, &out,
		       (unsigned int)seconds * 1000 + DIRTY_RATE_EXTRA_MS, &f);
	json_decref(in);
	if (err)
		return cli_fail(cli, &f);
	if (cli->json)
		cli_print_json(cli, out);
	else
		print_dirty_rate(cli->out, out);
	json_decref(out);
	return CLI_DONE;
}

const struct cli_command cli_dirty_rate = {
	.name = "dirty-rate",
	.words = "VM",
	.words_min = 1,
	.words_max = 1,
	.options = dirty_rate_options,
	.help = "Measure how fast a VM writes its memory, and how much of it.",
	.run = run_dirty_rate,
};

/* --- not in this version ---------------------------------------------------------------------- */

static enum cli_exit run_unavailable(struct cli *cli, const char *name)
{
	struct failure f = { 0 };

	failure_set(&f, -EOPNOTSUPP, "unsupported-option",
		    "tranship(1), LIMITATIONS, says what there is.",
		    "`tranship %s` is not available in this version.", name);
	return cli_fail(cli, &f);
}

#define UNAVAILABLE(id, text)                                                                      \
	static enum cli_exit run_##id(struct cli *cli, const struct cli_words *words,              \
				      json_t *values)                                              \
	{                                                                                          \
		(void)words;                                                                       \
		(void)values;                                                                      \
		return run_unavailable(cli, text);                                                 \
	}                                                                                          \
	const struct cli_command cli_##id = {                                                      \
		.name = text,                                                                      \
		.words = "...",                                                                    \
		.help = "Not available in this version.",                                          \
		.run = run_##id,                                                                   \
		.unavailable = true,                                                               \
	}

UNAVAILABLE(evacuate, "evacuate");
UNAVAILABLE(pki, "pki");
