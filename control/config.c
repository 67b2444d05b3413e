// SPDX-License-Identifier: MIT
/*
 * transhipd's settings: defaults, then the file, then the command line.
 *
 * One table serves both: a setting's name is the file's key and the long option. A list
 * (data-address, qemu-binary, vm-dir) that is given in the file or on the command line replaces
 * what was there before it.
 */
#include "control/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/units.h"

#define DEFAULT_FILE	 "/etc/tranship/transhipd.conf"
#define LINE_MAX_BYTES	 8192
#define SESSIONS_DEFAULT 16
#define SESSIONS_LIMIT	 1000
/* A VGA or virtio-gpu with its private video memory is the largest part of a device state. */
#define STATE_MAX_DEFAULT (512ull << 20)

/* Where a value came from: a list begins anew with each. */
enum origin { ORIGIN_DEFAULT, ORIGIN_FILE, ORIGIN_COMMAND };

struct load {
	struct config *c;
	enum origin origin;
	enum origin addresses_from, binaries_from, vm_dirs_from;
};

struct setting {
	const char *name;
	const char *arg; /* NULL: a switch */
	/* 0, or -errno and the reason (static text) in *why. value is NULL for a bare switch. */
	int (*set)(struct load *l, const char *value, const char **why);
	const char *help;
};

static int copy_path(char *to, size_t size, const char *value, const char **why)
{
	if (value[0] != '/') {
		*why = "the path must be absolute";
		return -EINVAL;
	}
	if (strlen(value) >= size) {
		*why = "the path is too long";
		return -EINVAL;
	}
	snprintf(to, size, "%s", value);
	return 0;
}

static int set_socket(struct load *l, const char *value, const char **why)
{
	return copy_path(l->c->socket, sizeof(l->c->socket), value, why);
}

static int set_state_dir(struct load *l, const char *value, const char **why)
{
	return copy_path(l->c->state_dir, sizeof(l->c->state_dir), value, why);
}

static int set_data_address(struct load *l, const char *value, const char **why)
{
	static const unsigned char any[sizeof(struct in6_addr)];
	unsigned char raw[sizeof(struct in6_addr)] = { 0 };
	struct config *c = l->c;

	if (strlen(value) >= sizeof(c->data_address) ||
	    (inet_pton(AF_INET, value, raw) != 1 && inet_pton(AF_INET6, value, raw) != 1)) {
		*why = "it must be a numeric IPv4 or IPv6 address";
		return -EINVAL;
	}
	if (!memcmp(raw, any, sizeof(any))) {
		*why = "it must be an address of this host, to which others connect";
		return -EINVAL;
	}
	if (l->addresses_from != l->origin) {
		l->addresses_from = l->origin;
		c->ndata_addresses = 0;
	}
	if (c->ndata_addresses == CONFIG_ADDRESSES_MAX) {
		*why = "there are too many of them";
		return -EINVAL;
	}
	snprintf(c->data_addresses[c->ndata_addresses++], sizeof(c->data_address), "%s", value);
	memcpy(c->data_address, c->data_addresses[0], sizeof(c->data_address));
	return 0;
}

/* Digits only, to the given end; no sign, no blanks. */
static int parse_number(const char *text, char until, unsigned long max, unsigned long *out,
			const char **rest)
{
	unsigned long value = 0;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	for (; isdigit((unsigned char)*text); text++) {
		value = value * 10 + (unsigned long)(*text - '0');
		if (value > max)
			return -ERANGE;
	}
	if (*text != until)
		return -EINVAL;
	*out = value;
	if (rest)
		*rest = text + 1;
	return 0;
}

static int set_data_ports(struct load *l, const char *value, const char **why)
{
	unsigned long lo, hi;
	const char *rest;

	if (parse_number(value, '-', UINT16_MAX, &lo, &rest) ||
	    parse_number(rest, '\0', UINT16_MAX, &hi, NULL) || !lo || lo > hi) {
		*why = "ports are given as LO-HI, 1 to 65535";
		return -EINVAL;
	}
	l->c->data_port_lo = (uint16_t)lo;
	l->c->data_port_hi = (uint16_t)hi;
	return 0;
}

static int parse_switch(const char *value, bool *out, const char **why)
{
	if (!value || !strcmp(value, "yes") || !strcmp(value, "true") || !strcmp(value, "on")) {
		*out = true;
		return 0;
	}
	if (!strcmp(value, "no") || !strcmp(value, "false") || !strcmp(value, "off")) {
		*out = false;
		return 0;
	}
	*why = "it must be yes or no";
	return -EINVAL;
}

