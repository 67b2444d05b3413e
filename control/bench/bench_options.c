// SPDX-License-Identifier: MIT
/* Reading what a benchmark is to do; see bench_options.h. */
#include "control/bench/bench_options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "dataplane/region.h"
#include "lib/base/units.h"

#define SIZE_DEFAULT	CHUNK_BYTES
#define TIME_DEFAULT_MS 5000u
#define TIME_MAX_MS	(24ll * 3600 * 1000)
#define INTERVAL_MIN_MS 10u
#define MEMORY_DEFAULT	(256ull << 20)
#define USAGE_HINT	"See tranship(1), bench."

static const char *const data_names[] = { "zero", "text", "random", "file" };
static const char *const tx_names[] = { "auto", "sendfile", "uring", "send" };

const char *bench_data_name(enum ipc_bench_data data)
{
	return (unsigned int)data < 4 ? data_names[data] : "?";
}

const char *bench_tx_name(uint32_t tx)
{
	return tx < 4 ? tx_names[tx] : "?";
}

const char *bench_compress_name(const struct bench_options *o, char buf[16])
{
	static const char *const names[] = { "off", "auto", "zstd" };

	snprintf(buf, 16, "%s", names[o->compress.kind]);
	if (o->compress.kind == IPC_COMPRESS_ZSTD)
		snprintf(buf, 16, "zstd:%u", o->compress.level);
	return buf;
}

/* --- texts ------------------------------------------------------------------------------------ */

int bench_parse_sizes(const char *text, uint64_t sizes[BENCH_SIZES_MAX], uint32_t *count)
{
	*count = 0;
	for (;;) {
		size_t n = strcspn(text, ",");
		char word[32];
		uint64_t size;

		if (!n || n >= sizeof(word) || *count == BENCH_SIZES_MAX)
			return -EINVAL;
		snprintf(word, sizeof(word), "%.*s", (int)n, text);
		if (units_parse_size(word, &size) || size < PAGE_BYTES || size > CHUNK_BYTES ||
		    size & (size - 1))
			return -EINVAL;
		sizes[(*count)++] = size;
		if (!text[n])
			return 0;
		text += n + 1;
	}
}

/* A number below limit; *end: what follows it. */
static int parse_number(const char *text, unsigned long limit, unsigned long *out, const char **end)
{
	char *rest;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*out = strtoul(text, &rest, 10);
	*end = rest;
	return errno || *out >= limit ? -EINVAL : 0;
}

/* To the end of the text or to a slash, which *end then is at. */
static int parse_cpu_list(const char *text, struct bench_cpus *out, const char **end)
{
	const unsigned long limit = 1024; /* CPU_SETSIZE */

	out->count = 0;
	for (;;) {
		unsigned long first, last;

		if (parse_number(text, limit, &first, &text))
			return -EINVAL;
		last = first;
		if (*text == '-' && (parse_number(text + 1, limit, &last, &text) || last < first))
			return -EINVAL;
		for (; first <= last; first++) {
			if (out->count == IPC_CPUS_MAX)
				return -EINVAL;
			out->cpu[out->count++] = (uint16_t)first;
		}
		*end = text;
		if (*text != ',')
			return !*text || *text == '/' ? 0 : -EINVAL;
		text++;
	}
}

int bench_parse_cpus(const char *text, struct bench_cpus *near, struct bench_cpus *far)
{
	int err = parse_cpu_list(text, near, &text);

	*far = *near;
	if (!err && *text == '/') {
		err = parse_cpu_list(text + 1, far, &text);
		if (!err && *text)
			err = -EINVAL;
	}
	return err;
}

int bench_parse_tos(const char *text, int *tos)
{
	static const struct {
		const char *name;
		int dscp;
	} names[] = { { "ef", 46 }, { "le", 1 }, { "va", 44 } };
	char *end;
	long n;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcasecmp(text, names[i].name)) {
			*tos = names[i].dscp << 2;
			return 0;
		}
	if (!strncasecmp(text, "cs", 2) && text[2] >= '0' && text[2] <= '7' && !text[3]) {
		*tos = (text[2] - '0') << 5;
		return 0;
	}
	if (!strncasecmp(text, "af", 2) && text[2] >= '1' && text[2] <= '4' && text[3] >= '1' &&
	    text[3] <= '3' && !text[4]) {
		*tos = (8 * (text[2] - '0') + 2 * (text[3] - '0')) << 2;
		return 0;
	}
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	n = strtol(text, &end, 0);
	if (*end || n > 255)
		return -EINVAL;
	*tos = (int)n;
	return 0;
}

/* --- members ---------------------------------------------------------------------------------- */

