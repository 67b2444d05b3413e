// SPDX-License-Identifier: MIT
/* tranship status, cancel, resolve. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "control/cli/cli_result.h"
#include "control/cli/cli_watch.h"
#include "lib/base/units.h"

#define RESOLVE_MS     60000u
#define TABLE_EVERY_NS 500000000

int cli_check_id(const char *id, struct failure *f)
{
	size_t n = strlen(id);

	if (n >= 6 && n <= 32 && strspn(id, "0123456789abcdef") == n)
		return 0;
	return failure_set(f, -EINVAL, "usage", "`tranship status` lists the sessions.",
			   "'%.40s' is no session id, nor the first 6 digits of one.", id);
}

/* --- status ----------------------------------------------------------------------------------- */

static const struct cli_option status_options[] = {
	{ .name = "watch",
	  .kind = CLI_SWITCH,
	  .member = "watch",
	  .help = "follow until the end; exits as the migration does" },
	{ .name = NULL },
};

static double number(const json_t *j, const char *member)
{
	return json_number_value(json_object_get(j, member));
}

/* Its state, and of an ended one that moved nothing, why: that it was asked not to, or refused. */
static const char *state_text(const json_t *s)
{
	const char *status = cli_text(s, "status");

	if (!json_is_true(json_object_get(s, "terminal")))
		return cli_text(s, "state");
	if (!strcmp(status, "refused"))
		return status;
	if (json_is_true(json_object_get(s, "dry_run")) && !strcmp(status, "completed"))
		return "dry-run";
	return cli_text(s, "state");
}

static void print_table(FILE *to, const json_t *sessions)
{
	size_t i;
	json_t *s;

	fprintf(to, "%-8s  %-20s  %-11s  %-11s  %5s  %s\n", "ID", "VM", "SIDE", "STATE", "DONE",
		"ELAPSED");
	json_array_foreach ((json_t *)sessions, i, s) {
		const json_t *p = json_object_get(s, "progress");
		bool terminal = json_is_true(json_object_get(s, "terminal"));
		char vm[64], percent[16] = "", elapsed[24] = "";

		if (!terminal) {
			if (json_is_number(json_object_get(p, "percent")))
				snprintf(percent, sizeof(percent), "%.0f %%", number(p, "percent"));
			snprintf(elapsed, sizeof(elapsed), "%.0f s",
				 number(p, "elapsed_ms") / 1000);
		}
		fprintf(to, "%-8.8s  %-20s  %-11s  %-11s  %5s  %s\n", cli_text(s, "id"),
			cli_clean(cli_text(s, "vm"), vm, sizeof(vm)), cli_text(s, "side"),
			state_text(s), percent, elapsed);
	}
	fflush(to);
}

static bool any_live(const json_t *sessions)
{
	size_t i;
	json_t *s;

	json_array_foreach ((json_t *)sessions, i, s)
		if (!json_is_true(json_object_get(s, "terminal")))
			return true;
	return false;
}

/* Without an id: the table, with --watch again and again until every session has ended. */
static enum cli_exit status_all(struct cli *cli, bool watch)
{
	const struct timespec pause = { .tv_nsec = TABLE_EVERY_NS };
	struct failure f = { 0 };
	json_t *sessions = NULL, *whole;

	for (;;) {
		json_decref(sessions);
		if (cli_call(cli, "GET", "/v1/sessions", NULL, &sessions, CLI_CALL_MS, &f))
			return cli_fail(cli, &f);
		if (!watch || !any_live(sessions))
			break;
		if (!cli->json) {
			if (cli->terminal)
				fputs("\033[H\033[J", cli->out);
			print_table(cli->out, sessions);
		}
		nanosleep(&pause, NULL);
	}
	if (cli->json) {
		whole = json_pack("{s:O}", "sessions", sessions);
		cli_print_json(cli, whole);
		json_decref(whole);
	} else {
		print_table(cli->out, sessions);
	}
	json_decref(sessions);
	return CLI_DONE;
}

/* The guest runs already. */
static void print_postcopy(FILE *to, const json_t *p, const json_t *post)
{
	char a[32], b[32];

	fprintf(to, "  post-copy  ");
	if (json_is_number(json_object_get(p, "percent")))
		fprintf(to, "%s of %s left, %.0f %% done\n",
			units_format_size((uint64_t)number(p, "pending_bytes"), a, sizeof(a)),
			units_format_size((uint64_t)number(p, "total_bytes"), b, sizeof(b)),
			number(p, "percent"));
	else
		fprintf(to, "what is left is not known yet\n");
	if (number(p, "throughput") > 0)
		fprintf(to, "  rate       %s\n",
			units_format_rate(number(p, "throughput"), a, sizeof(a)));
	fprintf(to, "  faults     %.0f served", number(post, "faults"));
	if (number(post, "faults") > 0)
		fprintf(to, ", median %.3f ms, p99 %.3f ms, longest %.3f ms",
			number(post, "p50_us") / 1000, number(post, "p99_us") / 1000,
			number(post, "max_us") / 1000);
	fputc('\n', to);
}

