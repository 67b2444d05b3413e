#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# A daemon is killed at exact places of the hand-over of a QEMU guest and started again: the guest
# goes on at one side, is right, nothing is left of the other side, and it can be moved again.
# (Every place, with synthetic guests: tests/unit/control/session/test_session_crash.c.)
. "$(dirname "$0")/lib.sh"

hosts_up
vm_start a web rate=60 ws=32 ram=96
beats_start web
# site, what it is, where the guest is then: here or there
while read -r site what where; do
	note "$site: $what"
	crash_at "$site" "$where" web
	case $(vm_qmp "$HERE" web query-migrate-capabilities |
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
move "$HERE" "$(peer_of "$HERE")" web
want_completed
vm_verify "$(peer_of "$HERE")" web
beats_stop web
