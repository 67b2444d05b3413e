// SPDX-License-Identifier: MIT
/* A forecast as a table; see cli_forecast.h. */
#include "control/cli/cli_forecast.h"

#include <string.h>

#include "control/cli/cli.h"
#include "lib/base/units.h"

static double number(const json_t *j, const char *member)
{
	return json_number_value(json_object_get(j, member));
}

/* "41.2 s (36.0-47.9)": all in the unit of what is expected. */
static const char *time_range(const json_t *r, char *buf, size_t size)
{
	static const struct {
		double below, unit;
		const char *name;
		int digits;
	} units[] = {
		{ 1e3, 1, "ms", 0 },
		{ 300e3, 1e3, "s", 1 },
		{ 2 * 3600e3, 60e3, "min", 1 },
		{ 0, 3600e3, "h", 1 },
	};
	double expected = number(r, "expected");
	int i = 0;

	while (units[i].below > 0 && expected >= units[i].below)
		i++;
	snprintf(buf, size, "%.*f %s (%.*f-%.*f)", units[i].digits, expected / units[i].unit,
		 units[i].name, units[i].digits, number(r, "low") / units[i].unit, units[i].digits,
		 number(r, "high") / units[i].unit);
	return buf;
}

static const char *size_range(const json_t *r, char *buf, size_t size)
{
	char a[32], b[32], c[32];

	snprintf(buf, size, "%s (%s-%s)",
		 units_format_size((uint64_t)number(r, "expected"), a, sizeof(a)),
		 units_format_size((uint64_t)number(r, "low"), b, sizeof(b)),
		 units_format_size((uint64_t)number(r, "high"), c, sizeof(c)));
	return buf;
}

static void print_mode(FILE *to, const json_t *m)
{
	const json_t *rounds = json_object_get(m, "rounds");
	bool moves = strcmp(cli_text(m, "end"), "give-up") != 0;
	char count[48], total[64], pause[64], wire[96];

	snprintf(count, sizeof(count), "%.0f (%.0f-%.0f)", number(rounds, "expected"),
		 number(rounds, "low"), number(rounds, "high"));
	fprintf(to, "%-9s %-12s %-10s %-24s %-20s %s\n", cli_text(m, "mode"), cli_text(m, "end"),
		count, time_range(json_object_get(m, "total_ms"), total, sizeof(total)),
		moves ? time_range(json_object_get(m, "downtime_ms"), pause, sizeof(pause)) : "-",
		size_range(json_object_get(m, "wire_bytes"), wire, sizeof(wire)));
}

/* What the table has no room for. */
static void print_notes(FILE *to, const json_t *m)
{
	const json_t *ends = json_object_get(m, "ends");
	char text[64];
	size_t i;
	json_t *end;

	fprintf(to, "  %-9s %s", cli_text(m, "mode"), cli_text(m, "because"));
	if (number(m, "throttle_percent") > 0)
		fprintf(to, "; the VM is slowed by up to %.0f %%", number(m, "throttle_percent"));
	if (number(json_object_get(m, "postcopy_ms"), "expected") > 0)
		fprintf(to, "; memory follows for %s",
			time_range(json_object_get(m, "postcopy_ms"), text, sizeof(text)));
	json_array_foreach (ends, i, end)
		if (i)
			fprintf(to, "%s%s", i == 1 ? "; it may end otherwise: " : ", ",
				json_string_value(end));
	fputc('\n', to);
}

static void print_measured(FILE *to, const json_t *m)
{
	char a[32], b[32], c[32];

	if (!m)
		return;
	fprintf(to, "  measured  %s/s dirtied, %s across (wire), working set %s\n",
		units_format_size((uint64_t)number(m, "dirty_rate_bytes_per_s"), a, sizeof(a)),
		units_format_rate(number(m, "path_bytes_per_s"), b, sizeof(b)),
		units_format_size((uint64_t)number(m, "working_set_bytes"), c, sizeof(c)));
}

void cli_forecast_print(FILE *to, const json_t *f)
{
	const json_t *goals = json_object_get(f, "goals"), *costs = json_object_get(f, "costs");
	const json_t *modes = json_object_get(f, "modes");
	char name[128], ram[32], a[32];
	size_t i;
	json_t *m;

	cli_clean(cli_text(f, "name"), name, sizeof(name));
	fprintf(to, "%s%s%s, a pause of at most %.0f ms\n", name, *name ? ": " : "",
		units_format_size((uint64_t)number(f, "ram_bytes"), ram, sizeof(ram)),
		number(goals, "max_downtime_ms"));
	print_measured(to, json_object_get(f, "measured"));
	fprintf(to, "%-9s %-12s %-10s %-24s %-20s %s\n", "MODE", "END", "ROUNDS", "TOTAL",
		"DOWNTIME", "ON THE WIRE");
	json_array_foreach (modes, i, m)
		print_mode(to, m);
	json_array_foreach (modes, i, m)
		print_notes(to, m);
	fprintf(to,
		"  costs     a scan %.1f ms, a pause with nothing to send %.1f ms, bitmaps %s\n",
		number(costs, "scan_ms"), number(costs, "floor_ms"),
		units_format_size((uint64_t)number(costs, "source_memory_bytes"), a, sizeof(a)));
	fprintf(to, "In brackets: if all rates were %.0f %% lower or higher.\n",
		100 * number(f, "spread"));
}
