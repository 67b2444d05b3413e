// SPDX-License-Identifier: MIT
/* tranship migrate. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/cli/cli_forecast.h"
#include "control/cli/cli_result.h"
#include "control/cli/cli_watch.h"

#define START_MS 30000u

/* auto, off, zstd or zstd:LEVEL with the levels that zstd has. */
static int check_compress(const char *value)
{
	char *end;
	long level;

	if (!strcmp(value, "auto") || !strcmp(value, "off") || !strcmp(value, "zstd"))
		return 0;
	if (strncmp(value, "zstd:", 5) || value[5] < '0' || value[5] > '9')
		return -EINVAL;
	level = strtol(value + 5, &end, 10);
	return *end || level < 1 || level > 22 ? -EINVAL : 0;
}

/* A comma-separated list of the groups of checks. */
static int check_skip_list(const char *value)
{
	static const char *const groups[] = {
		"cpu", "memory", "disk", "version", "devices", "all"
	};

	for (;;) {
		size_t n = strcspn(value, ","), i;

		for (i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
			if (strlen(groups[i]) == n && !memcmp(groups[i], value, n))
				break;
		if (i == sizeof(groups) / sizeof(groups[0]))
			return -EINVAL;
		if (!value[n])
			return 0;
		value += n + 1;
	}
}

/* Members that begin with a dash are ours; the others are the request's options (host.h). */
/* clang-format off */
static const struct cli_option options[] = {
	{ .name = "dry-run", .kind = CLI_SWITCH, .member = "dry_run",
	  .help = "checks and forecast only; changes nothing" },
	{ .name = "skip-check", .arg = "LIST", .kind = CLI_TEXT, .member = "skip_check",
	  .check = check_skip_list, .help = "cpu, memory, disk, version, devices, all: warn only" },
	{ .name = "mode", .arg = "MODE", .kind = CLI_CHOICE, .member = "mode",
	  .choices = "auto|precopy|postcopy|hybrid", .help = "auto, precopy, postcopy or hybrid" },
	{ .name = "cold", .kind = CLI_SWITCH, .member = "cold",
	  .help = "stop the VM while it moves" },
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
	{ .name = "transport", .arg = "KIND", .kind = CLI_CHOICE, .member = "transport",
	  .choices = "auto|tcp|rdma", .help = "auto, tcp or rdma" },
	{ .name = "tx", .arg = "KIND", .kind = CLI_CHOICE, .member = "tx",
	  .choices = "auto|sendfile|uring|send", .help = "auto, sendfile, uring or send" },
	{ .name = "encrypt", .arg = "on|off", .kind = CLI_CHOICE, .member = "encrypt",
	  .choices = "on|off", .help = "encryption of the data streams [on]" },
	{ .name = "compress", .arg = "KIND", .kind = CLI_TEXT, .member = "compress",
	  .check = check_compress, .help = "auto, off, zstd or zstd:LEVEL [auto]" },
	{ .name = "delta-cache", .arg = "SIZE", .kind = CLI_SIZE, .member = "delta_cache",
	  .help = "memory for versions of hot pages, 0: none [2 % of RAM, at most 256MiB]" },
	{ .name = "page-hashes", .arg = "SIZE", .kind = CLI_SIZE, .member = "page_hashes",
	  .choices = "off", .help = "memory for hashes of pages in huge ones, or off "
				    "[16MiB and 1/4096 of RAM]" },
	{ .name = "disks", .arg = "LIST", .kind = CLI_TEXT, .member = "disks",
	  .help = "all, none or names: disks to move too" },
	{ .name = "location", .arg = "PATH", .kind = CLI_TEXT, .member = "location",
	  .help = "where moved disks go at the destination" },
	{ .name = "incoming", .arg = "VM", .kind = CLI_TEXT, .member = "incoming",
	  .help = "qemu:PATH of a VMM that waits at the destination" },
	{ .name = "no-start", .kind = CLI_SWITCH, .member = "no_start",
	  .help = "leave the VM paused at the destination" },
	{ .name = "keep-src", .kind = CLI_SWITCH, .member = "keep_src",
	  .help = "leave the source VM, paused, instead of ending it" },
	{ .name = "keep-dst", .kind = CLI_SWITCH, .member = "keep_dst",
	  .help = "after a failure leave what was made at the destination" },
	{ .name = "verify", .kind = CLI_SWITCH, .member = "verify",
	  .help = "compare all RAM in the pause (long downtime)" },
	{ .name = "detach", .kind = CLI_SWITCH, .member = "-detach",
	  .help = "print the session's id and return" },
	{ .name = "batch", .kind = CLI_SWITCH, .member = "-batch",
	  .help = "progress as JSON objects, one a line" },
	{ .name = NULL },
};
/* clang-format on */

static json_t *make_request(const struct cli_words *words, const json_t *values)
{
	json_t *request = json_pack("{s:o, s:o, s:{}}", "vm", cli_absolute(words->word[0]), "dest",
				    cli_absolute(words->word[1]), "options");
	json_t *wanted = json_object_get(request, "options"), *value;
	const char *member;

	json_object_foreach ((json_t *)values, member, value)
		if (member[0] != '-' &&
		    !cli_option_find(cli_common_options, member, strlen(member)))
			json_object_set(wanted, member, value);
	return request;
}

/* Tells a result as the mode wants it; steals it. */
static enum cli_exit finish(struct cli *cli, json_t *result)
{
	enum cli_exit status = cli_result_exit(result);

	if (cli->json) {
		cli_print_json(cli, result);
	} else {
		if (json_object_get(result, "checks")) {
			fprintf(cli->out, "Checks:\n");
			cli_checks_print(cli->out, json_object_get(result, "checks"), true);
		}
		cli_result_print(cli, result);
		if (json_object_get(result, "forecast"))
			cli_forecast_print(cli->out, json_object_get(result, "forecast"));
	}
	json_decref(result);
	return status;
}

static enum cli_exit refuse(struct cli *cli, const struct cli_words *words, const struct failure *f)
{
	if (!cli->json)
		return cli_fail(cli, f);
	return finish(cli, cli_result_new(NULL, words->count ? words->word[0] : NULL, NULL, f));
}

/* 0 and *id (new reference to the answer in *answer); else the failure says what is known. */
static int start(struct cli *cli, const json_t *request, json_t **answer, const char **id,
		 struct failure *f)
{
	struct failure why = { 0 };
	int err = cli_call(cli, "POST", "/v1/sessions", request, answer, START_MS, &why);

	if (!err) {
		*id = cli_text(*answer, "id");
		return **id ? 0
			    : failure_set(f, -EPROTO, "internal", NULL,
					  "The daemon's answer names no session.");
	}
	/* The answer is given at once, so a session that began without one is rare, but possible.
	 */
	if (err != -EREMOTEIO && cli->client && client_was_sent(cli->client))
		return failure_set(f, err, "unresolved",
				   "`tranship status` lists the sessions once transhipd is back.",
				   "transhipd took the request and was gone: %s", why.message);
	*f = why;
	return err;
}

static enum cli_exit detached(struct cli *cli, const char *id, const char *vm)
{
	if (cli->json)
		return finish(cli, cli_result_new(id, vm, "started", NULL));
	fprintf(cli->out, "%s\n", id);
	fprintf(cli->err, "Started; `tranship status %.8s --watch` follows it.\n", id);
	return CLI_DONE;
}

static enum cli_exit run(struct cli *cli, const struct cli_words *words, json_t *values)
{
	bool detach = json_is_true(json_object_get(values, "-detach"));
	const char *vm = words->word[0], *id = NULL;
	json_t *request = NULL, *answer = NULL;
	struct failure f = { 0 };
	struct cli_watch w;
	enum cli_exit status;
	int err = 0;

	cli->batch |= json_is_true(json_object_get(values, "-batch"));
	cli->terminal &= !cli->batch;
	if (detach && json_is_true(json_object_get(values, "dry_run")))
		err = failure_set(&f, -EINVAL, "usage", "Leave one of them out.",
				  "--dry-run and --detach exclude each other.");
	cli_interrupts_begin();
	if (!err)
		err = cli_watch_init(&w, cli, &f);
	if (!err && cli_interrupts())
		err = failure_set(&f, -ECANCELED, "cancelled", NULL,
				  "The migration was cancelled.");
	if (!err) {
		request = make_request(words, values);
		err = start(cli, request, &answer, &id, &f);
	}
	if (err) {
		status = refuse(cli, words, &f);
	} else if (detach && !cli_interrupts()) {
		status = detached(cli, id, vm);
	} else {
		w.id = id;
		w.vm = vm;
		w.cancels = true;
		status = finish(cli, cli_watch_run(&w));
	}
	json_decref(answer);
	json_decref(request);
	return status;
}

const struct cli_command cli_migrate = {
	.name = "migrate",
	.words = "VM DEST",
	.words_min = 2,
	.words_max = 2,
	.options = options,
	.help = "Move a VM to another host, live.",
	.run = run,
	.refuse = refuse,
};
