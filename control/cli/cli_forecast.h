/* SPDX-License-Identifier: MIT */
/* A forecast for a person: the object of docs/protocol.md, "A forecast", as a table. */
#ifndef TRANSHIP_CONTROL_CLI_FORECAST_H
#define TRANSHIP_CONTROL_CLI_FORECAST_H

#include <jansson.h>
#include <stdio.h>

void cli_forecast_print(FILE *to, const json_t *forecast);

#endif
