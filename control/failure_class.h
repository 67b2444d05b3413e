/* SPDX-License-Identifier: MIT */
/* What kind of end a failure code stands for: the API's status and the CLI's exit code follow. */
#ifndef TRANSHIP_CONTROL_FAILURE_CLASS_H
#define TRANSHIP_CONTROL_FAILURE_CLASS_H

enum failure_class {
	FAILURE_USAGE,	    /* 400, exit 1: what was asked is malformed */
	FAILURE_NOT_FOUND,  /* 404, exit 2: it is not here */
	FAILURE_CONFLICT,   /* 409, exit 2: not now, or not in this state */
	FAILURE_REFUSED,    /* 422, exit 2: a check says no; nothing was changed */
	FAILURE_BROKEN,	    /* 500, exit 3: something went wrong; the source runs on */
	FAILURE_CANCELLED,  /* 409, exit 130 */
	FAILURE_UNRESOLVED, /* 409, exit 4: a person must decide */
};

/* Codes that this version does not know (a newer peer's) are FAILURE_BROKEN. */
enum failure_class failure_class_of(const char *code);

#endif
