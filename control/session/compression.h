/* SPDX-License-Identifier: MIT */
/* --compress and --delta-cache, and what two hosts agree on about encoded pages. */
#ifndef TRANSHIP_CONTROL_COMPRESSION_H
#define TRANSHIP_CONTROL_COMPRESSION_H

#include <jansson.h>

#include "dataplane/ipc.h"
#include "lib/base/failure.h"

struct compression {
	enum ipc_compress kind;
	uint32_t level;	      /* of zstd, with IPC_COMPRESS_ZSTD */
	uint64_t delta_cache; /* bytes; 0: no differences are sent */
	uint32_t encodings;   /* IPC_ENCODING_*, as agreed on */
};

/* "auto", "off", "zstd" or "zstd:LEVEL" into kind and level. -EINVAL with f (usage). */
int compression_parse(struct compression *c, const char *text, struct failure *f);

/* The delta cache where the user gives none: 2 % of RAM, at most 256 MiB. */
uint64_t compression_default_cache(uint64_t ram_bytes);

/* The source's offer: the names of what it would send; NULL: nothing. New reference. */
json_t *compression_offer(const struct compression *c);

/* The destination: what it knows of such an array (NULL: nothing), as a set and as an array. */
uint32_t compression_accept(const json_t *names);
json_t *compression_names(uint32_t encodings);

/*
 * The source, with the destination's array (NULL: it knows of none): c becomes what can be done.
 * -EOPNOTSUPP with f (unsupported-option) if that is not what the user insisted on.
 */
int compression_settle(struct compression *c, const json_t *accepted, struct failure *f);

#endif
