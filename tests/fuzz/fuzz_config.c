// SPDX-License-Identifier: MIT
/*
 * transhipd's configuration file, and a command line beside it. Settings that are accepted are
 * within their bounds, whole texts, and the same when they are read again; what is refused is
 * refused with words.
 *
 * Input: a byte whose low bits say how many words the command line has, each to the end of its
 * line, then the file.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control/config.h"
#include "tests/fuzz/fuzz.h"

#define WORDS_MAX 7
#define WORD_MAX  256

static bool whole(const char *text, size_t size)
{
	return memchr(text, '\0', size);
}

static void check_paths(char (*list)[PATH_MAX], unsigned int count, unsigned int max)
{
	fuzz_check(count <= max);
	for (unsigned int i = 0; i < count; i++)
		fuzz_check(list[i][0] == '/' && whole(list[i], PATH_MAX));
}

static void check_config(struct config *c)
{
	fuzz_check(c->socket[0] == '/' && whole(c->socket, sizeof(c->socket)));
	fuzz_check(c->state_dir[0] == '/' && whole(c->state_dir, sizeof(c->state_dir)));
	fuzz_check(whole(c->ram_dir, sizeof(c->ram_dir)));
	fuzz_check(!c->ram_dir[0] || c->ram_dir[0] == '/');
	fuzz_check(whole(c->dataplane, sizeof(c->dataplane)));
	fuzz_check(whole(c->guard, sizeof(c->guard)));
	fuzz_check(c->ndata_addresses >= 1 && c->ndata_addresses <= CONFIG_ADDRESSES_MAX);
	for (unsigned int i = 0; i < c->ndata_addresses; i++)
		fuzz_check(c->data_addresses[i][0] &&
			   whole(c->data_addresses[i], sizeof(c->data_addresses[i])));
	fuzz_check(!strcmp(c->data_address, c->data_addresses[0]));
	fuzz_check(c->data_port_lo <= c->data_port_hi);
	fuzz_check(!c->data_port_lo == !c->data_port_hi);
	check_paths(c->qemu_binaries, c->nqemu_binaries, CONFIG_BINARIES_MAX);
	check_paths(c->vm_dirs, c->nvm_dirs, CONFIG_VM_DIRS_MAX);
	fuzz_check(c->sessions_max >= 1 && c->sessions_max <= 1000 && c->state_max);
}

/* Words that would print, or open what the input names. */
static bool is_left_out(const char *word)
{
	return strstr(word, "--config") || !strcmp(word, "--help") || !strcmp(word, "-h") ||
	       !strcmp(word, "--version");
}

/* The words as argv, from the third on; how many in all. */
static int take_words(struct fuzz_input *in, char words[WORDS_MAX][WORD_MAX], char **argv)
{
	unsigned int n = fuzz_u8(in) % (WORDS_MAX + 1);
	int argc = 2;

	for (unsigned int i = 0; i < n; i++) {
		size_t len = 0;

		while (in->left) {
			char c = (char)fuzz_u8(in);

			if (c == '\n')
				break;
			if (len < WORD_MAX - 1)
				words[i][len++] = c;
		}
		words[i][len] = '\0';
		if (!is_left_out(words[i]))
			argv[argc++] = words[i];
	}
	argv[argc] = NULL;
	return argc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* some hundred KiB of paths */
	static struct config c, again;
	static char words[WORDS_MAX][WORD_MAX];
	struct fuzz_input in = { data, size };
	char file[64], *argv[2 + WORDS_MAX + 1] = { "transhipd", file };
	int argc = take_words(&in, words, argv), fd = memfd_create("fuzz-conf", MFD_CLOEXEC), err;
	struct failure f = { 0 };

	fuzz_check(fd >= 0 && write(fd, in.p, in.left) == (ssize_t)in.left);
	snprintf(file, sizeof(file), "--config=/proc/self/fd/%d", fd);
	err = config_load(&c, argc, argv, &f);
	fuzz_check(!err || err == -EINVAL);
	if (err) {
		fuzz_check(failure_is_set(&f) && failure_code_known(f.code));
	} else {
		check_config(&c);
		fuzz_check(!config_load(&again, argc, argv, &f) && !memcmp(&c, &again, sizeof(c)));
	}
	close(fd);
	return 0;
}
