// SPDX-License-Identifier: MIT
/* Reading QEMU's command line; see qemu_args.h. */
#include "control/guest/qemu_args.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static bool is_option(const char *word, const char *option)
{
	if (word[0] != '-')
		return false;
	return !strcmp(word, option) || (word[1] == '-' && !strcmp(word + 1, option));
}

const char *qemu_args_next(char *const *argv, size_t *at, const char *option)
{
	for (size_t i = *at; argv[i]; i++) {
		if (is_option(argv[i], option) && argv[i + 1]) {
			*at = i + 2;
			return argv[i + 1];
		}
	}
	return NULL;
}

const char *qemu_args_last(char *const *argv, const char *option)
{
	const char *value, *last = NULL;
	size_t at = 1;

	while ((value = qemu_args_next(argv, &at, option)))
		last = value;
	return last;
}

bool qemu_args_flag(char *const *argv, const char *option)
{
	for (size_t i = 1; argv[0] && argv[i]; i++)
		if (is_option(argv[i], option))
			return true;
	return false;
}

/* Copies up to a single comma, undoubling pairs; returns what is behind that comma or the end. */
static const char *copy_word(const char *p, char *buf, size_t len)
{
	size_t n = 0;

	for (; *p; p++) {
		if (*p == ',' && *++p != ',')
			break;
		if (n + 1 < len)
			buf[n++] = *p;
	}
	if (len)
		buf[n] = '\0';
	return p;
}

static bool json_get(const char *text, const char *key, char *buf, size_t len)
{
	json_t *o = json_loads(text, 0, NULL);
	json_t *v = json_object_get(o, key);
	bool found = true;

	if (json_is_string(v))
		snprintf(buf, len, "%s", json_string_value(v));
	else if (json_is_boolean(v))
		snprintf(buf, len, "%s", json_is_true(v) ? "on" : "off");
	else if (json_is_integer(v))
		snprintf(buf, len, "%lld", (long long)json_integer_value(v));
	else
		found = false;
	json_decref(o);
	return found;
}

bool qemu_opt_get(const char *value, const char *key, const char *implied, char *buf, size_t len)
{
	size_t key_len = strlen(key);
	const char *p = value;
	bool found = false;

	if (value[0] == '{')
		return json_get(value, key, buf, len);
	while (*p) {
		size_t word = strcspn(p, "=,");
		bool named = p[word] == '=';
		char skipped[2];

		if (named && word == key_len && !strncmp(p, key, word)) {
			p = copy_word(p + word + 1, buf, len);
			found = true;
		} else if (!named && p == value && implied && !strcmp(implied, key)) {
			p = copy_word(p, buf, len);
			found = true;
		} else if (!named && word == key_len && !strncmp(p, key, word)) {
			/* A bare word is a switch that is on: "server", "readonly". */
			snprintf(buf, len, "on");
			p = copy_word(p, skipped, sizeof(skipped));
			found = true;
		} else {
			p = copy_word(p, skipped, sizeof(skipped));
		}
	}
	return found;
}
