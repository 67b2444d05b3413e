#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# kill -9 of a daemon or a data plane while the guest is paused: it runs again at the source within
# a second, and the next try succeeds.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web ram=128 rate=100 ws=64
beats_start web

# The first beat after a moment of CLOCK_MONOTONIC: TOOK ms after it.
beat_after() {
	TOOK=$(awk -v t="$1" '$1 > t { printf "%d\n", ($1 - t) / 1e6; exit }' "$LOGS/web.trace")
	[ -n "$TOOK" ]
}
monotonic() { awk '{ printf "%.0f\n", $1 * 1e9 }' /proc/uptime; }

for victim in daemon-a daemon-b dataplane-a dataplane-b; do
	note "kill $victim in the pause"
	move_start a b web --bandwidth 300Mbit --max-downtime 5s
	in_the_pause a
	sleep 0.2
	host=${victim#*-}
	case $victim in
	daemon-*) pid=$(daemon_pid "$host") ;;
	dataplane-*) pid=$(dataplane_pid "$host") ;;
	esac
	kill -KILL "$pid"
	killed=$(monotonic)
	move_end
	want_status 3
	want '.status == "failed"'
	eventually 10 beat_after "$killed" || fail "the guest does not beat"
	note "the guest beats again after $TOOK ms"
	[ "$TOOK" -lt 1000 ] || fail "the guest runs only after $TOOK ms"
	case $victim in daemon-*) daemon_start "$host" ;; esac
	assert_runs a web
	await_no_vm b 15
	assert_clean b
	assert_clean a web
	vm_verify a web
	vm_tell a web go
done
move a b web
want_completed
vm_verify b web
beats_stop web
