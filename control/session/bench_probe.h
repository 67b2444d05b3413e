/* SPDX-License-Identifier: MIT */
/* A short benchmark within another session, to learn what the path to a destination carries. */
#ifndef TRANSHIP_CONTROL_BENCH_PROBE_H
#define TRANSHIP_CONTROL_BENCH_PROBE_H

#include <jansson.h>

#include "control/session/session.h"

/*
 * bench_source.c. In the session's thread; ends with -ECANCELED (cancelled) when that is cancelled.
 * options and *result: of docs/protocol.md, "A bench"; *result is a new reference or NULL.
 */
int session_bench_probe(struct session *s, const char *dest, const json_t *options, json_t **result,
			struct failure *f);

#endif
