// SPDX-License-Identifier: MIT
/*
 * The plan for launching a peer's VM; see launch.h.
 *
 * Theory of operation
 *   The peer's command line is read as QEMU reads it (one or two dashes, the next word as value),
 *   and every option is looked up in launch_options[]. An option is parsed into keys, judged, and
 *   written anew from what was judged: nothing of the peer's text reaches QEMU unread. What is not
 *   on a list is refused, never passed on.
 *
 *   Then both directions are compared with what the source described: a disk or RAM region that
 *   the command line has and the VM has not (ejected, replaced by a snapshot) is refused where it
 *   is judged; one that the VM has and the command line has not (plugged in later) is refused at
 *   the end. Devices without disks that were plugged in later show when the state is loaded, which
 *   fails and leaves the source running.
 *
 *   The checks read the file system (what exists, what kind it is), and change nothing.
 */
#include "control/admission/launch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/admission/launch_rules.h"

#define ARGV_WORDS_MAX 4096
#define ARGV_WORD_MAX  (64u << 10)
/* How long QEMU may take until QMP answers: itself, and for preallocating RAM (one thread, slow).
 */
#define START_MS	    15000u
#define PREALLOC_MS_PER_GIB 1000u

static const struct launch_option *find_option(const char *word)
{
	const char *name = word + 1;

	if (name[0] == '-')
		name++;
	for (const struct launch_option *o = launch_options; o->names; o++)
		if (name[0] && !strpbrk(name, "*?[\\|") && launch_matches(o->names, name))
			return o;
	return NULL;
}

static int judge_props(struct launch_context *c, const struct launch_option *o, char **value)
{
	struct launch_props p;
	char *text = NULL;
	int rc = launch_props_parse(&p, *value, o->implied, o->json);

	if (rc)
		return launch_refuse(c, NULL, "it is malformed");
	c->reads_only = launch_props_on(&p, "readonly") || launch_props_on(&p, "read-only");
	if (o->rules)
		rc = launch_check_props(c, &p, o->rules);
	if (!rc && o->props)
		rc = o->props(c, &p);
	if (!rc && !(text = launch_props_text(&p)))
		rc = launch_no_memory(c);
	launch_props_release(&p);
	if (rc)
		return rc;
	free(*value);
	*value = text;
	return 0;
}

/* Judges one option and appends it to the new command line. value is owned, NULL if it takes none.
 */
static int take_option(struct launch_context *c, const struct launch_option *o, char **value)
{
	int rc = 0;

	c->disk = NULL;
	c->reads_only = false;
	c->rename = NULL;
	if (o->verdict == LAUNCH_REFUSE)
		return launch_refuse(c, NULL, "%s", o->why);
	if (o->verdict == LAUNCH_DROP)
		return 0;
	if (o->seen)
		o->seen(c);
	if (o->text)
		rc = o->text(c, value);
	else if (o->rules || o->props)
		rc = judge_props(c, o, value);
	if (rc)
		return rc;
	if (launch_words_add(&c->argv, c->rename ? c->rename : c->option) ||
	    (*value && launch_words_add(&c->argv, *value)))
		return launch_no_memory(c);
	return 0;
}

/* An image named without an option, as the first disk. */
static int take_image(struct launch_context *c, const char *word)
{
	char *value = strdup(word);
	int rc;

	c->option = "";
	c->value = word;
	c->disk = NULL;
	c->reads_only = false;
	rc = value ? launch_disk(c, &value) : launch_no_memory(c);
	if (!rc && (launch_words_add(&c->argv, c->rename) || launch_words_add(&c->argv, value)))
		rc = launch_no_memory(c);
	free(value);
	return rc;
}

static int take_words(struct launch_context *c)
{
	char *const *argv = c->source->argv;
	int rc = 0;

	for (size_t i = 1; argv[i] && !rc; i++) {
		const struct launch_option *o;
		char *value = NULL;

		if (argv[i][0] != '-') {
			rc = take_image(c, argv[i]);
			continue;
		}
		c->option = argv[i];
		c->value = NULL;
		o = find_option(argv[i]);
		if (!o)
			return launch_refuse(c, NULL, "it is not on the list of what is allowed");
		if (o->has_value) {
			if (!argv[i + 1])
				return launch_refuse(c, NULL, "it has no value");
			c->value = argv[++i];
			value = strdup(c->value);
			if (!value)
				return launch_no_memory(c);
		}
		rc = take_option(c, o, &value);
		free(value);
	}
	return rc;
}

/* The configured binary that the first word means: the same path, or else the same name. */
const char *launch_binary(const struct config *config, const char *word)
{
	const char *slash = strrchr(word, '/');
	const char *name = slash ? slash + 1 : word;

	for (unsigned int i = 0; i < config->nqemu_binaries; i++)
		if (!strcmp(config->qemu_binaries[i], word))
			return config->qemu_binaries[i];
	for (unsigned int i = 0; i < config->nqemu_binaries; i++) {
		const char *base = strrchr(config->qemu_binaries[i], '/');

		if (base && !strcmp(base + 1, name))
			return config->qemu_binaries[i];
	}
	return NULL;
}

static int take_binary(struct launch_context *c)
{
	const char *binary;

	c->option = c->source->argv[0];
	c->value = NULL;
	binary = launch_binary(c->config, c->option);
	if (!binary)
		return launch_refuse(
			c,
			"add the binary to qemu-binary in transhipd's configuration, or "
			"use --incoming",
			"this QEMU is not among the binaries that may be launched here");
	if (access(binary, X_OK))
		return launch_refuse(c, "install it", "there is no %s here", binary);
	return launch_words_add(&c->argv, binary) ? launch_no_memory(c) : 0;
}

