// SPDX-License-Identifier: MIT
/* Faults on demand; see fault.h. */
#include "lib/base/fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/log.h"

#define FAULTS_MAX 16
#define SITE_MAX   64

enum action { FAULT_NONE, FAULT_KILL, FAULT_STOP, FAULT_ERROR, FAULT_SLEEP };

struct fault {
	char site[SITE_MAX];
	enum action action;
	unsigned int ms;
};

bool fault_armed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault faults[FAULTS_MAX];

static int parse_action(const char *text, struct fault *f)
{
	char *end;

	if (!strcmp(text, "kill"))
		f->action = FAULT_KILL;
	else if (!strcmp(text, "stop"))
		f->action = FAULT_STOP;
	else if (!strcmp(text, "error"))
		f->action = FAULT_ERROR;
	else if (!strncmp(text, "sleep=", 6))
		f->action = FAULT_SLEEP;
	else
		return -EINVAL;
	if (f->action == FAULT_SLEEP) {
		f->ms = (unsigned int)strtoul(text + 6, &end, 10);
		if (end == text + 6 || *end || f->ms > 600000)
			return -EINVAL;
	}
	return 0;
}

/* One "site:action"; it is taken apart in place. */
static int parse_fault(char *text, struct fault *f)
{
	char *colon = strchr(text, ':');

	if (!colon || colon == text || colon - text >= SITE_MAX)
		return -EINVAL;
	*colon = '\0';
	strcpy(f->site, text);
	return parse_action(colon + 1, f);
}

int fault_set(const char *spec)
{
	AUTO_FREE char *copy = strdup(spec ? spec : "");
	struct fault parsed[FAULTS_MAX] = { 0 };
	unsigned int n = 0;
	char *next = copy, *word;

	SCOPED_LOCK(&lock);
	memset(faults, 0, sizeof(faults));
	fault_armed = false;
	while (next && *next) {
		word = strsep(&next, ",");
		if (n == FAULTS_MAX || parse_fault(word, &parsed[n++]))
			return -EINVAL;
	}
	memcpy(faults, parsed, sizeof(faults));
	fault_armed = n > 0;
	return copy ? 0 : -ENOMEM;
}

/* The fault of this site, once. */
static struct fault take(const char *site)
{
	struct fault f = { .action = FAULT_NONE };

	SCOPED_LOCK(&lock);
	for (unsigned int i = 0; i < FAULTS_MAX; i++) {
		if (faults[i].action == FAULT_NONE || strcmp(faults[i].site, site))
			continue;
		f = faults[i];
		faults[i].action = FAULT_NONE;
		break;
	}
	return f;
}

int fault_hit(const char *site)
{
	struct fault f = take(site);
	struct timespec t = { .tv_sec = f.ms / 1000, .tv_nsec = (long)(f.ms % 1000) * 1000000 };

	if (f.action == FAULT_NONE)
		return 0;
	log_warn("fault at %s", site);
	switch (f.action) {
	case FAULT_KILL:
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	case FAULT_STOP:
		raise(SIGSTOP); /* of this thread: it does not go on meanwhile */
		return 0;
	case FAULT_SLEEP:
		nanosleep(&t, NULL);
		return 0;
	default:
		return -EIO;
	}
}

int fault_hit_parts(const char *const *parts)
{
	char site[SITE_MAX] = "";
	size_t at = 0;

	for (; *parts; parts++)
		at += (size_t)snprintf(site + at, at < sizeof(site) ? sizeof(site) - at : 0, "%s%s",
				       at ? "." : "", *parts);
	return at < sizeof(site) ? fault_hit(site) : 0;
}
