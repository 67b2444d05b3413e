// SPDX-License-Identifier: MIT
/* tranship tune, switch: changing one's mind about a migration that runs. */
#include <errno.h>

#include "control/cli/cli.h"

/* clang-format off */
static const struct cli_option tune_options[] = {
	{ .name = "mode", .arg = "MODE", .kind = CLI_CHOICE, .member = "mode",
	  .choices = "auto|precopy|postcopy|hybrid", .help = "auto, precopy, postcopy or hybrid" },
	{ .name = "max-downtime", .arg = "TIME", .kind = CLI_TIME, .member = "max_downtime_ms",
	  .help = "longest pause that is acceptable" },
	{ .name = "timeout", .arg = "TIME", .kind = CLI_TIME, .member = "timeout_ms",
	  .choices = "never", .help = "give up so long after the start, or never" },
	{ .name = "bandwidth", .arg = "RATE", .kind = CLI_RATE, .member = "bandwidth",
	  .choices = "unlimited", .help = "use at most this, as 10Gbit, or unlimited" },
	{ .name = "impact", .arg = "PERCENT", .kind = CLI_NUMBER, .member = "impact",
	  .min = 0, .max = 100, .help = "how much the VM may be slowed down, 0 to 100" },
	{ .name = NULL },
};
/* clang-format on */

/* The options of this command alone, without those that all of them take. */
static json_t *goals_of(const json_t *values)
{
	json_t *goals = json_object();

	for (const struct cli_option *o = tune_options; o->name; o++)
		if (json_object_get(values, o->member))
			json_object_set(goals, o->member, json_object_get(values, o->member));
	return goals;
}

static enum cli_exit run_tune(struct cli *cli, const struct cli_words *words, json_t *values)
{
	json_t *goals = goals_of(values);
	struct failure f = { 0 };
	enum cli_exit status;

	if (json_object_size(goals)) {
		status = cli_ask_session(cli, words->word[0], "tune", goals, CLI_CALL_MS, "tuned");
	} else {
		failure_set(&f, -EINVAL, "usage", "`tranship tune --help` shows the options.",
			    "tune needs at least one option: what is to change.");
		status = cli_fail(cli, &f);
	}
	json_decref(goals);
	return status;
}

const struct cli_command cli_tune = {
	.name = "tune",
	.words = "ID",
	.words_min = 1,
	.words_max = 1,
	.options = tune_options,
	.help = "Change the goals of a migration that runs.",
	.run = run_tune,
};

static enum cli_exit run_switch(struct cli *cli, const struct cli_words *words, json_t *values)
{
	(void)values;
	return cli_ask_session(cli, words->word[0], "switch", NULL, CLI_CALL_MS,
			       "switches over within its round, unless that is the first");
}

const struct cli_command cli_switch = {
	.name = "switch",
	.words = "ID",
	.words_min = 1,
	.words_max = 1,
	.help = "Switch a migration over now, however long the pause.",
	.run = run_switch,
};