static int check_source(struct launch_context *c)
{
	const struct guest_description *d = c->source;
	const char *m = d->machine;
	size_t n = 0, id = strlen(c->session_id);

	c->option = "command line";
	c->value = NULL;
	if (id < 8 || id > 64 || strspn(c->session_id, "0123456789abcdef") != id)
		return failure_set(c->failure, -EINVAL, "internal", NULL, "malformed session id");
	if (!d->argv || !d->argv[0])
		return launch_refuse(c, NULL, "the source did not say how the VM was started");
	for (; d->argv[n]; n++)
		if (strlen(d->argv[n]) > ARGV_WORD_MAX)
			break;
	if (d->argv[n] || n > ARGV_WORDS_MAX)
		return launch_refuse(c, NULL, "it is too long");
	if (!m[0] ||
	    strspn(m, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
		    strlen(m))
		return launch_refuse(c, NULL, "the source did not say its machine type");
	return 0;
}

/* What the VM has and its command line has not. */
static int check_plugged(struct launch_context *c)
{
	static const char hint[] =
		"take it away from the VM first, or start a VM that has it at the "
		"destination and use --incoming";
	const struct guest_description *d = c->source;
	const char *plugged =
		json_string_value(json_array_get(json_object_get(d->extra, "hotplugged"), 0));

	c->option = "command line";
	c->value = NULL;
	if (plugged)
		return launch_refuse(c, hint, "'%.64s' was plugged in later", plugged);
	for (uint32_t i = 0; i < d->nregions; i++)
		if (!c->region_seen[i] && d->regions[i].backing != GUEST_BACKING_PRIVATE)
			return launch_refuse(c, hint, "RAM '%.64s' was plugged in later",
					     d->regions[i].id);
	for (uint32_t i = 0; i < d->ndisks; i++)
		if (!c->disk_seen[i] && d->disks[i].path[0] == '/' &&
		    !strstr(d->disks[i].id, "/backing")) /* the image above opens it */
			return launch_refuse(c, hint, "disk '%.128s' was plugged in later",
					     d->disks[i].path);
	return 0;
}

static int find_qmp(struct launch_context *c, struct launch_plan *p)
{
	const char *path = c->qmp_paths.n ? c->qmp_paths.list[0] : NULL;

	for (size_t i = 0; !path && i < c->socket_ids.n; i++)
		if (launch_words_have(&c->controls, c->socket_ids.list[i]))
			path = c->socket_paths.list[i];
	if (!path)
		return launch_refuse(
			c, "start the VM with -qmp unix:/path/to/qmp.sock,server=on,wait=off",
			"it has no QMP socket of its own");
	if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return launch_refuse(c, NULL, "the path of its QMP socket is too long");
	snprintf(p->qmp_path, sizeof(p->qmp_path), "%s", path);
	return 0;
}

static int finish(struct launch_context *c, struct launch_plan *p)
{
	const struct guest_description *d = c->source;
	uint64_t prealloc = 0;
	int rc = check_plugged(c);

	if (!rc)
		rc = find_qmp(c, p);
	if (rc)
		return rc;
	if ((!c->machine_typed &&
	     (launch_words_add(&c->argv, "-machine") || launch_words_add(&c->argv, d->machine))) ||
	    (!c->display_seen &&
	     (launch_words_add(&c->argv, "-display") || launch_words_add(&c->argv, "none"))) ||
	    launch_words_add(&c->argv, "-incoming") || launch_words_add(&c->argv, "defer") ||
	    launch_words_add(&c->argv, "-S"))
		return launch_no_memory(c);
	for (uint32_t i = 0; i < d->nregions; i++)
		if (d->regions[i].prealloc)
			prealloc += d->regions[i].size >> 30;
	if (prealloc > 1u << 20)
		prealloc = 1u << 20;
	p->start_ms = START_MS + (unsigned int)prealloc * PREALLOC_MS_PER_GIB;
	if (snprintf(p->log_path, sizeof(p->log_path), "%s/log/%s.log", c->config->state_dir,
		     c->session_id) >= (int)sizeof(p->log_path))
		return failure_set(c->failure, -ENAMETOOLONG, "internal", NULL,
				   "the state directory's path is too long");
	return 0;
}

int launch_plan(struct launch_plan *p, const struct guest_description *source,
		const struct config *c, const char *session_id, struct failure *f)
{
	struct launch_context context = {
		.source = source, .config = c, .session_id = session_id, .failure = f
	};
	int rc;

	memset(p, 0, sizeof(*p));
	context.disk_seen = calloc(source->ndisks + 1, sizeof(bool));
	context.region_seen = calloc(source->nregions + 1, sizeof(bool));
	rc = context.disk_seen && context.region_seen ? check_source(&context)
						      : launch_no_memory(&context);
	if (!rc)
		rc = take_binary(&context);
	if (!rc)
		rc = take_words(&context);
	if (!rc)
		rc = finish(&context, p);
	if (!rc) {
		p->argv = context.argv.list;
		p->created = context.created.list;
		memset(&context.argv, 0, sizeof(context.argv));
		memset(&context.created, 0, sizeof(context.created));
	}
	launch_words_release(&context.argv);
	launch_words_release(&context.created);
	launch_words_release(&context.socket_ids);
	launch_words_release(&context.socket_paths);
	launch_words_release(&context.controls);
	launch_words_release(&context.qmp_paths);
	free(context.disk_seen);
	free(context.region_seen);
	return rc;
}

static void free_list(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free(list);
}

void launch_plan_release(struct launch_plan *p)
{
	free_list(p->argv);
	free_list(p->created);
	memset(p, 0, sizeof(*p));
}
