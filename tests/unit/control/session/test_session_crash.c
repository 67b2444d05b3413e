// SPDX-License-Identifier: MIT
// timeout: 600
/*
 * The crash matrix: each of the two daemons is killed at every place between two steps of a
 * migration, and started again. Whatever the place: in the end exactly one side runs the guest,
 * at no time both did, its memory is right, nothing is left of the other side or of the session,
 * and the guest can be moved again.
 *
 * The same when it is killed a second time while it recovers, when its peer is down meanwhile, and
 * when a daemon is stopped for a while (SIGSTOP) or told to end (SIGTERM) there instead.
 *
 * The guests are synthetic and real processes, and so are the daemons, data planes and guards.
 */
#include <assert.h>

#include "tests/unit/at_once.h"
#include "tests/unit/control/session_fixture.h"

#define SETTLE_MS 60000
#define CASES_MAX 200

/* Where the guest is in the end. */
enum place { AT_SOURCE, AT_DESTINATION, ANYWHERE };

struct crash {
	const char *site;
	enum side victim;
	enum place end;
};

#define JOURNAL(side, state, victim, before, after)                                                \
	{ side ".journal." state ".before", victim, before },                                      \
	{                                                                                          \
		side ".journal." state ".after", victim, after                                     \
	}

/* The source's daemon is a, the destination's b. */
static const struct crash crashes[] = {
	{ "source.find", A, AT_SOURCE },
	{ "source.check", A, AT_SOURCE },
	{ "source.start", A, AT_SOURCE },
	JOURNAL("source", "negotiated", A, AT_SOURCE, AT_SOURCE),
	JOURNAL("source", "copying", A, AT_SOURCE, AT_SOURCE),
	{ "source.copy", A, AT_SOURCE },
	{ "source.pause", A, AT_SOURCE },
	JOURNAL("source", "paused", A, AT_SOURCE, AT_SOURCE),
	{ "source.final-copy", A, AT_SOURCE },
	{ "source.device-state", A, AT_SOURCE },
	{ "source.verify", A, AT_SOURCE },
	{ "source.load", A, AT_SOURCE },
	{ "source.commit", A, AT_SOURCE },
	JOURNAL("source", "committed", A, AT_SOURCE, AT_DESTINATION),
	{ "source.answered", A, AT_DESTINATION },
	{ "source.release", A, AT_DESTINATION },
	JOURNAL("source", "running", A, AT_DESTINATION, AT_DESTINATION),
	{ "source.quit", A, AT_DESTINATION },
	{ "source.finish", A, AT_DESTINATION },
	JOURNAL("source", "done", A, AT_DESTINATION, AT_DESTINATION),

	JOURNAL("destination", "negotiated", B, AT_SOURCE, AT_SOURCE),
	JOURNAL("destination", "copying", B, AT_SOURCE, AT_SOURCE),
	{ "destination.load", B, AT_SOURCE },
	{ "destination.loaded", B, AT_SOURCE },
	JOURNAL("destination", "prepared", B, AT_SOURCE, AT_SOURCE),
	JOURNAL("destination", "committed", B, AT_DESTINATION, AT_DESTINATION),
	{ "destination.start", B, AT_DESTINATION },
	{ "destination.started", B, AT_DESTINATION },
	JOURNAL("destination", "running", B, AT_DESTINATION, AT_DESTINATION),
	JOURNAL("destination", "done", B, AT_DESTINATION, AT_DESTINATION),
};

/* Where it is decided who runs the guest. */
static const struct crash in_the_pause[] = {
	{ "source.copy", A, AT_SOURCE },
	{ "source.final-copy", A, AT_SOURCE },
	{ "source.load", A, AT_SOURCE },
	{ "source.commit", A, AT_SOURCE },
	JOURNAL("source", "committed", A, AT_SOURCE, AT_DESTINATION),
	{ "source.release", A, AT_DESTINATION },
	JOURNAL("source", "running", A, AT_DESTINATION, AT_DESTINATION),
	{ "source.quit", A, AT_DESTINATION },
	{ "destination.load", B, AT_SOURCE },
	{ "destination.loaded", B, AT_SOURCE },
	JOURNAL("destination", "prepared", B, AT_SOURCE, AT_SOURCE),
	JOURNAL("destination", "committed", B, AT_DESTINATION, AT_DESTINATION),
	{ "destination.started", B, AT_DESTINATION },
	JOURNAL("destination", "running", B, AT_DESTINATION, AT_DESTINATION),
};

