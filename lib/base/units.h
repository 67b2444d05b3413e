/* SPDX-License-Identifier: MIT */
/*
 * Parsing of quantities as users write them: rates are decimal bits per second (800Mbit),
 * sizes binary (64MiB; also K M G T as KiB ...), times ms, s, m, h.
 * All return 0, -EINVAL (not of the form) or -ERANGE (does not fit).
 */
#ifndef TRANSHIP_BASE_UNITS_H
#define TRANSHIP_BASE_UNITS_H

#include <stdint.h>
#include <stddef.h>

/* "10Gbit", "800Mbit", "64kbit" -> bytes per second. A bare number is bits per second. */
int units_parse_rate(const char *text, uint64_t *bytes_per_s);
/* "64MiB", "2G", "4096" -> bytes. */
int units_parse_size(const char *text, uint64_t *bytes);
/* "300ms", "10s", "5m", "1h" -> milliseconds. A bare number is refused: its unit is not known. */
int units_parse_time(const char *text, uint64_t *ms);

/* "1.9 GiB" into buf; returns buf. */
const char *units_format_size(uint64_t bytes, char *buf, size_t len);
/* "9.4 Gbit/s" into buf, from bytes per second; returns buf. */
const char *units_format_rate(double bytes_per_s, char *buf, size_t len);

#endif
