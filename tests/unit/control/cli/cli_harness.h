/* SPDX-License-Identifier: MIT */
/*
 * The command line run inside a test program against the real API over a fake host: what it writes,
 * how it exits, and scripts of session objects for a migration to go through. Included once.
 */
#ifndef TRANSHIP_TESTS_CLI_HARNESS_H
#define TRANSHIP_TESTS_CLI_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>

#include "control/api.h"
#include "control/cli/cli.h"
#include "control/cli/cli_watch.h"
#include "tests/unit/control/fake_host.h"

static char dir[64], sock[100];
static struct api *api;
static char *out_text, *err_text;
static size_t out_size, err_size;
static bool terminal;

/* In the library's place: what the VM would answer. */
static bool guest_runs;
static unsigned int guest_asked;

bool cli_guest_runs(pid_t pid, uint64_t start_time, unsigned int limit_ms)
{
	assert_int_equal(pid, 4711);
	assert_int_equal(start_time, 99);
	assert_true(limit_ms >= 1000);
	guest_asked++;
	return guest_runs;
}

static inline int setup(void **state)
{
	struct failure f = { 0 };

	(void)state;
	fake_reset();
	terminal = guest_runs = false;
	guest_asked = 0;
	snprintf(dir, sizeof(dir), "/tmp/test_cli.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(sock, sizeof(sock), "%s/s", dir);
	snprintf(fake.config.state_dir, sizeof(fake.config.state_dir), "%s/state", dir);
	return api_new(&api, &fake, sock, &f) ? -1 : 0;
}

static inline int teardown(void **state)
{
	char command[128];

	(void)state;
	api_free(api);
	api = NULL;
	free(out_text);
	free(err_text);
	out_text = err_text = NULL;
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* Runs "tranship --socket SOCK" and the words, which end with NULL. */
static inline int run_words(const char **words)
{
	char *argv[40] = { "tranship", "--socket", sock };
	struct cli cli = { .terminal = terminal, .reconnect_ms = 300 };
	int argc = 3, status;

	for (; *words; words++)
		argv[argc++] = (char *)*words;
	free(out_text);
	free(err_text);
	cli.out = open_memstream(&out_text, &out_size);
	cli.err = open_memstream(&err_text, &err_size);
	status = cli_run(&cli, argc, argv);
	fclose(cli.out);
	fclose(cli.err);
	return status;
}

#define RUN(...) run_words((const char *[]){ __VA_ARGS__, NULL })

/* Standard output must be one JSON object in one line; the caller owns it. */
static inline json_t *out_json(void)
{
	json_t *j = json_loads(out_text, 0, NULL);

	if (!json_is_object(j) || strchr(out_text, '\n') != out_text + strlen(out_text) - 1)
		fail_msg("not one line of JSON: '%s'", out_text);
	return j;
}

/* Every line of standard error must be a JSON object. */
static inline void want_err_json(void)
{
	char *copy = strdup(err_text), *save, *line;

	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *j = json_loads(line, 0, NULL);

		if (!json_is_object(j))
			fail_msg("not a line of JSON: '%s'", line);
		json_decref(j);
	}
	free(copy);
}

static inline void want_in(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in:\n%s", part, text);
}

/* The contract's members, all there. */
static inline void want_contract(const json_t *j)
{
	static const char *const members[] = {
		"id",	    "vm",      "status",  "mode",     "transport", "tx",
		"encrypt",  "streams", "tracker", "total_ms", "setup_ms",  "downtime_ms",
		"downtime", "rounds",  "ram",	  "disks",    "cpu_ms",	   "throttle_max_percent",
		"error",
	};
	static const char *const inner[][2] = {
		{ "downtime", "pause_ms" },   { "downtime", "final_copy_ms" },
		{ "downtime", "state_ms" },   { "downtime", "resume_ms" },
		{ "ram", "total_bytes" },     { "ram", "zero_bytes" },
		{ "ram", "raw_bytes" },	      { "ram", "zstd_in_bytes" },
		{ "ram", "zstd_out_bytes" },  { "ram", "delta_in_bytes" },
		{ "ram", "delta_out_bytes" }, { "ram", "wire_bytes" },
		{ "ram", "zero_copy_bytes" }, { "cpu_ms", "source" },
		{ "cpu_ms", "destination" },
	};

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (!json_object_get(j, members[i]))
			fail_msg("%s is missing", members[i]);
	for (size_t i = 0; i < sizeof(inner) / sizeof(inner[0]); i++)
		if (!json_object_get(json_object_get(j, inner[i][0]), inner[i][1]))
			fail_msg("%s.%s is missing", inner[i][0], inner[i][1]);
	assert_true(json_is_array(json_object_get(j, "rounds")));
	assert_true(json_is_array(json_object_get(j, "disks")));
}

static json_t *script; /* array of session objects, one a poll; the last stays */
static void (*at_poll)(unsigned int n);

static inline int scripted(struct host *h, uint64_t since, unsigned int wait_ms, json_t **out,
			   struct failure *f)
{
	size_t n = h->polls - 1, last = json_array_size(script) - 1;

	(void)since;
	(void)wait_ms;
	(void)f;
	if (at_poll)
		at_poll((unsigned int)n);
	*out = json_deep_copy(json_array_get(script, n < last ? n : last));
	json_object_set_new(*out, "seq", json_integer((json_int_t)h->polls));
	return 0;
}

/* Makes the next migration go through the given JSON, an array of session objects. */
static inline void play(const char *json)
{
	json_decref(script);
	script = json_loads(json, 0, NULL);
	assert_non_null(script);
	json_decref(fake.answer);
	fake.answer = json_pack("{s:s}", "id", FAKE_ID);
	fake.status = scripted;
	fake.polls = 0;
	at_poll = NULL;
}

#define COPYING                                                                                    \
	"{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"side\":\"source\",\"state\":\"copying\","       \
	"\"terminal\":false,\"checks\":[{\"check\":\"cpu\",\"group\":\"cpu\",\"level\":"           \
	"\"warning\","                                                                             \
	"\"code\":\"cpu-model\",\"message\":\"Host CPU\\u001b[31m.\",\"hint\":\"Mind it.\"},"      \
	"{\"check\":\"ram\",\"level\":\"ok\",\"message\":\"fine\"}],"                              \
	"\"progress\":{\"round\":3,\"pending_bytes\":1288490188,\"total_bytes\":2147483648,"       \
	"\"sent_bytes\":9,\"wire_bytes\":9,\"dirty_rate\":160000000.5,\"throughput\":1.18e9,"      \
	"\"predicted_downtime_ms\":23.4,\"percent\":40.0,\"elapsed_ms\":12345.6,"                  \
	"\"state\":\"copying\"}}"
#define POSTCOPY                                                                                   \
	"{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"side\":\"source\",\"state\":\"running\","       \
	"\"terminal\":false,\"progress\":{\"round\":1,\"pending_bytes\":40000000,"                 \
	"\"total_bytes\":268435456,\"sent_bytes\":9,\"wire_bytes\":9,\"dirty_rate\":0,"            \
	"\"throughput\":4e6,\"predicted_downtime_ms\":0,\"percent\":85.1,\"elapsed_ms\":12345.6,"  \
	"\"state\":\"running\",\"reason\":\"a full pass was made\",\"postcopy\":{\"faults\":8497," \
	"\"p50_us\":41.0,\"p99_us\":144.3,\"max_us\":40135.7}}}"
/* Of a destination: it has no result, but an account. */
#define ARRIVED(state, more)                                                                       \
	"{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"side\":\"destination\",\"state\":\"" state      \
	"\",\"terminal\":true,\"progress\":{\"percent\":100.0}," more "}"
#define ACCOUNT                                                                                    \
	"\"result\":{\"state\":\"running\",\"cpu_ms\":290.0,\"rss_bytes\":12582912,"               \
	"\"postcopy\":" FAULTS "}"
#define FAULTS                                                                                     \
	"{\"faults\":8497,\"local_faults\":8,\"p50_us\":40.7,\"p99_us\":144.4,"                    \
	"\"max_us\":40135.7,\"complete_ms\":41489.5,\"interruptions\":2,"                          \
	"\"interrupted_ms\":30012.0,\"complete\":true,\"wire_bytes\":38260352}"
#define ENDED(state, result)                                                                       \
	"{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"side\":\"source\",\"state\":\"" state "\","     \
	"\"terminal\":true,\"progress\":{\"percent\":100.0,\"total_bytes\":2147483648},"           \
	"\"result\":" result "}"
#define COMPLETED                                                                                  \
	"{\"id\":\"" FAKE_ID "\",\"vm\":\"web1\",\"status\":\"completed\",\"mode\":\"precopy\","   \
	"\"transport\":\"tcp\",\"tx\":\"sendfile\",\"encrypt\":\"off\",\"streams\":4,"             \
	"\"tracker\":\"pagemap\",\"total_ms\":4210.5,\"setup_ms\":210.5,\"downtime_ms\":23.4,"     \
	"\"downtime\":{\"pause_ms\":3.1,\"final_copy_ms\":8.2,\"state_ms\":6.3,\"resume_ms\":5.8}" \
	","                                                                                        \
	"\"rounds\":[{\"n\":1,\"pages\":524288,\"wire_bytes\":1073741824,\"ms\":900.1},"           \
	"{\"n\":2,\"pages\":1000,\"wire_bytes\":4096000,\"ms\":5.5}],"                             \
	"\"ram\":{\"total_bytes\":2147483648,\"zero_bytes\":1048576,\"raw_bytes\":1073741824,"     \
	"\"wire_bytes\":1077837824,\"zero_copy_bytes\":1073741824},\"extra\":1,"                   \
	"\"cpu_ms\":{\"source\":410.0,\"destination\":920.0}}"
#define BADLY(status, code)                                                                        \
	"{\"status\":\"" status "\",\"vm\":\"web1\",\"error\":{\"code\":\"" code "\","             \
	"\"message\":\"It did not work.\",\"hint\":\"Do that.\"}}"

static inline int cleanup_script(void **state)
{
	(void)state;
	json_decref(script);
	fake_reset();
	return 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
