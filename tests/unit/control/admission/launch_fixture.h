/* SPDX-License-Identifier: MIT */
/* A description of a VM to plan launches of, with its files in a fresh directory on tmpfs. */
#ifndef TRANSHIP_TESTS_LAUNCH_FIXTURE_H
#define TRANSHIP_TESTS_LAUNCH_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/admission/launch.h"

#define SESSION	  "00112233445566778899aabbccddeeff"
#define QEMU	  "/usr/bin/qemu-system-x86_64"
#define WORDS_MAX 128

static struct {
	char dir[64];
	struct config config;
	struct guest_description vm;
	struct guest_region regions[4];
	struct guest_disk disks[4];
	char *argv[WORDS_MAX + 1];
	struct launch_plan plan;
	struct failure f;
} fx;

/* A text with every "DIR" replaced by the test's directory; owned. */
static inline char *in_dir(const char *text)
{
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	while (*text) {
		if (!strncmp(text, "DIR", 3)) {
			fputs(fx.dir, f);
			text += 3;
		} else {
			fputc(*text++, f);
		}
	}
	fclose(f);
	return out;
}

static inline void make_file(const char *path, mode_t mode, size_t size)
{
	char *p = in_dir(path);
	int fd = open(p, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
	free(p);
}

static inline void clear_words(void)
{
	for (int i = 0; i < WORDS_MAX && fx.argv[i]; i++) {
		free(fx.argv[i]);
		fx.argv[i] = NULL;
	}
}

/* Appends words to the VM's command line. */
static inline void add_words(const char *const *words)
{
	size_t n = 0;

	while (fx.argv[n])
		n++;
	for (; *words; words++) {
		assert_true(n < WORDS_MAX);
		fx.argv[n++] = in_dir(*words);
	}
	fx.argv[n] = NULL;
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static inline void set_words(const char *const *words)
{
	clear_words();
	add_words(words);
}

static inline struct guest_region *add_region(const char *id, const char *path)
{
	struct guest_region *r = &fx.regions[fx.vm.nregions++];
	char *p = in_dir(path);

	snprintf(r->id, sizeof(r->id), "%s", id);
	snprintf(r->path, sizeof(r->path), "%s", p);
	free(p);
	r->size = 64u << 20;
	r->page_size = 4096;
	r->backing = path[0] ? GUEST_BACKING_FILE : GUEST_BACKING_MEMFD;
	r->share = true;
	fx.vm.ram_bytes += r->size;
	return r;
}

static inline struct guest_disk *add_disk(const char *id, const char *path, const char *format)
{
	struct guest_disk *d = &fx.disks[fx.vm.ndisks++];
	char *p = in_dir(path);

	snprintf(d->id, sizeof(d->id), "%s", id);
	snprintf(d->path, sizeof(d->path), "%s", p);
	snprintf(d->format, sizeof(d->format), "%s", format);
	free(p);
	return d;
}

/* One region in DIR/ram, no disk, QMP at DIR/qmp.sock. */
static inline void base_vm(void)
{
	memset(&fx.vm, 0, sizeof(fx.vm));
	memset(fx.regions, 0, sizeof(fx.regions));
	memset(fx.disks, 0, sizeof(fx.disks));
	fx.vm.regions = fx.regions;
	fx.vm.disks = fx.disks;
	fx.vm.argv = fx.argv;
	strcpy(fx.vm.kind, "qemu");
	strcpy(fx.vm.name, "vm");
	strcpy(fx.vm.version, "7.2.22");
	strcpy(fx.vm.machine, "pc-q35-7.2");
	strcpy(fx.vm.accel, "tcg");
	fx.vm.cpus = 1;
	add_region("ram0", "DIR/ram");
	set_words(WORDS(
		QEMU, "-name", "guest=vm", "-machine", "q35,accel=tcg,memory-backend=ram0", "-m",
		"64M", "-object", "memory-backend-file,id=ram0,size=64M,mem-path=DIR/ram,share=on",
		"-nodefaults", "-display", "none", "-qmp", "unix:DIR/qmp.sock,server=on,wait=off"));
}

static inline int fixture_setup(void **state)
{
	(void)state;
	memset(&fx, 0, sizeof(fx));
	strcpy(fx.dir, "/dev/shm/test_launch.XXXXXX");
	if (!mkdtemp(fx.dir))
		return -1;
	snprintf(fx.config.state_dir, sizeof(fx.config.state_dir), "%s/state", fx.dir);
	if (mkdir(fx.config.state_dir, 0700))
		return -1;
	strcpy(fx.config.qemu_binaries[fx.config.nqemu_binaries++], QEMU);
	base_vm();
	return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline int fixture_teardown(void **state)
{
	(void)state;
	clear_words();
	launch_plan_release(&fx.plan);
	return nftw(fx.dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline int plan(void)
{
	launch_plan_release(&fx.plan);
	failure_clear(&fx.f);
	return launch_plan(&fx.plan, &fx.vm, &fx.config, SESSION, &fx.f);
}

static inline void assert_planned(void)
{
	if (plan())
		fail_msg("%s: %s", fx.f.code, fx.f.message);
}

/* The plan is refused with that code, and the message names the word. */
static inline void assert_refused(const char *word)
{
	if (!plan())
		fail_msg("was planned, though it has %s", word);
	assert_string_equal(fx.f.code, "launch-refused");
	if (!strstr(fx.f.message, word))
		fail_msg("'%s' does not name '%s'", fx.f.message, word);
	assert_true(fx.f.hint[0]);
	assert_null(fx.plan.argv);
}

/* True if the planned command line has these two words in a row (b NULL: the one). */
static inline bool planned(const char *a, const char *b)
{
	char *wa = in_dir(a), *wb = b ? in_dir(b) : NULL;
	bool found = false;

	for (char **w = fx.plan.argv; w && *w; w++)
		if (!strcmp(*w, wa) && (!wb || (w[1] && !strcmp(w[1], wb))))
			found = true;
	free(wa);
	free(wb);
	return found;
}

static inline void assert_has(const char *a, const char *b)
{
	if (planned(a, b))
		return;
	for (char **w = fx.plan.argv; w && *w; w++)
		print_message("  %s\n", *w);
	fail_msg("the command line lacks %s %s", a, b ? b : "");
}

static inline bool creates(const char *path)
{
	char *p = in_dir(path);
	bool found = false;

	for (char **w = fx.plan.created; w && *w; w++)
		found |= !strcmp(*w, p);
	free(p);
	return found;
}

#endif
