// SPDX-License-Identifier: MIT
/* Progress of a session on standard error; see cli_progress.h. */
#include "control/cli/cli_progress.h"

#include <string.h>
#include <sys/ioctl.h>

#include "control/cli/cli_result.h"
#include "control/session/journal.h"
#include "lib/base/clock.h"

#define WIDTH_DEFAULT  80u
#define WIDTH_MAX      400u
#define BAR_MIN	       8u
#define BAR_MAX	       40u
#define PLAIN_EVERY_MS 2000
#define JSON_EVERY_MS  150

static double number(const json_t *j, const char *member)
{
	return json_number_value(json_object_get(j, member));
}

/* "1.2GiB": short, for a line that has many. */
static void short_size(char *buf, size_t size, double bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	int i = 0;

	while (bytes >= 999.5 && i < 4) {
		bytes /= 1024;
		i++;
	}
	snprintf(buf, size, i && bytes < 9.95 ? "%.1f%s" : "%.0f%s", bytes, units[i]);
}

static void short_rate(char *buf, size_t size, double bytes_per_s)
{
	static const char *const units[] = { "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s" };
	double bits = bytes_per_s * 8;
	int i = 0;

	while (bits >= 999.5 && i < 4) {
		bits /= 1000;
		i++;
	}
	snprintf(buf, size, i && bits < 9.95 ? "%.1f%s" : "%.0f%s", bits, units[i]);
}

enum { LEFT, ROUND, THROUGHPUT, DIRTY, PAUSE, ELAPSED, FIELDS };

/* What post-copy has in the place of rounds and of a pause. */
static void make_faults(const json_t *post, char text[FIELDS][32])
{
	snprintf(text[ROUND], sizeof(text[0]), "%.0f faults", number(post, "faults"));
	if (number(post, "faults") > 0)
		snprintf(text[PAUSE], sizeof(text[0]), "p99 %.1fms", number(post, "p99_us") / 1000);
}

/* Fills the fields in the order of display; an empty one is not known yet. */
static void make_fields(const json_t *progress, char text[FIELDS][32])
{
	const json_t *post = json_object_get(progress, "postcopy");
	double seconds = number(progress, "elapsed_ms") / 1000;
	double pause = number(progress, "predicted_downtime_ms");
	char amount[24];

	memset(text, 0, sizeof(text[0]) * FIELDS);
	if (json_is_object(post))
		make_faults(post, text);
	else if (number(progress, "round") > 0)
		snprintf(text[ROUND], sizeof(text[0]), "round %.0f", number(progress, "round"));
	short_size(amount, sizeof(amount), number(progress, "pending_bytes"));
	if (number(progress, "total_bytes") > 0)
		snprintf(text[LEFT], sizeof(text[0]), "%s left", amount);
	short_size(amount, sizeof(amount), number(progress, "dirty_rate"));
	if (number(progress, "dirty_rate") > 0)
		snprintf(text[DIRTY], sizeof(text[0]), "dirty %s/s", amount);
	if (number(progress, "throughput") > 0)
		short_rate(text[THROUGHPUT], sizeof(text[0]), number(progress, "throughput"));
	if (!json_is_object(post) && pause > 0 && pause < 600000)
		snprintf(text[PAUSE], sizeof(text[0]), "pause %.0fms", pause);
	snprintf(text[ELAPSED], sizeof(text[0]), "%d:%02d", (int)(seconds / 60), (int)seconds % 60);
}

/* Which fields fit into room columns, each with a blank before it: a mask. */
static unsigned int choose_fields(char text[FIELDS][32], unsigned int room, unsigned int *used)
{
	/* the most telling first */
	static const int order[FIELDS] = { LEFT, ROUND, THROUGHPUT, DIRTY, PAUSE, ELAPSED };
	unsigned int mask = 0;

	*used = 0;
	for (int i = 0; i < FIELDS; i++) {
		unsigned int n = (unsigned int)strlen(text[order[i]]) + 1;

		if (n == 1 || *used + n > room)
			continue;
		mask |= 1u << order[i];
		*used += n;
	}
	return mask;
}

/* Appends, never beyond size. */
static void append(char *buf, size_t size, const char *text)
{
	size_t n = strlen(buf);

	if (n < size)
		snprintf(buf + n, size - n, "%s", text);
}

/* "[####....]", width columns with the brackets. */
static void append_bar(char *buf, size_t size, unsigned int width, double percent)
{
	unsigned int inner = width - 2, full = (unsigned int)(inner * percent / 100);
	char bar[BAR_MAX + 3];

	memset(bar, '.', sizeof(bar));
	memset(bar + 1, '#', full > inner ? inner : full);
	bar[0] = '[';
	bar[width - 1] = ']';
	bar[width] = '\0';
	append(buf, size, bar);
}

/* The VM's name for a line whose columns are counted: one byte a column. */
static void plain_name(char *buf, size_t size, const char *name)
{
	snprintf(buf, size, "%.*s", (int)size - 1, name);
	for (char *p = buf; *p; p++)
		if (*p <= ' ' || *p > '~')
			*p = '?';
}