/* A failure of the migration, and a crash in the course of undoing it. */
static const struct crash undone[] = {
	{ "source.device-state:error,source.rollback", A, AT_SOURCE },
	{ "source.device-state:error,source.resumed", A, AT_SOURCE },
	{ "source.load:error,source.aborted", A, AT_SOURCE },
	{ "source.commit:error,source.rollback", A, AT_SOURCE },
	{ "source.commit:error,source.resumed", A, AT_SOURCE },
	{ "source.commit:error,source.aborted", A, AT_SOURCE },
	{ "source.commit:error,source.journal.failed.before", A, AT_SOURCE },
	{ "source.commit:error,source.journal.failed.after", A, AT_SOURCE },
	{ "destination.loaded:error,destination.cleanup", B, AT_SOURCE },
	{ "destination.loaded:error,destination.cleaned", B, AT_SOURCE },
	{ "destination.loaded:error,destination.journal.failed.before", B, AT_SOURCE },
	{ "destination.start:error,destination.cleanup", B, ANYWHERE },
	{ "destination.start:error,destination.cleaned", B, AT_SOURCE },
	{ "destination.start:error,destination.journal.failed.before", B, AT_SOURCE },
	{ "destination.start:error,destination.journal.failed.after", B, AT_SOURCE },
};

static bool any_open(enum side s)
{
	json_t *list = call(s, "GET", "/v1/sessions", NULL), *each;
	bool open = !list;
	size_t i;

	json_array_foreach (list, i, each)
		open |= !json_is_true(json_object_get(each, "terminal")) ||
			!strcmp(text(each, "state"), "unresolved");
	json_decref(list);
	return open;
}

static void print_sessions(enum side s)
{
	json_t *list = call(s, "GET", "/v1/sessions", NULL);
	char *dump = json_dumps(list, JSON_INDENT(1));

	print_message("%c: %s\n", side_letters[s], dump ? dump : f.message);
	free(dump);
	json_decref(list);
}

static unsigned int deaths; /* of daemons in this case */
/* The fault of the victim's second life, or NULL. */
static const char *second_fault;

static void restart_if_dead(enum side s)
{
	if (!sides[s].daemon || !has_ended(sides[s].daemon))
		return;
	sides[s].daemon = 0;
	daemon_spawn(s, deaths++ ? NULL : second_fault);
}

/* Restarts what dies until no session is under way or unresolved. */
static void settle(bool must_die)
{
	uint64_t start = clock_ns();

	do {
		nap_ms(20);
		for (enum side s = A; s <= B; s++)
			restart_if_dead(s);
		if (clock_ms_since(start) > SETTLE_MS) {
			print_sessions(A);
			print_sessions(B);
			fail_msg("not settled within %d s", SETTLE_MS / 1000);
		}
	} while ((must_die && !deaths) || any_open(A) || any_open(B));
}

/* The first and the last beat of a log, 0 if there is none: when its guest ran, ns. */
static void beats(enum side s, uint64_t *first, uint64_t *last)
{
	char path[128], line[128];
	unsigned long long n, ns;
	FILE *file;

	*first = *last = 0;
	vm_path(s, "vm", "beats", path);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%llu %llu", &n, &ns) == 2) {
			*first = *first ? *first : ns;
			*last = ns;
		}
	if (file)
		fclose(file);
}

/* Where it runs; at no time on both sides. */
static enum side runner(void)
{
	bool at_a = vm_of(A, "vm") && !vm_has_ended(A, "vm") && vm_runs(A, "vm");
	bool at_b = vm_runs(B, "vm");
	uint64_t a_first, a_last, b_first, b_last;

	if (at_a == at_b)
		fail_msg("it runs on %s", at_a ? "both sides" : "neither side");
	beats(A, &a_first, &a_last);
	beats(B, &b_first, &b_last);
	if (at_a && b_first)
		fail_msg("it ran at the destination and runs at the source");
	if (at_b && a_last >= b_first)
		fail_msg("the source ran for %.3f ms beside the destination",
			 (double)(a_last - b_first) / 1e6);
	return at_a ? A : B;
}

static bool exists(enum side s, const char *what)
{
	char path[128];

	vm_path(s, "vm", what, path);
	return !access(path, F_OK);
}

/* The other side is clean: the VM that waits there waits still; the one that was left has gone. */
static void move_again(enum side at)
{
	json_t *session;
	char id[40];

	if (at == B) {
		if (!vm_has_ended(A, "vm"))
			fail_msg("the source's VM is left");
		if (exists(A, "ram"))
			fail_msg("the source's RAM file is left");
		vm_begin(A, "vm", true);
	}
	assert_true(begin_move(at, other(at), "vm", plain_options(other(at), "vm"), id));
	session = await_end(at, id);
	if (strcmp(text(session, "state"), "done"))
		fail_msg("the next move %s: %s", text(session, "state"),
			 text(json_object_get(session, "error"), "message"));
	json_decref(session);
	assert_true(vm_runs(other(at), "vm"));
	assert_true(vm_is_right(other(at), "vm"));
}

