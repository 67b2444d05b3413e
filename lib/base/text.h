/* SPDX-License-Identifier: MIT */
/*
 * Text that came from elsewhere: names, command lines and paths may be any bytes. And bytes written
 * as text.
 */
#ifndef TRANSHIP_BASE_TEXT_H
#define TRANSHIP_BASE_TEXT_H

#include <stddef.h>

/*
 * Replaces each byte that is not part of a well-formed UTF-8 character by '?', in place; JSON takes
 * nothing else. A character that was cut off by truncation goes too. Returns s.
 */
char *text_clean(char *s);

/*
 * Begins a sentence: its first letter becomes a capital one, if its first word is plain lower-case
 * letters and no program's name. Returns s.
 */
char *text_sentence(char *s);

/* Two lower-case digits a byte, and the end: out holds 2 * len + 1. */
void text_hex(char *out, const void *bytes, size_t len);

#endif
