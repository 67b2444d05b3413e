// SPDX-License-Identifier: MIT
/* The result of a migration: the contract's object, and its account for a person. */
#include "control/cli/cli_result.h"

#include <string.h>

#include "control/session/journal.h"
#include "lib/base/units.h"

/* --- the object ------------------------------------------------------------------------------- */

static json_t *nulls(const char *const *members)
{
	json_t *j = json_object();

	for (; *members; members++)
		json_object_set_new(j, *members, json_null());
	return j;
}

/* In the order in which the contract lists them. */
static json_t *template(void)
{
	static const char *const first[] = { "id",	    "vm",      "status",     "mode",
					     "transport",   "tx",      "congestion", "encrypt",
					     "streams",	    "tracker", "total_ms",   "setup_ms",
					     "downtime_ms", NULL };
	static const char *const downtime[] = { "pause_ms", "final_copy_ms", "state_ms",
						"resume_ms", NULL };
	static const char *const ram[] = { "total_bytes",     "zero_bytes",
					   "raw_bytes",	      "zstd_in_bytes",
					   "zstd_out_bytes",  "delta_in_bytes",
					   "delta_out_bytes", "wire_bytes",
					   "zero_copy_bytes", NULL };
	static const char *const encode[] = { "level", "changes", "cpu_ms", NULL };
	static const char *const cpu[] = { "source", "destination", NULL };
	json_t *j = nulls(first);

	json_object_set_new(j, "downtime", nulls(downtime));
	json_object_set_new(j, "rounds", json_array());
	json_object_set_new(j, "decisions", json_array());
	json_object_set_new(j, "ram", nulls(ram));
	json_object_set_new(j, "compress", json_null());
	json_object_set_new(j, "encode", nulls(encode));
	json_object_set_new(j, "disks", json_array());
	json_object_set_new(j, "addresses", json_array());
	json_object_set_new(j, "cpu_ms", nulls(cpu));
	json_object_set_new(j, "rss_bytes", nulls(cpu));
	json_object_set_new(j, "throttle_max_percent", json_null());
	json_object_set_new(j, "postcopy", json_null());
	json_object_set_new(j, "reason", json_null());
	json_object_set_new(j, "error", json_null());
	return j;
}

static const char *status_of(const struct failure *f)
{
	if (!f)
		return "completed";
	switch (cli_exit_of(f)) {
	case CLI_USAGE:
	case CLI_REFUSED:
		return "refused";
	case CLI_CANCELLED:
		return "cancelled";
	case CLI_UNRESOLVED:
		return "unresolved";
	default:
		return "failed";
	}
}

static void set_text(json_t *j, const char *member, const char *text)
{
	json_t *value = text ? json_string(text) : NULL;

	if (value)
		json_object_set_new(j, member, value);
}

json_t *cli_result_new(const char *id, const char *vm, const char *status, const struct failure *f)
{
	json_t *j = template();

	set_text(j, "id", id);
	set_text(j, "vm", vm);
	set_text(j, "status", status ? status : status_of(f));
	if (f)
		json_object_set_new(j, "error",
				    json_pack("{s:s, s:s, s:s}", "code", f->code, "message",
					      f->message, "hint", f->hint));
	return j;
}

json_t *cli_result_from(const json_t *given)
{
	json_t *j = template();
	const char *member;
	json_t *value;

	json_object_foreach ((json_t *)given, member, value) {
		json_t *mine = json_object_get(j, member);

		if (json_is_object(mine) && json_is_object(value))
			json_object_update(mine, value);
		else if (!json_is_object(mine) || !json_is_null(value))
			json_object_set(j, member, value);
	}
	return j;
}

static const char *status_of_state(const char *state)
{
	if (!strcmp(state, session_state_name(SESSION_DONE)))
		return "completed";
	if (!strcmp(state, session_state_name(SESSION_CANCELLED)))
		return "cancelled";
	if (!strcmp(state, session_state_name(SESSION_FAILED)))
		return "failed";
	return "unresolved";
}

