#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# predict says what a migration then does, leaves no trace, and is part of a dry run.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web ram=256 rate=40 ws=64 pattern=rand
beats_start web
forecast=$(cli a predict web "$(socket_of b)" --encrypt off --seconds 2 --bandwidth 400Mbit --json) ||
	fail "predict: $forecast"
note "$forecast"
assert_untracked "$(vm_pid a web)"
jq -e '.modes[0] | .mode == "precopy" and .end == "switch-over"' <<<"$forecast" >/dev/null ||
	fail "it can be moved"
jq -e '.modes[0].total_ms | .low <= .expected and .expected <= .high' <<<"$forecast" >/dev/null ||
	fail "the range"
# 64 MiB are written at random at 40 MiB/s: of them 26 to 32 MiB in a second, more in all of it
jq -e '.measured.curve | length >= 5 and (map(.bytes) | . == sort) and (map(.ms) | . == sort)' \
	<<<"$forecast" >/dev/null || fail "the curve rises"
jq -e '.measured | .working_set_bytes / 1048576 | . > 30 and . < 80' <<<"$forecast" >/dev/null ||
	fail "the working set"

note "a dry run has it too, and changes nothing"
move a b web --dry-run
want_status 0
want '.forecast.modes[0].end == "switch-over" and .dry_run'
assert_untracked "$(vm_pid a web)"
assert_runs a web
assert_clean b

note "what then happens"
move a b web --bandwidth 400Mbit
want_status 0
note "$(jq -c '{total_ms, downtime_ms, rounds: (.rounds | length), wire: .ram.wire_bytes}' <<<"$RESULT")"
# The machine is shared: bytes, which do not depend on it, are compared, and times roughly.
said=$(jq '.modes[0].wire_bytes.expected' <<<"$forecast")
was=$(jq '.ram.wire_bytes' <<<"$RESULT")
jq -ne --argjson s "$said" --argjson w "$was" '$w / $s | . > 0.6 and . < 1.6' >/dev/null ||
	fail "$was bytes went, and $said were predicted"
said=$(jq '.modes[0].total_ms.expected' <<<"$forecast")
was=$(jq '.total_ms' <<<"$RESULT")
jq -ne --argjson s "$said" --argjson w "$was" '$w / $s | . > 0.4 and . < 2.5' >/dev/null ||
	fail "it took $was ms, and $said were predicted"
beats_stop web

note "refusals"
for args in "nobody $(socket_of b)" "web unix:/nowhere"; do
	# shellcheck disable=SC2086
	cli a predict $args --json --encrypt off >"$LOGS/refused" 2>/dev/null && fail "predict $args"
	jq -e '.error.code | length > 3' "$LOGS/refused" >/dev/null || fail "$(cat "$LOGS/refused")"
done
