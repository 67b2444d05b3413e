/* SPDX-License-Identifier: MIT */
/* The parts of preflight_destination(): each appends its checks. */
#ifndef TRANSHIP_CONTROL_PREFLIGHT_INTERNAL_H
#define TRANSHIP_CONTROL_PREFLIGHT_INTERNAL_H

#include "control/admission/preflight.h"

void preflight_cpu(json_t *checks, const struct guest_description *source,
		   const struct host_facts *h);
void preflight_memory(json_t *checks, const struct guest_description *source,
		      const struct guest_description *incoming, const struct host_facts *h);
void preflight_disks(json_t *checks, const struct guest_description *source);

#endif
