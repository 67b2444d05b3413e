/* SPDX-License-Identifier: MIT */
/*
 * A forecast: a model in the simulator, in every mode that its hosts have, and what becomes of it
 * if rates are not quite what they were taken for.
 */
#ifndef TRANSHIP_CONTROL_FORECAST_H
#define TRANSHIP_CONTROL_FORECAST_H

#include <jansson.h>

#include "control/policy/model.h"

/* The rates of link and hosts, and those of the writes, are each taken this much off. */
#define FORECAST_SPREAD 0.15

/* The object of docs/protocol.md, "A forecast"; a new reference. */
json_t *forecast(const struct model *m);

#endif