json_t *cli_result_of(const json_t *session)
{
	const json_t *given = json_object_get(session, "result");
	const json_t *error = json_object_get(session, "error");
	const char *side = cli_text(session, "side");
	bool leads = !*side || !strcmp(side, "source");
	struct failure f = { 0 };
	json_t *result;

	if (leads && json_is_object(given))
		return cli_result_from(given);
	failure_set(&f, 0, cli_text(error, "code"), cli_text(error, "hint"), "%s",
		    cli_text(error, "message"));
	result = cli_result_new(cli_text(session, "id"), cli_text(session, "vm"),
				status_of_state(cli_text(session, "state")),
				failure_is_set(&f) ? &f : NULL);
	if (leads)
		return result;
	set_text(result, "side", side);
	if (json_is_object(given))
		json_object_set(result, "account", (json_t *)given);
	return result;
}

enum cli_exit cli_result_exit(const json_t *result)
{
	static const struct {
		const char *status;
		enum cli_exit exit;
	} exits[] = {
		{ "completed", CLI_DONE },	{ "started", CLI_DONE },
		{ "refused", CLI_REFUSED },	{ "failed", CLI_FAILED },
		{ "cancelled", CLI_CANCELLED }, { "unresolved", CLI_UNRESOLVED },
	};
	const char *status = cli_text(result, "status");

	if (!strcmp(cli_text(json_object_get(result, "error"), "code"), "usage"))
		return CLI_USAGE;
	for (size_t i = 0; i < sizeof(exits) / sizeof(exits[0]); i++)
		if (!strcmp(exits[i].status, status))
			return exits[i].exit;
	return CLI_UNRESOLVED; /* a word this version does not know: nothing may be assumed */
}

/* --- the account ------------------------------------------------------------------------------ */

static double number(const json_t *j, const char *member)
{
	return json_number_value(json_object_get(j, member));
}

static const char *size_text(const json_t *j, const char *member, char *buf, size_t len)
{
	return units_format_size((uint64_t)number(j, member), buf, len);
}

#define UNKNOWN "not known since transhipd was restarted"

static bool is_known(const json_t *j, const char *member)
{
	return json_is_number(json_object_get(j, member));
}

/* True if only part of what happened is told: the rest was known to a transhipd that is gone. */
static bool is_restarted(const json_t *result)
{
	return json_is_true(json_object_get(result, "restarted"));
}

static void print_downtime(FILE *to, const json_t *result)
{
	const json_t *d = json_object_get(result, "downtime");

	if (is_restarted(result) && !is_known(result, "downtime_ms")) {
		fprintf(to, "  downtime   " UNKNOWN "\n");
		return;
	}
	fprintf(to,
		"  downtime   %.1f ms: pause %.1f, final copy %.1f, device state %.1f, resume "
		"%.1f\n",
		number(result, "downtime_ms"), number(d, "pause_ms"), number(d, "final_copy_ms"),
		number(d, "state_ms"), number(d, "resume_ms"));
}

static void print_rounds(FILE *to, const json_t *result)
{
	const json_t *rounds = json_object_get(result, "rounds"), *r;
	size_t n = json_array_size(rounds), i;
	char size[32];

	if (!n && is_restarted(result)) {
		fprintf(to, "  rounds     " UNKNOWN "\n");
		return;
	}
	fprintf(to, "  rounds     %zu\n", n);
	json_array_foreach ((json_t *)rounds, i, r) {
		/* of many, the first and the last say what happened */
		if (n > 12 && i >= 6 && i < n - 6) {
			if (i == 6)
				fprintf(to, "             ...\n");
			continue;
		}
		fprintf(to, "    %-8.0f %.0f pages, %s on the wire, %.1f ms\n", number(r, "n"),
			number(r, "pages"), size_text(r, "wire_bytes", size, sizeof(size)),
			number(r, "ms"));
	}
}

/* One kind of encoding, if any of it was used. */
static void print_encoding(FILE *to, const json_t *ram, const char *name, const char *in,
			   const char *out)
{
	char a[32], b[32];

	if (number(ram, in) <= 0)
		return;
	fprintf(to, ", %s %s", name, size_text(ram, in, a, sizeof(a)));
	if (out)
		fprintf(to, " as %s", size_text(ram, out, b, sizeof(b)));
}

