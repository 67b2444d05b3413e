#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 180
# The destination dies between its commit and the guest's start, and stays away. A person has the
# source run the guest; then the destination comes back: it is told, and does not run it as well.
. "$(dirname "$0")/lib.sh"

hosts_up
daemon_start a
TRANSHIP_FAULT=destination.journal.committed.after:kill daemon_start b
vm_start a web rate=30 ram=128
daemon=$(daemon_pid b)
move_start a b web
eventually 30 died "$daemon" || fail "the destination was not told to run it"
note "nobody knows who runs it, and nobody does"
move_end
want_status 4
want '.status == "unresolved" and (.error.hint | test("end its QEMU there first"))'
id=$(jq -r .id <<<"$RESULT")
[ "$(vm_status a web)" != running ] || fail "it runs at the source by itself"
[ "$(vm_status b web)" != running ] || fail "it runs at the destination by itself"

note "the source's transhipd is started again: what may be done is still said"
daemon_again a
session_says a '.error | .code == "unresolved" and (.hint | length > 0)' ||
	fail "not said: $SESSION"

note "a person decides"
cli a resolve "$id" --run-here || fail "resolve --run-here"
assert_runs a web

note "the destination is back"
TRANSHIP_FAULT='' daemon_start b
[ "$(vm_status b web)" != running ] || fail "both run"
eventually 30 all_over b || fail "open at b: $(sessions b)"
assert_no_vm b web
assert_clean b
assert_runs a web
eventually 30 all_over a || fail "open at a: $(sessions a)"
move a b web
want_completed
vm_verify b web
