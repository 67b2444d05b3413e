#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# qemu: 7 10
# Cancelled in every state that can be held: the source runs on, the destination is left clean, and
# the next move succeeds.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web ram=128 rate=100 ws=64
beats_start web

# cancelled_at STATE HOW OPTIONS...
cancelled_at() {
	local state=$1 how=$2
	shift 2
	note "cancel by $how when $state"
	move_start a b web "$@"
	case $state in
	paused) in_the_pause a ;;
	*) eventually 20 in_state a "$state" || fail "state $state is not reached" ;;
	esac
	case $how in
	signal) kill -INT "$CLI_PID" ;;
	command) cli a cancel "$(session_id a)" || fail "cancel" ;;
	esac
	move_end
	want_status 130
	want '.status == "cancelled" and .error.code == "cancelled"'
	assert_runs a web
	if [ "$state" = new ]; then
		kill -CONT "$(daemon_pid b)"
	fi
	await_no_vm b 10
	assert_clean b
	assert_clean a web
}

# How the CLI is told has nothing to do with the VMM.
ways="signal command"
[ "$QEMU" = 7 ] || ways="command"
for how in $ways; do
	kill -STOP "$(daemon_pid b)"
	cancelled_at new $how
	"$HOSTS" link "$DIR" mute
	cancelled_at negotiated $how
	"$HOSTS" link "$DIR" up
	cancelled_at copying $how --bandwidth 200Mbit
	cancelled_at paused $how --bandwidth 300Mbit --max-downtime 5s
done
move a b web
want_completed
vm_verify b web
beats_stop web
want_beats '.switches | length == 1'
