// SPDX-License-Identifier: MIT
/* transhipd's settings: defaults, file, command line, and what is refused. */
#include "control/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char file[64];
/* Too large for a stack that sanitizers pad. */
static struct config c;

static int setup(void **state)
{
	(void)state;
	snprintf(file, sizeof(file), "/tmp/test_config.XXXXXX");
	close(mkstemp(file));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(file);
}

static void write_file(const char *text)
{
	FILE *out = fopen(file, "w");

	fputs(text, out);
	fclose(out);
}

/* config_load with the file and up to 6 further words. */
static int load(struct failure *f, const char *a, const char *b, const char *d, const char *e)
{
	char *argv[] = { "transhipd", "--config", file,	     (char *)a,
			 (char *)b,   (char *)d,  (char *)e, NULL };
	int argc = 3;

	while (argv[argc])
		argc++;
	failure_clear(f);
	return config_load(&c, argc, argv, f);
}

static void test_defaults(void **state)
{
	struct failure f;

	(void)state;
	assert_int_equal(load(&f, NULL, NULL, NULL, NULL), 0);
	assert_string_equal(c.socket, CONFIG_DEFAULT_SOCKET);
	assert_string_equal(c.state_dir, CONFIG_DEFAULT_STATE_DIR);
	assert_string_equal(c.data_address, "127.0.0.1");
	assert_int_equal(c.ndata_addresses, 1);
	assert_string_equal(c.data_addresses[0], "127.0.0.1");
	assert_int_equal(c.data_port_lo, 0);
	assert_int_equal(c.data_port_hi, 0);
	assert_false(c.allow_plaintext);
	assert_true(c.nqemu_binaries >= 2);
	assert_string_equal(c.qemu_binaries[0], "/usr/bin/qemu-system-x86_64");
	assert_string_equal(c.ram_dir, "");
	assert_true(c.sessions_max > 0);
	assert_true(c.state_max >= 64u << 20);
	/* beside the test program, or in PREFIX/lib/tranship */
	assert_non_null(strstr(c.dataplane, "/tranship-dataplane"));
	assert_non_null(strstr(c.guard, "/tranship-guard"));
	assert_true(c.thp);
}

static void test_file(void **state)
{
	struct failure f;

	(void)state;
	write_file("# a comment\n\n  socket=/tmp/a.sock  \nstate-dir = /tmp/state\n"
		   "data-address = 192.0.2.7\ndata-address = 2001:db8::7\n"
		   "data-ports = 4000-4010\nallow-plaintext = yes\n"
		   "qemu-binary = /opt/one\nqemu-binary = /opt/two\nram-dir = /dev/shm\n"
		   "vm-dir = /srv/vms\nvm-dir = /srv/more\n"
		   "thp = no\nsessions-max = 3\nstate-max = 64MiB\nverbose = no");
	assert_int_equal(load(&f, NULL, NULL, NULL, NULL), 0);
	assert_string_equal(c.socket, "/tmp/a.sock");
	assert_string_equal(c.state_dir, "/tmp/state");
	assert_string_equal(c.data_address, "192.0.2.7");
	assert_int_equal(c.ndata_addresses, 2);
	assert_string_equal(c.data_addresses[0], "192.0.2.7");
	assert_string_equal(c.data_addresses[1], "2001:db8::7");
	assert_int_equal(c.data_port_lo, 4000);
	assert_int_equal(c.data_port_hi, 4010);
	assert_true(c.allow_plaintext);
	assert_int_equal(c.nqemu_binaries, 2);
	assert_string_equal(c.qemu_binaries[1], "/opt/two");
	assert_int_equal(c.nvm_dirs, 2);
	assert_string_equal(c.vm_dirs[1], "/srv/more");
	assert_string_equal(c.ram_dir, "/dev/shm");
	assert_false(c.thp);
	assert_int_equal(c.sessions_max, 3);
	assert_int_equal(c.state_max, 64u << 20);
	assert_false(c.verbose);
}

static void test_command_line_wins(void **state)
{
	struct failure f;

	(void)state;
	write_file("socket = /tmp/a.sock\nqemu-binary = /opt/one\nqemu-binary = /opt/two\n");
	assert_int_equal(load(&f, "--socket=/tmp/b.sock", "--allow-plaintext", "--qemu-binary",
			      "/opt/three"),
			 0);
	assert_string_equal(c.socket, "/tmp/b.sock");
	assert_true(c.allow_plaintext);
	assert_int_equal(c.nqemu_binaries, 1);
	assert_string_equal(c.qemu_binaries[0], "/opt/three");
}

