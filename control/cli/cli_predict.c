// SPDX-License-Identifier: MIT
/*
 * tranship predict: how a migration would go. Of a described VM and link the simulator runs here,
 * without a daemon; of a VM of this host the daemon measures first.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/cli/cli.h"
#include "control/cli/cli_forecast.h"
#include "control/policy/forecast.h"
#include "control/session/goals.h"

#define SECONDS_DEFAULT 5
#define EXTRA_MS	90000u /* the checks of both sides, and probing the path */

/* Members that begin with a dash are ours; the others are a migration's options. */
/* clang-format off */
static const struct cli_option options[] = {
	{ .name = "model", .arg = "FILE", .kind = CLI_TEXT, .member = "-model",
	  .help = "a described VM and link (JSON), without a daemon" },
	{ .name = "seconds", .arg = "N", .kind = CLI_SECONDS, .member = "-seconds", .min = 1,
	  .max = 3600, .help = "how long to look at the VM, 1 to 3600 [5]" },
	{ .name = "max-downtime", .arg = "TIME", .kind = CLI_TIME, .member = "max_downtime_ms",
	  .help = "longest pause that is acceptable [300ms]" },
	{ .name = "timeout", .arg = "TIME", .kind = CLI_TIME, .member = "timeout_ms",
	  .choices = "never", .help = "give up after this time [never]" },
	{ .name = "bandwidth", .arg = "RATE", .kind = CLI_RATE, .member = "bandwidth",
	  .choices = "unlimited", .help = "use at most this, as 10Gbit [unlimited]" },
	{ .name = "impact", .arg = "PERCENT", .kind = CLI_NUMBER, .member = "impact",
	  .min = 0, .max = 100, .help = "how much the VM may be slowed down, 0 to 100 [30]" },
	{ .name = "streams", .arg = "N", .kind = CLI_NUMBER, .member = "streams", .choices = "auto",
	  .min = 1, .max = 64, .help = "data streams, 1 to 64 or auto [auto]" },
	{ .name = "encrypt", .arg = "on|off", .kind = CLI_CHOICE, .member = "encrypt",
	  .choices = "on|off", .help = "encryption of the data streams [on]" },
	{ .name = NULL },
};
/* clang-format on */

/* What was asked for comes before what the model says; within the bounds that a session has. */
static int take_goals(struct policy_goals *g, const json_t *values, struct failure *f)
{
	struct goals checked;
	const json_t *j;
	int err;

	goals_init(&checked);
	err = goals_take(&checked, values, f);
	if (err)
		return err;
	if ((j = json_object_get(values, "max_downtime_ms")))
		g->max_downtime_ns = (uint64_t)json_integer_value(j) * 1000000u;
	if ((j = json_object_get(values, "timeout_ms")))
		g->timeout_ns = (uint64_t)json_integer_value(j) * 1000000u;
	if ((j = json_object_get(values, "bandwidth")))
		g->bandwidth = (uint64_t)json_integer_value(j);
	if ((j = json_object_get(values, "impact")))
		g->impact = (uint32_t)json_integer_value(j);
	return 0;
}

static enum cli_exit show(struct cli *cli, const json_t *f)
{
	if (cli->json)
		cli_print_json(cli, f);
	else
		cli_forecast_print(cli->out, f);
	return CLI_DONE;
}

static enum cli_exit run_model(struct cli *cli, const char *path, const json_t *values)
{
	static struct model m; /* its curve and classes are some KiB */
	struct failure f = { 0 };
	enum cli_exit status;
	json_t *out;

	if (model_load(&m, path, &f) || take_goals(&m.goals, values, &f))
		return cli_fail(cli, &f);
	if (json_integer_value(json_object_get(values, "streams")) > 0)
		m.sim.streams = (uint32_t)json_integer_value(json_object_get(values, "streams"));
	out = forecast(&m);
	status = show(cli, out);
	json_decref(out);
	return status;
}

static json_t *make_request(const struct cli_words *words, const json_t *values, json_int_t seconds)
{
	json_t *request =
		json_pack("{s:o, s:o, s:I, s:{}}", "vm", cli_absolute(words->word[0]), "dest",
			  cli_absolute(words->word[1]), "seconds", seconds, "options");
	json_t *wanted = json_object_get(request, "options"), *value;
	const char *member;

	json_object_foreach ((json_t *)values, member, value)
		if (member[0] != '-' &&
		    !cli_option_find(cli_common_options, member, strlen(member)))
			json_object_set(wanted, member, value);
	return request;
}

static enum cli_exit run_vm(struct cli *cli, const struct cli_words *words, const json_t *values)
{
	json_int_t seconds = json_integer_value(json_object_get(values, "-seconds"));
	json_t *request, *out = NULL;
	struct failure f = { 0 };
	enum cli_exit status;
	int err;

	if (!seconds)
		seconds = SECONDS_DEFAULT;
	request = make_request(words, values, seconds);
	err = cli_call(cli, "POST", "/v1/predict", request, &out,
		       (unsigned int)seconds * 1000 + EXTRA_MS, &f);
	status = err ? cli_fail(cli, &f) : show(cli, out);
	json_decref(request);
	json_decref(out);
	return status;
}

static enum cli_exit run(struct cli *cli, const struct cli_words *words, json_t *values)
{
	const char *model = cli_text(values, "-model");
	struct failure f = { 0 };

	if (words->count == (*model ? 0 : 2))
		return *model ? run_model(cli, model, values) : run_vm(cli, words, values);
	failure_set(&f, -EINVAL, "usage", "See `tranship predict --help`.",
		    "predict needs a VM and a DEST, or --model FILE without them.");
	return cli_fail(cli, &f);
}

const struct cli_command cli_predict = {
	.name = "predict",
	.words = "[VM DEST]",
	.words_min = 0,
	.words_max = 2,
	.options = options,
	.help = "Say how long a migration would take, and its pause.",
	.run = run,
};
