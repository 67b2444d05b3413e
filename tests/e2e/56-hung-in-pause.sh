#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# The destination's transhipd hangs while it loads, or nothing comes over the link any more: the guest
# has stood still for --max-downtime and 3 s at most when it runs on at the source. What hung and comes
# back never runs it.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web rate=50 ram=192
# What nsenter runs it stops with.
go_on() {
	local pid
	pid=$(daemon_pid b)
	kill -CONT "$pid" "$(awk '/^PPid/ { print $2 }' "/proc/$pid/status")"
}
stood_still() {
	move_end
	want_status 3
	want_code pause-limit
	assert_runs a web
	beats_stop web
	want_beats '.switches == []'
	# 300 ms and 3 s, and what a busy machine makes of it; hung sockets take 8 s, a load 20 s
	want_beats '.longest_gap_ms > 2000 and .longest_gap_ms < 6500'
}

nothing_left() {
	await_no_vm b
	eventually 10 all_over b || fail "its session goes on: $(sessions b)"
	assert_clean b
	assert_clean a web
}

for site in load loaded; do
	note "transhipd of b, at its $site"
	daemon_again b destination.$site:stop
	beats_start web
	move_start a b web
	stood_still
	go_on
	nothing_left
done

note "the link"
daemon_again a source.final-copy:sleep=2000
beats_start web
move_start a b web
eventually 20 in_state a paused || fail "no pause"
"$HOSTS" link "$DIR" down
stood_still
"$HOSTS" link "$DIR" up
nothing_left
vm_verify a web
vm_tell a web go

note "transhipd of a"
daemon_again a source.load:stop
pid=$(daemon_pid a)
outer=$(awk '/^PPid/ { print $2 }' "/proc/$pid/status")
beats_start web
move_start a b web
move_end
[ "$STATUS" = 3 ] || [ "$STATUS" = 4 ] || fail "exit $STATUS"
eventually 10 vm_runs a web || fail "the guest does not run on"
beats_stop web
want_beats '.switches == [] and .longest_gap_ms > 5000 and .longest_gap_ms < 13000'
kill -CONT "$outer"
eventually 10 test ! -d "/proc/$pid" || fail "transhipd on a lives on"
TRANSHIP_FAULT='' daemon_start a
nothing_left

note "and the next move"
beats_start web
move a b web
want_completed
vm_verify b web
beats_stop web
