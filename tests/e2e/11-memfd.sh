#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 60
# RAM in a memfd: QEMU 7.2 moves it; QEMU 8.1 and newer would send it whole, which is refused.
. "$(dirname "$0")/lib.sh"

ready_hosts
checked_move web "backing=memfd rate=50"
if [ -x "$QEMU10" ]; then
	vm_start a new backing=memfd qemu=10 ram=128
	move a b new
	want_status 2
	want '.status == "refused"'
	want_code ram-memfd
	want '.error.hint | length > 0'
	assert_runs a new
	assert_no_vm b new
	assert_clean a new
fi
