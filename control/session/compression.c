// SPDX-License-Identifier: MIT
/* --compress, and what two hosts agree on about encoded pages; see compression.h. */
#include "control/session/compression.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of zstd alone; as zstd's own program has it. */
#define LEVEL_DEFAULT 3
#define LEVEL_MAX     22

#define CACHE_DEFAULT_MAX (256ull << 20)

static const struct {
	uint32_t encoding;
	const char *name;
} encodings[] = {
	{ IPC_ENCODING_ZSTD, "zstd" },
	{ IPC_ENCODING_DELTA, "delta" },
};

#define ENCODINGS (sizeof(encodings) / sizeof(encodings[0]))

static int parse_level(const char *text, uint32_t *level)
{
	char *end;
	long n;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	n = strtol(text, &end, 10);
	if (*end || n < 1 || n > LEVEL_MAX)
		return -EINVAL;
	*level = (uint32_t)n;
	return 0;
}

int compression_parse(struct compression *c, const char *text, struct failure *f)
{
	c->level = 0;
	if (!strcmp(text, "off")) {
		c->kind = IPC_COMPRESS_OFF;
	} else if (!strcmp(text, "auto")) {
		c->kind = IPC_COMPRESS_AUTO;
	} else if (!strcmp(text, "zstd")) {
		c->kind = IPC_COMPRESS_ZSTD;
		c->level = LEVEL_DEFAULT;
	} else if (!strncmp(text, "zstd:", 5) && !parse_level(text + 5, &c->level)) {
		c->kind = IPC_COMPRESS_ZSTD;
	} else {
		return failure_set(f, -EINVAL, "usage", NULL,
				   "--compress takes auto, off, zstd or zstd:LEVEL, not %.80s.",
				   text);
	}
	return 0;
}

uint64_t compression_default_cache(uint64_t ram_bytes)
{
	uint64_t share = ram_bytes / 50;

	return share < CACHE_DEFAULT_MAX ? share : CACHE_DEFAULT_MAX;
}

json_t *compression_names(uint32_t set)
{
	json_t *names = json_array();

	for (size_t i = 0; i < ENCODINGS; i++)
		if (set & encodings[i].encoding)
			json_array_append_new(names, json_string(encodings[i].name));
	return names;
}

json_t *compression_offer(const struct compression *c)
{
	if (c->kind == IPC_COMPRESS_OFF)
		return NULL;
	return compression_names(IPC_ENCODING_ZSTD | (c->delta_cache ? IPC_ENCODING_DELTA : 0));
}

uint32_t compression_accept(const json_t *names)
{
	const json_t *name;
	uint32_t set = 0;
	size_t i;

	json_array_foreach (names, i, name)
		for (size_t k = 0; json_is_string(name) && k < ENCODINGS; k++)
			if (!strcmp(json_string_value(name), encodings[k].name))
				set |= encodings[k].encoding;
	return set;
}

int compression_settle(struct compression *c, const json_t *accepted, struct failure *f)
{
	uint32_t set = c->kind == IPC_COMPRESS_OFF ? 0 : compression_accept(accepted);

	if (!(set & IPC_ENCODING_ZSTD) && c->kind == IPC_COMPRESS_ZSTD)
		return failure_set(f, -EOPNOTSUPP, "unsupported-option",
				   "Use --compress auto or off, or a newer tranship there.",
				   "The destination does not take compressed pages.");
	c->encodings = set;
	if (!(set & IPC_ENCODING_ZSTD))
		*c = (struct compression){ .kind = IPC_COMPRESS_OFF };
	else if (!(set & IPC_ENCODING_DELTA))
		c->delta_cache = 0;
	return 0;
}