static int set_allow_plaintext(struct load *l, const char *value, const char **why)
{
	return parse_switch(value, &l->c->allow_plaintext, why);
}

static int set_thp(struct load *l, const char *value, const char **why)
{
	return parse_switch(value, &l->c->thp, why);
}

static int set_verbose(struct load *l, const char *value, const char **why)
{
	return parse_switch(value, &l->c->verbose, why);
}

/* Adds to a list, which begins anew with each place that names it. */
static int add_path(struct load *l, enum origin *from, char (*list)[PATH_MAX], unsigned int *count,
		    unsigned int max, const char *value, const char **why)
{
	int err;

	if (*from != l->origin) {
		*from = l->origin;
		*count = 0;
	}
	if (*count == max) {
		*why = "there are too many of them";
		return -EINVAL;
	}
	err = copy_path(list[*count], PATH_MAX, value, why);
	if (!err)
		(*count)++;
	return err;
}

static int set_qemu_binary(struct load *l, const char *value, const char **why)
{
	struct config *c = l->c;

	return add_path(l, &l->binaries_from, c->qemu_binaries, &c->nqemu_binaries,
			CONFIG_BINARIES_MAX, value, why);
}

static int set_vm_dir(struct load *l, const char *value, const char **why)
{
	struct config *c = l->c;

	return add_path(l, &l->vm_dirs_from, c->vm_dirs, &c->nvm_dirs, CONFIG_VM_DIRS_MAX, value,
			why);
}

static int set_ram_dir(struct load *l, const char *value, const char **why)
{
	return copy_path(l->c->ram_dir, sizeof(l->c->ram_dir), value, why);
}

static int set_dataplane(struct load *l, const char *value, const char **why)
{
	return copy_path(l->c->dataplane, sizeof(l->c->dataplane), value, why);
}

static int set_guard(struct load *l, const char *value, const char **why)
{
	return copy_path(l->c->guard, sizeof(l->c->guard), value, why);
}

static int set_sessions_max(struct load *l, const char *value, const char **why)
{
	unsigned long n;

	if (parse_number(value, '\0', SESSIONS_LIMIT, &n, NULL) || !n) {
		*why = "it must be a number from 1 to 1000";
		return -EINVAL;
	}
	l->c->sessions_max = (unsigned int)n;
	return 0;
}

static int set_state_max(struct load *l, const char *value, const char **why)
{
	uint64_t bytes;

	if (units_parse_size(value, &bytes) || !bytes) {
		*why = "it must be a size, as 512MiB";
		return -EINVAL;
	}
	l->c->state_max = bytes;
	return 0;
}

static int set_listen(struct load *l, const char *value, const char **why)
{
	(void)l;
	(void)value;
	*why = "a control port needs peers that authenticate each other, which this version does "
	       "not have";
	return -EOPNOTSUPP;
}

