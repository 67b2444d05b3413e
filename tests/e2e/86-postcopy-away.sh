#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 300
# The destination's transhipd is away in post-copy for longer than anybody waits for, and comes back.
# One guest has waited and is served on without a break; of one the source's VMM was killed meanwhile;
# one a person runs on at the source, and one he gives up: neither runs at the destination any more.
. "$(dirname "$0")/lib.sh"

ready_hosts
of() { cli "$1" status "$2" --json; }
is() { of "$1" "$2" | jq -e "$3" >/dev/null; }
declare -A ID=() CLI=()

begin() { # NAME: up to the middle of a post-copy
	vm_start a "$1" ram=64 rate=30 ws=40 grain=16
	beats_start "$1"
	move_start a b "$1" --mode postcopy --compress off --bandwidth 150Mbit
	mv "$LOGS/result" "$LOGS/result-$1"
	eventually 40 in_state a running || fail "post-copy does not begin"
	linger "$1" 1 500kbit
	ID[$1]=$(session_id a)
	CLI[$1]=$MOVE
}

# One after the other: a session that has not ended is found by its being the only one.
session_json() {
	local known
	known=$(printf '%s\n' "${ID[@]}" | jq -Rn '[inputs]')
	cli "$1" status --json | jq -ce --argjson known "$known" '[.. | objects | select(has("state") and has("id"))]
		| map(select(.terminal != true and (.id | IN($known[]) | not))) | first // empty'
}
for name in waits killed back lost; do begin "$name"; done

note "away"
daemon_kill b
for name in waits killed back lost; do
	eventually 60 is a "${ID[$name]}" '.state == "unresolved" and .terminal' || fail "$name is not unresolved"
done
for name in waits killed back lost; do
	# shellcheck disable=SC2034
	STATUS=0
	# shellcheck disable=SC2034
	wait "${CLI[$name]}" || STATUS=$?
	# shellcheck disable=SC2034
	RESULT=$(cat "$LOGS/result-$name")
	want_status 4
	want_code unresolved
	want '.error.hint | test("run-here") and test("cannot run there")'
done
tries=$(grep -c 'post-copy, attempt' "$LOGS/transhipd-a.log")
note "$tries lines about attempts"
[ "$tries" -le 32 ] || fail "each attempt is logged"

note "decided meanwhile"
kill -KILL "$(vm_pid a killed)"
rm -f "$DIR"/a/vm/killed.*
cli a resolve "${ID[back]}" --run-here || fail "resolve --run-here"
assert_runs a back
cli a resolve "${ID[lost]}" --give-up || fail "resolve --give-up"
assert_no_vm a lost

note "back"
daemon_start b
for name in back lost; do
	eventually 20 is b "${ID[$name]}" '.state == "failed"' || fail "$name is not over at the destination"
	assert_no_vm b "$name"
done
vm_verify a back
vm_tell a back go >/dev/null
for name in waits killed; do
	eventually 5 is a "${ID[$name]}" '.state == "running" and (.terminal | not) and
		(has("error") or has("result") | not)' || fail "$name is not running again: $(of a "${ID[$name]}")"
done
cli a tune "${ID[waits]}" --bandwidth 8Mbit || fail "tune"
! cli a resolve "${ID[waits]}" --run-here 2>"$LOGS/refused" || fail "what goes on was resolved"
grep -q "nothing to resolve" "$LOGS/refused" || fail "$(cat "$LOGS/refused")"
! cli b resolve "${ID[waits]}" --give-up 2>"$LOGS/refused" || fail "what is served was given up"
grep -q "source serves" "$LOGS/refused" || fail "$(cat "$LOGS/refused")"

note "without a break"
again=$(grep -c 'post-copy goes on' "$LOGS/transhipd-a.log")
before=$(of a "${ID[waits]}" | jq .progress.pending_bytes)
sleep 4
after=$(of a "${ID[waits]}" | jq .progress.pending_bytes)
note "pending: $before, 4 s later $after"
[ "$after" -lt $((before - 1500000)) ] || fail "it is not served without a break"
[ "$(grep -c 'post-copy goes on' "$LOGS/transhipd-a.log")" = "$again" ] || fail "it was connected again"
for name in waits killed; do
	cli a tune "${ID[$name]}" --bandwidth unlimited || fail "tune"
	eventually 30 is a "${ID[$name]}" '.state == "done" and .result.status == "completed"' ||
		fail "$name does not come to its end: $(of a "${ID[$name]}")"
	eventually 10 is b "${ID[$name]}" '.state == "done"' || fail "$name is not over at the destination"
	assert_runs b "$name"
	assert_no_vm a "$name"
	vm_verify b "$name"
	beats_stop "$name"
	vm_end b "$name"
done
vm_end a back
assert_clean b
assert_clean a
