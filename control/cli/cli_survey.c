// SPDX-License-Identifier: MIT
/* Whether a VM runs, asked of the VMM itself; apart, because it needs the guest implementations. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "control/cli/cli_watch.h"
#include "control/guest/guest.h"
#include "lib/base/clock.h"

#define AGAIN_NS (50 * 1000000)

bool cli_guest_runs(pid_t pid, uint64_t start_time, unsigned int limit_ms)
{
	const struct timespec pause = { .tv_nsec = AGAIN_NS };
	uint64_t start = clock_ns();
	bool runs = false;
	char vm[32];

	snprintf(vm, sizeof(vm), "pid:%d", (int)pid);
	do {
		struct failure ignored = { 0 };
		struct guest *g = NULL;

		if (!guest_open(&g, vm, &ignored)) {
			/* a number used again is another process */
			runs = g->start_time == start_time && g->desc.running;
			guest_free(g);
		}
		if (!runs)
			nanosleep(&pause, NULL);
	} while (!runs && clock_ms_since(start) < limit_ms);
	return runs;
}