static const struct setting settings[] = {
	{ "socket", "PATH", set_socket, "where the API answers [" CONFIG_DEFAULT_SOCKET "]" },
	{ "state-dir", "DIR", set_state_dir, "journals and logs [" CONFIG_DEFAULT_STATE_DIR "]" },
	{ "listen", "ADDR:PORT", set_listen, "refused: no control port without authentication" },
	{ "data-address", "ADDR", set_data_address,
	  "where data streams reach this host, numeric [127.0.0.1]; repeatable" },
	{ "data-ports", "LO-HI", set_data_ports, "ports of data streams [any free port]" },
	{ "allow-plaintext", NULL, set_allow_plaintext, "allow streams that are not encrypted" },
	{ "qemu-binary", "PATH", set_qemu_binary,
	  "may be launched for an arriving VM; repeatable" },
	{ "vm-dir", "DIR", set_vm_dir,
	  "disks and sockets of arriving VMs only below it; repeatable" },
	{ "ram-dir", "DIR", set_ram_dir, "RAM files of arriving VMs [as at the source]" },
	{ "thp", "YES|NO", set_thp, "transparent huge pages under arriving RAM [yes]" },
	{ "sessions-max", "N", set_sessions_max, "sessions admitted at once [16]" },
	{ "state-max", "SIZE", set_state_max, "device state held for one session [512MiB]" },
	{ "dataplane", "PATH", set_dataplane, "the tranship-dataplane program" },
	{ "guard", "PATH", set_guard, "the tranship-guard program" },
	{ "verbose", NULL, set_verbose, "log more" },
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

const char *config_setting_name(unsigned int i)
{
	return i < SETTINGS ? settings[i].name : NULL;
}

static const struct setting *find_setting(const char *name, size_t len)
{
	for (size_t i = 0; i < SETTINGS; i++)
		if (strlen(settings[i].name) == len && !memcmp(settings[i].name, name, len))
			return &settings[i];
	return NULL;
}

static int refuse(struct failure *f, int err, const char *where, const struct setting *s,
		  const char *value, const char *why)
{
	const char *code = err == -EOPNOTSUPP ? "unsupported-option" : "usage";

	return failure_set(f, -EINVAL, code, "See transhipd(8).", "%s%s%s%s%s: %s.", where, s->name,
			   value ? " '" : "", value ? value : "", value ? "'" : "", why);
}

/* --- the file -------------------------------------------------------------------------------- */

static char *trim(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return text;
}

static int parse_line(struct load *l, const char *path, unsigned int number, char *line,
		      struct failure *f)
{
	const char *why = "";
	const struct setting *s;
	char *value, *equals;
	char where[230];
	int err;

	line = trim(line);
	if (!*line || *line == '#')
		return 0;
	equals = strchr(line, '=');
	if (!equals)
		return failure_set(f, -EINVAL, "usage", "See transhipd(8).",
				   "%.200s:%u: a line is KEY = VALUE.", path, number);
	*equals = '\0';
	line = trim(line);
	value = trim(equals + 1);
	s = find_setting(line, strlen(line));
	if (!s)
		return failure_set(f, -EINVAL, "usage", "See transhipd(8).",
				   "%.200s:%u: there is no setting '%.60s'.", path, number, line);
	snprintf(where, sizeof(where), "%.200s:%u: ", path, number);
	if (!*value)
		return refuse(f, -EINVAL, where, s, NULL, "the value is missing");
	err = s->set(l, value, &why);
	return err ? refuse(f, err, where, s, value, why) : 0;
}

static int load_file(struct load *l, const char *path, bool required, struct failure *f)
{
	char line[LINE_MAX_BYTES];
	unsigned int number = 0;
	int err = 0;
	FILE *file = fopen(path, "re");

	if (!file && errno == ENOENT && !required)
		return 0;
	if (!file)
		return failure_set(f, -EINVAL, "usage", NULL, "Cannot read %.200s: %s.", path,
				   strerror(errno));
	l->origin = ORIGIN_FILE;
	while (!err && fgets(line, sizeof(line), file)) {
		number++;
		if (!strchr(line, '\n') && !feof(file))
			err = failure_set(f, -EINVAL, "usage", NULL,
					  "%.200s:%u: the line is too long.", path, number);
		else
			err = parse_line(l, path, number, line, f);
	}
	if (!err && ferror(file))
		err = failure_set(f, -EINVAL, "usage", NULL, "Cannot read %.200s: %s.", path,
				  strerror(errno));
	fclose(file);
	return err;
}

/* --- the command line ------------------------------------------------------------------------ */

static void print_help(void)
{
	printf("usage: transhipd [options]\n\n"
	       "The daemon of tranship: finds the VMs of this host, moves them away and takes them "
	       "in.\n"
	       "Stays in the foreground, logs to standard error; ready when its socket "
	       "answers.\n\n");
	printf("  --%-26s %s\n", "config FILE", "settings, KEY = VALUE a line [" DEFAULT_FILE "]");
	for (size_t i = 0; i < SETTINGS; i++) {
		char name[64];

		snprintf(name, sizeof(name), "%s %s", settings[i].name,
			 settings[i].arg ? settings[i].arg : "");
		printf("  --%-26s %s\n", name, settings[i].help);
	}
	printf("  --%-26s %s\n", "version", "print the version");
	printf("  --%-26s %s\n", "help", "print this");
}

/*
 * Splits argv[*i] into a name (len bytes at *name) and its value; takes the next word if the option
 * wants one. NULL in *value: none.
 */
static int split_option(int argc, char **argv, int *i, bool wants, const char **value,
			struct failure *f)
{
	const char *equals = strchr(argv[*i], '=');

	*value = equals ? equals + 1 : NULL;
	if (!wants && *value)
		return failure_set(f, -EINVAL, "usage", "See transhipd --help.",
				   "%.80s takes no value.", argv[*i]);
	if (wants && !*value) {
		if (*i + 1 >= argc)
			return failure_set(f, -EINVAL, "usage", "See transhipd --help.",
					   "%.80s needs a value.", argv[*i]);
		*value = argv[++*i];
	}
	return 0;
}

static bool is_option(const char *word, const char *name)
{
	size_t n = strlen(name);

	return !strncmp(word, "--", 2) && !strncmp(word + 2, name, n) &&
	       (!word[2 + n] || word[2 + n] == '=');
}

/* Options that are not settings. 1 when something was printed. */
static int parse_early(int argc, char **argv, const char **file, struct failure *f)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_help();
			return 1;
		}
		if (!strcmp(argv[i], "--version")) {
			printf("transhipd %s\n", TRANSHIP_VERSION);
			return 1;
		}
		if (is_option(argv[i], "config")) {
			int err = split_option(argc, argv, &i, true, file, f);

			if (err)
				return err;
		}
	}
	return 0;
}

