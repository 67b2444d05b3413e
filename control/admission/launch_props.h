/* SPDX-License-Identifier: MIT */
/*
 * The value of a QEMU option as a list of keys and values, and back to text.
 *
 * QEMU has several notations for one thing: "a,b=c" with doubled commas, "flag" and "noflag", JSON.
 * All become the same flat list, with dots for nesting as QEMU flattens it ("file.filename"), so
 * that one set of rules judges all; and what QEMU gets is written anew from what was judged, so
 * that a difference between its parser and ours cannot hide anything.
 */
#ifndef TRANSHIP_CONTROL_LAUNCH_PROPS_H
#define TRANSHIP_CONTROL_LAUNCH_PROPS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define LAUNCH_PROPS_MAX 512 /* keys of one option */

struct launch_prop {
	char *key, *value; /* owned; booleans and numbers as QEMU writes them */
};

struct launch_props {
	struct launch_prop *list;
	size_t n;
	bool bare;    /* list[0] was written without its key, and will be again */
	json_t *json; /* the object, if it was written as JSON */
};

/*
 * Parses text. implied: the key of a first element without '=', or NULL. json: "{...}" is allowed
 * here (QEMU takes it for some options only). -EINVAL if it is not of the form, -E2BIG, -ENOMEM.
 */
int launch_props_parse(struct launch_props *p, const char *text, const char *implied, bool json);
void launch_props_release(struct launch_props *p);

/* The value that QEMU would take: the last of that key; NULL if there is none. */
const char *launch_props_get(const struct launch_props *p, const char *key);
/* True if the key is there and is a boolean's "true". */
bool launch_props_on(const struct launch_props *p, const char *key);
/*
 * Replaces every occurrence of key, or appends it. JSON: top-level keys only; a boolean member
 * stays one. -ENOMEM.
 */
int launch_props_set(struct launch_props *p, const char *key, const char *value);

/* The text for the command line, NULL without memory; caller frees. */
char *launch_props_text(const struct launch_props *p);

#endif
