/* SPDX-License-Identifier: MIT */
/* A forecast of a real migration: the VM is watched, the path is probed, nothing is moved. */
#ifndef TRANSHIP_CONTROL_PREDICT_H
#define TRANSHIP_CONTROL_PREDICT_H

#include <jansson.h>

#include "control/guest/guest.h"
#include "control/session/session.h"

/*
 * Of the guest, which the session has claimed, to dest with a migration's options, after watching
 * it for ms milliseconds. stop_fd: as dirty_measure(). *out: the object of docs/protocol.md, "A
 * forecast".
 */
int session_forecast(struct session *s, struct guest *g, const char *dest, const json_t *options,
		     int stop_fd, unsigned int ms, json_t **out, struct failure *f);

#endif
