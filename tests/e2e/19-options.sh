#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# --dry-run, --keep-src, --no-start, --detach, --batch, a paused VM, and a guest with prealloc.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web rate=30

note "a dry run changes nothing"
move a b web --dry-run
want_status 0
assert_runs a web
assert_no_vm b web
assert_clean a web
assert_clean b

note "--keep-src leaves the source paused, and its RAM"
move a b web --keep-src
want_completed
[ "$(vm_status a web)" != running ] || fail "two copies run"
vm_pid a web >/dev/null || fail "the source is gone"
vm_verify b web
assert_clean b web

note "which says where it has gone, and is not to run on"
moved=$(vm_pid b web)
move a b web
want_status 2
want_code vm-not-running
want '.error.message | test("has moved to unix:.*and was kept here")'
want '.error.hint | test("^End this one")'
cli a list | grep -q '^web .* no: The VM has moved to unix:' || fail "list: $(cli a list)"
[ "$(vm_pid b web)" = "$moved" ] || fail "the moved VM has gone"
vm_end a web
vm_tell b web go

note "--no-start leaves the destination paused"
move b a web --no-start
want_status 0
want '.status == "completed"'
assert_no_vm b web
[ "$(vm_status a web)" = paused ] || fail "it is $(vm_status a web)"
vm_qmp a web cont
assert_runs a web
vm_verify a web

note "a VM that was paused stays paused"
vm_tell a web go
vm_qmp a web stop
move a b web
want_status 0
[ "$(vm_status b web)" = paused ] || fail "it is $(vm_status b web)"
vm_qmp b web cont
assert_runs b web
vm_verify b web

note "QEMU leaves it in postmigrate when its move fails, which is told, and may run on"
vm_tell b web go
vm_qmp b web stop
daemon_again a destination.loaded:error
move b a web
want_status 3
if [ "$(vm_status b web)" = postmigrate ]; then # QEMU since 8.2 puts it back
	move b a web
	want_code vm-not-running
	want '.error.message | test("paused when session .* failed")'
	want '.error.hint | test("runs nowhere else")'
fi
vm_qmp b web cont
assert_runs b web
vm_verify b web

note "so does one that was started with -S and has not run yet"
vm_start b fresh paused=1 ram=128
[ "$(vm_status b fresh)" = prelaunch ] || fail "it is $(vm_status b fresh)"
move b a fresh
want_status 0
vm_runs a fresh && fail "it runs"
vm_qmp a fresh cont
assert_runs a fresh
vm_verify a fresh
vm_end a fresh

note "--detach prints the id, and the session goes on"
vm_tell b web go
move b a web --detach
want_status 0
want '.status == "started" and (.id | length > 0)'
id=$(jq -r .id <<<"$RESULT")
await_no_vm b
eventually 5 vm_runs a web || fail "it does not run at the destination"
vm_verify a web
note "and its result outlives the daemon; a dry run is not taken for a move"
ended() { cli "$1" status "$id" --json | jq -e .terminal; }
eventually 5 ended b || fail "the detached session does not end"
eventually 5 ended a || fail "the detached session does not end at the destination"
before=$(cli b status "$id" --json | jq -Sc .result)
for host in a b; do
	daemon_again $host
done
RESULT=$(cli b status "$id" --json | jq -c .result)
[ "$(jq -Sc . <<<"$RESULT")" = "$before" ] || fail "not $before"
want_completed
cli a status "$id" --json | jq -e '.state == "done" and .vm == "web" and .side == "destination"' ||
	fail "the destination has forgotten the session"
move a b web --dry-run
cli a status | grep -E ' web .* dry-run ' || fail "$(cli a status)"
vm_end a web

note "prealloc on both sides"
checked_move pre "prealloc=1 rate=30 ram=192 use=64"
