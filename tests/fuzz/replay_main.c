// SPDX-License-Identifier: MIT
/*
 * Feeds saved inputs to a fuzz target, without libFuzzer: fuzz_NAME [FILE|DIRECTORY...], by default
 * tests/fuzz/corpus/NAME. Each input goes in twice; the second time no descriptor may stay open
 * behind it. An empty corpus is a failure: a test that tests nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "tests/fuzz/fuzz.h"

static unsigned int replayed;

static unsigned int open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	fuzz_check(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* A server's thread may close its end a moment after we have seen the connection's. */
static void await_descriptors(unsigned int before)
{
	const struct timespec moment = { .tv_nsec = 1000000 };

	for (int i = 0; i < 5000 && open_descriptors() > before; i++)
		nanosleep(&moment, NULL);
	fuzz_check(open_descriptors() <= before);
}

static void replay_file(const char *path)
{
	static uint8_t data[1 << 20];
	unsigned int before;
	size_t size;
	FILE *f = fopen(path, "re");

	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	size = fread(data, 1, sizeof(data), f);
	fuzz_check(!ferror(f));
	fclose(f);
	fprintf(stderr, "%s\n", path); /* the last line before a crash names the input */
	for (int i = 0; i < 2; i++) {
		/* of exactly that size, so that a sanitizer sees a read beyond it */
		uint8_t *copy = malloc(size);

		memcpy(copy, data, size);
		before = open_descriptors();
		LLVMFuzzerTestOneInput(copy, size);
		free(copy);
	}
	await_descriptors(before);
	replayed++;
}

static void replay(const char *path)
{
	struct dirent **entries;
	struct stat st;
	int n;

	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		replay_file(path);
		return;
	}
	n = scandir(path, &entries, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char file[PATH_MAX];

		snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			replay_file(file);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

int main(int argc, char **argv)
{
	char corpus[PATH_MAX], *name = basename(argv[0]);

	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		if (!strncmp(name, "fuzz_", 5))
			name += 5;
		snprintf(corpus, sizeof(corpus), "tests/fuzz/corpus/%s", name);
		replay(corpus);
	}
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	printf("%u inputs\n", replayed);
	return replayed ? 0 : 1;
}
