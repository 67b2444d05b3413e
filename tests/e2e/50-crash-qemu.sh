#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# A daemon is killed at exact places of the hand-over of a QEMU guest and started again: the guest
# goes on at one side, is right, nothing is left of the other side, and it can be moved again.
# (Every place, with synthetic guests: tests/unit/control/session/test_session_crash.c.)
. "$(dirname "$0")/lib.sh"

sessions() { cli "$1" status --json | jq -c '[.. | objects | select(has("id") and has("state"))]'; }
all_over() { sessions "$1" | jq -e 'all(.[]; .terminal and (.state | ascii_downcase != "unresolved"))'; }

restart_dead() {
	local host

	for host in a b; do
		daemon_pid $host >/dev/null || daemon_start $host
	done
}

died() { ! kill -0 "$1" 2>/dev/null; }

hosts_up
vm_start a web rate=60 ws=32 ram=192
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
	move_start $here "$there" web
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
	case $(vm_qmp $here web query-migrate-capabilities |
		jq -r '.[] | select(.capability == "x-ignore-shared").state') in
	false) ;;
	*) fail "x-ignore-shared stays on" ;;
	esac
done <<'PLACES'
source.armed the_tracker_is_in_the_VM_and_nowhere_else here
source.copy copying here
source.final-copy paused here
source.journal.committed.before loaded_at_both here
source.journal.committed.after committed_and_not_told there
source.quit the_source's_VM_has_just_ended there
destination.launched launched_and_not_written_down here
destination.load about_to_load here
destination.journal.prepared.after prepared_and_not_said here
destination.journal.committed.after committed_and_not_begun there
destination.started it_runs_and_nobody_has_said_so there
PLACES
move $here "$(peer_of $here)" web
want_completed
vm_verify "$(peer_of $here)" web
beats_stop web