static void test_refused_on_the_command_line(void **state)
{
	static const struct {
		const char *a, *b, *says;
	} cases[] = {
		{ "--bogus", NULL, "--bogus" },
		{ "stray", NULL, "stray" },
		{ "--socket", NULL, "needs a value" },
		{ "--socket", "relative.sock", "absolute" },
		{ "--allow-plaintext=no", NULL, "takes no value" },
		{ "--data-address", "host.example", "numeric" },
		{ "--data-address", "1.2.3.4.5", "numeric" },
		{ "--data-ports", "10", "LO-HI" },
		{ "--data-ports", "20-10", "LO-HI" },
		{ "--data-ports", "0-10", "LO-HI" },
		{ "--data-ports", "1-65536", "LO-HI" },
		{ "--data-ports", "-1-5", "LO-HI" },
		{ "--data-ports", "1-5x", "LO-HI" },
		{ "--sessions-max", "0", "1 to 1000" },
		{ "--sessions-max", "99999999999999999999", "1 to 1000" },
		{ "--state-max", "lots", "size" },
		{ "--config=/nowhere/at.all", NULL, "/nowhere/at.all" },
	};
	char longer[200];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct failure f;

		assert_int_equal(load(&f, cases[i].a, cases[i].b, NULL, NULL), -EINVAL);
		assert_string_equal(f.code, "usage");
		if (!strstr(f.message, cases[i].says))
			fail_msg("%s: %s", cases[i].a, f.message);
	}
	struct failure f;
	memset(longer, 'a', sizeof(longer));
	longer[0] = '/';
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(load(&f, "--socket", longer, NULL, NULL), -EINVAL);
	assert_non_null(strstr(f.message, "too long"));
}

static void test_listen_is_refused_with_the_reason(void **state)
{
	struct failure f;

	(void)state;
	assert_int_equal(load(&f, "--listen", "0.0.0.0:7777", NULL, NULL), -EINVAL);
	assert_string_equal(f.code, "unsupported-option");
	assert_non_null(strstr(f.message, "authenticate"));
	write_file("listen = 0.0.0.0:7777\n");
	assert_int_equal(load(&f, NULL, NULL, NULL, NULL), -EINVAL);
	assert_string_equal(f.code, "unsupported-option");
}

static void test_refused_in_the_file(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "\nsocket\n", ":2:" },     { "sokket = /x\n", "sokket" },
		{ "socket =\n", "missing" }, { "allow-plaintext = maybe\n", "yes or no" },
		{ "= x\n", "no setting" },   { "config = /x\n", "no setting" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct failure f;

		write_file(cases[i].text);
		assert_int_equal(load(&f, NULL, NULL, NULL, NULL), -EINVAL);
		assert_string_equal(f.code, "usage");
		if (!strstr(f.message, cases[i].says))
			fail_msg("%s: %s", cases[i].text, f.message);
		/* where to look */
		assert_true(!strncmp(f.message, file, strlen(file)));
	}
}

static void test_too_many_binaries_and_long_lines(void **state)
{
	char text[20000] = "";
	struct failure f;

	(void)state;
	for (int i = 0; i <= CONFIG_BINARIES_MAX; i++)
		strcat(text, "qemu-binary = /opt/q\n");
	write_file(text);
	assert_int_equal(load(&f, NULL, NULL, NULL, NULL), -EINVAL);
	assert_non_null(strstr(f.message, "too many"));
	memset(text, 'x', sizeof(text) - 1);
	write_file(text);
	assert_int_equal(load(&f, NULL, NULL, NULL, NULL), -EINVAL);
	assert_non_null(strstr(f.message, "too long"));
}

static void test_help_and_version(void **state)
{
	struct failure f;
	int out = dup(STDOUT_FILENO), null = open("/dev/null", O_WRONLY);
	int help, version;

	(void)state;
	fflush(stdout);
	dup2(null, STDOUT_FILENO);
	help = load(&f, "--help", NULL, NULL, NULL);
	version = load(&f, "--bogus", "--version", NULL, NULL);
	fflush(stdout);
	dup2(out, STDOUT_FILENO);
	close(out);
	close(null);
	assert_int_equal(help, 1);
	assert_int_equal(version, 1);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_defaults),
		CASE(test_file),
		CASE(test_command_line_wins),
		CASE(test_refused_on_the_command_line),
		CASE(test_listen_is_refused_with_the_reason),
		CASE(test_refused_in_the_file),
		CASE(test_too_many_binaries_and_long_lines),
		CASE(test_help_and_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
