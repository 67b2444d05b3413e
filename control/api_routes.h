/* SPDX-License-Identifier: MIT */
/* The API's table of routes, apart from the HTTP server (api.c) that serves them. */
#ifndef TRANSHIP_CONTROL_API_ROUTES_H
#define TRANSHIP_CONTROL_API_ROUTES_H

#include <jansson.h>
#include <microhttpd.h>
#include <stdatomic.h>

#include "control/session/host.h"

#define API_ID_DIGITS 32u

/* One request as its handler sees it. */
struct api_call {
	struct host *host;
	const atomic_bool *ending; /* the server ends: long polls are to be answered */
	struct MHD_Connection *connection;
	char id[API_ID_DIGITS + 1];
	const json_t *in; /* an object, empty if there was no body */
};

struct api_route {
	const char *method;
	const char *path;    /* '*' stands for a session's id */
	unsigned int id_min; /* digits */
	/* 0 and *out (may stay NULL), or -errno and f. May block for as long as host.h says. */
	int (*handle)(struct api_call *c, json_t **out, struct failure *f);
};

/* Finds the route and takes the id into c; NULL with f: *status is the answer. */
const struct api_route *api_route_find(const char *method, const char *url, struct api_call *c,
				       unsigned int *status, struct failure *f);

#endif
