#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 200
# Changing one's mind: a move that its own bandwidth holds up is given more and ends; one that cannot
# converge is switched over by `tranship switch`, above the pause that was asked for; in post-copy the
# bandwidth still counts.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web ram=128 rate=60 ws=48
beats_start web

note "held up by its bandwidth"
move_start a b web --mode precopy --impact 0 --compress off --bandwidth 50Mbit --max-downtime 150ms
eventually 10 in_state a copying || fail "not copying"
id=$(session_id a)
eventually 10 session_says a '.progress.wire_bytes > 1000000' || fail "nothing is sent"
session_says a '.goals | .bandwidth == 6250000 and .max_downtime_ms == 150 and .impact == 0' ||
	fail "goals: $SESSION"
cli a status "$id" | grep -q 'goals .*50.0 Mbit/s' || fail "status does not show the goals"
cli a tune "$id" --bandwidth unlimited || fail "tune"
move_end
want_completed
want '.downtime_ms <= 180 and .ram.wire_bytes > 100000000'
assert_runs b web
vm_verify b web
vm_tell b web go
[ "$(cli a tune "$id" --impact 5 --json 2>/dev/null | jq -r .error.code)" = session-state ] ||
	fail "a session that has ended was tuned"

note "switched over by its user"
move_start b a web --mode precopy --impact 0 --compress off --bandwidth 200Mbit --max-downtime 60ms
eventually 10 in_state b copying || fail "not copying"
# The full pass is behind it, and what is written meanwhile cannot be sent within 60 ms.
eventually 60 session_says b '.progress.round >= 2 and .progress.reason != ""' ||
	fail "it does not get to its second round: $SESSION"
cli b switch "$(session_id b)" || fail "switch"
move_end
want_completed
want '.reason == "asked for by the user" and .downtime_ms > 60'
want 'any(.decisions[]; .action == "switch-over" and .reason == "asked")'
assert_runs a web
vm_verify a web
vm_tell a web go

note "in post-copy"
move_start a b web --mode postcopy --compress off --bandwidth 300Mbit
eventually 60 in_state a running || fail "not in post-copy"
id=$(session_id a)
# With so little it would go on for minutes.
cli a tune "$id" --bandwidth 1Mbit || fail "tune in post-copy"
code_of() { jq -r .error.code; }
[ "$(cli a tune "$id" --impact 5 --json 2>/dev/null | code_of)" = session-state ] ||
	fail "the impact was tuned after the switch-over"
[ "$(cli a switch "$id" --json 2>/dev/null | code_of)" = session-state ] ||
	fail "switched over a second time"
eventually 5 session_says a '.goals.bandwidth == 125000' || fail "not tuned: $SESSION"
# What faults fetch is not left any more, also where it is not pushed; nothing of pre-copy is shown.
eventually 20 session_says a '.progress.postcopy.faults > 200' || fail "no faults: $SESSION"
lefts_agree() {
	jq -ne --argjson a "$(cli a status "$id" --json | jq .progress.pending_bytes)" \
		--argjson b "$(cli b status "$id" --json | jq .progress.pending_bytes)" \
		'($a - $b) | fabs < 3000000'
}
eventually 20 lefts_agree || fail "the two sides do not agree on what is left"
session_says a '.progress | .dirty_rate == 0 and .predicted_downtime_ms == 0 and .postcopy.p99_us > 0' ||
	fail "$SESSION"
session_says b '.progress | .percent > 0 and .postcopy.faults > 0' || fail "$SESSION"
cli a status "$id" >"$LOGS/status"
grep -q 'post-copy .* left' "$LOGS/status" && grep -q 'faults .* median .* p99' "$LOGS/status" ||
	fail "$(cat "$LOGS/status")"
! grep -q 'if it came now\|dirtied' "$LOGS/status" || fail "$(cat "$LOGS/status")"
cli a tune "$id" --bandwidth unlimited || fail "tune in post-copy"
move_end
want_completed
want '.postcopy | .interruptions == 0 and .interrupted_ms == 0 and .max_us >= .p99_us'
want '.ram.wire_bytes > .postcopy.wire_bytes and .postcopy.wire_bytes > 0'
want '.rss_bytes | .source > 0 and .destination > 0'
want '.mode == "postcopy" and .postcopy.complete'
cli a status "$id" --json | jq -e '.progress | .percent == 100 and .pending_bytes == 0' >/dev/null ||
	fail "it ended with something left: $(cli a status "$id" --json | jq -c .progress)"
assert_runs b web
vm_verify b web
vm_tell b web go

note "pre-copy after all, when post-copy was decided on and nothing is connected yet"
daemon_again b source.postcopy:sleep=3000
move_start b a web --mode auto --impact 0 --bandwidth 200Mbit --compress off --max-downtime 40ms
eventually 60 grep -q 'postcopy after' "$LOGS/transhipd-b.log" || fail "post-copy is not decided on"
cli b tune "$(session_id b)" --mode precopy --max-downtime 4s || fail "tune"
move_end
want_completed
want '.mode == "precopy" and .postcopy == null'
want '.decisions | map(.action) | index("postcopy") and .[-1] == "switch-over"'
assert_runs a web
vm_verify a web
vm_tell a web go

note "post-copy where it cannot be had"
move_start a b web --mode precopy --verify --impact 0 --bandwidth 60Mbit --compress off --max-downtime 30ms
eventually 10 in_state a copying || fail "not copying"
[ "$(cli a tune "$(session_id a)" --mode postcopy --json 2>/dev/null | code_of)" = unsupported-option ] ||
	fail "post-copy was agreed to, with --verify"
cli a cancel "$(session_id a)" || fail "cancel"
move_end
beats_stop web
want_beats '.switches | length == 4'
assert_clean b
assert_clean a web