static void print_ram(FILE *to, const json_t *result)
{
	const json_t *ram = json_object_get(result, "ram");
	double ms = number(result, "total_ms") - number(result, "setup_ms");
	char size[32], rate[32];

	if (is_restarted(result) && !is_known(ram, "wire_bytes")) {
		fprintf(to, "  RAM        " UNKNOWN "\n");
		return;
	}
	fprintf(to, "  RAM        %s", size_text(ram, "total_bytes", size, sizeof(size)));
	print_encoding(to, ram, "never touched", "hole_bytes", NULL);
	print_encoding(to, ram, "zero", "zero_bytes", NULL);
	print_encoding(to, ram, "there already", "same_bytes", NULL);
	print_encoding(to, ram, "raw", "raw_bytes", NULL);
	print_encoding(to, ram, "of that without copying", "zero_copy_bytes", NULL);
	print_encoding(to, ram, "zstd", "zstd_in_bytes", "zstd_out_bytes");
	print_encoding(to, ram, "delta", "delta_in_bytes", "delta_out_bytes");
	print_encoding(to, ram, "left for later", "deferred_bytes", NULL);
	fprintf(to, "\n  wire       %s", size_text(ram, "wire_bytes", size, sizeof(size)));
	if (ms > 0)
		fprintf(to, ", %s on average",
			units_format_rate(number(ram, "wire_bytes") * 1000 / ms, rate,
					  sizeof(rate)));
	/* what it had sent until then was in its data plane only */
	if (is_restarted(result) && json_is_object(json_object_get(result, "postcopy")))
		fprintf(to, ", and what post-copy sent before transhipd was restarted");
	fputc('\n', to);
}

/* "1.5 s", "40.1 ms", "0.041 ms", of microseconds. */
static const char *wait_text(const json_t *j, const char *member, char *buf, size_t len)
{
	double us = number(j, member);

	snprintf(buf, len,
		 us >= 1e6   ? "%.1f s"
		 : us >= 1e4 ? "%.1f ms"
			     : "%.3f ms",
		 us >= 1e6 ? us / 1e6 : us / 1e3);
	return buf;
}

/* What the guest's faults cost it. */
static void print_postcopy(FILE *to, const json_t *p)
{
	char median[24], p99[24], longest[24];

	if (!json_is_object(p))
		return;
	fprintf(to, "  post-copy  %.0f faults", number(p, "faults"));
	if (number(p, "faults") > 0)
		fprintf(to, ", median %s, p99 %s, longest %s",
			wait_text(p, "p50_us", median, sizeof(median)),
			wait_text(p, "p99_us", p99, sizeof(p99)),
			wait_text(p, "max_us", longest, sizeof(longest)));
	if (json_is_true(json_object_get(p, "complete")) && is_known(p, "complete_ms"))
		fprintf(to, "; complete %.2f s after the switch-over",
			number(p, "complete_ms") / 1000);
	fputc('\n', to);
	if (number(p, "interruptions") > 0)
		fprintf(to, "             interrupted %.0f time%s, %.3f s in all\n",
			number(p, "interruptions"), number(p, "interruptions") == 1 ? "" : "s",
			number(p, "interrupted_ms") / 1000);
}

static void print_completed(FILE *to, const json_t *result)
{
	const json_t *cpu = json_object_get(result, "cpu_ms");
	const json_t *ram = json_object_get(result, "ram");
	char vm[128];

	cli_clean(cli_text(result, "vm"), vm, sizeof(vm));
	if (is_restarted(result) && !is_known(result, "total_ms"))
		fprintf(to, "%s has moved; how long it took is " UNKNOWN, vm);
	else
		fprintf(to, "%s has moved in %.2f s", vm, number(result, "total_ms") / 1000);
	if (is_known(result, "downtime_ms"))
		fprintf(to, ", downtime %.1f ms", number(result, "downtime_ms"));
	fputc('\n', to);
	if (is_known(result, "setup_ms"))
		fprintf(to, "  setup      %.0f ms\n", number(result, "setup_ms"));
	print_downtime(to, result);
	print_rounds(to, result);
	print_postcopy(to, json_object_get(result, "postcopy"));
	print_ram(to, result);
	if (is_known(cpu, "source") || !is_restarted(result))
		fprintf(to, "  CPU        source %.2f s, destination %.2f s\n",
			number(cpu, "source") / 1000, number(cpu, "destination") / 1000);
	if (*cli_text(result, "transport"))
		fprintf(to,
			"  by         %s %s, %.0f stream%s, %s, encryption %s, tracker %s, %s\n",
			cli_text(result, "transport"), cli_text(result, "congestion"),
			number(result, "streams"), number(result, "streams") == 1 ? "" : "s",
			cli_text(result, "tx"), cli_text(result, "encrypt"),
			cli_text(result, "tracker"), cli_text(result, "mode"));
	if (number(ram, "verified_chunks") > 0)
		fprintf(to, "  verified   %.0f chunks of 2 MiB, all equal\n",
			number(ram, "verified_chunks"));
	if (number(result, "throttle_max_percent") > 0)
		fprintf(to, "  throttle   at most %.0f %%\n",
			number(result, "throttle_max_percent"));
}

