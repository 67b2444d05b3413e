#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# The VM is killed at the destination in the middle of a post-copy: it is reported as lost, with what
# can still be had: the guest as it was at the switch-over, if a person wants that. So it is if a
# person gives the VM up there, because its source has gone, and the source comes back.
. "$(dirname "$0")/lib.sh"

ready_hosts

vm_start a web ram=128 rate=40 ws=100 grain=16
move_start a b web --mode postcopy --bandwidth 200Mbit
eventually 40 serving || fail "post-copy does not begin"
id=$(session_id a)
kill -KILL "$(vm_pid b web)"
move_end
want_status 4
want '.status == "unresolved" and .error.code == "unresolved"'
want '.error.message | test("lost")'
want '.error.hint | test("run-here") and test("switch-over")'
note "$(jq -c .error <<<"$RESULT")"
vm_pid a web >/dev/null || fail "what was left at the source is gone"
[ "$(vm_qmp a web query-status | jq -r .running)" = false ] || fail "it runs by itself"
cli a resolve "$id" --run-here || fail "resolve --run-here"
# it was asked to give up what it has before the guest ran here
cli b status "$id" --json | jq -e '.state == "failed"' >/dev/null || fail "the destination still waits"
assert_runs a web
vm_verify a web
assert_clean b
assert_clean a web

note "given up there, as its source has gone"
vm_end a web
vm_start a two rate=40 ws=100 ram=128 grain=16
beats_start two
move_start a b two --mode postcopy --bandwidth 300Mbit
eventually 40 serving || fail "post-copy does not begin"
id=$(session_id a)
linger two 10 20Mbit
! out=$(cli b resolve "$id" --give-up 2>&1) || fail "a guest that is served was given up"
[[ $out == *"the source serves its pages"* ]] || fail "not the reason: $out"
daemon_kill a
eventually 10 cli b resolve "$id" --give-up || fail "resolve --give-up at the destination"
assert_no_vm b two
cli b status "$id" --json | jq -e '.state == "failed"' >/dev/null || fail "it is not over"
assert_clean b
TRANSHIP_FAULT=source.journal.failed.before:kill daemon_start a
unresolved() { cli a status "$id" --json | jq -e '.state == "unresolved"'; }
eventually 40 unresolved || fail "the source does not ask for a decision"
wait "$MOVE"
[ "$(vm_qmp a two query-status | jq -r .running)" = false ] || fail "it runs by itself"
note "what a person decides outlives transhipd, which dies when the guest has run on"
pid=$(daemon_pid a)
! cli a resolve "$id" --run-here || fail "transhipd did not die"
eventually 10 died "$pid" || fail "transhipd did not die"
TRANSHIP_FAULT='' daemon_start a
is_over() { cli a status "$id" --json | jq -e '.state == "failed"'; }
eventually 10 is_over || fail "it is open again: $(cli a status "$id" --json | jq -c '{state, error}')"
assert_runs a two
vm_verify a two
assert_clean a two
