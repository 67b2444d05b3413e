// SPDX-License-Identifier: MIT
/* The class of each failure code; what is not in the table is FAILURE_BROKEN. */
#include "control/failure_class.h"

#include <stddef.h>
#include <string.h>

static const struct {
	const char *code;
	enum failure_class class;
} classes[] = {
	{ "usage", FAILURE_USAGE },
	{ "vm-not-found", FAILURE_NOT_FOUND },
	{ "session-not-found", FAILURE_NOT_FOUND },
	{ "vm-ambiguous", FAILURE_CONFLICT },
	{ "vm-busy", FAILURE_CONFLICT },
	{ "session-state", FAILURE_CONFLICT },
	{ "busy", FAILURE_CONFLICT },
	{ "cancelled", FAILURE_CANCELLED },
	{ "unresolved", FAILURE_UNRESOLVED },
	{ "peer-version", FAILURE_REFUSED },
	{ "plaintext-refused", FAILURE_REFUSED },
	{ "encryption-unavailable", FAILURE_REFUSED },
	{ "unsupported-option", FAILURE_REFUSED },
	{ "vm-not-running", FAILURE_REFUSED },
	{ "qmp-busy", FAILURE_REFUSED },
	{ "ram-not-shared", FAILURE_REFUSED },
	{ "ram-memfd", FAILURE_REFUSED },
	{ "ram-layout", FAILURE_REFUSED },
	{ "ram-unsupported", FAILURE_REFUSED },
	{ "memory", FAILURE_REFUSED },
	{ "cpu-model", FAILURE_REFUSED },
	{ "machine-type", FAILURE_REFUSED },
	{ "qemu-version", FAILURE_REFUSED },
	{ "device-blocks", FAILURE_REFUSED },
	{ "device-passthrough", FAILURE_REFUSED },
	{ "outside-writer", FAILURE_REFUSED },
	{ "disk-not-shared", FAILURE_REFUSED },
	{ "confidential", FAILURE_REFUSED },
	{ "launch-refused", FAILURE_REFUSED },
	{ "incoming-not-waiting", FAILURE_REFUSED },
	{ "tracker-unavailable", FAILURE_REFUSED },
};

enum failure_class failure_class_of(const char *code)
{
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (!strcmp(classes[i].code, code))
			return classes[i].class;
	return FAILURE_BROKEN;
}
