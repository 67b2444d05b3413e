// SPDX-License-Identifier: MIT
/*
 * The command line of a peer's VM: its parser, and the plan to launch it here.
 *
 * Input: words, each ended by a newline, which are added to a command line that is accepted as it
 * is (or, after a first byte '!', are all of it). What is accepted must run a configured binary,
 * wait for the migration, and touch no path of the system.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/admission/launch_props.h"
#include "control/guest/qemu_args.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/control/admission/launch_fixture.h"

static void set_up(void)
{
	void *state = NULL;

	fuzz_check(!fixture_setup(&state));
	make_file("DIR/disk.raw", 0600, 1 << 20);
	add_disk("vblk0", "DIR/disk.raw", "raw");
}

static void clean_up(void)
{
	void *state = NULL;

	fixture_teardown(&state);
}

/* Every notation must survive being written and parsed again. */
static void try_props(const char *word)
{
	struct launch_props p, again;
	char *text, *text2;

	if (launch_props_parse(&p, word, "driver", true))
		return;
	text = launch_props_text(&p);
	fuzz_check(text && !launch_props_parse(&again, text, "driver", true));
	text2 = launch_props_text(&again);
	fuzz_check(text2 && !strcmp(text, text2));
	for (size_t i = 0; i < p.n; i++) {
		const char *value = launch_props_get(&p, p.list[i].key);
		const char *got = launch_props_get(&again, p.list[i].key);

		/* an empty first word is not written at all */
		fuzz_check(value && !strcmp(value, got ? got : ""));
	}
	free(text);
	free(text2);
	launch_props_release(&p);
	launch_props_release(&again);
}

static void try_args(char *const *argv)
{
	static const char *const options[] = { "-device", "-name", "-m", "-drive", "-S" };
	static const char *const keys[] = { "id", "driver", "file", "guest", "size" };
	char buf[16];

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		const char *value;
		size_t at = 1;

		qemu_args_flag(argv, options[i]);
		qemu_args_last(argv, options[i]);
		while ((value = qemu_args_next(argv, &at, options[i])))
			for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
				if (qemu_opt_get(value, keys[k], "driver", buf, sizeof(buf)))
					fuzz_check(memchr(buf, '\0', sizeof(buf)));
	}
}

/* No key that names a file has one of the system, or an inherited descriptor. */
static void check_paths(const char *word)
{
	static const char *const keys[] = { "file", "path", "filename", "mem-path",
					    "file.filename" };
	static const char *const system[] = { "/etc/", "/proc/", "/sys/", "/dev/fd" };
	struct launch_props p;

	if (launch_props_parse(&p, word, "driver", true))
		return;
	for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
		const char *value = launch_props_get(&p, keys[k]);

		for (size_t i = 0; value && i < sizeof(system) / sizeof(system[0]); i++)
			fuzz_check(strncmp(value, system[i], strlen(system[i])));
	}
	launch_props_release(&p);
}

static void check_plan(const struct launch_plan *p)
{
	bool incoming = false, held = false;

	fuzz_check(!strcmp(p->argv[0], QEMU));
	for (char **w = p->argv + 1; *w; w++) {
		held |= !strcmp(*w, "-S");
		incoming |= !strcmp(*w, "-incoming") && w[1] && !strcmp(w[1], "defer");
		fuzz_check(strcmp(*w, "-daemonize") && strcmp(*w, "-pidfile"));
		if (strcmp(w[-1], "-append"))
			check_paths(*w);
	}
	fuzz_check(incoming && held && p->qmp_path[0]);
	for (char **path = p->created; *path; path++)
		fuzz_check((*path)[0] == '/' && access(*path, F_OK));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	static bool ready;
	size_t n = 0;

	if (!ready) {
		set_up();
		atexit(clean_up);
	}
	ready = true;
	clear_words();
	fx.vm.ndisks = 0;
	if (in.left && *in.p == '!') {
		fuzz_u8(&in);
	} else {
		const struct guest_disk disk = fx.disks[0];

		base_vm();
		fx.disks[0] = disk;
		/* with its disk when some word names it */
		fx.vm.ndisks = memmem(data, size, "disk.raw", 8) != NULL;
	}
	while (fx.argv[n])
		n++;
	while (in.left && n < WORDS_MAX) {
		const uint8_t *end = memchr(in.p, '\n', in.left);
		size_t len = end ? (size_t)(end - in.p) : in.left;
		char *word = strndup((const char *)in.p, len);

		fx.argv[n++] = in_dir(word);
		free(word);
		try_props(fx.argv[n - 1]);
		in.p += end ? len + 1 : len;
		in.left -= end ? len + 1 : len;
	}
	fx.argv[n] = NULL;
	if (!n)
		return 0;
	try_args(fx.argv);
	if (!plan())
		check_plan(&fx.plan);
	else
		fuzz_check(failure_is_set(&fx.f) && !fx.plan.argv);
	launch_plan_release(&fx.plan);
	memset(&fx.plan, 0, sizeof(fx.plan));
	clear_words();
	return 0;
}
