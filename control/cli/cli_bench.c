// SPDX-License-Identifier: MIT
/* tranship bench. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/bench/bench_lead.h"
#include "control/cli/cli_bench_table.h"
#include "control/cli/cli_watch.h"
#include "lib/base/units.h"

#define START_MS 30000u
#define POLL_MS	 250u

static int check_size_list(const char *value)
{
	uint64_t sizes[BENCH_SIZES_MAX];
	uint32_t count;

	return bench_parse_sizes(value, sizes, &count);
}

static int check_size(const char *value)
{
	uint64_t size;

	return units_parse_size(value, &size) || !size ? -EINVAL : 0;
}

static int check_cpus(const char *value)
{
	struct bench_cpus near, far;

	return bench_parse_cpus(value, &near, &far);
}

static int check_tos(const char *value)
{
	int tos;

	return bench_parse_tos(value, &tos);
}

static int check_compress(const char *value)
{
	struct compression c;
	struct failure f = { 0 };

	return compression_parse(&c, value, &f);
}

/* Members that begin with a dash are ours; the others are the request's options. */
/* clang-format off */
static const struct cli_option options[] = {
	{ .name = "local", .kind = CLI_SWITCH, .member = "-local",
	  .help = "both sides on this host, without a daemon" },
	{ .name = "size", .arg = "LIST", .kind = CLI_TEXT, .member = "size",
	  .check = check_size_list,
	  .help = "message sizes, 4KiB to 2MiB, as 4KiB,64KiB: a row each [2MiB]" },
	{ .name = "time", .arg = "TIME", .kind = CLI_TIME, .member = "time_ms",
	  .help = "how long a row takes [5s]" },
	{ .name = "bytes", .arg = "SIZE", .kind = CLI_TEXT, .member = "bytes", .check = check_size,
	  .help = "how much a row sends in each direction" },
	{ .name = "omit", .arg = "TIME", .kind = CLI_TIME, .member = "omit_ms",
	  .help = "do not count the beginning of a row" },
	{ .name = "interval", .arg = "TIME", .kind = CLI_TIME, .member = "interval_ms",
	  .help = "figures of each interval too" },
	{ .name = "latency", .kind = CLI_SWITCH, .member = "latency",
	  .help = "one message at a time: how long until it is acknowledged" },
	{ .name = "streams", .arg = "N", .kind = CLI_NUMBER, .member = "streams", .choices = "auto",
	  .min = 1, .max = 64, .help = "data streams of a direction [1]" },
	{ .name = "reverse", .kind = CLI_SWITCH, .member = "reverse",
	  .help = "DEST sends, this host receives" },
	{ .name = "bidir", .kind = CLI_SWITCH, .member = "bidir",
	  .help = "both directions at once" },
	{ .name = "bandwidth", .arg = "RATE", .kind = CLI_RATE, .member = "bandwidth",
	  .help = "send at most this in each direction [unlimited]" },
	{ .name = "transport", .arg = "KIND", .kind = CLI_CHOICE, .member = "transport",
	  .choices = "auto|tcp|rdma", .help = "auto, tcp or rdma" },
	{ .name = "tx", .arg = "KIND", .kind = CLI_CHOICE, .member = "tx",
	  .choices = "auto|sendfile|uring|send", .help = "auto, sendfile, uring or send" },
	{ .name = "rx", .arg = "KIND", .kind = CLI_CHOICE, .member = "rx",
	  .choices = "auto|resident|map|pwrite|new|new-map|new-pwrite",
	  .help = "auto, map or pwrite; new, new-map, new-pwrite: into new memory" },
	{ .name = "encrypt", .arg = "on|off", .kind = CLI_CHOICE, .member = "encrypt",
	  .choices = "on|off", .help = "encryption of the data streams [on; --local: off]" },
	{ .name = "compress", .arg = "KIND", .kind = CLI_TEXT, .member = "compress",
	  .check = check_compress, .help = "off, auto, zstd or zstd:LEVEL [off]" },
	{ .name = "data", .arg = "KIND", .kind = CLI_TEXT, .member = "data",
	  .help = "what is sent: zero, text, random or a file's path [random]" },
	{ .name = "memory", .arg = "SIZE", .kind = CLI_TEXT, .member = "memory",
	  .check = check_size, .help = "memory on each side, shared by the streams [256MiB]" },
	{ .name = "verify", .kind = CLI_SWITCH, .member = "verify",
	  .help = "compare all that arrives with what was sent (slower)" },
	{ .name = "reuse", .kind = CLI_SWITCH, .member = "reuse",
	  .help = "the same streams and memory for all rows" },
	{ .name = "affinity", .arg = "LIST", .kind = CLI_TEXT, .member = "affinity",
	  .check = check_cpus, .help = "processors of the streams, as 0,2-3 or HERE/THERE" },
	{ .name = "tos", .arg = "N", .kind = CLI_TEXT, .member = "tos", .check = check_tos,
	  .help = "type of service: 0 to 255, or a DSCP as af21, cs1 or ef" },
	{ .name = "congestion", .arg = "NAME", .kind = CLI_TEXT, .member = "congestion",
	  .help = "TCP congestion control [as a migration]" },
	{ .name = NULL },
};
/* clang-format on */

