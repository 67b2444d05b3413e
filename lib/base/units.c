// SPDX-License-Identifier: MIT
/* Quantities as users write them; see units.h. */
#include "lib/base/units.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

struct unit {
	const char *name;
	double factor;
};

static int parse(const char *text, const struct unit *units, uint64_t *out)
{
	double value;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	value = strtod(text, &end);
	if (errno)
		return -ERANGE;
	/* strtod also reads hexadecimal and exponents, which no one writes on purpose here */
	for (const char *c = text; c < end; c++)
		if (!isdigit((unsigned char)*c) && *c != '.')
			return -EINVAL;
	while (*end == ' ')
		end++;
	for (const struct unit *u = units; u->name; u++) {
		if (strcasecmp(end, u->name))
			continue;
		value = nearbyint(value * u->factor);
		if (value >= 18446744073709551615.0)
			return -ERANGE;
		*out = (uint64_t)value;
		return 0;
	}
	return -EINVAL;
}

int units_parse_rate(const char *text, uint64_t *bytes_per_s)
{
	static const struct unit units[] = {
		{ "", 0.125 },		 { "bit", 0.125 },	{ "kbit", 125 },
		{ "Mbit", 125000 },	 { "Gbit", 125000000 }, { "Tbit", 125000000000.0 },
		{ "bit/s", 0.125 },	 { "kbit/s", 125 },	{ "Mbit/s", 125000 },
		{ "Gbit/s", 125000000 }, { NULL, 0 },
	};

	return parse(text, units, bytes_per_s);
}

int units_parse_size(const char *text, uint64_t *bytes)
{
	static const struct unit units[] = {
		{ "", 1 },
		{ "B", 1 },
		{ "K", 1024 },
		{ "KiB", 1024 },
		{ "M", 1048576 },
		{ "MiB", 1048576 },
		{ "G", 1073741824 },
		{ "GiB", 1073741824 },
		{ "T", 1099511627776.0 },
		{ "TiB", 1099511627776.0 },
		{ NULL, 0 },
	};

	return parse(text, units, bytes);
}

int units_parse_time(const char *text, uint64_t *ms)
{
	static const struct unit units[] = {
		{ "ms", 1 },	  { "s", 1000 },    { "m", 60000 },
		{ "min", 60000 }, { "h", 3600000 }, { NULL, 0 },
	};

	return parse(text, units, ms);
}

const char *units_format_size(uint64_t bytes, char *buf, size_t len)
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	int i = 0;

	while (value >= 1024 && i < 4) {
		value /= 1024;
		i++;
	}
	snprintf(buf, len, i ? "%.1f %s" : "%.0f %s", value, names[i]);
	return buf;
}

const char *units_format_rate(double bytes_per_s, char *buf, size_t len)
{
	static const char *const names[] = { "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s" };
	double value = bytes_per_s * 8;
	int i = 0;

	while (value >= 1000 && i < 4) {
		value /= 1000;
		i++;
	}
	snprintf(buf, len, "%.1f %s", value, names[i]);
	return buf;
}
