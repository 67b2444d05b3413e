#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 400
# A daemon is killed at exact places of a switch-over to post-copy and started again: the guest goes on
# at one side, is right, and nothing is left of the other side.
. "$(dirname "$0")/lib.sh"

sessions() { cli "$1" status --json | jq -c '[.. | objects | select(has("id") and has("state"))]'; }
all_over() { sessions "$1" | jq -e 'all(.[]; .terminal and (.state | ascii_downcase != "unresolved"))'; }
died() { ! kill -0 "$1" 2>/dev/null; }

restart_dead() {
	local host

	for host in a b; do
		daemon_pid $host >/dev/null || daemon_start $host
	done
}

hosts_up
vm_start a web rate=60 ws=100 ram=192
beats_start web
here=a
# site, what it is, where the guest is then: here or there
while read -r site what where; do
	there=$(peer_of $here)
	case $site in source.*) victim=$here ;; *) victim=$there ;; esac
	note "$site: $what"
	for host in a b; do
		daemon_pid $host >/dev/null && daemon_kill $host
		case $host in
		"$victim") TRANSHIP_FAULT=$site:kill daemon_start $host ;;
		*) TRANSHIP_FAULT='' daemon_start $host ;;
		esac
	done
	pid=$(daemon_pid "$victim")
	move_start $here "$there" web --mode postcopy --bandwidth 800Mbit
	eventually 30 died "$pid" || fail "$site was not reached"
	TRANSHIP_FAULT='' restart_dead
	move_end
	eventually 60 all_over a || fail "open at a: $(sessions a)"
	eventually 60 all_over b || fail "open at b: $(sessions b)"
	[ "$where" = here ] || here=$there
	eventually 5 vm_runs $here web || fail "the guest does not run on $here"
	assert_no_vm "$(peer_of $here)" web
	vm_verify $here web
	vm_tell $here web go
	assert_clean "$(peer_of $here)"
	assert_clean $here web
done <<'PLACES'
source.postcopy decided here
destination.postcopy the_VM_that_waits_faults here
source.pause connected here
source.load the_set_is_named here
destination.load faults_are_served here
destination.loaded loaded_from_RAM_that_is_not_there here
destination.journal.prepared.after prepared_and_not_answered here
source.commit not_committed here
source.journal.committed.after committed_and_not_said there
destination.journal.committed.after committed_and_not_run there
destination.started it_runs_and_nobody_has_heard there
source.answered it_runs_and_needs_us there
source.serving serving there
destination.journal.running.after it_runs there
source.release complete there
PLACES
beats_stop web