const struct option_rule bench_option_rules[] = {
	{ .name = "size", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "time_ms", .type = OPTION_NUMBER, .max = TIME_MAX_MS },
	{ .name = "bytes", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "omit_ms", .type = OPTION_NUMBER, .max = TIME_MAX_MS },
	{ .name = "interval_ms", .type = OPTION_NUMBER, .max = TIME_MAX_MS },
	{ .name = "latency", .type = OPTION_BOOL },
	{ .name = "reverse", .type = OPTION_BOOL },
	{ .name = "bidir", .type = OPTION_BOOL },
	{ .name = "reuse", .type = OPTION_BOOL },
	{ .name = "verify", .type = OPTION_BOOL },
	{ .name = "streams", .type = OPTION_NUMBER, .max = IPC_STREAMS_MAX },
	{ .name = "bandwidth",
	  .type = OPTION_NUMBER,
	  .min = OPTIONS_BANDWIDTH_MIN,
	  .max = INT64_MAX,
	  .or_zero = true },
	{ .name = "transport", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "tx", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "rx", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "encrypt", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "compress", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "data", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "file", .type = OPTION_TEXT, .max = PATH_MAX },
	{ .name = "memory", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "affinity", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "tos", .type = OPTION_TEXT, .min = 1, .max = PATH_MAX },
	{ .name = "congestion", .type = OPTION_TEXT, .max = PATH_MAX },
	{ .name = NULL },
};

static int malformed(struct failure *f, const char *member, const char *form)
{
	return failure_set(f, -EINVAL, "usage", USAGE_HINT, "A bench's %s is %s.", member, form);
}

static int unsupported(struct failure *f, const char *option, const char *value, const char *hint)
{
	return failure_set(f, -EOPNOTSUPP, "unsupported-option", hint,
			   "%s %.40s is not available in this version.", option, value);
}

static const char *text_of(const json_t *j, const char *member, const char *fallback)
{
	const char *text = json_string_value(json_object_get(j, member));

	return text && *text ? text : fallback;
}

static uint64_t number_of(const json_t *j, const char *member, uint64_t fallback)
{
	const json_t *value = json_object_get(j, member);

	return value ? (uint64_t)json_integer_value(value) : fallback;
}

/* A size as text. */
static int read_size(const json_t *j, const char *member, uint64_t fallback, uint64_t *out,
		     struct failure *f)
{
	const char *text = text_of(j, member, NULL);

	*out = fallback;
	if (!text)
		return 0;
	if (units_parse_size(text, out) || !*out || *out > INT64_MAX)
		return malformed(f, member, "a size, as 64MiB");
	return 0;
}

static int choice(const char *text, const char *const *names, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		if (!strcmp(text, names[i]))
			return (int)i;
	return -EINVAL;
}

static int read_place(struct bench_options *o, const char *rx, struct failure *f)
{
	static const char *const names[] = { "auto", "map", "pwrite" };
	const char *strategy = rx;
	int at;

	if (!strcmp(rx, "resident"))
		strategy = "auto";
	o->fresh = !strcmp(rx, "new") || !strncmp(rx, "new-", 4);
	if (o->fresh)
		strategy = rx[3] ? rx + 4 : "auto";
	at = choice(strategy, names, 3);
	if (at < 0)
		return malformed(f, "rx",
				 "auto, resident, map, pwrite, new, new-map or new-pwrite");
	o->place = (enum ipc_bench_place)at;
	return 0;
}

static int read_kinds(struct bench_options *o, const json_t *j, struct failure *f)
{
	const char *transport = text_of(j, "transport", "tcp");
	const char *encrypt = text_of(j, "encrypt", "on");
	int tx = choice(text_of(j, "tx", "auto"), tx_names, 4);
	int data = choice(text_of(j, "data", "random"), data_names, 4);

	if (strcmp(transport, "tcp") && strcmp(transport, "auto"))
		return unsupported(f, "--transport", transport, "Use --transport tcp.");
	if (strcmp(encrypt, "off"))
		return failure_set(f, -EOPNOTSUPP, "encryption-unavailable",
				   "On a trusted network give --encrypt off, and start both "
				   "daemons with --allow-plaintext.",
				   "Encrypted data streams are not available in this version.");
	if (tx < 0)
		return malformed(f, "tx", "auto, sendfile, uring or send");
	if (data < 0)
		return malformed(f, "data", "zero, text, random or file");
	o->tx = (enum ipc_tx)tx;
	o->data = (enum ipc_bench_data)data;
	if (compression_parse(&o->compress, text_of(j, "compress", "off"), f))
		return -EINVAL;
	return read_place(o, text_of(j, "rx", "auto"), f);
}

