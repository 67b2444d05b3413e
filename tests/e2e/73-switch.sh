#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# `tranship switch` does not wait for the round under way: a second round that would take most of a
# minute is cut short, and so it is when a change of mode lets the guest go. The first one is waited for,
# and status says so. Nothing is lost.
. "$(dirname "$0")/lib.sh"

# in_a_long_round FROM TO OPTIONS...: a first pass at 200 Mbit/s, then 20 Mbit/s for what was written
# meanwhile, tens of MiB.
in_a_long_round() {
	move_start "$1" "$2" web --impact 0 --compress off --bandwidth 200Mbit "${@:3}"
	eventually 60 session_says "$1" '.progress.round >= 2' || fail "no second round: $SESSION"
	cli "$1" tune "$(session_id "$1")" --bandwidth 20Mbit || fail "tune"
	eventually 10 session_says "$1" '.goals.bandwidth == 2500000' || fail "not tuned: $SESSION"
	session_says "$1" '.progress.pending_bytes > 40000000' || fail "too little is left: $SESSION"
}

# cut_was REASON: of the rounds one was cut, soon, and little of it was sent.
cut_was() {
	want_completed
	want '[.rounds[] | select(.cut)] | length == 1 and .[0].ms < 12000'
	want "any(.decisions[]; .reason == \"$1\")"
	note "$(jq -c '{cut: [.rounds[] | select(.cut)], downtime_ms, total_ms}' <<<"$RESULT")"
}

# From a to b, in the second round.
switched_over() {
	in_a_long_round a b --mode precopy --max-downtime 30ms
	id=$(session_id a)
	cli a switch "$id" || fail "switch"
	eventually 10 session_says a 'any(.events[]; .text | test("cut short: asked for by the user"))' ||
		fail "the round is not cut: $SESSION"
	# The pause must not take as long as the round would have.
	cli a tune "$id" --bandwidth unlimited || fail "tune"
	move_end
	cut_was asked
}

ready_hosts
vm_start a web ram=192 rate=40 ws=128
beats_start web

note "switched over in its second round"
switched_over
want '.reason == "asked for by the user"'
assert_runs b web
vm_verify b web
vm_tell b web go

note "sent to post-copy in its second round"
in_a_long_round b a --mode precopy --max-downtime 150ms
id=$(session_id b)
cli b tune "$id" --mode postcopy || fail "tune"
eventually 10 session_says b '.state == "running" or .state == "committed"' ||
	fail "not in post-copy: $SESSION"
cli b tune "$id" --bandwidth unlimited || fail "tune"
move_end
cut_was one-pass
want '.mode == "postcopy" and .postcopy.complete'
assert_runs a web
vm_verify a web
vm_tell a web go

note "the first pass is waited for"
move_start a b web --mode precopy --impact 0 --compress off --bandwidth 20Mbit
eventually 30 session_says a '.progress.round == 1' || fail "no round: $SESSION"
id=$(session_id a)
cli a switch "$id" || fail "switch"
eventually 10 session_says a '.progress.reason | test("waits for the first full pass")' ||
	fail "status does not say what is waited for: $SESSION"
cli a status "$id" | grep -q 'waits for the first full pass' || fail "nor does it for people"
cli a tune "$id" --bandwidth unlimited || fail "tune"
move_end
want_completed
want '.reason == "asked for by the user" and all(.rounds[]; has("cut") | not)'
assert_runs b web
vm_verify b web
beats_stop web
want_beats '.switches | length == 3'
assert_clean a
assert_clean b web
vm_end b web

# What is written by direct I/O is only known to be right when that has been drained; who wants the
# guest to go now does not wait for another round because of it.
note "with a disk that is written past the page cache"
truncate -s 16M "$DIR/disk.img"
vm_start a web ram=192 rate=40 ws=128 disk="$DIR/disk.img" disk_options=cache=none,aio=native
switched_over
# At the begin and before the switch-over; the round after the cut one is the pause's, in which all is left.
cli a status "$id" --json | jq -e '[.events[] | select(.text | test("block I/O drained"))] | length == 2' \
	>/dev/null || fail "not drained: $(cli a status "$id" --json | jq -c .events)"
want '.rounds[2].pages > 5000 and .rounds[2].ms <= .downtime_ms'
assert_runs b web
vm_verify b web
assert_clean a
assert_clean b web
