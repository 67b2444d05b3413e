#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 60
# The plain case: QEMU 7.2, RAM in a named file, launched at the destination by its daemon.
. "$(dirname "$0")/lib.sh"

ready_hosts
checked_move web "rate=50 beat=1"
want '.vm == "web" and .tracker == "pagemap" and (.rounds | length >= 2)'
# The result's figure is the guest's, give or take 20 ms.
jq -ne --argjson b "$BEATS" --argjson r "$RESULT" \
	'$b.switches[0].downtime_ms - $r.downtime_ms | fabs < 20' >/dev/null ||
	fail "downtime_ms does not agree with the heartbeats"