static int read_texts(struct bench_options *o, const json_t *j, struct failure *f)
{
	const char *size = text_of(j, "size", NULL), *cpus = text_of(j, "affinity", NULL);
	const char *tos = text_of(j, "tos", NULL), *cc = text_of(j, "congestion", "");
	const char *file = text_of(j, "file", "");

	o->nsizes = 1;
	o->sizes[0] = o->latency ? 0 : SIZE_DEFAULT;
	if (size && bench_parse_sizes(size, o->sizes, &o->nsizes))
		return malformed(f, "size",
				 "up to 16 sizes, each a power of two from 4KiB to 2MiB");
	if (cpus && bench_parse_cpus(cpus, &o->near, &o->far))
		return malformed(f, "affinity", "lists of processors, as 0,2-3 or 0-1/2-3");
	o->tos = -1;
	if (tos && bench_parse_tos(tos, &o->tos))
		return malformed(f, "tos", "0 to 255, or a DSCP as af21, cs1 or ef");
	if (strlen(cc) >= sizeof(o->congestion) ||
	    strspn(cc, "abcdefghijklmnopqrstuvwxyz0123456789_-"
		       "ABCDEFGHIJKLMNOPQRSTUVWXYZ") < strlen(cc))
		return malformed(f, "congestion", "a name, as cubic");
	snprintf(o->congestion, sizeof(o->congestion), "%s", cc);
	if (strlen(file) >= sizeof(o->file) || (*file && *file != '/'))
		return malformed(f, "file", "an absolute path");
	snprintf(o->file, sizeof(o->file), "%s", file);
	return 0;
}

static int read_amounts(struct bench_options *o, const json_t *j, struct failure *f)
{
	uint64_t streams = number_of(j, "streams", 1);
	int err = read_size(j, "bytes", 0, &o->bytes, f);

	if (!err)
		err = read_size(j, "memory", MEMORY_DEFAULT, &o->memory, f);
	o->time_ms = number_of(j, "time_ms", o->bytes ? 0 : TIME_DEFAULT_MS);
	o->omit_ms = number_of(j, "omit_ms", 0);
	o->interval_ms = number_of(j, "interval_ms", 0);
	o->bandwidth = number_of(j, "bandwidth", 0);
	o->streams = streams ? (uint32_t)streams : 1;
	return err;
}

/* What goes together. */
static int check_whole(const struct bench_options *o, struct failure *f)
{
	bool other_sends = o->reverse || o->bidir;

	if (o->reverse && o->bidir)
		return malformed(f, "direction", "either --reverse or --bidir, not both");
	if (o->bidir && o->streams > IPC_STREAMS_MAX / 2)
		return malformed(f, "streams", "at most 32 of a direction with --bidir");
	if (!o->time_ms && !o->bytes)
		return malformed(f, "time", "more than nothing");
	if (o->interval_ms && o->interval_ms < INTERVAL_MIN_MS)
		return malformed(f, "interval", "at least 10ms");
	if (o->interval_ms && o->time_ms / o->interval_ms > BENCH_INTERVALS_MAX)
		return malformed(f, "interval", "at least a ten-thousandth of its time");
	if (o->latency && o->compress.kind != IPC_COMPRESS_OFF)
		return failure_set(f, -EOPNOTSUPP, "unsupported-option", "Leave out one of them.",
				   "A message that is waited for alone is not compressed: "
				   "--latency goes without --compress.");
	if (o->latency && o->bytes && !o->sizes[0])
		return malformed(f, "bytes", "not for --latency without --size");
	if (o->memory > IPC_BENCH_MEMORY_MAX)
		return malformed(f, "memory", "at most 16GiB");
	if ((o->data == IPC_BENCH_FILE) != (o->file[0] != '\0'))
		return malformed(f, "file", "given with the data kind file, and only then");
	if (o->data == IPC_BENCH_FILE && other_sends)
		return malformed(f, "file",
				 "one of the leading side: not for --reverse or --bidir");
	return 0;
}

int bench_options_read(struct bench_options *o, const json_t *j, struct failure *f)
{
	int err;

	memset(o, 0, sizeof(*o));
	if (!json_is_object(j))
		return malformed(f, "options", "an object");
	err = options_check(bench_option_rules, j, f);
	if (err)
		return err;
	o->reverse = json_is_true(json_object_get(j, "reverse"));
	o->bidir = json_is_true(json_object_get(j, "bidir"));
	o->latency = json_is_true(json_object_get(j, "latency"));
	o->reuse = json_is_true(json_object_get(j, "reuse"));
	o->verify = json_is_true(json_object_get(j, "verify"));
	err = read_kinds(o, j, f);
	if (!err)
		err = read_texts(o, j, f);
	if (!err)
		err = read_amounts(o, j, f);
	return err ? err : check_whole(o, f);
}

uint32_t bench_options_streams(const struct bench_options *o)
{
	return o->bidir ? 2 * o->streams : o->streams;
}

uint32_t bench_options_forward(const struct bench_options *o)
{
	return o->reverse ? 0 : o->streams;
}