static void check(const struct crash *c)
{
	enum side at = runner();

	if (c->end != ANYWHERE && at != (c->end == AT_SOURCE ? A : B))
		fail_msg("it runs at the %s", at == A ? "source" : "destination");
	assert_true(vm_is_right(at, "vm"));
	assert_no_strangers();
	move_again(at);
	assert_no_strangers();
}

/* Begins the case's migration with the fault in the victim. */
static void begin_case(const struct crash *c, const char *action)
{
	char fault[160], id[40];

	snprintf(fault, sizeof(fault), "%s:%s", c->site, action);
	print_message("%c %s\n", side_letters[c->victim], fault);
	deaths = 0;
	daemon_start(A, c->victim == A ? fault : NULL);
	daemon_start(B, c->victim == B ? fault : NULL);
	vm_begin(A, "vm", false);
	vm_begin(B, "vm", true);
	begin_move(A, B, "vm", plain_options(B, "vm"), id);
}

static void killed_once(const struct crash *c)
{
	second_fault = NULL;
	begin_case(c, "kill");
	settle(true);
	check(c);
}

/* And again at whatever place of its recovery comes first. */
static void killed_twice(const struct crash *c)
{
	second_fault =
		c->victim == A
			? "source.journal.failed.before:kill,source.journal.running.after:kill,"
			  "source.quit:kill,source.finish:kill,source.journal.done.before:kill"
			: "destination.start:kill,destination.cleanup:kill,"
			  "destination.journal.running.before:kill,destination.journal.done.before:"
			  "kill";
	begin_case(c, "kill");
	settle(true);
	check(c);
}

/* Both die; the victim is back while its peer is still down. */
static void killed_with_its_peer(const struct crash *c)
{
	enum side peer = other(c->victim);
	uint64_t start = clock_ns();

	second_fault = NULL;
	begin_case(c, "kill");
	while (!has_ended(sides[c->victim].daemon)) {
		assert_true(clock_ms_since(start) < 30000);
		nap_ms(1);
	}
	sides[c->victim].daemon = 0;
	daemon_kill(peer, SIGKILL);
	deaths = 2;
	daemon_start(c->victim, NULL);
	nap_ms(300);
	daemon_start(peer, NULL);
	settle(true);
	check(c);
}

/* It hangs for longer than some waits are, then goes on as if nothing had been. */
static void stopped_for_a_while(const struct crash *c)
{
	second_fault = NULL;
	begin_case(c, "stop");
	await_stop(c->victim);
	nap_ms(1000);
	kill(sides[c->victim].daemon, SIGCONT);
	settle(false);
	check(&(struct crash){ c->site, c->victim, ANYWHERE });
}

static void told_to_end(const struct crash *c)
{
	second_fault = NULL;
	begin_case(c, "stop");
	await_stop(c->victim);
	kill(sides[c->victim].daemon, SIGTERM);
	kill(sides[c->victim].daemon, SIGCONT);
	settle(true);
	check(&(struct crash){ c->site, c->victim, ANYWHERE });
}

/* What is done at each place of a list. */
struct plan {
	const struct crash *list;
	size_t n;
	void (*run)(const struct crash *c);
	const char *name;
};

struct single {
	const struct plan *plan;
	const struct crash *c;
	char name[120];
};

static void run_single(void **state)
{
	const struct single *single = *state;
	uint64_t start = clock_ns();

	single->plan->run(single->c);
	print_message("   %.0f ms\n", clock_ms_since(start));
}

int main(void)
{
#define EACH(list, run)                                                                            \
	{                                                                                          \
		list, sizeof(list) / sizeof(list[0]), run, #run                                    \
	}
	static const struct plan plans[] = {
		EACH(crashes, killed_once),
		EACH(undone, killed_once),
		EACH(in_the_pause, killed_twice),
		EACH(in_the_pause, killed_with_its_peer),
		EACH(in_the_pause, stopped_for_a_while),
		EACH(in_the_pause, told_to_end),
	};
	const char *only = getenv("TRANSHIP_TEST_ONLY");
	static struct CMUnitTest tests[CASES_MAX];
	static struct single singles[CASES_MAX];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++)
		for (size_t k = 0; k < plans[i].n; k++) {
			struct single *one = &singles[n];

			assert(n < CASES_MAX);
			one->plan = &plans[i];
			one->c = &plans[i].list[k];
			if (only && !strstr(one->c->site, only))
				continue;
			snprintf(one->name, sizeof(one->name), "%s_%s", plans[i].name,
				 one->c->site);
			tests[n++] = (struct CMUnitTest){ one->name, run_single, fixture_begin,
							  fixture_end, one };
		}
	return run_at_once(tests, n);
}