/* Whatever is not a kind of data is a file of this host. */
static int settle_data(json_t *wanted, struct failure *f)
{
	const char *data = cli_text(wanted, "data");
	char cwd[PATH_MAX] = "";
	json_t *path;

	if (!*data || !strcmp(data, "zero") || !strcmp(data, "text") || !strcmp(data, "random"))
		return 0;
	if (*data != '/' && !getcwd(cwd, sizeof(cwd)))
		return failure_set(f, -errno, "usage", NULL, "No working directory: %m.");
	path = json_sprintf("%s%s%s", cwd, *cwd ? "/" : "", data);
	if (access(json_string_value(path), R_OK)) {
		json_decref(path);
		return failure_set(f, -EINVAL, "usage",
				   "--data is zero, text, random or a file's path.", "%.80s: %s.",
				   data, strerror(errno));
	}
	json_object_set_new(wanted, "file", path);
	json_object_set_new(wanted, "data", json_string("file"));
	return 0;
}

static json_t *make_options(const json_t *values, bool local, struct failure *f)
{
	json_t *wanted = json_object(), *value;
	const char *member;

	json_object_foreach ((json_t *)values, member, value)
		if (member[0] != '-' &&
		    !cli_option_find(cli_common_options, member, strlen(member)))
			json_object_set(wanted, member, value);
	/* what does not leave this host needs nobody's leave */
	if (local && !json_object_get(wanted, "encrypt"))
		json_object_set_new(wanted, "encrypt", json_string("off"));
	if (!settle_data(wanted, f))
		return wanted;
	json_decref(wanted);
	return NULL;
}

static enum cli_exit finish_without(struct cli *cli, const char *dest, const struct failure *f)
{
	struct cli_bench_view v = { .cli = cli };
	json_t *result = bench_result_empty(dest, bench_status(f), f);
	enum cli_exit status = cli_bench_finish(&v, result);

	json_decref(result);
	return status;
}

/* --- --local ---------------------------------------------------------------------------------- */

static bool interrupted(void *arg)
{
	(void)arg;
	return cli_interrupts() > 0;
}

static void show(void *arg, const json_t *result)
{
	cli_bench_show(arg, result);
}

static enum cli_exit run_local(struct cli *cli, const json_t *wanted)
{
	/* some hundred KiB of paths */
	static struct config config;
	char *argv[] = { "tranship", NULL };
	struct cli_bench_view v = { .cli = cli };
	struct bench_lead lead = { .config = &config,
				   .options = wanted,
				   .dest = "local",
				   .far_ops = &bench_local_ops,
				   .cancel_fd = -1,
				   .cancelled = interrupted,
				   .news = show,
				   .arg = &v };
	struct bench_local *far = NULL;
	struct failure f = { 0 };
	json_t *result = NULL;
	enum cli_exit status;

	if (config_load(&config, 1, argv, &f) || bench_local_new(&far, &config))
		return finish_without(cli, "local", &f);
	config.ndata_addresses = 0;
	snprintf(config.data_address, sizeof(config.data_address), "127.0.0.1");
	config.data_port_lo = config.data_port_hi = 0;
	lead.far = far;
	cli_interrupts_begin();
	bench_lead(&lead, &result, &f);
	status = cli_bench_finish(&v, result);
	json_decref(result);
	bench_local_free(far);
	return status;
}