void cli_progress_line(const json_t *session, unsigned int width, char *buf, size_t size)
{
	const json_t *progress = json_object_get(session, "progress");
	char text[FIELDS][32], name[17], head[64], percent_text[8];
	const char *state = cli_text(session, "state");
	double percent = number(progress, "percent");
	unsigned int used, mask, room, bar;

	if (width >= size)
		width = (unsigned int)size - 1;
	percent = percent < 0 ? 0 : percent > 100 ? 100 : percent;
	plain_name(name, sizeof(name), cli_text(session, "vm"));
	/* the bar itself says that it copies */
	if (!strcmp(state, session_state_name(SESSION_COPYING)))
		state = "";
	snprintf(head, sizeof(head), "%s %s%s", name, state, *state ? " " : "");
	snprintf(percent_text, sizeof(percent_text), "%3.0f%%", percent);
	buf[0] = '\0';
	if (width < strlen(percent_text) + strlen(head)) {
		append(buf, width + 1, percent_text);
		return;
	}
	make_fields(progress, text);
	room = width - (unsigned int)(strlen(head) + strlen(percent_text));
	mask = choose_fields(text, room > BAR_MIN + 1 ? room - BAR_MIN - 1 : 0, &used);
	bar = room - used > BAR_MAX ? BAR_MAX : room - used ? room - used - 1 : 0;
	append(buf, size, head);
	if (bar >= BAR_MIN) {
		append_bar(buf, size, bar, percent);
		append(buf, size, " ");
	}
	append(buf, size, percent_text);
	for (int i = 0; i < FIELDS; i++) {
		if (!(mask & 1u << i))
			continue;
		append(buf, size, " ");
		append(buf, size, text[i]);
	}
}

/* --- showing ---------------------------------------------------------------------------------- */

static unsigned int terminal_width(FILE *to)
{
	struct winsize w;

	if (ioctl(fileno(to), TIOCGWINSZ, &w) || !w.ws_col)
		return WIDTH_DEFAULT;
	/* the last column is left free: some terminals wrap when it is written */
	return w.ws_col > WIDTH_MAX ? WIDTH_MAX : (unsigned int)w.ws_col - 1;
}

static void erase(struct cli_progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", p->cli->err);
	p->drawn = false;
}

static void show_json(struct cli_progress *p, const json_t *session)
{
	json_t *line = json_pack("{s:O?, s:O?, s:O?}", "id", json_object_get(session, "id"), "vm",
				 json_object_get(session, "vm"), "state",
				 json_object_get(session, "state"));

	json_object_update_missing(line, json_object_get(session, "progress"));
	cli_note_json(p->cli, line);
	json_decref(line);
}

/* Checks are told as soon as they are there: warnings as text, all of them as JSON. */
static void show_checks(struct cli_progress *p, const json_t *session)
{
	const json_t *checks = json_object_get(session, "checks");
	size_t n = json_array_size(checks);

	if (n <= p->checks_seen)
		return;
	erase(p);
	for (size_t i = p->checks_seen; i < n; i++) {
		json_t *check = json_array_get(checks, i), *one;

		if (p->cli->batch) {
			one = json_pack("{s:O}", "check", check);
			cli_note_json(p->cli, one);
		} else {
			one = json_pack("[O]", check);
			/* an error is told at the end, as the reason */
			if (!strcmp(cli_text(check, "level"), "warning"))
				cli_checks_print(p->cli->err, one, false);
		}
		json_decref(one);
	}
	p->checks_seen = n;
}

/* A bar that stopped halfway says nothing that the account of the end does not say better. */
static bool ended_early(const json_t *session)
{
	const json_t *result = json_object_get(session, "result");

	return json_is_true(json_object_get(session, "terminal")) &&
	       (strcmp(cli_text(session, "state"), session_state_name(SESSION_DONE)) ||
		json_is_true(json_object_get(result, "dry_run")));
}

void cli_progress_show(struct cli_progress *p, const json_t *session)
{
	const char *state = cli_text(session, "state");
	bool changed = strcmp(p->state, state);
	double since_ms = clock_ms_since(p->shown_ns);
	char line[WIDTH_MAX + 1];

	show_checks(p, session);
	snprintf(p->state, sizeof(p->state), "%s", state);
	if (ended_early(session) && !p->cli->batch) {
		erase(p);
		return;
	}
	if (p->cli->terminal) {
		cli_progress_line(session, terminal_width(p->cli->err), line, sizeof(line));
		fprintf(p->cli->err, "\r%s\033[K", line);
		fflush(p->cli->err);
		p->drawn = true;
		return;
	}
	if (!changed && since_ms < (p->cli->batch ? JSON_EVERY_MS : PLAIN_EVERY_MS))
		return;
	p->shown_ns = clock_ns();
	if (p->cli->batch) {
		show_json(p, session);
		return;
	}
	cli_progress_line(session, 140, line, sizeof(line));
	fprintf(p->cli->err, "%s\n", line);
	fflush(p->cli->err);
}

void cli_progress_say(struct cli_progress *p, const char *code, const char *text)
{
	erase(p);
	if (p->cli->batch) {
		json_t *j = json_pack("{s:{s:s, s:s}}", "note", "code", code, "message", text);

		cli_note_json(p->cli, j);
		json_decref(j);
		return;
	}
	fprintf(p->cli->err, "tranship: %s\n", text);
	fflush(p->cli->err);
}

void cli_progress_end(struct cli_progress *p)
{
	if (p->drawn)
		fputc('\n', p->cli->err);
	p->drawn = false;
	fflush(p->cli->err);
}