/* A destination is not told of rounds. */
static void print_rounds(FILE *to, const json_t *p)
{
	char a[32], b[32];

	if (number(p, "round") <= 0) {
		if (number(p, "sent_bytes") > 0)
			fprintf(to, "  received   %s, of %s of RAM\n",
				units_format_size((uint64_t)number(p, "sent_bytes"), a, sizeof(a)),
				units_format_size((uint64_t)number(p, "total_bytes"), b,
						  sizeof(b)));
		return;
	}
	fprintf(to, "  round      %.0f, %s of %s left, %.0f %% done\n", number(p, "round"),
		units_format_size((uint64_t)number(p, "pending_bytes"), a, sizeof(a)),
		units_format_size((uint64_t)number(p, "total_bytes"), b, sizeof(b)),
		number(p, "percent"));
	fprintf(to, "  rates      %s sent, %s/s dirtied\n",
		units_format_rate(number(p, "throughput"), a, sizeof(a)),
		units_format_size((uint64_t)number(p, "dirty_rate"), b, sizeof(b)));
	if (number(p, "predicted_downtime_ms") > 0)
		fprintf(to, "  pause      %.0f ms, if it came now\n",
			number(p, "predicted_downtime_ms"));
}

static void print_progress(FILE *to, const json_t *p)
{
	const json_t *post = json_object_get(p, "postcopy");
	char why[200];

	if (json_is_object(post))
		print_postcopy(to, p, post);
	else
		print_rounds(to, p);
	if (number(p, "throttle_percent") > 0)
		fprintf(to, "  throttled  %.0f %%\n", number(p, "throttle_percent"));
	if (*cli_text(p, "reason"))
		fprintf(to, "  because    %s\n",
			cli_clean(cli_text(p, "reason"), why, sizeof(why)));
}

/* What was asked for, as tune left it. */
static void print_goals(FILE *to, const json_t *g)
{
	char timeout[40] = "none", rate[40] = "unlimited";
	double bandwidth = number(g, "bandwidth");

	if (!g)
		return;
	if (number(g, "timeout_ms") > 0)
		snprintf(timeout, sizeof(timeout), "%.0f s", number(g, "timeout_ms") / 1000);
	if (bandwidth > 0)
		units_format_rate(bandwidth, rate, sizeof(rate));
	fprintf(to,
		"  goals      pause of at most %.0f ms, timeout %s, bandwidth %s, impact %.0f %%, "
		"%s\n",
		number(g, "max_downtime_ms"), timeout, rate, number(g, "impact"),
		cli_text(g, "mode"));
}

static void print_session(struct cli *cli, const json_t *s)
{
	bool terminal = json_is_true(json_object_get(s, "terminal"));
	json_t *event, *result;
	char text[256];
	size_t i;

	fprintf(cli->out, "%s  %s  %s side  %s\n", cli_text(s, "id"),
		cli_clean(cli_text(s, "vm"), text, sizeof(text)), cli_text(s, "side"),
		state_text(s));
	/* what is not resolved may go on all the same */
	if (!terminal || !strcmp(cli_text(s, "state"), session_state_name(SESSION_UNRESOLVED))) {
		print_goals(cli->out, json_object_get(s, "goals"));
		print_progress(cli->out, json_object_get(s, "progress"));
	}
	json_array_foreach (json_object_get(s, "events"), i, event)
		fprintf(cli->out, "  %9.1f ms  %s\n", number(event, "ms"),
			cli_clean(cli_text(event, "text"), text, sizeof(text)));
	cli_checks_print(cli->out, json_object_get(s, "checks"), false);
	fflush(cli->out);
	if (!terminal)
		return;
	result = cli_result_of(s);
	cli_result_print(cli, result);
	json_decref(result);
}

static enum cli_exit status_one(struct cli *cli, const char *id)
{
	struct failure f = { 0 };
	json_t *session = NULL;
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s", id);
	if (cli_call(cli, "GET", path, NULL, &session, CLI_CALL_MS, &f))
		return cli_fail(cli, &f);
	if (cli->json)
		cli_print_json(cli, session);
	else
		print_session(cli, session);
	json_decref(session);
	return CLI_DONE;
}