/* --- between two daemons ---------------------------------------------------------------------- */

static void cancel(struct cli *cli, const char *id)
{
	struct failure f = { 0 };
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s/cancel", id);
	if (cli_call(cli, "POST", path, NULL, NULL, CLI_CALL_MS, &f) && !cli->json)
		cli_print_failure(cli, &f);
}

/* To the session's end; *session is the last that was seen of it. */
static int follow(struct cli_bench_view *v, const char *id, json_t **session, struct failure *f)
{
	unsigned int told = 0;
	json_int_t since = 0;

	for (;;) {
		json_t *now = NULL;
		char path[192];
		int err;

		if (cli_interrupts() && !told++)
			cancel(v->cli, id);
		snprintf(path, sizeof(path),
			 "/v1/sessions/%s?since=%" JSON_INTEGER_FORMAT "&wait=%u", id, since,
			 POLL_MS);
		err = cli_call(v->cli, "GET", path, NULL, &now, CLI_CALL_MS + POLL_MS, f);
		if (err)
			return err;
		json_decref(*session);
		*session = now;
		since = json_integer_value(json_object_get(now, "seq"));
		if (json_is_true(json_object_get(now, "terminal")))
			return 0;
		if (json_object_get(now, "result"))
			cli_bench_show(v, json_object_get(now, "result"));
	}
}

static enum cli_exit conclude(struct cli_bench_view *v, const char *dest, const json_t *session)
{
	const json_t *result = json_object_get(session, "result");
	const json_t *error = json_object_get(session, "error");
	struct failure f = { 0 };

	if (json_is_object(result))
		return cli_bench_finish(v, result);
	failure_set(&f, 0, *cli_text(error, "code") ? cli_text(error, "code") : "internal",
		    cli_text(error, "hint"), "%s", cli_text(error, "message"));
	return finish_without(v->cli, dest, &f);
}

static enum cli_exit run_between(struct cli *cli, const char *dest, json_t *wanted)
{
	json_t *request = json_pack("{s:o, s:O}", "dest", cli_absolute(dest), "options", wanted);
	struct cli_bench_view v = { .cli = cli };
	json_t *answer = NULL, *session = NULL;
	struct failure f = { 0 };
	enum cli_exit status;
	int err;

	cli_interrupts_begin();
	err = cli_call(cli, "POST", "/v1/bench", request, &answer, START_MS, &f);
	if (!err)
		err = follow(&v, cli_text(answer, "id"), &session, &f);
	status = err ? finish_without(cli, dest, &f) : conclude(&v, dest, session);
	json_decref(session);
	json_decref(answer);
	json_decref(request);
	return status;
}

static enum cli_exit refuse(struct cli *cli, const struct cli_words *words, const struct failure *f)
{
	return finish_without(cli, words->count ? words->word[0] : "", f);
}

static enum cli_exit run(struct cli *cli, const struct cli_words *words, json_t *values)
{
	bool local = json_is_true(json_object_get(values, "-local"));
	struct bench_options o;
	struct failure f = { 0 };
	enum cli_exit status;
	json_t *wanted = NULL;
	int err = 0;

	if (local != (words->count == 0))
		err = failure_set(&f, -EINVAL, "usage", "See `tranship bench --help`.",
				  "bench needs a DEST, or --local without one.");
	if (!err)
		wanted = make_options(values, local, &f);
	/* here already, so that nobody is asked in vain */
	if (wanted)
		err = bench_options_read(&o, wanted, &f);
	if (err || !wanted)
		status = refuse(cli, words, &f);
	else
		status = local ? run_local(cli, wanted) : run_between(cli, words->word[0], wanted);
	json_decref(wanted);
	return status;
}

const struct cli_command cli_bench = {
	.name = "bench",
	.words = "[DEST]",
	.words_min = 0,
	.words_max = 1,
	.options = options,
	.help = "Measure what the data plane moves between two hosts.",
	.run = run,
	.refuse = refuse,
};
