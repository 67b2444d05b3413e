#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# A daemon is killed, and while it is down somebody else takes the VM's monitors. A VM that cannot be
# spoken to is not one that has gone: nothing is ended, nothing is run twice, and when the monitors
# are free again everything comes to its end.
. "$(dirname "$0")/lib.sh"

# Both monitors of a VM, until release. It says when it has been greeted.
hold() {
	local host=$1 name=$2 what

	for what in qmp mon; do
		(sleep 600 | socat -t600 - "UNIX-CONNECT:$(vm_socket "$host" "$name" $what)" \
			>"$LOGS/held-$what") &
		HOLDERS+=($!)
	done
	for what in qmp mon; do
		eventually 10 grep -q QMP "$LOGS/held-$what" || fail "monitor $what is not to be had"
	done
}
release() {
	local pid

	for pid in "${HOLDERS[@]}"; do
		pkill -P "$pid"
		kill "$pid" 2>/dev/null
	done
	HOLDERS=()
}
HOLDERS=()

state_of() { cli "$1" status --json | jq -r '[.. | objects | select(has("id") and has("state"))]
	| first | .state'; }
is_state() { [ "$(state_of "$1")" = "$2" ]; }

hosts_up
vm_start a web rate=40 ws=32 ram=128
beats_start web

note "at the destination, loaded"
TRANSHIP_FAULT='' daemon_start a
TRANSHIP_FAULT=destination.journal.prepared.after:kill daemon_start b
pid=$(daemon_pid b)
move_start a b web
eventually 20 died "$pid" || fail "not prepared"
hold b web
TRANSHIP_FAULT='' daemon_start b
move_end
want_status 3
assert_runs a web
# it lives, loaded, and waits for what its source says: to be thrown away, as soon as it can be
vm_pid b web >/dev/null || fail "the VM of b was ended"
release
await_no_vm b 30
assert_clean b
assert_clean a web

note "at the source, committed and not told"
daemon_again a source.journal.committed.after:kill
pid=$(daemon_pid a)
move_start a b web
eventually 20 died "$pid" || fail "not committed"
hold a web
TRANSHIP_FAULT='' daemon_start a
# the destination needs nothing of the source's VM: it runs at once
eventually 10 vm_runs b web || fail "it does not run on b"
release
move_end
want_status 0
eventually 60 no_pids a -f '^[^ ]*qemu-system' || fail "the source's VM is left"
vm_verify b web
assert_clean a
assert_clean b web
beats_stop web
