#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 60
# Names are bytes: a VM whose name is no text is listed, moved and told about like any other. And a
# name that nobody has is said to be nobody's.
. "$(dirname "$0")/lib.sh"

ready_hosts
name=$'w\xffb\xc3'
vm_start a "$name" rate=20 ram=96 ram_file=/dev/shm/plain.ram
cli a list --json >"$LOGS/list" || fail "list: $(cat "$LOGS/list")"
shown=$(jq -r '[.. | objects | select(has("migratable"))] | first | "\(.migratable) \(.name)"' \
	"$LOGS/list")
note "listed as $shown: $(jq -r "[.. | objects | select(has(\"migratable\"))] | first | .reason" "$LOGS/list")"
case $shown in true*) ;; *) fail "it is not listed" ;; esac
# its sockets have the name too
move a b "pid:$(host_pids a -f '^[^ ]*qemu-system' | head -n 1 | xargs -I{} sh -c \
	"awk '/^NSpid/ { print \$NF }' /proc/{}/status")" --detach
note "exit $STATUS"
session=$(jq -r .id <<<"$RESULT")
eventually 20 sh -c "'$HOSTS' run '$DIR' a '$BUILD/tranship' status --json $session |
	jq -e .terminal" || fail "it does not end: $(cli a status --json "$session")"
cli a status --json "$session" >"$LOGS/session"
jq -e '.vm and .result.status == "completed"' "$LOGS/session" >/dev/null ||
	fail "$(cat "$LOGS/session")"
note "$(jq -c '[.vm, .result.status, .result.error.code, .result.error.message]' "$LOGS/session")"

move a b nobody
want_status 2
want_code vm-not-found
want '(.error.message | test("no VM named nobody")) and (.error.hint | test("tranship list"))'
