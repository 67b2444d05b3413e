#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# kill -9 of a daemon or a data plane while the guest is paused: it runs again at the source within
# a second, and the next try succeeds.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web rate=100 ws=64
beats_start web

# First beat after a moment of CLOCK_MONOTONIC, in ms after it.
beat_after() {
	sleep 1.5
	awk -v t="$1" '$1 > t { printf "%d\n", ($1 - t) / 1e6; exit }' "$LOGS/web.trace"
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
	took=$(beat_after "$killed")
	note "the guest beats again after $took ms"
	[ -n "$took" ] && [ "$took" -lt 1000 ] || fail "the guest runs only after ${took:-} ms"
	case $victim in daemon-*) daemon_start "$host" ;; esac
	assert_runs a web
	eventually 15 no_pids b -f '^[^ ]*qemu-system' || fail "a VM is left on b"
	assert_clean b
	assert_clean a web
	vm_verify a web
	vm_tell a web go
done
move a b web
want_completed
vm_verify b web
beats_stop web