static int parse_command(struct load *l, int argc, char **argv, struct failure *f)
{
	l->origin = ORIGIN_COMMAND;
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *value, *why = "";
		const struct setting *s = NULL;
		int err;

		if (!strncmp(word, "--", 2))
			s = find_setting(word + 2, strcspn(word + 2, "="));
		if (!s && !is_option(word, "config"))
			return failure_set(f, -EINVAL, "usage", "See transhipd --help.",
					   "There is no option '%.80s'.", word);
		err = split_option(argc, argv, &i, !s || s->arg, &value, f);
		if (err)
			return err;
		if (!s)
			continue;
		err = s->set(l, value, &why);
		if (err)
			return refuse(f, err, "--", s, s->arg ? value : NULL, why);
	}
	return 0;
}

/* --- defaults -------------------------------------------------------------------------------- */

/*
 * A helper program: beside this executable (a build directory), else in PREFIX/lib/tranship. If it
 * is in neither, the path beside it stays and whoever starts it says that it is not there.
 */
static void find_helper(char path[PATH_MAX], const char *name)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *dir;
	char other[PATH_MAX];

	if (n < 0)
		return;
	self[n] = '\0';
	dir = dirname(self);
	snprintf(path, PATH_MAX, "%.3000s/%s", dir, name);
	if (!access(path, X_OK))
		return;
	snprintf(other, sizeof(other), "%.3000s/../lib/tranship/%s", dir, name);
	if (!access(other, X_OK))
		snprintf(path, PATH_MAX, "%.4000s", other);
}

static void set_defaults(struct config *c)
{
	static const char *const binaries[] = {
		"/usr/bin/qemu-system-x86_64",
		"/usr/libexec/qemu-kvm",
		"/usr/bin/qemu-kvm",
		"/usr/local/bin/qemu-system-x86_64",
	};

	memset(c, 0, sizeof(*c));
	snprintf(c->socket, sizeof(c->socket), "%s", CONFIG_DEFAULT_SOCKET);
	snprintf(c->state_dir, sizeof(c->state_dir), "%s", CONFIG_DEFAULT_STATE_DIR);
	snprintf(c->data_address, sizeof(c->data_address), "127.0.0.1");
	memcpy(c->data_addresses[0], c->data_address, sizeof(c->data_address));
	c->ndata_addresses = 1;
	for (size_t i = 0; i < sizeof(binaries) / sizeof(binaries[0]); i++)
		snprintf(c->qemu_binaries[c->nqemu_binaries++], PATH_MAX, "%s", binaries[i]);
	c->sessions_max = SESSIONS_DEFAULT;
	c->thp = true;
	c->state_max = STATE_MAX_DEFAULT;
	find_helper(c->dataplane, "tranship-dataplane");
	find_helper(c->guard, "tranship-guard");
}

int config_load(struct config *c, int argc, char **argv, struct failure *f)
{
	struct load l = { .c = c,
			  .origin = ORIGIN_DEFAULT,
			  .addresses_from = ORIGIN_DEFAULT,
			  .binaries_from = ORIGIN_DEFAULT,
			  .vm_dirs_from = ORIGIN_DEFAULT };
	const char *file = NULL;
	int err;

	set_defaults(c);
	err = parse_early(argc, argv, &file, f);
	if (!err)
		err = load_file(&l, file ? file : DEFAULT_FILE, file != NULL, f);
	if (!err)
		err = parse_command(&l, argc, argv, f);
	return err;
}