/* Follows to the end without cancelling on an interrupt: that ends the following only. */
static enum cli_exit watch_one(struct cli *cli, const char *id)
{
	struct failure f = { 0 };
	json_t *session = NULL, *result;
	char path[128];
	enum cli_exit status;
	struct cli_watch w;

	snprintf(path, sizeof(path), "/v1/sessions/%s", id);
	if (cli_watch_init(&w, cli, &f) ||
	    cli_call(cli, "GET", path, NULL, &session, CLI_CALL_MS, &f))
		return cli_fail(cli, &f);
	w.id = cli_text(session, "id");
	w.vm = cli_text(session, "vm");
	result = cli_watch_run(&w);
	status = cli_result_exit(result);
	if (cli->json)
		cli_print_json(cli, result);
	else
		cli_result_print(cli, result);
	json_decref(result);
	json_decref(session);
	return status;
}

static enum cli_exit run_status(struct cli *cli, const struct cli_words *words, json_t *values)
{
	bool watch = json_is_true(json_object_get(values, "watch"));
	struct failure f = { 0 };

	if (!words->count)
		return status_all(cli, watch);
	if (cli_check_id(words->word[0], &f))
		return cli_fail(cli, &f);
	return watch ? watch_one(cli, words->word[0]) : status_one(cli, words->word[0]);
}

const struct cli_command cli_status = {
	.name = "status",
	.words = "[ID]",
	.words_max = 1,
	.options = status_options,
	.help = "Show the sessions of this host, or one of them.",
	.run = run_status,
};

/* --- cancel and resolve ----------------------------------------------------------------------- */

enum cli_exit cli_ask_session(struct cli *cli, const char *id, const char *verb, const json_t *in,
			      unsigned int timeout_ms, const char *done)
{
	struct failure f = { 0 };
	json_t *answer = NULL;
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s/%s", id, verb);
	if (cli_check_id(id, &f) || cli_call(cli, "POST", path, in, &answer, timeout_ms, &f))
		return cli_fail(cli, &f);
	if (cli->json)
		cli_print_json(cli, answer);
	else
		fprintf(cli->out, "%.8s: %s\n",
			*cli_text(answer, "id") ? cli_text(answer, "id") : id, done);
	json_decref(answer);
	return CLI_DONE;
}

static enum cli_exit run_cancel(struct cli *cli, const struct cli_words *words, json_t *values)
{
	(void)values;
	return cli_ask_session(cli, words->word[0], "cancel", NULL, CLI_CALL_MS,
			       "is being cancelled");
}

const struct cli_command cli_cancel = {
	.name = "cancel",
	.words = "ID",
	.words_min = 1,
	.words_max = 1,
	.help = "Cancel a session; the VM runs on at the source.",
	.run = run_cancel,
};

static const struct cli_option resolve_options[] = {
	{ .name = "run-here",
	  .kind = CLI_SWITCH,
	  .member = "run_here",
	  .help = "the VM is to run on this host; end the other host's QEMU first" },
	{ .name = "give-up",
	  .kind = CLI_SWITCH,
	  .member = "give_up",
	  .help = "this host's VM is to be ended" },
	{ .name = NULL },
};

static enum cli_exit run_resolve(struct cli *cli, const struct cli_words *words, json_t *values)
{
	bool run_here = json_is_true(json_object_get(values, "run_here"));
	bool give_up = json_is_true(json_object_get(values, "give_up"));
	struct failure f = { 0 };
	enum cli_exit status;
	json_t *in;

	if (run_here == give_up) {
		failure_set(&f, -EINVAL, "usage",
			    "Decide only when you know what the other side does.",
			    "resolve needs either --run-here or --give-up.");
		return cli_fail(cli, &f);
	}
	in = json_pack("{s:s}", "action", run_here ? "run-here" : "give-up");
	status = cli_ask_session(cli, words->word[0], "resolve", in, RESOLVE_MS,
				 run_here ? "resolved: the VM runs here; see that the other host's "
					    "QEMU is ended, or that host stays down"
					  : "resolved: given up here");
	json_decref(in);
	return status;
}

const struct cli_command cli_resolve = {
	.name = "resolve",
	.words = "ID",
	.words_min = 1,
	.words_max = 1,
	.options = resolve_options,
	.help = "Decide a session whose outcome is not known.",
	.run = run_resolve,
};
