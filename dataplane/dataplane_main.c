// SPDX-License-Identifier: MIT
/*
 * tranship-dataplane: one session's data plane on one host. Started by transhipd, never by hand:
 * argv[1] is the number of an inherited socket over which everything else comes (ipc.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/setup.h"
#include "lib/base/log.h"

/*
 * The guest survives us; we must not survive transhipd. The signal comes when the thread that
 * started us ends; the end of the socket is the other sign, and the one that does not depend on
 * which thread that was.
 */
static int die_with_parent(int sock)
{
	struct ipc_head head;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		return -errno;
	/* It may be gone already: then its end of the socket is closed. */
	if (recv(sock, &head, sizeof(head), MSG_PEEK | MSG_DONTWAIT) == 0)
		return -ESRCH;
	return 0;
}

static void name_log(const struct ipc_config *c)
{
	static const char *const roles[] = { "",	  "src",       "dst",	   "obs",
					     "bench src", "bench dst", "post src", "post dst" };
	char who[64];

	snprintf(who, sizeof(who), "dataplane %s %02x%02x%02x%02x", roles[c->role], c->id[0],
		 c->id[1], c->id[2], c->id[3]);
	log_init(who, (enum log_level)c->log_level);
}

static int run(struct setup *s, struct failure *f)
{
	switch (s->config.role) {
	case IPC_ROLE_SOURCE:
		return source_run(s, f);
	case IPC_ROLE_DESTINATION:
	case IPC_ROLE_POSTCOPY_DESTINATION:
		return destination_run(s, f);
	case IPC_ROLE_POSTCOPY_SOURCE:
		return postcopy_source_run(s, f);
	case IPC_ROLE_BENCH_SOURCE:
	case IPC_ROLE_BENCH_DESTINATION:
		return bench_run(s, f);
	default:
		return observer_run(s, f);
	}
}

static int parse_descriptor(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	return *text && !*end && n > 2 && n < 1 << 20 && fcntl((int)n, F_GETFD) >= 0 ? (int)n : -1;
}

int main(int argc, char **argv)
{
	int sock = argc == 2 ? parse_descriptor(argv[1]) : -1, err;
	struct failure f = { 0 };
	struct setup s;

	log_init("dataplane", LOG_LEVEL_INFO);
	if (sock < 0) {
		log_error("transhipd starts this program: tranship-dataplane DESCRIPTOR");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN); /* a terminal's Ctrl-C is the CLI's to turn into a cancel */
	fcntl(sock, F_SETFD, FD_CLOEXEC);
	err = die_with_parent(sock);
	if (err)
		return 1;
	err = setup_receive(&s, sock, &f);
	if (!err) {
		name_log(&s.config);
		err = run(&s, &f);
	}
	if (err && err != -ECANCELED) {
		log_error("%s: %s", failure_is_set(&f) ? f.code : "internal",
			  failure_is_set(&f) ? f.message : strerror(-err));
		failure_set(&f, err, "internal", NULL, "the data plane failed: %s", strerror(-err));
		ipc_send(sock, IPC_FAILED, &f, -1);
	}
	setup_release(&s);
	close(sock);
	return err && err != -ECANCELED;
}
