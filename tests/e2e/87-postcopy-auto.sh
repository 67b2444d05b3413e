#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# --mode auto and hybrid end in post-copy where rounds do not pay. Where post-copy cannot be prepared
# they go on without it, to whatever end that has; who asked for it by name is told why it cannot be.
. "$(dirname "$0")/lib.sh"

ready_hosts
web="ram=128 rate=60 ws=64 grain=16"

for mode in auto hybrid; do
	note "--mode $mode"
	checked_move "$mode" "$web" --mode "$mode" --impact 0 --compress off --bandwidth 200Mbit --max-downtime 100ms
	want '.mode == "hybrid" and .postcopy.complete and .postcopy.faults > 0'
	want '.decisions[-1].action == "postcopy"'
	vm_end b "$mode"
	assert_clean b
done

note "it cannot be prepared: a longer pause is allowed in the end"
daemon_again b destination.postcopy:error
# shellcheck disable=SC2086
vm_start a web $web
beats_start web
move_start a b web --mode auto --impact 0 --compress off --bandwidth 200Mbit --max-downtime 100ms
eventually 40 grep -q "post-copy cannot be had" "$LOGS/transhipd-a.log" || fail "it was not withdrawn"
in_state a copying || fail "it does not go on"
cli a tune "$(session_id a)" --max-downtime 10s || fail "tune"
move_end
want_completed
want '.mode != "postcopy" and .postcopy == null'
want '[.decisions[].action] | index("postcopy") != null and .[-1] == "switch-over"'
vm_verify b web
beats_stop web
assert_clean a
assert_clean b web
assert_untracked "$(vm_pid b web)"
vm_end b web

note "it cannot be prepared: nothing else converges"
daemon_again b destination.postcopy:error
# It is given up after a number of rounds: short ones.
vm_start a web ram=64 rate=100 ws=32
beats_start web
move a b web --mode hybrid --impact 0 --compress off --bandwidth 400Mbit --max-downtime 50ms
want_status 3
want_code not-converging
assert_runs a web
assert_clean b
assert_clean a web

note "it was asked for by name"
daemon_again b destination.postcopy:error
move a b web --mode postcopy --compress off --bandwidth 400Mbit
want_status 3
want_code peer-failed
want '.error.message | test("[Pp]ost-copy could not be prepared")'
assert_runs a web
vm_verify a web
beats_stop web
assert_clean b
assert_clean a web