static void print_error(struct cli *cli, const json_t *error)
{
	struct failure f = { 0 };

	if (!*cli_text(error, "code"))
		return;
	failure_set(&f, 0, cli_text(error, "code"), cli_text(error, "hint"), "%s",
		    cli_text(error, "message"));
	cli_print_failure(cli, &f);
}

static void print_failed(struct cli *cli, const json_t *result)
{
	const char *status = cli_text(result, "status");
	char vm[128];

	cli_clean(cli_text(result, "vm"), vm, sizeof(vm));
	if (!strcmp(status, "refused"))
		fprintf(cli->err, "%s was not moved: refused, nothing was changed\n", vm);
	else if (!strcmp(status, "unresolved"))
		fprintf(cli->err, "%s: which side may run it is NOT KNOWN; a person must decide\n",
			vm);
	else
		fprintf(cli->err, "%s was not moved: %s, it stays at the source\n", vm, status);
	print_error(cli, json_object_get(result, "error"));
}

/* A session that another host leads, or that moves nothing: what this one knows of its end. */
static void print_led(struct cli *cli, const json_t *result)
{
	const json_t *account = json_object_get(result, "account");
	bool arrives = !strcmp(cli_text(result, "side"), "destination");
	const char *status = cli_text(result, "status");
	char vm[128], size[32];

	cli_clean(cli_text(result, "vm"), vm, sizeof(vm));
	if (arrives && !strcmp(status, "completed")) {
		fprintf(cli->out, "%s has arrived\n", vm);
		print_postcopy(cli->out, json_object_get(account, "postcopy"));
		if (number(account, "cpu_ms") > 0)
			fprintf(cli->out, "  CPU        %.2f s, memory %s\n",
				number(account, "cpu_ms") / 1000,
				size_text(account, "rss_bytes", size, sizeof(size)));
	} else if (arrives && !strcmp(status, "unresolved")) {
		fprintf(cli->err, "%s: which side may run it is NOT KNOWN; a person must decide\n",
			vm);
	} else if (arrives) {
		fprintf(cli->err, "%s has not arrived: %s\n", vm, status);
	}
	print_error(cli, json_object_get(result, "error"));
}

static void print_dry_run(FILE *to, const json_t *result)
{
	const json_t *f = json_object_get(result, "forecast");
	char because[200];

	if (!strcmp(cli_text(f, "end"), "give-up"))
		fprintf(to,
			"Nothing stands against moving the VM, but as it is now the migration "
			"would NOT succeed: it would be given up, as %s. Nothing was changed.\n",
			cli_clean(cli_text(f, "because"), because, sizeof(because)));
	else
		fprintf(to, "The VM can be moved. Nothing was changed.\n");
}

void cli_result_print(struct cli *cli, const json_t *result)
{
	bool dry = json_is_true(json_object_get(result, "dry_run"));

	if (*cli_text(result, "side"))
		print_led(cli, result);
	else if (strcmp(cli_text(result, "status"), "completed"))
		print_failed(cli, result);
	else if (dry)
		print_dry_run(cli->out, result);
	else
		print_completed(cli->out, result);
	fflush(cli->out);
	fflush(cli->err);
}

void cli_checks_print(FILE *to, const json_t *checks, bool all)
{
	size_t i;
	json_t *c;

	json_array_foreach ((json_t *)checks, i, c) {
		const char *level = cli_text(c, "level"), *hint = cli_text(c, "hint");
		char text[400];

		if (!all && !strcmp(level, "ok"))
			continue;
		if (all)
			fprintf(to, "  %-8s %-10s %s\n", level, cli_text(c, "check"),
				cli_clean(cli_text(c, "message"), text, sizeof(text)));
		else
			fprintf(to, "%s: %s\n", level,
				cli_clean(cli_text(c, "message"), text, sizeof(text)));
		if (*hint && strcmp(level, "ok"))
			fprintf(to, "%s%s\n", all ? "                      " : "         ",
				cli_clean(hint, text, sizeof(text)));
	}
}
