/* SPDX-License-Identifier: MIT */
/*
 * Reading QEMU's command line: options of the forms "-name a,b=c,d=e" (a doubled comma is a comma)
 * and "-device {json}". Nothing is executed or believed; sizes are bounded by the caller's buffers.
 */
#ifndef TRANSHIP_CONTROL_QEMU_ARGS_H
#define TRANSHIP_CONTROL_QEMU_ARGS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The value of the next option of that name ("-device", also written "--device") at or after *at,
 * which is moved behind it; NULL when there is none. for (i = 1; (v = qemu_args_next(...));) ...
 */
const char *qemu_args_next(char *const *argv, size_t *at, const char *option);

/* The value of the last one, or NULL. */
const char *qemu_args_last(char *const *argv, const char *option);

/* True if an option that takes no value is there ("-S"). */
bool qemu_args_flag(char *const *argv, const char *option);

/*
 * Looks up a key in an option's value; implied is the key of a first word without "=" (as "driver"
 * for -device), NULL if the option has none. A later key replaces an earlier one. True if found;
 * buf is cut at len.
 */
bool qemu_opt_get(const char *value, const char *key, const char *implied, char *buf, size_t len);

#endif
