// SPDX-License-Identifier: MIT
/*
 * Following a session.
 *
 * Theory of operation
 *   A long poll at a time, POLL_MS each: the daemon answers at every change, so the display is
 *   fresh, and an interrupt waits POLL_MS at most. An interrupt asks the daemon to cancel, until it
 *   has agreed once, and the session is followed to its end as before: only its end says where the
 *   VM runs. Before anything was asked of the daemon it ends the waiting for its first answer.
 *
 *   When the daemon does not answer, it is asked again for a while (it may be restarting, and
 *   recovers the session); after that cli_lost.c finds out what can be known without it.
 */
#include "control/cli/cli_watch.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "control/cli/cli_progress.h"
#include "control/cli/cli_result.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/io.h"

#define POLL_MS	  250u
#define ANSWER_MS 10000u /* beyond the poll: a busy host, not a dead daemon */
#define RETRY_NS  (100 * 1000000)

static volatile sig_atomic_t interrupts;
static int interrupt_fd = -1; /* eventfd: readable once there was one */

static void on_interrupt(int number)
{
	int saved = errno;

	(void)number;
	interrupts++;
	io_event_signal(interrupt_fd);
	errno = saved;
}

void cli_interrupts_begin(void)
{
	struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART };

	interrupts = 0;
	fd_close(&interrupt_fd);
	interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN); /* a closed pager must not end what follows a migration */
}

unsigned int cli_interrupts(void)
{
	return (unsigned int)interrupts;
}

int cli_watch_init(struct cli_watch *w, struct cli *cli, struct failure *f)
{
	json_t *version = NULL;
	int err;

	*w = (struct cli_watch){ .cli = cli };
	err = cli_connect(cli, f);
	if (err)
		return err;
	client_set_interrupt(cli->client, interrupt_fd);
	err = cli_call(cli, "GET", "/v1/version", NULL, &version, CLI_CALL_MS, f);
	client_set_interrupt(cli->client, -1);
	if (!err)
		snprintf(w->state_dir, sizeof(w->state_dir), "%s", cli_text(version, "state_dir"));
	json_decref(version);
	return err;
}

/* --- interrupts ------------------------------------------------------------------------------- */

struct following {
	struct cli_watch *w;
	struct cli_progress progress;
	unsigned int told; /* interrupts that were answered */
	bool cancelling;   /* the daemon has agreed to cancel */
	json_t *last;	   /* session object */
};

static void cancel(struct following *g)
{
	struct failure f = { 0 };
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s/cancel", g->w->id);
	g->cancelling = !cli_call(g->w->cli, "POST", path, NULL, NULL, CLI_CALL_MS, &f);
	if (g->cancelling)
		cli_progress_say(&g->progress, "cancelling",
				 "Cancelling; waiting until the source runs on and the destination "
				 "is clean.");
	else
		cli_progress_say(&g->progress, f.code, f.message);
}

static void take_interrupts(struct following *g)
{
	unsigned int now = cli_interrupts();

	if (!g->w->cancels || now == g->told)
		return;
	/* what was refused is asked again: the reason may be another by now */
	if (!g->cancelling)
		cancel(g);
	else
		cli_progress_say(&g->progress, "cancelling",
				 "The session is being cancelled already; waiting for its end.");
	g->told = now;
}

/* --- the end ---------------------------------------------------------------------------------- */

/* The daemon's account of a terminal session. */
static json_t *result_of(const struct cli_watch *w, const json_t *session)
{
	json_t *result = cli_result_of(session);

	if (!*cli_text(result, "vm"))
		json_object_set_new(result, "vm", json_string(w->vm ? w->vm : ""));
	if (json_is_true(json_object_get(result, "dry_run")) &&
	    !json_object_get(result, "checks") && json_object_get(session, "checks"))
		json_object_set(result, "checks", json_object_get(session, "checks"));
	return result;
}

/* --- following -------------------------------------------------------------------------------- */

static int poll_status(struct following *g, uint64_t since, unsigned int wait_ms, json_t **session,
		       struct failure *f)
{
	char path[192];

	snprintf(path, sizeof(path), "/v1/sessions/%s?since=%" PRIu64 "&wait=%u", g->w->id, since,
		 wait_ms);
	failure_clear(f);
	return cli_call(g->w->cli, "GET", path, NULL, session, wait_ms + ANSWER_MS, f);
}

/*
 * Asks again until the daemon answers. An answer that is a failure (-EREMOTEIO: it knows nothing of
 * the session, a restart has forgotten an ended one) ends it too: the journal knows more.
 */
static int reconnect(struct following *g, json_t **session)
{
	const struct timespec pause = { .tv_nsec = RETRY_NS };
	uint64_t start = clock_ns();
	struct failure f;
	int err;

	cli_progress_say(&g->progress, "daemon-unreachable",
			 "The connection to transhipd broke; trying again.");
	do {
		nanosleep(&pause, NULL);
		err = poll_status(g, 0, 0, session, &f);
	} while (err && err != -EREMOTEIO && clock_ms_since(start) < g->w->cli->reconnect_ms);
	return err;
}

json_t *cli_watch_run(struct cli_watch *w)
{
	struct following g = { .w = w, .progress = { .cli = w->cli } };
	json_t *session = NULL, *result;
	struct failure f = { 0 };
	uint64_t since = 0;
	int err;

	for (;;) {
		take_interrupts(&g);
		err = poll_status(&g, since, POLL_MS, &session, &f);
		if (err)
			err = reconnect(&g, &session);
		if (err)
			break;
		json_decref(g.last);
		g.last = session;
		since = (uint64_t)json_integer_value(json_object_get(session, "seq"));
		cli_progress_show(&g.progress, session);
		if (json_is_true(json_object_get(session, "terminal")))
			break;
	}
	cli_progress_end(&g.progress);
	result = err ? cli_lost_result(w, g.last, err == -EREMOTEIO) : result_of(w, g.last);
	json_decref(g.last);
	return result;
}
