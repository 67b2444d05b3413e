// SPDX-License-Identifier: MIT
/* Judging keys and values of a peer's QEMU command line; see launch_rules.h. */
#include "control/admission/launch_rules.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/admission/launch_paths.h"

#define GENERAL_HINT                                                                               \
	"start the VM at the destination yourself with -incoming defer -S and use --incoming "     \
	"qemu:/path/to/qmp.sock"

int launch_words_add(struct launch_words *w, const char *word)
{
	char **grown = realloc(w->list, (w->n + 2) * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	w->list = grown;
	w->list[w->n] = strdup(word);
	w->list[w->n + 1] = NULL;
	if (!w->list[w->n])
		return -ENOMEM;
	w->n++;
	return 0;
}

bool launch_words_have(const struct launch_words *w, const char *word)
{
	for (size_t i = 0; i < w->n; i++)
		if (!strcmp(w->list[i], word))
			return true;
	return false;
}

void launch_words_release(struct launch_words *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->list[i]);
	free(w->list);
	memset(w, 0, sizeof(*w));
}

/* A peer's text may hold anything; a message is one line of what can be shown. */
static void printable(char *to, size_t len, const char *from)
{
	size_t n = 0;

	for (; *from && n + 4 < len; from++)
		to[n++] = isprint((unsigned char)*from) ? *from : '?';
	if (*from) {
		memcpy(to + n, "...", 3);
		n += 3;
	}
	to[n] = '\0';
}

int launch_refuse(struct launch_context *c, const char *hint, const char *fmt, ...)
{
	char why[300], option[40], value[80];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	printable(option, sizeof(option), c->option);
	printable(value, sizeof(value), c->value ? c->value : "");
	return failure_set(c->failure, -EPERM, "launch-refused", hint ? hint : GENERAL_HINT,
			   "the VM's option '%s%s%s' will not be launched here: %s", option,
			   value[0] ? " " : "", value, why);
}

int launch_no_memory(struct launch_context *c)
{
	return failure_set(c->failure, -ENOMEM, "internal", NULL, "out of memory");
}

bool launch_matches(const char *patterns, const char *word)
{
	char pattern[64];

	while (*patterns) {
		size_t len = strcspn(patterns, "|");

		if (len < sizeof(pattern)) {
			memcpy(pattern, patterns, len);
			pattern[len] = '\0';
			if (!fnmatch(pattern, word, 0))
				return true;
		}
		patterns += len + (patterns[len] == '|');
	}
	return false;
}

/* Keys that QEMU collects. For all others which of two counts would be a matter of its parsers. */
#define REPEATABLE "cpus|value|path|host-nodes|hostfwd|dnssearch"

static int check_repeated(struct launch_context *c, const struct launch_props *p)
{
	for (size_t i = 0; i < p->n; i++)
		for (size_t k = 0; k < i; k++)
			if (!strcmp(p->list[i].key, p->list[k].key) &&
			    !launch_matches(REPEATABLE, p->list[i].key))
				return launch_refuse(c, NULL, "a key is given twice");
	return 0;
}

int launch_check_props(struct launch_context *c, const struct launch_props *p,
		       const struct launch_rule *rules)
{
	if (check_repeated(c, p))
		return -EPERM;
	for (size_t i = 0; i < p->n; i++) {
		const struct launch_rule *r = rules;
		int rc;

		while (r->keys && !launch_matches(r->keys, p->list[i].key))
			r++;
		if (!r->keys) {
			char key[48];

			printable(key, sizeof(key), p->list[i].key);
			return launch_refuse(c, NULL, "'%s' is not on the list of what is allowed",
					     key);
		}
		rc = (r->check ? r->check : launch_value_plain)(c, p->list[i].key, p->list[i].value,
								r->arg);
		if (rc)
			return rc;
	}
	return 0;
}

int launch_value_plain(struct launch_context *c, const char *key, const char *value,
		       const char *arg)
{
	(void)arg;
	if (strchr(value, '/'))
		return launch_refuse(c, NULL, "'%s' must not be a path", key);
	return 0;
}

int launch_value_any(struct launch_context *c, const char *key, const char *value, const char *arg)
{
	(void)c, (void)key, (void)value, (void)arg;
	return 0;
}

int launch_value_one_of(struct launch_context *c, const char *key, const char *value,
			const char *arg)
{
	if (launch_matches(arg, value))
		return 0;
	return launch_refuse(c, NULL, "'%s' must be %s", key, arg);
}

int launch_value_refused(struct launch_context *c, const char *key, const char *value,
			 const char *arg)
{
	(void)value;
	return launch_refuse(c, NULL, "'%s' %s", key, arg);
}

/* Index of the described disk that path names, by its name or as the same file here; -1. */
static int find_disk(const struct launch_context *c, const char *path)
{
	struct stat a, b;

	for (uint32_t i = 0; i < c->source->ndisks; i++)
		if (!strcmp(c->source->disks[i].path, path))
			return (int)i;
	if (stat(path, &a))
		return -1;
	for (uint32_t i = 0; i < c->source->ndisks; i++)
		if (!stat(c->source->disks[i].path, &b) && a.st_dev == b.st_dev &&
		    a.st_ino == b.st_ino)
			return (int)i;
	return -1;
}

int launch_value_disk(struct launch_context *c, const char *key, const char *value, const char *arg)
{
	const char *why, *ignored;
	int i, rc;

	(void)key, (void)arg;
	/* Firmware images are in the system's directories, for everybody to read. */
	rc = launch_path_disk(c->config, value, &why);
	if (rc && !(rc == -EACCES && c->reads_only && !launch_path_readable(value, &ignored)))
		return launch_refuse(c, NULL, "%s", why);
	/*
	 * What is opened must be what preflight judged, and what the VM uses now: after a live
	 * snapshot the command line still names the image below.
	 */
	i = find_disk(c, value);
	if (i < 0)
		return launch_refuse(c, NULL,
				     "this is no longer a disk of the VM (it was ejected, "
				     "or replaced by a snapshot)");
	c->disk_seen[i] = true;
	c->disk = &c->source->disks[i];
	return 0;
}

int launch_value_readable(struct launch_context *c, const char *key, const char *value,
			  const char *arg)
{
	const char *why;

	(void)key, (void)arg;
	/* A bare name is looked up in the binary's own firmware directories. */
	if (!strchr(value, '/'))
		return 0;
	if (launch_path_readable(value, &why))
		return launch_refuse(c, NULL, "%s", why);
	return 0;
}

int launch_plan_new_path(struct launch_context *c, const char *path)
{
	const char *why;

	if (launch_path_new(c->config, path, &why))
		return launch_refuse(c, NULL, "%s", why);
	if (launch_words_have(&c->created, path))
		return launch_refuse(c, NULL, "two options make the same file");
	return launch_words_add(&c->created, path) ? launch_no_memory(c) : 0;
}
