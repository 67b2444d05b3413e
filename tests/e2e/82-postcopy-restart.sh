#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 300
# Either transhipd is killed in post-copy and started again: the guest waits, and then goes on.
. "$(dirname "$0")/lib.sh"

ready_hosts
serving() { in_state a running && [ "$(dataplane_pid b | wc -l)" -ge 1 ]; }
done_on() { cli "$1" status --json | jq -e --arg id "$2" '[.. | objects | select(.id? == $id)] |
	first | .terminal and .state == "done"' >/dev/null; }

for side in b a; do
	note "transhipd of $side is killed"
	vm_start a "vm$side" rate=40 ws=200 grain=16
	beats_start "vm$side"
	move_start a b "vm$side" --mode postcopy --bandwidth 200Mbit
	eventually 40 serving || fail "post-copy does not begin"
	id=$(session_id a)
	sleep 0.5
	serving || fail "post-copy was over too soon"
	daemon_kill $side
	sleep 1
	daemon_start $side
	STATUS=0
	wait "$MOVE" || STATUS=$?
	eventually 60 done_on a "$id" || fail "the source does not come to its end"
	eventually 20 done_on b "$id" || fail "the destination does not come to its end"
	[ $side = a ] || [ "$STATUS" = 0 ] || fail "exit $STATUS"
	assert_runs b "vm$side"
	assert_no_vm a "vm$side"
	vm_verify b "vm$side"
	beats_stop "vm$side"
	assert_clean a
	assert_clean b "vm$side"
	vm_end b "vm$side"
done
