// SPDX-License-Identifier: MIT
/* QEMU's option notations as one flat list of keys and values; see launch_props.h. */
#include "control/admission/launch_props.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add(struct launch_props *p, char *key, char *value)
{
	struct launch_prop *grown;

	if (!key || !value || p->n >= LAUNCH_PROPS_MAX) {
		int rc = key && value ? -E2BIG : -ENOMEM;

		free(key);
		free(value);
		return rc;
	}
	grown = realloc(p->list, (p->n + 1) * sizeof(*grown));
	if (!grown) {
		free(key);
		free(value);
		return -ENOMEM;
	}
	p->list = grown;
	p->list[p->n].key = key;
	p->list[p->n++].value = value;
	return 0;
}

/* Takes a value up to a comma that is not doubled; *text moves behind that comma. */
static char *take_value(const char **text)
{
	const char *from = *text;
	char *value = malloc(strlen(from) + 1);
	size_t n = 0;

	if (!value)
		return NULL;
	while (*from) {
		if (*from == ',' && *++from != ',')
			break;
		value[n++] = *from++;
	}
	value[n] = '\0';
	*text = from;
	return value;
}

/* One element: "key=value", the implied first value, "flag" (on) or "noflag" (off). */
static int take_element(struct launch_props *p, const char **text, const char *implied)
{
	size_t len = strcspn(*text, "=,");
	char *key;

	if ((*text)[len] == '=') {
		key = strndup(*text, len);
		*text += len + 1;
		return add(p, key, take_value(text));
	}
	if (implied) {
		p->bare = true;
		return add(p, strdup(implied), take_value(text));
	}
	key = strndup(*text, len);
	*text += len + ((*text)[len] == ',');
	if (key && !strncmp(key, "no", 2) && key[2]) {
		memmove(key, key + 2, len - 1);
		return add(p, key, strdup("off"));
	}
	return add(p, key, strdup("on"));
}

static char *scalar_text(const json_t *j)
{
	char buf[64];

	if (json_is_string(j))
		return strdup(json_string_value(j));
	if (json_is_true(j) || json_is_false(j))
		return strdup(json_is_true(j) ? "on" : "off");
	if (json_is_integer(j))
		snprintf(buf, sizeof(buf), "%" JSON_INTEGER_FORMAT, json_integer_value(j));
	else if (json_is_real(j))
		snprintf(buf, sizeof(buf), "%.17g", json_real_value(j));
	else
		buf[0] = '\0';
	return strdup(buf);
}

static int flatten(struct launch_props *p, const char *prefix, json_t *j, int depth);

static int flatten_member(struct launch_props *p, const char *prefix, const char *name, json_t *j,
			  int depth)
{
	char *key;
	int rc;

	if (asprintf(&key, "%s%s%s", prefix, *prefix ? "." : "", name) < 0)
		return -ENOMEM;
	rc = flatten(p, key, j, depth + 1);
	free(key);
	return rc;
}

static int flatten(struct launch_props *p, const char *prefix, json_t *j, int depth)
{
	const char *name;
	json_t *member;
	size_t i;
	int rc = 0;

	if (depth > 16)
		return -E2BIG;
	if (json_is_object(j)) {
		json_object_foreach (j, name, member)
			if ((rc = flatten_member(p, prefix, name, member, depth)))
				return rc;
		return 0;
	}
	if (json_is_array(j)) {
		json_array_foreach (j, i, member) {
			char index[24];

			snprintf(index, sizeof(index), "%zu", i);
			if ((rc = flatten_member(p, prefix, index, member, depth)))
				return rc;
		}
		return 0;
	}
	return add(p, strdup(prefix), scalar_text(j));
}

int launch_props_parse(struct launch_props *p, const char *text, const char *implied, bool json)
{
	int rc = 0;

	memset(p, 0, sizeof(*p));
	if (json && text[0] == '{') {
		/* Strict: QEMU's own parser takes more, and what only it takes is refused. */
		p->json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
		rc = json_is_object(p->json) ? flatten(p, "", p->json, 0) : -EINVAL;
	} else {
		while (*text && !rc) {
			rc = take_element(p, &text, implied);
			implied = NULL;
		}
	}
	if (rc)
		launch_props_release(p);
	return rc;
}

void launch_props_release(struct launch_props *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->list[i].key);
		free(p->list[i].value);
	}
	free(p->list);
	json_decref(p->json);
	memset(p, 0, sizeof(*p));
}

const char *launch_props_get(const struct launch_props *p, const char *key)
{
	for (size_t i = p->n; i-- > 0;)
		if (!strcmp(p->list[i].key, key))
			return p->list[i].value;
	return NULL;
}

bool launch_props_on(const struct launch_props *p, const char *key)
{
	static const char *const yes[] = { "on", "yes", "true", "y" };
	const char *value = launch_props_get(p, key);

	for (size_t i = 0; value && i < sizeof(yes) / sizeof(yes[0]); i++)
		if (!strcmp(value, yes[i]))
			return true;
	return false;
}

static int set_json(json_t *object, const char *key, const char *value)
{
	json_t *old = json_object_get(object, key);
	bool flag = json_is_boolean(old) && (!strcmp(value, "on") || !strcmp(value, "off"));
	json_t *new = flag ? json_boolean(value[1] == 'n') : json_string(value);

	return json_object_set_new(object, key, new) ? -ENOMEM : 0;
}

int launch_props_set(struct launch_props *p, const char *key, const char *value)
{
	bool found = false;

	if (p->json && set_json(p->json, key, value))
		return -ENOMEM;
	for (size_t i = 0; i < p->n; i++) {
		char *copy;

		if (strcmp(p->list[i].key, key))
			continue;
		copy = strdup(value);
		if (!copy)
			return -ENOMEM;
		free(p->list[i].value);
		p->list[i].value = copy;
		found = true;
	}
	return found ? 0 : add(p, strdup(key), strdup(value));
}

static void put_doubling_commas(FILE *out, const char *value)
{
	for (; *value; value++) {
		if (*value == ',')
			fputc(',', out);
		fputc(*value, out);
	}
}

char *launch_props_text(const struct launch_props *p)
{
	char *text = NULL;
	size_t len;
	FILE *out;

	if (p->json)
		return json_dumps(p->json, JSON_COMPACT);
	out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	for (size_t i = 0; i < p->n; i++) {
		if (i)
			fputc(',', out);
		if (i || !p->bare)
			fprintf(out, "%s=", p->list[i].key);
		put_doubling_commas(out, p->list[i].value);
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
