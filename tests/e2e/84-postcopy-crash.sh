#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 400
# A daemon is killed at exact places of a switch-over to post-copy and started again: the guest goes on
# at one side, is right, and nothing is left of the other side.
. "$(dirname "$0")/lib.sh"

hosts_up
vm_start a web rate=60 ws=64 ram=96
beats_start web
# site, what it is, where the guest is then: here or there
while read -r site what where; do
	note "$site: $what"
	crash_at "$site" "$where" web --mode postcopy --bandwidth 800Mbit
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
